//! How streams end: each once, and its story is told to its role and, unless it knows, to the peer.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use super::{
    Ended, Expired, Handle, Happened, Life, Mux, Orphan, PRUNE_MIN, Side, Stream, StreamEnd,
};
use crate::{
    clock::Now,
    tunnel::{
        Sockets,
        control::{Disconnect, How, Reason},
        relay::End,
        window::{Budget, Footprint, Pressure},
    },
};

impl Mux {
    /// The peer has said goaway: the streams above `last` were untouched, and end here.
    pub fn untouched_above(&mut self, last: u64, budget: &mut Budget) -> Vec<(u32, Ended)> {
        let untouched: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.id.0 > last && stream.life == Life::Live)
            .map(|(index, _)| index as u32)
            .collect();
        let end = StreamEnd::Disconnected(How::Abort, Reason::Draining);
        untouched
            .into_iter()
            .map(|index| {
                let stream = self.forget(self.handle(index), budget);
                (stream.owner, stream.ended(end))
            })
            .collect()
    }

    /// Gives a stream up, at once, and tells its story. Its role has done with it: no event will name
    /// it again.
    pub fn abort(&mut self, handle: Handle, reason: Reason, budget: &mut Budget) -> Option<Ended> {
        let ended = self.stream(handle)?.ended(StreamEnd::Failed(reason));
        self.close(handle, How::Abort, reason, budget);
        Some(ended)
    }

    /// Nothing has moved at the socket of a half-closed raw stream for too long. Unless the peer's reader
    /// is why, the stream is given up: in order if the end of what was read here was told, so that what
    /// the peer still has to deliver is; else a cut must not look like an end.
    pub fn half_close_expired(&mut self, handle: Handle, budget: &mut Budget) -> Expired {
        let Some(stream) = self.stream(handle) else {
            return Expired::Waits;
        };
        if stream.is_held_up() || stream.relay.has_pending() {
            return Expired::Waits;
        }
        let cut = !stream.relay.is_delivered();
        let how = match stream.relay.is_sent() {
            true => How::Orderly,
            false => How::Abort,
        };
        let ended = stream.ended(StreamEnd::Failed(Reason::HalfCloseTimeout));
        self.close(handle, how, Reason::HalfCloseTimeout, budget);
        Expired::GivenUp { ended, cut }
    }

    /// How many bytes wait for readers that have stood still for [`STALL_MAX`].
    pub fn stalled(&self, now: Now) -> usize {
        self.streams
            .iter()
            .filter(|(_, stream)| stream.is_stalled(now.instant))
            .map(|(_, stream)| stream.relay.tail_len())
            .sum()
    }

    /// Resets streams whose reader has stood still for [`STALL_MAX`], those that hold most first, for as long
    /// as the budget is full, and no more than `max` of them.
    pub fn shed(&mut self, max: usize, budget: &mut Budget, now: Now) -> Vec<Happened> {
        let stalled = |(index, stream): (usize, &Stream)| {
            let is_stalled = stream.is_stalled(now.instant);
            is_stalled.then(|| (stream.relay.tail_len(), index as u32))
        };
        let mut stalled: Vec<_> = self.streams.iter().filter_map(stalled).collect();
        stalled.sort_unstable_by(|one, other| other.cmp(one));
        let mut shed = Vec::new();
        for (_, index) in stalled.into_iter().take(max) {
            if budget.pressure() < Pressure::Full {
                break;
            }
            shed.push(self.fail(self.handle(index), How::Abort, Reason::Stalled, budget));
        }
        shed
    }

    /// The link is gone: forgets all streams, and gives the role each one's owner and story.
    pub fn end_all(&mut self, reason: Reason, budget: &mut Budget) -> Vec<Orphan> {
        budget.account(self.footprint, Footprint::default());
        self.footprint = Footprint::default();
        self.closing = 0;
        self.by_id.clear();
        self.lines.clear();
        for (_, stream) in &mut self.streams {
            stream.leave(budget);
        }
        let end = StreamEnd::Disconnected(How::Abort, reason);
        self.streams
            .drain()
            .filter(|stream| stream.life == Life::Live)
            .map(|mut stream| Orphan {
                owner: stream.owner,
                ended: stream.ended(end),
                rest: stream.relay.take_rest(),
            })
            .collect()
    }

    /// What the far side had to say is over, if it is and all of it was delivered.
    pub(super) fn finish_inbound(
        &mut self,
        handle: Handle,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
    ) -> Option<Happened> {
        let side = self.side;
        let stream = self.stream(handle)?;
        let (key, owner) = (stream.key?, stream.owner);
        let sent = stream.relay.is_sent();
        match stream.relay.take_end()? {
            End::Fin => {
                sockets.shutdown(key);
                if sent {
                    return Some(self.remove(handle, StreamEnd::Closed, budget));
                }
                Some(Happened::HalfClosed(owner))
            }
            End::Message { keep } if side == Side::Server => {
                let end = StreamEnd::Answered {
                    keep,
                    request_whole: sent,
                };
                Some(self.remove(handle, end, budget))
            }
            End::Message { .. } => None,
        }
    }

    /// Writing to the stream's socket failed.
    pub(super) fn write_failed(&mut self, handle: Handle, budget: &mut Budget) -> Option<Happened> {
        let reason = self.reset_reason();
        let side = self.side;
        let stream = self.stream(handle)?;
        if side == Side::Server && !stream.raw {
            return Some(self.fail(handle, How::Abort, reason, budget));
        }
        if stream.relay.is_sent() {
            return Some(self.fail(handle, How::Orderly, reason, budget));
        }
        // Only this half is over: the socket is read to its end before the stream is given up.
        None
    }

    pub(super) fn reset_reason(&self) -> Reason {
        match self.side {
            Side::Server => Reason::UserReset,
            Side::Client => Reason::TargetReset,
        }
    }

    /// Ends a stream by a fault of its own socket: tells the peer and the role.
    pub(super) fn fail(
        &mut self,
        handle: Handle,
        how: How,
        reason: Reason,
        budget: &mut Budget,
    ) -> Happened {
        let stream = &self.streams[handle.index as usize];
        let happened = Happened::Ended(stream.owner, stream.ended(StreamEnd::Failed(reason)));
        self.close(handle, how, reason, budget);
        happened
    }

    /// Ends a stream whose end the peer knows already.
    pub(super) fn remove(
        &mut self,
        handle: Handle,
        end: StreamEnd,
        budget: &mut Budget,
    ) -> Happened {
        let stream = self.forget(handle, budget);
        Happened::Ended(stream.owner, stream.ended(end))
    }

    /// Ends a stream whose end the peer must be told. What was sent goes first: nothing is pending in
    /// a stream that ends in order.
    pub(super) fn close(&mut self, handle: Handle, how: How, reason: Reason, budget: &mut Budget) {
        let initial = self.window.initial;
        let stream = &mut self.streams[handle.index as usize];
        if stream.connect().is_some() {
            // The peer never heard of it.
            self.forget(handle, budget);
            return;
        }
        self.by_id.remove(&stream.id);
        stream.leave(budget);
        let before = stream.relay.footprint(initial);
        stream.relay.discard(initial);
        stream.key = None;
        stream.life = Life::Closing(Disconnect { how, reason });
        self.settle(handle.index, before, budget);
        self.closing += 1;
        self.mark(handle);
    }

    /// Takes a stream out of the slab and the ledger.
    pub(super) fn forget(&mut self, handle: Handle, budget: &mut Budget) -> Stream {
        let mut stream = self.streams.remove(handle.index as usize);
        self.by_id.remove(&stream.id);
        stream.leave(budget);
        let before = stream.relay.footprint(self.window.initial);
        self.footprint.account(before, Footprint::default());
        budget.account(before, Footprint::default());
        self.prune();
        stream
    }

    /// Drops the names of streams that are gone from the queues, once these are most of them: while a
    /// link is blocked, nobody else would.
    pub(super) fn prune(&mut self) {
        if self.streams.is_empty() && self.streams.capacity() > PRUNE_MIN {
            // A burst's memory goes back when it is over.
            self.streams = Slab::new();
            self.by_id = HashMap::default();
            self.fresh = VecDeque::new();
            self.waiting = VecDeque::new();
            self.marked = VecDeque::new();
            self.lines = HashMap::new();
            return;
        }
        let in_lines = self.lines.values();
        let in_lines: usize = in_lines.map(|of| of.up.len() + of.down.len()).sum();
        let queued = self.fresh.len() + self.waiting.len() + self.marked.len() + in_lines;
        if queued <= 4 * self.streams.len() + PRUNE_MIN {
            return;
        }
        let streams = &self.streams;
        let lives = |handle: &Handle| {
            streams
                .get(handle.index as usize)
                .is_some_and(|stream| stream.serial == handle.serial)
        };
        self.fresh.retain(lives);
        self.waiting.retain(lives);
        self.marked.retain(lives);
        for lines in self.lines.values_mut() {
            lines.up.retain(lives);
            lines.down.retain(lives);
        }
    }
}
