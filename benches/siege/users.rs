//! Honest users: each asks at a pace, on a connection that it keeps for a few requests, and compares every
//! byte of the answers.
//!
//! A request is measured from the moment at which it was due: one that is late makes those behind it late,
//! too, so that a server that stands still for a second is seen in more than one figure of each user.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use crate::{
    common::{Pattern, pass},
    ground::{Ground, Stage},
    tls::over_tls,
};

/// How many there are.
const USERS: usize = 20;

/// One in so many comes over TLS.
const OVER_TLS: usize = 4;

/// From one request of a user to its next: together they make 267 a second.
const PACE: Duration = Duration::from_millis(75);

/// Requests on one connection, at most.
const KEPT: usize = 5;

/// The body of a request, and of its answer: one in so many is a large one.
const BODY: usize = 1024;
const LARGE_BODY: usize = 64 * 1024;
const LARGE: usize = 16;

/// A user who has waited that long has been failed.
const DEADLINE: Duration = Duration::from_secs(10);

/// Failures that are told in words.
const TOLD: usize = 20;

/// All of them, asking.
pub struct Users {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of the requests of a phase.
#[derive(Default)]
pub struct Served {
    /// How long each took, the shortest first.
    pub took: Vec<Duration>,
    /// How many got no answer, or not the right one.
    pub failed: usize,
}

#[derive(Default)]
struct Shared {
    served: Mutex<Served>,
    failures: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

struct User {
    number: usize,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Box<dyn Connection>>,
    /// Requests on this connection, and in all.
    kept: usize,
    sent: usize,
}

/// A user's connection, with TLS or without.
trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

impl Users {
    /// They begin at once.
    pub fn start(stage: &Stage) -> Users {
        let shared = Arc::new(Shared::default());
        let start = Instant::now();
        let threads = (0..USERS).map(|number| {
            let user = User::new(number, stage);
            let shared = Arc::clone(&shared);
            let first = start + PACE * number as u32 / USERS as u32;
            thread::spawn(move || user.ask(first, &shared))
        });
        Users {
            threads: threads.collect(),
            shared,
        }
    }

    /// A phase begins.
    pub fn begin(&self) {
        self.take();
    }

    /// The phase is over.
    pub fn end(&self) -> Served {
        let mut served = self.take();
        served.took.sort_unstable();
        served
    }

    /// The siege is over; what failed in it, in words.
    pub fn stop(self) -> Vec<String> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a user does not panic");
        }
        let mut failures = self.shared.failures.lock().expect("no holder panics");
        failures.truncate(TOLD);
        failures.clone()
    }

    fn take(&self) -> Served {
        std::mem::take(&mut *self.shared.served.lock().expect("no holder panics"))
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

impl User {
    fn new(number: usize, stage: &Stage) -> User {
        let Ground { http, https, .. } = stage.ground;
        let is_over_tls = number.is_multiple_of(OVER_TLS);
        User {
            number,
            address: if is_over_tls { https } else { http },
            tls: is_over_tls.then(|| stage.authority.client()),
            connection: None,
            kept: 0,
            sent: 0,
        }
    }

    fn ask(mut self, first: Instant, shared: &Shared) {
        let mut due = first;
        while !shared.is_over() {
            pass(due.saturating_duration_since(Instant::now()));
            let asked = self.exchange();
            let took = due.elapsed();
            let mut served = shared.served.lock().expect("no holder panics");
            match asked {
                Ok(()) => served.took.push(took),
                Err(error) => {
                    served.failed += 1;
                    drop(served);
                    let User { number, sent, .. } = self;
                    let mut failures = shared.failures.lock().expect("no holder panics");
                    failures.push(format!("user {number}, request {sent}: {error}"));
                    // What was due meanwhile is not made up for.
                    self.connection = None;
                    due = Instant::now();
                }
            }
            due += PACE;
        }
    }

    /// One request on the user's connection, or on a new one.
    fn exchange(&mut self) -> io::Result<()> {
        let length = match self.sent % LARGE {
            0 => LARGE_BODY,
            _ => BODY,
        };
        let seed = (self.number << 32 | self.sent) as u64;
        self.sent += 1;
        let body = Pattern::bytes(seed, length);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.kept = 0;
                self.connect()?
            }
        };
        let head =
            format!("POST /{seed} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n");
        connection.write_all(&[head.as_bytes(), &body].concat())?;
        answer(&mut connection, &body)?;
        self.kept += 1;
        // Users do not all come back at the same time.
        if self.kept < KEPT - self.number % 2 {
            self.connection = Some(connection);
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<Box<dyn Connection>> {
        // Each has an address of its own: to limits by source it is nobody else.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = Ipv4Addr::new(127, 0, 1, self.number as u8 + 1);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect_timeout(&self.address.into(), DEADLINE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(config) => Box::new(over_tls(config, stream)),
        })
    }
}

/// Reads an answer that has to be 200 and this body.
fn answer(connection: &mut impl Read, body: &[u8]) -> io::Result<()> {
    let mut got = vec![0; body.len() + 4096];
    let mut held = 0;
    loop {
        let count = connection.read(&mut got[held..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        held += count;
        let end = got[..held].windows(4).position(|at| at == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let wrong = |what: &str| {
            let head = String::from_utf8_lossy(&got[..end]);
            io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {head}"))
        };
        if !got.starts_with(b"HTTP/1.1 200 ") {
            return Err(wrong("no answer of the origin"));
        }
        match held.cmp(&(end + 4 + body.len())) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal if got[end + 4..held] == *body => return Ok(()),
            _ => return Err(wrong("another body")),
        }
    }
}
