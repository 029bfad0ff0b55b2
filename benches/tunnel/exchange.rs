//! Users of short exchanges: ask, be answered, ask again, on the same connection or on a new one each
//! time. One event loop for all of them, which costs less than what it measures.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, event::Event, net::TcpStream};

use crate::service::Asks;

/// How often the clock is looked at while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Exchanges that may fail before there is no point in going on.
const FAILURES_MAX: usize = 1000;

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What each asks for.
    pub asks: Asks,
    /// How many ask at the same time.
    pub users: usize,
    /// Whether each request has a connection of its own.
    pub reconnects: bool,
}

/// What came of it. `T`: what was looked at before and after.
pub struct Outcome<T> {
    /// How long each exchange took, from its first byte (or from the connecting, where that is part of
    /// it) to the last one of the answer.
    pub samples: Vec<Duration>,
    /// Exchanges that had no answer.
    pub failed: usize,
    /// How long all this was measured.
    pub span: Duration,
    /// What was there when the measuring began.
    pub before: T,
    /// And when it ended.
    pub after: T,
}

struct User {
    /// None only while another takes its place.
    stream: Option<TcpStream>,
    state: State,
    since: Instant,
    number: u64,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Bytes of the answer that have arrived.
    held: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Waiting,
}

impl Plan {
    /// Lets the users ask for `warm_up` and then for `span`.
    ///
    /// # Errors
    /// `InvalidData` where an answer was wrong; the last failure, where there were too many of them.
    pub fn run<T>(
        &self,
        address: SocketAddr,
        warm_up: Duration,
        span: Duration,
        look: impl Fn() -> T,
    ) -> io::Result<Outcome<T>> {
        let mut poll = Poll::new()?;
        let user = |number| User::new(number, self.asks);
        let mut users: Vec<User> = (0..self.users).map(user).collect();
        for (index, user) in users.iter_mut().enumerate() {
            user.connect(poll.registry(), address, index)?;
        }
        let mut events = Events::with_capacity(1024);
        let (mut samples, mut failed) = (Vec::new(), 0);
        let begin = Instant::now() + warm_up;
        let mut before = None;
        loop {
            poll.poll(&mut events, Some(LOOK_EVERY))?;
            let now = Instant::now();
            if now >= begin && before.is_none() {
                before = Some((look(), Instant::now()));
                samples.clear();
            }
            if let Some((before, start)) = before.take_if(|(_, start)| now >= *start + span) {
                // Who has waited all the time was not answered.
                let silent = users.iter().filter(|user| user.since < start);
                return Ok(Outcome {
                    samples,
                    failed: failed + silent.count(),
                    span: start.elapsed(),
                    before,
                    after: look(),
                });
            }
            for event in &events {
                let index = event.token().0;
                let user = &mut users[index];
                let is_answered = match user.ready(self.asks, event) {
                    Ok(false) => continue,
                    Ok(true) => true,
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                    Err(error) if failed == FAILURES_MAX => return Err(error),
                    Err(_) => false,
                };
                match is_answered {
                    true => samples.push(user.since.elapsed()),
                    false => failed += 1,
                }
                user.number += self.users as u64;
                let is_open = is_answered && !self.reconnects;
                if !is_open || user.ask(self.asks).is_err() {
                    user.connect(poll.registry(), address, index)?;
                }
            }
        }
    }
}

impl User {
    fn new(number: usize, asks: Asks) -> User {
        User {
            stream: None,
            state: State::Connecting,
            since: Instant::now(),
            number: number as u64,
            request: Vec::new(),
            answer: vec![0; asks.room()],
            held: 0,
        }
    }

    /// Begins a new connection in the place of the one before, which is closed first.
    fn connect(
        &mut self,
        registry: &Registry,
        address: SocketAddr,
        index: usize,
    ) -> io::Result<()> {
        self.stream = None;
        self.state = State::Connecting;
        self.since = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(index), interest)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Goes on; whether the answer is complete.
    fn ready(&mut self, asks: Asks, event: &Event) -> io::Result<bool> {
        if self.state == State::Connecting {
            if !event.is_writable() {
                return Ok(false);
            }
            if let Some(error) = self.stream().take_error()? {
                return Err(error);
            }
            let since = self.since;
            self.ask(asks)?;
            self.since = since;
        }
        loop {
            let mut stream = self.stream.as_ref().expect("it was opened");
            match stream.read(&mut self.answer[self.held..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.held += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if asks.is_answered(self.number, &self.answer[..self.held])? {
                return Ok(true);
            }
        }
    }

    /// Sends the next request, which a socket without any unsent takes whole.
    fn ask(&mut self, asks: Asks) -> io::Result<()> {
        self.state = State::Waiting;
        self.held = 0;
        asks.request(self.number, &mut self.request);
        self.since = Instant::now();
        self.stream().write_all(&self.request)
    }

    fn stream(&self) -> &TcpStream {
        self.stream.as_ref().expect("it was opened")
    }
}
