//! The origin: takes what comes for what a case has announced, to the byte, and plays its part.
//!
//! One listener serves all users of a lane, over whatever connections siding makes of them. A request is
//! known by its head, which holds its exchange's tag; one that nobody announced is a complaint. So is
//! every byte on a connection that was to carry nothing more.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::SockRef;

use crate::{
    common::Origin,
    message::Framing,
    model::{Arriving, trailer_section},
    reader::{self, chunked},
    seed::Tag,
};

/// What is expected of one request, and what is done about it.
pub struct Part {
    /// Whose it is.
    pub tag: Tag,
    /// For whoever reads of its failure.
    pub label: String,
    /// What must arrive, to the byte.
    pub arriving: Arriving,
    /// How much of it.
    pub coming: Coming,
    /// How often it may come: twice where its first connection may die without a word.
    pub visits_max: usize,
    /// What becomes of it if it comes on a connection that has served before.
    pub lost: Option<Lost>,
    /// Pieces that are sent when the head has come.
    pub first: Vec<Vec<u8>>,
    /// Pieces that are sent when all has come that is waited for.
    pub then: Vec<Vec<u8>>,
    /// What becomes of the connection.
    pub after: After,
    visits: AtomicUsize,
    came_fresh: AtomicBool,
    served: AtomicBool,
}

/// How a connection dies without a byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// When all of the request has come, not only its head.
    pub whole: bool,
    /// By RST.
    pub reset: bool,
}

/// How much of a request comes to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// All.
    Whole,
    /// All that is waited for is the head; the rest may come or be cut off.
    Early,
    /// Its head and some content perhaps, but never its end.
    Broken,
    /// Perhaps all, perhaps nothing: its user goes away.
    Abandoned,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It serves another exchange, or siding closes it.
    Keep,
    /// Siding closes it, without a further byte.
    Closed,
    /// The answer ends by closing it.
    Close,
    /// It is reset.
    Reset,
}

/// An origin and what is announced to it.
pub struct Announced {
    origin: Origin,
    desk: Arc<Desk>,
}

/// Where the cases and the connections meet.
#[derive(Default)]
struct Desk {
    parts: Mutex<Vec<Arc<Part>>>,
    complaints: Mutex<Vec<String>>,
    served: AtomicUsize,
    lost: AtomicUsize,
}

impl Part {
    /// A part that nobody has seen yet.
    pub fn new(tag: Tag, label: String, arriving: Arriving) -> Self {
        Self {
            tag,
            label,
            arriving,
            coming: Coming::Whole,
            visits_max: 1,
            lost: None,
            first: Vec::new(),
            then: Vec::new(),
            after: After::Keep,
            visits: AtomicUsize::new(0),
            came_fresh: AtomicBool::new(false),
            served: AtomicBool::new(false),
        }
    }

    /// Whether its request came as it should and its answer was sent.
    pub fn is_served(&self) -> bool {
        self.served.load(Ordering::SeqCst)
    }

    fn complaint(&self, text: impl std::fmt::Display) -> String {
        format!("the origin, {}: {text}", self.label)
    }
}

impl Announced {
    /// Listens on loopback.
    pub fn start() -> Self {
        let desk = Arc::new(Desk::default());
        let of_connections = Arc::clone(&desk);
        let origin = Origin::start(move |stream| {
            let mut connection = Connection {
                stream,
                bytes: Vec::new(),
                before: 0,
                desk: &of_connections,
            };
            if let Err(complaint) = connection.serve() {
                of_connections.complain(complaint);
            }
        });
        Self { origin, desk }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.origin.accepted()
    }

    /// Requests answered so far.
    pub fn served(&self) -> usize {
        self.desk.served.load(Ordering::SeqCst)
    }

    /// Requests that were lost with their connection so far.
    pub fn lost(&self) -> usize {
        self.desk.lost.load(Ordering::SeqCst)
    }

    /// Says what is to come.
    pub fn announce(&self, parts: impl IntoIterator<Item = Arc<Part>>) {
        let mut announced = self.desk.parts.lock().expect("no holder panics");
        announced.extend(parts);
    }

    /// Nothing of these is to come any more.
    pub fn withdraw(&self, parts: &[Arc<Part>]) {
        let mut announced = self.desk.parts.lock().expect("no holder panics");
        announced.retain(|part| !parts.iter().any(|gone| Arc::ptr_eq(part, gone)));
    }

    /// What went wrong so far, taken.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.desk.complaints.lock().expect("no holder panics"))
    }
}

impl Desk {
    fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock().expect("no holder panics");
        complaints.push(complaint);
    }

    /// The part whose head this is.
    fn find(&self, head: &[u8]) -> Result<Arc<Part>, String> {
        let parts = self.parts.lock().expect("no holder panics");
        if let Some(part) = parts.iter().find(|part| part.arriving.head == head) {
            return Ok(Arc::clone(part));
        }
        let tagged = parts.iter().find(|part| {
            let tag = part.tag.to_string();
            head.windows(tag.len())
                .any(|window| window == tag.as_bytes())
        });
        Err(match tagged {
            Some(part) => part.complaint(format_args!(
                "received\n{}\ninstead of\n{}",
                head.escape_ascii(),
                part.arriving.head.escape_ascii()
            )),
            None => format!(
                "the origin received what nobody has sent:\n{}",
                head.escape_ascii()
            ),
        })
    }
}

/// One connection that siding has made.
struct Connection<'d> {
    stream: TcpStream,
    /// Read and not yet understood.
    bytes: Vec<u8>,
    /// Requests that it has brought before this one.
    before: usize,
    desk: &'d Desk,
}

/// What a read brought.
#[derive(PartialEq, Eq)]
enum Came {
    Bytes,
    /// The end of the connection, orderly or not.
    End,
    /// Nothing, for longer than anything may take.
    Nothing,
}

impl Connection<'_> {
    fn serve(&mut self) -> Result<(), String> {
        while let Some(head) = self.head()? {
            let part = self.desk.find(&head)?;
            if !self.play(&part)? {
                return Ok(());
            }
            self.before += 1;
        }
        Ok(())
    }

    /// Plays a part; whether the connection may serve another.
    fn play(&mut self, part: &Part) -> Result<bool, String> {
        let visits = part.visits.fetch_add(1, Ordering::SeqCst) + 1;
        if visits > part.visits_max {
            return Err(part.complaint(format_args!("came {visits} times")));
        }
        let fresh = self.before == 0;
        if visits == 1 {
            part.came_fresh.store(fresh, Ordering::SeqCst);
        } else if !fresh || part.came_fresh.load(Ordering::SeqCst) {
            // RFC 9112 §9.3.1 allows it for what died while it was idle, and once.
            return Err(part.complaint("sent again from a fresh connection, or to a used one"));
        }
        if let Some(lost) = part.lost
            && !fresh
        {
            self.desk.lost.fetch_add(1, Ordering::SeqCst);
            // A user that waits for an interim response sends no content before it.
            if lost.whole && part.first.is_empty() {
                self.content(part)?;
            }
            if lost.reset {
                self.reset_at_end();
            }
            return Ok(false);
        }
        let sent = self.send(&part.first);
        let whole = part.coming == Coming::Early || self.content(part)?;
        match (part.coming, whole) {
            (Coming::Whole, false) => {
                return Err(part.complaint("ended before its content did"));
            }
            (Coming::Broken, true) => {
                return Err(part.complaint("was broken, and looks whole"));
            }
            (Coming::Broken | Coming::Abandoned, false) => return Ok(false),
            _ => {}
        }
        // Before its user can have the answer, and look.
        part.served.store(true, Ordering::SeqCst);
        self.desk.served.fetch_add(1, Ordering::SeqCst);
        let sent = sent.and_then(|()| self.send(&part.then));
        if part.after == After::Reset {
            self.reset_at_end();
            return Ok(false);
        }
        if let Err(error) = sent {
            // Of those who have gone away, and of those who have seen enough, it is no wonder.
            return match (part.coming, part.after) {
                (Coming::Whole | Coming::Early, After::Keep) => {
                    Err(part.complaint(format_args!("while it was answered: {error}")))
                }
                _ => Ok(false),
            };
        }
        if part.after == After::Close {
            // It may be gone already.
            self.stream.shutdown(Shutdown::Write).ok();
        }
        if part.coming == Coming::Early && !self.content(part)? {
            return Ok(false);
        }
        if part.after == After::Keep {
            return Ok(true);
        }
        match self.bytes.is_empty().then(|| self.read()) {
            Some(Came::End) => Ok(false),
            Some(Came::Nothing) => Err(part.complaint("its connection is not closed")),
            Some(Came::Bytes) | None => Err(part.complaint(format_args!(
                "the connection was not to be used again, and brought\n{}",
                self.bytes.escape_ascii()
            ))),
        }
    }

    /// Reads a head; `None` when the connection ends instead.
    fn head(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                return Ok(Some(self.bytes.drain(..end + 4).collect()));
            }
            match self.read() {
                Came::Bytes => {}
                // Parked.
                Came::Nothing if self.bytes.is_empty() => {}
                Came::End if self.bytes.is_empty() => return Ok(None),
                Came::End | Came::Nothing => {
                    return Err(format!(
                        "the origin received half a head:\n{}",
                        self.bytes.escape_ascii()
                    ));
                }
            }
        }
    }

    /// Reads the content and compares it as it comes; whether all of it did.
    fn content(&mut self, part: &Part) -> Result<bool, String> {
        let expected = &part.arriving.content;
        loop {
            let whole = match expected.framing {
                Framing::None => Some(0),
                Framing::Length => {
                    // What is broken was told to be longer than it is.
                    let length = match part.coming {
                        Coming::Broken => usize::MAX,
                        _ => expected.bytes.len(),
                    };
                    let here = self.bytes.len().min(length);
                    self.compare(part, &self.bytes[..here])?;
                    (here == length).then_some(length)
                }
                Framing::Chunked => {
                    let chunks = chunked(&self.bytes);
                    if chunks.broken || chunks.odd_sizes {
                        return Err(part.complaint(format_args!(
                            "its chunks are broken or odd:\n{}",
                            self.bytes.escape_ascii()
                        )));
                    }
                    self.compare(part, &chunks.content)?;
                    if chunks.length.is_some() {
                        self.compare_end(part, &chunks)?;
                    }
                    chunks.length
                }
                Framing::UntilClose => unreachable!("no request ends by closing"),
            };
            if let Some(length) = whole {
                self.bytes.drain(..length);
                return Ok(true);
            }
            match self.read() {
                Came::Bytes => {}
                Came::End => return Ok(false),
                Came::Nothing => return Err(part.complaint("its content stands still")),
            }
        }
    }

    fn compare(&self, part: &Part, content: &[u8]) -> Result<(), String> {
        let expected = &part.arriving.content.bytes;
        if expected.get(..content.len()) == Some(content) {
            return Ok(());
        }
        let same = content.iter().zip(expected).take_while(|(a, b)| a == b);
        let same = same.count();
        let end = content.len().min(same + 80);
        Err(part.complaint(format_args!(
            "byte {same} of its content ({} expected) is\n{}",
            expected.len(),
            content[same..end].escape_ascii()
        )))
    }

    fn compare_end(&self, part: &Part, chunks: &reader::Chunked) -> Result<(), String> {
        let expected = &part.arriving.content;
        if part.coming == Coming::Broken {
            return Ok(());
        }
        if chunks.content.len() != expected.bytes.len() {
            return Err(part.complaint(format_args!(
                "{} bytes of content instead of {}",
                chunks.content.len(),
                expected.bytes.len()
            )));
        }
        if chunks.trailers != expected.trailers {
            return Err(part.complaint(format_args!(
                "the trailers are\n{}\ninstead of\n{}",
                trailer_section(&chunks.trailers).escape_ascii(),
                trailer_section(&expected.trailers).escape_ascii()
            )));
        }
        Ok(())
    }

    /// The connection is going to be closed by RST.
    fn reset_at_end(&self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a TCP stream has the option");
    }

    fn read(&mut self) -> Came {
        let mut piece = vec![0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Came::End,
            Ok(count) => {
                self.bytes.extend_from_slice(&piece[..count]);
                Came::Bytes
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Came::Nothing,
            Err(_) => Came::End,
        }
    }

    fn send(&mut self, pieces: &[Vec<u8>]) -> io::Result<()> {
        for piece in pieces {
            self.stream.write_all(piece)?;
            // So that it leaves for itself more often than not.
            thread::yield_now();
        }
        Ok(())
    }
}
