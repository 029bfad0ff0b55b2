//! What a link and its streams have come to, for whoever looks on: status, and the oracles that hold the
//! two ends of a link against each other.

use std::collections::HashMap;

use crate::{
    key::Key,
    tunnel::{
        frame::StreamId,
        mux::{
            Mux,
            stream::{Life, Queued},
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

impl Mux {
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
            .filter(|(_, stream)| stream.life == Life::Live);
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
