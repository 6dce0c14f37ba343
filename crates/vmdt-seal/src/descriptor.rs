//! Cluster descriptors: what a cluster is, in a form whose hash is the cluster's id.

use core::fmt;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use rand_core::CryptoRng;
use vmdt_wire::ClusterId;

use crate::codec::{self, Reader};
use crate::error::{BuildError, ParseError, VerifyError};
use crate::identity::{PublicIdentity, SecretIdentity};
use crate::profile::{NAME_MAX_LEN, at_most};
use crate::receipt::finish;

/// Octets of a [`ClusterHash`].
pub const CLUSTER_HASH_LEN: usize = 16;

/// 128 bits of the hash of a descriptor; its text is the cluster's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterHash(pub [u8; CLUSTER_HASH_LEN]);

impl ClusterHash {
    /// The hash that a cluster id is the text of; `None` for an id of profile 1.0.
    #[must_use]
    pub fn of_id(id: ClusterId) -> Option<Self> {
        let octets = BASE64URL_NOPAD.decode(id.as_str().as_bytes()).ok()?;
        octets.try_into().ok().map(Self)
    }

    /// The cluster id: 22 characters of base64url.
    ///
    /// # Errors
    /// None that can occur: every such text is a cluster id.
    pub fn id(&self) -> Result<ClusterId, vmdt_wire::IdError> {
        BASE64URL_NOPAD.encode(&self.0).parse()
    }
}

impl fmt::Display for ClusterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for ClusterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterHash({self})")
    }
}

/// What the creator of a cluster decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorDetails {
    /// Shares needed, at least 2.
    pub k: u8,
    /// Shares made, at least k.
    pub n: u8,
    /// Option bits, the caller's.
    pub options: u32,
    /// What people call the cluster: at most 64 octets of UTF-8 without control characters.
    pub name: String,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What a cluster is. Nobody, its creator included, can change anything in it: its hash is the
/// cluster's id.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `D`, format 1 |
/// | 1 + 1 | k, n |
/// | 4 | options |
/// | 8 | created, milliseconds since 1970 |
/// | 16 | nonce |
/// | 32 | creator's identity key |
/// | 1 + n | length and name, at most 64 |
/// | 64 | creator's signature over all before, context `vmdt 1.1 cluster descriptor` |
///
/// The hash is BLAKE3 in its key derivation mode, context `vmdt 1.1 cluster id`, of all before the
/// signature, cut to 16 octets.
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::descriptor::{Descriptor, DescriptorDetails};
/// use vmdt_seal::identity::SecretIdentity;
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let alice = SecretIdentity::generate(&mut rng);
/// let details = DescriptorDetails { k: 3, n: 5, options: 0, name: "friends".into(), created_ms: 1 };
/// let descriptor = Descriptor::sign(&alice, &details, &mut rng)?;
/// assert_eq!(descriptor.cluster().as_str().len(), 22);
/// let read = Descriptor::parse_of(descriptor.cluster(), descriptor.octets())?;
/// assert_eq!((read.k(), read.n()), (3, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    details: DescriptorDetails,
    creator: PublicIdentity,
    hash: ClusterHash,
    cluster: ClusterId,
    octets: Bytes,
}

impl Descriptor {
    /// Creates a cluster.
    ///
    /// # Errors
    /// Thresholds other than 2 <= k <= n, and a name that is too long or not clean.
    pub fn sign(
        creator: &SecretIdentity,
        details: &DescriptorDetails,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Self, BuildError> {
        if details.k < 2 || details.k > details.n {
            return Err(BuildError::Value {
                field: "k and n",
                reason: "not 2 <= k <= n",
            });
        }
        at_most("name", details.name.len(), NAME_MAX_LEN)?;
        if !codec::is_clean(&details.name) {
            return Err(BuildError::Value {
                field: "name",
                reason: "it has control characters",
            });
        }
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let mut out = codec::begin(codec::DESCRIPTOR, 256);
        out.extend([details.k, details.n]);
        out.extend_from_slice(&details.options.to_be_bytes());
        out.extend_from_slice(&details.created_ms.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(creator.public().as_octets());
        codec::put_short(&mut out, details.name.as_bytes());
        let hash = hash(&out);
        creator.sign_onto(codec::DESCRIPTOR, &mut out);
        Ok(Self {
            details: details.clone(),
            creator: creator.public(),
            hash,
            cluster: hash.id().map_err(|_| BuildError::Value {
                field: "cluster id",
                reason: "not a cluster id",
            })?,
            octets: out.into(),
        })
    }

    /// Reads a descriptor and checks its signature. Which cluster it is of says
    /// [`Descriptor::cluster`]: compare, or use [`Descriptor::parse_of`].
    ///
    /// # Errors
    /// Malformed octets, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let mut reader = Reader::new(octets);
        reader.head(codec::DESCRIPTOR)?;
        let offset = reader.offset();
        let [k, n] = reader.array("k and n")?;
        if k < 2 || k > n {
            return Err(ParseError::Value {
                field: "k and n",
                offset,
                found: u64::from(u16::from_be_bytes([k, n])),
                allowed: "2 <= k <= n",
            }
            .into());
        }
        let options = reader.u32("options")?;
        let created_ms = reader.u64("created")?;
        let _nonce: [u8; 16] = reader.array("nonce")?;
        let creator = reader.key("creator key")?;
        let name = reader.text("name", NAME_MAX_LEN)?.to_owned();
        let hash = hash(octets.get(..reader.offset()).unwrap_or_default());
        finish(reader, octets, codec::DESCRIPTOR, creator, "the creator")?;
        Ok(Self {
            details: DescriptorDetails {
                k,
                n,
                options,
                name,
                created_ms,
            },
            creator,
            hash,
            cluster: hash.id().map_err(|_| ParseError::Text {
                field: "cluster id",
                offset: 0,
            })?,
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// As [`Descriptor::parse`], and refuses the descriptor of another cluster.
    ///
    /// # Errors
    /// Those of [`Descriptor::parse`]; [`ParseError::Value`] of the field `cluster`.
    pub fn parse_of(cluster: ClusterId, octets: &[u8]) -> Result<Self, VerifyError> {
        let descriptor = Self::parse(octets)?;
        if descriptor.cluster == cluster {
            Ok(descriptor)
        } else {
            Err(ParseError::Value {
                field: "cluster",
                offset: 0,
                found: 0,
                allowed: "the descriptor whose hash the id is",
            }
            .into())
        }
    }

    /// The cluster's id: the hash, as 22 characters of base64url.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The hash that the id is the text of.
    #[must_use]
    pub const fn hash(&self) -> ClusterHash {
        self.hash
    }

    /// Shares needed.
    #[must_use]
    pub const fn k(&self) -> u8 {
        self.details.k
    }

    /// Shares made.
    #[must_use]
    pub const fn n(&self) -> u8 {
        self.details.n
    }

    /// Option bits.
    #[must_use]
    pub const fn options(&self) -> u32 {
        self.details.options
    }

    /// What people call the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.details.name
    }

    /// When it was created, in milliseconds since 1970.
    #[must_use]
    pub const fn created_ms(&self) -> u64 {
        self.details.created_ms
    }

    /// Who created it.
    #[must_use]
    pub const fn creator(&self) -> PublicIdentity {
        self.creator
    }

    /// The encoding.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }
}

fn hash(body: &[u8]) -> ClusterHash {
    let full = blake3::derive_key("vmdt 1.1 cluster id", body);
    let mut hash = [0; CLUSTER_HASH_LEN];
    for (to, from) in hash.iter_mut().zip(full) {
        *to = from;
    }
    ClusterHash(hash)
}
