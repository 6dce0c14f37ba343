//! The Internet checksum (RFC 1071) over a datagram's headers and payload.

use crate::header::{CHECKSUM_OFFSET, FLAGS_OFFSET, Flags, HEADER_LEN, PAYLOAD_LEN_OFFSET};

/// The Internet checksum of some octets: the complement of their one's complement sum as
/// big-endian 16-bit words; an odd last octet counts as the high half of a word.
///
/// Over octets that hold their own checksum at an even position the result is 0.
///
/// ```
/// // The example of RFC 1071 section 3.
/// let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
/// assert_eq!(vmdt_wire::checksum::internet(&octets), !0xddf2);
/// ```
#[must_use]
pub fn internet(octets: &[u8]) -> u16 {
    // Words of 32 bits may be summed and folded later, because 2^32 = 2^16 = 1 modulo 2^16 - 1.
    // A datagram has fewer than 2^32 of them, so the 64-bit sum cannot overflow.
    let (words, rest) = octets.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    for (place, &octet) in last.iter_mut().zip(rest) {
        *place = octet;
    }
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Writes the checksum of a whole datagram in place, when its flags ask for one.
///
/// It covers the headers and the payload, not a trailer. A datagram without
/// [`Flags::CHECKSUM`], or too short to hold a header, stays as it is.
pub fn fill(datagram: &mut [u8]) {
    if !is_flagged(datagram) {
        return;
    }
    if let Some(field) = datagram.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2) {
        field.fill(0);
    }
    let checksum = internet(covered(datagram)).to_be_bytes();
    if let Some(field) = datagram.get_mut(CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2) {
        field.copy_from_slice(&checksum);
    }
}

/// Whether the datagram's checksum is right, or its flags say that it carries none.
///
/// Octets too few for a header are not right.
#[must_use]
pub fn verify(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && (!is_flagged(datagram) || internet(covered(datagram)) == 0)
}

fn is_flagged(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN
        && datagram
            .get(FLAGS_OFFSET)
            .is_some_and(|&bits| Flags::from_bits(bits).contains(Flags::CHECKSUM))
}

/// The octets that the checksum covers: headers and as much of the payload as is present.
fn covered(datagram: &[u8]) -> &[u8] {
    let declared = datagram
        .get(PAYLOAD_LEN_OFFSET..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |field| usize::from(u16::from_be_bytes(*field)));
    datagram.get(..HEADER_LEN + declared).unwrap_or(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// RFC 1071 section 4.1, octet for octet.
    fn reference(octets: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in octets.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn of_nothing_is_all_ones() {
        assert_eq!(internet(&[]), 0xffff);
    }

    #[test]
    fn odd_octet_is_the_high_half() {
        assert_eq!(internet(&[0x12]), !0x1200);
        assert_eq!(internet(&[0x12, 0x34, 0x56]), !(0x1234 + 0x5600));
    }

    #[test]
    fn short_datagram_is_left_alone_and_not_right() {
        let mut short = [0xff; HEADER_LEN - 1];
        fill(&mut short);
        assert_eq!(short, [0xff; HEADER_LEN - 1]);
        assert!(!verify(&short));
    }

    proptest! {
        #[test]
        fn equals_the_reference(octets in prop::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(internet(&octets), reference(&octets));
        }

        #[test]
        fn a_filled_datagram_verifies_and_a_flipped_bit_does_not(
            mut datagram in prop::collection::vec(any::<u8>(), HEADER_LEN..400),
            trailer in 0_usize..20,
            bit: prop::sample::Index,
        ) {
            let payload = datagram.len() - HEADER_LEN;
            datagram[FLAGS_OFFSET] |= Flags::CHECKSUM.bits();
            datagram[PAYLOAD_LEN_OFFSET..PAYLOAD_LEN_OFFSET + 2]
                .copy_from_slice(&u16::try_from(payload).unwrap().to_be_bytes());
            datagram.extend((0..trailer).map(|_| 0xa5));
            fill(&mut datagram);
            prop_assert!(verify(&datagram));
            let untouched: Vec<u8> = datagram[HEADER_LEN + payload..].to_vec();
            prop_assert_eq!(untouched, alloc::vec![0xa5; trailer]);
            let flagged = [FLAGS_OFFSET, PAYLOAD_LEN_OFFSET, PAYLOAD_LEN_OFFSET + 1];
            let bit = bit.index((HEADER_LEN + payload) * 8);
            prop_assume!(!flagged.contains(&(bit / 8)));
            datagram[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify(&datagram));
        }
    }
}
