//! Sends a file through a VMDT cluster: everything in one process, or as separate processes.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to a person"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use vmdt_examples::demo::{self, Demo, Step};
use vmdt_examples::roles;
use vmdt_examples::session::{Membership, Settings, parse_ticket, unless_stopped};
use vmdt_examples::terminal::{
    Meter, octets, one_line, parse_fraction, parse_seconds, parse_size, parse_threshold, printable,
};
use vmdt_node::Ticket;

const WALK_THROUGH: &str = "\
Without a command, a server and a cluster run in this one process: the first node sends PATH, or
a file made for the purpose, to the second, while every node loses some of its datagrams on
purpose. The exit code says whether the received file, read back from disk, is the one sent.

As separate processes, in five terminals (the server prints its address, vmdt://KEY@127.0.0.1:8080;
the first member makes the cluster and writes a ticket, which lets others in):

  cargo run --release --example file_transfer -- serve --listen 127.0.0.1:8080
  cargo run --release --example file_transfer -- receive --server vmdt://KEY@127.0.0.1:8080 --name bob --create 4,3 --write-ticket ticket --out received
  cargo run --release --example file_transfer -- join --ticket ticket --name carol
  cargo run --release --example file_transfer -- join --ticket ticket --name dave
  cargo run --release --example file_transfer -- send --ticket ticket --name alice --to bob Cargo.lock

On several machines, let the server listen on 0.0.0.0:8080 and give the first member its address
with a name or number in place of 0.0.0.0; the ticket tells the others. A ticket is a secret: who
has it can join. Any of them ends with Ctrl-C. While one transfer runs, kill carol or dave: it goes
on.

This is profile 1.1: all connections are encrypted and authenticated, and a file is sealed to its
receiver's key. A name is what a member calls itself; its id follows from its key.

Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage.";

/// Sends a file through a VMDT cluster, as a demonstration in one process or between several.
#[derive(Parser)]
#[command(name = "file_transfer", after_long_help = WALK_THROUGH, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    demo: DemoArgs,
}

#[derive(Args)]
struct DemoArgs {
    /// The file to send [default: pseudo-random octets]
    path: Option<PathBuf>,
    /// Octets of the file that is made; kB, MB, GB, KiB, MiB, GiB are understood
    #[arg(long, default_value = "32MiB", value_parser = parse_size, conflicts_with = "path")]
    size: u64,
    /// Nodes, and shares of each message
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..))]
    nodes: u8,
    /// Shares that rebuild a message
    #[arg(short, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..))]
    k: u8,
    /// Fraction of every node's datagrams that is lost on purpose
    #[arg(long, default_value_t = 0.06, value_parser = parse_fraction)]
    loss: f64,
    /// Folder for the received file, which is then kept [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Give up when nothing was confirmed for so many seconds [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    stall: Option<Duration>,
}

#[derive(Subcommand)]
enum Role {
    /// Run a server that members find each other through
    Serve {
        /// Where to listen; port 0 lets the system pick
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Stay in a cluster and hand on shares for others
    Join(MemberArgs),
    /// Send a file to a member
    Send {
        #[command(flatten)]
        member: MemberArgs,
        /// The receiver, by its name or, which is sure, by its id
        #[arg(long, value_name = "NAME|ID")]
        to: String,
        /// The file
        path: PathBuf,
        /// How long to wait for the cluster and the receiver
        #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, default_value = "60")]
        wait: Duration,
    },
    /// Receive files; each is printed as `digest  path`
    Receive {
        #[command(flatten)]
        member: MemberArgs,
        /// Folder for the files
        #[arg(long, value_name = "DIR", default_value_os_t = roles::default_out())]
        out: PathBuf,
        /// End after one file
        #[arg(long)]
        once: bool,
    },
}

#[derive(Args)]
struct MemberArgs {
    /// What this node calls itself [default: nothing, so that only its id is shown]
    #[arg(long)]
    name: Option<String>,
    /// A ticket, or the file that it stands in: it names the server and lets into the cluster
    #[arg(long, value_name = "TICKET|FILE", value_parser = parse_ticket, conflicts_with_all = ["server", "create"])]
    ticket: Option<Ticket>,
    /// The server, as it prints it
    #[arg(
        long,
        value_name = "vmdt://KEY@HOST:PORT",
        requires = "create",
        required_unless_present = "ticket"
    )]
    server: Option<String>,
    /// Create a cluster of N shares of which any K rebuild a message
    #[arg(long, value_name = "N,K", value_parser = parse_threshold, requires = "server")]
    create: Option<(u8, u8)>,
    /// File for the ticket of the cluster that is created [default: it is printed]
    #[arg(long, value_name = "FILE", requires = "create")]
    write_ticket: Option<PathBuf>,
    /// Fraction of this node's datagrams that is lost on purpose
    #[arg(long, default_value_t = 0.0, value_parser = parse_fraction)]
    loss: f64,
    /// Give up a transfer when nothing came or was confirmed for so many seconds [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    stall: Option<Duration>,
}

impl MemberArgs {
    fn settings(self, downloads: Option<PathBuf>) -> Result<Settings> {
        Ok(Settings {
            server: self.server,
            name: self.name,
            membership: match (self.create, self.ticket) {
                (Some((n, k)), _) => Membership::Create {
                    n,
                    k,
                    ticket: self.write_ticket,
                },
                (None, Some(ticket)) => Membership::Join(Box::new(ticket)),
                (None, None) => bail!("--ticket, or --server with --create, is needed"),
            },
            loss: self.loss,
            stall: self.stall,
            downloads,
        })
    }
}

/// Runs the demonstration; true when the file arrived as it was sent.
async fn demonstrate(demo: &Demo) -> Result<bool> {
    let mut meter: Option<Meter> = None;
    let result = unless_stopped(demo::run(demo, |step| match step {
        Step::Ready {
            server,
            nodes,
            names,
            file,
            size,
        } => {
            println!(
                "server on {server}; any {} of {} shares rebuild a message",
                demo.k, demo.nodes
            );
            for (at, (id, address)) in nodes.iter().enumerate() {
                let part = match at {
                    0 => "sends",
                    1 => "receives",
                    _ => "hands on shares",
                };
                println!("  {} ({id}) on {address} {part}", names.show(*id));
            }
            println!(
                "sending {} ({}), {}% of all datagrams are lost on purpose",
                printable(&file.display().to_string()),
                octets(size),
                (demo.loss * 1000.0).round() / 10.0
            );
            meter = Some(Meter::new("sending", Some(size)));
        }
        Step::Progress(progress) => {
            if let Some(meter) = &mut meter {
                meter.update(progress.delivered);
            }
        }
    }))
    .await;
    drop(meter);
    let summary = result?;
    println!("{summary}");
    if summary.kept {
        println!(
            "the received file is {}",
            printable(&summary.path.display().to_string())
        );
    }
    Ok(summary.is_same())
}

async fn run(cli: Cli) -> Result<bool> {
    match cli.role {
        None => {
            let DemoArgs {
                path,
                size,
                nodes,
                k,
                loss,
                out,
                stall,
            } = cli.demo;
            return demonstrate(&Demo {
                path,
                size,
                nodes,
                k,
                loss,
                out,
                stall,
            })
            .await;
        }
        Some(Role::Serve { listen }) => roles::serve(listen).await?,
        Some(Role::Join(member)) => roles::join(&member.settings(None)?).await?,
        Some(Role::Receive { member, out, once }) => {
            roles::receive(&member.settings(Some(out))?, once).await?;
        }
        Some(Role::Send {
            member,
            to,
            path,
            wait,
        }) => {
            roles::send(&member.settings(None)?, &to, &path, wait).await?;
        }
    }
    Ok(true)
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.role.is_none() && cli.demo.k > cli.demo.nodes {
        let (k, nodes) = (cli.demo.k, cli.demo.nodes);
        let text = format!("k = {k} is more than the {nodes} nodes: 2 <= k <= nodes is needed");
        Cli::command()
            .error(ErrorKind::ValueValidation, text)
            .exit();
    }
    match run(cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: what was received is not what was sent");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_path_is_not_taken_for_a_command() {
        let cli = Cli::try_parse_from(["x", "server.txt", "--loss", "0"]).unwrap();
        assert!(cli.role.is_none());
        assert_eq!(cli.demo.path, Some("server.txt".into()));
        let cli = Cli::try_parse_from(["x", "serve"]).unwrap();
        assert!(matches!(cli.role, Some(Role::Serve { .. })));
    }

    #[test]
    fn a_member_needs_a_ticket_or_makes_a_cluster_at_a_server() {
        let fails = |args: &[&str]| Cli::try_parse_from([&["x", "join"], args].concat()).is_err();
        assert!(fails(&[]));
        assert!(fails(&["--server", "vmdt://KEY@h:1"]));
        assert!(fails(&["--create", "3,2"]));
        assert!(fails(&["--ticket", "vmdt1aaaa"]), "no ticket");
        assert!(!fails(&["--server", "vmdt://KEY@h:1", "--create", "3,2"]));
    }
}
