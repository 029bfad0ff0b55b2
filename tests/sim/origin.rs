//! The HTTP origin: it answers what the paths of [`crate::exchange`] ask for, and sees that no request
//! comes twice.

use std::{
    cell::RefCell,
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use crate::{
    exchange::{Answer, Exchange},
    http::Ledger,
    message::{Body, Framing, Head},
    rng::Rng,
    sim::Actor,
    world::{ActorId, CLIENT_HOST, EndId, Watcher, World},
};

/// Answers what the paths ask for.
pub struct Origin {
    address: SocketAddr,
    connections: Vec<Connection>,
    ledger: Rc<RefCell<Ledger>>,
    /// Of a piece.
    most: usize,
    /// Before an answer.
    think_millis: usize,
}

struct Connection {
    end: EndId,
    input: Vec<u8>,
    asked: Option<(Exchange, Body)>,
    /// It has switched: what comes is the user's word until it ends.
    raw: bool,
    /// Not before this is anything answered.
    thinks_until: Duration,
    out: Vec<u8>,
    after: After,
    done: bool,
}

/// What follows when all is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Next,
    Close,
    /// FIN, or the user's first; the close follows the later of them.
    Hears {
        first: bool,
    },
    /// FIN, and the close when that has arrived: what comes meanwhile is not read.
    Deaf,
    Reset,
    /// If nobody asks before then, it speaks once more and closes.
    Speaks(Duration),
    /// If nobody asks before then, it closes.
    Tires(Duration),
}

impl Origin {
    pub fn new(
        address: SocketAddr,
        me: ActorId,
        ledger: Rc<RefCell<Ledger>>,
        world: &mut World,
    ) -> Origin {
        world
            .listen(address, Watcher::Actor(me))
            .expect("the origin's address is free");
        Origin {
            address,
            connections: Vec::new(),
            ledger,
            most: world.rng.pick(&[500, 100_000]),
            think_millis: world.rng.pick(&[0, 10, 500]),
        }
    }

    /// One that may think for longer than anybody waits.
    pub fn weathered(self, rng: &mut Rng) -> Origin {
        Origin {
            think_millis: rng.pick(&[10, 500, 20_000]),
            ..self
        }
    }
}

impl Connection {
    /// One write or one read; whether anything moved.
    fn step(&mut self, most: usize, world: &mut World, ledger: &mut Ledger) -> bool {
        if !self.out.is_empty() {
            if world.elapsed() < self.thinks_until {
                return false;
            }
            let length = world.rng.between(1, most).min(self.out.len());
            match world.write(self.end, &self.out[..length]) {
                Ok(length) => {
                    self.out.drain(..length);
                    if self.out.is_empty() {
                        self.sent(world);
                    }
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => return self.failed(&error, world, ledger),
            }
        }
        if let After::Tires(at) = self.after
            && self.input.is_empty()
            && world.elapsed() >= at
        {
            self.done = true;
            return true;
        }
        if let After::Speaks(at) = self.after
            && self.input.is_empty()
            && world.elapsed() >= at
        {
            self.after = After::Close;
            self.out = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n".to_vec();
            return true;
        }
        if self.after == After::Deaf {
            self.done = world.is_delivered(self.end);
            return true;
        }
        let mut piece = vec![0; world.rng.between(1, most)];
        match world.read(self.end, &mut piece) {
            Ok(0) if self.raw => {
                let excused = world.excuse(CLIENT_HOST).cuts;
                if let Some((exchange, body)) = &self.asked {
                    let whole = body.bytes.len() == exchange.request;
                    assert!(whole || excused, "an end before the end: {self:?}");
                    body.check(exchange.id, body.bytes.len(), exchange);
                }
                self.done = true;
            }
            Ok(0) => {
                let idle = self.input.is_empty() && self.asked.is_none();
                let excused = world.excuse(CLIENT_HOST).cuts;
                assert!(idle || excused, "an end within a request: {self:?}");
                self.done = true;
            }
            Ok(length) => {
                self.input.extend_from_slice(&piece[..length]);
                self.request(world, ledger);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let idle = self.input.is_empty() && self.asked.is_none();
                self.done = ledger.closing && idle;
                return false;
            }
            Err(error) => return self.failed(&error, world, ledger),
        }
        true
    }

    fn sent(&mut self, world: &mut World) {
        match self.after {
            After::Next | After::Speaks(_) | After::Tires(_) => {}
            After::Close => self.done = true,
            After::Hears { first } => {
                self.done = first && world.shutdown(self.end).is_err();
            }
            After::Deaf => self.done = world.shutdown(self.end).is_err(),
            After::Reset => {
                world.abort(self.end);
                self.done = true;
            }
        }
    }

    /// The client resets where a user has; it has nothing else to reset for.
    fn failed(&mut self, error: &io::Error, world: &World, ledger: &Ledger) -> bool {
        let excused = world.excuse(CLIENT_HOST).errors;
        assert!(ledger.abandoned > 0 || excused, "{error}: {self:?}");
        self.done = true;
        true
    }

    fn request(&mut self, world: &mut World, ledger: &mut Ledger) {
        if self.raw {
            if let Some((_, body)) = &mut self.asked {
                body.feed(&mut self.input);
            }
            return;
        }
        if self.asked.is_none() {
            let Some(head) = Head::take(&mut self.input) else {
                return;
            };
            let body = Body::new(head.framing(Framing::Length(0)));
            let exchange = Exchange::parse(&head);
            if exchange.expects && world.rng.chance(80) {
                self.out = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
                world.tally.count(CONTINUES);
            }
            self.asked = Some((exchange, body));
        }
        let Some((exchange, body)) = &mut self.asked else {
            return;
        };
        let (mut exchange, hasty) = (
            *exchange,
            matches!(exchange.answer, Answer::Hasty | Answer::Rushes),
        );
        if body.feed(&mut self.input) || hasty {
            if !hasty {
                assert!(self.input.is_empty(), "more than one request: {exchange:?}");
                let length = match exchange.answer {
                    Answer::Switches => 0,
                    _ => exchange.request,
                };
                body.check(exchange.id, length, &exchange);
            }
            self.asked = None;
            let first = ledger.seen.insert(exchange.id);
            // A reset may have destroyed all of the answer; then, and of a request that may be
            // repeated, and on a connection that had served before, there is one second try.
            let again = !first
                && exchange.may_be_asked_again(world.excuse(CLIENT_HOST))
                && ledger.again.insert(exchange.id);
            assert!(first || again, "asked twice: {exchange:?}");
            if again {
                exchange = exchange.again();
            }
            self.after = match exchange.answer {
                Answer::Hasty | Answer::Rushes => After::Deaf,
                Answer::Chatters => After::Speaks(world.elapsed() + CHATTERS_AFTER),
                Answer::Tires => {
                    let millis = world.rng.pick(&[1, 10, 50, 300, 2_000]);
                    After::Tires(world.elapsed() + Duration::from_millis(millis))
                }
                Answer::Breaks => After::Reset,
                Answer::Switches => {
                    self.raw = true;
                    self.asked = Some((exchange, Body::new(Framing::UntilClose)));
                    After::Hears {
                        first: world.rng.chance(50),
                    }
                }
                Answer::Exceeds | Answer::Ties => After::Next,
                _ if exchange.is_reusable() => After::Next,
                _ => After::Close,
            };
            world.tally.count(&tallied(exchange.answer));
            self.out = exchange.response(&mut world.rng);
            self.done = self.out.is_empty();
        }
    }
}

impl Actor for Origin {
    fn step(&mut self, world: &mut World, me: ActorId) {
        let mut ledger = self.ledger.borrow_mut();
        while let Ok((end, _)) = world.accept(self.address) {
            world.watch(end, Watcher::Actor(me));
            ledger.connections += 1;
            self.connections.push(Connection {
                end,
                input: Vec::new(),
                asked: None,
                raw: false,
                thinks_until: Duration::ZERO,
                out: Vec::new(),
                after: After::Next,
                done: false,
            });
        }
        let mut again = false;
        for connection in &mut self.connections {
            let idle = connection.out.is_empty();
            again |= connection.step(self.most, world, &mut ledger);
            if idle && !connection.out.is_empty() {
                // Too long for anybody only while nobody counts on it.
                let most = match world.rages() {
                    true => self.think_millis,
                    false => self.think_millis.min(500),
                };
                let millis = world.rng.between(0, most) as u64;
                let after = Duration::from_millis(millis);
                connection.thinks_until = world.elapsed() + after;
                world.wake(me, after);
            }
            if let After::Speaks(at) | After::Tires(at) = connection.after
                && at > world.elapsed()
            {
                world.wake(me, at.saturating_sub(world.elapsed()));
            }
            if connection.done {
                world.close(connection.end);
            }
        }
        self.connections.retain(|connection| !connection.done);
        if again {
            world.wake(me, Duration::from_micros(50));
        }
    }

    fn is_done(&self) -> bool {
        self.connections
            .iter()
            .all(|connection| connection.asked.is_none() && connection.out.is_empty())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection asked for {:?}, {} to send",
            self.asked.as_ref().map(|(exchange, _)| exchange),
            self.out.len()
        )
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "origin with {:?}", self.connections)
    }
}

/// The name under which an answer is counted.
pub fn tallied(answer: Answer) -> String {
    format!("answered: {answer:?}")
}

/// The same of a word that lets a user go on.
pub const CONTINUES: &str = "answered: 100";

/// Long enough for its connection to be parked, and mostly for nobody to have taken it again.
const CHATTERS_AFTER: Duration = Duration::from_millis(400);
