//! What survives a restart of the server, as records for a store.
//!
//! A record is a key with a value, or without one when the key is to be
//! forgotten. Writing the records that [`Registry::poll_record`] gives, in one
//! transaction before the outputs that came with them are sent, and giving all of
//! them back to [`Registry::restore`] after a restart loses no cluster.
//!
//! What is not kept: code numbers, relay accounts, and, unless several servers share
//! their state, who is connected and from where.
//!
//! [`Registry::poll_record`]: crate::Registry::poll_record
//! [`Registry::restore`]: crate::Registry::restore

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU16;

use bytes::Bytes;
use thiserror::Error;
use vmdt_wire::{Caps, ClusterId, NodeId};

/// The version of the values' layout, their first octet.
const VERSION: u8 = 1;

/// One change of the state to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub key: RecordKey,
    /// Its new value, or `None` when it is gone.
    pub value: Option<Bytes>,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RecordKey {
    /// A cluster: threshold, options, descriptor, removed members.
    Cluster(ClusterId),
    /// A member's place in a cluster.
    Place(ClusterId, NodeId),
    /// A client's profile.
    Profile(NodeId),
    /// Where a client is connected, among servers that share their state. It goes
    /// with the server that wrote it: whoever keeps it forgets it when that ends.
    Presence(NodeId),
}

/// Octets that are no key or no value of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the {what} of a record cannot be read")]
pub struct RecordError {
    /// Which part of the record.
    pub what: &'static str,
}

impl RecordKey {
    /// The key for a store that sorts by octets: all of one cluster stands
    /// together. At most 83 octets of printable ASCII.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            RecordKey::Cluster(cluster) => format!("c/{cluster}"),
            RecordKey::Place(cluster, id) => format!("m/{cluster}/{id}"),
            RecordKey::Profile(id) => format!("p/{id}"),
            RecordKey::Presence(id) => format!("s/{id}"),
        }
    }

    /// Reads what [`RecordKey::to_text`] has written.
    ///
    /// # Errors
    /// It was written by something else.
    pub fn parse(text: &str) -> Result<RecordKey, RecordError> {
        let bad = RecordError { what: "key" };
        let mut parts = text.split('/');
        let key = match (parts.next(), parts.next(), parts.next()) {
            (Some("c"), Some(cluster), None) => RecordKey::Cluster(parsed(cluster).ok_or(bad)?),
            (Some("m"), Some(cluster), Some(id)) => {
                RecordKey::Place(parsed(cluster).ok_or(bad)?, parsed(id).ok_or(bad)?)
            }
            (Some("p"), Some(id), None) => RecordKey::Profile(parsed(id).ok_or(bad)?),
            (Some("s"), Some(id), None) => RecordKey::Presence(parsed(id).ok_or(bad)?),
            _ => return Err(bad),
        };
        match parts.next() {
            None => Ok(key),
            Some(_) => Err(bad),
        }
    }
}

pub(crate) fn parsed<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// What [`Registry::restore`](crate::Registry::restore) has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Restored {
    /// Clusters that exist again.
    pub clusters: usize,
    /// Places that members may resume.
    pub places: usize,
    /// Profiles.
    pub profiles: usize,
    /// Records that could not be read or that belong to nothing.
    pub skipped: usize,
}

/// A cluster's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterValue {
    pub(crate) creator: NodeId,
    pub(crate) n: u16,
    pub(crate) k: u16,
    pub(crate) max: u16,
    pub(crate) open: bool,
    pub(crate) been_ready: bool,
    pub(crate) descriptor: Option<Bytes>,
    pub(crate) list: Option<Bytes>,
}

impl ClusterValue {
    pub(crate) fn encode(&self) -> Bytes {
        let flags = u8::from(self.open) | u8::from(self.been_ready) << 1;
        let mut out = vec![VERSION, flags];
        for number in [self.n, self.k, self.max] {
            out.extend(number.to_be_bytes());
        }
        put(&mut out, self.creator.as_str().as_bytes());
        put(&mut out, self.descriptor.as_deref().unwrap_or_default());
        put(&mut out, self.list.as_deref().unwrap_or_default());
        out.into()
    }

    pub(crate) fn parse(octets: &[u8]) -> Result<ClusterValue, RecordError> {
        let bad = RecordError { what: "value" };
        let mut rest = octets.strip_prefix(&[VERSION]).ok_or(bad)?;
        let (&flags, after) = rest.split_first().ok_or(bad)?;
        rest = after;
        let n = take_u16(&mut rest).ok_or(bad)?;
        let k = take_u16(&mut rest).ok_or(bad)?;
        let max = take_u16(&mut rest).ok_or(bad)?;
        let creator = take(&mut rest).ok_or(bad)?;
        let creator = std::str::from_utf8(creator).ok().and_then(parsed);
        let descriptor = take(&mut rest).ok_or(bad)?;
        let list = take(&mut rest).ok_or(bad)?;
        let sane = rest.is_empty() && flags < 4 && (2..=255).contains(&n) && (2..=n).contains(&k);
        if !sane {
            return Err(bad);
        }
        Ok(ClusterValue {
            creator: creator.ok_or(bad)?,
            n,
            k,
            max,
            open: flags & 1 != 0,
            been_ready: flags & 2 != 0,
            descriptor: filled(descriptor),
            list: filled(list),
        })
    }
}

/// A place's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlaceValue {
    pub(crate) caps: Option<Caps>,
    pub(crate) membership: Option<Bytes>,
}

impl PlaceValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, put_caps(self.caps)];
        put(&mut out, self.membership.as_deref().unwrap_or_default());
        out.into()
    }

    pub(crate) fn parse(octets: &[u8]) -> Result<PlaceValue, RecordError> {
        let bad = RecordError { what: "value" };
        let rest = octets.strip_prefix(&[VERSION]).ok_or(bad)?;
        let (&caps, mut rest) = rest.split_first().ok_or(bad)?;
        let membership = take(&mut rest).ok_or(bad)?;
        let caps = take_caps(caps).ok_or(bad)?;
        if !rest.is_empty() {
            return Err(bad);
        }
        Ok(PlaceValue {
            caps,
            membership: filled(membership),
        })
    }
}

/// A connected client's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresenceValue {
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<NonZeroU16>,
    pub(crate) caps: Option<Caps>,
    /// The clusters in which its place is present.
    pub(crate) present: BTreeSet<ClusterId>,
}

impl PresenceValue {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, put_caps(self.caps)];
        out.extend(self.port.map_or(0, NonZeroU16::get).to_be_bytes());
        match self.ip {
            IpAddr::V4(ip) => put(&mut out, &ip.octets()),
            IpAddr::V6(ip) => put(&mut out, &ip.octets()),
        }
        for cluster in &self.present {
            put(&mut out, cluster.as_str().as_bytes());
        }
        out.into()
    }

    pub(crate) fn parse(octets: &[u8]) -> Result<PresenceValue, RecordError> {
        let bad = RecordError { what: "value" };
        let rest = octets.strip_prefix(&[VERSION]).ok_or(bad)?;
        let (&caps, mut rest) = rest.split_first().ok_or(bad)?;
        let caps = take_caps(caps).ok_or(bad)?;
        let port = NonZeroU16::new(take_u16(&mut rest).ok_or(bad)?);
        let ip = take(&mut rest).ok_or(bad)?;
        let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(v4), _) => IpAddr::from(v4),
            (_, Ok(v6)) => IpAddr::from(v6),
            _ => return Err(bad),
        };
        let mut present = BTreeSet::new();
        while !rest.is_empty() {
            let cluster = take(&mut rest).ok_or(bad)?;
            let cluster = std::str::from_utf8(cluster).ok().and_then(parsed);
            present.insert(cluster.ok_or(bad)?);
        }
        Ok(PresenceValue {
            ip,
            port,
            caps,
            present,
        })
    }
}

pub(crate) fn put_caps(caps: Option<Caps>) -> u8 {
    match caps {
        None => 0,
        Some(caps) if caps.contains(Caps::RDT) => 2,
        Some(_) => 1,
    }
}

/// `None`: there are no such capabilities.
pub(crate) fn take_caps(octet: u8) -> Option<Option<Caps>> {
    match octet {
        0 => Some(None),
        1 => Some(Some(Caps::NONE)),
        2 => Some(Some(Caps::RDT)),
        _ => None,
    }
}

pub(crate) fn filled(octets: &[u8]) -> Option<Bytes> {
    (!octets.is_empty()).then(|| Bytes::copy_from_slice(octets))
}

/// Appends octets behind their length. What is longer than a control line's
/// parameters are does not occur.
pub(crate) fn put(out: &mut Vec<u8>, octets: &[u8]) {
    let len = u16::try_from(octets.len()).unwrap_or(0);
    out.extend(len.to_be_bytes());
    out.extend(octets.iter().take(usize::from(len)));
}

pub(crate) fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

pub(crate) fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::from(take_u16(rest)?);
    let (octets, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> ClusterValue {
        ClusterValue {
            creator: "alice".parse().unwrap(),
            n: 5,
            k: 3,
            max: 6,
            open: true,
            been_ready: true,
            descriptor: Some(Bytes::from_static(b"descriptor")),
            list: None,
        }
    }

    #[test]
    fn keys_come_back_and_others_are_refused() {
        let keys = [
            RecordKey::Cluster("c1".parse().unwrap()),
            RecordKey::Place("c1".parse().unwrap(), "@AbCdEfGhIjKlMn0".parse().unwrap()),
            RecordKey::Profile("alice".parse().unwrap()),
            RecordKey::Presence("alice".parse().unwrap()),
        ];
        for key in keys {
            assert_eq!(RecordKey::parse(&key.to_text()), Ok(key));
        }
        for text in ["", "c", "c/", "c/a/b", "m/a", "m/a/b/c", "x/a", "p/a b"] {
            assert!(RecordKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_come_back_and_damaged_ones_are_refused() {
        let place = PlaceValue {
            caps: Some(Caps::RDT),
            membership: Some(Bytes::from_static(b"membership")),
        };
        assert_eq!(PlaceValue::parse(&place.encode()), Ok(place.clone()));
        assert_eq!(ClusterValue::parse(&value().encode()), Ok(value()));
        for len in 0..value().encode().len() {
            assert!(ClusterValue::parse(&value().encode()[..len]).is_err());
        }
        for len in 0..place.encode().len() {
            assert!(PlaceValue::parse(&place.encode()[..len]).is_err());
        }
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let presence = PresenceValue {
                ip: ip.parse().unwrap(),
                port: NonZeroU16::new(9_000),
                caps: Some(Caps::NONE),
                present: ["c1", "c2"].map(|c| c.parse().unwrap()).into(),
            };
            let octets = presence.encode();
            assert_eq!(PresenceValue::parse(&octets), Ok(presence));
            // A cut between two clusters cannot be seen: the store gives values whole.
            let last = octets.len() - "xxc2".len();
            for len in (last - "xxc1".len() + 1..octets.len()).filter(|&len| len != last) {
                assert!(PresenceValue::parse(&octets[..len]).is_err(), "{len}");
            }
        }
        let longer = [&value().encode()[..], &[0]].concat();
        assert!(ClusterValue::parse(&longer).is_err());
        let bad = ClusterValue { k: 6, ..value() };
        assert!(ClusterValue::parse(&bad.encode()).is_err());
    }
}
