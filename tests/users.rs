//! Who may come in, by name and password, over loopback: asked for as HTTP asks, for every request.

mod common;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Instant,
};

use common::{
    Authority, HttpOrigin, HttpUser, Origin, Siding, Then, Tunnel, connect_from, curl, run,
    tls_user,
};

const USERS: &str = "# who may\nalice:open sesame\nzo\u{eb}:p\u{e4}ss:word\n";
const OPTIONS: &str = r#""users_file": "users""#;

/// `alice:open sesame`, `zoë:päss:word`, `alice:wrong` and `mallory:open sesame`, in base64.
const ALICE: &str = "YWxpY2U6b3BlbiBzZXNhbWU=";
const ZOE: &str = "em/Dqzpww6Rzczp3b3Jk";
const WRONG: &str = "YWxpY2U6d3Jvbmc=";
const MALLORY: &str = "bWFsbG9yeTpvcGVuIHNlc2FtZQ==";

#[test]
fn an_http_proxy_asks_for_a_password_and_keeps_it_to_itself() {
    let origin = teller();
    for exposed in [false, true] {
        let tunnel = guarded("http", origin.address(), exposed);
        // One connection: being asked does not cost it.
        let mut user = HttpUser::connect(tunnel.address());
        let reply = user.get("/");
        assert_eq!(reply.status, 401);
        assert_eq!(
            reply.field("www-authenticate"),
            Some("Basic realm=\"siding\", charset=\"UTF-8\"")
        );
        assert!(!reply.closes());
        for (credentials, status) in [
            (ALICE, 200),
            (WRONG, 401),
            (ZOE, 200),
            (MALLORY, 401),
            ("!", 401),
        ] {
            user.send(get(credentials));
            let reply = user.reply("GET");
            assert_eq!(reply.status, status, "{credentials}");
            if status == 200 {
                assert_eq!(reply.text(), "authorization None");
            }
        }
        assert_eq!(user.get("/").status, 401, "every request is checked");
        user.send("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n");
        assert_eq!(user.reply("GET").status, 401);
        user.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(user.reply("HEAD").status, 401);
        user.send(get(ALICE));
        assert_eq!(user.reply("GET").status, 200, "HEAD had no body");
        let said = "wrong password for alice from 127.0.0.1";
        tunnel.server.log().wait_for(said);
        let log = tunnel.server.log().text();
        for secret in ["open sesame", "wrong\"", "mallory", ALICE, WRONG] {
            assert!(!log.contains(secret), "{secret}: {log}");
        }
    }
}

#[test]
fn what_may_not_come_in_with_a_body_or_more_behind_it_closes() {
    let origin = teller();
    let tunnel = guarded("http", origin.address(), false);
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(),
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
        format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{}", get(ALICE)),
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(&request);
        let reply = user.reply("GET");
        assert_eq!((reply.status, reply.closes()), (401, true), "{request}");
        user.expect_end();
    }
    for second in [ALICE, WRONG] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {ALICE}\r\nAuthorization: Basic {second}\r\n\r\n"
        ));
        assert_eq!(user.reply("GET").status, 400, "which of them counts?");
        user.expect_end();
    }
    // Nor does TRACE answer strangers.
    let mut user = HttpUser::connect(tunnel.address());
    user.send("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(user.reply("TRACE").status, 401);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_forward_proxy_asks_for_its_own_password_and_passes_on_the_origins() {
    let origin = teller();
    let address = origin.address();
    for exposed in [false, true] {
        let tunnel = Tunnel::builder()
            .allow(address.to_string())
            .file("users", USERS)
            .proxy_with("forward:0", OPTIONS, exposed)
            .start();
        let mut user = HttpUser::connect(tunnel.address());
        let reply = user.get(&format!("http://{address}/"));
        assert_eq!((reply.status, reply.closes()), (407, false));
        assert_eq!(
            reply.field("proxy-authenticate"),
            Some("Basic realm=\"siding\", charset=\"UTF-8\"")
        );
        let request = |credentials: &str| {
            format!(
                "GET http://{address}/ HTTP/1.1\r\nHost: a\r\nAuthorization: Basic x\r\n{credentials}\r\n"
            )
        };
        user.send(request(""));
        assert_eq!(user.reply("GET").status, 407, "that was the origin's");
        user.send(request(&format!("Proxy-Authorization: Basic {ALICE}\r\n")));
        assert_eq!(user.reply("GET").text(), "authorization Basic x");

        let connect = |credentials: &str| {
            format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{credentials}\r\n")
        };
        user.send(connect(""));
        let reply = user.reply("GET");
        assert_eq!((reply.status, reply.closes()), (407, false));
        user.send(connect(&format!("proxy-authorization: basic {ZOE}\r\n")));
        assert_eq!(user.reply("CONNECT").status, 200);
        assert_eq!(user.get("/").text(), "authorization None", "in the tunnel");
    }
}

#[test]
fn bytes_behind_a_connect_that_was_refused_are_not_a_request() {
    let origin = Origin::echo();
    let address = origin.address();
    let tunnel = Tunnel::builder()
        .allow(address.to_string())
        .file("users", USERS)
        .proxy_with("forward:0", OPTIONS, false)
        .start();
    let mut user = HttpUser::connect(tunnel.address());
    user.send(format!(
        "CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\nGET http://{address}/ HTTP/1.1\r\nHost: a\r\n\
         Proxy-Authorization: Basic {ALICE}\r\n\r\n"
    ));
    let reply = user.reply("GET");
    assert_eq!((reply.status, reply.closes()), (407, true));
    user.expect_end();
}

#[test]
fn who_guesses_must_wait_and_nobody_else() {
    let origin = teller();
    let tunnel = guarded("http", origin.address(), false);
    let guesser = [127, 0, 7, 1];
    let mut user = HttpUser::of(connect_from(guesser, tunnel.address()));
    let start = Instant::now();
    for _ in 0..10 {
        user.send(get(WRONG));
        assert_eq!(user.reply("GET").status, 401);
    }
    user.send(get(ALICE));
    let reply = user.reply("GET");
    assert_eq!((reply.status, reply.closes()), (429, true), "not looked at");
    let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    user.expect_end();
    let mut again = HttpUser::of(connect_from(guesser, tunnel.address()));
    again.send(get(ALICE));
    assert_eq!(again.reply("GET").status, 429);
    let mut other = HttpUser::of(connect_from([127, 0, 7, 2], tunnel.address()));
    other.send(get(ALICE));
    assert_eq!(other.reply("GET").status, 200);
    let lines = tunnel.server.log().count("denied so far");
    let seconds = start.elapsed().as_secs() as usize + 1;
    assert!(lines <= seconds, "{lines} lines in {seconds} s");
}

#[test]
fn curl_knows_how_to_answer() {
    let origin = teller();
    let tunnel = guarded("http", origin.address(), false);
    let url = format!("http://{}/", tunnel.address());
    for (words, expected) in [
        (&["--user", "alice:open sesame"][..], "authorization None"),
        (
            &["--anyauth", "--user", "zo\u{eb}:p\u{e4}ss:word"],
            "authorization None",
        ),
    ] {
        let Some(mut curl) = curl() else { return };
        let got = run(curl.args(words).arg(&url), Vec::new(), common::PATIENCE).succeeded();
        assert_eq!(got.text(), expected);
    }
    let forward = Tunnel::builder()
        .allow(origin.address().to_string())
        .file("users", USERS)
        .proxy_with("forward:0", OPTIONS, true)
        .start();
    let proxy = format!("http://{}", forward.address());
    let target = format!("http://{}/", origin.address());
    for words in [
        &["--proxy-user", "alice:open sesame"][..],
        &["--proxy-anyauth", "--proxy-user", "alice:open sesame"],
        &["--proxytunnel", "--proxy-user", "alice:open sesame"],
        &[
            "--proxytunnel",
            "--proxy-anyauth",
            "--proxy-user",
            "alice:open sesame",
        ],
    ] {
        let mut curl = curl().expect("it was there");
        curl.args(["--proxy", &proxy]).args(words).arg(&target);
        let got = run(&mut curl, Vec::new(), common::PATIENCE).succeeded();
        assert_eq!(got.text(), "authorization None", "{words:?}");
    }
}

#[test]
fn a_password_may_be_asked_for_inside_of_tls() {
    let origin = teller();
    let authority = Authority::new();
    let tunnel = Tunnel::builder()
        .secure(&authority)
        .allow(origin.address().to_string())
        .file("users", USERS)
        .proxy_with(
            format!("http:0:{}", origin.address()),
            r#""tls": true, "users_file": "users""#,
            false,
        )
        .start();
    let mut user = tls_user(authority.client(), tunnel.address(), "localhost");
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "401"),
        (get(ALICE), "200"),
        (get(WRONG), "401"),
    ] {
        user.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        while !answer.ends_with("None") && !answer.ends_with("needed\n") {
            let mut some = [0; 1000];
            let length = user.read(&mut some).unwrap();
            assert_ne!(length, 0, "one connection for all: {answer}");
            answer.push_str(str::from_utf8(&some[..length]).unwrap());
        }
        let line = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&line), "{answer}");
    }
}

#[test]
fn a_client_that_exposes_an_open_forward_proxy_is_refused() {
    let config =
        r#"{ "clients": [ { "id": "edge-1", "ports": "1024-65535", "bind": "0.0.0.0" } ] }"#;
    let scratch = common::Scratch::new();
    let config = scratch.write("server.json", config).display().to_string();
    let server = Siding::start(["server", "--listen", "127.0.0.1:0", "--config", &config]);
    let url = format!("ws://{}", server.link_address());
    let client = Siding::start([
        "client",
        "--server",
        &url,
        "--id",
        "edge-1",
        "--expose",
        "forward:0",
    ]);
    let line = client.log().wait_for("refused by the server");
    assert!(line.contains("a forward proxy on 0.0.0.0"), "{line}");
    assert!(line.contains("give it users_file or allow_from"), "{line}");
}

/// An origin that tells whether it was given credentials.
fn teller() -> HttpOrigin {
    HttpOrigin::start(|exchange| {
        let told = match exchange.request.field("authorization") {
            Some(value) => format!("authorization {value}"),
            None => "authorization None".to_owned(),
        };
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        ))?;
        Ok(Then::Keep)
    })
}

fn get(credentials: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credentials}\r\n\r\n")
}

/// A tunnel whose one proxy leads to `target`, and asks who its users are.
fn guarded(kind: &str, target: SocketAddr, exposed: bool) -> Tunnel {
    Tunnel::builder()
        .allow(target.to_string())
        .file("users", USERS)
        .proxy_with(format!("{kind}:0:{target}"), OPTIONS, exposed)
        .start()
}
