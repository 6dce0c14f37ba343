//! Members against servers, in memory and in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::world::{Mode, World, disturb};
use common::{Draw, id};
use vmdt_control::{
    ClusterState, LinkError, MemberConfig, MemberEvent, RegistryConfig, RelayError, Reply, Request,
    RequestError, relayed_data,
};
use vmdt_wire::{ErrorCode, MemberState, Message, NodeId};

fn world(members: usize) -> World {
    let mut world = World::new(RegistryConfig::new(), 1);
    world.members(members);
    world
}

/// What `peer` heard of the others in the meantime.
fn heard(world: &mut World, peer: usize) -> Vec<(String, MemberState)> {
    let pushes = world.take_events(peer).into_iter().filter_map(|e| match e {
        MemberEvent::Push(Message::Member { id, state, .. }) => Some((id.to_string(), state)),
        _ => None,
    });
    pushes.collect()
}

fn states(events: &[MemberEvent]) -> Vec<ClusterState> {
    let states = events.iter().filter_map(|e| match e {
        MemberEvent::State { state, .. } => Some(*state),
        _ => None,
    });
    states.collect()
}

#[test]
fn members_of_a_cluster_know_each_other_without_asking() {
    for piece in [usize::MAX, 1, 7] {
        let mut world = World::new(RegistryConfig::new(), 1);
        world.piece = piece;
        world.members(5);
        let cluster = world.cluster(5, 5, 3);
        world.assert_rosters_agree("joined");
        for peer in 0..5 {
            let roster = world.peers[peer].member.cluster(cluster).unwrap();
            assert_eq!(roster.state(), ClusterState::Ready);
            assert_eq!(roster.members().count(), 4);
            assert_eq!(roster.present(), 5);
            let info = roster.info().unwrap();
            assert_eq!((info.n, info.k, info.options.max_members), (5, 3, Some(6)));
            let events = world.take_events(peer);
            assert_eq!(states(&events), [ClusterState::Ready]);
            let ready =
                |e: &&MemberEvent| matches!(e, MemberEvent::Push(Message::ClusterReady { .. }));
            assert_eq!(events.iter().filter(ready).count(), 1);
        }
        let third = world.peers[0]
            .member
            .cluster(cluster)
            .unwrap()
            .member(id("peer_3"));
        assert_eq!(
            third.unwrap().address,
            Some("192.0.2.3:9003".parse().unwrap())
        );
    }
}

#[test]
fn every_kind_of_request_has_its_reply() {
    let mut world = world(2);
    let cluster = world.cluster(2, 2, 2);
    match world.ask(0, Request::ListClusters) {
        Reply::Clusters(list) => assert_eq!((list.len(), list[0].active), (1, true)),
        other => panic!("{other:?}"),
    }
    let members = world.ask(0, Request::Members(cluster));
    assert_eq!(members, Reply::Members(vec![id("peer_0"), id("peer_1")]));
    match world.ask(0, Request::ClientInfo(id("peer_1"))) {
        Reply::ClientInfo { address, caps } => {
            assert_eq!(address, "192.0.2.1:9001".parse().unwrap());
            assert!(caps.is_some());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        world.ask(1, Request::LeaveCluster(cluster)),
        Reply::Left { cluster }
    );
    assert!(world.peers[1].member.cluster(cluster).is_none());
    assert_eq!(
        heard(&mut world, 0).last().unwrap(),
        &("peer_1".into(), MemberState::Left)
    );
    world.assert_rosters_agree("left");
}

#[test]
fn a_refusal_says_what_the_server_said() {
    let mut world = world(1);
    let cluster = "cluster_none".parse().unwrap();
    let request = world.request(0, Request::JoinCluster(cluster));
    match &world.results(0, request)[..] {
        [Err(RequestError::Refused(error))] => {
            assert_eq!(error.code, ErrorCode::UnknownCluster);
            assert_eq!(error.text, "there is no cluster cluster_none");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn replies_are_matched_though_pushes_arrive_in_between() {
    let mut world = world(8);
    let cluster = world.create(0, 5, 3);
    for round in 0..20 {
        // Replies pile up for peer 0 while the others join and leave.
        world.stall(0, true);
        let mut asked = Vec::new();
        for peer in 1..8 {
            let member = &mut world.peers[0].member;
            asked.push((member.request(world.now, Request::ListClusters), 0));
            asked.push((member.request(world.now, Request::Members(cluster)), 1));
            let info = Request::ClientInfo(id(&format!("peer_{peer}")));
            asked.push((member.request(world.now, info), 2));
            let request = match round % 2 {
                0 => Request::JoinCluster(cluster),
                _ => Request::LeaveCluster(cluster),
            };
            // The cluster has room for six.
            world.request(peer, request);
        }
        world.stall(0, false);
        for (request, kind) in asked {
            let results = world.results(0, request);
            assert_eq!(results.len(), 1, "round {round}");
            let matched = match results[0] {
                Ok(Reply::Clusters(_)) => kind == 0,
                Ok(Reply::Members(_)) => kind == 1,
                Ok(Reply::ClientInfo { .. }) => kind == 2,
                _ => false,
            };
            assert!(matched, "round {round}: {results:?}");
        }
        world.assert_rosters_agree(&format!("round {round}"));
    }
}

#[test]
fn a_lost_connection_is_resumed_and_the_others_are_told() {
    let mut world = world(3);
    let cluster = world.cluster(3, 3, 2);
    for peer in 0..3 {
        world.take_events(peer);
    }
    world.cut(2);
    assert_eq!(heard(&mut world, 0), [("peer_2".into(), MemberState::Away)]);
    // What is known stays known while nobody can be asked.
    let roster = world.peers[2].member.cluster(cluster).unwrap();
    assert!(roster.state().is_active() && !roster.is_confirmed());
    assert_eq!(roster.members().count(), 2);
    // Asked while there is no connection, answered when there is one.
    let request = world.request(2, Request::Members(cluster));
    assert!(world.results(2, request).is_empty());
    world.seconds(1);
    assert!(matches!(
        world.results(2, request)[..],
        [Ok(Reply::Members(_))]
    ));
    assert_eq!(heard(&mut world, 0), [("peer_2".into(), MemberState::Back)]);
    let events = world.take_events(2);
    assert!(events.contains(&MemberEvent::Rejoined { cluster }));
    assert!(matches!(
        events[0],
        MemberEvent::Disconnected {
            reason: LinkError::Closed,
            ..
        }
    ));
    world.assert_rosters_agree("resumed");
}

#[test]
fn who_left_meanwhile_is_reported_after_the_return() {
    let mut world = world(4);
    let cluster = world.cluster(4, 3, 2);
    world.cut(0);
    world.servers[0].mode = Mode::Refusing;
    world.ask(3, Request::LeaveCluster(cluster));
    world.seconds(5);
    world.take_events(0);
    world.servers[0].mode = Mode::Up;
    world.seconds(20);
    let heard = heard(&mut world, 0);
    assert!(
        heard.contains(&("peer_3".into(), MemberState::Left)),
        "{heard:?}"
    );
    world.assert_rosters_agree("returned");
}

#[test]
fn degraded_suspended_and_ready_again_follow_from_the_pushes() {
    let mut world = world(3);
    world.cluster(3, 3, 2);
    world.take_events(0);
    for peer in [1, 2] {
        world.cut(peer);
    }
    world.seconds(1);
    use ClusterState::{Degraded, Ready, Suspended};
    let events = world.take_events(0);
    assert_eq!(states(&events), [Degraded, Suspended, Degraded, Ready]);
    // Readiness is not announced again to who knows it.
    let ready = |e: &MemberEvent| matches!(e, MemberEvent::Push(Message::ClusterReady { .. }));
    assert!(!events.iter().any(ready));
}

#[test]
fn a_request_without_a_connection_fails_in_time_and_says_why() {
    let mut world = World::new(RegistryConfig::new(), 1);
    world.servers[0].mode = Mode::Refusing;
    let config = world
        .config("alone")
        .request_timeout(Duration::from_secs(10));
    world.add(config);
    let request = world.request(0, Request::ListClusters);
    world.pass(Duration::from_millis(9_999));
    assert!(world.results(0, request).is_empty());
    world.pass(Duration::from_millis(1));
    let expected = RequestError::NotConnected {
        after: Duration::from_secs(10),
        last: Some(LinkError::Connect(ErrorKind::ConnectionRefused)),
    };
    assert_eq!(
        expected.to_string(),
        "no connection within 10s: the server cannot be reached: connection refused"
    );
    assert_eq!(world.results(0, request), [Err(expected)]);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let mut world = World::new(RegistryConfig::new(), 2);
    world.servers[0].mode = Mode::Silent;
    let config = world.config("alice");
    world.add(config);
    assert!(!world.peers[0].member.is_registered());
    // The machine learns the time with its first call.
    world.request(0, Request::ListClusters);
    world.seconds(6);
    assert!(world.peers[0].member.is_registered());
    let timeout = LinkError::ConnectTimeout {
        after: Duration::from_secs(5),
    };
    assert_eq!(world.peers[0].member.last_error(), Some(&timeout));
    let tried: Vec<_> = world.peers[0].connects.iter().map(|c| c.1).collect();
    assert_eq!(tried, world.addresses());
}

#[test]
fn an_accepted_connection_that_never_confirms_is_given_up() {
    let mut world = World::new(RegistryConfig::new(), 1);
    let config = world.config("alice");
    world.servers[0].mode = Mode::Refusing;
    world.add(config);
    world.peers[0].muted = true;
    world.servers[0].mode = Mode::Up;
    world.seconds(6);
    assert!(!world.peers[0].member.is_registered());
    let timeout = LinkError::ConnectTimeout {
        after: Duration::from_secs(5),
    };
    assert_eq!(world.peers[0].member.last_error(), Some(&timeout));
    world.peers[0].muted = false;
    world.seconds(6);
    assert!(world.peers[0].member.is_registered());
}

#[test]
fn attempts_back_off_to_the_longest_wait_and_are_spread() {
    let mut world = World::new(RegistryConfig::new(), 1);
    world.servers[0].mode = Mode::Refusing;
    for name in ["one", "two"] {
        let config = world.config(name);
        world.add(config);
    }
    world.seconds(120);
    let waits = |world: &World, peer: usize| -> Vec<f64> {
        let connects = &world.peers[peer].connects;
        let pairs = connects.windows(2);
        pairs.map(|w| (w[1].0 - w[0].0).as_secs_f64()).collect()
    };
    let first = waits(&world, 0);
    assert_ne!(first, waits(&world, 1), "both wait alike");
    for (i, wait) in first.iter().enumerate() {
        let longest = (0.2 * 2_f64.powi(i as i32)).min(4.0);
        assert!((longest / 2.0..=longest).contains(wait), "{i}: {wait}");
    }
    assert!(first.len() > 12, "it never gives up");
}

#[test]
fn a_silent_connection_is_tested_and_replaced() {
    let mut world = world(2);
    let cluster = world.cluster(2, 2, 2);
    world.seconds(300);
    assert_eq!(
        world.peers[0].connects.len(),
        1,
        "a quiet connection is kept"
    );
    // Nothing comes back any more.
    world.stall(0, true);
    world.take_events(0);
    world.seconds(41);
    let events = world.take_events(0);
    let silent = LinkError::Silent {
        after: Duration::from_secs(20),
    };
    assert!(matches!(&events[0], MemberEvent::Disconnected { reason, .. } if *reason == silent));
    world.stall(0, false);
    world.seconds(20);
    assert!(
        world.peers[0]
            .member
            .cluster(cluster)
            .unwrap()
            .is_confirmed()
    );
    world.assert_rosters_agree("replaced");
}

#[test]
fn a_server_that_forgot_the_cluster_is_reported() {
    let mut world = world(2);
    let cluster = world.cluster(2, 2, 2);
    world.take_events(1);
    world.restart(0);
    world.seconds(1);
    assert!(world.peers[1].member.is_registered());
    let lost = world.take_events(1).into_iter().find_map(|e| match e {
        MemberEvent::ClusterLost {
            cluster: lost,
            reason,
        } if lost == cluster => reason,
        _ => None,
    });
    assert_eq!(lost.unwrap().code, ErrorCode::UnknownCluster);
    assert!(world.peers[1].member.cluster(cluster).is_none());
}

#[test]
fn a_server_that_closes_says_why() {
    let mut world = World::new(RegistryConfig::new(), 1);
    let first = world.config("same");
    world.add(first);
    // Another process of the same name elsewhere.
    let second = world.config("same");
    world.add(second);
    match world.peers[1].member.last_error() {
        Some(LinkError::Refused(error)) => assert_eq!(error.code, ErrorCode::IdInUse),
        other => panic!("{other:?}"),
    }
    assert!(world.peers[0].member.is_registered());
}

#[test]
fn only_what_can_be_repeated_is() {
    let mut world = world(3);
    let other = world.create(1, 3, 2);
    let mine = world.create(2, 3, 2);
    world.ask(0, Request::JoinCluster(mine));
    // The server does all of it, and the replies are lost.
    world.stall(0, true);
    let options = None;
    let create = world.request(
        0,
        Request::CreateCluster {
            n: 2,
            k: 2,
            options,
        },
    );
    let join = world.request(0, Request::JoinCluster(other));
    let leave = world.request(0, Request::LeaveCluster(mine));
    let list = world.request(0, Request::ListClusters);
    world.stall_and_cut(0);
    assert_eq!(
        world.results(0, create),
        [Err(RequestError::Interrupted(LinkError::Closed))]
    );
    world.seconds(1);
    assert!(matches!(
        world.results(0, join)[..],
        [Ok(Reply::Joined { .. })]
    ));
    assert_eq!(world.results(0, leave), [Ok(Reply::Left { cluster: mine })]);
    assert!(matches!(
        world.results(0, list)[..],
        [Ok(Reply::Clusters(_))]
    ));
    // The cluster nobody knows of goes with the grace.
    world.seconds(70);
    assert_eq!(world.servers[0].registry.clusters().count(), 2);
    world.assert_rosters_agree("repeated");
}

#[test]
fn what_a_reply_after_the_timeout_has_done_is_taken_back() {
    let mut world = World::new(RegistryConfig::new(), 1);
    for name in ["alice", "bob"] {
        let config = world.config(name).request_timeout(Duration::from_secs(2));
        world.add(config);
    }
    let cluster = world.create(1, 2, 2);
    world.stall(0, true);
    let late = world.request(0, Request::JoinCluster(cluster));
    world.seconds(3);
    let after = Duration::from_secs(2);
    assert_eq!(
        world.results(0, late),
        [Err(RequestError::Timeout { after })]
    );
    assert_eq!(world.view(0, cluster).unwrap().members.len(), 2);
    world.stall(0, false);
    assert_eq!(world.view(0, cluster).unwrap().members.len(), 1);

    // Asked again before the late reply came: the place is as if newly taken.
    world.stall(0, true);
    world.request(0, Request::JoinCluster(cluster));
    world.seconds(3);
    let again = world.request(0, Request::JoinCluster(cluster));
    world.stall(0, false);
    match &world.results(0, again)[..] {
        [
            Ok(Reply::Joined {
                info: Some(info), ..
            }),
        ] => assert_eq!((info.n, info.k), (2, 2)),
        other => panic!("{other:?}"),
    }
    world.assert_rosters_agree("asked again");
}

#[test]
fn the_queue_of_requests_is_bounded() {
    let mut world = World::new(RegistryConfig::new(), 1);
    world.servers[0].mode = Mode::Refusing;
    let config = world.config("alice").max_requests(3);
    world.add(config);
    let requests: Vec<_> = (0..5)
        .map(|_| world.request(0, Request::ListClusters))
        .collect();
    assert!(world.results(0, requests[2]).is_empty());
    for &refused in &requests[3..] {
        assert_eq!(
            world.results(0, refused),
            [Err(RequestError::QueueFull { limit: 3 })]
        );
    }
}

#[test]
fn a_member_without_servers_fails_its_requests() {
    let mut world = World::new(RegistryConfig::new(), 0);
    let config = world.config("alice");
    world.add(config);
    let request = world.request(0, Request::ListClusters);
    world.seconds(11);
    match &world.results(0, request)[..] {
        [Err(RequestError::NotConnected { last, .. })] => {
            assert_eq!(last.as_ref(), Some(&LinkError::NoServers));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_member_whose_id_no_line_can_carry_says_so() {
    let mut world = World::new(RegistryConfig::new(), 1);
    let config = MemberConfig::new(NodeId::EMPTY, 9_000, world.addresses());
    world.add(config);
    let last = world.peers[0].member.last_error();
    assert_eq!(last, Some(&LinkError::BadId));
}

#[test]
fn a_stopped_member_answers_everything_and_stays_stopped() {
    let mut world = world(2);
    let cluster = world.cluster(2, 2, 2);
    world.take_events(1);
    let now = world.now;
    let member = &mut world.peers[0].member;
    let open = member.request(now, Request::ListClusters);
    member.stop();
    member.stop();
    let late = member.request(now, Request::ListClusters);
    world.pump();
    assert_eq!(world.results(0, open), [Err(RequestError::Stopped)]);
    assert_eq!(world.results(0, late), [Err(RequestError::Stopped)]);
    let relayed = world.peers[0]
        .member
        .relay(now, id("peer_1"), id("peer_1"), 0, b"x");
    assert_eq!(relayed, Err(RelayError::NotConnected));
    world.seconds(3_000);
    assert_eq!(world.peers[0].connects.len(), 1);
    assert_eq!(world.peers[0].member.poll_timeout(), None);
    // The place is kept for the grace, then given up.
    assert_eq!(
        heard(&mut world, 1),
        [
            ("peer_0".into(), MemberState::Away),
            ("peer_0".into(), MemberState::Left)
        ]
    );
    assert_eq!(world.view(0, cluster).unwrap().members.len(), 1);
}

#[test]
fn relayed_data_arrives_as_it_was_and_refusals_are_reported() {
    let mut world = world(3);
    world.cluster(3, 3, 3);
    world.take_events(1);
    let data: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let now = world.now;
    let member = &mut world.peers[0].member;
    member
        .relay(now, id("peer_1"), id("peer_2"), 2, &data)
        .unwrap();
    // The server would carry as many shares as reveal the message.
    member
        .relay(now, id("peer_1"), id("peer_2"), 3, &data)
        .unwrap();
    world.pump();
    let relayed: Vec<_> = world
        .take_events(1)
        .into_iter()
        .filter_map(|e| match e {
            MemberEvent::Push(Message::MessageShare {
                from,
                target,
                index,
                data,
                ..
            }) => Some((from, target, index, relayed_data(&data).unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(relayed, [(id("peer_0"), id("peer_2"), 2, data)]);
    let refused = world.take_events(0).into_iter().find_map(|e| match e {
        MemberEvent::RelayRefused { to, index, error } => Some((to, index, error.code)),
        _ => None,
    });
    assert_eq!(refused, Some((id("peer_1"), 3, ErrorCode::RelayRefused)));
}

#[test]
fn relay_is_bounded_at_the_sender_and_at_the_recipient() {
    let mut world = World::new(RegistryConfig::new().max_backlog(64 * 1024), 1);
    for i in 0..3 {
        let config = world.config(&format!("peer_{i}")).max_backlog(64 * 1024);
        world.add(config);
    }
    world.cluster(3, 3, 2);
    let now = world.now;
    let (to, data) = (id("peer_1"), [0; 10_000]);
    let member = &mut world.peers[0].member;
    assert!(matches!(
        member.relay(now, to, to, 1, &[0; 512 * 1024]),
        Err(RelayError::TooLong { .. })
    ));
    assert_eq!(
        member.relay(now, to, to, 10_000, &data),
        Err(RelayError::Index { index: 10_000 })
    );
    let taken = (0..10)
        .filter(|_| member.relay(now, to, to, 1, &data).is_ok())
        .count();
    assert_eq!(taken, 4, "13,400 octets each, 65,536 may wait");

    // A recipient that does not read is not shed for it: the sender is told.
    world.stall(1, true);
    world.pump();
    for _ in 0..5 {
        let _ = world.peers[0].member.relay(now, to, to, 1, &data);
        world.pump();
    }
    let refused = |e: &MemberEvent| matches!(e, MemberEvent::RelayRefused { error, .. } if error.code == ErrorCode::QuotaExceeded);
    assert!(world.take_events(0).iter().any(refused));
    assert!(world.closed.is_empty());
    world.stall(1, false);
    world.assert_rosters_agree("caught up");
}

#[test]
fn a_client_that_never_reads_is_shed_and_harms_nobody() {
    let mut world = World::new(RegistryConfig::new().max_backlog(16 * 1024), 1);
    world.members(4);
    let cluster = world.cluster(3, 3, 2);
    world.stall(2, true);
    let mut rounds = 0;
    while world.closed.is_empty() {
        // The news of this fill its backlog.
        world.ask(3, Request::JoinCluster(cluster));
        world.ask(3, Request::LeaveCluster(cluster));
        rounds += 1;
        assert!(rounds < 1_000, "never shed");
    }
    assert_eq!(world.servers[0].registry.stats().shed, 1);
    assert_eq!(world.closed.len(), 1);
    // The others have seen every join and leave, and that it is away.
    let heard = heard(&mut world, 0);
    assert_eq!(
        heard.iter().filter(|h| h.1 == MemberState::Left).count(),
        rounds
    );
    assert!(heard.contains(&("peer_2".into(), MemberState::Away)));
    // Reading again it is back.
    world.stall(2, false);
    world.seconds(5);
    world.assert_rosters_agree("back");
}

#[test]
fn a_silent_client_harms_nobody() {
    let mut world = world(2);
    // Connected, and not a word.
    let conn = vmdt_control::ConnId(1_000_000);
    let now = world.now;
    let registry = &mut world.servers[0].registry;
    registry.handle_open(now, conn, "198.51.100.1:1".parse().unwrap());
    let cluster = world.cluster(2, 2, 2);
    assert_eq!(world.servers[0].registry.connection_count(), 3);
    world.seconds(10);
    assert_eq!(world.closed, [conn]);
    assert_eq!(world.servers[0].registry.connection_count(), 2);
    assert!(
        world.peers[0]
            .member
            .cluster(cluster)
            .unwrap()
            .state()
            .is_active()
    );
}

#[test]
fn a_member_without_capabilities_follows_the_servers_word() {
    let mut world = World::new(RegistryConfig::new(), 1);
    for name in ["alice", "bob"] {
        let config = world.config(name).caps(None);
        world.add(config);
    }
    let cluster = world.create(0, 2, 2);
    let state = |world: &World| world.peers[0].member.cluster(cluster).unwrap().state();
    assert_eq!(state(&world), ClusterState::Creating);
    world.ask(1, Request::JoinCluster(cluster));
    assert_eq!(state(&world), ClusterState::Ready);
    // Back as soon as it names itself; joining again is resuming.
    world.cut(0);
    world.seconds(1);
    assert_eq!(state(&world), ClusterState::Ready);
    assert!(
        world.peers[0]
            .member
            .cluster(cluster)
            .unwrap()
            .is_confirmed()
    );
}

#[test]
fn the_longest_times_are_allowed() {
    let never = Duration::MAX;
    let config = RegistryConfig::new()
        .grace(never)
        .first_line(never)
        .idle(never)
        .idle_open(never);
    let mut world = World::new(config, 1);
    let config = world.config("alice");
    let config = config
        .backoff(never, never)
        .connect_timeout(never)
        .request_timeout(never)
        .ping_interval(never);
    world.add(config);
    world.create(0, 2, 2);
    world.cut(0);
    world.seconds(1_000_000);
    assert_eq!(world.servers[0].registry.clusters().count(), 1);
}

#[test]
fn lines_a_member_cannot_read_are_skipped() {
    let mut world = world(1);
    let now = world.now;
    let member = &mut world.peers[0].member;
    let lines: [&[u8]; 6] = [
        b"NONSENSE\n",
        b"\xff\xfe\0\n",
        b"OK|whatever\n",
        b"VMDT/TCP/1.0/CLUSTER_READY/cluster_other\n",
        b"VMDT/TCP/1.0/MEMBER/cluster_other/eve/joined\n",
        b"VMDT/TCP/1.0/CLUSTER_LIST/~4000000\n",
    ];
    for line in lines {
        member.handle_bytes(now, line);
    }
    world.pump();
    assert!(world.peers[0].member.is_registered());
    assert_eq!(world.peers[0].member.roster().count(), 0);
    assert!(matches!(
        world.ask(0, Request::ListClusters),
        Reply::Clusters(_)
    ));
    // A line without an end is not.
    let member = &mut world.peers[0].member;
    member.handle_bytes(now, &vec![b'x'; 600_000]);
    assert!(matches!(
        member.last_error(),
        Some(LinkError::LineTooLong { .. })
    ));
}

#[test]
fn after_any_disturbance_members_and_server_agree_again() {
    for seed in 0..1_000 {
        let mut draw = Draw::new(seed);
        let mut world = World::new(RegistryConfig::new(), 1);
        world.members(6);
        let clusters = [world.create(0, 3, 2), world.create(1, 4, 2)];
        let mut asked = Vec::new();
        for _ in 0..60 {
            if draw.one_in(2) {
                disturb(&mut world, &mut draw);
                continue;
            }
            let peer = draw.below(6);
            let cluster = *draw.pick(&clusters);
            let request = match draw.below(5) {
                0 => Request::LeaveCluster(cluster),
                1 => Request::ListClusters,
                2 => Request::Members(cluster),
                _ => Request::JoinCluster(cluster),
            };
            asked.push((peer, world.request(peer, request)));
            if draw.one_in(40) {
                world.restart(0);
            }
        }
        // Peace, for longer than the grace.
        world.servers[0].mode = Mode::Up;
        for peer in 0..6 {
            if world.peers[peer].muted {
                world.unmute(peer);
            }
            world.stall(peer, false);
        }
        world.seconds(180);
        for peer in &world.peers {
            assert!(peer.member.is_registered(), "seed {seed}");
        }
        world.assert_rosters_agree(&format!("seed {seed}"));
        for (peer, request) in asked {
            assert_eq!(world.results(peer, request).len(), 1, "seed {seed}");
        }
    }
}
