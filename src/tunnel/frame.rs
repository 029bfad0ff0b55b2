//! The wire format: frames, and batches of them.
//!
//! A WebSocket message is a batch of whole frames. A frame is twelve bytes of header and a payload:
//!
//! ```text
//!  0               8     9     10      12
//! +---------------+-----+-----+-------+----------------+
//! | stream   u64  |kind |flags| length| payload ...    |   integers big-endian
//! +---------------+-----+-----+-------+----------------+
//! ```
//!
//! | kind | name             | from   | stream | payload                                           |
//! |------|------------------|--------|--------|---------------------------------------------------|
//! | 1    | hello            | client | 0      | JSON [`Hello`](super::control::Hello)             |
//! | 2    | welcome          | server | 0      | JSON [`Welcome`](super::control::Welcome)         |
//! | 3    | proxy_open       | client | 0      | JSON [`ProxyOpen`](super::control::ProxyOpen)     |
//! | 4    | proxy_opened     | server | 0      | JSON [`ProxyOpened`](super::control::ProxyOpened) |
//! | 5    | proxy_connect    | server | new    | JSON [`ProxyConnect`](super::control::ProxyConnect) |
//! | 6    | proxy_connected  | client | its    | none                                              |
//! | 7    | proxy_data       | both   | its    | bytes; costs its length in credit                 |
//! | 8    | proxy_credit     | both   | its    | u32: how many bytes more may be sent              |
//! | 9    | proxy_disconnect | both   | its    | JSON [`Disconnect`](super::control::Disconnect)   |
//! | 10   | proxy_upgraded   | client | its    | none                                              |
//! | 11   | goaway           | both   | 0      | JSON [`Goaway`](super::control::Goaway)           |
//! | 12   | proxy_close      | client | 0      | JSON [`ProxyClose`](super::control::ProxyClose), where welcome says `closes` |
//!
//! Flags stand on proxy_data alone: `MESSAGE_END` (1), `FIN` (2), `FINAL` (4), `KEEP` (8). A stream that is an
//! exchange may be upgraded where its proxy_connect says that the user asked for it.
//!
//! **Version rule.** The WebSocket subprotocol `siding.1` is the version. Within it a newer peer may
//! add fields to any JSON payload, which an older one ignores, and may send frames of kind 128 to
//! 255, which an older one skips. Anything else that is unknown (a kind below 128, a flag, a word)
//! closes the link, so it may be sent only to a peer whose hello or welcome announced it.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// Names a stream in its link. Given by the server, ascending, never used again in that link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// What frames that concern the whole link carry.
    pub const LINK: StreamId = StreamId(0);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a frame says; see the table in the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The client says who it is.
    Hello = 1,
    /// The server accepts it.
    Welcome = 2,
    /// The client asks for a listener.
    ProxyOpen = 3,
    /// The server's answer to that.
    ProxyOpened = 4,
    /// A user is there: dial, or take from the pool.
    ProxyConnect = 5,
    /// The target is connected; opens the whole window.
    ProxyConnected = 6,
    /// Bytes of a stream, and how they end.
    ProxyData = 7,
    /// More bytes may be sent.
    ProxyCredit = 8,
    /// The stream is over.
    ProxyDisconnect = 9,
    /// The origin switched protocols: both directions are raw from here on.
    ProxyUpgraded = 10,
    /// No new streams.
    Goaway = 11,
    /// The client wants a listener no more.
    ProxyClose = 12,
}

impl Kind {
    fn from_wire(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::ProxyOpen,
            4 => Kind::ProxyOpened,
            5 => Kind::ProxyConnect,
            6 => Kind::ProxyConnected,
            7 => Kind::ProxyData,
            8 => Kind::ProxyCredit,
            9 => Kind::ProxyDisconnect,
            10 => Kind::ProxyUpgraded,
            11 => Kind::Goaway,
            12 => Kind::ProxyClose,
            _ => return None,
        })
    }

    /// The kind's name in logs and documents.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Welcome => "welcome",
            Kind::ProxyOpen => "proxy_open",
            Kind::ProxyOpened => "proxy_opened",
            Kind::ProxyConnect => "proxy_connect",
            Kind::ProxyConnected => "proxy_connected",
            Kind::ProxyData => "proxy_data",
            Kind::ProxyCredit => "proxy_credit",
            Kind::ProxyDisconnect => "proxy_disconnect",
            Kind::ProxyUpgraded => "proxy_upgraded",
            Kind::Goaway => "goaway",
            Kind::ProxyClose => "proxy_close",
        }
    }
}

/// The flags of a proxy_data frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// The HTTP message ends with this frame.
    pub const MESSAGE_END: Flags = Flags(1);
    /// The byte stream ends with this frame.
    pub const FIN: Flags = Flags(2);
    /// The payload begins with the final response head.
    pub const FINAL: Flags = Flags(4);
    /// With `MESSAGE_END`, from the client: the user's connection may be kept.
    pub const KEEP: Flags = Flags(8);

    const KNOWN: u8 = 15;

    /// Whether every flag of `other` is set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One frame, its payload still in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The stream, or [`StreamId::LINK`].
    pub stream: StreamId,
    /// What it says.
    pub kind: Kind,
    /// Set on proxy_data only.
    pub flags: Flags,
    /// The rest.
    pub payload: &'a [u8],
}

/// Why a message is no batch of frames. The peer is at fault; the link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The message ends inside a frame.
    Truncated,
    /// A kind that this version does not know and may not skip.
    UnknownKind(u8),
    /// Flags that this version does not know, or flags on a kind that has none.
    UnknownFlags(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Truncated => f.write_str("truncated frame"),
            FrameError::UnknownKind(kind) => write!(f, "frame of unknown kind {kind}"),
            FrameError::UnknownFlags(flags) => write!(f, "frame with unknown flags {flags:#04x}"),
        }
    }
}

/// A received message, and how far it has been read.
#[derive(Debug)]
pub struct Message {
    bytes: Bytes,
    read: usize,
    /// How many more frames may be taken in this turn.
    share: usize,
}

impl Message {
    /// Starts at the first frame.
    pub fn new(bytes: Bytes) -> Message {
        Message {
            bytes,
            read: 0,
            share: usize::MAX,
        }
    }

    /// From now on so many frames may be taken, and no more.
    pub fn set_share(&mut self, frames: usize) {
        self.share = frames;
    }

    /// What is left of that.
    pub fn share(&self) -> usize {
        self.share
    }

    /// Whether all frames were taken.
    pub fn is_over(&self) -> bool {
        self.read == self.bytes.len()
    }

    /// The next frame; `None` at the end, or of its [share](Message::set_share). Frames that a newer peer may
    /// send and we may skip are skipped.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        loop {
            let rest = &self.bytes[self.read..];
            if rest.is_empty() || self.share == 0 {
                return Ok(None);
            }
            self.share -= 1;
            let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() else {
                return Err(FrameError::Truncated);
            };
            let [s0, s1, s2, s3, s4, s5, s6, s7, kind, flags, l0, l1] = *header;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            if after.len() < length {
                return Err(FrameError::Truncated);
            }
            let start = self.read + HEADER_BYTES;
            self.read = start + length;
            if kind >= KIND_OPTIONAL_MIN {
                continue;
            }
            let kind = Kind::from_wire(kind).ok_or(FrameError::UnknownKind(kind))?;
            let known = if kind == Kind::ProxyData {
                Flags::KNOWN
            } else {
                0
            };
            if flags & !known != 0 {
                return Err(FrameError::UnknownFlags(flags));
            }
            return Ok(Some(Frame {
                stream: StreamId(u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7])),
                kind,
                flags: Flags(flags),
                payload: &self.bytes[start..self.read],
            }));
        }
    }
}

/// A message being written: one buffer for the whole process, its payloads read into it straight
/// from the kernel.
///
/// The buffer is lent to the WebSocket as `Bytes` and taken back, so that it is allocated once.
#[derive(Debug)]
pub struct Batch {
    bytes: BytesMut,
    used: usize,
    limit: usize,
    frames: u32,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            bytes: lendable(BATCH_MAX),
            used: 0,
            limit: BATCH_MAX,
            frames: 0,
        }
    }
}

impl Batch {
    /// Empties it for a message of at most `limit` bytes.
    ///
    /// # Panics
    /// When `limit` is past [`BATCH_MAX`].
    pub fn begin(&mut self, limit: usize) {
        assert!(limit <= BATCH_MAX, "a batch has one size");
        self.used = 0;
        self.frames = 0;
        self.limit = limit;
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How long the message may become.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.used
    }

    /// How many frames it holds.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// How long the payload of one more frame may be.
    pub fn room(&self) -> usize {
        self.limit
            .saturating_sub(self.used + HEADER_BYTES)
            .min(usize::from(u16::MAX))
    }

    /// Where the payload of the next frame goes, [`Batch::room`] bytes; [`Batch::seal`] makes the
    /// frame of it.
    pub fn payload(&mut self) -> &mut [u8] {
        let room = self.room();
        let start = (self.used + HEADER_BYTES).min(self.bytes.len());
        &mut self.bytes[start..start + room]
    }

    /// Makes a frame of the first `length` bytes of [`Batch::payload`].
    ///
    /// # Panics
    /// When `length` is past [`Batch::room`], or there is no room for a header.
    pub fn seal(&mut self, stream: StreamId, kind: Kind, flags: Flags, length: usize) {
        assert!(
            length <= self.room() && self.used + HEADER_BYTES <= self.limit,
            "a frame is sealed in the room it was given"
        );
        let header = &mut self.bytes[self.used..self.used + HEADER_BYTES];
        header[..8].copy_from_slice(&stream.0.to_be_bytes());
        header[8] = kind as u8;
        header[9] = flags.0;
        header[10..].copy_from_slice(&(length as u16).to_be_bytes());
        self.used += HEADER_BYTES + length;
        self.frames += 1;
    }

    /// Adds a frame whose payload exists already; `false` when it does not fit.
    #[must_use]
    pub fn push(&mut self, stream: StreamId, kind: Kind, payload: &[u8]) -> bool {
        if self.used + HEADER_BYTES > self.limit || payload.len() > self.room() {
            return false;
        }
        self.payload()[..payload.len()].copy_from_slice(payload);
        self.seal(stream, kind, Flags::NONE, payload.len());
        true
    }

    /// Calls `send` with the message and takes the buffer back.
    pub fn lend<T>(&mut self, send: impl FnOnce(Bytes) -> T) -> T {
        let used = std::mem::take(&mut self.used);
        self.frames = 0;
        lend(&mut self.bytes, used, send)
    }

    /// What has been written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// A buffer to lend, made so that it is counted from the start how often it is lent: else the count would be
/// allocated anew each time.
pub(super) fn lendable(bytes: usize) -> BytesMut {
    BytesMut::zeroed(bytes).split()
}

/// Calls `send` with the first bytes of a [`lendable`] buffer, and takes it back.
pub(super) fn lend<T>(buffer: &mut BytesMut, used: usize, send: impl FnOnce(Bytes) -> T) -> T {
    let size = buffer.len();
    let whole = std::mem::take(buffer).freeze();
    let sent = send(whole.slice(..used));
    // The WebSocket copies the payload while it masks it and drops it then, so that ours is the last
    // reference; were it ever not, a new buffer is right, too.
    *buffer = whole.try_into_mut().unwrap_or_else(|_| lendable(size));
    sent
}

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 12;

/// The longest message: four quanta. Longer ones would keep a keystroke waiting longer for no gain
/// in throughput; this is 0.5 ms at 1 Gbit/s.
pub const BATCH_MAX: usize = 64 * 1024;

/// The longest JSON payload, and the longest message of a link that was not welcomed yet.
pub const CONTROL_MAX: usize = 4 * 1024;

/// From here on, kinds may be skipped by who does not know them.
const KIND_OPTIONAL_MIN: u8 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        (1u8..=11).prop_map(|byte| Kind::from_wire(byte).expect("1 to 11 are kinds"))
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_read_back(
            frames in prop::collection::vec(
                (any::<u64>(), kinds(), 0u8..16, prop::collection::vec(any::<u8>(), 0..300)), 0..40)
        ) {
            let mut batch = Batch::default();
            batch.begin(BATCH_MAX);
            let mut expected = Vec::new();
            for (stream, kind, flags, payload) in &frames {
                let flags = if *kind == Kind::ProxyData { *flags } else { 0 };
                batch.payload()[..payload.len()].copy_from_slice(payload);
                batch.seal(StreamId(*stream), *kind, Flags(flags), payload.len());
                expected.push((StreamId(*stream), *kind, Flags(flags), payload.clone()));
            }
            prop_assert_eq!(batch.frames() as usize, expected.len());
            let mut message = batch.lend(Message::new);
            for (stream, kind, flags, payload) in expected {
                let frame = message.frame().unwrap().unwrap();
                prop_assert_eq!(frame, Frame { stream, kind, flags, payload: &payload });
            }
            prop_assert_eq!(message.frame().unwrap(), None);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = Message::new(bytes.into());
            while let Ok(Some(_)) = message.frame() {}
        }
    }

    #[test]
    fn every_cut_of_a_message_is_truncated_or_shorter_by_whole_frames() {
        let mut batch = Batch::default();
        batch.begin(1000);
        assert!(batch.push(StreamId(7), Kind::ProxyData, b"hello"));
        assert!(batch.push(StreamId(8), Kind::ProxyCredit, &[0, 0, 1, 0]));
        let whole = batch.as_slice().to_vec();
        let first = HEADER_BYTES + 5;
        for cut in 0..whole.len() {
            let mut message = Message::new(Bytes::copy_from_slice(&whole[..cut]));
            let mut frames = 0;
            let end = loop {
                match message.frame() {
                    Ok(Some(_)) => frames += 1,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert_eq!(frames, usize::from(cut >= first));
            let whole_frames = cut == 0 || cut == first;
            assert_eq!(
                end,
                (!whole_frames).then_some(FrameError::Truncated),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn unknown_kinds_below_128_are_errors_and_above_are_skipped() {
        let frame = |kind: u8, flags: u8| {
            let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 1, kind, flags, 0, 1, b'x'];
            bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 6, 0, 0, 0]);
            Message::new(bytes.into())
        };
        assert_eq!(frame(0, 0).frame(), Err(FrameError::UnknownKind(0)));
        assert_eq!(frame(127, 0).frame(), Err(FrameError::UnknownKind(127)));
        let mut skipped = frame(128, 77);
        assert_eq!(
            skipped.frame().unwrap().map(|f| f.stream),
            Some(StreamId(2))
        );
        assert_eq!(frame(7, 16).frame(), Err(FrameError::UnknownFlags(16)));
        assert_eq!(frame(8, 1).frame(), Err(FrameError::UnknownFlags(1)));
    }

    #[test]
    fn a_batch_never_grows_past_its_limit() {
        let mut batch = Batch::default();
        batch.begin(2 * HEADER_BYTES + 10);
        assert!(batch.push(StreamId(1), Kind::ProxyData, &[1; 10]));
        assert!(!batch.push(StreamId(1), Kind::ProxyData, &[1]));
        assert!(batch.push(StreamId(1), Kind::ProxyData, &[]));
        assert!(!batch.push(StreamId(1), Kind::ProxyData, &[]));
        assert_eq!(batch.room(), 0);
        assert!(batch.payload().is_empty());
    }

    #[test]
    fn the_buffer_comes_back_from_a_loan() {
        let mut batch = Batch::default();
        for _ in 0..3 {
            batch.begin(BATCH_MAX);
            let before = batch.payload().as_ptr();
            assert!(batch.push(StreamId(1), Kind::ProxyData, b"x"));
            batch.lend(|bytes| assert_eq!(bytes.len(), HEADER_BYTES + 1));
            batch.begin(BATCH_MAX);
            assert_eq!(batch.payload().as_ptr(), before);
        }
    }
}
