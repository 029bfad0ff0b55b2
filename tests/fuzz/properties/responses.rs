//! An origin's answer to one request: interim heads, the final one, its body. For every way to cut
//! it the user reads what was sent, and sees that it is not all wherever it is not; and a connection
//! is said to be reusable only where nothing of the answer is left on it.

use siding::http::{
    Asked, Body, BodyLimits, Coding, Framing, Gather, Gathered, HeadLimits, Kind, Response,
    Source as _, Version,
};

use super::{
    body::{self, End, Message, Moved, transfer},
    request, response,
    rfc::{self, Length},
    wire::{Cuts, Wire, knobs},
};

/// Knobs: what was asked, the rooms, and the cuts. The rest is what the origin sends.
pub fn check(input: &[u8]) {
    let Some(([asked, rooms, seed], bytes)) = knobs(input) else {
        return;
    };
    let closes = asked & 0x80 == 0;
    let asked = response::asked(*asked);
    let limits = (request::limits(rooms >> 6), body::limits(rooms >> 4));
    let expected = Answer::of(bytes, &asked, &limits, closes);
    for cuts in Cuts::each(*seed) {
        let wire = Wire::new(bytes, cuts, closes);
        let carried = carry(wire, &asked, &limits, Cuts::seeded(*rooms));
        expected.was_carried(&carried, &asked);
    }
}

/// Of heads, and of bodies.
type Limits = (HeadLimits, BodyLimits);

/// Why an answer came to its end without a final head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// A head breaks a rule or a limit.
    Bad,
    Ended,
    Waiting,
}

/// What the RFC reads in an origin's answer.
struct Answer {
    interims: Vec<u16>,
    last: Result<(rfc::response::Response, Message), Failed>,
    /// Where it ends, if it does.
    end: usize,
}

impl Answer {
    fn of(bytes: &[u8], asked: &Asked, (limits, body_limits): &Limits, closes: bool) -> Answer {
        let mut interims = Vec::new();
        let mut end = 0;
        let last = loop {
            let rest = &bytes[end..];
            let head = rfc::head_end(rest);
            let Some(head) = head.filter(|head| *head <= limits.bytes) else {
                break Err(match (head, rest.len() < limits.bytes) {
                    (None, true) if closes => Failed::Ended,
                    (None, true) => Failed::Waiting,
                    _ => Failed::Bad,
                });
            };
            let Some(response) = rfc::response::read(&rest[..head], asked, limits) else {
                break Err(Failed::Bad);
            };
            end += head;
            if response.status < 200 && response.status != 101 {
                interims.push(response.status);
                continue;
            }
            let body = Message::of(framing(response.length), &bytes[end..], body_limits, closes);
            end += body.length;
            break Ok((response, body));
        };
        Answer {
            interims,
            last,
            end,
        }
    }

    fn was_carried(&self, carried: &Carried, asked: &Asked) {
        let (sent, body) = match (&self.last, &carried.last) {
            (Err(expected), Err(failed)) => {
                assert_eq!(failed, expected);
                return;
            }
            (Ok(sent), Ok(carried)) => {
                assert_eq!(request::length(carried.framing), sent.0.length);
                sent.1
                    .reached(&carried.moved, carried.framing, carried.coding);
                if sent.1.end == End::Ended {
                    assert_eq!(carried.at, self.end, "it took more than the answer");
                }
                // Then the next answer begins at `end`, for us and for the origin.
                let parkable = carried.reusable && sent.1.end == End::Ended;
                assert!(!parkable || self.is_delimited());
                sent
            }
            (expected, carried) => panic!("{carried:?} instead of {expected:?}"),
        };
        self.was_understood(carried, sent, body, asked);
    }

    fn is_delimited(&self) -> bool {
        let Ok((sent, _)) = &self.last else {
            return false;
        };
        sent.persists && !matches!(sent.length, Length::Close | Length::Opaque)
    }

    /// A user that knows nothing but RFC 9112, and what it asked, reads what was written for it.
    fn was_understood(
        &self,
        carried: &Carried,
        sent: &rfc::response::Response,
        body: &Message,
        asked: &Asked,
    ) {
        let mut interims = Vec::new();
        let mut rest = carried.out.as_slice();
        let received = loop {
            let head = rfc::head_end(rest).expect("a whole head");
            let received = rfc::response::read(&rest[..head], asked, &request::UNLIMITED)
                .unwrap_or_else(|| panic!("unreadable: {}", rest[..head].escape_ascii()));
            rest = &rest[head..];
            if received.status >= 200 || received.status == 101 {
                break received;
            }
            interims.push(received.status);
        };
        // RFC 9110 §15.2: none for HTTP/1.0.
        match asked.version {
            Version::Http10 => assert!(interims.is_empty(), "{interims:?}"),
            Version::Http11 => assert_eq!(interims, self.interims),
        }
        assert_eq!(received.status, sent.status);

        // The connection that the user reads from ends cleanly only if all went well; and what it
        // has no other end than that is reset if not.
        let Ok(Final { moved, .. }) = &carried.last else {
            return;
        };
        let arrived = Message::of(framing(received.length), rest, &body::UNLIMITED, true);
        let complete = arrived.end == End::Ended && (moved.end == End::Ended || !is_reset(moved));
        assert_eq!(complete, body.end == End::Ended, "{arrived:?}");
        if complete {
            assert_eq!(
                arrived.payload.escape_ascii().to_string(),
                body.payload.escape_ascii().to_string()
            );
            assert_eq!(arrived.length, rest.len(), "bytes behind the answer");
        }
        let stays = carried.keep && received.persists;
        assert!(!stays || received.length != Length::Close);
    }
}

/// Whether the user's connection is reset at the end, because nothing else would show it.
fn is_reset(moved: &Moved) -> bool {
    moved.end != End::Ended && !moved.shows_truncation
}

fn framing(length: Length) -> Framing {
    match length {
        Length::Nothing => Framing::None,
        Length::Bytes(length) => Framing::Length(length),
        Length::Chunks => Framing::Chunked,
        Length::Close => Framing::UntilClose,
        Length::Opaque => Framing::Raw,
    }
}

/// What was made of an answer.
struct Carried {
    /// What the user gets.
    out: Vec<u8>,
    last: Result<Final, Failed>,
    keep: bool,
}

#[derive(Debug)]
struct Final {
    framing: Framing,
    coding: Coding,
    moved: Moved,
    reusable: bool,
    /// How much was taken of what the origin sent.
    at: usize,
}

/// Carries an answer as the client does: heads until the final one, then its body.
fn carry(
    mut wire: Wire<'_>,
    asked: &Asked,
    (limits, body_limits): &Limits,
    mut rooms: Cuts,
) -> Carried {
    let mut out = Vec::new();
    let mut keep = false;
    let mut gather = Gather::default();
    let mut scratch = vec![0; 1024];
    let last = loop {
        let head = match gather.read(&mut scratch, limits.bytes, |into| wire.read(into)) {
            Gathered::Head { bytes, head } => {
                wire.give_back(&bytes[head..]);
                bytes[..head].to_vec()
            }
            Gathered::Partial if wire.is_dry() => break Err(Failed::Waiting),
            Gathered::Partial => continue,
            Gathered::TooLong(_) => break Err(Failed::Bad),
            Gathered::Ended => break Err(Failed::Ended),
            Gathered::Failed(error) => panic!("the wire does not fail: {error}"),
        };
        let Ok(response) = Response::parse(&head, asked, limits) else {
            break Err(Failed::Bad);
        };
        if response.kind == Kind::Interim {
            if asked.version == Version::Http11 {
                response.write_to(&mut out, false, response::UNIX);
            }
            continue;
        }
        keep = response.keep();
        response.write_to(&mut out, keep, response::UNIX);
        let mut body: Body = response.body(*body_limits);
        let moved = transfer(&mut body, &mut wire, &mut rooms);
        out.extend_from_slice(&moved.out);
        break Ok(Final {
            framing: response.framing,
            coding: response.coding,
            moved,
            reusable: response.reusable.is_ok(),
            at: wire.at(),
        });
    };
    Carried { out, last, keep }
}
