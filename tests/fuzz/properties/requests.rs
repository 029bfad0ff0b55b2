//! A user's whole connection: requests with their bodies, one behind the other. For every way to cut
//! it the same requests are found where the RFC finds them, and an origin that reads what is written
//! for it finds the same ones again, no more and no fewer.

use siding::http::{
    BodyLimits, Coding, Edits, Framing, Gather, Gathered, HeadLimits, Request, Source as _,
};

use super::{
    body::{self, End, Message, Moved, transfer},
    request,
    rfc::{self, Length},
    wire::{Cuts, Wire, knobs},
};

/// Knobs: limits, the rooms, and the cuts. The rest is what the user sends.
pub fn check(input: &[u8]) {
    let Some(([limits, rooms, seed], bytes)) = knobs(input) else {
        return;
    };
    let limits = (request::limits(*limits), body::limits(limits >> 2));
    let closes = rooms & 1 == 0;
    let expected = Connection::of(bytes, &limits, closes);
    for cuts in Cuts::each(*seed) {
        let wire = Wire::new(bytes, cuts, closes);
        let served = serve(wire, &limits, Cuts::seeded(*rooms));
        expected.was_served(&served);
    }
}

/// Of heads, and of bodies.
type Limits = (HeadLimits, BodyLimits);

/// Why there are no more requests on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Last {
    /// The user closed, or may do so, between two requests or within a head.
    Ended,
    Waiting,
    /// With one of these statuses.
    Refused(Vec<u16>),
    /// The last request's body did not end.
    Body(End),
    /// It was asked that the connection closes, or that HTTP ends on it, or for what only we answer.
    Asked,
}

/// What the RFC reads in a user's connection.
struct Connection {
    requests: Vec<(rfc::request::Request, Message)>,
    last: Last,
    /// Whether it may be seen first that the user closed.
    may_end: bool,
    /// Where the last request ended that did.
    end: usize,
}

impl Connection {
    fn of(bytes: &[u8], (limits, body_limits): &Limits, closes: bool) -> Connection {
        let mut requests = Vec::new();
        let mut end = 0;
        let mut may_end = false;
        let last = loop {
            let rest = &bytes[end..];
            let head = rfc::head_end(rest);
            let Some(head) = head.filter(|head| *head <= limits.bytes) else {
                break match (head, rest.len() < limits.bytes) {
                    (None, true) if rfc::request::is_overlong(rest, limits) => {
                        may_end = closes;
                        Last::Refused(vec![414])
                    }
                    (None, true) if closes => Last::Ended,
                    (None, true) => Last::Waiting,
                    _ => Last::Refused(vec![414, 431]),
                };
            };
            let request = match rfc::request::read(&rest[..head], limits) {
                Ok(request) => request,
                Err(broken) => break Last::Refused(broken.into_iter().collect()),
            };
            if request.length == Length::Opaque || request.max_forwards == Some(0) {
                end += head;
                break Last::Asked;
            }
            let framing = match request.length {
                Length::Nothing => Framing::None,
                Length::Bytes(length) => Framing::Length(length),
                Length::Chunks => Framing::Chunked,
                Length::Close | Length::Opaque => unreachable!("RFC 9112 §6.3: no request's"),
            };
            let body = Message::of(framing, &rest[head..], body_limits, closes);
            let (ended, length) = (body.end, body.length);
            let goes_on = request.persists && !request.upgrade;
            requests.push((request, body));
            if ended != End::Ended {
                break Last::Body(ended);
            }
            end += head + length;
            if !goes_on {
                break Last::Asked;
            }
        };
        Connection {
            requests,
            last,
            may_end,
            end,
        }
    }

    fn was_served(&self, served: &Served) {
        match (&self.last, &served.last) {
            (Last::Refused(statuses), Last::Refused(status)) => {
                assert!(statuses.contains(&status[0]), "{status:?} of {statuses:?}");
            }
            (_, Last::Ended) if self.may_end => {}
            (expected, last) => assert_eq!(last, expected),
        }
        assert_eq!(served.bodies.len(), self.requests.len());
        if matches!(self.last, Last::Asked) {
            assert_eq!(served.at, self.end, "it took more than the last request");
        }
        for ((request, body), (framing, moved)) in self.requests.iter().zip(&served.bodies) {
            assert_eq!(request::length(*framing), request.length);
            body.reached(moved, *framing, Coding::Chunked);
        }
        self.was_understood(&served.out);
    }

    /// An origin that knows nothing but RFC 9112 reads `out` from its start.
    fn was_understood(&self, out: &[u8]) {
        let mut rest = out;
        for (sent, body) in &self.requests {
            let head = rfc::head_end(rest).expect("a whole head");
            let request =
                rfc::request::read(&rest[..head], &request::UNLIMITED).expect("our own head");
            assert_eq!(request.method, sent.method);
            assert_eq!(request.target, sent.target);
            assert_eq!(request.length, sent.length);
            let host = sent.authority.as_ref().or(sent.host.as_ref());
            assert_eq!(
                request.host.as_deref(),
                host.map_or(Some(TARGET), |host| Some(host))
            );
            rest = &rest[head..];
            if body.end != End::Ended {
                // The rest is a part of its body: there is no head for the origin to find.
                let framing = match request.length {
                    Length::Bytes(length) => Framing::Length(length),
                    Length::Chunks => Framing::Chunked,
                    length => panic!("{length:?} always ends"),
                };
                let arrived = Message::of(framing, rest, &body::UNLIMITED, true);
                assert_eq!(arrived.end, End::Truncated);
                return;
            }
            let arrived = match request.length {
                Length::Nothing => 0,
                Length::Bytes(length) => usize::try_from(length).expect("it was there"),
                Length::Chunks => {
                    Message::of(Framing::Chunked, rest, &body::UNLIMITED, true).length
                }
                length => panic!("{length:?} in a request"),
            };
            rest = &rest[arrived..];
        }
        assert!(
            rest.is_empty(),
            "a request that was not sent: {}",
            rest.escape_ascii()
        );
    }
}

/// What is named to the origin where the user named nothing.
const TARGET: &str = "target.example:81";

/// What was made of a connection.
struct Served {
    /// What the origin gets.
    out: Vec<u8>,
    bodies: Vec<(Framing, Moved)>,
    last: Last,
    /// How much was taken of what the user sent.
    at: usize,
}

/// Serves a connection as the server does: gathers a head, leaves what follows in place, moves the
/// body, and starts again.
fn serve(mut wire: Wire<'_>, (limits, body_limits): &Limits, mut rooms: Cuts) -> Served {
    let mut out = Vec::new();
    let mut bodies = Vec::new();
    let mut gather = Gather::default();
    let mut scratch = vec![0; 1024];
    let last = loop {
        let head = match gather.read(&mut scratch, limits.bytes, |into| wire.read(into)) {
            Gathered::Head { bytes, head } => {
                wire.give_back(&bytes[head..]);
                bytes[..head].to_vec()
            }
            Gathered::Partial => {
                if let Some(refused) = Request::overlong(gather.bytes(), limits) {
                    break Last::Refused(vec![refused.status]);
                }
                if wire.is_dry() {
                    break Last::Waiting;
                }
                continue;
            }
            Gathered::TooLong(bytes) => {
                let refused = Request::overlong(&bytes, limits).expect("a reason");
                break Last::Refused(vec![refused.status]);
            }
            Gathered::Ended => break Last::Ended,
            Gathered::Failed(error) => panic!("the wire does not fail: {error}"),
        };
        let request = match Request::parse(&head, limits) {
            Ok(request) => request,
            Err(refused) => break Last::Refused(vec![refused.status]),
        };
        if request.framing == Framing::Raw || request.max_forwards == Some(0) {
            break Last::Asked;
        }
        let edits = Edits {
            host: request.asked_host().is_none().then_some(TARGET),
            forwarded: None,
        };
        request.write_to(&mut out, &edits);
        let moved = transfer(&mut request.body(*body_limits), &mut wire, &mut rooms);
        out.extend_from_slice(&moved.out);
        let end = moved.end;
        bodies.push((request.framing, moved));
        if end != End::Ended {
            break Last::Body(end);
        }
        if !request.keep_alive || request.upgrade {
            break Last::Asked;
        }
    };
    Served {
        out,
        bodies,
        last,
        at: wire.at(),
    }
}
