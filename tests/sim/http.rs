//! Users of an `http` proxy, and what they ask its origin for.
//!
//! A request's path says all about the exchange: whose it is, what its body is and how it is to be
//! answered. Both sides check every byte of it, and the origin that no request comes twice.

use std::{
    cell::RefCell, collections::BTreeSet, fmt, io, io::ErrorKind, net::SocketAddr, rc::Rc,
    time::Duration,
};

use crate::{
    message::{Body, Framing, Head, head_end, write_body},
    rng::{Rng, pattern},
    sim::{Actor, USERS},
    world::{ActorId, EndId, Excuse, SERVER_HOST, Watcher, World},
};

/// One request and its response.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub id: u64,
    method: Method,
    /// Bytes of the request's body.
    pub request: usize,
    request_chunked: bool,
    pub answer: Answer,
    /// Bytes of the response's body.
    response: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Post,
}

/// How the origin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Length,
    Chunked,
    /// By closing.
    UntilClose,
    /// With a length, and `Connection: close` all the same.
    LengthAndClose,
    /// 204.
    Empty,
    /// 103, then with a length.
    Early,
    /// With a length, and closes without having said so.
    Silent,
    /// With a length, before it has read the request's body, of which it reads no more.
    Hasty,
    /// With a length, and a reset one byte before the end.
    Breaks,
    /// As that, and an end in order.
    Stops,
    /// With a length, and more than that.
    Exceeds,
    /// 401 of a scheme that authenticates connections.
    Ties,
    /// Not in HTTP.
    Babbles,
    /// By closing, before it has said anything; asked once more, with a length.
    Leaves,
    /// With a length, before it has read the request's body, and does not say that it closes.
    Rushes,
    /// With a length; and a while later it speaks again, without being asked.
    Chatters,
    /// With a length; and a while later it closes, without having said so.
    Tires,
}

const ANSWERS: [Answer; 17] = [
    Answer::Length,
    Answer::Chunked,
    Answer::UntilClose,
    Answer::LengthAndClose,
    Answer::Empty,
    Answer::Early,
    Answer::Silent,
    Answer::Hasty,
    Answer::Breaks,
    Answer::Stops,
    Answer::Exceeds,
    Answer::Ties,
    Answer::Babbles,
    Answer::Leaves,
    Answer::Rushes,
    Answer::Chatters,
    Answer::Tires,
];

/// Of these, what origins do in good weather.
const PLAIN: usize = 9;

/// How a user's connection ends, after the last response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// The user closes.
    Closes,
    /// The user has sent FIN right behind its last request.
    HalfCloses,
    /// The last request says `Connection: close`.
    Asks,
    /// The last request is HTTP/1.0.
    Old,
    /// The last request has a body that is no HTTP.
    Spoils,
    /// The user resets somewhere on the way, or else closes.
    Aborts,
}

/// What the users of one seed are like.
#[derive(Clone, Copy, Debug)]
pub struct Mood {
    /// Bytes of a body.
    pub most: usize,
    /// Users reset, and origins answer as they should not.
    pub rough: bool,
    /// Everybody asks once, for all that there is.
    pub bulk: bool,
    /// In a storm: users stand still and spoil their requests, origins answer anything.
    pub storm: bool,
}

/// What the origin has seen.
#[derive(Default)]
pub struct Ledger {
    pub connections: usize,
    /// Requests that reached it.
    pub seen: BTreeSet<u64>,
    /// Those that it has seen a second time.
    pub again: BTreeSet<u64>,
    /// Exchanges that ended with an error of the proxy's, because the origin had closed.
    pub lost: usize,
    /// Exchanges that were cut short as planned.
    pub broken: usize,
    /// Exchanges whose user has gone.
    pub abandoned: usize,
    /// Closes its idle connections when told so.
    pub closing: bool,
}

impl Ledger {
    /// How much did not go as it should.
    pub fn trouble(&self) -> (usize, usize, usize) {
        (self.lost, self.broken, self.abandoned)
    }
}

impl Exchange {
    fn new(id: u64, mood: Mood, rng: &mut Rng) -> Exchange {
        let method = rng.pick(&[Method::Get, Method::Get, Method::Head, Method::Post]);
        let size = |rng: &mut Rng| {
            if mood.bulk {
                mood.most
            } else {
                rng.size(mood.most)
            }
        };
        let request = match method {
            Method::Post => size(rng),
            Method::Get | Method::Head => 0,
        };
        let mut answer = match rng.between(0, 9) {
            0..=2 => Answer::Length,
            3..=5 => Answer::Chunked,
            6 | 7 if mood.storm => Answer::Tires,
            _ if mood.storm => rng.pick(&ANSWERS),
            _ if mood.rough => rng.pick(&ANSWERS[..PLAIN]),
            _ => rng.pick(&ANSWERS[..6]),
        };
        let response = match answer {
            Answer::Empty => 0,
            _ => size(rng),
        };
        // There must be something to be hasty with, and to break.
        let hastes = matches!(answer, Answer::Hasty | Answer::Rushes) && request > 0;
        let breaks = matches!(answer, Answer::Breaks | Answer::Stops)
            && response > 0
            && method != Method::Head;
        let needs = matches!(
            answer,
            Answer::Hasty | Answer::Rushes | Answer::Breaks | Answer::Stops
        );
        if needs && !hastes && !breaks {
            answer = Answer::Length;
        }
        Exchange {
            id,
            method,
            request,
            request_chunked: rng.chance(50),
            answer,
            response,
        }
    }

    /// Whether another request may follow on the origin's connection.
    pub fn is_reusable(&self) -> bool {
        matches!(
            self.answer,
            Answer::Length | Answer::Chunked | Answer::Empty | Answer::Early
        )
    }

    /// Whether the client may ask twice: the answer may be lost whole, and asking is repeatable.
    pub fn may_be_asked_again(&self, excuse: Excuse) -> bool {
        let loses = matches!(self.answer, Answer::Breaks | Answer::Leaves);
        (loses || excuse.errors) && self.method != Method::Post
    }

    /// What the origin answers to the second try.
    pub fn again(self) -> Exchange {
        let answer = match self.answer {
            Answer::Leaves => Answer::Length,
            answer => answer,
        };
        Exchange { answer, ..self }
    }

    /// Whether the origin says that it closes.
    fn says_close(&self) -> bool {
        let said = [Answer::UntilClose, Answer::LengthAndClose, Answer::Hasty];
        said.contains(&self.answer)
    }

    /// Whether any parked connection will do for it.
    pub fn is_repeatable(&self) -> bool {
        self.method != Method::Post
    }

    /// The request as its user sends it.
    fn request(&self, last: Option<Parting>, rng: &mut Rng) -> Vec<u8> {
        let old = last == Some(Parting::Old);
        let spoilt = last == Some(Parting::Spoils);
        let chunked = (self.request_chunked || spoilt) && !old;
        let mut sent = format!(
            "{} /{}/{}/{}/{} HTTP/1.{}\r\nHost: site.test\r\n",
            match self.method {
                Method::Get => "GET",
                Method::Head => "HEAD",
                Method::Post => "POST",
            },
            self.id,
            self.request,
            self.answer as u8,
            self.response,
            if old { 0 } else { 1 },
        )
        .into_bytes();
        if last == Some(Parting::Asks) {
            sent.extend_from_slice(b"Connection: close\r\n");
        }
        let mut body = vec![0; self.request];
        pattern(self.id, 0, &mut body);
        if self.method == Method::Post {
            write_body(&mut sent, &body, chunked, rng);
            if spoilt {
                let end = sent.len() - 5;
                sent.truncate(end.max(sent.len() / 2));
                sent.extend_from_slice(b"\r\nno size\r\n");
            }
        } else {
            sent.extend_from_slice(b"\r\n");
        }
        sent
    }

    /// What the origin makes of a request's head.
    pub fn parse(head: &Head) -> Exchange {
        let words: Vec<&str> = head.first.split(' ').collect();
        let numbers: Vec<u64> = words[1][1..]
            .split('/')
            .map(|number| number.parse().expect("a number of ours"))
            .collect();
        assert_eq!(head.field("host"), Some("site.test"), "{head:?}");
        Exchange {
            id: numbers[0],
            method: match words[0] {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                "POST" => Method::Post,
                other => panic!("method {other}"),
            },
            request: numbers[1] as usize,
            request_chunked: false,
            answer: ANSWERS[numbers[2] as usize],
            response: numbers[3] as usize,
        }
    }

    /// The response as the origin sends it.
    pub fn response(&self, rng: &mut Rng) -> Vec<u8> {
        let mut sent = Vec::new();
        if self.answer == Answer::Early {
            sent.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
        }
        let status = if self.answer == Answer::Empty {
            "204 No Content"
        } else if self.answer == Answer::Ties {
            "401 Unauthorized\r\nWWW-Authenticate: Negotiate"
        } else {
            "200 OK"
        };
        let head = format!("HTTP/1.1 {status}\r\nX-Owner: {}\r\n", self.id);
        sent.extend_from_slice(head.as_bytes());
        if self.says_close() {
            sent.extend_from_slice(b"Connection: close\r\n");
        }
        let mut body = vec![0; self.response];
        pattern(!self.id, 0, &mut body);
        // The line end of the last field may be the first half of the empty line.
        let framed = sent.len() - 2;
        match self.answer {
            Answer::Empty => sent.extend_from_slice(b"\r\n"),
            Answer::UntilClose => {
                sent.extend_from_slice(b"\r\n");
                sent.extend_from_slice(&body);
            }
            Answer::Chunked => write_body(&mut sent, &body, true, rng),
            _ => write_body(&mut sent, &body, false, rng),
        }
        match self.answer {
            Answer::Breaks | Answer::Stops => drop(sent.pop()),
            Answer::Babbles => sent = b"220 mail.test ready\r\n\r\n".to_vec(),
            Answer::Leaves => sent.clear(),
            _ => {}
        }
        if self.method == Method::Head {
            let end = sent.get(framed..).and_then(head_end);
            sent.truncate(end.map_or(sent.len(), |end| framed + end));
        }
        if self.answer == Answer::Exceeds {
            // No response: one that comes when the next request is on its way would be its answer, and
            // nobody in between could tell.
            sent.extend_from_slice(b"and more");
        }
        sent
    }
}

/// One user, who makes one connection after the other.
pub struct User {
    proxy: SocketAddr,
    sessions: Vec<Session>,
    session: usize,
    end: Option<EndId>,
    /// Of a piece.
    most: usize,
    /// Requests under way at a time.
    depth: usize,
    rough: bool,
    ledger: Rc<RefCell<Ledger>>,
    /// Pauses between sessions and, now and then, in between.
    pause_millis: usize,
    done: bool,
}

struct Session {
    exchanges: Vec<Exchange>,
    parting: Parting,
    /// Requests written out, as far as they are under way.
    out: Vec<u8>,
    asked: usize,
    answered: usize,
    fin_sent: bool,
    /// The server has said that it closes, or takes nothing more.
    closing: bool,
    input: Vec<u8>,
    body: Option<Body>,
}

/// What a step of a session came to.
enum Next {
    More,
    Wait,
    /// This connection is over.
    Over,
}

impl User {
    pub fn new(
        id: u64,
        proxy: SocketAddr,
        mood: Mood,
        ledger: Rc<RefCell<Ledger>>,
        rng: &mut Rng,
    ) -> User {
        let partings = [
            Parting::Closes,
            Parting::HalfCloses,
            Parting::Asks,
            Parting::Old,
            Parting::Aborts,
            Parting::Spoils,
        ];
        let most_partings = match mood {
            Mood { storm: true, .. } => 6,
            Mood { rough: true, .. } => 5,
            _ => 4,
        };
        let mut exchange = id << 16;
        let (sessions, length) = if mood.bulk { (1, 1) } else { (3, 6) };
        let sessions = (0..rng.between(1, sessions)).map(|_| Session {
            exchanges: (0..rng.between(1, length))
                .map(|_| {
                    exchange += 1;
                    Exchange::new(exchange, mood, rng)
                })
                .collect(),
            parting: rng.pick(&partings[..most_partings]),
            out: Vec::new(),
            asked: 0,
            answered: 0,
            fin_sent: false,
            closing: false,
            input: Vec::new(),
            body: None,
        });
        User {
            proxy,
            sessions: sessions.collect(),
            session: 0,
            end: None,
            most: rng.pick(&[200, 5_000, 100_000]).max(mood.most / 100),
            depth: rng.pick(&[1, 1, 2, 10]),
            rough: mood.rough,
            ledger,
            pause_millis: rng.pick(if mood.storm {
                &[0, 50, 2_000, 12_000]
            } else {
                &[0, 50, 2_000]
            }),
            done: false,
        }
    }

    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange> {
        self.sessions.iter().flat_map(|session| &session.exchanges)
    }

    /// One write and one read.
    fn turn(&mut self, world: &mut World, end: EndId) -> Next {
        let excuse = world.excuse(SERVER_HOST);
        let rough = self.rough || excuse.errors;
        let session = &mut self.sessions[self.session];
        if session.parting == Parting::Aborts && world.rng.chance(3) {
            let mut ledger = self.ledger.borrow_mut();
            ledger.abandoned += session.exchanges.len() - session.answered;
            session.exchanges.truncate(session.answered);
            world.abort(end);
            return Next::Over;
        }
        let sent = session.send(self.most, self.depth, world, end);
        let sent = sent.unwrap_or_else(|error| {
            assert!(rough, "{error}: {session:?}");
            // There may be an answer all the same; in a storm there may as well have been no listener.
            session.closing |= !excuse.errors;
            false
        });
        if session.is_over() && matches!(session.parting, Parting::Closes | Parting::Aborts) {
            return Next::Over;
        }
        let mut piece = vec![0; world.rng.between(1, self.most)];
        match world.read(end, &mut piece) {
            Ok(0) => {
                session.ended(&mut self.ledger.borrow_mut(), "FIN", excuse);
                Next::Over
            }
            Ok(length) => {
                session.input.extend_from_slice(&piece[..length]);
                while session.response(rough, excuse, &mut self.ledger.borrow_mut()) {}
                Next::More
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if sent {
                    Next::More
                } else {
                    Next::Wait
                }
            }
            Err(error) => {
                assert!(rough, "{error}: {session:?}");
                session.ended(&mut self.ledger.borrow_mut(), "a reset", excuse);
                Next::Over
            }
        }
    }
}

impl Session {
    fn is_over(&self) -> bool {
        self.answered == self.exchanges.len()
    }

    fn send(
        &mut self,
        most: usize,
        depth: usize,
        world: &mut World,
        end: EndId,
    ) -> io::Result<bool> {
        if self.closing {
            return Ok(false);
        }
        if self.out.is_empty()
            && self.asked < self.exchanges.len()
            && self.asked - self.answered < depth
        {
            let last = self.asked + 1 == self.exchanges.len();
            let parting = last.then_some(self.parting);
            self.out = self.exchanges[self.asked].request(parting, &mut world.rng);
            self.asked += 1;
        }
        if self.out.is_empty() {
            let last = self.asked == self.exchanges.len();
            if last && self.parting == Parting::HalfCloses && !self.fin_sent {
                self.fin_sent = true;
                world.shutdown(end)?;
            }
            return Ok(false);
        }
        let length = world.rng.between(1, most).min(self.out.len());
        match world.write(end, &self.out[..length]) {
            Ok(length) => {
                self.out.drain(..length);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The connection is over; what is not answered is asked on the next one.
    fn ended(&mut self, ledger: &mut Ledger, how: &str, excuse: Excuse) {
        if let Some(body) = &self.body {
            if body.framing == Framing::UntilClose && how == "FIN" && !excuse.cuts {
                self.response_ended();
            } else {
                let breaks = self.exchanges[self.answered].answer == Answer::Breaks;
                assert!(breaks || excuse.errors, "{how} within a response: {self:?}");
                ledger.broken += 1;
                self.answered += 1;
            }
        } else if !self.is_over() && !self.closing {
            // A HTTP/1.0 user knows of a cut by nothing else.
            let breaks = self.exchanges[self.answered].answer == Answer::Breaks;
            assert!(
                breaks || excuse.errors,
                "{how} instead of a response: {self:?}"
            );
            ledger.broken += 1;
            self.answered += 1;
        }
        if excuse.errors {
            // They may have arrived, and nobody asks twice for what may not be repeated.
            ledger.lost += self.asked.saturating_sub(self.answered);
            self.answered = self.answered.max(self.asked);
        }
        self.asked = self.answered;
        self.fin_sent = false;
        self.closing = false;
        self.out.clear();
        self.input.clear();
        self.body = None;
    }

    /// Takes a head or a body from the input; whether there may be more.
    fn response(&mut self, rough: bool, excuse: Excuse, ledger: &mut Ledger) -> bool {
        if let Some(body) = &mut self.body {
            let ended = body.feed(&mut self.input);
            if ended {
                self.response_ended();
            }
            return ended;
        }
        let Some(head) = Head::take(&mut self.input) else {
            return false;
        };
        assert!(self.answered < self.asked, "not asked for: {head:?}");
        let exchange = self.exchanges[self.answered];
        self.closing |= head.field("connection") == Some("close");
        let status = head.first.split(' ').nth(1);
        match status {
            Some("103") => {
                assert_eq!(exchange.answer, Answer::Early);
                return true;
            }
            Some("401") if exchange.answer == Answer::Ties => {}
            Some(status)
                if status == "502" && rough || excuse.errors && ERRORS.contains(&status) =>
            {
                // 408 may be an origin's: it spoke unasked, and its words have crossed with a request.
                let closes = self.closing || status == "408";
                assert!(closes, "an error of the proxy's own closes: {head:?}");
                ledger.lost += 1;
                self.answered += 1;
                if self.closing {
                    // Its text.
                    self.input.clear();
                }
                return !self.closing;
            }
            Some("204") => assert_eq!(exchange.answer, Answer::Empty),
            _ => assert_eq!(status, Some("200"), "{head:?}: {self:?}"),
        }
        let owner = exchange.id.to_string();
        assert_eq!(head.field("x-owner"), Some(&*owner), "another's response");
        let bodiless = exchange.method == Method::Head || exchange.answer == Answer::Empty;
        self.body = Some(Body::new(if bodiless {
            Framing::Length(0)
        } else {
            head.framing(Framing::UntilClose)
        }));
        true
    }

    fn response_ended(&mut self) {
        let exchange = self.exchanges[self.answered];
        let expected = match exchange.method {
            Method::Head => 0,
            Method::Get | Method::Post => exchange.response,
        };
        assert!(
            !matches!(exchange.answer, Answer::Breaks | Answer::Stops),
            "a cut looks whole: {self:?}"
        );
        if let Some(body) = self.body.take() {
            body.check(!exchange.id, expected, &exchange);
        }
        self.answered += 1;
    }
}

impl Actor for User {
    fn step(&mut self, world: &mut World, me: ActorId) {
        if self.session == self.sessions.len() {
            self.done = true;
            return;
        }
        let Some(end) = self.end else {
            let end = world.connect(self.proxy, USERS);
            world.watch(end, Watcher::Actor(me));
            self.end = Some(end);
            return;
        };
        if world.is_connecting(end) {
            return;
        }
        for _ in 0..PIECES {
            match self.turn(world, end) {
                Next::More => {}
                Next::Wait => return,
                Next::Over => {
                    world.close(end);
                    self.end = None;
                    self.session += usize::from(self.sessions[self.session].is_over());
                    let millis = world.rng.between(0, self.pause_millis) as u64;
                    return world.wake(me, Duration::from_millis(millis));
                }
            }
        }
        let pause = world.rng.chance(10);
        let pause = if pause { self.pause_millis * 1000 } else { 100 };
        let micros = world.rng.between(0, pause) as u64;
        world.wake(me, Duration::from_micros(micros));
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} asked, {} to send, {} answered, input {}, body {:?} of {:?}, then {:?}",
            self.asked,
            self.out.len(),
            self.answered,
            self.input.len(),
            self.body.as_ref().map(|body| body.bytes.len()),
            self.exchanges,
            self.parting,
        )
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user in session {} of ", self.session)?;
        f.debug_list().entries(&self.sessions).finish()
    }
}

/// What the proxy may answer itself while much goes wrong.
const ERRORS: [&str; 6] = ["400", "408", "413", "502", "503", "504"];

/// Pieces that a user moves before others have their turn.
const PIECES: usize = 4;
