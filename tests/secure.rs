//! TLS on the link and towards users: verified always, chosen by name, read again on SIGHUP, and bounded
//! while it is being shaken hands on.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Instant,
};

use common::{
    AT_ONCE, Authority, HttpOrigin, HttpUser, Origin, PATIENCE, Scratch, Siding, TlsUser, Tunnel,
    connect, curl, echoes, eventually, raise_descriptor_limit, require, run, tls_user,
};

/// The server's arguments for `certificate` and `key`.
fn shows((certificate, key): &(std::path::PathBuf, std::path::PathBuf)) -> String {
    let text = |path: &Path| path.display().to_string();
    format!(r#""cert": "{}", "key": "{}""#, text(certificate), text(key))
}

/// A tunnel over TLS whose server has one proxy that speaks TLS too, and where that listens. `more` stands in
/// the server's configuration besides.
fn tunnel_with_tls_at(
    authority: &Authority,
    kind: &str,
    target: SocketAddr,
    more: &str,
) -> (Tunnel, SocketAddr) {
    let spec = format!("{kind}:0:{target}");
    let tunnel = Tunnel::builder()
        .allow(target.to_string())
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .server_config(format!(
            r#"{{ {}, {more}
                "proxies": [ {{ "client": "edge-1", "spec": "{spec}", "tls": true }} ] }}"#,
            shows(&authority.files(&["localhost"])),
        ))
        .start();
    let proxy = tunnel.server.proxy_address(&spec);
    (tunnel, proxy)
}

/// Sends a line and reads it back.
fn echoes_over_tls(user: &mut TlsUser) {
    user.write_all(b"here and back\n").expect("it is sent");
    let mut back = [0; 14];
    user.read_exact(&mut back).expect("it comes back");
    assert_eq!(&back, b"here and back\n");
}

/// The client says why it has no link, and that it tries again.
fn is_refused(client: &Siding, why: &str) {
    client.log().wait_for(why);
    client.log().wait_for(", again in ");
    assert_eq!(client.log().count(": up to "), 0);
}

#[test]
fn a_link_over_tls_carries_what_a_plain_one_does() {
    let authority = Authority::new();
    let digest = Origin::digest();
    let echo = Origin::echo();
    let http = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .secure(&authority)
        .token("a token of sixteen bytes")
        .to("tcp", digest.address())
        .to("tcp", echo.address())
        .to("http", http.address())
        .start();
    thread::scope(|scope| {
        for seed in 0..4 {
            let proxy = tunnel.proxy(0);
            scope.spawn(move || {
                let user = connect(proxy);
                common::converse(&user, seed, 3_000_000, 2_000_000).expect("whole and in order");
            });
        }
    });
    echoes(&connect(tunnel.proxy(1)));
    let mut user = HttpUser::connect(tunnel.proxy(2));
    for number in 0..10 {
        assert_eq!(user.get(&format!("/{number}")).status, 200);
    }
    assert_eq!(http.requests(), [10]);
}

#[test]
fn a_client_that_trusts_nobody_or_asks_for_another_name_has_no_link() {
    let authority = Authority::new();
    let scratch = Scratch::new();
    let plan = Tunnel::builder().secure(&authority);
    let server = plan.server_alone(&scratch);
    let link = server.link_address();
    let url = format!("wss://localhost:{}", link.port());
    let stranger = Siding::start(["client", "--id", "a", "--server", &url]);
    is_refused(&stranger, "UnknownIssuer");
    // The certificate is for localhost and 127.0.0.1.
    let other = Authority::new();
    let files = other.files(&["elsewhere.test"]);
    let impostor = Tunnel::builder()
        .server_files("--cert", &files.0)
        .server_files("--key", &files.1)
        .server_alone(&scratch);
    let url = format!("wss://localhost:{}", impostor.link_address().port());
    let ca = other.file().display().to_string();
    let misled = Siding::start(["client", "--id", "a", "--server", &url, "--ca", &ca]);
    is_refused(&misled, "certificate not valid for name");
    server.log().wait_for("refused (TLS: received fatal alert");
}

#[test]
fn tls_and_plain_do_not_meet() {
    let authority = Authority::new();
    let scratch = Scratch::new();
    let plan = Tunnel::builder().secure(&authority);
    let server = plan.server_alone(&scratch);
    let url = format!("ws://{}", server.link_address());
    let plain = Siding::start(["client", "--id", "a", "--server", &url]);
    is_refused(&plain, "does it speak TLS? then its URL begins with wss://");
    server.log().wait_for("refused (TLS: ");

    let open = Tunnel::builder().server_alone(&scratch);
    let client = plan.client_alone(&scratch, open.link_address());
    is_refused(&client, "link edge-1: down (");
    open.log()
        .wait_for("refused (it speaks TLS, and there is no certificate");
}

#[test]
fn a_server_that_asks_for_certificates_takes_no_client_without() {
    let authority = Authority::new();
    let scratch = Scratch::new();
    let own = authority.files(&["edge-1.clients.test"]);
    let echo = Origin::echo();
    let tunnel = Tunnel::builder()
        .secure(&authority)
        .server_files("--client-ca", &authority.file())
        .client_files("--cert", &own.0)
        .client_files("--key", &own.1)
        .to("tcp", echo.address())
        .start();
    echoes(&tunnel.connect());
    let plan = Tunnel::builder().secure(&authority);
    let without = plan.client_alone(&scratch, tunnel.link());
    is_refused(&without, "ertificateRequired");
    let another = Authority::new();
    let theirs = another.files(&["edge-1.clients.test"]);
    let wrong = Tunnel::builder()
        .secure(&authority)
        .client_files("--cert", &theirs.0)
        .client_files("--key", &theirs.1)
        .client_alone(&scratch, tunnel.link());
    is_refused(&wrong, "link edge-1: down (");
    tunnel.server.log().wait_for("UnknownIssuer");
    echoes(&tunnel.connect());
}

#[test]
fn users_speak_tls_where_a_proxy_says_so() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let http = HttpOrigin::start(|exchange| {
        exchange.body()?;
        let proto = exchange
            .request
            .field("x-forwarded-proto")
            .unwrap_or("none");
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{proto}",
            proto.len()
        );
        exchange.send(reply)?;
        Ok(common::Then::Keep)
    });
    let identity = shows(&authority.files(&["localhost"]));
    let (raw, web) = (echo.address(), http.address());
    let tunnel = Tunnel::builder()
        .allow(raw.to_string())
        .allow(web.to_string())
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .server_config(format!(
            r#"{{ {identity}, "proxies": [
                {{ "client": "edge-1", "spec": "tcp:0:{raw}", "tls": true }},
                {{ "client": "edge-1", "spec": "http:0:{web}", "tls": true }} ] }}"#
        ))
        .start();
    let raw = tunnel.server.proxy_address(&format!("tcp:0:{raw}"));
    let web = tunnel.server.proxy_address(&format!("http:0:{web}"));

    // The end of the user's data is told by close_notify, and passed on as a half-close.
    let mut user = tls_user(authority.client(), raw, "localhost");
    echoes_over_tls(&mut user);
    user.write_all(&[7; 50_000]).expect("it is sent");
    user.conn.send_close_notify();
    user.flush().expect("the end is sent");
    let mut answer = Vec::new();
    user.read_to_end(&mut answer).expect("ended in order");
    assert_eq!(answer, [7; 50_000]);

    for number in 1..=3 {
        let mut user = tls_user(authority.client(), web, "localhost");
        user.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("it is sent");
        let mut answer = String::new();
        user.read_to_string(&mut answer).expect("ended in order");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nhttps"), "{answer}");
        assert_eq!(http.requests(), [number]);
    }
    if let Some(mut curl) = curl() {
        curl.arg("--cacert").arg(authority.file());
        curl.arg(format!("https://localhost:{}/", web.port()));
        assert_eq!(
            run(&mut curl, Vec::new(), PATIENCE).succeeded().text(),
            "https"
        );
    }
    // Without TLS nobody gets anywhere, and garbage harms nobody.
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0x16, 3, 1, 0xff, 0xff],
        &[0; 4096],
    ] {
        let mut user = connect(web);
        user.write_all(garbage).expect("it is sent");
        user.shutdown(Shutdown::Write).ok();
        let mut answer = Vec::new();
        user.read_to_end(&mut answer).ok();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    assert_eq!(http.connections(), 1, "parked, whoever came");
}

#[test]
fn the_certificate_is_that_of_the_name_asked_for_and_is_read_again_on_a_hangup() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let second = authority.files(&["second.test"]);
    let target = echo.address();
    let more = format!(r#""certificates": [ {{ {} }} ],"#, shows(&second));
    let (tunnel, proxy) = tunnel_with_tls_at(&authority, "tcp", target, &more);
    let meets = |name| {
        let mut user = tls_user(authority.client(), proxy, name);
        user.write_all(b"x").map(|()| user)
    };
    for name in ["localhost", "second.test"] {
        echoes_over_tls(&mut tls_user(authority.client(), proxy, name));
    }
    assert!(meets("third.test").is_err(), "the default is another's");

    let mut old = tls_user(authority.client(), proxy, "second.test");
    echoes_over_tls(&mut old);
    let third = authority.files(&["third.test"]);
    fs::rename(&third.0, &second.0).expect("replaced");
    fs::rename(&third.1, &second.1).expect("replaced");
    tunnel.server.signal("HUP");
    tunnel
        .server
        .log()
        .wait_for("reload: done, 0 proxies opened, 0 closed, 2 certificates");
    echoes_over_tls(&mut tls_user(authority.client(), proxy, "third.test"));
    assert!(meets("second.test").is_err(), "it is gone");
    echoes_over_tls(&mut old);

    // What cannot be used changes nothing.
    let mark = tunnel.server.log().mark();
    fs::write(&second.1, "no key").expect("replaced");
    tunnel.server.signal("HUP");
    let line = tunnel
        .server
        .log()
        .wait_for_since(mark, "reload: nothing changed");
    assert!(line.contains("second.test.key"), "{line}");
    echoes_over_tls(&mut tls_user(authority.client(), proxy, "third.test"));
    tunnel.client.signal("HUP");
    tunnel.client.log().wait_for("reload: done");
    echoes_over_tls(&mut old);
    assert_eq!(tunnel.server.log().count(": down ("), 0, "no link was lost");
}

#[test]
fn openssl_speaks_to_a_listener_and_to_the_links() {
    let Some(openssl) = require("openssl") else {
        return;
    };
    let authority = Authority::new();
    let http = HttpOrigin::greeting();
    let target = http.address();
    let (tunnel, proxy) = tunnel_with_tls_at(&authority, "http", target, "");
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = Command::new(&openssl);
        command.args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-servername",
            "localhost",
        ]);
        command.args(["-verify_hostname", "localhost", version]);
        command.arg("-CAfile").arg(authority.file());
        command.args(["-connect", &proxy.to_string()]);
        let request = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let said = run(&mut command, request.to_vec(), PATIENCE);
        assert!(
            said.text().ends_with("GET /x on connection 1\n"),
            "{version}: {} {}",
            said.text(),
            said.stderr
        );
    }
    // What is too old is refused, on the clients' listener too.
    let mut command = Command::new(&openssl);
    command.args(["s_client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    command.args(["-connect", &tunnel.link().to_string()]);
    let said = run(&mut command, Vec::new(), PATIENCE);
    assert!(
        !said.text().contains("BEGIN CERTIFICATE"),
        "{}",
        said.text()
    );
    assert_eq!(tunnel.server.log().count(": down ("), 0);
}

#[test]
fn those_who_never_finish_their_handshake_keep_nobody_out() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let target = echo.address();
    let more = r#""limits": { "handshakes": 4, "user_handshakes": 4 },"#;
    let (tunnel, proxy) = tunnel_with_tls_at(&authority, "tcp", target, more);
    let before = tunnel.server.descriptors();
    let slow: Vec<TcpStream> = (0..12)
        .flat_map(|_| [connect(proxy), connect(tunnel.link())])
        .collect();
    // The honest ones stand behind them, and come in all the same.
    let scratch = Scratch::new();
    let plan = Tunnel::builder().secure(&authority);
    let began = Instant::now();
    let mut user = tls_user(authority.client(), proxy, "localhost");
    echoes_over_tls(&mut user);
    let client = plan.client_alone(&scratch, tunnel.link());
    client.log().wait_for(": up to ");
    println!("in after {:?}", began.elapsed());
    tunnel.server.log().wait_for("handshakes are under way");
    drop((slow, user, client));
    eventually("the server holds what it held", || {
        (tunnel.server.descriptors() <= before).then_some(())
    });
}

#[test]
fn a_crowd_that_says_nothing_takes_no_time_from_who_shakes_hands() {
    const SILENT: usize = 1_000;
    raise_descriptor_limit(4 * SILENT);
    let authority = Authority::new();
    let echo = Origin::echo();
    let target = echo.address();
    let (tunnel, proxy) = tunnel_with_tls_at(&authority, "tcp", target, "");
    let silent: Vec<TcpStream> = (0..SILENT).map(|_| connect(proxy)).collect();
    let began = Instant::now();
    let mut user = tls_user(authority.client(), proxy, "localhost");
    echoes_over_tls(&mut user);
    let took = began.elapsed();
    assert!(took < AT_ONCE, "in after {took:?}");
    // It was nobody's turn but its own that it waited for.
    assert_eq!(tunnel.server.log().count("handshakes are under way"), 0);
    silent.into_iter().for_each(common::reset);
}

#[test]
fn a_client_cannot_expose_tls_where_the_server_has_no_certificate() {
    let echo = Origin::echo();
    let tunnel = Tunnel::builder()
        .client_config(format!(
            r#"{{ "expose": [ {{ "spec": "tcp:0:{}", "tls": true }} ] }}"#,
            echo.address()
        ))
        .start();
    tunnel
        .client
        .log()
        .wait_for("refused by the server: tcp:0:127.0.0.1:");
    let line = tunnel.server.log().wait_for("expose refused");
    assert!(line.contains("no certificate for tls"), "{line}");
}
