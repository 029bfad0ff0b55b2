use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream as StdStream},
    thread,
};

use super::*;
use crate::reactor::{Accepted, Deadline, Flushed, Found, Reactor, Role};

/// Far more than loopback needs: a test that meets it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const LISTENER: u32 = 1;
const CLIENT: u32 = 2;
const SERVER: u32 = 3;

fn key(index: u32) -> Key {
    Key { index, serial: 0 }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn net() -> MioNet {
    MioNet::new().expect("a selector")
}

/// Polls until `done` answers, which sees each event once.
fn wait<T>(net: &mut MioNet, mut done: impl FnMut(&mut MioNet, Event) -> Option<T>) -> T {
    let begun = Instant::now();
    let mut events = Vec::new();
    while begun.elapsed() < PATIENCE {
        net.poll(&mut events, Some(PATIENCE)).expect("poll");
        for event in events.drain(..) {
            if let Some(answer) = done(net, event) {
                return answer;
            }
        }
    }
    panic!("the event did not come");
}

/// Polls until the socket registered under `index` is ready as `wanted` says.
fn ready(net: &mut MioNet, index: u32, wanted: impl Fn(Ready) -> bool) {
    wait(net, |_, event| match event {
        Event::Ready { index: at, ready } if at == index && wanted(ready) => Some(()),
        _ => None,
    });
}

/// Repeats a call until it is no longer refused, waiting for events in between.
fn blocking<T>(
    net: &mut MioNet,
    mut call: impl FnMut(&mut MioNet) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match call(net) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(net, |_, _| Some(())),
            outcome => return outcome,
        }
    }
}

/// A listener, and a connection to it made with the standard library.
fn accepted(net: &mut MioNet) -> (Stream, StdStream) {
    let mut listener = net.listen(loopback(), key(LISTENER)).expect("listen");
    let client = StdStream::connect(listener.local_addr().expect("an address")).expect("connect");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut stream, peer) = blocking(net, |net| net.accept(&mut listener)).expect("accept");
    assert_eq!(peer, client.local_addr().expect("an address"));
    net.register(&mut stream, key(SERVER)).expect("register");
    (stream, client)
}

#[test]
fn a_connection_is_made_accepted_and_echoes() {
    let net = &mut net();
    let mut listener = net.listen(loopback(), key(LISTENER)).expect("listen");
    let address = net.local_address(&listener).expect("an address");
    assert_ne!(address.port(), 0);
    assert_eq!(
        net.accept(&mut listener).expect_err("nobody came").kind(),
        ErrorKind::WouldBlock
    );

    let mut client = net
        .connect(Address::Inet(address), Purpose::Target)
        .expect("connect");
    net.register(&mut client, key(CLIENT)).expect("register");
    ready(net, CLIENT, |ready| ready.writable);
    assert_eq!(
        net.connected(&mut client).expect("connected"),
        Some(Peer::Inet(address))
    );

    let (mut server, peer) = blocking(net, |net| net.accept(&mut listener)).expect("accept");
    let local = client.tcp().expect("it is TCP").local_addr();
    assert_eq!(Some(peer), local.expect("an address").as_socket());
    net.register(&mut server, key(SERVER)).expect("register");
    assert_eq!(client.write(b"ping").expect("room"), 4);
    let mut buffer = [0; 16];
    assert_eq!(
        blocking(net, |_| server.read(&mut buffer)).expect("bytes"),
        4
    );
    assert_eq!(server.write(&buffer[..4]).expect("room"), 4);
    assert_eq!(
        blocking(net, |_| client.read(&mut buffer)).expect("bytes"),
        4
    );
    assert_eq!(&buffer[..4], b"ping");
    assert_eq!(
        client.read(&mut buffer).expect_err("no more").kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn a_refused_connection_tells_why() {
    let net = &mut net();
    // Bound, so that nobody else gets the port, and not listening.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    bound.bind(&loopback().into()).expect("bind");
    let address = bound
        .local_addr()
        .expect("an address")
        .as_socket()
        .expect("an IP address");
    // The system may know at once, or only when it says that the attempt has ended.
    let refusal = match net.connect(Address::Inet(address), Purpose::Target) {
        Err(error) => error,
        Ok(mut stream) => {
            net.register(&mut stream, key(CLIENT)).expect("register");
            ready(net, CLIENT, |ready| ready.writable || ready.error);
            net.connected(&mut stream).expect_err("nobody listens")
        }
    };
    assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn an_attempt_under_way_has_not_ended() {
    let net = &mut net();
    // A listener whose queue is full: the kernel drops the handshake's last part and the next SYN.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    full.bind(&loopback().into()).expect("bind");
    full.listen(0).expect("listen");
    let address = full
        .local_addr()
        .expect("an address")
        .as_socket()
        .expect("an IP address");
    let mut attempts: Vec<_> = (0..8)
        .map(|_| {
            net.connect(Address::Inet(address), Purpose::Target)
                .expect("connect")
        })
        .collect();
    let last = attempts.last_mut().expect("there are eight");
    assert_eq!(net.connected(last).expect("no error"), None);
}

#[test]
fn accepted_sockets_inherit_the_options_of_their_listener() {
    let net = &mut net();
    let (stream, _client) = accepted(net);
    let socket = stream.tcp().expect("it is TCP");
    assert!(socket.tcp_nodelay().expect("an option"));
    assert!(socket.keepalive().expect("an option"));
    assert_eq!(
        socket.tcp_keepalive_time().expect("an option"),
        KEEPALIVE_IDLE
    );
    assert_eq!(
        socket.tcp_keepalive_interval().expect("an option"),
        KEEPALIVE_INTERVAL
    );
    assert_eq!(
        socket.tcp_keepalive_retries().expect("an option"),
        KEEPALIVE_PROBES
    );
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn links_have_a_short_queue_and_a_time_limit_and_others_do_not() {
    let net = &mut net();
    let listener = net.listen(loopback(), key(LISTENER)).expect("listen");
    let address = net.local_address(&listener).expect("an address");
    let options = |stream: &Stream| {
        let socket = stream.tcp().expect("it is TCP");
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        let lowat = socket.tcp_notsent_lowat().expect("an option");
        (lowat, socket.tcp_user_timeout().expect("an option"))
    };
    let mut target = net
        .connect(Address::Inet(address), Purpose::Target)
        .expect("connect");
    let (lowat, limit) = options(&target);
    assert_ne!(lowat, LINK_UNSENT_MAX);
    assert_eq!(limit, None);
    let link = net
        .connect(Address::Inet(address), Purpose::Link)
        .expect("connect");
    assert_eq!(
        options(&link),
        (LINK_UNSENT_MAX, Some(LINK_UNACKNOWLEDGED_MAX))
    );
    net.prefer_latency(&mut target);
    assert_eq!(options(&target), options(&link));
}

#[test]
fn an_aborted_stream_resets_its_peer() {
    let net = &mut net();
    let (mut stream, mut client) = accepted(net);
    net.abort(&mut stream);
    drop(stream);
    let error = client.read(&mut [0; 8]).expect_err("no orderly end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_shows_as_an_event_and_an_error() {
    let net = &mut net();
    let (mut stream, client) = accepted(net);
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("an option");
    drop(client);
    ready(net, SERVER, |ready| ready.error && ready.closed);
    let error = net
        .take_error(&mut stream)
        .expect("a reset leaves an error");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(net.take_error(&mut stream).is_none(), "it is cleared");
}

#[test]
fn a_shut_down_stream_ends_its_peers_reading_and_still_reads() {
    let net = &mut net();
    let (mut stream, mut client) = accepted(net);
    assert_eq!(stream.write(b"bye").expect("room"), 3);
    net.shutdown(&mut stream).expect("shutdown");
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("an orderly end");
    assert_eq!(received, b"bye");

    client.write_all(b"late").expect("the other half is open");
    let mut buffer = [0; 8];
    assert_eq!(
        blocking(net, |_| stream.read(&mut buffer)).expect("bytes"),
        4
    );
    drop(client);
    assert_eq!(
        blocking(net, |_| stream.read(&mut buffer)).expect("the end"),
        0
    );
}

#[test]
fn peeking_takes_nothing_and_sees_the_end() {
    let net = &mut net();
    let (mut stream, mut client) = accepted(net);
    assert_eq!(
        net.peek(&mut stream).expect_err("nothing yet").kind(),
        ErrorKind::WouldBlock
    );
    client.write_all(b"ab").expect("room");
    for _ in 0..2 {
        assert_eq!(
            blocking(net, |net| net.peek(&mut stream)).expect("a byte"),
            1
        );
    }
    let mut buffer = [0; 8];
    assert_eq!(stream.read(&mut buffer).expect("bytes"), 2);
    drop(client);
    ready(net, SERVER, |ready| ready.closed);
    assert_eq!(net.peek(&mut stream).expect("the end"), 0);
}

/// A directory of one test, gone when the test is.
#[cfg(unix)]
struct Directory(std::path::PathBuf);

#[cfg(unix)]
impl Directory {
    fn new(test: &str) -> Directory {
        let name = format!("siding-net-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Directory(path)
    }

    fn path(&self, name: &str) -> String {
        let path = self.0.join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}

#[cfg(unix)]
impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A connection to a unix socket, and its other end.
#[cfg(unix)]
fn over_unix(net: &mut MioNet, directory: &Directory) -> (Stream, std::os::unix::net::UnixStream) {
    let path = directory.path("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a fresh path");
    let mut stream = net
        .connect(Address::Unix(&path), Purpose::Target)
        .expect("connect");
    // No event need be waited for.
    assert_eq!(
        net.connected(&mut stream).expect("connected"),
        Some(Peer::Unix)
    );
    net.register(&mut stream, key(CLIENT)).expect("register");
    ready(net, CLIENT, |ready| ready.writable);
    let (far, _) = listener.accept().expect("it has connected");
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (stream, far)
}

#[cfg(unix)]
#[test]
fn a_unix_socket_echoes_ends_by_halves_and_is_peeked_at() {
    let net = &mut net();
    let directory = Directory::new("echo");
    let (mut stream, mut far) = over_unix(net, &directory);
    assert!(stream.tcp().is_none(), "options of TCP are none of its");
    // Asked for all the same, they are nothing.
    net.prefer_latency(&mut stream);
    net.acknowledge(&mut stream);
    assert_eq!(
        net.peek(&mut stream).expect_err("nothing yet").kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(stream.write(b"ping").expect("room"), 4);
    net.shutdown(&mut stream).expect("shutdown");
    let mut received = Vec::new();
    far.read_to_end(&mut received).expect("an orderly end");
    assert_eq!(received, b"ping");
    far.write_all(b"pong").expect("the other half is open");
    ready(net, CLIENT, |ready| ready.readable);
    let mut buffer = [0; 8];
    assert_eq!(net.peek(&mut stream).expect("a byte"), 1);
    assert_eq!(stream.read(&mut buffer).expect("bytes"), 4);
    drop(far);
    ready(net, CLIENT, |ready| ready.closed);
    assert_eq!(net.peek(&mut stream).expect("the end"), 0);
    assert_eq!(stream.read(&mut buffer).expect("the end"), 0);
    assert!(net.take_error(&mut stream).is_none());
}

#[cfg(target_os = "linux")]
#[test]
fn a_unix_socket_closed_on_unread_bytes_is_reset() {
    let net = &mut net();
    let directory = Directory::new("reset");
    let (mut stream, far) = over_unix(net, &directory);
    assert_eq!(stream.write(b"unread").expect("room"), 6);
    drop(far);
    ready(net, CLIENT, |ready| ready.error && ready.closed);
    let error = net.take_error(&mut stream).expect("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[cfg(unix)]
#[test]
fn a_unix_socket_that_cannot_be_connected_tells_why() {
    let net = &mut net();
    let directory = Directory::new("refused");
    let kind = |net: &mut MioNet, path: &str| {
        let outcome = net.connect(Address::Unix(path), Purpose::Target);
        outcome.expect_err("nobody is there").kind()
    };
    let path = directory.path("socket");
    assert_eq!(kind(net, &path), ErrorKind::NotFound);
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a fresh path"));
    assert_eq!(kind(net, &path), ErrorKind::ConnectionRefused);
    let file = directory.path("file");
    std::fs::write(&file, "").expect("a file");
    assert_eq!(kind(net, &file), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[test]
fn a_unix_socket_whose_queue_is_full_would_block() {
    let net = &mut net();
    let directory = Directory::new("full");
    let path = directory.path("socket");
    let full = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    full.bind(&socket2::SockAddr::unix(&path).expect("a path"))
        .expect("bind");
    full.listen(0).expect("listen");
    let address = Address::Unix(&path);
    let _waits = net.connect(address, Purpose::Target).expect("room for one");
    let error = net.connect(address, Purpose::Target).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn both_families_can_listen_on_one_port() {
    let net = &mut net();
    let v4 = net
        .listen((Ipv4Addr::UNSPECIFIED, 0).into(), key(LISTENER))
        .expect("listen");
    let port = net.local_address(&v4).expect("an address").port();
    match net.listen((Ipv6Addr::UNSPECIFIED, port).into(), key(SERVER)) {
        Ok(v6) => assert!(net.local_address(&v6).expect("an address").is_ipv6()),
        // A kernel without IPv6; "in use" is what this test is about.
        Err(error) => assert_ne!(error.kind(), ErrorKind::AddrInUse),
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let net = &mut net();
    let listener = net.listen(loopback(), key(LISTENER)).expect("listen");
    let address = net.local_address(&listener).expect("an address");
    let error = net.listen(address, key(SERVER)).expect_err("it is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn names_are_resolved_while_the_poll_sleeps() {
    let net = &mut net();
    for class in [NameClass::Users, NameClass::Configured] {
        net.resolve("localhost", class);
        let (name, result) = wait(net, |_, event| match event {
            Event::Resolved { name, result } => Some((name, result)),
            _ => None,
        });
        assert_eq!(&*name, "localhost");
        let addresses = result.expect("localhost is known everywhere");
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(IpAddr::is_loopback));
    }
}

#[test]
fn an_impossible_name_is_answered_with_the_reason() {
    let net = &mut net();
    net.resolve("a\0b", NameClass::Users);
    let result = wait(net, |_, event| match event {
        Event::Resolved { result, .. } => Some(result),
        _ => None,
    });
    assert!(!result.expect_err("no such name").is_empty());
}

#[test]
fn a_stopper_wakes_a_poll_that_sleeps_for_ever() {
    let net = &mut net();
    let stopper = net.stopper();
    let stopping = thread::spawn(move || stopper.stop());
    let mut events = Vec::new();
    while events.is_empty() {
        net.poll(&mut events, None).expect("poll");
    }
    assert!(matches!(events[..], [Event::Stop]));
    stopping.join().expect("no panic");
}

#[test]
fn stops_are_counted_up_to_two() {
    let net = &mut net();
    let stopper = net.stopper();
    for _ in 0..5 {
        stopper.clone().stop();
    }
    let mut events = Vec::new();
    net.poll(&mut events, Some(PATIENCE)).expect("poll");
    assert!(matches!(events[..], [Event::Stop, Event::Stop]));
}

#[test]
fn a_signal_asks_to_stop() {
    let net = &mut MioNet::of_process().expect("handlers");
    signal_hook::low_level::raise(SIGTERM).expect("a signal");
    wait(net, |_, event| matches!(event, Event::Stop).then_some(()));
}

#[test]
fn a_poll_that_must_not_wait_returns_empty() {
    let mut events = Vec::new();
    net().poll(&mut events, Some(Duration::ZERO)).expect("poll");
    assert!(events.is_empty());
}

/// How often one poll, which finds nothing, asks the kernel.
fn asks(net: &mut MioNet, timeout: Duration) -> u64 {
    let before = net.polls();
    let mut events = Vec::new();
    net.poll(&mut events, Some(timeout)).expect("poll");
    assert!(events.is_empty());
    net.polls() - before
}

/// A poll that finds an event.
fn stir(net: &mut MioNet) {
    net.stopper().stop();
    wait(net, |_, event| matches!(event, Event::Stop).then_some(()));
}

const NAP: Duration = Duration::from_millis(5);

#[test]
fn an_idle_net_sleeps_however_long_it_may_spin() {
    let net = &mut net();
    net.set_spin(Duration::from_millis(1));
    for _ in 0..3 {
        assert_eq!(asks(net, NAP), 1);
    }
    stir(net);
    assert!(asks(net, NAP) >= 2, "it looked, and then slept");
    for _ in 0..3 {
        assert_eq!(asks(net, NAP), 1, "what was looked for in vain is over");
    }
}

#[test]
fn a_net_that_must_not_spin_asks_once() {
    let net = &mut net();
    stir(net);
    assert_eq!(asks(net, NAP), 1);
}

#[test]
fn spinning_ends_with_the_timeout() {
    let net = &mut net();
    net.set_spin(PATIENCE);
    stir(net);
    // A poll that must not wait is over at once, and says nothing about what comes.
    assert_eq!(asks(net, Duration::ZERO), 1);
    let begun = Instant::now();
    assert!(asks(net, 20 * NAP) > 1, "it looked all the time");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn an_event_ends_the_spinning_and_lets_it_begin_anew() {
    let net = &mut net();
    net.set_spin(PATIENCE);
    for _ in 0..3 {
        stir(net);
        let stopper = net.stopper();
        let stopping = thread::spawn(move || stopper.stop());
        wait(net, |_, event| matches!(event, Event::Stop).then_some(()));
        stopping.join().expect("no panic");
    }
    assert!(asks(net, 20 * NAP) > 1);
}

#[test]
fn random_bytes_differ() {
    let net = &mut net();
    let (mut one, mut other) = ([0; 16], [0; 16]);
    net.random(&mut one);
    net.random(&mut other);
    assert_ne!(one, other);
}

#[test]
fn the_clocks_run() {
    let net = &mut net();
    let (first, second) = (net.now(), net.now());
    assert!(second.instant >= first.instant);
    assert!(
        first.unix > Duration::from_secs(1_700_000_000),
        "after 2023"
    );
}

/// Reads what it gets until it has as much as it wants.
struct Reader {
    wanted: usize,
    got: Vec<u8>,
    late: bool,
}

/// What the reader's entries are.
#[derive(Clone, Copy, PartialEq)]
enum Entry {
    Listener,
    Stream,
    Deadline,
}

impl Role<MioNet> for Reader {
    type Owner = Entry;

    fn ready(&mut self, io: &mut Reactor<MioNet, Entry>, key: Key, owner: Entry, _: Now) {
        if owner == Entry::Listener {
            while let Accepted::Connection(..) = io.accept(key, Purpose::User, Entry::Stream) {}
            return;
        }
        let mut buffer = [0; 1000];
        while let Ok(read @ 1..) = io.read(key, &mut buffer) {
            self.got.extend_from_slice(&buffer[..read]);
        }
    }

    fn timeout(&mut self, _: &mut Reactor<MioNet, Entry>, _: Key, _: Entry, _: Now) {
        self.late = true;
    }

    fn resolved(&mut self, _: &mut Reactor<MioNet, Entry>, _: &str, _: &Found, _: Now) {}

    fn stop(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) {}

    fn reload(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) {}

    fn flush(&mut self, _: &mut Reactor<MioNet, Entry>, _: Now) -> Flushed {
        Flushed::Idle
    }

    fn is_over(&self) -> bool {
        self.late || self.got.len() >= self.wanted
    }
}

/// Telnet's Synch and FTP's ABOR send urgent data; a read stops at its mark, short of what is there.
#[cfg(target_os = "linux")]
#[test]
fn bytes_behind_urgent_data_are_read() {
    let mut io = Reactor::new(net());
    let (_, address) = io.listen(loopback(), Entry::Listener).unwrap();
    let mut user = StdStream::connect(address).unwrap();
    user.write_all(b"abc").unwrap();
    SockRef::from(&user).send_out_of_band(b"!").unwrap();
    user.write_all(b"def").unwrap();
    let mut reader = Reader {
        wanted: 6,
        got: Vec::new(),
        late: false,
    };
    let at = io.now().instant + Duration::from_secs(5);
    io.timer(Entry::Deadline, Deadline::At(at));
    io.run(&mut reader).unwrap();
    assert_eq!(reader.got, b"abcdef");
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_knows_its_descriptors() {
    let net = net();
    let before = net.descriptors().expect("Linux tells");
    let kept: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null")).collect();
    let with = net.descriptors().expect("Linux tells");
    drop(kept);
    // Other tests of this process open and close some of their own meanwhile.
    assert!(with.open >= 50, "{with:?}");
    assert!(with.open <= with.limit && with.limit == before.limit);
}
