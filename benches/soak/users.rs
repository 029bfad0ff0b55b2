//! Users of all sorts. Each is a thread that does one thing again and again, and enters into the ledger
//! what became of it.

use std::{
    io::{self, ErrorKind, Read, Write},
    iter,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use crate::{
    common::{HttpUser, PATIENCE, Pattern, Random, Reply, converse, expect_pattern, pass, reset},
    ground::{Doors, Stage},
    ledger::{Deed, Ledger},
    origin::RECEIVED,
    tls::over_tls,
};

/// Regular users, and the time from one request of each to its next: together 300 a second.
const REGULARS: usize = 30;
const PACE: Duration = Duration::from_millis(100);

/// Requests of a regular user on one connection, at most.
const KEPT: u64 = 40;

/// The body of a regular request or answer: one in so many is a large one.
const BODY: u64 = 1024;
const LARGE_BODY: u64 = 64 * 1024;
const LARGE: u64 = 16;

/// What is downloaded and uploaded, at most, and the pause after it.
const BULK: u64 = 6 << 20;
const BULK_PAUSE: Duration = Duration::from_secs(2);

/// Those who do not read, and what they have asked for: more than all buffers on the way hold.
const STALLED: usize = 4;
const STALLED_BODY: u64 = 12 << 20;

/// The buffer of their sockets.
const STALLED_ROOM: usize = 64 * 1024;

/// How long they do not read, in seconds.
const STALL_MIN: u64 = 10;
const STALL_MAX: u64 = 40;

/// From one visit of the others to their next.
const VISIT_PAUSE: Duration = Duration::from_millis(400);

/// From one byte of a slow user to its next, and what it sends and gets besides the heads.
const BYTE_EVERY: Duration = Duration::from_millis(100);
const SLOW_BODY: u64 = 30;
const SLOW_ANSWER: u64 = 600;

/// What an upgraded connection says and hears, how often, and the pause between.
const MESSAGE: usize = 700;
const MESSAGES: u64 = 10;
const MESSAGE_PAUSE: Duration = Duration::from_millis(200);

/// Who waits looks so often whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const fn request(name: &'static str, is_timed: bool) -> Deed {
    Deed {
        name,
        is_request: true,
        is_timed,
    }
}

const GET: Deed = request("GET", true);
const POST: Deed = request("POST", true);
const DOWNLOAD: Deed = request("download", false);
const UPLOAD: Deed = request("upload", false);
const STALL: Deed = request("read late", false);
const LEAVE: Deed = request("stalled, then left", false);
const RESET: Deed = request("reset in the middle", false);
const UPGRADE: Deed = request("upgrade", false);
const TRICKLE: Deed = request("byte by byte", false);
const HALF_CLOSE: Deed = Deed {
    name: "half-closed session",
    is_request: false,
    is_timed: false,
};

/// How many do what, what that is for the ledger at first, and the pause before the next time.
struct Sort(usize, Work, Deed, Duration);

type Work = fn(&mut User) -> io::Result<()>;

/// One of them.
pub struct User {
    work: Work,
    /// What it is doing.
    deed: Deed,
    pause: Duration,
    number: usize,
    random: Random,
    doors: Doors,
    tls: Arc<ClientConfig>,
    ledger: Arc<Ledger>,
    kept: Option<Kept>,
    began: Instant,
}

/// A connection that is kept for more requests.
struct Kept {
    user: HttpUser<Box<dyn Connection>>,
    requests: u64,
}

/// A user's connection, with TLS or without.
trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

impl User {
    /// All of them, to be run each on a thread of its own.
    pub fn all(stage: &Stage, ledger: &Arc<Ledger>, seed: u64) -> Vec<User> {
        let sorts = [
            Sort(REGULARS, User::ask, GET, PACE),
            Sort(2, User::download, DOWNLOAD, BULK_PAUSE),
            Sort(2, User::upload, UPLOAD, BULK_PAUSE),
            Sort(STALLED, User::stall, STALL, VISIT_PAUSE),
            Sort(1, User::reset, RESET, VISIT_PAUSE),
            Sort(1, User::half_close, HALF_CLOSE, VISIT_PAUSE),
            Sort(1, User::upgrade, UPGRADE, VISIT_PAUSE),
            Sort(1, User::trickle, TRICKLE, VISIT_PAUSE),
        ];
        let each = sorts
            .iter()
            .flat_map(|sort| iter::repeat_n(sort, sort.0))
            .enumerate();
        let user = |(number, &Sort(_, work, deed, pause)): (usize, &Sort)| User {
            work,
            deed,
            pause,
            number,
            random: Random::new(seed ^ (number as u64 + 1) << 32),
            doors: stage.doors,
            tls: stage.authority.client(),
            ledger: Arc::clone(ledger),
            kept: None,
            began: Instant::now(),
        };
        each.map(user).collect()
    }

    /// Works until it is over.
    pub fn run(mut self) {
        // They do not all begin at the same time.
        self.wait(self.pause.mul_f64(self.number as f64 / REGULARS as f64));
        while !self.ledger.is_over() {
            self.began = Instant::now();
            let done = (self.work)(&mut self);
            if !self.ledger.enter(self.deed, self.began, done) {
                self.kept = None;
            }
            let rest = match self.deed.is_timed {
                true => self.pause.saturating_sub(self.began.elapsed()),
                false => self.pause,
            };
            self.wait(rest);
        }
    }

    /// A request of the usual sort, on a connection that is kept, to one of three listeners.
    fn ask(&mut self) -> io::Result<()> {
        let length = match self.random.below(LARGE) {
            0 => LARGE_BODY,
            _ => BODY,
        };
        let seed = self.random.next();
        let what = self.random.below(4);
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => Kept {
                user: HttpUser::of(self.regular()?),
                requests: 0,
            },
        };
        self.deed = if what == 0 { POST } else { GET };
        match what {
            0 => {
                let body = Pattern::bytes(seed, length as usize);
                let number = self.ledger.number();
                let head = post(&format!("echo/{number}"), length);
                kept.user.try_send([head.as_bytes(), &body].concat())?;
                expect(&answered(kept.user.try_reply("POST")?)?.body.bytes, &body)?;
            }
            _ => {
                let form = if what == 1 { "chunked" } else { "fixed" };
                kept.user
                    .try_send(get(&format!("{form}/{seed}/{length}")))?;
                let reply = answered(kept.user.try_reply("GET")?)?;
                expect(&reply.body.bytes, &Pattern::bytes(seed, length as usize))?;
            }
        }
        kept.requests += 1;
        if kept.requests < KEPT - self.number as u64 % 7 {
            self.kept = Some(kept);
        }
        Ok(())
    }

    fn download(&mut self) -> io::Result<()> {
        let (seed, length) = (self.random.next(), self.random.below(BULK));
        let mut user = HttpUser::of(self.come(None)?);
        user.try_send(get(&format!("fixed/{seed}/{length}")))?;
        answered(user.try_head()?)?;
        expect_pattern(user.stream(), seed, length)?;
        Ok(())
    }

    fn upload(&mut self) -> io::Result<()> {
        let (number, length) = (self.ledger.number(), self.random.below(BULK));
        let mut user = HttpUser::of(self.come(None)?);
        let body = Pattern::bytes(number, length as usize);
        let target = format!("upload/{number}/{length}");
        if self.random.below(2) == 0 {
            user.try_send(post(&target, length))?;
            sent_or_answered(user.try_send(&body))?;
        } else {
            user.try_send(format!(
                "POST /{target} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
            ))?;
            sent_or_answered(send_chunked(&mut user, &body))?;
        }
        let reply = answered(user.try_reply("POST")?)?;
        expect(&reply.body.bytes, RECEIVED.as_bytes())?;
        Ok(())
    }

    /// Asks for much, does not read for a while, and then reads it all after all, or leaves.
    fn stall(&mut self) -> io::Result<()> {
        self.deed = STALL;
        let seed = self.random.next();
        let mut user = HttpUser::of(self.come(Some(STALLED_ROOM))?);
        user.try_send(get(&format!("fixed/{seed}/{STALLED_BODY}")))?;
        answered(user.try_head()?)?;
        let seconds = STALL_MIN + self.random.below(STALL_MAX - STALL_MIN);
        let is_to_read = self.random.below(2) == 0;
        self.wait(Duration::from_secs(seconds));
        if is_to_read && !self.ledger.is_over() {
            expect_pattern(user.stream(), seed, STALLED_BODY)?;
            return Ok(());
        }
        self.deed = LEAVE;
        if self.random.below(2) == 0 {
            user.leave();
        }
        Ok(())
    }

    /// Resets its connection in the middle of an answer.
    fn reset(&mut self) -> io::Result<()> {
        let (seed, length) = (self.random.next(), 1 << 20);
        let mut user = HttpUser::of(self.come(None)?);
        user.try_send(get(&format!("fixed/{seed}/{length}")))?;
        answered(user.try_head()?)?;
        expect_pattern(user.stream(), seed, self.random.below(length))?;
        reset(user.into_stream());
        Ok(())
    }

    /// Ends its half before it is answered.
    fn half_close(&mut self) -> io::Result<()> {
        let [up, down] = [(); 2].map(|()| self.random.below(200_000));
        let user = self.connect(self.doors.raw, None)?;
        converse(&user, self.random.next(), up, down)?;
        Ok(())
    }

    /// Speaks something else on a connection that began with HTTP.
    fn upgrade(&mut self) -> io::Result<()> {
        let mut user = HttpUser::of(self.come(None)?);
        user.try_send(
            "GET /upgrade HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let reply = user.try_head()?;
        if reply.status != 101 {
            answered(reply)?;
            return Err(invalid("200 and no upgrade".to_owned()));
        }
        for _ in 0..MESSAGES {
            let message = Pattern::bytes(self.random.next(), MESSAGE);
            user.try_send(&message)?;
            let mut back = [0; MESSAGE];
            user.stream().read_exact(&mut back)?;
            expect(&back, &message)?;
            pass(MESSAGE_PAUSE);
        }
        Ok(())
    }

    /// Sends byte by byte, and reads an answer that comes so.
    fn trickle(&mut self) -> io::Result<()> {
        let number = self.ledger.number();
        let mut user = HttpUser::of(self.come(None)?);
        let mut bytes = post(&format!("upload/{number}/{SLOW_BODY}"), SLOW_BODY).into_bytes();
        bytes.extend(Pattern::bytes(number, SLOW_BODY as usize));
        for byte in bytes {
            sent_or_answered(user.try_send([byte]))?;
            pass(BYTE_EVERY);
        }
        let reply = answered(user.try_reply("POST")?)?;
        expect(&reply.body.bytes, RECEIVED.as_bytes())?;
        user.try_send(get(&format!("slow/{number}/{SLOW_ANSWER}")))?;
        let reply = answered(user.try_reply("GET")?)?;
        let body = Pattern::bytes(number, SLOW_ANSWER as usize);
        expect(&reply.body.bytes, &body)?;
        Ok(())
    }

    fn regular(&self) -> io::Result<Box<dyn Connection>> {
        Ok(match self.number % 3 {
            0 => Box::new(self.connect(self.doors.http, None)?),
            1 => Box::new(self.connect(self.doors.https, None)?),
            _ => Box::new(over_tls(&self.tls, self.connect(self.doors.secure, None)?)),
        })
    }

    /// A connection to one of the listeners for plain HTTP.
    fn come(&mut self, room: Option<usize>) -> io::Result<TcpStream> {
        let door = match self.random.below(2) {
            0 => self.doors.http,
            _ => self.doors.https,
        };
        self.connect(door, room)
    }

    /// A connection, with a receive buffer of its own size if so.
    fn connect(&self, door: SocketAddr, room: Option<usize>) -> io::Result<TcpStream> {
        // Each has an address of its own.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let from = Ipv4Addr::new(127, 0, 1, self.number as u8 + 1);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        if let Some(room) = room {
            socket.set_recv_buffer_size(room)?;
        }
        socket.connect_timeout(&door.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Waits, but not beyond the end.
    fn wait(&self, span: Duration) {
        let until = Instant::now() + span;
        while !self.ledger.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            pass(left.min(LOOK_EVERY));
        }
    }
}

fn get(target: &str) -> String {
    format!("GET /{target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

fn post(target: &str, length: u64) -> String {
    format!("POST /{target} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n\r\n")
}

fn send_chunked(user: &mut HttpUser, body: &[u8]) -> io::Result<()> {
    for chunk in body.chunks(40_009) {
        let head = format!("{:x}\r\n", chunk.len());
        user.try_send([head.as_bytes(), chunk, b"\r\n"].concat())?;
    }
    user.try_send("0\r\n\r\n")
}

/// An answer of the origin. One that says that the link is out is an error like any other end; what else
/// siding might say of itself is as wrong as another body.
fn answered(reply: Reply) -> io::Result<Reply> {
    match reply.status {
        200 => Ok(reply),
        502..=504 => Err(io::Error::other(format!("answered {}", reply.status))),
        status => Err(invalid(format!("answered {status}"))),
    }
}

/// Who is refused may be so before everything is sent: the answer is still to be read.
fn sent_or_answered(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe) => Ok(()),
        sent => sent,
    }
}

fn expect(got: &[u8], expected: &[u8]) -> io::Result<()> {
    match got == expected {
        true => Ok(()),
        false => Err(invalid(format!(
            "another body, of {} bytes instead of {}",
            got.len(),
            expected.len()
        ))),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}
