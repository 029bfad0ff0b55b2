//! Sessions of every kind, all in the middle of something that has no end, until a fault ends them:
//! what came was right to the byte, and no end passes for that of a whole answer.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use super::{
    HttpOrigin, Origin, PATIENCE, Pattern, Then, connect, expect_pattern, reset, send_pattern,
};

/// More than all buffers on the way hold, and than loopback carries while a test lasts.
const ENDLESS: u64 = 1 << 40;

/// What has gone one way when a session counts as in its middle.
const BEGINNING: u64 = 1 << 20;

/// Bytes of a chunk, as sent; not a divisor of any window or batch.
const CHUNK: usize = 30_011;

/// What a target says before it ends its own half.
const GREETING: &[u8] = b"the last of this side";

/// Every kind of session.
const KINDS: [Kind; 8] = [
    Kind::Download,
    Kind::Echo,
    Kind::HalfClosedUser,
    Kind::HalfClosedTarget,
    Kind::Length,
    Kind::Chunked,
    Kind::UntilClose,
    Kind::Upload,
];

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Raw: the target sends.
    Download,
    /// Raw: both send.
    Echo,
    /// Raw: the user has ended its half, the target sends.
    HalfClosedUser,
    /// Raw: the target has ended its half, the user sends.
    HalfClosedTarget,
    /// HTTP: an answer that told its length.
    Length,
    /// HTTP: an answer in chunks.
    Chunked,
    /// HTTP/1.0: an answer that ends with its connection.
    UntilClose,
    /// HTTP: a request whose body goes on.
    Upload,
}

/// How a session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By FIN.
    Fin,
    /// By RST.
    Reset,
    /// By an answer that says that it failed.
    Refused,
}

/// How sessions have to be told that they were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Whoever would take a FIN for the end of all, by a reset.
    ByReset,
    /// As a process is that dies: its kernel ends the connections, and may do so by FIN.
    AsByDeath,
}

/// The targets of the sessions.
pub struct Targets {
    /// Of the raw ones.
    pub raw: Origin,
    /// Of the exchanges.
    pub http: HttpOrigin,
    garbled: Arc<Mutex<Vec<String>>>,
}

/// The sessions.
pub struct Traffic(Vec<Session>);

struct Session {
    kind: Kind,
    stream: TcpStream,
    running: thread::JoinHandle<io::Result<End>>,
}

impl Kind {
    fn is_raw(self) -> bool {
        match self {
            Kind::Download | Kind::Echo | Kind::HalfClosedUser | Kind::HalfClosedTarget => true,
            Kind::Length | Kind::Chunked | Kind::UntilClose | Kind::Upload => false,
        }
    }
}

impl Targets {
    /// Starts them.
    pub fn start() -> Self {
        let garbled = Arc::new(Mutex::new(Vec::new()));
        let (by_raw, by_http) = (Arc::clone(&garbled), Arc::clone(&garbled));
        let raw = Origin::start(move |stream| note(&by_raw, serve_raw(&stream)));
        let http = HttpOrigin::start(move |exchange| {
            match exchange.request.target.as_str() {
                "/length" => {
                    exchange.send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n"
                    ))?;
                    send_pattern(exchange.stream().get_mut(), seed(Kind::Length), ENDLESS)?;
                }
                "/chunked" => {
                    exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                    send_chunks(exchange.stream().get_mut(), seed(Kind::Chunked), |_| {})?;
                }
                "/close" => {
                    exchange.send("HTTP/1.1 200 OK\r\n\r\n")?;
                    send_pattern(exchange.stream().get_mut(), seed(Kind::UntilClose), ENDLESS)?;
                }
                "/upload" => {
                    let read = read_chunks(exchange.stream(), seed(Kind::Upload), |_| {});
                    note(&by_http, read.map(drop));
                    return Ok(Then::Close);
                }
                _ => {
                    exchange.body()?;
                    return exchange.greet();
                }
            }
            Ok(Then::Close)
        });
        Self { raw, http, garbled }
    }

    /// Waits until they serve nobody, and asserts that they have read nothing but what was sent.
    pub fn wait_until_left(&self) {
        self.raw.wait_for_open(0);
        self.http.wait_for_open(0);
        let garbled = self.garbled.lock().expect("no holder panics");
        assert_eq!(*garbled, [""; 0], "read by the targets");
        assert_eq!(self.http.garbled(), [""; 0], "read by the target of HTTP");
    }
}

impl Traffic {
    /// One session of each kind at the proxies `raw` and `http`, which lead to [`Targets`]: each has
    /// begun when this returns.
    pub fn start(raw: SocketAddr, http: SocketAddr) -> Self {
        let (begun, begin) = mpsc::channel();
        let start = |kind: Kind| {
            let begun = begun.clone();
            let stream = connect(match kind.is_raw() {
                true => raw,
                false => http,
            });
            let user = stream.try_clone().expect("there are descriptors");
            let running = thread::spawn(move || {
                let mut seen = 0;
                run(kind, user, &mut |count| {
                    if seen < BEGINNING && seen + count >= BEGINNING {
                        begun.send(kind).ok();
                    }
                    seen += count;
                })
            });
            Session {
                kind,
                stream,
                running,
            }
        };
        let sessions = KINDS.map(start).into();
        for _ in KINDS {
            let begun = begin.recv_timeout(PATIENCE);
            begun.expect("every session gets to its middle");
        }
        Self(sessions)
    }

    /// Waits until all have ended, and asserts that each was told that it was cut, and has seen no
    /// wrong byte before.
    pub fn assert_cut(self, told: Told) {
        for Session { kind, running, .. } in self.0 {
            let end = running.join().expect("a session does not panic");
            let end = end.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let is_told = match kind {
                Kind::Download | Kind::Echo | Kind::HalfClosedUser | Kind::UntilClose => {
                    end == End::Reset || told == Told::AsByDeath
                }
                // A FIN inside of a message is no end of it.
                Kind::Length | Kind::Chunked => end != End::Refused,
                // There is nothing else to tell it by.
                Kind::HalfClosedTarget => end == End::Reset,
                Kind::Upload => true,
            };
            assert!(is_told, "{kind:?} was ended by {end:?}");
        }
    }

    /// Ends all of them from here.
    pub fn leave(self) {
        for Session {
            stream, running, ..
        } in self.0
        {
            // Its thread sees the end of both halves. By a reset, since a kernel opens no window again for
            // whoever reads no more: the far end would wait for it for a minute.
            stream.shutdown(Shutdown::Both).ok();
            running.join().expect("a session does not panic").ok();
            reset(stream);
        }
    }
}

/// One session from the user's side, which tells `moved` what has gone its way.
fn run(kind: Kind, mut user: TcpStream, moved: &mut (impl FnMut(u64) + Send)) -> io::Result<End> {
    let seed = seed(kind);
    match kind {
        Kind::Download => {
            user.write_all(b"<")?;
            end_of_read(expect_counted(&user, seed, moved))
        }
        Kind::HalfClosedUser => {
            user.write_all(b")")?;
            user.shutdown(Shutdown::Write)?;
            end_of_read(expect_counted(&user, seed, moved))
        }
        Kind::HalfClosedTarget => {
            user.write_all(b"(")?;
            let mut greeting = Vec::new();
            user.read_to_end(&mut greeting)?;
            assert_eq!(greeting, GREETING);
            end_of_write(send_counted(&user, seed, moved))
        }
        Kind::Echo => {
            user.write_all(b"=")?;
            while_writing(
                &user,
                |user| send_pattern(user, seed, ENDLESS),
                |user| end_of_read(expect_counted(user, seed, moved)),
            )
        }
        Kind::Upload => {
            user.write_all(
                b"PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            while_writing(
                &user,
                |user| send_chunks(user, seed, moved),
                |user| {
                    let mut status = [0; 12];
                    match (&mut &*user).read_exact(&mut status) {
                        Ok(()) => assert!(
                            status.starts_with(b"HTTP/1.1 5"),
                            "{}",
                            String::from_utf8_lossy(&status)
                        ),
                        error => return end_of_read(error),
                    }
                    Ok(End::Refused)
                },
            )
        }
        Kind::Length | Kind::Chunked | Kind::UntilClose => {
            user.write_all(match kind {
                Kind::Length => b"GET /length HTTP/1.1\r\nHost: a\r\n\r\n",
                Kind::Chunked => b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n",
                _ => b"GET /close HTTP/1.0\r\nHost: a\r\n\r\n",
            })?;
            let mut reader = BufReader::new(user);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line)?;
            }
            end_of_read(match kind {
                Kind::Chunked => read_chunks(&mut reader, seed, moved),
                _ => expect_counted(&mut reader, seed, moved),
            })
        }
    }
}

/// Writes on a thread of its own while `read` reads; when that has seen its end, writing ends, too.
fn while_writing(
    user: &TcpStream,
    write: impl FnOnce(&TcpStream) -> io::Result<()> + Send,
    read: impl FnOnce(&TcpStream) -> io::Result<End>,
) -> io::Result<End> {
    thread::scope(|scope| {
        let writing = scope.spawn(|| write(user));
        let end = read(user);
        // It may be over already.
        user.shutdown(Shutdown::Both).ok();
        match writing.join().expect("it does not panic") {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            // A reset is told once: to the one of both that comes first.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => match end {
                Ok(End::Fin) => Ok(End::Reset),
                end => end,
            },
            _ => end,
        }
    })
}

fn serve_raw(mut stream: &TcpStream) -> io::Result<()> {
    let mut what = [0];
    stream.read_exact(&mut what)?;
    match &what {
        b"<" => send_pattern(stream, seed(Kind::Download), ENDLESS),
        b"=" => io::copy(&mut &*stream, &mut &*stream).map(drop),
        b")" => {
            if stream.read(&mut [0])? != 0 {
                return Err(ErrorKind::InvalidData.into());
            }
            send_pattern(stream, seed(Kind::HalfClosedUser), ENDLESS)
        }
        b"(" => {
            stream.write_all(GREETING)?;
            stream.shutdown(Shutdown::Write)?;
            expect_pattern(stream, seed(Kind::HalfClosedTarget), ENDLESS)
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// Chunks of the stream of `seed`, until they are not taken any more.
fn send_chunks(mut to: impl Write, seed: u64, mut moved: impl FnMut(u64)) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let head = format!("{CHUNK:x}\r\n");
    let mut chunk = vec![0; head.len() + CHUNK + 2];
    loop {
        chunk[..head.len()].copy_from_slice(head.as_bytes());
        pattern.fill(&mut chunk[head.len()..head.len() + CHUNK]);
        chunk[head.len() + CHUNK..].copy_from_slice(b"\r\n");
        to.write_all(&chunk)?;
        moved(CHUNK as u64);
    }
}

/// Reads chunks of the stream of `seed`, however it is cut into them, up to the end of the connection.
fn read_chunks(reader: &mut impl BufRead, seed: u64, mut moved: impl FnMut(u64)) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let (mut piece, mut expected) = (Vec::new(), Vec::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some(size) = line.strip_suffix("\r\n") else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
        piece.resize(size + 2, 0);
        reader.read_exact(&mut piece)?;
        expected.resize(size, 0);
        pattern.fill(&mut expected);
        expected.extend(b"\r\n");
        // The last chunk would be the end of a whole body, which there is not.
        if size == 0 || piece != expected {
            let message = format!("a chunk of {size} bytes that is not what was sent");
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
        expected.clear();
        moved(size as u64);
    }
}

/// [`expect_pattern`] of all that comes, which is told.
fn expect_counted(from: impl Read, seed: u64, moved: impl FnMut(u64)) -> io::Result<()> {
    expect_pattern(Counted { from, moved }, seed, ENDLESS)
}

/// [`send_pattern`] of all that goes, which is told.
fn send_counted(to: impl Write, seed: u64, moved: impl FnMut(u64)) -> io::Result<()> {
    send_pattern(Counted { from: to, moved }, seed, ENDLESS)
}

struct Counted<S, F> {
    from: S,
    moved: F,
}

impl<S: Read, F: FnMut(u64)> Read for Counted<S, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        (self.moved)(count as u64);
        Ok(count)
    }
}

impl<S: Write, F: FnMut(u64)> Write for Counted<S, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.from.write(bytes)?;
        (self.moved)(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.from.flush()
    }
}

/// How reading ended, where bytes that were not sent, or a wait without end, are no end at all.
fn end_of_read(read: io::Result<()>) -> io::Result<End> {
    match read.expect_err("what has no end is not read to it").kind() {
        ErrorKind::UnexpectedEof => Ok(End::Fin),
        ErrorKind::ConnectionReset => Ok(End::Reset),
        kind => Err(kind.into()),
    }
}

fn end_of_write(written: io::Result<()>) -> io::Result<End> {
    match written
        .expect_err("what has no end is not written to it")
        .kind()
    {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Ok(End::Reset),
        kind => Err(kind.into()),
    }
}

/// What is not as it was sent is kept; all other ends are those of the session.
fn note(garbled: &Mutex<Vec<String>>, served: io::Result<()>) {
    if let Err(error) = served
        && error.kind() == ErrorKind::InvalidData
    {
        let mut garbled = garbled.lock().expect("no holder panics");
        garbled.push(error.to_string());
    }
}

/// Every kind has bytes of its own: those of another are seen.
fn seed(kind: Kind) -> u64 {
    kind as u64 + 1
}
