//! `vmdt server`, which runs until it is stopped.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::json;
use tokio::net::lookup_host;
use vmdt_node::{RegistryEvent, Server};
use vmdt_server::{Settings as ServerSettings, SettingsError};

use super::serve::happened;
use crate::cli::ServerArgs;
use crate::failure::{Exit, Failure, Outcome};
use crate::net::local::names;
use crate::net::{server_key, server_url};
use crate::out::Out;
use crate::settings::{Settings, state_dir};
use crate::state::{private_folder, write_private};
use crate::stop;
use crate::text::printable;

/// Where it listens when nothing is said.
const LISTEN: &str = "0.0.0.0:8080";

/// Runs a server: flags over `VMDT_*` variables over its settings file over what is usual.
pub(crate) async fn run(args: ServerArgs, settings: &Settings, out: &Out) -> Outcome<()> {
    stop::listen();
    let configured = configured(&args, settings).await?;
    let builder = configured.into_builder().map_err(unusable)?;
    let server = builder.start().await.map_err(|e| {
        Failure::new(Exit::Failed, e.to_string())
            .hint("another port may be free: --listen ADDRESS:0 lets the system pick one")
    })?;
    let urls = match &args.public {
        Some(public) => vec![public_url(&server, public)?],
        None => names(&server),
    };
    if let Some(file) = &args.url_file {
        let first = urls.first().cloned().unwrap_or_default();
        write_private(file, format!("{first}\n").as_bytes())
            .map_err(|e| Failure::disk(&e, "writing", file))?;
    }
    let text = |at: Option<SocketAddr>| at.map(|at| at.to_string());
    out.event(
        "listening",
        json!({
            "address": server.local_addr().to_string(),
            "url": urls.first(),
            "urls": urls,
            "plain": text(server.plain_addr()),
            "http": text(server.http_addr()),
        }),
    );
    out.result(format!("listening on {}", server.local_addr()))?;
    for url in &urls {
        out.result(url)?;
    }
    if let (Some(at), Some(_)) = (server.plain_addr(), server.tls_addr()) {
        out.say(format!("also without any protection (profile 1.0) on {at}"));
    }
    if let Some(at) = server.http_addr() {
        out.say(format!("health and metrics on http://{at}/metrics"));
    }
    let log = async {
        while let Some(event) = server.next_event().await {
            tell_registry(out, &event);
        }
        Err(Failure::failed("the server ended by itself"))
    };
    let result = tokio::select! {
        result = log => result,
        () = stop::asked() => Ok(()),
    };
    server.close().await;
    result
}

/// Everything that can be set.
async fn configured(args: &ServerArgs, settings: &Settings) -> Outcome<ServerSettings> {
    let file = match &args.settings {
        Some(path) => ServerSettings::from_file(path).map_err(unusable)?,
        None => ServerSettings::default(),
    };
    let environment = ServerSettings::from_environment().map_err(unusable)?;
    let mut flags = ServerSettings {
        plain: address(args.plain.as_deref()).await?,
        http: address(args.http.as_deref()).await?,
        identity: args.identity.clone(),
        store: args.store.clone(),
        ..ServerSettings::default()
    };
    let listen = address(args.listen.as_deref()).await?;
    let open = settings.is_on("open");
    if open {
        flags.plain = listen.or(flags.plain);
    } else {
        flags.tls = listen;
    }
    let mut all = flags.over(environment).over(file);
    if open {
        all.tls = None;
    }
    if all.tls.is_none() && all.plain.is_none() {
        let usual = address(Some(LISTEN)).await?;
        if open {
            all.plain = usual;
        } else {
            all.tls = usual;
        }
    }
    let folder = state_dir().join("server");
    let own = |name: &str| -> Outcome<PathBuf> {
        private_folder(&folder).map_err(|e| Failure::disk(&e, "making", &folder))?;
        Ok(folder.join(name))
    };
    if all.identity.is_none() && all.tls.is_some() {
        all.identity = Some(own("identity")?);
    }
    if args.no_store {
        all.store = None;
    } else if all.store.is_none() && all.etcd.is_none() {
        all.store = Some(own("clusters.redb")?);
    }
    Ok(all)
}

fn unusable(error: SettingsError) -> Failure {
    let store = matches!(error, SettingsError::Store { .. });
    let failure = Failure::usage(error.to_string());
    if store {
        failure.hint(
            "another server may use it: --store FILE names another one, --no-store does without",
        )
    } else {
        failure
    }
}

async fn address(text: Option<&str>) -> Outcome<Option<SocketAddr>> {
    let Some(text) = text else { return Ok(None) };
    let found = lookup_host(text).await.ok();
    let found = found.and_then(|mut found| found.next());
    found.map(Some).ok_or_else(|| {
        Failure::usage(format!("{text:?} is no address with a port"))
            .hint(format!("such as {LISTEN}"))
    })
}

/// The server's address under a name that others reach it at.
fn public_url(server: &Server, public: &str) -> Outcome<String> {
    let has_port = public
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && host.parse::<IpAddr>().is_err());
    let at = if has_port || public.parse::<SocketAddr>().is_ok() {
        public.to_owned()
    } else {
        format!("{public}:{}", server.local_addr().port())
    };
    let url = server.url();
    Ok(match url.as_deref().and_then(server_key) {
        Some(key) => server_url(key, &at),
        None => at,
    })
}

fn tell_registry(out: &Out, event: &RegistryEvent) {
    let line = match event {
        RegistryEvent::ClusterCreated {
            cluster,
            creator,
            n,
            k,
        } => {
            out.event("cluster-created", json!({ "cluster": cluster.to_string(), "creator": creator.as_str(), "n": n, "k": k }));
            format!("{creator} created cluster {cluster} (n = {n}, k = {k})")
        }
        RegistryEvent::ClusterRemoved { cluster } => {
            out.event("cluster-removed", json!({ "cluster": cluster.to_string() }));
            format!("cluster {cluster} is gone")
        }
        RegistryEvent::State { cluster, to, .. } => {
            out.event(
                "cluster-state",
                json!({ "cluster": cluster.to_string(), "state": to.to_string() }),
            );
            format!("cluster {cluster}: {to}")
        }
        RegistryEvent::Member { cluster, id, state } => {
            out.event("member", json!({ "cluster": cluster.to_string(), "id": id.as_str(), "state": happened(*state) }));
            format!("cluster {cluster}: {id} {}", happened(*state))
        }
        RegistryEvent::Refused { refusal, .. } => format!("refused: {refusal}"),
        _ => return,
    };
    out.say(printable(&line));
}
