//! What lies between client and server: a relay that passes the bytes of links on until it is told to cut
//! them.
//!
//! One thread, and a poll with two buffers for each link. Links that come after a cut are whole.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
use slab::Slab;
use socket2::SockRef;

/// Bytes that each direction of a link may hold.
const ROOM: usize = 64 * 1024;

/// How long a link that was ended by FIN may take to end from its other side.
const FAREWELL: Duration = Duration::from_secs(2);

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// How links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// By RST, to both sides.
    Reset,
    /// By FIN, to both sides.
    Fin,
    /// Not a byte goes either way any more, and no end; the sockets are closed after so long.
    BlackHole(Duration),
    /// Not a byte goes either way for so long; then all go on.
    Pause(Duration),
}

/// The relay. Its thread ends with the value.
pub struct Relay {
    address: SocketAddr,
    orders: Sender<Cut>,
    waker: Waker,
}

struct Pump {
    poll: Poll,
    listener: TcpListener,
    target: SocketAddr,
    orders: Receiver<Cut>,
    links: Slab<Link>,
}

struct Link {
    /// The client's, and ours to the server.
    sides: [TcpStream; 2],
    /// What came from each of them.
    ways: [Way; 2],
    state: State,
}

struct Way {
    bytes: Box<[u8]>,
    held: std::ops::Range<usize>,
    is_over: bool,
}

#[derive(Clone, Copy)]
enum State {
    Passing,
    /// No byte is read until then.
    Held {
        until: Instant,
        then_pass: bool,
    },
    /// Both have been told the end: what they still say is dropped.
    Leaving {
        until: Instant,
    },
}

/// What became of a link.
#[derive(PartialEq, Eq)]
enum Fate {
    Lives,
    Ended,
}

impl Relay {
    /// Listens on any port of loopback, and passes every link on to `target`.
    pub fn start(target: SocketAddr) -> Relay {
        let poll = Poll::new().expect("there are descriptors");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = TcpListener::bind(any).expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .expect("it is a socket");
        let waker = Waker::new(registry, WAKER).expect("there are descriptors");
        let (orders, of_thread) = mpsc::channel();
        let pump = Pump {
            poll,
            listener,
            target,
            orders: of_thread,
            links: Slab::new(),
        };
        thread::spawn(move || pump.run());
        Relay {
            address,
            orders,
            waker,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all links that there are.
    pub fn cut(&self, how: Cut) {
        self.orders.send(how).expect("the relay runs");
        self.waker.wake().expect("the relay runs");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The sender goes after this: the relay finds no order and no sender.
        let (orders, _) = mpsc::channel();
        self.orders = orders;
        self.waker.wake().ok();
    }
}

impl Pump {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let now = Instant::now();
            let next = self.links.iter().filter_map(|(_, link)| link.deadline());
            let left = next.min().map(|at| at.saturating_duration_since(now));
            match self.poll.poll(&mut events, left) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.expect("the poll is ours"),
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {}
                    Token(token) => self.turn(token / 2, now),
                }
            }
            loop {
                match self.orders.try_recv() {
                    Ok(cut) => self.cut(cut, now),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let is_due = |link: &Link| link.deadline().is_some_and(|at| at <= now);
            let due: Vec<usize> = (self.links.iter())
                .filter_map(|(index, link)| is_due(link).then_some(index))
                .collect();
            for index in due {
                self.turn(index, now);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((client, _)) = self.listener.accept() {
            let Ok(server) = TcpStream::connect(self.target) else {
                continue;
            };
            let entry = self.links.vacant_entry();
            let mut link = Link::new([client, server]);
            for (side, stream) in link.sides.iter_mut().enumerate() {
                stream.set_nodelay(true).ok();
                let both = Interest::READABLE | Interest::WRITABLE;
                let token = Token(2 * entry.key() + side);
                let registered = self.poll.registry().register(stream, token, both);
                registered.expect("there are descriptors");
            }
            entry.insert(link);
        }
    }

    fn cut(&mut self, how: Cut, now: Instant) {
        self.links.retain(|_, link| {
            // What was cut stays so.
            if !matches!(link.state, State::Passing) {
                return true;
            }
            match how {
                Cut::Reset => {
                    link.reset();
                    return false;
                }
                Cut::Fin => {
                    for side in &link.sides {
                        side.shutdown(Shutdown::Write).ok();
                    }
                    link.state = State::Leaving {
                        until: now + FAREWELL,
                    };
                }
                Cut::BlackHole(span) | Cut::Pause(span) => {
                    link.state = State::Held {
                        until: now + span,
                        then_pass: matches!(how, Cut::Pause(_)),
                    };
                }
            }
            true
        });
    }

    fn turn(&mut self, index: usize, now: Instant) {
        if let Some(link) = self.links.get_mut(index)
            && link.turn(now) == Fate::Ended
        {
            self.links.remove(index);
        }
    }
}

impl Link {
    fn new(sides: [TcpStream; 2]) -> Link {
        let way = || Way {
            bytes: vec![0; ROOM].into(),
            held: 0..0,
            is_over: false,
        };
        Link {
            sides,
            ways: [way(), way()],
            state: State::Passing,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Passing => None,
            State::Held { until, .. } | State::Leaving { until } => Some(until),
        }
    }

    /// The drop is then by RST.
    fn reset(&self) {
        for side in &self.sides {
            // Who has been reset by its peer has no options any more.
            SockRef::from(side).set_linger(Some(Duration::ZERO)).ok();
        }
    }

    fn turn(&mut self, now: Instant) -> Fate {
        match self.state {
            State::Held { until, .. } if now < until => return Fate::Lives,
            State::Held {
                then_pass: true, ..
            } => self.state = State::Passing,
            State::Held { .. } => {
                self.reset();
                return Fate::Ended;
            }
            State::Leaving { until } if until <= now => return Fate::Ended,
            State::Leaving { .. } | State::Passing => {}
        }
        // The ways take turns, until neither has moved a byte.
        let mut has_moved = true;
        while has_moved {
            match (self.pass(0), self.pass(1)) {
                (Ok(up), Ok(down)) => has_moved = up || down,
                _ => {
                    self.reset();
                    return Fate::Ended;
                }
            }
        }
        match self.ways.iter().all(|way| way.is_over) {
            true => Fate::Ended,
            false => Fate::Lives,
        }
    }

    /// Passes on what one read brings from one side, and was kept before it; whether anything moved.
    fn pass(&mut self, from: usize) -> io::Result<bool> {
        let is_passing = matches!(self.state, State::Passing);
        let way = &mut self.ways[from];
        if way.is_over {
            return Ok(false);
        }
        if way.held.is_empty() {
            match self.sides[from].read(&mut way.bytes) {
                Ok(0) => {
                    way.is_over = true;
                    if is_passing {
                        self.sides[1 - from].shutdown(Shutdown::Write)?;
                    }
                    return Ok(false);
                }
                Ok(count) => way.held = 0..count,
                Err(error) if would_block(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if !is_passing {
            way.held = 0..0;
            return Ok(true);
        }
        match self.sides[1 - from].write(&way.bytes[way.held.clone()]) {
            Ok(count) => way.held.start += count,
            Err(error) if would_block(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Also of a connection that is not there yet.
fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
