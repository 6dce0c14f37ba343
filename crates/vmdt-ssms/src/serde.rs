//! Serialisation of what is public: thresholds, party ids, manifests. Key shares, keys and shares
//! have none, so that no secret ends in a log or a configuration by way of a derive.

use core::fmt;

use alloc::vec::Vec;

use ::serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use ::serde::ser::{Serialize, Serializer};

use crate::params::Threshold;
use crate::v2::{MANIFEST_MAX_LEN, Manifest, PARTY_ID_MAX, PartyId, SignedManifest};

impl Serialize for Threshold {
    /// As the pair (k, n).
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.k(), self.n()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Threshold, D::Error> {
        let (k, n) = Deserialize::deserialize(deserializer)?;
        Threshold::new(k, n).map_err(D::Error::custom)
    }
}

impl Serialize for PartyId {
    /// As octets.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for PartyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PartyId, D::Error> {
        let octets = deserializer.deserialize_bytes(Octets::<PARTY_ID_MAX>)?;
        PartyId::new(&octets).map_err(D::Error::custom)
    }
}

impl Serialize for Manifest {
    /// As the octets of its encoding.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for Manifest {
    /// Nothing is verified: see [`Manifest::parse_unverified`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Manifest, D::Error> {
        let octets = deserializer.deserialize_bytes(Octets::<MANIFEST_MAX_LEN>)?;
        Manifest::parse_unverified(&octets).map_err(D::Error::custom)
    }
}

impl Serialize for SignedManifest {
    /// As the octets of its encoding, which [`SignedManifest::verify`] reads.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

/// Octets in whatever form the format has them, at most `MAX` of them.
struct Octets<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for Octets<MAX> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} octets")
    }

    fn visit_bytes<E: Error>(self, octets: &[u8]) -> Result<Vec<u8>, E> {
        if octets.len() > MAX {
            return Err(E::invalid_length(octets.len(), &self));
        }
        Ok(octets.to_vec())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        let mut octets = Vec::new();
        while let Some(octet) = seq.next_element()? {
            if octets.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            octets.push(octet);
        }
        Ok(octets)
    }
}
