//! What a network between client and server can do that loopback cannot: go away.
//!
//! Each test runs among hosts of its own (network namespaces), and skips with a line where none can be
//! made.

mod common;

use std::{
    io,
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{
    AT_ONCE, Hosts, HttpOrigin, HttpUser, Origin, Siding, Tunnel, connect, echoes,
    expect_closed_at_once, expect_pattern,
};

/// Far more than the window of a stream and all buffers on the way.
const ENDLESS: u64 = 1 << 40;

/// Both sides ask after so long a silence, and wait as long for the answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// The server asks a little later, and both look once in a while.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);

#[test]
fn a_link_whose_interface_went_down_is_noticed_by_both_and_comes_back() {
    if let Some(hosts) =
        Hosts::of("a_link_whose_interface_went_down_is_noticed_by_both_and_comes_back")
    {
        is_noticed_and_comes_back(&hosts, |open| hosts.set_interface(open));
    }
}

/// Nothing but the deadline of the ping can tell.
#[test]
fn a_link_whose_packets_are_lost_is_noticed_by_both_and_comes_back() {
    if let Some(hosts) =
        Hosts::of("a_link_whose_packets_are_lost_is_noticed_by_both_and_comes_back")
    {
        is_noticed_and_comes_back(&hosts, |open| hosts.set_road(open));
    }
}

fn is_noticed_and_comes_back(hosts: &Hosts, set: impl Fn(bool)) {
    let sources = Origin::source(1, ENDLESS);
    let echo = Origin::echo();
    let web = HttpOrigin::greeting();
    let timeouts = format!(r#"{{"timeouts": {{"ping": "{DEADLINE:?}", "pong": "{DEADLINE:?}"}}}}"#);
    let mut tunnel = Tunnel::builder()
        .server_on(&hosts.public(), hosts.link_address())
        .token("a token of this test only")
        .server_config(&*timeouts)
        .client_config(&*timeouts);
    for (kind, port, target) in [
        ("tcp", 8001, sources.address()),
        ("ssh", 8002, echo.address()),
        ("http", 8003, web.address()),
    ] {
        tunnel = tunnel
            .proxy(hosts.spec(kind, port, target))
            .allow(target.to_string());
    }
    let tunnel = tunnel.start();
    let [source, ssh, http] = [0, 1, 2].map(|index| tunnel.proxy(index));
    let (server, client) = (tunnel.server.log(), tunnel.client.log());

    let quiet: Vec<TcpStream> = (0..20).map(|_| connect(ssh)).collect();
    quiet.iter().for_each(echoes);
    let busy: Vec<TcpStream> = (0..4).map(|_| connect(source)).collect();
    for user in &busy {
        expect_pattern(user, 1, 1 << 20).unwrap();
    }
    let mut browser = HttpUser::connect(http);
    assert_eq!(browser.get("/").status, 200);

    let (server_said, client_said) = (server.mark(), client.mark());
    set(false);
    let cut = Instant::now();
    server.wait_for_all_of(server_said, &["link edge-1: down"], NOTICED_WITHIN);
    let left = NOTICED_WITHIN.saturating_sub(cut.elapsed()).max(AT_ONCE);
    client.wait_for_all_of(client_said, &["link edge-1: down"], left);
    // Every session is over, on both sides, and says so.
    for user in quiet {
        assert_ended(user);
    }
    for user in busy {
        assert_ended(user);
    }
    sources.wait_for_open(0);
    echo.wait_for_open(0);
    expect_closed_at_once(ssh);
    assert_eq!(browser.get("/").status, 503);

    set(true);
    client.wait_for_since(client_said, ": up to ");
    server.wait_for_since(server_said, ": up from ");
    echoes(&connect(ssh));
    expect_pattern(&connect(source), 1, 1 << 20).unwrap();
    assert_eq!(HttpUser::connect(http).get("/").status, 200);
}

/// The stream ends, whatever is still on its way.
fn assert_ended(mut user: TcpStream) {
    match io::copy(&mut user, &mut io::sink()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// So long a silence, or the wait for an answer, ends no link while a test of this file runs.
const NEVER: &str = r#"{"timeouts": {"ping": "10m", "pong": "10m"}}"#;

/// A tunnel by the road whose pings notice nothing, and a session in it.
fn tunnel_without_pings(hosts: &Hosts, echo: &Origin) -> (Tunnel, TcpStream) {
    let tunnel = Tunnel::builder()
        .server_on(&hosts.public(), hosts.link_address())
        .token("a token of this test only")
        .server_config(NEVER)
        .client_config(NEVER)
        .proxy(hosts.spec("ssh", 8002, echo.address()))
        .allow(echo.address().to_string())
        .start();
    let session = tunnel.connect();
    echoes(&session);
    (tunnel, session)
}

#[test]
fn a_link_whose_address_is_gone_is_dialled_again_from_the_new_one() {
    let name = "a_link_whose_address_is_gone_is_dialled_again_from_the_new_one";
    let Some(hosts) = Hosts::of(name) else { return };
    let echo = Origin::echo();
    let (tunnel, session) = tunnel_without_pings(&hosts, &echo);
    let (server, client) = (tunnel.server.log(), tunnel.client.log());
    let (server_said, client_said) = (server.mark(), client.mark());
    hosts.set_address("192.0.2.3/24");
    // As long as nothing leads to the server, there is nothing to be won.
    client.wait_for_since(client_said, "the network has changed: None");
    assert_eq!(client.count(": down ("), 0);
    hosts.set_route(Some("192.0.2.3"));
    client.wait_for_since(client_said, ": down (its address is gone)");
    client.wait_for_since(client_said, ": up to ");
    server.wait_for_since(server_said, ": up from 192.0.2.3:");
    assert_ended(session);
    echoes(&tunnel.connect());
}

#[test]
fn an_address_that_comes_back_finds_its_sessions() {
    let Some(hosts) = Hosts::of("an_address_that_comes_back_finds_its_sessions") else {
        return;
    };
    let echo = Origin::echo();
    let (tunnel, session) = tunnel_without_pings(&hosts, &echo);
    let client = tunnel.client.log();
    hosts.ip(&["address", "flush", "dev", "link0"]);
    client.wait_for("the network has changed: None");
    hosts.set_address("192.0.2.2/24");
    hosts.set_route(Some("192.0.2.2"));
    client.wait_for("the network has changed: Same");
    echoes(&session);
    // A lease that is renewed is the same address once more.
    let mark = client.mark();
    let lease = ["valid_lft", "600", "preferred_lft", "600"];
    hosts.ip(&[
        &["address", "change", "192.0.2.2/24", "dev", "link0"][..],
        &lease,
    ]
    .concat());
    client.wait_for_since(mark, "the network has changed: Same");
    echoes(&session);
    assert_eq!(client.count(": down ("), 0);
    assert_eq!(client.count(": up to "), 1);
}

#[test]
fn another_way_to_the_server_is_tried_out_before_the_link_is_given_up() {
    let name = "another_way_to_the_server_is_tried_out_before_the_link_is_given_up";
    let Some(hosts) = Hosts::of(name) else { return };
    let echo = Origin::echo();
    let (tunnel, session) = tunnel_without_pings(&hosts, &echo);
    let client = tunnel.client.log();
    hosts.ip(&["address", "add", "192.0.2.9/24", "dev", "link0"]);
    hosts.set_route(Some("192.0.2.9"));
    client.wait_for("the network has changed: Other(192.0.2.9)");
    echoes(&session);
    assert_eq!(client.count(": down ("), 0);
    // And if nothing comes back by it, that is soon known.
    hosts.set_road(false);
    let mark = client.mark();
    hosts.set_route(Some("192.0.2.2"));
    client.wait_for_since(mark, ": down (no answer to ping)");
    hosts.set_road(true);
    client.wait_for_since(mark, ": up to ");
    assert_ended(session);
}

#[test]
#[ignore = "slow"]
fn a_client_that_waits_dials_when_a_way_to_the_server_is_there() {
    let name = "a_client_that_waits_dials_when_a_way_to_the_server_is_there";
    let Some(hosts) = Hosts::of(name) else { return };
    let echo = Origin::echo();
    let (mut tunnel, _session) = tunnel_without_pings(&hosts, &echo);
    hosts.set_route(None);
    tunnel.client.kill();
    let arguments = tunnel.client_arguments();
    tunnel.client = Siding::start(arguments);
    let client = tunnel.client.log();
    // By now it waits for more than six seconds.
    client.wait_for_count(7, ": down (");
    let waits = client.mark();
    // What leads elsewhere is no reason.
    hosts.ip(&["route", "add", "198.18.0.0/15", "via", "192.0.2.1"]);
    hosts.set_route(Some("192.0.2.2"));
    client.wait_for_since(waits, "dialled at once");
    client.wait_for_since(waits, ": up to ");
}

#[test]
fn what_others_do_with_the_network_is_no_reason() {
    let Some(hosts) = Hosts::of("what_others_do_with_the_network_is_no_reason") else {
        return;
    };
    let echo = Origin::echo();
    let (tunnel, session) = tunnel_without_pings(&hosts, &echo);
    let client = tunnel.client.log();
    let before = client.mark();
    // As a container comes and goes.
    hosts.ip(&["link", "add", "br0", "type", "bridge"]);
    hosts.ip(&["address", "add", "172.17.0.1/16", "dev", "br0"]);
    hosts.ip(&["link", "set", "br0", "up"]);
    hosts.ip(&["route", "add", "198.18.0.0/15", "dev", "br0"]);
    client.wait_for_since(before, "the network has changed: Same");
    let mark = client.mark();
    hosts.ip(&["link", "delete", "br0"]);
    client.wait_for_since(mark, "the network has changed: Same");
    echoes(&session);
    let said = client.lines().split_off(before);
    let loud: Vec<_> = said
        .iter()
        .filter(|line| !line.contains("[DEBUG]"))
        .collect();
    assert!(loud.is_empty(), "{loud:?}");
}
