//! The client's way to its server through an HTTP proxy, and what its upgrade says to whoever else stands
//! before the server.

mod common;

use std::{io::Write, path::PathBuf, sync::mpsc};

use common::{
    Authority, CLIENT, ConnectProxy, Lead, Nginx, Origin, PATIENCE, Scratch, Siding, WebSocketPeer,
    connect, echoes, free_port,
};

/// The name of a server that only the proxy knows.
const NAMED: &str = "ws://edge.siding.test:7000";

/// As [`NAMED`], over TLS.
const SECURE: &str = "wss://edge.siding.test";

/// A server, and a client's arguments for it that leave out how it is found.
struct Edge {
    server: Siding,
    target: Origin,
}

impl Edge {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(arguments: &[String]) -> Self {
        let own = ["server", "--listen", "127.0.0.1:0"].map(str::to_owned);
        Self {
            server: Siding::start(own.iter().chain(arguments)),
            target: Origin::echo(),
        }
    }

    /// One that speaks TLS, and what a client needs to trust it.
    fn secure(authority: &Authority) -> (Self, String) {
        let (certificate, key) = authority.files(&["edge.siding.test"]);
        let text = |path: PathBuf| path.display().to_string();
        let arguments = [
            "--cert".into(),
            text(certificate),
            "--key".into(),
            text(key),
        ];
        (Self::start_with(&arguments), text(authority.file()))
    }

    fn client(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Siding {
        let spec = format!("tcp:0:{}", self.target.address());
        let own = [
            "client", "--id", CLIENT, "--log", "debug", "--expose", &spec,
        ];
        Siding::start_with_variables(variables, own.iter().chain(arguments))
    }

    /// The link is up and carries.
    fn carries(&self, client: &Siding) {
        client.log().wait_for(": up to ");
        let spec = format!("tcp:0:{}", self.target.address());
        echoes(&connect(self.server.proxy_address(&spec)));
    }

    /// A proxy that leads to the server whoever knows the password.
    fn proxy(&self) -> ConnectProxy {
        let address = self.server.link_address();
        ConnectProxy::start(move |head| {
            // me:pa:ss
            if head.contains("\r\nProxy-Authorization: Basic bWU6cGE6c3M=\r\n") {
                Lead::to(address)
            } else {
                Lead::say("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            }
        })
    }

    /// A proxy that leads to the server, and says this first.
    fn open_proxy(&self, first: &'static str) -> ConnectProxy {
        let address = self.server.link_address();
        ConnectProxy::start(move |_| Lead::To(address, first.into()))
    }
}

/// What a client says of a proxy that has this answer to everything.
fn told_of(answer: impl Fn() -> Lead + Send + Sync + 'static, expected: &[&str]) -> Siding {
    let proxy = ConnectProxy::start(move |_| answer());
    let config = r#"{ "timeouts": { "dial": "300ms" } }"#;
    let scratch = Scratch::new();
    let config = scratch.write("client.json", config).display().to_string();
    let client = Siding::start([
        "client",
        "--id",
        CLIENT,
        "--server",
        NAMED,
        "--via",
        &proxy.url(),
        "--config",
        &config,
    ]);
    for part in expected {
        client.log().wait_for(part);
    }
    client
}

#[test]
fn a_server_that_only_the_proxy_can_name_is_reached_through_it() {
    let edge = Edge::start();
    let proxy = edge.proxy();
    let url = proxy.url_for("me:pa%3ass");
    let client = edge.client(&[], &["--server", NAMED, "--via", &url]);
    edge.carries(&client);
    let asked = proxy.asked();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].starts_with(
            "CONNECT edge.siding.test:7000 HTTP/1.1\r\nHost: edge.siding.test:7000\r\n"
        ),
        "{asked:?}"
    );
    let said = client
        .log()
        .wait_for(&format!("via http://me:***@{}", &proxy.url()[7..]));
    assert!(!said.contains("variable"), "{said}");
    assert_eq!(
        client.log().count("pa:ss") + client.log().count("pa%3ass"),
        0
    );
    assert_eq!(client.log().count("bWU6"), 0, "nor what it is sent as");
    client.log().wait_for("is not encrypted");
}

#[test]
fn a_wrong_password_is_told_and_not_tried_again_at_once() {
    let edge = Edge::start();
    let proxy = edge.proxy();
    for (url, hint) in [
        (
            proxy.url_for("me:wrong"),
            "does not take this user and password",
        ),
        (proxy.url(), "has no user and password"),
    ] {
        let client = edge.client(&[], &["--server", NAMED, "--via", &url]);
        let said = client
            .log()
            .wait_for("answered 407 Proxy Authentication Required");
        assert!(said.contains(hint) && !said.contains("wrong"), "{said}");
        let down = client
            .log()
            .wait_for("down (the proxy does not let it through), again in 3");
        assert!(down.contains("WARN"), "{down}");
    }
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_proxy_that_closes_talks_nonsense_or_says_nothing_is_told_and_tried_again() {
    told_of(
        || Lead::say(""),
        &["closed before its answer", "down (target_unreachable via "],
    );
    told_of(
        || Lead::say("HTTP/1.1 502 Bad\tGateway\r\n\r\n<html>"),
        &[
            "answered 502 Bad\\tGateway",
            "down (target_unreachable via ",
        ],
    );
    told_of(
        || Lead::say("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        &["this is no HTTP proxy", "down (bad_response via "],
    );
    told_of(
        || Lead::say(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000))),
        &["its answer is too long", "down (bad_response via "],
    );
    let mut client = told_of(
        || Lead::Nowhere,
        &[
            "no answer to CONNECT within the dial deadline",
            "down (dial_timeout via ",
        ],
    );
    assert!(client.is_running());
    client.terminate();
    assert_eq!(client.wait().code(), Some(0));
}

#[test]
fn a_proxy_that_is_not_there_is_told_from_a_server_that_is_not() {
    let url = format!("http://{}", common::refusing());
    let client = Siding::start(["client", "--id", CLIENT, "--server", NAMED, "--via", &url]);
    client
        .log()
        .wait_for(&format!("down (target_refused via {url})"));
}

#[test]
fn a_link_is_found_again_after_its_proxy_has_cut_it() {
    let edge = Edge::start();
    let (cut, cuts) = mpsc::channel::<()>();
    let cuts = std::sync::Mutex::new(Some(cuts));
    let address = edge.server.link_address();
    let proxy = ConnectProxy::start(move |_| match cuts.lock().unwrap().take() {
        Some(cuts) => {
            cuts.recv_timeout(PATIENCE).ok();
            Lead::say("")
        }
        None => Lead::to(address),
    });
    let client = edge.client(&[], &["--server", NAMED, "--via", &proxy.url()]);
    cut.send(()).unwrap();
    client.log().wait_for("again in 0.");
    edge.carries(&client);
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn interim_answers_are_passed_over() {
    let edge = Edge::start();
    let proxy = edge.open_proxy("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.0 200 OK\r\n\r\n");
    let client = edge.client(&[], &["--server", NAMED, "--via", &proxy.url()]);
    edge.carries(&client);
}

#[test]
fn bytes_right_behind_the_answer_are_the_servers() {
    let (said, hears) = mpsc::channel();
    let proxy = Origin::start(move |mut stream| {
        let mut answered = Vec::new();
        // The question is read byte by byte, so that the upgrade stays where it is.
        while !answered.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            answered.extend(byte);
        }
        // One write: who reads the one has the other. It is not the answer that the upgrade waits for.
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 418 I am a teapot\r\nContent-Length: 0\r\n\r\n",
            )
            .unwrap();
        said.send(()).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let url = format!("http://{}", proxy.address());
    let client = Siding::start(["client", "--id", CLIENT, "--server", NAMED, "--via", &url]);
    hears.recv_timeout(PATIENCE).unwrap();
    client.log().wait_for("down (answered 418");
}

#[test]
fn tls_begins_behind_the_proxy_and_verifies_the_servers_name() {
    let authority = Authority::new();
    let (edge, ca) = Edge::secure(&authority);
    let proxy = edge.proxy();
    let url = proxy.url_for("me:pa:ss");
    let named = ["--server", SECURE, "--ca", &ca];
    for variables in [
        &[("https_proxy", &*url), ("http_proxy", "http://127.0.0.1:1")][..],
        &[("HTTPS_PROXY", &url)],
    ] {
        let client = edge.client(variables, &named);
        edge.carries(&client);
        assert_eq!(client.log().count("is not encrypted"), 0);
    }
    let asked = proxy.asked();
    assert!(
        asked[0].starts_with("CONNECT edge.siding.test:443 HTTP/1.1\r\n"),
        "{asked:?}"
    );
    let misled = [
        "--server",
        "wss://other.siding.test",
        "--ca",
        &ca,
        "--via",
        &url,
    ];
    let client = edge.client(&[], &misled);
    client.log().wait_for("certificate not valid for name");
    client.log().wait_for("down (tls_failed via ");
}

#[test]
fn nothing_that_a_proxy_says_passes_for_what_tls_protects() {
    let authority = Authority::new();
    let (edge, ca) = Edge::secure(&authority);
    let proxy = edge.open_proxy(
        "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    );
    let client = edge.client(
        &[],
        &["--server", SECURE, "--ca", &ca, "--via", &proxy.url()],
    );
    client.log().wait_for("bytes came before TLS was begun");
    client.log().wait_for("down (bad_response via ");
}

#[test]
fn variables_name_the_proxy_where_nothing_else_does() {
    let edge = Edge::start();
    let proxy = edge.proxy();
    let url = proxy.url_for("me:pa:ss");
    let named = ["--server", NAMED];
    for (count, variables) in [
        &[("http_proxy", &*url)][..],
        &[("all_proxy", &url)],
        &[
            ("ALL_PROXY", &url),
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("no_proxy", "a.test"),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let client = edge.client(variables, &named);
        edge.carries(&client);
        let said = client.log().wait_for("via http://me:***@");
        assert!(said.contains(variables[0].0), "{said}");
        assert_eq!(proxy.accepted(), count + 1);
    }
}

#[test]
fn servers_on_loopback_and_those_of_no_proxy_are_reached_straight() {
    let edge = Edge::start();
    let proxy = edge.proxy();
    let url = proxy.url_for("me:pa:ss");
    let straight = format!("ws://{}", edge.server.link_address());
    let client = edge.client(
        &[("http_proxy", &url), ("all_proxy", &url)],
        &["--server", &straight],
    );
    edge.carries(&client);
    drop(client);
    for (name, list) in [("no_proxy", "a, .siding.test"), ("NO_PROXY", "*")] {
        let client = edge.client(&[("http_proxy", &url), (name, list)], &["--server", NAMED]);
        client.log().wait_for("down (name_not_found)");
    }
    let client = edge.client(
        &[("http_proxy", &url)],
        &["--server", NAMED, "--via", "direct"],
    );
    client.log().wait_for("down (name_not_found)");
    assert_eq!(proxy.accepted(), 0);
    // Unless it is said.
    let client = edge.client(&[], &["--server", &straight, "--via", &url]);
    edge.carries(&client);
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn a_variable_that_cannot_be_used_is_a_warning() {
    let edge = Edge::start();
    let variables = [("all_proxy", "socks5://me:secret@127.0.0.1:1080")];
    let client = edge.client(&variables, &["--server", NAMED]);
    let said = client.log().wait_for("the variable all_proxy is not used");
    assert!(
        said.contains("WARN") && said.contains("\"socks5\""),
        "{said}"
    );
    client.log().wait_for("down (name_not_found)");
    assert_eq!(client.log().count("secret"), 0);
}

#[test]
fn the_upgrade_says_what_a_gateway_wants_to_see() {
    let (said, hears) = mpsc::channel();
    let gateway = Origin::start(move |stream| {
        let mut head = [0; 4096];
        let length = stream.peek(&mut head).unwrap();
        said.send(String::from_utf8_lossy(&head[..length]).into_owned())
            .unwrap();
        drop(WebSocketPeer::accept(stream));
    });
    let config = r#"{ "host": "edge.example", "headers": { "X-Edge": "1", "Authorization": "Bearer secret" } }"#;
    let scratch = Scratch::new();
    let config = scratch.write("client.json", config).display().to_string();
    let url = format!("ws://{}/tunnel?a=b", gateway.address());
    let client = Siding::start([
        "client", "--id", CLIENT, "--server", &url, "--config", &config, "--log", "trace",
    ]);
    let head = hears.recv_timeout(PATIENCE).unwrap();
    assert!(
        head.starts_with("GET /tunnel?a=b HTTP/1.1\r\nHost: edge.example\r\n"),
        "{head}"
    );
    assert!(
        head.ends_with("\r\nX-Edge: 1\r\nAuthorization: Bearer secret\r\n\r\n"),
        "{head}"
    );
    client.log().wait_for("down (");
    assert_eq!(client.log().count("secret"), 0);
}

#[test]
fn a_server_behind_nginx_is_found_by_its_name_and_path_and_let_in_by_a_field() {
    let edge = Edge::start();
    let port = free_port();
    let nginx = Nginx::with(&format!(
        r#"server {{ listen 127.0.0.1:{port} default_server; return 404; }}
           server {{
             listen 127.0.0.1:{port};
             server_name edge.example;
             location /tunnel {{
               if ($http_x_edge != "a secret") {{ return 403; }}
               proxy_pass http://{};
               proxy_http_version 1.1;
               proxy_set_header Upgrade $http_upgrade;
               proxy_set_header Connection upgrade;
             }}
           }}"#,
        edge.server.link_address()
    ));
    let Some(_nginx) = nginx else { return };
    let url = format!("ws://127.0.0.1:{port}/tunnel");
    let scratch = Scratch::new();
    for (config, expected) in [
        ("{}", "down (answered 404"),
        (r#"{ "host": "edge.example" }"#, "down (answered 403"),
        (
            r#"{ "host": "edge.example", "headers": { "X-Edge": "a secret" } }"#,
            ": up to ",
        ),
    ] {
        let config = scratch.write("client.json", config).display().to_string();
        let client = edge.client(&[], &["--server", &url, "--config", &config]);
        client.log().wait_for(expected);
        if expected.contains("up") {
            edge.carries(&client);
        }
    }
}
