//! Revocation lists: who is out, and which invites are void.

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::codec::{self, Reader};
use crate::descriptor::ClusterHash;
use crate::error::{BuildError, ParseError, VerifyError};
use crate::identity::{PublicIdentity, SecretIdentity};
use crate::invite::InviteId;
use crate::profile::at_most;
use crate::receipt::finish;

/// Entries of a list at most, all three kinds together, so that it fits a control line.
pub const MAX_ENTRIES: usize = 240;

/// What a revocation list says. Lists are cumulative: the newest holds all that is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationDetails {
    /// The cluster.
    pub cluster: ClusterHash,
    /// The higher of two counts.
    pub version: u64,
    /// Who is no longer a member. Whoever joined through an invite that one of them issued is out
    /// too, unless kept.
    pub removed: Vec<NodeId>,
    /// Invites that are void. Whoever joined with one is out, unless kept: a leaked invite can
    /// sign any date.
    pub invites: Vec<InviteId>,
    /// Who stays in spite of a void invite or a removed issuer.
    pub kept: Vec<NodeId>,
}

/// The creator's word on who is out.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `X`, format 1 |
/// | 16 | cluster hash |
/// | 8 | version |
/// | 32 | creator's identity key |
/// | 1 + 16 r | number and ids of the removed nodes |
/// | 1 + 16 i | number and ids of the void invites |
/// | 1 + 16 k | number and ids of the kept nodes |
/// | 64 | creator's signature over all before, context `vmdt 1.1 revocation` |
///
/// Each of the three ascends, and they have at most [`MAX_ENTRIES`] entries together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    details: RevocationDetails,
    signer: PublicIdentity,
    octets: Bytes,
}

impl RevocationList {
    /// Signs a list. The order of the entries does not matter.
    ///
    /// # Errors
    /// More than [`MAX_ENTRIES`] entries.
    pub fn sign(creator: &SecretIdentity, details: &RevocationDetails) -> Result<Self, BuildError> {
        let mut details = details.clone();
        for ids in [&mut details.removed, &mut details.kept] {
            ids.sort_unstable();
            ids.dedup();
        }
        details.invites.sort_unstable();
        details.invites.dedup();
        let entries = details.removed.len() + details.invites.len() + details.kept.len();
        at_most("revocation list", entries, MAX_ENTRIES)?;
        let mut out = codec::begin(codec::REVOCATION, 160 + 16 * entries);
        out.extend_from_slice(&details.cluster.0);
        out.extend_from_slice(&details.version.to_be_bytes());
        out.extend_from_slice(creator.public().as_octets());
        let nodes = |ids: &[NodeId]| ids.iter().map(NodeId::field).collect::<Vec<_>>();
        let invites = details.invites.iter().map(|id| id.0).collect();
        for list in [nodes(&details.removed), invites, nodes(&details.kept)] {
            out.push(u8::try_from(list.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(list.as_flattened());
        }
        creator.sign_onto(codec::REVOCATION, &mut out);
        Ok(Self {
            details,
            signer: creator.public(),
            octets: out.into(),
        })
    }

    /// Reads a list and checks its signature. Whether [`RevocationList::signer`] is the cluster's
    /// creator says [`ClusterTrust`](crate::trust::ClusterTrust).
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::REVOCATION)?;
        let cluster = ClusterHash(reader.array("cluster")?);
        let version = reader.u64("version")?;
        let signer = reader.key("creator key")?;
        let mut room = MAX_ENTRIES;
        let removed = read_list(&mut reader, "removed", &mut room, |reader| {
            reader.node_id("removed")
        })?;
        let invites = read_list(&mut reader, "invites", &mut room, |reader| {
            reader.array("invites").map(InviteId)
        })?;
        let kept = read_list(&mut reader, "kept", &mut room, |reader| {
            reader.node_id("kept")
        })?;
        finish(reader, octets, codec::REVOCATION, signer, "the creator")?;
        Ok(Self {
            details: RevocationDetails {
                cluster,
                version,
                removed,
                invites,
                kept,
            },
            signer,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// What the list says, entries ascending.
    #[must_use]
    pub const fn details(&self) -> &RevocationDetails {
        &self.details
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterHash {
        self.details.cluster
    }

    /// The version: the higher of two counts.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.details.version
    }

    /// Who signed.
    #[must_use]
    pub const fn signer(&self) -> PublicIdentity {
        self.signer
    }

    /// Whether this list replaces another: same cluster and signer, higher version.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.cluster() == other.cluster()
            && self.signer == other.signer
            && self.version() > other.version()
    }

    pub(crate) fn removes(&self, node: NodeId) -> bool {
        self.details.removed.binary_search(&node).is_ok()
    }

    pub(crate) fn voids(&self, invite: InviteId) -> bool {
        self.details.invites.binary_search(&invite).is_ok()
    }

    pub(crate) fn keeps(&self, node: NodeId) -> bool {
        self.details.kept.binary_search(&node).is_ok()
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

fn read_list<T: Ord>(
    reader: &mut Reader<'_>,
    field: &'static str,
    room: &mut usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T, ParseError>,
) -> Result<Vec<T>, ParseError> {
    let count = reader.count(field, *room)?;
    *room -= count;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = reader.offset();
        let entry = read(reader)?;
        if list.last().is_some_and(|last| *last >= entry) {
            return Err(ParseError::Order { field, offset });
        }
        list.push(entry);
    }
    Ok(list)
}
