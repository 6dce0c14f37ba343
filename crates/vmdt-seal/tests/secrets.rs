//! No secret shows in `Debug`, in errors, or in what is sent in the open.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use core::fmt::Debug;

use common::{World, base};
use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER};
use vmdt_seal::code::{Code, Pake, Role};
use vmdt_seal::cookie::CookieJar;
use vmdt_seal::e2e::{self, TransferContext};
use vmdt_seal::session::{Answered, Initiator, Local, OfferView, Responder, Step, Suites};
use vmdt_seal::ticket::Ticket;

/// Every form in which a secret of at least 8 octets might be written out.
fn shows(text: &str, secret: &[u8]) -> bool {
    let lower = text.to_lowercase();
    let list = |octets: &[u8]| {
        let items: Vec<String> = octets.iter().map(u8::to_string).collect();
        items.join(", ")
    };
    let hex_list = |octets: &[u8]| {
        let items: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        items.join(", ")
    };
    // Eight octets in a row are enough to give a secret away.
    secret.windows(8).any(|part| {
        lower.contains(&HEXLOWER.encode(part))
            || lower.contains(&list(part))
            || lower.contains(&hex_list(part))
    }) || text.contains(&BASE64.encode(secret))
        || text.contains(&BASE64URL_NOPAD.encode(secret))
        || lower.contains(&BASE32_NOPAD.encode(secret).to_lowercase())
}

fn silent(value: &dyn Debug, secrets: &[&[u8]]) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        for secret in secrets {
            assert!(!shows(&text, secret), "a secret shows in {text}");
        }
    }
}

#[test]
fn the_detector_finds_what_it_should() {
    let secret: Vec<u8> = (7..39).collect();
    let array: [u8; 32] = secret.clone().try_into().unwrap();
    assert!(shows(&format!("{array:?}"), &secret));
    assert!(shows(&format!("{array:02x?}"), &secret));
    assert!(shows(&HEXLOWER.encode(&secret), &secret));
    assert!(shows(&BASE64.encode(&secret), &secret));
    assert!(!shows("nothing", &secret));
}

#[test]
fn debug_shows_no_secret() {
    let now = base();
    let mut world = World::new();
    let seed = world.alice.seed();
    let scalar = blake3::derive_key("vmdt 1.1 noise static", &*seed);
    silent(&world.alice, &[&*seed, &scalar]);
    silent(&world.secret, &[world.secret.seed()]);

    // Entries of the store: id 4, secret 32, and times.
    let encoded = world.prekeys.encode();
    let secret = encoded[39..71].to_vec();
    silent(&world.prekeys, &[&secret]);
    silent(world.prekeys.current(), &[&secret]);

    let prekey = world.prekeys.current().public();
    let context = TransferContext {
        sender: world.alice.public(),
        receiver: world.bob.public(),
        transfer: [5; 16],
        prekey_id: prekey.id,
    };
    let (_, transfer) = e2e::encapsulate(&prekey, &context, &mut world.rng).unwrap();
    let segment = transfer.segment(0);
    silent(&transfer, &[transfer.as_octets(), segment.as_octets()]);
    silent(&segment, &[transfer.as_octets(), segment.as_octets()]);

    let ticket = Ticket::new(
        vec!["192.0.2.1:7000".parse().unwrap()],
        world.carol.public(),
        world.invite.clone(),
        world.secret.clone(),
    )
    .unwrap();
    silent(&ticket, &[world.secret.seed()]);
    assert!(!format!("{ticket:?}").contains(&ticket.encode()[5..]));

    assert_eq!(
        format!("{:?}", CookieJar::new(now, &mut world.rng)),
        "CookieJar(..)"
    );
}

#[test]
fn a_code_and_its_exchange_show_only_the_number() {
    let mut world = World::new();
    let code: Code = "7-bison-caravan".parse().unwrap();
    let (opener, first) = Pake::start(Role::Opener, &code, &mut world.rng);
    let (joiner, second) = Pake::start(Role::Joiner, &code, &mut world.rng);
    let mut texts = vec![format!("{code:?} {opener:?}")];
    let (opener, first) = (opener.finish(&second).unwrap(), first);
    let joiner = joiner.finish(&first).unwrap();
    texts.push(format!("{:?}", opener.0));
    let channel = opener.0.confirm(&joiner.1).unwrap();
    texts.push(format!("{channel:?}"));
    let wrong = "7-bison-carvan".parse::<Code>().unwrap_err();
    texts.push(format!("{wrong} {wrong:?}"));
    for text in texts {
        assert!(
            !text.contains("bison") && !text.contains("carvan"),
            "{text}"
        );
        assert!(!text.contains("caravan"), "{text}");
    }
}

#[test]
fn handshakes_and_keys_show_who_and_not_what() {
    let now = base();
    let mut world = World::new();
    let alice = Local::new(world.alice.clone(), 1);
    let bob = Local::new(world.bob.clone(), 1);
    let seed = world.alice.seed();
    let mut initiator = Initiator::new(
        &alice,
        bob.node_id(),
        None,
        Suites::ALL,
        b"",
        &mut world.rng,
    )
    .unwrap();
    let offer = initiator.offer().to_vec();
    let view = OfferView::parse(&offer).unwrap();
    let responder = Responder::read(&bob, alice.node_id(), &view, &mut world.rng).unwrap();
    silent(&(&alice, &initiator, &responder), &[&*seed]);
    let (answer, answered) = responder.answer(Suites::ALL, b"").unwrap();
    let Answered::Waiting(waiting) = answered else {
        panic!("XX")
    };
    let Step::Established(done) = initiator.read(&answer, &mut world.rng).unwrap() else {
        panic!("right")
    };
    let text = format!("{waiting:?} {:?}", done.keys);
    let keys = done.keys.into_packet_keys(now);
    let text = format!("{text} {keys:?}");
    // Names, numbers and suites only: no run of digits as long as a key.
    let longest = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .map(str::len)
        .max();
    assert!(longest.unwrap() <= 24, "{text}");
    assert!(!text.contains('['), "{text}");
}
