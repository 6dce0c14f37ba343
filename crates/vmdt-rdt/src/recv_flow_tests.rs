use proptest::prelude::*;

use super::*;

fn flow(window: u32) -> RecvFlow {
    RecvFlow::new(FlowId::CONTROL, window, 0)
}

fn take(flow: &mut RecvFlow, seq: u64, data: &[u8], last: bool) -> Taken {
    flow.take(seq, Bytes::copy_from_slice(data), last, 100, u64::MAX)
}

fn all(flow: &mut RecvFlow) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(piece) = flow.read() {
        out.extend_from_slice(&piece);
    }
    out
}

#[test]
fn segments_are_put_in_order_across_the_wrap_of_the_wire_number() {
    let mut flow = flow(1000);
    flow.start_at(0xfffe);
    for (seq, data) in [(0x10000u64, b"c"), (0xffff, b"b")] {
        assert!(matches!(
            take(&mut flow, seq, data, false),
            Taken::Stored {
                advanced: false,
                ..
            }
        ));
    }
    assert!(matches!(
        take(&mut flow, 0xfffe, b"a", false),
        Taken::Stored { advanced: true, .. }
    ));
    assert_eq!(all(&mut flow), b"abc");
    assert_eq!(flow.next_seq(), 0x10001);
}

#[test]
fn a_segment_is_taken_once() {
    let mut flow = flow(1000);
    take(&mut flow, 0, b"a", false);
    take(&mut flow, 2, b"c", false);
    assert_eq!(take(&mut flow, 0, b"x", false), Taken::Duplicate);
    assert_eq!(take(&mut flow, 2, b"x", false), Taken::Duplicate);
    take(&mut flow, 1, b"b", false);
    assert_eq!(all(&mut flow), b"abc");
}

#[test]
fn beyond_the_window_is_refused_and_reading_opens_it() {
    let mut flow = flow(10);
    take(&mut flow, 0, b"12345678", false);
    assert_eq!(flow.window(), 2);
    assert_eq!(take(&mut flow, 1, b"abc", false), Taken::Refused);
    assert!(!flow.wants_announcement());
    all(&mut flow);
    assert!(flow.wants_announcement());
    flow.on_announced();
    assert!(!flow.wants_announcement());
    assert!(matches!(
        take(&mut flow, 1, b"abc", false),
        Taken::Stored { .. }
    ));
}

#[test]
fn too_far_ahead_is_refused() {
    let mut flow = flow(1000);
    let far = MAX_SEGMENTS as u64;
    assert_eq!(take(&mut flow, far, b"x", false), Taken::Refused);
    assert!(matches!(
        take(&mut flow, far - 1, b"x", false),
        Taken::Stored { .. }
    ));
}

#[test]
fn holes_are_listed_up_to_the_newest_segment() {
    let mut flow = flow(1000);
    for seq in [1u64, 2, 5, 9] {
        take(&mut flow, seq, b"x", false);
    }
    let holes: Vec<(u16, u16)> = flow
        .holes()
        .iter()
        .map(|hole| (hole.first.get(), hole.count.get()))
        .collect();
    assert_eq!(holes, [(0, 1), (3, 2), (6, 3)]);
}

#[test]
fn small_segments_cost_memory_in_proportion() {
    let mut flow = flow(1 << 20);
    for seq in 0..10_000 {
        take(&mut flow, seq, b"x", false);
    }
    assert!(flow.ready.len() <= 3, "one octet is not one piece");
    assert_eq!(all(&mut flow).len(), 10_000);
}

#[test]
fn a_large_segment_is_not_copied() {
    let mut flow = flow(1 << 20);
    let data = Bytes::from(vec![1; 1392]);
    flow.take(0, data.clone(), false, 1, u64::MAX);
    assert_eq!(flow.read().unwrap().as_ptr(), data.as_ptr());
}

proptest! {
    #[test]
    fn any_order_with_duplicates_gives_the_stream(
        sizes in prop::collection::vec(0usize..700, 1..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let mut rest: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| n as u8).collect();
        let expected = rest.clone();
        let segments: Vec<Vec<u8>> = sizes.iter().map(|size| rest.drain(..*size).collect()).collect();
        let count = segments.len();
        let mut flow = flow(1 << 20);
        let mut out = Vec::new();
        let random = order.iter().map(|index| index.index(count));
        for seq in random.chain(0..count) {
            take(&mut flow, seq as u64, &segments[seq], seq + 1 == count);
            out.extend(all(&mut flow));
        }
        prop_assert_eq!(out, expected);
        prop_assert!(flow.is_complete());
        prop_assert_eq!(flow.held(), 0);
    }
}
