//! Outgoing transfers: content cut into segments, each spread as a message of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::CryptoRng;
use vmdt_pool::{Announcement, Placement as Placed};
use vmdt_rdt::{Priority, TokenBucket};
use vmdt_seal::identity::SecretIdentity;
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::Position;
use vmdt_wire::{ClusterId, MessageId, NodeId};

use super::envelope::{Envelope, Kind, MAX_ENVELOPE};
use super::event::{Carried, Paths, Progress, Receipt, TransferError};
use super::group::{GroupSpread, OutGroup};
use super::limits::SendOptions;
use super::placement::{Carrier, Carriers, Placement, PlacementError};
use super::seal::OutSeal;

/// Octets of a share's digest: the first 16 of BLAKE3.
pub(crate) fn digest_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Octets of content up to which it counts as small.
const SMALL: u64 = 16 * 1024;

/// One share of a message of ours.
pub(crate) struct OwnShare {
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
    pub(crate) digest: [u8; 16],
    /// Handed to its carrier's link.
    pub(crate) sent: bool,
    /// It stands in for another one that is late.
    pub(crate) urgent: bool,
    /// Its carrier had no room: not again before this.
    pub(crate) not_before: Option<Instant>,
    /// How often a carrier had no room.
    pub(crate) refusals: u32,
}

impl OwnShare {
    fn new(head: Bytes, body: Bytes, digest: [u8; 16]) -> OwnShare {
        OwnShare {
            head,
            body,
            digest,
            sent: false,
            urgent: false,
            not_before: None,
            refusals: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// A segment that was spread and is not yet confirmed.
pub(crate) struct Spread {
    pub(crate) id: MessageId,
    pub(crate) transfer: MessageId,
    pub(crate) to: NodeId,
    /// Who of several receivers has it not, and what each was given directly.
    pub(crate) group: Option<GroupSpread>,
    pub(crate) n: u8,
    pub(crate) k: u8,
    /// Octets of content in it.
    pub(crate) octets: u64,
    /// The segment's number.
    pub(crate) number: u32,
    pub(crate) shares: BTreeMap<NonZeroU8, OwnShare>,
    pub(crate) placement: Placement,
    /// Shares that go on to the receiver at once; the others wait to be unfrozen.
    pub(crate) active: BTreeSet<NonZeroU8>,
    /// Octets that the server was given and that are not confirmed.
    pub(crate) relayed: usize,
    pub(crate) retry_at: Instant,
    pub(crate) attempts: u32,
    /// What was signed about it, in profile 1.1.
    pub(crate) details: Bytes,
    /// What receipts about it are held against, in profile 1.1.
    pub(crate) digests: Option<super::seal::Digests>,
    /// No segment follows.
    pub(crate) last: bool,
    /// Counts up whenever placement or active shares change.
    pub(crate) version: u32,
    /// A share was moved.
    pub(crate) relocated: bool,
    /// Where shares were when the server was lost, and whether the receiver was away: holders may have
    /// remade some since.
    pub(crate) unseen: Option<(Box<Announcement>, bool)>,
}

impl Spread {
    /// The carriers that may be given a share now; `there` says that the receiver is.
    pub(crate) fn may_carry(&self, index: NonZeroU8, carriers: &Carriers, there: bool) -> Carriers {
        let mut carriers = carriers.clone();
        if let Some((unseen, away)) = &self.unseen
            && (*away || !there)
        {
            let may = |id| vmdt_pool::repair::share::may_take(unseen, id, index);
            carriers.members.retain(|member| may(member.id));
        }
        carriers
    }

    /// What the sender tells holders and the receiver. Shares on the direct link or the server
    /// have the sender as their holder.
    pub(crate) fn announcement(&self, sender: NodeId) -> Announcement {
        let shares = self
            .placement
            .iter()
            .filter_map(|(index, carrier)| {
                let own = self.shares.get(&index)?;
                Some(Placed {
                    index,
                    holder: match carrier {
                        Carrier::Member(id) => id,
                        Carrier::Direct | Carrier::Server => sender,
                    },
                    digest: own.digest,
                    active: self.active.contains(&index),
                })
            })
            .collect();
        Announcement {
            message: self.id,
            sender,
            receiver: self.to,
            group: self
                .group
                .as_ref()
                .map(GroupSpread::others)
                .unwrap_or_default(),
            n: self.n,
            k: self.k,
            shares,
            label: self.transfer.as_str().to_owned(),
            content: 0,
            version: self.version,
            details: self.details.clone(),
            sealed: !self.details.is_empty(),
        }
    }

    /// Whether a node is to get it, and has not confirmed it.
    pub(crate) fn awaits(&self, node: NodeId) -> bool {
        match &self.group {
            None => self.to == node,
            Some(group) => group.open.contains(&node),
        }
    }

    /// Who is to get it, and has not confirmed it.
    pub(crate) fn awaited(&self) -> Vec<NodeId> {
        match &self.group {
            None => vec![self.to],
            Some(group) => group.open.iter().copied().collect(),
        }
    }

    /// The members that were given shares.
    pub(crate) fn holders(&self) -> BTreeSet<NodeId> {
        self.placement
            .iter()
            .filter_map(|(_, carrier)| match carrier {
                Carrier::Member(id) => Some(id),
                Carrier::Direct | Carrier::Server => None,
            })
            .collect()
    }
}

/// Where the content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The next octets can be asked for.
    Waiting,
    /// They have been asked for.
    Asked,
    /// There are no more.
    Ended,
}

/// Octets that were read and have not been placed yet.
pub(crate) struct Unplaced {
    pub(crate) data: Bytes,
    pub(crate) last: bool,
}

/// A transfer to one receiver, or to several at once.
pub(crate) struct Outgoing {
    pub(crate) id: MessageId,
    pub(crate) cluster: ClusterId,
    /// The receiver; of several the first as the details name them.
    pub(crate) to: NodeId,
    /// What became of it at each of several receivers.
    pub(crate) group: Option<OutGroup>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) total: Option<u64>,
    pub(crate) threshold: Threshold,
    /// Goes to a peer of profile 1.0, inline.
    pub(crate) open: bool,
    pub(crate) source: Source,
    pub(crate) unplaced: Option<Unplaced>,
    pub(crate) next: u32,
    pub(crate) offset: u64,
    /// Octets of frozen shares that were sent at its end although nobody asked for them.
    pub(crate) finishing: u64,
    /// Where segments are put together to be sealed.
    plain: Vec<u8>,
    pub(crate) delivered: u64,
    pub(crate) window: usize,
    pub(crate) in_flight: BTreeSet<MessageId>,
    pub(crate) hasher: blake3::Hasher,
    pub(crate) digest: Option<[u8; 32]>,
    pub(crate) started: Instant,
    pub(crate) moved: Instant,
    /// When it waited last for somebody who was away: that is no standstill.
    pub(crate) waited: Instant,
    /// When the window was made smaller for want of room at a holder.
    pub(crate) shrunk: Instant,
    pub(crate) paths: Paths,
    pub(crate) last_problem: Option<Problem>,
    /// Whether it is to be sealed, and with what, once that is known.
    pub(crate) sealed: bool,
    pub(crate) seal: Option<OutSeal>,
    pub(crate) priority: Priority,
    /// Its own rate limit.
    pub(crate) bucket: Option<TokenBucket>,
}

/// Why the next segment can't leave yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The privacy rule leaves too few carriers.
    Placement(PlacementError),
    /// The receiver's key is not known.
    NoProfile,
}

/// What a transfer begins with.
pub(crate) struct Plan {
    pub(crate) id: MessageId,
    pub(crate) cluster: ClusterId,
    pub(crate) to: NodeId,
    pub(crate) group: Option<OutGroup>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) total: Option<u64>,
    pub(crate) threshold: Threshold,
    pub(crate) open: bool,
}

impl Outgoing {
    /// A transfer of which nothing was read yet; so many segments of it may be under way.
    pub(crate) fn new(now: Instant, plan: Plan, window: usize, options: SendOptions) -> Outgoing {
        Outgoing {
            id: plan.id,
            cluster: plan.cluster,
            to: plan.to,
            kind: plan.kind,
            name: plan.name,
            total: plan.total,
            threshold: plan.threshold,
            open: plan.open,
            source: Source::Waiting,
            unplaced: None,
            next: 0,
            offset: 0,
            finishing: 0,
            plain: Vec::new(),
            delivered: 0,
            window,
            in_flight: BTreeSet::new(),
            hasher: blake3::Hasher::new(),
            digest: None,
            started: now,
            moved: now,
            waited: now,
            shrunk: now,
            paths: Paths::new(),
            last_problem: None,
            sealed: plan.group.is_some() || plan.to.is_sealed(),
            seal: None,
            group: plan.group,
            priority: options.priority,
            bucket: options.limit.map(|limit| TokenBucket::new(now, limit)),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            delivered: self.delivered,
            total: self.total,
            paths: self.paths.clone(),
            reached: self
                .group
                .as_ref()
                .map(OutGroup::reached)
                .unwrap_or_default(),
        }
    }

    pub(crate) fn receipt(&self, now: Instant) -> Receipt {
        Receipt {
            id: self.id,
            octets: self.delivered,
            digest: self.digest.unwrap_or_default(),
            paths: self.paths.clone(),
            took: now.saturating_duration_since(self.started),
        }
    }

    /// How it ended that all was done with it.
    pub(crate) fn end(&self, now: Instant) -> Result<Receipt, TransferError> {
        let failure = self.group.as_ref().and_then(OutGroup::failure);
        failure.map_or_else(|| Ok(self.receipt(now)), |failure| Err(failure.into()))
    }

    /// Whether a member may hold shares of it.
    pub(crate) fn may_hold(&self, node: NodeId) -> bool {
        match &self.group {
            None => self.to != node,
            Some(group) => group.may_hold(node),
        }
    }

    /// Whether a node is to get it, and has not got or given up all of it.
    pub(crate) fn awaits(&self, node: NodeId) -> bool {
        match &self.group {
            None => self.to == node,
            Some(group) => group.awaits(node),
        }
    }

    /// Who is to get it, and has not got or given up all of it.
    pub(crate) fn awaited(&self) -> Vec<NodeId> {
        match &self.group {
            None => vec![self.to],
            Some(group) => group.awaited(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.source == Source::Ended && self.unplaced.is_none() && self.in_flight.is_empty()
    }

    pub(crate) fn carried(&mut self, carrier: Carrier, octets: usize) {
        let c: &mut Carried = self.paths.entry(carrier).or_default();
        c.shares += 1;
        c.octets += octets as u64;
    }

    /// Whether the whole content is so small that it is sooner sent twice than repeated.
    pub(crate) fn is_small(&self) -> bool {
        match (self.total, &self.unplaced) {
            (Some(total), _) => total <= SMALL,
            (None, Some(piece)) => self.next == 0 && piece.last && piece.data.len() as u64 <= SMALL,
            (None, None) => false,
        }
    }

    /// Until when its rate limit holds back what was read.
    pub(crate) fn held_until(&mut self, now: Instant) -> Option<Instant> {
        let octets = self.unplaced.as_ref()?.data.len() as u64;
        self.bucket.as_mut()?.delay(now, octets)
    }

    /// Octets of one share of the next segment, about.
    pub(crate) fn next_share(&self) -> usize {
        let octets = self.unplaced.as_ref().map_or(0, |piece| piece.data.len()) + MAX_ENVELOPE;
        if self.sealed {
            octets.div_ceil(usize::from(self.threshold.k()).max(1))
        } else {
            octets
        }
    }

    /// Cuts the next segment: encrypts it, shares its key, places the shares. So many of them
    /// beyond k go on to the receiver at once.
    pub(crate) fn spread(
        &mut self,
        now: Instant,
        retry_after: Duration,
        placement: Placement,
        more: usize,
        identity: Option<&SecretIdentity>,
        rng: &mut impl CryptoRng,
    ) -> Result<Option<Spread>, TransferError> {
        let (n, k) = (self.threshold.n(), self.threshold.k());
        let Some(Unplaced { data, last }) = self.unplaced.take() else {
            return Ok(None);
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.take(data.len() as u64);
        }
        self.hasher.update(&data);
        let digest = last.then(|| *self.hasher.finalize().as_bytes());
        self.digest = digest;
        let envelope = Envelope {
            kind: self.kind,
            transfer: self.id,
            number: self.next,
            offset: self.offset,
            total: self.total,
            name: self.name.clone(),
            last: digest,
        };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        plain.reserve(MAX_ENVELOPE + data.len());
        envelope.emit_into(&mut plain);
        plain.extend_from_slice(&data);
        let position = Position {
            number: self.next.into(),
            offset: self.offset,
            last,
        };
        let mut digests = None;
        let (id, details, shares) = match (&mut self.seal, identity) {
            (Some(seal), Some(identity)) => {
                let sealed = seal.segment(identity, self.threshold, position, &plain, rng)?;
                self.plain = plain;
                digests = Some(sealed.digests);
                (sealed.id, sealed.details, sealed.shares)
            }
            _ => {
                let shares = vmdt_ssms::split(self.threshold, plain, rng)
                    .map_err(|e| TransferError::Local(e.to_string()))?;
                let mut id = [0; 12];
                rng.fill_bytes(&mut id);
                let shares = shares
                    .into_iter()
                    .map(|share| {
                        let digest = digest_of(&[share.head(), share.body()]);
                        let head = Bytes::copy_from_slice(share.head());
                        (share.index(), head, share.body().clone(), digest)
                    })
                    .collect();
                (MessageId::from_random(id), Bytes::new(), shares)
            }
        };
        let shares: BTreeMap<NonZeroU8, OwnShare> = shares
            .into_iter()
            .map(|(index, head, body, digest)| (index, OwnShare::new(head, body, digest)))
            .collect();
        let spread = Spread {
            id,
            transfer: self.id,
            to: self.to,
            group: self.group.as_ref().map(OutGroup::spread),
            n,
            k,
            octets: data.len() as u64,
            number: self.next,
            active: placement
                .iter()
                .take(usize::from(k) + more)
                .map(|(i, _)| i)
                .collect(),
            placement,
            shares,
            relayed: 0,
            retry_at: now + retry_after,
            attempts: 0,
            details,
            digests,
            last,
            version: 1,
            relocated: false,
            unseen: None,
        };
        self.next = self.next.wrapping_add(1);
        self.offset += data.len() as u64;
        self.in_flight.insert(spread.id);
        Ok(Some(spread))
    }
}
