//! Memberships: who belongs to a cluster, through which invite.

use bytes::Bytes;
use thiserror::Error;
use vmdt_wire::NodeId;

use crate::codec::{self, Reader};
use crate::descriptor::{ClusterHash, Descriptor};
use crate::error::{ParseError, VerifyError};
use crate::identity::{PublicIdentity, SecretIdentity};
use crate::invite::{
    INVITE_FIXED, Invite, InviteSecret, MAX_CHAIN, MEMBERSHIP_FIXED, MEMBERSHIP_MAX_LEN, Rights,
};
use crate::receipt::finish;
use crate::rotation::{ROTATION_LEN, Rotation};

/// Changes of key that may follow a membership.
pub const MAX_CHANGES: usize = 8;
/// Where the length of the invite stands.
const INVITE_LEN_AT: usize = 2 + 16 + 32 + 8;

/// Why a membership or invite is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// Malformed octets, or a signature that is not right.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// More than [`MAX_CHAIN`] invites.
    #[error("the chain of invites is longer than {MAX_CHAIN}")]
    ChainTooLong,
    /// A certificate in the chain is of another cluster or of another member than the one behind
    /// it says.
    #[error("the chain of invites does not hang together")]
    BrokenChain,
    /// An issuer had no right to invite, or gave more rights than it had.
    #[error("an invite gives rights that its issuer did not have")]
    Rights,
    /// The secret is not that of the invite.
    #[error("the secret is not that of the invite")]
    OtherSecret,
    /// The changes of key behind a membership do not begin with its member's key, do not follow
    /// each other, come back to a key, or are more than [`MAX_CHANGES`].
    #[error("the changes of key behind the membership do not hang together")]
    Changes,
}

/// The certificate of a member: signed by the key of the invite that it joined with. A value of
/// this type has right signatures up to [`Membership::root`]; whether that is the cluster's
/// creator, and nothing is revoked, says [`ClusterTrust`](crate::trust::ClusterTrust).
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `M`, format 1 |
/// | 16 | cluster hash |
/// | 32 | member's identity key |
/// | 8 | when, milliseconds since 1970 |
/// | 2 + n | length and [`Invite`]; nothing for the creator itself |
/// | 64 | signature over all before, context `vmdt 1.1 membership`: of the invite's key, or the creator's |
/// | 202 each | changes of the member's key ([`Rotation`]), the first one first, up to [`MAX_CHANGES`] |
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::invite::{Invite, InviteTerms, Rights};
/// use vmdt_seal::membership::Membership;
/// use vmdt_seal::trust::ClusterTrust;
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let alice = SecretIdentity::generate(&mut rng);
/// let details = DescriptorDetails { k: 2, n: 3, options: 0, name: String::new(), created_ms: 1 };
/// let descriptor = Descriptor::sign(&alice, &details, &mut rng)?;
/// let terms = InviteTerms { rights: Rights::MEMBER, expires_ms: 5_000, max_uses: 0 };
/// let (invite, secret) = Invite::issue(&alice, None, &descriptor, &terms, &mut rng)?;
///
/// let bob = SecretIdentity::generate(&mut rng);
/// let membership = Membership::accept(&invite, &secret, bob.public(), 2_000)?;
///
/// let mut trust = ClusterTrust::new(descriptor);
/// trust.admit(&Membership::parse(membership.octets())?)?;
/// assert_eq!(trust.rights(bob.node_id()), Some(Rights::MEMBER));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    cluster: ClusterHash,
    member: PublicIdentity,
    when_ms: u64,
    invite: Option<Invite>,
    changes: Vec<Rotation>,
    octets: Bytes,
}

impl Membership {
    /// The creator's own membership.
    ///
    /// # Errors
    /// [`MembershipError::BrokenChain`] when the identity is not the creator's.
    pub fn of_creator(
        creator: &SecretIdentity,
        descriptor: &Descriptor,
        when_ms: u64,
    ) -> Result<Self, MembershipError> {
        if creator.public() != descriptor.creator() {
            return Err(MembershipError::BrokenChain);
        }
        Ok(Self::signed(
            creator,
            descriptor.hash(),
            creator.public(),
            when_ms,
            None,
        ))
    }

    /// Makes `joiner` a member with the secret of an invite.
    ///
    /// # Errors
    /// [`MembershipError::OtherSecret`].
    pub fn accept(
        invite: &Invite,
        secret: &InviteSecret,
        joiner: PublicIdentity,
        when_ms: u64,
    ) -> Result<Self, MembershipError> {
        let key = secret.key();
        if key.public() != invite.key() {
            return Err(MembershipError::OtherSecret);
        }
        Ok(Self::signed(
            &key,
            invite.cluster(),
            joiner,
            when_ms,
            Some(invite),
        ))
    }

    fn signed(
        key: &SecretIdentity,
        cluster: ClusterHash,
        member: PublicIdentity,
        when_ms: u64,
        invite: Option<&Invite>,
    ) -> Self {
        let invite_octets = invite.map_or(&[][..], |invite| invite.octets().as_ref());
        let capacity = MEMBERSHIP_FIXED + INVITE_FIXED + invite_octets.len();
        let mut out = codec::begin(codec::MEMBERSHIP, capacity);
        out.extend_from_slice(&cluster.0);
        out.extend_from_slice(member.as_octets());
        out.extend_from_slice(&when_ms.to_be_bytes());
        codec::put_long(&mut out, invite_octets);
        key.sign_onto(codec::MEMBERSHIP, &mut out);
        Self {
            cluster,
            member,
            when_ms,
            invite: invite.cloned(),
            changes: Vec::new(),
            octets: out.into(),
        }
    }

    /// Reads a membership and checks every signature and right in it, up to its root.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn parse(octets: &[u8]) -> Result<Self, MembershipError> {
        let invite = octets
            .get(INVITE_LEN_AT..INVITE_LEN_AT + 2)
            .and_then(|len| len.try_into().ok())
            .map_or(0, |len| usize::from(u16::from_be_bytes(len)));
        let Some((certificate, changes)) = octets.split_at_checked(MEMBERSHIP_FIXED + invite)
        else {
            return Self::parse_within(octets, MAX_CHAIN);
        };
        if changes.len() > MAX_CHANGES * ROTATION_LEN {
            return Err(MembershipError::Changes);
        }
        let mut membership = Self::parse_within(certificate, MAX_CHAIN)?;
        for change in changes.chunks(ROTATION_LEN) {
            membership = membership.with_change(&Rotation::parse(change)?)?;
        }
        Ok(membership)
    }

    /// The same membership under the key that its member has changed to.
    ///
    /// # Errors
    /// [`MembershipError::Changes`].
    pub fn with_change(mut self, change: &Rotation) -> Result<Self, MembershipError> {
        let new = change.new_key();
        let before = new == self.member || self.changes.iter().any(|c| c.new_key() == new);
        if change.old_key() != self.member() || before || self.changes.len() >= MAX_CHANGES {
            return Err(MembershipError::Changes);
        }
        self.octets = [&self.octets[..], &change.octets()[..]].concat().into();
        self.changes.push(change.clone());
        Ok(self)
    }

    pub(crate) fn parse_within(octets: &[u8], depth: usize) -> Result<Self, MembershipError> {
        let verify = |error: ParseError| VerifyError::from(error);
        let mut reader = Reader::new(octets);
        reader.head(codec::MEMBERSHIP).map_err(verify)?;
        let cluster = ClusterHash(reader.array("cluster").map_err(verify)?);
        let member = reader.key("member key").map_err(verify)?;
        let when_ms = reader.u64("when").map_err(verify)?;
        let invite = reader.long("invite", MEMBERSHIP_MAX_LEN).map_err(verify)?;
        let invite = if invite.is_empty() {
            None
        } else {
            Some(Invite::parse_within(invite, depth)?)
        };
        let (key, signer) = match &invite {
            Some(invite) => (invite.key(), "the invite's key"),
            None => (member, "the creator"),
        };
        finish(reader, octets, codec::MEMBERSHIP, key, signer)?;
        if invite
            .as_ref()
            .is_some_and(|invite| invite.cluster() != cluster)
        {
            return Err(MembershipError::BrokenChain);
        }
        Ok(Self {
            cluster,
            member,
            when_ms,
            invite,
            changes: Vec::new(),
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterHash {
        self.cluster
    }

    /// Who is a member, by the key it has now.
    #[must_use]
    pub fn member(&self) -> PublicIdentity {
        self.changes.last().map_or(self.member, Rotation::new_key)
    }

    /// The id of the member, by the key it has now.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.member().node_id()
    }

    /// The key that it joined with.
    #[must_use]
    pub const fn first_key(&self) -> PublicIdentity {
        self.member
    }

    /// Its changes of key since, the first one first.
    #[must_use]
    pub fn changes(&self) -> &[Rotation] {
        &self.changes
    }

    /// When it joined, in milliseconds since 1970, by its own clock: who has an invite's secret
    /// can write any time.
    #[must_use]
    pub const fn when_ms(&self) -> u64 {
        self.when_ms
    }

    /// The invite that it joined with; `None` for the creator.
    #[must_use]
    pub const fn invite(&self) -> Option<&Invite> {
        self.invite.as_ref()
    }

    /// What the member may do.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.invite
            .as_ref()
            .map_or(Rights::ALL, |invite| invite.terms().rights)
    }

    /// Who is at the beginning of the chain: the creator, if the membership is genuine.
    #[must_use]
    pub fn root(&self) -> PublicIdentity {
        self.invite.as_ref().map_or(self.member, Invite::root)
    }

    /// Invites between the root and the member; 0 for the creator, at most [`MAX_CHAIN`].
    #[must_use]
    pub fn depth(&self) -> usize {
        self.invite.as_ref().map_or(0, Invite::depth)
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}
