//! Visitors: short sessions, raw and HTTP, each of which is judged. Whoever is served is served right
//! to the byte; how else a visit may end is the test's to say.

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{
    HttpOrigin, HttpUser, PATIENCE, Pattern, Random, Then, expect_pattern, pass, with_deadlines,
};

/// Bytes that a visitor sends or asks for, at most: what the kernel takes without the far end reading.
const BYTES_MAX: u64 = 20_000;

/// Threads that visit at the same time.
const THREADS: u64 = 18;

/// One in so many of them has a user, too, who stays between its requests.
const REGULARS: u64 = 3;

/// Users who stay, at the same time.
pub const STAYING: usize = THREADS.div_ceil(REGULARS) as usize;

/// Between the visits of a thread: what they cost leaves most of the processor idle, so that a loop
/// that spins can be told from one that works.
const PACE: Duration = Duration::from_millis(10);

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// All of it, right to the byte.
    Served,
    /// Without a byte, or by an answer of siding's own.
    Refused,
    /// In the middle, and it can be seen.
    Cut,
}

/// How visits ended.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// See [`Visit::Served`].
    pub served: usize,
    /// See [`Visit::Refused`].
    pub refused: usize,
    /// See [`Visit::Cut`].
    pub cut: usize,
    /// Requests that were sent once more, since the connection that was kept had ended without a word.
    pub again: usize,
}

/// Visits of both kinds from several threads while `meanwhile` goes on: its result, and how they ended.
///
/// # Panics
/// When a visit ends as none may: by wrong bytes, or not at all.
pub fn visited<T>(raw: SocketAddr, http: SocketAddr, meanwhile: impl FnOnce() -> T) -> (T, Tally) {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || keep_visiting(raw, http, number, over)))
            .collect();
        // Should it panic, the visits end all the same.
        let end = Over(over);
        let done = meanwhile();
        drop(end);
        let mut tally = Tally::default();
        for thread in threads {
            let visits = thread.join().expect("a visitor does not panic");
            tally.add(visits.expect("no visit ends by wrong bytes, or not at all"));
        }
        (done, tally)
    })
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn keep_visiting(
    raw: SocketAddr,
    http: SocketAddr,
    seed: u64,
    over: &AtomicBool,
) -> io::Result<Tally> {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let mut regular = None;
    while !over.load(Ordering::SeqCst) {
        let raw = RawVisitor::arrive(raw, &mut random);
        tally.count(raw.map_or(Ok(Visit::Refused), RawVisitor::leave)?);
        let passing = HttpVisitor::arrive(http, &mut random);
        tally.count(
            passing
                .map_or(Ok((Visit::Refused, None)), HttpVisitor::answer)?
                .0,
        );
        if seed.is_multiple_of(REGULARS) {
            regular = come_again(http, regular, &mut random, &mut tally)?;
        }
        pass(PACE);
    }
    Ok(tally)
}

/// A visit of a user who stays, on its connection if it has one; gives the one that it has from now on.
fn come_again(
    http: SocketAddr,
    regular: Option<HttpUser>,
    random: &mut Random,
    tally: &mut Tally,
) -> io::Result<Option<HttpUser>> {
    let is_reused = regular.is_some();
    let Some(user) = regular.or_else(|| enter(http).ok()) else {
        return Ok(None);
    };
    let mut visitor = HttpVisitor::stay(user, random);
    if is_reused && visitor.is_unheard() {
        // As every user does: a server may end an idle connection while a request is on its way.
        tally.again += 1;
        let Some(once_more) = visitor.once_more(http) else {
            tally.count(Visit::Refused);
            return Ok(None);
        };
        visitor = once_more;
    }
    let (visit, kept) = visitor.answer()?;
    tally.count(visit);
    Ok(kept)
}

/// An HTTP user, where somebody listens.
fn enter(proxy: SocketAddr) -> io::Result<HttpUser> {
    let stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
    with_deadlines(&stream);
    Ok(HttpUser::of(stream))
}

/// A raw session with an [`Origin::digest`](super::Origin::digest): all that the visitor has to say is
/// said, the answer is still to be read.
pub struct RawVisitor {
    stream: TcpStream,
    seed: u64,
    up: u64,
    down: u64,
}

/// An exchange with an [`echoing_bodies`]: the request is sent, the answer is still to be read.
pub struct HttpVisitor {
    user: HttpUser,
    body: Vec<u8>,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, visit: Visit) {
        *match visit {
            Visit::Served => &mut self.served,
            Visit::Refused => &mut self.refused,
            Visit::Cut => &mut self.cut,
        } += 1;
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: Tally) {
        self.served += other.served;
        self.refused += other.refused;
        self.cut += other.cut;
        self.again += other.again;
    }
}

/// An origin that answers each request by its own body.
pub fn echoing_bodies() -> HttpOrigin {
    HttpOrigin::start(|exchange| {
        let body = exchange.body()?.bytes;
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))?;
        exchange.send(body)?;
        Ok(Then::Keep)
    })
}

impl RawVisitor {
    /// Connects and says all that there is to say.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn arrive(proxy: SocketAddr, random: &mut Random) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&proxy, PATIENCE)?;
        with_deadlines(&stream);
        let [up, down] = [0; 2].map(|_| random.below(BYTES_MAX));
        let seed = random.next();
        let mut said = [seed.to_be_bytes(), down.to_be_bytes()].concat();
        said.extend(Pattern::bytes(seed, up as usize));
        // Who is refused may be so before it has spoken.
        if (&stream).write_all(&said).is_ok() {
            stream.shutdown(Shutdown::Write).ok();
        }
        Ok(Self {
            stream,
            seed,
            up,
            down,
        })
    }

    /// Reads the answer to its end.
    ///
    /// # Errors
    /// What no visit may end by: wrong bytes, or a wait without end.
    pub fn leave(mut self) -> io::Result<Visit> {
        let mut first = [0];
        match self.stream.read(&mut first) {
            Ok(0) => return Ok(Visit::Refused),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Visit::Refused),
            read => read?,
        };
        served_or_cut(self.rest(first[0]))
    }

    fn rest(&mut self, first: u8) -> io::Result<()> {
        let mut counted = [first; 8];
        self.stream.read_exact(&mut counted[1..])?;
        if u64::from_be_bytes(counted) != self.up {
            return Err(wrong(format!("{} bytes were sent: {counted:?}", self.up)));
        }
        expect_pattern(&self.stream, !self.seed, self.down)?;
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(wrong("bytes after the end".to_owned())),
        }
    }
}

impl HttpVisitor {
    /// Connects for one request, and sends it.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn arrive(proxy: SocketAddr, random: &mut Random) -> io::Result<Self> {
        Ok(Self::ask(enter(proxy)?, "Connection: close\r\n", random))
    }

    /// Sends a request on a connection that is to be kept.
    pub fn stay(user: HttpUser, random: &mut Random) -> Self {
        Self::ask(user, "", random)
    }

    fn ask(user: HttpUser, fields: &str, random: &mut Random) -> Self {
        let length = random.below(BYTES_MAX) as usize;
        let body = Pattern::bytes(random.next(), length);
        Self::ask_with(user, fields, body)
    }

    fn ask_with(mut user: HttpUser, fields: &str, body: Vec<u8>) -> Self {
        let length = body.len();
        let head =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n");
        // Who is refused may be so before it has spoken.
        user.try_send([head.as_bytes(), &body].concat()).ok();
        Self { user, body }
    }

    /// Waits for the answer: whether the connection has ended before its first byte.
    fn is_unheard(&mut self) -> bool {
        match self.user.stream().fill_buf() {
            Ok(first) => first.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// The same request on another connection that is to be kept, where somebody listens.
    fn once_more(self, proxy: SocketAddr) -> Option<Self> {
        let user = enter(proxy).ok()?;
        Some(Self::ask_with(user, "", self.body))
    }

    /// Reads the answer; the connection is given back where it may be used again.
    ///
    /// # Errors
    /// As of [`RawVisitor::leave`].
    pub fn answer(mut self) -> io::Result<(Visit, Option<HttpUser>)> {
        let reply = match self.user.try_reply("POST") {
            Ok(reply) => reply,
            Err(error) => return served_or_cut(Err(error)).map(|visit| (visit, None)),
        };
        let kept = (!reply.closes()).then_some(self.user);
        match reply.status {
            200 if reply.body.bytes == self.body => Ok((Visit::Served, kept)),
            200 => Err(wrong("the answer is another's".to_owned())),
            502..=504 => Ok((Visit::Refused, kept)),
            status => Err(wrong(format!("{status}: {}", reply.text()))),
        }
    }
}

fn served_or_cut(read: io::Result<()>) -> io::Result<Visit> {
    match read {
        Ok(()) => Ok(Visit::Served),
        Err(error) => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Ok(Visit::Cut),
            _ => Err(error),
        },
    }
}

fn wrong(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}
