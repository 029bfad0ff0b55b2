//! Processes that stand still for longer than any deadline, or die, in the middle of every kind of
//! work: the others notice, no user takes a part for the whole, and what comes after is as before.

mod common;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    HttpOrigin, HttpUser, Origin, Pattern, Targets, Then, Told, Traffic, Tunnel, connect,
    connections_to, digest_reply, echoes, echoing_bodies, eventually, expect_closed_at_once,
    free_port, reset, send_pattern, visited, wait_until_all_read,
};

/// Both sides ask after a second of silence, and wait twice as long for the answer; parked connections are
/// not in the way of counting what is left.
const SERVER: &str = r#"{ "timeouts": { "ping": "1s", "pong": "2s", "handshake": "1s" } }"#;
const CLIENT: &str = r#"{ "timeouts": { "ping": "1s", "pong": "2s", "handshake": "1s" },
                          "pool": { "idle": "200ms" } }"#;

/// The server asks a little later than the client, both look once in a while, and the machine may be
/// busy.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);

/// Sessions that are open and say nothing.
const QUIET: usize = 10;

/// A tunnel to targets of every kind, and all that is under way in it.
struct Scene {
    targets: Targets,
    echo: Origin,
    digest: Origin,
    bodies: HttpOrigin,
    tunnel: Tunnel,
    /// The proxies for short visits, raw and HTTP.
    visitors: [SocketAddr; 2],
    /// What both sides held before there was any user.
    before: (usize, usize),
}

impl Scene {
    fn set() -> Self {
        let (targets, echo) = (Targets::start(), Origin::echo());
        let (digest, bodies) = (Origin::digest(), echoing_bodies());
        let mut plan = Tunnel::builder().listen_again().allow("127.0.0.1:*");
        for (kind, target) in [
            ("tcp", targets.raw.address()),
            ("http", targets.http.address()),
            ("ssh", echo.address()),
            ("telnet", digest.address()),
            ("http", bodies.address()),
        ] {
            // Where a later server listens, too.
            plan = plan.proxy(format!("{kind}:{}:{target}", free_port()));
        }
        let tunnel = plan.server_config(SERVER).client_config(CLIENT).start();
        let before = tunnel.descriptors();
        Self {
            visitors: [tunnel.proxy(3), tunnel.proxy(4)],
            targets,
            echo,
            digest,
            bodies,
            tunnel,
            before,
        }
    }

    fn quiet(&self) -> Vec<TcpStream> {
        let users: Vec<TcpStream> = (0..QUIET).map(|_| connect(self.tunnel.proxy(2))).collect();
        users.iter().for_each(echoes);
        users
    }

    fn traffic(&self) -> Traffic {
        Traffic::start(self.tunnel.proxy(0), self.tunnel.proxy(1))
    }

    /// No target serves anybody any more.
    fn wait_until_left(&self) {
        self.targets.wait_until_left();
        self.echo.wait_for_open(0);
    }

    /// Visitors are served (again).
    fn assert_visits(&self) {
        let served = || {
            (
                self.digest.accepted(),
                self.bodies.requests().iter().sum::<usize>(),
            )
        };
        let before = served();
        eventually("visitors of both kinds are served", || {
            let now = served();
            (now.0 > before.0 && now.1 > before.1).then_some(())
        });
    }

    /// Everything works as on the first day, and then nothing is left of anything.
    fn assert_as_before(&self) {
        drop(self.quiet());
        let mut browser = HttpUser::connect(self.tunnel.proxy(1));
        for number in 0..3 {
            let reply = browser.get(&format!("/{number}"));
            assert!(reply.text().starts_with(&format!("GET /{number} ")));
        }
        drop(browser);
        self.traffic().leave();
        self.wait_until_left();
        self.digest.wait_for_open(0);
        self.bodies.wait_for_open(0);
        self.tunnel.wait_for_descriptors(self.before);
    }
}

#[test]
fn a_server_that_stands_still_is_given_up_and_found_again() {
    let scene = Scene::set();
    let (quiet, traffic) = (scene.quiet(), scene.traffic());
    let (server, client) = (scene.tunnel.server.log(), scene.tunnel.client.log());
    let (server_said, client_said) = (server.mark(), client.mark());
    scene.tunnel.server.signal("STOP");
    client.wait_for_all_of(client_said, &["down (no answer to ping)"], NOTICED_WITHIN);
    // The private side does not wait for the public one to be well.
    scene.wait_until_left();
    scene.tunnel.server.signal("CONT");
    server.wait_for_since(server_said, "link edge-1: down");
    traffic.assert_cut(Told::ByReset);
    quiet.iter().for_each(assert_reset);
    client.wait_for_since(client_said, ": up to ");
    scene.assert_as_before();
}

#[test]
fn a_client_that_stands_still_is_given_up_and_comes_back() {
    let scene = Scene::set();
    let (quiet, traffic) = (scene.quiet(), scene.traffic());
    let mut browser = HttpUser::connect(scene.tunnel.proxy(1));
    assert_eq!(browser.get("/").status, 200);
    let (server, client) = (scene.tunnel.server.log(), scene.tunnel.client.log());
    let (server_said, client_said) = (server.mark(), client.mark());
    scene.tunnel.client.signal("STOP");
    server.wait_for_all_of(server_said, &["down (no answer to ping)"], NOTICED_WITHIN);
    // The public side does not wait for the private one to be well.
    traffic.assert_cut(Told::ByReset);
    quiet.iter().for_each(assert_reset);
    expect_closed_at_once(scene.tunnel.proxy(2));
    assert_eq!(browser.get("/").status, 503);
    scene.tunnel.client.signal("CONT");
    client.wait_for_since(client_said, "link edge-1: down");
    client.wait_for_since(client_said, ": up to ");
    server.wait_for_since(server_said, ": up from ");
    scene.wait_until_left();
    scene.assert_as_before();
}

/// The target is a process, too: the server of another tunnel.
#[test]
#[ignore = "slow"]
fn a_target_that_stands_still_keeps_its_sessions_and_holds_up_no_other() {
    const LONG: u64 = 40 << 20;
    /// More than both sides' deadlines of the link, which has nothing to do with it.
    const RESPONSE_HEAD: Duration = Duration::from_secs(4);
    let (digest, echo) = (Origin::digest(), Origin::echo());
    let web = big_answers(LONG);
    let target = Tunnel::builder()
        .to("tcp", digest.address())
        .to("ssh", echo.address())
        .to("http", web.address())
        .start();
    let (near, near_web) = (Origin::echo(), HttpOrigin::greeting());
    let mut tunnel = Tunnel::builder();
    for (kind, address) in [
        ("tcp", target.proxy(0)),
        ("ssh", target.proxy(1)),
        ("http", target.proxy(2)),
        ("telnet", near.address()),
        ("http", near_web.address()),
    ] {
        tunnel = tunnel.to(kind, address);
    }
    let timeouts = format!(r#""ping": "1s", "pong": "2s", "response_head": "{RESPONSE_HEAD:?}""#);
    let tunnel = tunnel
        .server_config(SERVER)
        .client_config(format!(
            r#"{{ "timeouts": {{ {timeouts} }}, "pool": {{ "idle": "200ms" }} }}"#
        ))
        .start();
    let before = tunnel.descriptors();
    let [raw, quiet, http, other, other_http] = [0, 1, 2, 3, 4].map(|index| tunnel.proxy(index));

    let sessions: Vec<TcpStream> = (0..QUIET).map(|_| connect(quiet)).collect();
    sessions.iter().for_each(echoes);
    let mut uploader = connect(raw);
    uploader.write_all(&7u64.to_be_bytes()).unwrap();
    uploader.write_all(&LONG.to_be_bytes()).unwrap();
    let mut pattern = Pattern::new(7);
    let mut half = vec![0; LONG as usize / 2];
    pattern.fill(&mut half);
    uploader.write_all(&half).unwrap();
    // Half an answer, and the rest stays where it is until it is read.
    let mut reader = HttpUser::connect(http);
    reader.send("GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut answer = vec![0; 1000];
    reader.stream().read_exact(&mut answer).unwrap();

    target.server.signal("STOP");
    let stopped = Instant::now();
    thread::scope(|scope| {
        let uploading = scope.spawn(|| {
            let mut uploader = &uploader;
            pattern.fill(&mut half);
            uploader.write_all(&half).unwrap();
            uploader.shutdown(Shutdown::Write).unwrap();
            digest_reply(uploader, 7, LONG, LONG)
        });
        let late = scope.spawn(|| HttpUser::connect(http).get("/late").status);
        for mut session in &sessions {
            session.write_all(b"while it stands still").unwrap();
        }
        // Others have nothing to do with it.
        let mut browser = HttpUser::connect(other_http);
        while !late.is_finished() {
            echoes(&connect(other));
            assert_eq!(browser.get("/").status, 200);
        }
        assert_eq!(late.join().unwrap(), 504);
        assert!(stopped.elapsed() >= RESPONSE_HEAD);
        target.server.signal("CONT");
        uploading.join().unwrap().unwrap();
    });
    reader.stream().read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&Pattern::bytes(8, LONG as usize)));
    for session in &sessions {
        let mut echoed = [0; 21];
        (&mut &*session).read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"while it stands still");
        echoes(session);
    }
    assert_eq!(HttpUser::connect(http).get("/").status, 200);
    for side in [&tunnel.server, &tunnel.client, &target.client] {
        assert_eq!(side.log().count(": down"), 0);
    }
    drop((sessions, uploader, reader));
    digest.wait_for_open(0);
    echo.wait_for_open(0);
    tunnel.wait_for_descriptors(before);
}

#[test]
fn a_server_killed_under_load_is_found_again_by_all() {
    let mut scene = Scene::set();
    let (quiet, traffic) = (scene.quiet(), scene.traffic());
    let [raw, http] = scene.visitors;
    let ((), tally) = visited(raw, http, || {
        scene.tunnel.server.kill();
        traffic.assert_cut(Told::AsByDeath);
        quiet.iter().for_each(assert_over);
        scene.wait_until_left();
        scene.tunnel.restart_server();
        scene.assert_visits();
    });
    assert!(tally.served > 0 && tally.refused > 0, "{tally:?}");
    scene.assert_as_before();
}

#[test]
fn a_client_killed_under_load_takes_nobody_with_it() {
    let mut scene = Scene::set();
    let (quiet, traffic) = (scene.quiet(), scene.traffic());
    let [raw, http] = scene.visitors;
    let ((), tally) = visited(raw, http, || {
        scene.tunnel.client.kill();
        traffic.assert_cut(Told::ByReset);
        quiet.iter().for_each(assert_reset);
        scene.wait_until_left();
        scene.tunnel.restart_client();
        scene.assert_visits();
    });
    assert!(tally.served > 0 && tally.refused > 0, "{tally:?}");
    scene.assert_as_before();
}

/// The target is a process, too: the server of another tunnel.
#[test]
fn a_target_killed_under_load_ends_its_own_sessions_and_no_other() {
    let targets = Targets::start();
    let (digest, bodies) = (Origin::digest(), echoing_bodies());
    let spec = |kind: &str, target: SocketAddr| format!("{kind}:{}:{target}", free_port());
    let mut target = Tunnel::builder()
        .listen_again()
        .proxy(spec("tcp", targets.raw.address()))
        .proxy(spec("http", targets.http.address()))
        .proxy(spec("ssh", digest.address()))
        .proxy(spec("http", bodies.address()))
        .allow("127.0.0.1:*")
        .start();
    let near = Origin::echo();
    let tunnel = Tunnel::builder()
        .to("tcp", target.proxy(0))
        .to("http", target.proxy(1))
        .to("ssh", target.proxy(2))
        .to("http", target.proxy(3))
        .to("telnet", near.address())
        .server_config(SERVER)
        .client_config(CLIENT)
        .start();
    let before = tunnel.descriptors();
    let others: Vec<TcpStream> = (0..QUIET).map(|_| connect(tunnel.proxy(4))).collect();
    others.iter().for_each(echoes);
    let traffic = Traffic::start(tunnel.proxy(0), tunnel.proxy(1));
    let ((), tally) = visited(tunnel.proxy(2), tunnel.proxy(3), || {
        target.server.kill();
        traffic.assert_cut(Told::AsByDeath);
        targets.wait_until_left();
        assert_eq!(HttpUser::connect(tunnel.proxy(1)).get("/").status, 502);
        expect_closed_at_once(tunnel.proxy(0));
        others.iter().for_each(echoes);
        target.restart_server();
        Traffic::start(tunnel.proxy(0), tunnel.proxy(1)).leave();
    });
    assert!(tally.served > 0 && tally.refused > 0, "{tally:?}");
    others.iter().for_each(echoes);
    drop(others);
    targets.wait_until_left();
    tunnel.wait_for_descriptors(before);
    for side in [&tunnel.server, &tunnel.client] {
        assert_eq!(side.log().count(": down"), 0);
    }
}

/// What users have to say to a target that does not read waits in the kernel, and up to a budget in
/// both processes; whoever speaks to others does not notice.
#[test]
fn targets_that_never_read_cost_a_bounded_memory_and_hold_up_no_other() {
    let ((origin, _raw), (web, _http)) = (deaf(), deaf());
    let crowd = Crowd::start(&origin, &web);
    let uploads: Vec<TcpStream> = (0..STALLED)
        .map(|number| {
            let raw = number % 2 == 0;
            let mut user = connect(crowd.tunnel.proxy(usize::from(!raw)));
            if !raw {
                user.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
                    .unwrap();
            }
            user
        })
        .collect();
    crowd.assert_unharmed(|| fill_all(&uploads));
    // Who gives up takes its connection to the target along.
    uploads.into_iter().for_each(reset);
    wait_until_let_go(origin.address());
    wait_until_let_go(web.address());
    crowd.assert_nothing_left();
}

#[test]
fn targets_that_never_answer_cost_a_bounded_memory_and_hold_up_no_other() {
    /// Fits the copy that is kept for a second try.
    const BODY: usize = 60_000;
    let mute = |stream: TcpStream| {
        io::copy(&mut &stream, &mut io::sink()).ok();
    };
    let (origin, web) = (Origin::start(mute), Origin::start(mute));
    let crowd = Crowd::start(&origin, &web);
    let requests: Vec<TcpStream> = (0..STALLED)
        .map(|number| {
            let raw = number % 2 == 0;
            let mut user = connect(crowd.tunnel.proxy(usize::from(!raw)));
            let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
            user.write_all(head.as_bytes()).unwrap();
            user.write_all(&[b'x'; BODY]).unwrap();
            user
        })
        .collect();
    crowd.assert_unharmed(|| {
        wait_until_all_read(&requests);
        origin.wait_for_open(STALLED / 2);
        web.wait_for_open(STALLED / 2);
    });
    requests.into_iter().for_each(reset);
    origin.wait_for_open(0);
    web.wait_for_open(0);
    crowd.assert_nothing_left();
}

/// Users of targets that stand still, among users of others.
const STALLED: usize = 40;

/// A tunnel with small budgets.
struct Crowd {
    digest: Origin,
    bodies: HttpOrigin,
    tunnel: Tunnel,
    before: (usize, usize),
}

impl Crowd {
    fn start(raw: &Origin, http: &Origin) -> Self {
        let (digest, bodies) = (Origin::digest(), echoing_bodies());
        let budget = r#""limits": { "undelivered": "4MiB" }"#;
        let tunnel = Tunnel::builder()
            .to("tcp", raw.address())
            .to("http", http.address())
            .to("ssh", digest.address())
            .to("http", bodies.address())
            .server_config(format!("{{ {budget} }}"))
            .client_config(format!(r#"{{ {budget}, "pool": {{ "idle": "200ms" }} }}"#))
            .start();
        let before = tunnel.descriptors();
        Self {
            digest,
            bodies,
            tunnel,
            before,
        }
    }

    /// While `others` burden it, visitors are all served, and memory grows by no more than the budgets.
    fn assert_unharmed(&self, others: impl FnOnce()) {
        /// The budget, and as much again for all that is none of the users' bytes.
        const GROWTH_MAX: u64 = 2 * (4 << 20);
        let sides = [&self.tunnel.server, &self.tunnel.client];
        let memory = sides.map(|side| side.written_bytes());
        let ((), tally) = visited(self.tunnel.proxy(2), self.tunnel.proxy(3), || {
            others();
            // With all that the others hold.
            let served = self.digest.accepted();
            eventually("visitors are served", || {
                (self.digest.accepted() >= served + 100).then_some(())
            });
        });
        assert!(
            tally.served > 0 && tally.refused + tally.cut == 0,
            "{tally:?}"
        );
        let grown: Vec<u64> = sides
            .iter()
            .zip(memory)
            .map(|(side, before)| side.written_bytes().saturating_sub(before))
            .collect();
        println!("{tally:?}, grown by {grown:?} bytes");
        assert!(grown.iter().all(|grown| *grown < GROWTH_MAX), "{grown:?}");
    }

    fn assert_nothing_left(&self) {
        self.digest.wait_for_open(0);
        self.bodies.wait_for_open(0);
        self.tunnel.wait_for_descriptors(self.before);
    }
}

/// A target that reads nothing until the test is over for it: until the other end is dropped.
fn deaf() -> (Origin, mpsc::Sender<()>) {
    let (over, is_over) = mpsc::channel();
    let is_over = Mutex::new(is_over);
    let origin = Origin::start(move |_stream| {
        // One waits for the end, the others for that one.
        is_over.lock().expect("no holder panics").recv().ok();
    });
    (origin, over)
}

/// Fills every buffer on all the ways: nothing more goes in for a while.
fn fill_all(users: &[TcpStream]) {
    for user in users {
        user.set_nonblocking(true).unwrap();
    }
    let mut full = 0;
    eventually("the ways to targets that do not read fill up", || {
        let fill = |mut user: &TcpStream| user.write(&[b'x'; 16 * 1024]).is_ok();
        let any = users.iter().filter(|user| fill(user)).count() > 0;
        full = if any { 0 } else { full + 1 };
        (full == 20).then_some(())
    });
}

/// No connection to `target` is left in the kernel, whatever its process does.
fn wait_until_let_go(target: SocketAddr) {
    eventually("the client has let go of the target", || {
        (connections_to(target) == 0).then_some(())
    });
}

/// Answers `/big` by `length` bytes, and all else by a greeting.
fn big_answers(length: u64) -> HttpOrigin {
    HttpOrigin::start(move |exchange| {
        if exchange.request.target != "/big" {
            return exchange.greet();
        }
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ))?;
        send_pattern(exchange.stream().get_mut(), 8, length)?;
        Ok(Then::Keep)
    })
}

/// The session was ended by a reset: it was not over.
#[track_caller]
fn assert_reset(mut user: &TcpStream) {
    let error = user.read(&mut [0]).expect_err("neither a byte nor an end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

/// The session was ended, as a kernel does that for a process that dies.
#[track_caller]
fn assert_over(mut user: &TcpStream) {
    match user.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0, "nothing was sent"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}
