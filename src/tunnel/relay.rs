//! One stream's two halves: from its socket to the link, and from the link to its socket.
//!
//! ```text
//! outbound   Held ---body()---> Open ---end of body---> Finished        (socket -> link)
//!            (a role reads the head itself; only what it sends goes out)
//!
//! inbound    Open ---end flag---> Draining ---tail empty---> Finished   (link -> socket)
//!              \---write error---> Broken (what comes is dropped, the other half goes on)
//! ```
//!
//! The same code serves both roles and both kinds of stream: a raw connection is a message whose
//! body is [`Body::raw`]. It knows neither ids nor other streams; [`super::mux`] does.
//!
//! Invariants: bytes are sent only within the credit; a tail or pending bytes exist only while not
//! empty, so an idle relay owns no heap but a chunk decoder's; nothing is written past a tail.

use std::{io, time::Instant};

use crate::{
    http::{Body, BodyError, Step},
    key::Key,
    tunnel::{
        Outlook, SocketSource, Sockets, Standing,
        frame::Flags,
        replay::Replay,
        tail::Tail,
        window::{Credit, Footprint, Pressure, Window},
    },
};

/// Both halves of one stream.
#[derive(Debug)]
pub(super) struct Relay {
    outbound: Outbound,
    inbound: Inbound,
    credit: Credit,
    window: Window,
    pending: Option<Box<Pending>>,
    tail: Option<Box<Tail>>,
    /// What the far side has said, while it may have to be written to another socket.
    replay: Option<Box<Replay>>,
    /// The last bytes that reached the socket.
    last: [u8; 4],
    /// What is said behind the last byte of an open `outbound`: beside it and not in it, where it would
    /// take eight times its size.
    end: Flags,
    /// Payload bytes put in frames.
    pub sent: u64,
    /// Payload bytes that reached the socket.
    pub delivered: u64,
}

/// From the socket to the link.
#[derive(Debug)]
enum Outbound {
    /// Nothing is read here.
    Held,
    /// Read through this.
    Open(Body),
    /// The end was said.
    Finished,
}

/// From the link to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inbound {
    Open,
    Draining(End),
    Finished,
    Broken,
}

/// How the bytes from the link end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// An HTTP message is over; `keep` is for the user's connection.
    Message { keep: bool },
    /// The byte stream is over.
    Fin,
}

/// Bytes ready to be sent, before anything that is read.
#[derive(Debug)]
struct Pending {
    bytes: Tail,
    /// The final response head begins this many bytes from here.
    final_in: Option<usize>,
    /// These are the last bytes.
    end: Option<Flags>,
}

/// What [`Relay::fill`] came to.
#[derive(Debug)]
pub(super) enum Filled {
    /// A frame of that payload is ready to be sealed; there may be more to read.
    Frame { length: usize, flags: Flags },
    /// Nothing to say until something happens.
    Idle,
    /// The stream cannot go on; `visible`: whoever reads sees by the framing that bytes are missing.
    Failed { reason: ReadFailure, visible: bool },
}

/// Why reading a stream's socket ended badly; the mux knows which side that socket is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadFailure {
    /// Reset, timed out, …
    Socket,
    /// It ended before its message did.
    Truncated,
    /// Its framing breaks HTTP.
    Malformed(&'static str),
}

impl Relay {
    pub fn new(outbound: Option<(Body, Flags)>, credit: u32, window: Window) -> Relay {
        let (outbound, end) = match outbound {
            Some((body, end)) => (Outbound::Open(body), end),
            None => (Outbound::Held, Flags::NONE),
        };
        Relay {
            outbound,
            end,
            inbound: Inbound::Open,
            credit: Credit::new(credit),
            window,
            pending: None,
            tail: None,
            replay: None,
            last: [0; 4],
            sent: 0,
            delivered: 0,
        }
    }

    /// What it costs the budget, if its window began at `initial`.
    pub fn footprint(&self, initial: u32) -> Footprint {
        let pending = self
            .pending
            .as_ref()
            .map_or(0, |pending| pending.bytes.len());
        Footprint {
            held: self.tail_len() + pending + self.replay_len(),
            promised: self.window.size().saturating_sub(initial) as usize,
        }
    }

    pub fn tail_len(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.len())
    }

    fn replay_len(&self) -> usize {
        self.replay.as_ref().map_or(0, |replay| replay.bytes.len())
    }

    /// When a byte last left the tail, if there is one.
    pub fn tail_moved(&self) -> Option<Instant> {
        self.tail.as_ref().map(|tail| tail.moved)
    }

    /// Bytes that may be sent.
    pub fn credit_left(&self) -> usize {
        self.credit.available()
    }

    /// Bytes that the peer may send.
    pub fn granted(&self) -> usize {
        self.window.outstanding() as usize
    }

    pub fn credit(&mut self) -> &mut Credit {
        &mut self.credit
    }

    pub fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Credit to grant now.
    pub fn due(&self, pressure: Pressure) -> u32 {
        match self.inbound {
            Inbound::Open | Inbound::Broken => self.window.due(self.tail_len(), pressure),
            Inbound::Draining(_) | Inbound::Finished => 0,
        }
    }

    /// Queues bytes to be sent before anything that is read.
    pub fn send(&mut self, bytes: Vec<u8>, final_head: bool, now: Instant) {
        if bytes.is_empty() {
            return;
        }
        match &mut self.pending {
            Some(pending) => {
                if final_head {
                    pending.final_in = Some(pending.bytes.len());
                }
                pending.bytes.push(&bytes);
            }
            None => {
                self.pending = Some(Box::new(Pending {
                    bytes: Tail::of(bytes, now),
                    final_in: final_head.then_some(0),
                    end: None,
                }));
            }
        }
    }

    /// What is read from now on, and what is said at its end.
    pub fn open(&mut self, body: Body, end: Flags) {
        (self.outbound, self.end) = (Outbound::Open(body), end);
    }

    /// The protocol was switched: both directions are open and raw from here on.
    pub fn upgrade(&mut self) {
        self.open(Body::raw(), Flags::FIN);
        self.inbound = Inbound::Open;
    }

    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub fn is_sent(&self) -> bool {
        matches!(self.outbound, Outbound::Finished)
    }

    /// Whether all that the far side had to say reached the socket.
    pub fn is_delivered(&self) -> bool {
        self.inbound == Inbound::Finished
    }

    /// Whether nothing more will be written to the socket.
    pub fn is_inbound_over(&self) -> bool {
        matches!(self.inbound, Inbound::Finished | Inbound::Broken)
    }

    pub fn is_broken(&self) -> bool {
        self.inbound == Inbound::Broken
    }

    /// Whether the far side may still say something.
    pub fn is_receiving(&self) -> bool {
        matches!(self.inbound, Inbound::Open | Inbound::Broken)
    }

    /// Whether the far side has said all, delivered or not.
    pub fn is_told(&self) -> bool {
        matches!(self.inbound, Inbound::Draining(_) | Inbound::Finished)
    }

    /// Whether it waits for credit while its socket may have bytes.
    pub fn is_starved(&self) -> bool {
        !self.is_sent() && self.credit.available() < Body::ROOM_MIN
    }

    /// Puts at most `room.len()` bytes of what there is to say into `room`.
    pub fn fill(
        &mut self,
        room: &mut [u8],
        key: Option<Key>,
        sockets: &mut dyn Sockets,
        now: Instant,
    ) -> Filled {
        let allowed = room.len().min(self.credit.available());
        let mut length = 0;
        let mut flags = Flags::NONE;

        if let Some(pending) = &mut self.pending {
            if allowed == 0 && key.is_some_and(|key| sockets.standing(key) == Standing::Failed) {
                // Credit for the rest may never come; nobody is left to have it.
                return Filled::Failed {
                    reason: ReadFailure::Socket,
                    visible: false,
                };
            }
            let mut take = pending.bytes.len().min(allowed);
            match pending.final_in {
                // The flag stands on a frame of its own.
                Some(0) if take > 0 => {
                    pending.final_in = None;
                    flags = flags.with(Flags::FINAL);
                }
                Some(ahead) => {
                    take = take.min(ahead);
                    pending.final_in = Some(ahead - take);
                }
                None => {}
            }
            room[..take].copy_from_slice(&pending.bytes.as_slice()[..take]);
            pending.bytes.advance(take, now);
            length = take;
            if pending.bytes.is_empty() {
                if let Some(end) = pending.end {
                    flags = flags.with(end);
                    self.outbound = Outbound::Finished;
                }
                self.pending = None;
            } else {
                return self.frame(length, flags);
            }
        }

        let end = self.end;
        let Outbound::Open(body) = &mut self.outbound else {
            return self.frame(length, flags);
        };
        let Some(key) = key else {
            return self.frame(length, flags);
        };
        if body.is_ended() {
            self.outbound = Outbound::Finished;
            return self.frame(length, flags.with(end));
        }
        if allowed - length < body.room_min() {
            if length == 0 {
                // No credit. Nothing may be read, but an end costs nothing to say.
                let reason = match sockets.outlook(key) {
                    Outlook::Quiet | Outlook::Data => return Filled::Idle,
                    Outlook::End if body.ends_at_eof() && body.room_min() <= 1 => {
                        self.outbound = Outbound::Finished;
                        return self.frame(0, flags.with(end));
                    }
                    Outlook::End if body.ends_at_eof() => return Filled::Idle,
                    Outlook::End => ReadFailure::Truncated,
                    Outlook::Failed => ReadFailure::Socket,
                };
                let visible = body.shows_truncation();
                return Filled::Failed { reason, visible };
            }
            return self.frame(length, flags);
        }
        let mut source = SocketSource { sockets, key };
        let reason = match body.transfer(&mut room[length..allowed], &mut source) {
            Ok(Step::Moved(moved)) => return self.frame(length + moved, flags),
            Ok(Step::Ended { written, rest }) => {
                length += written;
                if rest.is_empty() {
                    self.outbound = Outbound::Finished;
                    flags = flags.with(end);
                } else {
                    self.outbound = Outbound::Held;
                    self.pending = Some(Box::new(Pending {
                        bytes: Tail::of(rest, now),
                        final_in: None,
                        end: Some(end),
                    }));
                    if length == 0 {
                        // The socket has been read to the message's end, so nothing else would ask
                        // for what is pending now.
                        return self.fill(room, Some(key), sockets, now);
                    }
                }
                return self.frame(length, flags);
            }
            Err(BodyError::Blocked) => return self.frame(length, flags),
            Err(BodyError::Truncated) => ReadFailure::Truncated,
            Err(BodyError::Malformed(what)) => ReadFailure::Malformed(what),
            Err(BodyError::Io(_)) => ReadFailure::Socket,
        };
        if length > 0 {
            // What was pending goes out first; the failure is found again right after it.
            return self.frame(length, flags);
        }
        Filled::Failed {
            reason,
            visible: body.shows_truncation(),
        }
    }

    fn frame(&mut self, length: usize, flags: Flags) -> Filled {
        if length == 0 && flags == Flags::NONE {
            return Filled::Idle;
        }
        self.credit.spend(length);
        self.sent += length as u64;
        Filled::Frame { length, flags }
    }

    /// Takes bytes from the link: to the socket what it takes, the rest to the tail.
    ///
    /// # Errors
    /// Writing failed; this half is broken from now on.
    pub fn deliver(
        &mut self,
        bytes: &[u8],
        key: Option<Key>,
        sockets: &mut dyn Sockets,
        limits: WindowLimits,
        now: Instant,
    ) -> Result<(), io::Error> {
        self.replay = match self.replay.take() {
            Some(replay) => replay.push(bytes),
            None => None,
        };
        if self.inbound != Inbound::Open || bytes.is_empty() {
            return Ok(());
        }
        let mut written = 0;
        if let (None, Some(key)) = (&self.tail, key) {
            match write_all(sockets, key, bytes) {
                Ok(n) => written = n,
                Err(error) => return Err(self.break_inbound(error)),
            }
        }
        self.written(&bytes[..written]);
        if written == bytes.len() {
            self.window.passed(written, limits.max);
        } else {
            self.window.refused(limits.initial);
            self.tail
                .get_or_insert_with(|| Box::new(Tail::new(now)))
                .push(&bytes[written..]);
        }
        Ok(())
    }

    /// The socket may take more.
    ///
    /// # Errors
    /// Writing failed; this half is broken from now on.
    pub fn drain(
        &mut self,
        key: Key,
        sockets: &mut dyn Sockets,
        now: Instant,
    ) -> Result<(), io::Error> {
        let Some(mut tail) = self.tail.take() else {
            return Ok(());
        };
        match write_all(sockets, key, tail.as_slice()) {
            Ok(written) => {
                self.written(&tail.as_slice()[..written]);
                tail.advance(written, now);
                self.tail = (!tail.is_empty()).then_some(tail);
                Ok(())
            }
            Err(error) => Err(self.break_inbound(error)),
        }
    }

    /// Bytes have reached the socket.
    fn written(&mut self, bytes: &[u8]) {
        self.delivered += bytes.len() as u64;
        let new = bytes.len().min(self.last.len());
        self.last.rotate_left(new);
        let kept = self.last.len() - new;
        self.last[kept..].copy_from_slice(&bytes[bytes.len() - new..]);
        if !bytes.is_empty()
            && self
                .replay
                .as_ref()
                .is_some_and(|replay| !replay.repeatable)
        {
            self.replay = None;
        }
    }

    /// Whether something has reached the socket, and not up to the end of a head.
    pub fn is_between_bytes_of_a_head(&self) -> bool {
        self.delivered > 0 && self.last != *b"\r\n\r\n"
    }

    /// Keeps what the far side says, from its first byte on, until [`Relay::drop_replay`]: the socket
    /// that it is going to be written to may be dead. To be called before anything is.
    pub fn keep_replay(&mut self, repeatable: bool) {
        let waiting = self.tail.as_ref().map_or(&[][..], |tail| tail.as_slice());
        let end = match self.inbound {
            Inbound::Draining(end) => Some(end),
            Inbound::Open | Inbound::Finished | Inbound::Broken => None,
        };
        let replay = Box::new(Replay {
            bytes: Vec::new(),
            end,
            repeatable,
        });
        self.replay = replay.push(waiting);
    }

    /// What was kept is not needed any more.
    pub fn drop_replay(&mut self) {
        self.replay = None;
    }

    /// The socket was dead: everything waits for another, as at first. `false` when not everything
    /// was kept.
    pub fn rewind(&mut self, now: Instant) -> bool {
        let Some(replay) = self.replay.take() else {
            return false;
        };
        let mut tail = Tail::new(now);
        tail.push(&replay.bytes);
        self.tail = (!tail.is_empty()).then(|| Box::new(tail));
        self.inbound = replay.end.map_or(Inbound::Open, Inbound::Draining);
        self.delivered = 0;
        true
    }

    /// The far side has said all.
    pub fn end(&mut self, end: End) {
        if let Some(replay) = &mut self.replay {
            replay.end = Some(end);
        }
        if self.inbound == Inbound::Open {
            self.inbound = Inbound::Draining(end);
        }
    }

    /// The end, once: when the far side has said all and the tail is empty.
    pub fn take_end(&mut self) -> Option<End> {
        match self.inbound {
            Inbound::Draining(end) if self.tail.is_none() => {
                self.inbound = Inbound::Finished;
                Some(end)
            }
            _ => None,
        }
    }

    fn break_inbound(&mut self, error: io::Error) -> io::Error {
        self.inbound = Inbound::Broken;
        self.tail = None;
        error
    }

    /// The bytes that wait for the socket, if the far side has said all.
    pub fn take_rest(&mut self) -> Option<Vec<u8>> {
        match self.inbound {
            Inbound::Draining(_) => self.take_tail(),
            Inbound::Open | Inbound::Finished | Inbound::Broken => None,
        }
    }

    /// The bytes that wait for the socket.
    pub fn take_tail(&mut self) -> Option<Vec<u8>> {
        self.tail.take().map(|tail| tail.as_slice().to_vec())
    }

    /// Forgets everything that waits.
    pub fn discard(&mut self, window_initial: u32) {
        self.outbound = Outbound::Finished;
        self.pending = None;
        self.window.refused(window_initial);
        self.inbound = Inbound::Broken;
        self.tail = None;
        self.replay = None;
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        assert!(
            self.tail.as_ref().is_none_or(|tail| !tail.is_empty()),
            "no empty tail is kept"
        );
        if let Some(pending) = &self.pending {
            assert!(!pending.bytes.is_empty(), "no empty pending bytes are kept");
            assert!(!self.is_sent(), "nothing is pending after the end");
        }
        assert!(
            !self.is_inbound_over() || self.tail.is_none(),
            "a half that is over holds no bytes"
        );
    }
}

/// The bounds of every stream's window in one direction of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowLimits {
    pub initial: u32,
    pub max: u32,
}

/// Writes until all is written or the socket refuses; how much was written.
fn write_all(sockets: &mut dyn Sockets, key: Key, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match sockets.write(key, &bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
