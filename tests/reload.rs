//! A new configuration while both run: what has not changed goes on, what is wrong changes nothing.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use common::{
    Authority, CLIENT, HttpOrigin, HttpUser, Origin, PATIENCE, Scratch, Siding, Tunnel, Wire,
    connect, echoes, eventually, expect_closed_at_once, free_port,
};

/// What it is called.
const NAME: &str = "siding.json";

/// A configuration that a test rewrites, and the process that has read it.
struct Config {
    path: PathBuf,
    scratch: Scratch,
}

impl Config {
    fn new(json: &str) -> Self {
        let scratch = Scratch::new();
        Self {
            path: scratch.write(NAME, json),
            scratch,
        }
    }

    fn argument(&self) -> String {
        self.path.display().to_string()
    }

    /// Rewrites it; waits for a line of the log that says what came of it.
    fn becomes(&self, json: &str, process: &Siding, said: &str) -> String {
        let mark = process.log().mark();
        self.scratch.write(NAME, json);
        process.log().wait_for_since(mark, said)
    }

    /// As [`Config::becomes`], and does not wait for its being noticed.
    fn becomes_at_once(&self, json: &str, process: &Siding, said: &str) -> String {
        self.scratch.write(NAME, json);
        let mark = process.log().mark();
        process.signal("HUP");
        process.log().wait_for_since(mark, said)
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn refuses(port: u16) {
    eventually("nobody listens there", || {
        TcpStream::connect(at(port)).is_err().then_some(())
    });
}

fn proxies(specs: &[String]) -> String {
    let entries: Vec<String> = specs
        .iter()
        .map(|spec| format!("\"{CLIENT}={spec}\""))
        .collect();
    format!("{{ \"proxies\": [ {} ] }}", entries.join(",\n"))
}

#[test]
fn a_server_opens_changes_and_closes_proxies_and_touches_no_session() {
    let [one, two] = [Origin::echo(), Origin::echo()];
    let http = HttpOrigin::greeting();
    let [kept, moved, gone, new, web] = [(); 5].map(|()| free_port());
    let tcp = |port: u16, origin: &Origin| format!("tcp:{port}:{}", origin.address());
    let site = format!("http:{web}:{}", http.address());
    let config = Config::new(&proxies(&[
        tcp(kept, &one),
        tcp(moved, &one),
        tcp(gone, &one),
        site.clone(),
    ]));
    let tunnel = Tunnel::builder()
        .server_argument("--config")
        .server_argument(config.argument())
        .allow("127.0.0.1:*")
        .start();
    let sessions = [kept, moved, gone].map(|port| connect(at(port)));
    sessions.iter().for_each(echoes);
    let mut idle = HttpUser::connect(at(web));
    assert_eq!(idle.get("/").status, 200);

    let next = proxies(&[tcp(kept, &one), tcp(moved, &two), tcp(new, &one)]);
    let line = config.becomes(&next, &tunnel.server, "reload: done");
    assert!(line.contains("1 proxies opened, 2 closed"), "{line}");
    sessions.iter().for_each(echoes);
    refuses(gone);
    refuses(web);
    // Who waits for nothing is told to go.
    idle.expect_end();
    for port in [kept, moved, new] {
        echoes(&connect(at(port)));
    }
    assert_eq!(
        two.accepted(),
        1,
        "the port is the same, its target another"
    );

    // What is wrong changes nothing, and says where it is.
    for (json, said) in [
        (
            "{ \"proxies\": [ 7 ] }".to_owned(),
            "proxies[0]: invalid type",
        ),
        ("{".to_owned(), "line 1"),
        (proxies(&[tcp(kept, &one), tcp(kept, &two)]), "listens on"),
        (
            proxies(&[tcp(new, &two), format!("tcp:{}:a:1", one.address().port())]),
            "cannot listen on",
        ),
    ] {
        let line = config.becomes(&json, &tunnel.server, "reload: nothing changed");
        assert!(line.contains(said), "{line}");
        sessions.iter().for_each(echoes);
        for port in [kept, moved, new] {
            echoes(&connect(at(port)));
        }
    }
    assert_eq!(two.accepted(), 5);
    config.becomes(&next, &tunnel.server, "0 proxies opened, 0 closed");
    assert_eq!(tunnel.server.log().count(": down ("), 0);
}

#[test]
fn a_port_passes_from_one_proxy_to_another_and_to_another_address() {
    let echo = Origin::echo();
    let http = HttpOrigin::greeting();
    let port = free_port();
    let config = Config::new(&proxies(&[format!("tcp:{port}:{}", echo.address())]));
    let tunnel = Tunnel::builder()
        .server_argument("--config")
        .server_argument(config.argument())
        .allow("127.0.0.1:*")
        .start();
    let session = connect(at(port));
    echoes(&session);
    let becomes = |spec: String| {
        let line = config.becomes(&proxies(&[spec]), &tunnel.server, "reload: done");
        assert!(line.contains("1 proxies opened, 1 closed"), "{line}");
        echoes(&session);
    };
    becomes(format!("http:{port}:{}", http.address()));
    assert_eq!(HttpUser::connect(at(port)).get("/").status, 200);
    becomes(format!("tcp:0.0.0.0:{port}:{}", echo.address()));
    echoes(&connect(SocketAddr::from(([127, 0, 0, 2], port))));
    becomes(format!("tcp:{port}:{}", echo.address()));
    echoes(&connect(at(port)));
}

#[test]
fn a_port_of_the_systems_choice_does_not_keep_an_address_that_is_not_asked_for() {
    let origin = Origin::echo();
    let proxy = format!("{CLIENT}=tcp:0:{}", origin.address());
    let json = |bind: &str| format!(r#"{{ "bind": "{bind}", "proxies": [ "{proxy}" ] }}"#);
    let config = Config::new(&json("127.0.0.2"));
    let tunnel = Tunnel::builder()
        .server_argument("--config")
        .server_argument(config.argument())
        .allow(origin.address().to_string())
        .start();
    tunnel.server.log().wait_for(": tcp on 127.0.0.2:");
    let mark = tunnel.server.log().mark();
    let line = config.becomes(&json("127.0.0.1"), &tunnel.server, "reload: done");
    assert!(line.contains("1 proxies opened, 1 closed"), "{line}");
    tunnel
        .server
        .log()
        .wait_for_since(mark, ": tcp on 127.0.0.1:");
}

#[test]
fn a_client_asks_for_what_is_new_and_gives_back_what_is_not_wanted() {
    let [one, two] = [Origin::echo(), Origin::echo()];
    let [kept, moved, gone, new] = [(); 4].map(|()| free_port());
    let exposes = |specs: &[String], allow: &str| {
        let specs: Vec<String> = specs.iter().map(|spec| format!("\"{spec}\"")).collect();
        format!(
            "{{ \"allow\": [ {allow} ],\n\"expose\": [ {} ] }}",
            specs.join(", ")
        )
    };
    let tcp = |port: u16, origin: &Origin| format!("tcp:{port}:{}", origin.address());
    let first = exposes(&[tcp(kept, &one), tcp(moved, &one), tcp(gone, &one)], "");
    let config = Config::new(&first);
    let mut tunnel = Tunnel::builder()
        .listen_again()
        .client_argument("--config")
        .client_argument(config.argument())
        .start();
    tunnel.client.log().wait_for_count(3, ": open at ");
    let sessions = [kept, moved, gone].map(|port| connect(at(port)));
    sessions.iter().for_each(echoes);

    let next = exposes(&[tcp(kept, &one), tcp(moved, &two), tcp(new, &one)], "");
    let mark = tunnel.client.log().mark();
    let line = config.becomes(&next, &tunnel.client, "reload: done");
    assert!(line.contains("2 proxies asked for, 1 closed"), "{line}");
    tunnel
        .client
        .log()
        .wait_for_since(mark, &format!("open at 127.0.0.1:{new}"));
    refuses(gone);
    for port in [kept, moved, new] {
        echoes(&connect(at(port)));
    }
    assert_eq!(two.accepted(), 1);
    sessions.iter().for_each(echoes);

    let line = config.becomes(
        "{ \"allow\": [ \"x\" ] }",
        &tunnel.client,
        "reload: nothing changed",
    );
    assert!(line.contains("line 1: allow[0]"), "{line}");
    echoes(&connect(at(new)));
    // A link that is made anew asks for what is wanted now.
    tunnel.server.kill();
    tunnel.restart_server();
    tunnel.client.log().wait_for_count(8, ": open at ");
    for port in [kept, moved, new] {
        echoes(&connect(at(port)));
    }
    refuses(gone);
}

#[test]
fn what_a_client_no_longer_allows_is_not_dialled_again_and_sessions_stay() {
    let echo = Origin::echo();
    let http = HttpOrigin::greeting();
    let [raw, web] = [free_port(), free_port()];
    let config = Config::new("{ \"allow\": [ \"127.0.0.1:*\" ] }");
    let tunnel = Tunnel::builder()
        .proxy(format!("tcp:{raw}:{}", echo.address()))
        .proxy(format!("http:{web}:{}", http.address()))
        .client_argument("--config")
        .client_argument(config.argument())
        .start();
    let session = connect(at(raw));
    echoes(&session);
    assert_eq!(HttpUser::connect(at(web)).get("/").status, 200);
    assert_eq!(http.open(), 1, "parked");
    config.becomes(
        "{ \"allow\": [ \"127.0.0.1:1\" ] }",
        &tunnel.client,
        "reload: done",
    );
    http.wait_for_open(0);
    expect_closed_at_once(at(raw));
    assert_eq!(HttpUser::connect(at(web)).get("/").status, 403);
    echoes(&session);
}

/// A client's configuration that leads to an `https` target and trusts this authority.
fn trusting(authority: &Authority, target: SocketAddr) -> String {
    format!(
        r#"{{ "allow": [ "localhost:{}" ], "target_ca": "{}" }}"#,
        target.port(),
        authority.file().display()
    )
}

/// A tunnel to that target by a client that reads this.
fn secure_tunnel(config: &Config, target: SocketAddr) -> Tunnel {
    Tunnel::builder()
        .proxy(format!("https:0:localhost:{}", target.port()))
        .client_argument("--config")
        .client_argument(config.argument())
        .start()
}

#[test]
fn who_proved_itself_to_those_no_longer_trusted_answers_and_is_asked_nothing_more() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let (asked, asking) = mpsc::channel();
    let (answer, answers) = mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let origin = HttpOrigin::start_tls(old.server(&["localhost"]), move |exchange| {
        asked.send(()).ok();
        answers.lock().unwrap().recv().ok();
        exchange.greet()
    });
    let config = Config::new(&trusting(&old, origin.address()));
    let tunnel = secure_tunnel(&config, origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    asking.recv_timeout(PATIENCE).expect("a request");
    config.becomes(
        &trusting(&new, origin.address()),
        &tunnel.client,
        "reload: done",
    );
    drop(answer);
    assert_eq!(user.reply("GET").status, 200);
    assert_eq!(user.get("/").status, 502);
    assert_eq!(origin.requests().iter().sum::<usize>(), 1);
    tunnel
        .client
        .log()
        .wait_for("not parked, made before a reload");
}

#[test]
fn who_proves_itself_while_trust_changes_does_so_to_those_trusted_now() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let tls = old.server(&["localhost"]);
    let (came, coming) = mpsc::channel();
    let (heard, hearing) = mpsc::channel();
    let (gate, closed) = mpsc::channel::<()>();
    let closed = Mutex::new(closed);
    let origin = Origin::start(move |stream| {
        came.send(()).ok();
        closed.lock().unwrap().recv().ok();
        if let Ok(1..) = Wire::accept(stream, Some(&tls)).read(&mut [0]) {
            heard.send(()).ok();
        }
    });
    let config = Config::new(&trusting(&old, origin.address()));
    let tunnel = secure_tunnel(&config, origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    coming.recv_timeout(PATIENCE).expect("a connection");
    config.becomes(
        &trusting(&new, origin.address()),
        &tunnel.client,
        "reload: done",
    );
    drop(gate);
    assert_eq!(user.reply("GET").status, 502);
    origin.wait_for_open(0);
    assert_eq!(origin.accepted(), 2, "it is dialled anew");
    assert!(hearing.try_recv().is_err(), "nobody is asked for anything");
}

#[test]
fn a_client_whose_token_has_changed_must_prove_the_new_one() {
    let echo = Origin::echo();
    let scratch = Scratch::new();
    let token = scratch.write("token", "the first of all tokens");
    let theirs = scratch.write("theirs", "the first of all tokens");
    let tunnel = Tunnel::builder()
        .to("tcp", echo.address())
        .server_files("--token-file", &token)
        .client_files("--token-file", &theirs)
        .start();
    let session = connect(tunnel.address());
    echoes(&session);
    tunnel.server.signal("HUP");
    tunnel.server.log().wait_for("reload: done");
    echoes(&session);
    scratch.write("token", "and now for another one");
    tunnel.server.signal("HUP");
    tunnel
        .server
        .log()
        .wait_for("the token of this client has changed");
    tunnel.client.log().wait_for("wrong token");
    let mut ended = &session;
    ended.write_all(b"x").ok();
    eventually("the session is over", || match ended.read(&mut [0]) {
        Ok(0) => Some(()),
        Ok(_) => None,
        Err(_) => Some(()),
    });
}

/// Reloads both sides over and over while users come and go; none of them notices.
fn reloads_under_load(times: usize) {
    let http = HttpOrigin::greeting();
    let echo = Origin::echo();
    let [web, raw, other] = [(); 3].map(|()| free_port());
    let both = |odd: bool| {
        let site = format!("http:{web}:{}", http.address());
        let session = format!("tcp:{raw}:{}", echo.address());
        let more = format!("tcp:{other}:{}", echo.address());
        proxies(&if odd {
            vec![session, more, site]
        } else {
            vec![site, session]
        })
    };
    let allow = |odd: bool| {
        let more = if odd { ", \"10.0.0.0/8:1\"" } else { "" };
        format!("{{ \"allow\": [ \"127.0.0.1:*\"{more} ] }}")
    };
    let (server, client) = (Config::new(&both(false)), Config::new(&allow(false)));
    let tunnel = Tunnel::builder()
        .server_argument("--config")
        .server_argument(server.argument())
        .client_argument("--config")
        .client_argument(client.argument())
        .log("info")
        .start();
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for fresh in [false, false, true] {
            let (over, asked) = (&over, &asked);
            scope.spawn(move || {
                let mut user = HttpUser::connect(at(web));
                while !over.load(Ordering::Relaxed) {
                    if fresh {
                        user = HttpUser::connect(at(web));
                    }
                    assert_eq!(user.get("/").status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..4 {
            let over = &over;
            scope.spawn(move || {
                let session = connect(at(raw));
                while !over.load(Ordering::Relaxed) {
                    echoes(&session);
                }
            });
        }
        for round in 0..times {
            let odd = round % 2 == 0;
            let before = asked.load(Ordering::Relaxed);
            server.becomes_at_once(&both(odd), &tunnel.server, "reload: done");
            client.becomes_at_once(&allow(odd), &tunnel.client, "reload: done");
            eventually("users are served meanwhile", || {
                (asked.load(Ordering::Relaxed) > before).then_some(())
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    println!(
        "{times} reloads of both, {} requests",
        asked.load(Ordering::Relaxed)
    );
    assert_eq!(tunnel.server.log().count(": down ("), 0);
}

#[test]
fn fifty_reloads_under_load_disturb_nobody() {
    reloads_under_load(50);
}

#[test]
#[ignore = "slow"]
fn a_thousand_reloads_under_load_disturb_nobody() {
    reloads_under_load(1000);
}
