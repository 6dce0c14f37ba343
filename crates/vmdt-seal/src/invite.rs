//! Invites: a key pair whose secret half makes members.

use core::fmt;

use bytes::Bytes;
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::codec::{self, Reader};
use crate::descriptor::{ClusterHash, Descriptor};
use crate::error::{ParseError, VerifyError};
use crate::identity::{PublicIdentity, SecretIdentity};
use crate::membership::{Membership, MembershipError};
use crate::receipt::finish;

/// Octets of the seed of an invite's secret.
pub const INVITE_SEED_LEN: usize = 16;
/// Invites in a chain from the creator to a member, at most.
pub const MAX_CHAIN: usize = 4;
/// The longest encoding of a [`Membership`], in octets.
pub const MEMBERSHIP_MAX_LEN: usize = MAX_CHAIN * (INVITE_FIXED + MEMBERSHIP_FIXED);

pub(crate) const INVITE_FIXED: usize = 2 + 16 + 32 + 1 + 8 + 4 + 32 + 2 + 64;
pub(crate) const MEMBERSHIP_FIXED: usize = 2 + 16 + 32 + 8 + 2 + 64;

/// What a member may do: a set of bits. Bits without a meaning are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// To be a member: to send, receive and hold.
    pub const MEMBER: Self = Self(1);
    /// To invite others, with at most one's own rights.
    pub const INVITE: Self = Self(2);
    /// Every right, as the creator has them.
    pub const ALL: Self = Self(u8::MAX);

    /// The rights of these bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// These rights and others.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Names an invite: 128 bits of a hash of its public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; 16]);

/// What an invite allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InviteTerms {
    /// What those who join with it may do.
    pub rights: Rights,
    /// Nobody is to join with it from this time on, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How many may join with it; 0: any number. The server counts, members cannot.
    pub max_uses: u32,
}

/// Why an invite cannot be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InviteError {
    /// The issuer is neither the creator nor shows a membership of its own in this cluster.
    #[error("the issuer is not the creator and has no membership in the cluster")]
    NotAMember,
    /// The issuer may not invite, or not with these rights.
    #[error("the issuer may not give these rights")]
    Rights,
    /// The chain of invites would be longer than [`MAX_CHAIN`].
    #[error("the chain of invites would be longer than {MAX_CHAIN}")]
    ChainTooLong,
    /// The issuer goes on under another key than it joined with.
    #[error("a member that has changed its key can't invite; the creator can invite it anew")]
    KeyChanged,
}

/// The secret of an invite: who has it makes members. Wiped when dropped; `Debug` shows nothing
/// of it.
#[derive(Clone)]
pub struct InviteSecret(Zeroizing<[u8; INVITE_SEED_LEN]>);

impl InviteSecret {
    /// The secret of a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; INVITE_SEED_LEN]) -> Self {
        Self(Zeroizing::new(*seed))
    }

    /// The seed, to be carried in a ticket.
    #[must_use]
    pub fn seed(&self) -> &[u8; INVITE_SEED_LEN] {
        &self.0
    }

    pub(crate) fn key(&self) -> SecretIdentity {
        let seed = blake3::derive_key("vmdt 1.1 invite key", &*self.0);
        SecretIdentity::from_seed(&Zeroizing::new(seed))
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(..)")
    }
}

/// The certificate of an invite. A value of this type has right signatures up to
/// [`Invite::root`]; whether that is the cluster's creator says
/// [`ClusterTrust`](crate::trust::ClusterTrust).
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `I`, format 1 |
/// | 16 | cluster hash |
/// | 32 | the invite's public key |
/// | 1 | rights |
/// | 8 | expires, milliseconds since 1970 |
/// | 4 | uses at most, 0: any number |
/// | 32 | issuer's identity key |
/// | 2 + n | length and the issuer's [`Membership`]; nothing when the creator issues |
/// | 64 | issuer's signature over all before, context `vmdt 1.1 invite` |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    cluster: ClusterHash,
    key: PublicIdentity,
    terms: InviteTerms,
    issuer: PublicIdentity,
    chain: Option<Box<Membership>>,
    octets: Bytes,
}

impl Invite {
    /// Issues an invite. A member shows its own membership as `chain`; the creator needs none.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn issue(
        issuer: &SecretIdentity,
        chain: Option<&Membership>,
        descriptor: &Descriptor,
        terms: &InviteTerms,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Self, InviteSecret), InviteError> {
        let chain = if issuer.public() == descriptor.creator() {
            None
        } else {
            let chain = chain
                .filter(|chain| chain.member() == issuer.public())
                .filter(|chain| chain.cluster() == descriptor.hash())
                .ok_or(InviteError::NotAMember)?;
            if !chain.changes().is_empty() {
                return Err(InviteError::KeyChanged);
            }
            if !chain.rights().contains(Rights::INVITE.with(terms.rights)) {
                return Err(InviteError::Rights);
            }
            if chain.depth() >= MAX_CHAIN {
                return Err(InviteError::ChainTooLong);
            }
            Some(chain)
        };
        let mut seed = Zeroizing::new([0; INVITE_SEED_LEN]);
        rng.fill_bytes(&mut *seed);
        let secret = InviteSecret(seed);
        let mut invite = Self {
            cluster: descriptor.hash(),
            key: secret.key().public(),
            terms: *terms,
            issuer: issuer.public(),
            chain: chain.cloned().map(Box::new),
            octets: Bytes::new(),
        };
        let mut out = invite.body();
        issuer.sign_onto(codec::INVITE, &mut out);
        invite.octets = out.into();
        Ok((invite, secret))
    }

    /// The certificate put together again from what a ticket carries.
    pub(crate) fn from_parts(
        cluster: ClusterHash,
        secret: &InviteSecret,
        terms: InviteTerms,
        issuer: PublicIdentity,
        chain: Option<Membership>,
        signature: &[u8; 64],
    ) -> Result<Self, MembershipError> {
        let invite = Self {
            cluster,
            key: secret.key().public(),
            terms,
            issuer,
            chain: chain.map(Box::new),
            octets: Bytes::new(),
        };
        let mut out = invite.body();
        out.extend_from_slice(signature);
        Self::parse(&out)
    }

    fn body(&self) -> Vec<u8> {
        let chain = self
            .chain
            .as_ref()
            .map_or(&[][..], |chain| chain.octets().as_ref());
        let mut out = codec::begin(codec::INVITE, INVITE_FIXED + chain.len());
        out.extend_from_slice(&self.cluster.0);
        out.extend_from_slice(self.key.as_octets());
        out.push(self.terms.rights.bits());
        out.extend_from_slice(&self.terms.expires_ms.to_be_bytes());
        out.extend_from_slice(&self.terms.max_uses.to_be_bytes());
        out.extend_from_slice(self.issuer.as_octets());
        codec::put_long(&mut out, chain);
        out
    }

    /// Reads a certificate and checks every signature and right in it, up to its root.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn parse(octets: &[u8]) -> Result<Self, MembershipError> {
        Self::parse_within(octets, MAX_CHAIN)
    }

    /// As [`Invite::parse`], with at most `depth` invites, this one included.
    pub(crate) fn parse_within(octets: &[u8], depth: usize) -> Result<Self, MembershipError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(MembershipError::ChainTooLong);
        };
        let mut reader = Reader::new(octets);
        reader.head(codec::INVITE).map_err(VerifyError::from)?;
        let invite = Self::fields(&mut reader, octets, depth)?;
        finish(
            reader,
            octets,
            codec::INVITE,
            invite.issuer,
            "the invite's issuer",
        )?;
        if let Some(chain) = &invite.chain {
            if chain.member() != invite.issuer || chain.cluster() != invite.cluster {
                return Err(MembershipError::BrokenChain);
            }
            let needed = Rights::INVITE.with(invite.terms.rights);
            if !chain.rights().contains(needed) {
                return Err(MembershipError::Rights);
            }
        }
        Ok(invite)
    }

    fn fields(
        reader: &mut Reader<'_>,
        octets: &[u8],
        depth: usize,
    ) -> Result<Self, MembershipError> {
        let verify = |error: ParseError| VerifyError::from(error);
        let cluster = ClusterHash(reader.array("cluster").map_err(verify)?);
        let key = reader.key("invite key").map_err(verify)?;
        let terms = InviteTerms {
            rights: Rights::from_bits(reader.u8("rights").map_err(verify)?),
            expires_ms: reader.u64("expires").map_err(verify)?,
            max_uses: reader.u32("uses").map_err(verify)?,
        };
        let issuer = reader.key("issuer key").map_err(verify)?;
        let chain = reader.long("chain", MEMBERSHIP_MAX_LEN).map_err(verify)?;
        let chain = if chain.is_empty() {
            None
        } else {
            Some(Box::new(Membership::parse_within(chain, depth)?))
        };
        Ok(Self {
            cluster,
            key,
            terms,
            issuer,
            chain,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// Names the invite in a [`RevocationList`](crate::revocation::RevocationList).
    #[must_use]
    pub fn id(&self) -> InviteId {
        let full = blake3::derive_key("vmdt 1.1 invite id", self.key.as_octets());
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(full) {
            *to = from;
        }
        InviteId(id)
    }

    /// The cluster that it invites to.
    #[must_use]
    pub const fn cluster(&self) -> ClusterHash {
        self.cluster
    }

    /// The public half of the key that signs memberships.
    #[must_use]
    pub const fn key(&self) -> PublicIdentity {
        self.key
    }

    /// What it allows.
    #[must_use]
    pub const fn terms(&self) -> &InviteTerms {
        &self.terms
    }

    /// Who issued it.
    #[must_use]
    pub const fn issuer(&self) -> PublicIdentity {
        self.issuer
    }

    /// The issuer's own membership, unless the issuer is the root.
    #[must_use]
    pub fn chain(&self) -> Option<&Membership> {
        self.chain.as_deref()
    }

    /// Who is at the beginning of the chain: the creator, if the invite is genuine.
    #[must_use]
    pub fn root(&self) -> PublicIdentity {
        self.chain
            .as_ref()
            .map_or(self.issuer, |chain| chain.root())
    }

    /// Invites from the root to this one, it included; 1 to [`MAX_CHAIN`].
    #[must_use]
    pub fn depth(&self) -> usize {
        1 + self.chain.as_ref().map_or(0, |chain| chain.depth())
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }

    pub(crate) fn signature(&self) -> [u8; 64] {
        self.octets.last_chunk().copied().unwrap_or([0; 64])
    }
}
