//! Two muxes, joined by messages, with sockets in memory.

mod hostile;
mod limited;
mod replay;
mod torn;
mod trailers;

use std::{
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    http::{Coding, Framing},
    tunnel::{
        Outlook,
        control::{Disconnect, Reason, RequestFacts},
        frame::{BATCH_MAX, Batch, HEADER_BYTES, Message},
    },
};

/// The least that a stream may say in one go while others wait.
const QUANTUM: usize = 16 * 1024;

/// A socket in memory: what its peer sent, and what it took.
#[derive(Default)]
struct Socket {
    input: VecDeque<u8>,
    ended: bool,
    failed: bool,
    output: Vec<u8>,
    /// How much more it takes before it would block.
    room: usize,
    write_fails: bool,
    shut: bool,
}

#[derive(Default)]
struct Sockets(HashMap<Key, Socket>);

impl crate::tunnel::Sockets for Sockets {
    fn read(&mut self, key: Key, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "never read into an empty slice");
        let socket = self.0.get_mut(&key).ok_or(io::ErrorKind::NotConnected)?;
        if socket.input.is_empty() {
            return match (socket.failed, socket.ended) {
                (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                (_, true) => Ok(0),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let taken = into.len().min(socket.input.len());
        for (byte, from) in into.iter_mut().zip(socket.input.drain(..taken)) {
            *byte = from;
        }
        Ok(taken)
    }

    fn unread(&mut self, key: Key, bytes: &[u8]) {
        let socket = self
            .0
            .get_mut(&key)
            .expect("only open sockets are given bytes back");
        for byte in bytes.iter().rev() {
            socket.input.push_front(*byte);
        }
    }

    fn write(&mut self, key: Key, bytes: &[u8]) -> io::Result<usize> {
        let socket = self.0.get_mut(&key).ok_or(io::ErrorKind::NotConnected)?;
        assert!(!socket.shut, "nothing is written after FIN");
        if socket.write_fails {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(socket.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        socket.room -= taken;
        socket.output.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn shutdown(&mut self, key: Key) {
        let socket = self.0.get_mut(&key).expect("only open sockets are shut");
        assert!(
            !std::mem::replace(&mut socket.shut, true),
            "FIN is sent once"
        );
    }

    fn standing(&self, key: Key) -> Standing {
        match self.0.get(&key) {
            None => Standing::Failed,
            Some(socket) if socket.failed => Standing::Failed,
            Some(socket) if !socket.input.is_empty() || socket.ended => Standing::Readable,
            Some(_) => Standing::Quiet,
        }
    }

    fn outlook(&mut self, key: Key) -> Outlook {
        match self.0.get(&key) {
            None => Outlook::Failed,
            Some(socket) if socket.failed => Outlook::Failed,
            Some(socket) if !socket.input.is_empty() => Outlook::Data,
            Some(socket) if socket.ended => Outlook::End,
            Some(_) => Outlook::Quiet,
        }
    }
}

/// One end of a link.
struct End {
    mux: Mux,
    budget: Budget,
    sockets: Sockets,
    happened: Vec<Happened>,
    batch: Batch,
}

struct Pair {
    server: End,
    client: End,
    now: Now,
}

const USER: Key = Key {
    index: 0,
    serial: 0,
};
const TARGET: Key = Key {
    index: 1000,
    serial: 0,
};

impl Pair {
    fn new(budget: usize) -> Pair {
        let end = |side| {
            let budget = Budget::new(budget);
            let mut mux = Mux::new(side, &budget);
            mux.welcomed(budget.window_initial());
            End {
                mux,
                budget,
                sockets: Sockets::default(),
                happened: Vec::new(),
                batch: Batch::default(),
            }
        };
        Pair {
            server: end(Side::Server),
            client: end(Side::Client),
            now: Now {
                instant: Instant::now(),
                unix: Duration::ZERO,
            },
        }
    }

    /// Opens a stream, raw or an exchange, for the n-th user.
    fn open(&mut self, n: u32, facts: Option<RequestFacts>, head: &[u8], body: Body) -> Handle {
        let key = user(n);
        self.server.sockets.0.entry(key).or_insert(Socket {
            room: usize::MAX,
            ..Socket::default()
        });
        let connect = ProxyConnect {
            proxy_id: "edge-1-80-1".parse().unwrap(),
            user_id: "user-80-1".parse().unwrap(),
            remote_host: "127.0.0.1".into(),
            remote_port: 80,
            protocol: if facts.is_some() { "http" } else { "tcp" }.into(),
            request: facts,
        };
        let opening = Opening {
            key,
            owner: n,
            connect,
            head: head.to_vec(),
            body,
        };
        self.server
            .mux
            .open(opening, &mut self.server.budget, self.now)
    }

    fn open_raw(&mut self, n: u32) -> Handle {
        self.open(n, None, b"", Body::raw())
    }

    /// Moves everything that can move between the two, both ways; the n-th user's target is connected
    /// as soon as it is asked for if `connect`.
    fn run(&mut self, connect: bool) {
        for _ in 0..10_000 {
            let moved = step(&mut self.server, &mut self.client, connect, self.now)
                + step(&mut self.client, &mut self.server, connect, self.now);
            self.server.mux.check_invariants();
            self.client.mux.check_invariants();
            if moved == 0 {
                return;
            }
        }
        panic!("the two talk for ever");
    }

    fn server_ended(&self, n: u32) -> Option<StreamEnd> {
        ended(&self.server, n)
    }

    fn client_ended(&self, n: u32) -> Option<StreamEnd> {
        ended(&self.client, n)
    }

    fn is_clean(&self) -> bool {
        self.server.mux.is_empty()
            && self.client.mux.is_empty()
            && self.server.budget.held() == 0
            && self.client.budget.held() == 0
    }
}

/// A GET of an HTTP/1.1 user that stays.
fn facts() -> RequestFacts {
    RequestFacts {
        head: false,
        http10: false,
        upgrade: false,
        keep_alive: true,
        tied: false,
        repeatable: true,
        long: false,
        expects: false,
    }
}

fn user(n: u32) -> Key {
    Key {
        index: USER.index + n,
        ..USER
    }
}

fn target(n: u32) -> Key {
    Key {
        index: TARGET.index + n,
        ..TARGET
    }
}

fn ended(end: &End, n: u32) -> Option<StreamEnd> {
    let mut ends = end.happened.iter().filter_map(|happened| match happened {
        Happened::Ended(owner, ended) if *owner == n => Some(ended.end),
        _ => None,
    });
    let first = ends.next();
    assert!(ends.next().is_none(), "a stream ends once");
    first
}

/// One message from one end to the other; how many bytes it had.
fn step(from: &mut End, to: &mut End, connect: bool, now: Now) -> usize {
    from.batch.begin(BATCH_MAX);
    while let Some(happened) = from.mux.fill(
        &mut from.batch,
        QUANTUM,
        &mut from.sockets,
        &mut from.budget,
        now,
    ) {
        from.happened.push(happened);
    }
    let length = from.batch.len();
    if length == 0 {
        return 0;
    }
    let bytes = Bytes::copy_from_slice(from.batch.as_slice());
    deliver(to, bytes, connect, now).expect("our own frames keep the protocol");
    length
}

fn deliver(to: &mut End, bytes: Bytes, connect: bool, now: Now) -> Result<(), Violation> {
    let mut message = Message::new(bytes);
    while let Some(happened) = to
        .mux
        .receive(&mut message, &mut to.sockets, &mut to.budget, now)?
    {
        if let Happened::Opened(handle, _) = &happened {
            // Streams are opened in the order of their owners in these tests.
            let n = to
                .happened
                .iter()
                .filter(|happened| matches!(happened, Happened::Opened(..)))
                .count() as u32;
            to.mux.adopt(*handle, n);
            to.sockets.0.entry(target(n)).or_insert(Socket {
                room: usize::MAX,
                ..Socket::default()
            });
            if connect {
                let (sockets, budget) = (&mut to.sockets, &mut to.budget);
                let more = to.mux.connected(*handle, target(n), sockets, budget, now);
                to.happened.extend(more);
            }
        }
        to.happened.push(happened);
    }
    Ok(())
}

fn opened(end: &End, n: u32) -> Handle {
    end.happened
        .iter()
        .filter_map(|happened| match happened {
            Happened::Opened(handle, _) => Some(*handle),
            _ => None,
        })
        .nth(n as usize)
        .expect("the stream was opened")
}

#[test]
fn a_raw_stream_ends_silently_when_both_ends_were_delivered() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.run(true);
    let early = pair.server.sockets.0.get_mut(&user(0)).unwrap();
    early.input.extend(b"question");
    early.ended = true;
    pair.server.mux.schedule(stream);
    pair.run(true);
    let far = pair.client.sockets.0.get_mut(&target(0)).unwrap();
    assert_eq!((far.output.as_slice(), far.shut), (&b"question"[..], true));
    assert_eq!(pair.client_ended(0), None, "one half is still open");
    let far = pair.client.sockets.0.get_mut(&target(0)).unwrap();
    far.input.extend(b"answer");
    far.ended = true;
    let handle = opened(&pair.client, 0);
    pair.client.mux.schedule(handle);
    pair.run(true);
    let near = &pair.server.sockets.0[&user(0)];
    assert_eq!((near.output.as_slice(), near.shut), (&b"answer"[..], true));
    assert_eq!(pair.server_ended(0), Some(StreamEnd::Closed));
    assert_eq!(pair.client_ended(0), Some(StreamEnd::Closed));
    assert!(pair.is_clean());
}

#[test]
fn early_data_is_bounded_and_waits_for_the_one_connection() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.server
        .sockets
        .0
        .get_mut(&user(0))
        .unwrap()
        .input
        .extend(vec![7; 100_000]);
    pair.server.mux.schedule(stream);
    pair.run(false);
    assert_eq!(pair.client.mux.held(), EARLY_MAX as usize);
    let handle = opened(&pair.client, 0);
    let End {
        mux,
        sockets,
        budget,
        ..
    } = &mut pair.client;
    assert!(
        mux.connected(handle, target(0), sockets, budget, pair.now)
            .is_none()
    );
    assert_eq!(mux.held(), 0);
    pair.run(true);
    assert_eq!(pair.client.sockets.0[&target(0)].output.len(), 100_000);
}

#[test]
fn a_stalled_reader_stalls_its_own_stream_and_gets_no_more_than_its_window() {
    let mut pair = Pair::new(64 << 20);
    let (slow, quick) = (pair.open_raw(0), pair.open_raw(1));
    pair.run(true);
    let window = pair.client.budget.window_initial() as usize;
    pair.client.sockets.0.get_mut(&target(0)).unwrap().room = 0;
    for n in 0..2 {
        pair.server
            .sockets
            .0
            .get_mut(&user(n))
            .unwrap()
            .input
            .extend(vec![n as u8; 1 << 20]);
    }
    pair.server.mux.schedule(slow);
    pair.server.mux.schedule(quick);
    pair.run(true);
    assert_eq!(pair.client.sockets.0[&target(1)].output.len(), 1 << 20);
    assert_eq!(pair.client.mux.held(), window);
    // It reads again: everything comes.
    pair.client.sockets.0.get_mut(&target(0)).unwrap().room = usize::MAX;
    let handle = opened(&pair.client, 0);
    let End {
        mux,
        sockets,
        budget,
        ..
    } = &mut pair.client;
    assert!(mux.writable(handle, sockets, budget, pair.now).is_none());
    pair.run(true);
    assert_eq!(pair.client.sockets.0[&target(0)].output, vec![0; 1 << 20]);
    assert_eq!(pair.client.budget.held(), 0);
}

#[test]
fn an_end_is_said_without_credit() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.run(true);
    pair.client.sockets.0.get_mut(&target(0)).unwrap().room = 0;
    let window = pair.client.budget.window_initial() as usize;
    let early = pair.server.sockets.0.get_mut(&user(0)).unwrap();
    early.input.extend(vec![1; window]);
    pair.server.mux.schedule(stream);
    pair.run(true);
    pair.server.sockets.0.get_mut(&user(0)).unwrap().ended = true;
    pair.server.mux.schedule(stream);
    pair.run(true);
    assert!(
        matches!(pair.server.happened.last(), Some(Happened::HalfClosed(0))),
        "{:?}",
        pair.server.happened
    );
}

#[test]
fn a_reset_without_credit_reaches_the_other_end() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.run(true);
    pair.client.sockets.0.get_mut(&target(0)).unwrap().room = 0;
    let near = pair.server.sockets.0.get_mut(&user(0)).unwrap();
    near.input.extend(vec![1; 1 << 20]);
    pair.server.mux.schedule(stream);
    pair.run(true);
    pair.server.sockets.0.get_mut(&user(0)).unwrap().failed = true;
    assert!(
        {
            let End {
                mux,
                sockets,
                budget,
                ..
            } = &mut pair.server;
            mux.ready(stream, sockets, budget, pair.now)
        }
        .is_none()
    );
    pair.run(true);
    assert_eq!(
        pair.server_ended(0),
        Some(StreamEnd::Failed(Reason::UserReset))
    );
    let reset = StreamEnd::Disconnected(How::Abort, Reason::UserReset);
    assert_eq!(pair.client_ended(0), Some(reset));
    assert!(pair.is_clean());
}

#[test]
fn a_socket_that_takes_nothing_is_still_read_to_its_end() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.run(true);
    let far = pair.client.sockets.0.get_mut(&target(0)).unwrap();
    far.write_fails = true;
    far.input.extend(b"last words");
    far.ended = true;
    pair.server
        .sockets
        .0
        .get_mut(&user(0))
        .unwrap()
        .input
        .extend(b"lost");
    pair.server.mux.schedule(stream);
    let handle = opened(&pair.client, 0);
    pair.client.mux.schedule(handle);
    pair.run(true);
    assert_eq!(pair.server.sockets.0[&user(0)].output, b"last words");
    assert_eq!(
        pair.client_ended(0),
        Some(StreamEnd::Failed(Reason::TargetReset))
    );
    assert!(pair.server_ended(0).is_some());
    assert!(pair.is_clean());
}

#[test]
fn the_end_of_the_response_ends_an_exchange_in_both_directions() {
    let mut pair = Pair::new(64 << 20);
    let body = Body::new(Framing::Length(100), Coding::Plain);
    let facts = RequestFacts {
        repeatable: false,
        ..facts()
    };
    let stream = pair.open(0, Some(facts), b"POST / HTTP/1.1\r\n\r\n", body);
    pair.server
        .sockets
        .0
        .get_mut(&user(0))
        .unwrap()
        .input
        .extend(vec![1; 40]);
    pair.server.mux.schedule(stream);
    pair.run(true);
    let handle = opened(&pair.client, 0);
    let End { mux, budget, .. } = &mut pair.client;
    assert!(!mux.is_request_told(handle));
    mux.send(
        handle,
        b"HTTP/1.1 413 Too Large\r\n\r\n".to_vec(),
        true,
        budget,
        pair.now,
    );
    mux.respond(handle, Body::new(Framing::None, Coding::Plain), false);
    pair.run(true);
    let early = StreamEnd::Answered {
        keep: false,
        request_whole: false,
    };
    assert_eq!(pair.client_ended(0), Some(early));
    assert_eq!(pair.server_ended(0), Some(early));
    assert_eq!(
        pair.server.sockets.0[&user(0)].output,
        b"HTTP/1.1 413 Too Large\r\n\r\n"
    );
    assert_eq!(pair.client.sockets.0[&target(0)].output.len(), 19 + 40);
    assert!(pair.is_clean());
}

#[test]
fn a_response_cut_off_is_answered_by_its_reason_before_the_head_and_orderly_after_it() {
    for headed in [false, true] {
        let mut pair = Pair::new(64 << 20);
        pair.open(
            0,
            Some(facts()),
            b"GET / HTTP/1.1\r\n\r\n",
            Body::new(Framing::None, Coding::Plain),
        );
        pair.run(true);
        let handle = opened(&pair.client, 0);
        let far = pair.client.sockets.0.get_mut(&target(0)).unwrap();
        far.input.extend(b"half");
        far.ended = true;
        let End { mux, budget, .. } = &mut pair.client;
        if headed {
            mux.send(
                handle,
                b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
                true,
                budget,
                pair.now,
            );
            mux.respond(handle, Body::new(Framing::Length(10), Coding::Plain), true);
        } else {
            mux.abort(handle, Reason::OriginClosed, budget);
        }
        pair.run(true);
        let how = if headed { How::Orderly } else { How::Abort };
        let end = StreamEnd::Disconnected(how, Reason::OriginClosed);
        assert_eq!(pair.server_ended(0), Some(end));
        let output = &pair.server.sockets.0[&user(0)].output;
        assert_eq!(output.ends_with(b"half"), headed);
        assert!(pair.is_clean());
    }
}

#[test]
fn an_upgraded_stream_is_raw_from_then_on() {
    let mut pair = Pair::new(64 << 20);
    let facts = RequestFacts {
        upgrade: true,
        ..facts()
    };
    let stream = pair.open(
        0,
        Some(facts),
        b"GET / HTTP/1.1\r\n\r\n",
        Body::new(Framing::None, Coding::Plain),
    );
    // Bytes of the new protocol that the user sends too early are not sent before 101.
    pair.server
        .sockets
        .0
        .get_mut(&user(0))
        .unwrap()
        .input
        .extend(b"early");
    pair.server.mux.schedule(stream);
    pair.run(true);
    let handle = opened(&pair.client, 0);
    assert!(
        pair.client.sockets.0[&target(0)]
            .output
            .ends_with(b"\r\n\r\n")
    );
    let far = pair.client.sockets.0.get_mut(&target(0)).unwrap();
    far.input.extend(b"raw");
    far.ended = true;
    let End { mux, budget, .. } = &mut pair.client;
    mux.upgrade(handle);
    mux.send(
        handle,
        b"HTTP/1.1 101 S\r\n\r\n".to_vec(),
        false,
        budget,
        pair.now,
    );
    pair.run(true);
    assert_eq!(
        pair.server.sockets.0[&user(0)].output,
        b"HTTP/1.1 101 S\r\n\r\nraw"
    );
    assert!(
        pair.client.sockets.0[&target(0)]
            .output
            .ends_with(b"\r\n\r\nearly")
    );
    pair.server.sockets.0.get_mut(&user(0)).unwrap().ended = true;
    pair.server.mux.schedule(stream);
    pair.run(true);
    assert_eq!(pair.server_ended(0), Some(StreamEnd::Closed));
    assert!(pair.is_clean());
}

#[test]
fn a_keystroke_goes_before_the_bulk_of_sixteen_others() {
    let mut pair = Pair::new(64 << 20);
    let handles: Vec<Handle> = (0..17).map(|n| pair.open_raw(n)).collect();
    pair.run(true);
    for n in 0..16 {
        pair.server
            .sockets
            .0
            .get_mut(&user(n))
            .unwrap()
            .input
            .extend(vec![0; 60_000]);
        pair.server.mux.schedule(handles[n as usize]);
    }
    // Eight of them in a batch have their first turn; after two they are the bulk.
    for _ in 0..2 {
        step(&mut pair.server, &mut pair.client, true, pair.now);
    }
    pair.server
        .sockets
        .0
        .get_mut(&user(16))
        .unwrap()
        .input
        .extend(b"k");
    pair.server.mux.schedule(handles[16]);
    step(&mut pair.server, &mut pair.client, true, pair.now);
    assert_eq!(pair.client.sockets.0[&target(16)].output, b"k");
}

#[test]
fn no_stream_waits_longer_than_all_others_take_one_turn_each() {
    let mut pair = Pair::new(64 << 20);
    let handles: Vec<Handle> = (0..16).map(|n| pair.open_raw(n)).collect();
    pair.run(true);
    for n in 0..16u32 {
        pair.server
            .sockets
            .0
            .get_mut(&user(n))
            .unwrap()
            .input
            .extend(vec![0; 64 * 1024]);
        pair.server.mux.schedule(handles[n as usize]);
    }
    // Sixteen quanta of 16 KiB less headers are a little over four full batches.
    for _ in 0..6 {
        step(&mut pair.server, &mut pair.client, true, pair.now);
    }
    for n in 0..16 {
        let got = pair.client.sockets.0[&target(n)].output.len();
        assert!(got >= 8 * 1024, "stream {n} got {got} bytes");
    }
}

#[test]
fn frames_of_a_stream_that_is_gone_are_dropped_and_of_one_that_never_was_close_the_link() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.run(true);
    pair.server
        .mux
        .abort(stream, Reason::UserReset, &mut pair.server.budget);
    let frame = |id: u64, kind: Kind, payload: &[u8]| {
        let mut batch = Batch::default();
        batch.begin(BATCH_MAX);
        assert!(batch.push(StreamId(id), kind, payload));
        Bytes::copy_from_slice(batch.as_slice())
    };
    let mut tell = |id, kind, payload: &[u8]| {
        deliver(&mut pair.server, frame(id, kind, payload), true, pair.now)
    };
    assert_eq!(tell(1, Kind::ProxyData, b"crossed"), Ok(()));
    assert_eq!(tell(1, Kind::ProxyCredit, &[0, 0, 1, 0]), Ok(()));
    let unopened = |kind, id| Err(Violation::Unopened(kind, StreamId(id)));
    assert_eq!(tell(2, Kind::ProxyData, b"x"), unopened(Kind::ProxyData, 2));
    assert_eq!(tell(0, Kind::ProxyData, b"x"), unopened(Kind::ProxyData, 0));
    assert_eq!(
        tell(3, Kind::ProxyConnect, b"{}"),
        Err(Violation::Sender(Kind::ProxyConnect))
    );
    assert_eq!(
        tell(3, Kind::Welcome, b"{}"),
        Err(Violation::Sender(Kind::Welcome))
    );
    assert_eq!(
        tell(3, Kind::Goaway, b"{}"),
        Err(Violation::Unexpected(Kind::Goaway, StreamId(3)))
    );
}

#[test]
fn every_way_to_break_a_stream_closes_the_link() {
    let broken = |kind: Kind, flags: Flags, payload: &[u8]| {
        let mut pair = Pair::new(1 << 20);
        pair.open_raw(0);
        pair.run(true);
        let mut batch = Batch::default();
        batch.begin(BATCH_MAX);
        batch.payload()[..payload.len()].copy_from_slice(payload);
        batch.seal(StreamId(1), kind, flags, payload.len());
        let bytes = Bytes::copy_from_slice(batch.as_slice());
        deliver(&mut pair.server, bytes, true, pair.now).unwrap_err()
    };
    let id = StreamId(1);
    // The window of the smallest budget is 4 KiB.
    assert_eq!(
        broken(Kind::ProxyData, Flags::NONE, &[0; 4097]),
        Violation::Overspent(id)
    );
    assert_eq!(
        broken(Kind::ProxyData, Flags::MESSAGE_END, b""),
        Violation::Unexpected(Kind::ProxyData, id)
    );
    assert_eq!(
        broken(Kind::ProxyData, Flags::FINAL, b"x"),
        Violation::Unexpected(Kind::ProxyData, id)
    );
    assert_eq!(
        broken(Kind::ProxyConnected, Flags::NONE, b""),
        Violation::Unexpected(Kind::ProxyConnected, id)
    );
    assert_eq!(
        broken(Kind::ProxyUpgraded, Flags::NONE, b""),
        Violation::Unexpected(Kind::ProxyUpgraded, id)
    );
    assert_eq!(
        broken(Kind::ProxyCredit, Flags::NONE, &[1, 2, 3]),
        Violation::Payload(Kind::ProxyCredit)
    );
    assert_eq!(
        broken(Kind::ProxyCredit, Flags::NONE, &[255; 4]),
        Violation::Overspent(id)
    );
    assert_eq!(
        broken(Kind::ProxyDisconnect, Flags::NONE, b"{}"),
        Violation::Payload(Kind::ProxyDisconnect)
    );
}

#[test]
fn a_stream_whose_reader_stands_still_is_shed_and_no_other() {
    let mut pair = Pair::new(64 << 20);
    let (slow, quick) = (pair.open_raw(0), pair.open_raw(1));
    pair.run(true);
    for (n, stream) in [(0, slow), (1, quick)] {
        pair.client.sockets.0.get_mut(&target(n)).unwrap().room = 0;
        pair.server
            .sockets
            .0
            .get_mut(&user(n))
            .unwrap()
            .input
            .extend(vec![0; 1000]);
        pair.server.mux.schedule(stream);
    }
    pair.run(true);
    // Another link's bytes have filled the budget, this one's are next to nothing.
    let full = Footprint {
        held: 64 << 20,
        promised: 0,
    };
    pair.client.budget.account(Footprint::default(), full);
    let shed = pair.client.mux.shed(9, &mut pair.client.budget, pair.now);
    assert!(shed.is_empty(), "none stands still");
    pair.now.instant += STALL_MAX;
    let moving = opened(&pair.client, 1);
    pair.client.sockets.0.get_mut(&target(1)).unwrap().room = 1;
    let End {
        mux,
        sockets,
        budget,
        ..
    } = &mut pair.client;
    assert!(mux.writable(moving, sockets, budget, pair.now).is_none());
    assert!(matches!(
        mux.shed(9, budget, pair.now)[..],
        [Happened::Ended(0, _)]
    ));
    assert!(mux.shed(9, budget, pair.now).is_empty());
    assert_eq!(mux.held(), 999);
}

#[test]
fn no_more_streams_are_shed_than_it_takes_nor_than_may_be_at_once() {
    let mut pair = Pair::new(8 << 10);
    let held = [500, 3000, 1000, 4000];
    for (n, bytes) in held.into_iter().enumerate() {
        let n = n as u32;
        let stream = pair.open_raw(n);
        pair.run(true);
        pair.client.sockets.0.get_mut(&target(n)).unwrap().room = 0;
        let user = pair.server.sockets.0.get_mut(&user(n)).unwrap();
        user.input.extend(vec![0; bytes]);
        pair.server.mux.schedule(stream);
        pair.run(true);
    }
    pair.now.instant += STALL_MAX;
    let End { mux, budget, .. } = &mut pair.client;
    assert!(budget.pressure() >= Pressure::Full);
    assert_eq!(mux.held(), 8500);
    assert!(mux.shed(0, budget, pair.now).is_empty());
    let shed = mux.shed(9, budget, pair.now);
    assert!(matches!(shed[..], [Happened::Ended(3, _)]), "{shed:?}");
    assert_eq!(mux.held(), 4500, "those who hold little stay");
}

#[test]
fn the_end_of_a_link_ends_each_stream_once() {
    let mut pair = Pair::new(64 << 20);
    let gone = pair.open_raw(0);
    pair.open_raw(1);
    pair.run(true);
    pair.server
        .mux
        .abort(gone, Reason::UserReset, &mut pair.server.budget);
    let ended = pair
        .server
        .mux
        .end_all(Reason::LinkLost, &mut pair.server.budget);
    assert_eq!(
        ended.iter().map(|orphan| orphan.owner).collect::<Vec<_>>(),
        [1]
    );
    assert!(pair.server.mux.is_empty());
}

#[test]
fn a_half_closed_stream_that_is_about_to_be_read_has_not_expired() {
    let mut pair = Pair::new(64 << 20);
    let stream = pair.open_raw(0);
    pair.run(true);
    let handle = opened(&pair.client, 0);
    pair.server.sockets.0.get_mut(&user(0)).unwrap().room = 0;
    let far = pair.client.sockets.0.get_mut(&target(0)).unwrap();
    far.input.extend(vec![1; 1 << 20]);
    pair.client.mux.schedule(handle);
    pair.run(true);
    // The user does not read: the target waits for credit, and is not to blame.
    let expired = |pair: &mut Pair| {
        let End { mux, budget, .. } = &mut pair.client;
        mux.half_close_expired(handle, budget)
    };
    assert!(matches!(expired(&mut pair), Expired::Waits));
    // It reads again, and its credit has come in the very turn of the deadline.
    pair.server.sockets.0.get_mut(&user(0)).unwrap().room = usize::MAX;
    let End {
        mux,
        sockets,
        budget,
        ..
    } = &mut pair.server;
    assert!(mux.writable(stream, sockets, budget, pair.now).is_none());
    step(&mut pair.server, &mut pair.client, true, pair.now);
    assert!(matches!(expired(&mut pair), Expired::Waits));
    // All was read, and nothing has come for the whole time.
    pair.run(true);
    assert!(matches!(
        expired(&mut pair),
        Expired::GivenUp { cut: true, .. }
    ));
}

#[test]
fn an_idle_stream_is_small() {
    let size = size_of::<Stream>();
    println!("a stream: {size} bytes");
    assert!(size <= 152, "{size}");
    assert_eq!(size_of::<Handle>(), 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random sizes, rooms and ends: every byte arrives in order, nothing is left, nothing is held.
    #[test]
    fn every_byte_of_every_stream_arrives(
        sizes in prop::collection::vec((0usize..200_000, 0usize..200_000), 1..12),
        room in 10usize..50_000,
        budget in prop::sample::select(vec![1usize << 20, 4 << 20, 64 << 20]),
    ) {
        let mut pair = Pair::new(budget);
        let up = |n: usize, i: usize| (n * 7 + i) as u8;
        let down = |n: usize, i: usize| (n * 13 + i * 3) as u8;
        let mut handles = Vec::new();
        for (n, (size, _)) in sizes.iter().enumerate() {
            let key = user(n as u32);
            pair.server.sockets.0.insert(key, Socket {
                input: (0..*size).map(|i| up(n, i)).collect(),
                ended: true,
                ..Socket::default()
            });
            let answer = Socket {
                input: (0..sizes[n].1).map(|i| down(n, i)).collect(),
                ended: true,
                ..Socket::default()
            };
            pair.client.sockets.0.insert(target(n as u32), answer);
            handles.push(pair.open_raw(n as u32));
        }
        // Readers take a little at a time until all have ended: so many bytes a round, and some rounds for
        // whatever else there is to say.
        let rounds_max = 1000 + 2 * 200_000 / room;
        for round in 0.. {
            prop_assert!(round < rounds_max, "it goes on for ever");
            pair.run(true);
            if pair.is_clean() {
                break;
            }
            for end in [&mut pair.server, &mut pair.client] {
                for socket in end.sockets.0.values_mut() {
                    socket.room = room;
                }
            }
            for n in 0..sizes.len() as u32 {
                let End { mux, sockets, budget, happened, .. } = &mut pair.server;
                happened.extend(mux.writable(handles[n as usize], sockets, budget, pair.now));
                let handle = opened(&pair.client, n);
                let End { mux, sockets, budget, happened, .. } = &mut pair.client;
                happened.extend(mux.writable(handle, sockets, budget, pair.now));
            }
        }
        for (n, (up_size, down_size)) in sizes.iter().enumerate() {
            let far = &pair.client.sockets.0[&target(n as u32)];
            prop_assert!(far.output.iter().copied().eq((0..*up_size).map(|i| up(n, i))));
            let near = &pair.server.sockets.0[&user(n as u32)];
            prop_assert!(near.output.iter().copied().eq((0..*down_size).map(|i| down(n, i))));
            prop_assert_eq!(pair.server_ended(n as u32), Some(StreamEnd::Closed));
            prop_assert_eq!(pair.client_ended(n as u32), Some(StreamEnd::Closed));
        }
    }

    /// No bytes from a peer make a mux panic, nor hold more than they are.
    #[test]
    fn hostile_bytes_are_a_violation_at_worst(
        frames in prop::collection::vec(
            (0u64..4, 0u8..14, 0u8..17, prop::collection::vec(any::<u8>(), 0..64)), 0..20),
        side in any::<bool>(),
    ) {
        let mut pair = Pair::new(1 << 20);
        pair.open_raw(0);
        pair.run(true);
        let mut bytes = Vec::new();
        for (stream, kind, flags, payload) in &frames {
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.extend_from_slice(&[*kind, *flags, 0, payload.len() as u8]);
            bytes.extend_from_slice(payload);
        }
        let end = if side { &mut pair.server } else { &mut pair.client };
        let _ = deliver(end, bytes.clone().into(), true, pair.now);
        end.mux.check_invariants();
        prop_assert!(end.mux.held() <= bytes.len() + HEADER_BYTES);
    }
}
