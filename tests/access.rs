//! Who may come in, by address, over loopback: all of 127.0.0.0/8 is this machine's, so a user can come
//! from another address than the next.

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use common::{
    CLIENT, HttpOrigin, HttpUser, Origin, Siding, Tunnel, connect_from, echoes,
    expect_closed_at_once, expect_reset,
};

const WELCOME: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 8, 1);
const DENIED: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 66);
const LISTS: &str = r#""allow_from": [ "127.0.7.0/24" ], "deny_from": [ "127.0.7.66", "::1" ]"#;

#[test]
fn users_of_a_raw_listener_come_from_where_the_lists_say() {
    let origin = Origin::echo();
    for exposed in [false, true] {
        let tunnel = guarded("tcp", origin.address(), exposed);
        echoes(&connect_from(WELCOME, tunnel.address()));
        for outsider in [STRANGER, DENIED] {
            expect_turned_away(&tunnel, outsider);
        }
        expect_closed_at_once(tunnel.address());
        echoes(&connect_from(WELCOME, tunnel.address()));
    }
}

#[test]
fn users_of_an_http_listener_are_turned_away_without_an_answer() {
    let origin = HttpOrigin::greeting();
    for exposed in [false, true] {
        let tunnel = guarded("http", origin.address(), exposed);
        for outsider in [STRANGER, DENIED] {
            expect_turned_away(&tunnel, outsider);
        }
        let mut user = HttpUser::of(connect_from(WELCOME, tunnel.address()));
        assert_eq!(user.get("/").status, 200);
    }
    assert_eq!(origin.requests(), [1, 1], "nothing of the others");
}

#[test]
fn the_log_hears_of_strangers_once_a_second_with_their_number() {
    let origin = Origin::echo();
    let tunnel = guarded("tcp", origin.address(), false);
    let start = Instant::now();
    for _ in 0..200 {
        expect_turned_away(&tunnel, STRANGER);
    }
    let seconds = start.elapsed().as_secs() as usize + 1;
    let log = tunnel.server.log();
    log.wait_for("refused a user from 127.0.8.1 by its address, 1 so far");
    let lines = log.count("by its address");
    assert!(lines <= seconds, "{lines} lines in {seconds} s");
}

#[test]
fn clients_connect_from_where_the_servers_lists_say() {
    let config =
        r#"{ "allow_from": [ "127.0.0.1", "127.0.7.0/24" ], "deny_from": [ "127.0.7.66" ] }"#;
    let tunnel = Tunnel::builder().server_config(config).start();
    for outsider in [STRANGER, DENIED] {
        expect_reset(outsider, tunnel.link(), b"");
    }
    let refused = "link from 127.0.8.1:";
    let line = tunnel.server.log().wait_for(refused);
    assert!(line.ends_with("refused by its address, 1 so far"), "{line}");
}

#[test]
fn a_client_from_elsewhere_is_turned_away_and_tries_again() {
    let scratch = common::Scratch::new();
    let config = scratch.write("server.json", r#"{ "allow_from": [ "127.0.7.0/24" ] }"#);
    let config = config.display().to_string();
    let server = Siding::start(["server", "--listen", "127.0.0.1:0", "--config", &config]);
    let url = format!("ws://{}", server.link_address());
    let client = Siding::start(["client", "--server", &url, "--id", CLIENT]);
    server.log().wait_for("refused by its address, 1 so far");
    client.log().wait_for("again in");
    assert_eq!(client.log().count(": up to "), 0);
}

/// A tunnel whose one proxy leads to `target`, and takes only some.
fn guarded(kind: &str, target: SocketAddr, exposed: bool) -> Tunnel {
    Tunnel::builder()
        .allow(target.to_string())
        .proxy_with(format!("{kind}:0:{target}"), LISTS, exposed)
        .start()
}

/// The user is let go at once, and hears nothing, whatever it says.
fn expect_turned_away(tunnel: &Tunnel, from: Ipv4Addr) {
    expect_reset(
        from,
        tunnel.address(),
        b"GET / HTTP/1.1\r\nHost: origin.test\r\n\r\n",
    );
}
