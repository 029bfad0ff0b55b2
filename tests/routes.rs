//! Several proxies behind one port: told apart by host and path, or by the name in a TLS hello.

mod common;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use common::{
    Authority, CLIENT, HttpOrigin, HttpUser, Origin, Scratch, Siding, Tunnel, Wire, connect,
    echoes, expect_end, free_port, tls_user,
};

/// What a request with this line and these fields is answered.
fn ask(user: &mut HttpUser, line: &str, fields: &str) -> (u16, String) {
    user.send(format!("{line}\r\n{fields}\r\n"));
    let reply = user.reply("GET");
    (reply.status, reply.text())
}

fn get(proxy: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let mut user = HttpUser::connect(proxy);
    ask(
        &mut user,
        &format!("GET {path} HTTP/1.1"),
        &format!("Host: {host}\r\n"),
    )
}

#[test]
fn one_port_leads_to_many_origins_by_host_and_path() {
    let [a, api, below, rest] = ["a", "api", "below", "rest"].map(HttpOrigin::named);
    let port = free_port();
    let entry = |origin: &HttpOrigin, options: &str| {
        let spec = format!("http:{port}:{}", origin.address());
        format!(r#"{{ "client": "{CLIENT}", "spec": "{spec}"{options} }}"#)
    };
    let tunnel = Tunnel::builder()
        .allow("127.0.0.1:*")
        .server_config(format!(
            r#"{{ "proxies": [ {}, {}, {}, {} ] }}"#,
            entry(&a, r#", "hosts": [ "a.test" ]"#),
            entry(
                &api,
                r#", "hosts": [ "a.test" ], "paths": [ "/api" ], "deny_from": [ "127.0.0.9" ]"#
            ),
            entry(&below, r#", "hosts": [ "*.a.test" ]"#),
            entry(&rest, ""),
        ))
        .start();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    for (host, path, who) in [
        ("a.test", "/", "a"),
        ("A.Test.:8080", "/x", "a"),
        ("a.test", "/api", "api"),
        ("a.test", "/api/v1?x=/", "api"),
        ("a.test", "//%61pi/v1", "api"),
        ("a.test", "/apis", "a"),
        ("b.a.test", "/api", "below"),
        ("c.b.a.test", "/", "below"),
        ("other.test", "/", "rest"),
        ("127.0.0.1", "/", "rest"),
        ("[::1]:80", "/", "rest"),
    ] {
        assert_eq!(get(proxy, host, path), (200, who.into()), "{host}{path}");
    }
    // One connection after the other leads where each request says, in whatever form it says so.
    let mut user = HttpUser::connect(proxy);
    for (line, fields, who) in [
        ("GET / HTTP/1.1", "Host: a.test\r\n", "a"),
        ("GET /api HTTP/1.1", "Host: a.test\r\n", "api"),
        (
            "GET http://b.a.test/api HTTP/1.1",
            "Host: a.test\r\n",
            "below",
        ),
        ("GET http://a.test HTTP/1.1", "Host: b.a.test\r\n", "a"),
        ("GET / HTTP/1.0", "Connection: keep-alive\r\n", "rest"),
        ("GET / HTTP/1.1", "Host: a.test\r\n", "a"),
    ] {
        assert_eq!(
            ask(&mut user, line, fields),
            (200, who.into()),
            "{line} {fields}"
        );
    }
    for path in ["/x/../api", "/%2e%2e/api", "/x%2fapi", "/..;/api", "/%"] {
        let (status, text) = get(proxy, "a.test", path);
        assert_eq!(status, 400, "{path}");
        assert!(text.contains("may be read in several ways"), "{text}");
    }
    tunnel.server.log().wait_for(" for a.test, /api");
    assert_eq!(tunnel.server.log().count("down ("), 0);
}

#[test]
fn a_host_that_is_nobodys_is_misdirected_and_lists_hold_for_each_proxy() {
    let [a, b] = ["a", "b"].map(HttpOrigin::named);
    let port = free_port();
    let (to_a, to_b) = (a.address(), b.address());
    let _tunnel = Tunnel::builder()
        .allow("127.0.0.1:*")
        .server_config(format!(
            r#"{{ "proxies": [
                {{ "client": "{CLIENT}", "spec": "http:{port}:{to_a}", "hosts": [ "a.test" ] }},
                {{ "client": "{CLIENT}", "spec": "http:{port}:{to_b}", "hosts": [ "b.test" ],
                   "allow_from": [ "192.0.2.0/24" ] }} ] }}"#
        ))
        .start();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(get(proxy, "a.test", "/"), (200, "a".into()));
    let (status, text) = get(proxy, "c.test", "/");
    assert_eq!(status, 421);
    assert!(text.contains("nothing here is for this host"), "{text}");
    assert_eq!(get(proxy, "b.test", "/").0, 403);
    assert!(b.requests().is_empty());
}

#[test]
fn several_clients_share_a_port_and_none_takes_anothers_hosts() {
    let [first, second, changed] = ["first", "second", "changed"].map(HttpOrigin::named);
    let port = free_port();
    let scratch = Scratch::new();
    let expose = |name: &str, entries: &str| {
        let file = scratch.write(
            &format!("{name}.json"),
            format!(r#"{{ "id": "{name}", "expose": [ {entries} ] }}"#),
        );
        ["--config".to_owned(), file.display().to_string()]
    };
    let entry = |origin: &HttpOrigin, hosts: &str| {
        format!(
            r#"{{ "spec": "http:{port}:{}", "hosts": [ {hosts} ] }}"#,
            origin.address()
        )
    };
    let mut tunnel = Tunnel::builder()
        .client_config(format!(
            r#"{{ "expose": [ {} ] }}"#,
            entry(&first, r#""first.test", "*.first.test""#)
        ))
        .start();
    tunnel.client.log().wait_for(": open at ");
    let server = format!("ws://{}", tunnel.link());
    let start = |name: &str, entries: &str| {
        let mut words = vec!["client".to_owned(), "--server".to_owned(), server.clone()];
        words.extend(expose(name, entries));
        Siding::start(words)
    };
    let other = start("other", &entry(&second, r#""second.test""#));
    other.log().wait_for(": open at ");
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(get(proxy, "x.first.test", "/"), (200, "first".into()));
    assert_eq!(get(proxy, "second.test", "/"), (200, "second".into()));
    for (name, hosts) in [
        ("thief-1", r#""first.test""#),
        ("thief-2", r#""www.first.test""#),
        ("thief-3", r#""*.test""#),
        ("thief-4", ""),
    ] {
        let thief = start(name, &entry(&second, hosts));
        let line = thief.log().wait_for("refused by the server");
        assert!(line.contains("belongs to client "), "{line}");
    }
    // Its own hosts a client may lead elsewhere, and give away those it no longer asks for.
    tunnel.client.terminate();
    tunnel.client.wait();
    let again = start(CLIENT, &entry(&changed, r#""first.test""#));
    again.log().wait_for(": open at ");
    assert_eq!(get(proxy, "first.test", "/"), (200, "changed".into()));
    assert_eq!(get(proxy, "x.first.test", "/").0, 421);
    assert_eq!(get(proxy, "second.test", "/"), (200, "second".into()));
}

/// A TLS echo with a certificate for `name`.
fn secure_echo(authority: &Authority, name: &str) -> Origin {
    let config = authority.server(&[name]);
    Origin::start(move |stream| {
        let mut wire = Wire::accept(stream, Some(&Arc::clone(&config)));
        let mut piece = [0; 1000];
        while let Ok(read @ 1..) = wire.read(&mut piece) {
            if wire.write_all(&piece[..read]).is_err() {
                return;
            }
        }
        wire.close();
    })
}

#[test]
fn tls_is_passed_on_by_the_name_it_asks_for_and_never_opened() {
    let authority = Authority::new();
    let [a, b] = ["a.test", "b.c.test"].map(|name| secure_echo(&authority, name));
    let port = free_port();
    let (to_a, to_b) = (a.address(), b.address());
    let tunnel = Tunnel::builder()
        .allow("127.0.0.1:*")
        .server_config(format!(
            r#"{{ "timeouts": {{ "request_head": "1s" }}, "proxies": [
                {{ "client": "{CLIENT}", "spec": "tls:{port}:{to_a}", "hosts": [ "a.test" ] }},
                {{ "client": "{CLIENT}", "spec": "tls:{port}:{to_b}", "hosts": [ "*.c.test" ] }} ] }}"#
        ))
        .start();
    let proxy = SocketAddr::from(([127, 0, 0, 1], port));
    for name in ["a.test", "b.c.test"] {
        // The origin's own certificate is what is seen.
        let mut user = tls_user(authority.client(), proxy, name);
        user.write_all(&[7; 100_000]).expect("it is sent");
        let mut back = vec![0; 100_000];
        user.read_exact(&mut back).expect("it comes back");
        assert_eq!(back, [7; 100_000]);
    }
    let mut stranger = tls_user(authority.client(), proxy, "d.test");
    let error = stranger
        .write_all(b"x")
        .and_then(|()| stranger.read_exact(&mut [0]));
    let error = error.expect_err("it leads nowhere").to_string();
    assert!(
        error.contains("UnrecognizedName") || error.contains("UnrecognisedName"),
        "{error}"
    );
    // Neither garbage nor silence stays, nor a hello that comes byte by byte for ever.
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"", &[22, 3, 1, 2, 0, 1, 0]] {
        let mut user = connect(proxy);
        user.write_all(said).expect("it is sent");
        expect_end(&user);
    }
    let mut long = connect(proxy);
    long.write_all(&[22, 3, 1, 0xff, 0xff]).expect("it is sent");
    while long.write_all(&[1; 1000]).is_ok() {}
    echoes_still(&tunnel, &authority, proxy);
}

fn echoes_still(tunnel: &Tunnel, authority: &Authority, proxy: SocketAddr) {
    let mut user = tls_user(authority.client(), proxy, "a.test");
    user.write_all(b"still").expect("it is sent");
    user.read_exact(&mut [0; 5]).expect("it comes back");
    assert_eq!(tunnel.server.log().count("down ("), 0);
}

#[test]
fn a_client_that_asks_again_for_its_port_may_lead_it_elsewhere() {
    let [old, new] = [Origin::echo(), Origin::echo()];
    let port = free_port();
    let mut tunnel = Tunnel::builder()
        .expose(format!("tcp:{port}:{}", old.address()))
        .start();
    echoes(&tunnel.connect());
    tunnel.client.terminate();
    tunnel.client.wait();
    let client = Siding::start([
        "client",
        "--id",
        CLIENT,
        "--server",
        &format!("ws://{}", tunnel.link()),
        // Under another name, which the client is told, too.
        "--expose",
        &format!("tcp:{port}:localhost:{}", new.address().port()),
    ]);
    client.log().wait_for(": open at ");
    echoes(&connect(SocketAddr::from(([127, 0, 0, 1], port))));
    assert_eq!((old.accepted(), new.accepted()), (1, 1));
}
