//! Profile 1.1: members that believe nobody, at a server that need not be believed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::base;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_control::{
    ClusterMemory, ClusterState, ConnId, Member, MemberConfig, MemberEvent, MemberOutput,
    MemoryError, Record, RecordKey, Registry, RegistryConfig, RegistryOutput, Reply, Request,
    RequestError, RequestId,
};
use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{Invite, InviteSecret, InviteTerms, Rights};
use vmdt_seal::membership::Membership;
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::profile::{Profile, ProfileDetails};
use vmdt_seal::revocation::{RevocationDetails, RevocationList};
use vmdt_wire::{ClusterId, ErrorCode, Line, Message, NodeId};

/// Some day in 2023, in milliseconds.
const TODAY: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn rng(octet: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([octet; 32])
}

struct Cluster {
    descriptor: Descriptor,
    invite: Invite,
    secret: InviteSecret,
}

fn cluster_of(creator: &SecretIdentity, options: u32) -> Cluster {
    let details = DescriptorDetails {
        k: 2,
        n: 3,
        options,
        name: "garden".to_owned(),
        created_ms: TODAY,
    };
    let descriptor = Descriptor::sign(creator, &details, &mut rng(100)).unwrap();
    let terms = InviteTerms {
        rights: Rights::MEMBER,
        expires_ms: TODAY + HOUR,
        max_uses: 0,
    };
    let (invite, secret) =
        Invite::issue(creator, None, &descriptor, &terms, &mut rng(101)).unwrap();
    Cluster {
        descriptor,
        invite,
        secret,
    }
}

impl Cluster {
    fn id(&self) -> ClusterId {
        self.descriptor.cluster()
    }

    fn membership(&self, who: &SecretIdentity) -> Bytes {
        let joined = Membership::accept(&self.invite, &self.secret, who.public(), TODAY);
        joined.unwrap().octets().clone()
    }
}

fn profile(who: &SecretIdentity, name: &str, version_ms: u64) -> Bytes {
    let prekeys = PrekeyStore::new(PrekeyConfig::default(), TODAY, &mut rng(102));
    let details = ProfileDetails {
        name: name.to_owned(),
        addresses: vec!["[2001:db8::7]:9000".parse().unwrap()],
        capabilities: vec![],
    };
    let profile = Profile::sign(who, &details, prekeys.current().public(), version_ms);
    profile.unwrap().octets().clone()
}

fn list(by: &SecretIdentity, cluster: &Cluster, version: u64, removed: Vec<NodeId>) -> Bytes {
    let details = RevocationDetails {
        cluster: cluster.descriptor.hash(),
        version,
        removed,
        invites: vec![],
        kept: vec![],
    };
    RevocationList::sign(by, &details).unwrap().octets().clone()
}

struct Peer {
    identity: SecretIdentity,
    member: Member,
    conn: Option<ConnId>,
    events: Vec<MemberEvent>,
}

/// A server and its clients, without a network between.
struct World {
    now: Instant,
    start: Instant,
    registry: Registry,
    up: bool,
    peers: Vec<Peer>,
    conns: u64,
    kept: BTreeMap<RecordKey, Bytes>,
}

impl World {
    fn new(count: u8) -> World {
        let start = base();
        let mut world = World {
            now: start,
            start,
            registry: Registry::new(RegistryConfig::new(), [9; 32]),
            up: true,
            peers: Vec::new(),
            conns: 0,
            kept: BTreeMap::new(),
        };
        world.registry.handle_clock(start, TODAY);
        world.registry.begin_recording();
        for octet in 1..=count {
            let identity = SecretIdentity::from_seed(&[octet; 32]);
            let server = "192.0.2.1:8080".parse().unwrap();
            let config = MemberConfig::new(identity.node_id(), 9_000, vec![server]);
            world.peers.push(Peer {
                member: Member::new(config, [octet; 32]),
                identity,
                conn: None,
                events: Vec::new(),
            });
        }
        world.settle();
        world
    }

    fn id(&self, peer: usize) -> NodeId {
        self.peers[peer].identity.node_id()
    }

    /// Lets everything happen that takes no time.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            for index in 0..self.peers.len() {
                while let Some(output) = self.peers[index].member.poll_output() {
                    busy = true;
                    self.take_member_output(index, output);
                }
                while let Some(event) = self.peers[index].member.poll_event() {
                    self.peers[index].events.push(event);
                }
            }
            while let Some(Record { key, value }) = self.registry.poll_record() {
                match value {
                    Some(value) => self.kept.insert(key, value),
                    None => self.kept.remove(&key),
                };
            }
            while let Some(output) = self.registry.poll_output() {
                busy = true;
                self.take_registry_output(output);
            }
            if !busy {
                return;
            }
        }
    }

    fn take_member_output(&mut self, index: usize, output: MemberOutput) {
        let peer = &mut self.peers[index];
        match output {
            MemberOutput::Connect { attempt, .. } if self.up => {
                self.conns += 1;
                let conn = ConnId(self.conns);
                peer.conn = Some(conn);
                let from = "198.51.100.7:4000".parse().unwrap();
                let id = peer.identity.node_id();
                self.registry.handle_open_as(self.now, conn, from, id);
                peer.member.handle_connected(self.now, attempt);
            }
            MemberOutput::Connect { attempt, .. } => {
                let kind = std::io::ErrorKind::ConnectionRefused;
                peer.member.handle_connect_failed(self.now, attempt, kind);
            }
            MemberOutput::Write { bytes } => {
                peer.member.handle_sent(self.now, bytes.len());
                if let Some(conn) = peer.conn {
                    self.registry.handle_bytes(self.now, conn, &bytes);
                }
            }
            MemberOutput::Close => {
                if let Some(conn) = peer.conn.take() {
                    self.registry.handle_closed(self.now, conn);
                }
            }
        }
    }

    fn take_registry_output(&mut self, output: RegistryOutput) {
        let conn = match &output {
            RegistryOutput::Write { conn, .. } | RegistryOutput::Close { conn } => *conn,
        };
        let peer = self.peers.iter_mut().find(|peer| peer.conn == Some(conn));
        match (output, peer) {
            (RegistryOutput::Write { conn, bytes }, peer) => {
                self.registry.handle_sent(self.now, conn, bytes.len());
                if let Some(peer) = peer {
                    peer.member.handle_bytes(self.now, &bytes);
                }
            }
            (RegistryOutput::Close { .. }, Some(peer)) => {
                peer.conn = None;
                peer.member.handle_closed(self.now);
            }
            (RegistryOutput::Close { .. }, None) => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadlines = self.peers.iter().filter_map(|p| p.member.poll_timeout());
            let next = deadlines.chain(self.registry.poll_timeout()).min();
            let Some(next) = next.filter(|&at| at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.registry.handle_timeout(self.now);
            for peer in &mut self.peers {
                peer.member.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn ask(&mut self, peer: usize, request: Request) -> Result<Reply, RequestError> {
        let id = self.peers[peer].member.request(self.now, request);
        self.settle();
        self.result(peer, id).expect("a reply")
    }

    fn result(&self, peer: usize, id: RequestId) -> Option<Result<Reply, RequestError>> {
        let mut events = self.peers[peer].events.iter();
        events.find_map(|event| match event {
            MemberEvent::Reply { request, result } if *request == id => Some(result.clone()),
            _ => None,
        })
    }

    fn refused(&mut self, peer: usize, request: Request) -> ErrorCode {
        match self.ask(peer, request) {
            Err(RequestError::Refused(error)) => error.code,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn create(&mut self, cluster: &Cluster) {
        let own = Membership::of_creator(&self.peers[0].identity, &cluster.descriptor, TODAY);
        let request = Request::CreateSealed {
            descriptor: cluster.descriptor.octets().clone(),
            membership: own.unwrap().octets().clone(),
        };
        let reply = self.ask(0, request).unwrap();
        let cluster = cluster.id();
        assert_eq!(reply, Reply::Created { cluster });
    }

    fn join(&mut self, peer: usize, cluster: &Cluster) -> Result<Reply, RequestError> {
        let membership = cluster.membership(&self.peers[peer].identity);
        let cluster = cluster.id();
        self.ask(
            peer,
            Request::JoinSealed {
                cluster,
                membership,
            },
        )
    }

    /// A cluster of the first three.
    fn garden(count: u8) -> (World, Cluster) {
        let mut world = World::new(count);
        let cluster = cluster_of(&world.peers[0].identity, 0);
        world.create(&cluster);
        for peer in 1..3 {
            world.join(peer, &cluster).unwrap();
        }
        (world, cluster)
    }

    fn state(&self, peer: usize, cluster: &Cluster) -> Option<ClusterState> {
        let roster = self.peers[peer].member.cluster(cluster.id());
        roster.map(|roster| roster.state())
    }

    fn pushes(&self, peer: usize, word: &str) -> usize {
        let pushed =
            |event: &&MemberEvent| matches!(event, MemberEvent::Push(m) if m.type_word() == word);
        self.peers[peer].events.iter().filter(pushed).count()
    }

    /// What a member knows of the cluster, as a file would keep it.
    fn memory(&self, peer: usize, cluster: &Cluster) -> ClusterMemory {
        let memory = self.peers[peer].member.memory(cluster.id()).unwrap();
        ClusterMemory::parse(&memory.encode()).unwrap()
    }

    /// A member's process ends, and another one begins with the same identity.
    fn start_anew(&mut self, peer: usize) {
        let id = self.id(peer);
        let peer = &mut self.peers[peer];
        if let Some(conn) = peer.conn.take() {
            self.registry.handle_closed(self.now, conn);
        }
        let server = "192.0.2.1:8080".parse().unwrap();
        peer.member = Member::new(MemberConfig::new(id, 9_000, vec![server]), [77; 32]);
        peer.events.clear();
        self.settle();
    }

    /// The server goes away, and comes back as `registry`.
    fn crash(&mut self) {
        self.up = false;
        for peer in &mut self.peers {
            if peer.conn.take().is_some() {
                peer.member.handle_closed(self.now);
            }
        }
        self.registry = Registry::new(RegistryConfig::new(), [10; 32]);
        self.settle();
    }

    fn restart(&mut self, with_store: bool) {
        let passed = self.now.duration_since(self.start).as_millis() as u64;
        self.registry.handle_clock(self.now, TODAY + passed);
        if with_store {
            let kept = std::mem::take(&mut self.kept);
            let restored = self.registry.restore(self.now, kept.clone());
            assert_eq!(restored.skipped, 0);
            assert_eq!(
                restored.clusters + restored.places + restored.profiles,
                kept.len()
            );
            self.kept = kept;
        }
        self.registry.begin_recording();
        self.up = true;
    }
}

#[test]
fn members_check_each_other_and_the_cluster_becomes_ready() {
    let (world, cluster) = World::garden(3);
    for peer in 0..3 {
        assert_eq!(
            world.state(peer, &cluster),
            Some(ClusterState::Ready),
            "{peer}"
        );
        let roster = world.peers[peer].member.cluster(cluster.id()).unwrap();
        let trust = roster.sealed().unwrap().trust().unwrap();
        for other in 0..3 {
            let key = trust.key(world.id(other)).unwrap();
            assert_eq!(key, world.peers[other].identity.public());
        }
        assert_eq!(roster.members().count(), 2);
    }
    let view = world.registry.clusters().next().unwrap();
    assert!(view.sealed && view.state == ClusterState::Ready);
}

#[test]
fn profiles_reach_the_members_and_nobody_else() {
    let (mut world, cluster) = World::garden(5);
    let first = profile(&world.peers[0].identity, "alice", TODAY);
    assert_eq!(
        world.ask(0, Request::PutProfile(first.clone())),
        Ok(Reply::Done)
    );
    let id = world.id(0);
    for peer in 1..3 {
        let known = world.peers[peer].member.profile(id).unwrap();
        assert_eq!(known.octets(), &first);
        assert_eq!(world.pushes(peer, "PROFILE"), 1);
    }
    // Who joins later fetches it by itself.
    world.join(3, &cluster).unwrap();
    assert_eq!(world.peers[3].member.profile(id).unwrap().name(), "alice");
    // A stranger is told nothing, not even that there is somebody.
    assert_eq!(
        world.refused(4, Request::GetProfile(id)),
        ErrorCode::UnknownClient
    );
    assert_eq!(
        world.refused(4, Request::ClientInfo(id)),
        ErrorCode::UnknownClient
    );
    let members = Request::Members(cluster.id());
    assert_eq!(world.refused(4, members), ErrorCode::NotAMember);
    assert_eq!(
        world.ask(4, Request::ListClusters),
        Ok(Reply::Clusters(vec![]))
    );

    let newer = profile(&world.peers[0].identity, "alicia", TODAY + 1);
    world.ask(0, Request::PutProfile(newer.clone())).unwrap();
    assert_eq!(world.peers[2].member.profile(id).unwrap().name(), "alicia");
    assert_eq!(
        world.refused(0, Request::PutProfile(first)),
        ErrorCode::Stale
    );
    assert_eq!(
        world.ask(0, Request::PutProfile(newer.clone())),
        Ok(Reply::Done),
        "a repetition"
    );
    let view = world.registry.clusters().next().unwrap();
    let alice = view.members.iter().find(|m| m.id == id).unwrap();
    assert_eq!(alice.claimed, ["[2001:db8::7]:9000".parse().unwrap()]);
    assert_eq!(alice.address, Some("198.51.100.7:9000".parse().unwrap()));
    assert_eq!(
        world.ask(3, Request::GetProfile(id)),
        Ok(Reply::Profile { id, profile: newer })
    );
}

#[test]
fn nobody_joins_without_a_membership_of_their_own_in_this_cluster() {
    let (mut world, cluster) = World::garden(6);
    let id = cluster.id();
    assert_eq!(
        world.refused(3, Request::JoinCluster(id)),
        ErrorCode::Refused
    );
    let other = cluster_of(&world.peers[5].identity, 0);
    let own = world.peers[3].identity.clone();
    let mut damaged = cluster.membership(&own).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let memberships = [
        cluster.membership(&world.peers[1].identity),
        other.membership(&own),
        damaged.into(),
        Bytes::from_static(b"x"),
    ];
    for membership in memberships {
        let cluster = id;
        let request = Request::JoinSealed {
            cluster,
            membership,
        };
        assert_eq!(world.refused(3, request), ErrorCode::BadSignature);
    }
    // A ticket that has expired.
    world.pass(Duration::from_millis(HOUR));
    assert!(matches!(
        world.join(3, &cluster),
        Err(RequestError::Refused(error)) if error.code == ErrorCode::BadSignature
    ));
    assert_eq!(world.registry.clusters().next().unwrap().members.len(), 3);
}

#[test]
fn a_removed_member_is_out_everywhere_and_stays_out() {
    let (mut world, cluster) = World::garden(4);
    world.join(3, &cluster).unwrap();
    let id = cluster.id();
    let (creator, member) = (
        world.peers[0].identity.clone(),
        world.peers[1].identity.clone(),
    );
    let removed = world.id(3);
    let by_member = list(&member, &cluster, 1, vec![removed]);
    let request = |list| Request::Revoke { cluster: id, list };
    assert_eq!(
        world.refused(1, request(by_member)),
        ErrorCode::BadSignature
    );
    let signed = list(&creator, &cluster, 2, vec![removed]);
    // Anybody may bring what the creator has signed.
    assert_eq!(world.ask(2, request(signed.clone())), Ok(Reply::Done));
    for peer in 0..3 {
        let roster = world.peers[peer].member.cluster(id).unwrap();
        assert!(roster.member(removed).is_none(), "{peer}");
        assert!(!roster.sealed().unwrap().trust().unwrap().is_member(removed));
        assert_eq!(roster.sealed().unwrap().revoked(), Some(&signed));
        assert_eq!(world.pushes(peer, "REVOKED"), 1);
    }
    assert!(world.peers[3].member.cluster(id).is_none());
    let lost = |e: &MemberEvent| matches!(e, MemberEvent::ClusterLost { .. });
    assert_eq!(world.peers[3].events.iter().filter(|e| lost(e)).count(), 1);
    let error = world.join(3, &cluster).unwrap_err();
    assert!(matches!(error, RequestError::Refused(e) if e.code == ErrorCode::Removed));
    let older = list(&creator, &cluster, 1, vec![]);
    assert_eq!(world.refused(0, request(older)), ErrorCode::Stale);

    // The ban outlives the server.
    world.crash();
    world.restart(true);
    world.pass(Duration::from_secs(6));
    let error = world.join(3, &cluster).unwrap_err();
    assert!(matches!(error, RequestError::Refused(e) if e.code == ErrorCode::Removed));
}

#[test]
fn members_go_on_while_the_server_is_down_and_come_back_by_themselves() {
    for with_store in [true, false] {
        let (mut world, cluster) = World::garden(3);
        for peer in 0..3 {
            let profile = profile(&world.peers[peer].identity, "x", TODAY);
            world.ask(peer, Request::PutProfile(profile)).unwrap();
        }
        world.crash();
        // Two days: the invite has expired long ago.
        world.pass(Duration::from_secs(48 * 3_600));
        for peer in 0..3 {
            let member = &world.peers[peer].member;
            assert!(!member.is_registered());
            assert_eq!(world.state(peer, &cluster), Some(ClusterState::Ready));
            let other = world.id((peer + 1) % 3);
            assert!(member.profile(other).is_some());
            assert!(
                member
                    .cluster(cluster.id())
                    .unwrap()
                    .member(other)
                    .is_some()
            );
        }
        world.restart(with_store);
        world.pass(Duration::from_secs(5));
        for peer in 0..3 {
            let member = &world.peers[peer].member;
            assert!(member.is_registered(), "{peer}");
            assert!(member.cluster(cluster.id()).unwrap().is_confirmed());
            assert_eq!(world.state(peer, &cluster), Some(ClusterState::Ready));
        }
        let view = world.registry.clusters().next().unwrap();
        assert_eq!((view.id, view.members.len()), (cluster.id(), 3));
        let lost = |e: &MemberEvent| matches!(e, MemberEvent::ClusterLost { .. });
        assert!(!world.peers.iter().any(|p| p.events.iter().any(lost)));
        // Profiles are there again too.
        let target = world.id(0);
        assert!(world.ask(1, Request::GetProfile(target)).is_ok());
    }
}

#[test]
fn a_thousand_clients_are_back_five_seconds_after_the_server() {
    let mut world = World::new(0);
    let server = "192.0.2.1:8080".parse().unwrap();
    for index in 0..1_000_u32 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&index.to_be_bytes());
        let identity = SecretIdentity::from_seed(&seed);
        let config = MemberConfig::new(identity.node_id(), 9_000, vec![server]);
        world.peers.push(Peer {
            member: Member::new(config, seed),
            identity,
            conn: None,
            events: Vec::new(),
        });
    }
    world.settle();
    world.crash();
    world.pass(Duration::from_secs(60));
    world.restart(false);
    let mut back = Vec::new();
    for _ in 0..50 {
        world.pass(Duration::from_millis(100));
        back.push(
            world
                .peers
                .iter()
                .filter(|p| p.member.is_registered())
                .count(),
        );
    }
    assert_eq!(back.last(), Some(&1_000));
    let most = back.windows(2).map(|w| w[1] - w[0]).max().unwrap();
    assert!(most < 200, "not all at once: {back:?}");
}

#[test]
fn two_meet_at_a_number_and_a_third_voids_it() {
    let mut world = World::new(3);
    assert_eq!(
        world.ask(0, Request::CodeOpen),
        Ok(Reply::Code { number: 1 })
    );
    assert_eq!(world.ask(1, Request::CodeJoin(1)), Ok(Reply::Done));
    let data = Bytes::from_static(b"\x00first\xff");
    let pass = |data: &Bytes| Request::CodePass {
        number: 1,
        data: data.clone(),
    };
    assert_eq!(world.ask(1, pass(&data)), Ok(Reply::Done));
    assert_eq!(world.ask(0, pass(&data)), Ok(Reply::Done));
    for peer in 0..2 {
        let pushed = MemberEvent::Push(Message::CodePass {
            client: None,
            number: 1,
            data: data.to_vec(),
        });
        assert!(world.peers[peer].events.contains(&pushed));
    }
    assert_eq!(
        world.refused(2, Request::CodeJoin(1)),
        ErrorCode::UnknownNumber
    );
    for peer in 0..2 {
        assert_eq!(world.pushes(peer, "CODE_CLOSE"), 1);
        assert_eq!(world.refused(peer, pass(&data)), ErrorCode::UnknownNumber);
    }
    assert_eq!(world.registry.code_count(), 0);
}

#[test]
fn a_server_that_lies_about_members_is_not_believed() {
    let (mut world, cluster) = World::garden(4);
    let id = cluster.id();
    let stranger = world.peers[3].identity.clone();
    // As if it were a member, with a membership that its own cluster gave it.
    let other = cluster_of(&stranger, 0);
    let forged = other.membership(&stranger);
    let lies = [
        Message::Member {
            cluster: id,
            id: stranger.node_id(),
            state: vmdt_wire::MemberState::Joined,
            address: None,
            caps: None,
        },
        Message::Membership {
            cluster: id,
            id: stranger.node_id(),
            membership: forged.to_vec(),
        },
        Message::Membership {
            cluster: id,
            id: stranger.node_id(),
            membership: cluster.membership(&world.peers[2].identity).to_vec(),
        },
        Message::Profile {
            id: world.id(0),
            profile: profile(&stranger, "alice", TODAY + 5).to_vec(),
        },
        Message::Profile {
            id: stranger.node_id(),
            profile: profile(&stranger, "eve", TODAY + 5).to_vec(),
        },
        Message::Revoked {
            cluster: id,
            list: list(&stranger, &cluster, 9, vec![world.id(0)]).to_vec(),
        },
    ];
    let before = world.peers[1].member.cluster(id).unwrap().clone();
    world.peers[1].events.clear();
    for lie in lies {
        let line = Line::slash(lie).emit().unwrap();
        let now = world.now;
        world.peers[1].member.handle_bytes(now, &line);
        world.settle();
    }
    assert_eq!(world.peers[1].member.cluster(id), Some(&before));
    assert!(world.peers[1].member.profile(stranger.node_id()).is_none());
    assert!(world.peers[1].member.profile(world.id(0)).is_none());
    assert_eq!(world.peers[1].events, []);
}

#[test]
fn lists_are_paged_and_show_listed_clusters_only() {
    let mut world = World::new(2);
    let creator = world.peers[0].identity.clone();
    let listed = cluster_of(&creator, vmdt_control::OPTION_LISTED);
    world.create(&listed);
    for _ in 0..20 {
        let request = Request::CreateCluster {
            n: 3,
            k: 2,
            options: None,
        };
        world.ask(0, request).unwrap();
    }
    let page = |reply| match reply {
        Ok(Reply::Clusters(page)) => page.iter().map(|e| e.cluster).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let all = page(world.ask(1, Request::ListClusters));
    assert_eq!(all.len(), 21);
    assert!(all.is_sorted() && all.contains(&listed.id()));
    let rest = page(world.ask(1, Request::ListClustersAfter(all[7])));
    assert_eq!(rest, all[8..]);
    let own = page(world.ask(0, Request::ListClustersAfter(all[7])));
    assert_eq!(own, all[8..]);
    assert_eq!(page(world.ask(1, Request::ListClustersAfter(all[20]))), []);
}

#[test]
fn an_identity_takes_its_id_back_from_any_address() {
    let (mut world, cluster) = World::garden(3);
    let conn = ConnId(99);
    let elsewhere = "203.0.113.9:1".parse().unwrap();
    let id = world.id(1);
    world
        .registry
        .handle_open_as(world.now, conn, elsewhere, id);
    let line = format!("VMDT/TCP/1.0/REGISTER_P2P_PORT/{id}/9000/rdt/~1\n");
    world
        .registry
        .handle_bytes(world.now, conn, line.as_bytes());
    world.settle();
    assert!(
        !world.peers[1].member.is_registered(),
        "the old connection was closed"
    );
    let view = world.registry.clusters().next().unwrap();
    assert_eq!(view.id, cluster.id());
}

#[test]
fn members_that_left_long_ago_take_no_room() {
    let (mut world, cluster) = World::garden(3);
    let id = cluster.id();
    let from = "198.51.100.8:4000".parse().unwrap();
    // More than a trust remembers.
    for index in 0..1_100_u32 {
        let mut seed = [200; 32];
        seed[..4].copy_from_slice(&index.to_be_bytes());
        let guest = SecretIdentity::from_seed(&seed);
        let conn = ConnId(10_000 + u64::from(index));
        world
            .registry
            .handle_open_as(world.now, conn, from, guest.node_id());
        let client = guest.node_id();
        let caps = Some(vmdt_wire::Caps::RDT);
        let port = 9_000;
        let membership = cluster.membership(&guest).to_vec();
        let cluster = id;
        for message in [
            Message::RegisterP2pPort { client, port, caps },
            Message::JoinSealed {
                client,
                cluster,
                membership,
            },
            Message::LeaveCluster {
                client,
                cluster: Some(cluster),
            },
        ] {
            let line = Line::slash(message).emit().unwrap();
            world.registry.handle_bytes(world.now, conn, &line);
        }
        world.settle();
        world.registry.handle_closed(world.now, conn);
        let joined = world.pushes(1, "MEMBERSHIP");
        assert_eq!(joined, 3 + index as usize, "{index}");
    }
    let roster = world.peers[1].member.cluster(id).unwrap();
    assert_eq!(roster.members().count(), 2);
}

#[test]
fn a_member_goes_on_from_what_it_remembers_before_any_server_answers() {
    for with_store in [true, false] {
        let (mut world, cluster) = World::garden(3);
        assert!(!world.memory(1, &cluster).is_complete());
        for peer in 0..3 {
            let profile = profile(&world.peers[peer].identity, "x", TODAY);
            world.ask(peer, Request::PutProfile(profile)).unwrap();
        }
        let memory = world.memory(1, &cluster);
        assert!(memory.is_complete());
        assert_eq!(memory.cluster(), cluster.id());
        assert_eq!(memory.members().count(), 2);
        world.crash();
        world.start_anew(1);
        assert_eq!(world.state(1, &cluster), None);

        let now = world.now;
        world.peers[1].member.recall(now, &memory).unwrap();
        world.settle();
        let member = &world.peers[1].member;
        assert!(!member.is_registered());
        assert_eq!(world.state(1, &cluster), Some(ClusterState::Ready));
        let roster = member.cluster(cluster.id()).unwrap();
        assert!(!roster.is_confirmed());
        for other in [0, 2] {
            let id = world.id(other);
            let known = roster.member(id).unwrap();
            assert!(known.present && known.address.is_some());
            assert!(member.profile(id).is_some());
            assert!(roster.sealed().unwrap().trust().unwrap().is_member(id));
        }
        assert_eq!(world.pushes(1, "MEMBER"), 2);
        assert_eq!(world.pushes(1, "PROFILE"), 2);
        // what it knows now is what it remembered
        let again = world.memory(1, &cluster);
        assert_eq!(again, memory);

        // the server comes back, and the place is taken again without a ticket
        world.restart(with_store);
        world.pass(Duration::from_secs(5));
        let member = &world.peers[1].member;
        assert!(member.is_registered());
        assert!(member.cluster(cluster.id()).unwrap().is_confirmed());
        assert_eq!(world.state(1, &cluster), Some(ClusterState::Ready));
        let lost = |e: &MemberEvent| matches!(e, MemberEvent::ClusterLost { .. });
        assert!(!world.peers.iter().any(|p| p.events.iter().any(lost)));
    }
}

#[test]
fn a_memory_is_of_use_to_its_own_member_alone() {
    let (mut world, cluster) = World::garden(4);
    let memory = world.memory(1, &cluster);
    let now = world.now;
    let (owner, local) = (world.id(1), world.id(3));
    let refused = world.peers[3].member.recall(now, &memory);
    assert_eq!(refused, Err(MemoryError::OtherMember { owner, local }));
    assert_eq!(world.state(3, &cluster), None);
    // to its own member, who is in the cluster, it says nothing new
    world.pass(Duration::from_secs(1));
    let before = world.peers[1].events.len();
    let now = world.now;
    world.peers[1].member.recall(now, &memory).unwrap();
    world.settle();
    assert_eq!(world.peers[1].events.len(), before);
    // and to one that was stopped nothing at all
    world.peers[1].member.stop();
    let refused = world.peers[1].member.recall(now, &memory);
    assert_eq!(refused, Err(MemoryError::Stopped));
}

#[test]
fn who_was_removed_is_out_when_the_server_says_so_and_in_later_memories() {
    let (mut world, cluster) = World::garden(3);
    let (old, gone) = (world.memory(2, &cluster), world.id(2));
    let others = world.memory(1, &cluster);
    let list = list(&world.peers[0].identity, &cluster, 1, vec![gone]);
    let request = Request::Revoke {
        cluster: cluster.id(),
        list,
    };
    world.start_anew(2);
    world.ask(0, request).unwrap();

    // it does not know yet
    let now = world.now;
    world.peers[2].member.recall(now, &old).unwrap();
    world.settle();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.state(2, &cluster), None);
    let lost = |e: &MemberEvent| matches!(e, MemberEvent::ClusterLost { .. });
    assert!(world.peers[2].events.iter().any(lost));

    // a memory of before does not bring it back for another member
    world.start_anew(1);
    let now = world.now;
    world.peers[1].member.recall(now, &others).unwrap();
    world.settle();
    world.pass(Duration::from_secs(5));
    let roster = world.peers[1].member.cluster(cluster.id()).unwrap();
    assert!(roster.is_confirmed());
    assert!(roster.member(gone).is_none());
    assert!(!roster.sealed().unwrap().trust().unwrap().is_member(gone));
    // nor one of after
    let after = world.memory(1, &cluster);
    assert!(after.members().all(|id| id != gone));
    world.crash();
    world.start_anew(1);
    let now = world.now;
    world.peers[1].member.recall(now, &after).unwrap();
    world.settle();
    let roster = world.peers[1].member.cluster(cluster.id()).unwrap();
    assert!(!roster.sealed().unwrap().trust().unwrap().is_member(gone));
}

#[test]
fn what_is_not_signed_as_it_should_be_is_left_out_of_what_is_recalled() {
    let (mut world, cluster) = World::garden(3);
    let octets = world.memory(1, &cluster).encode();
    let (mut refused, mut fewer, mut whole) = (0, 0, 0);
    for at in 0..octets.len() {
        let mut bad = octets.to_vec();
        bad[at] ^= 1;
        let Ok(bad) = ClusterMemory::parse(&bad) else {
            refused += 1;
            continue;
        };
        world.up = false;
        world.start_anew(1);
        let now = world.now;
        if world.peers[1].member.recall(now, &bad).is_err() {
            assert_eq!(world.peers[1].member.roster().count(), 0);
            refused += 1;
            continue;
        }
        let (_, roster) = world.peers[1].member.roster().next().unwrap();
        let trust = roster.sealed().unwrap().trust().unwrap();
        for (id, _) in roster.members() {
            assert!(trust.is_member(id), "{at}");
            assert!([0, 2].iter().any(|&peer| world.id(peer) == id), "{at}");
        }
        match roster.members().count() {
            2 => whole += 1,
            _ => fewer += 1,
        }
    }
    assert!(
        refused > 0 && fewer > 0 && whole > 0,
        "{refused} {fewer} {whole}"
    );
}
