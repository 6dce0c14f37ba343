//! Serialisation of public values.
#![cfg(feature = "serde")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{rng, threshold};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{Envelope, Manifest, PartyId, Recipient, Sealer};

#[test]
fn thresholds_are_pairs_and_are_checked() {
    assert_eq!(serde_json::to_string(&threshold(3, 5)).unwrap(), "[3,5]");
    assert_eq!(
        serde_json::from_str::<Threshold>("[3,5]").unwrap(),
        threshold(3, 5)
    );
    for wrong in ["[1,5]", "[6,5]", "[3]", "[3,256]"] {
        assert!(serde_json::from_str::<Threshold>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn manifests_and_ids_come_back_and_are_checked() {
    let id = PartyId::new(b"alice").unwrap();
    let octets = serde_json::to_string(&id).unwrap();
    assert_eq!(serde_json::from_str::<PartyId>(&octets).unwrap(), id);
    let long = serde_json::to_string(&vec![1u8; 65]).unwrap();
    assert!(serde_json::from_str::<PartyId>(&long).is_err());

    let sealer = Sealer::new(
        threshold(2, 3),
        Envelope::new([1; 16], id, Recipient::One(id)),
    );
    let manifest = sealer.seal(b"x", &mut rng(1)).unwrap().manifest;
    let octets = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&octets).unwrap(), manifest);
    assert!(serde_json::from_str::<Manifest>(&octets.replacen('2', "3", 1)).is_err());
}
