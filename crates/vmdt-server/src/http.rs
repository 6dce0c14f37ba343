//! The port for operators: HTTP/1.1, one request per connection.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use vmdt_control::{ClusterView, RelayAccount};

use crate::actor::Command;
use crate::metrics::{self, Counters};

/// Requests answered at once.
const AT_ONCE: usize = 16;
/// Octets of a request's head.
const HEAD: usize = 8 * 1024;
/// Header lines of a request.
const HEADERS: usize = 64;
/// How long a request may take from its first octet to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What answers need.
#[derive(Clone)]
pub(crate) struct Http {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
    token: Option<Arc<str>>,
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: &str) -> Answer {
        Answer {
            status,
            kind: "text/plain; charset=utf-8",
            body: format!("{body}\n"),
        }
    }
}

impl Http {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        counters: Arc<Counters>,
        token: Option<String>,
    ) -> Http {
        Http {
            commands,
            counters,
            token: token.filter(|token| !token.is_empty()).map(Arc::from),
        }
    }

    async fn answer(&self, method: &str, path: &str, shown: Option<&[u8]>) -> Answer {
        let path = path.split('?').next().unwrap_or(path);
        let paths = [
            "/healthz",
            "/readyz",
            "/metrics",
            "/clusters.json",
            "/relay.json",
        ];
        if !paths.contains(&path) {
            return Answer::text(
                "404 Not Found",
                "there are /healthz, /readyz, /metrics, /clusters.json, /relay.json",
            );
        }
        if !matches!(method, "GET" | "HEAD") {
            return Answer::text("405 Method Not Allowed", "GET or HEAD is allowed");
        }
        match path {
            "/healthz" => match self.ask(Command::Figures).await {
                Some(_) => Answer::text("200 OK", "ok"),
                None => Answer::text("503 Service Unavailable", "stopping"),
            },
            "/readyz" if self.counters.ready.load(Relaxed) => Answer::text("200 OK", "ready"),
            "/readyz" => Answer::text("503 Service Unavailable", "not ready"),
            "/metrics" => match self.ask(Command::Figures).await {
                Some(figures) => Answer {
                    status: "200 OK",
                    kind: "text/plain; version=0.0.4; charset=utf-8",
                    body: metrics::text(&self.counters, &figures),
                },
                None => Answer::text("503 Service Unavailable", "stopping"),
            },
            _ if !self.may_see_clusters(shown) => {
                Answer::text("401 Unauthorized", "show the bearer token")
            }
            "/relay.json" => match self.ask(Command::Relay).await {
                Some(accounts) => Answer {
                    status: "200 OK",
                    kind: "application/json",
                    body: relay_json(&accounts),
                },
                None => Answer::text("503 Service Unavailable", "stopping"),
            },
            _ => match self.ask(Command::Clusters).await {
                Some(clusters) => Answer {
                    status: "200 OK",
                    kind: "application/json",
                    body: json(&clusters),
                },
                None => Answer::text("503 Service Unavailable", "stopping"),
            },
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Whether the header shows our token, in a time that does not depend on where they differ.
    fn may_see_clusters(&self, shown: Option<&[u8]>) -> bool {
        let (Some(token), Some(shown)) = (&self.token, shown) else {
            return false;
        };
        let Some(shown) = shown.strip_prefix(b"Bearer ") else {
            return false;
        };
        let token = token.as_bytes();
        let differing = token.iter().zip(shown).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0 && token.len() == shown.len()
    }
}

/// Until it is aborted.
pub(crate) async fn run(http: Http, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let http = http.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _: Result<io::Result<()>, _> = timeout(DEADLINE, serve(http, stream)).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(http: Http, mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let (answer, body) = loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                let authorization = request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("authorization"))
                    .map(|header| header.value);
                let method = request.method.unwrap_or_default();
                let path = request.path.unwrap_or_default();
                let answer = http.answer(method, path, authorization).await;
                break (answer, method != "HEAD");
            }
            Ok(httparse::Status::Partial) if head.len() < HEAD => {}
            Ok(httparse::Status::Partial) | Err(_) => {
                break (
                    Answer::text("400 Bad Request", "not a request, or too long a one"),
                    true,
                );
            }
        }
        let room = HEAD - head.len();
        if (&mut stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let Answer {
        status,
        kind,
        body: text,
    } = answer;
    let challenge = match status.starts_with("401") {
        true => "WWW-Authenticate: Bearer\r\n",
        false => "",
    };
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{challenge}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        text.len(),
    );
    if body {
        out.push_str(&text);
    }
    stream.write_all(out.as_bytes()).await?;
    stream.shutdown().await
}

/// What clients have relayed, as JSON.
fn relay_json(accounts: &[RelayAccount]) -> String {
    let mut out = String::from("[");
    for (i, account) in accounts.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "{comma}{{\"id\":\"{}\",\"share_lines\":{},\"share_bytes\":{},\
             \"datagrams\":{},\"datagram_bytes\":{},\"window_left_seconds\":{}}}",
            account.id,
            account.shares.lines,
            account.shares.octets,
            account.datagrams.lines,
            account.datagrams.octets,
            account.window_left.as_secs(),
        );
    }
    out.push_str("]\n");
    out
}

/// The clusters as JSON. Ids, states and addresses hold nothing that JSON escapes.
fn json(clusters: &[ClusterView]) -> String {
    let mut out = String::from("[");
    for (i, cluster) in clusters.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "{comma}{{\"id\":\"{}\",\"creator\":\"{}\",\"n\":{},\"k\":{},\"state\":\"{}\",\
             \"sealed\":{},\"open_peers\":{},\"members\":[",
            cluster.id,
            cluster.creator,
            cluster.n,
            cluster.k,
            cluster.state,
            cluster.sealed,
            cluster.options.open_peers,
        );
        for (i, member) in cluster.members.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let address = member.address.map(|a| format!("\"{a}\""));
            let claimed: Vec<String> = member.claimed.iter().map(|a| format!("\"{a}\"")).collect();
            let _ = write!(
                out,
                "{comma}{{\"id\":\"{}\",\"present\":{},\"address\":{},\"claimed\":[{}]}}",
                member.id,
                member.present,
                address.as_deref().unwrap_or("null"),
                claimed.join(","),
            );
        }
        out.push_str("]}");
    }
    out.push_str("]\n");
    out
}
