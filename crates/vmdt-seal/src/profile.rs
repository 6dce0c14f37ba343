//! Profiles: what a node says about itself, signed.
//!
//! A server passes profiles on as opaque octets. It can withhold one or hand out an old one; it
//! can neither forge nor mix.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use vmdt_wire::NodeId;

use crate::codec::{self, Reader};
use crate::error::{BuildError, ParseError, VerifyError};
use crate::identity::{Credential, PublicIdentity, SecretIdentity};
use crate::prekey::PublicPrekey;

/// The longest encoding of a profile, in octets.
pub const PROFILE_MAX_LEN: usize = 1_024;
/// The longest name, in octets of UTF-8.
pub const NAME_MAX_LEN: usize = 64;
/// The most addresses.
pub const MAX_ADDRESSES: usize = 8;
/// The most capability words.
pub const MAX_CAPABILITIES: usize = 16;
/// The longest capability word, in octets.
pub const CAPABILITY_MAX_LEN: usize = 16;

/// What goes into a profile besides keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileDetails {
    /// What people call the node: at most [`NAME_MAX_LEN`] octets of UTF-8 without control
    /// characters. It proves nothing.
    pub name: String,
    /// Where the node can be reached, best first; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// What the node can do, such as `mailbox`: at most [`MAX_CAPABILITIES`] words of 1 to
    /// [`CAPABILITY_MAX_LEN`] octets of `[a-z0-9-]`.
    pub capabilities: Vec<String>,
}

/// What a node says about itself. A value of this type was signed here, or its signatures were
/// checked.
///
/// | octets | field |
/// |---|---|
/// | 2 | kind `P`, format 1 |
/// | 138 | [`Credential`] |
/// | 8 | version, milliseconds since 1970 |
/// | 4 + 32 + 8 | prekey: id, X25519 key, not after (milliseconds since 1970) |
/// | 1 + n | length and name |
/// | 1 | number of addresses, at most 8 |
/// | 7 or 19 each | 4 or 6, then the address and the port |
/// | 1 | number of capability words, at most 16 |
/// | 1 + n each | length and word |
/// | 64 | signature over all before, context `vmdt 1.1 profile` |
///
/// ```
/// use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
/// use vmdt_seal::identity::SecretIdentity;
/// use vmdt_seal::prekey::{PrekeyConfig, PrekeyStore};
/// use vmdt_seal::profile::{Profile, ProfileDetails};
///
/// let mut rng = ChaCha20Rng::from_seed([1; 32]);
/// let alice = SecretIdentity::generate(&mut rng);
/// let prekeys = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng);
/// let details = ProfileDetails { name: "Alice".into(), ..ProfileDetails::default() };
/// let profile = Profile::sign(&alice, &details, prekeys.current().public(), 1_000)?;
///
/// let read = Profile::parse_of(alice.node_id(), profile.octets())?;
/// assert_eq!(read.name(), "Alice");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    credential: Credential,
    version_ms: u64,
    prekey: PublicPrekey,
    details: ProfileDetails,
    octets: Bytes,
}

impl Profile {
    /// Makes a profile. `version_ms` is the time in milliseconds since 1970, and more than that
    /// of the profile before.
    ///
    /// # Errors
    /// [`BuildError`] when a name, list or word is longer or other than allowed.
    pub fn sign(
        identity: &SecretIdentity,
        details: &ProfileDetails,
        prekey: PublicPrekey,
        version_ms: u64,
    ) -> Result<Self, BuildError> {
        check(details)?;
        let credential = identity.credential(version_ms);
        let mut out = codec::begin(codec::PROFILE, 512);
        out.extend_from_slice(&credential.encode());
        out.extend_from_slice(&version_ms.to_be_bytes());
        out.extend_from_slice(&prekey.id.to_be_bytes());
        out.extend_from_slice(&prekey.public);
        out.extend_from_slice(&prekey.not_after_ms.to_be_bytes());
        codec::put_short(&mut out, details.name.as_bytes());
        out.push(u8::try_from(details.addresses.len()).unwrap_or(u8::MAX));
        for address in &details.addresses {
            put_address(&mut out, address);
        }
        out.push(u8::try_from(details.capabilities.len()).unwrap_or(u8::MAX));
        for word in &details.capabilities {
            codec::put_short(&mut out, word.as_bytes());
        }
        identity.sign_onto(codec::PROFILE, &mut out);
        if out.len() > PROFILE_MAX_LEN {
            return Err(BuildError::TooLong {
                field: "profile",
                found: out.len(),
                allowed: PROFILE_MAX_LEN,
            });
        }
        Ok(Self {
            credential,
            version_ms,
            prekey,
            details: details.clone(),
            octets: out.into(),
        })
    }

    /// Reads a profile and checks its signatures. Whose it is says [`Profile::node_id`]: compare,
    /// or use [`Profile::parse_of`].
    ///
    /// # Errors
    /// Malformed octets, more than [`PROFILE_MAX_LEN`] of them, or a signature that is not right.
    pub fn parse(octets: &[u8]) -> Result<Self, VerifyError> {
        let profile = Self::read(octets)?;
        profile.credential.checked()?;
        let (body, signature) = octets.split_last_chunk().ok_or(ParseError::Truncated {
            field: "signature",
            offset: 0,
        })?;
        profile
            .credential
            .identity()
            .verify(codec::PROFILE, body, signature, "the identity")?;
        Ok(profile)
    }

    /// As [`Profile::parse`], and refuses a profile of another node.
    ///
    /// # Errors
    /// Those of [`Profile::parse`] and [`VerifyError::OtherNode`].
    pub fn parse_of(expected: NodeId, octets: &[u8]) -> Result<Self, VerifyError> {
        let profile = Self::parse(octets)?;
        let found = profile.node_id();
        if found == expected {
            Ok(profile)
        } else {
            Err(VerifyError::OtherNode { found, expected })
        }
    }

    fn read(octets: &[u8]) -> Result<Self, ParseError> {
        if octets.len() > PROFILE_MAX_LEN {
            return Err(ParseError::TooLong {
                field: "profile",
                offset: 0,
                found: octets.len(),
                allowed: PROFILE_MAX_LEN,
            });
        }
        let mut reader = Reader::new(octets);
        reader.head(codec::PROFILE)?;
        let credential = Credential::read(&mut reader)?;
        let version_ms = reader.u64("version")?;
        let prekey = PublicPrekey {
            id: reader.u32("prekey id")?,
            public: reader.array("prekey")?,
            not_after_ms: reader.u64("prekey not after")?,
        };
        let name = reader.text("name", NAME_MAX_LEN)?.to_owned();
        let count = reader.count("addresses", MAX_ADDRESSES)?;
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            addresses.push(read_address(&mut reader)?);
        }
        let count = reader.count("capabilities", MAX_CAPABILITIES)?;
        let mut capabilities = Vec::with_capacity(count);
        for _ in 0..count {
            let (field, offset) = ("capability", reader.offset());
            let word = reader.text(field, CAPABILITY_MAX_LEN)?;
            if !is_word(word) {
                return Err(ParseError::Text { field, offset });
            }
            capabilities.push(word.to_owned());
        }
        reader.signature()?;
        reader.end()?;
        Ok(Self {
            credential,
            version_ms,
            prekey,
            details: ProfileDetails {
                name,
                addresses,
                capabilities,
            },
            octets: Bytes::copy_from_slice(octets),
        })
    }

    /// The encoding, to be passed on.
    #[must_use]
    pub const fn octets(&self) -> &Bytes {
        &self.octets
    }

    /// Whose profile it is.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.credential.node_id()
    }

    /// Whose profile it is: the whole key.
    #[must_use]
    pub const fn identity(&self) -> PublicIdentity {
        self.credential.identity()
    }

    /// The key of the node's sessions, with its binding.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// When it was made, in milliseconds since 1970.
    #[must_use]
    pub const fn version_ms(&self) -> u64 {
        self.version_ms
    }

    /// What to seal messages to.
    #[must_use]
    pub const fn prekey(&self) -> PublicPrekey {
        self.prekey
    }

    /// What the node calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.details.name
    }

    /// Where the node says it can be reached.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.details.addresses
    }

    /// What the node says it can do.
    pub fn capabilities(&self) -> impl Iterator<Item = &str> {
        self.details.capabilities.iter().map(String::as_str)
    }

    /// Name, addresses and capabilities, to be changed and signed again.
    #[must_use]
    pub const fn details(&self) -> &ProfileDetails {
        &self.details
    }

    /// Whether this profile replaces another: it is of the same identity and its version is
    /// higher.
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        self.identity() == other.identity() && self.version_ms > other.version_ms
    }
}

fn check(details: &ProfileDetails) -> Result<(), BuildError> {
    at_most("name", details.name.len(), NAME_MAX_LEN)?;
    if !codec::is_clean(&details.name) {
        return Err(BuildError::Value {
            field: "name",
            reason: "it has control characters",
        });
    }
    at_most("addresses", details.addresses.len(), MAX_ADDRESSES)?;
    at_most("capabilities", details.capabilities.len(), MAX_CAPABILITIES)?;
    for word in &details.capabilities {
        at_most("capability", word.len(), CAPABILITY_MAX_LEN)?;
        if !is_word(word) {
            return Err(BuildError::Value {
                field: "capability",
                reason: "not a word of [a-z0-9-]",
            });
        }
    }
    Ok(())
}

pub(crate) const fn at_most(
    field: &'static str,
    found: usize,
    allowed: usize,
) -> Result<(), BuildError> {
    if found <= allowed {
        Ok(())
    } else {
        Err(BuildError::TooLong {
            field,
            found,
            allowed,
        })
    }
}

fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Appends 4 or 6, the address and the port.
pub(crate) fn put_address(out: &mut Vec<u8>, address: &SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn read_address(reader: &mut Reader<'_>) -> Result<SocketAddr, ParseError> {
    let offset = reader.offset();
    let kind = reader.u8("address kind")?;
    read_address_of(reader, kind, offset, "4 or 6")
}

/// The address behind its kind.
pub(crate) fn read_address_of(
    reader: &mut Reader<'_>,
    kind: u8,
    offset: usize,
    allowed: &'static str,
) -> Result<SocketAddr, ParseError> {
    let ip = match kind {
        4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>("address")?)),
        6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>("address")?)),
        found => {
            return Err(ParseError::Value {
                field: "address kind",
                offset,
                found: u64::from(found),
                allowed,
            });
        }
    };
    Ok(SocketAddr::new(ip, reader.u16("port")?))
}
