//! What protects a sealed session: keys, replay window, and the handshake's last message until the
//! peer is known to have it.

use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use vmdt_seal::packet::{PacketKeys, SealError, TAG_LEN};
use vmdt_seal::replay::ReplayWindow;
use vmdt_wire::{HEADER_LEN, Header, Packet};

/// First wait before the confirmation is sent again; it doubles up to the longest.
const CONFIRM_AGAIN: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_millis(400);
/// Time between two confirmations at least, whoever asks for them.
const SPACING: Duration = Duration::from_millis(20);

/// The third message of a handshake of three.
#[derive(Debug)]
struct Confirmation {
    message: Vec<u8>,
    /// When to send it, or send it again.
    at: Instant,
    wait: Duration,
    last_sent: Option<Instant>,
    repeated: bool,
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its number was used before, or is too old to tell.
    Replayed,
    /// It is not authentic.
    Forged,
}

/// The protection of one session.
#[derive(Debug)]
pub(crate) struct Protection {
    keys: PacketKeys,
    replay: ReplayWindow,
    confirmation: Option<Confirmation>,
    /// When the session began, if our offer began it.
    offered_at: Option<Instant>,
    /// A packet has opened: until then the peer may not know of a session that we offered.
    heard: bool,
}

impl Protection {
    /// Of a session that the peer's offer begins.
    pub(crate) fn accepted(keys: PacketKeys) -> Self {
        Self {
            keys,
            replay: ReplayWindow::new(),
            confirmation: None,
            offered_at: None,
            heard: false,
        }
    }

    /// Of a session that our offer begins, with the message that the handshake still wants.
    pub(crate) fn offered(now: Instant, keys: PacketKeys, confirmation: Option<Vec<u8>>) -> Self {
        Self {
            confirmation: confirmation.map(|message| Confirmation {
                message,
                at: now,
                wait: CONFIRM_AGAIN,
                last_sent: None,
                repeated: false,
            }),
            offered_at: Some(now),
            ..Self::accepted(keys)
        }
    }

    /// Seals the datagram in `datagram` under `number`, which must be higher than the last.
    pub(crate) fn seal(
        &mut self,
        now: Instant,
        number: u64,
        datagram: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.keys.seal_datagram(now, number, datagram)
    }

    /// Opens a datagram whose header was read from its first `lead` octets. The replay window
    /// moves only if it is authentic.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        number: u64,
        (header, lead): (Header, usize),
        mut datagram: BytesMut,
    ) -> Result<Packet, Closed> {
        self.replay.check(number).map_err(|_| Closed::Replayed)?;
        let payload = datagram.len().checked_sub(lead + TAG_LEN);
        let payload = payload.ok_or(Closed::Forged)?;
        let opened = if lead == HEADER_LEN {
            self.keys
                .open_datagram(now, number, &mut datagram)
                .map(|_| ())
        } else {
            let length = u16::try_from(payload).map_err(|_| Closed::Forged)?;
            let mut whole = [0; HEADER_LEN];
            header.emit(length, &mut whole);
            let sealed = datagram.get_mut(lead..).unwrap_or_default();
            let (sealed, tag) = sealed
                .split_last_chunk_mut::<TAG_LEN>()
                .ok_or(Closed::Forged)?;
            self.keys.open_in_place(now, &whole, number, sealed, tag)
        };
        opened.map_err(|_| Closed::Forged)?;
        self.replay.commit(number);
        // the peer has the keys, so it has our last message
        self.confirmation = None;
        self.heard = true;
        // Cut after freezing: a buffer whose length is its capacity is frozen without allocation.
        let mut octets = datagram.freeze();
        octets.advance(lead);
        octets.truncate(payload);
        Ok(Packet::new(header, octets))
    }

    pub(crate) fn on_acked(&mut self, number: u64) {
        self.keys.on_acked(number);
    }

    /// Whether the peer should be made to acknowledge something soon, so that the key can be
    /// renewed.
    pub(crate) fn needs_ack(&self) -> bool {
        self.keys.needs_ack()
    }

    /// When a session that we offered began.
    pub(crate) fn offered_at(&self) -> Option<Instant> {
        self.offered_at
    }

    /// Since when the first packet of a session that we offered is waited for.
    pub(crate) fn unheard_since(&self) -> Option<Instant> {
        self.offered_at.filter(|_| !self.heard)
    }

    /// Our confirmation may have been lost: it is sent again soon.
    pub(crate) fn repeat_confirmation(&mut self, now: Instant) {
        if let Some(confirmation) = &mut self.confirmation {
            let earliest = confirmation.last_sent.map_or(now, |at| at + SPACING);
            confirmation.at = confirmation.at.min(earliest.max(now));
        }
    }

    /// Whether the confirmation was sent more than once and nothing has opened since.
    pub(crate) fn has_repeated(&self) -> bool {
        self.confirmation.as_ref().is_some_and(|c| c.repeated)
    }

    /// The confirmation, if it is to be sent now.
    pub(crate) fn due_confirmation(&mut self, now: Instant) -> Option<&[u8]> {
        let confirmation = self.confirmation.as_mut().filter(|c| c.at <= now)?;
        confirmation.repeated = confirmation.last_sent.replace(now).is_some();
        confirmation.at = now + confirmation.wait;
        confirmation.wait = (confirmation.wait * 2).min(LONGEST_WAIT);
        Some(&confirmation.message)
    }

    /// When [`due_confirmation`](Self::due_confirmation) has something.
    pub(crate) fn confirmation_at(&self) -> Option<Instant> {
        Some(self.confirmation.as_ref()?.at)
    }
}
