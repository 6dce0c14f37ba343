//! A chat room in a VMDT cluster.

#![allow(clippy::print_stderr, reason = "a program talks to a person")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vmdt_examples::chat::{self, Chat, Place};
use vmdt_examples::session::{Interrupted, parse_ticket};
use vmdt_examples::terminal::{one_line, parse_threshold};
use vmdt_node::Ticket;

const MORE: &str = "\
Start it in three terminals on one machine:

  cargo run --example chat

The first one runs the server and makes the room, the others find its ticket in a folder that only
their owner can read. With three members the room is ready: what is typed in one is read in the
others. More may come. In the room: /members, /send WHO PATH, /leave, /join, /quit, /help.

On several machines, run `file_transfer serve --listen 0.0.0.0:8080` on one and give the first chat
--server vmdt://KEY@HOST:8080 --create 3,2. It prints a ticket, with which the others enter:
--ticket TICKET. A ticket is a secret.

All of it is profile 1.1: encrypted, authenticated, and sealed from end to end. A name is what a
member calls itself; its id follows from its key.

Where input is no terminal its lines are taken as if they were typed, as soon as the room is ready,
and the program ends with the last of them.";

/// A chat room in a VMDT cluster.
#[derive(Parser)]
#[command(name = "chat", after_long_help = MORE)]
struct Cli {
    /// The server, as it prints it [default: one on this machine, which the first chat starts]
    #[arg(long, value_name = "vmdt://KEY@HOST:PORT", requires = "create")]
    server: Option<String>,
    /// Create a cluster of N shares of which any K rebuild a message
    #[arg(long, value_name = "N,K", value_parser = parse_threshold, requires = "server")]
    create: Option<(u8, u8)>,
    /// A ticket, or the file that it stands in, to enter the room that it is for
    #[arg(long, value_name = "TICKET|FILE", value_parser = parse_ticket, conflicts_with_all = ["server", "create"])]
    ticket: Option<Ticket>,
    /// Your name, at most 64 octets [default: the login name and 4 random characters]
    #[arg(long)]
    name: Option<String>,
    /// Folder for received files
    #[arg(long, value_name = "DIR", default_value = "vmdt-downloads")]
    downloads: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli {
        server,
        create,
        ticket,
        name,
        downloads,
    } = Cli::parse();
    match chat::run(Chat {
        room: match (server, create, ticket) {
            (Some(server), Some((n, k)), _) => Place::New { server, n, k },
            (_, _, Some(ticket)) => Place::Ticket(Box::new(ticket)),
            _ => Place::Here,
        },
        name,
        downloads,
    })
    .await
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}
