//! The commands.

pub(crate) mod capture;
pub(crate) mod chat;
pub(crate) mod client;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod local;
pub(crate) mod recv;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod server;
mod speaking;
mod transfers;

use crate::cli::{Cli, Command};
use crate::failure::{Failure, Outcome};
use crate::out::Out;
use crate::settings::Settings;

/// The longest file that holds one line.
const MAX_LINE_FILE: usize = 16 * 1024;

/// Runs a command to its end.
pub(crate) fn run(cli: Cli, out: &Out) -> Outcome<()> {
    let mut settings = Settings::load(cli.global.config.as_deref())?;
    settings.flag("server", cli.global.server.as_ref())?;
    settings.flag("open", cli.global.open.then_some(true))?;
    if settings.is_on("open") && speaks(&cli.command) {
        out.insist("warning: profile 1.0 (--open): nothing is encrypted on the way, and nobody proves who they are");
    }
    match cli.command {
        Command::Send(args) => in_runtime(send::run(args, &settings, out)),
        Command::Recv(args) => in_runtime(recv::run(args, &settings, out)),
        Command::Split(args) => crate::shares::run_split(&args, out),
        Command::Combine(args) => crate::shares::run_combine(&args, out),
        Command::Verify(args) => crate::shares::run_verify(&args, out),
        Command::Inspect(args) => inspect::run(&args, out),
        Command::Refresh(args) => crate::shares::run_refresh(&args, out),
        Command::Id => local::id(&settings, out),
        Command::Server(args) => in_runtime_of(None, server::run(args, &settings, out)),
        Command::Node(args) => in_runtime(serve::node(args, &settings, out)),
        Command::Status => in_runtime(serve::status(&settings, out)),
        Command::Peers => local::peers(out),
        Command::Explain(args) => local::explain(&args, out),
        Command::Receipts(args) => local::list_receipts(&args, out),
        Command::Config(args) => local::config(&args, &settings, out),
        Command::Plot(args) => local::plot(&args, out),
        Command::Completions(args) => local::completions(&args, out),
        Command::Man(args) => local::man(&args, out),
        Command::Chat(args) => in_runtime(chat::run(args, &settings, out)),
        Command::Client(args) => in_runtime(client::run(args, &settings, out)),
        Command::Doctor => in_runtime(doctor::run(&settings, out)),
    }
}

/// Whether a command talks to other nodes.
fn speaks(command: &Command) -> bool {
    matches!(
        command,
        Command::Send(_)
            | Command::Recv(_)
            | Command::Chat(_)
            | Command::Server(_)
            | Command::Client(_)
            | Command::Node(_)
            | Command::Status
    )
}

/// The configured servers; where they stand in a file, once it is there.
async fn servers(settings: &Settings) -> Outcome<Vec<String>> {
    let named = settings.servers();
    let file = settings.text("server_file");
    if !named.is_empty() || file.is_empty() {
        return Ok(named);
    }
    let text = crate::stop::unless(line_of(std::path::Path::new(file))).await?;
    Ok(vec![text])
}

/// The first line of a small file, once it is there.
async fn line_of(path: &std::path::Path) -> Outcome<String> {
    loop {
        match tokio::fs::read(path).await {
            Ok(octets) if octets.len() <= MAX_LINE_FILE => {
                let text = String::from_utf8_lossy(&octets);
                if let Some(line) = text.lines().map(str::trim).find(|line| !line.is_empty()) {
                    return Ok(line.to_owned());
                }
            }
            Ok(_) => {
                return Err(Failure::usage(format!(
                    "{} is too long for one line",
                    path.display()
                )));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::disk(&e, "reading", path)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// How to look for the other side of a code.
fn search(settings: &Settings, wait: std::time::Duration) -> crate::rendezvous::joiner::Search {
    crate::rendezvous::joiner::Search {
        bind: settings.bind(),
        port: discovery_port(settings),
        wait,
        connect: settings
            .time("connection_timeout")
            .max(std::time::Duration::from_millis(100)),
    }
}

/// The UDP port of discovery; none when it is switched off.
fn discovery_port(settings: &Settings) -> Option<u16> {
    let port = || u16::try_from(settings.number("discovery_port")).ok();
    settings.is_on("discovery").then(port).flatten()
}

/// A cluster as a person named it: a ticket or a file with one, or its id in the open profile.
fn named_cluster(
    text: &str,
    settings: &Settings,
) -> Outcome<(crate::net::link::Membership, Option<crate::net::Ticket>)> {
    use crate::net::link::Membership;
    use crate::rendezvous::entrance::{is_ticket, ticket};
    if settings.is_on("open") {
        return Ok((Membership::Open(cluster_id(text)?), None));
    }
    let found = if is_ticket(text) {
        ticket(text)?
    } else {
        let path = std::path::Path::new(text);
        let text = std::fs::read_to_string(path).map_err(|_| {
            Failure::usage(format!("{text:?} is neither a ticket nor a file with one"))
                .hint("a ticket begins with vmdt1; ids of clusters are of use in profile 1.0 only")
        })?;
        ticket(&text)?
    };
    Ok((Membership::Ticket(Box::new(found.clone())), Some(found)))
}

/// Runs a command that needs the network. One thread drives the node, this one does the rest: more
/// would each keep memory of their own.
fn in_runtime(work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    in_runtime_of(Some(1), work)
}

/// Runs a command on so many threads besides this one; as many as there are processors unless said.
fn in_runtime_of(threads: Option<usize>, work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("no threads can be had: {e}")))?;
    let result = runtime.block_on(work);
    // a read of standard input or a slow disk must not hold the end up
    runtime.shutdown_background();
    result
}

/// A cluster's id as a person gave it.
pub(crate) fn cluster_id(text: &str) -> Outcome<crate::net::ClusterId> {
    text.trim()
        .parse()
        .map_err(|_| Failure::usage(format!("{text:?} is not the id of a cluster")))
}

/// Who carried how much, on one line.
pub(crate) fn carriers(paths: &crate::net::link::Carried) -> String {
    let all: u64 = paths.values().map(|(_, octets)| octets).sum();
    let parts: Vec<String> = paths
        .iter()
        .map(|(name, (_, octets))| {
            format!(
                "{name} {} ({}%)",
                crate::text::octets(*octets),
                octets * 100 / all.max(1)
            )
        })
        .collect();
    format!(
        "carried: {}",
        if parts.is_empty() {
            "nothing".into()
        } else {
            parts.join(", ")
        }
    )
}

/// A QR code for whoever has a camera.
pub(crate) fn show_qr(out: &Out, text: &str) {
    use qrcode::render::unicode::Dense1x2;
    // upper case needs fewer dots, and tickets are read in either
    if let Ok(code) =
        qrcode::QrCode::with_error_correction_level(text.to_ascii_uppercase(), qrcode::EcLevel::L)
    {
        let image = code
            .render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build();
        out.say(image);
    }
}
