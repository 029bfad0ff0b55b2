//! Many at a time, and more of them than there is room for: users when descriptors have run out, users
//! that are gone as soon as they have come, clients that all come back at once.

mod common;

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use common::{
    Origin, Process, Siding, Tally, Tunnel, WebSocketPeer, connect, connections_to, echoes,
    echoing_bodies, eventually, pass, raise_descriptor_limit, reset, visited,
};

/// Parked connections are not in the way of counting what is left.
const SHORT_IDLE: &str = r#"{ "pool": { "idle": "200ms" } }"#;

/// Descriptors of the process that is short of them.
const DESCRIPTORS: usize = 64;

/// How many of them are left for visitors: one for each of those who stay, and a few for all others.
const ROOM: usize = 10;

/// How long visitors keep coming.
const SPAN: Duration = Duration::from_secs(2);

/// How long they come while nothing is short, to see what they cost.
const CALM_SPAN: Duration = Duration::from_millis(500);

/// Ticks of the processor (of 10 ms) that a process may use beside what visits cost: a loop that spins uses
/// all that it gets.
const TICKS_MAX: u64 = 20;

/// For whoever comes back after a storm: a busy machine, and a few waits of the backoff.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_server_without_descriptors_serves_a_crowd_in_turn_and_nobody_is_passed_over() {
    let (digest, bodies, echo) = (Origin::digest(), echoing_bodies(), Origin::echo());
    let tunnel = Tunnel::builder()
        .to("tcp", digest.address())
        .to("http", bodies.address())
        .to("ssh", echo.address())
        .server_descriptors(DESCRIPTORS)
        .client_config(SHORT_IDLE)
        .start();
    let before = tunnel.descriptors();
    let calm = calm_visits(&tunnel, &tunnel.server);
    tunnel.wait_for_descriptors(before);
    let hogs = hold_most(&tunnel.server, tunnel.proxy(2));
    let ticks = tunnel.server.cpu_ticks();
    let ((), tally) = visited(tunnel.proxy(0), tunnel.proxy(1), || {
        tunnel.server.log().wait_for("out of descriptors");
        // A client is let in like anybody else.
        let link = WebSocketPeer::welcomed(tunnel.link(), "edge-2");
        pass(SPAN);
        drop(link);
    });
    let ticks = tunnel.server.cpu_ticks() - ticks;
    assert_not_spinning(ticks, tally, calm);
    // Who comes when there is no descriptor waits, and then is served like any other.
    assert!(
        tally.served > 0 && tally.refused + tally.cut == 0,
        "{tally:?}"
    );
    hogs.iter().for_each(echoes);
    drop(hogs);
    echo.wait_for_open(0);
    digest.wait_for_open(0);
    bodies.wait_for_open(0);
    tunnel.wait_for_descriptors(before);
    assert_serves_all(tunnel.proxy(0), tunnel.proxy(1));
}

#[test]
fn a_client_without_descriptors_serves_or_refuses_a_crowd_and_recovers() {
    let (digest, bodies, echo) = (Origin::digest(), echoing_bodies(), Origin::echo());
    let tunnel = Tunnel::builder()
        .to("tcp", digest.address())
        .to("http", bodies.address())
        .to("ssh", echo.address())
        .client_descriptors(DESCRIPTORS)
        .client_config(SHORT_IDLE)
        .start();
    let before = tunnel.descriptors();
    let calm = calm_visits(&tunnel, &tunnel.client);
    tunnel.wait_for_descriptors(before);
    let hogs = hold_most(&tunnel.client, tunnel.proxy(2));
    let ticks = tunnel.client.cpu_ticks();
    let ((), tally) = visited(tunnel.proxy(0), tunnel.proxy(1), || {
        tunnel.client.log().wait_for("refused, ");
        pass(SPAN);
    });
    let ticks = tunnel.client.cpu_ticks() - ticks;
    assert_not_spinning(ticks, tally, calm);
    // Whom it cannot dial for learns so before it has had a byte.
    assert!(
        tally.served > 0 && tally.refused > 0 && tally.cut == 0,
        "{tally:?}"
    );
    hogs.iter().for_each(echoes);
    drop(hogs);
    echo.wait_for_open(0);
    digest.wait_for_open(0);
    bodies.wait_for_open(0);
    tunnel.wait_for_descriptors(before);
    assert_serves_all(tunnel.proxy(0), tunnel.proxy(1));
}

#[test]
fn ten_thousand_users_who_leave_at_once_leave_nothing_behind() {
    /// What each round's users could leave behind: a byte of each would be less than this, a buffer or
    /// an entry of each far more.
    const GROWTH_MAX: u64 = 256 * 1024;
    let (raw, http) = (Origin::echo(), echoing_bodies());
    let tunnel = Tunnel::builder()
        .to("tcp", raw.address())
        .to("http", http.address())
        .start();
    let sides = [&tunnel.server, &tunnel.client];
    let before = tunnel.descriptors();
    let mut streams = 0;
    let mut round = |users: usize| {
        streams += come_and_go(&tunnel, users);
        for side in sides {
            side.log().wait_for_count(streams, "[DEBUG] stream user-");
        }
        tunnel.wait_for_descriptors(before);
        raw.wait_for_open(0);
        eventually("no connection to the target is left", || {
            (connections_to(raw.address()) == 0).then_some(())
        });
        for side in sides {
            assert_eq!(side.log().count("[DEBUG] stream user-"), streams);
        }
        sides.map(|side| side.written_bytes())
    };
    let memory = round(2_000);
    let now = round(8_000);
    println!("{memory:?} {now:?}");
    for (now, memory) in now.iter().zip(memory) {
        let grown = now.saturating_sub(memory);
        assert!(grown < GROWTH_MAX, "{grown} bytes more than {memory}");
    }
    // Who asks for nothing is no exchange.
    assert_eq!(http.connections(), 0);
    echoes(&tunnel.connect());
}

#[test]
fn five_hundred_clients_that_come_back_at_once_all_come_in() {
    const REAL: usize = 30;
    const RAW: usize = 470;
    const THREADS: usize = 5;
    raise_descriptor_limit(2 * (REAL + RAW) + 500);
    let echo = Origin::echo();
    let mut tunnel = Tunnel::builder()
        .listen_again()
        .to("tcp", echo.address())
        // Raw peers answer no ping.
        .server_config(r#"{ "limits": { "handshakes": 32 }, "timeouts": { "ping": "10m" } }"#)
        .start();
    let before = tunnel.server.descriptors();
    let url = format!("ws://{}", tunnel.link());
    let real: Vec<Siding> = (0..REAL)
        .map(|number| {
            Siding::start([
                "client",
                "--server",
                &url,
                "--id",
                &format!("real-{number}"),
            ])
        })
        .collect();
    let ids: Vec<String> = (0..RAW).map(|number| format!("raw-{number}")).collect();
    let raw = come_in(tunnel.link(), &ids);
    for client in &real {
        client.log().wait_for(": up to ");
    }
    wait_for_descriptors(&tunnel.server, before + REAL + RAW);

    tunnel.server.kill();
    drop(raw);
    for client in &real {
        client.log().wait_for_count(3, ", again in ");
    }
    let start = Instant::now();
    let link = tunnel.link();
    let raw: Vec<WebSocketPeer> = thread::scope(|scope| {
        let coming: Vec<_> = ids
            .chunks(RAW / THREADS)
            .map(|ids| scope.spawn(move || come_in(link, ids)))
            .collect();
        tunnel.restart_server();
        echoes(&tunnel.connect());
        println!("served again after {:?}", start.elapsed());
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        let came = coming.into_iter().map(|thread| thread.join().unwrap());
        came.flatten().collect()
    });
    for client in &real {
        client.log().wait_for_count(2, ": up to ");
        assert_waited_longer_each_time(client);
    }
    println!("all in after {:?}", start.elapsed());
    assert!(tunnel.server.log().count("handshakes are under way") > 0);
    wait_for_descriptors(&tunnel.server, before + REAL + RAW);
    echoes(&tunnel.connect());
    drop((raw, real));
    wait_for_descriptors(&tunnel.server, before);
    echoes(&tunnel.connect());
}

/// `process` holds so many descriptors, once those whose end has just come are gone.
fn wait_for_descriptors(process: &Process, count: usize) {
    eventually(&format!("{count} descriptors are held"), || {
        (process.descriptors() == count).then_some(())
    });
}

/// Raw sessions that leave `process` no more than [`ROOM`] descriptors.
fn hold_most(process: &Process, proxy: SocketAddr) -> Vec<TcpStream> {
    let mut hogs = Vec::new();
    while process.descriptors() < DESCRIPTORS - ROOM {
        assert!(hogs.len() < DESCRIPTORS, "each takes one");
        let hog = connect(proxy);
        echoes(&hog);
        hogs.push(hog);
    }
    hogs
}

/// Visits while nothing is short, and the ticks that they cost `process`: what a build costs on a machine.
fn calm_visits(tunnel: &Tunnel, process: &Process) -> (u64, Tally) {
    let before = process.cpu_ticks();
    let ((), tally) = visited(tunnel.proxy(0), tunnel.proxy(1), || pass(CALM_SPAN));
    (process.cpu_ticks() - before, tally)
}

/// So many ticks are what the visits cost, measured by what calm ones did.
#[track_caller]
fn assert_not_spinning(ticks: u64, tally: Tally, (calm_ticks, calm): (u64, Tally)) {
    println!("{tally:?}, {ticks} ticks; when it was calm {calm:?}, {calm_ticks} ticks");
    let visits = |tally: Tally| (tally.served + tally.refused + tally.cut) as u64;
    // Of a tick that has begun no part is seen.
    let expected = (calm_ticks + 1) * visits(tally) / visits(calm);
    assert!(
        ticks <= 2 * expected + TICKS_MAX,
        "{ticks} ticks, not {expected}, for {} visits: it spins",
        visits(tally)
    );
}

/// Nobody is refused any more.
fn assert_serves_all(raw: SocketAddr, http: SocketAddr) {
    let ((), tally): ((), Tally) = visited(raw, http, || pass(Duration::from_millis(200)));
    assert!(
        tally.served > 0 && tally.refused + tally.cut == 0,
        "{tally:?}"
    );
}

/// Users that connect and close, or connect and reset, at once; says how many of them were raw.
fn come_and_go(tunnel: &Tunnel, users: usize) -> usize {
    const AT_ONCE: usize = 50;
    let idle = tunnel.server.descriptors();
    let mut raw = 0;
    for wave in 0..users / AT_ONCE {
        let proxy = wave % 2;
        let users: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect(tunnel.proxy(proxy))).collect();
        if wave / 2 % 2 == 0 {
            users.into_iter().for_each(reset);
        } else {
            drop(users);
        }
        raw += if proxy == 0 { AT_ONCE } else { 0 };
        // What is there at a time is what memory is counted by.
        eventually("the server has let go of those who have gone", || {
            (tunnel.server.descriptors() <= idle).then_some(())
        });
    }
    raw
}

/// Clients that knock all at once, and again as long as they are not let in.
fn come_in(link: SocketAddr, ids: &[String]) -> Vec<WebSocketPeer> {
    let deadline = Instant::now() + common::PATIENCE;
    let mut peers = Vec::new();
    let mut outside: Vec<&String> = ids.iter().collect();
    while !outside.is_empty() {
        assert!(Instant::now() < deadline, "{} are not in", outside.len());
        let knocked: Vec<_> = outside.iter().map(|_| WebSocketPeer::knock(link)).collect();
        let mut entered = knocked
            .into_iter()
            .zip(&outside)
            .map(|(stream, id)| stream.and_then(|stream| WebSocketPeer::enter(stream, id)));
        let mut refused = Vec::new();
        for &id in &outside {
            match entered.next().expect("as many as have knocked") {
                Ok(peer) => peers.push(peer),
                Err(_) => refused.push(id),
            }
        }
        outside = refused;
        pass(Duration::from_millis(100));
    }
    peers
}

/// It did not come back in one instant with all others.
fn assert_waited_longer_each_time(client: &Siding) {
    let lines = client.log().lines();
    let waits = lines.iter().filter_map(|line| {
        let (_, wait) = line.split_once(", again in ")?;
        wait.strip_suffix(" s")?.parse::<f64>().ok()
    });
    for (attempt, wait) in waits.enumerate() {
        let whole = (0.2 * f64::from(1 << attempt)).min(30.0);
        // Said to a tenth of a second.
        assert!(
            (whole / 2.0 - 0.06..whole + 0.06).contains(&wait),
            "attempt {attempt}: {wait} s"
        );
    }
}
