//! Golden lines.

use super::*;

/// Every message with its line in both framings; what follows `VMDT/TCP/1.0/` in slash form.
pub(super) fn table() -> Vec<(Message, &'static str, &'static str)> {
    let client = node("client_12345");
    let info = ClusterInfo {
        n: 5,
        k: 3,
        options: ClusterOptions {
            open_peers: true,
            max_members: Some(8),
        },
    };
    vec![
        (
            Message::CreateCluster {
                client,
                n: 5,
                k: 3,
                options: None,
            },
            "CREATE_CLUSTER|client_12345|5|3",
            "CREATE_CLUSTER/client_12345/5/3",
        ),
        (
            Message::CreateCluster {
                client,
                n: 5,
                k: 3,
                options: Some(info.options),
            },
            "CREATE_CLUSTER|client_12345|5|3|open=1,max=8",
            "CREATE_CLUSTER/client_12345/5/3/open=1,max=8",
        ),
        (
            Message::CreateCluster {
                client,
                n: 0,
                k: 65_535,
                options: Some(ClusterOptions::default()),
            },
            "CREATE_CLUSTER|client_12345|0|65535|open=0",
            "CREATE_CLUSTER/client_12345/0/65535/open=0",
        ),
        (
            Message::JoinCluster {
                client,
                cluster: cluster("cluster_12345"),
            },
            "JOIN_CLUSTER|client_12345|cluster_12345",
            "JOIN_CLUSTER/client_12345/cluster_12345",
        ),
        (
            Message::LeaveCluster {
                client,
                cluster: None,
            },
            "LEAVE_CLUSTER|client_12345",
            "LEAVE_CLUSTER/client_12345",
        ),
        (
            Message::LeaveCluster {
                client,
                cluster: Some(cluster("c1")),
            },
            "LEAVE_CLUSTER|client_12345|c1",
            "LEAVE_CLUSTER/client_12345/c1",
        ),
        (
            Message::ListClusters {
                client,
                after: None,
            },
            "LIST_CLUSTERS|client_12345",
            "LIST_CLUSTERS/client_12345",
        ),
        (
            Message::ListClusters {
                client,
                after: Some(cluster("c1")),
            },
            "LIST_CLUSTERS|client_12345|c1",
            "LIST_CLUSTERS/client_12345/c1",
        ),
        (
            Message::GetClusterMembers {
                client,
                cluster: None,
            },
            "GET_CLUSTER_MEMBERS|client_12345",
            "GET_CLUSTER_MEMBERS/client_12345",
        ),
        (
            Message::GetClusterMembers {
                client,
                cluster: Some(cluster("c1")),
            },
            "GET_CLUSTER_MEMBERS|client_12345|c1",
            "GET_CLUSTER_MEMBERS/client_12345/c1",
        ),
        (
            Message::RegisterP2pPort {
                client,
                port: 40_001,
                caps: None,
            },
            "REGISTER_P2P_PORT|client_12345|40001",
            "REGISTER_P2P_PORT/client_12345/40001",
        ),
        (
            Message::RegisterP2pPort {
                client,
                port: 40_001,
                caps: Some(Caps::RDT),
            },
            "REGISTER_P2P_PORT|client_12345|40001|rdt",
            "REGISTER_P2P_PORT/client_12345/40001/rdt",
        ),
        (
            Message::RegisterP2pPort {
                client,
                port: 1,
                caps: Some(Caps::NONE),
            },
            "REGISTER_P2P_PORT|client_12345|1|none",
            "REGISTER_P2P_PORT/client_12345/1/none",
        ),
        (
            Message::GetClientInfo {
                client,
                target: node("b"),
            },
            "GET_CLIENT_INFO|client_12345|b",
            "GET_CLIENT_INFO/client_12345/b",
        ),
        (
            Message::SendMessage {
                client,
                target: node("b"),
                text: " a|b / 50% ~7".into(),
            },
            "SEND_MESSAGE|client_12345|b| a|b / 50% ~7",
            "SEND_MESSAGE/client_12345/b/%20a|b %2F 50%25 ~7",
        ),
        (
            Message::SendMessage {
                client,
                target: node("b"),
                text: String::new(),
            },
            "SEND_MESSAGE|client_12345|b|",
            "SEND_MESSAGE/client_12345/b/",
        ),
        (
            Message::SendMessage {
                client,
                target: node("b"),
                text: "~12345".into(),
            },
            "SEND_MESSAGE|client_12345|b|~12345",
            "SEND_MESSAGE/client_12345/b/%7E12345",
        ),
        (
            Message::SendMessage {
                client,
                target: node("b"),
                text: "grüße 🦀".into(),
            },
            "SEND_MESSAGE|client_12345|b|grüße 🦀",
            "SEND_MESSAGE/client_12345/b/grüße 🦀",
        ),
        (
            Message::MessageShare {
                from: client,
                to: node("b"),
                target: node("c"),
                index: 2,
                data: "AQ/+".into(),
            },
            "MESSAGE_SHARE|client_12345|b|c|2|AQ/+",
            "MESSAGE_SHARE/client_12345/b/c/2/AQ%2F+",
        ),
        (
            Message::MessageReceived {
                message: name("a_b_1700000000"),
            },
            "MESSAGE_RECEIVED|a_b_1700000000",
            "MESSAGE_RECEIVED/a_b_1700000000",
        ),
        (
            add(
                ContentType::Text,
                "",
                vec![
                    ShareEntry::Inline {
                        index: 0,
                        share: vec![1, 0xff, 0xff],
                    },
                    ShareEntry::Inline {
                        index: 254,
                        share: vec![2],
                    },
                    ShareEntry::Inline {
                        index: 1,
                        share: vec![],
                    },
                ],
            ),
            "SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|TEXT||0:Af//|254:Ag==|1:",
            "SHARE_POOL_ADD/client_1_client_2_1700000000/client_1/client_2/5/3/TEXT//0:Af%2F%2F/254:Ag==/1:",
        ),
        (
            add(
                ContentType::Stream,
                "tid",
                vec![
                    ShareEntry::Placed {
                        index: 1,
                        holder: node("h1"),
                        digest: [0xff; 16],
                    },
                    ShareEntry::Placed {
                        index: 255,
                        holder: node("h2"),
                        digest: [0; 16],
                    },
                ],
            ),
            "SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|STREAM|tid\
             |1:h1:_____________________w|255:h2:AAAAAAAAAAAAAAAAAAAAAA",
            "SHARE_POOL_ADD/client_1_client_2_1700000000/client_1/client_2/5/3/STREAM/tid\
             /1:h1:_____________________w/255:h2:AAAAAAAAAAAAAAAAAAAAAA",
        ),
        (
            sealed_add(
                7,
                &[0xfb, 0xff, 0],
                vec![ShareEntry::Placed {
                    index: 1,
                    holder: node("@abcdefghijklmno"),
                    digest: [0; 16],
                }],
            ),
            "SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|STREAM|t.3\
             |v=7|d=-_8A|1:@abcdefghijklmno:AAAAAAAAAAAAAAAAAAAAAA",
            "SHARE_POOL_ADD/client_1_client_2_1700000000/client_1/client_2/5/3/STREAM/t.3\
             /v=7/d=-_8A/1:@abcdefghijklmno:AAAAAAAAAAAAAAAAAAAAAA",
        ),
        (
            add(ContentType::File, "a b:c.pdf", vec![]),
            "SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|FILE|a b:c.pdf",
            "SHARE_POOL_ADD/client_1_client_2_1700000000/client_1/client_2/5/3/FILE/a b:c.pdf",
        ),
        (
            Message::SharePoolClaim {
                message: name("m:1"),
                claimer: node("b"),
                index: 4,
            },
            "SHARE_POOL_CLAIM|m:1|b|4",
            "SHARE_POOL_CLAIM/m:1/b/4",
        ),
        (
            Message::SharePoolAck {
                message: name("m1"),
                receiver: node("b"),
            },
            "SHARE_POOL_ACK|m1|b",
            "SHARE_POOL_ACK/m1/b",
        ),
        (
            Message::SharePoolStored {
                message: name("m1"),
                holder: node("c"),
                index: 4,
            },
            "SHARE_POOL_STORED|m1|c|4",
            "SHARE_POOL_STORED/m1/c/4",
        ),
        (
            Message::SharePoolUnfreeze {
                message: name("m1"),
                index: 4,
            },
            "SHARE_POOL_UNFREEZE|m1|4",
            "SHARE_POOL_UNFREEZE/m1/4",
        ),
        (
            Message::SharePoolRemove {
                message: name("m1"),
            },
            "SHARE_POOL_REMOVE|m1",
            "SHARE_POOL_REMOVE/m1",
        ),
        (
            Message::ClusterReady {
                cluster: cluster("c1"),
            },
            "CLUSTER_READY|c1",
            "CLUSTER_READY/c1",
        ),
        (
            error(ErrorCode::UnknownCluster, "there is no c9", None),
            "ERROR|unknown-cluster: there is no c9",
            "ERROR/unknown-cluster/there is no c9",
        ),
        (
            error(ErrorCode::Other, "a: b", None),
            "ERROR|other: a: b",
            "ERROR/other/a: b",
        ),
        (
            error(ErrorCode::Internal, "", None),
            "ERROR|internal:",
            "ERROR/internal/",
        ),
        (Message::Ok { text: None }, "OK", "OK"),
        (
            Message::Ok {
                text: Some("P2P port registered".into()),
            },
            "OK|P2P port registered",
            "OK/P2P port registered",
        ),
        (
            Message::Ok {
                text: Some(String::new()),
            },
            "OK|",
            "OK/",
        ),
        (
            Message::ClusterCreated {
                cluster: cluster("cluster_12345"),
                info: None,
            },
            "CLUSTER_CREATED|cluster_12345",
            "CLUSTER_CREATED/cluster_12345",
        ),
        (
            Message::ClusterCreated {
                cluster: cluster("c1"),
                info: Some(info),
            },
            "CLUSTER_CREATED|c1|5|3|open=1,max=8",
            "CLUSTER_CREATED/c1/5/3/open=1,max=8",
        ),
        (
            Message::ClusterJoined {
                cluster: cluster("c1"),
                info: None,
            },
            "CLUSTER_JOINED|c1",
            "CLUSTER_JOINED/c1",
        ),
        (
            Message::ClusterJoined {
                cluster: cluster("c1"),
                info: Some(info),
            },
            "CLUSTER_JOINED|c1|5|3|open=1,max=8",
            "CLUSTER_JOINED/c1/5/3/open=1,max=8",
        ),
        (
            Message::ClusterList { clusters: vec![] },
            "CLUSTER_LIST",
            "CLUSTER_LIST",
        ),
        (
            Message::ClusterList {
                clusters: vec![
                    ClusterEntry {
                        cluster: cluster("c1"),
                        creator: node("a"),
                        n: 5,
                        k: 3,
                        members: 2,
                        active: false,
                    },
                    ClusterEntry {
                        cluster: cluster("c2"),
                        creator: node("b"),
                        n: 3,
                        k: 2,
                        members: 3,
                        active: true,
                    },
                ],
            },
            "CLUSTER_LIST|c1:a:5:3:2:0|c2:b:3:2:3:1",
            "CLUSTER_LIST/c1:a:5:3:2:0/c2:b:3:2:3:1",
        ),
        (
            Message::ClusterMembers { members: vec![] },
            "CLUSTER_MEMBERS",
            "CLUSTER_MEMBERS",
        ),
        (
            Message::ClusterMembers {
                members: vec![node("a"), node("b")],
            },
            "CLUSTER_MEMBERS|a|b",
            "CLUSTER_MEMBERS/a/b",
        ),
        (
            Message::ClientInfo {
                ip: IpAddr::from([192, 0, 2, 7]),
                port: 40_001,
                caps: None,
            },
            "CLIENT_INFO|192.0.2.7|40001",
            "CLIENT_INFO/192.0.2.7/40001",
        ),
        (
            Message::ClientInfo {
                ip: "2001:db8::7".parse().unwrap(),
                port: 40_001,
                caps: Some(Caps::RDT),
            },
            "CLIENT_INFO|2001:db8::7|40001|rdt",
            "CLIENT_INFO/2001:db8::7/40001/rdt",
        ),
        (
            Message::Member {
                cluster: cluster("c1"),
                id: node("a"),
                state: MemberState::Joined,
                address: Some("192.0.2.7:40001".parse().unwrap()),
                caps: Some(Caps::RDT),
            },
            "MEMBER|c1|a|joined|192.0.2.7:40001|rdt",
            "MEMBER/c1/a/joined/192.0.2.7:40001/rdt",
        ),
        (
            Message::Member {
                cluster: cluster("c1"),
                id: node("a"),
                state: MemberState::Back,
                address: Some("[fe80::1%2]:9".parse().unwrap()),
                caps: None,
            },
            "MEMBER|c1|a|back|[fe80::1%2]:9",
            "MEMBER/c1/a/back/[fe80::1%252]:9",
        ),
        (
            Message::Member {
                cluster: cluster("c1"),
                id: node("a"),
                state: MemberState::Away,
                address: None,
                caps: Some(Caps::NONE),
            },
            "MEMBER|c1|a|away|-|none",
            "MEMBER/c1/a/away/-/none",
        ),
        (
            Message::Member {
                cluster: cluster("c1"),
                id: node("a"),
                state: MemberState::Left,
                address: None,
                caps: None,
            },
            "MEMBER|c1|a|left",
            "MEMBER/c1/a/left",
        ),
    ]
}

/// Every message of profile 1.1 with its line, separated by slashes; in bar form the same with
/// bars.
pub(super) fn sealed() -> Vec<(Message, &'static str)> {
    let client = node("@AbCdEfGhIjKlMn0");
    let target = node("@abcdefghijklmn_");
    let cluster = cluster("0123456789abcdefghij-_");
    let binary = || vec![0xff, 0xef, 0xbe, 1];
    vec![
        (
            Message::PutProfile {
                client,
                profile: binary(),
            },
            "PUT_PROFILE/@AbCdEfGhIjKlMn0/_---AQ",
        ),
        (
            Message::GetProfile { client, target },
            "GET_PROFILE/@AbCdEfGhIjKlMn0/@abcdefghijklmn_",
        ),
        (Message::Receipts { receipts: binary() }, "RECEIPTS/_---AQ"),
        (
            Message::ExpressOpen { opening: binary() },
            "EXPRESS_OPEN/_---AQ",
        ),
        (Message::ExpressOk { id: u32::MAX }, "EXPRESS_OK/4294967295"),
        (
            Message::Profile {
                id: target,
                profile: binary(),
            },
            "PROFILE/@abcdefghijklmn_/_---AQ",
        ),
        (
            Message::CreateSealed {
                client,
                descriptor: binary(),
                membership: vec![],
            },
            "CREATE_SEALED/@AbCdEfGhIjKlMn0/_---AQ/",
        ),
        (
            Message::GetDescriptor { client, cluster },
            "GET_DESCRIPTOR/@AbCdEfGhIjKlMn0/0123456789abcdefghij-_",
        ),
        (
            Message::Descriptor {
                cluster,
                descriptor: binary(),
            },
            "DESCRIPTOR/0123456789abcdefghij-_/_---AQ",
        ),
        (
            Message::JoinSealed {
                client,
                cluster,
                membership: binary(),
            },
            "JOIN_SEALED/@AbCdEfGhIjKlMn0/0123456789abcdefghij-_/_---AQ",
        ),
        (
            Message::GetMembership {
                client,
                cluster,
                target,
            },
            "GET_MEMBERSHIP/@AbCdEfGhIjKlMn0/0123456789abcdefghij-_/@abcdefghijklmn_",
        ),
        (
            Message::Membership {
                cluster,
                id: target,
                membership: binary(),
            },
            "MEMBERSHIP/0123456789abcdefghij-_/@abcdefghijklmn_/_---AQ",
        ),
        (
            Message::Revoke {
                client,
                cluster,
                list: binary(),
            },
            "REVOKE/@AbCdEfGhIjKlMn0/0123456789abcdefghij-_/_---AQ",
        ),
        (
            Message::Revoked {
                cluster,
                list: binary(),
            },
            "REVOKED/0123456789abcdefghij-_/_---AQ",
        ),
        (Message::CodeOpen { client }, "CODE_OPEN/@AbCdEfGhIjKlMn0"),
        (Message::Code { number: 7 }, "CODE/7"),
        (
            Message::CodeJoin {
                client,
                number: 9_999,
            },
            "CODE_JOIN/@AbCdEfGhIjKlMn0/9999",
        ),
        (
            Message::CodePass {
                client: Some(client),
                number: 7,
                data: binary(),
            },
            "CODE_PASS/@AbCdEfGhIjKlMn0/7/_---AQ",
        ),
        (
            Message::CodePass {
                client: None,
                number: 7,
                data: binary(),
            },
            "CODE_PASS/7/_---AQ",
        ),
        (
            Message::CodeClose {
                client: Some(client),
                number: 7,
            },
            "CODE_CLOSE/@AbCdEfGhIjKlMn0/7",
        ),
        (
            Message::CodeClose {
                client: None,
                number: 7,
            },
            "CODE_CLOSE/7",
        ),
    ]
}
