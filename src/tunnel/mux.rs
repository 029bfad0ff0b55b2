//! The streams of one link: who may speak next, and who is meant.
//!
//! It owns the streams and their queues; it does not know the link, nor what a stream is for. A role
//! opens streams and says what is readable; the mux fills batches and takes messages apart, and hands
//! back, one at a time and in order, what the role must see ([`Happened`]).
//!
//! **Who speaks.** Control before data: credits and disconnects are marks on streams, never queued
//! frames. Then data, round-robin, a quantum each while others wait, a whole batch when alone. A
//! stream that was silent before (a keystroke) goes first, within half of the batch, so that it never
//! waits for the bulk streams' turns and cannot starve them either.
//!
//! **Life of a stream.** It is live until its end, which is one of: both directions said FIN (raw),
//! the response ended (HTTP), a disconnect arrived, or one was asked for. It leaves its role with
//! [`Happened::Ended`] (or by [`Mux::abort`], which the role asked for itself), and the slab once
//! its last frame is in a batch.
//!
//! Invariants ([`Mux::check_invariants`]): a stream is found by its id while it is live; the footprint is the
//! sum over the streams and stands in the budget; a live stream's queue flag is set exactly when
//! it stands in a queue.

mod end;
mod event;
mod fill;
mod limit;
mod receive;
mod state;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasherDefault,
    time::Duration,
};

use slab::Slab;

pub use self::{
    event::{EndCounts, Ended, Expired, Happened, Orphan, StreamEnd},
    receive::Violation,
    state::{LinkState, Phase, StreamState, StreamView, Traffic},
};
use self::{
    limit::Lines,
    stream::{Aside, IdHasher, Life, Place, Queued, Stream},
};
use crate::{
    clock::Now,
    http::{Body, Follower},
    key::Key,
    tunnel::{
        Sockets, Standing,
        control::{Goaway, How, ProxyConnect},
        frame::{Flags, Kind, StreamId},
        rate::RateId,
        relay::{Relay, WindowLimits},
        window::{Budget, EARLY_MAX, Footprint, Pressure, Window},
    },
};

/// Which end of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Opens streams; its sockets are users'.
    Server,
    /// Its sockets are targets'.
    Client,
}

/// Names a stream to its role. A stale one misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    index: u32,
    serial: u32,
}

/// What a new stream begins with.
pub struct Opening {
    /// The user's socket.
    pub key: Key,
    /// The role's own name for the stream.
    pub owner: u32,
    /// What the client must know.
    pub connect: ProxyConnect,
    /// Bytes that go first: a request head.
    pub head: Vec<u8>,
    /// What is read from the socket then.
    pub body: Body,
}

/// The streams of one link.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    streams: Slab<Stream>,
    by_id: HashMap<StreamId, u32, BuildHasherDefault<IdHasher>>,
    /// Link-level control frames: bounded by the proxies of a client, hello and goaway.
    outbox: VecDeque<(Kind, Box<[u8]>)>,
    /// Streams with marks.
    marked: VecDeque<Handle>,
    /// Streams with data that were silent before.
    fresh: VecDeque<Handle>,
    /// Streams with data that had a turn already.
    waiting: VecDeque<Handle>,
    /// Streams that wait for their rates.
    lines: HashMap<RateId, Lines>,
    /// Payload bytes of `fresh` streams in the present batch.
    fresh_bytes: usize,
    /// Turns that `waiting` streams have had.
    turns: u64,
    /// The highest id opened.
    highest: u64,
    /// We have said goaway.
    leaving: bool,
    /// The peer has.
    peer_leaving: bool,
    /// Tells tenants of a slot apart.
    serial: u32,
    /// The peer has proved itself.
    welcomed: bool,
    /// What all streams cost the budget.
    footprint: Footprint,
    traffic: Traffic,
    /// Streams of which only the disconnect is still to be sent.
    closing: usize,
    window: WindowLimits,
    peer_window: u32,
}

impl Mux {
    /// An empty mux, the windows of whose streams begin and grow as `budget` allows.
    pub fn new(side: Side, budget: &Budget) -> Mux {
        Mux {
            side,
            streams: Slab::new(),
            by_id: HashMap::default(),
            outbox: VecDeque::new(),
            marked: VecDeque::new(),
            fresh: VecDeque::new(),
            waiting: VecDeque::new(),
            lines: HashMap::new(),
            fresh_bytes: 0,
            turns: 0,
            highest: 0,
            leaving: false,
            peer_leaving: false,
            serial: 0,
            welcomed: false,
            footprint: Footprint::default(),
            traffic: Traffic::default(),
            closing: 0,
            window: WindowLimits {
                initial: budget.window_initial(),
                max: budget.window_max(),
            },
            peer_window: 0,
        }
    }

    /// The peer has proved itself, and said what its windows begin at, in bytes. Until then it may say
    /// nothing else.
    pub fn welcomed(&mut self, peer_window: u32) {
        self.welcomed = true;
        self.peer_window = peer_window;
    }

    /// Queues a frame that concerns the link. `payload` is JSON of at most
    /// [`CONTROL_MAX`](super::frame::CONTROL_MAX) bytes.
    pub fn control(&mut self, kind: Kind, payload: &impl serde::Serialize) {
        let json = serde_json::to_vec(payload).expect("control payloads are plain data");
        self.outbox.push_back((kind, json.into_boxed_slice()));
    }

    /// Says that no stream above the highest one was touched, and none will be.
    pub fn goaway(&mut self) {
        self.leaving = true;
        self.control(Kind::Goaway, &Goaway { last: self.highest });
    }

    /// The peer has said goaway.
    pub fn peer_leaves(&mut self) {
        self.peer_leaving = true;
    }

    /// Whether it has.
    pub fn is_peer_leaving(&self) -> bool {
        self.peer_leaving
    }

    /// Opens a stream (server).
    pub fn open(&mut self, opening: Opening, budget: &mut Budget, now: Now) -> Handle {
        let Opening {
            key,
            owner,
            connect,
            head,
            body,
        } = opening;
        let raw = connect.request.is_none();
        let may_upgrade = connect.request.as_ref().is_some_and(|facts| facts.upgrade);
        let end = if raw { Flags::FIN } else { Flags::MESSAGE_END };
        let window = Window::new(self.window.initial, self.window.initial);
        let relay = Relay::new(Some((body, end)), EARLY_MAX.min(self.peer_window), window);
        let mut stream = Stream::new(UNANNOUNCED, relay, raw, now.instant);
        stream.key = Some(key);
        stream.owner = owner;
        stream.may_upgrade = may_upgrade;
        stream.aside = Some(Box::new(Aside {
            connect: Some(connect),
            ..Aside::default()
        }));
        stream.relay.send(head, false, now.instant);
        let handle = self.insert(stream);
        self.settle(handle.index, Footprint::default(), budget);
        // Its first bytes follow its proxy_connect, in the same message.
        self.mark(handle);
        self.schedule(handle);
        handle
    }

    /// What comes on the stream may be one response, and nothing else (server).
    pub fn follow(&mut self, handle: Handle, follower: Follower) {
        if let Some(stream) = self.stream(handle) {
            stream.aside.get_or_insert_default().follower = Some(follower);
        }
    }

    /// Tells whose stream it is (client).
    pub fn adopt(&mut self, handle: Handle, owner: u32) {
        if let Some(stream) = self.stream(handle) {
            stream.owner = owner;
        }
    }

    /// The target is connected (client): says so, opens the whole window and delivers what waits. A
    /// raw stream's socket is read from now on.
    ///
    /// The stream may end by this; the event says so.
    #[must_use]
    pub fn connected(
        &mut self,
        handle: Handle,
        key: Key,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Option<Happened> {
        let stream = self.stream(handle)?;
        stream.key = Some(key);
        // After a rewind the peer has been told already.
        stream.marks.connected |= !std::mem::replace(&mut stream.connected, true);
        if stream.raw {
            stream.relay.open(Body::raw(), Flags::FIN);
        }
        self.mark(handle);
        self.schedule(handle);
        self.writable(handle, sockets, budget, now)
    }

    /// Keeps what the peer says on a stream that is about to be [connected](Mux::connected), because the
    /// socket may prove dead: [`Mux::rewind`] says it all again. Not while memory is short, nor beyond
    /// 64 KiB; of a request that is not `repeatable`, only until its first byte is written.
    pub fn keep_replay(&mut self, handle: Handle, repeatable: bool, budget: &mut Budget) {
        if budget.pressure() == Pressure::Calm {
            self.change(handle, budget, |relay| relay.keep_replay(repeatable));
        }
    }

    /// The socket lives: what was kept is not needed any more.
    pub fn drop_replay(&mut self, handle: Handle, budget: &mut Budget) {
        self.change(handle, budget, Relay::drop_replay);
    }

    /// The stream's socket was dead: it waits to be connected anew, and everything that the peer has
    /// said with it. `false`, and nothing is changed, when not all of that was kept.
    #[must_use]
    pub fn rewind(&mut self, handle: Handle, budget: &mut Budget, now: Now) -> bool {
        let rewound = self.change(handle, budget, |relay| relay.rewind(now.instant));
        let rewound = rewound.unwrap_or(false);
        if rewound && let Some(stream) = self.stream(handle) {
            stream.key = None;
        }
        rewound
    }

    /// Changes what a relay holds.
    fn change<T>(
        &mut self,
        handle: Handle,
        budget: &mut Budget,
        change: impl FnOnce(&mut Relay) -> T,
    ) -> Option<T> {
        let initial = self.window.initial;
        let stream = self.stream(handle)?;
        let before = stream.relay.footprint(initial);
        let changed = change(&mut stream.relay);
        self.settle(handle.index, before, budget);
        Some(changed)
    }

    /// Sends bytes of the stream that its role made, before anything that is read: a response head.
    pub fn send(
        &mut self,
        handle: Handle,
        bytes: Vec<u8>,
        final_head: bool,
        budget: &mut Budget,
        now: Now,
    ) {
        let initial = self.window.initial;
        let Some(stream) = self.stream(handle) else {
            return;
        };
        let before = stream.relay.footprint(initial);
        stream.relay.send(bytes, final_head, now.instant);
        let unsaid = stream.marks.connected;
        self.settle(handle.index, before, budget);
        if unsaid {
            self.mark(handle);
        }
        self.schedule(handle);
    }

    /// The head is sent; from now on the socket is read through `body`, at whose end the user's
    /// connection may be kept or not (client).
    pub fn respond(&mut self, handle: Handle, body: Body, keep: bool) {
        let Some(stream) = self.stream(handle) else {
            return;
        };
        let end = Flags::MESSAGE_END.with(if keep { Flags::KEEP } else { Flags::NONE });
        stream.relay.open(body, end);
        self.schedule(handle);
    }

    /// The origin has switched protocols (client): says so before anything else of this stream; both
    /// directions are raw from here on.
    pub fn upgrade(&mut self, handle: Handle) {
        let Some(stream) = self.stream(handle) else {
            return;
        };
        stream.raw = true;
        stream.marks.upgraded = true;
        stream.relay.upgrade();
        self.mark(handle);
        self.schedule(handle);
    }

    /// Whether the final response head has passed: no other answer may be given.
    pub fn is_answered(&mut self, handle: Handle) -> bool {
        self.stream(handle).is_some_and(|stream| stream.answered)
    }

    /// The stream's socket may have bytes to read.
    pub fn schedule(&mut self, handle: Handle) {
        let Some(stream) = self.stream(handle) else {
            return;
        };
        if stream.queued == Queued::No && !stream.relay.is_sent() {
            stream.queued = Queued::Fresh;
            self.fresh.push_back(handle);
        }
    }

    /// Delivers of the tail what the socket takes.
    fn writable(
        &mut self,
        handle: Handle,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Option<Happened> {
        let initial = self.window.initial;
        let stream = self.stream(handle)?;
        let key = stream.key?;
        let before = stream.relay.footprint(initial);
        let drained = stream.relay.drain(key, sockets, now.instant);
        self.settle(handle.index, before, budget);
        if drained.is_err() {
            return self.write_failed(handle, budget);
        }
        self.credit_if_due(handle, budget);
        self.finish_inbound(handle, sockets, budget)
    }

    /// The stream's socket has had an event: what it can take is delivered, what it may have is
    /// scheduled to be read. An error is acted on at once: what the socket still holds is read first,
    /// as far as there is credit for it, and a stream that reads no more ends here.
    #[must_use]
    pub fn ready(
        &mut self,
        handle: Handle,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Option<Happened> {
        let side = self.side;
        let stream = self.stream(handle)?;
        let (key, sent, raw) = (stream.key?, stream.relay.is_sent(), stream.raw);
        let has_tail = stream.relay.tail_len() > 0;
        match sockets.standing(key) {
            Standing::Failed if sent => {
                let reason = self.reset_reason();
                return Some(self.fail(handle, How::Abort, reason, budget));
            }
            // It has said all, and nobody is left to have what is said to it. (An origin that has may
            // have answered.)
            Standing::Deaf if sent && (side == Side::Server || raw) => {
                let how = if raw { How::Orderly } else { How::Abort };
                let reason = self.reset_reason();
                return Some(self.fail(handle, how, reason, budget));
            }
            Standing::Failed | Standing::Deaf | Standing::Readable => self.schedule(handle),
            Standing::Quiet => {}
        }
        if has_tail {
            self.writable(handle, sockets, budget, now)
        } else {
            None
        }
    }

    /// Whether the request of this stream was delivered (client) or sent (server) whole.
    pub fn is_request_whole(&mut self, handle: Handle) -> bool {
        let side = self.side;
        self.stream(handle).is_some_and(|stream| match side {
            Side::Server => stream.relay.is_sent(),
            Side::Client => stream.relay.is_delivered(),
        })
    }

    /// Whether the peer has said that the request is complete, delivered or not (client).
    pub fn is_request_told(&mut self, handle: Handle) -> bool {
        self.stream(handle)
            .is_some_and(|stream| stream.relay.is_told())
    }

    /// Whether the stream waits for the peer's credit or for its turn: its socket is not to blame for
    /// standing still.
    pub fn is_held_up(&mut self, handle: Handle) -> bool {
        self.stream(handle)
            .is_some_and(|stream| stream.is_held_up())
    }

    /// Whether no more than so many bytes were sent, and none received.
    pub fn has_only_sent(&mut self, handle: Handle, bytes: u64) -> bool {
        self.stream(handle).is_some_and(|stream| {
            stream.relay.sent <= bytes
                && stream.relay.delivered == 0
                && stream.relay.tail_len() == 0
        })
    }

    /// Whether received bytes of the stream wait for its socket.
    pub fn has_tail(&mut self, handle: Handle) -> bool {
        self.stream(handle)
            .is_some_and(|stream| stream.relay.tail_len() > 0)
    }

    /// Whether [`Mux::fill`] has anything to do.
    pub fn has_work(&self) -> bool {
        !(self.outbox.is_empty()
            && self.marked.is_empty()
            && self.fresh.is_empty()
            && self.waiting.is_empty())
    }

    /// Undelivered bytes of all its streams.
    pub fn held(&self) -> usize {
        self.footprint.held
    }

    /// Payload bytes that its streams have sent and received since the link began.
    pub fn carried(&self) -> u64 {
        self.traffic.sent + self.traffic.received
    }

    /// What its streams have carried since the link began.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How many streams there are, those included whose last frame is not yet sent.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    fn credit_if_due(&mut self, handle: Handle, budget: &Budget) {
        if let Some(stream) = self.stream(handle)
            && stream.relay.due(budget.pressure()) > 0
        {
            self.mark(handle);
        }
    }

    fn insert(&mut self, mut stream: Stream) -> Handle {
        let (id, serial) = (stream.id, self.serial);
        self.serial = serial.wrapping_add(1);
        stream.serial = serial;
        let index = self.streams.insert(stream) as u32;
        if id != UNANNOUNCED {
            self.by_id.insert(id, index);
        }
        Handle { index, serial }
    }

    fn handle(&self, index: u32) -> Handle {
        Handle {
            index,
            serial: self.streams[index as usize].serial,
        }
    }

    /// The live stream of that name.
    fn stream(&mut self, handle: Handle) -> Option<&mut Stream> {
        self.any_stream(handle)
            .filter(|stream| stream.life == Life::Live)
    }

    /// The stream of that name, live or about to leave.
    fn any_stream(&mut self, handle: Handle) -> Option<&mut Stream> {
        self.streams
            .get_mut(handle.index as usize)
            .filter(|stream| stream.serial == handle.serial)
    }

    fn mark(&mut self, handle: Handle) {
        if let Some(stream) = self.any_stream(handle)
            && !std::mem::replace(&mut stream.marks.queued, true)
        {
            self.marked.push_back(handle);
        }
    }

    /// Brings the ledger up to date after a relay has changed from `before`.
    fn settle(&mut self, index: u32, before: Footprint, budget: &mut Budget) {
        let after = self.streams[index as usize]
            .relay
            .footprint(self.window.initial);
        self.footprint.account(before, after);
        budget.account(before, after);
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        let (mut footprint, mut closing) = (Footprint::default(), 0);
        for (index, stream) in &self.streams {
            let handle = self.handle(index as u32);
            stream.relay.check_invariants();
            let part = stream.relay.footprint(self.window.initial);
            footprint.account(Footprint::default(), part);
            let live = stream.life == Life::Live;
            closing += usize::from(!live);
            assert_eq!(
                self.by_id.get(&stream.id),
                (live && stream.id != UNANNOUNCED).then_some(&(index as u32)),
                "a stream is found by its id while it is live"
            );
            let in_queue =
                |queue: &VecDeque<Handle>| queue.iter().filter(|queued| **queued == handle).count();
            let expected = match stream.queued {
                Queued::No => (0, 0),
                Queued::Fresh => (1, 0),
                Queued::Waiting => (0, 1),
                Queued::Limited => (0, 0),
            };
            if live {
                let aside = stream.aside.as_ref();
                let places = match aside.and_then(|aside| aside.limited.as_ref()) {
                    Some(limited) => [limited.up, limited.down],
                    None => [Place::Free; 2],
                };
                let [up, down] = places.map(|place| usize::from(place == Place::InLine));
                assert_eq!(self.in_lines(handle), (up, down), "lines of its rate");
                let limited = stream.queued == Queued::Limited;
                assert_eq!(up == 1, limited, "it stands in one queue");
            }
            assert_eq!(
                (in_queue(&self.fresh), in_queue(&self.waiting)),
                expected,
                "queue flag"
            );
            assert_eq!(
                in_queue(&self.marked),
                usize::from(stream.marks.queued),
                "mark flag"
            );
        }
        assert_eq!(
            footprint, self.footprint,
            "the ledger agrees with the streams"
        );
        assert_eq!(closing, self.closing, "closing streams are counted");
        assert!(
            self.by_id.len() <= self.streams.len(),
            "no id without its stream"
        );
    }
}

/// The id of a stream of which the peer has not been told, above all that there are: to a peer that leaves,
/// it is one that was never touched.
const UNANNOUNCED: StreamId = StreamId(u64::MAX);

/// Queued names of streams that are gone are dropped when they are many more than this.
const PRUNE_MIN: usize = 1024;

/// A reader that took no byte for so long may be given up when memory has run out.
pub const STALL_MAX: Duration = Duration::from_secs(10);
