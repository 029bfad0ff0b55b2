//! One process after another: listeners pass from the old one to the new, and no user is refused.

#![cfg(all(target_os = "linux", feature = "upgrade"))]

mod common;

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::{UnixDatagram, UnixStream},
    },
    process::Command,
    time::{Duration, Instant},
};

use common::{
    Authority, CLIENT, HttpUser, Origin, Process, STAYING, Scratch, ServiceManager, Siding, Tunnel,
    connect, echoes, echoing_bodies, eventually, free_port, tls_user, visited,
};
use rustls::ClientConnection;

/// A process that a server under test has started. Killed on drop.
struct Successor(String);

impl Successor {
    /// Has the process `pid`, which logs as `server` does, started another, which takes over.
    fn of(server: &Siding, pid: &str) -> Self {
        let mark = server.log().mark();
        signal(pid, "USR2");
        let line = server.log().wait_for_since(mark, " is to take over");
        let word = line.split(' ').rev().nth(4).expect("the line names it");
        let successor = Self(word.to_owned());
        let said = format!("process {word} has taken over");
        server.log().wait_for_since(mark, &said);
        successor
    }

    fn is_running(&self) -> bool {
        // Whoever has ended and was not waited for is nobody.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, state)| !state.starts_with('Z'))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.is_running() {
            signal(&self.0, "KILL");
        }
    }
}

fn signal(pid: &str, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid)
        .status()
        .expect("kill belongs to every system");
    assert!(status.success(), "kill -{name} {pid}");
}

/// How long users wait for one client where others of their listener are there.
const OTHERS_AWAITED: Duration = Duration::from_secs(3);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn one_process_after_another_takes_over_and_no_user_is_refused() {
    let (raw, http) = (Origin::digest(), echoing_bodies());
    let echo = Origin::echo();
    let [web, shell] = [(); 2].map(|()| free_port());
    let mut tunnel = Tunnel::builder()
        .listen(at(free_port()))
        // The first process outlives the test, however slow that is.
        .server_config(r#"{ "timeouts": { "drain": "5m" } }"#)
        .proxy(format!("http:{web}:{}", http.address()))
        .allow(http.address().to_string())
        .expose(format!("tcp:0:{}", raw.address()))
        .expose(format!("ssh:{shell}:{}", echo.address()))
        .start();
    let open = tunnel.proxy(1);
    let sessions = [(); 3].map(|()| connect(at(shell)));
    sessions.iter().for_each(echoes);
    let first = tunnel.server.pid().to_string();
    let users_come = || {
        let before = raw.accepted();
        eventually("users come to this one, too", || {
            (raw.accepted() > before + 40).then_some(())
        });
    };
    let (last, tally) = visited(open, at(web), || {
        let mut successors = vec![Successor::of(&tunnel.server, &first)];
        for _ in 0..2 {
            // Who came to the one before is served by it; a client that is still on its way would find the next.
            tunnel
                .client
                .log()
                .wait_for_count(1 + successors.len(), ": up to ");
            let pid = successors.last().expect("one at least").0.clone();
            successors.push(Successor::of(&tunnel.server, &pid));
            let session = connect(at(shell));
            echoes(&session);
            // Whoever was there before is where it was.
            sessions.iter().for_each(echoes);
            users_come();
        }
        tunnel.client.log().wait_for_count(4, ": up to ");
        users_come();
        successors
    });
    println!("{tally:?}");
    assert!(tally.served > 100, "{tally:?}");
    assert_eq!((tally.refused, tally.cut), (0, 0), "{tally:?}");
    // A process that leaves ends each idle connection once.
    assert!(tally.again <= 3 * STAYING, "{tally:?}");
    sessions.iter().for_each(echoes);
    drop(sessions);
    assert!(tunnel.server.wait().success(), "the first has drained");
    let [between @ .., last] = &last[..] else {
        panic!("there were three")
    };
    for process in between {
        eventually("it has drained, too", || {
            (!process.is_running()).then_some(())
        });
    }
    assert!(last.is_running());
    echoes(&connect(at(shell)));
    assert_eq!(
        HttpUser::connect(at(web)).get("/").status,
        200,
        "the last one serves"
    );
}

#[test]
fn a_process_that_cannot_start_changes_nothing() {
    let echo = Origin::echo();
    let scratch = Scratch::new();
    let port = free_port();
    let good = format!(
        "{{ \"proxies\": [ \"{CLIENT}=tcp:{port}:{}\" ] }}",
        echo.address()
    );
    let config = scratch.write("server.json", &good);
    let tunnel = Tunnel::builder()
        .listen(at(free_port()))
        .allow(echo.address().to_string())
        .server_files("--config", &config)
        .start();
    let session = connect(at(port));
    echoes(&session);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("it is bound");
    for (wrong, said) in [
        ("{ \"proxies\": 7 }".to_owned(), "proxies: invalid type"),
        (
            good.replace(&format!("tcp:{port}:"), &format!("tcp:{}:", taken.port())),
            "cannot listen on",
        ),
    ] {
        scratch.write("server.json", wrong);
        let mark = tunnel.server.log().mark();
        tunnel.server.signal("USR2");
        let line = tunnel
            .server
            .log()
            .wait_for_since(mark, "upgrade: nothing has changed");
        assert!(line.contains("before it was at work"), "{line}");
        tunnel.server.log().wait_for_since(mark, said);
        echoes(&session);
        echoes(&connect(at(port)));
    }
    scratch.write("server.json", good);
    let _successor = Successor::of(&tunnel.server, &tunnel.server.pid().to_string());
    echoes(&session);
    echoes(&connect(at(port)));
}

#[test]
fn a_process_that_is_not_at_work_yet_stops_with_the_one_before_it() {
    let scratch = Scratch::new();
    let program = scratch.path("program");
    symlink(env!("CARGO_BIN_EXE_siding"), &program).expect("a name of its own");
    let mut command = Command::new(&program);
    let mut server = Process::start(
        "siding",
        command.args(["server", "--listen", "127.0.0.1:0"]),
    );
    server.log().wait_for("listening for clients");
    // What is installed there now never comes to its work.
    let idler = scratch.write("idler", "#!/bin/sh\nexec sleep 1000\n");
    fs::set_permissions(&idler, Permissions::from_mode(0o755)).expect("it is ours");
    fs::rename(&idler, &program).expect("as it is installed");
    server.signal("USR2");
    let line = server.log().wait_for(" is to take over");
    let word = line.split(' ').rev().nth(4).expect("the line names it");
    let successor = Successor(word.to_owned());
    assert!(successor.is_running());
    server.signal("USR2");
    server.log().wait_for("has not been heard of");
    server.terminate();
    assert!(server.wait().success());
    assert!(!successor.is_running());
}

#[test]
fn users_who_have_only_begun_are_served_by_the_process_that_they_came_to() {
    let authority = Authority::new();
    let echo = Origin::echo();
    let target = echo.address();
    let (certificate, key) = authority.files(&["localhost"]);
    let [secure, socks, named, introduced] = [(); 4].map(|()| free_port());
    let tunnel = Tunnel::builder()
        .listen(at(free_port()))
        .url("wss://localhost:{port}")
        .client_files("--ca", &authority.file())
        .allow(target.to_string())
        .server_config(format!(
            r#"{{ "cert": "{}", "key": "{}", "proxies": [
                {{ "client": "{CLIENT}", "spec": "tcp:{secure}:{target}", "tls": true }},
                {{ "client": "{CLIENT}", "spec": "socks5:{socks}" }},
                {{ "client": "{CLIENT}", "spec": "tls:{named}:{target}" }},
                {{ "client": "{CLIENT}", "spec": "tcp:{introduced}:{target}",
                   "accept_proxy": ["127.0.0.1"] }} ] }}"#,
            certificate.display(),
            key.display(),
        ))
        .start();
    // Nothing is said before the first write.
    let mut user = tls_user(authority.client(), at(secure), "localhost");
    let [mut to_socks, mut to_named, mut introduced] =
        [socks, named, introduced].map(|port| connect(at(port)));
    // They are in, and have said nothing, or not all of it.
    introduced.write_all(b"PROXY TCP4 10.0.0.1 ").expect("sent");
    let _successor = Successor::of(&tunnel.server, &tunnel.server.pid().to_string());
    introduced
        .write_all(b"10.0.0.2 1 2\r\n")
        .expect("it is still there");
    echoes(&introduced);
    to_socks.write_all(&[5, 1, 0]).expect("it is still there");
    let mut method = [0; 2];
    to_socks
        .read_exact(&mut method)
        .expect("which method it is to be");
    assert_eq!(method, [5, 0]);
    user.write_all(b"?").expect("the session stands");
    let mut byte = [0];
    user.read_exact(&mut byte).expect("it is echoed");
    assert_eq!(byte, *b"?");
    // What it says goes to the target as it is, which echoes it.
    let mut hello = Vec::new();
    let mut session =
        ClientConnection::new(authority.client(), "localhost".try_into().expect("a name"))
            .expect("a session");
    session.write_tls(&mut hello).expect("into memory");
    to_named.write_all(&hello).expect("it is still there");
    let mut echoed = vec![0; hello.len()];
    to_named.read_exact(&mut echoed).expect("its own hello");
    assert_eq!(echoed, hello);
}

#[test]
fn users_wait_for_their_own_client_where_several_share_a_listener() {
    let origin = echoing_bodies();
    let web = free_port();
    let entry = |client: &str| {
        let target = origin.address();
        format!(
            r#"{{ "client": "{client}", "spec": "http:{web}:{target}", "hosts": [ "{client}.test" ] }}"#
        )
    };
    let config = format!(
        r#"{{ "proxies": [ {}, {}, {} ] }}"#,
        entry(CLIENT),
        entry("second"),
        entry("away"),
    );
    let tunnel = Tunnel::builder()
        .listen(at(free_port()))
        .allow(origin.address().to_string())
        .server_config(config)
        .start();
    let second = Siding::start([
        "client",
        "--server",
        &format!("ws://{}", tunnel.link()),
        "--id",
        "second",
        "--allow",
        &origin.address().to_string(),
    ]);
    let log = tunnel.server.log();
    let mut successors: Vec<Successor> = Vec::new();
    let mut status = 0;
    while status != 200 {
        log.wait_for_count(1 + successors.len(), "link second: up from");
        second.signal("STOP");
        let mark = log.mark();
        let began = Instant::now();
        let pid = successors.last().map(|successor| successor.0.clone());
        let pid = pid.unwrap_or_else(|| tunnel.server.pid().to_string());
        successors.push(Successor::of(&tunnel.server, &pid));
        log.wait_for_since(mark, &format!("link {CLIENT}: up from"));
        let mut user = HttpUser::connect(at(web));
        user.send("GET / HTTP/1.1\r\nHost: second.test\r\n\r\n");
        second.signal("CONT");
        status = user.reply("GET").status;
        // On a busy machine the client may be late by itself, and there is another try.
        let is_late = status == 503 && began.elapsed() >= OTHERS_AWAITED && successors.len() < 10;
        assert!(status == 200 || is_late, "{status}");
    }
    // Nobody waits for one that was not there before.
    let mut user = HttpUser::connect(at(web));
    user.send("GET / HTTP/1.1\r\nHost: away.test\r\n\r\n");
    assert_eq!(user.reply("GET").status, 503);
}

/// A server that is started with what a process before it has left.
fn start_with_notes(notes: &str, config: &str) -> Siding {
    let scratch = Scratch::new();
    let notes = scratch.write("notes", notes);
    let config = scratch.write("server.json", config);
    let file = File::open(notes).expect("it was written");
    let server = Siding::start_inheriting(
        &[],
        vec![("siding-notes".into(), file.into())],
        [
            "server",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &config.display().to_string(),
        ],
    );
    server.link_address();
    server
}

#[test]
fn notes_give_nothing_that_the_configuration_does_not() {
    let [chosen, first, second] = [(); 3].map(|()| free_port());
    // A port that the system has chosen, on an address that is not to be listened on any more.
    let notes = format!(
        r#"{{ "chosen": [ {{ "client": "{CLIENT}", "spec": "tcp:0:target:80",
            "address": "127.0.0.2:{chosen}" }} ] }}"#
    );
    let config = format!(r#"{{ "bind": "127.0.0.1", "proxies": [ "{CLIENT}=tcp:0:target:80" ] }}"#);
    let server = start_with_notes(&notes, &config);
    let address = server.proxy_address("tcp:0:target:80");
    assert_eq!(address.ip(), at(0).ip());
    // More proxies than its client may have.
    let exposed = [first, second].map(|port| {
        format!(
            r#"{{ "client": "{CLIENT}", "spec": "tcp:{port}:target:80", "options": {{}},
                "address": "127.0.0.1:{port}" }}"#
        )
    });
    let notes = format!(r#"{{ "exposed": [ {} ] }}"#, exposed.join(", "));
    let config = format!(
        r#"{{ "clients": [ {{ "id": "{CLIENT}", "ports": "1-65535",
            "max_proxies": 1 }} ] }}"#
    );
    let server = start_with_notes(&notes, &config);
    server
        .log()
        .wait_for(&format!("127.0.0.1:{second} is not taken over: "));
    connect(at(first));
    // What is no notes at all.
    for notes in ["", "7", "{\"exposed\": [ {} ] }", "\u{0}"] {
        let server = start_with_notes(notes, "{}");
        server.log().wait_for("are of no use");
    }
}

#[test]
fn a_client_says_that_it_has_nothing_to_pass_on() {
    let echo = Origin::echo();
    let tunnel = Tunnel::to("tcp", echo.address());
    tunnel.client.signal("USR2");
    tunnel.client.log().wait_for("only a server passes");
    echoes(&tunnel.connect());
}

#[test]
fn listeners_of_a_service_manager_are_used_by_their_addresses() {
    let echo = Origin::echo();
    let scratch = Scratch::new();
    let [clients, proxy, nobodys] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [link, port, closed] =
        [&clients, &proxy, &nobodys].map(|listener| listener.local_addr().expect("bound"));
    let (unix, _theirs) = UnixStream::pair().expect("a pair");
    let dull = connect(echo.address());
    // They wait before anybody is there to take them.
    let waiting = connect(port);
    let server = Siding::start_inheriting(
        &[("LISTEN_PID", "")],
        vec![
            ("clients".into(), clients.into()),
            (String::new(), proxy.into()),
            ("nobody".into(), nobodys.into()),
            ("unix".into(), unix.into()),
            ("connected".into(), dull.into()),
        ],
        [
            "server",
            "--listen",
            &link.to_string(),
            "--proxy",
            &format!("{CLIENT}=tcp:{}:{}", port.port(), echo.address()),
            "--log",
            "debug",
        ],
    );
    server
        .log()
        .wait_for(&format!("the inherited listener on {closed} is nobody's"));
    server.log().wait_for("inherited descriptor 6, unix");
    server
        .log()
        .wait_for("inherited descriptor 7, connected: it does not listen");
    let plan = Tunnel::builder().allow(echo.address().to_string());
    let client = plan.client_alone(&scratch, link);
    client.log().wait_for(": up to ");
    echoes(&connect(port));
    drop(waiting);
    eventually("what is nobody's is closed", || {
        TcpStream::connect(closed).is_err().then_some(())
    });
    // Of another process's descriptors nothing is taken.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("bound");
    let server = Siding::start_inheriting(
        &[("LISTEN_PID", "1")],
        vec![("clients".into(), other.into())],
        ["server", "--listen", &address.to_string()],
    );
    server.log().wait_for("cannot listen on");
}

fn name(address: SocketAddr) -> String {
    address.to_string().replace(':', "-")
}

#[test]
fn a_service_manager_is_told_and_keeps_listeners_from_one_process_to_the_next() {
    let echo = Origin::echo();
    let scratch = Scratch::new();
    let manager = ServiceManager::new();
    let [link, port, gone] = [(); 3].map(|()| at(free_port()));
    let config = |ports: &[SocketAddr]| {
        let entries: Vec<String> = ports
            .iter()
            .map(|at| format!("\"{CLIENT}=tcp:{}:{}\"", at.port(), echo.address()))
            .collect();
        format!("{{ \"proxies\": [ {} ] }}", entries.join(", "))
    };
    let path = scratch.write("server.json", config(&[port, gone]));
    let arguments = [
        "server",
        "--listen",
        &link.to_string(),
        "--config",
        &path.display().to_string(),
    ]
    .map(str::to_owned);
    let variables = [
        ("NOTIFY_SOCKET", manager.address.as_str()),
        ("FDSTORE", "100"),
    ];
    let mut server = Siding::start_inheriting(&variables, vec![], arguments.clone());
    let mut kept = vec![
        manager.expect_to_keep(&name(link)),
        manager.expect_to_keep(&name(port)),
    ];
    manager.expect_to_keep(&name(gone));
    manager.expect("READY=1\n");
    // A client's proxies are kept as those of the configuration are, and those that go are forgotten.
    let plan = Tunnel::builder()
        .expose(format!("tcp:0:{}", echo.address()))
        .allow(echo.address().to_string());
    let client = plan.client_alone(&scratch, link);
    let line = client.log().wait_for(": open at ");
    let exposed = line
        .split([' ', ','])
        .find_map(|word| word.parse::<SocketAddr>().ok());
    let exposed = exposed.expect("the line says where");
    kept.push(manager.expect_to_keep(&name(exposed)));
    scratch.write("server.json", config(&[port]));
    server.signal("HUP");
    let (said, _) = manager.next();
    let stamp = said
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .expect(&said);
    stamp.trim_end().parse::<u64>().expect("microseconds");
    manager.expect(&format!("FDSTOREREMOVE=1\nFDNAME={}\n", name(gone)));
    manager.expect("READY=1\n");
    for port in [port, exposed] {
        echoes(&connect(port));
    }

    server.terminate();
    manager.expect("STOPPING=1\n");
    kept.push(manager.expect_to_keep("siding-notes"));
    assert!(server.wait().success());
    // Between the two they wait.
    let waiting = [port, exposed].map(connect);
    waiting
        .iter()
        .for_each(|mut user| user.write_all(b"?").expect("it is connected"));
    let server = Siding::start_inheriting(&variables, kept, arguments);
    manager.expect("FDSTOREREMOVE=1\nFDNAME=siding-notes\n");
    // What it keeps already it is not given again.
    manager.expect("READY=1\n");
    for mut user in &waiting {
        let mut byte = [0];
        user.read_exact(&mut byte).expect("it is served in the end");
        assert_eq!(byte, *b"?");
    }
    client
        .log()
        .wait_for_count(2, &format!(": open at {exposed}"));

    // The process that takes over is the one to look after.
    let successor = Successor::of(&server, &server.pid().to_string());
    let (mut ready, mut main) = (false, false);
    while !(ready && main) {
        let (said, _) = manager.next();
        ready |= said == "READY=1\n";
        main |= said == format!("MAINPID={}\n", successor.0);
        assert_ne!(said, "STOPPING=1\n", "the service goes on");
    }
}

#[test]
fn a_service_manager_does_not_keep_what_is_nobodys_by_now() {
    let manager = ServiceManager::new();
    let [clients, nobodys] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [link, gone] =
        [&clients, &nobodys].map(|listener| listener.local_addr().expect("it is bound"));
    let kept = [(link, clients), (gone, nobodys)];
    let kept = kept.map(|(address, listener)| (name(address), listener.into()));
    // As after a crash: there are no notes.
    let _server = Siding::start_inheriting(
        &[("NOTIFY_SOCKET", &manager.address)],
        kept.into(),
        ["server", "--listen", &link.to_string()],
    );
    manager.expect(&format!("FDSTOREREMOVE=1\nFDNAME={}\n", name(gone)));
    manager.expect("READY=1\n");
}

#[test]
fn a_service_manager_hears_the_next_process_when_it_has_been_told_of_it() {
    let scratch = Scratch::new();
    let manager = ServiceManager::new();
    manager.asks_who_it_is();
    let [before, after] = [(); 2].map(|()| at(free_port()));
    let config = |listen: SocketAddr| format!("{{ \"listen\": \"{listen}\" }}");
    let path = scratch.write("server.json", config(before));
    let server = Siding::start_inheriting(
        &[("NOTIFY_SOCKET", &manager.address)],
        vec![],
        ["server", "--config", &path.display().to_string()],
    );
    manager.expect_to_keep(&name(before));
    manager.expect("READY=1\n");
    scratch.write("server.json", config(after));
    let first = server.pid().to_string();
    let successor = Successor::of(&server, &first);
    // It listens to the main process alone (NotifyAccess=main).
    let mut main = first;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|said| said != "READY=1\n") {
        let (said, sender) = manager.next_by();
        assert_eq!(sender, main, "{said}");
        match said.strip_prefix("MAINPID=") {
            Some(next) => main = next.trim_end().to_owned(),
            None if main == successor.0 => heard.push(said),
            None => {}
        }
    }
    let expected = [
        format!("FDSTORE=1\nFDNAME={}\n", name(after)),
        format!("FDSTOREREMOVE=1\nFDNAME={}\n", name(before)),
    ];
    assert_eq!(heard[..2], expected);
}

#[test]
fn a_service_manager_has_a_sign_of_life_as_often_as_it_wants_one() {
    let manager = ServiceManager::abstract_one();
    let variables = [
        ("NOTIFY_SOCKET", manager.address.as_str()),
        ("FDSTORE", "0"),
        ("WATCHDOG_USEC", "400000"),
    ];
    let server =
        Siding::start_inheriting(&variables, vec![], ["server", "--listen", "127.0.0.1:0"]);
    manager.expect("READY=1\n");
    for _ in 0..5 {
        assert_eq!(manager.next().0, "WATCHDOG=1\n");
    }
    server.terminate();
    manager.expect("STOPPING=1\n");
}

#[test]
fn a_service_manager_that_reads_nothing_holds_nobody_up() {
    let manager = ServiceManager::new();
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("it is new");
    while sender.send_to(b"X=1", &manager.address).is_ok() {}
    let mut server = Siding::start_inheriting(
        &[
            ("NOTIFY_SOCKET", &manager.address),
            ("WATCHDOG_USEC", "200000"),
        ],
        vec![],
        ["server", "--listen", "127.0.0.1:0", "--log", "debug"],
    );
    server.log().wait_for("listening for clients");
    server
        .log()
        .wait_for_count(2, "the service manager is not told");
    connect(server.link_address());
    server.terminate();
    assert!(server.wait().success());
}
