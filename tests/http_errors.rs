//! What goes wrong in an exchange of HTTP/1.1, over loopback: bad requests, origins that break off or
//! never begin, users that leave. Each gets a clear answer, or an end that cannot be mistaken.

mod common;

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::{Mutex, mpsc},
    thread,
};

use common::{
    AT_ONCE, HttpOrigin, HttpUser, Origin, PATIENCE, Siding, Then, Tunnel, connect, eventually,
    refusing, reset, send_pattern,
};

#[test]
fn a_body_cut_short_by_the_origin_is_never_passed_off_as_whole() {
    let origin = HttpOrigin::start(|exchange| {
        match exchange.request.target.as_str() {
            "/length" => exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")?,
            _ => exchange
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")?,
        }
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    for target in ["/length", "/chunked"] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!(
            "GET {target} HTTP/1.1\r\nHost: origin.test\r\n\r\n"
        ));
        user.try_reply("GET")
            .expect_err("the user sees that it is not whole");
    }
    assert_eq!(origin.requests(), [1, 1], "never parked");
}

#[test]
fn an_early_answer_reaches_a_user_that_is_still_uploading_and_closes_both_connections() {
    let origin = HttpOrigin::start(|exchange| {
        if exchange.request.method == "GET" {
            return exchange.greet();
        }
        exchange.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large")?;
        // It would wait for a next request on this connection, with the upload still coming.
        exchange.stream().read_exact(&mut [0; 100])?;
        Ok(Then::Keep)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let mut upload = user.stream().get_ref().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            upload
                .write_all(
                    b"POST / HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 1000000000\r\n\r\n",
                )
                .unwrap();
            // More than anybody swallows: it is our own hanging up, or the server's, that ends it.
            send_pattern(&upload, 6, u64::MAX).unwrap_err();
        });
        let reply = user.reply("POST");
        assert_eq!((reply.status, reply.text().as_str()), (413, "too large"));
        assert!(
            reply.closes(),
            "the user is told that its connection is over"
        );
        // The server may have ended it by then.
        user.stream().get_ref().shutdown(Shutdown::Both).ok();
    });
    assert_eq!(
        HttpUser::connect(tunnel.address()).get("/").text(),
        "GET / on connection 2\n"
    );
}

#[test]
fn a_head_that_is_too_large_gets_431() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    let endless = format!("X: {}\r\n", "y".repeat(1_000)).repeat(1_000);
    // The server does not read all of it.
    user.try_send(format!("GET / HTTP/1.1\r\nHost: a\r\n{endless}\r\n"))
        .ok();
    assert_eq!(user.reply("GET").status, 431);
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
}

/// RFC 9110 §9.3.2: a user that asked by HEAD takes content for the next response.
#[test]
fn a_refusal_of_head_has_no_content_however_early_it_comes() {
    let origin = HttpOrigin::greeting();
    let patient = Tunnel::to("http", origin.address());
    let impatient = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_head": "1s" } }"#)
        .start();
    let long = "x".repeat(9_000);
    let large = format!("X-Large: {long}\r\n").repeat(4);
    for (status, request) in [
        (400, "HEAD / HTTP/1.1\r\n\r\n".to_owned()),
        (
            400,
            "\r\nHEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        ),
        (505, "HEAD / HTTP/1.2\r\nHost: a\r\n\r\n".to_owned()),
        (414, format!("HEAD /{long} HTTP/1.1\r\n")),
        (431, format!("HEAD / HTTP/1.1\r\nHost: a\r\n{large}")),
        (408, "HEAD / HTTP/1.1\r\nHost:".to_owned()),
        (
            400,
            "HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
        ),
    ] {
        let tunnel = if status == 408 { &impatient } else { &patient };
        let mut user = HttpUser::connect(tunnel.address());
        user.send(&request);
        let reply = user.reply("HEAD");
        assert_eq!(reply.status, status, "{request:.60}");
        assert!(
            reply.field("content-length").is_some(),
            "its length is told"
        );
        user.expect_end();
    }
    // Another method is none of that, however it begins.
    let mut user = HttpUser::connect(patient.address());
    user.send("HEADER / HTTP/1.1\r\n\r\n");
    assert!(user.reply("HEADER").text().starts_with("400 "));
}

#[test]
fn a_head_that_does_not_come_gets_408() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_head": "1s" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(user.reply("GET").status, 408);
    user.expect_end();
}

#[test]
fn an_idle_user_is_closed_without_a_word() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "keep_alive": "200ms" } }"#)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    assert_eq!(user.get("/").status, 200);
    user.expect_end();
}

#[test]
fn an_origin_that_does_not_answer_gets_its_user_504() {
    let origin = HttpOrigin::start(|exchange| {
        // Until the client gives up.
        exchange.stream().read_exact(&mut [0])?;
        Ok(Then::Close)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .client_config(r#"{ "timeouts": { "response_head": "200ms" } }"#)
        .start();
    let reply = HttpUser::connect(tunnel.address()).get("/");
    assert_eq!((reply.status, reply.text().lines().count()), (504, 1));
    origin.wait_for_open(0);
}

#[test]
fn an_origin_that_speaks_no_http_gets_its_user_502() {
    for words in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 OK\r\n\r\n", ""] {
        let origin = Origin::start(move |mut stream| {
            // The whole request is read, so that the close behind the answer is no reset.
            if stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {
                stream.write_all(words.as_bytes()).ok();
            }
        });
        let tunnel = Tunnel::to("http", origin.address());
        let reply = HttpUser::connect(tunnel.address()).get("/");
        assert_eq!(
            (reply.status, reply.text().lines().count()),
            (502, 1),
            "{words:?}"
        );
        origin.wait_for_open(0);
    }
}

#[test]
fn an_origin_that_refuses_gets_its_user_502() {
    let tunnel = Tunnel::to("http", refusing());
    let reply = HttpUser::connect(tunnel.address()).get("/");
    assert_eq!((reply.status, reply.text().lines().count()), (502, 1));
}

#[test]
fn users_of_a_client_that_is_away_get_503_with_its_reason() {
    let server = Siding::start([
        "server",
        "--listen",
        "127.0.0.1:0",
        "--proxy",
        "nobody=http:0:127.0.0.1:80",
    ]);
    let reply = HttpUser::connect(server.proxy_address("http:0:127.0.0.1:80")).get("/");
    assert_eq!((reply.status, reply.text().lines().count()), (503, 1));

    let origin = HttpOrigin::greeting();
    let mut tunnel = Tunnel::to("http", origin.address());
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    tunnel.client.kill();
    tunnel.server.log().wait_for(": down");
    let reply = HttpUser::connect(tunnel.address()).get("/");
    assert_eq!((reply.status, reply.text().lines().count()), (503, 1));
}

#[test]
fn a_user_that_resets_in_the_middle_of_an_answer_closes_the_origin_at_once() {
    let (ended, report) = mpsc::channel();
    let origin = HttpOrigin::start(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n!")?;
        ended.send(exchange.stream().read(&mut [0]).ok()).unwrap();
        Ok(Then::Close)
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = connect(tunnel.address());
    user.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n!") {
        let mut byte = [0];
        user.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    reset(user);
    let seen = report
        .recv_timeout(AT_ONCE)
        .expect("the origin learns of it at once");
    assert!(
        matches!(seen, None | Some(0)),
        "an end or a reset, no byte: {seen:?}"
    );
}

#[test]
fn a_user_that_half_closes_after_its_request_still_gets_the_answer() {
    let (answer, may_answer) = mpsc::channel::<()>();
    let may_answer = Mutex::new(may_answer);
    let origin = HttpOrigin::start(move |exchange| {
        may_answer.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        exchange.greet()
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    user.stream().get_ref().shutdown(Shutdown::Write).unwrap();
    eventually("the origin is asked", || {
        (origin.requests() == [1]).then_some(())
    });
    answer.send(()).unwrap();
    assert_eq!(user.reply("GET").status, 200);
    user.expect_end();
}
