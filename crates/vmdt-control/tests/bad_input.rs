//! What a server does with what it should not be sent: one ERROR with a stable
//! code and a sentence, nothing changed, the connection kept where the framing is
//! intact.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::{Duration, Instant};

use common::{Draw, base};
use proptest::prelude::*;
use vmdt_control::{ClusterView, ConnId, Registry, RegistryConfig, RegistryOutput};
use vmdt_wire::{ErrorCode, Line, Message};

struct Server {
    registry: Registry,
    now: Instant,
    received: Vec<(ConnId, String)>,
    closed: Vec<ConnId>,
}

impl Server {
    fn new(config: RegistryConfig) -> Server {
        Server {
            registry: Registry::new(config, [3; 32]),
            now: base(),
            received: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn open(&mut self, conn: u64) {
        let peer = format!("192.0.2.{}:4000", conn % 256).parse().unwrap();
        self.registry.handle_open(self.now, ConnId(conn), peer);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                RegistryOutput::Write { conn, bytes } => {
                    self.registry.handle_sent(self.now, conn, bytes.len());
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    for line in text.lines() {
                        self.received.push((conn, line.to_owned()));
                    }
                }
                RegistryOutput::Close { conn } => self.closed.push(conn),
            }
        }
    }

    /// Sends and returns what this connection was sent back.
    fn send(&mut self, conn: u64, octets: &[u8]) -> Vec<String> {
        self.received.clear();
        self.registry.handle_bytes(self.now, ConnId(conn), octets);
        self.drain();
        let mine = self.received.iter().filter(|(c, _)| c.0 == conn);
        mine.map(|(_, line)| line.clone()).collect()
    }

    fn ask(&mut self, conn: u64, line: &str) -> String {
        let replies = self.send(conn, format!("{line}\n").as_bytes());
        assert_eq!(replies.len(), 1, "{line}: {replies:?}");
        replies[0].clone()
    }

    fn clusters(&self) -> Vec<ClusterView> {
        self.registry.clusters().collect()
    }
}

fn code_of(line: &str) -> ErrorCode {
    match Line::parse(line.as_bytes()).unwrap().message {
        Message::Error { code, text, .. } => {
            assert!(text.contains(' '), "no sentence in {line:?}");
            code
        }
        other => panic!("not an ERROR: {other:?}"),
    }
}

fn cluster_of(reply: &str) -> String {
    match Line::parse(reply.as_bytes()).unwrap().message {
        Message::ClusterCreated { cluster, .. } => cluster.to_string(),
        other => panic!("not CLUSTER_CREATED: {other:?}"),
    }
}

/// A server with a cluster of two, the second about to misbehave.
fn pair(config: RegistryConfig) -> (Server, String) {
    let mut server = Server::new(config);
    server.open(1);
    server.ask(1, "REGISTER_P2P_PORT|alice|9001|rdt");
    let cluster = cluster_of(&server.ask(1, "CREATE_CLUSTER|alice|5|3|open=1"));
    server.open(2);
    server.ask(2, "REGISTER_P2P_PORT|mallory|9002|rdt");
    let replies = server.send(2, format!("JOIN_CLUSTER|mallory|{cluster}\n").as_bytes());
    assert_eq!(replies[0], format!("CLUSTER_JOINED|{cluster}"));
    (server, cluster)
}

#[test]
fn every_malformed_request_gets_one_error_and_changes_nothing() {
    use ErrorCode::*;
    let parameters = "x|".repeat(20_000);
    let table: Vec<(Vec<u8>, ErrorCode)> = vec![
        (b"".into(), BadRequest),
        (b"|".into(), UnknownType),
        (b"HELLO".into(), UnknownType),
        (b"create_cluster|mallory|5|3".into(), UnknownType),
        (b"CREATE_CLUSTER".into(), BadRequest),
        (b"CREATE_CLUSTER|mallory|5".into(), BadRequest),
        (b"CREATE_CLUSTER|mallory|five|3".into(), NotANumber),
        (b"CREATE_CLUSTER|mallory|-5|3".into(), NotANumber),
        (b"CREATE_CLUSTER|mallory|5|".into(), NotANumber),
        (b"CREATE_CLUSTER|mallory|0|0".into(), OutOfRange),
        (b"CREATE_CLUSTER|mallory|1|1".into(), OutOfRange),
        (b"CREATE_CLUSTER|mallory|3|4".into(), OutOfRange),
        (b"CREATE_CLUSTER|mallory|256|2".into(), OutOfRange),
        (b"CREATE_CLUSTER|mallory|99999|2".into(), OutOfRange),
        (b"CREATE_CLUSTER|mallory|5|3|max=4".into(), OutOfRange),
        (b"CREATE_CLUSTER|mallory|5|3|open=maybe".into(), BadRequest),
        (b"REGISTER_P2P_PORT|mallory|0".into(), OutOfRange),
        (b"REGISTER_P2P_PORT|mallory|65536".into(), OutOfRange),
        (b"REGISTER_P2P_PORT|mallory|http".into(), NotANumber),
        (b"REGISTER_P2P_PORT|mal lory|9000".into(), BadId),
        (b"REGISTER_P2P_PORT|mal/lory|9000".into(), BadId),
        (b"REGISTER_P2P_PORT|mal\x01lory|9000".into(), BadId),
        (b"REGISTER_P2P_PORT|seventeen_letters|9000".into(), BadId),
        (b"REGISTER_P2P_PORT|alice|9000".into(), BadId),
        (b"JOIN_CLUSTER|mallory|no:such".into(), BadId),
        (b"JOIN_CLUSTER|mallory|cluster_0000".into(), UnknownCluster),
        (b"LEAVE_CLUSTER|mallory|cluster_0000".into(), UnknownCluster),
        (
            b"GET_CLUSTER_MEMBERS|mallory|cluster_0000".into(),
            UnknownCluster,
        ),
        (b"GET_CLIENT_INFO|mallory|nobody".into(), UnknownClient),
        (
            b"MESSAGE_SHARE|mallory|alice|alice|3|AAAA".into(),
            RelayRefused,
        ),
        (
            b"MESSAGE_SHARE|mallory|alice|alice|x|AAAA".into(),
            NotANumber,
        ),
        (
            b"MESSAGE_SHARE|mallory|nobody|alice|1|AAAA".into(),
            UnknownClient,
        ),
        (b"MESSAGE_SHARE|alice|mallory|mallory|1|AAAA".into(), BadId),
        (b"SEND_MESSAGE|mallory|alice|text".into(), NotSupported),
        (b"OK".into(), NotSupported),
        (b"MEMBER|cluster_0000|alice|left".into(), NotSupported),
        (b"VMDT/TCP/1.1/LIST_CLUSTERS/mallory".into(), BadVersion),
        (b"VMDT/UDP/1.0/LIST_CLUSTERS/mallory".into(), BadVersion),
        (b"VMDT/".into(), BadVersion),
        (b"VMDT/TCP/1.0/JOIN_CLUSTER/mallory/a%2".into(), BadRequest),
        (
            b"VMDT/TCP/1.0/LIST_CLUSTERS/mallory/c1/extra".into(),
            BadRequest,
        ),
        (b"LIST_CLUSTERS|mallory|\0".into(), BadRequest),
        (b"LIST_CLUSTERS|\xff\xfe".into(), BadRequest),
        (b"\xc3\x28".into(), BadRequest),
        (parameters.into_bytes(), UnknownType),
        (
            format!("CLUSTER_MEMBERS|{}", "x|".repeat(20_000)).into_bytes(),
            BadRequest,
        ),
        (
            format!("LIST_CLUSTERS|{}", "y".repeat(60_000)).into_bytes(),
            BadId,
        ),
    ];
    let (mut server, _) = pair(RegistryConfig::new());
    let before = server.clusters();
    for (line, expected) in table {
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        let mut octets = line.clone();
        octets.push(b'\n');
        let replies = server.send(2, &octets);
        if line.is_empty() {
            assert!(replies.is_empty(), "a blank line is no request");
            continue;
        }
        assert_eq!(replies.len(), 1, "{shown}: {replies:?}");
        let slash = line.starts_with(b"VMDT/");
        assert_eq!(replies[0].starts_with("VMDT/"), slash, "framing: {shown}");
        // Twenty thousand parameters may be refused for either reason.
        let found = code_of(&replies[0]);
        if !shown.starts_with("x|x|") {
            assert_eq!(found, expected, "{shown}: {}", replies[0]);
        }
        assert!(replies[0].len() < 500, "{shown}");
        assert_eq!(server.clusters(), before, "{shown} changed something");
        assert!(server.closed.is_empty(), "{shown} closed a connection");
        assert_eq!(
            server.ask(2, "GET_CLIENT_INFO|mallory|mallory"),
            "CLIENT_INFO|192.0.2.2|9002",
            "after {shown}"
        );
    }
}

#[test]
fn a_malformed_request_is_answered_with_its_tag() {
    let (mut server, _) = pair(RegistryConfig::new());
    let reply = server.ask(2, "VMDT/TCP/1.0/CREATE_CLUSTER/mallory/many/2/~77");
    assert_eq!(Line::parse(reply.as_bytes()).unwrap().tag, Some(77));
    let reply = server.ask(2, "CREATE_CLUSTER|mallory|many|2|~78");
    assert_eq!(Line::parse(reply.as_bytes()).unwrap().tag, Some(78));
    let reply = server.ask(2, "CREATE_CLUSTER|mallory|many|2|~99999999999");
    assert_eq!(Line::parse(reply.as_bytes()).unwrap().tag, None);
}

#[test]
fn an_over_long_line_is_answered_and_closed() {
    for ended in [true, false] {
        let (mut server, _) = pair(RegistryConfig::new());
        server.open(3);
        let mut line = vec![b'x'; 64 * 1024 + 1];
        if ended {
            line.push(b'\n');
        }
        let replies = server.send(3, &line);
        assert_eq!(code_of(&replies[0]), ErrorCode::LineTooLong);
        assert_eq!(server.closed, [ConnId(3)]);
        // Nothing more is answered, and nobody else is harmed.
        assert!(server.send(3, b"LIST_CLUSTERS|eve\n").is_empty());
        assert!(
            server
                .ask(2, "LIST_CLUSTERS|mallory")
                .starts_with("CLUSTER_LIST|")
        );
    }
}

#[test]
fn a_line_of_the_longest_length_is_read() {
    let mut server = Server::new(RegistryConfig::new());
    server.open(1);
    let mut line = b"LIST_CLUSTERS|eve".to_vec();
    line.resize(64 * 1024, b' ');
    line.push(b'\n');
    assert_eq!(server.send(1, &line), ["CLUSTER_LIST"]);
}

#[test]
fn long_lines_are_for_shares_of_members_only() {
    let data = "A".repeat(400 * 1024);
    let share = format!("MESSAGE_SHARE|mallory|alice|alice|1|{data}\n");

    // A member: relayed.
    let (mut server, _) = pair(RegistryConfig::new());
    assert!(server.send(2, share.as_bytes()).is_empty());
    assert_eq!(server.received.len(), 1);
    assert_eq!(server.received[0].0, ConnId(1));
    assert_eq!(server.registry.stats().relayed_lines, 1);

    // A member with a long line that is no share.
    let long = format!("LIST_CLUSTERS|mallory|{data}\n");
    let replies = server.send(2, long.as_bytes());
    assert_eq!(code_of(&replies[0]), ErrorCode::LineTooLong);
    assert_eq!(server.closed, [ConnId(2)]);

    // Not a member.
    server.open(3);
    server.ask(3, "LIST_CLUSTERS|eve");
    let replies = server.send(3, share.replace("mallory", "eve").as_bytes());
    assert_eq!(code_of(&replies[0]), ErrorCode::LineTooLong);
}

#[test]
fn escaping_never_makes_a_line_longer_than_its_reader_accepts() {
    let (mut server, _) = pair(RegistryConfig::new());
    server.ask(1, "VMDT/TCP/1.0/LIST_CLUSTERS/alice");
    // Every slash becomes three octets in the recipient's framing.
    let share = format!(
        "MESSAGE_SHARE|mallory|alice|alice|1|{}",
        "/".repeat(300 * 1024)
    );
    assert_eq!(code_of(&server.ask(2, &share)), ErrorCode::BadRequest);
    assert!(server.closed.is_empty());
}

#[test]
fn the_rate_is_limited_per_connection() {
    let (mut server, _) = pair(RegistryConfig::new().rate(10, 20));
    let requests = "LIST_CLUSTERS|mallory\n".repeat(50);
    let replies = server.send(2, requests.as_bytes());
    assert_eq!(replies.len(), 50);
    let refused = replies.iter().filter(|r| r.starts_with("ERROR"));
    let refused: Vec<_> = refused.map(|r| code_of(r)).collect();
    // Of the twenty went two for registering and joining, and five for what is kept of that.
    assert_eq!(refused, vec![ErrorCode::RateLimited; 37]);
    // The other client is not limited by this one.
    assert!(
        server
            .ask(1, "LIST_CLUSTERS|alice")
            .starts_with("CLUSTER_LIST|")
    );
    server.now += Duration::from_millis(100);
    assert!(
        server
            .ask(2, "LIST_CLUSTERS|mallory")
            .starts_with("CLUSTER_LIST|")
    );
    assert!(
        server
            .ask(2, "LIST_CLUSTERS|mallory")
            .starts_with("ERROR|rate-limited")
    );
}

#[test]
fn what_is_kept_costs_more_than_what_is_asked() {
    let (mut server, _) = pair(RegistryConfig::new().rate(100, 1_000));
    let done = |server: &mut Server, line: &str| {
        let replies = server.send(2, line.repeat(1_000).as_bytes());
        let done = replies.iter().filter(|r| !r.contains("rate-limited"));
        done.count()
    };
    server.now += Duration::from_secs(20);
    assert_eq!(done(&mut server, "GET_CLUSTER_MEMBERS|mallory\n"), 1_000);
    server.now += Duration::from_secs(20);
    // A cluster and a place each time, then both again: 82 tokens for two requests.
    let made = |server: &mut Server| {
        let line = "CREATE_CLUSTER|mallory|2|2|open=1\n";
        let reply = server.send(2, line.as_bytes());
        match reply[0].contains("rate-limited") {
            true => false,
            false => {
                let cluster = cluster_of(&reply[0]);
                server.send(2, format!("LEAVE_CLUSTER|mallory|{cluster}\n").as_bytes());
                true
            }
        }
    };
    assert_eq!((0..100).filter(|_| made(&mut server)).count(), 13);
    // A change of capabilities is kept for each place; saying the same again is not.
    server.now += Duration::from_secs(40);
    let same = "REGISTER_P2P_PORT|mallory|9002|rdt\n";
    assert_eq!(done(&mut server, same), 1_000);
    server.now += Duration::from_secs(40);
    let other = "REGISTER_P2P_PORT|mallory|9002|none\nREGISTER_P2P_PORT|mallory|9002|rdt\n";
    let changed = done(&mut server, other);
    assert!((20..60).contains(&changed), "{changed}");
}

#[test]
fn connections_clients_and_clusters_are_bounded() {
    let config = RegistryConfig::new()
        .max_connections(3)
        .max_clients(2)
        .max_clusters(3)
        .max_clusters_per_client(2);
    let mut server = Server::new(config);
    for conn in 1..=3 {
        server.open(conn);
    }
    server.open(4);
    assert_eq!(code_of(&server.received[0].1), ErrorCode::TooManyClients);
    assert_eq!(server.closed, [ConnId(4)]);
    assert_eq!(server.registry.connection_count(), 3);

    for (conn, name) in [(1, "alice"), (2, "bob")] {
        server.ask(conn, &format!("REGISTER_P2P_PORT|{name}|9000|rdt"));
    }
    assert_eq!(
        code_of(&server.ask(3, "LIST_CLUSTERS|carl")),
        ErrorCode::TooManyClients
    );
    assert_eq!(server.registry.client_count(), 2);

    for _ in 0..2 {
        cluster_of(&server.ask(1, "CREATE_CLUSTER|alice|2|2"));
    }
    let reply = server.ask(1, "CREATE_CLUSTER|alice|2|2");
    assert_eq!(code_of(&reply), ErrorCode::TooManyClusters);
    cluster_of(&server.ask(2, "CREATE_CLUSTER|bob|2|2"));
    let reply = server.ask(2, "CREATE_CLUSTER|bob|2|2");
    assert_eq!(code_of(&reply), ErrorCode::TooManyClusters);
    assert_eq!(server.clusters().len(), 3);
}

#[test]
fn lists_in_bar_form_are_whole_entries_the_own_cluster_first() {
    let mut server = Server::new(RegistryConfig::new());
    for conn in 1..=200 {
        server.open(conn);
        server.ask(conn, &format!("CREATE_CLUSTER|client_{conn}|5|3"));
    }
    for conn in [1, 77, 200] {
        let reply = server.ask(conn, &format!("LIST_CLUSTERS|client_{conn}"));
        assert!(
            reply.len() <= 4_000 && reply.len() > 3_900,
            "{}",
            reply.len()
        );
        let Message::ClusterList { clusters } = Line::parse(reply.as_bytes()).unwrap().message
        else {
            panic!("{reply}");
        };
        assert_eq!(clusters[0].creator.as_str(), format!("client_{conn}"));
    }
    // In slash form all of them fit.
    let reply = server.ask(5, "VMDT/TCP/1.0/LIST_CLUSTERS/client_5");
    assert_eq!(reply.matches(":client_").count(), 200);
}

#[test]
fn events_nobody_takes_are_bounded() {
    let mut server = Server::new(RegistryConfig::new().max_events(10));
    server.open(1);
    for _ in 0..50 {
        server.ask(1, "NONSENSE");
    }
    assert_eq!(
        std::iter::from_fn(|| server.registry.poll_event()).count(),
        10
    );
    assert_eq!(server.registry.stats().lost_events, 40);
}

#[test]
fn calls_that_name_an_unknown_connection_do_nothing() {
    let mut server = Server::new(RegistryConfig::new());
    assert!(server.send(9, b"LIST_CLUSTERS|eve\n").is_empty());
    server.registry.handle_closed(server.now, ConnId(9));
    server.registry.handle_sent(server.now, ConnId(9), 100);
    server.registry.handle_timeout(server.now);
    assert_eq!(server.registry.poll_output(), None);
    assert_eq!(server.registry.poll_timeout(), None);
}

/// Damages a valid request.
fn damaged(draw: &mut Draw, cluster: &str) -> Vec<u8> {
    let requests = [
        "REGISTER_P2P_PORT|eve|9003|rdt".to_owned(),
        "CREATE_CLUSTER|eve|5|3|open=1,max=9".to_owned(),
        format!("JOIN_CLUSTER|eve|{cluster}"),
        "LIST_CLUSTERS|eve|~5".to_owned(),
        "MESSAGE_SHARE|eve|alice|alice|1|AAAA".to_owned(),
        format!("VMDT/TCP/1.0/GET_CLUSTER_MEMBERS/eve/{cluster}/~6"),
        "VMDT/TCP/1.0/GET_CLIENT_INFO/eve/alice/~7".to_owned(),
        "SHARE_POOL_ADD|m|eve|alice|3|2|TEXT||0:AAAA".to_owned(),
    ];
    let mut line = draw.pick(&requests).clone().into_bytes();
    for _ in 0..draw.below(4) {
        let at = draw.below(line.len());
        match draw.below(4) {
            0 => line[at] = draw.below(256) as u8,
            1 => line.insert(at, *draw.pick(b"|/%~\0\r\n\xff 9")),
            2 => line.truncate(at + 1),
            _ => drop(line.remove(at)),
        }
        if line.is_empty() {
            line.push(b'|');
        }
    }
    line.push(b'\n');
    line
}

#[test]
fn damaged_requests_never_harm_the_others() {
    for seed in 0..200 {
        let mut draw = Draw::new(seed);
        let (mut server, cluster) = pair(RegistryConfig::new());
        server.open(3);
        for _ in 0..50 {
            let line = damaged(&mut draw, &cluster);
            let newlines = line.iter().filter(|&&o| o == b'\n').count();
            let replies = server.send(3, &line);
            let answers = replies
                .iter()
                .filter(|r| !r.contains("MEMBER/") && !r.starts_with("MEMBER|"))
                .count();
            assert!(answers <= newlines, "seed {seed}: {replies:?}");
        }
        let members = server.ask(1, &format!("GET_CLUSTER_MEMBERS|alice|{cluster}"));
        assert!(members.starts_with("CLUSTER_MEMBERS|alice"), "seed {seed}");
        assert_eq!(
            server.ask(2, "GET_CLIENT_INFO|mallory|alice"),
            "CLIENT_INFO|192.0.2.1|9001",
            "seed {seed}"
        );
    }
}

proptest! {
    #[test]
    fn any_octets_in_any_pieces_are_answered_alike(
        octets in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1_usize..50,
    ) {
        let (mut whole, _) = pair(RegistryConfig::new());
        whole.open(3);
        let expected = whole.send(3, &octets);
        let (mut cut, _) = pair(RegistryConfig::new());
        cut.open(3);
        let mut found = Vec::new();
        for part in octets.chunks(piece) {
            found.extend(cut.send(3, part));
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(cut.clusters(), whole.clusters());
    }
}

#[test]
fn profile_1_1_needs_an_identity_and_then_tells_what_is_wrong() {
    use ErrorCode::*;
    let long = "A".repeat(5_464);
    let table: [(String, ErrorCode, ErrorCode); 22] = [
        ("PUT_PROFILE|@ME|AAAA".into(), Unauthenticated, BadSignature),
        ("PUT_PROFILE|@ME|".into(), Unauthenticated, BadSignature),
        ("PUT_PROFILE|@ME|A".into(), BadRequest, BadRequest),
        ("PUT_PROFILE|@ME|AA==".into(), BadRequest, BadRequest),
        (format!("PUT_PROFILE|@ME|{long}"), BadRequest, BadRequest),
        ("PUT_PROFILE|@ME".into(), BadRequest, BadRequest),
        ("PUT_PROFILE|alice|AAAA".into(), Unauthenticated, BadId),
        (
            "GET_PROFILE|@ME|nobody".into(),
            Unauthenticated,
            UnknownClient,
        ),
        ("GET_PROFILE|@ME|@ME".into(), Unauthenticated, UnknownClient),
        (
            "CREATE_SEALED|@ME|AAAA|AAAA".into(),
            Unauthenticated,
            BadSignature,
        ),
        ("CREATE_SEALED|@ME|AAAA".into(), BadRequest, BadRequest),
        (
            "JOIN_SEALED|@ME|c1|AAAA".into(),
            Unauthenticated,
            UnknownCluster,
        ),
        ("JOIN_SEALED|@ME|c:1|AAAA".into(), BadId, BadId),
        (
            "GET_DESCRIPTOR|@ME|c1".into(),
            Unauthenticated,
            UnknownCluster,
        ),
        (
            "GET_MEMBERSHIP|@ME|c1|@ME".into(),
            Unauthenticated,
            UnknownCluster,
        ),
        ("REVOKE|@ME|c1|AAAA".into(), Unauthenticated, UnknownCluster),
        ("CODE_JOIN|@ME|0".into(), OutOfRange, OutOfRange),
        ("CODE_JOIN|@ME|10000".into(), OutOfRange, OutOfRange),
        ("CODE_JOIN|@ME|7".into(), Unauthenticated, UnknownNumber),
        (
            "CODE_PASS|@ME|7|AAAA".into(),
            Unauthenticated,
            UnknownNumber,
        ),
        ("CODE_PASS|7|AAAA".into(), NotSupported, NotSupported),
        ("REVOKED|c1|AAAA".into(), NotSupported, NotSupported),
    ];
    let me = "@AbCdEfGhIjKlMn0";
    let (mut server, _) = pair(RegistryConfig::new());
    let peer = "192.0.2.9:4000".parse().unwrap();
    let id = me.parse().unwrap();
    server.registry.handle_clock(server.now, 1_700_000_000_000);
    server
        .registry
        .handle_open_as(server.now, ConnId(9), peer, id);
    assert!(
        server
            .ask(9, &format!("REGISTER_P2P_PORT|{me}|9000|rdt"))
            .starts_with("OK")
    );
    server.open(3);
    let before = server.clusters();
    for (line, plain, proven) in table {
        let line = line.replace("@ME", me);
        for form in [
            line.clone(),
            format!("VMDT/TCP/1.0/{}", line.replace('|', "/")),
        ] {
            assert_eq!(code_of(&server.ask(3, &form)), plain, "plain: {form}");
            assert_eq!(code_of(&server.ask(9, &form)), proven, "proven: {form}");
        }
        assert_eq!(server.clusters(), before, "{line}");
    }
    assert!(server.closed.is_empty());
    assert_eq!(server.registry.code_count(), 0);
}

#[test]
fn without_a_clock_nothing_dated_is_judged() {
    let mut server = Server::new(RegistryConfig::new());
    let me = "@AbCdEfGhIjKlMn0";
    let peer = "192.0.2.9:4000".parse().unwrap();
    server
        .registry
        .handle_open_as(server.now, ConnId(9), peer, me.parse().unwrap());
    let reply = server.ask(9, &format!("CREATE_SEALED|{me}|AAAA|AAAA"));
    assert_eq!(code_of(&reply), ErrorCode::Internal);
}

#[test]
fn plain_connections_can_be_switched_off() {
    let mut server = Server::new(RegistryConfig::new().plain(false));
    server.open(1);
    for line in ["LIST_CLUSTERS|alice", "REGISTER_P2P_PORT|alice|9000"] {
        assert_eq!(code_of(&server.ask(1, line)), ErrorCode::Unauthenticated);
    }
    assert_eq!(server.registry.client_count(), 0);
}

#[test]
fn a_relay_quota_holds_over_reconnections() {
    let config = RegistryConfig::new().relay_quota(2_000, Duration::from_secs(60));
    let (mut server, _) = pair(config);
    let share = format!("MESSAGE_SHARE|mallory|alice|alice|1|{}", "A".repeat(900));
    assert!(server.send(2, format!("{share}\n").as_bytes()).is_empty());
    assert!(server.send(2, format!("{share}\n").as_bytes()).is_empty());
    assert_eq!(code_of(&server.ask(2, &share)), ErrorCode::QuotaExceeded);
    server.registry.handle_closed(server.now, ConnId(2));
    server.open(258);
    server.ask(258, "REGISTER_P2P_PORT|mallory|9002|rdt");
    assert_eq!(code_of(&server.ask(258, &share)), ErrorCode::QuotaExceeded);
    let accounts: Vec<_> = server.registry.relay_accounts(server.now).collect();
    assert_eq!((accounts.len(), accounts[0].shares.lines), (1, 2));
    assert!(accounts[0].shares.octets <= 2_000);
    // Datagrams between the two are another matter.
    let datagram = format!("MESSAGE_SHARE|mallory|alice|alice|0|{}\n", "A".repeat(900));
    assert!(server.send(258, datagram.as_bytes()).is_empty());
    let stats = server.registry.stats();
    assert_eq!((stats.relayed_lines, stats.relayed_datagrams), (3, 1));
    assert_eq!(stats.relay_refused, 2);
    server.now += Duration::from_secs(60);
    assert!(server.send(258, format!("{share}\n").as_bytes()).is_empty());
}
