//! Bodies: for every way to cut them, and every sequence of room to write to, what the far side reads
//! is what was sent, it ends where the message ends, and what does not end never looks as if it did.

use siding::http::{Body, BodyError, BodyLimits, Coding, Framing, Step};

use super::{
    rfc::{
        Field,
        chunked::{self, Verdict},
    },
    wire::{Cuts, Wire, knobs},
};

/// Knobs: framing, coding and limits, the length of a body that declares one, the rooms, and the cuts. The
/// rest begins with a body.
pub fn check(input: &[u8]) {
    let Some(([kinds, length, rooms, seed], bytes)) = knobs(input) else {
        return;
    };
    let framing = match kinds & 7 {
        0 => Framing::None,
        1 => Framing::Length(u64::from(*length)),
        2 => Framing::Length(u64::MAX >> 1),
        3 => Framing::UntilClose,
        4 => Framing::Raw,
        _ => Framing::Chunked,
    };
    let coding = if kinds & 8 != 0 {
        Coding::Plain
    } else {
        Coding::Chunked
    };
    let closes = kinds & 16 == 0;
    let limits = limits(kinds >> 5);
    let sent = Message::of(framing, bytes, &limits, closes);
    for cuts in Cuts::each(*seed) {
        let mut wire = Wire::new(bytes, cuts, closes);
        let mut body = Body::within(limits, framing, coding);
        let moved = transfer(&mut body, &mut wire, &mut Cuts::seeded(*rooms));
        sent.reached(&moved, framing, coding);
        if sent.end == End::Ended {
            assert_eq!(wire.at(), sent.length, "it took more than the message");
            assert!(wire.surplus() <= limits.ahead.max(1), "it read on");
        }
    }
}

/// Usual limits, or such as a short input can reach.
pub fn limits(knob: u8) -> BodyLimits {
    match knob & 3 {
        1 => BodyLimits {
            chunk_extension: 8,
            trailers: 40,
            ahead: 5,
        },
        3 => BodyLimits {
            chunk_extension: usize::MAX,
            trailers: 0,
            ahead: 0,
        },
        _ => BodyLimits::default(),
    }
}

/// What became of a body.
#[derive(Debug)]
pub struct Moved {
    /// What was written for the far side.
    pub out: Vec<u8>,
    pub end: End,
    /// Whether the far side can see by itself that it is not all, if it is not.
    pub shows_truncation: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Ended,
    /// The wire has nothing more to give, and is open.
    Waiting,
    Truncated,
    Malformed,
}

/// Moves all that can be moved, through buffers of changing size.
pub fn transfer(body: &mut Body, wire: &mut Wire<'_>, rooms: &mut Cuts) -> Moved {
    let mut out = Vec::new();
    let shows_truncation = body.shows_truncation();
    let end = loop {
        let room_min = body.room_min();
        if room_min > 0 {
            let before = wire.at();
            let blocked = body.transfer(&mut vec![0; room_min - 1], wire);
            assert!(matches!(blocked, Err(BodyError::Blocked)), "{blocked:?}");
            assert_eq!(wire.at(), before, "it read without room");
        }
        let mut room = vec![0xee; room_min + rooms.size().min(2048)];
        match body.transfer(&mut room, wire) {
            Ok(Step::Moved(length)) => {
                assert!(length > 0, "a move of nothing");
                assert!(!body.is_ended());
                out.extend_from_slice(&room[..length]);
            }
            Ok(Step::Ended { written, rest }) => {
                out.extend_from_slice(&room[..written]);
                out.extend_from_slice(&rest);
                break End::Ended;
            }
            Err(BodyError::Blocked) if wire.is_dry() => break End::Waiting,
            Err(BodyError::Blocked) => {}
            Err(BodyError::Truncated) => break End::Truncated,
            Err(BodyError::Malformed(_)) => break End::Malformed,
            Err(BodyError::Io(error)) => panic!("the wire does not fail: {error}"),
        }
    };
    // Over is over.
    let at = wire.at();
    assert_eq!(body.is_ended(), end == End::Ended);
    let again = body.transfer(&mut [0; Body::ROOM_MIN], wire);
    match end {
        End::Ended => assert!(
            matches!(&again, Ok(Step::Ended { written: 0, rest }) if rest.is_empty()),
            "{again:?}"
        ),
        End::Malformed => assert!(matches!(again, Err(BodyError::Malformed(_))), "{again:?}"),
        End::Waiting => assert!(matches!(again, Err(BodyError::Blocked)), "{again:?}"),
        End::Truncated => {}
    }
    assert_eq!(wire.at(), at, "it read behind the end");
    Moved {
        out,
        end,
        shows_truncation,
    }
}

/// A message's body, as the RFC reads it from all that its sender sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub payload: Vec<u8>,
    pub trailers: Vec<Field>,
    pub end: End,
    /// How much of what was sent belongs to it; of no meaning unless it ended.
    pub length: usize,
}

impl Message {
    /// Reads the body at the start of `bytes`.
    pub fn of(framing: Framing, bytes: &[u8], limits: &BodyLimits, closes: bool) -> Message {
        let short = if closes { End::Truncated } else { End::Waiting };
        let (payload, end) = match framing {
            Framing::None => (&b""[..], End::Ended),
            Framing::Length(length) if length <= bytes.len() as u64 => {
                (&bytes[..length as usize], End::Ended)
            }
            Framing::Length(_) => (bytes, short),
            Framing::UntilClose | Framing::Raw if closes => (bytes, End::Ended),
            Framing::UntilClose | Framing::Raw => (bytes, End::Waiting),
            Framing::Chunked => return Message::of_chunks(bytes, limits, short),
        };
        Message {
            payload: payload.to_vec(),
            trailers: Vec::new(),
            end,
            length: payload.len(),
        }
    }

    fn of_chunks(bytes: &[u8], limits: &BodyLimits, short: End) -> Message {
        let read = chunked::read(bytes, limits);
        let (end, length, trailers) = match read.verdict {
            Verdict::Complete { end, trailers } => (End::Ended, end, trailers),
            Verdict::Incomplete => (short, bytes.len(), Vec::new()),
            Verdict::Malformed => (End::Malformed, bytes.len(), Vec::new()),
        };
        Message {
            payload: read.payload,
            trailers,
            end,
            length,
        }
    }

    /// What the far side got is this message; or a beginning of it, and then it does not look like a
    /// whole one.
    pub fn reached(&self, moved: &Moved, framing: Framing, coding: Coding) {
        assert_eq!(moved.end, self.end);
        let payload = match (framing, coding) {
            (Framing::Chunked | Framing::UntilClose, Coding::Chunked) => self.chunks_reached(moved),
            _ => moved.out.clone(),
        };
        if self.end == End::Malformed {
            assert!(self.payload.starts_with(&payload), "a payload of its own");
        } else {
            assert_eq!(
                payload.escape_ascii().to_string(),
                self.payload.escape_ascii().to_string()
            );
        }
        // Where the far side cannot see the end, it must be shown to it by a reset, and is.
        let visible = match framing {
            Framing::None | Framing::Length(_) => true,
            Framing::Chunked | Framing::UntilClose => coding == Coding::Chunked,
            Framing::Raw => false,
        };
        assert_eq!(moved.shows_truncation, visible);
    }

    /// What the far side decodes.
    fn chunks_reached(&self, moved: &Moved) -> Vec<u8> {
        let read = chunked::read(&moved.out, &UNLIMITED);
        match read.verdict {
            Verdict::Complete { end, trailers } => {
                assert_eq!(self.end, End::Ended, "what is not all looks as if it were");
                assert_eq!(end, moved.out.len(), "something behind the end");
                trailers_reached(&self.trailers, &trailers);
            }
            Verdict::Incomplete => assert_ne!(self.end, End::Ended, "its end is missing"),
            Verdict::Malformed => panic!("our own chunks: {}", moved.out.escape_ascii()),
        }
        read.payload
    }
}

/// What the far side bears is its own affair.
pub const UNLIMITED: BodyLimits = BodyLimits {
    chunk_extension: usize::MAX,
    trailers: usize::MAX,
    ahead: usize::MAX,
};

/// Trailer fields come in order and unchanged. Those that would have meant something in the head do
/// not come at all (RFC 9110 §6.5.1); those that are surely no such fields do.
fn trailers_reached(sent: &[Field], received: &[Field]) {
    let mut rest = received.iter().peekable();
    for field in sent {
        let name = field.0.to_ascii_lowercase();
        let came = rest.next_if_eq(&field).is_some();
        let harmless = ["server-timing", "content-digest", "etag"].contains(&name.as_str())
            || name.starts_with("grpc-")
            || name.starts_with("x-checksum");
        assert!(came || !harmless, "{field:?} did not come through");
        assert!(!(came && is_for_heads(&name)), "{field:?} in a trailer");
    }
    assert_eq!(rest.next(), None, "a trailer that was not sent");
}

fn is_for_heads(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "if-match",
        "keep-alive",
        "location",
        "max-forwards",
        "proxy-authorization",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "www-authenticate",
        "x-forwarded-for",
        "x-real-ip",
    ];
    NAMES.contains(&name)
}
