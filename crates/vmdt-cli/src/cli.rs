//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::net::mode::{ModeName, Priority};
use crate::text::{parse_octets, parse_seconds};

const AFTER: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 nobody found, 4 the other side vanished (the same command
continues), 5 wrong code, 6 a name is taken, 7 disk, 8 refused, 9 not what was sent, 130 interrupted.

Settings come from flags, then VMDT_* variables, then config.toml; `vmdt config` shows them.";

/// Send files and messages to people, over several peers at once, so that none of them can read
/// them.
#[derive(Debug, Parser)]
#[command(name = "vmdt", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print events as JSON, one per line, on stdout
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print nothing but results and errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Answer yes to every question
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) yes: bool,
    /// Show no progress
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_progress: bool,
    /// The configuration file, instead of the one in the XDG directory
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// The server to use, vmdt://KEY@HOST:PORT; several separated by commas
    #[arg(
        long,
        global = true,
        value_name = "SERVER",
        help_heading = "Global options"
    )]
    pub(crate) server: Option<String>,
    /// Speak profile 1.0: nothing is encrypted, nobody proves who they are
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) open: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send files, folders or standard input; prints the code that the receiver types
    Send(SendArgs),
    /// Receive what somebody sends
    #[command(visible_alias = "receive")]
    Recv(RecvArgs),
    /// Talk in a cluster
    Chat(ChatArgs),
    /// Run a server
    Server(ServerArgs),
    /// An interactive session with a server
    Client(ClientArgs),
    /// Be a member of a cluster: hold and carry shares for the others, and take files
    Node(NodeArgs),
    /// Split a file into shares on disk
    Split(SplitArgs),
    /// Rebuild a file from its shares
    Combine(CombineArgs),
    /// Check shares against each other
    Verify(SharesArgs),
    /// Show what is public about shares, datagrams, captures and control lines
    Inspect(InspectArgs),
    /// Renew version 1 shares: the file stays, old shares do not fit the new ones
    Refresh(RefreshArgs),
    /// Print this node's id, which follows from its key; makes the key where there is none
    Id,
    /// The peers of finished transfers, and how reliable they were
    Peers,
    /// The clusters of a server
    Status,
    /// Tell how a transfer travelled, and who could have read it
    Explain(ExplainArgs),
    /// List finished transfers
    Receipts(ReceiptsArgs),
    /// Examine this machine and its network, and say what to do
    Doctor,
    /// Show the settings and where they come from
    Config(ConfigArgs),
    /// Draw the statistics of a transfer as SVG
    Plot(PlotArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them to a folder
    Man(ManArgs),
}

/// How a transfer uses the network.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Transfer mode")]
pub(crate) struct ModeArgs {
    /// How to use the network
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeName>,
    /// token-bucket: octets that may leave at once (64k, 1M)
    #[arg(short = 'b', long, value_name = "OCTETS", value_parser = parse_octets)]
    pub(crate) bucket: Option<u64>,
    /// token-bucket: octets per second
    #[arg(short = 'r', long, value_name = "OCTETS", value_parser = parse_octets)]
    pub(crate) rate: Option<u64>,
    /// aimd: first congestion window, KiB
    #[arg(short = 'w', long, value_name = "KIB")]
    pub(crate) window: Option<u64>,
    /// aimd: smallest congestion window, KiB
    #[arg(long, value_name = "KIB")]
    pub(crate) min_window: Option<u64>,
    /// aimd: largest congestion window, KiB
    #[arg(long, value_name = "KIB")]
    pub(crate) max_window: Option<u64>,
    /// aimd: do not take a timeout for congestion
    #[arg(long)]
    pub(crate) no_timeout: bool,
    /// aimd: do not take duplicate acknowledgements for congestion
    #[arg(long)]
    pub(crate) no_dupack: bool,
    /// qos: priority among transfers
    #[arg(short = 'p', long, value_enum)]
    pub(crate) priority: Option<Priority>,
    /// parallel: streams at once
    #[arg(short = 't', long, value_name = "STREAMS")]
    pub(crate) threads: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Files and folders; - is standard input
    #[arg(required_unless_present = "text", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Send this text instead of files; - reads it from standard input
    #[arg(long, conflicts_with = "paths", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// The name that standard input gets
    #[arg(long, default_value = "stdin")]
    pub(crate) name: String,
    /// Send through a cluster's members instead of directly: its ticket, or a file with it; with
    /// --open its id
    #[arg(long, value_name = "TICKET", env = "VMDT_VIA", hide_env_values = true)]
    pub(crate) via: Option<String>,
    /// How many receivers to serve before ending (multicast)
    #[arg(short = 'm', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) receivers: Option<u32>,
    /// Give up when nobody came for this long, seconds; never by default
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) wait: Option<Duration>,
    /// Show no QR code
    #[arg(long)]
    pub(crate) no_qr: bool,
    /// Write statistics of the transfer to this file: JSON, or CSV when it ends in .csv
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) stats: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RecvArgs {
    /// The code or the ticket; asked for, or read from VMDT_CODE, when not given
    #[arg(env = "VMDT_CODE", hide_env_values = true)]
    pub(crate) code: Option<String>,
    /// The folder for what arrives, or - for standard output
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// Replace what has the same name
    #[arg(long, conflicts_with = "rename")]
    pub(crate) overwrite: bool,
    /// Choose another name when one is taken
    #[arg(long)]
    pub(crate) rename: bool,
    /// Look this long for the sender, and again when it vanishes, seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(crate) wait: Duration,
    /// Write statistics of the transfer to this file: JSON, or CSV when it ends in .csv
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) stats: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// The code or ticket that another `vmdt chat` shows, or a cluster's ticket; with --open also
    /// a cluster's id. A new room when not given
    #[arg(env = "VMDT_CODE", hide_env_values = true)]
    pub(crate) room: Option<String>,
    /// The name to be seen under; with --open the id: 1 to 16 of A-Z a-z 0-9 _ -
    #[arg(long, visible_alias = "id")]
    pub(crate) name: Option<String>,
    /// Shares that rebuild a message, in a new room
    #[arg(short, default_value_t = 2)]
    pub(crate) k: u8,
    /// Shares of a message, in a new room
    #[arg(short, default_value_t = 2)]
    pub(crate) n: u8,
    /// Where files sent to you go; without it they are refused
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// Fill the screen: members, paths, transfers
    #[arg(long)]
    pub(crate) tui: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where to listen, under TLS; with --open without. Port 0 lets the system pick
    /// [default: 0.0.0.0:8080]
    #[arg(short, long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Listen for profile 1.0 here, too: without any protection
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) plain: Option<String>,
    /// Answer health checks and metrics over HTTP here; unprotected, so keep it on the loopback
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Option<String>,
    /// The server's key file; in the state directory by default, made where there is none
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Option<PathBuf>,
    /// What outlives a restart; in the state directory by default
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "no_store")]
    pub(crate) store: Option<PathBuf>,
    /// Keep nothing: a restart forgets all clusters
    #[arg(long)]
    pub(crate) no_store: bool,
    /// The host, and port where it is another one, that others reach this server at
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) public: Option<String>,
    /// Write the server's address for nodes to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) url_file: Option<PathBuf>,
    /// Limits and the rest, as TOML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) settings: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The server, vmdt://KEY@HOST:PORT or KEY@HOST; with --open its host. The configured one
    /// when not given
    pub(crate) host: Option<String>,
    /// The server's port, where the server does not name one
    #[arg(default_value_t = 8080)]
    pub(crate) port: u16,
    /// The name to be seen under; with --open the id: 1 to 16 of A-Z a-z 0-9 _ -
    #[arg(long, visible_alias = "id")]
    pub(crate) name: Option<String>,
    /// Where received files go
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The ticket of the cluster to join; better in VMDT_TICKET or --ticket-file
    #[arg(env = "VMDT_TICKET", hide_env_values = true, conflicts_with = "create")]
    pub(crate) ticket: Option<String>,
    /// A file with the ticket, which is waited for; with --create it is written there, and used
    /// when it is there already
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "ticket")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// With --open: the cluster to join; `auto` joins the only one there is, or waits for it
    #[arg(long, conflicts_with_all = ["create", "ticket", "ticket_file"])]
    pub(crate) cluster: Option<String>,
    /// Create a cluster instead: N,K
    #[arg(long, value_name = "N,K", value_parser = parse_policy)]
    pub(crate) create: Option<(u8, u8)>,
    /// The name to be seen under; with --open the id: 1 to 16 of A-Z a-z 0-9 _ -
    #[arg(long, visible_alias = "id")]
    pub(crate) name: Option<String>,
    /// Take files into this folder; without it they are refused
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// Keep in this folder what outlives the process: shares held for others, transfers under way
    #[arg(long, env = "VMDT_STORAGE", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) storage: Option<PathBuf>,
}

/// `N,K`: N shares of which K are needed.
fn parse_policy(text: &str) -> Result<(u8, u8), String> {
    let parsed = text
        .split_once(',')
        .and_then(|(n, k)| Some((n.trim().parse().ok()?, k.trim().parse().ok()?)));
    match parsed {
        Some((n, k)) if 2 <= k && k <= n => Ok((n, k)),
        _ => Err("N,K with 2 <= K <= N <= 255 is needed, such as 5,3".into()),
    }
}

/// The format of shares on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShareVersion {
    /// The format of VMDT's protocol document: every share as large as the file, nothing detected
    #[value(name = "1")]
    V1,
    /// Verifiable and dispersed: shares of 1/k of the file, every altered one is found
    #[value(name = "2")]
    V2,
}

#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    /// The file to split
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Shares that rebuild the file
    #[arg(short)]
    pub(crate) k: u8,
    /// Shares to make
    #[arg(short)]
    pub(crate) n: u8,
    /// The format of the shares
    #[arg(long, value_enum, default_value = "2")]
    pub(crate) format: ShareVersion,
    /// The folder for the shares; the file's own by default
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// Replace shares that are there
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CombineArgs {
    /// The shares, k or more
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub(crate) shares: Vec<PathBuf>,
    /// The file to write, or - for standard output; by default the name the shares were made
    /// from, in the current folder
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SharesArgs {
    /// The shares
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub(crate) shares: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Shares, datagrams (raw, or hexadecimal one per line), captures (pcap), files of control
    /// lines; - reads datagrams or control lines from standard input
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RefreshArgs {
    /// All shares that are to live on, k or more; those that are left out become useless
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub(crate) shares: Vec<PathBuf>,
    /// The folder for the new shares, which keep their names
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The transfer's id, or its beginning; the last one when not given
    pub(crate) transfer: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiptsArgs {
    /// The most to list, newest first
    #[arg(short, long, default_value_t = 20)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Print the path of the configuration file and end
    #[arg(long)]
    pub(crate) path: bool,
    /// Print the value of this setting and end
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// What --stats wrote
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The SVG to write; beside the statistics by default, - is standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for every command into this folder
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for words in [["vmdt", "--json", "peers"], ["vmdt", "peers", "--json"]] {
            assert!(Cli::try_parse_from(words).unwrap().global.json);
        }
        assert!(Cli::try_parse_from(["vmdt", "send"]).is_err());
        assert!(Cli::try_parse_from(["vmdt", "send", "-"]).is_ok());
    }

    #[test]
    fn a_policy_has_k_within_n() {
        assert_eq!(parse_policy("5, 3"), Ok((5, 3)));
        for wrong in ["3,5", "5", "1,1", "300,2"] {
            assert!(parse_policy(wrong).is_err(), "{wrong}");
        }
    }
}
