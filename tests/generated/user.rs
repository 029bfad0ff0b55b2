//! A user: sends what its script says, piece by piece, and keeps all that comes.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::{Condvar, Mutex},
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    common::{PATIENCE, with_deadlines},
    reader::{self, Found},
};

/// One thing to do.
#[derive(Debug)]
pub enum Step {
    /// Writes one piece.
    Send(Vec<u8>),
    /// Waits for a part of a response.
    Await(Mark),
    /// Has nothing more to say.
    Finish,
    /// Goes away without a word.
    Reset,
}

/// A part of the response to request number `exchange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// From 0.
    pub exchange: usize,
    /// How far.
    pub stage: Stage,
}

/// How far a response has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// An interim response is here, or more.
    Interim,
    /// The final head is here.
    Head,
    /// All of it is here.
    Done,
}

/// All that a user got.
#[derive(Debug)]
pub struct Received {
    /// In order.
    pub bytes: Vec<u8>,
    /// And then.
    pub end: End,
}

/// How a user's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By FIN.
    Closed,
    /// By RST.
    Reset,
    /// Not at all.
    Silent,
}

/// How far the responses have come, for whoever waits.
struct Progress {
    reached: Mutex<Reached>,
    news: Condvar,
}

struct Reached {
    mark: Option<Mark>,
    over: bool,
}

/// Connects `from` an address of loopback to a proxy, plays a script and reads to the end; `to_heads`
/// says of each request whether it is HEAD.
pub fn converse(
    proxy: SocketAddr,
    from: IpAddr,
    script: Vec<Step>,
    to_heads: &[bool],
) -> io::Result<Received> {
    let stream = connect(proxy, from)?;
    let waits = script.iter().any(|step| matches!(step, Step::Await(_)));
    let progress = Progress {
        reached: Mutex::new(Reached {
            mark: None,
            over: false,
        }),
        news: Condvar::new(),
    };
    thread::scope(|scope| {
        scope.spawn(|| send(&stream, script, &progress));
        let received = receive(&stream, to_heads, waits.then_some(&progress));
        progress.reached.lock().expect("no holder panics").over = true;
        progress.news.notify_all();
        // Whoever still sends has nobody left to send to.
        stream.shutdown(Shutdown::Both).ok();
        Ok(received)
    })
}

fn connect(proxy: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(proxy), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&proxy.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    with_deadlines(&stream);
    Ok(stream)
}

/// Plays the script, as far as the proxy takes it.
fn send(mut stream: &TcpStream, script: Vec<Step>, progress: &Progress) {
    for step in script {
        let sent = match step {
            Step::Send(piece) => {
                let sent = stream.write_all(&piece);
                // So that it leaves for itself more often than not.
                thread::yield_now();
                sent
            }
            Step::Await(mark) => match progress.wait_for(mark) {
                true => Ok(()),
                false => return,
            },
            Step::Finish => stream.shutdown(Shutdown::Write),
            Step::Reset => {
                let reset = SockRef::from(stream).set_linger(Some(Duration::ZERO));
                // Wakes the reading half; the last one to let go of the socket resets it.
                reset.and_then(|()| stream.shutdown(Shutdown::Read))
            }
        };
        if sent.is_err() {
            // What came back says why.
            return;
        }
    }
}

fn receive(mut stream: &TcpStream, to_heads: &[bool], progress: Option<&Progress>) -> Received {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let mut followed = Followed::default();
    let end = loop {
        match stream.read(&mut piece) {
            Ok(0) => break End::Closed,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break End::Silent,
            Err(_) => break End::Reset,
        }
        if let Some(progress) = progress {
            followed.follow(&bytes, to_heads);
            if let Some(mark) = followed.mark {
                progress.reach(mark);
            }
        }
    };
    Received { bytes, end }
}

/// The place in the responses up to which they have been read.
#[derive(Default)]
struct Followed {
    at: usize,
    exchange: usize,
    mark: Option<Mark>,
}

impl Followed {
    fn follow(&mut self, bytes: &[u8], to_heads: &[bool]) {
        while let Some(&to_head) = to_heads.get(self.exchange) {
            let stage = match reader::response(&bytes[self.at..], to_head) {
                Found::Whole { message, length } => {
                    self.at += length;
                    match message.status {
                        ..200 => Stage::Interim,
                        _ => Stage::Done,
                    }
                }
                Found::ContentCut(_) => Stage::Head,
                // It will not come; the verdict is for whoever sees all the bytes.
                Found::HeadCut | Found::HeadBroken(_) | Found::ContentBroken(_) => return,
            };
            self.mark = Some(Mark {
                exchange: self.exchange,
                stage,
            });
            match stage {
                Stage::Interim => {}
                Stage::Head => return,
                Stage::Done => self.exchange += 1,
            }
        }
    }
}

impl Progress {
    fn reach(&self, mark: Mark) {
        let mut reached = self.reached.lock().expect("no holder panics");
        if reached.mark < Some(mark) {
            reached.mark = Some(mark);
            self.news.notify_all();
        }
    }

    /// Waits for a mark; `false` when it will not be reached.
    fn wait_for(&self, mark: Mark) -> bool {
        let reached = self.reached.lock().expect("no holder panics");
        let waits = |reached: &mut Reached| !reached.over && reached.mark < Some(mark);
        let reached = self.news.wait_while(reached, waits);
        reached.expect("no holder panics").mark >= Some(mark)
    }
}
