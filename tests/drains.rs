//! Servers that are replaced while they serve: the client has a link to each of them until its streams are
//! done, and no user is refused or cut off.

mod common;

use std::{
    io::{ErrorKind, Read},
    net::SocketAddr,
    sync::{Mutex, mpsc},
};

use common::{
    Builder, HttpOrigin, HttpUser, Origin, PATIENCE, Pattern, Then, Tunnel, echoes, eventually,
    free_port,
};
use serde_json::Value;

/// More than a link and both kernels hold: much of it is still to come when the server is asked to stop.
const LONG: usize = 30 << 20;

#[test]
fn a_server_is_replaced_while_it_serves_and_no_user_notices() {
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let web = HttpOrigin::start(move |exchange| {
        if exchange.request.target != "/long" {
            return exchange.greet();
        }
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n"))?;
        let body = Pattern::bytes(7, LONG);
        exchange.send(&body[..LONG / 2])?;
        told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        exchange.send(&body[LONG / 2..])?;
        Ok(Then::Keep)
    });
    let echo = Origin::echo();
    let mut tunnel = steady(&[("tcp", echo.address()), ("http", web.address())])
        .client_argument("--admin")
        .client_argument("127.0.0.1:0")
        .start();
    let admin = tunnel.client.admin_address();
    let session = tunnel.connect();
    echoes(&session);
    let mut reader = HttpUser::connect(tunnel.proxy(1));
    reader.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut first = [0; 1000];
    reader.stream().read_exact(&mut first).unwrap();

    let mut old = tunnel.succeed_server();
    for _ in 0..3 {
        echoes(&tunnel.connect());
        assert_eq!(HttpUser::connect(tunnel.proxy(1)).get("/").status, 200);
        echoes(&session);
    }
    let status = status(admin);
    let links = status["links"].as_array().unwrap();
    let draining: Vec<&Value> = links.iter().map(|link| &link["draining"]).collect();
    assert_eq!(draining, [false, true], "{status}");
    assert_eq!(links[1]["streams"], 2, "{status}");
    assert!(status.get("not_ready").is_none(), "{status}");

    go_on.send(()).unwrap();
    let mut answer = first.to_vec();
    reader.stream().read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&Pattern::bytes(7, LONG)), "every byte");
    assert!(old.is_running(), "the session goes on");
    echoes(&session);
    drop(session);
    assert!(old.wait().success());
    let client = tunnel.client.log();
    client.wait_for("link edge-1: drained, the old one is closed");
    assert_eq!(client.count("2 streams may finish; dialling again"), 1);
    assert_eq!(client.count(": up to "), 2);
    for trouble in ["cut off", "link_lost", "[ERROR]"] {
        assert_eq!(client.count(trouble), 0, "{trouble}");
    }
    echoes(&tunnel.connect());
}

#[test]
fn a_client_that_is_stopped_drains_all_of_its_links() {
    let echo = Origin::echo();
    let mut tunnel = steady(&[("tcp", echo.address())]).start();
    let before = tunnel.connect();
    echoes(&before);
    let mut old = tunnel.succeed_server();
    let after = tunnel.connect();
    echoes(&after);
    tunnel.client.terminate();
    for server in [&old, &tunnel.server] {
        server.log().wait_for("client drains");
    }
    echoes(&after);
    drop(after);
    echoes(&before);
    assert!(tunnel.client.is_running(), "a session goes on");
    drop(before);
    assert!(tunnel.client.wait().success());
    assert!(old.wait().success());
    let client = tunnel.client.log();
    assert_eq!(client.count("cut off"), 0);
    assert!(tunnel.server.is_running());
}

#[test]
fn an_old_link_that_is_lost_takes_no_other_with_it() {
    let echo = Origin::echo();
    let mut tunnel = steady(&[("tcp", echo.address())]).start();
    let before = tunnel.connect();
    echoes(&before);
    let mut old = tunnel.succeed_server();
    let after = tunnel.connect();
    echoes(&after);
    old.kill();
    tunnel.client.log().wait_for("1 streams are cut off");
    eventually("its session has left the target", || {
        (echo.open() == 1).then_some(())
    });
    echoes(&after);
    drop(after);
    tunnel.client.terminate();
    assert!(tunnel.client.wait().success());
    assert_eq!(tunnel.client.log().count(": up to "), 2, "none was dialled");
}

#[test]
fn a_server_that_is_replaced_again_and_again_leaves_four_old_links_at_most() {
    let echo = Origin::echo();
    let mut tunnel = steady(&[("tcp", echo.address())]).start();
    let mut old = Vec::new();
    let mut sessions = Vec::new();
    for _ in 0..5 {
        let session = tunnel.connect();
        echoes(&session);
        sessions.push(session);
        old.push(tunnel.succeed_server());
    }
    tunnel.client.log().wait_for("too many links are leaving");
    let mut first = &sessions[0];
    let error = first
        .read(&mut [0])
        .expect_err("it is cut off, and told so");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    sessions[1..].iter().for_each(echoes);
    echoes(&tunnel.connect());
    drop(sessions);
    for server in &mut old {
        assert!(server.wait().success());
    }
}

#[test]
fn sessions_go_on_while_nobody_takes_the_servers_place() {
    let echo = Origin::echo();
    let mut tunnel = steady(&[("tcp", echo.address())]).start();
    let session = tunnel.connect();
    echoes(&session);
    tunnel.server.terminate();
    let client = tunnel.client.log();
    client.wait_for("server drains");
    client.wait_for("down (target_refused)");
    echoes(&session);
    drop(session);
    assert!(tunnel.server.wait().success());
    tunnel.restart_server();
    echoes(&tunnel.connect());
    tunnel.client.terminate();
    assert!(tunnel.client.wait().success());
}

/// Proxies that every server opens at the same places.
fn steady(proxies: &[(&str, SocketAddr)]) -> Builder {
    let mut tunnel = Tunnel::builder()
        .listen_again()
        .allow("127.0.0.1:*")
        // Those that leave outlive the test, however slow that is.
        .server_config(r#"{ "timeouts": { "drain": "2m" } }"#);
    for (kind, target) in proxies {
        tunnel = tunnel.proxy(format!("{kind}:{}:{target}", free_port()));
    }
    tunnel
}

fn status(admin: SocketAddr) -> Value {
    let mut visitor = HttpUser::connect(admin);
    visitor.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
    serde_json::from_str(&visitor.reply("GET").text()).expect("JSON")
}
