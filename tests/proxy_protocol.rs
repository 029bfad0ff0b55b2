//! The PROXY protocol, both ways: what a target is told of its users, and what a balancer in front tells of
//! them; who is believed, and who is not. `tests/balancers.rs` has the real programs.

mod common;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use common::{
    AT_ONCE, Authority, CLIENT, HttpOrigin, HttpUser, Origin, Scratch, Siding, Then, TlsUser,
    Tunnel, Wire, connect, connect_from, echoes, eventually, expect_end, expect_reset, tls_user,
    wait_until_read,
};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

/// Whom the proxies of these tests believe, and somebody whom they do not.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);
const BELIEVE: &str = r#""accept_proxy": [ "127.0.7.0/24" ]"#;

/// A server that lets its clients say who is a balancer.
const TRUSTING: &str =
    r#"{ "clients": [ { "id": "edge-1", "accept_proxy": true }, { "id": "other" } ] }"#;

/// What the balancer says of a user.
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n";
const LINE_6: &str = "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n";

/// As [`LINE`], in version 2, with `fields` behind the addresses.
fn block(fields: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xC8, 0x22, 1, 187];
    block_of(0x21, 0x11, &[&addresses, fields].concat())
}

fn block_of(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let head = [command, family, (body.len() >> 8) as u8, body.len() as u8];
    [b"\r\n\r\n\0\r\nQUIT\n", &head[..], body].concat()
}

/// All headers that name the user of [`LINE`].
fn headers() -> [Vec<u8>; 3] {
    [LINE.into(), block(b""), block(&[0x04; 500])]
}

/// A tunnel whose one proxy, of `kind`, leads to `target` with these options.
fn tunnel(kind: &str, target: SocketAddr, options: &str, exposed: bool) -> Tunnel {
    Tunnel::builder()
        .allow(target.to_string())
        .server_config(TRUSTING)
        .proxy_with(format!("{kind}:0:{target}"), options, exposed)
        .start()
}

/// As [`tunnel`], for a server with a certificate for `localhost`.
fn secure_tunnel(authority: &Authority, kind: &str, target: SocketAddr, options: &str) -> Tunnel {
    let spec = format!("{kind}:0:{target}");
    let (certificate, key) = authority.files(&["localhost"]);
    Tunnel::builder()
        .allow(target.to_string())
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .server_files("--cert", &certificate)
        .server_files("--key", &key)
        .proxy_with(spec, options, false)
        .start()
}

/// A connection of the balancer on which `said` has been said.
fn balanced(proxy: SocketAddr, said: impl AsRef<[u8]>) -> TcpStream {
    let mut user = connect_from(BALANCER, proxy);
    user.write_all(said.as_ref()).expect("it is sent");
    user
}

/// The next bytes are these.
#[track_caller]
fn expect_bytes(mut from: impl Read, expected: impl AsRef<[u8]>) {
    let expected = expected.as_ref();
    let mut bytes = vec![0; expected.len()];
    let read = from.read_exact(&mut bytes);
    let shown = String::from_utf8_lossy(&bytes);
    assert!(
        read.is_ok() && bytes == expected,
        "{read:?}: {shown:?}, not {:?}",
        String::from_utf8_lossy(expected)
    );
}

/// The connection ends, in whatever way, without a byte.
#[track_caller]
fn expect_refused(mut user: &TcpStream) {
    match user.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("an answer"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

/// An origin that answers with what it was told of the user.
fn mirror() -> HttpOrigin {
    HttpOrigin::start(|exchange| {
        exchange.body()?;
        let told = [
            "x-forwarded-for",
            "forwarded",
            "x-forwarded-proto",
            "x-real-ip",
        ];
        let told = told.map(|name| exchange.request.field(name).unwrap_or("-").to_owned());
        let told = told.join(" ");
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        ))?;
        Ok(Then::Keep)
    })
}

/// What the mirror is told of the user of [`LINE`].
fn told(proto: &str) -> String {
    format!("192.0.2.7 for=192.0.2.7;host=a;proto={proto} {proto} -")
}

/// A TLS echo, with what came before the handshake said first.
fn introduced_tls_echo(authority: &Authority, header: usize) -> Origin {
    let config = authority.server(&["a.test"]);
    Origin::start(move |stream| {
        let mut said = vec![0; header];
        if (&stream).read_exact(&mut said).is_err() {
            return;
        }
        let mut wire = Wire::accept(stream, Some(&Arc::clone(&config)));
        if wire.write_all(&said).is_err() {
            return;
        }
        let mut piece = [0; 1000];
        while let Ok(read @ 1..) = wire.read(&mut piece) {
            if wire.write_all(&piece[..read]).is_err() {
                return;
            }
        }
        wire.close();
    })
}

/// A stream before whose first bytes others go, in one segment.
struct Led {
    lead: Vec<u8>,
    stream: TcpStream,
}

impl Read for Led {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }
}

impl Write for Led {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut both = std::mem::take(&mut self.lead);
        both.extend_from_slice(bytes);
        self.stream.write_all(&both)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A TLS user behind the balancer.
fn led_tls_user(
    config: Arc<ClientConfig>,
    proxy: SocketAddr,
    name: &'static str,
    lead: impl Into<Vec<u8>>,
) -> rustls::StreamOwned<ClientConnection, Led> {
    let name = ServerName::try_from(name).expect("a name");
    let session = ClientConnection::new(config, name).expect("a session");
    let stream = connect_from(BALANCER, proxy);
    let lead = lead.into();
    rustls::StreamOwned::new(session, Led { lead, stream })
}

#[test]
fn a_target_is_told_whose_a_connection_is_before_its_first_byte() {
    let echo = Origin::echo();
    for (kind, exposed) in [("tcp", false), ("ssh", true), ("telnet", false)] {
        let one = tunnel(kind, echo.address(), r#""proxy_protocol": "v1""#, exposed);
        let to = one.address().port();
        // The user says nothing: whose target speaks first must not wait for it.
        let silent = connect_from(STRANGER, one.address());
        let from = silent.local_addr().unwrap().port();
        let line = format!("PROXY TCP4 127.0.8.1 127.0.0.1 {from} {to}\r\n");
        expect_bytes(&silent, &line);
        echoes(&silent);

        // It ends without a word.
        let mute = connect(one.address());
        let from = mute.local_addr().unwrap().port();
        mute.shutdown(Shutdown::Write).unwrap();
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n");
        expect_bytes(&mute, &line);
        expect_end(&mute);

        let two = tunnel(kind, echo.address(), r#""proxy_protocol": "v2""#, exposed);
        let to = two.address().port();
        let mut hasty = connect_from(STRANGER, two.address());
        let from = hasty.local_addr().unwrap().port();
        hasty.write_all(b"SSH-2.0-x\r\n").unwrap();
        let mut body = vec![127, 0, 8, 1, 127, 0, 0, 1];
        body.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
        expect_bytes(&hasty, block_of(0x21, 0x11, &body));
        expect_bytes(&hasty, b"SSH-2.0-x\r\n");
    }
}

#[test]
fn a_target_is_told_which_address_a_user_has_connected_to() {
    let echo = Origin::echo();
    let target = echo.address();
    for (bind, to) in [
        ("0.0.0.0", "127.0.9.9"),
        ("[::]", "[::1]"),
        ("[::1]", "[::1]"),
    ] {
        // Nobody from outside while the test runs.
        let options = r#""proxy_protocol": "v1", "allow_from": [ "127.0.0.0/8", "::1" ]"#;
        let tunnel = Tunnel::builder()
            .allow(target.to_string())
            .proxy_with(format!("tcp:{bind}:0:{target}"), options, false)
            .start();
        let port = tunnel.address().port();
        let user = connect(format!("{to}:{port}").parse().unwrap());
        let from = user.local_addr().unwrap();
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let to = to.trim_matches(['[', ']']);
        let (source, from) = (from.ip(), from.port());
        let line = format!("PROXY {family} {source} {to} {from} {port}\r\n");
        expect_bytes(&user, line);
        echoes(&user);
    }
}

#[test]
fn a_target_of_tls_is_told_before_the_hello_and_one_behind_our_own_tls_too() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let ours = secure_tunnel(
        &authority,
        "tcp",
        echo.address(),
        r#""tls": true, "proxy_protocol": "v1""#,
    );
    let mut user = tls_user(authority.client(), ours.address(), "localhost");
    let (from, to) = (
        user.sock.local_addr().unwrap().port(),
        ours.address().port(),
    );
    user.write_all(b"hello").unwrap();
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n");
    expect_bytes(&mut user, line);
    expect_bytes(&mut user, "hello");

    let target = introduced_tls_echo(&authority, 28);
    let theirs = tunnel("tls", target.address(), r#""proxy_protocol": "v2""#, false);
    let mut user = tls_user(authority.client(), theirs.address(), "a.test");
    let (from, to) = (
        user.sock.local_addr().unwrap().port(),
        theirs.address().port(),
    );
    user.write_all(b"hello").unwrap();
    let mut body = vec![127, 0, 0, 1, 127, 0, 0, 1];
    body.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
    expect_bytes(&mut user, block_of(0x21, 0x11, &body));
    expect_bytes(&mut user, "hello");
}

#[test]
fn a_balancers_header_may_come_in_any_pieces() {
    let echo = Origin::echo();
    let tunnel = tunnel("tcp", echo.address(), BELIEVE, false);
    let proxy = tunnel.address();
    for header in [LINE.as_bytes().to_vec(), block(&[4, 0, 1, 0])] {
        for cut in 1..header.len() {
            let (first, rest) = header.split_at(cut);
            let mut user = balanced(proxy, first);
            wait_until_read(&user);
            // What follows the header in the same segment is the stream's.
            user.write_all(&[rest, b"first words"].concat()).unwrap();
            expect_bytes(&user, "first words");
            echoes(&user);
        }
        let mut user = connect_from(BALANCER, proxy);
        for byte in &header {
            user.write_all(&[*byte]).unwrap();
            wait_until_read(&user);
        }
        echoes(&user);
    }
    // Whose target speaks first need not wait for the user.
    let greeting = Origin::source(7, 1000);
    let silent = self::tunnel("tcp", greeting.address(), BELIEVE, true);
    let user = balanced(silent.address(), block(b""));
    common::expect_pattern(&user, 7, 1000).expect("all of it");
    expect_end(&user);
    assert_eq!(tunnel.server.log().count("refused a connection"), 0);
}

#[test]
fn an_origin_is_told_of_the_user_behind_the_balancer() {
    let origin = mirror();
    for exposed in [false, true] {
        let tunnel = tunnel("http", origin.address(), BELIEVE, exposed);
        for header in headers() {
            let mut user = HttpUser::of(balanced(tunnel.address(), &header));
            for _ in 0..3 {
                user.send("GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 10.0.0.1\r\n\r\n");
                assert_eq!(user.reply("GET").text(), told("http"));
            }
        }
        let line = "PROXY TCP6 ::ffff:192.0.2.7 ::1 51234 443\r\n";
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut user = HttpUser::of(balanced(tunnel.address(), [line, request].concat()));
        assert_eq!(user.reply("GET").text(), told("http"));
        let mut user = HttpUser::of(balanced(tunnel.address(), [LINE_6, request].concat()));
        assert_eq!(
            user.reply("GET").text(),
            "2001:db8::7 for=\"[2001:db8::7]\";host=a;proto=http http -"
        );
        // The balancer's own connections, by which it looks whether all is well.
        for own in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            block_of(0x20, 0, b""),
            block_of(0x21, 0x31, &[0; 216]),
        ] {
            let mut user = HttpUser::of(balanced(tunnel.address(), own));
            user.send(request);
            let told = user.reply("GET").text();
            assert!(told.starts_with("127.0.7.1 for=127.0.7.1;"), "{told}");
        }
        // Who comes from elsewhere is a user itself.
        let mut user = HttpUser::of(connect_from(STRANGER, tunnel.address()));
        user.send(request);
        let told = user.reply("GET").text();
        assert!(told.starts_with("127.0.8.1 for=127.0.8.1;"), "{told}");
    }
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::new();
    let origin = mirror();
    let options = format!(r#""tls": true, {BELIEVE}"#);
    let web = secure_tunnel(&authority, "http", origin.address(), &options);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for header in headers() {
        // With the hello in one segment, and alone.
        let mut user = led_tls_user(
            authority.client(),
            web.address(),
            "localhost",
            header.clone(),
        );
        user.write_all(request).unwrap();
        let mut answer = String::new();
        user.read_to_string(&mut answer).expect("ended in order");
        assert!(
            answer.ends_with(&format!("\r\n\r\n{}", told("https"))),
            "{answer}"
        );

        let stream = balanced(web.address(), &header);
        wait_until_read(&stream);
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(authority.client(), name).unwrap();
        let mut user = TlsUser::new(session, stream);
        user.write_all(request).unwrap();
        let mut answer = String::new();
        user.read_to_string(&mut answer).expect("ended in order");
        assert!(
            answer.ends_with(&format!("\r\n\r\n{}", told("https"))),
            "{answer}"
        );
    }
    // A stranger speaks TLS at once, and a header inside of it is nothing but a bad request.
    let stream = connect_from(STRANGER, web.address());
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(authority.client(), name).unwrap();
    let mut user = TlsUser::new(session, stream);
    user.write_all(LINE.as_bytes()).unwrap();
    user.write_all(request).unwrap();
    let mut answer = String::new();
    user.read_to_string(&mut answer).expect("ended in order");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(origin.requests().iter().sum::<usize>(), 6);
}

#[test]
fn what_one_balancer_says_the_next_target_hears() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let options = format!(r#"{BELIEVE}, "proxy_protocol": "v1""#);
    let plain = tunnel("tcp", echo.address(), &options, true);
    for header in headers() {
        let user = balanced(plain.address(), [&header, &b"words"[..]].concat());
        expect_bytes(&user, [LINE, "words"].concat());
    }
    let user = balanced(plain.address(), LINE_6);
    expect_bytes(&user, LINE_6);
    for own in [b"PROXY UNKNOWN x\r\n".to_vec(), block_of(0x20, 0x11, b"x")] {
        let user = balanced(plain.address(), own);
        let from = user.local_addr().unwrap().port();
        let to = plain.address().port();
        expect_bytes(
            &user,
            format!("PROXY TCP4 127.0.7.1 127.0.0.1 {from} {to}\r\n"),
        );
    }

    let options = format!(r#"{BELIEVE}, "tls": true, "proxy_protocol": "v1""#);
    let ours = secure_tunnel(&authority, "tcp", echo.address(), &options);
    let client = authority.client();
    let mut user = led_tls_user(client, ours.address(), "localhost", block(b""));
    user.write_all(b"words").unwrap();
    expect_bytes(&mut user, [LINE, "words"].concat());

    let target = introduced_tls_echo(&authority, 28);
    let options = format!(r#"{BELIEVE}, "proxy_protocol": "v2""#);
    let theirs = tunnel("tls", target.address(), &options, false);
    let client = authority.client();
    let mut user = led_tls_user(client, theirs.address(), "a.test", LINE);
    user.write_all(b"words").unwrap();
    expect_bytes(&mut user, block(b""));
    expect_bytes(&mut user, "words");
}

#[test]
fn nobody_forges_an_address() {
    let origin = mirror();
    let echo = Origin::echo();
    for options in [r#""deny_from": []"#, BELIEVE] {
        let web = tunnel("http", origin.address(), options, false);
        for header in headers() {
            let mut user = HttpUser::of(connect_from(STRANGER, web.address()));
            user.send(header);
            let _ = user.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(user.reply("GET").status, 400);
            user.expect_end();
        }
        // At a target that listens for headers, ours comes first, whatever the user says.
        let options = format!(r#"{options}, "proxy_protocol": "v1""#);
        let raw = tunnel("tcp", echo.address(), &options, false);
        for header in headers() {
            let mut user = connect_from(STRANGER, raw.address());
            user.write_all(&header).unwrap();
            let from = user.local_addr().unwrap().port();
            let to = raw.address().port();
            expect_bytes(
                &user,
                format!("PROXY TCP4 127.0.8.1 127.0.0.1 {from} {to}\r\n"),
            );
            expect_bytes(&user, &header);
        }
        // One header is read, and what follows is the stream's, whatever it looks like.
        if options.starts_with(BELIEVE) {
            let second = LINE.replace("192.0.2.7", "10.0.0.1");
            let user = balanced(raw.address(), [LINE, &second].concat());
            expect_bytes(&user, [LINE, &second].concat());
        }
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn lists_hold_for_the_user_and_not_for_the_balancer() {
    let echo = Origin::echo();
    let options = format!(
        r#"{BELIEVE}, "allow_from": [ "192.0.2.0/24", "2001:db8::/32" ], "deny_from": [ "192.0.2.66" ]"#
    );
    let tunnel = tunnel("tcp", echo.address(), &options, false);
    let proxy = tunnel.address();
    for welcome in [LINE, LINE_6] {
        echoes(&balanced(proxy, welcome));
    }
    for outsider in ["192.0.2.66", "198.51.100.9", "127.0.7.1"] {
        let line = LINE.replace("192.0.2.7", outsider);
        expect_refused(&balanced(proxy, line));
    }
    // Neither is the balancer itself somebody who may come in, nor a stranger that says what it says.
    expect_refused(&balanced(proxy, "PROXY UNKNOWN\r\n"));
    expect_reset(STRANGER, proxy, LINE.as_bytes());
    let line = tunnel.server.log().wait_for("by its address");
    assert!(
        line.contains("refused a user from 192.0.2.66 by its address, 1 so far"),
        "{line}"
    );
    echoes(&balanced(proxy, LINE));
}

#[test]
fn who_guesses_is_the_user_and_not_the_balancer() {
    let origin = mirror();
    let options = format!(r#"{BELIEVE}, "users_file": "users""#);
    let target = origin.address();
    let tunnel = Tunnel::builder()
        .allow(target.to_string())
        .file("users", "alice:open sesame\n")
        .proxy_with(format!("http:0:{target}"), &options, false)
        .start();
    let ask = |line: &str, credentials: &str| {
        let mut user = HttpUser::of(balanced(tunnel.address(), line));
        user.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credentials}\r\n\r\n"
        ));
        user.reply("GET").status
    };
    let (right, wrong) = ("YWxpY2U6b3BlbiBzZXNhbWU=", "YWxpY2U6d3Jvbmc=");
    for _ in 0..10 {
        assert_eq!(ask(LINE, wrong), 401);
    }
    assert_eq!(ask(LINE, right), 429);
    let other = LINE.replace("192.0.2.7", "192.0.2.8");
    assert_eq!(ask(&other, right), 200);
    tunnel.server.log().wait_for("from 192.0.2.7");
}

#[test]
fn limits_by_source_are_the_users_and_not_the_balancers() {
    let authority = Authority::new();
    let (echo, origin) = (Origin::echo(), mirror());
    let (certificate, key) = authority.files(&["localhost"]);
    let specs = [
        format!("tcp:0:{}", echo.address()),
        format!("http:0:{}", origin.address()),
        format!("ssh:0:{}", echo.address()),
    ];
    let [raw, web, secure] = &specs;
    let tunnel = Tunnel::builder()
        .allow(echo.address().to_string())
        .allow(origin.address().to_string())
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .server_files("--cert", &certificate)
        .server_files("--key", &key)
        .server_config(format!(
            r#"{{ "limits": {{ "connections_per_source": 2, "user_handshakes": 1 }}, "proxies": [
                {{ "client": "{CLIENT}", "spec": "{raw}", {BELIEVE} }},
                {{ "client": "{CLIENT}", "spec": "{web}", {BELIEVE} }},
                {{ "client": "{CLIENT}", "spec": "{secure}", "tls": true, {BELIEVE} }} ] }}"#
        ))
        .start();
    let [raw, web, secure] = specs
        .each_ref()
        .map(|spec| tunnel.server.proxy_address(spec));
    let line = |last: usize| LINE.replace("192.0.2.7", &format!("192.0.2.{last}"));
    // Of the balancer's connections there may be any number.
    let mut all = Vec::new();
    for last in 1..=5 {
        for _ in 0..2 {
            let user = balanced(raw, line(last));
            echoes(&user);
            all.push(user);
        }
        expect_refused(&balanced(raw, line(last)));
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut user = HttpUser::of(balanced(web, [&line(last), request].concat()));
        assert_eq!(user.reply("GET").status, 429);
        user.expect_end();
        // Who is refused has given its place among the handshakes back.
        let mut user = led_tls_user(authority.client(), secure, "localhost", line(last));
        assert!(user.write_all(b"hello").is_err());
    }
    let refused = tunnel
        .server
        .log()
        .wait_for("limits.connections_per_source");
    assert!(
        refused.contains("refused a user from 192.0.2.1,"),
        "{refused}"
    );
    let mut user = led_tls_user(authority.client(), secure, "localhost", line(9));
    user.write_all(b"hello").unwrap();
    expect_bytes(&mut user, "hello");
    // Who leaves makes room for its own.
    drop(all.split_off(9));
    eventually("there is a place again", || {
        let mut user = balanced(raw, line(5) + "x");
        matches!(user.read(&mut [0]), Ok(1)).then_some(())
    });
    assert!(origin.requests().is_empty());
}

#[test]
fn users_who_name_their_target_come_through_a_balancer_too() {
    let origin = HttpOrigin::greeting();
    let target = origin.address();
    let options = format!(r#"{BELIEVE}, "allow_from": [ "192.0.2.0/24" ]"#);
    let forward = Tunnel::builder()
        .allow(target.to_string())
        .proxy_with("forward:0", &options, false)
        .start();
    let mut user = HttpUser::of(balanced(forward.address(), LINE));
    user.send(format!("GET http://{target}/ HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_eq!(user.reply("GET").status, 200);
    let stranger = LINE.replace("192.0.2.7", "198.51.100.7");
    expect_refused(&balanced(forward.address(), stranger));

    let echo = Origin::echo();
    let target = echo.address();
    let socks = Tunnel::builder()
        .allow(target.to_string())
        .proxy_with("socks5:0", &options, false)
        .start();
    let mut said = block(b"");
    said.extend([5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1]);
    said.extend(target.port().to_be_bytes());
    let user = balanced(socks.address(), said);
    expect_bytes(&user, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    echoes(&user);
}

#[test]
fn what_is_no_header_is_closed_and_said_once_a_second() {
    let echo = Origin::echo();
    let target = echo.address();
    let spec = format!("tcp:0:{target}");
    let start = Instant::now();
    let [tunnel, impatient] = ["10s", "500ms"].map(|handshake| {
        Tunnel::builder()
            .allow(target.to_string())
            .server_config(format!(
                r#"{{ "timeouts": {{ "handshake": "{handshake}" }},
                     "proxies": [ {{ "client": "{CLIENT}", "spec": "{spec}", {BELIEVE} }} ] }}"#
            ))
            .start()
    });
    let [proxy, hasty] = [&tunnel, &impatient].map(|it| it.server.proxy_address(&spec));
    let before = [&tunnel, &impatient].map(Tunnel::descriptors);
    let mut long = block_of(0x21, 0x11, &[0; 2049]);
    for said in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\0",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n",
        &[&b"PROXY TCP4 "[..], &[b'1'; 100]].concat(),
        &block_of(0x31, 0x11, &[0; 12]),
        &block_of(0x21, 0x11, &[0; 11]),
        &long[..16],
    ] {
        let asked = Instant::now();
        expect_refused(&balanced(proxy, said));
        // What cannot become a header is not waited for.
        assert!(asked.elapsed() < AT_ONCE, "{said:?}");
    }
    // More than it reads of one at a time: closed all the same.
    long.extend([0; 100_000]);
    let mut user = connect_from(BALANCER, proxy);
    let _ = user.write_all(&long);
    expect_refused(&user);
    // The longest is well.
    let mut longest = block(&[1; 2048 - 12]);
    longest.push(b'!');
    expect_bytes(&balanced(proxy, longest), "!");
    // It ends within.
    for cut in [1, 20] {
        let user = balanced(proxy, &LINE[..cut]);
        user.shutdown(Shutdown::Write).unwrap();
        let asked = Instant::now();
        expect_refused(&user);
        assert!(asked.elapsed() < AT_ONCE, "{cut}");
    }
    // It stands still, whatever has come of it, or comes too slowly.
    for said in ["", "PROXY", &LINE[..LINE.len() - 1]] {
        expect_refused(&balanced(hasty, said));
    }
    let mut slow = balanced(hasty, "");
    let begun = Instant::now();
    for byte in LINE.bytes().chain([b'?'; 1000]) {
        if slow.write_all(&[byte]).is_err() {
            break;
        }
        common::pass(std::time::Duration::from_millis(20));
        assert!(begun.elapsed() < AT_ONCE, "bytes buy no time");
    }
    // A balancer that only looks whether somebody listens is no news.
    let mark = tunnel.server.log().mark();
    for _ in 0..3 {
        drop(connect_from(BALANCER, proxy));
    }
    echoes(&balanced(proxy, LINE));
    let log = tunnel.server.log();
    let since = log.lines().split_off(mark);
    assert!(
        since.iter().all(|line| !line.contains("of the balancer")),
        "{since:?}"
    );
    log.wait_for("refused a connection of the balancer 127.0.7.1, no PROXY header, 1 so far");
    let hasty = impatient.server.log();
    hasty.wait_for("no whole PROXY header in time");
    for (tunnel, before) in [&tunnel, &impatient].into_iter().zip(before) {
        let seconds = start.elapsed().as_secs() as usize + 1;
        let lines = tunnel.server.log().count("of the balancer");
        assert!(lines <= seconds, "{lines} lines in {seconds} s");
        tunnel.wait_for_descriptors(before);
    }
}

#[test]
fn a_balancer_that_says_nothing_keeps_nobody_out_of_tls() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let (certificate, key) = authority.files(&["localhost"]);
    let spec = format!("tcp:0:{}", echo.address());
    let tunnel = Tunnel::builder()
        .allow(echo.address().to_string())
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .server_files("--cert", &certificate)
        .server_files("--key", &key)
        .server_config(format!(
            r#"{{ "limits": {{ "user_handshakes": 4 }}, "proxies": [
                {{ "client": "{CLIENT}", "spec": "{spec}", "tls": true, {BELIEVE} }} ] }}"#
        ))
        .start();
    let proxy = tunnel.server.proxy_address(&spec);
    let before = tunnel.server.descriptors();
    let idle: Vec<TcpStream> = (0..12)
        .map(|number| balanced(proxy, [LINE, ""][number % 2]))
        .collect();
    let mut user = led_tls_user(authority.client(), proxy, "localhost", LINE);
    user.write_all(b"hello").unwrap();
    expect_bytes(&mut user, "hello");
    tunnel.server.log().wait_for("handshakes are under way");
    drop((idle, user));
    eventually("the server holds what it held", || {
        (tunnel.server.descriptors() <= before).then_some(())
    });
}

/// A balancer in front of `server`, that says `header` of everybody; what has connected to it is passed on.
fn balancer(server: SocketAddr, header: &'static str) -> Origin {
    Origin::start(move |user| {
        let mut link = connect_from(BALANCER, server);
        link.write_all(header.as_bytes()).expect("it is sent");
        // Whoever rests is no less well.
        for stream in [&user, &link] {
            stream.set_read_timeout(None).expect("an option");
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                io::copy(&mut &user, &mut &link).ok();
                link.shutdown(Shutdown::Both).ok();
            });
            io::copy(&mut &link, &mut &user).ok();
            user.shutdown(Shutdown::Both).ok();
        });
    })
}

#[test]
fn clients_come_through_a_balancer_and_are_known_by_their_own_address() {
    let authority = Authority::new();
    let echo = Origin::echo();
    for secure in [false, true] {
        let plan = Tunnel::builder()
            .token("a token of sixteen bytes")
            .server_config(format!(
                r#"{{ {BELIEVE}, "allow_from": [ "192.0.2.0/24" ], "timeouts": {{ "handshake": "1s" }} }}"#
            ))
            .expose(format!("tcp:0:{}", echo.address()));
        let plan = if secure {
            plan.secure(&authority)
        } else {
            plan
        };
        let scratch = Scratch::new();
        let server = plan.server_alone(&scratch);
        let front = balancer(server.link_address(), LINE);
        let client = plan.client_alone(&scratch, front.address());
        client.log().wait_for(": open at ");
        server
            .log()
            .wait_for("link edge-1: up from 192.0.2.7:51234");
        let proxy = server.proxy_address(&format!("tcp:0:{}", echo.address()));
        echoes(&connect(proxy));

        let other = balancer(
            server.link_address(),
            "PROXY TCP4 198.51.100.9 10.0.0.1 7 7\r\n",
        );
        let stranger = plan.client_alone(&scratch, other.address());
        server
            .log()
            .wait_for("link from 198.51.100.9:7: refused by its address, 1 so far");
        stranger.log().wait_for("again in");
        // Around the balancer, without what it says, or with something else.
        let direct = plan.client_alone(&scratch, server.link_address());
        direct.log().wait_for("again in");
        for said in ["", "GET / HTTP/1.1\r\n\r\n", "PROXY TCP4"] {
            expect_refused(&balanced(server.link_address(), said));
        }
        server.log().wait_for("refused (no PROXY header)");
        server
            .log()
            .wait_for("refused (no whole PROXY header in time)");
        assert_eq!(server.log().count("link edge-1: up from"), 1);
        echoes(&connect(proxy));
    }
}

#[test]
fn a_server_for_this_machine_alone_stands_behind_no_balancer() {
    let scratch = Scratch::new();
    let config = scratch.write("server.json", "{\n\"accept_proxy\": [ \"127.0.0.1\" ] }");
    let mut server = Siding::start(["check", "server", "--config", &config.display().to_string()]);
    assert_eq!(server.wait().code(), Some(2));
    let line = server.log().wait_for("accept_proxy");
    assert!(
        line.contains("line 2: accept_proxy: a server without a token"),
        "{line}"
    );
}

#[test]
fn a_client_that_shares_a_port_believes_the_same_balancers() {
    let origin = HttpOrigin::greeting();
    let port = common::free_port();
    let entry = |host: &str, more: &str| {
        format!(
            r#"{{ "spec": "http:{port}:{}", "hosts": [ "{host}" ]{more} }}"#,
            origin.address()
        )
    };
    let tunnel = Tunnel::builder()
        .server_config(TRUSTING)
        .client_config(format!(
            r#"{{ "expose": [ {} ] }}"#,
            entry("a.test", &format!(", {BELIEVE}"))
        ))
        .start();
    tunnel.client.log().wait_for(": open at ");
    let scratch = Scratch::new();
    let config = scratch.write(
        "client.json",
        format!(
            r#"{{ "id": "other", "expose": [ {} ] }}"#,
            entry("b.test", "")
        ),
    );
    let other = Siding::start([
        "client",
        "--server",
        &format!("ws://{}", tunnel.link()),
        "--config",
        &config.display().to_string(),
    ]);
    let line = other.log().wait_for("refused by the server");
    assert!(line.contains("have the same accept_proxy"), "{line}");
}
