//! Users and origins that keep to the letter of HTTP and make a burden of it: by being slow, by sending
//! without end, by staying. Each meets its deadline or its limit, and nobody else is the poorer for it.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{
    HttpOrigin, HttpUser, PATIENCE, Then, Tunnel, connect, connections_to, eventually, pass,
    raise_descriptor_limit, unread_by_far_end, wait_until_all_read, wait_until_read,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn heads_that_come_too_slowly_are_cut_at_their_deadline_and_cost_nobody_anything() {
    const SLOW: usize = 100;
    const HEAD: &[u8] =
        b"GET /slow HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy";
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_head": "3s" } }"#)
        .start();
    let before = tunnel.server.descriptors();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // They never stop sending, so that it is not silence that ends them.
        let dribbling: Vec<_> = (0..SLOW)
            .map(|number| {
                let tunnel = &tunnel;
                scope.spawn(move || {
                    let mut user = HttpUser::connect(tunnel.address());
                    if number % 2 == 0 {
                        // On a connection that has served already, too.
                        assert_eq!(user.get("/").status, 200);
                    }
                    for byte in HEAD.iter().cycle().take(10_000) {
                        if user.try_send([*byte]).is_err() || has_answer(&mut user) {
                            break;
                        }
                        pass(Duration::from_millis(20));
                    }
                    let reply = user.reply("GET");
                    assert_eq!((reply.status, reply.closes()), (408, true));
                    user.expect_end();
                })
            })
            .collect();
        let silent: Vec<_> = (0..SLOW)
            .map(|_| {
                let tunnel = &tunnel;
                scope.spawn(move || HttpUser::connect(tunnel.address()).expect_end())
            })
            .collect();
        let (tunnel, over) = (&tunnel, &over);
        let other = scope.spawn(move || {
            let mut user = HttpUser::connect(tunnel.address());
            let mut served = 0;
            while !over.load(Ordering::SeqCst) {
                assert!(user.get("/other").text().starts_with("GET /other "));
                served += 1;
            }
            served
        });
        let slow: Vec<_> = dribbling
            .into_iter()
            .chain(silent)
            .map(|user| user.join())
            .collect();
        over.store(true, Ordering::SeqCst);
        let served = other.join().expect("the other user is served all the time");
        assert!(slow.iter().all(Result::is_ok));
        let requests: usize = origin.requests().iter().sum();
        assert_eq!(requests, SLOW / 2 + served, "no slow head has reached it");
    });
    eventually("the slow ones are gone", || {
        (tunnel.server.descriptors() == before).then_some(())
    });
}

#[test]
fn bodies_that_stop_are_cut_at_their_deadline_with_their_origins_connections() {
    const SLOW: usize = 50;
    const REQUESTS: [&str; 4] = [
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nbody",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n",
    ];
    let (ended, report) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        let body = exchange.body();
        if exchange.request.method == "PUT" {
            ended
                .send(body.map(drop).map_err(|error| error.kind()))
                .unwrap();
            return Ok(Then::Close);
        }
        exchange.greet()
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_body": "3s" } }"#)
        .start();
    let users: Vec<HttpUser> = REQUESTS
        .iter()
        .cycle()
        .take(SLOW)
        .map(|request| {
            let mut user = HttpUser::connect(tunnel.address());
            user.send(request);
            user
        })
        .collect();
    // Meanwhile others are served.
    for number in 0..100 {
        let reply = HttpUser::connect(tunnel.address()).get(&format!("/{number}"));
        assert!(reply.text().starts_with(&format!("GET /{number} ")));
    }
    for mut user in users {
        let reply = user.reply("PUT");
        assert_eq!((reply.status, reply.closes()), (408, true));
        user.expect_end();
        let seen = report.recv_timeout(PATIENCE).unwrap();
        assert!(
            matches!(
                seen,
                Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
            ),
            "{seen:?}"
        );
    }
}

#[test]
fn each_limit_of_a_request_is_refused_with_its_status() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(
            r#"{ "limits": { "request_line": "1KiB", "head": "2KiB", "fields": 4,
                 "chunk_extension": 8, "trailers": 10 } }"#,
        )
        .start();
    // With a head of this length; the line end of the last field counts, too.
    let line = |length: usize| {
        let rest = "GET / HTTP/1.1\r\n".len();
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(length - rest)
        )
    };
    let head = |length: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(length - rest)
        )
    };
    let fields = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(count - 1)
        )
    };
    let chunks = |chunks: &str| {
        format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
    };
    let many = |extension: &str| format!("1{extension}\r\nx\r\n").repeat(10_000) + "0\r\n\r\n";
    for (what, request, status) in [
        ("a line of the limit", line(1024), 200),
        ("a longer line", line(1025), 414),
        ("a line without end", "G".repeat(1024), 414),
        (
            "a target without end",
            format!("GET /{}", "x".repeat(100_000)),
            414,
        ),
        ("a head of the limit", head(2048), 200),
        ("a longer head", head(2049), 431),
        ("a head without end", head(100_000), 431),
        ("as many fields as may be", fields(4), 200),
        ("one field more", fields(5), 431),
        (
            "an extension of the limit",
            chunks("1;2345678\r\nx\r\n0\r\n\r\n"),
            200,
        ),
        (
            "a longer extension",
            chunks("1;23456789\r\nx\r\n0\r\n\r\n"),
            400,
        ),
        (
            "an extension of the last chunk",
            chunks("1\r\nx\r\n0;23456789\r\n\r\n"),
            400,
        ),
        (
            "small extensions of many chunks",
            chunks(&many(";2345678")),
            200,
        ),
        (
            "trailers of the limit",
            chunks("0\r\nX: 45678\r\n\r\n"),
            200,
        ),
        ("longer trailers", chunks("0\r\nX: 456789\r\n\r\n"), 400),
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        // It may be refused before the last byte.
        user.try_send(&request).ok();
        let reply = user
            .try_reply("GET")
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            (reply.status, reply.closes()),
            (status, status != 200),
            "{what}"
        );
        let again = HttpUser::connect(tunnel.address()).get("/");
        assert_eq!(again.status, 200, "after {what}");
    }
}

#[test]
fn extensions_that_are_out_of_proportion_to_their_data_are_refused() {
    let (read, report) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        if exchange.request.method == "GET" {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            exchange.send(out_of_proportion())?;
            return Ok(Then::Keep);
        }
        let body = exchange.body().map(drop).map_err(|error| error.kind());
        read.send(body).unwrap();
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    wait_until_read(user.stream().get_ref());
    user.try_send(out_of_proportion()).ok();
    assert_eq!(user.reply("PUT").status, 400);
    let seen = report.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(
            seen,
            Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
        ),
        "{seen:?}"
    );
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    match user.try_reply("GET") {
        Ok(reply) => assert_eq!(reply.status, 502),
        Err(error) => assert!(
            [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()),
            "{error}"
        ),
    }
    origin.wait_for_open(0);
}

/// Chunks of one byte, each with as much of extensions as a chunk may have (CVE-2023-39326).
fn out_of_proportion() -> String {
    format!("1;{}\r\nx\r\n", "y".repeat(1000)).repeat(100) + "0\r\n\r\n"
}

#[test]
fn each_limit_of_a_response_is_a_502_or_a_cut_answer() {
    let origin = HttpOrigin::start(|exchange| {
        let answer = match exchange.request.target.as_str() {
            "/head" => format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(5_000)),
            "/endless" => "HTTP/1.1 200 OK\r\nX: ".to_owned() + &"x".repeat(5_000),
            "/fields" => format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(5)),
            "/extension" => chunked("1;23456789\r\nx\r\n0\r\n\r\n"),
            "/trailers" => chunked("1\r\nx\r\n0\r\nX: 456789\r\n\r\n"),
            _ => OK.to_owned(),
        };
        exchange.send(answer)?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_config(
            r#"{ "limits": { "head": "2KiB", "fields": 4, "chunk_extension": 8, "trailers": 10 } }"#,
        )
        .start();
    for target in ["/head", "/endless", "/fields", "/extension", "/trailers"] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        match user.try_reply("GET") {
            Ok(reply) => assert_eq!(reply.status, 502, "{target}"),
            // Its head had passed already.
            Err(error) => {
                let cut = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(cut.contains(&error.kind()), "{target}: {error}");
                assert!(["/extension", "/trailers"].contains(&target), "{target}");
            }
        }
        origin.wait_for_open(0);
        assert_eq!(HttpUser::connect(tunnel.address()).get("/").text(), "ok");
    }
}

#[test]
fn what_is_sent_ahead_waits_with_the_user() {
    const REQUESTS: usize = 1000;
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = Mutex::new(may_answer);
    let origin = HttpOrigin::start(move |exchange| {
        exchange.body()?;
        if exchange.request.target == "/0" {
            may_answer.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        exchange.greet()
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "limits": { "pipelined": "1KiB" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    let requests: String = (0..REQUESTS)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    user.send(&requests);
    eventually("the first is asked", || {
        (origin.requests() == [1]).then_some(())
    });
    // The server has had its turn: what it has not read now, it does not read before the answer.
    assert_eq!(
        HttpUser::connect(tunnel.address()).get("/other").status,
        200
    );
    let unread = unread_by_far_end(user.stream().get_ref()) as usize;
    assert!(
        unread >= requests.len() - 2 * 1024,
        "{unread} of {} are still the kernel's",
        requests.len()
    );
    answer.send(()).unwrap();
    for number in 0..REQUESTS {
        assert!(
            user.reply("GET")
                .text()
                .starts_with(&format!("GET /{number} "))
        );
    }
}

#[test]
fn idle_users_cost_the_client_no_memory_and_the_origin_no_connection() {
    const USERS: usize = 2_000;
    /// Of each user, at the client. What a process of this size gains and loses by chance is less
    /// than this makes in sum.
    const BYTES_MAX: u64 = 256;
    /// Of each user, at the server: a socket's slot, a front, no buffer.
    const SERVER_BYTES_MAX: u64 = 2_048;
    raise_descriptor_limit(3 * USERS);
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_config(r#"{ "pool": { "idle": "1s" } }"#)
        .start();
    // What the first ones need is there before it counts.
    for _ in 0..100 {
        assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    }
    origin.wait_for_open(0);
    let memory = [&tunnel.client, &tunnel.server].map(|side| side.written_bytes());
    let descriptors = tunnel.client.descriptors();
    let mut users: Vec<HttpUser> = (0..USERS)
        .map(|number| {
            let mut user = HttpUser::connect(tunnel.address());
            let reply = user.get(&format!("/{number}"));
            assert_eq!((reply.status, reply.closes()), (200, false));
            user
        })
        .collect();
    origin.wait_for_open(0);
    eventually("the client has let go of the origin", || {
        (connections_to(origin.address()) == 0).then_some(())
    });
    assert_eq!(tunnel.client.descriptors(), descriptors);
    let grown = [&tunnel.client, &tunnel.server]
        .map(|side| side.written_bytes())
        .iter()
        .zip(memory)
        .map(|(now, before)| now.saturating_sub(before) / USERS as u64)
        .collect::<Vec<_>>();
    println!("bytes of each idle user at client and server: {grown:?}");
    assert!(grown[0] <= BYTES_MAX, "{grown:?} at the client");
    assert!(grown[1] <= SERVER_BYTES_MAX, "{grown:?} at the server");
    // They are still users.
    for user in &mut users {
        assert_eq!(user.get("/").status, 200);
    }
    users.into_iter().for_each(HttpUser::leave);
}

#[test]
fn users_that_do_not_read_their_answers_hold_up_nobody_else() {
    const STALLED: usize = 100;
    /// Both budgets, and as much again for all that is none of the users' bytes.
    const GROWTH_MAX: u64 = 2 * (4 << 20);
    let origin = HttpOrigin::start(|exchange| {
        if exchange.request.target != "/endless" {
            return exchange.greet();
        }
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            exchange.send(format!("4000\r\n{}\r\n", "x".repeat(0x4000)))?;
        }
    });
    let budget = r#"{ "limits": { "undelivered": "4MiB" } }"#;
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(budget)
        .client_config(budget)
        .start();
    let sides = [&tunnel.client, &tunnel.server];
    let memory = sides.map(|side| side.written_bytes());
    let stalled: Vec<TcpStream> = (0..STALLED)
        .map(|_| {
            let mut user = tunnel.connect();
            user.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap();
            // It has an answer, of which it reads no more.
            user.read_exact(&mut [0]).unwrap();
            user
        })
        .collect();
    wait_until_all_read(&stalled);
    let mut user = HttpUser::connect(tunnel.address());
    for number in 0..200 {
        let reply = user.get(&format!("/{number}"));
        assert!(
            reply.text().starts_with(&format!("GET /{number} ")),
            "{}",
            reply.text()
        );
    }
    for (side, before) in sides.iter().zip(memory) {
        let grown = side.written_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes more");
    }
    stalled.into_iter().for_each(common::reset);
    origin.wait_for_open(1);
}

fn chunked(chunks: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
}

/// Whether something has come for a user, without waiting for it.
fn has_answer(user: &mut HttpUser) -> bool {
    let stream = user.stream().get_ref();
    stream.set_nonblocking(true).unwrap();
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    seen.is_ok()
}

#[test]
fn what_was_sent_ahead_and_beginnings_of_tls_refuse_nobody_elses_streams() {
    /// Of 16 KiB each: nearly all of the budget, together.
    const STRANGERS: usize = 60;
    let held = Arc::new((Mutex::new(true), Condvar::new()));
    let release = Arc::clone(&held);
    let slow = HttpOrigin::start(move |exchange| {
        let (held, released) = &*held;
        let held = held.lock().expect("no holder panics");
        drop(released.wait_timeout_while(held, PATIENCE, |held| *held));
        exchange.greet()
    });
    let other = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", slow.address())
        .to("http", other.address())
        .to("tls", other.address())
        .server_config(r#"{ "limits": { "undelivered": "1MiB" } }"#)
        .start();
    let others_are_served = || {
        let mut user = HttpUser::connect(tunnel.proxy(1));
        assert_eq!(user.get("/").status, 200);
    };
    let ahead = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(16 * 1024 / 28);
    let mut strangers: Vec<HttpUser> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = HttpUser::connect(tunnel.proxy(0));
            stranger.send([&b"GET /0 HTTP/1.1\r\nHost: a\r\n\r\n"[..], &ahead].concat());
            stranger
        })
        .collect();
    eventually("all are asked", || {
        (slow.requests().len() == STRANGERS).then_some(())
    });
    others_are_served();
    let record = [&[22, 3, 1, 0x3f, 0xff, 1, 0][..], &[0; 16_000]].concat();
    let beginnings: Vec<TcpStream> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = connect(tunnel.proxy(2));
            stranger.write_all(&record).expect("it is sent");
            stranger
        })
        .collect();
    let log = tunnel.server.log();
    log.wait_for("too many half heads");
    others_are_served();
    drop(beginnings);
    // Each gets the answer that it was promised; some have to ask the rest again.
    *release.0.lock().expect("no holder panics") = false;
    release.1.notify_all();
    for stranger in &mut strangers {
        assert_eq!(stranger.reply("GET").status, 200);
    }
    let forgotten = log.count("too much was read ahead");
    assert!(
        (STRANGERS / 2..STRANGERS).contains(&forgotten),
        "{forgotten}"
    );
    let ended = strangers.into_iter().filter_map(|mut stranger| {
        let reply = stranger.try_reply("GET");
        reply.is_err().then_some(())
    });
    assert_eq!(ended.count(), forgotten);
}
