//! Properties of control lines over every message.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use vmdt_wire::{
    Caps, ClusterEntry, ClusterId, ClusterInfo, ClusterOptions, ContentType, EmitError, ErrorCode,
    Framing, Line, LineFramer, MemberState, Message, MessageName, NodeId, Opaque, RELAY_MAX_LINE,
    ShareEntry, SharePoolAdd,
};

fn node() -> impl Strategy<Value = NodeId> {
    "[A-Za-z0-9_-]{1,16}".prop_map(|text| text.parse().unwrap())
}

fn cluster() -> impl Strategy<Value = ClusterId> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn name() -> impl Strategy<Value = MessageName> {
    "[A-Za-z0-9_.:-]{1,64}".prop_map(|text| text.parse().unwrap())
}

/// Anything, and what the framings could stumble over more often than chance would have it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ ~|/%0-9a:\t\r\n\\x00é-]{0,12}",
        "~[0-9]{1,12}",
        "[a-z-]{1,12}: ?[a-z ]{0,12}",
    ]
}

fn caps() -> impl Strategy<Value = Option<Caps>> {
    option::of(prop_oneof![Just(Caps::NONE), Just(Caps::RDT)])
}

fn options() -> impl Strategy<Value = ClusterOptions> {
    any::<(bool, Option<u16>)>().prop_map(|(open_peers, max_members)| ClusterOptions {
        open_peers,
        max_members,
    })
}

fn info() -> impl Strategy<Value = Option<ClusterInfo>> {
    option::of((any::<(u16, u16)>(), options()))
        .prop_map(|info| info.map(|((n, k), options)| ClusterInfo { n, k, options }))
}

fn entry() -> impl Strategy<Value = ClusterEntry> {
    (cluster(), node(), any::<(u16, u16, u16, bool)>()).prop_map(
        |(cluster, creator, (n, k, members, active))| ClusterEntry {
            cluster,
            creator,
            n,
            k,
            members,
            active,
        },
    )
}

fn share() -> impl Strategy<Value = ShareEntry> {
    prop_oneof![
        (0_u16..=254, vec(any::<u8>(), 0..80))
            .prop_map(|(index, share)| ShareEntry::Inline { index, share }),
        (1_u16..=255, node(), any::<[u8; 16]>()).prop_map(|(index, holder, digest)| {
            ShareEntry::Placed {
                index,
                holder,
                digest,
            }
        }),
    ]
}

fn add() -> impl Strategy<Value = Message> {
    let ids = (name(), node(), node());
    let content = prop::sample::select(&ContentType::ALL[..]);
    (
        ids,
        any::<(u16, u16)>(),
        content,
        text(),
        any::<u32>(),
        vec(any::<u8>(), 0..80),
        vec(share(), 0..20),
    )
        .prop_map(
            |(
                (message, sender, receiver),
                (total, active),
                content,
                filename,
                version,
                details,
                shares,
            )| {
                Message::SharePoolAdd(SharePoolAdd {
                    message,
                    sender,
                    receiver,
                    total,
                    active,
                    content,
                    filename,
                    version,
                    details,
                    shares,
                })
            },
        )
}

fn request() -> impl Strategy<Value = Message> {
    prop_oneof![
        (node(), any::<(u16, u16)>(), option::of(options())).prop_map(
            |(client, (n, k), options)| Message::CreateCluster {
                client,
                n,
                k,
                options
            }
        ),
        (node(), cluster()).prop_map(|(client, cluster)| Message::JoinCluster { client, cluster }),
        (node(), option::of(cluster()))
            .prop_map(|(client, cluster)| Message::LeaveCluster { client, cluster }),
        (node(), option::of(cluster()))
            .prop_map(|(client, after)| Message::ListClusters { client, after }),
        (node(), option::of(cluster()))
            .prop_map(|(client, cluster)| Message::GetClusterMembers { client, cluster }),
        (node(), any::<u16>(), caps()).prop_map(|(client, port, caps)| Message::RegisterP2pPort {
            client,
            port,
            caps
        }),
        (node(), node()).prop_map(|(client, target)| Message::GetClientInfo { client, target }),
        (node(), node(), text()).prop_map(|(client, target, text)| Message::SendMessage {
            client,
            target,
            text
        }),
        (node(), node(), node(), any::<u16>(), text()).prop_map(
            |(from, to, target, index, data)| Message::MessageShare {
                from,
                to,
                target,
                index,
                data
            }
        ),
    ]
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..80)
}

fn sealed() -> impl Strategy<Value = Message> {
    prop_oneof![
        (node(), binary()).prop_map(|(client, profile)| Message::PutProfile { client, profile }),
        (node(), node()).prop_map(|(client, target)| Message::GetProfile { client, target }),
        binary().prop_map(|receipts| Message::Receipts { receipts }),
        binary().prop_map(|octets| Message::ShareRepair {
            repair: Opaque(octets)
        }),
        (node(), binary()).prop_map(|(id, profile)| Message::Profile { id, profile }),
        (node(), binary(), binary()).prop_map(|(client, descriptor, membership)| {
            Message::CreateSealed {
                client,
                descriptor,
                membership,
            }
        }),
        (node(), cluster())
            .prop_map(|(client, cluster)| Message::GetDescriptor { client, cluster }),
        (cluster(), binary()).prop_map(|(cluster, descriptor)| Message::Descriptor {
            cluster,
            descriptor
        }),
        (node(), cluster(), binary()).prop_map(|(client, cluster, membership)| {
            Message::JoinSealed {
                client,
                cluster,
                membership,
            }
        }),
        (node(), cluster(), node()).prop_map(|(client, cluster, target)| {
            Message::GetMembership {
                client,
                cluster,
                target,
            }
        }),
        (cluster(), node(), binary()).prop_map(|(cluster, id, membership)| Message::Membership {
            cluster,
            id,
            membership
        }),
        (node(), cluster(), binary()).prop_map(|(client, cluster, list)| Message::Revoke {
            client,
            cluster,
            list
        }),
        (cluster(), binary()).prop_map(|(cluster, list)| Message::Revoked { cluster, list }),
        node().prop_map(|client| Message::CodeOpen { client }),
        (1_u16..=9_999).prop_map(|number| Message::Code { number }),
        (node(), 1_u16..=9_999).prop_map(|(client, number)| Message::CodeJoin { client, number }),
        (option::of(node()), 1_u16..=9_999, binary()).prop_map(|(client, number, data)| {
            Message::CodePass {
                client,
                number,
                data,
            }
        }),
        (option::of(node()), 1_u16..=9_999)
            .prop_map(|(client, number)| Message::CodeClose { client, number }),
    ]
}

fn pool() -> impl Strategy<Value = Message> {
    prop_oneof![
        name().prop_map(|message| Message::MessageReceived { message }),
        add(),
        (name(), node(), any::<u16>()).prop_map(|(message, claimer, index)| {
            Message::SharePoolClaim {
                message,
                claimer,
                index,
            }
        }),
        (name(), node())
            .prop_map(|(message, receiver)| Message::SharePoolAck { message, receiver }),
        (name(), node(), any::<u16>()).prop_map(|(message, holder, index)| {
            Message::SharePoolStored {
                message,
                holder,
                index,
            }
        }),
        (name(), any::<u16>())
            .prop_map(|(message, index)| Message::SharePoolUnfreeze { message, index }),
        name().prop_map(|message| Message::SharePoolRemove { message }),
    ]
}

fn reply() -> impl Strategy<Value = Message> {
    prop_oneof![
        cluster().prop_map(|cluster| Message::ClusterReady { cluster }),
        (
            prop::sample::select(ErrorCode::ALL),
            text(),
            option::of(name())
        )
            .prop_map(|(code, text, about)| Message::Error { code, text, about }),
        option::of(text()).prop_map(|text| Message::Ok { text }),
        (cluster(), info()).prop_map(|(cluster, info)| Message::ClusterCreated { cluster, info }),
        (cluster(), info()).prop_map(|(cluster, info)| Message::ClusterJoined { cluster, info }),
        vec(entry(), 0..20).prop_map(|clusters| Message::ClusterList { clusters }),
        vec(node(), 0..20).prop_map(|members| Message::ClusterMembers { members }),
        (any::<IpAddr>(), any::<u16>(), caps()).prop_map(|(ip, port, caps)| Message::ClientInfo {
            ip,
            port,
            caps
        }),
        (
            cluster(),
            node(),
            prop::sample::select(&MemberState::ALL[..]),
            option::of(any::<SocketAddr>()),
            caps()
        )
            .prop_map(|(cluster, id, state, address, caps)| Message::Member {
                cluster,
                id,
                state,
                address,
                caps
            }),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    let message = prop_oneof![request(), pool(), sealed(), reply()];
    let framing = prop_oneof![Just(Framing::Bar), Just(Framing::Slash)];
    (framing, any::<Option<u32>>(), message).prop_map(|(framing, tag, message)| Line {
        framing,
        tag,
        message,
    })
}

/// A line in which some octets were replaced, cut out or doubled.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        prop::sample::select(&b"|/%:~ \t\r\n\0=,.0123456789"[..]),
        any::<u8>(),
    ];
    (
        line(),
        vec((any::<prop::sample::Index>(), octet, 0..4), 0..5),
    )
        .prop_map(|(line, damage)| {
            let mut octets = line.fitted().emit().unwrap_or_else(|_| b"OK|~1".to_vec());
            for (at, octet, kind) in damage {
                let at = at.index(octets.len().max(1)).min(octets.len());
                match kind {
                    0 if at < octets.len() => octets[at] = octet,
                    1 => octets.truncate(at),
                    2 => octets.insert(at, octet),
                    _ => octets.extend_from_within(at..),
                }
            }
            octets
        })
}

fn parse_undoes_emit(line: &Line) -> Result<(), TestCaseError> {
    match line.emit() {
        Ok(octets) => {
            prop_assert_eq!(octets.last(), Some(&b'\n'));
            prop_assert_eq!(octets.iter().filter(|&&octet| octet == b'\n').count(), 1);
            let parsed = Line::parse(&octets);
            prop_assert_eq!(parsed.as_ref(), Ok(line), "{}", octets.escape_ascii());
            prop_assert_eq!(parsed.unwrap().emit(), Ok(octets));
        }
        Err(EmitError::NotCarried {
            field: "address flow label",
        }) => {}
        Err(error) => prop_assert_eq!(line.framing, Framing::Bar, "{}", error),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn parse_undoes_emit_and_emit_undoes_parse(line in line()) {
        parse_undoes_emit(&line)?;
        parse_undoes_emit(&line.fitted())?;
    }

    #[test]
    fn accepted_lines_mean_the_same_when_written_anew(octets in damaged()) {
        match Line::parse(&octets) {
            Ok(line) => {
                prop_assert_eq!(line.framing, Framing::of(&octets));
                match line.emit() {
                    Ok(anew) => prop_assert_eq!(Line::parse(&anew), Ok(line)),
                    // A separator at the end of the line may stand behind what a parser would
                    // otherwise strip or take for a tag.
                    Err(error) => prop_assert!(
                        matches!(error, EmitError::EdgeBlank { .. } | EmitError::LooksLikeTag { .. }),
                        "{}",
                        error
                    ),
                }
            }
            Err(error) => prop_assert!(error.offset <= octets.len(), "{error:?}"),
        }
    }

    #[test]
    fn octets_of_any_kind_never_panic(octets in vec(any::<u8>(), 0..300)) {
        let _ = Line::parse(&octets);
    }

    #[test]
    fn text_behind_any_type_never_panics(
        slash: bool,
        message in prop_oneof![request(), pool(), sealed(), reply()],
        rest in "[ ~|/%0-9a-c:=,\t\r-]{0,60}",
    ) {
        let start = if slash { "VMDT/TCP/1.0/" } else { "" };
        let _ = Line::parse(format!("{start}{}{rest}", message.type_word()).as_bytes());
    }

    #[test]
    fn lines_survive_a_stream(lines in vec(line(), 1..6), size in 1_usize..100) {
        let lines: Vec<_> =
            lines.into_iter().filter(|line| line.emit().is_ok()).collect();
        let stream: Vec<u8> = lines.iter().flat_map(|line| line.emit().unwrap()).collect();
        let mut framer = LineFramer::new(RELAY_MAX_LINE);
        let mut found = Vec::new();
        for chunk in stream.chunks(size) {
            framer.push(chunk);
            while let Some(line) = framer.next_line() {
                found.push(Line::parse(&line.unwrap()).unwrap());
            }
        }
        prop_assert_eq!(found, lines);
    }
}
