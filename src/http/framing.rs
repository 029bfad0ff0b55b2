//! Where a message ends, and how its body is framed for the far side.
//!
//! A [`Body`] stands between a socket and the buffer that leaves the process: it reads from the one
//! straight into the other, counts or decodes in place, and never takes more from the socket than
//! will fit when framed again. It knows no socket ([`Source`] is lent for one call) and no head but
//! what [`Framing`] and [`Coding`] say of it. The end of a message is computed, never guessed.

use std::io;

use super::chunked::{BodyLimits, Chunks, LAST_CHUNK, Layout, at_most};

/// How the end of a body is told on the connection that it arrives on (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// No body: the message ends with its head.
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// Chunks, up to the one of size 0 and the empty line after its trailers.
    Chunked,
    /// Until the origin closes. Responses only.
    UntilClose,
    /// No HTTP at all: bytes until the sender's FIN.
    Raw,
}

impl Framing {
    /// Whether the far side can tell where a body ends that arrives with this framing and is
    /// written with `coding`, other than by a close.
    pub fn is_delimited(self, coding: Coding) -> bool {
        match self {
            Framing::None | Framing::Length(_) => true,
            Framing::Chunked | Framing::UntilClose => coding == Coding::Chunked,
            Framing::Raw => false,
        }
    }
}

/// How a payload is written for the far side. Bodies with a length, and raw bytes, are always plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As it is.
    Plain,
    /// As chunks of our own making.
    Chunked,
}

/// Where a body's bytes come from, lent for the length of one call.
pub trait Source {
    /// Reads into `into`, which is never empty; `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing now; others are the source's own.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;

    /// Takes back bytes that were read past the end of the message: what comes next on this
    /// connection. Called at most once per message, with at least one byte, after its last read.
    fn unread(&mut self, surplus: &[u8]);
}

/// The body of one message, or one direction of an opaque stream.
#[derive(Debug)]
pub struct Body {
    state: State,
}

#[derive(Debug)]
enum State {
    /// This many bytes, more than 0, are to come.
    Length(u64),
    Chunked(Coding, Box<Chunks>),
    UntilClose(Coding),
    Raw,
    Ended,
    /// The source broke its framing: what it sends has no meaning any more.
    Broken,
}

/// What a call of [`Body::transfer`] did.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// This many bytes, more than 0, were written; the message goes on.
    Moved(usize),
    /// The message is over.
    Ended {
        /// Bytes written.
        written: usize,
        /// What must follow them: the last chunk with its trailers when they did not fit. Empty
        /// but for messages with trailers.
        rest: Vec<u8>,
    },
}

/// Why nothing was moved.
#[derive(Debug)]
pub enum BodyError {
    /// The source would block, or there is less room than [`Body::room_min`].
    Blocked,
    /// The stream ended before the message did.
    Truncated,
    /// The chunked coding is broken.
    Malformed(&'static str),
    /// The source's own error.
    Io(io::Error),
}

impl Body {
    /// Room that is enough for any body: a chunk with at least 53 bytes of payload, so that framing
    /// costs at most a sixth of what is sent.
    pub const ROOM_MIN: usize = 64;

    /// One direction of an opaque stream.
    pub fn raw() -> Body {
        Body { state: State::Raw }
    }

    /// A body that arrives with `framing`, within the default limits; `coding` matters to
    /// [`Framing::Chunked`] and [`Framing::UntilClose`] alone.
    pub fn new(framing: Framing, coding: Coding) -> Body {
        Body::within(BodyLimits::default(), framing, coding)
    }

    /// As [`Body::new`], within these limits.
    pub fn within(limits: BodyLimits, framing: Framing, coding: Coding) -> Body {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(coding, Box::new(Chunks::new(limits))),
            Framing::UntilClose => State::UntilClose(coding),
            Framing::Raw => State::Raw,
        };
        Body { state }
    }

    /// Whether the message is over; [`Body::transfer`] reads no more.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the framing that we write tells the far side where the message ends, so that it can
    /// see a truncation by itself. Where not, only a reset of its connection can tell it.
    pub fn shows_truncation(&self) -> bool {
        match self.state {
            State::Length(_) | State::Ended => true,
            State::Chunked(coding, _) | State::UntilClose(coding) => coding == Coding::Chunked,
            State::Raw | State::Broken => false,
        }
    }

    /// Whether the end of the connection is the end of the message.
    pub fn ends_at_eof(&self) -> bool {
        matches!(self.state, State::UntilClose(_) | State::Raw)
    }

    /// The least room with which [`Body::transfer`] can make progress, 0 when it needs none.
    pub fn room_min(&self) -> usize {
        match self.state {
            State::Ended | State::Broken => 0,
            State::Chunked(Coding::Chunked, _) | State::UntilClose(Coding::Chunked) => {
                Body::ROOM_MIN
            }
            State::Length(_)
            | State::Chunked(Coding::Plain, _)
            | State::UntilClose(Coding::Plain)
            | State::Raw => 1,
        }
    }

    /// Moves bytes from `source` to the front of `out`, framed for the far side.
    ///
    /// Reads until something was written, the source would block, or the message ended; usually
    /// that is one read. Never reads into an empty slice, nor past the end of a body that has a
    /// length, nor more than fits into `out` once it is framed.
    ///
    /// # Errors
    /// [`BodyError`]; with all but [`BodyError::Blocked`] the message is lost. Nothing in `out` is
    /// to be sent.
    pub fn transfer(&mut self, out: &mut [u8], source: &mut dyn Source) -> Result<Step, BodyError> {
        if out.len() < self.room_min() {
            return Err(BodyError::Blocked);
        }
        let step = match &mut self.state {
            State::Length(left) => transfer_length(left, out, source),
            State::Chunked(coding, chunks) => transfer_chunks(chunks, *coding, out, source),
            State::UntilClose(Coding::Chunked) => transfer_until_close(out, source),
            State::UntilClose(Coding::Plain) | State::Raw => {
                read(source, out).map(|length| match length {
                    0 => Step::ended(0),
                    length => Step::Moved(length),
                })
            }
            State::Ended => return Ok(Step::ended(0)),
            State::Broken => Err(BodyError::Malformed("broken before")),
        };
        match &step {
            Ok(Step::Ended { .. }) => self.state = State::Ended,
            Err(BodyError::Malformed(_)) => self.state = State::Broken,
            Ok(Step::Moved(_)) | Err(_) => {}
        }
        step
    }
}

impl Step {
    fn ended(written: usize) -> Step {
        Step::Ended {
            written,
            rest: Vec::new(),
        }
    }
}

fn transfer_length(
    left: &mut u64,
    out: &mut [u8],
    source: &mut dyn Source,
) -> Result<Step, BodyError> {
    let room = at_most(*left, out.len());
    let length = read(source, &mut out[..room])?;
    *left -= length as u64;
    match (length, *left) {
        (0, _) => Err(BodyError::Truncated),
        (_, 0) => Ok(Step::ended(length)),
        _ => Ok(Step::Moved(length)),
    }
}

fn transfer_until_close(out: &mut [u8], source: &mut dyn Source) -> Result<Step, BodyError> {
    let layout = Layout::of(out.len());
    match read(source, &mut out[layout.head..layout.head + layout.room])? {
        0 => {
            out[..LAST_CHUNK.len()].copy_from_slice(LAST_CHUNK);
            Ok(Step::ended(LAST_CHUNK.len()))
        }
        payload => Ok(Step::Moved(layout.seal(out, payload))),
    }
}

/// Many small chunks that arrive together leave as one. The loop is bounded by what the decoder may
/// skip between two bytes of payload: one size line, or the trailers.
fn transfer_chunks(
    chunks: &mut Chunks,
    coding: Coding,
    out: &mut [u8],
    source: &mut dyn Source,
) -> Result<Step, BodyError> {
    let layout = match coding {
        Coding::Chunked => Layout::of(out.len()),
        Coding::Plain => Layout {
            head: 0,
            room: out.len(),
        },
    };
    loop {
        let window = &mut out[layout.head..layout.head + layout.room];
        let reach = chunks.reach(window.len());
        let length = read(source, &mut window[..reach])?;
        if length == 0 {
            return Err(BodyError::Truncated);
        }
        let decoded = chunks
            .decode(&mut window[..length])
            .map_err(BodyError::Malformed)?;
        if decoded.consumed < length {
            source.unread(&window[decoded.consumed..length]);
        }
        let written = match (coding, decoded.payload) {
            (Coding::Plain, payload) => payload,
            (Coding::Chunked, 0) => 0,
            (Coding::Chunked, payload) => layout.seal(out, payload),
        };
        if decoded.ended {
            let tail = chunks.finish().map_err(BodyError::Malformed)?;
            return Ok(match coding {
                Coding::Plain => Step::ended(written),
                Coding::Chunked => append(out, written, tail),
            });
        }
        if written > 0 {
            return Ok(Step::Moved(written));
        }
    }
}

/// Puts the end of a chunked message behind what was written, or beside it if there is no room.
fn append(out: &mut [u8], written: usize, tail: Option<Vec<u8>>) -> Step {
    let end = tail.as_deref().unwrap_or(LAST_CHUNK);
    match out.get_mut(written..written + end.len()) {
        Some(place) => {
            place.copy_from_slice(end);
            Step::ended(written + end.len())
        }
        None => Step::Ended {
            written,
            rest: end.to_vec(),
        },
    }
}

fn read(source: &mut dyn Source, into: &mut [u8]) -> Result<usize, BodyError> {
    loop {
        match source.read(into) {
            Ok(length) => return Ok(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(BodyError::Blocked);
            }
            Err(error) => return Err(BodyError::Io(error)),
        }
    }
}

#[cfg(test)]
mod tests;
