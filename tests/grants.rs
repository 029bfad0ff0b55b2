//! What a client must prove, and what it may expose: by the terms of its entry, which say so when they refuse,
//! and by a token of its own, which is nobody else's.

mod common;

use std::net::{Ipv4Addr, SocketAddr};

use common::{HttpOrigin, HttpUser, PATIENCE, Scratch, Siding, connect, echoes};

const TOKEN_OF_A: &str = "the token of client a alone";
const TOKEN_OF_B: &str = "and that of client b, another";

/// A server by this configuration, and the files that it names.
fn server(config: &str) -> (Siding, Scratch) {
    let scratch = Scratch::new();
    scratch.write("a.token", TOKEN_OF_A);
    scratch.write("b.token", TOKEN_OF_B);
    let file = scratch.write("server.json", config);
    let path = file.display().to_string();
    let arguments = ["server", "--listen", "127.0.0.1:0", "--config", &path];
    let server = Siding::start_with_variables(&[("TOKEN_OF_B", TOKEN_OF_B)], arguments);
    (server, scratch)
}

/// A client of this server.
fn client(server: &Siding, id: &str, token: Option<&str>, expose: &[&str]) -> Siding {
    let url = format!("ws://{}", server.link_address());
    let mut arguments = vec!["client", "--id", id, "--server", &url];
    for spec in expose {
        arguments.extend(["--expose", spec]);
    }
    let variables: Vec<(&str, &str)> = token
        .map(|token| ("SIDING_TOKEN", token))
        .into_iter()
        .collect();
    Siding::start_with_variables(&variables, arguments)
}

/// Where the client's exposed proxy of this kind listens.
fn opened(server: &Siding, kind: &str) -> SocketAddr {
    server.proxy_address(&format!("{kind}:0"))
}

#[test]
fn what_is_not_granted_is_refused_with_what_is() {
    let echo = common::Origin::echo();
    let http = HttpOrigin::greeting();
    let (server, _files) = server(
        r#"{ "clients": [ { "id": "a", "kinds": [ "http", "tcp" ],
             "bind": [ "127.0.0.1", "127.0.0.3" ], "max_proxies": 2 } ] }"#,
    );
    let specs = [
        format!("ssh:0:{}", echo.address()),
        format!("http:127.0.0.2:0:{}", http.address()),
        format!("http:127.0.0.3:0:{}", http.address()),
        format!("tcp:0:{}", echo.address()),
        format!("tcp:127.0.0.3:0:{}", echo.address()),
    ];
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let client = client(&server, "a", None, &specs);
    for granted in [
        "the server lets this client expose http, tcp, not ssh",
        "the server lets this client expose ports on 127.0.0.1, 127.0.0.3, not on 127.0.0.2",
        "the server lets this client expose 2 proxies, and it has as many",
    ] {
        client.log().wait_for(granted);
        server.log().wait_for(granted);
    }
    let proxy = opened(&server, "http");
    assert_eq!(proxy.ip(), Ipv4Addr::new(127, 0, 0, 3));
    assert_eq!(HttpUser::connect(proxy).get("/").status, 200);
    let proxy = opened(&server, "tcp");
    assert_eq!(proxy.ip(), Ipv4Addr::LOCALHOST, "the first is the default");
    echoes(&connect(proxy));
    // One that comes again finds the two that it has.
    let mark = client.log().mark();
    let again = self::client(&server, "a", None, &specs);
    for index in [2, 3] {
        let open = [": open at ", specs[index]];
        again.log().wait_for_all_of(0, &open, PATIENCE);
    }
    client.log().wait_for_since(mark, "replaced");
    echoes(&connect(proxy));
}

#[test]
fn where_each_client_has_its_own_token_nobody_links_with_another() {
    let (server, _files) = server(
        r#"{ "clients": [ { "id": "a", "token_file": "a.token" },
                          { "id": "b", "token_env": "TOKEN_OF_B" } ] }"#,
    );
    let a = client(&server, "a", Some(TOKEN_OF_A), &[]);
    let b = client(&server, "b", Some(TOKEN_OF_B), &[]);
    for linked in [&a, &b] {
        linked.log().wait_for(": up to ");
    }
    for (id, token, said) in [
        ("b", Some(TOKEN_OF_A), "wrong token for client b"),
        ("a", None, "wrong token for client a"),
        (
            "c",
            Some(TOKEN_OF_A),
            "client c is not among those that have tokens",
        ),
        ("c", None, "client c is not among those that have tokens"),
    ] {
        let mark = server.log().mark();
        let stranger = client(&server, id, token, &[]);
        stranger.log().wait_for("wrong token");
        let line = server.log().wait_for_since(mark, said);
        assert!(!line.contains("alone"), "{line}");
        assert_eq!(stranger.log().count(": up to "), 0);
    }
    // Those who were there have not noticed.
    for linked in [&a, &b] {
        assert_eq!(linked.log().count(": down"), 0);
    }
}

#[test]
fn a_client_exposes_only_names_that_are_its_own() {
    let http = HttpOrigin::greeting();
    let (server, _files) =
        server(r#"{ "clients": [ { "id": "a", "hosts": [ "a.test", "*.a.test" ] } ] }"#);
    let scratch = Scratch::new();
    let target = http.address();
    for (kind, hosts, refused) in [
        (
            "http",
            r#""hosts": [ "www.a.test", "*.b.a.test", "A.test" ]"#,
            None,
        ),
        ("tls", r#""hosts": [ "*.a.test" ]"#, None),
        ("tcp", r#""max_connections": 9"#, None),
        (
            "http",
            r#""hosts": [ "a.test", "b.test" ]"#,
            Some("expose hosts a.test, *.a.test, not b.test"),
        ),
        ("tls", r#""hosts": [ "*.test" ]"#, Some("not *.test")),
        ("http", r#""paths": [ "/" ]"#, Some("not any")),
        (
            "tcp",
            r#""accept_proxy": [ "127.0.0.1" ]"#,
            Some("nothing with accept_proxy"),
        ),
    ] {
        let json =
            format!(r#"{{ "id": "a", "expose": [ {{ "spec": "{kind}:0:{target}", {hosts} }} ] }}"#);
        let config = scratch.write("client.json", json).display().to_string();
        let url = format!("ws://{}", server.link_address());
        let client = Siding::start(["client", "--server", &url, "--config", &config]);
        match refused {
            None => {
                client.log().wait_for(": open at ");
            }
            Some(said) => {
                client.log().wait_for(said);
            }
        }
    }
}
