//! The byte formats of VMDT: packet headers, segments and control messages.
//!
//! VMDT cuts a message into shares, any k of n of which rebuild it, and sends them over different
//! paths. This crate knows what that looks like on the wire and nothing else: it reads no clock,
//! opens no socket and keeps no state but the buffer of the [`LineFramer`].
//!
//! - the data layer: a datagram is a [`Packet`] with a [`Header`] of 80 octets and a payload,
//!   which in an ACK, NAK, SYN or FIN is one of the [`segment`] types;
//! - the control layer: a TCP stream is cut by the [`LineFramer`] into lines, each of which is a
//!   [`Line`]: a [`Message`] in one of two [`Framing`]s.
//!
//! Parsers are strict, except where deployed software of profile 1.0 is known to be sloppy; each
//! such place is documented at the function that reads it. An error names the field, its offset,
//! what was found and what is allowed. No parser allocates more than a small multiple of what it
//! was given, and none allocates on the path of a data packet.
//!
//! ```
//! use bytes::Bytes;
//! use vmdt_wire::{Flags, FlowId, Framing, Header, Line, Message, NodeId, Packet, PacketType};
//!
//! // A packet there and back.
//! let (alice, bob): (NodeId, NodeId) = ("alice".parse()?, "bob".parse()?);
//! let mut header = Header::new(PacketType::Data, alice, bob, FlowId::CONTROL);
//! header.flags = Flags::CHECKSUM;
//! let packet = Packet::new(header, Bytes::from_static(b"hello"));
//! let mut datagram = Vec::new();
//! packet.emit_into(&mut datagram);
//! assert_eq!(datagram.len(), vmdt_wire::HEADER_LEN + 5);
//! assert_eq!(Packet::parse(Bytes::from(datagram))?, packet);
//!
//! // A control line of profile 1.0, and the same message in the framing of our own software.
//! let line = Line::parse(b"JOIN_CLUSTER|alice|cluster_12345\r\n")?;
//! assert_eq!(
//!     line.message,
//!     Message::JoinCluster { client: alice, cluster: "cluster_12345".parse()? },
//! );
//! let ours = Line { framing: Framing::Slash, tag: Some(7), message: line.message };
//! assert_eq!(ours.emit()?, b"VMDT/TCP/1.0/JOIN_CLUSTER/alice/cluster_12345/~7\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `std` (default) builds the dependencies with their `std` features. Without it the crate is
//! `no_std` with `alloc`; nothing else changes.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod checksum;
pub mod compact;
pub mod control;
mod error;
mod framer;
mod header;
mod id;
mod packet;
mod read;
pub mod segment;
mod seq;

/// Keeps the example of the README true.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use self::control::{
    Caps, ClusterEntry, ClusterInfo, ClusterOptions, ContentType, EmitError, ErrorCode, Framing,
    Line, LineError, LineErrorKind, MAX_DETAILS, MAX_PARAMETERS, MAX_SHARES, MemberState, Message,
    Opaque, ShareEntry, SharePoolAdd,
};
pub use self::error::{IdError, PacketError, SegmentError, ShareIndexError};
pub use self::framer::{DEFAULT_MAX_LINE, LineFramer, LineTooLong, RELAY_MAX_LINE};
pub use self::header::{
    Flags, HEADER_LEN, Header, MAGIC, MAX_PAYLOAD, MAX_SEALED_PAYLOAD, PacketType, ParsedHeader,
    VERSION, VMDT_HEADER_LEN,
};
pub use self::id::{
    ClusterId, FlowId, ID_LEN, MessageId, MessageName, NAME_LEN, NodeId, ShareIndex,
};
pub use self::packet::Packet;
pub use self::seq::Seq;
