//! Exchanges whose two directions cross: one side has said all, is gone, or stands still, while the
//! other is in the middle of something. Each of these once went wrong.

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Mutex, mpsc},
    time::Duration,
};

use common::{
    AT_ONCE, Authority, Exchange, HttpOrigin, HttpUser, Origin, PATIENCE, Then, Tunnel, connect,
    eventually, pass, reset, send_pattern, wait_until_closed_by, with_deadlines,
};
use socket2::{Domain, SockRef, Socket, Type};

/// More than all buffers on the way hold.
const UPLOAD: u64 = 64 << 20;

/// Beyond which a connection does not count as just parked.
const NOT_JUST_PARKED: Duration = Duration::from_millis(1_100);

#[test]
fn a_user_that_has_ended_and_is_reset_then_is_gone() {
    let (gone, report) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")?;
        // Nothing more to say, as a server of events often has not.
        let read = exchange.stream().read(&mut [0]);
        gone.send(read.is_ok()).ok();
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = connect(tunnel.address());
    user.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    eventually("the event comes", || {
        let read = user.read(&mut answer).unwrap();
        answer[..read].ends_with(b"data: 1\n\n\r\n").then_some(())
    });
    user.shutdown(Shutdown::Write).unwrap();
    wait_until_closed_by(user.local_addr().unwrap());
    reset(user);
    report
        .recv_timeout(AT_ONCE)
        .expect("the origin learns of it at once");
}

#[test]
fn a_raw_user_that_has_ended_and_is_reset_then_is_gone() {
    let (gone, report) = mpsc::channel();
    let target = Origin::start(move |mut stream| {
        stream.write_all(b"?").ok();
        // The user's end, and then nothing to say.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        gone.send(()).unwrap();
        let open = || SockRef::from(&stream).take_error().unwrap().is_none();
        eventually("the connection is reset", || (!open()).then_some(()));
        gone.send(()).unwrap();
    });
    let tunnel = Tunnel::to("tcp", target.address());
    let mut user = connect(tunnel.address());
    user.read_exact(&mut [0]).unwrap();
    user.shutdown(Shutdown::Write).unwrap();
    report.recv_timeout(PATIENCE).unwrap();
    reset(user);
    tunnel.server.log().wait_for("user_reset");
}

/// Of whichever direction is still open.
#[test]
fn a_half_closed_stream_that_is_given_up_looks_cut_to_whoever_waits_for_more() {
    let timeouts = r#"{ "timeouts": { "half_close": "500ms" } }"#;
    for user_ends in [true, false] {
        let (read, report) = mpsc::channel();
        let target = Origin::start(move |mut stream| {
            stream.write_all(b"target").unwrap();
            let mut got = vec![0; 4];
            stream.read_exact(&mut got).unwrap();
            if !user_ends {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let end = stream.read_to_end(&mut got).map_err(|error| error.kind());
            read.send((got, end.is_ok())).unwrap();
            if user_ends {
                // It has heard all, and has more to say, some day.
                let open = || SockRef::from(&stream).take_error().unwrap().is_none();
                eventually("the connection is reset", || (!open()).then_some(()));
            }
        });
        let tunnel = Tunnel::builder()
            .to("tcp", target.address())
            .server_config(timeouts)
            .client_config(timeouts)
            .start();
        let mut user = connect(tunnel.address());
        user.write_all(b"user").unwrap();
        // Nobody ends before the other has begun: the deadline is not for that.
        let mut got = vec![0; 6];
        user.read_exact(&mut got).unwrap();
        if user_ends {
            user.shutdown(Shutdown::Write).unwrap();
        }
        let end = user.read_to_end(&mut got);
        assert_eq!((&*got, end.is_ok()), (&b"target"[..], !user_ends));
        let heard = report.recv_timeout(PATIENCE).unwrap();
        assert_eq!(heard, (b"user".to_vec(), user_ends));
        tunnel.server.log().wait_for("half_close_timeout");
    }
}

/// Not after the link is gone, nor when its process is told to end at once.
#[test]
fn what_a_user_does_not_take_in_time_never_looks_as_if_it_were_all() {
    // The last of it waits at the server, its end with it.
    const LENGTH: u64 = 150_000;
    for at_once in [false, true] {
        let target = Origin::source(7, LENGTH);
        let mut tunnel = Tunnel::builder()
            .to("tcp", target.address())
            .server_config(r#"{ "timeouts": { "half_close": "500ms" } }"#)
            .start();
        let before = tunnel.server.descriptors();
        let mut user = reader_of_little(&tunnel);
        user.shutdown(Shutdown::Write).unwrap();
        // All of it has left the client.
        tunnel.client.log().wait_for("closed, ");
        if at_once {
            tunnel.server.terminate();
            tunnel.server.log().wait_for("stopping: ");
            tunnel.server.terminate();
            assert!(tunnel.server.wait().success());
        } else {
            tunnel.client.kill();
            eventually("neither link nor user are left", || {
                (tunnel.server.descriptors() < before).then_some(())
            });
        }
        let mut got = Vec::new();
        let end = user.read_to_end(&mut got);
        let whole = got.len() as u64 == LENGTH;
        assert_eq!(end.is_ok(), whole, "at once: {at_once}: {}", got.len());
        if whole {
            println!("nothing to see: the kernel has taken all of it");
        }
    }
}

#[test]
fn an_early_answer_over_tls_is_not_lost_to_the_reset_behind_it() {
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), |exchange| {
        let body = "n".repeat(5_000);
        exchange.send(format!(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))?;
        // With the upload unread, the close is a reset.
        Ok(Then::Close)
    });
    let target = format!("localhost:{}", origin.address().port());
    let tunnel = Tunnel::builder()
        .proxy(format!("https:0:{target}"))
        .allow(target)
        .client_argument("--target-ca")
        .client_argument(authority.file().display().to_string())
        .start();
    for _ in 0..20 {
        let mut user = HttpUser::connect(tunnel.address());
        user.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
        // It may be cut short by then.
        send_pattern(user.stream().get_ref(), 1, 10_000_000).ok();
        let reply = user.reply("POST");
        assert_eq!((reply.status, reply.body.bytes.len()), (413, 5_000));
    }
}

#[test]
fn an_early_answer_that_its_user_does_not_read_yet_ends_the_upload_all_the_same() {
    // More than the user's kernel takes, and no more than a window beside that.
    for answer in [100_000, 250_000, 260_000] {
        let (_ends, ended) = mpsc::channel::<()>();
        let ended = Mutex::new(ended);
        let origin = HttpOrigin::start(move |exchange| {
            exchange.send(format!(
                "HTTP/1.1 413 Content Too Large\r\nContent-Length: {answer}\r\n\r\n"
            ))?;
            exchange.send("n".repeat(answer))?;
            // It reads nothing.
            ended.lock().unwrap().recv_timeout(PATIENCE).ok();
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
        assert_eq!((reply.status, reply.body.bytes.len()), (413, answer));
    }
}

#[test]
fn how_long_a_half_closed_stream_may_stand_still_is_nothing_to_an_exchange() {
    let origin = HttpOrigin::start(|exchange| {
        // Slow to read, so that the end of the request waits for it at the client.
        pass(Duration::from_millis(300));
        exchange.body()?;
        pass(Duration::from_millis(1_500));
        exchange.greet()
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_config(r#"{ "timeouts": { "half_close": "500ms" } }"#)
        .start();
    let mut users: Vec<HttpUser> = (1..12)
        .map(|size| {
            let mut user = HttpUser::connect(tunnel.address());
            let size = size * 400_000;
            user.send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
            ));
            user.send("x".repeat(size));
            user
        })
        .collect();
    for user in &mut users {
        assert_eq!(user.reply("POST").status, 200);
    }
}

#[test]
fn a_request_too_long_to_be_kept_does_not_take_what_was_not_parked_just_now() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let mut put = |framing: &str, body: &str| {
        user.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}"
        ));
        user.reply("PUT").text()
    };
    let short = "Content-Length: 1000";
    assert_eq!(put(short, &"x".repeat(1_000)), "PUT / on connection 1\n");
    pass(NOT_JUST_PARKED);
    assert_eq!(put(short, &"x".repeat(1_000)), "PUT / on connection 1\n");
    pass(NOT_JUST_PARKED);
    let long = "Content-Length: 65536";
    assert_eq!(put(long, &"x".repeat(65_536)), "PUT / on connection 2\n");
    pass(NOT_JUST_PARKED);
    // Of chunks nobody knows how many come.
    let chunks = "Transfer-Encoding: chunked";
    assert_eq!(put(chunks, "0\r\n\r\n"), "PUT / on connection 3\n");
    assert_eq!(put(chunks, "0\r\n\r\n"), "PUT / on connection 3\n");
}

#[test]
fn a_hundred_interim_responses_pass_and_one_more_is_too_many() {
    for (count, status) in [(100, 200), (101, 502)] {
        let origin = HttpOrigin::start(move |exchange| {
            for _ in 0..count {
                exchange.send("HTTP/1.1 102 Processing\r\n\r\n")?;
            }
            exchange.greet()
        });
        let tunnel = Tunnel::to("http", origin.address());
        let mut user = HttpUser::connect(tunnel.address());
        let mut reply = user.get("/");
        let mut interims = 0;
        while reply.status == 102 {
            interims += 1;
            reply = user.reply("GET");
        }
        assert_eq!(reply.status, status);
        // What waits when it is given up is not sent any more.
        assert!(interims == 100 || status == 502 && interims < 100);
    }
}

#[test]
fn an_origin_that_never_says_100_is_to_blame_and_not_the_user_who_waits_for_it() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.stream().read_exact(&mut [0])?;
        Ok(Then::Close)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_body": "300ms" } }"#)
        .client_config(r#"{ "timeouts": { "response_head": "900ms" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(user.reply("POST").status, 504);
    origin.wait_for_open(0);
    // One that was told to go on and does not is another matter.
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        exchange.stream().read_exact(&mut [0])?;
        Ok(Then::Close)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_body": "300ms" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(user.reply("POST").status, 100);
    assert_eq!(user.reply("POST").status, 408);
}

#[test]
fn the_last_answers_of_a_server_that_drains_say_so() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let origin = HttpOrigin::start(move |exchange: &mut Exchange<'_>| {
        told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        exchange.greet()
    });
    let mut tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is there", || {
        (origin.requests() == [1]).then_some(())
    });
    tunnel.server.terminate();
    tunnel.client.log().wait_for("server drains");
    go_on.send(()).unwrap();
    let reply = user.reply("GET");
    assert_eq!((reply.status, reply.closes()), (200, true));
    user.expect_end();
    assert!(tunnel.server.wait().success());
}

#[test]
fn an_origin_that_keeps_connections_for_a_second_is_asked_again_within_it() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 1\r\n\r\n{}",
            exchange.connection
        ))?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    // On a busy machine a second may have passed by then.
    let mut last = String::new();
    eventually("a connection answers twice", || {
        let answer = user.get("/").text();
        let is_again = answer == last;
        last = answer;
        is_again.then_some(())
    });
    // Before its origin would close it.
    origin.wait_for_open(0);
}

#[test]
fn a_connection_that_is_authenticated_is_not_parked_and_the_log_says_why() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
        )?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 401);
    tunnel.client.log().wait_for("not parked, tied to its user");
    origin.wait_for_open(0);
}

/// A user whose kernel takes little that is not read.
fn reader_of_little(tunnel: &Tunnel) -> TcpStream {
    let user = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    user.set_recv_buffer_size(4096).unwrap();
    user.connect(&tunnel.address().into()).unwrap();
    let user = TcpStream::from(user);
    with_deadlines(&user);
    user
}
