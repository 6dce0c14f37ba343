//! A lab that measures VMDT against kernel TCP, MPTCP and QUIC over the same links.
//!
//! Hosts are network namespaces ([`host`]), joined by links that are emulated in user space
//! between TUN devices ([`emulator`]), so the kernel's netem is not needed. The network every peer
//! runs on is [`world`]; peers are processes inside of it ([`peers`]), which [`run`] puts through
//! the workloads. `cargo run -p vmdt-lab --release -- help` lists the commands.
//!
//! Everything but [`fabric`], the deterministic core, needs root; elsewhere than on Linux the crate is
//! empty.
//!
//! ```
//! use std::time::Duration;
//! use vmdt_lab::fabric::{DeviceId, Fabric};
//! use vmdt_testkit::{Clock, LinkConfig, SimRng};
//!
//! let clock = Clock::new();
//! let mut fabric = Fabric::new();
//! let config = LinkConfig::new().delay(Duration::from_millis(25)).rate(10_000_000, 65_536);
//! let link = fabric.add_link(config, &SimRng::from_seed(1));
//! fabric.add_route(DeviceId(0), [10, 0, 0, 2].into(), &[link], DeviceId(1));
//!
//! let mut packet = [0u8; 1250];
//! packet[0] = 0x45; // IPv4
//! packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
//! fabric.ingress(clock.now(), DeviceId(0), packet.to_vec().into());
//! // 1 ms on the wire, 25 ms on the way
//! assert_eq!(fabric.next_at(), Some(clock.now() + Duration::from_millis(26)));
//! ```
#![cfg(target_os = "linux")]

pub mod answers;
pub mod check;
pub mod clock;
pub mod emulator;
pub mod fabric;
pub mod figures;
pub mod host;
mod left_out;
mod loopback;
pub mod measure;
pub mod pcap;
pub mod peers;
#[cfg(feature = "peers")]
pub mod plots;
pub mod process;
pub mod record;
pub mod report;
pub mod run;
mod setting;
pub mod world;
