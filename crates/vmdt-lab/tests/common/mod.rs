//! What the tests share.
#![allow(dead_code, unreachable_pub, clippy::print_stderr)]

use std::path::Path;
use std::process::Command;

/// Whether namespaces can be made here. Says loudly when not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root() && Path::new("/dev/net/tun").exists();
    if !root {
        eprintln!("SKIPPED: this test needs root and /dev/net/tun; run it as root");
    }
    root
}

/// Whether tshark is here. Says loudly when not.
pub fn has_tshark() -> bool {
    let found = Command::new("tshark").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: this test needs tshark (package tshark)");
    }
    found
}

/// Lets the lab start its peers from the built program.
pub fn use_program() {
    vmdt_lab::process::set_program(Path::new(env!("CARGO_BIN_EXE_vmdt-lab")));
}

/// A file for this test alone, below cargo's folder for such.
pub fn scratch(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("{}-{name}", std::process::id()))
}
