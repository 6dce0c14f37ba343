use super::*;
use alloc::format;
use alloc::string::{String, ToString as _};
use proptest::prelude::*;

fn padded(text: &[u8]) -> [u8; ID_LEN] {
    let mut field = [0; ID_LEN];
    field[..text.len()].copy_from_slice(text);
    field
}

#[test]
fn node_id_uses_all_sixteen_octets() {
    let id: NodeId = "abcdefghijklmnop".parse().unwrap();
    assert_eq!(id.field(), *b"abcdefghijklmnop");
    assert_eq!(id.as_str(), "abcdefghijklmnop");
    let long = "abcdefghijklmnopq".parse::<NodeId>();
    assert_eq!(
        long,
        Err(IdError::TooLong {
            found: 17,
            allowed: 16
        })
    );
}

#[test]
fn node_id_text_is_held_to_its_alphabet() {
    assert!("client_12345".parse::<NodeId>().is_ok());
    assert!("A-z_09".parse::<NodeId>().is_ok());
    assert_eq!("".parse::<NodeId>(), Err(IdError::Empty));
    for (text, offset, octet) in [
        ("a b", 1, b' '),
        ("a|b", 1, b'|'),
        ("a.b", 1, b'.'),
        ("abc\0", 3, 0),
        ("é", 0, 0xc3),
    ] {
        assert_eq!(
            text.parse::<NodeId>(),
            Err(IdError::BadOctet {
                offset,
                octet,
                allowed: "A-Z a-z 0-9 _ -"
            }),
        );
    }
}

#[test]
fn node_id_field_may_be_sloppy_but_not_dangerous() {
    assert_eq!(NodeId::from_field([0; 16]), Ok(NodeId::EMPTY));
    let dotted = NodeId::from_field(padded(b"host.example!")).unwrap();
    assert_eq!(dotted.as_str(), "host.example!");
    assert!(!dotted.is_plain());
    for separator in *b"|/%:,~ \n\x7f\x80" {
        let field = padded(&[b'a', separator]);
        let error = NodeId::from_field(field).unwrap_err();
        assert!(
            matches!(error, IdError::BadOctet { offset: 1, octet, .. } if octet == separator),
            "{error}"
        );
    }
    let mut field = padded(b"abc");
    field[9] = b'x';
    assert_eq!(
        NodeId::from_field(field),
        Err(IdError::AfterPadding {
            offset: 9,
            octet: b'x'
        })
    );
}

#[test]
fn empty_node_id_is_not_plain() {
    assert!(NodeId::EMPTY.is_empty());
    assert!(!NodeId::EMPTY.is_plain());
    assert!("a".parse::<NodeId>().unwrap().is_plain());
}

#[test]
fn ids_order_as_their_text() {
    let ids: [NodeId; 4] = ["B", "a", "a0", "b"].map(|text| text.parse().unwrap());
    assert!(ids.is_sorted());
    assert!(NodeId::EMPTY < ids[0]);
}

#[test]
fn ids_show_their_text() {
    let id: NodeId = "alice".parse().unwrap();
    assert_eq!(
        format!("{id}|{id:>7}|{id:?}"),
        "alice|  alice|NodeId(alice)"
    );
    let name: MessageName = "a_b_17".parse().unwrap();
    assert_eq!(format!("{name:?}"), "MessageName(a_b_17)");
}

#[test]
fn random_message_id_is_base64url() {
    let id = MessageId::from_random([0, 16, 131, 16, 81, 135, 32, 146, 139, 48, 211, 143]);
    assert_eq!(id.as_str(), "ABCDEFGHIJKLMNOP");
    assert_eq!(
        MessageId::from_random([0xfb; 12]).as_str(),
        "-_v7-_v7-_v7-_v7"
    );
}

#[test]
fn message_id_field_holds_what_names_hold() {
    assert_eq!(MessageId::from_field([0; 16]), Ok(MessageId::ZERO));
    assert!(MessageId::from_field(padded(b"a_b.c:1")).is_ok());
    assert!(MessageId::from_field(padded(b"a!")).is_err());
    assert!("a.b".parse::<MessageId>().is_err());
}

#[test]
fn message_name_bounds() {
    let longest = "x".repeat(NAME_LEN);
    assert_eq!(longest.parse::<MessageName>().unwrap().as_str(), longest);
    let over = "x".repeat(NAME_LEN + 1);
    assert_eq!(
        over.parse::<MessageName>(),
        Err(IdError::TooLong {
            found: 65,
            allowed: 64
        })
    );
    assert_eq!("".parse::<MessageName>(), Err(IdError::Empty));
    assert!("a/b".parse::<MessageName>().is_err());
}

#[test]
fn message_name_fits_a_header_up_to_sixteen_octets() {
    let fits: MessageName = "a_b_170000000000".parse().unwrap();
    assert_eq!(fits.to_message_id().unwrap().as_str(), "a_b_170000000000");
    let long: MessageName = "a_b_1700000000000".parse().unwrap();
    assert_eq!(long.to_message_id(), None);
}

#[test]
fn name_of_the_zero_message_is_the_only_empty_one() {
    let zero = MessageName::from(MessageId::ZERO);
    assert!(zero.is_empty());
    assert_eq!(zero.to_message_id(), Some(MessageId::ZERO));
    assert!(!"0".parse::<MessageName>().unwrap().is_empty());
}

#[test]
fn cluster_id_is_held_to_its_alphabet() {
    assert!("cluster_12345".parse::<ClusterId>().is_ok());
    assert!("cluster:1".parse::<ClusterId>().is_err());
    assert!("".parse::<ClusterId>().is_err());
    assert!("c".repeat(65).parse::<ClusterId>().is_err());
}

#[test]
fn share_index_field_in_every_form_of_deployed_software() {
    let table: [(&[u8; 4], u16); 7] = [
        (b"0001", 1),
        (b"001\0", 1),
        (b"01\0\0", 1),
        (b"1\0\0\0", 1),
        (b"000\0", 0),
        (b"0000", 0),
        (b"9999", 9_999),
    ];
    for (field, index) in table {
        assert_eq!(
            ShareIndex::from_field(*field).map(ShareIndex::get),
            Ok(index),
            "{field:?}"
        );
    }
    for field in [
        b"\0\0\0\0",
        b"1\0\x001",
        b"1\0 \0",
        b" 001",
        b"-001",
        b"00a0",
        b"\xff001",
    ] {
        assert_eq!(
            ShareIndex::from_field(*field),
            Err(ShareIndexError::BadField { found: *field })
        );
    }
}

#[test]
fn share_index_bounds() {
    assert_eq!(ShareIndex::new(9_999), Some(ShareIndex::MAX));
    assert_eq!(ShareIndex::new(10_000), None);
    assert_eq!(
        ShareIndex::try_from(10_000),
        Err(ShareIndexError::OutOfRange {
            found: 10_000,
            allowed: 9_999
        })
    );
    assert!(NonZeroU8::try_from(ShareIndex::CONTROL).is_err());
    assert!(NonZeroU8::try_from(ShareIndex(256)).is_err());
    assert_eq!(NonZeroU8::try_from(ShareIndex(255)), Ok(NonZeroU8::MAX));
}

#[test]
fn control_flow_is_the_zero_message_and_index() {
    assert!(FlowId::CONTROL.is_control());
    let one = FlowId::new(MessageId::ZERO, ShareIndex(1));
    assert!(!one.is_control());
    assert_eq!(FlowId::CONTROL.to_string(), "control");
    let flow = FlowId::new("m".parse().unwrap(), ShareIndex(3));
    assert_eq!(flow.to_string(), "m/3");
}

#[test]
fn an_id_of_profile_1_1_is_a_mark_and_15_characters() {
    let id: NodeId = "@AZaz09_-AZaz09_".parse().unwrap();
    assert!(id.is_sealed() && id.is_plain());
    assert_eq!(NodeId::from_field(id.field()), Ok(id));
    assert_eq!(id.field(), *b"@AZaz09_-AZaz09_");
    let made = NodeId::sealed([0xff, 0xef, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x3f]);
    assert_eq!(made.as_str(), "@_-__AAAAAAAAAAA");
    // The last six bits have no character.
    assert_eq!(
        made,
        NodeId::sealed([0xff, 0xef, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    );
    assert!(!"plain".parse::<NodeId>().unwrap().is_sealed());
}

#[test]
fn the_mark_of_profile_1_1_stands_first_and_only_there() {
    for text in [
        "@",
        "@short",
        "a@cdefghijklmnop",
        "@@cdefghijklmnop",
        "@bcdefg.ijklmnop",
        "@bcdefghijklmnopq",
    ] {
        assert!(text.parse::<NodeId>().is_err(), "{text}");
    }
    assert_eq!(
        "@bcdefg.ijklmnop".parse::<NodeId>(),
        Err(IdError::BadOctet {
            offset: 7,
            octet: b'.',
            allowed: "A-Z a-z 0-9 _ -"
        })
    );
    // A field of deployed software may hold it anywhere; then it is no mark.
    assert!(
        !NodeId::from_field(*b"@host.example\0\0\0")
            .unwrap()
            .is_sealed()
    );
    assert!("@AZaz09_-AZaz09_".parse::<MessageId>().is_err());
}

proptest! {
    #[test]
    fn node_id_survives_text_and_field(text in "[A-Za-z0-9_-]{1,16}") {
        let id: NodeId = text.parse().unwrap();
        prop_assert_eq!(id.as_str(), &text);
        prop_assert!(id.is_plain());
        prop_assert_eq!(NodeId::from_field(id.field()), Ok(id));
    }

    #[test]
    fn accepted_fields_are_kept_as_they_are(field: [u8; 16], len in 0_usize..=16) {
        let mut field = field.map(|octet| octet % 0x80);
        field[len..].fill(0);
        if let Ok(id) = NodeId::from_field(field) {
            prop_assert_eq!(id.field(), field);
        }
        if let Ok(id) = MessageId::from_field(field) {
            prop_assert_eq!(id.field(), field);
            prop_assert_eq!(MessageName::from(id).to_message_id(), Some(id));
        }
    }

    #[test]
    fn names_survive(text in "[A-Za-z0-9_.:-]{1,64}") {
        let name: MessageName = text.parse().unwrap();
        prop_assert_eq!(name.as_str(), &text);
        prop_assert_eq!(name.to_message_id().is_some(), text.len() <= 16);
    }

    #[test]
    fn text_of_any_kind_never_panics(text: String) {
        let _ = text.parse::<NodeId>();
        let _ = text.parse::<MessageId>();
        let _ = text.parse::<MessageName>();
        let _ = text.parse::<ClusterId>();
    }

    #[test]
    fn share_index_survives_its_field(index in 0_u16..=9_999) {
        let index = ShareIndex::new(index).unwrap();
        prop_assert_eq!(ShareIndex::from_field(index.field()), Ok(index));
    }
}
