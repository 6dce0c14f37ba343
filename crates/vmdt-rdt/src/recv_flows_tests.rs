use std::time::Duration;

use vmdt_wire::{MessageId, ShareIndex};

use super::*;

#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

fn id(n: u16) -> FlowId {
    FlowId::new(MessageId::ZERO, ShareIndex::new(n).unwrap())
}

fn table() -> RecvFlows {
    RecvFlows::new(RecvLimits {
        flows: 4,
        flow_window: 8192,
        session_window: 10_000,
        tombstones: 16,
    })
}

fn data(
    flows: &mut RecvFlows,
    n: u16,
    seq: u16,
    octets: &[u8],
    last: bool,
    packet: u64,
) -> Received {
    flows.on_data(
        id(n),
        seq,
        Bytes::copy_from_slice(octets),
        last,
        packet,
        true,
    )
}

#[test]
fn readable_is_told_once_until_read_to_the_end() {
    let mut flows = table();
    assert_eq!(
        data(&mut flows, 1, 0, b"a", false, 1).notice,
        Some(Notice::Readable)
    );
    assert_eq!(data(&mut flows, 1, 1, b"b", false, 2).notice, None);
    while flows.read(id(1)).piece.is_some() {}
    assert_eq!(
        data(&mut flows, 1, 2, b"c", false, 3).notice,
        Some(Notice::Readable)
    );
}

#[test]
fn the_last_read_finishes_and_later_copies_are_acknowledged_and_dropped() {
    let mut flows = table();
    data(&mut flows, 1, 0, b"a", true, 1);
    let read = flows.read(id(1));
    assert_eq!(read.piece.as_deref(), Some(&b"a"[..]));
    assert!(read.finished);
    assert_eq!(data(&mut flows, 1, 0, b"a", true, 9), Received::DUPLICATE);
    assert_eq!(flows.len(), 0);
    assert_eq!(
        flows.announce(id(1)).0,
        1,
        "the cumulative acknowledgment is remembered"
    );
}

#[test]
fn final_after_everything_was_read_finishes_at_once() {
    let mut flows = table();
    data(&mut flows, 1, 0, b"a", false, 1);
    while flows.read(id(1)).piece.is_some() {}
    assert_eq!(
        data(&mut flows, 1, 1, b"", true, 2).notice,
        Some(Notice::Finished)
    );
}

#[test]
fn a_reset_id_opens_again_only_for_later_packets() {
    let mut flows = table();
    data(&mut flows, 1, 0, b"old", false, 10);
    assert!(flows.on_reset(id(1), 20));
    assert!(!flows.on_reset(id(1), 21), "told once");
    assert_eq!(
        data(&mut flows, 1, 1, b"old", false, 15),
        Received::DUPLICATE
    );
    assert!(data(&mut flows, 1, 0, b"new", false, 30).stored);
    assert_eq!(
        data(&mut flows, 1, 1, b"old", false, 16),
        Received::DUPLICATE
    );
    assert!(!flows.on_reset(id(1), 19), "a reset of the old flow");
    assert_eq!(flows.read(id(1)).piece.as_deref(), Some(&b"new"[..]));
}

#[test]
fn a_reset_before_any_data_is_remembered() {
    let mut flows = table();
    assert!(!flows.on_reset(id(1), 20));
    assert_eq!(
        data(&mut flows, 1, 0, b"late", false, 19),
        Received::DUPLICATE
    );
    assert_eq!(flows.len(), 0);
}

#[test]
fn a_complete_flow_survives_a_reset() {
    let mut flows = table();
    data(&mut flows, 1, 0, b"whole", true, 10);
    assert!(!flows.on_reset(id(1), 20));
    assert_eq!(
        data(&mut flows, 1, 0, b"next", true, 30),
        Received::default()
    );
    assert!(flows.read(id(1)).finished);
    assert!(data(&mut flows, 1, 0, b"next", true, 31).stored);
}

#[test]
fn the_table_and_the_session_window_are_bounds() {
    let mut flows = table();
    for n in 1..=4 {
        assert!(data(&mut flows, n, 0, &[0; 2000], false, u64::from(n)).accepted);
    }
    assert!(
        !data(&mut flows, 5, 0, b"x", false, 5).accepted,
        "a fifth flow"
    );
    assert!(
        !data(&mut flows, 1, 1, &[0; 2001], false, 6).accepted,
        "2,000 octets are left"
    );
    assert!(data(&mut flows, 1, 1, &[0; 2000], false, 7).accepted);
    assert_eq!(flows.session_window(), 0);
    assert!(
        data(&mut flows, 0, 0, &[0; 2000], false, 8).accepted,
        "the control flow is apart"
    );
    flows.stop(id(1));
    assert_eq!(flows.session_window(), 4000);
}

#[test]
fn a_hole_is_named_once_per_period_and_only_while_it_stands() {
    let t = base();
    let second = Duration::from_secs(1);
    let mut flows = table();
    data(&mut flows, 1, 1, b"early", false, 1);
    flows.watch_hole(id(1), t + second);
    flows.watch_hole(id(1), t + second * 9);
    let later = |_: u32| t + second * 3;
    assert!(flows.next_hole(t, later).is_none());
    let (flow, next, holes) = flows.next_hole(t + second, later).unwrap();
    assert_eq!((flow, next, holes.len()), (id(1), 0, 1));
    assert!(flows.next_hole(t + second * 2, later).is_none());
    data(&mut flows, 1, 0, b"filled", false, 2);
    assert!(flows.next_hole(t + second * 4, later).is_none());
    assert_eq!(flows.hole_deadline(), None);
}

#[test]
fn queues_do_not_outlive_their_flows() {
    let t = base();
    let mut flows = table();
    for n in 0..1000u64 {
        data(&mut flows, 1, 1, b"early", false, n * 3 + 1);
        flows.watch_hole(id(1), t + Duration::from_secs(5));
        flows.request_announcement(id(1));
        assert!(flows.on_reset(id(1), n * 3 + 2));
    }
    assert!(flows.holes.is_empty() && flows.announce.is_empty());
    assert_eq!((flows.held, flows.early), (0, 0));
}
