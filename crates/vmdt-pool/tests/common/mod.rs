//! A small world: alice sends to bob, others hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    missing_docs,
    unreachable_pub
)]

use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vmdt_pool::{
    Announcement, Collector, CollectorEvent, Digest, Placement, Pool, PoolConfig, PoolEvent,
};
use vmdt_wire::{MessageId, NodeId};

#[allow(clippy::disallowed_methods)]
pub fn base() -> Instant {
    Instant::now()
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub fn message(number: u8) -> MessageId {
    MessageId::from_random([number; 12])
}

pub fn index(number: u8) -> NonZeroU8 {
    NonZeroU8::new(number).unwrap()
}

/// The octets of one share.
pub fn share(message: u8, number: u8) -> Bytes {
    Bytes::from(vec![message, number, 0xaa, 0xbb])
}

/// A digest that tells the test's shares apart: their own octets, and their length.
pub fn digest(share: &[u8]) -> Digest {
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(share) {
        *to = *from;
    }
    digest[15] = u8::try_from(share.len()).unwrap_or(255);
    digest
}

/// Message `number` from alice to bob: share `i` at `holders[i - 1]`, the first `active` active.
pub fn announcement(number: u8, k: u8, active: usize, holders: &[&str]) -> Announcement {
    Announcement {
        message: message(number),
        sender: node("alice"),
        receiver: node("bob"),
        n: u8::try_from(holders.len()).unwrap(),
        k,
        shares: holders
            .iter()
            .enumerate()
            .map(|(at, holder)| {
                let own = u8::try_from(at + 1).unwrap();
                Placement {
                    index: index(own),
                    holder: node(holder),
                    digest: digest(&share(number, own)),
                    active: at < active,
                }
            })
            .collect(),
        label: "t1".to_owned(),
        ..Announcement::default()
    }
}

/// Carol's pool.
pub fn pool() -> Pool {
    Pool::new(PoolConfig::new(node("carol")))
}

pub fn offers(pool: &mut Pool) -> Vec<u8> {
    let mut indices = Vec::new();
    while let Some(event) = pool.poll_event() {
        match event {
            PoolEvent::Offer {
                index, receiver, ..
            } => {
                assert_eq!(receiver, node("bob"));
                indices.push(index.get());
            }
            other => panic!("{other:?}"),
        }
    }
    indices
}

pub fn pool_events(pool: &mut Pool) -> Vec<PoolEvent> {
    std::iter::from_fn(|| pool.poll_event()).collect()
}

/// Events in short: `Complete 1 2 3`, `Unfreeze 4 dave`, `BadShare 2 mallory`.
pub fn told(collector: &mut Collector) -> Vec<String> {
    std::iter::from_fn(|| collector.poll_event())
        .map(|event| match event {
            CollectorEvent::Complete { shares, .. } => {
                let indices: Vec<_> = shares.iter().map(|(i, _)| i.to_string()).collect();
                format!("Complete {}", indices.join(" "))
            }
            CollectorEvent::Unfreeze { index, holder, .. } => format!("Unfreeze {index} {holder}"),
            CollectorEvent::Claim { index, holder, .. } => format!("Claim {index} {holder}"),
            CollectorEvent::BadShare { index, from, .. } => format!("BadShare {index} {from}"),
            CollectorEvent::Revoked { .. } => "Revoked".to_owned(),
            CollectorEvent::Expired { .. } => "Expired".to_owned(),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Every order of `items`.
pub fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}
