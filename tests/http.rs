//! Flow B, over loopback: exchanges of HTTP/1.1 arrive whole in every framing, and a connection is
//! parked when and only when its exchange is over and clean.

mod common;

use std::{
    io::{self, Read},
    net::Shutdown,
    sync::mpsc,
    thread,
};

use common::{
    Ended, Exchange, HttpOrigin, HttpUser, PATIENCE, Pattern, Then, Tunnel, eventually,
    expect_pattern, send_pattern, wait_until_closed_by, wait_until_read,
};

#[test]
fn a_hundred_users_share_one_origin_connection() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    for number in 0..100 {
        let reply = HttpUser::connect(tunnel.address()).get(&format!("/{number}"));
        assert_eq!(
            (reply.status, reply.text()),
            (200, format!("GET /{number} on connection 1\n"))
        );
    }
    assert_eq!(origin.requests(), [100]);
    tunnel.client.log().wait_for_count(99, "reused");
    assert_eq!(tunnel.client.log().count("fresh"), 1);
}

#[test]
fn the_word_decides_what_is_pooled() {
    for (word, pooled) in [
        ("http", true),
        ("HTTP", true),
        ("tcp", false),
        ("Tcp", false),
        ("ssh", false),
        ("telnet", false),
    ] {
        let origin = HttpOrigin::greeting();
        let tunnel = Tunnel::to(word, origin.address());
        for _ in 0..4 {
            assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
        }
        let expected = if pooled { vec![4] } else { vec![1; 4] };
        assert_eq!(origin.requests(), expected, "{word}");
        origin.wait_for_open(usize::from(pooled));
    }
}

#[test]
fn one_user_keeps_its_connection_for_many_requests() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for number in 0..20 {
        assert_eq!(
            user.get(&format!("/{number}")).text(),
            format!("GET /{number} on connection 1\n")
        );
    }
    assert_eq!(origin.requests(), [20]);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let mut requests = String::new();
    for number in 0..20 {
        requests += &format!("GET /{number} HTTP/1.1\r\nHost: origin.test\r\n\r\n");
        requests += &format!(
            "PUT /{number} HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 5\r\n\r\nGET /"
        );
    }
    user.send(&requests);
    for number in 0..20 {
        assert!(
            user.reply("GET")
                .text()
                .starts_with(&format!("GET /{number} "))
        );
        assert!(
            user.reply("PUT")
                .text()
                .starts_with(&format!("PUT /{number} "))
        );
    }
    assert_eq!(
        origin.requests(),
        [40],
        "one in flight at a time, on one connection"
    );
}

#[test]
fn every_body_that_tells_its_end_arrives_whole_and_its_connection_is_parked() {
    let long = Pattern::bytes(1, 1 << 20);
    let body = long.clone();
    let origin = HttpOrigin::start(move |exchange| {
        exchange.body()?;
        match exchange.request.target.as_str() {
            "/length" => {
                exchange.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                ))?;
                exchange.send(&body)?;
            }
            "/chunked" => {
                exchange.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Check\r\n\r\n",
                )?;
                // Sizes that are not ours, an extension, capital digits.
                for piece in body.chunks(43_981) {
                    exchange.send(format!("{:X};note=\"x;y\"\r\n", piece.len()))?;
                    exchange.send(piece)?;
                    exchange.send("\r\n")?;
                }
                exchange.send("0\r\nCheck: sum\r\n\r\n")?;
            }
            "/empty" => exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?,
            "/204" => exchange.send("HTTP/1.1 204 No Content\r\n\r\n")?,
            "/304" => exchange
                .send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5000\r\nETag: \"a\"\r\n\r\n")?,
            _ => exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")?,
        }
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());

    let reply = user.get("/length");
    assert!(reply.body.ended == Ended::Length && reply.body.bytes == long);

    let reply = user.get("/chunked");
    assert!(reply.body.ended == Ended::Chunked && reply.body.bytes == long);
    assert_eq!(
        reply.body.trailers,
        [("Check".to_owned(), "sum".to_owned())]
    );

    let reply = user.get("/empty");
    assert_eq!((reply.status, reply.body.ended), (200, Ended::Length));

    let reply = user.get("/204");
    assert_eq!(
        (reply.status, reply.field("transfer-encoding")),
        (204, None)
    );

    let reply = user.get("/304");
    assert_eq!((reply.status, reply.field("etag")), (304, Some("\"a\"")));

    user.send("HEAD /head HTTP/1.1\r\nHost: origin.test\r\n\r\n");
    let reply = user.reply("HEAD");
    assert_eq!(
        (reply.status, reply.field("content-length")),
        (200, Some("5000"))
    );

    assert_eq!(user.get("/empty").status, 200);
    assert_eq!(origin.requests(), [7], "every one of them was parked");
}

#[test]
fn a_body_that_ends_with_its_connection_is_chunked_for_a_user_of_1_1() {
    let origin = HttpOrigin::start(until_close);
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for _ in 0..2 {
        let reply = user.get("/");
        assert_eq!(reply.body.ended, Ended::Chunked);
        assert!(reply.body.bytes == Pattern::bytes(2, 100_000));
    }
    assert_eq!(origin.requests(), [1, 1], "never parked");
}

#[test]
fn a_body_that_ends_with_its_connection_ends_the_connection_of_a_user_of_1_0() {
    let origin = HttpOrigin::start(until_close);
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.0\r\n\r\n");
    let reply = user.reply("GET");
    assert_eq!(
        (reply.body.ended, reply.field("transfer-encoding")),
        (Ended::Close, None)
    );
    assert!(reply.body.bytes == Pattern::bytes(2, 100_000));
}

#[test]
fn a_chunked_body_is_decoded_for_a_user_of_1_0() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.send("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.0\r\nHost: origin.test\r\n\r\n");
    let reply = user.reply("GET");
    assert_eq!(
        (reply.field("transfer-encoding"), reply.text().as_str()),
        (None, "hello world")
    );
    assert_eq!(reply.body.ended, Ended::Close);
}

#[test]
fn a_user_that_expects_100_continue_gets_it_before_it_sends_the_body() {
    let origin = HttpOrigin::start(|exchange| {
        assert_eq!(exchange.request.field("expect"), Some("100-continue"));
        exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = exchange.body()?;
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.bytes.len()
        ))?;
        exchange.send(body.bytes)?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for _ in 0..2 {
        user.send("PUT / HTTP/1.1\r\nHost: origin.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(user.reply("PUT").status, 100);
        user.send("body");
        let reply = user.reply("PUT");
        assert_eq!((reply.status, reply.text().as_str()), (200, "body"));
    }
    assert_eq!(origin.requests(), [2]);
}

#[test]
fn early_hints_reach_a_user_of_1_1_and_not_one_of_1_0() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        exchange.greet()
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let hints = user.get("/");
    assert_eq!(
        (hints.status, hints.field("link")),
        (103, Some("</a.css>; rel=preload"))
    );
    assert_eq!(user.reply("GET").status, 200);
    let mut old = HttpUser::connect(tunnel.address());
    old.send("GET / HTTP/1.0\r\nHost: origin.test\r\n\r\n");
    assert_eq!(old.reply("GET").status, 200);
    assert_eq!(origin.requests(), [2]);
}

#[test]
fn an_upgraded_connection_is_raw_both_ways_and_never_parked() {
    let (upgraded, report) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        if exchange.request.field("upgrade").is_none() {
            return exchange.greet();
        }
        upgraded.send(exchange.connection).unwrap();
        assert_eq!(exchange.request.field("upgrade"), Some("echo"));
        // Bytes of the new protocol come in the segment of the head.
        exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst ",
        )?;
        let mut words = String::new();
        exchange.stream().read_to_string(&mut words)?;
        exchange.send(words.to_uppercase())?;
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    let mut user = HttpUser::connect(tunnel.address());
    // What is sent on without waiting for the answer belongs to the new protocol too.
    user.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nsecond ");
    let reply = user.reply("GET");
    assert_eq!((reply.status, reply.field("upgrade")), (101, Some("echo")));
    let mut first = [0; 6];
    user.stream().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first ");
    user.send("GET / third");
    user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    user.stream().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "SECOND GET / THIRD");
    let connection = report.recv_timeout(PATIENCE).unwrap();
    for _ in 0..3 {
        let text = HttpUser::connect(tunnel.address()).get("/").text();
        assert!(
            !text.ends_with(&format!("connection {connection}\n")),
            "{text}"
        );
    }
}

#[test]
fn an_upgrade_that_is_refused_is_an_answer_like_any_other() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET /ws HTTP/1.1\r\nHost: origin.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    let reply = user.reply("GET");
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (200, "GET /ws on connection 1\n")
    );
    // Whether this connection is kept is the server's to say; the service goes on in any case.
    if reply.closes() {
        user.expect_end();
        user = HttpUser::connect(tunnel.address());
    }
    assert_eq!(user.get("/").status, 200);
}

#[test]
fn a_chunked_upload_arrives_whole_with_its_trailers() {
    let upload = Pattern::bytes(3, 1 << 20);
    let expected = upload.clone();
    let origin = HttpOrigin::start(move |exchange| {
        let body = exchange.body()?;
        let whole = body.ended == Ended::Chunked && body.bytes == expected;
        let trailers = body.trailers == [("Check".to_owned(), "sum".to_owned())];
        exchange.send(format!(
            "HTTP/1.1 {} Judged\r\nContent-Length: 0\r\n\r\n",
            if whole && trailers { 200 } else { 500 }
        ))?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for size in [1 << 20, 70_001, 4_099] {
        user.send("PUT / HTTP/1.1\r\nHost: origin.test\r\nTransfer-Encoding: chunked\r\nTrailer: Check\r\n\r\n");
        for piece in upload.chunks(size) {
            user.send(format!("{:x}\r\n", piece.len()));
            user.send(piece);
            user.send("\r\n");
        }
        user.send("0\r\nCheck: sum\r\n\r\n");
        assert_eq!(user.reply("PUT").status, 200, "chunks of {size} bytes");
    }
    assert_eq!(origin.requests(), [3]);
}

#[test]
fn a_long_upload_and_a_long_answer_arrive_whole() {
    const LENGTH: u64 = 20 << 20;
    let origin = HttpOrigin::start(|exchange| {
        let judged = expect_pattern(exchange.stream(), 4, LENGTH);
        let status = if judged.is_ok() { 200 } else { 500 };
        exchange.send(format!(
            "HTTP/1.1 {status} Judged\r\nContent-Length: {LENGTH}\r\n\r\n"
        ))?;
        send_pattern(exchange.stream().get_mut(), 5, LENGTH)?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!(
        "PUT / HTTP/1.1\r\nHost: origin.test\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    send_pattern(user.stream().get_mut(), 4, LENGTH).unwrap();
    let reply = user.reply("PUT");
    assert_eq!(reply.status, 200);
    expect_pattern(reply.body.bytes.as_slice(), 5, LENGTH).unwrap();
}

#[test]
fn a_user_that_asks_for_close_gets_it_after_its_answer() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    for _ in 0..2 {
        let mut user = HttpUser::connect(tunnel.address());
        user.send("GET / HTTP/1.1\r\nHost: origin.test\r\nConnection: close\r\n\r\n");
        let reply = user.reply("GET");
        assert_eq!((reply.status, reply.closes()), (200, true));
        user.expect_end();
    }
    assert_eq!(
        origin.requests(),
        [2],
        "that is between the user and us, not the origin"
    );
}

#[test]
fn an_origin_that_says_close_is_not_asked_again_on_that_connection() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    for _ in 0..3 {
        assert_eq!(HttpUser::connect(tunnel.address()).get("/").text(), "ok");
    }
    assert_eq!(origin.requests(), [1; 3]);
    origin.wait_for_open(0);
}

#[test]
fn bytes_after_a_response_are_never_the_next_users_answer() {
    let origin = HttpOrigin::start(|exchange| {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        exchange.send(format!("{ok}mine{ok}evil"))?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    for _ in 0..5 {
        assert_eq!(HttpUser::connect(tunnel.address()).get("/").text(), "mine");
    }
    assert_eq!(origin.requests(), [1; 5]);
}

#[test]
fn a_parked_connection_that_its_origin_closes_is_not_used_again() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.greet()?;
        // Without a word, as origins do when their idle time is over.
        Ok(if exchange.request.target == "/reset" {
            Then::Reset
        } else {
            Then::Close
        })
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    for number in 0..100 {
        let target = if number % 2 == 0 { "/close" } else { "/reset" };
        let reply = user.get(target);
        assert_eq!(reply.status, 200, "request {number}: {}", reply.text());
        // Whether the client has looked or not.
        wait_until_closed_by(origin.address());
    }
    assert_eq!(origin.requests(), [1; 100]);
}

#[test]
fn a_parked_connection_expires_by_idle_time() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_config(r#"{ "pool": { "idle": "200ms" } }"#)
        .start();
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    origin.wait_for_open(0);
    assert_eq!(
        HttpUser::connect(tunnel.address()).get("/").text(),
        "GET / on connection 2\n"
    );
}

#[test]
fn a_request_split_at_every_byte_is_the_same_request() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let request = "PUT /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: t\r\n\r\n";
    for place in 1..request.len() {
        let (early, late) = request.split_at(place);
        user.send(early);
        wait_until_read(user.stream().get_ref());
        user.send(late);
        let reply = user.reply("PUT");
        assert_eq!(reply.text(), "PUT /p on connection 1\n", "split at {place}");
    }
}

#[test]
fn many_users_at_once_get_each_their_own_answer() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.body()?;
        let length: usize = exchange.request.target[1..].parse().unwrap();
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ))?;
        exchange.send(Pattern::bytes(length as u64, length))?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let before = tunnel.server.descriptors();
    thread::scope(|scope| {
        for number in 1..=40_usize {
            let tunnel = &tunnel;
            scope.spawn(move || {
                let mut user = HttpUser::connect(tunnel.address());
                for round in 0..10 {
                    let length = number * 997 + round;
                    let reply = user.get(&format!("/{length}"));
                    assert!(reply.body.bytes == Pattern::bytes(length as u64, length));
                }
            });
        }
    });
    assert_eq!(origin.requests().iter().sum::<usize>(), 400);
    assert!(
        origin.connections() <= 400 / 2,
        "most exchanges found a parked connection"
    );
    eventually("the server's users have gone", || {
        (tunnel.server.descriptors() == before).then_some(())
    });
}

/// A body whose end is the end of the connection.
fn until_close(exchange: &mut Exchange<'_>) -> io::Result<Then> {
    exchange.send("HTTP/1.1 200 OK\r\n\r\n")?;
    send_pattern(exchange.stream().get_mut(), 2, 100_000)?;
    Ok(Then::Close)
}
