//! What goes wrong in a life of years: killed processes, a wrong token, two clients of one name,
//! an end in the middle of work, no descriptors left. Each time the rest goes on.

mod common;

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use common::{
    Authority, CLIENT, HttpOrigin, HttpUser, Origin, Process, Scratch, Siding, Then, Tunnel,
    connect, converse, digest_reply, echoes, eventually, expect_closed_at_once, expect_pattern,
    free_port, pass, refusing, require, send_pattern,
};

/// More than all buffers on the way hold, so that a transfer of it is still going on.
const ENDLESS: u64 = 1 << 30;

/// A transfer that fits a drain deadline, and no set of socket buffers.
const LONG: u64 = 40 << 20;

/// A token that is long enough.
const TOKEN: &str = "the right token of this test";

/// A span long enough to see a loop spin or a storm of attempts.
const SPAN: Duration = Duration::from_secs(3);

/// A span in which a peer that does what it should not would have done it, unless the machine is busy.
const A_WHILE: Duration = Duration::from_secs(1);

/// For an end that nothing is left to wait for: on a busy machine, but far below the drain deadline.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_killed_server_ends_its_streams_and_the_client_finds_the_next_one() {
    let origin = Origin::source(1, ENDLESS);
    let mut tunnel = Tunnel::builder()
        .listen_again()
        .to("tcp", origin.address())
        .start();
    let user = user_in_the_middle(&tunnel, 1);
    tunnel.server.kill();
    expect_cut_short(user);
    origin.wait_for_open(0);
    tunnel.client.log().wait_for(": down");
    tunnel.restart_server();
    drop(user_in_the_middle(&tunnel, 1));
}

#[test]
fn a_killed_client_ends_its_streams_and_the_server_takes_the_next_one() {
    let origin = Origin::source(2, ENDLESS);
    let mut tunnel = Tunnel::to("tcp", origin.address());
    let user = user_in_the_middle(&tunnel, 2);
    tunnel.client.kill();
    expect_cut_short(user);
    tunnel.server.log().wait_for(": down");
    tunnel.restart_client();
    drop(user_in_the_middle(&tunnel, 2));
}

#[test]
fn a_killed_target_ends_its_stream_and_the_next_one_is_found() {
    let Some(nc) = require("nc") else { return };
    let scratch = Scratch::new();
    let mut content = Vec::new();
    send_pattern(&mut content, 3, LONG).unwrap();
    let file = scratch.write("content", content);
    let target = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let serve = || {
        let mut command = Command::new(&nc);
        command.args(["-v", "-l", "127.0.0.1", &target.port().to_string()]);
        let process = Process::start_with("nc", command.stdin(fs::File::open(&file).unwrap()));
        process.log().wait_for("Listening on");
        process
    };
    let tunnel = Tunnel::to("tcp", target);
    let mut nc = serve();
    let user = user_in_the_middle(&tunnel, 3);
    nc.kill();
    expect_cut_short(user);
    expect_closed_at_once(tunnel.address());
    let _again = serve();
    expect_pattern(tunnel.connect(), 3, LONG).unwrap();
}

#[test]
fn an_http_user_whose_client_is_killed_sees_that_its_answer_is_not_whole() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\nx"
        ))?;
        exchange.stream().read_exact(&mut [0])?;
        Ok(Then::Close)
    });
    let mut tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    user.stream().read_exact(&mut [0; 40]).unwrap();
    tunnel.client.kill();
    let mut rest = Vec::new();
    // An end or a reset: what counts is that less has come than was announced.
    user.stream().read_to_end(&mut rest).ok();
    assert!((rest.len() as u64) < ENDLESS);
    origin.wait_for_open(0);
}

#[test]
fn the_right_token_joins() {
    let origin = Origin::digest();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .token(TOKEN)
        .start();
    converse(&tunnel.connect(), 4, 1_000, 1_000).unwrap();
}

#[test]
fn a_wrong_token_is_refused_at_both_ends_without_a_storm() {
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .token(TOKEN)
        .start();
    let mark = tunnel.server.log().mark();
    let scratch = Scratch::new();
    let file = scratch.write("token", "the wrong token of this test");
    let mut wrong = client(
        tunnel.link(),
        "edge-2",
        &["--token-file", file.to_str().unwrap()],
    );
    let here = wrong.log().wait_for("token");
    let there = tunnel.server.log().wait_for_since(mark, "token");
    for line in [here, there] {
        assert!(!line.contains("this test"), "no log shows a secret: {line}");
    }
    pass(SPAN);
    let attempts = tunnel.server.log().lines()[mark..]
        .iter()
        .filter(|l| l.contains("token"))
        .count();
    assert!(attempts <= 3, "{attempts} attempts in {SPAN:?}");
    // Whether it gives up is its own affair; if so, it says that it failed.
    assert!(wrong.is_running() || !wrong.wait().success());
    echoes(&tunnel.connect());
}

#[test]
fn a_client_without_the_token_is_refused_at_both_ends() {
    let tunnel = Tunnel::builder().to("tcp", refusing()).token(TOKEN).start();
    let mark = tunnel.server.log().mark();
    let without = client(tunnel.link(), "edge-2", &[]);
    without.log().wait_for("token");
    tunnel.server.log().wait_for_since(mark, "token");
}

#[test]
fn a_client_that_expects_a_token_opens_nothing_at_a_server_without_it() {
    let server = Siding::start(["server", "--listen", "127.0.0.1:0", "--log", "debug"]);
    let scratch = Scratch::new();
    let file = scratch.write("token", TOKEN);
    let arguments = [
        "--token-file",
        file.to_str().unwrap(),
        "--expose",
        "tcp:0:127.0.0.1:22",
    ];
    let client = client(server.link_address(), CLIENT, &arguments);
    client.log().wait_for("token");
    pass(A_WHILE);
    assert_eq!(
        server.log().count(": tcp on "),
        0,
        "{}",
        server.log().text()
    );
}

#[test]
fn a_newer_client_of_the_same_id_takes_the_proxies_at_once() {
    let origin = Origin::echo();
    let tunnel = Tunnel::to("tcp", origin.address());
    let mut old_user = tunnel.connect();
    echoes(&old_user);
    let mut older = Siding::start(tunnel.client_arguments());
    older.log().wait_for(": up to ");
    // The link of the first is gone, with what it carried, and it says why.
    tunnel.client.log().wait_for("replaced");
    assert!(!matches!(old_user.read(&mut [0]), Ok(1)), "its streams end");
    // The listener has survived; who is served now is served by the new one.
    let user = tunnel.connect();
    echoes(&user);
    drop(user);
    older.log().wait_for("stream user-");
    // The one that was replaced does not come back at once to take its place again.
    let mark = older.log().mark();
    pass(SPAN);
    assert!(older.is_running());
    let since = &older.log().lines()[mark..];
    assert!(
        !since.iter().any(|line| line.contains(": down")),
        "{since:?}"
    );
    echoes(&tunnel.connect());
}

#[test]
fn an_exposed_port_moves_with_its_client() {
    let origin = Origin::echo();
    let port = free_port();
    let tunnel = Tunnel::builder()
        .expose(format!("tcp:{port}:{}", origin.address()))
        .start();
    echoes(&tunnel.connect());
    let newer = Siding::start(tunnel.client_arguments());
    newer.log().wait_for(": open at ");
    assert_eq!(newer.log().count("in use"), 0, "{}", newer.log().text());
    let user = tunnel.connect();
    echoes(&user);
    drop(user);
    newer.log().wait_for("stream user-");
}

#[test]
fn sigterm_lets_the_servers_transfers_finish_and_takes_no_new_users() {
    let origin = Origin::digest();
    let mut tunnel = Tunnel::to("tcp", origin.address());
    let address = tunnel.address();
    let user = asking(&tunnel, 5, LONG);
    tunnel.server.terminate();
    eventually("the listener is closed", || {
        TcpStream::connect(address).err()
    });
    digest_reply(&user, 5, 0, LONG).unwrap();
    drop(user);
    assert_eq!(tunnel.server.wait_within(SOON).code(), Some(0));
}

#[test]
fn sigterm_lets_the_clients_transfers_finish() {
    let origin = Origin::digest();
    let mut tunnel = Tunnel::to("tcp", origin.address());
    let user = asking(&tunnel, 6, LONG);
    tunnel.client.terminate();
    let address = tunnel.address();
    eventually("new users are turned away", || {
        let read = TcpStream::connect_timeout(&address, SOON).and_then(|mut newcomer| {
            newcomer.set_read_timeout(Some(A_WHILE))?;
            newcomer.read(&mut [0])
        });
        (!matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)).then_some(())
    });
    digest_reply(&user, 6, 0, LONG).unwrap();
    drop(user);
    assert_eq!(tunnel.client.wait_within(SOON).code(), Some(0));
    tunnel.restart_client();
    converse(&tunnel.connect(), 7, 100, 100).unwrap();
}

#[test]
fn an_idle_pair_ends_at_once_when_asked_once() {
    let origin = HttpOrigin::greeting();
    let mut tunnel = Tunnel::to("http", origin.address());
    // A parked connection and an idle user are nothing to wait for.
    let mut user = HttpUser::connect(tunnel.address());
    assert_eq!(user.get("/").status, 200);
    tunnel.client.interrupt();
    assert_eq!(tunnel.client.wait_within(SOON).code(), Some(0));
    origin.wait_for_open(0);
    tunnel.server.interrupt();
    assert_eq!(tunnel.server.wait_within(SOON).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once_what_the_first_one_drains() {
    let origin = Origin::source(8, ENDLESS);
    let mut tunnel = Tunnel::to("tcp", origin.address());
    let user = user_in_the_middle(&tunnel, 8);
    let address = tunnel.address();
    tunnel.server.terminate();
    eventually("the listener is closed", || {
        TcpStream::connect(address).err()
    });
    tunnel.client.terminate();
    assert!(tunnel.server.is_running(), "it drains");
    tunnel.server.terminate();
    let status = tunnel.server.wait_within(SOON);
    assert!(status.code().is_some(), "it ends by itself: {status}");
    expect_cut_short(user);
}

#[test]
fn the_drain_has_a_deadline() {
    let origin = Origin::source(9, ENDLESS);
    let mut tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_config(r#"{ "timeouts": { "drain": "500ms" } }"#)
        .start();
    let user = user_in_the_middle(&tunnel, 9);
    tunnel.server.terminate();
    assert_eq!(tunnel.server.wait_within(SOON).code(), Some(0));
    expect_cut_short(user);
}

#[test]
fn a_server_without_descriptors_pauses_and_goes_on() {
    const USERS: usize = 80;
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_descriptors(64)
        .start();
    let mut waiting: Vec<TcpStream> = (0..USERS).map(|_| tunnel.connect()).collect();
    // An eighth is not for users.
    eventually("the server has no descriptor left for users", || {
        (tunnel.server.descriptors() >= 64 - 8).then_some(())
    });
    // Those whom it has no descriptor for wait in the kernel, at no cost.
    let before = tunnel.server.cpu_ticks();
    pass(SPAN);
    let spent = tunnel.server.cpu_ticks() - before;
    assert!(
        spent < 50,
        "{spent} ticks of the processor in {SPAN:?}: it spins"
    );
    // Whoever leaves makes room for one who waits, until all have been served.
    for user in waiting.drain(..) {
        echoes(&user);
    }
    origin.wait_for_open(0);
    assert_eq!(origin.accepted(), USERS);
}

#[test]
fn users_who_take_all_descriptors_keep_neither_clients_nor_the_operator_out() {
    const LIMIT: usize = 96;
    let authority = Authority::new();
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .secure(&authority)
        .to("tcp", origin.address())
        .server_descriptors(LIMIT)
        .start();
    let users: Vec<TcpStream> = (0..LIMIT).map(|_| tunnel.connect()).collect();
    eventually("users have all that they may", || {
        (tunnel.server.descriptors() >= LIMIT - LIMIT / 8).then_some(())
    });
    // Another client, and a proxy of its own.
    let url = format!("wss://localhost:{}", tunnel.link().port());
    let ca = authority.file().display().to_string();
    let expose = format!("tcp:0:{}", origin.address());
    let second = Siding::start([
        "client", "--id", "b", "--server", &url, "--ca", &ca, "--expose", &expose,
    ]);
    second.log().wait_for(": open at ");
    // Files.
    tunnel.server.signal("HUP");
    tunnel.server.log().wait_for("closed, 1 certificates");
    // Strangers who say nothing at the clients' listener take what is left, and not for long.
    let strangers: Vec<TcpStream> = (0..24).map(|_| connect(tunnel.link())).collect();
    tunnel.server.log().wait_for("handshake too slow while");
    let mark = tunnel.server.log().mark();
    tunnel.server.signal("HUP");
    let read_again = "closed, 1 certificates";
    tunnel.server.log().wait_for_since(mark, read_again);
    let third = Siding::start(["client", "--id", "c", "--server", &url, "--ca", &ca]);
    third.log().wait_for(": up to ");
    drop(strangers);
    // Of the users, those who were let in go on, and the others are in their turn.
    users.into_iter().for_each(|user| echoes(&user));
}

#[test]
fn a_client_without_descriptors_gives_up_parked_connections_first() {
    const PARKED: usize = 20;
    const RAW: usize = 25;
    let (http, raw) = (HttpOrigin::greeting(), Origin::echo());
    let tunnel = Tunnel::builder()
        .to("http", http.address())
        .to("tcp", raw.address())
        .client_descriptors(45)
        .start();
    let mut users: Vec<HttpUser> = (0..PARKED)
        .map(|_| HttpUser::connect(tunnel.proxy(0)))
        .collect();
    for user in &mut users {
        // Asked without waiting for the answers, so that each needs a connection of its own.
        user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for user in &mut users {
        assert_eq!(user.reply("GET").status, 200);
    }
    let parked = http.open();
    assert!(parked > 0, "there is something to give up");
    let before = tunnel.client.descriptors();
    let sessions: Vec<TcpStream> = (0..RAW).map(|_| connect(tunnel.proxy(1))).collect();
    for session in &sessions {
        echoes(session);
    }
    drop(sessions);
    eventually("the client has let go of the sessions", || {
        (tunnel.client.descriptors() <= before).then_some(())
    });
    assert_eq!(users[0].get("/").status, 200);
}

#[test]
fn a_client_that_runs_out_of_descriptors_refuses_and_recovers() {
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .client_descriptors(40)
        .start();
    let before = tunnel.descriptors();
    let users: Vec<TcpStream> = (0..60).map(|_| tunnel.connect()).collect();
    let mut served = 0;
    for mut user in &users {
        if user.write_all(b"?").is_ok() && user.read(&mut [0]).is_ok_and(|count| count == 1) {
            served += 1;
        }
    }
    assert!(
        (20..60).contains(&served),
        "{served} of 60 served within 40 descriptors"
    );
    drop(users);
    origin.wait_for_open(0);
    tunnel.wait_for_descriptors(before);
    echoes(&tunnel.connect());
}

/// A user who has received the beginning of what a source of `seed` sends, and reads no further.
fn user_in_the_middle(tunnel: &Tunnel, seed: u64) -> TcpStream {
    let user = tunnel.connect();
    expect_pattern(&user, seed, 1 << 20).unwrap();
    user
}

/// A user whose answer of `down` bytes has begun.
fn asking(tunnel: &Tunnel, seed: u64, down: u64) -> TcpStream {
    let mut user = tunnel.connect();
    user.write_all(&seed.to_be_bytes()).unwrap();
    user.write_all(&down.to_be_bytes()).unwrap();
    user.shutdown(Shutdown::Write).unwrap();
    eventually("the answer has begun", || user.peek(&mut [0]).ok());
    user
}

/// What is left of an endless stream ends, without a deadline having to pass.
#[track_caller]
fn expect_cut_short(mut user: TcpStream) {
    match io::copy(&mut user, &mut io::sink()) {
        Ok(count) => assert!(count < ENDLESS / 2, "{count} bytes"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

/// A client of `id` with these further arguments.
fn client(link: SocketAddr, id: &str, arguments: &[&str]) -> Siding {
    let url = format!("ws://{link}");
    Siding::start(
        ["client", "--server", &url, "--id", id, "--log", "debug"]
            .iter()
            .chain(arguments),
    )
}
