//! `vmdt node`, which runs until it is stopped; `vmdt status`.

use serde_json::json;
use vmdt_node::{Event, MemberState};

use crate::cli::NodeArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::net::link::{Happened, Link, Membership, NodeSettings, waiting_for};
use crate::net::names::Names;
use crate::net::who::Who;
use crate::out::Out;
use crate::rendezvous::entrance;
use crate::settings::Settings;
use crate::stop;
use crate::text::{octets, printable, table};

/// A member's news as a verb.
pub(crate) fn happened(state: MemberState) -> &'static str {
    match state {
        MemberState::Joined => "joined",
        MemberState::Back => "is back",
        MemberState::Away => "is away",
        MemberState::Left => "left",
    }
}

/// An event in words; `None` for those that are of no interest by themselves.
pub(crate) fn describe(event: &Event, names: &Names) -> Option<String> {
    let show = |peer| names.show(peer);
    Some(printable(&match event {
        Event::Registered => "the server knows this node".into(),
        Event::ServerLost { reason, .. } => format!("the server is gone ({reason}); trying again"),
        Event::ClusterReady { cluster } => format!("cluster {cluster} is ready"),
        Event::ClusterLost { cluster, reason } => format!("cluster {cluster} is gone: {reason}"),
        Event::Member { id, state, .. } => format!("{} {}", show(*id), happened(*state)),
        Event::FileStarted {
            from, name, size, ..
        } => {
            format!(
                "{} sends {name} ({})",
                show(*from),
                size.map_or("size unknown".into(), octets)
            )
        }
        Event::FileReceived {
            from, path, size, ..
        } => {
            format!(
                "{} from {} ({})",
                path.display(),
                show(*from),
                octets(*size)
            )
        }
        Event::ReceiveFailed { from, error, .. } => {
            format!("something from {} did not arrive: {error}", show(*from))
        }
        Event::BadShare {
            message,
            index,
            from,
        } => {
            format!(
                "{} handed over a bad share ({index} of {message}); it was not used",
                show(*from)
            )
        }
        Event::Banned { peer } => {
            format!(
                "{} signed what is not so about a share it handed over; it carries nothing from here for a day",
                show(*peer)
            )
        }
        Event::OpenPeer { peer } => format!("{peer} speaks without any protection"),
        _ => return None,
    }))
}

/// `vmdt node`
pub(crate) async fn node(args: NodeArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    stop::listen();
    let open = settings.is_on("open");
    let wait = || async {
        match &args.ticket_file {
            // who creates a cluster writes the ticket, unless it did so in an earlier life
            Some(file) if args.create.is_some() && !file.exists() => Ok(None),
            Some(file) => stop::unless(super::line_of(file)).await.map(Some),
            None => Ok(args.ticket.clone()),
        }
    };
    let ticket = match wait().await {
        Err(failure) if failure.exit == Exit::Interrupted => return Ok(()),
        found => found?.map(|text| entrance::ticket(&text)).transpose()?,
    };
    let membership = match (&args.create, args.cluster.as_deref(), &ticket) {
        (_, _, Some(ticket)) => Membership::Ticket(Box::new(ticket.clone())),
        (Some((n, k)), ..) => Membership::Create { n: *n, k: *k },
        (None, cluster, None) if open => match cluster {
            None | Some("auto") => Membership::Only,
            Some(id) => Membership::Open(super::cluster_id(id)?),
        },
        _ => {
            return Err(Failure::usage("no cluster is named").hint(
                "VMDT_TICKET or --ticket-file FILE holds its ticket; --create N,K makes one",
            ));
        }
    };
    let servers = match &ticket {
        Some(ticket) => entrance::servers(ticket),
        None => super::servers(settings).await?,
    };
    let mut wanted = NodeSettings::new(settings, servers)?;
    if matches!(wanted.who, Who::Passing) && settings.text("identity") != "none" {
        return Err(Failure::new(Exit::Exists, "another vmdt runs under this key now").hint(
            "a member keeps its place by its key: VMDT_IDENTITY names another file, `none` does without one",
        ));
    }
    wanted.call(args.name.as_deref());
    wanted.downloads = args.out;
    wanted.storage = args.storage;
    // a service comes up whatever comes up first
    wanted.attempts = u64::MAX;
    let mut link = match stop::unless(Link::open(&wanted, &membership)).await {
        Err(failure) if failure.exit == Exit::Interrupted => return Ok(()),
        opened => opened?,
    };
    let cluster = link
        .cluster()
        .map(|cluster| cluster.to_string())
        .unwrap_or_default();
    out.event(
        "joined",
        json!({ "id": link.id().as_str(), "cluster": cluster }),
    );
    out.result(format!("{} is in cluster {cluster}", link.id()))?;
    if matches!(membership, Membership::Create { .. })
        && let Some(ticket) = link.ticket().await?
    {
        let text = ticket.encode();
        out.event("ticket", json!({ "ticket": text.as_str() }));
        match &args.ticket_file {
            Some(file) => {
                crate::state::write_private(file, format!("{}\n", text.as_str()).as_bytes())
                    .map_err(|e| Failure::disk(&e, "writing", file))?;
                out.say(format!(
                    "its ticket is in {}",
                    printable(&file.to_string_lossy())
                ));
            }
            None => out.result(format!("ticket {}", text.as_str()))?,
        }
    }
    if let Ok(status) = link.status().await
        && let Some(waiting) = waiting_for(&status)
    {
        out.say(waiting);
    }
    let watch = async {
        loop {
            match link.next().await {
                Some(Happened::Other(event)) => {
                    if let Event::FileReceived {
                        path, from, size, ..
                    } = &event
                    {
                        let path = path.to_string_lossy();
                        out.event(
                            "received",
                            json!({ "path": path, "from": from.as_str(), "octets": size }),
                        );
                        out.result(printable(&path))?;
                    }
                    if let Some(line) = describe(&event, &link.names().await) {
                        out.say(line);
                    }
                }
                Some(Happened::Gone(id)) => {
                    out.say(format!("{} is away", link.names().await.show(id)));
                }
                Some(Happened::ServerLost(reason)) => {
                    out.say(format!(
                        "the server is gone ({}); trying again",
                        printable(&reason)
                    ));
                }
                Some(Happened::ClusterLost(reason)) => {
                    return Err(Failure::new(
                        Exit::Vanished,
                        format!("the cluster is gone: {reason}"),
                    ));
                }
                Some(Happened::Message { .. }) => {}
                None => return Err(Failure::failed("the node was closed")),
            }
        }
    };
    let result: Outcome<()> = tokio::select! {
        result = watch => result,
        () = stop::asked() => Ok(()),
    };
    link.close().await;
    result
}

/// `vmdt status`
pub(crate) async fn status(settings: &Settings, out: &Out) -> Outcome<()> {
    let node = NodeSettings::new(settings, super::servers(settings).await?)?;
    let link = Link::open(&node, &Membership::None).await?;
    let clusters = link.clusters().await;
    link.close().await;
    let mut rows = vec![
        ["cluster", "creator", "n", "k", "members", "state"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for cluster in clusters? {
        let state = if cluster.active { "active" } else { "waiting" };
        out.event(
            "cluster",
            json!({ "cluster": cluster.cluster.to_string(), "creator": cluster.creator.as_str(), "n": cluster.n,
                    "k": cluster.k, "members": cluster.members, "active": cluster.active }),
        );
        rows.push(vec![
            cluster.cluster.to_string(),
            cluster.creator.to_string(),
            cluster.n.to_string(),
            cluster.k.to_string(),
            cluster.members.to_string(),
            state.into(),
        ]);
    }
    if rows.len() == 1 {
        out.say("the server lists no clusters: those of profile 1.1 it shows to their members");
        return Ok(());
    }
    out.result(table(&rows).trim_end())
}
