//! Users of a raw proxy, or of one that forwards (`CONNECT`), and the origin that echoes what they send.
//!
//! Each stream begins with a header that tells the origin whose it is and how it is to end; all that
//! follows is the user's own [`pattern`], so a byte that is lost, doubled or another user's shows at
//! once, wherever it was put.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    io::ErrorKind,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use crate::{
    message::Head,
    rng::{Rng, pattern},
    sim::{Actor, USERS},
    world::{ActorId, CLIENT_HOST, EndId, SERVER_HOST, Watcher, World},
};

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// The user sends FIN, the origin answers with the rest and its own.
    UserFirst,
    /// The origin sends FIN; what the user still sends must arrive.
    OriginFirst,
    /// The user resets in the middle: the origin must not take it for an end.
    UserAborts,
    /// The origin does.
    OriginAborts,
    /// There is no origin: nothing comes but an end.
    Refused,
    /// The origin closes when it has sent all, without reading what is extra: what it sent must
    /// arrive all the same.
    OriginCloses,
    /// The user closes when it has sent all, without reading.
    UserCloses,
}

impl Ending {
    /// Whether the origin is sure to see it.
    pub fn is_certain(self) -> bool {
        !matches!(self, Ending::UserAborts | Ending::Refused)
    }

    /// Whether the user is to see a reset.
    fn is_reset(self) -> bool {
        matches!(self, Ending::OriginAborts | Ending::Refused)
    }
}

/// One stream, as its user and the origin know it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    user: u64,
    pub ending: Ending,
    /// Bytes that are echoed, the header among them.
    echoed: usize,
    /// Bytes that the user sends beyond those.
    extra: usize,
}

/// How the origin saw the streams end, by user.
pub type Ledger = Rc<RefCell<BTreeMap<u64, Ending>>>;

impl Plan {
    pub fn new(user: u64, size: usize, bulk: bool, rng: &mut Rng) -> Plan {
        let ending = match rng.between(0, 16) {
            0..=3 => Ending::UserFirst,
            4..=7 => Ending::OriginFirst,
            8 | 9 => Ending::UserAborts,
            10 | 11 => Ending::OriginAborts,
            12 => Ending::Refused,
            13 | 14 => Ending::OriginCloses,
            _ => Ending::UserCloses,
        };
        let (echoed, extra) = match ending {
            Ending::UserFirst | Ending::UserCloses => (size, 0),
            // All of it one way: no echo wakes a side that should have been awake.
            Ending::OriginFirst if bulk => (0, size),
            _ => (size, rng.size(size / 4 + 10_000)),
        };
        Plan {
            user,
            ending,
            echoed: HEADER + echoed,
            extra,
        }
    }

    /// A stream that its user ends when it likes.
    pub fn open_ended(user: u64, size: usize) -> Plan {
        Plan {
            user,
            ending: Ending::UserFirst,
            echoed: HEADER + size,
            extra: 0,
        }
    }

    /// More than any window, and ended by its user.
    pub fn long(user: u64, rng: &mut Rng) -> Plan {
        Plan {
            user,
            ending: Ending::UserFirst,
            echoed: HEADER + rng.between(20_000, 60_000),
            extra: 0,
        }
    }

    fn total(&self) -> usize {
        self.echoed + self.extra
    }

    /// What the user sends from `offset` on.
    fn bytes(&self, offset: usize, into: &mut [u8]) {
        pattern(self.user, offset, into);
        let header = self.header();
        for (place, byte) in into.iter_mut().zip(header.iter().skip(offset)) {
            *place = *byte;
        }
    }

    fn check(&self, offset: usize, bytes: &[u8], who: &str) {
        let mut expected = vec![0; bytes.len()];
        self.bytes(offset, &mut expected);
        assert!(
            expected == bytes,
            "{who}: wrong bytes within {} at {offset} of {self:?}",
            bytes.len()
        );
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = self.ending as u8;
        header[1..9].copy_from_slice(&self.user.to_le_bytes());
        header[9..17].copy_from_slice(&(self.echoed as u64).to_le_bytes());
        header[17..].copy_from_slice(&(self.extra as u64).to_le_bytes());
        header
    }

    fn parse(header: &[u8]) -> Plan {
        let number = |at| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let endings = [
            Ending::UserFirst,
            Ending::OriginFirst,
            Ending::UserAborts,
            Ending::OriginAborts,
            Ending::Refused,
            Ending::OriginCloses,
            Ending::UserCloses,
        ];
        Plan {
            user: number(1),
            ending: endings[usize::from(header[0])],
            echoed: number(9) as usize,
            extra: number(17) as usize,
        }
    }
}

/// One user with one stream.
pub struct User {
    plan: Plan,
    proxy: SocketAddr,
    end: Option<EndId>,
    /// What is sent before the stream, and the head that answers it, while they are not complete.
    asks: Vec<u8>,
    answer: Option<Vec<u8>>,
    /// Begins the stream before it is answered.
    hasty: bool,
    sent: usize,
    received: usize,
    fin_sent: bool,
    ended: bool,
    write_failed: bool,
    /// Of a piece.
    most: usize,
    /// Sends what is extra before it has seen the origin's FIN.
    eager: bool,
    /// Where it resets.
    aborts_at: usize,
    /// Now and then it does nothing for a while.
    idle_percent: usize,
    idle_millis: usize,
    reads_from: Duration,
    /// It ends nothing while this is set.
    rests: Rc<Cell<bool>>,
    done: bool,
}

impl User {
    /// A user who, in a storm, may stand still for long.
    pub fn weathered(self, rng: &mut Rng) -> User {
        User {
            idle_millis: rng.pick(&[300, 3_000, 15_000]),
            ..self
        }
    }

    /// A user who asks a forward proxy for the stream.
    pub fn connecting(self, target: &str, rng: &mut Rng) -> User {
        let hasty = matches!(self.plan.ending, Ending::UserFirst | Ending::OriginFirst);
        User {
            asks: format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes(),
            answer: Some(Vec::new()),
            hasty: hasty && rng.chance(30),
            ..self
        }
    }

    /// A user who, once all is said and heard, does nothing more for as long as this is set.
    pub fn resting(self, rests: &Rc<Cell<bool>>) -> User {
        User {
            rests: Rc::clone(rests),
            ..self
        }
    }

    /// A user who reads nothing before then.
    pub fn deaf_until(self, reads_from: Duration) -> User {
        User {
            idle_percent: 0,
            reads_from,
            ..self
        }
    }

    pub fn new(plan: Plan, proxy: SocketAddr, rng: &mut Rng) -> User {
        let least = plan.total() / 100;
        User {
            plan,
            proxy,
            end: None,
            asks: Vec::new(),
            answer: None,
            hasty: false,
            sent: 0,
            received: 0,
            fin_sent: false,
            ended: false,
            write_failed: false,
            most: least + rng.pick(&[1, 50, 2_000, 100_000]),
            eager: rng.chance(50),
            aborts_at: rng.between(0, plan.total()),
            idle_percent: rng.pick(&[0, 0, 20]),
            idle_millis: 300,
            reads_from: Duration::ZERO,
            rests: Rc::default(),
            done: false,
        }
    }

    fn send(&mut self, world: &mut World, end: EndId) -> Result<bool, ErrorKind> {
        if !self.asks.is_empty() {
            return match world.write(end, &self.asks) {
                Ok(length) => {
                    self.asks.drain(..length);
                    Ok(true)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error.kind()),
            };
        }
        if self.answer.is_some() && !self.hasty {
            return Ok(false);
        }
        let waits = self.plan.ending == Ending::OriginFirst && !self.eager && !self.ended;
        let limit = if waits {
            self.plan.echoed
        } else {
            self.plan.total()
        };
        if self.sent == limit {
            let ends = !self.never_ends() && !self.rests.get();
            if limit == self.plan.total() && !self.fin_sent && ends {
                self.fin_sent = true;
                let sent = world.shutdown(end);
                let ignored = self.plan.ending == Ending::OriginCloses;
                sent.or_else(|error| if ignored { Ok(()) } else { Err(error.kind()) })?;
            }
            return Ok(false);
        }
        let length = world.rng.between(1, self.most).min(limit - self.sent);
        let mut piece = vec![0; length];
        self.plan.bytes(self.sent, &mut piece);
        match world.write(end, &piece) {
            Ok(length) => self.sent += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            // Nobody takes it any more, but all that was echoed must still come.
            Err(_) if self.plan.ending == Ending::OriginCloses => {
                self.write_failed = true;
                self.sent = self.plan.total();
                self.fin_sent = true;
            }
            Err(error) => return Err(error.kind()),
        }
        Ok(true)
    }

    /// Whether the stream is to end by a reset.
    fn never_ends(&self) -> bool {
        self.plan.ending == Ending::UserAborts || self.plan.ending.is_reset()
    }

    fn receive(&mut self, world: &mut World, end: EndId) -> Result<bool, ErrorKind> {
        if self.ended || world.elapsed() < self.reads_from {
            return Ok(false);
        }
        let mut piece = vec![0; world.rng.between(1, self.most)];
        match world.read(end, &mut piece) {
            // How a raw proxy refuses; a server that is killed has said FIN to all, too; and of a reset
            // that a write has told of, a read knows nothing.
            Ok(0)
                if (self.never_ends() || self.received < self.plan.echoed)
                    && (world.excuse(SERVER_HOST).cuts
                        || world.excuse(SERVER_HOST).errors
                            && (self.received == 0 || self.write_failed)) =>
            {
                return Err(ErrorKind::UnexpectedEof);
            }
            Ok(0) => {
                assert!(!self.never_ends(), "a reset looks like an end: {self:?}");
                assert_eq!(self.received, self.plan.echoed, "cut short: {self:?}");
                self.ended = true;
            }
            Ok(length) => {
                let asked = self.answer.is_some();
                let bytes = self.answered(&mut piece[..length])?;
                if asked && self.answer.is_none() {
                    world.tally.count(CONNECTED);
                }
                self.plan.check(self.received, bytes, "user");
                self.received += bytes.len();
                assert!(self.received <= self.plan.echoed, "too much: {self:?}");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.kind()),
        }
        Ok(true)
    }
}

impl User {
    /// What of these bytes is the stream's.
    fn answered<'a>(&mut self, bytes: &'a mut [u8]) -> Result<&'a [u8], ErrorKind> {
        let Some(answer) = &mut self.answer else {
            return Ok(bytes);
        };
        answer.extend_from_slice(bytes);
        let Some(head) = Head::take(answer) else {
            return Ok(&[]);
        };
        if head.first.split(' ').nth(1) != Some("200") {
            log::trace!("{head:?}: {self:?}");
            return Err(ErrorKind::ConnectionRefused);
        }
        let ours = answer.len();
        self.answer = None;
        Ok(&bytes[bytes.len() - ours..])
    }
}

impl Actor for User {
    fn step(&mut self, world: &mut World, me: ActorId) {
        if self.done {
            return;
        }
        let Some(end) = self.end else {
            let end = world.connect(self.proxy, USERS);
            world.watch(end, Watcher::Actor(me));
            world.wake(me, self.reads_from.saturating_sub(world.elapsed()));
            self.end = Some(end);
            return;
        };
        if world.is_connecting(end) {
            return;
        }
        if world.rng.chance(self.idle_percent) {
            let most = if world.rages() { self.idle_millis } else { 300 };
            let millis = world.rng.between(1, most) as u64;
            return world.wake(me, Duration::from_millis(millis));
        }
        let mut moved = true;
        for _ in 0..PIECES {
            if self.plan.ending == Ending::UserAborts && self.sent >= self.aborts_at {
                world.abort(end);
                self.done = true;
            } else if self.plan.ending == Ending::UserCloses && self.fin_sent {
                if !world.is_delivered(end) {
                    return world.wake(me, Duration::from_millis(1));
                }
                self.done = true;
            } else {
                let received = self.receive(world, end);
                let sent = received.and_then(|_| self.send(world, end));
                match received.and_then(|received| Ok(sent? || received)) {
                    Ok(more) => moved = more,
                    Err(error) => {
                        let whole = self.plan.ending == Ending::OriginCloses
                            && self.received == self.plan.echoed;
                        let excused = world.excuse(SERVER_HOST).errors;
                        assert!(
                            self.plan.ending.is_reset() || whole || excused,
                            "{error}: {self:?}"
                        );
                        self.done = true;
                    }
                }
                self.done |= self.ended && self.fin_sent;
            }
            if self.done {
                return world.close(end);
            }
            if !moved {
                return;
            }
        }
        // Others take their turn; no event will tell of what is left.
        world.wake(me, Duration::from_micros(100));
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "user of {:?}: sent {}{}, received {}{}",
            self.plan,
            self.sent,
            if self.fin_sent { " and FIN" } else { "" },
            self.received,
            if self.ended { " and FIN" } else { "" },
        )
    }
}

/// Echoes, as the header of each stream says.
pub struct Origin {
    address: SocketAddr,
    connections: Vec<Connection>,
    ledger: Ledger,
    /// Of a piece.
    most: usize,
    idle_percent: usize,
}

struct Connection {
    end: EndId,
    header: Vec<u8>,
    plan: Option<Plan>,
    received: usize,
    ended: bool,
    echo: Vec<u8>,
    echoed: usize,
    fin_sent: bool,
    done: bool,
}

impl Origin {
    pub fn new(address: SocketAddr, me: ActorId, ledger: Ledger, world: &mut World) -> Origin {
        world
            .listen(address, Watcher::Actor(me))
            .expect("the origin's address is free");
        Origin {
            address,
            connections: Vec::new(),
            ledger,
            most: world.rng.pick(&[10_000, 100_000]),
            idle_percent: world.rng.pick(&[0, 0, 20]),
        }
    }
}

impl Connection {
    fn new(end: EndId) -> Connection {
        Connection {
            end,
            header: Vec::new(),
            plan: None,
            received: 0,
            ended: false,
            echo: Vec::new(),
            echoed: 0,
            fin_sent: false,
            done: false,
        }
    }

    /// One read and one write; whether anything moved.
    fn step(&mut self, most: usize, world: &mut World) -> Result<bool, ErrorKind> {
        let mut moved = false;
        if self.fin_sent
            && self
                .plan
                .is_some_and(|plan| plan.ending == Ending::OriginCloses)
        {
            self.done = world.is_delivered(self.end);
            return Ok(true);
        }
        // Whoever stops reading while nobody reads what it writes would wait for ever.
        let reads = self.echo.len() < ECHO_MAX
            || self
                .plan
                .is_some_and(|plan| plan.ending == Ending::UserCloses);
        if !self.ended && reads {
            let mut piece = vec![0; world.rng.between(1, most)];
            match world.read(self.end, &mut piece) {
                Ok(length) => {
                    moved = true;
                    self.ended = length == 0;
                    self.receive(&piece[..length]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.kind()),
            }
        }
        if !self.echo.is_empty() {
            let length = world.rng.between(1, most).min(self.echo.len());
            match world.write(self.end, &self.echo[..length]) {
                Ok(length) => {
                    moved = true;
                    self.echo.drain(..length);
                    self.echoed += length;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.kind()),
            }
        }
        let Some(plan) = self.plan else {
            self.done = self.ended;
            return Ok(moved);
        };
        let all_echoed = self.echo.is_empty() && self.echoed == plan.echoed;
        match plan.ending {
            Ending::OriginAborts if all_echoed => {
                world.abort(self.end);
                self.done = true;
            }
            Ending::UserFirst if !self.ended => {}
            Ending::UserFirst | Ending::OriginFirst | Ending::OriginCloses
                if all_echoed && !self.fin_sent =>
            {
                self.fin_sent = true;
                world.shutdown(self.end).map_err(|error| error.kind())?;
            }
            _ => {}
        }
        let excuse = world.excuse(CLIENT_HOST);
        let is_cut = self.received < plan.total() || plan.ending == Ending::UserAborts;
        if self.ended && is_cut && excuse.cuts {
            // A client that is killed has said FIN to all, whole or not.
            self.done = true;
        } else if self.ended && plan.ending == Ending::UserCloses {
            assert_eq!(self.received, plan.total(), "cut short: {self:?}");
            self.done = true;
        } else if self.ended && self.echo.is_empty() {
            let whole = self.received == plan.total() && self.fin_sent;
            assert!(whole, "an end before the end: {self:?}");
            self.done = true;
        }
        Ok(moved)
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        let plan = match self.plan {
            Some(plan) => plan,
            None => {
                let missing = (HEADER - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                if self.header.len() < HEADER {
                    return;
                }
                self.received = HEADER;
                self.echo.extend_from_slice(&self.header);
                *self.plan.insert(Plan::parse(&self.header))
            }
        };
        plan.check(self.received, bytes, "origin");
        let echoed = plan.echoed.saturating_sub(self.received).min(bytes.len());
        self.echo.extend_from_slice(&bytes[..echoed]);
        self.received += bytes.len();
    }
}

impl Actor for Origin {
    fn step(&mut self, world: &mut World, me: ActorId) {
        while let Ok((end, _)) = world.accept(self.address) {
            world.watch(end, Watcher::Actor(me));
            self.connections.push(Connection::new(end));
        }
        if world.rng.chance(self.idle_percent) {
            let millis = world.rng.between(1, 100) as u64;
            return world.wake(me, Duration::from_millis(millis));
        }
        let mut moved = false;
        for connection in &mut self.connections {
            match connection.step(self.most, world) {
                Ok(more) => moved |= more,
                Err(error) => {
                    let expected = match connection.plan {
                        Some(plan) if plan.ending == Ending::UserCloses => {
                            connection.received == plan.total()
                        }
                        Some(plan) => plan.ending == Ending::UserAborts,
                        None => true,
                    };
                    let excused = world.excuse(CLIENT_HOST).errors;
                    assert!(expected || excused, "{error}: {connection:?}");
                    connection.done = true;
                }
            }
            if connection.done {
                world.close(connection.end);
                if let Some(plan) = connection.plan {
                    let before = self.ledger.borrow_mut().insert(plan.user, plan.ending);
                    assert!(before.is_none(), "two connections for {plan:?}");
                }
            }
        }
        self.connections.retain(|connection| !connection.done);
        if moved {
            world.wake(me, Duration::from_micros(100));
        }
    }

    fn is_done(&self) -> bool {
        self.connections.is_empty()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connection {
            plan,
            received,
            ended,
            echoed,
            fin_sent,
            ..
        } = self;
        write!(
            f,
            "connection of {plan:?}: received {received}, FIN {ended}, echoed {echoed}, FIN {fin_sent}"
        )
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "origin with {:?}", self.connections)
    }
}

/// The name under which a forward proxy's consent is counted.
pub const CONNECTED: &str = "answered: 200 to CONNECT";

/// Ending, user, and two lengths.
const HEADER: usize = 1 + 3 * 8;

/// Pieces that a user moves before others have their turn.
const PIECES: usize = 4;

/// What the origin holds before it stops reading.
const ECHO_MAX: usize = 64 * 1024;
