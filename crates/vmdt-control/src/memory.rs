//! What a member knows of a cluster, to be kept for its next run.
//!
//! Almost all of it was signed by somebody: it is checked again when it is recalled, and whoever
//! changes it can take members away and point at wrong addresses, but make nobody a member.
//! It holds no secret; it says who is in the cluster and where they were.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use thiserror::Error;
use vmdt_wire::{Caps, ClusterId, ClusterInfo, ClusterOptions, NodeId};

use crate::record::{filled, parsed, put, put_caps, take, take_caps, take_u16};

/// What the octets begin with; the last one is the layout's version.
const MAGIC: &[u8] = b"vmdt cluster\x01";
/// The most members that are read, as many as a member remembers by default.
const MAX_MEMBERS: usize = 4_096;

/// Why a cluster can't be recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// It is damaged, or was written by something else.
    #[error("this is no memory of a cluster, or a damaged one; join the cluster with a ticket")]
    Unreadable,
    /// It is another member's.
    #[error(
        "it is the memory of {owner}, and this is {local}; use the identity that it was made with"
    )]
    OtherMember {
        /// Whose it is.
        owner: NodeId,
        /// Who this is.
        local: NodeId,
    },
    /// The membership in it does not count in the cluster, or not any more.
    #[error("{local} is no member of cluster {cluster}; join it with a new ticket")]
    NotAMember {
        /// Who this is.
        local: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// The member was stopped.
    #[error("the member was stopped")]
    Stopped,
}

/// What a member knows of a cluster that has a descriptor: everything that it takes to reach the
/// others, so that its next run need not wait for a server. Made by
/// [`Member::memory`](crate::Member::memory), used by [`Member::recall`](crate::Member::recall).
///
/// No secret is in it, but who is in the cluster and where they were last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMemory {
    pub(crate) cluster: ClusterId,
    pub(crate) info: Option<ClusterInfo>,
    pub(crate) been_ready: bool,
    /// Our own membership.
    pub(crate) own: Bytes,
    pub(crate) descriptor: Bytes,
    /// Who was removed.
    pub(crate) list: Option<Bytes>,
    pub(crate) members: Vec<RememberedMember>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RememberedMember {
    pub(crate) id: NodeId,
    pub(crate) present: bool,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) caps: Option<Caps>,
    pub(crate) membership: Bytes,
    pub(crate) profile: Option<Bytes>,
}

impl ClusterMemory {
    /// The cluster that it is of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The other members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().map(|member| member.id)
    }

    /// Whether it says of each of the other members where it was and what to seal messages to it to.
    /// That comes a moment after the members: a memory that is not complete is of use for the others.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let known = |m: &RememberedMember| m.address.is_some() && m.profile.is_some();
        self.members.iter().all(known)
    }

    /// As octets, for a file. They are no secret, but they say who is in the cluster, and where.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = MAGIC.to_vec();
        put(&mut out, self.cluster.as_str().as_bytes());
        let open = self.info.is_some_and(|info| info.options.open_peers);
        let flags = u8::from(self.info.is_some()) | u8::from(self.been_ready) << 1;
        out.push(flags | u8::from(open) << 2);
        if let Some(info) = &self.info {
            let max = info.options.max_members.unwrap_or(0);
            for number in [info.n, info.k, max] {
                out.extend(number.to_be_bytes());
            }
        }
        put(&mut out, &self.own);
        put(&mut out, &self.descriptor);
        put(&mut out, self.list.as_deref().unwrap_or_default());
        for member in &self.members {
            put(&mut out, member.id.as_str().as_bytes());
            out.push(u8::from(member.present));
            out.push(put_caps(member.caps));
            put_address(&mut out, member.address);
            put(&mut out, &member.membership);
            put(&mut out, member.profile.as_deref().unwrap_or_default());
        }
        out.into()
    }

    /// Reads what [`encode`](Self::encode) has written. Whether what is in it counts is found out
    /// when it is recalled.
    ///
    /// # Errors
    /// [`MemoryError::Unreadable`].
    pub fn parse(octets: &[u8]) -> Result<ClusterMemory, MemoryError> {
        ClusterMemory::read(octets).ok_or(MemoryError::Unreadable)
    }

    fn read(octets: &[u8]) -> Option<ClusterMemory> {
        let mut rest = octets.strip_prefix(MAGIC)?;
        let cluster = word(&mut rest)?;
        let flags = octet(&mut rest).filter(|flags| *flags < 8)?;
        let mut info = None;
        if flags & 1 != 0 {
            let (n, k) = (take_u16(&mut rest)?, take_u16(&mut rest)?);
            let max = take_u16(&mut rest)?;
            let options = ClusterOptions {
                open_peers: flags & 4 != 0,
                max_members: (max != 0).then_some(max),
            };
            let sane = (2..=255).contains(&n) && (2..=n).contains(&k);
            info = Some(ClusterInfo { n, k, options }).filter(|_| sane);
            info?;
        }
        let own = Bytes::copy_from_slice(take(&mut rest)?);
        let descriptor = Bytes::copy_from_slice(take(&mut rest)?);
        let list = filled(take(&mut rest)?);
        let mut members = Vec::new();
        while !rest.is_empty() {
            if members.len() == MAX_MEMBERS {
                return None;
            }
            let id = word(&mut rest)?;
            let present = octet(&mut rest).filter(|present| *present < 2)? == 1;
            let caps = take_caps(octet(&mut rest)?)?;
            let address = take_address(&mut rest)?;
            let membership = Bytes::copy_from_slice(take(&mut rest)?);
            let profile = filled(take(&mut rest)?);
            members.push(RememberedMember {
                id,
                present,
                address,
                caps,
                membership,
                profile,
            });
        }
        Some(ClusterMemory {
            cluster,
            info,
            been_ready: flags & 2 != 0,
            own,
            descriptor,
            list,
            members,
        })
    }
}

fn octet(rest: &mut &[u8]) -> Option<u8> {
    let (&octet, after) = rest.split_first()?;
    *rest = after;
    Some(octet)
}

fn word<T: std::str::FromStr>(rest: &mut &[u8]) -> Option<T> {
    parsed(std::str::from_utf8(take(rest)?).ok()?)
}

/// Port and IP address; no address has no octets.
fn put_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    out.extend(address.map_or(0, |at| at.port()).to_be_bytes());
    match address.map(|at| at.ip()) {
        Some(IpAddr::V4(ip)) => put(out, &ip.octets()),
        Some(IpAddr::V6(ip)) => put(out, &ip.octets()),
        None => put(out, &[]),
    }
}

/// `None`: it can't be read.
fn take_address(rest: &mut &[u8]) -> Option<Option<SocketAddr>> {
    let port = take_u16(rest)?;
    let ip = take(rest)?;
    if let Ok(v4) = <[u8; 4]>::try_from(ip) {
        return Some(Some(SocketAddr::from((v4, port))));
    }
    if let Ok(v6) = <[u8; 16]>::try_from(ip) {
        return Some(Some(SocketAddr::from((v6, port))));
    }
    (ip.is_empty() && port == 0).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, address: Option<&str>) -> RememberedMember {
        RememberedMember {
            id: id.parse().unwrap(),
            present: address.is_some(),
            address: address.map(|at| at.parse().unwrap()),
            caps: Some(Caps::RDT),
            membership: Bytes::from_static(b"membership"),
            profile: address.map(|_| Bytes::from_static(b"profile")),
        }
    }

    fn memory() -> ClusterMemory {
        ClusterMemory {
            cluster: "c1".parse().unwrap(),
            info: Some(ClusterInfo {
                n: 6,
                k: 3,
                options: ClusterOptions {
                    open_peers: false,
                    max_members: Some(9),
                },
            }),
            been_ready: true,
            own: Bytes::from_static(b"own"),
            descriptor: Bytes::from_static(b"descriptor"),
            list: None,
            members: vec![
                member("alice", Some("192.0.2.1:9000")),
                member("bob", Some("[2001:db8::1]:9000")),
                member("carol", None),
            ],
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_is_cut_is_refused() {
        let other = ClusterMemory {
            info: None,
            been_ready: false,
            list: Some(Bytes::from_static(b"list")),
            ..memory()
        };
        assert_eq!(ClusterMemory::parse(&other.encode()), Ok(other));
        let octets = memory().encode();
        assert_eq!(ClusterMemory::parse(&octets), Ok(memory()));
        // a cut between two members can't be seen: a file is written whole or not at all
        let without = |count: usize| {
            let mut fewer = memory();
            fewer.members.truncate(count);
            fewer.encode().len()
        };
        let between = [without(0), without(1), without(2), octets.len()];
        for len in (0..octets.len()).filter(|len| !between.contains(len)) {
            let cut = ClusterMemory::parse(&octets[..len]);
            assert_eq!(cut, Err(MemoryError::Unreadable), "{len}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let mut bad = memory();
        bad.info = bad.info.map(|info| ClusterInfo { k: 7, ..info });
        assert!(ClusterMemory::parse(&bad.encode()).is_err());
        let longer = [&memory().encode()[..], &[0]].concat();
        assert!(ClusterMemory::parse(&longer).is_err());
        assert!(ClusterMemory::parse(b"").is_err());
        let mut many = memory();
        many.members = vec![member("alice", None); MAX_MEMBERS + 1];
        assert!(ClusterMemory::parse(&many.encode()).is_err());
    }
}
