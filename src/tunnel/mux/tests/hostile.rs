//! Peers that break the protocol, or bend it: each of these was found in review.

use super::*;
use crate::tunnel::{
    control::{self, Welcome},
    frame::CONTROL_MAX,
};

fn exchange(pair: &mut Pair, head: &[u8]) -> Handle {
    pair.open(
        0,
        Some(facts()),
        head,
        Body::new(Framing::None, Coding::Plain),
    )
}

/// A message that opens a stream of that id and gives it credit; `abort` ends it at once.
fn opening(id: u64, abort: bool) -> Bytes {
    let connect = ProxyConnect {
        proxy_id: "e-8-1".parse().unwrap(),
        user_id: "user-80-1".parse().unwrap(),
        remote_host: "127.0.0.1".into(),
        remote_port: 80,
        protocol: "tcp".into(),
        request: None,
    };
    let mut batch = Batch::default();
    batch.begin(BATCH_MAX);
    let length = control::encode(&connect, batch.payload()).unwrap();
    batch.seal(StreamId(id), Kind::ProxyConnect, Flags::NONE, length);
    assert!(batch.push(StreamId(id), Kind::ProxyCredit, &1000u32.to_be_bytes()));
    if abort {
        let end = Disconnect {
            how: How::Abort,
            reason: Reason::UserReset,
        };
        let json = serde_json::to_vec(&end).unwrap();
        assert!(batch.push(StreamId(id), Kind::ProxyDisconnect, &json));
    }
    Bytes::copy_from_slice(batch.as_slice())
}

#[test]
fn before_welcome_a_client_is_asked_for_nothing() {
    let budget = Budget::new(64 << 20);
    let mut client = End {
        mux: Mux::new(Side::Client, &budget),
        budget,
        sockets: Sockets::default(),
        happened: Vec::new(),
        batch: Batch::default(),
    };
    let now = Now {
        instant: Instant::now(),
        unix: Duration::ZERO,
    };
    assert_eq!(
        deliver(&mut client, opening(1, false), true, now),
        Err(Violation::Unexpected(Kind::ProxyConnect, StreamId(1)))
    );
    assert!(client.mux.is_empty() && client.happened.is_empty());
}

#[test]
fn welcome_travels_in_a_message_that_an_unwelcomed_link_takes() {
    let mut pair = Pair::new(64 << 20);
    let welcome = Welcome {
        proof: Some("00".repeat(32)),
        window: 65536,
        closes: true,
        version: "0".into(),
    };
    pair.server.mux.control(Kind::Welcome, &welcome);
    // In the same turn there is a user whose request is long.
    exchange(&mut pair, &[b'h'; 4000]);
    let End {
        mux,
        sockets,
        budget,
        batch,
        ..
    } = &mut pair.server;
    batch.begin(16 * 1024);
    assert!(
        mux.fill(batch, QUANTUM, sockets, budget, pair.now)
            .is_none()
    );
    assert!(
        batch.len() <= HEADER_BYTES + CONTROL_MAX,
        "{} bytes",
        batch.len()
    );
    assert!(mux.has_work(), "the rest follows");
}

#[test]
fn a_message_end_without_a_final_head_is_no_response() {
    let mut pair = Pair::new(64 << 20);
    exchange(&mut pair, b"GET");
    let answer = || {
        let mut batch = Batch::default();
        batch.begin(BATCH_MAX);
        batch.seal(
            StreamId(1),
            Kind::ProxyData,
            Flags::MESSAGE_END.with(Flags::KEEP),
            0,
        );
        Bytes::copy_from_slice(batch.as_slice())
    };
    assert_eq!(
        deliver(&mut pair.server, answer(), true, pair.now),
        Err(Violation::Unopened(Kind::ProxyData, StreamId(1))),
        "nobody was told of it yet"
    );
    let End {
        mux,
        sockets,
        budget,
        batch,
        ..
    } = &mut pair.server;
    batch.begin(BATCH_MAX);
    // Its request goes with it.
    while mux
        .fill(batch, QUANTUM, sockets, budget, pair.now)
        .is_some()
    {}
    assert_eq!(
        deliver(&mut pair.server, answer(), true, pair.now),
        Err(Violation::Unexpected(Kind::ProxyData, StreamId(1)))
    );
}

#[test]
fn a_stale_handle_misses_however_the_server_chooses_ids() {
    let mut pair = Pair::new(64 << 20);
    deliver(&mut pair.client, opening(1, true), false, pair.now).unwrap();
    let stale = opened(&pair.client, 0);
    deliver(
        &mut pair.client,
        opening(1 + (1 << 32), false),
        false,
        pair.now,
    )
    .unwrap();
    assert!(pair.client.mux.stream(stale).is_none());
    pair.client.mux.check_invariants();
}

#[test]
fn queues_do_not_grow_with_streams_that_are_gone() {
    let mut pair = Pair::new(64 << 20);
    for id in 1..=10_000 {
        deliver(&mut pair.client, opening(id, true), false, pair.now).unwrap();
    }
    let mux = &pair.client.mux;
    let queued = mux.fresh.len() + mux.waiting.len() + mux.marked.len();
    assert!(
        queued <= PRUNE_MIN + 1,
        "{queued} names, {} streams",
        mux.len()
    );
}

#[test]
fn what_windows_grew_to_stays_within_the_budget_when_all_readers_stop_at_once() {
    let limit = 4 << 20;
    let mut pair = Pair::new(limit);
    const STREAMS: u32 = 100;
    for n in 0..STREAMS {
        pair.open_raw(n);
    }
    pair.run(true);
    let send = |pair: &mut Pair, bytes: usize| {
        for n in 0..STREAMS {
            let far = pair.client.sockets.0.get_mut(&target(n)).unwrap();
            far.input.extend(vec![1; bytes]);
            let handle = opened(&pair.client, n);
            pair.client.mux.schedule(handle);
        }
        pair.run(true);
    };
    // All read fast, and their windows grow.
    for _ in 0..20 {
        send(&mut pair, 64 << 10);
    }
    assert!(pair.server.mux.footprint.promised > 0, "some have grown");
    for n in 0..STREAMS {
        pair.server.sockets.0.get_mut(&user(n)).unwrap().room = 0;
    }
    send(&mut pair, 1 << 20);
    let held = pair.server.budget.held();
    assert!(held <= limit, "{held} bytes held of {limit}");
}

#[test]
fn a_client_that_drains_has_not_touched_what_crosses_its_goaway() {
    let mut pair = Pair::new(64 << 20);
    pair.open_raw(0);
    pair.run(true);
    pair.client.mux.goaway();
    pair.open_raw(1);
    pair.run(true);
    let opened = |happened: &&Happened| matches!(happened, Happened::Opened(..));
    assert_eq!(pair.client.happened.iter().filter(opened).count(), 1);
    let untouched = pair.server.mux.untouched_above(1, &mut pair.server.budget);
    assert_eq!(
        untouched
            .iter()
            .map(|(owner, _)| *owner)
            .collect::<Vec<_>>(),
        [1]
    );
    pair.server.mux.check_invariants();
    assert_eq!(pair.server.mux.len(), 1);
}
