//! The sending half of the mux: whose turn it is, and what is put into a batch.

use crate::{
    clock::Now,
    http::Body,
    tunnel::{
        Sockets,
        control::{self, How, Reason},
        frame::{Batch, Flags, Kind, StreamId},
        mux::{Handle, Happened, Life, Mux, Queued, Side, StreamEnd},
        rate::Way,
        relay::{Filled, ReadFailure},
        window::{Budget, EARLY_MAX},
    },
};

/// Whose turn it is, where it stood, and how much it may say.
struct Turn {
    handle: Handle,
    queued: Queued,
    share: usize,
}

impl Mux {
    /// Puts what there is to say into `batch`, up to an event that the role must see (then it comes
    /// back with the same batch); `None`: the batch is full, or nothing is left. A stream says at most
    /// `quantum` bytes in one go while others wait; with 0, only what is short is said.
    #[must_use]
    pub fn fill(
        &mut self,
        batch: &mut Batch,
        quantum: usize,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Option<Happened> {
        if batch.is_empty() {
            self.fresh_bytes = 0;
        }
        while let Some((kind, payload)) = self.outbox.front() {
            // Until it has seen welcome, the client takes no longer message than that.
            let alone = *kind == Kind::Welcome;
            if !batch.push(StreamId::LINK, *kind, payload) {
                return None;
            }
            self.outbox.pop_front();
            if alone {
                return None;
            }
        }
        loop {
            // Marks first, those included that the last frame set.
            while let Some(&handle) = self.marked.front() {
                if !self.fill_marks(handle, batch, budget, now) {
                    return None;
                }
                self.marked.pop_front();
            }
            if batch.room() < Body::ROOM_MIN {
                return None;
            }
            let turn = self.next(batch, quantum)?;
            let happened = self.fill_stream(turn, batch, sockets, budget, now);
            if happened.is_some() {
                return happened;
            }
        }
    }

    /// Whose turn it is.
    fn next(&mut self, batch: &Batch, quantum: usize) -> Option<Turn> {
        loop {
            let fresh_first = self.waiting.is_empty() || self.fresh_bytes < batch.limit() / 2;
            let (first, second) = if fresh_first {
                (&mut self.fresh, &mut self.waiting)
            } else {
                (&mut self.waiting, &mut self.fresh)
            };
            let handle = match quantum {
                0 => self.fresh.pop_front()?,
                _ => first.pop_front().or_else(|| second.pop_front())?,
            };
            if let Some(stream) = self.stream(handle) {
                let queued = std::mem::replace(&mut stream.queued, Queued::No);
                let alone = self.fresh.is_empty() && self.waiting.is_empty();
                let share = match queued {
                    _ if quantum == 0 => FRESH_MIN,
                    _ if alone => usize::MAX,
                    Queued::Fresh => quantum / FRESH_PART,
                    Queued::Waiting | Queued::Limited | Queued::No => quantum,
                };
                return Some(Turn {
                    handle,
                    queued,
                    share,
                });
            }
        }
    }

    fn fill_stream(
        &mut self,
        turn: Turn,
        batch: &mut Batch,
        sockets: &mut dyn Sockets,
        budget: &mut Budget,
        now: Now,
    ) -> Option<Happened> {
        let Turn {
            handle,
            queued,
            share,
        } = turn;
        // One that is not announced yet is scheduled when it is.
        self.stream(handle)
            .filter(|stream| stream.connect().is_none())?;
        let share = share.min(self.may_say(handle, budget, now)?);
        self.turns += u64::from(queued == Queued::Waiting);
        let initial = self.window.initial;
        let stream = self.stream(handle)?;
        let id = stream.id;
        let rate = stream.rate();
        let room = batch.room().min(share);
        let before = stream.relay.footprint(initial);
        let filled = stream.relay.fill(
            &mut batch.payload()[..room],
            stream.key,
            sockets,
            now.instant,
        );
        let stays = matches!(filled, Filled::Frame { .. }) && !stream.relay.is_sent();
        if stays {
            stream.queued = Queued::Waiting;
        }
        self.settle(handle.index, before, budget);
        if stays {
            self.waiting.push_back(handle);
        }
        match filled {
            Filled::Frame { length, flags } => {
                batch.seal(id, Kind::ProxyData, flags, length);
                self.traffic.sent += length as u64;
                if let Some(rate) = rate {
                    budget.rates.take(rate, Way::Up, length, now.instant);
                }
                if queued == Queued::Fresh {
                    self.fresh_bytes += length;
                }
                self.sent(handle, flags, budget, now)
            }
            Filled::Idle => None,
            Filled::Failed { reason, visible } => {
                let stream = self.stream(handle)?;
                // What the user has must look cut off, not complete.
                let how = if stream.answered && visible {
                    How::Orderly
                } else {
                    How::Abort
                };
                let reason = match (self.side, reason) {
                    (Side::Server, ReadFailure::Malformed(_)) => Reason::BadRequest,
                    (Side::Server, _) => Reason::UserReset,
                    (Side::Client, ReadFailure::Malformed(_)) => Reason::BadResponse,
                    (Side::Client, ReadFailure::Truncated) => Reason::OriginClosed,
                    (Side::Client, ReadFailure::Socket) => Reason::TargetReset,
                };
                Some(self.fail(handle, how, reason, budget))
            }
        }
    }

    /// A frame with `flags` is in the batch.
    fn sent(
        &mut self,
        handle: Handle,
        flags: Flags,
        budget: &mut Budget,
        now: Now,
    ) -> Option<Happened> {
        let side = self.side;
        let stream = self.stream(handle)?;
        let owner = stream.owner;
        if flags.has(Flags::FINAL) {
            stream.answered = true;
            let took = stream.age(now.instant);
            self.traffic.answers.count(took);
        }
        let stream = self.stream(handle)?;
        if flags.has(Flags::FIN) {
            if stream.relay.is_broken() {
                // Its socket takes nothing, and now has nothing more to say.
                let reason = self.reset_reason();
                return Some(self.fail(handle, How::Orderly, reason, budget));
            }
            if stream.relay.is_inbound_over() {
                return Some(self.remove(handle, StreamEnd::Closed, budget));
            }
            return Some(Happened::HalfClosed(owner));
        }
        if flags.has(Flags::MESSAGE_END) {
            if side == Side::Server {
                return Some(Happened::RequestSent(owner));
            }
            let request_whole = stream.relay.is_delivered();
            let end = StreamEnd::Answered {
                keep: flags.has(Flags::KEEP),
                request_whole,
            };
            return Some(self.remove(handle, end, budget));
        }
        None
    }

    /// Writes a stream's marks; `false` when the batch is full.
    fn fill_marks(
        &mut self,
        handle: Handle,
        batch: &mut Batch,
        budget: &mut Budget,
        now: Now,
    ) -> bool {
        let pressure = budget.pressure();
        let Some(stream) = self.any_stream(handle) else {
            return true;
        };
        if stream.connect().is_some() {
            if self.may_ask_for(handle, budget, now) == 0 {
                return self.unmark(handle);
            }
            // It has its id from now on: streams of a rate may wait here while others pass them, and ids
            // ascend on the wire.
            let id = StreamId(self.highest + 1);
            let Some(stream) = self.any_stream(handle) else {
                return true;
            };
            if let Some(connect) = stream.connect() {
                let Ok(length) = control::encode(connect, batch.payload()) else {
                    return false;
                };
                batch.seal(id, Kind::ProxyConnect, Flags::NONE, length);
                stream.announced(id);
                self.highest = id.0;
                self.by_id.insert(id, handle.index);
            }
            self.schedule(handle);
        }
        let Some(stream) = self.any_stream(handle) else {
            return true;
        };
        let id = stream.id;
        // When the request is here whole, nobody waits for credit: it goes with the response.
        let waits = !stream.raw && stream.relay.is_told() && !stream.relay.has_pending();
        if stream.marks.connected && !(waits && stream.life == Life::Live) {
            if !batch.push(id, Kind::ProxyConnected, &[]) {
                return false;
            }
            stream.marks.connected = false;
            stream.relay.window().open(EARLY_MAX);
        }
        if stream.marks.upgraded {
            if !batch.push(id, Kind::ProxyUpgraded, &[]) {
                return false;
            }
            stream.marks.upgraded = false;
        }
        if let Life::Closing(disconnect) = stream.life {
            let Ok(length) = control::encode(&disconnect, batch.payload()) else {
                return false;
            };
            batch.seal(id, Kind::ProxyDisconnect, Flags::NONE, length);
            self.streams.remove(handle.index as usize);
            self.closing -= 1;
            return true;
        }
        let (due, rate) = (stream.relay.due(pressure), stream.rate());
        if due > 0 {
            let granted = due.min(self.may_ask_for(handle, budget, now));
            if granted == 0 {
                return self.unmark(handle);
            }
            if !batch.push(id, Kind::ProxyCredit, &granted.to_be_bytes()) {
                return false;
            }
            if let Some(rate) = rate {
                let bytes = granted as usize;
                budget.rates.take(rate, Way::Down, bytes, now.instant);
            }
            if let Some(stream) = self.any_stream(handle) {
                stream.relay.window().grant(granted);
            }
            if granted < due {
                self.wait_to_ask(handle);
            }
        }
        self.unmark(handle)
    }

    /// All that there was to say of a stream is said, or has to wait.
    fn unmark(&mut self, handle: Handle) -> bool {
        if let Some(stream) = self.any_stream(handle) {
            stream.marks.queued = false;
        }
        true
    }
}

/// What a stream that was silent before may send at once, of a quantum: a keystroke, a request, the head of
/// a response (4 KiB of the smallest quantum, of the largest a small response whole). If it has more, it is
/// bulk, and waits for its turn behind the others.
const FRESH_PART: usize = 4;
const FRESH_MIN: usize = 4 * 1024;
