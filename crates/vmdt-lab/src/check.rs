//! How true the emulator is to its settings, measured through sockets on the emulated hosts.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::world::{PathSpec, World, path_address};
use crate::{clock, emulator};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What.
    pub what: String,
    /// What was set.
    pub set: f64,
    /// What came out.
    pub found: f64,
    /// The unit of both.
    pub unit: &'static str,
    /// The largest difference that is well.
    pub allowed: f64,
}

impl Measured {
    /// Whether what came out is near enough to what was set.
    #[must_use]
    pub fn is_well(&self) -> bool {
        (self.found - self.set).abs() <= self.allowed
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<44} {:>10.3} {:>10.3} {:<7} {:>8.3}  {}",
            self.what,
            self.set,
            self.found,
            self.unit,
            self.allowed,
            if self.is_well() { "ok" } else { "OFF" }
        )
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Echoes for a round trip.
    pub echoes: u32,
    /// Packets for loss and its kin.
    pub packets: u32,
    /// For a rate.
    pub time: Duration,
}

impl Effort {
    /// For a person who waits: about 20 s.
    pub const FULL: Effort = Effort {
        echoes: 40,
        packets: 20_000,
        time: Duration::from_secs(2),
    };
    /// For a test: about 3 s.
    pub const SHORT: Effort = Effort {
        echoes: 8,
        packets: 4_000,
        time: Duration::from_millis(500),
    };
}

/// Two sockets, one at each end of path 0.
struct Ends {
    a: UdpSocket,
    b: UdpSocket,
}

fn socket(host: &Host, at: SocketAddr) -> Result<UdpSocket> {
    let socket = host.run(move || UdpSocket::bind(at))??;
    let buffer = socket2::SockRef::from(&socket);
    buffer.set_recv_buffer_size(4 << 20)?;
    buffer.set_send_buffer_size(4 << 20)?;
    Ok(socket)
}

impl Ends {
    fn new(world: &World) -> Result<Ends> {
        let a = socket(&world.a, (path_address(0, 1), 0).into())?;
        let b = socket(&world.b, (path_address(0, 2), 0).into())?;
        a.connect(b.local_addr()?)?;
        b.connect(a.local_addr()?)?;
        Ok(Ends { a, b })
    }

    /// Round trips of small packets, sorted.
    fn round_trips(&self, count: u32, wait: Duration) -> Result<Vec<Duration>> {
        let mut found = Vec::new();
        self.a.set_read_timeout(Some(wait))?;
        self.b.set_read_timeout(Some(wait))?;
        let mut buffer = [0u8; 64];
        for _ in 0..count {
            let begin = clock::now();
            self.a.send(&[0; 16])?;
            if self.b.recv(&mut buffer).is_ok() {
                self.b.send(&[0; 16])?;
                if self.a.recv(&mut buffer).is_ok() {
                    found.push(clock::now() - begin);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Sends `count` numbered packets at an even pace and gives the numbers in order of arrival.
    fn one_way(&self, count: u32, gap: Duration, drain: Duration) -> Result<Vec<u32>> {
        let receiver = self.b.try_clone()?;
        receiver.set_read_timeout(Some(drain))?;
        let reader = std::thread::spawn(move || {
            let mut numbers = Vec::new();
            let mut buffer = [0u8; 2048];
            while let Ok(len) = receiver.recv(&mut buffer) {
                let number = buffer.get(..len).and_then(|b| b.first_chunk::<4>());
                numbers.extend(number.map(|n| u32::from_be_bytes(*n)));
            }
            numbers
        });
        let mut packet = [0u8; 100];
        let mut at = clock::now();
        for number in 0..count {
            if let Some(head) = packet.first_chunk_mut::<4>() {
                *head = number.to_be_bytes();
            }
            self.a.send(&packet)?;
            at += gap;
            std::thread::sleep(at.saturating_duration_since(clock::now()));
        }
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))
    }

    /// Floods the path for a time; bits of IP packets per second that came through.
    fn rate(&self, time: Duration, offered: f64) -> Result<f64> {
        let receiver = self.b.try_clone()?;
        receiver.set_read_timeout(Some(Duration::from_millis(400)))?;
        let reader = std::thread::spawn(move || {
            let mut buffer = [0u8; 2048];
            let (mut first, mut last, mut octets) = (None, None, 0usize);
            while let Ok(len) = receiver.recv(&mut buffer) {
                let now = clock::now();
                if first.is_none() {
                    first = Some(now);
                } else {
                    // the first packet only starts the clock
                    octets += len + 28;
                }
                last = Some(now);
            }
            match (first, last) {
                (Some(first), Some(last)) if last > first => {
                    octets as f64 * 8.0 / (last - first).as_secs_f64()
                }
                _ => 0.0,
            }
        });
        let packet = [0u8; 1372];
        let gap = Duration::from_secs_f64(1400.0 * 8.0 / offered);
        let begin = clock::now();
        let mut at = begin;
        while at < begin + time {
            self.a.send(&packet)?;
            at += gap;
            std::thread::sleep(at.saturating_duration_since(clock::now()));
        }
        reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))
    }
}

/// Measures one path against its settings.
///
/// # Errors
/// Without root, iproute2 or /dev/net/tun.
pub fn run(effort: Effort) -> Result<Vec<Measured>> {
    // who is descheduled can't offer a rate; the emulator is above
    let _ = emulator::realtime(10);
    let world = World::new(1, 0)?;
    let mut lines = Vec::new();
    let plain = |rtt_ms: u64| PathSpec {
        rate: None,
        ..PathSpec::new(1.0, rtt_ms, 0.0)
    };

    for rtt in [1u64, 20, 100] {
        world.reset(&[plain(rtt)], 1);
        let ends = Ends::new(&world)?;
        let trips = ends.round_trips(effort.echoes, Duration::from_secs(1))?;
        let middle = trips.get(trips.len() / 2).copied().unwrap_or_default();
        lines.push(Measured {
            what: format!("round trip, median of {}", trips.len()),
            set: rtt as f64,
            found: middle.as_secs_f64() * 1e3,
            unit: "ms",
            allowed: 0.5,
        });
    }

    for (kind, loss, burst) in [
        ("independent loss", 0.01, None),
        ("independent loss", 0.06, None),
        ("independent loss", 0.10, None),
        ("burst loss, mean length 8", 0.0, Some((0.06, 8.0))),
    ] {
        let spec = PathSpec {
            loss,
            burst,
            ..plain(2)
        };
        world.reset(&[spec], 7);
        let ends = Ends::new(&world)?;
        let got = ends.one_way(
            effort.packets,
            Duration::from_micros(50),
            Duration::from_millis(300),
        )?;
        let n = f64::from(effort.packets);
        let set = burst.map_or(loss, |(mean, _)| mean);
        let length = burst.map_or(1.0, |(_, length)| 2.0 * length);
        lines.push(Measured {
            what: format!("{kind}, of {} packets", effort.packets),
            set: set * 100.0,
            found: (1.0 - got.len() as f64 / n) * 100.0,
            unit: "%",
            allowed: 4.0 * 100.0 * (set * (1.0 - set) * length / n).sqrt(),
        });
    }

    let spec = PathSpec {
        duplicate: 0.05,
        reorder: (0.1, Duration::from_millis(2)),
        ..plain(2)
    };
    world.reset(&[spec], 3);
    let ends = Ends::new(&world)?;
    let got = ends.one_way(
        effort.packets,
        Duration::from_micros(50),
        Duration::from_millis(300),
    )?;
    let n = f64::from(effort.packets);
    lines.push(Measured {
        what: "duplication".to_owned(),
        set: 5.0,
        found: (got.len() as f64 / n - 1.0) * 100.0,
        unit: "%",
        allowed: 4.0 * 100.0 * (0.05 * 0.95 / n).sqrt(),
    });
    let mut highest = 0;
    let mut seen = std::collections::BTreeSet::new();
    let mut overtaken = 0u32;
    for number in got {
        if seen.insert(number) && number < highest {
            overtaken += 1;
        }
        highest = highest.max(number);
    }
    // a packet held back by up to 2 ms is overtaken unless that is less than the 50 us gap
    lines.push(Measured {
        what: "reordering (held back up to 2 ms)".to_owned(),
        set: 10.0,
        found: f64::from(overtaken) / n * 100.0,
        unit: "%",
        allowed: 2.0,
    });

    for mbit in [1.0, 10.0, 100.0] {
        let spec = PathSpec {
            rate: Some((mbit * 1e6) as u64),
            queue: Some(64 * 1024),
            ..plain(10)
        };
        world.reset(&[spec], 5);
        let ends = Ends::new(&world)?;
        let found = ends.rate(effort.time, mbit * 1e6 * 1.3)?;
        lines.push(Measured {
            what: "rate, offered 1.3 times".to_owned(),
            set: mbit,
            found: found / 1e6,
            unit: "Mbit/s",
            allowed: mbit * 0.02,
        });
    }

    let late = world.emulator.take_lateness();
    lines.push(Measured {
        what: format!("lateness, mean of {} packets", late.packets),
        set: 0.0,
        found: late.mean().as_secs_f64() * 1e6,
        unit: "us",
        allowed: 50.0,
    });
    lines.push(Measured {
        what: "packets more than 200 us late".to_owned(),
        set: 0.0,
        found: late.late as f64 / late.packets.max(1) as f64 * 100.0,
        unit: "%",
        allowed: 1.0,
    });
    Ok(lines)
}

/// The table's head.
#[must_use]
pub fn head() -> String {
    format!(
        "{:<44} {:>10} {:>10} {:<7} {:>8}",
        "what", "set", "found", "unit", "allowed"
    )
}
