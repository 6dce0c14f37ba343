//! The fuzz targets of VMDT as plain functions from octets: they return when all is well and
//! panic when a promise is broken.
//!
//! cargo-fuzz drives them through the files in `fuzz_targets/`; the program `smoke` drives them
//! with mutated seeds where there is no nightly toolchain; and a target built without cargo-fuzz
//! runs the files named on its command line, to look at a finding with ordinary tools.

mod connection;
mod handshake;
mod sealed;
mod seeds;
mod shares;
mod wire;

use std::fs;
use std::process::ExitCode;

pub use connection::connection_pair;
pub use handshake::session_messages;
pub use sealed::{sealed_structures, tickets};
pub use shares::{manifest_parse, manifest_shares, share_parse, share_set};
pub use wire::{control_lines, line_framer, udp_headers};

/// A target, with the inputs to begin from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the name of the program and of the corpus.
    pub name: &'static str,
    /// The target.
    pub run: fn(&[u8]),
    /// Makes its seeds: small, valid inputs of every kind that it tells apart. The same each time.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "udp_headers",
        run: udp_headers,
        seeds: seeds::udp_headers,
    },
    Target {
        name: "control_lines",
        run: control_lines,
        seeds: seeds::control_lines,
    },
    Target {
        name: "line_framer",
        run: line_framer,
        seeds: seeds::line_framer,
    },
    Target {
        name: "share_parse",
        run: share_parse,
        seeds: seeds::share_parse,
    },
    Target {
        name: "share_set",
        run: share_set,
        seeds: seeds::share_set,
    },
    Target {
        name: "connection_pair",
        run: connection_pair,
        seeds: seeds::connection_pair,
    },
    Target {
        name: "manifest_parse",
        run: manifest_parse,
        seeds: seeds::manifest_parse,
    },
    Target {
        name: "manifest_shares",
        run: manifest_shares,
        seeds: seeds::manifest_shares,
    },
    Target {
        name: "sealed_structures",
        run: sealed_structures,
        seeds: seeds::sealed_structures,
    },
    Target {
        name: "tickets",
        run: tickets,
        seeds: seeds::tickets,
    },
    Target {
        name: "session_messages",
        run: session_messages,
        seeds: seeds::session_messages,
    },
];

/// Runs a target once with the content of each file named on the command line.
pub fn replay(run: fn(&[u8])) -> ExitCode {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: give the inputs to run as paths; for fuzzing see fuzz/README.md");
        return ExitCode::from(2);
    }
    for path in paths {
        match fs::read(&path) {
            Ok(data) => {
                run(&data);
                println!("{}: ok", path.display());
            }
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_accepts_its_seeds() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(seeds.len() >= 4, "{}", target.name);
            for seed in seeds {
                assert!(seed.len() <= 4096, "{}", target.name);
                (target.run)(&seed);
            }
        }
    }

    #[test]
    fn every_target_accepts_nothing_at_all() {
        for target in TARGETS {
            (target.run)(&[]);
        }
    }
}
