//! What reviews have found and mended in how transfers and processes end: deadlines that cut off whom
//! they were not meant for, ends that come too early or not at all.

mod common;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::ExitStatus,
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    CLIENT, HttpOrigin, HttpUser, Origin, PATIENCE, Siding, Tunnel, connect, expect_end,
    expect_pattern, pass, reset, send_pattern, with_deadlines,
};
use socket2::{Domain, SockRef, Socket, Type};

/// For an end that nothing is left to wait for: on a busy machine, but far below the drain deadline.
const SOON: Duration = Duration::from_secs(10);

/// A deadline that is soon over, but not on a busy machine before a transfer has moved on.
const HALF_CLOSE: &str = r#"{ "timeouts": { "half_close": "1s" } }"#;

/// More than twice [`HALF_CLOSE`].
const STANDSTILL: Duration = Duration::from_millis(2_500);

/// More than all buffers and windows on the way hold.
const LONG: u64 = 40 << 20;

/// Far more than goes through while a test lasts.
const ENDLESS: u64 = 1 << 40;

/// So little that the kernel's buffers take it whole.
const SHORT: u64 = 100_000;

#[test]
fn a_target_whose_user_reads_late_outlives_the_clients_half_close_deadline() {
    let origin = Origin::start(|mut stream| {
        stream.write_all(b"!").ok();
        read_to_end(&stream);
        send_pattern(&stream, 1, LONG).ok();
    });
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .client_config(HALF_CLOSE)
        .start();
    let mut user = tunnel.connect();
    // The target is there when the deadline begins.
    user.read_exact(&mut [0]).unwrap();
    user.shutdown(Shutdown::Write).unwrap();
    wait_for_first_byte(&user);
    pass(STANDSTILL);
    expect_pattern(&user, 1, LONG).unwrap();
    expect_end(&user);
}

#[test]
fn a_user_whose_target_reads_late_outlives_the_servers_half_close_deadline() {
    let (ended, report) = mpsc::channel();
    let origin = Origin::start(move |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        wait_for_first_byte(&stream);
        pass(STANDSTILL);
        ended.send(expect_pattern(&stream, 2, LONG)).ok();
    });
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_config(HALF_CLOSE)
        .start();
    let mut user = tunnel.connect();
    user.write_all(b"?").unwrap();
    expect_end(&user);
    send_pattern(&user, 2, LONG).unwrap();
    report.recv_timeout(PATIENCE).unwrap().unwrap();
}

/// The user's FIN has gone through by then: what follows it is no more than a write that fails.
#[test]
fn a_target_whose_user_has_gone_does_not_send_on_for_long() {
    let (ended, report) = mpsc::channel();
    let origin = Origin::start(move |stream| {
        let mut counted = Counted(stream, 0);
        let sent = send_pattern(&mut counted, 4, ENDLESS);
        ended.send((sent, counted.1)).ok();
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let user = tunnel.connect();
    user.shutdown(Shutdown::Write).unwrap();
    expect_pattern(&user, 4, 1 << 20).unwrap();
    drop(user);
    let (sent, count) = report.recv_timeout(SOON).expect("it is told in time");
    assert!(sent.is_err());
    assert!(count < LONG, "{count} bytes that nobody wants");
}

/// Where so many bytes were written.
struct Counted(TcpStream, u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1 += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_user_whose_target_has_gone_does_not_send_on_for_long() {
    let (begin, begun) = mpsc::channel();
    let origin = Origin::start(move |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        begin.send(expect_pattern(&stream, 5, 1 << 20)).ok();
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let user = tunnel.connect();
    expect_end(&user);
    let start = Instant::now();
    assert!(send_pattern(&user, 5, ENDLESS).is_err());
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    begun.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn what_the_kernel_holds_for_a_user_is_not_taken_from_it_at_the_half_close_deadline() {
    let origin = Origin::source(3, SHORT);
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_config(HALF_CLOSE)
        .client_config(HALF_CLOSE)
        .start();
    let user = connect_with_little_room(tunnel.address());
    tunnel.server.log().wait_for(": half_close_timeout");
    expect_pattern(&user, 3, SHORT).unwrap();
    expect_end(&user);
}

#[test]
fn a_servers_drain_is_over_when_the_link_of_its_last_user_is_lost() {
    let origin = Origin::echo();
    let mut tunnel = Tunnel::to("tcp", origin.address());
    let user = tunnel.connect();
    common::echoes(&user);
    tunnel.server.terminate();
    tunnel.server.log().wait_for("stopping");
    tunnel.client.kill();
    assert_ended(tunnel.server.wait_within(SOON));
}

#[test]
fn a_drain_is_over_with_the_answer_that_it_waited_for() {
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = Mutex::new(may_answer);
    let (asked, question) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        asked.send(()).unwrap();
        may_answer.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        exchange.greet()
    });
    let mut tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    question.recv_timeout(PATIENCE).unwrap();
    tunnel.client.terminate();
    tunnel.client.log().wait_for("stopping");
    answer.send(()).unwrap();
    assert_eq!(user.reply("GET").status, 200);
    assert_ended(tunnel.client.wait_within(SOON));
    tunnel.restart_client();

    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    question.recv_timeout(PATIENCE).unwrap();
    tunnel.server.terminate();
    tunnel.server.log().wait_for("stopping");
    answer.send(()).unwrap();
    assert_eq!(user.reply("GET").status, 200);
    user.expect_end();
    drop(user);
    assert_ended(tunnel.server.wait_within(SOON));
}

#[test]
fn a_client_that_ends_cuts_off_nothing_that_it_has_read() {
    const ANSWER: usize = 50_000;
    // More than the buffers between the client and a relay that does not read.
    const ANSWERS_MAX: usize = 1_000;
    let origin = HttpOrigin::start(|exchange| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n");
        exchange.send(head + &"x".repeat(ANSWER))?;
        Ok(common::Then::Keep)
    });
    let server = Siding::start([
        "server",
        "--listen",
        "127.0.0.1:0",
        "--proxy",
        &format!("{CLIENT}=http:0:{}", origin.address()),
        "--log",
        "debug",
    ]);
    let relay = Relay::to(server.link_address());
    let mut client = Siding::start([
        "client",
        "--server",
        &format!("ws://{}", relay.address()),
        "--id",
        CLIENT,
        "--allow",
        &origin.address().to_string(),
        "--log",
        "debug",
    ]);
    client.log().wait_for(": up to ");
    let proxy = server.proxy_address("http:0");
    relay.hold();
    // One answer after the other, until one does not leave the client any more: then what is before it
    // fills the client's own buffer, too.
    let mut users: Vec<HttpUser> = Vec::new();
    let mut blocked = loop {
        assert!(users.len() < ANSWERS_MAX, "the link takes all");
        let mut user = HttpUser::connect(proxy);
        user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let is_answered = || client.log().count(": answered") > users.len();
        if !within(STANDSTILL, is_answered) {
            break user;
        }
        users.push(user);
    };
    assert!(!users.is_empty(), "there is an answer to be cut off");
    // It gives up, so that no stream is left to wait for.
    reset(blocked.stream().get_ref().try_clone().unwrap());
    drop(blocked);
    client.log().wait_for(": user_reset");
    client.terminate();
    client.log().wait_for("stopping: 0 streams");
    relay.go_on();
    for mut user in users {
        let reply = user.reply("GET");
        assert_eq!((reply.status, reply.body.bytes.len()), (200, ANSWER));
    }
    assert_ended(client.wait_within(SOON));
}

/// Between a client and its server; what the client says can be held up.
struct Relay {
    origin: Origin,
    held: Arc<(Mutex<bool>, Condvar)>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let held = Arc::new((Mutex::new(false), Condvar::new()));
        let of_relay = Arc::clone(&held);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // What it holds up shall soon fill the sender's buffer.
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let origin = Origin::on(listener, move |from| {
            let to = connect(server);
            let (mut back_from, mut back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            let back = thread::spawn(move || {
                // Either end may close first; the test judges what arrived.
                std::io::copy(&mut back_from, &mut back_to).ok();
                back_to.shutdown(Shutdown::Write).ok();
            });
            forward(&from, &to, &of_relay);
            back.join().unwrap();
        });
        Self { origin, held }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    fn hold(&self) {
        *self.held.0.lock().unwrap() = true;
    }

    fn go_on(&self) {
        *self.held.0.lock().unwrap() = false;
        self.held.1.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.go_on();
    }
}

/// Passes on what comes, unless it is held up, up to the end.
fn forward(mut from: &TcpStream, mut to: &TcpStream, held: &(Mutex<bool>, Condvar)) {
    let mut piece = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let (is_held, changed) = held;
        let guard = is_held.lock().unwrap();
        drop(changed.wait_while(guard, |held| *held).unwrap());
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

/// Whether it comes to it within `limit`; both are answers.
fn within(limit: Duration, mut look: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !look() {
        if start.elapsed() > limit {
            return false;
        }
        pass(Duration::from_millis(1));
    }
    true
}

/// A user whose own kernel takes little, so that the rest waits in that of the server.
fn connect_with_little_room(proxy: SocketAddr) -> TcpStream {
    let user = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    user.set_recv_buffer_size(4096).unwrap();
    user.connect(&proxy.into()).unwrap();
    let user = TcpStream::from(user);
    with_deadlines(&user);
    user
}

/// Reads what comes up to the end.
fn read_to_end(mut stream: &TcpStream) {
    std::io::copy(&mut stream, &mut std::io::sink()).ok();
}

/// Waits until there is something to read, and leaves it there.
fn wait_for_first_byte(stream: &TcpStream) {
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
}

/// It ended by itself, as asked.
#[track_caller]
fn assert_ended(status: ExitStatus) {
    assert_eq!(status.code(), Some(0), "{status}");
}
