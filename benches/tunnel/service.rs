//! The origin of short exchanges: one event loop, answers that are made before the first request.
//!
//! It answers one request after the other on each connection, over TLS where it is given a
//! configuration. It can hold its answers until a number of requests are waiting, which is how that
//! many connections come to be open at a time; the very first, by which a tunnel is asked whether it
//! serves, is answered at once.

use std::{
    io::{self, Read, Write},
    mem,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
use rustls::{ServerConfig, ServerConnection};
use slab::Slab;

use crate::payload::{self, at};

/// What is asked, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// A byte for a byte, the same.
    Byte,
    /// HTTP: a body of so many bytes, which depends on the number that is asked for.
    Http {
        /// Bytes of the body.
        body: usize,
    },
}

/// Different bodies; a prime, so that users who go by twos or tens get all of them.
const BODIES: u64 = 13;

/// Room for a request's head, as siding or a peer writes it.
const HEAD_ROOM: usize = 2048;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// A running origin, which ends with the value.
pub struct Service {
    address: SocketAddr,
    counts: Arc<Counts>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What has happened so far.
#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
}

struct Loop {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    asks: Asks,
    answers: Vec<Vec<u8>>,
    /// Requests that have to be waiting before the first is answered.
    hold: usize,
    /// Those, each with its answer.
    waiting: Vec<(usize, usize)>,
    connections: Slab<Connection>,
    counts: Arc<Counts>,
}

struct Connection {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    request: Vec<u8>,
    /// The answer that is being sent, and how much of it was.
    sending: Option<(usize, usize)>,
    /// No further event will come for what is still unread.
    is_ending: bool,
}

impl Asks {
    /// Makes a request.
    pub fn request(self, number: u64, into: &mut Vec<u8>) {
        into.clear();
        match self {
            Asks::Byte => into.push(number as u8),
            Asks::Http { .. } => write!(
                into,
                "GET /{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
            )
            .expect("a Vec takes everything"),
        }
    }

    /// Whether this is the whole answer to a request.
    ///
    /// # Errors
    /// `InvalidData` where it never will be, `ConnectionRefused` where a proxy has answered.
    pub fn is_answered(self, number: u64, held: &[u8]) -> io::Result<bool> {
        let body = match self {
            Asks::Byte => match held {
                [] => return Ok(false),
                [byte] if *byte == number as u8 => return Ok(true),
                _ => return Err(payload::wrong(format!("{held:?} for byte {number}"))),
            },
            Asks::Http { body } => body,
        };
        let Some(head) = head_end(held) else {
            return Ok(false);
        };
        if !held.starts_with(b"HTTP/1.1 200 ") {
            let status = String::from_utf8_lossy(held.split(|&b| b == b'\r').next().unwrap_or(b""));
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                status.into_owned(),
            ));
        }
        let arrived = &held[head..];
        if arrived.len() < body {
            return Ok(false);
        }
        match arrived == at(number % BODIES, 0, body) {
            true => Ok(true),
            false => Err(payload::wrong(format!(
                "the answer to GET /{number} is not its own"
            ))),
        }
    }

    /// Bytes of the longest answer, as a proxy may write it.
    pub fn room(self) -> usize {
        match self {
            Asks::Byte => 2,
            Asks::Http { body } => body + HEAD_ROOM,
        }
    }

    /// All answers, in the order of what [`Asks::asked`] says.
    fn answers(self) -> Vec<Vec<u8>> {
        match self {
            Asks::Byte => (0..=u8::MAX).map(|byte| vec![byte]).collect(),
            Asks::Http { body } => (0..BODIES)
                .map(|number| {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
                         Content-Length: {body}\r\n\r\n"
                    );
                    [head.as_bytes(), at(number, 0, body)].concat()
                })
                .collect(),
        }
    }

    /// Which answer is asked for, once the request is whole.
    fn asked(self, request: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Asks::Byte => Ok(request.first().map(|&byte| byte.into())),
            Asks::Http { .. } if head_end(request).is_none() => Ok(None),
            Asks::Http { .. } => str::from_utf8(request)
                .ok()
                .and_then(|head| {
                    let number = head.strip_prefix("GET /")?.split(' ').next()?;
                    Some(Some((number.parse::<u64>().ok()? % BODIES) as usize))
                })
                .ok_or_else(|| payload::wrong("a request that nobody sent")),
        }
    }
}

/// Where the body begins.
fn head_end(message: &[u8]) -> Option<usize> {
    let end = message.windows(4).position(|at| at == b"\r\n\r\n")?;
    Some(end + 4)
}

impl Service {
    /// Serves on a free port of loopback. `hold`: how many requests have to be waiting before the first
    /// is answered.
    pub fn start(asks: Asks, tls: Option<Arc<ServerConfig>>, hold: usize) -> Service {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = TcpListener::bind(any).expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let poll = Poll::new().expect("there are descriptors");
        let registry = poll.registry();
        let waker = Waker::new(registry, WAKER).expect("there are descriptors");
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .expect("a listener can be registered");
        let counts = Arc::new(Counts::default());
        let mut serving = Loop {
            listener,
            tls,
            asks,
            answers: asks.answers(),
            hold,
            waiting: Vec::new(),
            connections: Slab::new(),
            counts: Arc::clone(&counts),
        };
        let thread = thread::spawn(move || serving.run(poll));
        Service {
            address,
            counts,
            waker,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.waker.wake().expect("its poll is there");
        if let Some(thread) = self.thread.take() {
            // Its panic was printed, and whoever measured has seen that no answers came.
            thread.join().ok();
        }
    }
}

impl Loop {
    fn run(&mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(1024);
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled.expect("a poll waits"),
            }
            for event in &events {
                match event.token() {
                    WAKER => return,
                    LISTENER => self.accept(&poll),
                    Token(index) => {
                        self.ready(index, event.is_read_closed() || event.is_error());
                    }
                }
            }
        }
    }

    fn accept(&mut self, poll: &Poll) {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Who has gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => panic!("the origin accepts: {error}"),
            };
            let entry = self.connections.vacant_entry();
            let token = Token(entry.key());
            stream.set_nodelay(true).ok();
            poll.registry()
                .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
                .expect("a new stream can be registered");
            let tls = self.tls.as_ref().map(|config| {
                Box::new(ServerConnection::new(Arc::clone(config)).expect("a session"))
            });
            entry.insert(Connection {
                stream,
                tls,
                request: Vec::new(),
                sending: None,
                is_ending: false,
            });
            self.counts.connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ready(&mut self, index: usize, is_ending: bool) {
        // It may have been closed by an event before this one.
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        connection.is_ending |= is_ending;
        let received = connection.send(&self.answers);
        let received = received.and_then(|()| connection.receive());
        let asked = self.asks.asked(&connection.request);
        if let Ok(Some(answer)) = asked {
            connection.request.clear();
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            self.waiting.push((index, answer));
        }
        if asked.is_err() || !matches!(received, Ok(true)) {
            self.close(index);
        }
        let is_first = self.counts.requests.load(Ordering::Relaxed) == 1;
        if self.waiting.len() >= self.hold || is_first {
            if !is_first {
                self.hold = 0;
            }
            for (index, answer) in mem::take(&mut self.waiting) {
                if let Some(connection) = self.connections.get_mut(index) {
                    connection.sending = Some((answer, 0));
                    if connection.send(&self.answers).is_err() {
                        self.close(index);
                    }
                }
            }
        }
    }

    fn close(&mut self, index: usize) {
        self.connections.remove(index);
    }
}

impl Connection {
    /// Reads what there is; false at the end.
    fn receive(&mut self) -> io::Result<bool> {
        let mut piece = [0; HEAD_ROOM];
        loop {
            let read = match &mut self.tls {
                None => self.stream.read(&mut piece),
                Some(session) => receive_tls(session, &mut self.stream, &mut piece),
            };
            match read {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.request.extend_from_slice(&piece[..count]);
                    // A short read has emptied the socket.
                    if count < piece.len() && self.tls.is_none() && !self.is_ending {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what it can of the answer.
    fn send(&mut self, answers: &[Vec<u8>]) -> io::Result<()> {
        let sent = self.try_send(answers);
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }

    fn try_send(&mut self, answers: &[Vec<u8>]) -> io::Result<()> {
        self.flush()?;
        while let Some((answer, sent)) = &mut self.sending {
            let rest = &answers[*answer][*sent..];
            if rest.is_empty() {
                self.sending = None;
                break;
            }
            *sent += match &mut self.tls {
                None => self.stream.write(rest)?,
                Some(session) => session.writer().write(rest)?,
            };
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            while session.wants_write() {
                session.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }
}

/// Reads plaintext, and feeds the session for it.
fn receive_tls(
    session: &mut ServerConnection,
    stream: &mut TcpStream,
    into: &mut [u8],
) -> io::Result<usize> {
    loop {
        match session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        if session.read_tls(stream)? == 0 {
            return Ok(0);
        }
        session
            .process_new_packets()
            .map_err(|error| io::Error::other(format!("TLS: {error}")))?;
        // Its part of the handshake; what does not fit now goes with the next event.
        while session.wants_write() {
            match session.write_tls(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                written => written?,
            };
        }
    }
}
