use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

fn pair_of(suite: Suite, backend: Backend, now: Instant) -> (PacketKeys, PacketKeys) {
    let new =
        |send: u8, receive: u8| PacketKeys::new(suite, backend, &[send; 32], &[receive; 32], now);
    (new(1, 2), new(2, 1))
}

fn pair(now: Instant) -> (PacketKeys, PacketKeys) {
    pair_of(Suite::Aes256Gcm, Backend::default(), now)
}

fn sealed(keys: &mut PacketKeys, now: Instant, number: u64) -> Vec<u8> {
    let mut datagram = [&[7; HEADER_LEN][..], b"payload"].concat();
    keys.seal_datagram(now, number, &mut datagram).unwrap();
    datagram
}

fn opens(
    keys: &mut PacketKeys,
    now: Instant,
    number: u64,
    datagram: &[u8],
) -> Result<(), OpenError> {
    let mut copy = datagram.to_vec();
    let payload = keys.open_datagram(now, number, &mut copy)?;
    assert_eq!(payload, b"payload");
    Ok(())
}

#[test]
fn what_was_altered_does_not_open() {
    let now = base();
    for suite in SUITES {
        let (mut alice, mut bob) = pair_of(suite, Backend::default(), now);
        let datagram = sealed(&mut alice, now, 5);
        assert_eq!(datagram.len(), HEADER_LEN + 7 + TAG_LEN);
        for bit in 0..datagram.len() * 8 {
            let mut altered = datagram.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(opens(&mut bob, now, 5, &altered).is_err(), "bit {bit}");
        }
        for len in 0..datagram.len() {
            assert!(opens(&mut bob, now, 5, &datagram[..len]).is_err());
        }
        assert!(opens(&mut bob, now, 4, &datagram).is_err());
        assert!(opens(&mut bob, now, 5 + (1 << 32), &datagram).is_err());
        assert!(opens(&mut alice, now, 5, &datagram).is_err(), "reflected");
        assert_eq!(opens(&mut bob, now, 5, &datagram), Ok(()));
        assert!(bob.failures() > 0);
    }
}

#[test]
fn numbers_must_ascend_and_stay_below_their_end() {
    let now = base();
    let (mut alice, _) = pair(now);
    let mut seal = |number| {
        let mut header = [0; HEADER_LEN];
        alice.seal_in_place(now, &mut header, number, &mut [])
    };
    assert!(seal(7).is_ok());
    for number in [0, 6, 7] {
        let refused = SealError::NumberNotFresh { number, last: 7 };
        assert_eq!(seal(number), Err(refused));
    }
    assert!(seal(8).is_ok());
    assert!(seal(MAX_NUMBER).is_ok());
    let number = MAX_NUMBER + 1;
    assert_eq!(seal(number), Err(SealError::NumberTooHigh { number }));
}

#[test]
fn a_key_and_nonce_never_repeat_over_a_million_retransmissions() {
    let now = base();
    let (mut alice, _) = pair_of(Suite::ChaCha20Poly1305, Backend::default(), now);
    // The same segment over and over: equal tags would mean an equal nonce under an equal key.
    let mut tags = HashSet::new();
    let mut phases = 0;
    let mut phase = false;
    for number in 0..1_000_000 {
        let mut header = [0; HEADER_LEN];
        let mut payload = *b"again";
        let tag = alice
            .seal_in_place(now, &mut header, number, &mut payload)
            .unwrap();
        assert!(tags.insert(tag), "packet {number}");
        // What a careless caller would do.
        assert!(
            alice
                .seal_in_place(now, &mut header, number, &mut payload)
                .is_err()
        );
        alice.on_acked(number);
        if number % 100_000 == 99_999 {
            assert!(alice.update_soon());
        }
        phases += u32::from(alice.phase() != phase);
        phase = alice.phase();
    }
    assert_eq!(phases, 9);
}

#[test]
fn both_directions_renew_their_keys_on_their_own() {
    let now = base();
    for suite in SUITES {
        let (mut alice, mut bob) = pair_of(suite, Backend::default(), now);
        for number in 0..100 {
            let datagram = sealed(&mut alice, now, number);
            let phase = datagram[FLAGS_OFFSET] & PHASE_FLAG != 0;
            assert_eq!(phase, number % 2 == 1, "every packet a new key");
            assert_eq!(opens(&mut bob, now, number, &datagram), Ok(()));
            alice.on_acked(number);
            assert!(alice.update_soon());
            let back = sealed(&mut bob, now, number);
            assert_eq!(back[FLAGS_OFFSET] & PHASE_FLAG, 0);
            assert_eq!(opens(&mut alice, now, number, &back), Ok(()));
        }
    }
}

#[test]
fn a_key_is_renewed_only_when_a_packet_of_it_is_confirmed() {
    let now = base();
    let (mut alice, _) = pair(now);
    assert!(!alice.update_soon());
    sealed(&mut alice, now, 3);
    alice.on_acked(4);
    assert!(
        !alice.update_soon(),
        "an acknowledgment of what was not sent"
    );
    alice.on_acked(3);
    assert!(alice.update_soon());
    sealed(&mut alice, now, 4);
    assert!(alice.phase());
    alice.on_acked(3);
    assert!(!alice.update_soon(), "of the key before");
    alice.on_acked(4);
    assert!(alice.update_soon());
}

#[test]
fn a_key_is_renewed_after_an_hour_and_after_its_packets() {
    let now = base();
    let (mut alice, _) = pair(now);
    sealed(&mut alice, now, 0);
    alice.on_acked(0);
    sealed(&mut alice, now + UPDATE_AFTER - Duration::from_millis(1), 1);
    assert!(!alice.phase());
    sealed(&mut alice, now + UPDATE_AFTER, 2);
    assert!(alice.phase());
    alice.on_acked(2);
    alice.sending.sealed = UPDATE_AFTER_PACKETS - 1;
    sealed(&mut alice, now + UPDATE_AFTER, 3);
    assert!(alice.phase());
    sealed(&mut alice, now + UPDATE_AFTER, 4);
    assert!(!alice.phase());
}

#[test]
fn a_key_is_never_used_beyond_its_limit() {
    let now = base();
    let (mut alice, _) = pair(now);
    sealed(&mut alice, now, 0);
    assert!(!alice.needs_ack());
    alice.sending.sealed = CONFIDENTIALITY_LIMIT - 1;
    assert!(alice.needs_ack());
    sealed(&mut alice, now, 1);
    let mut header = [0; HEADER_LEN];
    assert_eq!(
        alice.seal_in_place(now, &mut header, 2, &mut []),
        Err(SealError::KeyExhausted)
    );
    alice.on_acked(1);
    sealed(&mut alice, now, 2);
    assert!(!alice.needs_ack());
}

#[test]
fn a_session_ends_when_forging_has_become_thinkable() {
    let now = base();
    for suite in SUITES {
        let (mut alice, mut bob) = pair_of(suite, Backend::default(), now);
        let datagram = sealed(&mut alice, now, 0);
        bob.receiving.failures = suite.integrity_limit() - 1;
        assert_eq!(
            opens(&mut bob, now, 1, &datagram),
            Err(OpenError::NotAuthentic)
        );
        assert_eq!(
            opens(&mut bob, now, 0, &datagram),
            Err(OpenError::IntegrityLimit)
        );
    }
}

#[test]
fn late_packets_of_the_old_key_open_for_ten_seconds() {
    let now = base();
    let (mut alice, mut bob) = pair(now);
    let late = sealed(&mut alice, now, 0);
    let first = sealed(&mut alice, now, 1);
    alice.on_acked(1);
    alice.update_soon();
    let new_late = sealed(&mut alice, now, 2);
    let new = sealed(&mut alice, now, 3);
    assert_eq!(opens(&mut bob, now, 1, &first), Ok(()));
    assert_eq!(opens(&mut bob, now, 3, &new), Ok(()));
    assert_eq!(opens(&mut bob, now, 2, &new_late), Ok(()));
    let soon = now + OLD_PHASE_KEPT - Duration::from_millis(1);
    assert_eq!(opens(&mut bob, soon, 0, &late), Ok(()));
    let then = now + OLD_PHASE_KEPT;
    assert_eq!(
        opens(&mut bob, then, 0, &late),
        Err(OpenError::UnknownPhase)
    );
}

#[test]
fn a_forged_phase_changes_nothing() {
    let now = base();
    let (mut alice, mut bob) = pair(now);
    let real = sealed(&mut alice, now, 1_000);
    let mut forged = real.clone();
    forged[FLAGS_OFFSET] ^= PHASE_FLAG;
    for number in [0, 1_000, 2_000, MAX_NUMBER] {
        assert!(opens(&mut bob, now, number, &forged).is_err());
    }
    assert_eq!(opens(&mut bob, now, 1_000, &real), Ok(()));
    assert!(!bob.receiving.phase);
    let next = sealed(&mut alice, now, 1_001);
    assert_eq!(opens(&mut bob, now, 1_001, &next), Ok(()));
}

#[test]
fn sealing_does_not_allocate_when_there_is_room() {
    let now = base();
    let (mut alice, _) = pair(now);
    let mut datagram = Vec::with_capacity(HEADER_LEN + 100 + TAG_LEN);
    datagram.resize(HEADER_LEN + 100, 0);
    let place = datagram.as_ptr();
    alice.seal_datagram(now, 0, &mut datagram).unwrap();
    assert_eq!(datagram.as_ptr(), place);
}

#[cfg(feature = "ring")]
#[test]
fn all_backends_give_the_same_octets() {
    let now = base();
    for suite in SUITES {
        let (mut one, _) = pair_of(suite, Backend::Portable, now);
        let (mut two, mut other) = pair_of(suite, Backend::Ring, now);
        for number in 0..50 {
            let len = usize::try_from(number).unwrap() * 30;
            let mut portable = vec![3; HEADER_LEN + len];
            let mut ring = portable.clone();
            one.seal_datagram(now, number, &mut portable).unwrap();
            two.seal_datagram(now, number, &mut ring).unwrap();
            assert_eq!(portable, ring);
            assert!(other.open_datagram(now, number, &mut ring).is_ok());
            for keys in [&mut one, &mut two] {
                keys.on_acked(number);
                keys.update_soon();
            }
        }
    }
}

proptest! {
    #[test]
    fn the_number_nearest_to_the_expected_one_is_found(expected in 0..1_u64 << 50, off in -(1_i64 << 31) + 1..=(1_i64 << 31)) {
        let number = expected.saturating_add_signed(off);
        let largest = expected.checked_sub(1);
        let low = (number & 0xffff_ffff) as u32;
        prop_assert_eq!(expand_number(low, largest), number);
    }

    #[test]
    fn any_order_of_packets_over_two_phases_opens(
        order in Just((0..40_u64).collect::<Vec<_>>()).prop_shuffle(),
        turn in 1..39_u64,
    ) {
        let now = base();
        let (mut alice, mut bob) = pair(now);
        let mut packets = Vec::new();
        for number in 0..40 {
            if number == turn {
                alice.on_acked(0);
                alice.update_soon();
            }
            packets.push(sealed(&mut alice, now, number));
        }
        // At least one packet of the first key comes first.
        prop_assert!(opens(&mut bob, now, 0, &packets[0]).is_ok());
        for number in order {
            let at = usize::try_from(number).unwrap();
            prop_assert_eq!(opens(&mut bob, now, number, &packets[at]), Ok(()));
        }
    }
}
