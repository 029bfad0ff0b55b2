//! SOCKS5 users, over loopback: the user names the target, the client looks it up and says whether it may
//! be dialled, and what was said early is the target's.

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Instant,
};

use common::{
    AT_ONCE, Authority, HttpOrigin, Origin, PATIENCE, Siding, Sshd, Tunnel, connect, connect_from,
    curl, echoes, expect_closed_at_once, expect_end, refusing, require, run, send_pattern,
    tls_user, wait_until_read,
};

const USERS: &str = "alice:open sesame\n";
const OPTIONS: &str = r#""users_file": "users""#;

const OPEN: &[u8] = &[5, 1, 0];
const LOGIN: &[u8] = b"\x01\x05alice\x0bopen sesame";

#[test]
fn the_target_is_the_one_that_was_asked_for() {
    let (one, other) = (HttpOrigin::greeting(), HttpOrigin::greeting());
    let tunnel = socks(&[one.address(), other.address()]);
    for origin in [&one, &other, &one] {
        let mut user = common::HttpUser::of(connected(&tunnel, origin.address()));
        let reply = user.get("/");
        assert!(reply.text().starts_with("GET / on connection "));
    }
    assert_eq!(one.requests(), [1, 1], "opaque bytes, each dialled afresh");
    assert_eq!(other.requests(), [1]);
}

#[test]
fn a_name_is_looked_up_by_the_client() {
    let origin = Origin::echo();
    let port = origin.address().port();
    let tunnel = Tunnel::builder()
        .proxy("socks5:0")
        .allow(format!("localhost:{port}"))
        .start();
    let mut user = greeted(&tunnel);
    user.write_all(&by_name("LocalHost", port)).unwrap();
    assert_eq!(code(&mut user), 0);
    echoes(&user);
    // What is allowed is the name, not what it means.
    let mut user = greeted(&tunnel);
    user.write_all(&to(origin.address())).unwrap();
    assert_eq!(code(&mut user), 2);
}

#[test]
fn all_at_once_or_byte_by_byte_it_is_the_same_conversation() {
    let origin = Origin::echo();
    let tunnel = socks(&[origin.address()]);
    let said = [OPEN, &to(origin.address()), b"hello"].concat();
    let heard = [&[5, 0][..], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0], b"hello"].concat();
    let converse = |pieces: &[&[u8]]| {
        let mut user = tunnel.connect();
        for piece in pieces {
            user.write_all(piece).unwrap();
            wait_until_read(&user);
        }
        let mut got = vec![0; heard.len()];
        user.read_exact(&mut got).unwrap();
        assert_eq!(got, heard, "{pieces:?}");
    };
    converse(&[&said]);
    converse(&said.chunks(1).collect::<Vec<_>>());
    for place in 1..said.len() {
        let (early, late) = said.split_at(place);
        converse(&[early, late]);
    }
}

#[test]
fn a_login_may_come_byte_by_byte_too() {
    let origin = Origin::echo();
    let tunnel = with_users(&[origin.address()], false);
    let said = [&[5, 2, 0, 2], LOGIN, &to(origin.address()), b"hello"].concat();
    let heard = [
        &[5, 2][..],
        &[1, 0],
        &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        b"hello",
    ]
    .concat();
    for size in [1, 2, 7, said.len()] {
        let mut user = tunnel.connect();
        for piece in said.chunks(size) {
            user.write_all(piece).unwrap();
            wait_until_read(&user);
        }
        let mut got = vec![0; heard.len()];
        user.read_exact(&mut got).unwrap();
        assert_eq!(got, heard, "in pieces of {size}");
    }
}

#[test]
fn bytes_sent_early_and_a_half_close_reach_the_target() {
    let origin = Origin::digest();
    let tunnel = socks(&[origin.address()]);
    let mut user = tunnel.connect();
    let request = [&7_u64.to_be_bytes()[..], &500_000_u64.to_be_bytes()].concat();
    user.write_all(&[OPEN, &to(origin.address()), &request].concat())
        .unwrap();
    send_pattern(&user, 7, 300_000).unwrap();
    user.shutdown(Shutdown::Write).unwrap();
    let mut chosen = [0; 2];
    user.read_exact(&mut chosen).unwrap();
    assert_eq!((chosen, code(&mut user)), ([5, 0], 0));
    let mut count = [0; 8];
    user.read_exact(&mut count).unwrap();
    assert_eq!(u64::from_be_bytes(count), 300_000);
    common::expect_pattern(&user, !7, 500_000).unwrap();
    expect_end(&user);
}

#[test]
fn what_comes_to_nothing_has_its_code() {
    let (allowed, other) = (Origin::echo(), Origin::echo());
    let nobody = refusing();
    let tunnel = Tunnel::builder()
        .proxy("socks5:0")
        .allow(allowed.address().to_string())
        .allow(nobody.to_string())
        // RFC 6761 §6.4: no resolver knows a name under `invalid`.
        .allow("nobody.invalid:80")
        .start();
    let at = |command: u8, kind: u8| {
        let mut request = to(allowed.address());
        (request[1], request[3]) = (command, kind);
        request
    };
    for (request, expected) in [
        (to(other.address()), 2),
        (to(nobody), 5),
        (by_name("nobody.invalid", 80), 4),
        (by_name("a b", 80), 1),
        (by_name("\u{e9}", 80), 1),
        (by_name("", 80), 1),
        (by_name("nobody.invalid", 0), 1),
        (at(2, 1), 7),
        (at(3, 1), 7),
        (at(9, 1), 7),
        (at(1, 9), 8),
    ] {
        let mut user = greeted(&tunnel);
        user.write_all(&request).unwrap();
        assert_eq!(code(&mut user), expected, "{request:?}");
        expect_end(&user);
    }
    assert_eq!(other.accepted(), 0, "never dialled");
    echoes(&connected(&tunnel, allowed.address()));
}

#[test]
fn without_a_client_a_user_is_told_so() {
    let origin = Origin::echo();
    let mut tunnel = socks(&[origin.address()]);
    let mark = tunnel.server.log().mark();
    tunnel.client.kill();
    tunnel.server.log().wait_for_since(mark, ": down (");
    let mut user = greeted(&tunnel);
    user.write_all(&to(origin.address())).unwrap();
    assert_eq!(code(&mut user), 1);
    expect_end(&user);
}

#[test]
fn a_user_must_know_a_method_of_the_proxy() {
    let origin = Origin::echo();
    let open = socks(&[origin.address()]);
    let guarded = with_users(&[origin.address()], false);
    for (tunnel, methods) in [
        (&open, &[2][..]),
        (&open, &[]),
        (&open, &[1, 3, 0xff]),
        (&guarded, &[0]),
        (&guarded, &[]),
        (&guarded, &[0, 1, 0x80]),
    ] {
        let mut user = tunnel.connect();
        let greeting = [&[5, methods.len() as u8], methods].concat();
        user.write_all(&greeting).unwrap();
        let mut answer = [0; 2];
        user.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [5, 0xff], "{methods:?}");
        expect_end(&user);
    }
}

#[test]
fn only_users_with_their_password_come_in() {
    let origin = Origin::echo();
    for exposed in [false, true] {
        let tunnel = with_users(&[origin.address()], exposed);
        for (login, right) in [
            (LOGIN, true),
            (b"\x01\x05alice\x0aopen sesam", false),
            (b"\x01\x05alicf\x0bopen sesame", false),
            (b"\x01\x05Alice\x0bopen sesame", false),
        ] {
            let mut user = tunnel.connect();
            user.write_all(&[5, 1, 2]).unwrap();
            // Whoever asks before it was let in is not heard.
            user.write_all(&[login, &to(origin.address())].concat())
                .unwrap();
            let mut answers = [0; 4];
            user.read_exact(&mut answers).unwrap();
            assert_eq!(answers, [5, 2, 1, u8::from(!right)], "{login:?}");
            if right {
                assert_eq!(code(&mut user), 0);
                echoes(&user);
            } else {
                expect_end(&user);
            }
        }
        let log = tunnel.server.log().text();
        assert!(log.contains("wrong password for alice from 127.0.0.1"));
        assert!(!log.contains("sesam") && !log.contains("alicf"), "{log}");
    }
}

#[test]
fn who_guesses_is_not_heard_for_a_while() {
    let origin = Origin::echo();
    let tunnel = with_users(&[origin.address()], false);
    let verdict = |from: [u8; 4], login: &[u8]| {
        let mut user = connect_from(from, tunnel.address());
        user.write_all(&[&[5, 1, 2], login].concat()).unwrap();
        let mut answers = [0; 4];
        user.read_exact(&mut answers).unwrap();
        answers[3]
    };
    for _ in 0..10 {
        assert_eq!(verdict([127, 0, 7, 1], b"\x01\x05alice\x01x"), 1);
    }
    assert_eq!(verdict([127, 0, 7, 1], LOGIN), 1, "not even looked at");
    assert_eq!(verdict([127, 0, 7, 2], LOGIN), 0);
}

#[test]
fn what_is_not_socks5_is_let_go_without_a_word() {
    let tunnel = socks(&[]);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x00",
        &[0xff; 5000],
    ] {
        let user = &tunnel.connect();
        let start = Instant::now();
        // It may be gone before all of it was sent.
        let _ = { user }.write_all(garbage);
        let mut rest = Vec::new();
        // What was not read makes it a reset.
        let _ = { user }.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{garbage:?}");
        assert!(start.elapsed() < AT_ONCE);
    }
    let mut user = greeted(&tunnel);
    user.write_all(b"\x01\x05alice\x01x").unwrap();
    let _ = user.read_to_end(&mut Vec::new());
    tunnel
        .server
        .log()
        .wait_for("refused, a request of another version");
}

#[test]
#[ignore = "slow"]
fn the_whole_negotiation_has_one_deadline() {
    let tunnel = Tunnel::builder()
        .server_config(r#"{ "timeouts": { "request_head": "1s" } }"#)
        .proxy("socks5:0")
        .start();
    let before = tunnel.descriptors();
    for said in [&b""[..], &[5], OPEN, &[5, 1, 0, 5, 1, 0, 3, 255, b'a']] {
        let start = Instant::now();
        let mut user = tunnel.connect();
        user.write_all(said).unwrap();
        let mut heard = Vec::new();
        user.read_to_end(&mut heard).unwrap();
        let whole = said.len() >= 3;
        assert_eq!(heard, if whole { &[5, 0][..] } else { b"" });
        let waited = start.elapsed().as_millis();
        assert!((900..5000).contains(&waited), "{waited} ms");
    }
    // Byte by byte does not make it longer.
    let start = Instant::now();
    let mut user = greeted(&tunnel);
    let slow = [&[5, 1, 0, 3, 255][..], &[b'a'; 255], &[0, 80]].concat();
    for byte in slow {
        common::pass(std::time::Duration::from_millis(20));
        if user.write_all(&[byte]).is_err() {
            break;
        }
    }
    let _ = user.read_to_end(&mut Vec::new());
    let waited = start.elapsed().as_millis();
    assert!((900..5000).contains(&waited), "{waited} ms");
    drop(user);
    tunnel.wait_for_descriptors(before);
}

#[test]
fn a_server_that_stops_does_not_wait_for_who_says_nothing() {
    let mut tunnel = socks(&[]);
    let silent = tunnel.connect();
    let user = greeted(&tunnel);
    tunnel.server.terminate();
    for mut user in [&silent, &user] {
        let _ = user.read_to_end(&mut Vec::new());
    }
    assert!(tunnel.server.wait_within(PATIENCE).success());
}

#[test]
fn it_is_spoken_inside_of_tls_too() {
    let origin = Origin::echo();
    let authority = Authority::new();
    let tunnel = Tunnel::builder()
        .secure(&authority)
        .allow(origin.address().to_string())
        .file("users", USERS)
        .proxy_with("socks5:0", r#""tls": true, "users_file": "users""#, true)
        .start();
    let said = [&[5, 1, 2][..], LOGIN, &to(origin.address()), b"hello"].concat();
    let heard = b"\x05\x02\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello";
    for size in [1, said.len()] {
        let mut user = tls_user(authority.client(), tunnel.address(), "localhost");
        for piece in said.chunks(size) {
            user.write_all(piece).unwrap();
        }
        let mut got = vec![0; heard.len()];
        user.read_exact(&mut got).unwrap();
        assert_eq!(got, heard, "in pieces of {size}");
    }
}

#[test]
fn addresses_are_looked_at_first() {
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .allow(origin.address().to_string())
        .proxy_with("socks5:0", r#""allow_from": [ "127.0.7.0/24" ]"#, true)
        .start();
    expect_closed_at_once(tunnel.address());
    let mut user = connect_from([127, 0, 7, 1], tunnel.address());
    user.write_all(&[OPEN, &to(origin.address())].concat())
        .unwrap();
    let mut chosen = [0; 2];
    user.read_exact(&mut chosen).unwrap();
    assert_eq!(code(&mut user), 0);
    echoes(&user);
}

#[test]
fn a_client_that_exposes_an_open_socks_proxy_is_refused() {
    let config = r#"{ "clients": [ { "id": "edge-1", "bind": "0.0.0.0" } ] }"#;
    let scratch = common::Scratch::new();
    let config = scratch.write("server.json", config).display().to_string();
    let server = Siding::start(["server", "--listen", "127.0.0.1:0", "--config", &config]);
    let url = format!("ws://{}", server.link_address());
    let client = Siding::start([
        "client", "--server", &url, "--id", "edge-1", "--expose", "socks5:0",
    ]);
    let line = client.log().wait_for("refused by the server");
    assert!(line.contains("a socks5 proxy on 0.0.0.0"), "{line}");
}

#[test]
fn curl_speaks_it() {
    let origin = HttpOrigin::greeting();
    let port = origin.address().port();
    let builder = || {
        Tunnel::builder()
            .allow(format!("localhost:{port}"))
            .allow(format!("127.0.0.1:{port}"))
            .file("users", USERS)
    };
    let open = builder().proxy("socks5:0").start();
    let guarded = builder().proxy_with("socks5:0", OPTIONS, true).start();
    let curl = |tunnel: &Tunnel, words: &[&str], host: &str| {
        let mut curl = curl()?;
        curl.arg("-4").args(words);
        curl.arg(tunnel.address().to_string());
        curl.arg(format!("http://{host}:{port}/"));
        Some(run(&mut curl, Vec::new(), PATIENCE))
    };
    let alice = "alice:open sesame";
    for (tunnel, words, host) in [
        (&open, &["--socks5-hostname"][..], "localhost"),
        (&open, &["--socks5"], "127.0.0.1"),
        (&open, &["--socks5"], "localhost"),
        (
            &guarded,
            &["--proxy-user", alice, "--socks5-hostname"],
            "localhost",
        ),
        (&guarded, &["--proxy-user", alice, "--socks5"], "127.0.0.1"),
    ] {
        let Some(got) = curl(tunnel, words, host) else {
            return;
        };
        let text = got.succeeded().text();
        assert!(
            text.starts_with("GET / on connection "),
            "{words:?}: {text}"
        );
    }
    for words in [
        &["--socks5-hostname"][..],
        &["--proxy-user", "alice:wrong", "--socks5-hostname"],
    ] {
        let got = curl(&guarded, words, "localhost").expect("it was there");
        // CURLE_PROXY.
        assert_eq!(got.status.code(), Some(97), "{words:?}");
    }
}

#[test]
fn ssh_goes_through_it_by_netcat() {
    let Some(netcat) = require("nc") else { return };
    let help = run(
        std::process::Command::new(&netcat).arg("-h"),
        Vec::new(),
        PATIENCE,
    );
    if !help.stderr.contains("[-X ") {
        return println!("skipped: this netcat knows no proxies");
    }
    let Some(sshd) = Sshd::start() else { return };
    let tunnel = socks(&[sshd.address()]);
    let through = format!(
        "ProxyCommand={} -X 5 -x {} %h %p",
        netcat.display(),
        tunnel.address()
    );
    let mut ssh = sshd.ssh(sshd.address(), &["-o", &through], &["echo", "hello"]);
    let got = run(&mut ssh, Vec::new(), PATIENCE).succeeded();
    assert_eq!(got.text(), "hello\n");
    tunnel.server.log().wait_for("stream user-");
}

/// A tunnel with a SOCKS5 proxy, to these targets and no other.
fn socks(targets: &[SocketAddr]) -> Tunnel {
    let builder = Tunnel::builder().proxy("socks5:0");
    targets
        .iter()
        .fold(builder, |builder, target| builder.allow(target.to_string()))
        .start()
}

/// As [`socks`], for alice.
fn with_users(targets: &[SocketAddr], exposed: bool) -> Tunnel {
    let builder = Tunnel::builder()
        .file("users", USERS)
        .proxy_with("socks5:0", OPTIONS, exposed);
    targets
        .iter()
        .fold(builder, |builder, target| builder.allow(target.to_string()))
        .start()
}

/// A user of the open proxy, who may ask for a target now.
fn greeted(tunnel: &Tunnel) -> TcpStream {
    let mut user = connect(tunnel.address());
    user.write_all(OPEN).unwrap();
    let mut chosen = [0; 2];
    user.read_exact(&mut chosen).unwrap();
    assert_eq!(chosen, [5, 0]);
    user
}

/// A user of the open proxy, connected to this target.
fn connected(tunnel: &Tunnel, target: SocketAddr) -> TcpStream {
    let mut user = greeted(tunnel);
    user.write_all(&to(target)).unwrap();
    assert_eq!(code(&mut user), 0);
    user
}

/// The request for a target.
fn to(target: SocketAddr) -> Vec<u8> {
    let port = target.port().to_be_bytes();
    match target {
        SocketAddr::V4(target) => [&[5, 1, 0, 1][..], &target.ip().octets(), &port].concat(),
        SocketAddr::V6(target) => [&[5, 1, 0, 4][..], &target.ip().octets(), &port].concat(),
    }
}

/// The request for a target by its name.
fn by_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("a short name");
    [&[5, 1, 0, 3, length], name.as_bytes(), &port.to_be_bytes()].concat()
}

/// The code of the answer to a request.
fn code(user: &mut TcpStream) -> u8 {
    let mut answer = [0; 10];
    user.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 5);
    assert_eq!(answer[2..], [0, 1, 0, 0, 0, 0, 0, 0], "no address of ours");
    answer[1]
}
