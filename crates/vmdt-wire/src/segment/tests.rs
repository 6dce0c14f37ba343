use super::*;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};
use core::ops::RangeInclusive;
use proptest::prelude::*;

use crate::seq::Seq;

macro_rules! emitted {
    ($segment:expr) => {{
        let mut out = Vec::new();
        $segment.emit_into(&mut out);
        out
    }};
}

fn out_of_range(
    field: &'static str,
    offset: usize,
    found: u32,
    min: u32,
    max: u32,
) -> SegmentError {
    SegmentError::OutOfRange {
        field,
        offset,
        found,
        min,
        max,
    }
}

const OFFER: &[u8; SYN_LEN] = b"\x01\x00\x05\x70\x11\x22\x33\x44\x00\x00\x00\x00\
    \x00\x10\x00\x00\x00\x04\x00\x00\x00\x00\x75\x30";

fn offer() -> Syn {
    Syn {
        kind: SynKind::Offer,
        max_payload: 1_392,
        session: NonZeroU32::new(0x1122_3344).unwrap(),
        session_window: 0x10_0000,
        flow_window: 0x4_0000,
        idle_timeout_ms: 30_000,
        features: 0,
    }
}

#[test]
fn golden_syn_offer() {
    assert_eq!(emitted!(offer()), OFFER);
    assert_eq!(Syn::parse(OFFER), Ok(offer()));
}

#[test]
fn golden_syn_accept() {
    let mut octets = *OFFER;
    octets[1] = 1;
    octets[8..12].copy_from_slice(b"\xaa\xbb\xcc\xdd");
    let echo = NonZeroU32::new(0xaabb_ccdd).unwrap();
    let accept = Syn {
        kind: SynKind::Accept { echo },
        ..offer()
    };
    assert_eq!(Syn::parse(&octets), Ok(accept));
    assert_eq!(emitted!(accept), octets);
}

#[test]
fn a_syn_says_what_its_sender_reads_beyond_the_first_profile() {
    let compact = Syn {
        features: Syn::COMPACT,
        ..offer()
    };
    let octets = [&OFFER[..], &[1]].concat();
    assert_eq!(emitted!(compact), octets);
    assert_eq!(Syn::parse(&octets), Ok(compact));
    assert_eq!(Syn::parse(&octets[..SYN_LEN]), Ok(offer()), "left out");
}

#[test]
fn syn_ignores_what_a_later_version_may_add() {
    let mut octets = OFFER.to_vec();
    octets.extend_from_slice(b"\0more");
    assert_eq!(Syn::parse(&octets), Ok(offer()));
}

#[test]
fn syn_rejects_each_malformed_field() {
    let with = |at: usize, octets: &[u8]| {
        let mut syn = OFFER.to_vec();
        syn[at..at + octets.len()].copy_from_slice(octets);
        Syn::parse(&syn).unwrap_err()
    };
    assert_eq!(with(0, &[2]), out_of_range("format", 0, 2, 1, 1));
    assert_eq!(with(1, &[2]), out_of_range("kind", 1, 2, 0, 1));
    assert_eq!(
        with(4, &[0; 4]),
        out_of_range("session id", 4, 0, 1, u32::MAX)
    );
    assert_eq!(with(8, &[0, 0, 0, 1]), out_of_range("echo", 8, 1, 0, 0));
    assert_eq!(with(1, &[1]), out_of_range("echo", 8, 0, 1, u32::MAX));
    assert_eq!(
        with(0, &[2]).to_string(),
        "format at octet 0 is 2, allowed is 1 to 1"
    );
}

#[test]
fn syn_rejects_truncation_and_names_the_field() {
    let fields = [
        (0, "format"),
        (1, "kind"),
        (3, "max payload"),
        (6, "session id"),
        (23, "idle timeout"),
    ];
    for (len, field) in fields {
        let error = Syn::parse(&OFFER[..len]).unwrap_err();
        assert!(matches!(error, SegmentError::Truncated { found, .. } if found == len));
        assert_eq!(error.field(), field);
        assert!(error.offset() <= len);
    }
}

const ACK: &[u8; 36] =
    b"\x01\x03\x00\x00\x00\x00\x03\xe8\x00\x00\xff\xff\x00\x00\x00\x64\x00\x00\x00\x05\
    \x00\x00\x00\x02\x00\x00\x00\x03\
    \x00\x00\x00\x01\x00\x00\x00\x01";

#[test]
fn golden_ack() {
    let ack = Ack::parse(ACK).unwrap();
    assert_eq!(
        (ack.delay_us, ack.session_window, ack.largest(), ack.first()),
        (1_000, 65_535, 100, 5)
    );
    assert_eq!(
        ack.blocks(),
        [AckBlock { gap: 2, len: 3 }, AckBlock { gap: 1, len: 1 }]
    );
    let ranges: Vec<_> = ack.ranges(100).collect();
    assert_eq!(ranges, [96..=100, 91..=93, 89..=89]);
    assert_eq!(emitted!(ack), ACK);
    assert_eq!(Ack::from_ranges(1_000, 65_535, ranges), Some(ack));
}

#[test]
fn ack_rejects_each_malformed_field() {
    let with = |at: usize, octets: &[u8]| {
        let mut ack = ACK.to_vec();
        ack[at..at + octets.len()].copy_from_slice(octets);
        Ack::parse(&ack).unwrap_err()
    };
    assert_eq!(with(0, &[0]), out_of_range("format", 0, 0, 1, 1));
    assert_eq!(with(1, &[0]), out_of_range("range count", 1, 0, 1, 64));
    assert_eq!(with(1, &[65]), out_of_range("range count", 1, 65, 1, 64));
    assert_eq!(with(3, &[1]), out_of_range("reserved", 2, 1, 0, 0));
    assert_eq!(
        with(16, &[0; 4]),
        out_of_range("first range", 16, 0, 1, u32::MAX)
    );
    assert_eq!(with(20, &[0; 4]), out_of_range("gap", 20, 0, 1, u32::MAX));
    assert_eq!(
        with(24, &[0; 4]),
        out_of_range("range length", 24, 0, 1, u32::MAX)
    );
    assert_eq!(
        with(1, &[2]),
        SegmentError::Trailing {
            offset: 28,
            found: 8
        }
    );
    assert_eq!(
        with(1, &[4]),
        SegmentError::Truncated {
            field: "gap",
            offset: 36,
            found: 36
        }
    );
    assert_eq!(
        with(28, &[0xff; 4]),
        SegmentError::RangesTooLong {
            field: "gap",
            offset: 28
        }
    );
}

#[test]
fn an_ack_may_end_with_twelve_octets_of_ecn_counts_and_nothing_else() {
    let counts = b"\x00\x00\x00\x07\x00\x00\x00\x00\xff\xff\xff\xff";
    let octets = [&ACK[..], counts].concat();
    let ack = Ack::parse(&octets).unwrap();
    let expected = EcnCounts {
        ect0: 7,
        ect1: 0,
        ce: u32::MAX,
    };
    assert_eq!(ack.ecn, Some(expected));
    assert_eq!(emitted!(ack), octets);
    assert_eq!(AckView::parse(&octets).unwrap().ecn, Some(expected));
    let mut written = Vec::new();
    let ranges = [96..=100, 91..=93, 89..=89];
    assert!(Ack::emit_ranges(
        &mut written,
        1_000,
        65_535,
        ranges,
        Some(expected)
    ));
    assert_eq!(written, octets);
    assert_eq!(Ack::parse(ACK).unwrap().ecn, None);
    for len in (1..=24).filter(|len| *len != EcnCounts::LEN) {
        let octets = [&ACK[..], &[0; 24][..len]].concat();
        assert_eq!(
            Ack::parse(&octets),
            Err(SegmentError::Trailing {
                offset: 36,
                found: len
            })
        );
    }
}

#[test]
fn an_ack_that_can_not_be_written_leaves_the_buffer_as_it_was() {
    let mut out = vec![1, 2, 3];
    assert!(!Ack::emit_ranges(&mut out, 0, 0, [5..=9, 1..=4], None));
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn ack_constructor_refuses_what_the_parser_refuses() {
    assert!(Ack::new(0, 0, 9, 1, vec![AckBlock { gap: 1, len: 1 }; 63]).is_ok());
    assert_eq!(
        Ack::new(0, 0, 9, 1, vec![AckBlock { gap: 1, len: 1 }; 64]),
        Err(out_of_range("range count", 1, 65, 1, 64))
    );
    assert_eq!(
        Ack::new(0, 0, 9, 0, vec![]),
        Err(out_of_range("first range", 16, 0, 1, u32::MAX))
    );
    assert!(Ack::new(0, 0, 9, 1, vec![AckBlock { gap: 0, len: 1 }]).is_err());
    assert!(Ack::new(0, 0, 9, u32::MAX - 2, vec![AckBlock { gap: 1, len: 1 }]).is_ok());
    assert_eq!(
        Ack::new(0, 0, 9, u32::MAX - 1, vec![AckBlock { gap: 1, len: 1 }]),
        Err(SegmentError::RangesTooLong {
            field: "range length",
            offset: 24
        })
    );
}

#[test]
fn ack_ranges_must_descend_with_gaps() {
    let make = |ranges: &[RangeInclusive<u64>]| Ack::from_ranges(0, 0, ranges.iter().cloned());
    assert!(make(&[5..=9, 1..=3]).is_some());
    assert_eq!(make(&[]), None);
    assert_eq!(make(&[5..=9, 1..=4]), None, "touching");
    assert_eq!(make(&[5..=9, 7..=8]), None, "overlapping");
    assert_eq!(make(&[1..=3, 5..=9]), None, "ascending");
    #[allow(clippy::reversed_empty_ranges)]
    let empty = 9..=5;
    assert_eq!(make(&[empty]), None, "empty");
    let many: Vec<_> = (0..100_u64).rev().map(|at| at * 2..=at * 2).collect();
    let ack = make(&many).unwrap();
    assert_eq!(ack.ranges(198).collect::<Vec<_>>(), many[..64]);
}

#[test]
fn ack_leaves_out_ranges_too_far_below() {
    let largest = 1_u64 << 33;
    let ack = Ack::from_ranges(0, 0, [largest..=largest, 5..=6]).unwrap();
    assert_eq!(ack.ranges(largest).collect::<Vec<_>>(), [largest..=largest]);
}

#[test]
fn ack_numbers_expand_to_the_nearest() {
    let ack = |largest| Ack::new(0, 0, largest, 1, vec![]).unwrap();
    let first = |largest: u32, near: u64| *ack(largest).ranges(near).next().unwrap().end();
    assert_eq!(first(5, 0), 5);
    assert_eq!(first(u32::MAX, 0x1_0000_0002), 0xffff_ffff);
    assert_eq!(first(3, 0xffff_fff0), 0x1_0000_0003);
    assert_eq!(first(0xffff_fff0, 7), 0xffff_fff0, "nothing lies below 0");
    assert_eq!(first(7, u64::MAX), 0xffff_ffff_0000_0007);
    assert_eq!(first(u32::MAX, u64::MAX), u64::MAX);
}

#[test]
fn ack_ranges_stop_at_zero() {
    let ack = Ack::new(0, 0, 2, 10, vec![AckBlock { gap: 1, len: 1 }]).unwrap();
    assert_eq!(ack.ranges(2).collect::<Vec<_>>(), [0..=2]);
}

#[test]
fn golden_nak() {
    let holes = vec![
        Hole {
            first: Seq(0xfffe),
            count: NonZeroU16::new(4).unwrap(),
        },
        Hole {
            first: Seq(9),
            count: NonZeroU16::MIN,
        },
    ];
    let nak = Nak::new(holes.clone()).unwrap();
    assert_eq!(emitted!(nak), b"\x01\x02\xff\xfe\x00\x04\x00\x09\x00\x01");
    assert_eq!(
        Nak::parse(b"\x01\x02\xff\xfe\x00\x04\x00\x09\x00\x01")
            .unwrap()
            .holes(),
        holes
    );
}

#[test]
fn nak_rejects_each_malformed_field() {
    let table: [(&[u8], SegmentError); 6] = [
        (b"\x02\x01\0\x01\0\x01", out_of_range("format", 0, 2, 1, 1)),
        (b"\x01\x00", out_of_range("hole count", 1, 0, 1, 64)),
        (b"\x01\x41", out_of_range("hole count", 1, 65, 1, 64)),
        (
            b"\x01\x01\0\x01\0\0",
            out_of_range("missing count", 4, 0, 1, 65_535),
        ),
        (
            b"\x01\x01\0\x01\0",
            SegmentError::Truncated {
                field: "missing count",
                offset: 4,
                found: 5,
            },
        ),
        (
            b"\x01\x01\0\x01\0\x01x",
            SegmentError::Trailing {
                offset: 6,
                found: 1,
            },
        ),
    ];
    for (octets, error) in table {
        assert_eq!(Nak::parse(octets), Err(error));
    }
    assert_eq!(
        Nak::new(vec![]),
        Err(out_of_range("hole count", 1, 0, 1, 64))
    );
    let hole = Hole {
        first: Seq(0),
        count: NonZeroU16::MIN,
    };
    assert!(Nak::new(vec![hole; 64]).is_ok());
    assert!(Nak::new(vec![hole; 65]).is_err());
}

#[test]
fn golden_fin() {
    let table: [(&[u8], FinKind, u16, &str); 3] = [
        (b"\x01\x00\x00\x00", FinKind::CloseSession, 0, ""),
        (b"\x01\x01\x01\x02gone", FinKind::ResetFlow, 0x102, "gone"),
        (b"\x01\x02\xff\xff\xc3\xa9", FinKind::StopFlow, 0xffff, "é"),
    ];
    for (octets, kind, code, reason) in table {
        let fin = Fin::new(kind, code, reason);
        assert_eq!(emitted!(fin), octets);
        assert_eq!(Fin::parse(octets), Ok(fin));
    }
}

#[test]
fn fin_rejects_each_malformed_field() {
    assert_eq!(
        Fin::parse(b"\x01\x03\0\0"),
        Err(out_of_range("kind", 1, 3, 0, 2))
    );
    assert_eq!(
        Fin::parse(b"\x01\x00\0"),
        Err(SegmentError::Truncated {
            field: "code",
            offset: 2,
            found: 3
        })
    );
    assert_eq!(
        Fin::parse(b"\x01\x00\0\0ab\xff"),
        Err(SegmentError::BadUtf8 {
            field: "reason",
            offset: 6
        })
    );
    let mut long = b"\x01\x00\0\0".to_vec();
    long.extend_from_slice(&[b'x'; 256]);
    assert_eq!(Fin::parse(&long).unwrap().reason().len(), 256);
    long.push(b'x');
    assert_eq!(
        Fin::parse(&long),
        Err(out_of_range("reason length", 4, 257, 0, 256))
    );
}

#[test]
fn long_reason_is_cut_at_a_character() {
    let reason = "é".repeat(200);
    assert_eq!(
        Fin::new(FinKind::CloseSession, 0, &reason).reason(),
        "é".repeat(128)
    );
    let shifted = String::from("x") + &reason;
    assert_eq!(
        Fin::new(FinKind::CloseSession, 0, &shifted).reason().len(),
        255
    );
}

fn blocks() -> impl Strategy<Value = Vec<AckBlock>> {
    let block = (1_u32..1 << 25, 1_u32..1 << 25).prop_map(|(gap, len)| AckBlock { gap, len });
    prop::collection::vec(block, 0..=63)
}

proptest! {
    #[test]
    fn syn_survives(
        max_payload: u16,
        session in 1_u32..,
        echo: Option<u32>,
        windows: (u32, u32, u32),
        features: u8,
    ) {
        let kind = echo
            .and_then(NonZeroU32::new)
            .map_or(SynKind::Offer, |echo| SynKind::Accept { echo });
        let syn = Syn {
            kind,
            max_payload,
            session: NonZeroU32::new(session).unwrap(),
            session_window: windows.0,
            flow_window: windows.1,
            idle_timeout_ms: windows.2,
            features,
        };
        prop_assert_eq!(Syn::parse(&emitted!(syn)), Ok(syn));
    }

    #[test]
    fn ack_survives(delay: u32, window: u32, largest: u32, first in 1_u32..1 << 25, blocks in blocks()) {
        if let Ok(ack) = Ack::new(delay, window, largest, first, blocks) {
            prop_assert_eq!(Ack::parse(&emitted!(ack)), Ok(ack));
        }
    }

    #[test]
    fn ack_ranges_survive(largest in 1_u64 << 33.., near in -(1_i64 << 31) + 1..1 << 31, blocks in blocks()) {
        let mut ranges = vec![largest - 9..=largest];
        for block in blocks {
            let low = *ranges.last().unwrap().start();
            let Some(end) = low.checked_sub(u64::from(block.gap) + 1) else { break };
            let start = end.saturating_sub(u64::from(block.len) - 1);
            if largest - start >= u64::from(u32::MAX) {
                break;
            }
            ranges.push(start..=end);
        }
        let near = largest.saturating_add_signed(near);
        let ack = Ack::from_ranges(0, 0, ranges.iter().cloned()).unwrap();
        prop_assert_eq!(ack.ranges(near).collect::<Vec<_>>(), ranges);
        prop_assert_eq!(Ack::parse(&emitted!(ack)), Ok(ack));
    }

    #[test]
    fn nak_survives(holes in prop::collection::vec((any::<u16>(), 1_u16..), 1..=64)) {
        let holes = holes
            .into_iter()
            .map(|(first, count)| Hole { first: Seq(first), count: NonZeroU16::new(count).unwrap() })
            .collect();
        let nak = Nak::new(holes).unwrap();
        prop_assert_eq!(Nak::parse(&emitted!(nak)), Ok(nak));
    }

    #[test]
    fn fin_survives(
        kind in prop::sample::select(&[FinKind::CloseSession, FinKind::ResetFlow, FinKind::StopFlow][..]),
        code: u16,
        reason: String,
    ) {
        let fin = Fin::new(kind, code, &reason);
        prop_assert!(reason.starts_with(fin.reason()));
        prop_assert_eq!(Fin::parse(&emitted!(fin)), Ok(fin));
    }

    #[test]
    fn accepted_octets_are_canonical(
        format in prop_oneof![4 => Just(1_u8), 1 => any::<u8>()],
        kind in 0_u8..5,
        rest in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..80),
    ) {
        let mut octets = vec![format, kind];
        octets.extend(rest);
        if let Ok(syn) = Syn::parse(&octets) {
            let features = usize::from(octets.get(SYN_LEN).is_some_and(|octet| *octet != 0));
            prop_assert_eq!(emitted!(syn), &octets[..SYN_LEN + features]);
        }
        prop_assert_eq!(Ack::parse(&octets).is_ok(), AckView::parse(&octets).is_ok());
        if let Ok(ack) = Ack::parse(&octets) {
            let view = AckView::parse(&octets).unwrap();
            prop_assert!(view.ranges(1 << 40).eq(ack.ranges(1 << 40)));
            prop_assert!(ack.ranges(u64::MAX).count() <= MAX_RANGES);
            prop_assert_eq!(emitted!(ack), &octets[..]);
        }
        if let Ok(nak) = Nak::parse(&octets) {
            prop_assert_eq!(emitted!(nak), &octets[..]);
        }
        if let Ok(fin) = Fin::parse(&octets) {
            prop_assert_eq!(emitted!(fin), &octets[..]);
        }
    }

    #[test]
    fn octets_of_any_kind_never_panic(
        octets in prop::collection::vec(any::<u8>(), 0..600),
        near: u64,
    ) {
        let _ = Syn::parse(&octets);
        let _ = Nak::parse(&octets);
        let _ = Fin::parse(&octets);
        if let Ok(ack) = Ack::parse(&octets) {
            let _ = ack.ranges(near).count();
        }
    }
}
