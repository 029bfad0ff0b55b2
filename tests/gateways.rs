//! A server behind the proxies that people have in front of theirs: nginx and HAProxy, which speak TLS to the
//! client or not, or pass it on.

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use common::{
    Authority, Haproxy, HttpOrigin, HttpUser, Nginx, Origin, Scratch, Tunnel, connect, converse,
    echoes, free_port, pass,
};

/// What stands in front, and is to be kept as long as the tunnel.
enum Gateway {
    Nginx(#[expect(dead_code, reason = "its drop ends it")] Box<Nginx>),
    Haproxy(#[expect(dead_code, reason = "its drop ends it")] Haproxy),
}

/// Has a tunnel carry all sorts of sessions through the gateway that `start` puts in front of a server at
/// the address that it is given. The client finds it by `url`.
fn carries_everything(
    authority: &Authority,
    port: u16,
    scheme: &str,
    start: impl Fn(SocketAddr) -> Option<Gateway>,
    plan: impl Fn(common::tunnel::Builder) -> common::tunnel::Builder,
) {
    let link = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let Some(_gateway) = start(link) else { return };
    let (digest, echo, http) = (Origin::digest(), Origin::echo(), HttpOrigin::greeting());
    let plan = plan(Tunnel::builder())
        .listen(link)
        .url(format!("{scheme}://localhost:{port}/edge/link"))
        .token("a token of sixteen bytes")
        // Silence is broken by pings: the gateway must let them through.
        .client_config(r#"{ "timeouts": { "ping": "300ms", "pong": "10s" } }"#)
        .to("tcp", digest.address())
        .to("tcp", echo.address())
        .to("http", http.address());
    let plan = if scheme == "wss" {
        plan.client_files("--ca", &authority.file())
    } else {
        plan
    };
    let tunnel = plan.start();
    thread::scope(|scope| {
        for seed in 0..4 {
            let proxy = tunnel.proxy(0);
            scope.spawn(move || {
                converse(&connect(proxy), seed, 2_000_000, 3_000_000).expect("whole and in order");
            });
        }
    });
    let quiet = connect(tunnel.proxy(1));
    echoes(&quiet);
    let mut user = HttpUser::connect(tunnel.proxy(2));
    for number in 0..20 {
        assert_eq!(user.get(&format!("/{number}")).status, 200);
    }
    assert_eq!(http.requests(), [20]);
    pass(Duration::from_secs(1));
    echoes(&quiet);
    assert_eq!(tunnel.server.log().count(": down ("), 0);
}

fn nginx(authority: &Authority, port: u16, tls: bool) -> impl Fn(SocketAddr) -> Option<Gateway> {
    let (certificate, key) = authority.files(&["localhost"]);
    move |link| {
        let ssl = if tls {
            format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                certificate.display(),
                key.display()
            )
        } else {
            String::new()
        };
        let listen = if tls {
            format!("{port} ssl")
        } else {
            port.to_string()
        };
        let nginx = Nginx::with(&format!(
            r#"server {{
                 listen 127.0.0.1:{listen};
                 {ssl}
                 location /edge/ {{
                   proxy_pass http://{link};
                   proxy_http_version 1.1;
                   proxy_set_header Upgrade $http_upgrade;
                   proxy_set_header Connection upgrade;
                 }}
               }}"#
        ))?;
        Some(Gateway::Nginx(Box::new(nginx)))
    }
}

#[test]
fn a_server_behind_nginx_is_reached_by_ws() {
    let (authority, port) = (Authority::new(), free_port());
    let start = nginx(&authority, port, false);
    carries_everything(&authority, port, "ws", start, |plan| plan);
}

#[test]
fn a_server_behind_nginx_is_reached_by_wss() {
    let (authority, port) = (Authority::new(), free_port());
    let start = nginx(&authority, port, true);
    carries_everything(&authority, port, "wss", start, |plan| plan);
}

/// HAProxy, which wants certificate and key in one file.
fn haproxy(
    authority: &Authority,
    scratch: &Scratch,
    port: u16,
    mode: &'static str,
    tls: bool,
) -> impl Fn(SocketAddr) -> Option<Gateway> {
    let (certificate, key) = authority.certify(&["localhost"]);
    let both = scratch.write("both.pem", certificate + &key);
    move |link| {
        let ssl = if tls {
            format!(" ssl crt {}", both.display())
        } else {
            String::new()
        };
        let haproxy = Haproxy::start(
            port,
            &format!(
                "listen edge\n\
                 \x20 mode {mode}\n\
                 \x20 bind 127.0.0.1:{port}{ssl}\n\
                 \x20 server siding {link}"
            ),
        )?;
        Some(Gateway::Haproxy(haproxy))
    }
}

#[test]
fn a_server_behind_haproxy_is_reached_by_ws() {
    let (authority, port, scratch) = (Authority::new(), free_port(), Scratch::new());
    let start = haproxy(&authority, &scratch, port, "http", false);
    carries_everything(&authority, port, "ws", start, |plan| plan);
}

#[test]
fn a_server_behind_haproxy_is_reached_by_wss() {
    let (authority, port, scratch) = (Authority::new(), free_port(), Scratch::new());
    let start = haproxy(&authority, &scratch, port, "http", true);
    carries_everything(&authority, port, "wss", start, |plan| plan);
}

#[test]
fn tls_that_haproxy_passes_on_is_the_servers_own() {
    let (authority, port, scratch) = (Authority::new(), free_port(), Scratch::new());
    let start = haproxy(&authority, &scratch, port, "tcp", false);
    let (certificate, key) = authority.files(&["localhost"]);
    carries_everything(&authority, port, "wss", start, |plan| {
        plan.server_files("--cert", &certificate)
            .server_files("--key", &key)
    });
}
