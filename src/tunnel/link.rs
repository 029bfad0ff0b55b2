//! The WebSocket of one link, and whether its peer is still there.
//!
//! It owns tungstenite's state, the liveness clock and the pace; it knows no frame. The socket is lent for each
//! call.
//!
//! The kernel is read into one scratch buffer that all links share, and tungstenite is fed from it:
//! its own buffer is zero-filled before every read and would cost each idle link its size.

use std::{
    fmt,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tungstenite::{
    Error, Message,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use crate::{
    clock::Now,
    key::Key,
    share::Share,
    tunnel::{
        Sockets,
        frame::{self, BATCH_MAX, Batch, CONTROL_MAX, HEADER_BYTES},
        liveness::{Alive, Liveness},
        mux::{Side, Violation},
        pace::Pace,
    },
};

/// A link after its upgrade.
pub struct Link {
    websocket: WebSocketContext,
    liveness: Liveness,
    pace: Pace,
    /// What the last ping held.
    probe: BytesMut,
    /// Bytes read in this turn.
    read: usize,
    /// Frames taken in this turn; before the peer is known, since the link began.
    taken: usize,
    is_known: bool,
    /// The turn's share was used up: there may be more to read, and no event will say so.
    scheduled: bool,
    role: Role,
    /// Bytes given to the WebSocket, less those of the messages that it has given back.
    partial: usize,
    /// It may have grown since it was made.
    grown: bool,
    /// When it began.
    since: Instant,
    /// How long the peer took to answer when it was last asked something.
    round_trip: Option<Duration>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("liveness", &self.liveness)
            .finish_non_exhaustive()
    }
}

/// Why a link is over.
#[derive(Debug)]
pub enum LinkError {
    /// The peer said goodbye.
    Closed(CloseReason, String),
    /// The peer's socket ended without a goodbye.
    Lost(io::Error),
    /// Nothing was heard for too long.
    Silent,
    /// The peer's frames break the protocol.
    Violation(Violation),
    /// The peer breaks the WebSocket protocol, or what we take of it.
    WebSocket(String),
}

/// Close codes of our own, in the range that RFC 6455 §7.4.2 leaves to applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// All is said.
    Done,
    /// The token was not proved.
    WrongToken,
    /// A newer link of the same client took over.
    Replaced,
    /// The peer broke the protocol.
    Protocol,
    /// Any other code.
    Other(u16),
}

impl CloseReason {
    fn code(self) -> u16 {
        match self {
            CloseReason::Done => 1000,
            CloseReason::Protocol => 1002,
            CloseReason::WrongToken => 4001,
            CloseReason::Replaced => 4002,
            CloseReason::Other(code) => code,
        }
    }

    fn from_code(code: u16) -> CloseReason {
        match code {
            1000 => CloseReason::Done,
            1002 => CloseReason::Protocol,
            4001 => CloseReason::WrongToken,
            4002 => CloseReason::Replaced,
            code => CloseReason::Other(code),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The peer's words: nothing of them may pass for a line of ours.
            LinkError::Closed(_, text) if !text.is_empty() => {
                write!(f, "closed by peer: {}", text.escape_debug())
            }
            LinkError::Closed(reason, _) => write!(f, "closed by peer, code {}", reason.code()),
            LinkError::Lost(error) => write!(f, "connection lost: {error}"),
            LinkError::Silent => f.write_str("no answer to ping"),
            LinkError::Violation(violation) => write!(f, "peer broke the protocol: {violation}"),
            LinkError::WebSocket(text) => write!(f, "peer broke the protocol: {text}"),
        }
    }
}

impl LinkError {
    /// Whether the peer is to be told why, and what.
    pub fn goodbye(&self) -> Option<(CloseReason, String)> {
        match self {
            LinkError::Violation(violation) => Some((CloseReason::Protocol, violation.to_string())),
            LinkError::WebSocket(text) => Some((CloseReason::Protocol, text.clone())),
            LinkError::Closed(..) | LinkError::Lost(_) | LinkError::Silent => None,
        }
    }
}

impl Link {
    /// A link whose upgrade is done; `surplus` are the bytes that came behind its head. Until
    /// [`Link::welcomed`] it takes messages of one control frame only.
    pub fn new(side: Side, surplus: Vec<u8>, ping: Duration, pong: Duration, now: Now) -> Link {
        // Of two that have heard nothing since the same moment, one asks and the other hears it.
        let (role, ping) = match side {
            Side::Server => (Role::Server, ping + ping / 8),
            Side::Client => (Role::Client, ping),
        };
        let partial = surplus.len();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            // Each message is written as it is made; what the kernel refuses waits here.
            .write_buffer_size(0)
            .max_write_buffer_size(BATCH_MAX + WRITE_SLACK)
            .max_message_size(Some(HEADER_BYTES + CONTROL_MAX))
            .max_frame_size(Some(HEADER_BYTES + CONTROL_MAX));
        Link {
            websocket: WebSocketContext::from_partially_read(surplus, role, Some(config)),
            liveness: Liveness::new(ping, pong, now.instant),
            pace: Pace::new(now.instant),
            probe: BytesMut::new(),
            read: 0,
            taken: 0,
            is_known: false,
            scheduled: false,
            role,
            partial,
            grown: false,
            since: now.instant,
            round_trip: None,
        }
    }

    /// The peer has proved itself: whole batches are taken from now on. That was its answer to what the link
    /// has begun with.
    pub fn welcomed(&mut self, now: Now) {
        self.round_trip = Some(self.age(now));
        self.is_known = true;
        self.taken = 0;
        self.websocket.set_config(|config| {
            config.max_message_size = Some(BATCH_MAX);
            config.max_frame_size = Some(BATCH_MAX);
        });
    }

    /// The next message; `None` when no more has come yet, or this turn's share is used up.
    ///
    /// # Errors
    /// The link is over.
    pub fn receive(
        &mut self,
        sockets: &mut dyn Sockets,
        key: Key,
        scratch: &mut Scratch,
        frames: &mut Share,
        now: Now,
    ) -> Result<Option<Bytes>, LinkError> {
        let mut wire = Wire {
            scratch: Some(scratch),
            read: self.read,
            ..Wire::to(sockets, key)
        };
        let read_before = wire.read;
        let mut taken = 0;
        let outcome = loop {
            if self.share(frames) == 0 {
                if !self.is_known {
                    let text = "it says too much before it is known";
                    break Err(LinkError::WebSocket(text.into()));
                }
                wire.give_back();
                frames.wants_more();
                break Ok(None);
            }
            let read = self.websocket.read(&mut wire);
            self.taken += usize::from(read.is_ok());
            match read {
                Ok(Message::Binary(bytes)) => {
                    self.grown |= bytes.len() > READ_BUFFER;
                    taken += wire_bytes(bytes.len(), self.role);
                    break Ok(Some(bytes));
                }
                // Its pong waits until all that has come is handled, and goes with the others.
                Ok(Message::Ping(bytes)) => {
                    self.grown |= !bytes.is_empty();
                    taken += wire_bytes(bytes.len(), self.role);
                }
                Ok(Message::Pong(bytes)) => {
                    taken += wire_bytes(bytes.len(), self.role);
                    let pinged = self.liveness.pinged().filter(|_| bytes.is_empty());
                    let asked = pinged.or(self.pace.confirmed(&bytes, now.instant));
                    if let Some(asked) = asked {
                        self.round_trip = Some(now.instant.saturating_duration_since(asked));
                    }
                }
                Ok(Message::Close(frame)) => {
                    let (code, text) = frame.map_or((1005, String::new()), |frame| {
                        (frame.code.into(), frame.reason.to_string())
                    });
                    break Err(LinkError::Closed(CloseReason::from_code(code), text));
                }
                Ok(Message::Text(_)) => {
                    break Err(LinkError::WebSocket("text message, binary expected".into()));
                }
                Ok(Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Ok(None);
                }
                Err(error) => break Err(link_error(error)),
            }
        };
        self.partial = (self.partial + wire.given).saturating_sub(taken);
        if wire.read > read_before {
            self.liveness.heard(now.instant);
        }
        self.read = wire.read;
        if !matches!(outcome, Ok(Some(_))) {
            self.scheduled = wire.cut;
            self.read = 0;
            if self.is_known {
                self.taken = 0;
            }
        }
        outcome
    }

    /// How many frames may still be taken from its messages in this turn.
    pub fn share(&self, frames: &Share) -> usize {
        let most = match self.is_known {
            true => frames.each(),
            false => STRANGER_FRAMES_MAX,
        };
        most.saturating_sub(self.taken)
    }

    /// So many were taken, or what costs as much.
    pub fn spend(&mut self, frames: usize) {
        self.taken += frames;
    }

    /// Whether more may be there to read than this turn's share, so that no event will come for it.
    pub fn is_scheduled(&self) -> bool {
        self.scheduled
    }

    /// Sends the batch as one message. Only after [`Link::flush`] has said `true`.
    ///
    /// # Errors
    /// The link is over.
    pub fn send(
        &mut self,
        sockets: &mut dyn Sockets,
        key: Key,
        batch: &mut Batch,
        now: Now,
    ) -> Result<(), LinkError> {
        self.grown |= batch.len() > READ_BUFFER;
        let probe = self.pace.sent(batch.len(), now.instant);
        let mut wire = Wire::to(sockets, key);
        written(batch.lend(|bytes| self.websocket.write(&mut wire, Message::Binary(bytes))))?;
        if let Some(probe) = probe {
            if self.probe.is_empty() {
                self.probe = frame::lendable(probe.len());
            }
            self.probe.copy_from_slice(&probe);
            let ping = |bytes| self.websocket.write(&mut wire, Message::Ping(bytes));
            written(frame::lend(&mut self.probe, probe.len(), ping))?;
        }
        Ok(())
    }

    /// How long ago it began.
    pub fn age(&self, now: Now) -> Duration {
        now.instant.saturating_duration_since(self.since)
    }

    /// How long the peer took to answer when it was last asked: at the beginning, while much is sent, and
    /// after a silence. What stood in queues before the question is part of it.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Whether the peer has read so much of what was sent that bulk may follow.
    pub fn is_open(&mut self) -> bool {
        self.pace.is_open()
    }

    /// Writes what waits; whether all of it is with the kernel now.
    ///
    /// # Errors
    /// The link is over.
    pub fn flush(&mut self, sockets: &mut dyn Sockets, key: Key) -> Result<bool, LinkError> {
        let mut wire = Wire::to(sockets, key);
        written(self.websocket.flush(&mut wire))
    }

    /// When [`Link::timeout`] is due.
    pub fn deadline(&self) -> Instant {
        self.liveness.deadline()
    }

    /// Asks a silent peer whether it is there, or finds that it has not answered. Harmless when
    /// called early.
    ///
    /// # Errors
    /// The link is over.
    pub fn timeout(
        &mut self,
        sockets: &mut dyn Sockets,
        key: Key,
        now: Now,
    ) -> Result<(), LinkError> {
        match self.liveness.timeout(now.instant) {
            Alive::Yes => Ok(()),
            Alive::Ask => {
                self.shrink(sockets, key)?;
                let mut wire = Wire::to(sockets, key);
                written(self.websocket.write(&mut wire, Message::Ping(Bytes::new())))?;
                self.flush(sockets, key).map(|_| ())
            }
            Alive::No => Err(LinkError::Silent),
        }
    }

    /// Asks the peer whether it is there, out of turn: it has to say so within `soon`, or four times as long as
    /// it took the last time where that is longer, and never later than it had to anyway.
    ///
    /// # Errors
    /// The link is over.
    pub fn ask(
        &mut self,
        sockets: &mut dyn Sockets,
        key: Key,
        soon: Duration,
        now: Now,
    ) -> Result<(), LinkError> {
        let slow = self.round_trip.unwrap_or_default().saturating_mul(4);
        self.liveness.ask(soon.max(slow), now.instant);
        let mut wire = Wire::to(sockets, key);
        written(self.websocket.write(&mut wire, Message::Ping(Bytes::new())))?;
        self.flush(sockets, key).map(|_| ())
    }

    /// Gives back what the WebSocket's buffers have grown to: two batches, which it keeps itself. It is made
    /// anew, where it is sure that nothing is in it.
    fn shrink(&mut self, sockets: &mut dyn Sockets, key: Key) -> Result<(), LinkError> {
        let is_empty = self.partial == 0 && self.flush(sockets, key)?;
        if self.grown && is_empty {
            let config = *self.websocket.get_config();
            self.websocket = WebSocketContext::new(self.role, Some(config));
            self.grown = false;
        }
        Ok(())
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub fn close(&mut self, sockets: &mut dyn Sockets, key: Key, reason: CloseReason, text: &str) {
        let mut wire = Wire::to(sockets, key);
        let mut end = text.len().min(CLOSE_TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame {
            code: CloseCode::from(reason.code()),
            reason: text[..end].into(),
        };
        // Whether it gets through or not, the socket is closed next.
        let _ = self.websocket.close(&mut wire, Some(frame));
    }
}

/// Bytes read from a link's socket and not yet taken by its WebSocket: none between two links.
pub struct Scratch {
    bytes: Box<[u8]>,
    filled: usize,
    taken: usize,
    of: Option<Key>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            bytes: vec![0; SCRATCH].into(),
            filled: 0,
            taken: 0,
            of: None,
        }
    }
}

/// The link's socket, as tungstenite wants it.
struct Wire<'a> {
    sockets: &'a mut dyn Sockets,
    key: Key,
    /// Only while messages are read.
    scratch: Option<&'a mut Scratch>,
    read: usize,
    /// Bytes taken by the WebSocket.
    given: usize,
    /// The turn's share was used up.
    cut: bool,
}

impl<'a> Wire<'a> {
    /// For writing.
    fn to(sockets: &'a mut dyn Sockets, key: Key) -> Wire<'a> {
        Wire {
            sockets,
            key,
            scratch: None,
            read: 0,
            given: 0,
            cut: false,
        }
    }

    /// Ends the turn's share before what was read is taken: it is there for the next one.
    fn give_back(&mut self) {
        if let Some(scratch) = self.scratch.as_deref_mut()
            && scratch.of == Some(self.key)
        {
            let rest = &scratch.bytes[scratch.taken..scratch.filled];
            self.sockets.unread(self.key, rest);
            scratch.taken = scratch.filled;
        }
        self.cut = true;
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(scratch) = self.scratch.as_deref_mut() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if scratch.of != Some(self.key) {
            // What is left of another link is of a link that died while it was read.
            (scratch.filled, scratch.taken, scratch.of) = (0, 0, Some(self.key));
        }
        if scratch.taken == scratch.filled {
            if self.read >= READ_PER_TURN_MAX {
                self.cut = true;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            (scratch.taken, scratch.filled) = (0, 0);
            let read = self.sockets.read(self.key, &mut scratch.bytes)?;
            if read == 0 {
                return Ok(0);
            }
            scratch.filled = read;
            self.read += read;
        }
        let rest = &scratch.bytes[scratch.taken..scratch.filled];
        let taken = rest.len().min(into.len());
        into[..taken].copy_from_slice(&rest[..taken]);
        scratch.taken += taken;
        self.given += taken;
        Ok(taken)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // While messages are read, pongs are all that there is to write.
        if self.scratch.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.sockets.write(self.key, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a message of so many bytes that was not fragmented has taken on the wire to `role` (RFC 6455
/// §5.2). One that was took more, so that a sum of these is never too much.
fn wire_bytes(payload: usize, role: Role) -> usize {
    let length = match payload {
        ..=125 => 0,
        126..=0xFFFF => 2,
        _ => 8,
    };
    // Clients mask.
    let mask = match role {
        Role::Server => 4,
        Role::Client => 0,
    };
    2 + length + mask + payload
}

/// Whether a write got through whole; a refused rest waits in tungstenite's buffer.
fn written(outcome: Result<(), Error>) -> Result<bool, LinkError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(link_error(error)),
    }
}

fn link_error(error: Error) -> LinkError {
    match error {
        Error::Io(error) => LinkError::Lost(error),
        Error::ConnectionClosed | Error::AlreadyClosed => {
            LinkError::Closed(CloseReason::Done, String::new())
        }
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            LinkError::Lost(io::ErrorKind::UnexpectedEof.into())
        }
        error => LinkError::WebSocket(error.to_string()),
    }
}

/// How much is read from one link in a turn while others wait: with one system call, if it is there.
pub const READ_PER_TURN_MAX: usize = SCRATCH;

/// What a peer has to say until it is known takes one message, or two; and some pings, where that takes long.
const STRANGER_FRAMES_MAX: usize = 16;

/// One whole batch, and what goes with it, with one system call.
const SCRATCH: usize = BATCH_MAX + WRITE_SLACK;

/// What an idle link keeps for partial messages; it grows to a batch under load.
const READ_BUFFER: usize = 1024;

/// Room beside one batch for its WebSocket header, a ping, a pong and a close.
const WRITE_SLACK: usize = 1024;

/// RFC 6455 §5.5: a control frame's payload is at most 125 bytes, 2 of which are the code.
const CLOSE_TEXT_MAX: usize = 123;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_read_back() {
        for code in 0..=5000 {
            assert_eq!(CloseReason::from_code(code).code(), code);
        }
    }
}
