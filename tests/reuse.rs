//! Connections to origins that die between two exchanges, over loopback: in the segment of the answer, a
//! moment later, while parked, and in the very moment in which they are used again. No user gets an error
//! that a fresh connection would have spared it, and no request is delivered twice that may not be.

mod common;

use std::{
    io::{self, Read},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Barrier, Mutex, mpsc},
    time::Duration,
};

use common::{
    Body, Exchange, HttpOrigin, HttpUser, PATIENCE, Pattern, Then, Tunnel, eventually, pass,
    wait_until_all_read, wait_until_closed_by, wait_until_read,
};
use socket2::SockRef;

/// `send` with this flag leaves the bytes for the next segment, here the one with the FIN.
const MSG_MORE: i32 = 0x8000;

/// As many of a request's bytes as are kept for a second try.
const KEPT: usize = 64 * 1024;

/// A client that parks as many connections as these tests have.
const ROOMY: &str = r#"{ "pool": { "max_idle_per_target": 200 } }"#;

/// A busy machine may have parked them too long ago for a request that cannot be repeated.
const HOWEVER_LATE: &str = "--pool=always";

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn an_origin_that_closes_in_the_segment_of_its_answer_fails_nobody() {
    const ROUNDS: usize = 100;
    let origin = HttpOrigin::start(|exchange| {
        exchange.body()?;
        send_and_close(exchange, OK)?;
        // Whatever was asked on it after that would be seen here.
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for _ in 0..ROUNDS {
        assert_eq!(user.get("/").text(), "ok");
        user.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(user.reply("POST").text(), "ok");
    }
    assert_eq!(origin.requests(), [1; 2 * ROUNDS]);
}

#[test]
fn an_origin_that_closes_a_millisecond_after_its_answer_fails_no_get() {
    const ROUNDS: u32 = 200;
    let origin = HttpOrigin::start(|exchange| {
        exchange.send(OK)?;
        // Around the time at which the next request is there.
        pass(Duration::from_millis(1));
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for round in 0..ROUNDS {
        let reply = user.get("/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        // At another point of its last millisecond each time.
        pass(Duration::from_micros(1100) * round / ROUNDS);
    }
}

#[test]
fn what_a_parked_connection_says_is_nobodys_answer() {
    const TIMEOUT: &str =
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    for goodbye in [
        Goodbye::None,
        Goodbye::SameSegment,
        Goodbye::Fin,
        Goodbye::Reset,
    ] {
        let (speak, may_speak) = mpsc::channel::<()>();
        let may_speak = Mutex::new(may_speak);
        let origin = HttpOrigin::start(move |exchange| {
            exchange.greet()?;
            if exchange.connection > 1 {
                return Ok(Then::Keep);
            }
            may_speak.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            match goodbye {
                Goodbye::SameSegment => send_and_close(exchange, TIMEOUT)?,
                _ => exchange.send(TIMEOUT)?,
            }
            Ok(match goodbye {
                Goodbye::None | Goodbye::SameSegment => Then::Keep,
                Goodbye::Fin => Then::Close,
                Goodbye::Reset => Then::Reset,
            })
        });
        let tunnel = Tunnel::to("http", origin.address());
        let mut user = HttpUser::connect(tunnel.address());
        assert_eq!(user.get("/").text(), "GET / on connection 1\n");
        speak.send(()).unwrap();
        if goodbye == Goodbye::None {
            origin.wait_for_open(0);
        } else {
            // Whether the client has looked or not.
            wait_until_closed_by(origin.address());
        }
        assert_eq!(
            user.get("/").text(),
            "GET / on connection 2\n",
            "{goodbye:?}"
        );
        assert_eq!(origin.requests(), [1, 1], "{goodbye:?}");
    }
}

#[test]
fn a_repeatable_request_on_a_connection_that_was_dead_is_sent_once_more() {
    let form = "a=b&".repeat(1000);
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for death in [Death::Fin, Death::Reset] {
            for body in [
                Content::None,
                Content::Length(&form),
                Content::Chunks(&form),
            ] {
                let stage = Dying::under_reuse(1, death);
                let mut user = stage.park();
                user.send(body.request(method));
                let reply = user.reply(method);
                assert_eq!(reply.status, 200, "{method} {body:?}: {}", reply.text());
                let [first, again] = &stage.heard()[..] else {
                    panic!("{method}: not twice: {:?}", stage.heard());
                };
                assert_eq!(first, again, "byte for byte");
                assert_eq!(again.body.bytes, body.bytes(), "{method}");
                assert_eq!(stage.origin.requests(), [2, 1]);
                stage.tunnel.client.log().wait_for(", retried");
            }
        }
    }
}

#[test]
fn a_request_that_must_not_be_repeated_is_delivered_once() {
    for method in ["POST", "PATCH", "LOCK", "get"] {
        for death in [Death::Fin, Death::Reset] {
            for body in [
                Content::None,
                Content::Length("body"),
                Content::Chunks("body"),
            ] {
                let stage = Dying::under_reuse(1, death);
                let mut user = stage.park();
                user.send(body.request(method));
                let reply = user.reply(method);
                assert_eq!(
                    (reply.status, reply.closes()),
                    (502, true),
                    "{method} {body:?}"
                );
                user.expect_end();
                assert_eq!(stage.heard().len(), 1, "{method} {body:?}");
                assert_eq!(
                    HttpUser::connect(stage.tunnel.address()).get("/").status,
                    200
                );
            }
        }
    }
}

#[test]
fn a_request_is_sent_at_most_twice() {
    for death in [Death::Fin, Death::Reset] {
        let stage = Dying::always(death);
        let mut user = stage.park();
        let reply = user.get("/");
        assert_eq!((reply.status, reply.text().lines().count()), (502, 1));
        assert_eq!(stage.origin.requests(), [2, 1]);
    }
}

#[test]
fn a_fresh_connection_that_dies_is_not_tried_again() {
    for death in [Death::Fin, Death::Reset] {
        let stage = Dying::always(death);
        assert_eq!(
            HttpUser::connect(stage.tunnel.address()).get("/").status,
            502
        );
        assert_eq!(stage.origin.requests(), [1]);
    }
}

#[test]
fn nothing_is_sent_again_after_a_byte_of_the_answer() {
    for begun in [
        "H",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        let origin = HttpOrigin::start(move |exchange| match exchange.number {
            1 => exchange.greet(),
            _ => {
                exchange.send(begun)?;
                Ok(Then::Close)
            }
        });
        let tunnel = Tunnel::to("http", origin.address());
        let mut user = HttpUser::connect(tunnel.address());
        assert_eq!(user.get("/").status, 200);
        let mut reply = user.get("/");
        if reply.status == 103 {
            reply = user.reply("GET");
        }
        assert_eq!(reply.status, 502, "{begun:?}: {}", reply.text());
        assert_eq!(origin.requests(), [2], "{begun:?}");
    }
}

#[test]
fn a_request_longer_than_what_is_kept_of_it_is_not_sent_again() {
    let body = Pattern::bytes(1, KEPT + 1);
    for death in [Death::Fin, Death::Reset] {
        let stage = Dying::under_reuse(1, death);
        let mut user = stage.park();
        user.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        user.send(&body);
        assert_eq!(user.reply("PUT").status, 502);
        assert_eq!(stage.heard().len(), 1);
        assert_eq!(
            HttpUser::connect(stage.tunnel.address()).get("/").status,
            200
        );
    }
}

#[test]
fn a_request_that_is_still_coming_goes_on_after_what_was_sent_again() {
    const BEGUN: usize = 10_000;
    let body = Pattern::bytes(2, 1 << 20);
    for death in [Death::Fin, Death::Reset] {
        let expected = body.clone();
        let (again, sent_again) = mpsc::channel();
        let origin = HttpOrigin::start(move |exchange| {
            if exchange.request.method == "GET" {
                return exchange.greet();
            }
            let mut begun = vec![0; BEGUN];
            exchange.stream().read_exact(&mut begun)?;
            if exchange.connection == 1 {
                return Ok(death.then());
            }
            again.send(()).unwrap();
            let mut rest = vec![0; expected.len() - BEGUN];
            exchange.stream().read_exact(&mut rest)?;
            assert!([begun, rest].concat() == expected, "from its first byte");
            exchange.greet()
        });
        let tunnel = however_late(&origin);
        let mut user = HttpUser::connect(tunnel.address());
        assert_eq!(user.get("/").status, 200);
        let length = body.len();
        user.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        ));
        user.send(&body[..BEGUN]);
        sent_again.recv_timeout(PATIENCE).unwrap();
        user.send(&body[BEGUN..]);
        assert_eq!(user.reply("PUT").text(), "PUT / on connection 2\n");
        assert_eq!(user.get("/").text(), "GET / on connection 2\n");
    }
}

#[test]
fn a_write_that_fails_is_a_death_like_any_other() {
    for (method, expected) in [("PUT", 200), ("POST", 502)] {
        let (dead, died) = mpsc::channel();
        let (die, may_die) = mpsc::channel::<()>();
        let may_die = Mutex::new(may_die);
        let origin = HttpOrigin::start(move |exchange| {
            if exchange.request.method == "GET" {
                return exchange.greet();
            }
            if exchange.connection == 1 {
                exchange.stream().read_exact(&mut [0; 4])?;
                dead.send(()).unwrap();
                may_die.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                return Ok(Then::Reset);
            }
            assert_eq!(exchange.body()?.bytes, b"bodybody");
            exchange.greet()
        });
        let tunnel = however_late(&origin);
        let mut user = HttpUser::connect(tunnel.address());
        assert_eq!(user.get("/").status, 200);
        user.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nbody"
        ));
        died.recv_timeout(PATIENCE).unwrap();
        // The rest comes to the client first, and then the reset: when it wakes, it writes.
        tunnel.client.signal("STOP");
        user.send("body");
        wait_until_read(user.stream().get_ref());
        die.send(()).unwrap();
        origin.wait_for_open(0);
        tunnel.client.signal("CONT");
        assert_eq!(user.reply(method).status, expected, "{method}");
        let delivered = if expected == 200 { vec![2, 1] } else { vec![2] };
        assert_eq!(origin.requests(), delivered, "{method}");
    }
}

#[test]
fn a_dead_connection_is_the_end_of_all_that_are_parked_beside_it() {
    const PARKED: usize = 10;
    let stage = Dying::under_reuse(PARKED, Death::Fin);
    let reply = stage.park().get("/");
    assert_eq!(
        reply.text(),
        format!("GET / on connection {}\n", PARKED + 1)
    );
    stage.origin.wait_for_open(1);
    assert_eq!(stage.heard().len(), 2);
}

#[test]
fn a_hundred_parked_connections_that_die_when_used_cost_one_retry_each() {
    const PARKED: usize = 100;
    let stage = Dying::under_reuse(PARKED, Death::Fin);
    stage.park();
    // All of them at once: else a late one takes the fresh connection that served an early one.
    stage.tunnel.client.signal("STOP");
    let mut users = send_together(&stage.tunnel, PARKED, "/");
    wait_until_all_read(users.iter_mut().map(|user| user.stream().get_ref()));
    stage.tunnel.client.signal("CONT");
    for user in &mut users {
        let reply = user.reply("GET");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let requests = stage.origin.requests();
    let (old, new) = requests.split_at(PARKED);
    assert!(old.iter().all(|count| *count <= 2), "{old:?}");
    assert_eq!(
        new.iter().sum::<usize>(),
        PARKED,
        "each is answered by a fresh one, once"
    );
}

#[test]
fn an_origin_that_restarts_with_a_hundred_parked_connections_fails_nobody() {
    const PARKED: usize = 100;
    let mut origin = Restarted::on(TcpListener::bind("127.0.0.1:0").unwrap(), PARKED);
    let tunnel = Tunnel::builder()
        .to("http", origin.http.address())
        .client_config(ROOMY)
        .start();
    for with_reset in [false, true] {
        park(&tunnel, PARKED);
        assert_eq!(origin.http.connections(), PARKED);
        let address = origin.http.address();
        // The client learns of their ends and of the requests at the same time.
        tunnel.client.signal("STOP");
        origin.stop(with_reset);
        origin = Restarted::on(free_again(address), PARKED);
        let mut users = send_together(&tunnel, PARKED, "/");
        wait_until_all_read(users.iter_mut().map(|user| user.stream().get_ref()));
        tunnel.client.signal("CONT");
        for user in &mut users {
            let reply = user.reply("GET");
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        assert_eq!(
            origin.http.requests().iter().sum::<usize>(),
            PARKED,
            "each once"
        );
        // For the next round a hundred fresh ones.
        origin.stop(with_reset);
        origin = Restarted::on(free_again(address), PARKED);
    }
}

#[test]
fn a_request_that_cannot_be_repeated_takes_only_what_was_parked_just_now() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let mut post = || {
        user.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        user.reply("POST").text()
    };
    assert_eq!(post(), "POST / on connection 1\n");
    assert_eq!(post(), "POST / on connection 1\n");
    // Longer than a connection counts as just parked.
    pass(Duration::from_millis(1_100));
    assert_eq!(post(), "POST / on connection 2\n");
}

#[test]
fn the_pool_can_be_told_to_keep_nothing_and_to_trust_everything() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_argument("--pool=never")
        .start();
    for number in 1..=3 {
        let reply = HttpUser::connect(tunnel.address()).get("/");
        assert_eq!(reply.text(), format!("GET / on connection {number}\n"));
        origin.wait_for_open(0);
    }

    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_argument("--pool=always")
        .start();
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    pass(Duration::from_millis(1_100));
    let mut user = HttpUser::connect(tunnel.address());
    user.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(user.reply("POST").text(), "POST / on connection 1\n");
}

/// How an origin leaves that has spoken on an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goodbye {
    None,
    SameSegment,
    Fin,
    Reset,
}

/// How a connection dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Fin,
    Reset,
}

impl Death {
    fn then(self) -> Then {
        match self {
            Death::Fin => Then::Close,
            Death::Reset => Then::Reset,
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    None,
    Length(&'a str),
    Chunks(&'a str),
}

impl Content<'_> {
    fn request(self, method: &str) -> String {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n");
        match self {
            Content::None => format!("{head}\r\n"),
            Content::Length(body) => {
                format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
            }
            Content::Chunks(body) => {
                let (one, two) = body.split_at(body.len() / 2);
                format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\nT: t\r\n\r\n",
                    one.len(),
                    two.len()
                )
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Content::None => b"",
            Content::Length(body) | Content::Chunks(body) => body.as_bytes(),
        }
    }
}

/// A listener where there was one before: somebody's connection may have got its port for a moment.
fn free_again(address: SocketAddr) -> TcpListener {
    eventually("the address is free", || TcpListener::bind(address).ok())
}

/// An origin that can be stopped, and another put in its place.
struct Restarted {
    http: HttpOrigin,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Restarted {
    /// Requests for `/park` are answered together.
    fn on(listener: TcpListener, parked: usize) -> Self {
        let connections = Arc::new(Mutex::new(Vec::new()));
        let of_origin = Arc::clone(&connections);
        let together = Barrier::new(parked);
        let http = HttpOrigin::on(listener, move |exchange| {
            if exchange.number == 1 {
                let connection = exchange.stream().get_ref().tcp().try_clone()?;
                of_origin.lock().unwrap().push(connection);
            }
            if exchange.request.target == "/park" {
                together.wait();
            }
            exchange.greet()
        });
        Self { http, connections }
    }

    /// Ends all connections and the listener.
    fn stop(self, with_reset: bool) {
        for connection in self.connections.lock().unwrap().drain(..) {
            if with_reset {
                SockRef::from(&connection)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
            // Its thread finds the end, and closes.
            connection.shutdown(Shutdown::Both).ok();
        }
        self.http.wait_for_open(0);
    }
}

/// A tunnel that takes what is parked for every request.
fn however_late(origin: &HttpOrigin) -> Tunnel {
    let tunnel = Tunnel::builder().to("http", origin.address());
    tunnel.client_argument(HOWEVER_LATE).start()
}

/// A request as an origin has heard it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    line: String,
    fields: Vec<(String, String)>,
    body: Body,
}

/// An origin whose connections die under the second request on them, when it has read that whole and
/// has said nothing; and a tunnel to it. Requests for `/park` are answered together, so that each has a
/// connection of its own.
struct Dying {
    origin: HttpOrigin,
    tunnel: Tunnel,
    parked: usize,
    /// Requests for anything but `/park`.
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Dying {
    /// Fresh connections answer their first request.
    fn under_reuse(parked: usize, death: Death) -> Self {
        Self::start(parked, death, |_| true)
    }

    /// Fresh connections answer for `/park` alone.
    fn always(death: Death) -> Self {
        Self::start(1, death, |target| target == "/park")
    }

    fn start(parked: usize, death: Death, is_answered: fn(&str) -> bool) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let of_origin = Arc::clone(&heard);
        let together = Barrier::new(parked);
        let origin = HttpOrigin::start(move |exchange| {
            let body = exchange.body()?;
            let target = exchange.request.target.clone();
            if target == "/park" {
                together.wait();
            } else {
                of_origin.lock().unwrap().push(Heard {
                    line: format!("{} {target}", exchange.request.method),
                    fields: exchange.request.fields.clone(),
                    body,
                });
            }
            if exchange.number == 1 && is_answered(&target) {
                return exchange.greet();
            }
            Ok(death.then())
        });
        let tunnel = Tunnel::builder()
            .to("http", origin.address())
            .client_config(ROOMY)
            .client_argument(HOWEVER_LATE)
            .start();
        Self {
            origin,
            tunnel,
            parked,
            heard,
        }
    }

    /// Has all the connections parked; gives one of their users.
    fn park(&self) -> HttpUser {
        let user = park(&self.tunnel, self.parked);
        eventually("they are all open", || {
            (self.origin.open() == self.parked).then_some(())
        });
        user
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

/// Users who ask for `/park` at the same time; gives one of them.
fn park(tunnel: &Tunnel, count: usize) -> HttpUser {
    let mut users = send_together(tunnel, count, "/park");
    for user in &mut users {
        assert_eq!(user.reply("GET").status, 200);
    }
    users.pop().expect("at least one")
}

fn send_together(tunnel: &Tunnel, count: usize, target: &str) -> Vec<HttpUser> {
    let users = std::iter::repeat_with(|| {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        user
    });
    users.take(count).collect()
}

/// Sends the last bytes and the FIN in one segment.
fn send_and_close(exchange: &mut Exchange<'_>, bytes: &str) -> io::Result<()> {
    let stream = exchange.stream().get_ref().tcp();
    let sent = SockRef::from(stream).send_with_flags(bytes.as_bytes(), MSG_MORE)?;
    assert_eq!(sent, bytes.len(), "an empty socket has room");
    stream.shutdown(Shutdown::Write)
}
