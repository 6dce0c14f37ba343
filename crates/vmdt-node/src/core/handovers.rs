//! Hand-overs, at a holder (`docs/protocol.md`, section 12.11): what is handed on is hashed as it goes
//! and held against what the sender signed; when it is there, the receiver gets this node's signed
//! word for it.
//!
//! An honest node can't sign a false one. What does not match is not handed on, and the word names
//! the whole manifest and the whole digest, of both of which announcements hold but a part.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU8;
use std::time::Instant;

use bytes::Bytes;
use vmdt_seal::handover::{Handover, Handovers as Signed, MAX_HANDOVERS};
use vmdt_seal::identity::SecretIdentity;
use vmdt_wire::{Message, MessageId, NodeId};

use super::Core;
use super::seal::{Details, share_digest};
use super::statements::Queue;

/// Shares held of which it is known what their sender signed; beyond it the oldest are read again
/// from their announcements when they are handed on.
const MAX_LISTED: usize = 8192;

/// A share of a message.
type Share = (MessageId, NonZeroU8);

/// What this node has brought to receivers, and will say so.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    queue: Queue<Handover>,
    /// What was signed about each share, and whether the octets that are held are those.
    listed: BTreeMap<Share, (Handover, bool)>,
    order: VecDeque<Share>,
}

impl Handovers {
    /// What the sender of a share that is placed here has signed about it.
    pub(crate) fn list(&mut self, share: Share, as_signed: Handover) {
        if self.listed.get(&share).map(|(known, _)| known) != Some(&as_signed) {
            self.insert(share, (as_signed, false));
        }
    }

    fn insert(&mut self, share: Share, known: (Handover, bool)) {
        if self.listed.insert(share, known).is_none() {
            self.order.push_back(share);
        }
        while self.order.len() > MAX_LISTED {
            if let Some(oldest) = self.order.pop_front() {
                self.listed.remove(&oldest);
            }
        }
    }

    /// Other octets may be held for a share than before.
    pub(crate) fn stored(&mut self, share: Share) {
        if let Some((_, checked)) = self.listed.get_mut(&share) {
            *checked = false;
        }
    }

    /// A share is at a receiver.
    pub(crate) fn brought(&mut self, now: Instant, to: NodeId, share: Share) {
        if let Some((handover, true)) = self.listed.get(&share).copied() {
            self.queue.note(now, to, handover);
        }
    }

    /// When something is to be signed, or forgotten.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.queue.poll_timeout()
    }

    /// Signs what is due; `all`: what is not, too.
    pub(crate) fn sign(
        &mut self,
        now: Instant,
        unix_ms: u64,
        identity: &SecretIdentity,
        all: bool,
        reaches: impl Fn(NodeId) -> bool,
    ) -> Vec<(NodeId, Bytes)> {
        let due = self.queue.take_due(now, all, MAX_HANDOVERS, reaches);
        let sign = |(to, entries): (NodeId, Vec<Handover>)| {
            // between one and as many as may be
            let signed = Signed::sign(identity, to, unix_ms, &entries).ok()?;
            Some((to, signed.octets().clone()))
        };
        due.into_iter().filter_map(sign).collect()
    }
}

impl Core {
    /// Notes what the sender of shares that are placed here has signed about them.
    pub(super) fn note_listed(&mut self, message: MessageId, details: &Details) {
        let Some(ann) = self.pool.announcement(message) else {
            return;
        };
        let manifest = details.manifest_digest();
        for index in ann.placed_at(self.config.id) {
            if let Some(handover) = details.handover(manifest, index) {
                self.handovers.list((message, index), handover);
            }
        }
    }

    /// Whether these octets of a share that is held are those that its sender signed, so that they
    /// may be handed on and be answered for. In profile 1.0 nobody signs.
    pub(super) fn answers_for(&mut self, share: Share, octets: &[u8]) -> bool {
        if self.seal.is_none() {
            return true;
        }
        let (message, index) = share;
        let known = self.handovers.listed.get(&share).copied();
        if let Some((_, true)) = known {
            // who asks often does not make this node compute often
            return true;
        }
        let listed = known.map(|(listed, _)| listed).or_else(|| {
            // it was placed here later, by a repair, or in an earlier run
            let ann = self.pool.announcement(message)?;
            let details = Details::parse(&ann.details).ok()?;
            details.handover(details.manifest_digest(), index)
        });
        let right = listed.filter(|listed| listed.digest == share_digest(octets).0);
        if let Some(right) = right {
            self.handovers.insert(share, (right, true));
        }
        right.is_some()
    }

    /// Signs and sends what is due, or all there is.
    pub(super) fn send_handovers(&mut self, now: Instant, all: bool) {
        let Some(seal) = &self.seal else { return };
        let peers = &self.peers;
        let reaches = |id| super::receipts::reaches(peers, id);
        let unix_ms = seal.unix_ms(now);
        let signed = self
            .handovers
            .sign(now, unix_ms, seal.identity(), all, reaches);
        for (receiver, octets) in signed {
            let receipts = octets.to_vec();
            self.send_line(now, receiver, Message::Receipts { receipts });
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use std::time::Duration;
    use vmdt_pool::{Announcement, Placement};
    use vmdt_seal::announcement::{self, SealedDetails};
    use vmdt_seal::e2e::{self, TransferContext};
    use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
    use vmdt_ssms::Threshold;
    use vmdt_ssms::v2::{self, Sealer};
    use vmdt_testkit::Clock;

    use super::super::{CoreConfig, Sealing};
    use super::*;

    fn share(number: u32) -> Share {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&number.to_be_bytes());
        (MessageId::from_random(octets), NonZeroU8::MIN)
    }

    fn handover(number: u32) -> Handover {
        let mut manifest = [0; 32];
        manifest[..4].copy_from_slice(&number.to_be_bytes());
        Handover {
            manifest,
            index: NonZeroU8::MIN,
            digest: [1; 32],
        }
    }

    #[test]
    fn what_is_brought_is_signed_for_each_receiver_in_batches() {
        let me = SecretIdentity::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        let now = Clock::new().now();
        let (bob, carol): (NodeId, NodeId) = ("bob".parse().unwrap(), "carol".parse().unwrap());
        let mut handovers = Handovers::default();
        for number in 0..100 {
            handovers.insert(share(number), (handover(number), true));
            handovers.brought(now, bob, share(number));
        }
        handovers.brought(now, carol, share(7));
        // what was not checked is not answered for
        handovers.stored(share(8));
        handovers.brought(now, carol, share(8));
        // of what is not known nothing is said
        handovers.brought(now, carol, share(1000));
        assert!(handovers.sign(now, 5, &me, false, |_| true).is_empty());
        let later = now + Duration::from_millis(20);
        assert_eq!(handovers.poll_timeout(), Some(later));
        let signed = handovers.sign(later, 5, &me, false, |_| true);
        let said: Vec<(NodeId, NodeId, usize)> = signed
            .iter()
            .map(|(to, octets)| {
                let read = Signed::parse(octets).unwrap();
                assert_eq!((read.holder(), read.when_ms()), (me.public(), 5));
                (*to, read.receiver(), read.entries().len())
            })
            .collect();
        assert_eq!(said, [(bob, bob, 60), (bob, bob, 40), (carol, carol, 1)]);
    }

    #[test]
    fn what_its_sender_did_not_sign_is_not_handed_on() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let people = [1, 2, 3].map(|seed| SecretIdentity::from_seed(&[seed; 32]));
        let [alice, bob, me] = &people;
        let prekeys = PrekeyStore::new(PrekeyConfig::default(), 1, &mut rng);
        let prekey = prekeys.current().public();
        let context = TransferContext {
            sender: alice.public(),
            receiver: bob.public(),
            transfer: [5; 16],
            prekey_id: prekey.id,
        };
        let (encapsulated, _) = e2e::encapsulate(&prekey, &context, &mut rng).unwrap();
        let envelope = announcement::envelope(&context).unwrap();
        let sealer = Sealer::new(Threshold::new(2, 3).unwrap(), envelope);
        let sealed = sealer.seal(b"hello", &mut rng).unwrap();
        let (manifest, shares) = (sealed.manifest, sealed.shares);
        let details =
            SealedDetails::sign(alice, &context, encapsulated, &manifest, 0, None).unwrap();
        let message = announcement::message_id(&manifest.digest());
        let index = shares[0].index();

        let now = Clock::new().now();
        let sealing = Sealing::new(me.clone(), now, 1);
        let mut core = Core::new(CoreConfig::sealed(sealing, 4000, Vec::new()), [1; 32]);
        let octets = shares[0].to_bytes();
        // its announced digest is shorter, and may be that of other octets as well
        let mut altered = octets.to_vec();
        altered[70] ^= 1;
        let placed = |share: &v2::Share, holder: &SecretIdentity| Placement {
            index: share.index(),
            holder: holder.node_id(),
            digest: share_digest(&altered).1,
            active: true,
        };
        let announcement = Announcement {
            message,
            sender: alice.node_id(),
            receiver: bob.node_id(),
            n: 3,
            k: 2,
            shares: vec![
                placed(&shares[0], me),
                placed(&shares[1], alice),
                placed(&shares[2], alice),
            ],
            label: "t".into(),
            version: 1,
            details: details.octets().clone(),
            sealed: true,
            ..Announcement::default()
        };
        core.pool.add(now, alice.node_id(), &announcement).unwrap();
        assert!(!core.answers_for((message, index), &altered));
        core.handovers.brought(now, bob.node_id(), (message, index));
        assert_eq!(core.handovers.queue.waiting(bob.node_id()), 0);
        assert!(core.answers_for((message, index), &octets));
        core.handovers.brought(now, bob.node_id(), (message, index));
        assert_eq!(core.handovers.queue.waiting(bob.node_id()), 1);
        // what comes in its place is checked anew
        assert!(core.answers_for((message, index), &altered), "unchanged");
        core.handovers.stored((message, index));
        assert!(!core.answers_for((message, index), &altered));
        // nor is what is held of a message that is not known here
        assert!(!core.answers_for((MessageId::ZERO, index), &octets));
    }

    #[test]
    fn what_is_known_of_shares_is_bounded_and_the_oldest_go_first() {
        let mut handovers = Handovers::default();
        let now = Clock::new().now();
        let bob = "bob".parse().unwrap();
        let last = MAX_LISTED as u32 + 9;
        for number in 0..=last {
            handovers.insert(share(number), (handover(number), true));
        }
        assert_eq!(handovers.listed.len(), MAX_LISTED);
        assert_eq!(handovers.order.len(), MAX_LISTED);
        handovers.brought(now, bob, share(9));
        assert_eq!(handovers.queue.waiting(bob), 0, "it is forgotten");
        handovers.brought(now, bob, share(10));
        handovers.brought(now, bob, share(last));
        assert_eq!(handovers.queue.waiting(bob), 2);
    }
}
