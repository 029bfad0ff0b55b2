//! Unix sockets as targets: raw streams and pooled exchanges as over TCP, and nothing dialled that was not
//! allowed by its path.

#![cfg(unix)]

mod common;

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use common::{
    AT_ONCE, CLIENT, HttpUser, Origin, PATIENCE, Scratch, Siding, Tunnel, WebSocketPeer,
    eventually, expect_closed_at_once, expect_end, expect_pattern, reset, send_pattern,
    websocket::{kind, siding_frame},
};

/// Many windows, many batches.
const LONG: u64 = 5 << 20;

/// A target at a unix socket: a thread for each connection.
struct Target {
    path: PathBuf,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    _scratch: Scratch,
}

impl Target {
    /// Serves the connection of each number, from 1.
    fn start(serve: impl Fn(UnixStream, usize) + Send + Sync + 'static) -> Self {
        let scratch = Scratch::new();
        let path = scratch.path("target.sock");
        let listener = UnixListener::bind(&path).expect("a fresh path");
        let (accepted, open): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let stopped = Arc::new(AtomicBool::default());
        let target = Self {
            path,
            accepted: Arc::clone(&accepted),
            open: Arc::clone(&open),
            stopped: Arc::clone(&stopped),
            _scratch: scratch,
        };
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("descriptors are left");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                open.fetch_add(1, Ordering::SeqCst);
                let (open, serve) = (Arc::clone(&open), Arc::clone(&serve));
                thread::spawn(move || {
                    serve(stream, number);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        target
    }

    /// Answers each GET by its target, its Host and the connection's number, until `last` requests were
    /// served on a connection.
    fn greeting(last: usize) -> Self {
        Self::start(move |stream, number| {
            let mut reader = BufReader::new(stream);
            for _ in 0..last {
                let Ok(Some((start, host))) = head(&mut reader) else {
                    return;
                };
                let text = format!("{start} for {host} on connection {number}");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    fn spec(&self, kind: &str) -> String {
        format!("{kind}:0:unix:{}", self.path.display())
    }

    fn rule(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// A tunnel whose one proxy leads here, which the client may dial.
    fn tunnel(&self, kind: &str) -> Tunnel {
        Tunnel::builder()
            .proxy(self.spec(kind))
            .allow(self.rule())
            .start()
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn wait_for_open(&self, count: usize) {
        eventually("the target has so many connections open", || {
            (self.open.load(Ordering::SeqCst) == count).then_some(())
        });
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
    }
}

/// The request line, without its version, and the Host of the next request; `None` at the end.
fn head(reader: &mut BufReader<UnixStream>) -> io::Result<Option<(String, String)>> {
    let (mut start, mut host, mut line) = (None, String::new(), String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => return Ok(start.map(|start| (start, host))),
            text if start.is_none() => {
                start = Some(text.trim_end_matches(" HTTP/1.1").to_owned());
            }
            text => {
                if let Some(value) = text.strip_prefix("Host: ") {
                    host = value.to_owned();
                }
            }
        }
    }
}

#[test]
fn bytes_come_back_from_an_echo_and_halves_end_by_themselves() {
    let target = Target::start(|stream, _| {
        io::copy(&mut &stream, &mut &stream).ok();
    });
    let tunnel = target.tunnel("tcp");
    let before = tunnel.descriptors();
    let user = tunnel.connect();
    thread::scope(|scope| {
        scope.spawn(|| {
            send_pattern(&user, 1, LONG).unwrap();
            user.shutdown(Shutdown::Write).unwrap();
        });
        expect_pattern(&user, 1, LONG).unwrap();
    });
    expect_end(&user);
    target.wait_for_open(0);
    drop(user);
    tunnel.wait_for_descriptors(before);
}

#[test]
fn a_user_that_has_ended_its_half_receives_the_whole_reply() {
    let target = Target::start(|mut stream, _| {
        expect_pattern(&stream, 2, LONG).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end of the request");
        send_pattern(&stream, 3, LONG).unwrap();
    });
    for kind in ["tcp", "ssh", "telnet"] {
        let tunnel = target.tunnel(kind);
        let user = tunnel.connect();
        send_pattern(&user, 2, LONG).unwrap();
        user.shutdown(Shutdown::Write).unwrap();
        expect_pattern(&user, 3, LONG).unwrap();
        expect_end(&user);
    }
}

#[test]
fn a_target_that_has_ended_its_half_receives_the_whole_upload() {
    let (ended, report) = mpsc::channel();
    let target = Target::start(move |mut stream, _| {
        send_pattern(&stream, 4, LONG).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        expect_pattern(&stream, 5, LONG).unwrap();
        ended.send(stream.read(&mut [0]).unwrap()).unwrap();
    });
    let tunnel = target.tunnel("tcp");
    let user = tunnel.connect();
    expect_pattern(&user, 4, LONG).unwrap();
    expect_end(&user);
    send_pattern(&user, 5, LONG).unwrap();
    drop(user);
    assert_eq!(report.recv_timeout(PATIENCE).unwrap(), 0, "the end");
}

#[test]
fn a_target_that_closes_on_unread_bytes_resets_its_user() {
    let (close, closes) = mpsc::channel();
    let closes = std::sync::Mutex::new(closes);
    let target = Target::start(move |stream, _| {
        // It has come, and is left unread.
        eventually("a byte", || {
            match socket2::SockRef::from(&stream).recv_with_flags(
                &mut [std::mem::MaybeUninit::uninit()],
                2, // MSG_PEEK
            ) {
                Ok(1) => Some(()),
                _ => None,
            }
        });
        closes.lock().unwrap().recv().unwrap();
    });
    let tunnel = target.tunnel("tcp");
    let mut user = tunnel.connect();
    user.write_all(b"?").unwrap();
    close.send(()).unwrap();
    let error = user.read(&mut [0]).expect_err("a reset, not an end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_user_that_resets_is_gone_for_the_target_at_once() {
    let (ended, report) = mpsc::channel();
    let target = Target::start(move |mut stream, _| {
        stream.write_all(b"!").unwrap();
        ended.send(stream.read(&mut [0])).unwrap();
    });
    let tunnel = target.tunnel("tcp");
    let mut user = tunnel.connect();
    user.read_exact(&mut [0]).unwrap();
    reset(user);
    // A unix socket cannot tell it from an end.
    let seen = report.recv_timeout(AT_ONCE).expect("it learns of it");
    assert_eq!(seen.unwrap(), 0);
}

#[test]
fn http_requests_share_one_connection() {
    let target = Target::greeting(usize::MAX);
    let tunnel = target.tunnel("http");
    for number in 0..20 {
        let mut user = HttpUser::connect(tunnel.address());
        let reply = user.get(&format!("/{number}"));
        assert_eq!(
            (reply.status, reply.text()),
            (
                200,
                format!("GET /{number} for origin.test on connection 1")
            )
        );
    }
    assert_eq!(target.accepted(), 1);
    tunnel.client.log().wait_for_count(19, "reused");
}

#[test]
fn a_parked_connection_that_its_target_closes_is_used_no_more() {
    let target = Target::greeting(2);
    let tunnel = target.tunnel("http");
    for number in 0..6 {
        let reply = HttpUser::connect(tunnel.address()).get("/");
        let connection = number / 2 + 1;
        assert_eq!(
            (reply.status, reply.text()),
            (
                200,
                format!("GET / for origin.test on connection {connection}")
            )
        );
        target.wait_for_open(1 - number % 2);
    }
}

#[test]
fn a_target_without_a_name_is_the_machine_itself() {
    let target = Target::greeting(usize::MAX);
    let config = format!(
        r#"{{ "expose": [ {{ "spec": "{}", "host": "target" }} ] }}"#,
        target.spec("http")
    );
    let tunnel = Tunnel::builder().client_config(config).start();
    let proxy = tunnel.server.proxy_address(&target.spec("http"));
    let reply = HttpUser::connect(proxy).get("/");
    assert_eq!(reply.text(), "GET / for localhost on connection 1");
}

#[test]
fn what_a_client_exposes_it_allows_and_nothing_else() {
    let target = Target::greeting(usize::MAX);
    let other = Target::greeting(usize::MAX);
    let tunnel = Tunnel::builder()
        .proxy(other.spec("http"))
        .proxy(other.spec("tcp"))
        .expose(target.spec("http"))
        .allow("*:*")
        .allow("127.0.0.0/8:*")
        .start();
    let reply = HttpUser::connect(tunnel.proxy(0)).get("/");
    assert_eq!(reply.status, 403);
    expect_closed_at_once(tunnel.proxy(1));
    tunnel
        .client
        .log()
        .wait_for_count(2, "refused, target_not_allowed: unix:");
    let reply = HttpUser::connect(tunnel.proxy(2)).get("/");
    assert_eq!(reply.status, 200);
    assert_eq!((target.accepted(), other.accepted()), (1, 0));
}

#[test]
fn a_socket_that_cannot_be_connected_is_answered_with_the_reason() {
    let scratch = Scratch::new();
    let path = scratch.path("target.sock");
    let rule = format!("unix:{}", path.display());
    let tunnel = Tunnel::builder()
        .proxy(format!("http:0:{rule}"))
        .proxy(format!("tcp:0:{rule}"))
        .allow(rule.clone())
        .start();
    let log = tunnel.client.log();
    let refused = |status: u16, reason: &str, why: &str| {
        let mark = log.mark();
        let reply = HttpUser::connect(tunnel.proxy(0)).get("/");
        assert_eq!(reply.status, status);
        log.wait_for_all_of(mark, &["INFO", &rule, why], PATIENCE);
        log.wait_for_since(mark, &format!("refused, {reason}"));
        expect_closed_at_once(tunnel.proxy(1));
    };
    refused(502, "target_unreachable", "No such file or directory");

    let listener = UnixListener::bind(&path).unwrap();
    forbid(&path);
    if UnixStream::connect(&path).is_err() {
        refused(502, "target_unreachable", "Permission denied");
    } else {
        println!("skipped: permissions are not for the superuser");
    }
    drop(listener);
    fs::remove_file(&path).unwrap();

    drop(UnixListener::bind(&path).unwrap());
    refused(502, "target_refused", "Connection refused");
    fs::remove_file(&path).unwrap();

    let target = Target::greeting(usize::MAX);
    fs::rename(&target.path, &path).unwrap();
    let reply = HttpUser::connect(tunnel.proxy(0)).get("/");
    assert_eq!(reply.status, 200, "it is there now");
    fs::rename(&path, &target.path).unwrap();
}

fn forbid(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
}

/// TCP lets whoever has no place in the queue wait; a unix socket says so.
#[cfg(target_os = "linux")]
#[test]
fn a_socket_whose_queue_is_full_is_busy() {
    let scratch = Scratch::new();
    let path = scratch.path("target.sock");
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let spec = format!("http:0:unix:{}", path.display());
    let tunnel = Tunnel::builder().expose(spec).start();
    let reply = HttpUser::connect(tunnel.address()).get("/");
    assert_eq!(reply.status, 503);
    let log = tunnel.client.log();
    log.wait_for("as many connections wait there as may");
    log.wait_for("refused, target_busy");
    // A place is free when one is accepted.
    drop(full.accept().unwrap());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(full.accept().unwrap());
    assert_eq!(user.reply("GET").status, 502, "nobody answers");
}

#[test]
fn who_has_waited_for_a_place_is_dialled_for_by_the_rules_of_now() {
    let (answer, answers) = mpsc::channel();
    let answers = std::sync::Mutex::new(answers);
    let target = Target::start(move |stream, _| {
        let mut reader = BufReader::new(stream);
        while let Ok(Some(_)) = head(&mut reader) {
            answers.lock().unwrap().recv().unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
        }
    });
    let scratch = Scratch::new();
    let config = |rule: &str| {
        let json =
            format!(r#"{{ "allow": [ "{rule}" ], "pool": {{ "max_active_per_target": 1 }} }}"#);
        scratch.write("client.json", json)
    };
    let tunnel = Tunnel::builder()
        .proxy(target.spec("http"))
        .client_argument("--config")
        .client_argument(config(&target.rule()).display().to_string())
        .start();
    let log = tunnel.client.log();
    let mut users = [(); 2].map(|()| HttpUser::connect(tunnel.address()));
    for user in &mut users {
        user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    log.wait_for("waits for a place");
    let mark = log.mark();
    config("unix:/run/another.sock");
    log.wait_for_since(mark, "reload: done");
    // Whichever of them is served.
    answer.send(()).unwrap();
    answer.send(()).unwrap();
    let mut statuses = users.map(|mut user| user.reply("GET").status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
    assert_eq!(target.accepted(), 1);
}

#[test]
fn no_path_of_a_forward_proxys_user_is_dialled() {
    let target = Target::greeting(usize::MAX);
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow(target.rule())
        .start();
    let path = target.path.display();
    for (request, expected) in [
        // A host that is called so, and its port left out.
        (format!("GET http://unix:{path}/"), 403),
        (format!("CONNECT unix:{path}"), 400),
        (format!("CONNECT unix:{path}:80"), 400),
        (format!("CONNECT [unix:{path}]:80"), 400),
    ] {
        let mut user = HttpUser::connect(tunnel.address());
        user.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(user.reply("GET").status, expected, "{request}");
    }
    assert_eq!(target.accepted(), 0);
}

#[test]
fn whatever_a_server_names_is_refused_in_order() {
    let target = Target::greeting(usize::MAX);
    let path = target.path.display().to_string();
    let (said, hears) = mpsc::channel();
    let server = Origin::start(move |stream| {
        let Ok(mut link) = WebSocketPeer::accept(stream) else {
            return;
        };
        link.wait_for_message();
        let welcome = br#"{"window":65536,"version":"9"}"#;
        link.send_binary(&siding_frame(0, kind::WELCOME, 0, welcome))
            .unwrap();
        let hosts = [
            ("tcp", "unix:run/x".into()),
            ("tcp", "unix:".into()),
            ("tcp", "unix:/".into()),
            ("tcp", format!("unix:{path}\\u0000")),
            ("tcp", format!("unix:{}", "/x".repeat(1000))),
            ("tcp", format!("unix:/tmp/..{path}")),
            ("tcp", format!("unix:{path}x")),
            ("https", format!("unix:{path}")),
            ("quic", format!("unix:{path}")),
        ];
        for (stream, (protocol, host)) in hosts.iter().enumerate() {
            let request = if *protocol == "https" {
                r#","request":{}"#
            } else {
                ""
            };
            let connect = format!(
                r#"{{"proxy_id":"a-1-1","user_id":"user-1-{stream}","remote_host":"{host}","remote_port":0,"protocol":"{protocol}"{request}}}"#
            );
            let id = stream as u64 + 1;
            link.send_binary(&siding_frame(
                id,
                kind::PROXY_CONNECT,
                0,
                connect.as_bytes(),
            ))
            .unwrap();
            let answer = link.wait_for_message();
            let text = String::from_utf8_lossy(&answer[12..]).into_owned();
            said.send((answer[8], text)).unwrap();
        }
    });
    let url = format!("ws://{}", server.address());
    let allowed = target.rule();
    let arguments = ["client", "--server", &url, "--id", CLIENT];
    let _client = Siding::start(arguments.iter().chain(&["--allow", &allowed]));
    for expected in [
        "name_not_found",
        "name_not_found",
        "name_not_found",
        "name_not_found",
        "name_not_found",
        "name_not_found",
        "target_not_allowed",
        "protocol_not_supported",
    ] {
        let (kind, text) = hears.recv_timeout(PATIENCE).unwrap();
        assert!(text.contains(expected), "{kind}: {text}, not {expected}");
    }
    // A word that is not known is raw, and the path is allowed.
    let (kind, text) = hears.recv_timeout(PATIENCE).unwrap();
    assert_eq!((kind, text.as_str()), (kind::PROXY_CONNECTED, ""));
}
