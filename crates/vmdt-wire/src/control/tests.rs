use data_encoding::BASE64URL_NOPAD;

use super::*;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use core::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::error::IdError;
use crate::id::{ClusterId, MessageId, MessageName, NodeId};

mod table;

use table::{sealed, table};

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}

fn cluster(text: &str) -> ClusterId {
    text.parse().unwrap()
}

fn name(text: &str) -> MessageName {
    text.parse().unwrap()
}

fn add(content: ContentType, filename: &str, shares: Vec<ShareEntry>) -> Message {
    Message::SharePoolAdd(SharePoolAdd {
        message: name("client_1_client_2_1700000000"),
        sender: node("client_1"),
        receiver: node("client_2"),
        total: 5,
        active: 3,
        content,
        filename: filename.into(),
        version: 0,
        details: Vec::new(),
        shares,
    })
}

/// The same as profile 1.1 announces it.
fn sealed_add(version: u32, details: &[u8], shares: Vec<ShareEntry>) -> Message {
    let Message::SharePoolAdd(add) = add(ContentType::Stream, "t.3", shares) else {
        unreachable!()
    };
    Message::SharePoolAdd(SharePoolAdd {
        version,
        details: details.to_vec(),
        ..add
    })
}

fn error(code: ErrorCode, text: &str, about: Option<MessageName>) -> Message {
    Message::Error {
        code,
        text: text.into(),
        about,
    }
}

#[test]
fn golden_lines_in_both_framings() {
    for (message, bar, slash) in table() {
        for (framing, text) in [
            (Framing::Bar, bar.to_string()),
            (Framing::Slash, format!("VMDT/TCP/1.0/{slash}")),
        ] {
            let line = Line {
                framing,
                tag: None,
                message: message.clone(),
            };
            assert_eq!(Line::parse(text.as_bytes()).as_ref(), Ok(&line), "{text}");
            assert_eq!(line.emit(), Ok(format!("{text}\n").into_bytes()), "{text}");
            let crlf = format!(" \t{text}\r\n");
            assert_eq!(Line::parse(crlf.as_bytes()).as_ref(), Ok(&line), "{text}");
        }
    }
}

#[test]
fn golden_lines_with_a_tag() {
    for (message, bar, slash) in table() {
        let slash_line = Line {
            framing: Framing::Slash,
            tag: Some(7),
            message: message.clone(),
        };
        let text = format!("VMDT/TCP/1.0/{slash}/~7\n");
        assert_eq!(slash_line.emit().as_deref(), Ok(text.as_bytes()));
        assert_eq!(Line::parse(text.as_bytes()), Ok(slash_line));

        let bar_line = Line {
            framing: Framing::Bar,
            tag: Some(u32::MAX),
            message,
        };
        if matches!(bar_line.message, Message::SendMessage { .. }) {
            assert_eq!(bar_line.emit(), Err(EmitError::NotCarried { field: "tag" }));
            assert!(bar_line.fitted().emit().is_ok());
            continue;
        }
        let text = format!("{bar}|~4294967295\n");
        assert_eq!(bar_line.emit().as_deref(), Ok(text.as_bytes()));
        assert_eq!(Line::parse(text.as_bytes()), Ok(bar_line));
    }
}

#[test]
fn golden_lines_of_profile_1_1() {
    for (message, text) in sealed() {
        let forms = [
            (Framing::Bar, text.replace('/', "|")),
            (Framing::Slash, format!("VMDT/TCP/1.0/{text}")),
        ];
        for (framing, text) in forms {
            for tag in [None, Some(7)] {
                let line = Line {
                    framing,
                    tag,
                    message: message.clone(),
                };
                let written = match (tag, framing) {
                    (None, _) => format!("{text}\n"),
                    (Some(_), Framing::Bar) => format!("{text}|~7\n"),
                    (Some(_), Framing::Slash) => format!("{text}/~7\n"),
                };
                assert_eq!(line.emit().as_deref(), Ok(written.as_bytes()));
                assert_eq!(Line::parse(written.as_bytes()), Ok(line), "{written}");
            }
        }
    }
}

#[test]
fn binary_parameters_and_code_numbers_are_bounded() {
    let profile = |len| Message::PutProfile {
        client: node("a"),
        profile: vec![7; len],
    };
    let longest = Line::slash(profile(MAX_BINARY));
    assert_eq!(Line::parse(&longest.emit().unwrap()), Ok(longest));
    assert_eq!(
        Line::slash(profile(MAX_BINARY + 1)).emit(),
        Err(EmitError::TooMany {
            field: "profile",
            found: 4097,
            allowed: 4096
        })
    );
    let text = |octets| "A".repeat(octets);
    let line = format!("PUT_PROFILE|a|{}", text(5_464));
    let error = Line::parse(line.as_bytes()).unwrap_err();
    assert_eq!((error.field, error.offset), ("profile", 14));
    assert_eq!(error.code(), ErrorCode::BadRequest);
    for (line, field, offset, code) in [
        ("PUT_PROFILE|a", "profile", 13, ErrorCode::BadRequest),
        ("PUT_PROFILE|a|A", "profile", 14, ErrorCode::BadRequest),
        ("PUT_PROFILE|a|AB", "profile", 14, ErrorCode::BadRequest),
        ("PUT_PROFILE|a|AA==", "profile", 14, ErrorCode::BadRequest),
        ("PUT_PROFILE|a|+/+/", "profile", 14, ErrorCode::BadRequest),
        ("CODE|0", "number", 5, ErrorCode::OutOfRange),
        ("CODE|10000", "number", 5, ErrorCode::OutOfRange),
        ("CODE_JOIN|a|x", "number", 12, ErrorCode::NotANumber),
        ("CODE_PASS|7", "data", 11, ErrorCode::BadRequest),
        ("CODE_PASS|a|AA", "number", 10, ErrorCode::NotANumber),
        ("CODE_PASS|a|b|c|d", "number", 12, ErrorCode::NotANumber),
        ("REVOKE|a|c:1|AA", "cluster", 9, ErrorCode::BadId),
    ] {
        let error = Line::parse(line.as_bytes()).unwrap_err();
        let found = (error.field, error.offset, error.code());
        assert_eq!(found, (field, offset, code), "{line}: {error}");
    }
    for number in [0, MAX_CODE_NUMBER + 1] {
        assert!(matches!(
            Line::bar(Message::Code { number }).emit(),
            Err(EmitError::OutOfRange {
                field: "number",
                ..
            })
        ));
    }
}

#[test]
fn every_message_type_is_in_the_table() {
    let mut words: Vec<_> = table()
        .iter()
        .map(|(message, ..)| message.type_word())
        .chain(sealed().iter().map(|(message, _)| message.type_word()))
        .collect();
    words.dedup();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), 25 + 19);
}

#[test]
fn lines_of_deployed_software() {
    let table: [(&[u8], Message); 12] = [
        (
            b"OK|Left cluster\n",
            Message::Ok {
                text: Some("Left cluster".into()),
            },
        ),
        (
            b"ERROR|Cluster not found",
            error(ErrorCode::Other, "Cluster not found", None),
        ),
        (
            b"ERROR|weird: thing",
            error(ErrorCode::Other, "weird: thing", None),
        ),
        (b"CLUSTER_LIST|", Message::ClusterList { clusters: vec![] }),
        (
            b"CLUSTER_MEMBERS|a|b|",
            Message::ClusterMembers {
                members: vec![node("a"), node("b")],
            },
        ),
        (
            b"CREATE_CLUSTER|client_12345|005|3",
            Message::CreateCluster {
                client: node("client_12345"),
                n: 5,
                k: 3,
                options: None,
            },
        ),
        (
            b"SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|0:AQ==|1:AQI",
            add(
                ContentType::Text,
                "",
                vec![
                    ShareEntry::Inline {
                        index: 0,
                        share: vec![1],
                    },
                    ShareEntry::Inline {
                        index: 1,
                        share: vec![1, 2],
                    },
                ],
            ),
        ),
        (
            b"SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3",
            add(ContentType::Text, "", vec![]),
        ),
        (
            b"SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|TEXT",
            add(ContentType::Text, "", vec![]),
        ),
        (
            b"SHARE_POOL_ADD|client_1_client_2_1700000000|client_1|client_2|5|3|FILE||0:AR=|",
            add(
                ContentType::File,
                "",
                vec![ShareEntry::Inline {
                    index: 0,
                    share: vec![1],
                }],
            ),
        ),
        (
            b"VMDT/TCP/1.0/ERROR/Cluster not found",
            error(ErrorCode::Other, "Cluster not found", None),
        ),
        (
            b"VMDT/TCP/1.0/ERROR/a-later-code/sorry/m1",
            error(ErrorCode::Other, "sorry", Some(name("m1"))),
        ),
    ];
    for (line, message) in table {
        assert_eq!(
            Line::parse(line).map(|line| line.message),
            Ok(message),
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn words_of_later_software_are_ignored() {
    let caps = |line: &str| match Line::parse(line.as_bytes()).unwrap().message {
        Message::RegisterP2pPort { caps, .. } => caps.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(caps("REGISTER_P2P_PORT|a|1|x.rdt.y"), Caps::RDT);
    assert_eq!(caps("REGISTER_P2P_PORT|a|1|"), Caps::NONE);
    let Message::CreateCluster { options, .. } =
        Line::parse(b"CREATE_CLUSTER|a|5|3|color=red,max=9,x")
            .unwrap()
            .message
    else {
        panic!("another message");
    };
    let expected = ClusterOptions {
        open_peers: false,
        max_members: Some(9),
    };
    assert_eq!(options, Some(expected));
}

#[test]
fn escapes_are_read_in_either_case_and_written_in_upper_case() {
    let line = Line::parse(b"VMDT/TCP/1.0/SEND_MESSAGE/a/b/%2f%2F%0a%00%c3%a9%41").unwrap();
    let Message::SendMessage { text, .. } = &line.message else {
        panic!("another message")
    };
    assert_eq!(text, "//\n\0éA");
    assert_eq!(
        line.emit().unwrap(),
        "VMDT/TCP/1.0/SEND_MESSAGE/a/b/%2F%2F%0A%00éA\n".as_bytes()
    );
}

#[test]
fn slash_form_carries_any_text() {
    for text in [
        "", " ", "  ", "~", "~5", "~~5", "a ", " a", "%", "/", "|", "a\r\nb\0", "\t", "\u{7f}",
    ] {
        let message = Message::SendMessage {
            client: node("a"),
            target: node("b"),
            text: text.into(),
        };
        let line = Line::slash(message);
        assert_eq!(Line::parse(&line.emit().unwrap()), Ok(line), "{text:?}");
    }
}

/// Each bad line with the field, offset and code that its error names.
#[test]
fn rejects_malformed_lines_by_field_and_offset() {
    use ErrorCode::*;
    let table: [(&[u8], &str, usize, ErrorCode); 45] = [
        (b"", "line", 0, BadRequest),
        (b" \r\n", "line", 0, BadRequest),
        (b"OK|\xff", "line", 3, BadRequest),
        (b"OK|a\0", "line", 4, BadRequest),
        (b"OK|a\nOK", "line", 4, BadRequest),
        (b" OK|a\rb", "line", 5, BadRequest),
        (b"HELLO|a", "message type", 0, UnknownType),
        (b"|a", "message type", 0, UnknownType),
        (b"ok", "message type", 0, UnknownType),
        (b"VMDT", "message type", 0, UnknownType),
        (b"VMDT/", "version", 5, BadVersion),
        (b"VMDT/UDP/1.0/OK", "version", 5, BadVersion),
        (b"VMDT/TCP/1.1/OK", "version", 5, BadVersion),
        (b"VMDT/TCP/1.00/OK", "version", 5, BadVersion),
        (b"VMDT/TCP/1.0", "message type", 12, BadRequest),
        (b"VMDT/TCP/1.0/", "message type", 13, UnknownType),
        (b"  VMDT/TCP/1.0/NO/a", "message type", 15, UnknownType),
        (b"CREATE_CLUSTER", "client", 14, BadRequest),
        (b"CREATE_CLUSTER|", "client", 15, BadId),
        (b"CREATE_CLUSTER|a b|5|3", "client", 15, BadId),
        (b"CREATE_CLUSTER|a|five|3", "n", 17, NotANumber),
        (b"CREATE_CLUSTER|a|-5|3", "n", 17, NotANumber),
        (b"CREATE_CLUSTER|a|+5|3", "n", 17, NotANumber),
        (b"CREATE_CLUSTER|a||3", "n", 17, NotANumber),
        (b"CREATE_CLUSTER|a|5|65536", "k", 19, OutOfRange),
        (
            b"CREATE_CLUSTER|a|5|99999999999999999999",
            "k",
            19,
            OutOfRange,
        ),
        (b"CREATE_CLUSTER|a|5|3|open=2", "open", 21, BadRequest),
        (
            b"CREATE_CLUSTER|a|5|3|open=1|x",
            "parameters after the last",
            27,
            BadRequest,
        ),
        (b"CREATE_CLUSTER|a|5|3|max=", "max", 21, NotANumber),
        (b"JOIN_CLUSTER|a|c:1", "cluster", 15, BadId),
        (b"LIST_CLUSTERS|a|~4294967296", "tag", 16, OutOfRange),
        (b"SEND_MESSAGE|a|b", "text", 16, BadRequest),
        (b"VMDT/TCP/1.0/SEND_MESSAGE/a/b", "text", 29, BadRequest),
        (b"VMDT/TCP/1.0/SEND_MESSAGE/a/b/x%2", "text", 31, BadRequest),
        (b"VMDT/TCP/1.0/SEND_MESSAGE/a/b/%+1", "text", 30, BadRequest),
        (b"VMDT/TCP/1.0/SEND_MESSAGE/a/b/%ff", "text", 30, BadRequest),
        (
            b"VMDT/TCP/1.0/SEND_MESSAGE/a/b/c/d",
            "parameters after the last",
            31,
            BadRequest,
        ),
        (b"OK|a|b", "parameters after the last", 4, BadRequest),
        (b"CLUSTER_CREATED|c|5", "k", 19, BadRequest),
        (b"CLUSTER_LIST|c:a:5:3:2", "cluster entry", 13, BadRequest),
        (
            b"CLUSTER_LIST|c:a:5:3:2:1:1",
            "cluster entry",
            13,
            BadRequest,
        ),
        (b"CLUSTER_MEMBERS|a||b", "member", 18, BadId),
        (b"CLIENT_INFO|localhost|1", "ip", 12, BadRequest),
        (b"MEMBER|c|a|gone", "state", 11, BadRequest),
        (b"MEMBER|c|a|left|192.0.2.1", "address", 16, BadRequest),
    ];
    for (line, field, offset, code) in table {
        let error = Line::parse(line).unwrap_err();
        let shown = format!("{}: {error}", line.escape_ascii());
        assert_eq!(
            (error.field, error.offset, error.code()),
            (field, offset, code),
            "{shown}"
        );
        assert!(error.to_string().contains(field), "{shown}");
    }
}

#[test]
fn rejects_malformed_share_entries() {
    let start = "SHARE_POOL_ADD|m|a|b|5|3|TEXT||";
    let table = [
        ("0", "share", ErrorCode::BadRequest),
        ("0:AQ==:x:y", "share", ErrorCode::BadRequest),
        (":AQ==", "share index", ErrorCode::NotANumber),
        ("255:AQ==", "share index", ErrorCode::OutOfRange),
        ("0:A", "share", ErrorCode::BadRequest),
        ("0:AQ===", "share", ErrorCode::BadRequest),
        ("0:A=Q=", "share", ErrorCode::BadRequest),
        ("0:A_-B", "share", ErrorCode::BadRequest),
        ("0:AQ==AQ==", "share", ErrorCode::BadRequest),
        (
            "0:h:AAAAAAAAAAAAAAAAAAAAAA",
            "share index",
            ErrorCode::OutOfRange,
        ),
        (
            "256:h:AAAAAAAAAAAAAAAAAAAAAA",
            "share index",
            ErrorCode::OutOfRange,
        ),
        ("1::AAAAAAAAAAAAAAAAAAAAAA", "holder", ErrorCode::BadId),
        ("1:h:AAAAAAAAAAAAAAAAAAAAA", "digest", ErrorCode::BadRequest),
        (
            "1:h:AAAAAAAAAAAAAAAAAAAAAAA",
            "digest",
            ErrorCode::BadRequest,
        ),
        (
            "1:h:AAAAAAAAAAAAAAAAAAAAAB",
            "digest",
            ErrorCode::BadRequest,
        ),
        (
            "1:h:AAAAAAAAAAAAAAAAAAAA+A",
            "digest",
            ErrorCode::BadRequest,
        ),
    ];
    for (entry, field, code) in table {
        let line = format!("{start}{entry}");
        let error = Line::parse(line.as_bytes()).unwrap_err();
        assert_eq!(
            (error.field, error.offset, error.code()),
            (field, start.len(), code),
            "{error}"
        );
    }
    let error = Line::parse(b"SHARE_POOL_ADD|m|a|b|5|3|AUDIO||0:AQ==").unwrap_err();
    assert_eq!((error.field, error.offset), ("content", 25));
    assert_eq!(
        error.to_string(),
        "content at octet 25 is \"AUDIO\", allowed are TEXT FILE STREAM, or a share",
    );
}

#[test]
fn parameters_and_shares_are_bounded() {
    let members = |count: usize| format!("CLUSTER_MEMBERS{}", "|a".repeat(count));
    assert!(Line::parse(members(MAX_PARAMETERS).as_bytes()).is_ok());
    let error = Line::parse(members(MAX_PARAMETERS + 1).as_bytes()).unwrap_err();
    assert_eq!(
        error.kind,
        LineErrorKind::TooMany {
            found: 301,
            allowed: 300
        }
    );

    let shares = |count: usize| format!("SHARE_POOL_ADD|m|a|b|5|3|TEXT|{}", "|0:".repeat(count));
    assert!(Line::parse(shares(MAX_SHARES).as_bytes()).is_ok());
    let error = Line::parse(shares(MAX_SHARES + 1).as_bytes()).unwrap_err();
    assert_eq!(
        error.kind,
        LineErrorKind::TooMany {
            found: 256,
            allowed: 255
        }
    );

    let bare = |count: usize| format!("SHARE_POOL_ADD|m|a|b|5|3{}", "|0:".repeat(count));
    assert!(Line::parse(bare(MAX_SHARES).as_bytes()).is_ok());
    let error = Line::parse(bare(MAX_SHARES + 1).as_bytes()).unwrap_err();
    assert_eq!(
        error.kind,
        LineErrorKind::TooMany {
            found: 256,
            allowed: 255
        }
    );

    let text = "|".repeat(20_000);
    assert!(Line::parse(format!("SEND_MESSAGE|a|b|{text}").as_bytes()).is_ok());
}

#[test]
fn bar_form_refuses_what_it_cannot_carry() {
    let ok = |text: &str| {
        Line::bar(Message::Ok {
            text: Some(text.into()),
        })
        .emit()
    };
    assert!(ok("a/b%").is_ok());
    for (text, offset, octet) in [
        ("a|b", 1, b'|'),
        ("a\n", 1, b'\n'),
        ("\r", 0, b'\r'),
        ("ab\0", 2, 0),
    ] {
        assert_eq!(
            ok(text),
            Err(EmitError::BadOctet {
                field: "text",
                offset,
                octet
            })
        );
    }
    assert_eq!(ok("a "), Err(EmitError::EdgeBlank { field: "text" }));
    assert_eq!(ok("a\t"), Err(EmitError::EdgeBlank { field: "text" }));
    assert_eq!(ok("~5"), Err(EmitError::LooksLikeTag { field: "text" }));
    assert_eq!(
        ok("~99999999999"),
        Err(EmitError::LooksLikeTag { field: "text" })
    );
    assert!(ok("~5a").is_ok() && ok("~").is_ok());
    let tagged = Line {
        framing: Framing::Bar,
        tag: Some(1),
        message: Message::Ok {
            text: Some("~5 ".into()),
        },
    };
    assert_eq!(Line::parse(&tagged.emit().unwrap()), Ok(tagged));

    let send = |text: &str| {
        let text = text.into();
        Line::bar(Message::SendMessage {
            client: node("a"),
            target: node("b"),
            text,
        })
        .emit()
    };
    assert!(send("a|b").is_ok() && send("~5").is_ok() && send(" a").is_ok());
    assert_eq!(send("a "), Err(EmitError::EdgeBlank { field: "text" }));
    assert!(matches!(
        send("a\nb"),
        Err(EmitError::BadOctet { octet: b'\n', .. })
    ));

    let about = Line::bar(error(ErrorCode::Refused, "no", Some(name("m1"))));
    assert_eq!(about.emit(), Err(EmitError::NotCarried { field: "about" }));
    assert_eq!(about.fitted().emit().unwrap(), b"ERROR|refused: no\n");
}

#[test]
fn neither_form_writes_what_no_parser_accepts() {
    let sloppy = NodeId::from_field(*b"a.b\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    let shares = |count| {
        vec![
            ShareEntry::Inline {
                index: 0,
                share: vec![]
            };
            count
        ]
    };
    let address = SocketAddr::V6(SocketAddrV6::new([0; 8].into(), 1, 5, 0));
    for framing in [Framing::Bar, Framing::Slash] {
        let emit = |message| {
            Line {
                framing,
                tag: None,
                message,
            }
            .emit()
        };
        let bad_id = Err(EmitError::BadId { field: "client" });
        assert_eq!(
            emit(Message::ListClusters {
                client: sloppy,
                after: None
            }),
            bad_id
        );
        assert_eq!(
            emit(Message::ListClusters {
                client: NodeId::EMPTY,
                after: None
            }),
            bad_id
        );
        assert_eq!(
            emit(Message::MessageReceived {
                message: MessageId::ZERO.into()
            }),
            Err(EmitError::BadId { field: "message" })
        );
        let entry = |index| ShareEntry::Inline {
            index,
            share: vec![],
        };
        assert!(emit(add(ContentType::Text, "", vec![entry(254)])).is_ok());
        assert!(matches!(
            emit(add(ContentType::Text, "", vec![entry(255)])),
            Err(EmitError::OutOfRange {
                found: 255,
                min: 0,
                max: 254,
                ..
            })
        ));
        let placed = |index| ShareEntry::Placed {
            index,
            holder: node("h"),
            digest: [0; 16],
        };
        assert!(matches!(
            emit(add(ContentType::Text, "", vec![placed(0)])),
            Err(EmitError::OutOfRange {
                found: 0,
                min: 1,
                max: 255,
                ..
            })
        ));
        assert!(emit(add(ContentType::Text, "", shares(255))).is_ok());
        assert_eq!(
            emit(add(ContentType::Text, "", shares(256))),
            Err(EmitError::TooMany {
                field: "shares",
                found: 256,
                allowed: 255
            })
        );
        assert!(
            emit(Message::ClusterMembers {
                members: vec![node("a"); 300]
            })
            .is_ok()
        );
        assert!(matches!(
            emit(Message::ClusterMembers {
                members: vec![node("a"); 301]
            }),
            Err(EmitError::TooMany {
                field: "parameters",
                found: 301,
                allowed: 300
            })
        ));
        assert_eq!(
            emit(Message::Member {
                cluster: cluster("c"),
                id: node("a"),
                state: MemberState::Back,
                address: Some(address),
                caps: None,
            }),
            Err(EmitError::NotCarried {
                field: "address flow label"
            })
        );
    }
}

#[test]
fn framing_is_told_from_the_start_of_the_line() {
    assert_eq!(Framing::of(b"OK"), Framing::Bar);
    assert_eq!(Framing::of(b"VMDT|a"), Framing::Bar);
    assert_eq!(Framing::of(b" \tVMDT/nonsense"), Framing::Slash);
    assert_eq!(Framing::of(b""), Framing::Bar);
}

#[test]
fn error_codes_are_stable_words() {
    let words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(
        words.join(" "),
        "bad-request unknown-type bad-version line-too-long not-a-number out-of-range bad-id \
         unknown-cluster unknown-client not-a-member already-member cluster-full \
         cluster-not-ready not-supported not-registered id-in-use too-many-clusters \
         too-many-clients rate-limited quota-exceeded relay-refused no-space refused aborted \
         unauthenticated bad-signature stale removed unknown-number internal other",
    );
    for code in ErrorCode::ALL {
        assert_eq!(code.as_str().parse(), Ok(*code));
    }
    assert_eq!("Internal".parse::<ErrorCode>(), Err(UnknownCode));
}

#[test]
fn debug_shows_no_text_and_no_share() {
    let table = [
        Message::SendMessage {
            client: node("a"),
            target: node("b"),
            text: "hidden".into(),
        },
        Message::MessageShare {
            from: node("a"),
            to: node("b"),
            target: node("c"),
            index: 1,
            data: "hidden".into(),
        },
        Message::CodePass {
            client: None,
            number: 9,
            data: b"hidden".to_vec(),
        },
        add(
            ContentType::Text,
            "",
            vec![ShareEntry::Inline {
                index: 0,
                share: b"hidden".to_vec(),
            }],
        ),
    ];
    for message in table {
        let shown = format!("{message:?}");
        assert!(
            !shown.contains("hidden") && !shown.contains("104"),
            "{shown}"
        );
        assert!(shown.contains('6'), "{shown}");
    }
    let join = Message::JoinCluster {
        client: node("a"),
        cluster: cluster("c"),
    };
    assert_eq!(format!("{join:?}"), "JOIN_CLUSTER/a/c");
}

#[test]
fn excerpts_are_short_and_printable() {
    let line = format!("A\u{1b}[31mé{}", "x".repeat(100));
    let text = Line::parse(line.as_bytes()).unwrap_err().to_string();
    assert!(text.is_ascii() || text.contains('…'), "{text}");
    assert!(!text.contains('\u{1b}') && text.len() < 100, "{text}");
    let id = Line::parse(b"LIST_CLUSTERS|a b").unwrap_err();
    assert!(matches!(
        id.kind,
        LineErrorKind::BadId(IdError::BadOctet { offset: 1, .. })
    ));
}

#[test]
fn what_profile_1_1_adds_to_an_announcement_comes_once_and_in_order() {
    let head = "SHARE_POOL_ADD|m|a|b|5|3|STREAM|t.3";
    let read = |rest: &str| match Line::parse(format!("{head}{rest}").as_bytes()) {
        Ok(Line {
            message: Message::SharePoolAdd(add),
            ..
        }) => Ok((add.version, add.details)),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.field),
    };
    assert_eq!(read("|v=1|d=AA"), Ok((1, vec![0])));
    assert_eq!(read("|d=AA"), Ok((0, vec![0])));
    assert_eq!(read("|v=4294967295"), Ok((u32::MAX, vec![])));
    assert_eq!(read("|v=4294967296"), Err("version"));
    assert_eq!(read("|v=-1"), Err("version"));
    assert_eq!(read("|v=1|v=2"), Err("share"));
    assert_eq!(read("|d=AA|v=2"), Err("share"));
    assert_eq!(read("|d=A"), Err("details"));
    assert_eq!(read("|d=AA=="), Err("details"));
    let most = "A".repeat(BASE64URL_NOPAD.encode_len(MAX_DETAILS));
    assert_eq!(
        read(&format!("|d={most}")).map(|(_, d)| d.len()),
        Ok(MAX_DETAILS)
    );
    assert_eq!(read(&format!("|d={most}A")), Err("details"));
    let add = SharePoolAdd {
        details: vec![0; MAX_DETAILS + 1],
        ..match add(ContentType::Stream, "t.3", vec![]) {
            Message::SharePoolAdd(add) => add,
            other => panic!("{other:?}"),
        }
    };
    let line = Line {
        framing: Framing::Slash,
        tag: None,
        message: Message::SharePoolAdd(add),
    };
    assert!(matches!(
        line.emit(),
        Err(EmitError::TooMany {
            field: "details",
            ..
        })
    ));
}
