//! Explicit congestion notification (RFC 3168), validated as RFC 9000 section 13.4.2 asks.

use vmdt_wire::segment::EcnCounts;

/// Marked packets lost, and none acknowledged, before the path counts as one that drops them.
const TEST_LOST: u32 = 10;
/// Probe timeouts in a row after which nothing is marked, in case the mark is what gets lost.
const TEST_PROBES: u32 = 3;

/// The ECN field of an IP header, unless it is zero (not ECN-capable).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EcnCodepoint {
    /// ECT(1), 0b01.
    Ect1,
    /// ECT(0), 0b10: what this crate marks its datagrams with.
    Ect0,
    /// CE, 0b11: congestion experienced.
    Ce,
}

impl EcnCodepoint {
    /// From the two low bits of an IPv4 TOS or IPv6 traffic class octet; the others are ignored.
    #[must_use]
    pub const fn from_bits(octet: u8) -> Option<Self> {
        match octet & 0b11 {
            0b01 => Some(Self::Ect1),
            0b10 => Some(Self::Ect0),
            0b11 => Some(Self::Ce),
            _ => None,
        }
    }

    /// The two bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }
}

/// What arrived marked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EcnReceived {
    counts: EcnCounts,
}

impl EcnReceived {
    /// Counts an accepted packet. True when it says that there is congestion.
    pub(crate) fn on_packet(&mut self, mark: Option<EcnCodepoint>) -> bool {
        let count = match mark {
            None => return false,
            Some(EcnCodepoint::Ect0) => &mut self.counts.ect0,
            Some(EcnCodepoint::Ect1) => &mut self.counts.ect1,
            Some(EcnCodepoint::Ce) => &mut self.counts.ce,
        };
        *count = count.wrapping_add(1);
        mark == Some(EcnCodepoint::Ce)
    }

    /// What to tell the sender: nothing, unless it marks.
    pub(crate) fn counts(&self) -> Option<EcnCounts> {
        (self.counts != EcnCounts::default()).then_some(self.counts)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Marking, not yet confirmed.
    Testing {
        lost: u32,
    },
    Capable,
    /// Switched off, or the path or the peer does not play along.
    Off,
}

/// Whether to mark what is sent on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EcnSender {
    state: State,
    /// Marks are borne by the packets from here to here.
    from: u64,
    until: u64,
    /// Datagrams marked.
    marked: u64,
    counts: EcnCounts,
}

impl EcnSender {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            state: if enabled {
                State::Testing { lost: 0 }
            } else {
                State::Off
            },
            from: u64::MAX,
            until: 0,
            marked: 0,
            counts: EcnCounts::default(),
        }
    }

    /// Another path: what was learnt does not hold there.
    pub(crate) fn restart(&mut self, enabled: bool) {
        if enabled {
            self.state = State::Testing { lost: 0 };
            (self.from, self.until) = (u64::MAX, 0);
        }
    }

    /// Whether the path is known to carry marks.
    pub(crate) fn is_capable(&self) -> bool {
        self.state == State::Capable
    }

    /// The mark of the datagram with this packet number.
    pub(crate) fn mark(&mut self, number: u64, probes: u32) -> Option<EcnCodepoint> {
        let testing = matches!(self.state, State::Testing { .. });
        if self.state == State::Off || (testing && probes >= TEST_PROBES) {
            return None;
        }
        if self.from == u64::MAX {
            self.from = number;
        }
        self.until = number + 1;
        self.marked += 1;
        Some(EcnCodepoint::Ect0)
    }

    /// Whether this packet was marked.
    pub(crate) fn is_marked(&self, number: u64) -> bool {
        (self.from..self.until).contains(&number)
    }

    /// A packet was declared lost.
    pub(crate) fn on_lost(&mut self, number: u64) {
        if !self.is_marked(number) {
            return;
        }
        if let State::Testing { lost } = &mut self.state {
            *lost += 1;
            if *lost >= TEST_LOST {
                self.fail();
            }
        }
    }

    /// An ACK moved the largest acknowledged number and newly acknowledged `acked` marked
    /// packets. Returns how many more packets have arrived with CE.
    pub(crate) fn on_ack(&mut self, acked: u64, counts: Option<EcnCounts>) -> u64 {
        if self.state == State::Off {
            return 0;
        }
        let Some(counts) = counts else {
            if acked > 0 {
                self.fail();
            }
            return 0;
        };
        let grown = |new: u32, old: u32| {
            let grown = new.wrapping_sub(old);
            (grown < 1 << 31).then_some(u64::from(grown))
        };
        let before = std::mem::replace(&mut self.counts, counts);
        let more = (
            grown(counts.ect0, before.ect0),
            grown(counts.ect1, before.ect1),
            grown(counts.ce, before.ce),
        );
        // We mark with ECT(0) only; the network may turn that into CE and nothing else. More
        // marks than datagrams marked are no counts of ours.
        let (Some(ect0), Some(0), Some(ce)) = more else {
            self.fail();
            return 0;
        };
        self.marked = match self.marked.checked_sub(ect0 + ce) {
            Some(rest) if ect0 + ce >= acked => rest,
            _ => {
                self.fail();
                return 0;
            }
        };
        if acked > 0 {
            self.state = State::Capable;
        }
        ce
    }

    fn fail(&mut self) {
        self.state = State::Off;
        (self.from, self.until) = (u64::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u32, ce: u32) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1: 0, ce })
    }

    fn sender(marked: u64) -> EcnSender {
        let mut sender = EcnSender::new(true);
        for number in 10..10 + marked {
            assert_eq!(sender.mark(number, 0), Some(EcnCodepoint::Ect0));
        }
        sender
    }

    #[test]
    fn codepoints_are_those_of_the_ip_header() {
        for bits in 0..=3 {
            let mark = EcnCodepoint::from_bits(0b1010_0100 | bits);
            assert_eq!(mark.map_or(0, EcnCodepoint::bits), bits);
        }
    }

    #[test]
    fn counts_that_add_up_confirm_the_path_and_tell_congestion() {
        let mut sender = sender(10);
        assert!(sender.is_marked(10) && sender.is_marked(19) && !sender.is_marked(20));
        assert_eq!(sender.on_ack(4, counts(4, 0)), 0);
        assert!(sender.is_capable());
        assert_eq!(sender.on_ack(3, counts(5, 2)), 2);
        assert_eq!(sender.on_ack(0, counts(5, 2)), 0);
        assert!(sender.is_capable());
    }

    #[test]
    fn marking_ends_when_the_counts_do_not_add_up() {
        let cases: [(u64, Option<EcnCounts>); 5] = [
            (3, None),
            (3, counts(2, 0)),
            (3, counts(11, 0)),
            (3, counts(u32::MAX, 0)),
            (
                3,
                Some(EcnCounts {
                    ect0: 3,
                    ect1: 1,
                    ce: 0,
                }),
            ),
        ];
        for (acked, told) in cases {
            let mut sender = sender(10);
            assert_eq!(sender.on_ack(acked, told), 0);
            assert_eq!(sender.mark(30, 0), None, "{told:?}");
        }
    }

    #[test]
    fn an_ack_of_unmarked_packets_needs_no_counts() {
        let mut sender = sender(10);
        sender.on_ack(0, None);
        assert!(sender.mark(20, 0).is_some());
    }

    #[test]
    fn a_path_that_drops_what_is_marked_gets_no_more_marks() {
        let mut sender = sender(20);
        for number in 10..10 + u64::from(TEST_LOST) {
            assert!(sender.mark(40, 0).is_some());
            sender.on_lost(number);
        }
        assert_eq!(sender.mark(41, 0), None);
        sender.restart(true);
        assert!(sender.mark(42, 0).is_some());
        assert_eq!(sender.mark(43, TEST_PROBES), None, "a probe without a mark");
        assert!(!sender.is_marked(43) && sender.is_marked(42));
    }

    #[test]
    fn totals_wrap() {
        let mut sender = sender(10);
        sender.counts.ect0 = u32::MAX - 1;
        assert_eq!(sender.on_ack(4, counts(2, 0)), 0);
        assert!(sender.is_capable());
    }

    #[test]
    fn the_receiver_tells_nothing_until_something_marked_arrives() {
        let mut received = EcnReceived::default();
        assert!(!received.on_packet(None));
        assert_eq!(received.counts(), None);
        assert!(!received.on_packet(Some(EcnCodepoint::Ect0)));
        assert!(received.on_packet(Some(EcnCodepoint::Ce)));
        assert_eq!(received.counts(), counts(1, 1));
    }
}
