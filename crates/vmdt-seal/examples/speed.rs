//! What the cryptography costs on this machine: `cargo run --release --example speed`, and the same
//! with `--features ring`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use vmdt_seal::e2e::{self, TransferContext};
use vmdt_seal::identity::SecretIdentity;
use vmdt_seal::packet::{Backend, HEADER_LEN, PacketKeys};
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::session::{
    Answered, Established, Initiator, Local, OfferView, Responder, Step, Suites,
};

const PAYLOAD: usize = 1_200;

/// Seconds that one call takes: the best of many short batches, so that what else the machine does
/// counts little.
fn time(about: Duration, mut call: impl FnMut()) -> f64 {
    let began = Instant::now();
    let mut best = f64::INFINITY;
    while began.elapsed() < about {
        let batch = Instant::now();
        for _ in 0..8 {
            call();
        }
        best = best.min(batch.elapsed().as_secs_f64() / 8.0);
    }
    best
}

fn handshake(
    alice: &Local,
    bob: &Local,
    known: bool,
    suites: Suites,
    rng: &mut ChaCha20Rng,
) -> (Established, Established) {
    let known = known.then(|| bob.credential());
    let mut initiator = Initiator::new(alice, bob.node_id(), known, suites, b"", rng).unwrap();
    let offer = OfferView::parse(initiator.offer()).unwrap();
    let responder = Responder::read(bob, alice.node_id(), &offer, rng).unwrap();
    let (answer, answered) = responder.answer(suites, b"").unwrap();
    let Step::Established(at_alice) = initiator.read(&answer, rng).unwrap() else {
        unreachable!("the answer is right");
    };
    let at_bob = match answered {
        Answered::Established(established) => *established,
        Answered::Waiting(mut waiting) => waiting.read(at_alice.confirm.as_ref().unwrap()).unwrap(),
    };
    (*at_alice, at_bob)
}

fn packets(name: &str, mut sender: PacketKeys, mut receiver: PacketKeys) {
    let now = Instant::now();
    let about = Duration::from_millis(400);
    let mut header = [0; HEADER_LEN];
    let mut payload = [7; PAYLOAD];
    let mut number = 0;
    let seal = time(about, || {
        number += 1;
        let tag = sender.seal_in_place(now, &mut header, number, &mut payload);
        black_box(tag.unwrap());
        sender.on_acked(number);
    });
    let mut header = [0; HEADER_LEN];
    let tag = sender
        .seal_in_place(now, &mut header, number + 1, &mut payload)
        .unwrap();
    // Opening the same packet again costs what opening the next one does; the copy is subtracted.
    let mut copy = payload;
    let copying = time(about / 4, || {
        copy.copy_from_slice(black_box(&payload));
        black_box(&mut copy);
    });
    let open = time(about, || {
        copy.copy_from_slice(black_box(&payload));
        receiver
            .open_in_place(now, &header, number + 1, &mut copy, &tag)
            .unwrap();
    });
    let rate = |seconds: f64| PAYLOAD as f64 / seconds / 1e9;
    println!(
        "{name}: seal {:.2} GB/s, open {:.2} GB/s",
        rate(seal),
        rate(open - copying)
    );
}

fn main() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let alice = Local::new(SecretIdentity::generate(&mut rng), 1);
    let bob = Local::new(SecretIdentity::generate(&mut rng), 1);

    println!("packets of {PAYLOAD} octets with {HEADER_LEN} of header");
    let backends = [
        ("portable", Backend::Portable),
        #[cfg(feature = "ring")]
        ("ring", Backend::Ring),
    ];
    for (suites, suite) in [
        (Suites::AES, "AES-256-GCM"),
        (Suites::CHACHA, "ChaCha20-Poly1305"),
    ] {
        for (name, backend) in backends {
            let (one, two) = handshake(&alice, &bob, true, suites, &mut rng);
            let now = Instant::now();
            packets(
                &format!("  {suite}, {name}"),
                one.keys.into_packet_keys_with(backend, now),
                two.keys.into_packet_keys_with(backend, now),
            );
        }
    }

    println!("handshakes per second and core, both sides together");
    let about = Duration::from_millis(700);
    for (name, known) in [("XX", false), ("IK", true)] {
        let seconds = time(about, || {
            black_box(handshake(&alice, &bob, known, Suites::ALL, &mut rng));
        });
        println!("  {name}: {:.0}", 1.0 / seconds);
    }

    let message = [7; 200];
    let identity = alice.identity();
    let signature = identity.sign_octets("speed", &message);
    let public = identity.public();
    let sign = time(about, || {
        black_box(identity.sign_octets("speed", black_box(&message)));
    });
    let verify = time(about, || {
        assert!(public.verify_octets("speed", black_box(&message), &signature));
    });
    println!("sign {:.0} us, verify {:.0} us", sign * 1e6, verify * 1e6);

    let store = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
    let prekey = store.current();
    let context = TransferContext {
        sender: public,
        receiver: bob.identity().public(),
        transfer: [1; 16],
        prekey_id: prekey.public().id,
    };
    let (encapsulated, _) = e2e::encapsulate(&prekey.public(), &context, &mut rng).unwrap();
    let encapsulate = time(about, || {
        black_box(e2e::encapsulate(&prekey.public(), &context, &mut rng).unwrap());
    });
    let decapsulate = time(about, || {
        black_box(e2e::decapsulate(prekey, &context, &encapsulated).unwrap());
    });
    println!(
        "encapsulate {:.0} us, decapsulate {:.0} us",
        encapsulate * 1e6,
        decapsulate * 1e6
    );
}
