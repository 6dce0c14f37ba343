//! The adversaries of `docs/security.md`, each played against whole nodes with live sessions.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use bytes::Bytes;
use common::{Received, World};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_node::core::{CoreConfig, Envelope, Kind};
use vmdt_node::{Event, MessageId, NodeId, TransferError};
use vmdt_seal::announcement::{self, SealedDetails};
use vmdt_seal::e2e::{self, TransferContext};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::invite::{Invite, InviteTerms, Rights};
use vmdt_seal::membership::Membership;
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::profile::{Profile, ProfileDetails};
use vmdt_seal::receipt::{Fact, Receipts, Statement};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{Collector, Manifest, Position, Sealer, share_digest};
use vmdt_testkit::LinkConfig;
use vmdt_wire::{
    ContentType, FlowId, Line, MemberState, Message, MessageName, ShareEntry, ShareIndex,
    SharePoolAdd,
};

/// Nodes in a cluster of k = 3, n = 5; no share goes directly or through the server, so that the
/// others carry everything.
fn world(seed: u64, count: usize, tune: impl Fn(&mut CoreConfig)) -> World {
    let link = LinkConfig::new().delay(Duration::from_millis(10));
    let mut w = World::new(seed, count, link, |config| {
        config.set_segment(16 * 1024).unwrap();
        config.set_allow_relay(false);
        config.set_allow_direct(false);
        tune(config);
    });
    w.cluster(5, 3, false);
    w
}

fn content(len: usize) -> Bytes {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn got(w: &World, i: usize) -> Vec<&Bytes> {
    w.hosts[i]
        .received
        .iter()
        .map(|r| match r {
            Received::Message { data, .. } => data,
            Received::File { content, .. } => content,
        })
        .collect()
}

fn blamed(w: &World, i: usize) -> BTreeSet<NodeId> {
    let bad = |event: &Event| match event {
        Event::BadShare { from, .. } => Some(*from),
        _ => None,
    };
    w.hosts[i].events.iter().filter_map(bad).collect()
}

/// The control line of a server that says anything.
fn pushed(w: &mut World, to: usize, message: Message) {
    let line = Line::slash(message).emit().unwrap();
    w.with(to, |core, now| core.handle_control_bytes(now, &line));
}

// ---- fewer than k lying members

#[test]
fn with_k_minus_1_lying_holders_all_arrives_and_only_they_are_blamed() {
    for seed in 0..8 {
        // seven nodes: five carry, and two of these lie
        let mut w = world(seed, 7, |_| {});
        let liars = [2 + seed as usize % 5, 2 + (seed as usize + 1) % 5];
        for liar in liars {
            w.seize(liar);
            w.reach(liar, 1);
        }
        let content = content(100_000);
        let id = w.send(0, 1, Some("f"), content.clone()).unwrap();
        let mut seen = BTreeMap::new();
        let done = |w: &World| w.hosts[0].done.contains_key(&id);
        for _ in 0..4_000 {
            if done(&w) {
                break;
            }
            w.run_for(Duration::from_millis(10));
            for liar in liars {
                let receiver = w.id(1);
                let at = seen.entry(liar).or_insert(0);
                w.puppet(liar, |p, now| {
                    for (_, flow, octets) in p.shares.clone().into_iter().skip(*at) {
                        *at += 1;
                        // its own share, altered, and one that was never its
                        let mut altered = octets.to_vec();
                        let middle = altered.len() / 2;
                        altered[middle] ^= 1;
                        p.hand(now, receiver, flow, altered.clone().into());
                        let other = flow.index.get() % 5 + 1;
                        let index = ShareIndex::new(other).unwrap();
                        let other = FlowId { index, ..flow };
                        p.hand(now, receiver, other, altered.into());
                    }
                });
            }
        }
        assert!(done(&w), "seed {seed}: it does not arrive");
        w.hosts[0].done[&id].as_ref().unwrap();
        assert_eq!(got(&w, 1), [&content]);
        let liars: BTreeSet<NodeId> = liars.iter().map(|i| w.id(*i)).collect();
        let blamed = blamed(&w, 1);
        assert!(!blamed.is_empty(), "seed {seed}: nobody lied");
        assert!(blamed.is_subset(&liars), "seed {seed}: {blamed:?}");
        let now = w.now();
        for report in w.hosts[1].core.peer_reports(now) {
            let lied = liars.contains(&report.peer);
            assert!(lied || report.ban.is_none(), "{report:?}");
        }
    }
}

// ---- k or more colluding members

#[test]
fn all_holders_together_do_not_read_a_message() {
    let mut w = world(20, 7, |_| {});
    for holder in 2..7 {
        w.seize(holder);
    }
    let secret = Bytes::from(vec![0x53; 3_000]);
    w.send(0, 1, None, secret.clone()).unwrap();
    w.run_for(Duration::from_secs(5));
    // all that the five of them have
    let mut shares: BTreeMap<NonZeroU8, Bytes> = BTreeMap::new();
    let mut details = None;
    for holder in 2..7 {
        w.puppet(holder, |p, _| {
            for (_, flow, octets) in &p.shares {
                let index = u8::try_from(flow.index.get() % 1000).unwrap();
                shares.insert(NonZeroU8::new(index).unwrap(), octets.clone());
            }
            for (_, line) in &p.lines {
                if let Message::SharePoolAdd(add) = line {
                    details = Some(SealedDetails::parse(&add.details).unwrap());
                }
            }
        });
    }
    let details = details.expect("they were told of it");
    assert!(shares.len() >= 3, "{} shares of 3", shares.len());
    let mut collector = Collector::new(details.manifest().clone());
    for (index, octets) in &shares {
        assert!(!octets.windows(64).any(|w| w == &secret[..64]));
        collector.add_from(*index, octets.clone()).unwrap();
    }
    assert!(collector.is_ready());
    assert!(collector.open().is_err());
    for guess in [[0; 32], details.manifest_digest()] {
        assert!(collector.open_bound(&guess).is_err());
    }
    // nor with a prekey that is not the receiver's
    let mut rng = ChaCha20Rng::from_seed([5; 32]);
    let others = PrekeyStore::new(PrekeyConfig::default(), 1, &mut rng);
    let (context, encapsulated) = (details.context(), details.encapsulated());
    let wrong = e2e::decapsulate(others.current(), context, encapsulated);
    assert!(
        wrong.is_err()
            || collector
                .open_bound(wrong.unwrap().segment(0).as_octets())
                .is_err()
    );
    // the receiver could: it is its prekey alone that they lack
    let prekeys = w.hosts[1].core.prekeys().unwrap();
    let prekey = prekeys.find(context.prekey_id).unwrap();
    let opened = e2e::decapsulate(prekey, context, encapsulated).unwrap();
    let plain = collector.open_bound(opened.segment(0).as_octets()).unwrap();
    assert!(plain.ends_with(&secret));
}

// ---- the server

#[test]
fn a_server_that_forges_members_keys_and_profiles_is_not_believed() {
    let mut w = world(30, 5, |_| {});
    let cluster = w.hosts[0].core.member().roster().next().unwrap().0;
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let mallory = SecretIdentity::generate(&mut rng);
    let before = w.hosts[0].core.profile_of(w.id(1)).unwrap().clone();
    let prekeys = PrekeyStore::new(PrekeyConfig::default(), 1, &mut rng);
    let said = ProfileDetails {
        name: "node1".into(),
        addresses: Vec::new(),
        capabilities: vec!["rdt".into()],
    };
    let own = prekeys.current().public();
    let forged = Profile::sign(&mallory, &said, own, before.version_ms() + 1).unwrap();
    // another's key under a member's id
    let victim = w.id(1);
    let profile = forged.octets().to_vec();
    pushed(
        &mut w,
        0,
        Message::Profile {
            id: victim,
            profile,
        },
    );
    // the member's own, with one octet altered
    let mut profile = before.octets().to_vec();
    let middle = profile.len() / 2;
    profile[middle] ^= 1;
    pushed(
        &mut w,
        0,
        Message::Profile {
            id: victim,
            profile,
        },
    );
    assert_eq!(w.hosts[0].core.profile_of(victim), Some(&before));

    // a member that shows nothing, and one that shows what its own creator signed
    let id = mallory.node_id();
    let address = Some("10.0.9.9:4000".parse().unwrap());
    let joined = Message::Member {
        cluster,
        id,
        state: MemberState::Joined,
        address,
        caps: Some(vmdt_wire::Caps::RDT),
    };
    let roster = w.hosts[0].core.member().cluster(cluster).unwrap();
    let descriptor = roster
        .sealed()
        .unwrap()
        .trust()
        .unwrap()
        .descriptor()
        .clone();
    let terms = InviteTerms {
        rights: Rights::MEMBER,
        expires_ms: u64::MAX,
        max_uses: 0,
    };
    assert!(Invite::issue(&mallory, None, &descriptor, &terms, &mut rng).is_err());
    let details = vmdt_seal::descriptor::DescriptorDetails {
        k: 3,
        n: 5,
        options: 0,
        name: "test".into(),
        created_ms: descriptor.created_ms(),
    };
    let hers = vmdt_seal::descriptor::Descriptor::sign(&mallory, &details, &mut rng).unwrap();
    let membership = Membership::of_creator(&mallory, &hers, 1).unwrap();
    pushed(&mut w, 0, joined.clone());
    pushed(
        &mut w,
        0,
        Message::Membership {
            cluster,
            id,
            membership: membership.octets().to_vec(),
        },
    );
    pushed(&mut w, 0, joined);
    w.run_for(Duration::from_secs(2));
    let roster = w.hosts[0].core.member().cluster(cluster).unwrap();
    assert!(roster.member(id).is_none());
    let refused = w.with(0, |core, now| core.send(now, id, Kind::Octets, "", Some(1)));
    assert_eq!(refused, Err(TransferError::UnknownPeer { peer: id }));
    // what the cluster is can't be changed either: its id is the hash of it
    assert_ne!(hers.cluster(), cluster);
    let sent = w.send(0, 1, None, content(5_000)).unwrap();
    w.run_for(Duration::from_secs(5));
    w.hosts[0].done[&sent].as_ref().unwrap();
}

#[test]
fn a_server_that_names_a_false_address_gains_nothing_by_it() {
    for direct in [true, false] {
        let mut w = world(31, 6, |config| {
            config.set_allow_direct(direct);
        });
        // the server says that node 1 is where node 5 is, whose owner listens for what comes
        w.seize(5);
        let cluster = w.hosts[0].core.member().roster().next().unwrap().0;
        let (id, address) = (w.id(1), Some(w.hosts[5].address));
        for at in [0, 2, 3, 4] {
            pushed(
                &mut w,
                at,
                Message::Member {
                    cluster,
                    id,
                    state: MemberState::Back,
                    address,
                    caps: Some(vmdt_wire::Caps::RDT),
                },
            );
        }
        let text = content(20_000);
        w.send(0, 1, None, text.clone()).unwrap();
        w.run_for(Duration::from_secs(60));
        // it may be late or fail: a server can keep nodes apart. Nobody is taken for node 1.
        w.puppet(5, |p, _| {
            let of_it: BTreeSet<u16> = p.shares.iter().map(|s| s.1.index.get()).collect();
            assert!(of_it.len() < 3, "{of_it:?}");
        });
        assert!(got(&w, 1).iter().all(|data| **data == text));
        assert_ne!(w.hosts[0].core.profile_of(id), None);
    }
}

/// What the server says does not suffice: a peer is looked for where it has signed that it is.
#[test]
fn a_member_is_found_where_its_profile_says_when_the_server_is_wrong() {
    let mut w = world(33, 5, |_| {});
    let at = w.hosts[1].address;
    let now = w.now();
    w.hosts[1].core.set_addresses(now, vec![at]);
    w.run_for(Duration::from_secs(2));
    let cluster = w.hosts[0].core.member().roster().next().unwrap().0;
    let id = w.id(1);
    let nowhere = Some("192.0.2.1:9".parse().unwrap());
    let before = w.hosts[0].events.len();
    for host in [0, 2, 3, 4] {
        pushed(
            &mut w,
            host,
            Message::Member {
                cluster,
                id,
                state: MemberState::Back,
                address: nowhere,
                caps: Some(vmdt_wire::Caps::RDT),
            },
        );
    }
    w.send(0, 1, None, content(20_000)).unwrap();
    w.run_for(Duration::from_secs(30));
    assert_eq!(got(&w, 1), [&content(20_000)]);
    let found = w.hosts[0].events[before..].iter().any(
        |event| matches!(event, Event::PathUp { peer, address } if *peer == id && *address == at),
    );
    assert!(found, "{:?}", w.hosts[0].events);
}

#[test]
fn a_server_that_hides_a_member_stops_what_goes_there_and_says_so() {
    let mut w = world(32, 5, |config| {
        config.set_stall_timeout(Duration::from_secs(20)).unwrap();
    });
    let cluster = w.hosts[0].core.member().roster().next().unwrap().0;
    let id = w.id(1);
    let left = Message::Member {
        cluster,
        id,
        state: MemberState::Left,
        address: None,
        caps: None,
    };
    pushed(&mut w, 0, left);
    let told =
        |e: &Event| matches!(e, Event::Member { id: i, state: MemberState::Left, .. } if *i == id);
    assert!(w.hosts[0].events.iter().any(told));
    let refused = w.send(0, 1, None, content(10));
    assert_eq!(refused, Err(TransferError::UnknownPeer { peer: id }));
}

// ---- a malicious sender

/// A segment as its sender would make it, and everything about it.
struct Made {
    add: SharePoolAdd,
    message: MessageId,
    shares: Vec<(NonZeroU8, Bytes)>,
}

/// Makes a transfer of one segment, sealed by host `from` to host `to`.
fn make(w: &World, from: usize, to: usize, transfer: MessageId, text: &[u8]) -> Made {
    make_with(w, (from, to), transfer, text, |_| {})
}

/// The same with shares that were altered before they were signed.
fn make_with(
    w: &World,
    (from, to): (usize, usize),
    transfer: MessageId,
    text: &[u8],
    alter: impl Fn(&mut [(NonZeroU8, Bytes)]),
) -> Made {
    let mut rng = ChaCha20Rng::from_seed(*blake3::hash(text).as_bytes());
    let identity = w.identity(from);
    let profile = w.hosts[to].core.profile().unwrap();
    let prekey = profile.prekey();
    let context = TransferContext {
        sender: identity.public(),
        receiver: profile.identity(),
        transfer: transfer.field(),
        prekey_id: prekey.id,
    };
    let (encapsulated, secret) = e2e::encapsulate(&prekey, &context, &mut rng).unwrap();
    let envelope = announcement::envelope(&context).unwrap();
    let threshold = Threshold::new(3, 5).unwrap();
    let sealer = Sealer::new(threshold, envelope.expires(u64::MAX / 2))
        .with_bound_secret(secret.segment(0).as_octets());
    let mut plain = Vec::new();
    Envelope {
        kind: Kind::Octets,
        transfer,
        number: 0,
        offset: 0,
        total: Some(text.len() as u64),
        name: String::new(),
        last: Some(*blake3::hash(text).as_bytes()),
    }
    .emit_into(&mut plain);
    plain.extend_from_slice(text);
    let position = Position {
        number: 0,
        offset: 0,
        last: true,
    };
    let sealed = sealer.seal_segment(position, &plain, &mut rng).unwrap();
    let mut shares: Vec<(NonZeroU8, Bytes)> = sealed
        .shares
        .iter()
        .map(|s| (s.index(), [&s.head()[..], &s.body()[..]].concat().into()))
        .collect();
    alter(&mut shares);
    // their digests are the end of a manifest
    let mut manifest = sealed.manifest.encode();
    manifest.truncate(manifest.len() - 32 * shares.len());
    for (_, octets) in &shares {
        manifest.extend(share_digest(octets).unwrap());
    }
    let manifest = Manifest::parse_unverified(&manifest).unwrap();
    let details =
        SealedDetails::sign(&identity, &context, encapsulated, &manifest, 0, None).unwrap();
    let hash = blake3::derive_key("vmdt 1.1 message id", &details.manifest_digest());
    let mut id = [0; 12];
    id.copy_from_slice(&hash[..12]);
    let message = MessageId::from_random(id);
    let entry = |(index, octets): &(NonZeroU8, Bytes)| {
        let mut digest = [0; 16];
        digest.copy_from_slice(&share_digest(octets).unwrap()[..16]);
        ShareEntry::Placed {
            index: index.get().into(),
            holder: w.id(from),
            digest,
        }
    };
    let add = SharePoolAdd {
        message: MessageName::from(message),
        sender: w.id(from),
        receiver: w.id(to),
        total: 5,
        active: 5,
        content: ContentType::Stream,
        filename: format!("{}.3", transfer.as_str()),
        version: 1,
        details: details.octets().to_vec(),
        shares: shares.iter().map(entry).collect(),
    };
    Made {
        add,
        message,
        shares,
    }
}

fn flow(message: MessageId, index: NonZeroU8) -> FlowId {
    FlowId {
        message,
        index: index.into(),
    }
}

#[test]
fn a_sender_that_equivocates_delivers_one_content_or_none() {
    let transfer = MessageId::from_random([7; 12]);
    // what it announces is what it may send: the shares of another content are refused
    let mut w = world(40, 5, |_| {});
    w.seize(0);
    w.reach(0, 1);
    let (a, b) = (
        make(&w, 0, 1, transfer, b"meet at noon"),
        make(&w, 0, 1, transfer, b"meet at nine"),
    );
    assert_ne!(a.message, b.message);
    let (receiver, sender) = (w.id(1), w.id(0));
    w.puppet(0, |p, now| {
        p.say(now, receiver, Message::SharePoolAdd(a.add.clone()));
        for (index, octets) in &b.shares {
            p.hand(now, receiver, flow(a.message, *index), octets.clone());
        }
    });
    w.run_for(Duration::from_secs(5));
    assert!(got(&w, 1).is_empty());
    assert_eq!(blamed(&w, 1), [sender].into());

    // two contents under one transfer, half of the shares of each, then all: one is delivered
    let mut w = world(40, 5, |_| {});
    w.seize(0);
    w.reach(0, 1);
    w.puppet(0, |p, now| {
        for made in [&a, &b] {
            p.say(now, receiver, Message::SharePoolAdd(made.add.clone()));
        }
    });
    for range in [0..2, 2..5] {
        for made in [&a, &b] {
            w.puppet(0, |p, now| {
                for (index, octets) in &made.shares[range.clone()] {
                    p.hand(now, receiver, flow(made.message, *index), octets.clone());
                }
            });
            w.run_for(Duration::from_secs(1));
        }
    }
    w.run_for(Duration::from_secs(5));
    assert_eq!(got(&w, 1), [&Bytes::from_static(b"meet at noon")]);

    // the genuine one is delivered
    let mut w = world(40, 5, |_| {});
    w.seize(0);
    w.reach(0, 1);
    w.puppet(0, |p, now| {
        p.say(now, receiver, Message::SharePoolAdd(b.add.clone()));
        for (index, octets) in b.shares.iter().skip(2) {
            p.hand(now, receiver, flow(b.message, *index), octets.clone());
        }
    });
    w.run_for(Duration::from_secs(5));
    assert_eq!(got(&w, 1), [&Bytes::from_static(b"meet at nine")]);
}

#[test]
fn a_sender_can_not_announce_what_it_did_not_sign_nor_for_another() {
    let transfer = MessageId::from_random([7; 12]);
    let mut w = world(43, 5, |_| {});
    w.seize(0);
    w.reach(0, 1);
    let (receiver, other) = (w.id(1), w.id(2));
    let genuine = make(&w, 0, 1, transfer, b"hello");
    let mut wrong = Vec::new();
    let mut change = |f: &dyn Fn(&mut SharePoolAdd)| {
        let mut add = genuine.add.clone();
        f(&mut add);
        wrong.push(add);
    };
    change(&|add| add.sender = other);
    change(&|add| add.total = 4);
    change(&|add| add.filename = format!("{}.2", transfer.as_str()));
    change(&|add| add.message = MessageName::from(MessageId::from_random([1; 12])));
    change(&|add| add.details[100] ^= 1);
    change(&|add| add.details.clear());
    change(&|add| {
        if let ShareEntry::Placed { digest, .. } = &mut add.shares[0] {
            digest[0] ^= 1;
        }
    });
    let before = w.hosts[1].core.stats().bad_lines;
    let count = wrong.len() as u64;
    w.puppet(0, |p, now| {
        for add in wrong {
            p.say(now, receiver, Message::SharePoolAdd(add));
        }
    });
    w.run_for(Duration::from_secs(2));
    assert_eq!(w.hosts[1].core.stats().bad_lines - before, count);
    w.puppet(0, |p, now| {
        p.say(now, receiver, Message::SharePoolAdd(genuine.add.clone()));
        for (index, octets) in &genuine.shares {
            p.hand(now, receiver, flow(genuine.message, *index), octets.clone());
        }
    });
    w.run_for(Duration::from_secs(2));
    assert_eq!(got(&w, 1), [&Bytes::from_static(b"hello")]);
}

#[test]
fn a_sender_that_seals_what_can_not_be_used_has_no_holder_blamed_for_it() {
    let mut w = world(41, 5, |_| {});
    w.seize(0);
    w.reach(0, 1);
    w.reach(0, 2);
    // the first share says that the segment is of another size
    let transfer = MessageId::from_random([7; 12]);
    let mut made = make_with(&w, (0, 1), transfer, b"meet at noon", |shares| {
        let mut octets = shares[0].1.to_vec();
        octets[35] ^= 1;
        shares[0].1 = octets.into();
    });
    let (sender, receiver, carrier) = (w.id(0), w.id(1), w.id(2));
    let ShareEntry::Placed { holder, .. } = &mut made.add.shares[0] else {
        panic!("it is placed");
    };
    *holder = carrier;
    w.puppet(0, |p, now| {
        for to in [receiver, carrier] {
            p.say(now, to, Message::SharePoolAdd(made.add.clone()));
        }
        let (index, octets) = &made.shares[0];
        p.hand(now, carrier, flow(made.message, *index), octets.clone());
    });
    w.run_for(Duration::from_secs(2));
    let stats = w.hosts[1].core.stats();
    // it is asked for again, and signed for again
    assert!(stats.bad_shares > 0 && stats.receipts > 0, "{stats:?}");
    assert_eq!(stats.bad_receipts, 0);
    assert!(blamed(&w, 1).is_empty());
    let reports = w.hosts[1].core.peer_reports(w.now());
    let report = reports.iter().find(|r| r.peer == carrier);
    assert!(report.is_none_or(|r| r.ban.is_none() && r.failures == 0));
    // the others make the message
    w.puppet(0, |p, now| {
        for (index, octets) in &made.shares[1..] {
            p.hand(now, receiver, flow(made.message, *index), octets.clone());
        }
    });
    w.run_for(Duration::from_secs(5));
    assert_eq!(got(&w, 1), [&Bytes::from_static(b"meet at noon")]);
    assert!(!blamed(&w, 1).contains(&carrier) && !blamed(&w, 1).contains(&sender));
}

// ---- a malicious receiver

#[test]
fn a_receiver_can_not_speak_for_a_holder_nor_have_it_blamed() {
    let mut w = world(50, 7, |config| {
        config.set_stall_timeout(Duration::from_secs(20)).unwrap();
    });
    w.seize(1);
    w.reach(1, 0);
    let id = w.send(0, 1, None, content(3_000)).unwrap();
    w.run_for(Duration::from_secs(3));
    let (sender, holders) = (w.id(0), (2..7).map(|i| w.id(i)).collect::<Vec<_>>());
    let shown = w.hosts[0].core.receipts(id).unwrap();
    assert!(shown.delivered.is_none(), "it says nothing");
    let segment = &shown.segments[0];
    let honest = segment.shares.iter().filter(|s| s.taken.is_some()).count();
    assert!(honest >= 3, "holders have signed what they took");
    assert!(segment.shares.iter().all(|s| holders.contains(&s.holder)));

    let message = segment.message;
    let index = segment.shares[0].index;
    let says = |digest| Statement {
        message,
        fact: Fact::HandedOn(index),
        digest,
    };
    let own = w.identity(1);
    let mine = Receipts::sign(&own, sender, 1, &[says([1; 32])]).unwrap();
    let mut forged = mine.octets().to_vec();
    let holder = (2..7)
        .find(|i| w.id(*i) == segment.shares[0].holder)
        .unwrap();
    forged[2..34].copy_from_slice(w.identity(holder).public().as_octets());
    // what the holder did sign is not his to bring, neither
    let genuine = segment.shares[0].taken.clone().unwrap().receipts;
    let refused = w.hosts[0].core.stats().bad_receipts;
    w.puppet(1, |p, now| {
        for receipts in [mine.octets().to_vec(), forged, genuine.to_vec()] {
            p.say(now, sender, Message::Receipts { receipts });
        }
        // a complaint about the message, an unfreeze and claims of everything, again and again
        for _ in 0..50 {
            for index in 1..=5 {
                let message = MessageName::from(message);
                p.say(now, sender, Message::SharePoolUnfreeze { message, index });
            }
        }
    });
    w.run_for(Duration::from_secs(3));
    assert_eq!(w.hosts[0].core.stats().bad_receipts - refused, 3);
    let after = w.hosts[0].core.receipts(id).unwrap();
    assert_eq!(after.delivered, None);
    assert!(blamed(&w, 0).is_empty());
    let now = w.now();
    for report in w.hosts[0].core.peer_reports(now) {
        let holder = holders.contains(&report.peer);
        assert!(
            !holder || (report.ban.is_none() && report.failures == 0),
            "{report:?}"
        );
    }
    // and it made nobody flood it: each share a few times at most
    let (sent, octets) = w.hosts[0]
        .core
        .path_stats(w.id(1))
        .map_or((0, 0), |s| (s.packets_sent, s.octets_sent));
    assert!(octets < 200_000, "{sent} packets of {octets} octets");
}

// ---- on the path

#[test]
fn a_recorded_world_delivers_nothing_when_it_is_replayed_at_once_or_an_hour_later() {
    let mut w = world(60, 5, |config| {
        config.set_allow_direct(true);
    });
    w.recorded = Some(Vec::new());
    let (a, b) = (content(4_000), content(90_000));
    w.send(0, 1, None, a.clone()).unwrap();
    w.send(1, 0, Some("f"), b.clone()).unwrap();
    w.run_for(Duration::from_secs(10));
    let recorded: Vec<(SocketAddr, SocketAddr, Bytes)> = w.recorded.take().unwrap();
    assert!(recorded.len() > 200);
    let state = |w: &World| -> Vec<(usize, u64, u64, usize)> {
        let of = |h: &common::Host| {
            let usage = h.core.pool_usage();
            let confirmed = |e: &&Event| {
                matches!(
                    e,
                    Event::Message { .. } | Event::BadShare { .. } | Event::Banned { .. }
                )
            };
            let told = h.events.iter().filter(confirmed).count();
            (h.received.len(), usage.entries, usage.octets, told)
        };
        w.hosts.iter().map(of).collect()
    };
    let before = state(&w);
    for wait in [Duration::ZERO, Duration::from_secs(3_600)] {
        w.run_for(wait);
        for _ in 0..3 {
            for (from, to, datagram) in &recorded {
                let now = w.now();
                w.network.send(now, *from, *to, datagram.clone());
            }
            w.run_for(Duration::from_secs(5));
        }
        assert_eq!(state(&w), before, "after {wait:?}");
    }
    let again = w.send(0, 1, None, a.clone()).unwrap();
    w.run_for(Duration::from_secs(10));
    w.hosts[0].done[&again].as_ref().unwrap();
    assert_eq!(got(&w, 1), [&a, &a]);
    assert_eq!(got(&w, 0), [&b]);
}

#[test]
fn off_path_datagrams_with_right_ids_change_nothing_in_a_node() {
    let mut w = world(61, 5, |config| {
        config.set_allow_direct(true);
    });
    w.recorded = Some(Vec::new());
    let first = w.send(0, 1, None, content(2_000)).unwrap();
    w.run_for(Duration::from_secs(3));
    w.hosts[0].done[&first].as_ref().unwrap();
    let recorded = w.recorded.take().unwrap();
    let to = w.hosts[1].address;
    let seen: Vec<&Bytes> = recorded
        .iter()
        .filter(|(_, at, _)| *at == to)
        .map(|(_, _, datagram)| datagram)
        .collect();
    let known = w.hosts[1].core.known_peers();
    let mut dice = vmdt_testkit::SimRng::from_seed(1);
    let stranger: SocketAddr = "10.9.9.9:9".parse().unwrap();
    let now = w.now();
    // right ids, right kinds, another session: what one can write who does not see the wire
    for i in 0..50_000usize {
        let mut datagram = seen[i % seen.len()].to_vec();
        let [session, number] = if vmdt_wire::compact::is_compact(&datagram) {
            [2, 6]
        } else {
            [60, 76]
        };
        datagram[session..session + 4].copy_from_slice(&dice.bytes(4));
        datagram[number..number + 4].copy_from_slice(&dice.bytes(4));
        let host = &mut w.hosts[1];
        host.core.handle_datagram(now, stranger, datagram.into());
        // nothing is answered but, to an offer, within three times its octets
        let mut buf = Vec::new();
        let mut out = 0;
        while let Some(transmit) = host.core.poll_transmit(now, &mut buf) {
            out += transmit.len;
        }
        assert!(out <= 3 * seen[i % seen.len()].len(), "{out} octets");
    }
    assert_eq!(w.hosts[1].received.len(), 1);
    assert_eq!(w.hosts[1].core.known_peers(), known);
    let again = w.send(0, 1, None, content(9_000)).unwrap();
    w.run_for(Duration::from_secs(10));
    w.hosts[0].done[&again].as_ref().unwrap();
}
