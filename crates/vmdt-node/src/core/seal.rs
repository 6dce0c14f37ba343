//! Profile 1.1 in the core: this node's identity, the profiles of others, and what it takes to seal
//! a segment to its receiver and to open one (`docs/protocol.md`, section 12).

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::CryptoRng;
use vmdt_pool::Announcement;
use vmdt_seal::announcement::{self, SealedDetails};
use vmdt_seal::e2e::{self, Encapsulated, SegmentSecret, TransferContext, TransferSecret};
use vmdt_seal::group::{Group, GroupDetails, Wrapped};
use vmdt_seal::handover::Handover;
use vmdt_seal::identity::{PublicIdentity, SecretIdentity};
use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
use vmdt_seal::profile::{Profile, ProfileDetails};
use vmdt_ssms::Threshold;
use vmdt_ssms::v2::{Collector, Position, Sealed, Sealer};
use vmdt_wire::{MessageId, NodeId};

use super::config::Sealing;
use super::event::TransferError;

/// Profiles of other nodes that are kept; beyond it those of nodes that are in no common cluster
/// go first.
const MAX_PROFILES: usize = 4096;
/// Incoming transfers whose secret is kept; beyond it the oldest is derived anew when needed.
const MAX_SECRETS: usize = 1024;
/// How long a sealed message may be delivered.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// The word for the data layer in a profile.
const CAPABILITY: &str = "rdt";
/// The word for small messages as pieces (`docs/protocol.md`, section 12.14).
pub(crate) const EXPRESS: &str = "express";

/// Octets of a digest in an announcement: the first of the one in the manifest.
pub(crate) fn short(digest: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(digest.split_at(16).0);
    out
}

/// The digest of a share of a sealed message, whole and as it is announced; zeros for what is no
/// share.
pub(crate) fn share_digest(octets: &[u8]) -> ([u8; 32], [u8; 16]) {
    let digest = vmdt_ssms::v2::share_digest(octets).unwrap_or_default();
    (digest, short(&digest))
}

/// Why sealed details were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it is not sealed")]
    NotSealed,
    #[error("its signature or layout is wrong")]
    Details,
    #[error("its {0} is not that of the signed details")]
    Differs(&'static str),
    #[error("it has expired")]
    Expired,
    #[error("it is sealed to a key this node does not have any more")]
    NoKey,
}

/// What opens one segment, while its shares come.
#[derive(Debug)]
struct Opening {
    details: Bytes,
    /// In order; more than one of a message to a group.
    receivers: Vec<NodeId>,
    manifest_digest: [u8; 32],
    shares: Collector,
    secret: SegmentSecret,
}

impl Opening {
    fn listed(&self, index: NonZeroU8) -> Option<Listed> {
        Some(Listed {
            manifest: self.manifest_digest,
            digest: *self.shares.manifest().share_digest(index)?,
            details: self.details.clone(),
        })
    }
}

/// What a sender signed about a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The digest of the manifest.
    pub(crate) manifest: [u8; 32],
    /// The digest of the share.
    pub(crate) digest: [u8; 32],
    /// The signed octets.
    pub(crate) details: Bytes,
}

/// A segment that was opened.
pub(crate) struct Opened {
    pub(crate) position: Position,
    pub(crate) plain: Vec<u8>,
    pub(crate) manifest_digest: [u8; 32],
}

/// To whom an outgoing transfer is sealed.
enum Addressee {
    One(TransferContext, Encapsulated),
    Group(Box<Group>, Vec<Wrapped>),
}

/// What seals an outgoing transfer.
pub(crate) struct OutSeal {
    to: Addressee,
    secret: TransferSecret,
    /// Between segments always there.
    sealer: Option<Sealer>,
    expires: u64,
}

/// The digests of a segment's manifest and, as in it, of its shares.
#[derive(Debug)]
pub(crate) struct Digests {
    pub(crate) manifest: [u8; 32],
    pub(crate) shares: Vec<(NonZeroU8, [u8; 32])>,
}

/// A sealed segment.
pub(crate) struct SealedSegment {
    pub(crate) id: MessageId,
    pub(crate) details: Bytes,
    pub(crate) digests: Digests,
    pub(crate) shares: Vec<(NonZeroU8, Bytes, Bytes, [u8; 16])>,
}

impl OutSeal {
    /// With the time, in seconds since 1970, at which its shares expire.
    pub(crate) fn expiring(self, at: Option<u64>) -> OutSeal {
        OutSeal {
            expires: at.unwrap_or(self.expires).min(self.expires),
            ..self
        }
    }

    /// Seals one segment.
    pub(crate) fn segment(
        &mut self,
        identity: &SecretIdentity,
        threshold: Threshold,
        position: Position,
        plain: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<SealedSegment, TransferError> {
        let local = |why: &dyn std::fmt::Display| TransferError::Local(why.to_string());
        let secret = self.secret.segment(position.number);
        let sealer = match self.sealer.take() {
            Some(sealer) => sealer,
            None => {
                let envelope = match &self.to {
                    Addressee::One(context, _) => announcement::envelope(context),
                    Addressee::Group(group, _) => group.envelope(),
                };
                let envelope = envelope.map_err(|e| local(&e))?;
                Sealer::new(threshold, envelope.expires(self.expires))
            }
        };
        let sealer = sealer.with_bound_secret(secret.as_octets());
        let sealed = sealer.seal_segment(position, plain, rng);
        self.sealer = Some(sealer);
        let Sealed {
            manifest, shares, ..
        } = sealed.map_err(|e| local(&e))?;
        let details = match &self.to {
            Addressee::One(context, encapsulated) => {
                SealedDetails::sign(identity, context, *encapsulated, &manifest, 0, None)
                    .map(|details| details.octets().clone())
                    .map_err(|e| local(&e))?
            }
            Addressee::Group(group, wrapped) => {
                GroupDetails::sign(identity, group, wrapped, &manifest)
                    .map(|details| details.octets().clone())
                    .map_err(|e| local(&e))?
            }
        };
        let mut digests = Digests {
            manifest: manifest.digest(),
            shares: Vec::with_capacity(shares.len()),
        };
        let shares = shares
            .into_iter()
            .filter_map(|share| {
                let index = share.index();
                let whole = manifest.share_digest(index)?;
                digests.shares.push((index, *whole));
                let digest = short(whole);
                let head = Bytes::copy_from_slice(share.head());
                Some((index, head, share.body().clone(), digest))
            })
            .collect();
        Ok(SealedSegment {
            id: announcement::message_id(&digests.manifest),
            details,
            digests,
            shares,
        })
    }
}

/// The sealed side of a core.
pub(crate) struct Seal {
    identity: SecretIdentity,
    prekeys: PrekeyStore,
    details: ProfileDetails,
    own: Option<Profile>,
    profiles: BTreeMap<NodeId, Profile>,
    secrets: BTreeMap<(NodeId, MessageId), (Encapsulated, TransferSecret)>,
    secrets_order: VecDeque<(NodeId, MessageId)>,
    openings: BTreeMap<MessageId, Opening>,
    /// A moment, and the milliseconds since 1970 that it was.
    clock: (Instant, u64),
}

impl Seal {
    pub(crate) fn new(sealing: Sealing, express: bool, rng: &mut impl CryptoRng) -> Seal {
        let Sealing {
            identity,
            prekeys,
            name,
            addresses,
            at,
            unix_ms,
        } = sealing;
        let prekeys =
            prekeys.unwrap_or_else(|| PrekeyStore::new(PrekeyConfig::default(), unix_ms, rng));
        let words = std::iter::once(CAPABILITY).chain(express.then_some(EXPRESS));
        let capabilities = words.map(str::to_owned).collect();
        let mut seal = Seal {
            identity,
            prekeys,
            details: ProfileDetails {
                name,
                addresses,
                capabilities,
            },
            own: None,
            profiles: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secrets_order: VecDeque::new(),
            openings: BTreeMap::new(),
            clock: (at, unix_ms),
        };
        let _ = seal.renew(at, rng);
        seal
    }

    pub(crate) fn unix_ms(&self, now: Instant) -> u64 {
        let (at, unix_ms) = self.clock;
        let since = now.saturating_duration_since(at).as_millis();
        unix_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// A moment, and the milliseconds since 1970 that it was.
    pub(crate) fn clock(&self) -> (Instant, u64) {
        self.clock
    }

    /// When [`renew`](Self::renew) is due.
    pub(crate) fn renew_at(&self) -> Instant {
        let (at, unix_ms) = self.clock;
        let wait = self.prekeys.next_change_ms().saturating_sub(unix_ms);
        // far enough off to be asked again before
        at + Duration::from_millis(wait).min(LIFETIME * 5200)
    }

    pub(crate) fn identity(&self) -> &SecretIdentity {
        &self.identity
    }

    pub(crate) fn prekeys(&self) -> &PrekeyStore {
        &self.prekeys
    }

    /// Rotates the prekeys when that is due; the profile to publish, if there is a new one.
    pub(crate) fn renew(&mut self, now: Instant, rng: &mut impl CryptoRng) -> Option<&Profile> {
        let unix_ms = self.unix_ms(now);
        self.prekeys.expire(unix_ms);
        let rotated = self.prekeys.rotate(unix_ms, rng);
        if self.own.is_some() && !rotated {
            return None;
        }
        let prekey = self.prekeys.current().public();
        // name and addresses were held to their bounds when they were set
        self.own = Profile::sign(&self.identity, &self.details, prekey, unix_ms).ok();
        self.own.as_ref()
    }

    /// Says anew where this node is; the profile to publish.
    pub(crate) fn set_addresses(
        &mut self,
        now: Instant,
        addresses: Vec<std::net::SocketAddr>,
    ) -> Option<&Profile> {
        if self.details.addresses == addresses {
            return None;
        }
        self.details.addresses = addresses;
        let prekey = self.prekeys.current().public();
        let unix_ms = self.unix_ms(now);
        self.own = Profile::sign(&self.identity, &self.details, prekey, unix_ms).ok();
        self.own.as_ref()
    }

    pub(crate) fn own_profile(&self) -> Option<&Profile> {
        self.own.as_ref()
    }

    pub(crate) fn profile(&self, id: NodeId) -> Option<&Profile> {
        self.profiles.get(&id)
    }

    /// Takes what a node says of itself, whoever brought it. True when it is news.
    pub(crate) fn learn(
        &mut self,
        id: NodeId,
        octets: &[u8],
        pinned: Option<PublicIdentity>,
        is_member: impl Fn(NodeId) -> bool,
    ) -> Result<bool, Refused> {
        if self.profiles.get(&id).is_some_and(|p| p.octets() == octets) {
            return Ok(false);
        }
        let profile = Profile::parse_of(id, octets).map_err(|_| Refused::Details)?;
        if pinned.is_some_and(|key| key != profile.identity()) {
            // another key with the same id
            return Err(Refused::Differs("key"));
        }
        if let Some(known) = self.profiles.get(&id)
            && !profile.replaces(known)
        {
            return Ok(false);
        }
        if self.profiles.len() >= MAX_PROFILES && !self.profiles.contains_key(&id) {
            let stranger = self.profiles.keys().copied().find(|id| !is_member(*id));
            match stranger {
                Some(stranger) => self.profiles.remove(&stranger),
                None if is_member(id) => self.profiles.pop_first().map(|(_, profile)| profile),
                None => return Ok(false),
            };
        }
        self.profiles.insert(id, profile);
        Ok(true)
    }

    /// What seals a transfer to a node; `None` while its profile is not known, or its key has
    /// expired.
    pub(crate) fn begin(
        &self,
        now: Instant,
        to: NodeId,
        transfer: MessageId,
        rng: &mut impl CryptoRng,
    ) -> Option<OutSeal> {
        let unix_ms = self.unix_ms(now);
        let profile = self.profiles.get(&to)?;
        let prekey = profile.prekey();
        if !prekey.is_usable(unix_ms) {
            return None;
        }
        let context = TransferContext {
            sender: self.identity.public(),
            receiver: profile.identity(),
            transfer: transfer.field(),
            prekey_id: prekey.id,
        };
        let (encapsulated, secret) = e2e::encapsulate(&prekey, &context, rng).ok()?;
        Some(OutSeal {
            to: Addressee::One(context, encapsulated),
            secret,
            sealer: None,
            expires: (unix_ms / 1000).saturating_add(LIFETIME.as_secs()),
        })
    }

    /// Of these nodes those without a usable profile here.
    pub(crate) fn unknown(&self, now: Instant, nodes: &[NodeId]) -> Vec<NodeId> {
        let unix_ms = self.unix_ms(now);
        let usable = |id: &NodeId| {
            let profile = self.profiles.get(id);
            profile.is_some_and(|profile| profile.prekey().is_usable(unix_ms))
        };
        nodes.iter().copied().filter(|id| !usable(id)).collect()
    }

    /// What seals a transfer to several nodes; `None` while the profile of one is not known.
    pub(crate) fn begin_group(
        &self,
        now: Instant,
        to: &[NodeId],
        transfer: MessageId,
        rng: &mut impl CryptoRng,
    ) -> Option<OutSeal> {
        let unix_ms = self.unix_ms(now);
        let profiles: Option<Vec<&Profile>> = to
            .iter()
            .map(|id| {
                let profile = self.profiles.get(id);
                profile.filter(|profile| profile.prekey().is_usable(unix_ms))
            })
            .collect();
        let profiles = profiles?;
        let keys: Vec<PublicIdentity> = profiles.iter().map(|p| p.identity()).collect();
        let group = Group::new(self.identity.public(), transfer.field(), &keys).ok()?;
        let secret = Group::secret(rng);
        let wrapped: Option<Vec<Wrapped>> = profiles
            .iter()
            .map(|p| group.wrap(&secret, p.identity(), &p.prekey(), rng).ok())
            .collect();
        Some(OutSeal {
            to: Addressee::Group(Box::new(group), wrapped?),
            secret,
            sealer: None,
            expires: (unix_ms / 1000).saturating_add(LIFETIME.as_secs()),
        })
    }

    /// Holds an announcement against the details that its sender signed. To a group it is given
    /// its receivers, which stand in the details.
    pub(crate) fn check(
        &self,
        now: Instant,
        ann: &mut Announcement,
        known: Option<&Announcement>,
    ) -> Result<Option<Details>, Refused> {
        if ann.details.is_empty() {
            return Err(Refused::NotSealed);
        }
        if let Some(opening) = self.openings.get(&ann.message)
            && opening.details == ann.details
        {
            name_receivers(ann, opening.receivers.iter().copied())?;
            return digests_agree(ann, opening.shares.manifest()).map(|()| None);
        }
        if let Some(known) = known
            && known.details == ann.details
            // what is to be opened here is needed whole
            && !known.is_receiver(self.identity.node_id())
            && ann.shares.iter().all(|share| {
                let same = |other: &&vmdt_pool::Placement| other.index == share.index;
                known.shares.iter().find(same).map(|s| s.digest) == Some(share.digest)
            })
        {
            name_receivers(ann, known.receivers())?;
            return Ok(None);
        }
        let details = Details::parse(&ann.details)?;
        name_receivers(ann, details.receivers().into_iter())?;
        let manifest = details.manifest();
        let threshold = manifest.threshold();
        let differs = if details.sender().node_id() != ann.sender {
            "sender"
        } else if announcement::message_id(&manifest.digest()) != ann.message {
            "message id"
        } else if manifest.message_id()
            != ann
                .label
                .parse::<MessageId>()
                .map_or([0; 16], |id| id.field())
        {
            "transfer id"
        } else if (threshold.k(), threshold.n()) != (ann.k, ann.n) {
            "threshold"
        } else {
            digests_agree(ann, manifest)?;
            if manifest.is_expired(self.unix_ms(now) / 1000) {
                return Err(Refused::Expired);
            }
            return Ok(Some(details));
        };
        Err(Refused::Differs(differs))
    }

    /// Begins to open a message for this node.
    pub(crate) fn expect(
        &mut self,
        ann: &Announcement,
        transfer: MessageId,
        details: &Details,
    ) -> Result<(), Refused> {
        if self.openings.contains_key(&ann.message) {
            return Ok(());
        }
        let own = self.identity.public();
        let (prekey_id, encapsulated) = details.sealed_for(own)?;
        let key = (ann.sender, transfer);
        let secret = match self.secrets.get(&key) {
            Some((known, secret)) if *known == encapsulated => secret.clone(),
            _ => {
                let prekey = self.prekeys.find(prekey_id).ok_or(Refused::NoKey)?;
                let secret = match details {
                    Details::One(one) => e2e::decapsulate(prekey, one.context(), &encapsulated)
                        .map_err(|_| Refused::Details)?,
                    Details::Group(group) => group
                        .unwrap_for(own, prekey)
                        .map_err(|_| Refused::Details)?,
                };
                let entry = (encapsulated, secret.clone());
                if self.secrets.insert(key, entry).is_none() {
                    self.secrets_order.push_back(key);
                }
                while self.secrets_order.len() > MAX_SECRETS {
                    if let Some(oldest) = self.secrets_order.pop_front() {
                        self.secrets.remove(&oldest);
                    }
                }
                secret
            }
        };
        let manifest = details.manifest();
        let opening = Opening {
            details: ann.details.clone(),
            receivers: details.receivers(),
            manifest_digest: manifest.digest(),
            secret: secret.segment(manifest.position().number),
            shares: Collector::new(manifest.clone()),
        };
        self.openings.insert(ann.message, opening);
        Ok(())
    }

    /// Checks a share of a message for this node, and keeps it if it is genuine. What to tell the
    /// pool's collector it was found to be.
    pub(crate) fn add(
        &mut self,
        message: MessageId,
        index: NonZeroU8,
        octets: Bytes,
    ) -> Option<[u8; 16]> {
        let opening = self.openings.get_mut(&message)?;
        opening.shares.add_from(index, octets).ok()?;
        opening.shares.manifest().share_digest(index).map(short)
    }

    /// Whether octets that were refused are nevertheless those that their sender signed.
    pub(crate) fn is_as_signed(
        &self,
        message: MessageId,
        index: NonZeroU8,
        came: [u8; 32],
    ) -> bool {
        let opening = self.openings.get(&message);
        let signed = opening.and_then(|o| o.shares.manifest().share_digest(index));
        signed == Some(&came)
    }

    /// What was signed about a share of a message that is being collected, and whether the right one
    /// is here.
    pub(crate) fn blame(&self, message: MessageId, index: NonZeroU8) -> Option<(Listed, bool)> {
        let opening = self.openings.get(&message)?;
        let here = opening.shares.shares().any(|share| share.index() == index);
        Some((opening.listed(index)?, here))
    }

    /// What was signed about the share that a hand-over names, while its message is collected.
    pub(crate) fn listed(&self, said: &Handover) -> Option<Listed> {
        let opening = self.openings.get(&said.message())?;
        opening
            .listed(said.index)
            .filter(|listed| listed.manifest == said.manifest)
    }

    /// Opens a message, once k of its shares were added. `None` for a message that was not
    /// expected. The error says that its sender made it so that it can't be opened.
    pub(crate) fn open(
        &mut self,
        message: MessageId,
    ) -> Option<Result<Opened, vmdt_ssms::v2::OpenError>> {
        let opening = self.openings.remove(&message)?;
        let position = opening.shares.manifest().position();
        let opened = opening.shares.open_bound(opening.secret.as_octets());
        Some(opened.map(|plain| Opened {
            position,
            plain,
            manifest_digest: opening.manifest_digest,
        }))
    }

    /// Forgets a message that will not be opened.
    pub(crate) fn forget(&mut self, message: MessageId) {
        self.openings.remove(&message);
    }

    /// Forgets the secret of a transfer that has ended.
    pub(crate) fn forget_transfer(&mut self, from: NodeId, transfer: MessageId) {
        if self.secrets.remove(&(from, transfer)).is_some() {
            self.secrets_order.retain(|key| *key != (from, transfer));
        }
    }
}

/// Which segment of its transfer a message is, as its details say; 0 where nothing says it.
pub(crate) fn segment_number(details: &[u8]) -> u64 {
    Details::parse(details).map_or(0, |details| details.number())
}

/// What a sender signed about a message, to one receiver or to several.
pub(crate) enum Details {
    One(Box<SealedDetails>),
    Group(Box<GroupDetails>),
}

impl Details {
    pub(crate) fn parse(octets: &[u8]) -> Result<Details, Refused> {
        if GroupDetails::is_one(octets) {
            let details = GroupDetails::parse(octets).map_err(|_| Refused::Details)?;
            return Ok(Details::Group(Box::new(details)));
        }
        let details = SealedDetails::parse(octets).map_err(|_| Refused::Details)?;
        Ok(Details::One(Box::new(details)))
    }

    pub(crate) fn sender(&self) -> PublicIdentity {
        match self {
            Details::One(one) => one.sender(),
            Details::Group(group) => group.sender(),
        }
    }

    /// Which segment of its transfer it is.
    pub(crate) fn number(&self) -> u64 {
        self.manifest().position().number
    }

    pub(super) fn manifest(&self) -> &vmdt_ssms::v2::Manifest {
        match self {
            Details::One(one) => one.manifest(),
            Details::Group(group) => group.manifest(),
        }
    }

    pub(crate) fn manifest_digest(&self) -> [u8; 32] {
        self.manifest().digest()
    }

    /// What a holder of a share is to sign when it has brought it, with the manifest's digest.
    pub(crate) fn handover(&self, manifest: [u8; 32], index: NonZeroU8) -> Option<Handover> {
        Some(Handover {
            manifest,
            index,
            digest: *self.manifest().share_digest(index)?,
        })
    }

    fn receivers(&self) -> Vec<NodeId> {
        match self {
            Details::One(one) => vec![one.receiver().node_id()],
            Details::Group(group) => {
                let receivers = group.group().receivers().iter();
                let mut ids: Vec<NodeId> = receivers.map(PublicIdentity::node_id).collect();
                ids.sort_unstable();
                ids
            }
        }
    }

    /// The prekey that the secret is sealed to for a receiver, and the encapsulated key.
    fn sealed_for(&self, own: PublicIdentity) -> Result<(u32, Encapsulated), Refused> {
        match self {
            Details::One(one) if one.receiver() == own => {
                Ok((one.context().prekey_id, *one.encapsulated()))
            }
            Details::One(_) => Err(Refused::Differs("receiver")),
            Details::Group(group) => {
                let wrapped = group.wrapped_for(own);
                let wrapped = wrapped.ok_or(Refused::Differs("receiver"))?;
                Ok((wrapped.prekey_id(), *wrapped.encapsulated()))
            }
        }
    }
}

/// Names in an announcement all receivers, the first of whom it has to name already.
fn name_receivers(
    ann: &mut Announcement,
    mut receivers: impl Iterator<Item = NodeId>,
) -> Result<(), Refused> {
    if receivers.next() != Some(ann.receiver) {
        return Err(Refused::Differs("receiver"));
    }
    ann.group = receivers.collect();
    Ok(())
}

fn digests_agree(ann: &Announcement, manifest: &vmdt_ssms::v2::Manifest) -> Result<(), Refused> {
    let agree = ann.shares.iter().all(|share| {
        let signed = manifest.share_digest(share.index);
        signed.is_some_and(|signed| short(signed) == share.digest)
    });
    if agree {
        Ok(())
    } else {
        Err(Refused::Differs("share digest"))
    }
}
