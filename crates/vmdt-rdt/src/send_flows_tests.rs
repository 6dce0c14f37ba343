use vmdt_wire::{MessageId, ShareIndex};

use super::*;

#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

fn id(n: u16) -> FlowId {
    FlowId::new(MessageId::ZERO, ShareIndex::new(n).unwrap())
}

fn table(active: usize) -> SendFlows {
    let mut flows = SendFlows::new(SendLimits {
        flows: 8,
        active,
        buffer: 1000,
        control_buffer: 100,
        tombstones: 16,
    });
    flows.set_windows(1 << 20, 1 << 20);
    flows
}

/// Sends everything that may be sent, in packets from `packet` on; returns the flows in order.
fn drain(flows: &mut SendFlows, mut packet: u64) -> Vec<u16> {
    let mut order = Vec::new();
    while let Some((segment, flow, outgoing)) = flows.next_new(base(), 10) {
        flows.on_sent(base(), segment, outgoing, packet);
        packet += 1;
        order.push(flow.index.get());
    }
    order
}

fn write(flows: &mut SendFlows, n: u16, octets: usize) {
    flows.write(id(n), Bytes::from(vec![0; octets])).unwrap();
}

#[test]
fn flows_take_turns_and_the_control_flow_goes_first() {
    let mut flows = table(8);
    write(&mut flows, 1, 30);
    write(&mut flows, 2, 20);
    write(&mut flows, 0, 20);
    assert_eq!(drain(&mut flows, 0), [0, 0, 1, 2, 1, 2, 1]);
}

#[test]
fn lost_control_segments_go_before_other_lost_ones() {
    let mut flows = table(8);
    write(&mut flows, 1, 20);
    write(&mut flows, 0, 20);
    let mut sent = Vec::new();
    while let Some((segment, _, outgoing)) = flows.next_new(base(), 10) {
        flows.on_sent(base(), segment, outgoing, sent.len() as u64);
        sent.push(segment);
    }
    for (packet, segment) in sent.iter().enumerate().rev() {
        flows.on_lost(*segment, packet as u64);
    }
    let order: Vec<u16> = std::iter::from_fn(|| flows.next_lost())
        .map(|(_, flow, _)| flow.index.get())
        .collect();
    assert_eq!(order, [0, 0, 1, 1]);
}

#[test]
fn a_flow_beyond_the_active_ones_waits_for_one_to_end() {
    let mut flows = table(2);
    for n in 1..=3 {
        write(&mut flows, n, 10);
        flows.finish(id(n)).unwrap();
    }
    assert_eq!(drain(&mut flows, 0), [1, 2]);
    let slot = flows.slot(&id(1)).unwrap();
    let effect = flows.on_flow_ack(slot, 1, 1000, 0).unwrap();
    assert_eq!(effect.delivered, Some(id(1)));
    assert_eq!(drain(&mut flows, 2), [3]);
    assert_eq!(flows.finish(id(1)), Err(WriteError::FlowEnded));
}

#[test]
fn the_session_window_counts_what_is_unacknowledged_once() {
    let mut flows = table(8);
    flows.on_session_window(30, 1);
    write(&mut flows, 1, 50);
    assert_eq!(drain(&mut flows, 0).len(), 3);
    assert!(flows.is_window_blocked());
    assert_eq!(flows.next_to_probe(), Some(id(1)));
    let segment = SegmentRef {
        slot: 0,
        generation: 1,
        seq: 0,
    };
    flows.on_lost(segment, 0);
    assert!(
        flows.next_lost().is_some(),
        "a retransmission needs no new window"
    );
    flows.on_session_window(1000, 0);
    assert!(drain(&mut flows, 3).is_empty(), "an older ACK says nothing");
    flows.on_session_window(40, 2);
    assert_eq!(drain(&mut flows, 3).len(), 1);
    write(&mut flows, 0, 20);
    assert_eq!(
        drain(&mut flows, 4),
        [0, 0],
        "the control flow is not held by it"
    );
}

#[test]
fn blocked_flows_are_probed_in_turn() {
    let mut flows = table(8);
    flows.set_windows(5, 1 << 20);
    for n in 1..=3 {
        write(&mut flows, n, 20);
    }
    // Each sends the five octets it may, then waits.
    assert_eq!(drain(&mut flows, 0), [1, 2, 3]);
    let probed: Vec<_> = (0..6).filter_map(|_| flows.next_to_probe()).collect();
    assert_eq!(probed, [1, 2, 3, 1, 2, 3].map(id));
    let slot = flows.slot(&id(2)).unwrap();
    flows.on_flow_ack(slot, 1, 100, 1).unwrap();
    assert_eq!(drain(&mut flows, 3), [2, 2]);
    let probed: Vec<_> = (0..4).filter_map(|_| flows.next_to_probe()).collect();
    assert_eq!(probed, [1, 3, 1, 3].map(id));
    for _ in 0..100 {
        flows.on_flow_ack(0, 1, 0, 2).unwrap();
        drain(&mut flows, 4);
    }
    assert!(
        flows.probe_queue.len() <= 3,
        "a flow stands in the queue once"
    );
}

#[test]
fn a_slot_used_again_is_not_taken_for_the_old_flow() {
    let mut flows = table(8);
    write(&mut flows, 1, 10);
    let (old, _, outgoing) = flows.next_new(base(), 10).unwrap();
    flows.on_sent(base(), old, outgoing, 0);
    assert_eq!(flows.abandon(id(1)), (true, false));
    write(&mut flows, 2, 10);
    let (new, _, outgoing) = flows.next_new(base(), 10).unwrap();
    assert_eq!(new.slot, old.slot);
    flows.on_sent(base(), new, outgoing, 1);
    flows.on_acked(old);
    assert_eq!(flows.queued(), 10, "the ACK was for the abandoned flow");
    flows.on_lost(old, 0);
    assert!(!flows.any_lost());
    flows.on_acked(new);
    assert_eq!(flows.queued(), 0);
}

#[test]
fn a_full_buffer_refuses_and_half_of_it_is_told() {
    let mut flows = table(8);
    write(&mut flows, 1, 600);
    let refused = flows.write(id(1), Bytes::from(vec![0; 600]));
    let blocked = WriteError::Blocked {
        queued: 600,
        limit: 1000,
    };
    assert_eq!(refused, Err(blocked));
    drain(&mut flows, 0);
    assert!(!flows.on_flow_ack(0, 9, 1000, 1).unwrap().writable);
    assert!(flows.on_flow_ack(0, 10, 1000, 2).unwrap().writable);
    assert!(
        !flows.on_flow_ack(0, 11, 1000, 3).unwrap().writable,
        "told once"
    );
}

#[test]
fn a_refused_control_write_is_told_too() {
    let mut flows = table(8);
    write(&mut flows, 0, 90);
    assert!(flows.write(id(0), Bytes::from(vec![0; 20])).is_err());
    drain(&mut flows, 0);
    let slot = flows.slot(&id(0)).unwrap();
    assert!(!flows.on_flow_ack(slot, 3, 1000, 1).unwrap().writable);
    assert!(flows.on_flow_ack(slot, 4, 1000, 2).unwrap().writable);
}

#[test]
fn a_write_larger_than_the_buffer_is_taken_when_nothing_is_queued() {
    let mut flows = table(8);
    write(&mut flows, 1, 5_000);
    assert!(flows.write(id(1), Bytes::from_static(b"x")).is_err());
}

#[test]
fn priorities_share_in_proportion_one_two_three() {
    let mut flows = table(8);
    for n in 1..=3 {
        write(&mut flows, n, 300);
    }
    flows.set_priority(id(2), Priority::High).unwrap();
    flows.set_priority(id(3), Priority::Highest).unwrap();
    let order = drain(&mut flows, 0);
    assert_eq!(order[..12], [1, 2, 2, 3, 3, 3, 1, 2, 2, 3, 3, 3]);
    assert_eq!(
        flows.set_priority(FlowId::CONTROL, Priority::High),
        Err(WriteError::ControlFlow)
    );
}

#[test]
fn a_limited_flow_leaves_the_turns_to_others_until_its_bucket_fills() {
    let t = base();
    let mut flows = SendFlows::new(SendLimits {
        flows: 8,
        active: 8,
        buffer: 1 << 20,
        control_buffer: 100,
        tombstones: 16,
    });
    flows.set_windows(1 << 20, 1 << 20);
    write(&mut flows, 1, 10_000);
    write(&mut flows, 2, 10_000);
    let limit = RateLimit::new(2048, 1000).unwrap();
    flows.set_limit(t, id(1), Some(limit)).unwrap();
    let mut sent = [0u64; 3];
    let mut take = |flows: &mut SendFlows, now: Instant| {
        while let Some((segment, flow, outgoing)) = flows.next_new(now, 1000) {
            sent[usize::from(flow.index.get())] += outgoing.data.len() as u64;
            flows.on_sent(now, segment, outgoing, 0);
        }
        sent
    };
    assert_eq!(take(&mut flows, t), [0, 2000, 10_000]);
    let at = flows.limited_until().unwrap();
    assert_eq!(at, t + std::time::Duration::from_millis(952));
    flows.release_limited(at);
    assert_eq!(take(&mut flows, at), [0, 3000, 10_000]);
    flows.set_limit(at, id(1), None).unwrap();
    assert_eq!(take(&mut flows, at), [0, 10_000, 10_000]);
    assert_eq!(flows.limited_until(), None);
}

#[test]
fn a_limited_flow_that_is_given_up_leaves_no_deadline() {
    let t = base();
    let mut flows = table(8);
    write(&mut flows, 1, 900);
    flows
        .set_limit(t, id(1), Some(RateLimit::new(2048, 1000).unwrap()))
        .unwrap();
    if let Some(flow) = flows.flow_mut(0) {
        flow.limit.as_mut().unwrap().take(4096);
    }
    assert!(flows.next_new(t, 100).is_none());
    assert!(flows.limited_until().is_some());
    flows.abandon(id(1));
    assert_eq!(flows.limited_until(), None);
}
