//! The transfer as separate processes: a server, members, a sender, a receiver.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::time::{Instant, sleep_until, timeout};
use vmdt_node::{Event, NodeId, RegistryEvent, Server};

use crate::demo::{carried, digest_of};
use crate::session::{
    Interrupted, Membership, Session, Settings, happened, others, stop_requested, unless_stopped,
    waiting_for,
};
use crate::terminal::{Meter, hex, octets, printable, rate};

/// How often a program that waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

fn say(line: &str) {
    eprintln!("{line}");
}

async fn say_event(session: &mut Session, event: &Event) {
    if let Some(text) = session.describe(event).await {
        say(&text);
    }
}

/// Runs a server until it is interrupted.
///
/// # Errors
/// When the address can't be used.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    let server = Server::bind(listen).await.map_err(|e| {
        anyhow!(
            "{e}; another port may be free: --listen {}:0 lets the system pick one",
            listen.ip()
        )
    })?;
    let at = server
        .url()
        .ok_or_else(|| anyhow!("the server has no key"))?;
    println!("server on {at}");
    let log = async {
        while let Some(event) = server.next_event().await {
            match event {
                RegistryEvent::ClusterCreated {
                    cluster,
                    creator,
                    n,
                    k,
                } => {
                    say(&format!(
                        "{creator} created cluster {cluster} (n = {n}, k = {k})"
                    ));
                }
                RegistryEvent::ClusterRemoved { cluster } => {
                    say(&format!("cluster {cluster} is gone"))
                }
                RegistryEvent::State { cluster, to, .. } => {
                    say(&format!("cluster {cluster}: {to}"))
                }
                RegistryEvent::Member { cluster, id, state } => {
                    say(&format!("cluster {cluster}: {id} {}", happened(state)));
                }
                RegistryEvent::Refused { refusal, .. } => {
                    say(&format!("refused: {}", printable(&refusal.to_string())));
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = log => bail!("the server ended by itself"),
        () = stop_requested() => {}
    }
    server.close().await;
    Ok(())
}

/// Opens a session to stay in, and says what the cluster waits for.
async fn stay(settings: &Settings) -> Result<Session> {
    let mut session = open(settings).await?;
    if let Some(what) = waiting_for(&session.status().await?, session.node.id()) {
        say(&what);
    }
    Ok(session)
}

/// Opens a session and says who and where it is.
async fn open(settings: &Settings) -> Result<Session> {
    let session = Session::open(settings, say).await?;
    let id = session.node.id();
    let name = match &settings.name {
        Some(name) => format!("{} is {id}", printable(name)),
        None => format!("this is {id}"),
    };
    say(&format!(
        "{name}, in cluster {} at {}",
        session.cluster.id(),
        session.node.local_addr()
    ));
    match &settings.membership {
        Membership::Create {
            ticket: Some(path), ..
        } => say(&format!(
            "others enter with --ticket {}, or with what stands in it",
            printable(&path.display().to_string())
        )),
        Membership::Create { ticket: None, .. } => say(&format!(
            "others, whom you trust, enter with --ticket {}",
            *session.ticket.encode()
        )),
        _ => {}
    }
    Ok(session)
}

/// Stays in a cluster as a member that holds and hands on shares, until interrupted.
///
/// # Errors
/// When the cluster can't be entered, or is lost.
pub async fn join(settings: &Settings) -> Result<()> {
    let mut session = match unless_stopped(stay(settings)).await {
        Err(e) if e.is::<Interrupted>() => return Ok(()),
        opened => opened?,
    };
    let watch = async {
        while let Some(event) = session.events.next().await {
            say_event(&mut session, &event).await;
            if let Event::ClusterLost { cluster, .. } = event {
                bail!("cluster {cluster} is lost; join again");
            }
        }
        bail!("the node was closed")
    };
    let result = unless_stopped(watch).await;
    session.close().await;
    match result {
        Err(e) if e.is::<Interrupted>() => Ok(()),
        other => other,
    }
}

/// Receives files, each printed as `digest  path`, until interrupted, or one with `once`.
///
/// # Errors
/// When the cluster can't be entered or is lost; with `once`, also when the file did not arrive.
pub async fn receive(settings: &Settings, once: bool) -> Result<()> {
    let mut session = match unless_stopped(stay(settings)).await {
        Err(e) if e.is::<Interrupted>() && !once => return Ok(()),
        opened => opened?,
    };
    let result = unless_stopped(receive_files(&mut session, once)).await;
    if result.is_ok() {
        session.settle().await;
    }
    session.close().await;
    match result {
        Err(e) if e.is::<Interrupted>() && !once => Ok(()),
        other => other,
    }
}

async fn receive_files(session: &mut Session, once: bool) -> Result<()> {
    let mut meter: Option<Meter> = None;
    loop {
        let event = match timeout(LOOK_AGAIN, session.events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => bail!("the node was closed"),
            Err(_) => {
                if let Some(meter) = &mut meter {
                    meter.tick();
                }
                continue;
            }
        };
        if let Event::FileProgress { received, size, .. } = event {
            meter
                .get_or_insert_with(|| Meter::new("receiving", size))
                .update(received);
            continue;
        }
        if let Some(meter) = &mut meter {
            meter.clear();
        }
        say_event(session, &event).await;
        match event {
            Event::FileStarted { size, .. } => meter = Some(Meter::new("receiving", size)),
            Event::FileReceived {
                path,
                digest,
                paths,
                ..
            } => {
                meter = None;
                say(carried(&[("used", &paths)], &session.names).trim_end());
                // the digest of what is on the disk, not of what was written to it
                let (_, found) = digest_of(&path).await?;
                if found != digest {
                    bail!(
                        "{} does not have the digest it was sent with",
                        printable(&path.display().to_string())
                    );
                }
                println!(
                    "{}  {}",
                    hex(&found),
                    printable(&path.display().to_string())
                );
                if once {
                    return Ok(());
                }
            }
            Event::ReceiveFailed { error, .. } => {
                meter = None;
                if once {
                    return Err(error.into());
                }
            }
            Event::ClusterLost { cluster, .. } => bail!("cluster {cluster} is lost; join again"),
            _ => {}
        }
    }
}

/// Sends one file to the member with this name or id.
///
/// # Errors
/// When the file can't be read, the cluster or the receiver is not there within `patience`, or the
/// transfer fails or is interrupted.
pub async fn send(settings: &Settings, to: &str, path: &Path, patience: Duration) -> Result<()> {
    // before anybody is bothered
    let (_, digest) = digest_of(path).await?;
    let opened = timeout(patience, open(settings));
    let mut session = match unless_stopped(async { Ok(opened.await) }).await? {
        Ok(opened) => opened?,
        Err(_) => bail!(
            "no cluster could be entered within {} s; --wait SECONDS sets how long",
            patience.as_secs()
        ),
    };
    let result = send_file(&mut session, to, path, digest, patience).await;
    session.close().await;
    result
}

async fn send_file(
    session: &mut Session,
    to: &str,
    path: &Path,
    digest: [u8; 32],
    patience: Duration,
) -> Result<()> {
    let to = unless_stopped(wait_for(session, to, patience)).await?;
    let receiver = session.names.show(to);
    say(&format!("sending to {receiver}, whose id is {to}"));
    let mut sending = session.node.send_path(to, path).await?;
    let total = std::fs::metadata(path).map(|m| m.len()).ok();
    let mut meter = Meter::new("sending", total);
    let mut progress = sending.progress();
    let mut delivered = 0;
    let stop = stop_requested();
    tokio::pin!(stop);
    let receipt = loop {
        tokio::select! {
            () = &mut stop => {
                // the receiver is to hear of it, before this node is gone
                sending.cancel().await;
                session.settle().await;
                return Err(Interrupted.into());
            }
            result = sending.delivered() => break result,
            event = session.events.next() => if let Some(event) = event
                && let Some(text) = session.describe(&event).await
            {
                meter.clear();
                say(&text);
            },
            next = progress.next() => match next {
                Some(next) => delivered = next.delivered,
                // the result is about to come
                None => break sending.delivered().await,
            },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        meter.update(delivered);
    };
    drop(meter);
    let receipt = receipt?;
    say(&format!(
        "{receiver} has {}: {} in {:.2} s, {}",
        printable(&path.display().to_string()),
        octets(receipt.octets),
        receipt.took.as_secs_f64(),
        rate(receipt.octets, receipt.took)
    ));
    say(carried(&[("given", receipt.paths())], &session.names).trim_end());
    let (sent, lost) = session.node.injected_loss();
    if lost > 0 {
        say(&format!(
            "{lost} of this node's {sent} datagrams were lost on purpose"
        ));
    }
    if receipt.digest != digest {
        bail!("{} was changed while it was sent", path.display());
    }
    println!(
        "{}  {}",
        hex(&receipt.digest),
        printable(&path.display().to_string())
    );
    Ok(())
}

/// Waits until messages can be sent and the receiver, by its name or id, is there.
async fn wait_for(session: &mut Session, to: &str, patience: Duration) -> Result<NodeId> {
    let deadline = Instant::now() + patience;
    let mut said = String::new();
    loop {
        let status = session.status().await?;
        let here = others(&status, session.node.id());
        let what = match waiting_for(&status, session.node.id()) {
            Some(what) => what,
            None => match session.names.find(to, &here)? {
                Some(id) => return Ok(id),
                None => format!(
                    "waiting for {} (members that are here: {})",
                    printable(to),
                    session.names.list(&here)
                ),
            },
        };
        if what != said {
            say(&what);
            said.clone_from(&what);
        }
        tokio::select! {
            event = timeout(LOOK_AGAIN, session.events.next()) => match event {
                Ok(Some(event)) => say_event(session, &event).await,
                Ok(None) => bail!("the node was closed"),
                Err(_) => {}
            },
            () = sleep_until(deadline) => {
                bail!("gave up after {} s {what}; --wait SECONDS sets how long", patience.as_secs())
            }
        }
    }
}

/// Where `receive` puts files when nothing else is said.
#[must_use]
pub fn default_out() -> PathBuf {
    PathBuf::from(".")
}
