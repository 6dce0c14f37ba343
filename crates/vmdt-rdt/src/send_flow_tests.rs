use proptest::prelude::*;

use super::*;

#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

const PLENTY: u64 = u64::MAX;

fn cut(flow: &mut SendFlow, max: usize) -> Result<Outgoing, Held> {
    flow.next_segment(max, PLENTY, true)
}

/// Cuts and sends the next segment as packet `packet`.
fn send(flow: &mut SendFlow, packet: u64) -> Outgoing {
    let outgoing = cut(flow, 10).unwrap();
    flow.on_sent(base(), outgoing.clone(), packet);
    outgoing
}

#[test]
fn a_large_write_is_sliced_not_copied() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    let data = Bytes::from(vec![7; 25]);
    let start = data.as_ptr();
    flow.write(data);
    let first = send(&mut flow, 1);
    let second = send(&mut flow, 2);
    assert_eq!(first.data.as_ptr(), start);
    assert_eq!(second.data.as_ptr(), start.wrapping_add(10));
    assert_eq!(send(&mut flow, 3).data.len(), 5);
    assert_eq!(cut(&mut flow, 10).unwrap_err(), Held::Empty);
}

#[test]
fn small_writes_are_joined() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    for piece in ["ab", "cd", "efghijklm"] {
        flow.write(Bytes::from_static(piece.as_bytes()));
    }
    assert_eq!(&send(&mut flow, 1).data[..], b"abcdefghij");
    assert_eq!(&send(&mut flow, 2).data[..], b"klm");
}

#[test]
fn final_stands_on_the_last_segment_or_on_an_empty_one() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    flow.write(Bytes::from_static(b"0123456789x"));
    assert!(flow.finish());
    assert!(
        !flow.write(Bytes::from_static(b"late")),
        "nothing after the end"
    );
    assert!(!send(&mut flow, 1).last);
    assert!(send(&mut flow, 2).last);

    let mut late = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    late.write(Bytes::from_static(b"x"));
    assert!(!send(&mut late, 1).last);
    late.finish();
    let end = send(&mut late, 2);
    assert!(end.last && end.data.is_empty());
    assert!(!late.is_delivered());
    late.on_acked(1);
    assert!(!late.is_delivered());
    late.on_acked(0);
    assert!(late.is_delivered());
}

#[test]
fn a_window_holds_back_and_a_newer_announcement_opens_it() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 15);
    flow.write(Bytes::from(vec![0; 100]));
    send(&mut flow, 1);
    assert_eq!(
        cut(&mut flow, 10).unwrap_err(),
        Held::FlowWindow,
        "no silly segment of 5"
    );
    flow.on_cumulative(1).unwrap();
    flow.on_window(1, 20, 50);
    send(&mut flow, 2);
    send(&mut flow, 3);
    assert_eq!(cut(&mut flow, 10).unwrap_err(), Held::FlowWindow);
    flow.on_window(1, 90, 49);
    assert_eq!(
        cut(&mut flow, 10).unwrap_err(),
        Held::FlowWindow,
        "an older ACK says nothing"
    );
    flow.on_window(1, 30, 51);
    send(&mut flow, 4);
}

#[test]
fn a_window_below_a_segment_is_used_when_nothing_else_could_open_it() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 4);
    flow.write(Bytes::from(vec![0; 100]));
    assert_eq!(cut(&mut flow, 10).unwrap().data.len(), 4);
}

#[test]
fn the_session_window_holds_back_too() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    flow.write(Bytes::from(vec![0; 100]));
    let held = flow.next_segment(10, 9, false).unwrap_err();
    assert_eq!(held, Held::SessionWindow);
    assert_eq!(flow.next_segment(10, 9, true).unwrap().data.len(), 9);
}

#[test]
fn a_retransmission_keeps_number_and_content() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    flow.start_at(0xffff);
    flow.write(Bytes::from(vec![1; 20]));
    let first = send(&mut flow, 1);
    send(&mut flow, 2);
    assert_eq!(first.seq, 0xffff);
    assert!(flow.again(0xffff, true).is_none(), "not lost");
    assert!(flow.on_lost(0xffff, 1));
    assert!(!flow.on_lost(0xffff, 1), "queued already");
    let again = flow.again(0xffff, true).unwrap();
    assert_eq!(
        (again.seq, again.data, again.last),
        (first.seq, first.data, first.last)
    );
    flow.on_sent_again(base(), 0xffff, 3);
    assert!(!flow.on_lost(0xffff, 1), "a newer packet carries it");
    assert!(flow.on_lost(0xffff, 3));
    assert_eq!(flow.on_acked(0xffff), 10);
    assert!(flow.again(0xffff, true).is_none(), "acknowledged meanwhile");
}

#[test]
fn an_acknowledgment_beyond_what_was_sent_is_refused() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    flow.write(Bytes::from(vec![1; 20]));
    send(&mut flow, 1);
    assert_eq!(flow.on_cumulative(2), None);
    assert_eq!(flow.on_cumulative(1), Some(10));
    assert_eq!(flow.on_cumulative(0), Some(0));
}

#[test]
fn segments_in_transit_are_bounded() {
    let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
    flow.write(Bytes::from(vec![1; MAX_SEGMENTS + 1]));
    for packet in 0..MAX_SEGMENTS as u64 {
        let outgoing = cut(&mut flow, 1).unwrap();
        flow.on_sent(base(), outgoing, packet);
    }
    assert_eq!(cut(&mut flow, 1).unwrap_err(), Held::Segments);
    flow.on_acked(0);
    assert!(cut(&mut flow, 1).is_ok());
}

proptest! {
    #[test]
    fn whatever_the_writes_the_segments_are_their_concatenation(
        writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
        max in 1usize..40,
    ) {
        let mut flow = SendFlow::new(FlowId::CONTROL, 1, 1 << 20);
        for write in &writes {
            flow.write(Bytes::from(write.clone()));
        }
        flow.finish();
        let mut sent = Vec::new();
        let mut last = false;
        while let Ok(outgoing) = cut(&mut flow, max) {
            prop_assert!(!last, "nothing after FINAL");
            prop_assert!(outgoing.data.len() <= max);
            sent.extend_from_slice(&outgoing.data);
            last = outgoing.last;
            flow.on_sent(base(), outgoing, 0);
        }
        prop_assert!(last);
        prop_assert_eq!(&sent, &writes.concat());
        prop_assert_eq!(flow.queued(), sent.len());
    }
}
