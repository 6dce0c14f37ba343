//! Numbers for operators, in the text form of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::actor::Figures;

/// What is counted outside the registry.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ready: AtomicBool,
    pub(crate) accepted: AtomicU64,
    pub(crate) turned_away: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) store_errors: AtomicU64,
}

/// All metrics. No id, address or name is in them.
pub(crate) fn text(counters: &Counters, figures: &Figures) -> String {
    let load = |counter: &AtomicU64| counter.load(Relaxed);
    let stats = &figures.stats;
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let metrics: [(&str, &str, &str, u64); 20] = [
        (
            "vmdt_ready",
            "gauge",
            "Whether requests are answered.",
            u64::from(counters.ready.load(Relaxed)),
        ),
        (
            "vmdt_connections",
            "gauge",
            "Connections open.",
            wide(figures.connections),
        ),
        (
            "vmdt_clients",
            "gauge",
            "Clients known, present or in their grace period.",
            wide(figures.clients),
        ),
        (
            "vmdt_clusters",
            "gauge",
            "Clusters.",
            wide(figures.clusters),
        ),
        (
            "vmdt_code_numbers",
            "gauge",
            "Code numbers in use.",
            wide(figures.codes),
        ),
        (
            "vmdt_connections_accepted_total",
            "counter",
            "Connections accepted.",
            load(&counters.accepted),
        ),
        (
            "vmdt_connections_turned_away_total",
            "counter",
            "Connections refused for the limits of their address.",
            load(&counters.turned_away),
        ),
        (
            "vmdt_handshakes_failed_total",
            "counter",
            "TLS handshakes that failed.",
            load(&counters.handshakes_failed),
        ),
        (
            "vmdt_connections_shed_total",
            "counter",
            "Connections closed because they did not read.",
            stats.shed,
        ),
        (
            "vmdt_lines_total",
            "counter",
            "Lines received.",
            stats.lines,
        ),
        (
            "vmdt_requests_refused_total",
            "counter",
            "Requests answered with ERROR.",
            stats.refused,
        ),
        (
            "vmdt_received_bytes_total",
            "counter",
            "Octets of lines received.",
            load(&counters.received),
        ),
        (
            "vmdt_sent_bytes_total",
            "counter",
            "Octets of lines sent.",
            load(&counters.sent),
        ),
        (
            "vmdt_relayed_bytes_total",
            "counter",
            "Octets of lines relayed between members.",
            stats.relayed_octets,
        ),
        (
            "vmdt_relayed_datagrams_total",
            "counter",
            "Datagrams relayed between members that cannot reach each other.",
            stats.relayed_datagrams,
        ),
        (
            "vmdt_relayed_datagram_bytes_total",
            "counter",
            "Octets of the lines of those datagrams.",
            stats.relayed_datagram_octets,
        ),
        (
            "vmdt_relay_quota_refused_total",
            "counter",
            "Lines not relayed because the quota of their sender was used up.",
            stats.relay_refused,
        ),
        (
            "vmdt_unread_records_total",
            "counter",
            "Records of other servers that could not be read.",
            stats.unread_records,
        ),
        (
            "vmdt_store_commits_total",
            "counter",
            "Batches that the store has committed.",
            load(&counters.commits),
        ),
        (
            "vmdt_store_errors_total",
            "counter",
            "Batches that the store has not committed.",
            load(&counters.store_errors),
        ),
    ];
    let mut out = String::with_capacity(4_096);
    for (name, kind, help, value) in metrics {
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
    out
}
