//! How exchanges end before their time or go beyond it, over loopback, with raw sockets on both sides:
//! answers that break off, answers that come early, users that say no more or speak on, and connections
//! that change to another protocol.

mod common;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{
    AT_ONCE, Ended, Exchange, HttpOrigin, HttpUser, PATIENCE, Reply, Then, Tunnel, connect,
    eventually, expect_pattern, pass, reset, send_pattern, wait_until_read,
};
use socket2::SockRef;

/// `send` with this flag leaves the bytes for the next segment, here the one with the FIN.
const MSG_MORE: i32 = 0x8000;

/// For so long nothing moves where nothing moves any more.
const STILL: Duration = Duration::from_millis(100);

/// The three ways to tell the end of a body, each of "hello, world".
const FORMS: [(&str, &str); 3] = [
    (
        "length",
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world",
    ),
    (
        "chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n7\r\n, world\r\n0\r\nT: t\r\n\r\n",
    ),
    ("close", "HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello, world"),
];

#[test]
fn an_answer_that_ends_anywhere_before_its_end_is_never_taken_for_whole() {
    let origin = HttpOrigin::start(|exchange| {
        let target = exchange.request.target.clone();
        let mut words = target.split('/').skip(1);
        let mut next = || words.next().expect("/form/length/end");
        let (form, length, end) = (next(), next(), next());
        let (_, answer) = FORMS
            .iter()
            .find(|(name, _)| *name == form)
            .expect("one of the three");
        let length: usize = length.parse().expect("a number");
        exchange.send(&answer[..length])?;
        Ok(if end == "reset" {
            Then::Reset
        } else {
            Then::Close
        })
    });
    let tunnel = Tunnel::to("http", origin.address());
    for version in ["1.1", "1.0"] {
        for (form, answer) in FORMS {
            for length in 0..=answer.len() {
                for end in ["close", "reset"] {
                    let mut user = HttpUser::connect(tunnel.address());
                    user.send(format!(
                        "GET /{form}/{length}/{end} HTTP/{version}\r\nHost: a\r\n\r\n"
                    ));
                    let cut = Cut {
                        form,
                        answer,
                        length,
                        is_reset: end == "reset",
                    };
                    if let Err(wrong) = cut.judge(user.try_reply("GET")) {
                        panic!("HTTP/{version}, {form}, {length} bytes, then {end}: {wrong}");
                    }
                    user.leave();
                }
            }
        }
    }
}

/// An answer of which the origin sends only a part.
struct Cut {
    form: &'static str,
    answer: &'static str,
    length: usize,
    is_reset: bool,
}

impl Cut {
    fn judge(&self, seen: io::Result<Reply>) -> Result<(), String> {
        let head = self.answer.find("\r\n\r\n").expect("it has a head") + 4;
        let by_close = self.form == "close" && self.length >= head && !self.is_reset;
        let is_whole = self.length == self.answer.len() && (self.form != "close" || by_close);
        match seen {
            Err(error) => match error.kind() {
                // A reset may overtake the end of what was whole.
                _ if is_whole && !self.is_reset => Err(error.to_string()),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if self.length >= head => {
                    Ok(())
                }
                _ => Err(error.to_string()),
            },
            Ok(reply) if reply.status == 502 => match is_whole && !self.is_reset {
                false => Ok(()),
                true => Err(reply.text()),
            },
            Ok(reply) if by_close => {
                let body = &self.answer[head..self.length];
                match reply.body.bytes == body.as_bytes() {
                    true => Ok(()),
                    false => Err(reply.text()),
                }
            }
            Ok(reply) if is_whole && reply.text() == "hello, world" => Ok(()),
            Ok(reply) => Err(format!("whole: {} {}", reply.status, reply.text())),
        }
    }
}

#[test]
fn a_user_that_reads_only_when_all_is_sent_still_gets_the_early_answer() {
    const UPLOAD: u64 = 100 << 20;
    let origin = HttpOrigin::start(|exchange| {
        if exchange.request.method == "GET" {
            return exchange.greet();
        }
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large")?;
        // It reads no more, and waits for the end.
        let mut stream = exchange.stream().get_ref().tcp();
        let seen = io::copy(&mut stream, &mut io::sink());
        assert!(
            !matches!(seen, Ok(UPLOAD..)),
            "the rest of the upload stays away"
        );
        Ok(Then::Close)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "linger": "30s" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n"
    ));
    send_pattern(user.stream().get_ref(), 1, UPLOAD).expect("the server swallows it");
    let reply = user.reply("POST");
    assert_eq!((reply.status, reply.closes()), (413, true));
    assert_eq!(reply.text(), "too large");
    user.expect_end();
    origin.wait_for_open(0);
    let reply = HttpUser::connect(tunnel.address()).get("/");
    assert_eq!(reply.text(), "GET / on connection 2\n");
}

#[test]
fn after_100_a_final_answer_instead_of_the_body_ends_both_connections() {
    let origin = HttpOrigin::start(|exchange| {
        if exchange.request.method == "GET" {
            return exchange.greet();
        }
        exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        exchange.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")?;
        let nothing = exchange.stream().read(&mut [0]).unwrap_or_default();
        assert_eq!(nothing, 0, "neither the body nor another request");
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(user.reply("PUT").status, 100);
    let reply = user.reply("PUT");
    assert_eq!(
        (reply.status, reply.closes(), reply.text().as_str()),
        (417, true, "no")
    );
    // It would have been the body; now it must be nothing.
    user.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        .ok();
    user.expect_end();
    origin.wait_for_open(0);
    let reply = HttpUser::connect(tunnel.address()).get("/");
    assert_eq!(reply.text(), "GET / on connection 2\n");
}

#[test]
fn a_chunked_answer_split_at_every_byte_is_the_same_answer() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T, U\r\n\r\n\
                          5;a=\"b;\\\"c\"\r\nhello\r\n000B\r\n, trailers!\r\n0;z\r\nT: t\r\nU:\tu \r\n\r\n";
    let (send, may_send) = mpsc::channel::<()>();
    let may_send = Mutex::new(may_send);
    let origin = HttpOrigin::start(move |exchange| {
        let split: usize = exchange.request.target[1..].parse().expect("a number");
        exchange.send(&ANSWER[..split])?;
        wait_until_read(exchange.stream().get_ref().tcp());
        may_send.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        exchange.send(&ANSWER[split..])?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut users = [
        ("1.1", HttpUser::connect(tunnel.address())),
        ("1.0", HttpUser::connect(tunnel.address())),
    ];
    for split in 0..ANSWER.len() {
        for (version, user) in &mut users {
            user.send(format!(
                "GET /{split} HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
            ));
            send.send(()).unwrap();
            let reply = user.reply("GET");
            assert_eq!(reply.text(), "hello, trailers!", "split at {split}");
            if *version == "1.0" {
                assert_eq!(reply.body.ended, Ended::Close, "nothing else can tell it");
                *user = HttpUser::connect(tunnel.address());
                continue;
            }
            let trailers = [("T", "t"), ("U", "u")].map(|(t, u)| (t.to_owned(), u.to_owned()));
            assert_eq!(reply.body.trailers, trailers, "split at {split}");
        }
    }
    assert_eq!(origin.requests(), [2 * ANSWER.len()], "parked each time");
}

#[test]
fn a_user_that_closes_its_half_behind_its_requests_gets_every_answer() {
    let origin = HttpOrigin::start(|exchange| {
        let body = exchange.body()?;
        let text = String::from_utf8_lossy(&body.bytes).into_owned();
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ))?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let chunked =
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for requests in [&[get][..], &[put], &[chunked], &[get, put, chunked, get]] {
        let all = requests.concat();
        // FIN in the segment of the last byte, and behind each split of the last request.
        for split in all.len() - requests[requests.len() - 1].len()..all.len() {
            let mut user = HttpUser::connect(tunnel.address());
            user.send(&all[..split]);
            wait_until_read(user.stream().get_ref());
            send_and_close(user.stream().get_ref(), &all.as_bytes()[split..]).unwrap();
            for request in requests {
                let reply = user.reply("PUT");
                let body = if *request == get { "" } else { "body" };
                assert_eq!(
                    (reply.status, reply.text().as_str()),
                    (200, body),
                    "{request}"
                );
            }
            user.expect_end();
        }
    }
    assert_eq!(
        origin.connections(),
        1,
        "its connection was parked each time"
    );
}

#[test]
fn a_user_that_closes_its_half_inside_a_body_has_not_sent_a_request() {
    for request in [
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nbody",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n",
    ] {
        let (read, report) = mpsc::channel();
        let origin = HttpOrigin::start(move |exchange| {
            if exchange.request.method == "GET" {
                return exchange.greet();
            }
            let body = exchange.body().map(|_| ()).map_err(|error| error.kind());
            read.send(body).unwrap();
            Ok(Then::Keep)
        });
        let tunnel = Tunnel::to("http", origin.address());
        let mut user = HttpUser::connect(tunnel.address());
        user.send(request);
        user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
        // RFC 9112 §8 leaves it to us what to say, if anything.
        if let Ok(reply) = user.try_reply("PUT") {
            assert_eq!((reply.status, reply.closes()), (400, true), "{request:?}");
        }
        // Where it was sent at all, it was seen to break off.
        let again = HttpUser::connect(tunnel.address()).get("/");
        assert_eq!(again.status, 200);
        if let Ok(body) = report.try_recv() {
            assert!(
                matches!(
                    body,
                    Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
                ),
                "{request:?}: {body:?}"
            );
        }
        origin.wait_for_open(1);
    }
}

#[test]
fn a_request_that_breaks_off_takes_nothing_from_the_answer_before_it() {
    /// More than this user's kernel holds, less than the server's does.
    const LENGTH: usize = 40_000;
    let origin = HttpOrigin::start(|exchange| {
        exchange.body()?;
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))?;
        exchange.send([b'a'; LENGTH])?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let stream = user.stream().get_ref();
    SockRef::from(stream).set_recv_buffer_size(4096).unwrap();
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nPUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nbody");
    user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
    tunnel.server.log().wait_for("#2 of proxy");
    let reply = user.reply("GET");
    assert_eq!((reply.status, reply.body.bytes.len()), (200, LENGTH));
    user.expect_end();
}

#[test]
fn an_answer_survives_a_user_that_speaks_on_after_asking_for_close() {
    const ANSWER: u64 = 4 << 20;
    let origin = HttpOrigin::start(|exchange| {
        exchange.body()?;
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n"
        ))?;
        send_pattern(exchange.stream().get_mut(), 3, ANSWER)?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    for ask in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(ask);
        // All of it in the kernel before the answer is, and then more while it is read.
        user.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000));
        let mut upload = user.stream().get_ref().try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let more = [b'x'; 16 * 1024];
                // Until it is hung up on.
                while upload.write_all(&more).is_ok() {}
            });
            let reply = user.reply("GET");
            assert_eq!((reply.status, reply.closes()), (200, true));
            expect_pattern(reply.body.bytes.as_slice(), 3, ANSWER).unwrap();
            user.expect_end();
            user.stream().get_ref().shutdown(Shutdown::Both).ok();
        });
    }
    assert_eq!(origin.requests(), [2], "nothing behind it was a request");
}

#[test]
fn a_user_that_resets_while_it_does_not_read_closes_the_origin_at_once() {
    for head in [
        "Content-Length: 1000000000",
        "Transfer-Encoding: chunked",
        "X: until close",
    ] {
        let sent = Arc::new(AtomicUsize::new(0));
        let of_origin = Arc::clone(&sent);
        let (ended, report) = mpsc::channel();
        let origin = HttpOrigin::start(move |exchange| {
            exchange.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"))?;
            // One chunk of this size, where it is chunks.
            if head.starts_with("Transfer") {
                exchange.send("7fffffff\r\n")?;
            }
            let piece = [b'x'; 16 * 1024];
            while exchange.send(piece).is_ok() {
                of_origin.fetch_add(piece.len(), Ordering::SeqCst);
            }
            ended.send(()).unwrap();
            Ok(Then::Close)
        });
        let tunnel = Tunnel::to("http", origin.address());
        let mut user = connect(tunnel.address());
        user.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        eventually("all that may be on its way is", || {
            let before = sent.load(Ordering::SeqCst);
            pass(STILL);
            (before > 0 && before == sent.load(Ordering::SeqCst)).then_some(())
        });
        reset(user);
        report
            .recv_timeout(AT_ONCE)
            .unwrap_or_else(|_| panic!("{head}: the origin learns of it at once"));
    }
}

#[test]
fn an_upgrade_split_at_every_byte_is_the_same_upgrade() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfrom the origin";
    let request = |split| {
        format!(
            "GET /{split} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfrom the user"
        )
    };
    let origin = HttpOrigin::start(|exchange| {
        let split: usize = exchange.request.target[1..].parse().expect("a number");
        let split = split.min(SWITCH.len());
        exchange.send(&SWITCH[..split])?;
        wait_until_read(exchange.stream().get_ref().tcp());
        exchange.send(&SWITCH[split..])?;
        let mut said = String::new();
        exchange.stream().read_to_string(&mut said)?;
        exchange.send(format!(", who heard {said}"))?;
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    for split in 0..request(100).len().max(SWITCH.len()) {
        let request = request(split);
        let (early, late) = request.split_at(split.min(request.len()));
        let mut user = HttpUser::connect(tunnel.address());
        user.send(early);
        wait_until_read(user.stream().get_ref());
        user.send(late);
        let reply = user.reply("GET");
        assert_eq!(
            (
                reply.status,
                reply.field("upgrade"),
                reply.field("connection")
            ),
            (101, Some("x"), Some("Upgrade")),
            "split at {split}"
        );
        user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        user.stream().read_to_string(&mut said).unwrap();
        assert_eq!(
            said, "from the origin, who heard from the user",
            "split at {split}"
        );
    }
}

#[test]
fn an_origin_that_ends_its_half_of_an_upgrade_still_hears_the_user() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nlast words",
        )?;
        exchange
            .stream()
            .get_ref()
            .tcp()
            .shutdown(Shutdown::Write)?;
        let judged = expect_pattern(exchange.stream(), 5, 1 << 20);
        assert!(judged.is_ok(), "{judged:?}");
        assert_eq!(exchange.stream().read(&mut [0])?, 0, "and its end");
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(user.reply("GET").status, 101);
    let mut words = String::new();
    user.stream().read_to_string(&mut words).unwrap();
    assert_eq!(words, "last words");
    send_pattern(user.stream().get_ref(), 5, 1 << 20).unwrap();
    user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
    origin.wait_for_open(0);
    assert_eq!(origin.garbled(), Vec::<String>::new());
}

/// CVE-2026-2833: what follows an upgrade request belongs to whatever protocol comes of it.
#[test]
fn nothing_behind_an_upgrade_request_reaches_the_origin_before_it_has_switched() {
    let (answer, may_answer) = mpsc::channel::<&str>();
    let may_answer = Mutex::new(may_answer);
    let (asked, questions) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        if exchange.request.target == "/other" {
            return exchange.greet();
        }
        asked.send(exchange.request.clone()).unwrap();
        let answer = may_answer.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        assert_silent(exchange);
        exchange.send(answer)?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    for refusal in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: y\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(
            "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\
             GET /next HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\n\r\n",
        );
        let question = questions.recv_timeout(PATIENCE).unwrap();
        assert_eq!(question.target, "/upgrade");
        // What was going to follow it has come by now, too.
        wait_until_read(user.stream().get_ref());
        let other = HttpUser::connect(tunnel.address()).get("/other");
        assert_eq!(other.status, 200);
        answer.send(refusal).unwrap();
        assert_eq!(user.reply("GET").text(), "no");
        // It returns to normal rules: a request like any other, and parsed as such.
        let question = questions.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            (question.target.as_str(), question.field("keep-alive")),
            ("/next", None)
        );
        answer
            .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
            .unwrap();
        assert_eq!(user.reply("GET").text(), "next");
    }
}

/// Asserts that nothing has come behind the request.
fn assert_silent(exchange: &mut Exchange<'_>) {
    let ahead = exchange.stream().buffer().to_vec();
    assert!(ahead.is_empty(), "{}", ahead.escape_ascii());
    let stream = exchange.stream().get_ref().tcp();
    stream.set_nonblocking(true).unwrap();
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    assert!(
        matches!(&seen, Err(error) if error.kind() == ErrorKind::WouldBlock),
        "{seen:?}"
    );
}

/// Sends the last bytes and the FIN in one segment.
fn send_and_close(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let sent = SockRef::from(stream).send_with_flags(bytes, MSG_MORE)?;
    assert_eq!(sent, bytes.len(), "an empty socket has room");
    stream.shutdown(Shutdown::Write)
}
