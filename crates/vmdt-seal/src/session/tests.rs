//! What only a liar inside the handshake can send, and the primitives under snow against the
//! vectors of cacophony (Haskell) for both patterns.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{
    Answered, HandshakeError, Initiator, Local, OfferView, Pattern, Prologue, Responder, Role,
    Suites, initiator, message,
};
use crate::error::VerifyError;
use crate::identity::SecretIdentity;
use crate::noise::Primitives;
use crate::packet::Suite;

fn local(seed: u8) -> Local {
    Local::new(SecretIdentity::from_seed(&[seed; 32]), 1)
}

#[test]
fn a_credential_without_its_key_is_refused() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (alice, bob, mallory) = (local(1), local(2), local(3));
    // Bob's credential is public; Mallory shows it, with a session key of her own.
    let stolen = (mallory.identity().clone(), *bob.credential());
    let stolen = Local(Arc::new(stolen));
    let wrong = HandshakeError::Credential(VerifyError::Signature {
        signer: "the identity",
    });

    let mut initiator =
        Initiator::new(&alice, bob.node_id(), None, Suites::ALL, b"", &mut rng).unwrap();
    let offer = OfferView::parse(initiator.offer()).unwrap();
    let responder = Responder::read(&stolen, alice.node_id(), &offer, &mut rng).unwrap();
    let (answer, _) = responder.answer(Suites::ALL, b"").unwrap();
    assert_eq!(initiator.read(&answer, &mut rng).unwrap_err(), wrong);

    for known in [None, Some(alice.credential())] {
        let mut forged =
            Initiator::new(&stolen, alice.node_id(), known, Suites::ALL, b"", &mut rng).unwrap();
        let offer = forged.offer().to_vec();
        let offer = OfferView::parse(&offer).unwrap();
        let read = Responder::read(&alice, bob.node_id(), &offer, &mut rng);
        let refused = match read.and_then(|responder| responder.answer(Suites::ALL, b"")) {
            Err(error) => error,
            Ok((answer, Answered::Waiting(mut waiting))) => {
                let super::Step::Established(done) = forged.read(&answer, &mut rng).unwrap() else {
                    panic!("Alice's answer is right");
                };
                waiting.read(&done.confirm.unwrap()).unwrap_err()
            }
            Ok((_, Answered::Established(_))) => panic!("IK believed a stolen credential"),
        };
        assert_eq!(refused, wrong);
    }
}

#[test]
fn an_identity_of_ones_own_under_another_id_is_refused() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (alice, bob, mallory) = (local(1), local(2), local(3));
    let mut initiator =
        Initiator::new(&alice, bob.node_id(), None, Suites::ALL, b"", &mut rng).unwrap();
    let offer = OfferView::parse(initiator.offer()).unwrap();
    // Mallory answers in Bob's name, with a credential that is right and her own.
    let prologue = Prologue {
        pattern: Pattern::Xx,
        suites: Suites::ALL,
        initiator: alice.node_id(),
        responder: bob.node_id(),
    };
    let ephemeral = Zeroizing::new([7; 32]);
    let mut state = prologue
        .state(&mallory, Role::Responder, &ephemeral)
        .unwrap();
    initiator::read(&mut state, offer.noise()).unwrap();
    let payload = message::Payload {
        credential: Some(mallory.credential()),
        suite: Some(Suite::Aes256Gcm),
        params: b"",
    };
    let noise = initiator::write(&mut state, &payload.encode(0).unwrap()).unwrap();
    let answer = [&[3], noise.as_slice()].concat();
    assert_eq!(
        initiator.read(&answer, &mut rng).unwrap_err(),
        HandshakeError::Credential(VerifyError::OtherNode {
            found: mallory.node_id(),
            expected: bob.node_id(),
        })
    );
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    HEXLOWER
        .decode(text.as_bytes())
        .unwrap()
        .try_into()
        .unwrap()
}

fn builder(name: &str, secret: &str, ephemeral: &str) -> snow::Builder<'static> {
    let secret = StaticSecret::from(hex(secret));
    let primitives = Primitives {
        public: PublicKey::from(&secret).to_bytes(),
        secret,
        ephemeral: Zeroizing::new(hex(ephemeral)),
    };
    snow::Builder::with_resolver(name.parse().unwrap(), Box::new(primitives))
        .prologue(b"John Galt")
        .unwrap()
}

const INITIATOR: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
const INITIATOR_EPHEMERAL: &str =
    "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
const RESPONDER: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
const RESPONDER_PUBLIC: &str = "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62";
const RESPONDER_EPHEMERAL: &str =
    "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
const PAYLOADS: [&[u8]; 3] = [b"Ludwig von Mises", b"Murray Rothbard", b"F. A. Hayek"];

/// Runs a handshake, compares each message and the hash, and returns the raw keys.
fn run(name: &str, messages: &[&str], hash: &str) -> ([u8; 32], [u8; 32]) {
    let public: [u8; 32] = hex(RESPONDER_PUBLIC);
    let (secret, other): ([u8; 32], [u8; 32]) = (hex(INITIATOR), hex(RESPONDER));
    let initiator = builder(name, INITIATOR, INITIATOR_EPHEMERAL)
        .local_private_key(&secret)
        .unwrap();
    let initiator = if name.contains("_IK_") {
        initiator.remote_public_key(&public).unwrap()
    } else {
        initiator
    };
    let responder = builder(name, RESPONDER, RESPONDER_EPHEMERAL)
        .local_private_key(&other)
        .unwrap();
    let mut sides = [
        initiator.build_initiator().unwrap(),
        responder.build_responder().unwrap(),
    ];
    for (at, (expected, payload)) in messages.iter().zip(PAYLOADS).enumerate() {
        let mut octets = [0; 512];
        let len = sides[at % 2].write_message(payload, &mut octets).unwrap();
        assert_eq!(HEXLOWER.encode(&octets[..len]), *expected, "{name} {at}");
        let mut read = [0; 512];
        let read_len = sides[(at + 1) % 2]
            .read_message(&octets[..len], &mut read)
            .unwrap();
        assert_eq!(&read[..read_len], payload);
    }
    for side in &sides {
        assert_eq!(HEXLOWER.encode(side.get_handshake_hash()), hash);
    }
    let [mut initiator, mut responder] = sides;
    let split = initiator.dangerously_get_raw_split();
    assert_eq!(split, responder.dangerously_get_raw_split());
    split
}

/// A first transport message under a raw key.
fn transport(key: [u8; 32], payload: &[u8]) -> String {
    use chacha20poly1305::aead::Aead;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
    let sealed = ChaCha20Poly1305::new(&key.into())
        .encrypt(&[0; 12].into(), payload)
        .unwrap();
    HEXLOWER.encode(&sealed)
}

#[test]
fn xx_is_as_in_the_published_vectors() {
    let (_, from_responder) = run(
        "Noise_XX_25519_ChaChaPoly_SHA256",
        &[
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79444c756477696720766f6e204d69736573",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884381cbad1f276e038c48378ffce2b65285e08d6b68aaa3629a5a8639392490e5b9bd5269c2f1e4f488ed8831161f19b7815528f8982ffe09be9b5c412f8a0db50f8814c7194e83f23dbd8d162c9326ad",
            "c7195ffacac1307ff99046f219750fc47693e23c3cb08b89c2af808b444850a80ae475b9df0f169ae80a89be0865b57f58c9fea0d4ec82a286427402f113e4b6ae769a1d95941d49b25030",
        ],
        "c8e5f64e846193be2a834104c2a009868d6c9f3bd3c186299888b488b2f1f58e",
    );
    assert_eq!(
        transport(from_responder, b"Carl Menger"),
        "96763ed773f8e47bb3712f0e29b3060ffc956ffc146cee53d5e1df"
    );
}

#[test]
fn ik_is_as_in_the_published_vectors() {
    let (from_initiator, _) = run(
        "Noise_IK_25519_ChaChaPoly_SHA256",
        &[
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944718da798efbcd91528520204f904b9bd6c7413dccdc214d951e15253e39987f18146e8cd0873654207148333479d4d16c289f0294b29960a72f48e0b7bba2e89083169825e59642148d492020664ccf7",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088435361e70b2ed446e6c9ec387d1d6b3b840f194e373979d241b203c4acafccf5",
        ],
        "0b0f68fb0c27e03ce9b97565995ed4838cc0581b762ef72b062f6a546419fad7",
    );
    assert_eq!(
        transport(from_initiator, b"F. A. Hayek"),
        "050e9f3c8fac16b68dbce8f8c4bfbf6617c897f9ada4aa29aa19c8"
    );
}
