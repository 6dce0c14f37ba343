//! `vmdt doctor`: what on this machine and its network stands in the way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::clock::{date, now, unix_seconds};
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::{Link, Membership, NodeSettings};
use crate::net::local::addresses;
use crate::net::who::{self, Who};
use crate::out::Out;
use crate::rendezvous::discovery::{Responder, find};
use crate::settings::{Settings, state_dir};
use crate::text::{octets, printable};

/// Octets of a socket buffer below which fast links suffer.
const BUFFER: usize = 1 << 20;
/// 2025: a clock before that has never been set.
const PLAUSIBLE: u64 = 1_735_689_600;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Note,
    Bad,
}

struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
    try_this: Option<String>,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
        Finding {
            what,
            verdict,
            text: text.into(),
            try_this: None,
        }
    }

    fn and(mut self, try_this: impl Into<String>) -> Finding {
        self.try_this = Some(try_this.into());
        self
    }
}

/// Examines and tells.
///
/// # Errors
/// When something was found that keeps this program from working.
pub(crate) async fn run(settings: &Settings, out: &Out) -> Outcome<()> {
    let mut findings = vec![
        clock(),
        interfaces(settings),
        udp(settings).await,
        buffers().await,
        discovery(settings).await,
    ];
    findings.push(folder("downloads", &settings.downloads()));
    findings.push(folder("state", &state_dir()));
    findings.push(identity(settings));
    findings.extend(servers(settings).await);
    let mut bad = 0;
    for finding in &findings {
        let (mark, word) = match finding.verdict {
            Verdict::Good => ("ok  ", "good"),
            Verdict::Note => ("note", "note"),
            Verdict::Bad => ("BAD ", "bad"),
        };
        bad += u32::from(finding.verdict == Verdict::Bad);
        out.event("finding", json!({ "what": finding.what, "verdict": word, "text": finding.text, "try": finding.try_this }));
        out.result(format!(
            "{mark}  {:<10} {}",
            finding.what,
            printable(&finding.text)
        ))?;
        if let Some(try_this) = &finding.try_this {
            out.result(format!("                  {}", printable(try_this)))?;
        }
    }
    if bad > 0 {
        return Err(Failure::new(
            Exit::Failed,
            format!("{bad} of {} findings are bad", findings.len()),
        ));
    }
    Ok(())
}

fn clock() -> Finding {
    let time = unix_seconds();
    if time < PLAUSIBLE {
        return Finding::new(
            "clock",
            Verdict::Bad,
            format!("it is said to be {} UTC", date(time)),
        )
        .and("set the clock: signatures with a date are judged by it");
    }
    Finding::new("clock", Verdict::Good, format!("{} UTC", date(time)))
}

fn interfaces(settings: &Settings) -> Finding {
    let found = addresses(settings.bind());
    let list: Vec<String> = found.iter().map(ToString::to_string).collect();
    let text = format!("reached at {}", list.join(", "));
    match found.first() {
        Some(ip) if ip.is_loopback() => Finding::new("addresses", Verdict::Note, text)
            .and("only programs on this machine can reach this one; connect a network, or look at `bind`"),
        Some(IpAddr::V4(ip)) if ip.is_private() => Finding::new("addresses", Verdict::Note, text)
            .and("private addresses: people on other networks reach you through a server that both can reach"),
        _ => Finding::new("addresses", Verdict::Good, text),
    }
}

/// Sends a datagram from one of this machine's addresses to another socket on it.
async fn udp(settings: &Settings) -> Finding {
    let ip = addresses(settings.bind())
        .first()
        .copied()
        .unwrap_or(Ipv4Addr::LOCALHOST.into());
    let attempt = async {
        let one = UdpSocket::bind(SocketAddr::new(ip, 0)).await?;
        let other = UdpSocket::bind(SocketAddr::new(ip, 0)).await?;
        one.send_to(b"vmdt", other.local_addr()?).await?;
        let mut buffer = [0; 8];
        other.recv_from(&mut buffer).await
    };
    match timeout(Duration::from_secs(2), attempt).await {
        Ok(Ok(_)) => Finding::new(
            "udp",
            Verdict::Good,
            format!("datagrams reach {ip} on this machine"),
        ),
        Ok(Err(e)) => Finding::new(
            "udp",
            Verdict::Bad,
            format!("no datagram can be sent from {ip}: {e}"),
        )
        .and("a firewall or a sandbox forbids UDP; shares can then only go through the server"),
        Err(_) => Finding::new(
            "udp",
            Verdict::Bad,
            format!("a datagram to {ip} was lost on this machine"),
        )
        .and("a firewall drops UDP; allow it for this program"),
    }
}

async fn buffers() -> Finding {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
        return Finding::new("buffers", Verdict::Bad, "no UDP socket can be had");
    };
    let socket = SockRef::from(&socket);
    let _ = socket.set_recv_buffer_size(BUFFER);
    let size = socket.recv_buffer_size().unwrap_or(0);
    let text = format!("a UDP socket may hold {}", octets(size as u64));
    if size < BUFFER {
        return Finding::new("buffers", Verdict::Note, text).and(format!(
            "on fast links more is better; on Linux: sysctl -w net.core.rmem_max={} net.core.wmem_max={}",
            BUFFER * 4,
            BUFFER * 4
        ));
    }
    Finding::new("buffers", Verdict::Good, text)
}

async fn discovery(settings: &Settings) -> Finding {
    if !settings.is_on("discovery") {
        return Finding::new(
            "discovery",
            Verdict::Note,
            "switched off: a code alone finds nobody, ticket lines do",
        );
    }
    let port = settings.number("discovery_port") as u16;
    // a number no code has
    let number = 0;
    let attempt = async {
        let _responder = Responder::start(settings.bind(), port, number, 1)?;
        find(
            settings.bind(),
            port,
            number,
            now() + Duration::from_secs(2),
        )
        .await
    };
    match attempt.await {
        Ok(_) => Finding::new(
            "discovery",
            Verdict::Good,
            format!("UDP port {port} answers on this machine"),
        ),
        Err(failure) => Finding::new("discovery", Verdict::Bad, failure.message).and(
            "allow this UDP port, choose another with VMDT_DISCOVERY_PORT, or use ticket lines",
        ),
    }
}

fn folder(what: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    if !path.exists() {
        return Finding::new(what, Verdict::Good, format!("{shown} will be made"));
    }
    let probe = path.join(".vmdt-doctor");
    match std::fs::write(&probe, b"") {
        Ok(()) => {
            let _ = std::fs::remove_file(&probe);
            let free = fs4::available_space(path).map_or_else(|_| "?".into(), octets);
            Finding::new(
                what,
                Verdict::Good,
                format!("{shown} can be written, {free} are free"),
            )
        }
        Err(e) => Finding::new(what, Verdict::Bad, format!("{shown} can't be written: {e}"))
            .and("choose another folder: --out DIR, VMDT_DOWNLOADS or VMDT_STATE_DIR"),
    }
}

/// Whether a server proves its key and knows a node afterwards.
async fn proves(settings: &Settings, server: &str) -> bool {
    let Ok(mut node) = NodeSettings::new(settings, vec![server.to_owned()]) else {
        return false;
    };
    if !node.who.is_open() {
        node.who = Who::Passing;
    }
    node.attempts = 1;
    let opening = Link::open(&node, &Membership::None);
    match timeout(Duration::from_secs(5), opening).await {
        Ok(Ok(link)) => {
            link.close().await;
            true
        }
        _ => false,
    }
}

/// The key that makes this node's id.
fn identity(settings: &Settings) -> Finding {
    let Some(path) = who::file(settings) else {
        return Finding::new(
            "identity",
            Verdict::Note,
            "switched off: every run has another id",
        );
    };
    match who::load(&path) {
        Ok(identity) => Finding::new(
            "identity",
            Verdict::Good,
            format!("{} ({})", identity.node_id(), path.display()),
        ),
        Err(failure) => Finding::new("identity", Verdict::Bad, failure.message)
            .and("only its owner may read it: chmod 600; or VMDT_IDENTITY names another file"),
    }
}

async fn servers(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for server in settings.servers() {
        let started = now();
        let patience = settings
            .time("connection_timeout")
            .max(Duration::from_millis(100));
        let keyless = crate::net::server_key(&server).is_none() && !settings.is_on("open");
        let connecting = TcpStream::connect(crate::net::host_port(&server));
        findings.push(match timeout(patience, connecting).await {
            Ok(Ok(_)) if keyless => Finding::new(
                "server",
                Verdict::Bad,
                format!("{server} answers, but its key is missing"),
            )
            .and("name it as vmdt://KEY@HOST:PORT, as `vmdt server` prints it"),
            Ok(Ok(_)) if !proves(settings, &server).await => Finding::new(
                "server",
                Verdict::Bad,
                format!("{server} answers, but does not let this node in"),
            )
            .and("is the key the one that `vmdt server` prints?"),
            Ok(Ok(_)) => {
                let took = now().saturating_duration_since(started);
                Finding::new(
                    "server",
                    Verdict::Good,
                    format!("{server} answers ({:.1} ms)", took.as_secs_f64() * 1e3),
                )
            }
            Ok(Err(e)) => Finding::new(
                "server",
                Verdict::Bad,
                format!("{server} does not answer: {e}"),
            )
            .and("is it running, and are name and port right?"),
            Err(_) => Finding::new(
                "server",
                Verdict::Bad,
                format!("{server} does not answer in time"),
            )
            .and("a firewall may stand between"),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::new(
            "server",
            Verdict::Note,
            "none is configured: `vmdt send` runs its own",
        ));
    }
    findings
}
