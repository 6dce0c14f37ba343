//! When to acknowledge, and what (RFC 9000 section 13.2 with the project's numbers).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::packet_number::expand;
use crate::ranges::{Noted, RangeSet};
use crate::send_flow::MAX_LATE;

/// Ranges kept and sent: what one ACK can carry.
const MAX_RANGES: usize = 64;
/// Ack-eliciting packets that may wait for one ACK: at least, and at a high rate.
const MIN_PER_ACK: u32 = 2;
const MAX_PER_ACK: u32 = 16;
/// The number between them is what arrives in this time, so that waiting for more than two never
/// delays an ACK by more.
const ACK_SPAN: Duration = Duration::from_micros(250);

/// Old ranges are remembered for one to two of these.
const PERIOD: Duration = Duration::from_secs(2);

/// The receiving side of packet numbers.
#[derive(Debug)]
pub(crate) struct AckState {
    received: RangeSet,
    largest_at: Option<Instant>,
    /// When the present period began, and the largest number when it and the one before did.
    period: Option<(Instant, u64)>,
    previous: u64,
    waiting: u32,
    per_ack: u32,
    /// Since when and how many ack-eliciting packets were counted for the rate.
    counted: Option<(Instant, u32)>,
    deadline: Option<Instant>,
    at_once: bool,
    /// Number of the peer's first packet, once its session id is known.
    first: Option<u64>,
}

/// How far a packet number may be ahead of the largest that has arrived: more were never lost in
/// a row on a path that still works.
const MAX_JUMP: u64 = 1 << 20;

impl AckState {
    pub(crate) fn new() -> Self {
        Self {
            received: RangeSet::new(MAX_RANGES),
            largest_at: None,
            period: None,
            previous: 0,
            waiting: 0,
            per_ack: MIN_PER_ACK,
            counted: None,
            deadline: None,
            at_once: false,
            first: None,
        }
    }

    /// The peer's packets begin with this number.
    pub(crate) fn begin(&mut self, first: u64) {
        self.first = Some(first);
    }

    /// Whether a packet of this session can have this number.
    pub(crate) fn is_plausible(&self, number: u64) -> bool {
        self.first.is_none_or(|first| {
            let largest = self.received.largest().unwrap_or(first);
            (first..=largest.saturating_add(MAX_JUMP)).contains(&number)
        })
    }

    /// The 64-bit number of a packet with this truncated number.
    pub(crate) fn expand(&self, truncated: u32) -> u64 {
        match (self.received.largest(), self.first) {
            (Some(largest), _) => expand(truncated, largest + 1),
            (None, Some(first)) => expand(truncated, first),
            // The first number is any; one span of room keeps reordered earlier ones positive.
            (None, None) => (1 << 32) + u64::from(truncated),
        }
    }

    /// Whether a DATA packet is so late that its sequence number may mean a later segment.
    pub(crate) fn is_too_late(&self, number: u64) -> bool {
        self.received
            .largest()
            .is_some_and(|largest| number.saturating_add(MAX_LATE) <= largest)
    }

    /// What noting this number would answer.
    pub(crate) fn peek(&self, number: u64) -> Noted {
        self.received.peek(number)
    }

    /// The largest number received.
    pub(crate) fn largest(&self) -> Option<u64> {
        self.received.largest()
    }

    /// How many of the peer's packets have not arrived, if so many have, and of how many; none where its
    /// first number is not known.
    pub(crate) fn missing(&self, arrived: u64) -> (u64, u64) {
        let span = self.first.zip(self.received.largest());
        let sent = span.map_or(0, |(first, largest)| largest.saturating_sub(first) + 1);
        (sent.saturating_sub(arrived), sent)
    }

    /// Notes an accepted packet. `eliciting` packets will be acknowledged: at once if asked to
    /// or out of order, else with the second one (at a high rate with up to the sixteenth) or at
    /// the latest `max_delay` from now.
    pub(crate) fn on_packet(
        &mut self,
        now: Instant,
        number: u64,
        eliciting: bool,
        at_once: bool,
        max_delay: Duration,
    ) {
        let newest = self
            .received
            .largest()
            .is_none_or(|largest| number > largest);
        let noted = self.received.insert(number);
        if newest {
            self.largest_at = Some(now);
            self.age(now, number);
        }
        if eliciting {
            self.waiting += 1;
            self.adapt(now);
            let gap = matches!(noted, Noted::New { gap: true });
            if at_once || gap || self.waiting >= self.per_ack {
                self.at_once = true;
            } else {
                let delay = if self.per_ack > MIN_PER_ACK {
                    max_delay.min(ACK_SPAN)
                } else {
                    max_delay
                };
                self.deadline.get_or_insert(now + delay);
            }
        }
    }

    /// Counts a packet for the arrival rate: as many share an ACK as arrive within
    /// `ACK_SPAN`. The number at most doubles from one count to the next, and falls at once.
    fn adapt(&mut self, now: Instant) {
        let Some((since, count)) = &mut self.counted else {
            self.counted = Some((now, 0));
            return;
        };
        *count += 1;
        let elapsed = now.saturating_duration_since(*since);
        if elapsed < ACK_SPAN {
            return;
        }
        let spans = elapsed.as_nanos() / ACK_SPAN.as_nanos();
        let arrived = u32::try_from(u128::from(*count) / spans.max(1)).unwrap_or(MAX_PER_ACK);
        self.per_ack = arrived.clamp(MIN_PER_ACK, (self.per_ack * 2).min(MAX_PER_ACK));
        self.counted = Some((now, 0));
    }

    /// Once per period forgets what was received before the previous one began: a sender that
    /// has not heard of it by then has sent it again, and ACKs need not carry old holes forever.
    fn age(&mut self, now: Instant, largest: u64) {
        match self.period {
            None => self.period = Some((now, largest)),
            Some((began, at_begin)) if now.saturating_duration_since(began) >= PERIOD => {
                self.received.forget_below(self.previous);
                self.previous = at_begin;
                self.period = Some((now, largest));
            }
            Some(_) => {}
        }
    }

    /// Acknowledge without delay: a duplicate, or a window to announce.
    pub(crate) fn force(&mut self) {
        if self.received.largest().is_some() {
            self.at_once = true;
        }
    }

    /// Whether an ACK is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.at_once || self.deadline.is_some_and(|at| at <= now)
    }

    /// When an ACK will be due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// An ACK was built.
    pub(crate) fn on_ack_sent(&mut self) {
        self.waiting = 0;
        self.deadline = None;
        self.at_once = false;
    }

    /// Time since the largest packet arrived, in microseconds.
    pub(crate) fn delay_micros(&self, now: Instant) -> u32 {
        let delay = self
            .largest_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        u32::try_from(delay.as_micros()).unwrap_or(u32::MAX)
    }

    /// What to acknowledge, newest first, no further back than the wire can say.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let reach = self.received.largest().unwrap_or(0).saturating_sub(1 << 31);
        self.received
            .newest_first()
            .take_while(move |range| range.1 >= reach)
            .map(move |(low, high)| low.max(reach)..=high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(5);

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn every_second_packet_is_acknowledged_at_once() {
        let t = base();
        let mut ack = AckState::new();
        ack.on_packet(t, 10, true, false, DELAY);
        assert!(!ack.is_due(t));
        assert_eq!(ack.deadline(), Some(t + DELAY));
        assert!(ack.is_due(t + DELAY));
        ack.on_packet(t, 11, true, false, DELAY);
        assert!(ack.is_due(t));
        ack.on_ack_sent();
        assert!(!ack.is_due(t + DELAY * 10));
    }

    #[test]
    fn a_fast_sender_is_acknowledged_less_often_and_a_slow_one_soon() {
        let t = base();
        let mut ack = AckState::new();
        let mut acks = 0;
        let micros = Duration::from_micros(20);
        for n in 0..1000u32 {
            let now = t + micros * n;
            ack.on_packet(now, 10 + u64::from(n), true, false, DELAY);
            if ack.is_due(now) {
                acks += 1;
                ack.on_ack_sent();
            }
        }
        assert!(
            (80..160).contains(&acks),
            "{acks} for 1,000 packets at 50 a millisecond"
        );
        // The next one comes alone: its ACK waits no longer than a span.
        let now = t + micros * 1000;
        ack.on_packet(now, 1010, true, false, DELAY);
        ack.on_packet(now, 1011, true, false, DELAY);
        assert!(ack.is_due(now) || ack.deadline().is_some_and(|at| at <= now + ACK_SPAN));
        ack.on_ack_sent();
        // A slow sender is answered as before.
        for n in 0..3u32 {
            let now = t + DELAY * (10 + n);
            ack.on_packet(now, 1012 + u64::from(n), true, false, DELAY);
        }
        assert_eq!(ack.per_ack, MIN_PER_ACK);
    }

    #[test]
    fn a_gap_is_acknowledged_at_once_and_a_pure_ack_never() {
        let t = base();
        let mut ack = AckState::new();
        ack.on_packet(t, 10, false, false, DELAY);
        ack.on_packet(t, 20, false, false, DELAY);
        assert!(!ack.is_due(t + DELAY));
        ack.on_packet(t, 30, true, false, DELAY);
        assert!(ack.is_due(t));
    }

    #[test]
    fn ranges_descend_and_numbers_wrap() {
        let t = base();
        let mut ack = AckState::new();
        let first = ack.expand(0xffff_fffe);
        for offset in [0, 1, 2, 5, 6, 9] {
            ack.on_packet(t, first + offset, true, false, DELAY);
        }
        let ranges: Vec<_> = ack.ranges().collect();
        assert_eq!(
            ranges,
            [
                first + 9..=first + 9,
                first + 5..=first + 6,
                first..=first + 2
            ]
        );
        assert_eq!(ack.expand(7), first + 9);
        assert_eq!(ack.expand(0xffff_fffd), first - 1, "before the first one");
    }

    #[test]
    fn a_range_is_never_longer_than_the_wire_can_say() {
        let t = base();
        let mut ack = AckState::new();
        ack.on_packet(t, 1 << 40, true, false, DELAY);
        ack.on_packet(t, (1 << 40) + (1 << 32), true, false, DELAY);
        let ranges: Vec<_> = ack.ranges().collect();
        assert_eq!(ranges.len(), 1);
    }

    #[test]
    fn old_holes_are_forgotten_after_two_periods() {
        let t = base();
        let mut ack = AckState::new();
        ack.on_packet(t, 1, true, false, DELAY);
        ack.on_packet(t, 10, true, false, DELAY);
        for n in 1..=3u32 {
            assert_eq!(ack.ranges().count(), 2);
            ack.on_packet(t + PERIOD * n, 10 + u64::from(n), true, false, DELAY);
        }
        assert_eq!(ack.ranges().collect::<Vec<_>>(), [10..=13]);
        assert_eq!(
            ack.peek(5),
            Noted::New { gap: true },
            "only below the oldest range kept"
        );
        assert_eq!(ack.peek(1), Noted::Forgotten);
    }

    #[test]
    fn nothing_to_acknowledge_before_the_first_packet() {
        let mut ack = AckState::new();
        ack.force();
        assert!(!ack.is_due(base()));
        assert_eq!(ack.ranges().count(), 0);
    }
}
