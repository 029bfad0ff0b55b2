//! The PROXY protocol as HAProxy and nginx speak it: in front of siding, and as its targets.

mod common;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
};

use common::{
    Authority, CLIENT, Haproxy, HttpOrigin, HttpUser, Nginx, Origin, PATIENCE, Scratch, Then,
    TlsUser, Tunnel, connect, connect_from, curl, echoes, free_port, run, tls_user,
};
use rustls::{ClientConnection, pki_types::ServerName};

/// Whence HAProxy connects to siding, and whence its users come.
const BALANCER: &str = "127.0.7.1";
const USER: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);

/// How HAProxy says that it writes a version, and siding that it does.
const VERSIONS: [(&str, &str); 2] = [("send-proxy", "v1"), ("send-proxy-v2", "v2")];

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A HAProxy with this section, in which `{bind}` is filled in, and where it is.
fn haproxy(section: &str) -> Option<(Haproxy, SocketAddr)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let section = section.replace("{bind}", &format!("bind {address}"));
    let haproxy = Haproxy::start(address.port(), &format!("listen only\n  {section}"))?;
    Some((haproxy, address))
}

/// One in front of `server`, that also looks whether it is well.
fn in_front_of(server: SocketAddr, send: &str) -> Option<(Haproxy, SocketAddr)> {
    haproxy(&format!(
        "{{bind}}\n  server siding {server} {send} check-send-proxy check inter 200ms source {BALANCER}"
    ))
}

/// One that answers with whom it takes the user for.
fn that_tells(bind: &str) -> Option<(Haproxy, SocketAddr)> {
    let told = "%[src]:%[src_port] to %[dst]:%[dst_port]";
    haproxy(&format!(
        "mode http\n  {{bind}} accept-proxy {bind}\n  http-request return status 200 content-type text/plain lf-string \"{told}\""
    ))
}

/// An nginx that does, and where.
fn nginx_that_tells() -> Option<(Nginx, SocketAddr)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let told = "$proxy_protocol_addr:$proxy_protocol_port to \
                $proxy_protocol_server_addr:$proxy_protocol_server_port";
    let nginx = Nginx::with(&format!(
        "server {{\n\
           listen {address} proxy_protocol;\n\
           set_real_ip_from 127.0.0.0/8;\n\
           real_ip_header proxy_protocol;\n\
           location / {{ return 200 \"{told}\"; }}\n\
           location /real {{ return 200 \"$remote_addr:$remote_port\"; }}\n\
         }}"
    ))?;
    Some((nginx, address))
}

/// An origin that answers with what it was told of the user.
fn mirror() -> HttpOrigin {
    HttpOrigin::start(|exchange| {
        exchange.body()?;
        let told = ["x-forwarded-for", "forwarded"]
            .map(|name| exchange.request.field(name).unwrap_or("-").to_owned())
            .join(" ");
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        ))?;
        Ok(Then::Keep)
    })
}

/// A tunnel whose one proxy believes the balancer.
fn behind(kind: &str, target: SocketAddr, options: &str) -> Tunnel {
    let options = format!(r#""accept_proxy": [ "{BALANCER}" ]{options}"#);
    Tunnel::builder()
        .allow(target.to_string())
        .proxy_with(format!("{kind}:0:{target}"), &options, false)
        .start()
}

#[test]
fn haproxy_in_front_tells_whose_each_connection_is() {
    let origin = mirror();
    for (send, _) in VERSIONS {
        let tunnel = behind("http", origin.address(), "");
        let Some((haproxy, front)) = in_front_of(tunnel.address(), send) else {
            return;
        };
        for from in [USER, Ipv4Addr::new(127, 0, 9, 1)] {
            let mut user = HttpUser::of(connect_from(from, front));
            for _ in 0..3 {
                let told = user.get("/").text();
                assert!(told.starts_with(&format!("{from} for={from};")), "{told}");
            }
        }
        // Its own checks are served, and no news.
        let log = tunnel.server.log();
        assert_eq!(log.count("of the balancer"), 0, "{}", log.text());
        assert!(!haproxy.process.log().text().contains("is DOWN"));
        // Around it one is only oneself.
        let told = HttpUser::connect(tunnel.address()).get("/").text();
        assert!(told.starts_with("127.0.0.1 for=127.0.0.1;"), "{told}");
    }
}

#[test]
fn haproxy_in_front_of_a_tls_listener_passes_it_on_behind_its_header() {
    let authority = Authority::new();
    let origin = mirror();
    let target = origin.address();
    let (certificate, key) = authority.files(&["localhost"]);
    for (send, _) in VERSIONS {
        let options = format!(r#""accept_proxy": [ "{BALANCER}" ], "tls": true"#);
        let tunnel = Tunnel::builder()
            .allow(target.to_string())
            .url("wss://localhost:{port}")
            .client_files("--ca", &authority.file())
            .server_files("--cert", &certificate)
            .server_files("--key", &key)
            .proxy_with(format!("http:0:{target}"), &options, false)
            .start();
        let Some((_haproxy, front)) = in_front_of(tunnel.address(), send) else {
            return;
        };
        let stream = connect_from(USER, front);
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(authority.client(), name).unwrap();
        let mut user = TlsUser::new(session, stream);
        user.write_all(REQUEST.as_bytes()).unwrap();
        let mut answer = String::new();
        user.read_to_string(&mut answer).expect("ended in order");
        assert!(answer.contains("\r\n\r\n127.0.8.1 for="), "{answer}");
        if let Some(mut curl) = curl() {
            curl.args(["--interface", "127.0.9.1"]).arg("--cacert");
            curl.arg(authority.file());
            curl.arg(format!("https://localhost:{}/", front.port()));
            curl.arg("-4");
            let told = run(&mut curl, Vec::new(), PATIENCE).succeeded().text();
            assert!(told.starts_with("127.0.9.1 for="), "{told}");
        }
    }
}

#[test]
fn haproxy_as_a_target_is_told_whose_each_connection_is() {
    let Some((_haproxy, target)) = that_tells("") else {
        return;
    };
    for (_, version) in VERSIONS {
        let option = format!(r#""proxy_protocol": "{version}""#);
        let tunnel = Tunnel::builder()
            .allow(target.to_string())
            .proxy_with(format!("tcp:0:{}", target), &option, true)
            .start();
        let stream = connect_from(USER, tunnel.address());
        let from = stream.local_addr().unwrap();
        let told = HttpUser::of(stream).get("/").text();
        assert_eq!(told, format!("{from} to {}", tunnel.address()));
    }
}

#[test]
fn haproxy_as_a_target_of_tls_is_told_before_the_hello() {
    let authority = Authority::new();
    let scratch = Scratch::new();
    let (certificate, key) = authority.certify(&["a.test"]);
    let both = scratch.write("both.pem", certificate + &key);
    let Some((_haproxy, target)) = that_tells(&format!("ssl crt {}", both.display())) else {
        return;
    };
    for (_, version) in VERSIONS {
        let option = format!(r#""proxy_protocol": "{version}""#);
        let tunnel = Tunnel::builder()
            .allow(target.to_string())
            .proxy_with(format!("tls:0:{}", target), &option, false)
            .start();
        let mut user = tls_user(authority.client(), tunnel.address(), "a.test");
        let from = user.sock.local_addr().unwrap();
        user.write_all(REQUEST.as_bytes()).unwrap();
        let mut answer = String::new();
        // It may close without saying so.
        let _ = user.read_to_string(&mut answer);
        let told = format!("\r\n\r\n{from} to {}", tunnel.address());
        assert!(answer.ends_with(&told), "{answer}");
    }
}

#[test]
fn nginx_as_a_target_is_told_whose_each_connection_is() {
    let Some((_nginx, target)) = nginx_that_tells() else {
        return;
    };
    for (_, version) in VERSIONS {
        for (bind, to) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
            let option = format!(r#""proxy_protocol": "{version}""#);
            let tunnel = Tunnel::builder()
                .allow(target.to_string())
                .proxy_with(format!("tcp:{bind}:0:{target}"), &option, false)
                .start();
            let stream = connect(tunnel.address());
            let from = stream.local_addr().unwrap();
            let mut user = HttpUser::of(stream);
            let (source, from, port) = (from.ip(), from.port(), tunnel.address().port());
            assert_eq!(
                user.get("/").text(),
                format!("{source}:{from} to {to}:{port}")
            );
            assert_eq!(user.get("/real").text(), format!("{source}:{from}"));
        }
    }
}

#[test]
fn from_a_balancer_to_a_target_nothing_of_the_user_is_lost() {
    let Some((_nginx, nginx)) = nginx_that_tells() else {
        return;
    };
    let Some((_haproxy, haproxy)) = that_tells("") else {
        return;
    };
    for (send, _) in VERSIONS {
        for (_, version) in VERSIONS {
            let option = format!(r#", "proxy_protocol": "{version}""#);
            for target in [nginx, haproxy] {
                let tunnel = behind("tcp", target, &option);
                let Some((_haproxy, front)) = in_front_of(tunnel.address(), send) else {
                    return;
                };
                let stream = connect_from(USER, front);
                let from = stream.local_addr().unwrap();
                let told = HttpUser::of(stream).get("/").text();
                assert_eq!(told, format!("{from} to {}", front));
            }
        }
    }
}

#[test]
fn haproxy_in_front_of_the_clients_tells_whose_each_link_is() {
    let authority = Authority::new();
    let echo = Origin::echo();
    for (send, _) in VERSIONS {
        let plan = Tunnel::builder()
            .token("a token of sixteen bytes")
            .secure(&authority)
            .server_config(format!(
                r#"{{ "accept_proxy": [ "{BALANCER}" ], "deny_from": [ "127.0.7.0/24" ],
                    "proxies": [ {{ "client": "{CLIENT}", "spec": "tcp:0:{}" }} ] }}"#,
                echo.address()
            ))
            .allow(echo.address().to_string());
        let scratch = Scratch::new();
        let server = plan.server_alone(&scratch);
        let link = server.link_address();
        let section = format!(
            "{{bind}}\n  timeout tunnel 1h\n  server siding {link} {send} source {BALANCER}"
        );
        let Some((_haproxy, front)) = haproxy(&section) else {
            return;
        };
        let client = plan.client_alone(&scratch, front);
        client.log().wait_for(": up to ");
        server.log().wait_for("link edge-1: up from 127.0.0.1:");
        let spec = format!("tcp:0:{}", echo.address());
        echoes(&connect(server.proxy_address(&spec)));
    }
}
