//! The chunked coding (RFC 9112 §7.1), taken apart and put together.
//!
//! [`Chunks`] decodes in place, byte by byte through one small machine, so that its result is the
//! same for every way in which the input may be cut. It takes the grammar and nothing else: what
//! other decoders forgive here (a missing size, a bare LF, blanks after the size) is how requests
//! are smuggled. Knows nothing of sources; bounds everything that it keeps or skips.

use super::{
    fields::{Fields, may_trail, write_field},
    head::{check_lines, syntax},
};

/// How much a chunked message may hold besides its payload, and how far past its end may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of one chunk's extensions, which are skipped; more than 65,535 means that many.
    pub chunk_extension: usize,
    /// Bytes of the trailer section, which is kept until its end to be checked.
    pub trailers: usize,
    /// Bytes that one read may take beyond those that are known to belong to the message: so much of
    /// the next one may come along, and has to be kept until its turn.
    pub ahead: usize,
}

impl Default for BodyLimits {
    /// 1 KiB of extensions, of which no known client sends any and a signature of an object store
    /// has about 90 bytes; 8 KiB of trailers, a quarter of a head; 16 KiB ahead, one usual read.
    fn default() -> Self {
        BodyLimits {
            chunk_extension: 1024,
            trailers: 8 * 1024,
            ahead: 16 * 1024,
        }
    }
}

/// Fields of a trailer section; gRPC and digests use one to five.
pub const TRAILER_FIELDS_MAX: usize = 64;

/// Bytes by which the extensions of a message may exceed what its data pays for.
///
/// Each chunk pays for [`EXTENSION_FREE`] bytes of extensions, and each byte of data for two more.
/// Without a bound of the sum, a kibibyte of extensions for each byte of data would keep a connection
/// and this decoder busy at no use to anybody (CVE-2023-39326).
const EXTENSION_EXCESS_MAX: u64 = 16 * 1024;

/// See [`EXTENSION_EXCESS_MAX`].
const EXTENSION_FREE: u64 = 16;

/// The last chunk and an empty trailer section.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Digits of a chunk size: 2^63 - 1 has 16. More could only be leading zeros.
const SIZE_DIGITS_MAX: u8 = 16;

/// The decoder of one chunked message.
///
/// ```text
///         ┌────────────────── CR LF ◄──────── (size 0 ends the data)
///         ▼                                          │
///   Size ─┬─► Extension ─┬─► SizeLf ─► Data ─► DataCr ─► DataLf
///         └──────────────┘      │
///                               └─► LineStart ◄─► Line ─► LineLf
///                                       └─► EndLf ─► Ended
/// ```
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    limits: BodyLimits,
    /// Bytes of extensions that no data has paid for, see [`EXTENSION_EXCESS_MAX`].
    excess: u64,
    /// The trailer section so far, without the empty line that ends it.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the size line, before `;` or CR.
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind the first `;`. `length` bytes were skipped.
    Extension {
        size: u64,
        length: u16,
        quote: Quote,
    },
    /// Behind the CR of the size line, which had so many bytes of extensions.
    SizeLf {
        size: u64,
        extension: u16,
    },
    /// In the chunk's data, `left` > 0 bytes before its end.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the message.
    LineStart,
    Line,
    LineLf,
    /// Behind the CR of the empty line.
    EndLf,
    Ended,
}

/// Where in a quoted string (RFC 9110 §5.6.4) of an extension a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

/// What one call of [`Chunks::decode`] made of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Decoded {
    /// Bytes of payload, now at the front of the slice.
    pub(super) payload: usize,
    /// Bytes that belong to the message; fewer than were given only when it ended.
    pub(super) consumed: usize,
    /// The empty line after the last chunk was read.
    pub(super) ended: bool,
}

impl Chunks {
    pub(super) fn new(limits: BodyLimits) -> Chunks {
        Chunks {
            state: NEXT_CHUNK,
            limits,
            excess: 0,
            trailers: Vec::new(),
        }
    }

    /// How much of `room` bytes a read may fill, so that no more than [`BodyLimits::ahead`] of it can
    /// belong to the next message.
    pub(super) fn reach(&self, room: usize) -> usize {
        let sure = match self.state {
            State::Data { left } => at_most(left, room),
            _ => 0,
        };
        room.min(sure.saturating_add(self.limits.ahead.max(1)))
    }

    /// Decodes `bytes` in place: the payload in them moves to their front, what follows the end of
    /// the message stays where it is.
    ///
    /// # Errors
    /// The grammar is broken or a limit passed. The decoder must not be used afterwards.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, &'static str> {
        let mut payload = 0;
        let mut consumed = 0;
        while consumed < bytes.len() && !matches!(self.state, State::Ended) {
            if let State::Data { left } = self.state {
                let run = at_most(left, bytes.len() - consumed);
                bytes.copy_within(consumed..consumed + run, payload);
                payload += run;
                consumed += run;
                self.state = match left - run as u64 {
                    0 => State::DataCr,
                    left => State::Data { left },
                };
            } else {
                self.state = self.step(bytes[consumed])?;
                consumed += 1;
            }
        }
        Ok(Decoded {
            payload,
            consumed,
            ended: matches!(self.state, State::Ended),
        })
    }

    /// The state behind `byte`, which is no payload.
    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX || size >= 1 << 59 {
                    return Err("a chunk size of 2^63 or more");
                }
                Ok(State::Size {
                    size: size << 4 | u64::from(hex_value(byte)),
                    digits: digits + 1,
                })
            }
            (State::Size { digits: 0, .. }, _) => Err("a chunk without a size"),
            (State::Size { size, .. }, b'\r') => Ok(State::SizeLf { size, extension: 0 }),
            (State::Size { size, .. }, b';') => self.extend(size, 0, Quote::Outside),
            (State::Size { .. }, _) => Err("a chunk size with a byte that is no hex digit"),
            (
                State::Extension {
                    size,
                    length,
                    quote,
                },
                b'\r',
            ) => match quote {
                Quote::Outside => Ok(State::SizeLf {
                    size,
                    extension: length,
                }),
                Quote::Inside | Quote::Escaped => Err("a line end in a quoted chunk extension"),
            },
            (
                State::Extension {
                    size,
                    length,
                    quote,
                },
                byte,
            ) => {
                if is_control(byte) {
                    return Err("a control byte in a chunk extension");
                }
                self.extend(size, length, quote.behind(byte))
            }
            (State::SizeLf { size, extension }, b'\n') => {
                self.pay(size, extension)?;
                Ok(match size {
                    0 => State::LineStart,
                    left => State::Data { left },
                })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(NEXT_CHUNK),
            (State::DataCr | State::DataLf, _) => Err("chunk data longer than its size"),
            (State::LineStart, b'\r') => Ok(State::EndLf),
            (State::Line, b'\r') => self.keep(byte, State::LineLf),
            (State::LineStart | State::Line, byte) if !is_control(byte) => {
                self.keep(byte, State::Line)
            }
            (State::LineStart | State::Line, _) => Err("a control byte in the trailers"),
            (State::LineLf, b'\n') => self.keep(byte, State::LineStart),
            (State::EndLf, b'\n') => Ok(State::Ended),
            (State::SizeLf { .. } | State::LineLf | State::EndLf, _) => {
                Err("a bare CR in the chunked coding")
            }
            // Handled by `decode`; nothing is stepped over in these.
            (State::Data { .. } | State::Ended, _) => Ok(self.state),
        }
    }

    /// One more byte of an extension that had `length`.
    fn extend(&self, size: u64, length: u16, quote: Quote) -> Result<State, &'static str> {
        if length == u16::MAX || usize::from(length) >= self.limits.chunk_extension {
            return Err("chunk extensions that are too long");
        }
        Ok(State::Extension {
            size,
            length: length + 1,
            quote,
        })
    }

    /// Adds the extensions of a chunk of `size` bytes to the account.
    fn pay(&mut self, size: u64, extension: u16) -> Result<(), &'static str> {
        let paid = size.saturating_mul(2).saturating_add(EXTENSION_FREE);
        self.excess = (self.excess + u64::from(extension)).saturating_sub(paid);
        if self.excess > EXTENSION_EXCESS_MAX {
            return Err("chunk extensions out of proportion to the data");
        }
        Ok(())
    }

    fn keep(&mut self, byte: u8, next: State) -> Result<State, &'static str> {
        if self.trailers.len() >= self.limits.trailers {
            return Err("trailers that are too long");
        }
        self.trailers.push(byte);
        Ok(next)
    }

    /// After the end: the last chunk, those trailer fields that may be forwarded, and the empty
    /// line. `None` stands for [`LAST_CHUNK`], the case without trailers.
    ///
    /// # Errors
    /// The trailer section breaks the syntax of fields, or a limit.
    pub(super) fn finish(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
        if self.trailers.is_empty() {
            return Ok(None);
        }
        self.trailers.extend_from_slice(b"\r\n");
        check_lines(&self.trailers)?;
        let mut room = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
        let fields = match httparse::parse_headers(&self.trailers, &mut room).map_err(syntax)? {
            httparse::Status::Complete((_, fields)) => Fields::new(fields),
            httparse::Status::Partial => return Err("the trailers are malformed"),
        };
        let mut tail = b"0\r\n".to_vec();
        for (name, value) in fields.iter().filter(|(name, _)| may_trail(name)) {
            write_field(&mut tail, name, value);
        }
        tail.extend_from_slice(b"\r\n");
        Ok(Some(tail))
    }
}

impl Quote {
    fn behind(self, byte: u8) -> Quote {
        match (self, byte) {
            (Quote::Outside, b'"') => Quote::Inside,
            (Quote::Inside, b'"') => Quote::Outside,
            (Quote::Inside, b'\\') => Quote::Escaped,
            (Quote::Escaped, _) => Quote::Inside,
            (quote, _) => quote,
        }
    }
}

const NEXT_CHUNK: State = State::Size { size: 0, digits: 0 };

fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The smaller of a length on the wire and a length in memory.
pub(super) fn at_most(length: u64, room: usize) -> usize {
    usize::try_from(length).map_or(room, |length| length.min(room))
}

/// Where in a buffer of a given size a chunk's payload goes, so that the chunk, and behind it
/// [`LAST_CHUNK`], fit whatever the payload's size turns out to be.
///
/// ```text
///   ├ head ─────────┼ payload (up to `room`) ─────┼ CR LF ┼ 0 CR LF CR LF ┤
///     hex size CR LF
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Offset of the payload.
    pub(super) head: usize,
    /// The most payload.
    pub(super) room: usize,
}

impl Layout {
    /// `length` must be at least [`Body::ROOM_MIN`](super::Body::ROOM_MIN).
    pub(super) fn of(length: usize) -> Layout {
        let head = hex_digits(length) + 2;
        Layout {
            head,
            room: length - head - 2 - LAST_CHUNK.len(),
        }
    }

    /// Makes one chunk, at the front of `out`, of the `payload` > 0 bytes at `head`; returns its
    /// length. A size with fewer digits than `head` has room for moves the payload.
    pub(super) fn seal(self, out: &mut [u8], payload: usize) -> usize {
        let digits = hex_digits(payload);
        let start = digits + 2;
        if start != self.head {
            out.copy_within(self.head..self.head + payload, start);
        }
        for (place, digit) in out[..digits].iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[payload >> (4 * place) & 0xf];
        }
        out[digits..start].copy_from_slice(b"\r\n");
        let end = start + payload;
        out[end..end + 2].copy_from_slice(b"\r\n");
        end + 2
    }
}

fn hex_digits(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros();
    (bits.div_ceil(4) as usize).max(1)
}

#[cfg(test)]
mod tests;
