//! `vmdt`: send files and messages to people, over several peers at once.

mod cli;
mod clock;
mod cmd;
mod console;
mod failure;
mod net;
mod out;
mod plot;
mod rendezvous;
mod settings;
mod shares;
mod state;
mod stats;
mod stop;
mod text;
mod tui;
mod xfer;

use std::process::ExitCode;

use clap::Parser as _;

use crate::failure::{Failure, Outcome};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let out = out::Out::new(&cli.global);
    match cmd::run(cli, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Random octets of the system.
pub(crate) fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets)
        .map_err(|e| Failure::failed(format!("the system gives no random numbers: {e}")))?;
    Ok(octets)
}
