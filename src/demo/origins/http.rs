//! The HTTP origin: a page that tells on which connection it was asked for, and bodies of any length.
//!
//! ```text
//!   Head --a whole head--> Body --its end--> Answer --written--> Head, or closed
//! ```
//!
//! The page is how the demo shows that connections are reused: the origin alone knows.

use std::{
    io::{self, ErrorKind::WouldBlock},
    time::Duration,
};

use super::{Next, Owner, SCRATCH, STEPS_PER_TURN_MAX};
use crate::{
    http::{
        Body, BodyError, Coding, Gather, Gathered, HeadLimits, Refused, Request, RequestTarget,
        Source, Step, Version, error_reply, phrase,
    },
    key::Key,
    reactor::{Reactor, net::Net},
};

/// One connection of the HTTP origin.
pub(super) struct Visit {
    /// Which connection this is, from 1.
    number: u64,
    /// Requests so far.
    requests: u64,
    stage: Stage,
}

enum Stage {
    /// A request is awaited.
    Head(Gather),
    /// Its body is read and dropped.
    Body(Body, Answer),
    Answer(Answer),
}

/// What is still to be written of an answer.
struct Answer {
    /// The head and a short body.
    text: Vec<u8>,
    written: usize,
    /// Bytes of [`FILLER`] that follow, counted down to 0, and how many there were.
    left: u64,
    length: u64,
    /// The connection stays open after it.
    keep: bool,
}

/// What one step came to.
enum Moved {
    /// Something was done, and there may be more to do.
    On,
    /// To be told to the event loop.
    Until(Next),
}

impl Visit {
    /// A connection on which nothing was asked yet.
    pub fn new(number: u64) -> Visit {
        Visit {
            number,
            requests: 0,
            stage: Stage::Head(Gather::default()),
        }
    }

    /// Reads, answers, as far as it goes.
    pub fn go_on<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        scratch: &mut [u8],
    ) -> Next {
        for _ in 0..STEPS_PER_TURN_MAX {
            let moved = match &mut self.stage {
                Stage::Head(_) => self.read_head(io, key, scratch),
                Stage::Body(..) => self.read_body(io, key, scratch),
                Stage::Answer(_) => self.write_answer(io, key),
            };
            if let Moved::Until(next) = moved {
                return next;
            }
        }
        Next::Again
    }

    /// Whether no request is under way.
    pub fn is_at_rest(&self) -> bool {
        matches!(&self.stage, Stage::Head(gather) if gather.held() == 0)
    }

    fn read_head<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        scratch: &mut [u8],
    ) -> Moved {
        let Stage::Head(gather) = &mut self.stage else {
            return Moved::On;
        };
        let limits = HeadLimits::default();
        let (bytes, head) =
            match gather.read(scratch, limits.bytes, |into: &mut [u8]| io.read(key, into)) {
                Gathered::Head { bytes, head } => (bytes, head),
                Gathered::Partial => return Moved::Until(Next::Wait),
                Gathered::TooLong(bytes) => {
                    let refused = Request::overlong(&bytes, &limits);
                    let refused = refused.unwrap_or(Refused {
                        status: 431,
                        reason: "request head too long",
                    });
                    self.stage = Stage::Answer(Answer::refused(refused, io.now().unix));
                    return Moved::On;
                }
                Gathered::Ended => return Moved::Until(Next::Close),
                Gathered::Failed(_) => return Moved::Until(Next::Abort),
            };
        io.unread(key, &bytes[head..]);
        self.requests += 1;
        self.stage = match Request::parse(&bytes[..head], &limits) {
            Ok(request) => {
                let body = Body::new(request.framing, Coding::Plain);
                let answer = self.answer(&request, io.now().unix);
                if request.expects_continue && !body.is_ended() {
                    // There is room for a line, or nobody reads.
                    if !matches!(io.write(key, CONTINUE), Ok(n) if n == CONTINUE.len()) {
                        return Moved::Until(Next::Abort);
                    }
                }
                match request.target {
                    // What follows would be a tunnel.
                    RequestTarget::Authority(_) => Stage::Answer(answer),
                    _ => Stage::Body(body, answer),
                }
            }
            Err(refused) => Stage::Answer(Answer::refused(refused, io.now().unix)),
        };
        Moved::On
    }

    fn answer(&self, request: &Request<'_>, unix: Duration) -> Answer {
        let is_head = request.is_head();
        // What HTTP/1.0 calls keep-alive takes a field that nothing here needs.
        let keep = request.keep_alive && request.version == Version::Http11;
        let error = |status, reason| Answer::error(status, reason, keep, is_head, unix);
        let (RequestTarget::Origin(path)
        | RequestTarget::Absolute {
            path_and_query: path,
            ..
        }) = request.target
        else {
            return error(501, "this is an origin, not a proxy");
        };
        if !matches!(request.method, "GET" | "HEAD" | "POST") {
            return error(501, "GET, HEAD and POST are understood");
        }
        let path = path.split('?').next().unwrap_or(path);
        match path.strip_prefix("/bytes/") {
            Some(number) => match number.parse() {
                Ok(length) if length <= BYTES_MAX => Answer::bytes(length, keep, is_head),
                _ => error(404, "/bytes/N: N is a number up to 10000000000"),
            },
            None if path == "/" || path.is_empty() => {
                let Visit {
                    number, requests, ..
                } = self;
                let page =
                    format!("Hello from the origin: request {requests} on connection {number}.\n");
                Answer::page(&page, keep, is_head)
            }
            None => error(404, "there are / and /bytes/N"),
        }
    }

    fn read_body<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        scratch: &mut [u8],
    ) -> Moved {
        let Stage::Body(body, _) = &mut self.stage else {
            return Moved::On;
        };
        match body.transfer(scratch, &mut Connected { io, key }) {
            Ok(Step::Moved(_)) => {}
            Ok(Step::Ended { .. }) => {
                let awaited = Stage::Head(Gather::default());
                if let Stage::Body(_, answer) = std::mem::replace(&mut self.stage, awaited) {
                    self.stage = Stage::Answer(answer);
                }
            }
            Err(BodyError::Blocked) => return Moved::Until(Next::Wait),
            Err(BodyError::Malformed(reason)) => {
                let refused = Refused {
                    status: 400,
                    reason,
                };
                self.stage = Stage::Answer(Answer::refused(refused, io.now().unix));
            }
            Err(BodyError::Truncated | BodyError::Io(_)) => return Moved::Until(Next::Abort),
        }
        Moved::On
    }

    fn write_answer<N: Net>(&mut self, io: &mut Reactor<N, Owner>, key: Key) -> Moved {
        let Stage::Answer(answer) = &mut self.stage else {
            return Moved::On;
        };
        let rest = answer.rest();
        if !rest.is_empty() {
            match io.write(key, rest) {
                Ok(written) => answer.advance(written),
                Err(error) if error.kind() == WouldBlock => return Moved::Until(Next::Wait),
                Err(_) => return Moved::Until(Next::Abort),
            }
        } else if answer.keep {
            self.stage = Stage::Head(Gather::default());
        } else {
            return Moved::Until(Next::Linger);
        }
        Moved::On
    }
}

impl Answer {
    fn page(page: &str, keep: bool, head_only: bool) -> Answer {
        let mut answer = Answer::head(page.len() as u64, keep);
        if !head_only {
            answer.text.extend_from_slice(page.as_bytes());
        }
        answer
    }

    fn bytes(length: u64, keep: bool, head_only: bool) -> Answer {
        let mut answer = Answer::head(length, keep);
        if !head_only {
            answer.length = length;
            answer.left = length;
        }
        answer
    }

    fn head(length: u64, keep: bool) -> Answer {
        let connection = if keep { "" } else { "Connection: close\r\n" };
        let head = format!(
            "HTTP/1.1 200 {}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n\
             {connection}\r\n",
            phrase(200)
        );
        Answer::of(head.into_bytes(), keep)
    }

    fn error(status: u16, reason: &str, keep: bool, head_only: bool, unix: Duration) -> Answer {
        let mut text = Vec::new();
        error_reply(&mut text, status, reason, !keep, head_only, unix);
        Answer::of(text, keep)
    }

    /// For a request after which nothing can be understood.
    fn refused(Refused { status, reason }: Refused, unix: Duration) -> Answer {
        Answer::error(status, reason, false, false, unix)
    }

    fn of(text: Vec<u8>, keep: bool) -> Answer {
        Answer {
            text,
            written: 0,
            left: 0,
            length: 0,
            keep,
        }
    }

    /// What comes next; empty at the end.
    fn rest(&self) -> &[u8] {
        if self.written < self.text.len() {
            return &self.text[self.written..];
        }
        // The pattern goes on where the last write ended.
        let start = ((self.length - self.left) % LINE.len() as u64) as usize;
        let room = FILLER.len() - start;
        let length = self.left.min(room as u64) as usize;
        &FILLER[start..start + length]
    }

    fn advance(&mut self, written: usize) {
        if self.written < self.text.len() {
            self.written += written;
        } else {
            self.left -= written as u64;
        }
    }
}

/// One socket of the event loop, as a source of a body.
struct Connected<'a, N: Net> {
    io: &'a mut Reactor<N, Owner>,
    key: Key,
}

impl<N: Net> Source for Connected<'_, N> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.io.read(self.key, into)
    }

    fn unread(&mut self, surplus: &[u8]) {
        self.io.unread(self.key, surplus);
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// 10 GB: minutes of measuring at the speed of any network that is tried, and not for ever.
const BYTES_MAX: u64 = 10_000_000_000;

/// What [`FILLER`] repeats, so that whoever looks sees where they are.
const LINE: &[u8; 16] = b"0123456789abcde\n";

/// What long bodies are made of.
static FILLER: [u8; SCRATCH] = {
    let mut filler = [0; SCRATCH];
    let mut at = 0;
    while at < filler.len() {
        filler[at] = LINE[at % LINE.len()];
        at += 1;
    }
    filler
};
