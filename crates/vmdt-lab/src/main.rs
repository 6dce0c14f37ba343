//! The lab's command.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(target_os = "linux")]
mod command;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "vmdt-lab: network namespaces and TUN devices are Linux's; there is no lab elsewhere"
    );
    std::process::ExitCode::FAILURE
}
