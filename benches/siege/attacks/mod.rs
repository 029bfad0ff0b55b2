//! The attacks, by who attacks: a client, a user, the server of another client, a target of the honest one.

mod client;
mod server;
mod target;
mod user;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    attacker::Score,
    common::{Pattern, WebSocketPeer, pass, reset},
    ground::Ground,
};

/// How long an attacker waits for anything: longer than an attack lasts, shorter than the test's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it waits for a connection, where a listener may have all that it takes.
const CONNECTING: Duration = Duration::from_secs(1);

/// From one round of many connections to the next.
const ROUND: Duration = Duration::from_millis(20);

/// One way of doing harm.
pub struct Attack {
    /// Who attacks, and by what.
    pub name: &'static str,
    /// In a sentence.
    pub about: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Does it until the score says that it is over.
    pub run: fn(&Ground, &Score),
}

impl Attack {
    const fn new(
        name: &'static str,
        about: &'static str,
        unit: &'static str,
        run: fn(&Ground, &Score),
    ) -> Attack {
        Attack {
            name,
            about,
            unit,
            run,
        }
    }

    /// Whether it is the server of another client who attacks.
    pub fn is_servers(&self) -> bool {
        self.name.starts_with("server-")
    }
}

/// All of them, in the order of their table.
pub const ALL: &[Attack] = &[
    Attack::new(
        "client-wrong-token",
        "claims to be the honest client, without its token",
        "hellos",
        client::wrong_token,
    ),
    Attack::new(
        "client-stays",
        "is refused, and stays, and goes on sending",
        "hellos",
        client::stays,
    ),
    Attack::new(
        "client-bad-frames",
        "comes in by its own token, and breaks the protocol",
        "links",
        client::bad_frames,
    ),
    Attack::new(
        "client-resets",
        "exposes a port, and resets each of its accomplices' streams",
        "streams",
        client::resets,
    ),
    Attack::new(
        "client-overspends",
        "sends more to a user who does not read than it has credit for",
        "links",
        client::overspends,
    ),
    Attack::new(
        "client-floods",
        "comes in by its own token, and sends nothing but pings and frames of a few bytes",
        "floods",
        client::floods,
    ),
    Attack::new(
        "client-slow-handshakes",
        "500 at a time that say nothing, shake hands and are silent, or upgrade byte by byte",
        "handshakes",
        client::slow_handshakes,
    ),
    Attack::new(
        "user-half-open",
        "10,000 connections that say nothing",
        "connections",
        user::half_open,
    ),
    Attack::new(
        "user-half-open-tls",
        "1,000 connections that say nothing, where TLS is spoken",
        "connections",
        user::half_open_tls,
    ),
    Attack::new(
        "user-slow-heads",
        "1,000 requests that come byte by byte",
        "bytes",
        user::slow_heads,
    ),
    Attack::new(
        "user-giant-heads",
        "request heads that have no end",
        "heads",
        user::giant_heads,
    ),
    Attack::new(
        "user-garbage",
        "what is no TLS, where TLS is spoken: by users and by clients",
        "connections",
        user::garbage,
    ),
    Attack::new(
        "user-resets",
        "connects to each listener and resets",
        "connections",
        user::resets,
    ),
    Attack::new(
        "server-forbidden",
        "asks its client for targets that were not allowed",
        "streams",
        server::forbidden,
    ),
    Attack::new(
        "server-streams",
        "opens more streams than its client has room for",
        "streams",
        server::streams,
    ),
    Attack::new(
        "server-floods",
        "sends more to a target that does not read than it has credit for",
        "links",
        server::floods,
    ),
    Attack::new(
        "server-junk",
        "welcomes its client, and sends what is no frame",
        "links",
        server::junk,
    ),
    Attack::new(
        "target-deaf",
        "never reads, while users send it bodies",
        "requests",
        target::deaf,
    ),
    Attack::new(
        "target-endless-heads",
        "answers by a head that has no end",
        "requests",
        target::endless_heads,
    ),
    Attack::new(
        "target-endless-bodies",
        "answers by bodies that have no end, to users of whom most do not read",
        "requests",
        target::endless_bodies,
    ),
    Attack::new(
        "target-garbage",
        "answers by what is no HTTP",
        "requests",
        target::garbage,
    ),
    Attack::new(
        "target-closes",
        "closes or resets in the middle of anything",
        "requests",
        target::closes,
    ),
];

/// Connects; nobody waits for ever.
fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, CONNECTING)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads until the far end has had enough. The reset leaves no port in TIME-WAIT.
fn wait_for_end(mut stream: &TcpStream) {
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece), Ok(1..)) {}
    reset(stream);
}

/// More was sent than there was credit for: the link is closed for it, or reset.
fn expect_closed(link: &mut WebSocketPeer<impl Read + Write>, score: &Score) {
    loop {
        match link.read_frame() {
            Ok((0x8, _)) => return,
            Ok(_) => {}
            Err(error) => {
                if error.kind() == ErrorKind::WouldBlock {
                    score.fault("more was taken than there was credit for".to_owned());
                }
                return;
            }
        }
    }
}

/// Whether the far end of a connection that does not block has closed it.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Bytes that mean nothing.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    Pattern::bytes(seed as u64, length)
}

/// Keeps so many connections: each is begun anew when it has been closed, and in each round something is
/// done to it, which counts. Each thread has its share of them.
fn keep<C: Send>(
    score: &Score,
    threads: usize,
    count: usize,
    begin: impl Fn(usize) -> io::Result<C> + Sync,
    again: impl Fn(&mut C) -> io::Result<usize> + Sync,
) {
    let held = AtomicUsize::new(0);
    let (begin, again, held) = (&begin, &again, &held);
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let numbers = (thread..count).step_by(threads);
                let mut all: Vec<Option<C>> = numbers.clone().map(|_| None).collect();
                while !score.is_over() {
                    for (number, place) in numbers.clone().zip(&mut all) {
                        if place.is_none()
                            && !score.is_over()
                            && let Ok(connection) = begin(number)
                        {
                            *place = Some(connection);
                            let now = held.fetch_add(1, Ordering::Relaxed) + 1;
                            score.holds(now);
                        }
                        let Some(connection) = place else { continue };
                        match again(connection) {
                            Ok(count) => score.add(count),
                            Err(_) => {
                                *place = None;
                                held.fetch_sub(1, Ordering::Relaxed);
                            }
                        }
                    }
                    pass(ROUND);
                }
            });
        }
    });
}
