//! Packets in flight and the detection of their loss (RFC 9002 section 6).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::config::LossDetection;
use crate::delivery_rate::Stamp;

/// Packets a later one must be acknowledged ahead of before a packet counts as lost.
const PACKET_THRESHOLD: u64 = 3;
/// Ceiling of the threshold when reordering is observed.
const MAX_PACKET_THRESHOLD: u64 = 1024;
/// Ceiling of the time threshold, in eighths of a round trip above one.
const MAX_REORDER_EIGHTHS: u32 = 8;
/// Losses remembered in order to notice that they were none.
const MAX_LOST: usize = 1024;
/// Packet records kept; beyond it the oldest counts as lost.
const MAX_RECORDS: usize = 1 << 16;

/// What a packet carried, to be marked acknowledged or sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A segment of a flow.
    Segment {
        slot: u32,
        generation: u32,
        seq: u64,
    },
    /// A reset or stop, by its number.
    Notice(u64),
    /// HEARTBEAT: nothing to repeat.
    Heartbeat,
    /// DATAGRAM: never repeated.
    Datagram,
    /// A HEARTBEAT padded to this payload size, to see whether the path carries it. Its loss
    /// says nothing of congestion.
    MtuProbe(u16),
    /// A HEARTBEAT padded to the full size, of a train that measures the path. Like it.
    Train,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    InFlight,
    Acked,
    Lost,
    /// Not ack-eliciting.
    Untracked,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    sent_at: Instant,
    octets: u16,
    content: Content,
    status: Status,
    stamp: Stamp,
}

/// A packet that left the set, acknowledged or lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) number: u64,
    pub(crate) sent_at: Instant,
    pub(crate) octets: u16,
    pub(crate) content: Content,
    /// It had been declared lost before it was acknowledged.
    pub(crate) spurious: bool,
    /// For the delivery rate.
    pub(crate) stamp: Stamp,
}

/// Outcome of one loss detection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossReport {
    pub(crate) packets: u64,
    pub(crate) octets: u64,
    pub(crate) newest_sent_at: Option<Instant>,
    pub(crate) first_number: Option<u64>,
    /// Longest time spanned by losses with nothing acknowledged between them.
    pub(crate) longest_run: Duration,
}

/// Packets sent and not yet settled, by consecutive packet number.
#[derive(Debug)]
pub(crate) struct SentPackets {
    /// Number of the front record.
    base: u64,
    /// The first number ever used.
    start: u64,
    records: VecDeque<Record>,
    lost: BTreeMap<u64, Record>,
    in_flight: u64,
    eliciting: usize,
    largest_acked: Option<u64>,
    packet_threshold: u64,
    reorder_eighths: u32,
    last_eliciting_at: Option<Instant>,
}

impl SentPackets {
    /// A set whose first packet has number `start`.
    pub(crate) fn new(start: u64) -> Self {
        Self {
            base: start,
            start,
            records: VecDeque::new(),
            lost: BTreeMap::new(),
            in_flight: 0,
            eliciting: 0,
            largest_acked: None,
            packet_threshold: PACKET_THRESHOLD,
            reorder_eighths: 1,
            last_eliciting_at: None,
        }
    }

    /// Numbers begin here, unless some have been given out.
    pub(crate) fn begin(&mut self, start: u64) {
        if self.records.is_empty() && self.base == self.start {
            (self.base, self.start) = (start, start);
        }
    }

    /// The number the next packet gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    /// The first number ever used.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The largest number acknowledged.
    pub(crate) fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// Octets in flight.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Whether an acknowledgment is being waited for.
    pub(crate) fn any_eliciting(&self) -> bool {
        self.eliciting > 0
    }

    /// When the newest ack-eliciting packet left.
    pub(crate) fn last_eliciting_at(&self) -> Option<Instant> {
        self.last_eliciting_at
    }

    /// Whether the record table is full of packets nobody acknowledges.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= MAX_RECORDS
    }

    /// Notes a packet that asks for an acknowledgment. Returns its number.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        octets: u16,
        content: Content,
        stamp: Stamp,
    ) -> u64 {
        let number = self.next_number();
        self.records.push_back(Record {
            sent_at: now,
            octets,
            content,
            status: Status::InFlight,
            stamp,
        });
        self.in_flight += u64::from(octets);
        self.eliciting += 1;
        self.last_eliciting_at = Some(now);
        number
    }

    /// Notes a packet that asks for none. Returns its number.
    pub(crate) fn push_untracked(&mut self, now: Instant) -> u64 {
        let number = self.next_number();
        if self.records.is_empty() {
            self.base += 1;
        } else {
            self.records.push_back(Record {
                sent_at: now,
                octets: 0,
                content: Content::Heartbeat,
                status: Status::Untracked,
                stamp: Stamp::unused(now),
            });
        }
        number
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.base)?).ok()
    }

    /// Takes an acknowledged range; calls `settle` for each packet newly acknowledged, oldest
    /// first. The caller has checked that every number was sent.
    pub(crate) fn on_ack(&mut self, low: u64, high: u64, mut settle: impl FnMut(Settled)) {
        if self.largest_acked.is_none_or(|largest| high > largest) {
            self.largest_acked = Some(high);
        }
        while let Some((&number, record)) = self.lost.range(low..=high).next() {
            let record = *record;
            self.lost.remove(&number);
            self.learn_reordering(number);
            settle(Settled {
                number,
                sent_at: record.sent_at,
                octets: record.octets,
                content: record.content,
                spurious: true,
                stamp: record.stamp,
            });
        }
        if high < self.base {
            return;
        }
        let from = self.index(low.max(self.base)).unwrap_or(0);
        let to = self
            .index(high)
            .map_or(0, |index| index + 1)
            .min(self.records.len());
        for index in from..to {
            let Some(record) = self.records.get_mut(index) else {
                break;
            };
            if record.status != Status::InFlight {
                continue;
            }
            record.status = Status::Acked;
            let record = *record;
            self.in_flight -= u64::from(record.octets);
            self.eliciting -= 1;
            settle(Settled {
                number: self.base + index as u64,
                sent_at: record.sent_at,
                octets: record.octets,
                content: record.content,
                spurious: false,
                stamp: record.stamp,
            });
        }
        self.trim();
    }

    /// A loss was none: the path reorders by at least this much.
    fn learn_reordering(&mut self, number: u64) {
        let distance = self.largest_acked.unwrap_or(number).saturating_sub(number);
        if distance >= self.packet_threshold {
            self.packet_threshold = (distance + 1).min(MAX_PACKET_THRESHOLD);
        }
        self.reorder_eighths = (self.reorder_eighths + 1).min(MAX_REORDER_EIGHTHS);
    }

    /// Age that makes a packet lost once a later one is acknowledged.
    pub(crate) fn loss_delay(&self, rtt_loss_delay: Duration) -> Duration {
        // The argument is nine eighths of the round trip.
        rtt_loss_delay * (8 + self.reorder_eighths) / 9
    }

    /// Declares packets lost that are too old or too far behind the largest acknowledged one;
    /// calls `settle` for each, oldest first.
    pub(crate) fn detect_lost(
        &mut self,
        now: Instant,
        delay: Duration,
        detection: LossDetection,
        mut settle: impl FnMut(Settled),
    ) -> LossReport {
        let mut report = LossReport::default();
        let Some(largest) = self.largest_acked else {
            return report;
        };
        let end = self.index(largest).unwrap_or(0).min(self.records.len());
        let mut run_start: Option<Instant> = None;
        for index in 0..end {
            let number = self.base + index as u64;
            let Some(record) = self.records.get_mut(index) else {
                break;
            };
            match record.status {
                Status::InFlight => {}
                Status::Acked => {
                    run_start = None;
                    continue;
                }
                Status::Lost | Status::Untracked => continue,
            }
            let too_far = detection.by_packets() && number + self.packet_threshold <= largest;
            let too_old =
                detection.by_time() && now.saturating_duration_since(record.sent_at) >= delay;
            if !too_far && !too_old {
                break;
            }
            record.status = Status::Lost;
            let record = *record;
            let start = *run_start.get_or_insert(record.sent_at);
            report.longest_run = report
                .longest_run
                .max(record.sent_at.saturating_duration_since(start));
            self.note_loss(number, record, &mut report, &mut settle);
        }
        self.trim();
        report
    }

    /// Declares one packet lost because the receiver named its content as missing.
    pub(crate) fn declare_lost(&mut self, number: u64, settle: impl FnMut(Settled)) -> LossReport {
        let mut report = LossReport::default();
        let mut settle = settle;
        if let Some(record) = self
            .index(number)
            .and_then(|index| self.records.get_mut(index))
            && record.status == Status::InFlight
        {
            record.status = Status::Lost;
            let record = *record;
            self.note_loss(number, record, &mut report, &mut settle);
            self.trim();
        }
        report
    }

    /// Declares the oldest packet lost: the table is full of packets nobody acknowledges.
    pub(crate) fn declare_oldest_lost(&mut self, settle: impl FnMut(Settled)) -> LossReport {
        let number = self.base;
        let report = self.declare_lost(number, settle);
        self.trim();
        report
    }

    fn note_loss(
        &mut self,
        number: u64,
        record: Record,
        report: &mut LossReport,
        settle: &mut impl FnMut(Settled),
    ) {
        self.in_flight -= u64::from(record.octets);
        self.eliciting -= 1;
        if !matches!(record.content, Content::MtuProbe(_) | Content::Train) {
            report.packets += 1;
            report.octets += u64::from(record.octets);
            report.newest_sent_at = report.newest_sent_at.max(Some(record.sent_at));
            report.first_number.get_or_insert(number);
        }
        self.lost.insert(number, record);
        if self.lost.len() > MAX_LOST {
            self.lost.pop_first();
        }
        settle(Settled {
            number,
            sent_at: record.sent_at,
            octets: record.octets,
            content: record.content,
            spurious: false,
            stamp: record.stamp,
        });
    }

    /// The number of the newest packet in flight with this content.
    pub(crate) fn find(&self, content: Content) -> Option<u64> {
        let of = |record: &Record| record.status == Status::InFlight && record.content == content;
        let index = self.records.iter().rposition(of)?;
        Some(self.base + index as u64)
    }

    /// When the oldest packet behind the largest acknowledged one will count as lost.
    pub(crate) fn loss_time(&self, delay: Duration, detection: LossDetection) -> Option<Instant> {
        if !detection.by_time() {
            return None;
        }
        let largest = self.largest_acked?;
        let front = self.records.front()?;
        // The front record is always in flight: settled ones are trimmed.
        (self.base < largest).then(|| front.sent_at + delay)
    }

    /// The oldest contents in flight that can be sent again.
    pub(crate) fn repeatable(&self) -> impl Iterator<Item = Content> + '_ {
        self.records
            .iter()
            .filter(|record| record.status == Status::InFlight)
            .map(|record| record.content)
            .filter(|content| matches!(content, Content::Segment { .. } | Content::Notice(_)))
    }

    fn trim(&mut self) {
        while self
            .records
            .front()
            .is_some_and(|record| record.status != Status::InFlight)
        {
            self.records.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods)]
    fn base() -> Instant {
        Instant::now()
    }

    fn sent(count: u64) -> (SentPackets, Instant) {
        let t = base();
        let mut sent = SentPackets::new(100);
        for n in 0..count {
            let number = sent.push(
                t + MS * u32::try_from(n).unwrap(),
                1000,
                Content::Heartbeat,
                Stamp::unused(t),
            );
            assert_eq!(number, 100 + n);
        }
        (sent, t)
    }

    fn lost_at(sent: &mut SentPackets, now: Instant) -> Vec<u64> {
        let mut lost = Vec::new();
        sent.detect_lost(now, MS * 1000, LossDetection::Both, |packet| {
            lost.push(packet.number);
        });
        lost
    }

    #[test]
    fn three_packets_behind_is_lost_and_two_is_not() {
        let (mut sent, t) = sent(10);
        sent.on_ack(103, 103, |_| {});
        assert_eq!(lost_at(&mut sent, t + MS * 50), [100]);
        sent.on_ack(104, 104, |_| {});
        assert_eq!(lost_at(&mut sent, t + MS * 50), [101]);
        assert_eq!(sent.in_flight(), 10_000 - 4_000);
    }

    #[test]
    fn an_old_packet_is_lost_by_time() {
        let (mut sent, t) = sent(2);
        sent.on_ack(101, 101, |_| {});
        assert_eq!(
            sent.loss_time(MS * 1000, LossDetection::Both),
            Some(t + MS * 1000)
        );
        assert!(lost_at(&mut sent, t + MS * 999).is_empty());
        assert_eq!(lost_at(&mut sent, t + MS * 1000), [100]);
        assert_eq!(sent.loss_time(MS * 1000, LossDetection::Both), None);
        assert!(!sent.any_eliciting());
    }

    #[test]
    fn each_detector_can_be_used_alone() {
        let lost = |detection: LossDetection, acked: u64, at: u32| {
            let (mut sent, t) = sent(10);
            sent.on_ack(acked, acked, |_| {});
            let mut lost = Vec::new();
            sent.detect_lost(t + MS * at, MS * 1000, detection, |packet| {
                lost.push(packet.number);
            });
            (lost, sent.loss_time(MS * 1000, detection).is_some())
        };
        // 100 is three packets behind 103, and a second old at 1,000.
        assert_eq!(lost(LossDetection::Packets, 103, 50), (vec![100], false));
        assert_eq!(lost(LossDetection::Packets, 101, 5000), (vec![], false));
        assert_eq!(lost(LossDetection::Timeout, 109, 50), (vec![], true));
        assert_eq!(lost(LossDetection::Timeout, 101, 1000), (vec![100], false));
        assert_eq!(lost(LossDetection::Both, 103, 50), (vec![100], true));
    }

    #[test]
    fn an_ack_settles_each_packet_once() {
        let (mut sent, _) = sent(5);
        let mut settled = Vec::new();
        sent.on_ack(101, 103, |packet| settled.push(packet.number));
        sent.on_ack(100, 104, |packet| settled.push(packet.number));
        sent.on_ack(100, 104, |packet| settled.push(packet.number));
        assert_eq!(settled, [101, 102, 103, 100, 104]);
        assert_eq!(sent.in_flight(), 0);
        assert_eq!(sent.next_number(), 105);
    }

    #[test]
    fn an_ack_of_a_lost_packet_is_spurious_and_raises_the_threshold() {
        let (mut sent, t) = sent(10);
        sent.on_ack(105, 105, |_| {});
        assert_eq!(lost_at(&mut sent, t + MS * 20), [100, 101, 102]);
        let mut spurious = Vec::new();
        sent.on_ack(100, 102, |packet| {
            assert!(packet.spurious);
            spurious.push(packet.number);
        });
        assert_eq!(spurious, [100, 101, 102]);
        sent.on_ack(108, 108, |_| {});
        assert_eq!(
            lost_at(&mut sent, t + MS * 20),
            [] as [u64; 0],
            "103 is five behind"
        );
    }

    #[test]
    fn a_run_without_acks_is_measured() {
        let t = base();
        let mut sent = SentPackets::new(0);
        for n in 0..10u32 {
            sent.push(t + MS * 100 * n, 100, Content::Heartbeat, Stamp::unused(t));
        }
        sent.on_ack(9, 9, |_| {});
        let report = sent.detect_lost(t + MS * 5000, MS * 50, LossDetection::Both, |_| {});
        assert_eq!(report.packets, 9);
        assert_eq!(report.longest_run, MS * 800);
    }

    #[test]
    fn untracked_packets_take_numbers_but_no_room() {
        let t = base();
        let mut sent = SentPackets::new(7);
        for n in 7..1000 {
            assert_eq!(sent.push_untracked(t), n);
        }
        assert!(sent.records.is_empty());
        sent.push(t, 100, Content::Heartbeat, Stamp::unused(t));
        sent.push_untracked(t);
        sent.on_ack(1000, 1000, |_| {});
        assert!(sent.records.is_empty());
        assert_eq!(sent.next_number(), 1002);
    }
}
