//! What the end-to-end tests are made of: the real binary as child processes, origins on threads,
//! users that check every byte, and real programs where they are installed.
//!
//! Nothing here sleeps for the sake of timing. A test waits for an event: a line of a log, a byte,
//! the end of a stream. Where the only witness is a file of the kernel, [`eventually`] looks again
//! until a deadline.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file is a crate of its own and uses its own part of this"
)]

mod browser;
mod connect_proxy;
mod haproxy;
mod hosts;
mod http;
mod kernel;
mod log;
mod metrics;
mod nginx;
mod origin;
mod pattern;
mod process;
mod programs;
mod scratch;
#[cfg(target_os = "linux")]
mod service_manager;
mod sock_diag;
mod tls;
mod traffic;
pub mod tunnel;
mod visitors;
pub mod websocket;

use std::{
    borrow::Borrow,
    env,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
pub use self::service_manager::ServiceManager;
pub use self::{
    browser::{Browser, chromium},
    connect_proxy::{ConnectProxy, Lead},
    haproxy::Haproxy,
    hosts::{Host, Hosts},
    http::{Body, Ended, Exchange, HttpOrigin, HttpUser, Reply, Request, Then},
    kernel::{
        connections_to, free_port, raise_descriptor_limit, unread_by_far_end, wait_until_all_read,
        wait_until_closed_by, wait_until_read,
    },
    log::Log,
    metrics::Metrics,
    nginx::Nginx,
    origin::{Origin, converse, digest_reply},
    pattern::{Pattern, Random, expect_pattern, send_pattern},
    process::{Finished, Process, run},
    programs::{Sshd, curl, obey_no_proxy, wget},
    scratch::Scratch,
    tls::{Authority, TlsUser, Wire, tls_user},
    traffic::{Targets, Told, Traffic},
    tunnel::{Builder, CLIENT, Siding, Tunnel},
    visitors::{STAYING, Tally, echoing_bodies, visited},
    websocket::{Refusal, WebSocketPeer, text_of_http_answer},
};

/// How long anything may take before a test gives up on it. Generous, since two busy cores may be
/// all there is; no test that passes waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How soon the far end must know of a reset, and a user of a refusal: late on a busy machine, and still
/// before any deadline by which it could be known otherwise.
pub const AT_ONCE: Duration = Duration::from_secs(5);

/// How often [`eventually`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something to see, for at most [`PATIENCE`].
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// Looks until there is something to see, for at most `limit`.
pub fn eventually_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        pass(LOOK_EVERY);
    }
}

/// Lets `span` pass: for measurements *over* a span, never to give something time to happen.
pub fn pass(span: Duration) {
    let (_silent, never) = mpsc::channel::<()>();
    assert_eq!(
        never.recv_timeout(span),
        Err(mpsc::RecvTimeoutError::Timeout)
    );
}

/// Connects as a user does, with deadlines on every read and write.
pub fn connect(address: SocketAddr) -> TcpStream {
    let connected = TcpStream::connect_timeout(&address, PATIENCE);
    let stream = or_already_reset(connected, address);
    with_deadlines(&stream);
    stream
}

/// Who is connected, and reset before it has heard of that, is told of no connection. It is one like any other
/// that is reset at once, so it gets one that is.
fn or_already_reset(connected: io::Result<TcpStream>, to: SocketAddr) -> TcpStream {
    match connected {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
            let address = listener.local_addr().expect("it is bound");
            let stream = TcpStream::connect(address).expect("it listens");
            let (far, _) = listener.accept().expect("it has connected");
            reset(far);
            stream
        }
        connected => connected.unwrap_or_else(|error| panic!("connecting to {to}: {error}")),
    }
}

/// Connects as a user from another address of this machine, such as 127.0.7.1.
pub fn connect_from(from: impl Into<IpAddr>, to: SocketAddr) -> TcpStream {
    let stream = or_already_reset(try_connect_from(from, to), to);
    with_deadlines(&stream);
    stream
}

/// The same for one who may be reset before it knows that it is connected.
pub fn try_connect_from(from: impl Into<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(to),
        socket2::Type::STREAM,
        None,
    );
    let socket = socket.expect("a socket");
    let from = SocketAddr::new(from.into(), 0);
    socket.bind(&from.into()).expect("an address of loopback");
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    with_deadlines(&stream);
    Ok(stream)
}

/// Gives a stream deadlines, so that a test that would hang fails instead.
pub fn with_deadlines(stream: &TcpStream) {
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("PATIENCE is not zero");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("PATIENCE is not zero");
    stream
        .set_nodelay(true)
        .expect("a TCP stream has the option");
}

/// Closes a stream by RST, when it is dropped.
pub fn reset(stream: impl Borrow<TcpStream>) {
    socket2::SockRef::from(stream.borrow())
        .set_linger(Some(Duration::ZERO))
        .expect("a TCP stream has the option");
}

/// Asserts that the far end closes in order, without a further byte.
#[track_caller]
pub fn expect_end(mut user: &TcpStream) {
    assert_eq!(
        user.read(&mut [0]).expect("an end, not a reset"),
        0,
        "nothing follows"
    );
}

/// One byte there and back.
#[track_caller]
pub fn echoes(mut user: &TcpStream) {
    user.write_all(b"?").unwrap();
    let mut byte = [0];
    user.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"?");
}

/// The proxy takes the user, since its port is open, and ends the connection before `AT_ONCE`.
#[track_caller]
pub fn expect_closed_at_once(proxy: SocketAddr) {
    let start = Instant::now();
    // The reset may be there before connecting has returned.
    let read = TcpStream::connect_timeout(&proxy, PATIENCE).and_then(|mut user| {
        user.set_read_timeout(Some(AT_ONCE))?;
        user.read(&mut [0])
    });
    match read {
        Ok(0) => {}
        Ok(_) => panic!("bytes from nowhere"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert!(start.elapsed() < AT_ONCE);
}

/// Who comes from there and says this is reset before `AT_ONCE`: it may be before it knows that it is connected.
#[track_caller]
pub fn expect_reset(from: impl Into<IpAddr>, to: SocketAddr, said: &[u8]) {
    let start = Instant::now();
    let answer = try_connect_from(from, to).and_then(|mut user| {
        user.write_all(said)?;
        user.read(&mut [0])
    });
    let kind = answer.map_err(|error| error.kind());
    assert!(
        matches!(
            kind,
            Err(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        ),
        "{kind:?}"
    );
    assert!(start.elapsed() < AT_ONCE);
}

/// An address of loopback where connecting is refused.
pub fn refusing() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// Where a real program is, or `None` (with a line that says so) when it is not installed.
///
/// # Panics
/// When it is missing and SIDING_REQUIRE_TOOLS=1: there a skipped test would be a lie.
pub fn require(program: &str) -> Option<PathBuf> {
    // Daemons live where an ordinary user's PATH often does not look.
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        assert!(
            env::var_os("SIDING_REQUIRE_TOOLS").is_none_or(|value| value != "1"),
            "{program} is not installed and SIDING_REQUIRE_TOOLS=1"
        );
        println!("skipped: {program} is not installed");
    }
    found
}
