//! Targets for shares.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_ssms::{HEAD_LEN, ReconstructError, Share, Threshold, reconstruct, split_slice};

/// One share: what [`Share::parse`] accepts keeps all its rules and comes out again as it went in,
/// without the octets behind its body.
pub fn share_parse(data: &[u8]) {
    let octets = Bytes::copy_from_slice(data);
    let share = match Share::parse(octets) {
        Ok(share) => share,
        Err(error) => {
            assert!(error.field().offset() <= data.len(), "{error}");
            return;
        }
    };
    assert!(share.k() >= 2);
    assert_eq!(share.body().len(), share.size() as usize);
    assert_eq!(share.len(), HEAD_LEN + share.body().len());
    let emitted = share.to_bytes();
    assert_eq!(emitted, data[..share.len()]);
    let again = Share::parse(emitted).expect("what was emitted is accepted");
    assert_eq!(again.head(), share.head());
    assert_eq!(again.body(), share.body());
    let parts = Share::from_parts(*share.head(), share.body().clone());
    let parts = parts.expect("the parts of a share are a share");
    assert_eq!(parts.to_bytes(), share.to_bytes());
    // Its own threshold alone is 2 or more.
    assert!(reconstruct(&[share]).is_err());
}

/// A set of shares, in one of two ways that the first octet chooses.
///
/// - Shares straight from the input: [`reconstruct`] never panics, and what it accepts is k or
///   more shares that agree in everything they have in common.
/// - Some shares of a message, of which the input alters some: with k untouched ones in the set
///   the message comes out, or an error; never anything else. Without alterations the outcome is
///   exactly what the number of shares says.
pub fn share_set(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let mut input = Unstructured::new(rest);
    // Running out of input ends a case early; there is nothing to check about it.
    let _ = match choice % 2 {
        0 => any_set(&mut input),
        _ => altered_set(&mut input),
    };
}

fn any_set(input: &mut Unstructured<'_>) -> Result<()> {
    let mut shares = Vec::new();
    for _ in 0..input.int_in_range(1..=12)? {
        if input.is_empty() {
            break;
        }
        let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
        if let Ok(share) = Share::parse(Bytes::copy_from_slice(input.bytes(len)?)) {
            shares.push(share);
        }
    }
    let Ok(message) = reconstruct(&shares) else {
        return Ok(());
    };
    let first = &shares[0];
    assert_eq!(message.len(), first.size() as usize);
    assert!(shares.len() >= usize::from(first.k()));
    for (at, share) in shares.iter().enumerate() {
        assert_eq!(share.k(), first.k());
        assert_eq!(share.size(), first.size());
        assert_eq!(share.nonce(), first.nonce());
        assert_eq!(share.body(), first.body());
        let same_index = |other: &Share| other.index() == share.index();
        assert!(!shares[..at].iter().any(same_index));
    }
    // The order of shares says nothing.
    shares.reverse();
    assert_eq!(reconstruct(&shares).as_ref(), Ok(&message));
    Ok(())
}

fn altered_set(input: &mut Unstructured<'_>) -> Result<()> {
    let k = input.int_in_range(2..=6)?;
    let n = input.int_in_range(k..=9)?;
    let seed = input.arbitrary()?;
    let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
    let message = input.bytes(len)?;
    let threshold = Threshold::new(k, n).expect("2 <= k <= n");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let genuine = split_slice(threshold, message, &mut rng).expect("a short message");

    let mut set = Vec::new();
    let (mut untouched, mut altered) = (0, 0);
    for _ in 0..input.int_in_range(0..=n)? {
        let share = &genuine[input.choose_index(genuine.len())?];
        if input.ratio(2, 3)? {
            // Each at most once, or the whole set is refused.
            if !set.iter().any(|other: &Share| other.head() == share.head()) {
                set.push(share.clone());
                untouched += 1;
            }
            continue;
        }
        let mut octets = share.to_bytes().to_vec();
        for _ in 0..input.int_in_range(1..=4)? {
            let at = input.choose_index(octets.len())?;
            octets[at] ^= input.arbitrary::<u8>()?;
        }
        let Ok(forged) = Share::parse(Bytes::from(octets)) else {
            continue;
        };
        altered += 1;
        let at = input.int_in_range(0..=set.len())?;
        set.insert(at, forged);
    }

    let outcome = reconstruct(&set);
    let enough = untouched >= usize::from(k);
    match outcome {
        // Nobody promises anything about fewer than k genuine shares and forged ones beside them.
        Ok(found) if enough => assert_eq!(found, message, "a wrong message came out silently"),
        Ok(_) => assert!(altered > 0, "{untouched} of {k} shares were enough"),
        Err(error) if altered == 0 => {
            assert!(!enough, "{error}");
            assert!(matches!(error, ReconstructError::TooFew { .. }), "{error}");
        }
        Err(_) => {}
    }
    Ok(())
}
