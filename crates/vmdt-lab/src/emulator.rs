//! Moves packets between TUN devices through a [`Fabric`], in one thread.
//!
//! The thread sleeps to shortly before a packet is due and spins for the rest. It asks for
//! real-time priority, so that a busy machine disturbs it less; how late packets left is counted.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::clock;
use crate::fabric::{DeviceId, Fabric};
use crate::host::Host;
use crate::pcap::{self, Pcap};

/// Woken so long before a packet is due; the rest is spun. About what waking up takes: more would
/// keep processors from the emulators of other measurements.
const SPIN: Duration = Duration::from_micros(20);
/// Packets read from one device before the others are looked at.
const READ_BATCH: usize = 32;
const PACKET: usize = 65_536;

/// The emulator's real-time priority: above whom it carries packets for.
const PRIORITY: u8 = 20;

/// Asks for real-time priority for the calling thread; whether the system gave it.
pub(crate) fn realtime(priority: u8) -> bool {
    let Ok(priority) = priority.try_into() else {
        return false;
    };
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(priority),
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    )
    .is_ok()
}

/// How late packets left, against the time the fabric gave them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lateness {
    /// Packets that left.
    pub packets: u64,
    /// Sum of their lateness.
    pub total: Duration,
    /// The worst.
    pub worst: Duration,
    /// Packets more than 200 us late.
    pub late: u64,
    /// Packets that a device refused (its host did not read).
    pub refused: u64,
}

impl Lateness {
    fn add(&mut self, late: Duration) {
        self.packets += 1;
        self.total += late;
        self.worst = self.worst.max(late);
        self.late += u64::from(late > Duration::from_micros(200));
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> Duration {
        self.total / u32::try_from(self.packets).unwrap_or(u32::MAX).max(1)
    }
}

#[derive(Debug, Default)]
struct Shared {
    fabric: Fabric,
    lateness: Lateness,
    pcap: Option<Pcap>,
}

/// Opens a TUN device in a host: `name` with `address/24`.
///
/// # Errors
/// Without /dev/net/tun or the right to use it.
pub fn open_device(host: &Host, name: &str, address: &str) -> Result<SyncDevice> {
    let device_name = name.to_owned();
    let device = host
        .run(move || {
            let device = DeviceBuilder::new()
                .name(device_name)
                .layer(Layer::L3)
                .packet_information(false)
                .offload(false)
                .mtu(1500)
                .build_sync()?;
            device.set_nonblocking(true)?;
            std::io::Result::Ok(device)
        })?
        .with_context(|| format!("no TUN device {name} on host {}", host.name()))?;
    host.ip(&format!(
        "addr add {address}/24 dev {name}\nlink set {name} txqueuelen 10000 up"
    ))?;
    Ok(device)
}

/// A running emulator; it stops when dropped.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Mutex<Shared>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    realtime: bool,
}

impl Emulator {
    /// Starts moving packets; [`DeviceId`] i is the i-th device.
    ///
    /// # Errors
    /// When the system gives no thread or pipe.
    pub fn start(fabric: Fabric, devices: Vec<SyncDevice>) -> Result<Emulator> {
        let shared = Arc::new(Mutex::new(Shared {
            fabric,
            ..Shared::default()
        }));
        let (stopped, stop) = std::io::pipe()?;
        let (started, outcome) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("emulator".to_owned())
            .spawn(move || {
                let _ = nix::sys::prctl::set_timerslack(1);
                let _ = started.send(realtime(PRIORITY));
                run(&theirs, &devices, &stopped);
            })?;
        let realtime = outcome
            .recv()
            .map_err(|_| anyhow!("the emulator's thread ended"))?;
        Ok(Emulator {
            shared,
            stop: Some(stop),
            thread: Some(thread),
            realtime,
        })
    }

    /// Whether the system gave the emulator real-time priority.
    #[must_use]
    pub fn realtime(&self) -> bool {
        self.realtime
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at or changes the fabric. Packets wait meanwhile: be quick.
    pub fn with<R>(&self, look: impl FnOnce(&mut Fabric) -> R) -> R {
        look(&mut self.lock().fabric)
    }

    /// How late packets left since the last call.
    #[must_use]
    pub fn take_lateness(&self) -> Lateness {
        std::mem::take(&mut self.lock().lateness)
    }

    /// Begins to write each packet that enters the fabric into a file, until the next call; `None`
    /// ends it.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn capture(&self, file: Option<&Path>) -> Result<()> {
        let new = file.map(Pcap::create).transpose()?;
        let old = std::mem::replace(&mut self.lock().pcap, new);
        if let Some(mut old) = old {
            old.flush()?;
        }
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Mutex<Shared>, devices: &[SyncDevice], stopped: &PipeReader) {
    let mut fds: Vec<PollFd<'_>> = devices
        .iter()
        .map(AsFd::as_fd)
        .chain([stopped.as_fd()])
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let mut buffer = vec![0u8; PACKET];
    loop {
        let next = step(shared, devices, &mut buffer);
        let wait = next.map(|at| {
            at.saturating_duration_since(clock::now())
                .saturating_sub(SPIN)
        });
        let ready = ppoll(&mut fds, wait.map(TimeSpec::from), None);
        let stop = fds.last().and_then(PollFd::any).unwrap_or(false);
        if stop || matches!(ready, Err(error) if error != nix::Error::EINTR) {
            return;
        }
    }
}

/// Moves what is there and due; says when something is due next.
fn step(shared: &Mutex<Shared>, devices: &[SyncDevice], buffer: &mut [u8]) -> Option<Instant> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = &mut *shared;
    deliver(shared, devices);
    for (i, device) in devices.iter().enumerate() {
        for _ in 0..READ_BATCH {
            let Ok(len) = device.recv(buffer) else { break };
            let packet = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
            if let Some(pcap) = &mut shared.pcap {
                // a full disk ends the capture, not the emulation
                if pcap.packet(pcap::wall(), &packet).is_err() {
                    shared.pcap = None;
                }
            }
            shared.fabric.ingress(clock::now(), DeviceId(i), packet);
        }
    }
    deliver(shared, devices);
    shared.fabric.next_at()
}

fn deliver(shared: &mut Shared, devices: &[SyncDevice]) {
    while let Some(at) = shared.fabric.next_at() {
        let now = clock::now();
        if at > now {
            return;
        }
        if let Some((to, packet)) = shared.fabric.poll(now) {
            shared.lateness.add(now.saturating_duration_since(at));
            let sent = devices.get(to.0).map(|device| device.send(&packet));
            if !matches!(sent, Some(Ok(_))) {
                shared.lateness.refused += 1;
            }
        }
    }
}
