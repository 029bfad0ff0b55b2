//! How many users there may be, and how fast they may come: over a limit they are refused at once, the others
//! do not notice, and who has gone has given its place back.

mod common;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use common::{
    AT_ONCE, Authority, CLIENT, HttpOrigin, HttpUser, Origin, Siding, Then, Tunnel, connect,
    connect_from, converse, echoes, eventually, expect_closed_at_once, refusing, reset,
    try_connect_from,
};

/// Sources that have nothing to do with each other.
const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 2);

#[test]
fn a_raw_proxy_has_so_many_users_and_one_who_leaves_makes_room() {
    let (origin, another) = (Origin::echo(), Origin::echo());
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "limits": { "connections_per_proxy": 2 } }"#)
        .to("tcp", origin.address())
        .to("tcp", another.address())
        .start();
    let users = [tunnel.connect(), tunnel.connect()];
    users.iter().for_each(echoes);
    expect_closed_at_once(tunnel.address());
    let line = tunnel.server.log().wait_for("refused a user");
    assert!(line.contains("limits.connections_per_proxy"), "{line}");
    assert!(line.ends_with(", 1 so far"), "{line}");
    echoes(&connect(tunnel.proxy(1)));
    users.iter().for_each(echoes);
    drop(users);
    all_in_the_end(2, tunnel.address(), Ipv4Addr::LOCALHOST);
}

#[test]
fn an_http_user_without_a_place_is_told_so_whatever_it_asks() {
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "limits": { "connections": 1 } }"#)
        .to("http", origin.address())
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    assert_eq!(user.get("/").status, 200);
    for method in ["GET", "HEAD", "POST"] {
        let mut refused = HttpUser::connect(tunnel.address());
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        // The answer does not wait for it.
        let _ = refused.try_send(request);
        let reply = refused.reply(method);
        assert_eq!((reply.status, reply.closes()), (503, true), "{method}");
        assert!(reply.body.bytes.is_empty());
        refused.expect_end();
    }
    assert_eq!(user.get("/").status, 200);
    user.leave();
    eventually("there is a place again", || {
        let mut user = HttpUser::connect(tunnel.address());
        let _ = user.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        (user.reply("GET").status == 200).then_some(())
    });
    assert_eq!(origin.requests().iter().sum::<usize>(), 3);
}

#[test]
fn the_proxies_of_one_client_share_its_limit_and_another_client_has_its_own() {
    let (origin, another) = (Origin::echo(), Origin::echo());
    let other = format!("tcp:0:{}", origin.address());
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "limits": { "connections_per_client": 2 } }"#)
        .to("tcp", origin.address())
        .to("tcp", another.address())
        .start();
    let mark = tunnel.server.log().mark();
    let url = format!("ws://{}", tunnel.link());
    let second = Siding::start(["client", "--id", "b", "--server", &url, "--expose", &other]);
    second.log().wait_for(": open at ");
    let line = tunnel.server.log().wait_for_since(mark, ": tcp on ");
    let (_, rest) = line.split_once(" on ").expect("it says where");
    let of_second: SocketAddr = rest.split(' ').next().unwrap().parse().unwrap();
    let users = [connect(tunnel.proxy(0)), connect(tunnel.proxy(1))];
    users.iter().for_each(echoes);
    for proxy in [0, 1] {
        expect_closed_at_once(tunnel.proxy(proxy));
    }
    tunnel
        .server
        .log()
        .wait_for("limits.connections_per_client");
    echoes(&connect(of_second));
}

#[test]
fn a_proxy_may_have_more_or_less_than_the_others_and_a_client_asks_for_no_more() {
    let origin = Origin::echo();
    let target = origin.address();
    let limits = r#""limits": { "connections_per_proxy": 2 }"#;
    let spec = format!("tcp:0:{target}");
    for (own, exposed, places) in [(1, false, 1), (3, false, 3), (1, true, 1), (3, true, 2)] {
        let server = if exposed {
            format!("{{ {limits} }}")
        } else {
            format!(
                r#"{{ {limits}, "proxies": [ {{ "client": "{CLIENT}", "spec": "{spec}", "max_connections": {own} }} ] }}"#
            )
        };
        let tunnel = Tunnel::builder()
            .allow(target.to_string())
            .proxy_with(
                spec.clone(),
                &format!(r#""max_connections": {own}"#),
                exposed,
            )
            .server_config(server)
            .start();
        let users: Vec<TcpStream> = (0..places).map(|_| tunnel.connect()).collect();
        users.iter().for_each(echoes);
        expect_closed_at_once(tunnel.address());
        tunnel.server.log().wait_for("max_connections");
    }
}

#[test]
fn a_source_has_so_many_connections_and_another_has_its_own() {
    let (raw, http) = (Origin::echo(), HttpOrigin::greeting());
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "limits": { "connections_per_source": 2 } }"#)
        .to("tcp", raw.address())
        .to("http", http.address())
        .start();
    let users = [ONE, ONE].map(|source| connect_from(source, tunnel.proxy(0)));
    users.iter().for_each(echoes);
    expect_gone(try_connect_from(ONE, tunnel.proxy(0)));
    let mut refused = HttpUser::of(connect_from(ONE, tunnel.proxy(1)));
    let reply = refused.reply("GET");
    assert_eq!((reply.status, reply.field("retry-after")), (429, Some("6")));
    refused.expect_end();
    tunnel
        .server
        .log()
        .wait_for("limits.connections_per_source");
    let mut other = HttpUser::of(connect_from(OTHER, tunnel.proxy(1)));
    assert_eq!(other.get("/").status, 200);
    drop(users);
    all_in_the_end(2, tunnel.proxy(0), ONE);
}

#[test]
fn a_source_that_comes_too_often_is_cheap_to_refuse_and_nobody_else_notices() {
    const FLOOD: usize = 3_000;
    let (raw, http) = (Origin::echo(), HttpOrigin::greeting());
    let tunnel = Tunnel::builder()
        .log("info")
        .server_config(r#"{ "limits": { "rate_per_source": 1 } }"#)
        .to("http", http.address())
        .to("tcp", raw.address())
        .start();
    let honest = connect_from(OTHER, tunnel.proxy(1));
    echoes(&honest);
    let descriptors = tunnel.server.descriptors();
    let memory = tunnel.server.resident_bytes("VmRSS:");
    let start = Instant::now();
    let (mut most, mut answers, mut admitted) = (0, 0, 0);
    for number in 0..FLOOD {
        let answer = try_connect_from(ONE, tunnel.proxy(0)).and_then(|mut flood| {
            flood.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = [0; 12];
            flood.read_exact(&mut answer).map(|()| answer)
        });
        match answer {
            Ok(answer) if answer == *b"HTTP/1.1 429" => answers += 1,
            Ok(answer) if answer == *b"HTTP/1.1 200" => admitted += 1,
            Ok(answer) => panic!("{}", String::from_utf8_lossy(&answer)),
            // It may be before it knows that it is connected, or has spoken.
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ),
                "{error}"
            ),
        }
        if number % 100 == 0 {
            most = most.max(tunnel.server.descriptors() - descriptors);
            echoes(&honest);
        }
    }
    let seconds = start.elapsed().as_secs() as usize + 1;
    assert!(admitted <= 12 + seconds, "{admitted} in {seconds} s");
    assert!(answers > 0, "a few are told why");
    assert!(answers <= 100 * (seconds + 1), "{answers} in {seconds} s");
    let lines = tunnel.server.log().count("limits.rate_per_source");
    assert!((1..=seconds + 1).contains(&lines), "{lines} in {seconds} s");
    assert!(most <= 12 + 300 + seconds, "{most} descriptors");
    let grown = tunnel
        .server
        .resident_bytes("VmRSS:")
        .saturating_sub(memory);
    assert!(grown < 2 << 20, "{grown} bytes");
    let mut user = HttpUser::of(connect_from(OTHER, tunnel.proxy(0)));
    assert_eq!(user.get("/").status, 200);
}

#[test]
#[ignore = "slow"]
fn a_proxy_with_a_rate_carries_no_more_in_either_direction_and_all_of_it() {
    const RATE: u64 = 256 << 10;
    const SIZE: u64 = 1 << 20;
    // What may come at once, and a first window.
    let least = Duration::from_secs_f64((SIZE - 2 * (64 << 10)) as f64 / RATE as f64);
    let options = r#""rate": "256KiB""#;
    let raw = Origin::digest();
    let http = HttpOrigin::start(|exchange| {
        let body = "x".repeat(64 << 10);
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        Ok(Then::Keep)
    });
    let tunnel = |kind: &str, target: SocketAddr, exposed| {
        Tunnel::builder()
            .allow(target.to_string())
            .proxy_with(format!("{kind}:0:{target}"), options, exposed)
            .start()
    };
    let of_raw = tunnel("tcp", raw.address(), true);
    let of_http = tunnel("http", http.address(), false);
    let took = |carry: &dyn Fn()| {
        let start = Instant::now();
        carry();
        start.elapsed()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let up = took(&|| converse(&of_raw.connect(), 1, SIZE, 100).expect("whole"));
            assert!(up >= least, "{up:?} up");
            let down = took(&|| converse(&of_raw.connect(), 2, 100, SIZE).expect("whole"));
            assert!(down >= least, "{down:?} down");
        });
        scope.spawn(|| {
            // Each within a window that needs no grant.
            let down = took(&|| {
                for _ in 0..SIZE / (64 << 10) {
                    let mut user = HttpUser::connect(of_http.address());
                    assert_eq!(user.get("/").body.bytes.len(), 64 << 10);
                }
            });
            assert!(down >= least, "{down:?} by HTTP");
        });
    });
}

#[test]
fn links_of_one_source_come_so_often_too() {
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "limits": { "rate_per_source": 1 } }"#)
        .start();
    let strangers = (0..20).map(|_| try_connect_from(ONE, tunnel.link()));
    let strangers: Vec<_> = strangers.collect();
    tunnel
        .server
        .log()
        .wait_for("refused, its source connects too often");
    let refused = strangers.into_iter().skip(14);
    refused.for_each(expect_gone);
    let mut other = connect_from(OTHER, tunnel.link());
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    other.read_exact(&mut [0; 12]).expect("it is heard");
}

#[test]
fn who_was_answered_for_the_last_time_has_its_place_until_it_is_gone() {
    const PLACES: usize = 3;
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .server_config(format!(
            r#"{{ "limits": {{ "connections_per_source": {PLACES} }} }}"#
        ))
        .to("http", origin.address())
        .proxy("forward:0")
        .proxy("socks5:0")
        .start();
    let before = tunnel.server.descriptors();
    let close = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let denied = b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let socks = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01";
    let ways: [(usize, &[u8], &[u8]); 5] = [
        (0, b"X\r\n\r\n", b"HTTP/1.1 400"),
        (0, close, b"HTTP/1.1 200"),
        (1, b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
        (1, denied, b"HTTP/1.1 403"),
        (2, socks, b"\x05\x00\x05\x02"),
    ];
    for (way, (proxy, said, answer)) in ways.into_iter().enumerate() {
        let source = Ipv4Addr::new(127, 0, 7, 10 + way as u8);
        let came = || {
            let mut user = try_connect_from(source, tunnel.proxy(proxy)).ok()?;
            user.write_all(said).ok()?;
            let mut heard = vec![0; answer.len()];
            user.read_exact(&mut heard).ok()?;
            (heard == answer).then_some(user)
        };
        let mut answered = Vec::new();
        for _ in 0..20 {
            answered.extend(came());
            // None of them is ever quiet for long.
            for mut user in &answered {
                user.write_all(b"x").ok();
            }
        }
        assert_eq!(answered.len(), PLACES, "way {way}");
        drop(answered);
        eventually("there is a place again", came);
    }
    eventually("all of them are gone", || {
        (tunnel.server.descriptors() <= before).then_some(())
    });
}

#[test]
fn a_place_is_given_back_however_its_user_goes() {
    const PLACES: usize = 3;
    let authority = Authority::new();
    let (certificate, key) = authority.files(&["localhost"]);
    let (raw, http) = (
        Origin::echo(),
        HttpOrigin::start(|exchange| match exchange.request.target.as_str() {
            "/cut" => {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")?;
                Ok(Then::Reset)
            }
            "/close" => {
                exchange.send("HTTP/1.0 200 OK\r\n\r\nx")?;
                Ok(Then::Close)
            }
            _ => exchange.greet(),
        }),
    );
    let entry = |spec: String, more: &str| {
        format!(r#"{{ "client": "{CLIENT}", "spec": "{spec}" {more} }}"#)
    };
    let specs = [
        format!("tcp:0:{}", raw.address()),
        format!("http:0:{}", http.address()),
        format!("ssh:0:{}", refusing()),
        "socks5:0".to_owned(),
        format!("telnet:0:{}", raw.address()),
    ];
    let entries: Vec<String> = specs
        .iter()
        .map(|spec| {
            let tls = spec.starts_with("telnet");
            entry(spec.clone(), if tls { r#", "tls": true"# } else { "" })
        })
        .collect();
    let config = format!(
        r#"{{ "cert": "{}", "key": "{}", "proxies": [ {} ],
        "limits": {{ "connections": {PLACES}, "head": 1024 }},
        "timeouts": {{ "keep_alive": "50ms", "request_head": "50ms", "handshake": "2s", "linger": "50ms" }} }}"#,
        certificate.display(),
        key.display(),
        entries.join(","),
    );
    let mut builder = Tunnel::builder()
        .allow(raw.address().to_string())
        .allow(http.address().to_string())
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file());
    for spec in &specs {
        builder = builder.proxy_with(spec.clone(), "", false);
    }
    let tunnel = builder.server_config(config).start();
    let [tcp, http, ssh, socks, telnet] = [0, 1, 2, 3, 4].map(|index| tunnel.proxy(index));
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    // More often than there are places: one that was kept would be missed.
    for _ in 0..2 * PLACES {
        drop(connect(tcp));
        reset(connect(tcp));
        for (proxy, said) in [
            (http, String::new()),
            (http, get("/cut")),
            (http, get("/close")),
            (http, get("/")),
            (http, "nonsense\r\n\r\n".to_owned()),
            (http, "GET / HTTP/1.1\r\n".to_owned()),
            (http, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2000))),
            (ssh, String::new()),
            (socks, String::new()),
            (socks, "GET / HTTP/1.1\r\n\r\n".to_owned()),
            (telnet, "no TLS, this is\r\n".to_owned()),
        ] {
            let mut user = eventually("there is a place", || {
                let user = try_connect_from(Ipv4Addr::LOCALHOST, proxy).ok()?;
                (&user).write_all(said.as_bytes()).ok().map(|()| user)
            });
            if proxy != telnet && proxy != socks || !said.is_empty() {
                let _ = user.read_to_end(&mut Vec::new());
            }
        }
    }
    let users = all_in_the_end(PLACES, tcp, Ipv4Addr::LOCALHOST);
    expect_closed_at_once(tcp);
    drop(users);
}

/// Users who are all served, once those before them are gone.
fn all_in_the_end(count: usize, to: SocketAddr, from: Ipv4Addr) -> Vec<TcpStream> {
    let is_served =
        |mut user: &TcpStream| user.write_all(b"?").is_ok() && matches!(user.read(&mut [0]), Ok(1));
    eventually("there are places for all", || {
        let users = (0..count).map(|_| try_connect_from(from, to).ok());
        let users: Option<Vec<TcpStream>> = users.collect();
        users.filter(|users| users.iter().all(is_served))
    })
}

/// The user is let go at once, without an answer: it may be before it knows that it is connected.
fn expect_gone(user: io::Result<TcpStream>) {
    let start = Instant::now();
    let answer = user.and_then(|mut user| user.read(&mut [0]));
    let kind = answer.map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::ConnectionReset));
    assert!(start.elapsed() < AT_ONCE);
}
