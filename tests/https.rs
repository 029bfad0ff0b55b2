//! `https` targets: the client speaks TLS, verifies always, and parks the session with its connection.

mod common;

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use common::{
    Authority, Ended, Exchange, HttpOrigin, HttpUser, Pattern, Then, Tunnel, expect_pattern,
    send_pattern,
};
use rustls::{HandshakeKind, version};

/// A tunnel to an `https` origin at `localhost`, whose authority the client trusts.
fn tunnel_to(origin: SocketAddr, authority: &Authority) -> Tunnel {
    let target = format!("localhost:{}", origin.port());
    Tunnel::builder()
        .proxy(format!("https:0:{target}"))
        .allow(target)
        .client_argument("--target-ca")
        .client_argument(authority.file().display().to_string())
        .start()
}

/// Greets, and says what kind of handshake the connection began with.
fn greet(exchange: &mut Exchange<'_>) -> io::Result<Then> {
    exchange.body()?;
    exchange.greet()
}

#[test]
fn a_request_is_answered_over_tls_and_the_connection_is_parked_with_its_session() {
    for version in [&version::TLS12, &version::TLS13] {
        let authority = Authority::new();
        let config = authority.server_of(&["localhost"], &[version]);
        let origin = HttpOrigin::start_tls(config, greet);
        let tunnel = tunnel_to(origin.address(), &authority);
        for number in 0..20 {
            let reply = HttpUser::connect(tunnel.address()).get(&format!("/{number}"));
            assert_eq!(
                (reply.status, reply.text()),
                (200, format!("GET /{number} on connection 1\n"))
            );
        }
        // Tickets came while it was parked: they are no reason to close it.
        assert_eq!(origin.requests(), [20]);
        tunnel.client.log().wait_for_count(19, "reused");
        assert_eq!(tunnel.client.log().count("fresh"), 1);
    }
}

#[test]
fn the_origin_is_called_by_its_own_name() {
    let authority = Authority::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&seen);
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), move |exchange| {
        let session = exchange.stream().get_mut().session().expect("this is TLS");
        let sni = session.server_name().map(str::to_owned);
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        let field = |name: &str| exchange.request.field(name).map(str::to_owned);
        let told = (sni, alpn, field("host"), field("x-forwarded-host"));
        names.lock().unwrap().push(told);
        exchange.greet()
    });
    let port = origin.address().port();
    let tunnel = tunnel_to(origin.address(), &authority);
    HttpUser::connect(tunnel.address()).get("/");
    let seen = seen.lock().unwrap();
    let (sni, alpn, host, forwarded) = &seen[0];
    assert_eq!(sni.as_deref(), Some("localhost"));
    assert_eq!(alpn.as_deref(), None, "this origin chooses no protocol");
    assert_eq!(host.as_deref(), Some(&*format!("localhost:{port}")));
    assert_eq!(forwarded.as_deref(), Some("origin.test"));
}

#[test]
fn sessions_are_resumed_on_new_connections() {
    for version in [&version::TLS12, &version::TLS13] {
        let authority = Authority::new();
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&kinds);
        let config = authority.server_of(&["localhost"], &[version]);
        let origin = HttpOrigin::start_tls(config, move |exchange| {
            let session = exchange.stream().get_mut().session().expect("this is TLS");
            let kind = session.handshake_kind();
            seen.lock().unwrap().push(kind);
            exchange.greet()?;
            Ok(Then::Close)
        });
        let tunnel = tunnel_to(origin.address(), &authority);
        for _ in 0..3 {
            assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
            origin.wait_for_open(0);
        }
        assert_eq!(
            *kinds.lock().unwrap(),
            [
                Some(HandshakeKind::Full),
                Some(HandshakeKind::Resumed),
                Some(HandshakeKind::Resumed),
            ],
            "{version:?}"
        );
    }
}

#[test]
fn who_cannot_prove_to_be_the_origin_is_a_502_and_never_parked() {
    let authority = Authority::new();
    let stranger = Authority::new();
    for (server, why) in [
        (stranger.server(&["localhost"]), "UnknownIssuer"),
        (authority.server(&["another.test"]), "not valid for name"),
    ] {
        let origin = HttpOrigin::start_tls(server, greet);
        let tunnel = tunnel_to(origin.address(), &authority);
        for _ in 0..2 {
            let reply = HttpUser::connect(tunnel.address()).get("/");
            assert_eq!(
                (reply.status, &*reply.text()),
                (502, "502 Bad Gateway: tls_failed\n")
            );
        }
        tunnel.client.log().wait_for_count(2, why);
        assert_eq!(origin.requests().iter().sum::<usize>(), 0);
        origin.wait_for_open(0);
    }
}

#[test]
fn who_speaks_no_tls_is_a_502() {
    let authority = Authority::new();
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")?;
        Ok(Then::Close)
    });
    let plain = common::Origin::start(|mut stream| {
        // Whatever it is, it is no TLS.
        stream.write_all(b"220 smtp.test ready\r\n").ok();
        stream.read_exact(&mut [0]).ok();
    });
    for address in [origin.address(), plain.address()] {
        let tunnel = tunnel_to(address, &authority);
        assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 502);
    }
}

#[test]
fn bodies_are_whole_both_ways_and_each_framing_ends() {
    const LENGTH: u64 = 3_000_000;
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(
        authority.server(&["localhost"]),
        |exchange| match &*exchange.request.target {
            "/upload" => {
                let judged = expect_pattern(exchange.stream(), 1, LENGTH);
                assert!(judged.is_ok(), "{judged:?}");
                exchange.greet()
            }
            "/length" => {
                exchange.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
                ))?;
                send_pattern(exchange.stream().get_mut(), 2, LENGTH)?;
                Ok(Then::Keep)
            }
            _ => {
                exchange.send("HTTP/1.1 200 OK\r\n\r\n")?;
                send_pattern(exchange.stream().get_mut(), 2, LENGTH)?;
                Ok(Then::Close)
            }
        },
    );
    let tunnel = tunnel_to(origin.address(), &authority);
    let mut expected = vec![0; LENGTH as usize];
    Pattern::new(2).fill(&mut expected);

    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!(
        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    send_pattern(user.stream().get_mut(), 1, LENGTH).unwrap();
    assert_eq!(user.reply("POST").text(), "POST /upload on connection 1\n");
    let reply = user.get("/length");
    assert!(reply.body.bytes == expected);
    // Announced by close_notify, so it is whole.
    let reply = user.get("/until-close");
    assert_eq!(reply.body.ended, Ended::Chunked);
    assert!(reply.body.bytes == expected);
    assert_eq!(origin.requests(), [3]);
}

#[test]
fn a_body_that_only_the_end_of_the_connection_ends_is_cut_without_close_notify() {
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n\r\npart of it")?;
        // RFC 8446 §6.1: whoever cuts the connection can do this, too.
        exchange
            .stream()
            .get_ref()
            .tcp()
            .shutdown(std::net::Shutdown::Write)?;
        Ok(Then::Keep)
    });
    let tunnel = tunnel_to(origin.address(), &authority);
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let error = user.try_reply("GET").expect_err("no last chunk");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}

#[test]
fn an_upgrade_is_raw_over_tls_and_each_side_ends_its_own_half() {
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), |exchange| {
        exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst;",
        )?;
        let mut said = Vec::new();
        exchange.stream().read_to_end(&mut said)?;
        exchange.send(&said)?;
        Ok(Then::Close)
    });
    let tunnel = tunnel_to(origin.address(), &authority);
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwith it, ");
    assert_eq!(user.reply("GET").status, 101);
    user.send("and after it");
    user.stream()
        .get_ref()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    let mut rest = String::new();
    user.stream().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "first;with it, and after it");
    origin.wait_for_open(0);
}

#[test]
fn a_forward_proxy_reaches_https_origins_by_the_clients_tls() {
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), greet);
    let plain = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow("localhost:*")
        .client_argument("--target-ca")
        .client_argument(authority.file().display().to_string())
        .start();
    let (secure, open) = (origin.address().port(), plain.address().port());
    for _ in 0..3 {
        for (scheme, port) in [("https", secure), ("http", open)] {
            let target = format!("{scheme}://localhost:{port}/");
            let mut user = HttpUser::connect(tunnel.address());
            user.send(format!(
                "GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
            ));
            assert_eq!(user.reply("GET").text(), "GET / on connection 1\n");
        }
    }
    assert_eq!((origin.requests(), plain.requests()), (vec![3], vec![3]));
    // The scheme is part of what makes two connections interchangeable.
    let mut user = HttpUser::connect(tunnel.address());
    let target = format!("https://localhost:{open}/");
    user.send(format!(
        "GET {target} HTTP/1.1\r\nHost: localhost:{open}\r\n\r\n"
    ));
    assert_eq!(user.reply("GET").status, 502);
}

#[test]
fn the_certificate_of_an_address_is_for_that_address() {
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["127.0.0.1"]), greet);
    let tunnel = Tunnel::builder()
        .to("https", origin.address())
        .client_argument("--target-ca")
        .client_argument(authority.file().display().to_string())
        .start();
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
}

#[test]
fn a_parked_session_that_its_origin_ends_is_gone_before_the_next_request() {
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), |exchange| {
        exchange.greet()?;
        // Without having said so.
        Ok(Then::Close)
    });
    let tunnel = tunnel_to(origin.address(), &authority);
    for number in 1..=5 {
        assert_eq!(
            HttpUser::connect(tunnel.address()).get("/").text(),
            format!("GET / on connection {number}\n")
        );
        origin.wait_for_open(0);
    }
}

#[test]
fn a_forged_record_behind_a_large_head_ends_that_exchange_and_nothing_else() {
    // The head fills a record of its own, so that the forged one is met while the head waits to be
    // sent on.
    const HEAD: usize = 16 * 1024;
    let authority = Authority::new();
    let origin = HttpOrigin::start_tls(authority.server(&["localhost"]), |exchange| {
        if exchange.request.target != "/forged" {
            return greet(exchange);
        }
        let mut head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Pad: ".to_owned();
        head.extend(std::iter::repeat_n('a', HEAD - head.len() - 4));
        head.push_str("\r\n\r\n");
        let stream = exchange.stream().get_mut();
        let session = stream.session().expect("this is TLS");
        session.writer().write_all(head.as_bytes())?;
        session.writer().write_all(&[b'b'; 300])?;
        let mut bytes = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut bytes)?;
        }
        // A record that nobody with the session's keys has made.
        bytes.extend([23, 3, 3, 0, 32]);
        bytes.extend([0; 32]);
        stream.tcp().write_all(&bytes)?;
        // It is not this side that closes.
        stream.tcp().read_to_end(&mut Vec::new())?;
        Ok(Then::Close)
    });
    let tunnel = tunnel_to(origin.address(), &authority);
    for _ in 0..3 {
        let mut user = HttpUser::connect(tunnel.address());
        user.send("GET /forged HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut got = Vec::new();
        // However the connection ends: it is not complete.
        user.stream().read_to_end(&mut got).ok();
        let body = got.iter().filter(|byte| **byte == b'b').count();
        assert!(body < 1000, "{body} bytes of the body");
        origin.wait_for_open(0);
        let reply = HttpUser::connect(tunnel.address()).get("/");
        assert_eq!(reply.status, 200);
    }
}
