use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, TcpStream},
    sync::mpsc,
    thread,
};

use super::*;
use crate::{
    clock::Now,
    demo::part::Part,
    reactor::{
        mio_net::MioNet,
        net::{Address, Event, NameClass, Peer, Purpose},
    },
};

/// Longer than any step takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The origins on a thread of their own, which ends with this.
struct Running {
    addresses: Addresses,
    _part: Part,
}

fn running() -> Running {
    let (events, _) = mpsc::channel();
    let (part, addresses) =
        Part::start("origins", &events, Origins::serve).expect("loopback can be listened on");
    Running {
        addresses,
        _part: part,
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the origin listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// A user of the HTTP origin.
struct User(BufReader<TcpStream>);

impl User {
    fn of(running: &Running) -> User {
        User(BufReader::new(connect(running.addresses.http)))
    }

    fn send(&mut self, text: &str) {
        let sent = self.0.get_mut().write_all(text.as_bytes());
        sent.expect("the origin reads");
    }

    /// The head of the next response, and the length that it declares.
    fn head(&mut self) -> (String, u64) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).expect("a line");
            assert_ne!(read, 0, "closed in {head:?}");
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        (head, length)
    }

    /// The status line and body of the next response.
    fn answer(&mut self) -> (String, String) {
        let (head, length) = self.head();
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).expect("the whole body");
        let status = head.lines().next().unwrap_or_default().to_owned();
        (status, String::from_utf8(body).expect("text"))
    }

    fn get(&mut self, path: &str) -> (String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: origin\r\n\r\n"));
        self.answer()
    }

    #[track_caller]
    fn is_closed(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(rest, b"");
    }
}

fn hello(request: u32, connection: u32) -> (String, String) {
    (
        "HTTP/1.1 200 OK".into(),
        format!("Hello from the origin: request {request} on connection {connection}.\n"),
    )
}

#[test]
fn the_page_counts_connections_and_the_requests_on_each() {
    let running = running();
    let mut first = User::of(&running);
    assert_eq!(first.get("/"), hello(1, 1));
    let mut second = User::of(&running);
    assert_eq!(second.get("/?query"), hello(1, 2));
    assert_eq!(first.get("http://origin/"), hello(2, 1));
    assert_eq!(second.get("http://origin"), hello(2, 2));
}

#[test]
fn a_head_may_come_in_pieces_and_requests_in_a_row() {
    let running = running();
    let mut user = User::of(&running);
    let request = "GET / HTTP/1.1\r\nHost: origin\r\n\r\n";
    let (begin, end) = request.split_at(20);
    user.send(begin);
    user.send(&format!("{end}{request}{request}"));
    for number in 1..=3 {
        assert_eq!(user.answer(), hello(number, 1));
    }
}

#[test]
fn many_bytes_are_exactly_as_many() {
    let running = running();
    let mut user = User::of(&running);
    for length in [0, 1, 15, 16, 17, SCRATCH, SCRATCH + 1, 3_000_001] {
        let (status, body) = user.get(&format!("/bytes/{length}"));
        assert_eq!((status.as_str(), body.len()), ("HTTP/1.1 200 OK", length));
        let expected = b"0123456789abcde\n".iter().cycle();
        assert!(body.bytes().eq(expected.copied().take(length)), "{length}");
    }
    assert_eq!(user.get("/"), hello(9, 1));
}

#[test]
fn how_many_bytes_is_bounded() {
    let running = running();
    let mut user = User::of(&running);
    for path in ["/bytes/10000000001", "/bytes/-1", "/bytes/", "/bytes/x"] {
        let (status, body) = user.get(path);
        assert_eq!(status, "HTTP/1.1 404 Not Found", "{path}");
        assert!(body.contains("up to 10000000000"), "{path}: {body}");
    }
    user.send("HEAD /bytes/10000000000 HTTP/1.1\r\nHost: origin\r\n\r\n");
    assert_eq!(user.head().1, 10_000_000_000);
    assert_eq!(user.get("/"), hello(6, 1));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let running = running();
    let mut user = User::of(&running);
    for (path, status) in [("/", 200), ("/bytes/7", 200), ("/nothing", 404)] {
        user.send(&format!("HEAD {path} HTTP/1.1\r\nHost: origin\r\n\r\n"));
        let (head, length) = user.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_ne!(length, 0);
    }
    assert_eq!(user.get("/"), hello(4, 1));
}

#[test]
fn the_body_of_a_request_is_not_taken_for_the_next_one() {
    let running = running();
    let mut user = User::of(&running);
    let body = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = body.len();
    user.send(&format!(
        "POST / HTTP/1.1\r\nHost: origin\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    assert_eq!(user.answer(), hello(1, 1));
    user.send(&format!(
        "POST / HTTP/1.1\r\nHost: origin\r\nTransfer-Encoding: chunked\r\n\r\n\
         {length:x}\r\n{body}\r\n0\r\n\r\n"
    ));
    assert_eq!(user.answer(), hello(2, 1));
    assert_eq!(user.get("/"), hello(3, 1));
}

#[test]
fn a_body_that_is_offered_is_asked_for() {
    let running = running();
    let mut user = User::of(&running);
    user.send(
        "POST / HTTP/1.1\r\nHost: origin\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
    );
    assert_eq!(user.answer().0, "HTTP/1.1 100 Continue");
    user.send("abc");
    assert_eq!(user.answer(), hello(1, 1));
}

#[test]
fn what_is_not_understood_is_answered_and_closed() {
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(64 * 1024));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "505 HTTP Version Not Supported",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
            "501 Not Implemented",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "400 Bad Request",
        ),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let running = running();
        let mut user = User::of(&running);
        user.send(request);
        assert_eq!(user.answer().0, format!("HTTP/1.1 {status}"), "{request}");
        user.is_closed();
    }
}

#[test]
fn other_methods_and_paths_keep_the_connection() {
    let running = running();
    let mut user = User::of(&running);
    user.send("DELETE / HTTP/1.1\r\nHost: origin\r\n\r\n");
    assert_eq!(user.answer().0, "HTTP/1.1 501 Not Implemented");
    user.send("OPTIONS * HTTP/1.1\r\nHost: origin\r\n\r\n");
    assert_eq!(user.answer().0, "HTTP/1.1 501 Not Implemented");
    assert_eq!(user.get("/nothing").0, "HTTP/1.1 404 Not Found");
    assert_eq!(user.get("/"), hello(4, 1));
}

#[test]
fn who_does_not_keep_the_connection_has_it_closed() {
    let running = running();
    for (number, request) in [
        (1, "GET / HTTP/1.0\r\n\r\n"),
        (
            2,
            "GET / HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n",
        ),
    ] {
        let mut user = User::of(&running);
        user.send(request);
        assert_eq!(user.answer(), hello(1, number));
        user.is_closed();
    }
}

/// Bytes that repeat only after 251.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn the_echo_returns_what_came_before_a_half_close() {
    let running = running();
    let mut stream = connect(running.addresses.echo);
    stream.write_all(b"hello\n").expect("the echo reads");
    let mut line = [0; 6];
    stream.read_exact(&mut line).expect("the echo answers");
    assert_eq!(&line, b"hello\n");

    stream.write_all(b"and the rest").expect("the echo reads");
    stream.shutdown(Shutdown::Write).expect("a connection");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an orderly end");
    assert_eq!(rest, "and the rest");
}

#[test]
fn the_echo_returns_a_large_transfer_whole() {
    let running = running();
    let mut reader = connect(running.addresses.echo);
    let mut writer = reader.try_clone().expect("descriptors");
    let sent = pattern(16 << 20);
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).expect("the echo reads");
        writer.shutdown(Shutdown::Write).expect("a connection");
    });
    let mut returned = Vec::new();
    reader.read_to_end(&mut returned).expect("an orderly end");
    writing.join().expect("all was written");
    assert!(returned == sent, "{} bytes came back", returned.len());
}

#[test]
fn the_echo_reads_no_more_than_is_taken_from_it() {
    let running = running();
    let mut stream = connect(running.addresses.echo);
    let stalled = Some(Duration::from_millis(500));
    stream.set_write_timeout(stalled).expect("a socket");
    let piece = pattern(251 * 1024);
    let mut sent = 0;
    // The kernel's buffers on both ways take a few megabytes.
    let refused = loop {
        assert!(sent < 64 << 20, "the echo holds what nobody reads");
        match stream.write(&piece[sent % piece.len()..]) {
            Ok(written) => sent += written,
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(
        refused,
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));

    stream.shutdown(Shutdown::Write).expect("a connection");
    let mut returned = Vec::new();
    stream.read_to_end(&mut returned).expect("an orderly end");
    let expected = piece.iter().cycle().take(sent);
    assert_eq!(returned.len(), sent);
    assert!(returned.iter().eq(expected));
}

/// The operating system, with a clock that can be put forward.
struct Ahead {
    net: MioNet,
    by: Duration,
}

impl Net for Ahead {
    type Stream = <MioNet as Net>::Stream;
    type Listener = <MioNet as Net>::Listener;

    fn now(&mut self) -> Now {
        let now = self.net.now();
        Now {
            instant: now.instant + self.by,
            ..now
        }
    }

    fn random(&mut self, bytes: &mut [u8]) {
        self.net.random(bytes);
    }

    fn listen(&mut self, address: SocketAddr, key: Key) -> io::Result<Self::Listener> {
        self.net.listen(address, key)
    }

    fn local_address(&self, listener: &Self::Listener) -> io::Result<SocketAddr> {
        self.net.local_address(listener)
    }

    fn near_address(&self, stream: &Self::Stream) -> io::Result<SocketAddr> {
        self.net.near_address(stream)
    }

    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)> {
        self.net.accept(listener)
    }

    fn connect(&mut self, address: Address<'_>, purpose: Purpose) -> io::Result<Self::Stream> {
        self.net.connect(address, purpose)
    }

    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<Option<Peer>> {
        self.net.connected(stream)
    }

    fn register(&mut self, stream: &mut Self::Stream, key: Key) -> io::Result<()> {
        self.net.register(stream, key)
    }

    fn deregister(&mut self, stream: &mut Self::Stream) {
        self.net.deregister(stream);
    }

    fn prefer_latency(&mut self, stream: &mut Self::Stream) {
        self.net.prefer_latency(stream);
    }

    fn acknowledge(&mut self, stream: &mut Self::Stream) {
        self.net.acknowledge(stream);
    }

    fn shutdown(&mut self, stream: &mut Self::Stream) -> io::Result<()> {
        self.net.shutdown(stream)
    }

    fn abort(&mut self, stream: &mut Self::Stream) {
        self.net.abort(stream);
    }

    fn take_error(&mut self, stream: &mut Self::Stream) -> Option<io::Error> {
        self.net.take_error(stream)
    }

    fn peek(&mut self, stream: &mut Self::Stream) -> io::Result<usize> {
        self.net.peek(stream)
    }

    fn resolve(&mut self, name: &str, class: NameClass) {
        self.net.resolve(name, class);
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.net.poll(events, timeout)
    }
}

#[test]
fn connections_on_which_no_byte_moves_are_closed_after_a_minute() {
    let net = MioNet::new().expect("descriptors");
    let by = Duration::ZERO;
    let mut reactor = Reactor::new(Ahead { net, by });
    let (mut origins, addresses) = Origins::open(&mut reactor).expect("loopback");
    assert!(matches!(addresses.http.ip(), IpAddr::V4(ip) if ip.is_loopback()));
    let mut idle = [addresses.http, addresses.echo].map(connect);
    let mut partial = connect(addresses.http);
    partial.write_all(b"GET / HT").expect("room for a line");
    let turn = |reactor: &mut Reactor<Ahead, Owner>, origins: &mut Origins| {
        let _ = reactor.turn(origins, Flushed::Idle).expect("a selector");
    };
    let heard = |origins: &Origins| {
        origins.connections.len() == 3
            && origins
                .connections
                .iter()
                .any(|(_, connection)| !connection.is_at_rest())
    };
    while !heard(&origins) {
        turn(&mut reactor, &mut origins);
    }

    reactor.net().by = IDLE - Duration::from_secs(1);
    let mut fresh = connect(addresses.echo);
    while origins.connections.len() < 4 {
        turn(&mut reactor, &mut origins);
    }

    reactor.net().by = IDLE + Duration::from_secs(1);
    fresh.write_all(b"!").expect("the echo reads");
    while origins.connections.len() > 1 {
        turn(&mut reactor, &mut origins);
    }
    for stream in &mut idle {
        assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
    }
    let error = partial.read(&mut [0]).expect_err("it was cut off");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    fresh.set_nonblocking(true).expect("a socket");
    let mut echoed = [0];
    while fresh.read(&mut echoed).is_err() {
        turn(&mut reactor, &mut origins);
    }
    assert_eq!(&echoed, b"!");
    reactor.check_invariants();
}
