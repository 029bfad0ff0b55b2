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
    AT_ONCE, Hosts, HttpOrigin, HttpUser, Origin, Tunnel, connect, echoes, expect_closed_at_once,
    expect_pattern,
};

/// Far more than the window of a stream and all buffers on the way.
const ENDLESS: u64 = 1 << 40;

/// Both sides ask after so long a silence, and wait as long for the answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// The server asks a little later, and both look once in a while.
const NOTICED_WITHIN: Duration = Duration::from_secs(4);

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
