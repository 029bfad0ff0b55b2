//! What a link and its streams have come to, for whoever looks on: status, and the oracles that hold the
//! two ends of a link against each other.

use std::{collections::HashMap, time::Instant};

use crate::{
    histogram::Histogram,
    key::Key,
    tunnel::{
        frame::StreamId,
        mux::{
            Mux, UNANNOUNCED,
            stream::{Life, Queued, Stream},
        },
    },
};

/// What one stream has come to: for whoever looks on, and holds the two ends of a link against each
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Its id on the link.
    pub id: StreamId,
    /// Its socket, once it has one.
    pub key: Option<Key>,
    /// Bytes that it may send.
    pub credit: usize,
    /// Bytes that the peer may send.
    pub granted: usize,
    /// Bytes that were received and wait for its socket.
    pub tail: usize,
    /// Payload bytes sent to the peer.
    pub sent: u64,
    /// Payload bytes delivered to the socket.
    pub delivered: u64,
    /// How many stand before it in the queue of those that had a turn already, if it is there.
    pub waits_behind: Option<usize>,
}

/// What one link has come to, for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its live streams.
    pub streams: Vec<StreamState>,
    /// Turns that streams have had that had waited for one.
    pub turns: u64,
    /// All that was said is with the kernel.
    pub is_flushed: bool,
}

/// What the streams of a link have carried since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload bytes sent to the peer.
    pub sent: u64,
    /// Payload bytes that it has sent.
    pub received: u64,
    /// How long HTTP exchanges took from the request's head to the first byte of the final response.
    pub answers: Histogram,
}

impl Traffic {
    /// That of another link, too.
    pub fn add(&mut self, other: &Traffic) {
        self.sent += other.sent;
        self.received += other.received;
        self.answers.add(&other.answers);
    }
}

/// One stream, for a list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamView {
    /// The role's own name for it.
    pub owner: u32,
    /// When it was opened.
    pub opened: Instant,
    /// Payload bytes sent to the peer.
    pub sent: u64,
    /// Payload bytes delivered to the socket.
    pub delivered: u64,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its target is not connected yet.
    Connecting,
    /// The final response of an exchange has not begun.
    Request,
    /// It has.
    Response,
    /// Bytes both ways.
    Open,
    /// One of the directions is over.
    HalfClosed,
}

impl Phase {
    /// Its word in status.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Connecting => "connecting",
            Phase::Request => "request",
            Phase::Response => "response",
            Phase::Open => "open",
            Phase::HalfClosed => "half_closed",
        }
    }
}

impl Mux {
    /// Its live streams, the first of which cost no more than they are: O(streams taken), but for slots
    /// that a burst has left.
    pub fn views(&self) -> impl Iterator<Item = StreamView> {
        let live = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.life == Life::Live);
        live.map(|(_, stream)| StreamView {
            owner: stream.owner,
            opened: stream.opened,
            sent: stream.relay.sent,
            delivered: stream.relay.delivered,
            phase: match stream {
                Stream {
                    connected: false, ..
                } => Phase::Connecting,
                Stream {
                    raw: true, relay, ..
                } if relay.is_sent() || relay.is_told() => Phase::HalfClosed,
                Stream { raw: true, .. } => Phase::Open,
                Stream { answered: true, .. } => Phase::Response,
                Stream { .. } => Phase::Request,
            },
        })
    }

    /// What the link has come to, all of which `is_flushed` or not. O(streams).
    pub(in crate::tunnel) fn state(&self, is_flushed: bool) -> LinkState {
        let places: HashMap<u32, usize> = self
            .waiting
            .iter()
            .enumerate()
            .map(|(place, handle)| (handle.index, place))
            .collect();
        let live = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.life == Life::Live && stream.id != UNANNOUNCED);
        let streams = live.map(|(index, stream)| StreamState {
            id: stream.id,
            key: stream.key,
            credit: stream.relay.credit_left(),
            granted: stream.relay.granted(),
            tail: stream.relay.tail_len(),
            sent: stream.relay.sent,
            delivered: stream.relay.delivered,
            waits_behind: (stream.queued == Queued::Waiting)
                .then(|| places.get(&(index as u32)).copied())
                .flatten(),
        });
        LinkState {
            streams: streams.collect(),
            turns: self.turns,
            is_flushed,
        }
    }
}
