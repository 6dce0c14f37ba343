use std::time::Duration;

use vmdt_wire::{MessageId, ShareIndex};

use super::*;

#[allow(clippy::disallowed_methods)]
fn base() -> Instant {
    Instant::now()
}

/// Moves datagrams between two endpoints, 5 ms each way, losing every `drop`th.
fn run(a: &mut Endpoint, b: &mut Endpoint, start: Instant, drop: usize, octets: usize) -> Vec<u8> {
    let addresses: [SocketAddr; 2] = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| text.parse().unwrap());
    let (id_a, id_b) = (a.local, b.local);
    let flow = FlowId::new(MessageId::ZERO, ShareIndex::new(1).unwrap());
    a.connect(start, id_b, addresses[1]);
    let data: Vec<u8> = (0..octets).map(|n| (n % 251) as u8).collect();
    a.write(start, id_b, flow, Bytes::from(data.clone()))
        .unwrap();
    a.finish(start, id_b, flow).unwrap();
    let mut received = Vec::new();
    let mut count = 0;
    let mut air: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    for tick in 0..20_000u32 {
        let now = start + Duration::from_millis(5) * tick;
        for (to, datagram) in std::mem::take(&mut air) {
            let endpoint = if to == 0 { &mut *a } else { &mut *b };
            endpoint.handle_datagram(now, addresses[1 - to], Bytes::from(datagram));
        }
        while let Some(piece) = b.read(now, id_a, flow) {
            received.extend_from_slice(&piece);
        }
        for (index, endpoint) in [&mut *a, &mut *b].into_iter().enumerate() {
            endpoint.handle_timeout(now);
            let mut buf = Vec::new();
            while endpoint.poll_transmit(now, &mut buf).is_some() {
                count += 1;
                if count % drop != 0 {
                    air.push_back((1 - index, buf.clone()));
                }
            }
        }
        let delivered = Event::FlowDelivered { peer: id_b, flow };
        if std::iter::from_fn(|| a.poll_event()).any(|event| event == delivered) {
            assert_eq!(received, data);
            return received;
        }
    }
    panic!("not delivered");
}

#[test]
fn packet_numbers_wrap_on_both_sides() {
    for start in [u32::MAX, u32::MAX - 3, u32::MAX - 400, 0, 1 << 31] {
        let mut a = Endpoint::new(Config::default(), "a".parse().unwrap(), [1; 32]);
        let mut b = Endpoint::new(Config::default(), "b".parse().unwrap(), [2; 32]);
        a.packet_start = Some(start);
        b.packet_start = Some(start);
        run(&mut a, &mut b, base(), 17, 1_500_000);
        let peer = b.local;
        let stats = a.stats(peer).unwrap();
        assert_eq!(stats.acks_of_unsent, 0);
        assert!(stats.packets_sent > 1_000);
    }
}

#[test]
fn forgotten_half_open_entries_leave_nothing() {
    let now = base();
    let mut b = Endpoint::new(Config::default(), "b".parse().unwrap(), [2; 32]);
    let mut buf = Vec::new();
    for n in 0..300u16 {
        let name = format!("peer{n}");
        let mut a = Endpoint::new(Config::default(), name.parse().unwrap(), [3; 32]);
        a.connect(now, "b".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
        assert!(a.poll_transmit(now, &mut buf).is_some());
        let from = SocketAddr::from(([10, 0, 1, 1], n + 1));
        b.handle_datagram(now, from, Bytes::copy_from_slice(&buf));
        b.handle_datagram(now, from, Bytes::copy_from_slice(&buf));
    }
    assert_eq!(b.half_open.len(), 256);
    let answers = std::iter::from_fn(|| b.poll_transmit(now, &mut buf)).count();
    assert_eq!(answers, 256, "one answer for an offer that came twice");
    let end = b.poll_timeout().unwrap();
    b.handle_timeout(end);
    assert_eq!(b.half_open.len(), 0);
    assert_eq!(b.poll_timeout(), None);
}

#[test]
fn an_idle_session_is_small() {
    let octets = std::mem::size_of::<Session>();
    assert!(octets < 2624, "{octets} octets");
}
