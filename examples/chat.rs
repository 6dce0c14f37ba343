//! A chat room in a VMDT cluster.

#![allow(clippy::print_stderr, reason = "a program talks to a person")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use vmdt_examples::chat::{self, Chat};
use vmdt_examples::session::Interrupted;
use vmdt_examples::terminal::{one_line, parse_threshold};
use vmdt_node::{ClusterId, NodeId};

const MORE: &str = "\
Start it in three terminals on one machine:

  cargo run --example chat

The first one runs the server and makes the room, the others find it. With three members the room
is ready: what is typed in one is read in the others. Up to sixteen more may come. In the room:
/members, /send ID PATH, /leave, /join, /quit, /help.

On several machines, run `file_transfer serve --listen 0.0.0.0:8080` on one and give the chats
--server HOST:8080; the first of them also --create 3,2.

Where input is no terminal its lines are taken as if they were typed, as soon as the room is ready,
and the program ends with the last of them.";

/// A chat room in a VMDT cluster.
#[derive(Parser)]
#[command(name = "chat", after_long_help = MORE)]
struct Cli {
    /// The server [default: the one on this machine, which the first chat starts]
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// Your name, 1 to 16 of A-Z a-z 0-9 _ - [default: the login name and 4 random characters]
    #[arg(long)]
    id: Option<NodeId>,
    /// The cluster to enter [default: the only one that the server lists]
    #[arg(long, value_name = "ID")]
    cluster: Option<ClusterId>,
    /// Create a cluster of N shares of which any K rebuild a message
    #[arg(long, value_name = "N,K", value_parser = parse_threshold, conflicts_with = "cluster")]
    create: Option<(u8, u8)>,
    /// Folder for received files
    #[arg(long, value_name = "DIR", default_value = "vmdt-downloads")]
    downloads: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli {
        server,
        id,
        cluster,
        create,
        downloads,
    } = Cli::parse();
    let id = id.map(|id| id.to_string());
    match chat::run(Chat {
        server,
        id,
        cluster,
        create,
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
