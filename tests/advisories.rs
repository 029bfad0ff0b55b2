//! What others of the field had to publish an advisory for, tried on siding: each test is named by what it
//! shows, and says whose advisory it is.
//!
//! Some are shown elsewhere already, and not repeated here:
//! - a CONNECT request that is split over packets (frp, commit cef71fb9):
//!   `a_connect_split_at_every_byte_is_the_same_connect` in forward.rs;
//! - what follows an upgrade request, passed through before the 101 (Pingora CVE-2026-2833):
//!   `nothing_behind_an_upgrade_request_reaches_the_origin_before_it_has_switched` in endings.rs;
//! - requests that only the end of the connection ends (Pingora CVE-2026-2835): the tables of attacks/;
//! - a request that was answered before its end, whose rest becomes the next one (Pingora CVE-2025-4366):
//!   `an_early_answer_reaches_a_user_that_is_still_uploading_and_closes_both_connections` in http_errors.rs;
//! - a reader that stands still and takes the others with it (yamux GHSA-29qp-crvh-w22m):
//!   `a_stalled_reader_stalls_nobody_else` in raw.rs, and by the hundred in abuse.rs and memory.rs.

mod common;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{
    AT_ONCE, Authority, CLIENT, HttpOrigin, HttpUser, Origin, PATIENCE, Siding, Tunnel,
    WebSocketPeer, connect, echoes, free_port, reset, tls_user,
    websocket::{frames, kind, siding_frame},
};

/// The address at which clouds tell secrets to whoever asks from inside.
const METADATA: &str = "169.254.169.254";

/// The same, and loopback, in other spellings. Names first: a resolver may know numbers for addresses.
const SPELLINGS: [&str; 12] = [
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "0xa9.254.0251.254",
    "2130706433",
    "127.1",
    "169.254.169.254",
    "169.254.169.254.",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[::ffff:a9fe:a9fe]",
];

/// chisel CVE-2024-43798: the documented variable for the secret was never read, and the server was open.
#[test]
fn a_token_that_comes_from_the_environment_is_asked_for() {
    const TOKEN: &str = "the token of the environment";
    let variable = |token| [("SIDING_TOKEN", token)];
    let server = Siding::start_with_variables(
        &variable(TOKEN),
        ["server", "--listen", "127.0.0.1:0", "--log", "debug"],
    );
    let url = format!("ws://{}", server.link_address());
    let words = ["client", "--server", &url, "--id", CLIENT];
    for variables in [&[][..], &variable("another token of 16 bytes")] {
        let client = Siding::start_with_variables(variables, words);
        server.log().wait_for("wrong token for client edge-1");
        client
            .log()
            .wait_for("wrong token: the server does not accept it");
        assert_eq!(client.log().count(": up to "), 0);
    }
    assert_eq!(server.log().count(": up from "), 0);
    let client = Siding::start_with_variables(&variable(TOKEN), words);
    client.log().wait_for(": up to ");
}

/// chisel GHSA-24fp-5v3p-rvpw: what may be reached was looked at in the handshake, and not for each stream.
#[test]
fn each_stream_is_checked_and_so_is_one_that_would_find_a_parked_connection() {
    let (allowed, other) = (HttpOrigin::greeting(), HttpOrigin::greeting());
    let port = allowed.address().port();
    let by_name = ("localhost", port);
    let by_address = ("127.0.0.1", port);
    let elsewhere = ("localhost", other.address().port());
    let answers = answers_of_client(
        &format!("localhost:{port}"),
        [
            ("http", by_name),
            // Its connection is parked now, and leads to this address.
            ("http", by_address),
            ("tcp", by_address),
            ("http", ("LOCALHOST", port)),
            ("http", elsewhere),
            ("tcp", elsewhere),
            ("http", by_name),
        ],
    );
    let served = "GET / on connection 1\n";
    for (answer, expected) in answers.iter().zip([
        served,
        "target_not_allowed",
        "target_not_allowed",
        // The same name in other letters.
        served,
        "target_not_allowed",
        "target_not_allowed",
        served,
    ]) {
        assert!(answer.contains(expected), "{answer}, not {expected}");
    }
    assert_eq!((allowed.requests(), other.connections()), (vec![3], 0));
}

/// frp CVE-2026-40910: a request was led by one value, and let in by another.
#[test]
fn a_request_is_let_in_by_the_very_value_that_leads_it() {
    // `alice:open sesame` and `bob:a password of bob`.
    const ALICE: &str = "YWxpY2U6b3BlbiBzZXNhbWU=";
    const BOB: &str = "Ym9iOmEgcGFzc3dvcmQgb2YgYm9i";
    let [open, alices, bobs] = ["open", "alices", "bobs"].map(HttpOrigin::named);
    let port = free_port();
    let entry = |origin: &HttpOrigin, options: &str| {
        let spec = format!("http:{port}:{}", origin.address());
        format!(r#"{{ "client": "{CLIENT}", "spec": "{spec}", {options} }}"#)
    };
    let _tunnel = Tunnel::builder()
        .allow("127.0.0.1:*")
        .file("alice", "alice:open sesame\n")
        .file("bob", "bob:a password of bob\n")
        .server_config(format!(
            r#"{{ "proxies": [ {}, {}, {} ] }}"#,
            entry(&open, r#""hosts": [ "open.test" ]"#),
            entry(
                &alices,
                r#""hosts": [ "alice.test" ], "users_file": "alice""#
            ),
            entry(
                &bobs,
                r#""hosts": [ "open.test" ], "paths": [ "/bob" ], "users_file": "bob""#
            ),
        ))
        .start();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    let basic = |user: &str| format!("Authorization: Basic {user}\r\n");
    let both = [basic(ALICE), basic(BOB)].concat();
    let [alice, bob] = [ALICE, BOB].map(basic);
    for (target, host, fields, expected) in [
        ("/", "open.test", "", (200, "open")),
        // The host in the target leads, and asks.
        ("http://alice.test/", "open.test", "", (401, "")),
        ("http://open.test/", "alice.test", "", (200, "open")),
        ("http://open.test/bob", "alice.test", &alice, (401, "")),
        ("http://alice.test/bob", "open.test", &bob, (401, "")),
        ("http://alice.test/", "open.test", &alice, (200, "alices")),
        // One of two is not chosen for the one, and another for the other.
        ("/", "open.test\r\nHost: alice.test", "", (400, "")),
        ("/", "alice.test\r\nHost: open.test", &bob, (400, "")),
        ("/", "alice.test, open.test", "", (400, "")),
        ("/", "alice.test", &both, (400, "")),
        ("/bob", "open.test", &[&*bob, &bob].concat(), (400, "")),
        // A path is asked for as it is led.
        ("/%62ob", "open.test", "", (401, "")),
        ("/%62%6f%62/x", "open.test", &alice, (401, "")),
        ("//bob", "open.test", "", (401, "")),
        ("/bob?/../", "open.test", "", (401, "")),
        ("/x/../bob", "open.test", "", (400, "")),
        ("/x/..%2fbob", "open.test", "", (400, "")),
        ("/%62ob", "open.test", &bob, (200, "bobs")),
        // Another list's users are nobody here, in whatever letters the host comes.
        ("/", "ALICE.test.", &bob, (401, "")),
        ("/", "alice.test:80", "", (401, "")),
    ] {
        let mut user = HttpUser::connect(proxy);
        user.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        ));
        let reply = user.reply("GET");
        let text = if reply.status == 200 {
            reply.text()
        } else {
            String::new()
        };
        let told = (reply.status, text.as_str());
        assert_eq!(told, expected, "{target}, Host: {host}, {fields}");
    }
    // Nor is a connection let in for what was let in on it.
    let mut user = HttpUser::connect(proxy);
    for (host, fields, status) in [
        ("alice.test", &*alice, 200),
        ("alice.test", "", 401),
        ("open.test", "", 200),
        ("alice.test", "", 401),
    ] {
        user.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
        assert_eq!(user.reply("GET").status, status, "{host} {fields}");
    }
    assert_eq!(alices.requests().iter().sum::<usize>(), 2);
}

/// frp GHSA-26gq-p25f-99cp: five bytes at a listener ended the process.
#[test]
fn no_beginning_of_anything_harms_any_listener() {
    const BEGINNINGS: [&[u8]; 9] = [
        b"SSH-2.0-",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x03\xff\xff\xff\xff",
        b"\x05\x01\x00\x05\x01\x00\x03\xff",
        b"\x05\x02\x00\x02\x01\xff",
        b"GET / HTTP/1.1\r\n",
        b"CONNECT :0 ",
        b"\x00\x00\x00\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff",
    ];
    let authority = Authority::new();
    let (echo, http) = (Origin::echo(), HttpOrigin::greeting());
    let (raw, web) = (echo.address(), http.address());
    let specs = [
        (format!("tcp:0:{raw}"), ""),
        (format!("http:0:{web}"), ""),
        ("forward:0".to_owned(), ""),
        ("socks5:0".to_owned(), ""),
        (format!("tls:0:{raw}"), r#", "hosts": [ "a.test" ]"#),
        (format!("telnet:0:{raw}"), r#", "tls": true"#),
    ];
    let entries = specs
        .iter()
        .map(|(spec, options)| format!(r#"{{ "client": "{CLIENT}", "spec": "{spec}"{options} }}"#));
    let entries: Vec<String> = entries.collect();
    let mut tunnel = Tunnel::builder()
        .secure(&authority)
        .allow(raw.to_string())
        .allow(web.to_string())
        .server_config(format!(r#"{{ "proxies": [ {} ] }}"#, entries.join(", ")))
        .start();
    let mut plain = Tunnel::to("tcp", raw);
    let mut listeners = specs
        .each_ref()
        .map(|(spec, _)| tunnel.server.proxy_address(spec))
        .to_vec();
    listeners.extend([tunnel.link(), plain.link()]);
    thread::scope(|scope| {
        for &listener in &listeners {
            scope.spawn(move || {
                for beginning in BEGINNINGS {
                    for length in 0..=beginning.len() {
                        begin_and_end(listener, &beginning[..length]);
                        begin_and_reset(listener, &beginning[..length]);
                    }
                }
            });
        }
    });
    let [tcp, web_proxy, forward, socks, _, telnet, ..] = listeners[..] else {
        unreachable!("there are eight");
    };
    echoes(&connect(tcp));
    assert_eq!(HttpUser::connect(web_proxy).get("/").status, 200);
    let absolute = format!("http://{web}/");
    assert_eq!(HttpUser::connect(forward).get(&absolute).status, 200);
    let mut user = connect(socks);
    user.write_all(b"\x05\x01\x00").unwrap();
    let mut chosen = [0; 2];
    user.read_exact(&mut chosen).unwrap();
    assert_eq!(chosen, [5, 0]);
    let mut user = tls_user(authority.client(), telnet, "localhost");
    user.write_all(b"?").unwrap();
    user.read_exact(&mut [0]).unwrap();
    for tunnel in [&mut tunnel, &mut plain] {
        assert!(tunnel.server.is_running() && tunnel.client.is_running());
        assert_eq!(tunnel.client.log().count(": down ("), 0);
    }
}

/// tungstenite CVE-2023-43669: a handshake with a head without end took all of a processor, and memory.
#[test]
fn a_handshake_whose_head_has_no_end_is_over_soon_and_costs_no_memory() {
    const FIELD: &[u8] =
        b"X-Endless: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
    const GROWTH_MAX: u64 = 1 << 20;
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "timeouts": { "linger": "200ms" } }"#)
        .start();
    let before = tunnel.server.written_bytes();
    for beginning in [
        &b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"[..],
        b"GET /",
    ] {
        let peer = connect(tunnel.link());
        send_without_end(&peer, beginning, FIELD);
        tunnel.server.log().wait_for("refused (");
    }
    assert!(tunnel.server.written_bytes() < before + GROWTH_MAX);

    // And likewise a client, whose server answers without end.
    let (ended, report) = mpsc::channel();
    let server = Origin::start(move |stream| {
        let beginning = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n";
        send_without_end(&stream, beginning, FIELD);
        ended.send(()).ok();
    });
    let url = format!("ws://{}", server.address());
    let mut client = Siding::start(["client", "--server", &url, "--id", CLIENT]);
    report.recv_timeout(PATIENCE).expect("it has had enough");
    client.log().wait_for("its answer is too long");
    let before = client.written_bytes();
    report.recv_timeout(PATIENCE).expect("and once more");
    assert!(client.written_bytes() < before + GROWTH_MAX);
    assert!(client.is_running());
}

/// zrok, the request forgery of its proxy share: whoever may ask for anything reaches what is meant for the
/// machine alone.
#[test]
fn everything_is_never_what_only_the_machine_itself_may_reach() {
    let inside = [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.0.0.1",
        "192.168.0.1",
        "100.100.100.200",
        "[::1]",
        "[::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ];
    let hosts: Vec<&str> = SPELLINGS.into_iter().chain(inside).collect();
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .proxy("socks5:0")
        .allow("*:80")
        .start();
    for host in &hosts {
        for request in [
            format!("GET http://{host}/latest/meta-data/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("GET http://{host}:80/ HTTP/1.1\r\nHost: {METADATA}\r\n\r\n"),
            format!("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n"),
        ] {
            let start = Instant::now();
            let mut user = HttpUser::connect(tunnel.proxy(0));
            user.send(&request);
            let status = user.reply("GET").status;
            // What is no host is none; of the others it is the client that says no.
            assert!(matches!(status, 400 | 403), "{request}: {status}");
            assert!(start.elapsed() < AT_ONCE, "{request}: it was not dialled");
        }
        let code = socks_code(tunnel.proxy(1), host);
        assert!(matches!(code, 1 | 2), "{host}: {code}");
    }
    tunnel.client.log().wait_for("target_not_allowed");

    // Nor where a server is hostile, and says it to the client in any words.
    let treasure = Origin::start(drop);
    let port = treasure.address().port();
    let asked = hosts
        .iter()
        .flat_map(|host| ["http", "tcp"].map(|protocol| (protocol, (*host, port))));
    let asked: Vec<_> = asked.collect();
    for (answer, asked) in answers_of_client(&format!("*:{port}"), asked.clone())
        .iter()
        .zip(asked)
    {
        let refused = ["target_not_allowed", "name_not_found"];
        assert!(
            refused.iter().any(|reason| answer.contains(reason)),
            "{asked:?}: {answer}"
        );
    }
    assert_eq!(treasure.accepted(), 0);
}

/// What a client that allows `rule` answers to a server that asks for one target after the other: what it
/// is, as text.
fn answers_of_client(
    rule: &str,
    asked: impl IntoIterator<Item = (&'static str, (&'static str, u16))>,
) -> Vec<String> {
    /// The request is over.
    const MESSAGE_END: u8 = 1;
    /// Of HTTP: what ends an answer of [`HttpOrigin::greeting`], or any end of a stream.
    const ENDS: [&str; 2] = ["on connection", "reason"];
    let connects = asked.into_iter().map(|(protocol, (host, port))| {
        let request = match protocol {
            "http" => r#","request":{"keep_alive":true,"repeatable":true}"#,
            _ => "",
        };
        let connect = format!(
            r#"{{"proxy_id":"a-1-1","user_id":"user-1-1","remote_host":"{host}","remote_port":{port},"protocol":"{protocol}"{request}}}"#
        );
        (protocol == "http", connect)
    });
    let connects: Vec<_> = connects.collect();
    let count = connects.len();
    let (said, hears) = mpsc::channel();
    let server = Origin::start(move |stream| {
        let Ok(mut link) = WebSocketPeer::accept(stream) else {
            return;
        };
        link.wait_for_message();
        let welcome = br#"{"window":65536,"version":"9"}"#;
        link.send_binary(&siding_frame(0, kind::WELCOME, 0, welcome))
            .unwrap();
        for (stream, (is_http, connect)) in (1..).zip(&connects) {
            let mut message = siding_frame(stream, kind::PROXY_CONNECT, 0, connect.as_bytes());
            if *is_http {
                let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
                message.extend(siding_frame(stream, kind::PROXY_DATA, MESSAGE_END, request));
            }
            link.send_binary(&message).unwrap();
            let mut answer = String::new();
            while !ENDS.iter().any(|end| answer.contains(end)) {
                for (of, _, payload) in frames(&link.wait_for_message()) {
                    assert!(of <= stream, "nothing was asked there");
                    if of == stream {
                        answer.push_str(&String::from_utf8_lossy(payload));
                    }
                }
            }
            said.send(answer).ok();
        }
    });
    let url = format!("ws://{}", server.address());
    let _client = Siding::start(["client", "--server", &url, "--id", CLIENT, "--allow", rule]);
    let answer = |_| hears.recv_timeout(PATIENCE).expect("an answer to each");
    (0..count).map(answer).collect()
}

/// Says a part of something, and no more: it comes to an end.
#[track_caller]
fn begin_and_end(listener: SocketAddr, beginning: &[u8]) {
    let mut user = connect(listener);
    user.write_all(beginning).expect("so few bytes are taken");
    user.shutdown(Shutdown::Write).ok();
    // In whatever way, within the deadline of the read.
    if let Err(error) = user.read_to_end(&mut Vec::new()) {
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionReset,
            "{beginning:?}"
        );
    }
}

/// Says a part of something, and is gone.
fn begin_and_reset(listener: SocketAddr, beginning: &[u8]) {
    let mut user = connect(listener);
    user.write_all(beginning).expect("so few bytes are taken");
    reset(&user);
}

/// Sends fields, until the far end has had enough.
#[track_caller]
fn send_without_end(mut to: &TcpStream, beginning: &[u8], field: &[u8]) {
    let start = Instant::now();
    let mut sent = to.write_all(beginning);
    while sent.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "it is still read");
        sent = to.write_all(field);
    }
}

/// The code with which a SOCKS5 proxy answers who asks for port 80 of a host, by its address if it is one.
fn socks_code(proxy: SocketAddr, host: &str) -> u8 {
    let mut user = connect(proxy);
    let bare = host.trim_matches(['[', ']']);
    let mut said = b"\x05\x01\x00\x05\x01\x00".to_vec();
    match bare.parse() {
        Ok(std::net::IpAddr::V4(address)) => {
            said.push(1);
            said.extend(address.octets());
        }
        Ok(std::net::IpAddr::V6(address)) => {
            said.push(4);
            said.extend(address.octets());
        }
        Err(_) => {
            said.extend([3, bare.len() as u8]);
            said.extend(bare.as_bytes());
        }
    }
    said.extend([0, 80]);
    user.write_all(&said).expect("so few bytes are taken");
    let mut answer = [0; 4];
    user.read_exact(&mut answer).expect("an answer");
    answer[3]
}
