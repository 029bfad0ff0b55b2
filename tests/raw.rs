//! Flow A, over loopback: what a TCP user puts in comes out at the target and the other way round,
//! to the last byte, and nothing of a session is left when it is over.

mod common;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener},
    sync::mpsc,
    thread,
};

use common::{
    AT_ONCE, Origin, PATIENCE, Random, Siding, Tunnel, connect, converse, echoes, eventually,
    expect_closed_at_once, expect_end, expect_pattern, raise_descriptor_limit, refusing, reset,
    send_pattern,
};

/// Ten mebibytes: many windows, many batches.
const LONG: u64 = 10 << 20;

/// A user's connections in the tests of many.
const CROWD: usize = 1_000;

/// How many users of a crowd connect before the origin must have seen them all: what it lets wait to
/// be accepted, beyond which the kernel drops connections that their other end takes for established.
const WAVE: usize = 100;

/// Threads of a crowd need little.
const STACK: usize = 256 * 1024;

#[test]
fn bytes_come_back_from_an_echo() {
    let origin = Origin::echo();
    let tunnel = Tunnel::to("tcp", origin.address());
    let mut user = tunnel.connect();
    for round in 0..100 {
        user.write_all(&[round]).unwrap();
        let mut byte = [0];
        user.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [round], "a keystroke and its echo");
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            send_pattern(&user, 1, LONG).unwrap();
            user.shutdown(Shutdown::Write).unwrap();
        });
        expect_pattern(&user, 1, LONG).unwrap();
    });
    expect_end(&user);
}

#[test]
fn a_half_closed_user_still_receives_the_whole_reply() {
    let origin = Origin::digest();
    let tunnel = Tunnel::to("tcp", origin.address());
    // The origin replies only after the end of the request.
    converse(&tunnel.connect(), 2, 100, LONG).unwrap();
    converse(&tunnel.connect(), 3, LONG, LONG).unwrap();
    converse(&tunnel.connect(), 4, 0, 0).unwrap();
}

#[test]
fn a_half_closed_target_still_receives_the_whole_upload() {
    let (ended, report) = mpsc::channel();
    let origin = Origin::start(move |stream| {
        send_pattern(&stream, 5, LONG).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let upload = expect_pattern(&stream, 6, LONG);
        ended
            .send(upload.and_then(|()| (&stream).read(&mut [0])))
            .unwrap();
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let user = tunnel.connect();
    expect_pattern(&user, 5, LONG).unwrap();
    expect_end(&user);
    send_pattern(&user, 6, LONG).unwrap();
    drop(user);
    let after_upload = report.recv_timeout(PATIENCE).unwrap();
    assert_eq!(after_upload.unwrap(), 0, "the end follows the upload");
}

#[test]
fn a_target_that_closes_first_ends_the_session_after_its_last_byte() {
    let origin = Origin::source(7, 100_000);
    let tunnel = Tunnel::to("tcp", origin.address());
    let before = tunnel.descriptors();
    let user = tunnel.connect();
    expect_pattern(&user, 7, 100_000).unwrap();
    expect_end(&user);
    drop(user);
    origin.wait_for_open(0);
    tunnel.wait_for_descriptors(before);
}

#[test]
fn a_reset_by_the_user_reaches_the_target_at_once() {
    let (ended, report) = mpsc::channel();
    let origin = Origin::start(move |mut stream| {
        stream.write_all(b"!").unwrap();
        ended.send(stream.read(&mut [0])).unwrap();
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let mut user = tunnel.connect();
    user.read_exact(&mut [0]).unwrap();
    reset(user);
    let seen = report
        .recv_timeout(AT_ONCE)
        .expect("the target learns of it at once");
    assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_by_the_user_overtakes_an_upload_that_is_stuck() {
    let (stuck, is_stuck) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let (ended, report) = mpsc::channel();
    let origin = Origin::start(move |mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        stuck.send(()).unwrap();
        // Not read until the stream is over for the client: what it meets then is the reset.
        may_go_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        ended.send(io::copy(&mut stream, &mut io::sink())).unwrap();
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let user = tunnel.connect();
    user.set_nonblocking(true).unwrap();
    let mut full = 0;
    // Fill every buffer on the way: nothing more goes in for a while.
    eventually("the way to a target that does not read fills up", || {
        match (&user).write(&[0; 65_536]) {
            Ok(_) => full = 0,
            Err(_) => full += 1,
        }
        (full == 20).then_some(())
    });
    is_stuck.recv_timeout(PATIENCE).unwrap();
    reset(user);
    tunnel
        .client
        .log()
        .wait_for_all_of(0, &["stream user-"], AT_ONCE);
    go_on.send(()).unwrap();
    let seen = report.recv_timeout(PATIENCE).unwrap();
    assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_by_the_target_reaches_the_user_at_once() {
    let (seen_by_user, may_reset) = mpsc::channel::<()>();
    let may_reset = std::sync::Mutex::new(may_reset);
    let origin = Origin::start(move |mut stream| {
        stream.write_all(b"!").unwrap();
        may_reset.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        reset(stream);
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let mut user = tunnel.connect();
    user.read_exact(&mut [0]).unwrap();
    user.set_read_timeout(Some(AT_ONCE)).unwrap();
    seen_by_user.send(()).unwrap();
    let error = user.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn a_target_that_refuses_closes_the_user_at_once() {
    let nobody = refusing();
    let tunnel = Tunnel::to("tcp", nobody);
    expect_closed_at_once(tunnel.address());
    tunnel.client.log().wait_for(&nobody.to_string());
}

#[test]
fn a_target_that_is_not_allowed_closes_the_user_at_once_and_is_never_dialled() {
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .proxy(format!("tcp:0:{}", origin.address()))
        .allow("127.0.0.1:1")
        .start();
    expect_closed_at_once(tunnel.address());
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn users_of_a_client_that_is_away_are_closed_at_once() {
    let server = Siding::start([
        "server",
        "--listen",
        "127.0.0.1:0",
        "--proxy",
        "nobody=tcp:0:127.0.0.1:22",
    ]);
    expect_closed_at_once(server.proxy_address("tcp:0:127.0.0.1:22"));
}

#[test]
fn users_of_an_unknown_client_are_closed_at_once_while_others_are_served() {
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_argument("--proxy")
        .server_argument("nobody=tcp:0:127.0.0.1:22")
        .start();
    expect_closed_at_once(tunnel.server.proxy_address("tcp:0:127.0.0.1:22"));
    echoes(&tunnel.connect());
}

#[test]
fn an_exposed_proxy_listens_where_the_client_says() {
    let origin = Origin::digest();
    let tunnel = Tunnel::builder()
        .expose(format!("tcp:0:{}", origin.address()))
        .start();
    let opened = tunnel.client.log().wait_for(": open at ");
    assert!(opened.contains(&tunnel.address().to_string()), "{opened}");
    converse(&tunnel.connect(), 8, 1_000, 1_000).unwrap();
}

#[test]
fn two_proxies_of_a_client_lead_to_their_own_targets() {
    let (first, second) = (Origin::source(9, 1_000), Origin::source(10, 1_000));
    let tunnel = Tunnel::builder()
        .to("tcp", first.address())
        .to("telnet", second.address())
        .token("a token of enough bytes")
        .start();
    expect_pattern(connect(tunnel.proxy(1)), 10, 1_000).unwrap();
    expect_pattern(connect(tunnel.proxy(0)), 9, 1_000).unwrap();
}

#[test]
fn a_stream_is_one_line_of_the_log_at_debug() {
    let origin = Origin::digest();
    let tunnel = Tunnel::to("tcp", origin.address());
    converse(&tunnel.connect(), 11, 1_000, 2_000).unwrap();
    let proxy = format!("{}-{}-", common::CLIENT, tunnel.address().port());
    let user = format!("stream user-{}-", tunnel.address().port());
    for side in [&tunnel.server, &tunnel.client] {
        // 16 bytes of request head and 8 of reply head go beside the patterns.
        let parts = [user.as_str(), &proxy, "1016 B up", "2008 B down"];
        side.log().wait_for_all_of(0, &parts, PATIENCE);
        assert_eq!(side.log().count("stream user-"), 1);
    }
    assert_eq!(tunnel.client.log().count("fresh"), 1);
}

#[test]
fn two_hundred_sessions_in_a_row_leave_no_descriptor_behind() {
    let origin = Origin::digest();
    let tunnel = Tunnel::to("tcp", origin.address());
    let before = tunnel.descriptors();
    for session in 0..200 {
        converse(&tunnel.connect(), session, 100, 100).unwrap();
    }
    origin.wait_for_open(0);
    assert_eq!(
        origin.accepted(),
        200,
        "every session has its own connection"
    );
    tunnel.wait_for_descriptors(before);
}

#[test]
fn a_stalled_reader_stalls_nobody_else() {
    const STALLED: u64 = 64 << 20;
    let origin = Origin::digest();
    let tunnel = Tunnel::to("tcp", origin.address());
    let mut stalled = tunnel.connect();
    stalled.write_all(&12_u64.to_be_bytes()).unwrap();
    stalled.write_all(&STALLED.to_be_bytes()).unwrap();
    stalled.shutdown(Shutdown::Write).unwrap();
    let mut first = [0; 8];
    stalled.read_exact(&mut first).unwrap();
    // From here on it does not read, and the twenty pass it by.
    thread::scope(|scope| {
        for seed in 100..120 {
            let user = tunnel.connect();
            scope.spawn(move || converse(&user, seed, 300_000, 1 << 20).unwrap());
        }
    });
    expect_pattern(&stalled, !12, STALLED).unwrap();
    expect_end(&stalled);
}

#[test]
fn a_thousand_users_at_once_leave_nothing_behind() {
    // Both ends of every user's and every origin's connection on this side of the tunnel.
    raise_descriptor_limit(4 * CROWD);
    let origin = Origin::digest();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .log("info")
        .start();
    let before = tunnel.descriptors();
    crowd(&tunnel, &origin, 0);
    tunnel.wait_for_descriptors(before);
    let memory = [&tunnel.server, &tunnel.client].map(|side| side.written_bytes());
    // Whatever a user leaves behind is left behind a thousand times more by the second crowd.
    crowd(&tunnel, &origin, 1);
    tunnel.wait_for_descriptors(before);
    for (side, before) in [&tunnel.server, &tunnel.client].iter().zip(memory) {
        let grown = side.written_bytes().saturating_sub(before);
        assert!(grown < 1 << 20, "grown by {grown} bytes from {before}");
    }
}

#[test]
fn a_listen_address_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut server = Siding::start(["server", "--listen", &address]);
    assert!(!server.wait().success());
    server.log().wait_for_end();
    let said = server.log().text();
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn a_proxy_port_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let proxy = format!("edge-1=tcp:{}:127.0.0.1:22", address.port());
    let mut server = Siding::start(["server", "--listen", "127.0.0.1:0", "--proxy", &proxy]);
    assert!(!server.wait().success());
    server.log().wait_for_end();
    let said = server.log().text();
    assert!(
        said.contains(&address.to_string()) && said.contains("--proxy"),
        "{said}"
    );
}

#[test]
fn an_exposed_port_in_use_is_refused_to_the_client_and_harms_nobody() {
    let origin = Origin::echo();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .client_argument("--expose")
        .client_argument(format!("tcp:{port}:{}", origin.address()))
        .start();
    tunnel
        .client
        .log()
        .wait_for_all_of(0, &[&port.to_string(), "in use"], PATIENCE);
    echoes(&tunnel.connect());
}

/// A thousand users who are all there at once, each with a session of its own sizes.
fn crowd(tunnel: &Tunnel, origin: &Origin, number: u64) {
    let mut users = Vec::with_capacity(CROWD);
    while users.len() < CROWD {
        users.extend((0..WAVE).map(|_| tunnel.connect()));
        origin.wait_for_open(users.len());
    }
    let mut random = Random::new(number);
    thread::scope(|scope| {
        for user in users {
            let (seed, huge) = (random.next(), random.below(100) == 0);
            let limit = if huge { 1 << 20 } else { 32 << 10 };
            let (up, down) = (random.below(limit), random.below(limit));
            let session = move || converse(&user, seed, up, down).unwrap();
            thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, session)
                .unwrap();
        }
    });
    origin.wait_for_open(0);
}
