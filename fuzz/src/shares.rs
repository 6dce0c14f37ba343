//! Targets for shares.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use vmdt_ssms::v2::{
    self, Added, Collector, Envelope, Form, Manifest, OpenError, PartyId, Recipient, Sealed, Sealer,
};
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

/// A manifest of `v2`: what is accepted is written as it was read, and a collector for it takes
/// nothing of what the input holds.
pub fn manifest_parse(data: &[u8]) {
    let manifest = match Manifest::parse_unverified(data) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(manifest.encode(), data);
    assert_eq!(manifest.encoded_len(), data.len());
    let threshold = manifest.threshold();
    assert!(2 <= threshold.k() && threshold.k() <= threshold.n());
    assert!(manifest.body_len() <= manifest.size() as usize);
    let again = Manifest::parse_unverified(data).expect("as before");
    assert_eq!(again.digest(), manifest.digest());
    let mut collector = Collector::new(manifest);
    assert!(collector.add(Bytes::copy_from_slice(data)).is_err());
    assert!(matches!(collector.open(), Err(OpenError::TooFew { .. })));
}

/// A sealed message of `v2`, small and the same for the same arguments.
pub(crate) fn sealed(k: u8, n: u8, form: Form, seed: u64, message: &[u8]) -> Sealed {
    let threshold = Threshold::new(k, n).expect("2 <= k <= n");
    let party = |id: &[u8]| PartyId::new(id).expect("a short id");
    let envelope = Envelope::new([9; 16], party(b"alice"), Recipient::One(party(b"bob")));
    let sealer = Sealer::new(threshold, envelope).with_form(form);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    sealer.seal(message, &mut rng).expect("a short message")
}

/// Shares of `v2`, some of which the input alters: every altered one is refused, every genuine
/// one taken, and with k of these the message comes out.
pub fn manifest_shares(data: &[u8]) {
    // Running out of input ends a case early; there is nothing to check about it.
    let _ = collect(&mut Unstructured::new(data));
}

fn collect(input: &mut Unstructured<'_>) -> Result<()> {
    let k = input.int_in_range(2..=6)?;
    let n = input.int_in_range(k..=9)?;
    let form = if input.arbitrary()? {
        Form::Dispersed
    } else {
        Form::Replicated
    };
    let seed = input.arbitrary()?;
    let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
    let message = input.bytes(len)?;
    let Sealed { manifest, shares } = sealed(k, n, form, seed, message);
    let mut collector = Collector::new(manifest);
    let mut taken: Vec<u8> = Vec::new();
    for _ in 0..input.int_in_range(0..=2 * n)? {
        let share = &shares[input.choose_index(shares.len())?];
        let genuine = share.to_bytes();
        let mut octets = genuine.to_vec();
        if input.ratio(1, 2)? {
            for _ in 0..input.int_in_range(1..=4)? {
                let at = input.choose_index(octets.len())?;
                octets[at] ^= input.arbitrary::<u8>()?;
            }
            octets.truncate(input.int_in_range(v2::HEAD_LEN / 2..=octets.len())?);
        }
        let index = share.index();
        let is_genuine = octets == genuine;
        match collector.add_from(index, Bytes::from(octets)) {
            Ok(added) => {
                assert!(is_genuine, "an altered share was taken");
                let duplicate = taken.contains(&index.get());
                assert_eq!(added == Added::Duplicate, duplicate);
                if !duplicate {
                    taken.push(index.get());
                }
            }
            Err(error) => {
                assert!(!is_genuine, "{error}");
                assert_eq!(error.index(), Some(index), "the holder asked is blamed");
            }
        }
        assert_eq!(
            collector.missing(),
            usize::from(k).saturating_sub(taken.len())
        );
    }
    match collector.open() {
        Ok(found) => assert_eq!(found, message),
        Err(OpenError::TooFew { given, needed }) => {
            assert_eq!((given, needed), (taken.len(), k));
            assert!(given < usize::from(k));
        }
        Err(error) => panic!("genuine shares do not open: {error}"),
    }
    Ok(())
}
