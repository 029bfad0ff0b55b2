//! Users of an `http` or `forward` proxy, who ask its origin for one [`Exchange`] after the other.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt, io,
    io::ErrorKind,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use crate::{
    exchange::{Answer, Exchange, Last, Method, Mood, Request},
    message::{Body, Framing, Head},
    rng::Rng,
    sim::{Actor, FORWARD_PORT, HTTP_PORT, SERVER, USERS, address},
    world::{ActorId, EndId, Excuse, SERVER_HOST, Watcher, World},
};

/// How a user's connection ends, after the last response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Parting {
    /// The user closes.
    #[default]
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
    /// It leaves no connection while this is set.
    rests: Rc<Cell<bool>>,
    /// Before it sends a body that was to be asked for all the same.
    patience: Duration,
    done: bool,
}

#[derive(Default)]
struct Session {
    exchanges: Vec<Exchange>,
    parting: Parting,
    /// Requests written out, as far as they are under way.
    out: Vec<u8>,
    /// The rest of the last of them, until it is asked for; and when it is sent all the same.
    held: Vec<u8>,
    held_until: Duration,
    asked: usize,
    answered: usize,
    fin_sent: bool,
    /// 101 has come: what is sent and received is no HTTP any more.
    raw: bool,
    /// The other side has said all, of that.
    heard_out: bool,
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
    pub fn new(id: u64, mood: Mood, ledger: Rc<RefCell<Ledger>>, rng: &mut Rng) -> User {
        let partings = [
            Parting::Closes,
            Parting::HalfCloses,
            Parting::Asks,
            Parting::Old,
            Parting::Aborts,
            Parting::Spoils,
        ];
        let absolute = rng.chance(25);
        let port = if absolute { FORWARD_PORT } else { HTTP_PORT };
        let most_partings = match mood {
            Mood { storm: true, .. } => 6,
            Mood { rough: true, .. } => 5,
            _ => 4,
        };
        let mut exchange = id << 16;
        let (sessions, length) = if mood.bulk { (1, 1) } else { (3, 6) };
        let sessions = (0..rng.between(1, sessions)).map(|_| {
            let exchanges: Vec<Exchange> = (0..rng.between(1, length))
                .map(|_| {
                    exchange += 1;
                    Exchange::new(exchange, mood, absolute, rng)
                })
                .collect();
            let parting = rng.pick(&partings[..most_partings]);
            let switches = exchanges.last().map(|last| last.answer) == Some(Answer::Switches);
            Session {
                exchanges,
                // It has an end of its own.
                parting: match parting {
                    Parting::Aborts => parting,
                    _ if switches => Parting::Closes,
                    _ => parting,
                },
                ..Session::default()
            }
        });
        User {
            proxy: address(SERVER, port),
            sessions: sessions.collect(),
            session: 0,
            end: None,
            most: rng.pick(&[200, 5_000, 100_000]).max(mood.most / 100),
            depth: rng.pick(&[1, 1, 2, 10]),
            rough: mood.rough,
            ledger,
            rests: Rc::default(),
            pause_millis: rng.pick(if mood.storm {
                &[0, 50, 2_000, 12_000]
            } else {
                &[0, 50, 2_000]
            }),
            // In good weather a shorter one than any origin's or proxy's.
            patience: Duration::from_millis(match mood.storm {
                true => rng.pick(&[20, 1_000, 5_000]),
                false => rng.pick(&[20, 1_000]),
            }),
            done: false,
        }
    }

    /// One who keeps its one connection for as long as this is set.
    pub fn resting(mut self, rests: &Rc<Cell<bool>>) -> User {
        self.sessions.truncate(1);
        for session in &mut self.sessions {
            session.parting = Parting::Closes;
            session.exchanges.retain(Exchange::is_reusable);
        }
        User {
            rests: Rc::clone(rests),
            ..self
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
        let sent = match session.send(self.most, self.depth, self.patience, world, end) {
            Ok(sent) => sent,
            Err(error) => {
                assert!(rough, "{error}: {session:?}");
                if session.heard_out {
                    session.ended(&mut self.ledger.borrow_mut(), "a reset", excuse);
                    return Next::Over;
                }
                // There may be an answer all the same; in a storm there may as well have been no
                // listener.
                session.closing |= !excuse.errors;
                false
            }
        };
        if session.heard_out {
            if session.fin_sent {
                session.ended(&mut self.ledger.borrow_mut(), "FIN", excuse);
                return Next::Over;
            }
            return if sent { Next::More } else { Next::Wait };
        }
        let leaves = matches!(session.parting, Parting::Closes | Parting::Aborts);
        if session.is_over() && leaves && !self.rests.get() {
            return Next::Over;
        }
        let mut piece = vec![0; world.rng.between(1, self.most)];
        match world.read(end, &mut piece) {
            Ok(0) if session.raw && !session.fin_sent => {
                session.heard_out = true;
                Next::More
            }
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
        patience: Duration,
        world: &mut World,
        end: EndId,
    ) -> io::Result<bool> {
        if self.closing {
            return Ok(false);
        }
        if self.out.is_empty() && world.elapsed() >= self.held_until {
            self.release();
        }
        if self.out.is_empty() && self.may_ask(depth) {
            let is_last = self.asked + 1 == self.exchanges.len();
            let parting = is_last.then_some(self.parting);
            let last = Last {
                asks: parting == Some(Parting::Asks),
                old: parting == Some(Parting::Old),
                spoilt: parting == Some(Parting::Spoils),
            };
            let Request { bytes, held } = self.exchanges[self.asked].request(last, &mut world.rng);
            (self.out, self.held) = (bytes, held);
            self.held_until = world.elapsed() + patience;
            self.asked += 1;
        }
        if self.out.is_empty() {
            let last = self.asked == self.exchanges.len() && self.held.is_empty();
            let ends = self.raw || last && self.parting == Parting::HalfCloses;
            if ends && !self.fin_sent {
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

    /// Whether another request may follow what was sent.
    fn may_ask(&self, depth: usize) -> bool {
        let switches = |asked: &Exchange| asked.answer == Answer::Switches;
        self.held.is_empty()
            && self.asked < self.exchanges.len()
            && self.asked - self.answered < depth
            && !self.exchanges[self.answered..self.asked]
                .iter()
                .any(switches)
    }

    /// Sends what was held.
    fn release(&mut self) {
        self.out.append(&mut self.held);
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
        *self = Session {
            exchanges: std::mem::take(&mut self.exchanges),
            parting: self.parting,
            asked: self.answered,
            answered: self.answered,
            ..Session::default()
        };
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
        if self.asked == self.answered + 1 {
            // Whatever it says, nobody waits for the rest of the request any more.
            self.release();
        }
        let status = head.first.split(' ').nth(1);
        match status {
            Some("103") => {
                assert_eq!(exchange.answer, Answer::Early);
                return true;
            }
            Some("100") => {
                assert!(exchange.expects, "not asked for: {head:?}");
                return true;
            }
            Some("101") => {
                assert_eq!(exchange.answer, Answer::Switches);
                self.raw = true;
                self.out = exchange.said();
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
                Next::Wait => {
                    let session = &self.sessions[self.session];
                    if !session.held.is_empty() {
                        let left = session.held_until.saturating_sub(world.elapsed());
                        world.wake(me, left);
                    }
                    return;
                }
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
