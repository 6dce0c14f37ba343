//! Packet numbers: 32 bits on the wire, 64 inside.

/// Expands a truncated number to the 64-bit number nearest to `expected` (as RFC 9000 appendix
/// A.3 does): right while sender and receiver are less than 2^31 packets apart.
pub(crate) fn expand(truncated: u32, expected: u64) -> u64 {
    const HALF: u64 = 1 << 31;
    const SPAN: u64 = 1 << 32;
    let candidate = (expected & !(SPAN - 1)) | u64::from(truncated);
    if candidate + HALF <= expected {
        candidate.saturating_add(SPAN)
    } else if candidate > expected.saturating_add(HALF) && candidate >= SPAN {
        candidate - SPAN
    } else {
        candidate
    }
}

/// The number of the first packet that session `sender` sends to session `receiver`.
///
/// It depends on both ids, so that packets of an earlier session of the peer, which bear the same
/// receiver's id when that one was still being offered, have numbers that do not fit. One span of
/// room keeps the expansion of wrapped numbers positive. The mixing is that of splitmix64.
pub(crate) fn first_number(sender: u32, receiver: u32) -> u64 {
    let mut z = (u64::from(sender) << 32 | u64::from(receiver)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (1 << 32) + ((z ^ (z >> 31)) >> 32)
}

/// The low 32 bits, as they stand on the wire.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn truncate(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}

/// The same for a 16-bit segment sequence number: nearest to `expected`.
pub(crate) fn expand_seq(truncated: u16, expected: u64) -> Option<u64> {
    const HALF: u64 = 1 << 15;
    const SPAN: u64 = 1 << 16;
    let candidate = (expected & !(SPAN - 1)) | u64::from(truncated);
    if candidate + HALF <= expected {
        candidate.checked_add(SPAN)
    } else if candidate > expected.saturating_add(HALF) {
        // Before the first segment of the flow there is nothing.
        candidate.checked_sub(SPAN)
    } else {
        Some(candidate)
    }
}

/// The low 16 bits, as they stand on the wire.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn truncate_seq(number: u64) -> u16 {
    (number & u64::from(u16::MAX)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wraps_upwards_and_downwards() {
        assert_eq!(expand(3, 0xffff_fffe), 0x1_0000_0003);
        assert_eq!(expand(0xffff_fffe, 0x1_0000_0003), 0xffff_fffe);
        assert_eq!(expand_seq(2, 0xffff), Some(0x1_0002));
        assert_eq!(expand_seq(0xffff, 0x1_0002), Some(0xffff));
    }

    #[test]
    fn nothing_precedes_the_first_segment() {
        assert_eq!(expand_seq(0xffff, 0), None);
        assert_eq!(expand_seq(0x8000, 0), Some(0x8000));
    }

    proptest! {
        #[test]
        fn expand_inverts_truncate_within_half_the_span(
            expected in (1u64 << 33)..(1 << 60),
            delta in -0x7fff_ffffi64..0x7fff_ffff,
        ) {
            let number = expected.wrapping_add_signed(delta);
            prop_assert_eq!(expand(truncate(number), expected), number);
        }

        #[test]
        fn expand_seq_inverts_truncate_seq(
            expected in (1u64 << 17)..(1 << 60),
            delta in -0x7fffi64..0x7fff,
        ) {
            let number = expected.wrapping_add_signed(delta);
            prop_assert_eq!(expand_seq(truncate_seq(number), expected), Some(number));
        }
    }
}
