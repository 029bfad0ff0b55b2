//! Peers that are no siding, or pretend to be one: each loses its own connection, in its own time, and
//! nothing else.

mod common;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use common::{
    CLIENT, Origin, PATIENCE, Pattern, Refusal, Scratch, Siding, Tunnel, WebSocketPeer, connect,
    echoes, eventually, free_port, pass, refusing, text_of_http_answer,
    websocket::{NONCE, SUBPROTOCOL, frame, frames, hello, kind, siding_frame},
    with_deadlines,
};

/// Longer than the handshake deadline of these tests, shorter than any other.
const SPAN: Duration = Duration::from_secs(3);

#[test]
fn what_is_no_websocket_gets_an_answer_in_http() {
    let tunnel = Tunnel::to("tcp", refusing());
    let link = tunnel.link();
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let answer = text_of_http_answer(link, request);
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    still_takes_clients(link);
}

#[test]
fn a_websocket_that_is_no_siding_is_refused() {
    let tunnel = Tunnel::to("tcp", refusing());
    let link = tunnel.link();
    let another_version = "Sec-WebSocket-Protocol: siding.99";
    let another_protocol = "Sec-WebSocket-Protocol: chat, superchat";
    let short_nonce = "Siding-Nonce: 0123";
    for fields in [
        &[][..],
        &[NONCE],
        &[another_version, NONCE],
        &[another_protocol, NONCE],
        &[SUBPROTOCOL],
        &[SUBPROTOCOL, short_nonce],
    ] {
        let Err(answer) = WebSocketPeer::upgrade(link, fields) else {
            panic!("upgraded with {fields:?}");
        };
        assert!(answer.starts_with("HTTP/1.1 4"), "{fields:?}: {answer}");
    }
    still_takes_clients(link);
}

#[test]
fn a_peer_that_breaks_the_protocol_before_hello_loses_its_link_and_nothing_else() {
    let origin = Origin::echo();
    // Not all of it is against the rules: what leaves the server waiting ends with the handshake.
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_config(r#"{ "timeouts": { "handshake": "1s" } }"#)
        .start();
    let link = tunnel.link();
    let good = siding_frame(0, kind::HELLO, 0, &hello("edge-2"));
    let messages: &[(&str, Vec<u8>)] = &[
        ("text", frame(0x1, b"hello")),
        ("an empty binary message", frame(0x2, b"")),
        ("a truncated frame", frame(0x2, &good[..good.len() - 1])),
        ("a truncated header", frame(0x2, &good[..5])),
        ("an unknown kind", frame(0x2, &siding_frame(0, 99, 0, b""))),
        (
            "an unknown flag",
            frame(0x2, &siding_frame(0, kind::HELLO, 0x80, &hello("edge-2"))),
        ),
        (
            "data instead of hello",
            frame(0x2, &siding_frame(1, kind::PROXY_DATA, 0, b"data")),
        ),
        (
            "a welcome",
            frame(0x2, &siding_frame(0, kind::WELCOME, 0, b"{}")),
        ),
        (
            "no JSON",
            frame(0x2, &siding_frame(0, kind::HELLO, 0, b"hello")),
        ),
        (
            "an id that is none",
            frame(0x2, &siding_frame(0, kind::HELLO, 0, &hello("a b/c"))),
        ),
        (
            "an id without end",
            frame(
                0x2,
                &siding_frame(0, kind::HELLO, 0, &hello(&"x".repeat(65))),
            ),
        ),
        ("a message too large", frame(0x2, &vec![0; 8 << 10])),
        (
            "a message of 2^62 bytes",
            [&[0x82, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat(),
        ),
        ("a frame that is not masked", vec![0x82, 0x01, 0x00]),
        ("a reserved bit", vec![0xf2, 0x81, 0, 0, 0, 0, 0]),
        ("a reserved opcode", vec![0x83, 0x81, 0, 0, 0, 0, 0]),
        ("a ping that is too long", frame(0x9, &[0; 126])),
        (
            "noise",
            (0..200_u8).map(|byte| byte.wrapping_mul(167)).collect(),
        ),
    ];
    for (what, bytes) in messages {
        let mut peer = WebSocketPeer::siding(link);
        // It may have had enough before the last byte.
        peer.send_raw(bytes).ok();
        // Close, end or reset: any of them, but soon, and the link of the others stays up.
        let refusal = peer.wait_for_refusal();
        assert_ne!(
            refusal,
            Refusal::Closed(1000, String::new()),
            "{what} is no normal end"
        );
    }
    echoes(&tunnel.connect());
    still_takes_clients(link);
    assert_eq!(
        tunnel.server.log().count(&format!("link {CLIENT}: down")),
        0
    );
}

#[test]
fn a_peer_that_breaks_the_protocol_after_welcome_is_told_and_loses_its_link_only() {
    let origin = Origin::echo();
    let tunnel = Tunnel::to("tcp", origin.address());
    let hello = siding_frame(0, kind::HELLO, 0, &hello("edge-2"));
    let messages: &[(&str, Vec<u8>)] = &[
        ("a second hello", frame(0x2, &hello)),
        ("text", frame(0x1, b"hello")),
        (
            "a truncated frame",
            frame(0x2, &siding_frame(1, kind::PROXY_DATA, 0, b"data")[..14]),
        ),
        ("an unknown kind", frame(0x2, &siding_frame(0, 99, 0, b""))),
        (
            "what only a server sends",
            frame(0x2, &siding_frame(1, kind::PROXY_CONNECT, 0, b"{}")),
        ),
        (
            "data of no stream",
            frame(0x2, &siding_frame(7, kind::PROXY_DATA, 0, b"data")),
        ),
        (
            "connected, of no stream",
            frame(0x2, &siding_frame(7, kind::PROXY_CONNECTED, 0, b"")),
        ),
        (
            "credit of no stream",
            frame(0x2, &siding_frame(7, kind::PROXY_CREDIT, 0, &[0, 0, 1, 0])),
        ),
        ("a message of 16 MiB", frame(0x2, &vec![0; 16 << 20])),
    ];
    for (what, bytes) in messages {
        let mark = tunnel.server.log().mark();
        let mut peer = WebSocketPeer::welcomed(tunnel.link(), "edge-2");
        peer.send_raw(bytes).ok();
        let refusal = peer.wait_for_refusal();
        assert_ne!(
            refusal,
            Refusal::Closed(1000, String::new()),
            "{what} is no normal end"
        );
        tunnel
            .server
            .log()
            .wait_for_since(mark, "link edge-2: down");
    }
    echoes(&tunnel.connect());
    assert_eq!(
        tunnel.server.log().count(&format!("link {CLIENT}: down")),
        0
    );
}

#[test]
fn a_client_that_overspends_its_credit_loses_its_link() {
    let server = server_of_edge_2("tcp:0:127.0.0.1:22");
    let mut peer = WebSocketPeer::welcomed(server.link_address(), "edge-2");
    // A user who never reads, so that no credit ever comes back.
    let _user = connect(server.proxy_address("tcp:0:127.0.0.1:22"));
    let stream = next_stream(&mut peer);
    peer.send_binary(&siding_frame(stream, kind::PROXY_CONNECTED, 0, b""))
        .unwrap();
    let data = frame(0x2, &siding_frame(stream, kind::PROXY_DATA, 0, &[0; 8_000]));
    // No window is as large as all of that.
    let enough = |sent: &i32| sent % 100 == 0 && server.log().count("link edge-2: down") > 0;
    let sent = (0..100_000)
        .take_while(|sent| !enough(sent) && peer.send_raw(&data).is_ok())
        .count();
    assert!(sent < 100_000, "{sent} messages of 8,000 bytes were taken");
    let line = server.log().wait_for("link edge-2: down");
    assert!(line.contains("credit"), "{line}");
}

#[test]
fn a_client_that_switches_protocols_unasked_loses_its_link() {
    let spec = "http:0:127.0.0.1:80";
    let server = server_of_edge_2(spec);
    let mut peer = WebSocketPeer::welcomed(server.link_address(), "edge-2");
    let mut user = connect(server.proxy_address(spec));
    // What follows on this connection may be for somebody else.
    user.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let stream = next_stream(&mut peer);
    let says = |kind, payload| siding_frame(stream, kind, 0, payload);
    let forged = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n";
    let message = [
        says(kind::PROXY_CONNECTED, b""),
        says(kind::PROXY_UPGRADED, b""),
        says(kind::PROXY_DATA, forged),
    ];
    peer.send_binary(&message.concat()).unwrap();
    let Refusal::Closed(1002, reason) = peer.wait_for_refusal() else {
        panic!("it is told that it broke the protocol");
    };
    assert!(reason.contains("proxy_upgraded"), "{reason}");
    let mut answer = String::new();
    user.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[test]
fn a_client_answers_one_request_and_not_the_next_on_the_same_connection() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const FINAL: u8 = 4;
    const MESSAGE_END: u8 = 1;
    const KEEP: u8 = 8;
    let scratch = Scratch::new();
    let port = free_port();
    let spec = format!("http:{port}:127.0.0.1:80");
    let config = format!(
        r#"{{ "proxies": [ {{ "client": "edge-2", "spec": "{spec}", "hosts": [ "a.test" ] }},
                           {{ "client": "edge-3", "spec": "{spec}", "hosts": [ "b.test" ] }} ] }}"#
    );
    let file = scratch.write("server.json", &config).display().to_string();
    let server = Siding::start([
        "server",
        "--listen",
        "127.0.0.1:0",
        "--config",
        &file,
        "--log",
        "debug",
    ]);
    // Says more than its answer; ends it before it has; says that there is one, and it is no other's.
    for (what, said, flags) in [
        ("more than", [ANSWER, ANSWER].concat(), FINAL),
        (
            "less than",
            ANSWER[..ANSWER.len() - 1].to_vec(),
            FINAL | MESSAGE_END | KEEP,
        ),
        ("no response head", b"hello\r\n\r\n".to_vec(), 0),
    ] {
        let mut peer = WebSocketPeer::welcomed(server.link_address(), "edge-2");
        let mut user = connect(([127, 0, 0, 1], port).into());
        user.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .unwrap();
        let stream = next_stream(&mut peer);
        user.write_all(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
            .unwrap();
        let message = [
            siding_frame(stream, kind::PROXY_CONNECTED, 0, b""),
            siding_frame(stream, kind::PROXY_DATA, flags, &said),
        ];
        peer.send_binary(&message.concat()).unwrap();
        let Refusal::Closed(1002, reason) = peer.wait_for_refusal() else {
            panic!("it is told that it broke the protocol");
        };
        assert!(reason.contains(what), "{reason}");
        let mut answers = Vec::new();
        // Cut off, or answered by the server.
        user.read_to_end(&mut answers).ok();
        let answers = String::from_utf8(answers).unwrap();
        assert!(!answers.contains("ok"), "{answers}");
    }
    let mut peer = WebSocketPeer::welcomed(server.link_address(), "edge-2");
    let mut user = connect(([127, 0, 0, 1], port).into());
    for _ in 0..3 {
        user.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .unwrap();
        let stream = next_stream(&mut peer);
        peer.send_binary(&siding_frame(stream, kind::PROXY_CONNECTED, 0, b""))
            .unwrap();
        let end = FINAL | MESSAGE_END | KEEP;
        peer.send_binary(&siding_frame(stream, kind::PROXY_DATA, end, ANSWER))
            .unwrap();
        let mut answer = [0; ANSWER.len()];
        user.read_exact(&mut answer).unwrap();
        assert_eq!(answer, ANSWER);
    }
}

#[test]
fn a_stranger_that_pings_and_pings_is_shown_out() {
    let tunnel = Tunnel::to("tcp", refusing());
    let mut peer = WebSocketPeer::siding(tunnel.link());
    peer.send_raw(&frame(0x9, b"").repeat(17)).unwrap();
    let Refusal::Closed(1002, reason) = peer.wait_for_refusal() else {
        panic!("it is told that it broke the protocol");
    };
    assert!(reason.contains("before it is known"), "{reason}");
    still_takes_clients(tunnel.link());
}

#[test]
fn a_flood_of_tiny_frames_is_taken_in_turns_and_loses_nothing() {
    const BYTES: usize = 20_000;
    let spec = "tcp:0:127.0.0.1:22";
    let server = server_of_edge_2(spec);
    let mut peer = WebSocketPeer::welcomed(server.link_address(), "edge-2");
    let mut user = connect(server.proxy_address(spec));
    let stream = next_stream(&mut peer);
    let says = |kind, payload: &[u8]| siding_frame(stream, kind, 0, payload);
    peer.send_binary(&says(kind::PROXY_CONNECTED, b"")).unwrap();
    // A byte each: many to a message, few to a message, and pings between them.
    let bytes = Pattern::bytes(7, BYTES);
    let mut flood = Vec::new();
    for (number, some) in bytes.chunks(3_000).enumerate() {
        let per_message = if number % 2 == 0 { 3_000 } else { 2 };
        for some in some.chunks(per_message) {
            let frames: Vec<u8> = some
                .iter()
                .flat_map(|byte| says(kind::PROXY_DATA, &[*byte]))
                .collect();
            flood.extend(frame(0x2, &frames));
            flood.extend(frame(0x9, b""));
        }
    }
    let asks = siding_frame(0, kind::PROXY_CLOSE, 0, br#"{"proxy_id":"a-1-1"}"#);
    flood.extend(frame(0x2, &asks.repeat(1_000)));
    let mut writer = peer.try_clone().unwrap();
    let sending = std::thread::spawn(move || writer.send_raw(&flood));
    let mut got = vec![0; BYTES];
    user.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
    sending.join().unwrap().unwrap();
    // It is a client as before.
    user.write_all(b"hello").unwrap();
    let hello = eventually("what the user says comes", || {
        let message = peer.wait_for_message();
        let frames = frames(&message);
        let data = |frame: &&(u64, u8, &[u8])| frame.1 == kind::PROXY_DATA;
        let found = frames.iter().find(data)?;
        Some(found.2.to_vec())
    });
    assert_eq!(hello, b"hello");
}

#[test]
fn a_link_that_was_closed_is_not_read_for_as_long_as_its_peer_goes_on_sending() {
    let server_config = r#"{ "timeouts": { "linger": "300ms" } }"#;
    let tunnel = Tunnel::builder()
        .to("tcp", refusing())
        .server_config(server_config)
        .start();
    let mut peer = WebSocketPeer::welcomed(tunnel.link(), "edge-2");
    peer.send_binary(&siding_frame(0, 99, 0, b"")).unwrap();
    tunnel.server.log().wait_for("link edge-2: down");
    expect_reset_while_sending(peer);

    // And likewise a client, whose server does that.
    let (closed, report) = mpsc::channel();
    let server = Origin::start(move |stream| {
        let Ok(mut link) = WebSocketPeer::accept(stream) else {
            return;
        };
        link.wait_for_message();
        link.send_binary(&siding_frame(0, 99, 0, b"")).unwrap();
        closed.send(link).ok();
    });
    let client = client(server.address(), CLIENT, &[]);
    let link = report.recv_timeout(PATIENCE).unwrap();
    client.log().wait_for(&format!("link {CLIENT}: down"));
    expect_reset_while_sending(link);
}

#[test]
fn strangers_who_stay_after_they_were_refused_hold_no_more_than_those_who_shake_hands() {
    const STRANGERS: usize = 60;
    let server_config = r#"{ "limits": { "handshakes": 8 }, "timeouts": { "linger": "1h" } }"#;
    let tunnel = Tunnel::builder()
        .to("tcp", refusing())
        .server_config(server_config)
        .start();
    let before = tunnel.server.descriptors();
    let strangers: Vec<TcpStream> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = connect(tunnel.link());
            stranger.write_all(b"nonsense\r\n\r\n").unwrap();
            stranger
        })
        .collect();
    tunnel.server.log().wait_for_count(STRANGERS, "refused (");
    let held = || tunnel.server.descriptors() - before;
    eventually("no more than eight are waited for", || {
        (held() <= 8).then_some(())
    });
    drop(strangers);
    still_takes_clients(tunnel.link());
}

#[test]
fn silence_ends_at_the_handshake_deadline() {
    let server_config = r#"{ "timeouts": { "handshake": "1s" } }"#;
    let tunnel = Tunnel::builder()
        .to("tcp", refusing())
        .server_config(server_config)
        .start();
    let link = tunnel.link();
    // Without a byte, within the request, and after the upgrade: all at the same time.
    let mut peers = [(); 2].map(|()| WebSocketPeer::siding(link));
    peers[1].send_raw(&[0x82]).ok();
    let strangers = ["", "GET / HTTP/1.1\r\nHost: a\r\nUpgr"].map(|request| {
        let mut stream = connect(link);
        stream.write_all(request.as_bytes()).unwrap();
        (stream, request)
    });
    for (mut stream, request) in strangers {
        stream.set_read_timeout(Some(SPAN)).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{request:?}"),
        }
    }
    for peer in peers {
        peer.wait_for_refusal();
    }
    still_takes_clients(link);
}

#[test]
fn a_client_outlives_servers_that_are_none() {
    let (asked, report) = mpsc::channel();
    let answers = Mutex::new(
        [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "",
        ]
        .into_iter(),
    );
    let origin = Origin::start(move |mut stream| {
        with_deadlines(&stream);
        let Some(answer) = answers.lock().unwrap().next() else {
            return;
        };
        let mut byte = [0];
        stream.read_exact(&mut byte).ok();
        stream.write_all(answer.as_bytes()).ok();
        asked.send(()).unwrap();
    });
    let mut client = client(origin.address(), CLIENT, &[]);
    for _ in 0..4 {
        report.recv_timeout(PATIENCE).expect("it tries again");
    }
    assert!(client.is_running());
}

/// A server with this proxy of client edge-2.
fn server_of_edge_2(spec: &str) -> Siding {
    let proxy = format!("edge-2={spec}");
    let words = ["server", "--listen", "127.0.0.1:0", "--log", "debug"];
    Siding::start(words.iter().chain(&["--proxy", &*proxy]))
}

/// The id of the stream that the server opens next.
fn next_stream(peer: &mut WebSocketPeer) -> u64 {
    let message = peer.wait_for_message();
    let (stream, kind, _) = frames(&message)[0];
    assert_eq!(kind, kind::PROXY_CONNECT, "{message:?}");
    stream
}

/// Whoever never stops sending to one that has said goodbye is told by a reset, though it is never silent.
#[track_caller]
fn expect_reset_while_sending(mut peer: WebSocketPeer) {
    let start = Instant::now();
    while peer.send_raw(b"more").is_ok() {
        let passed = start.elapsed();
        assert!(passed < 2 * SPAN, "still read after {passed:?}");
        pass(Duration::from_millis(20));
    }
}

/// A client of `id` with these further arguments.
fn client(link: SocketAddr, id: &str, arguments: &[&str]) -> Siding {
    let url = format!("ws://{link}");
    Siding::start(
        ["client", "--server", &url, "--id", id, "--log", "debug"]
            .iter()
            .chain(arguments),
    )
}

/// A real client, of another id, is welcomed.
#[track_caller]
fn still_takes_clients(link: SocketAddr) {
    client(link, "edge-3", &[]).log().wait_for(": up to ");
}
