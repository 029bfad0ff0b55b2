//! What reviews have found and mended: links that say more than they may, memory and descriptors that
//! a few can take from all. (How transfers end is in `regressions_ends`.)

mod common;

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Mutex, mpsc},
};

use common::{
    CLIENT, HttpOrigin, HttpUser, Origin, PATIENCE, Refusal, Siding, Then, Tunnel, WebSocketPeer,
    connect, connections_to, echoes, eventually, expect_closed_at_once, wait_until_read,
    websocket::{frames, hello, kind, siding_frame},
};
use socket2::{Domain, Socket, Type};

/// What would be a line of its own in the log, and colour it.
const FORGERY: &str = "x\n2026-01-01T00:00:00Z [ERROR] forged \u{1b}[31mline";

#[test]
fn a_server_that_has_not_proved_itself_has_nothing_dialled() {
    let target = Origin::echo();
    let port = target.address().port();
    let mut message = siding_frame(
        1,
        kind::PROXY_CONNECT,
        0,
        format!(
            r#"{{"proxy_id":"a-1-1","user_id":"user-1-1","remote_host":"127.0.0.1","remote_port":{port},"protocol":"tcp"}}"#
        )
        .as_bytes(),
    );
    message.extend(siding_frame(1, kind::PROXY_DATA, 0, b"?"));
    message.extend(siding_frame(1, kind::PROXY_CREDIT, 0, &[0, 1, 0, 0]));
    let (server, refusal) = rogue(move |mut link| {
        link.send_binary(&message).unwrap();
        link.wait_for_refusal()
    });
    let client = client(
        server.address(),
        &["--allow", &target.address().to_string()],
    );
    let refusal = refusal.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&refusal, Refusal::Closed(1002, text) if text.contains("proxy_connect")),
        "{refusal:?}"
    );
    client.log().wait_for("broke the protocol");
    assert_eq!(
        (target.accepted(), connections_to(target.address())),
        (0, 0)
    );
}

#[test]
fn a_client_that_drains_opens_no_proxy() {
    let server = server();
    let mut link = WebSocketPeer::welcomed(server.link_address(), "edge-2");
    let mut message = goaway();
    message.extend(open("tcp:0:127.0.0.1:22"));
    link.send_binary(&message).unwrap();
    let refusal = link.wait_for_refusal();
    assert!(
        matches!(&refusal, Refusal::Closed(1002, text) if text.contains("proxy_open")),
        "{refusal:?}"
    );
    server.log().wait_for("link edge-2: down");
    assert_eq!(server.log().count(": tcp on "), 0);
}

#[test]
fn users_of_a_client_that_is_gone_do_not_reach_the_next_one_in_its_place() {
    let server = server();
    for drains_first in [true, false] {
        let mark = server.log().mark();
        let mut gone = WebSocketPeer::welcomed(server.link_address(), "edge-2");
        gone.send_binary(&open("tcp:0:127.0.0.1:22")).unwrap();
        assert_eq!(gone.wait_for_message()[8], kind::PROXY_OPENED);
        let proxy = server.proxy_address("tcp:0:127.0.0.1:22");
        if drains_first {
            gone.send_binary(&goaway()).unwrap();
            gone.wait_for_refusal();
        } else {
            drop(gone);
        }
        server.log().wait_for_since(mark, "link edge-2: down");
        // Another client has its slot, before its hello and after it.
        let mut next = WebSocketPeer::siding(server.link_address());
        expect_closed_at_once(proxy);
        next.send_binary(&siding_frame(0, kind::HELLO, 0, &hello("edge-3")))
            .unwrap();
        assert_eq!(kinds(&next.wait_for_message()), [kind::WELCOME]);
        expect_closed_at_once(proxy);
        // The answer to a question is all that it is told.
        next.send_binary(&open("tcp:0:127.0.0.1:23")).unwrap();
        assert_eq!(kinds(&next.wait_for_message()), [kind::PROXY_OPENED]);
    }
}

#[test]
fn a_clients_words_forge_no_line_of_the_servers_log() {
    let server = server();
    let mut link = WebSocketPeer::siding(server.link_address());
    link.send_close(1000, FORGERY).unwrap();
    assert_told_in_one_line(&server, "refused (closed by peer: x");
    let mut link = WebSocketPeer::siding(server.link_address());
    let version = FORGERY.replace('\n', "\\n").replace('\u{1b}', "\\u001b");
    let hello = format!(r#"{{"id":"edge-2","window":65536,"version":"{version}"}}"#);
    link.send_binary(&siding_frame(0, kind::HELLO, 0, hello.as_bytes()))
        .unwrap();
    assert_told_in_one_line(&server, "link edge-2: up from ");
}

#[test]
fn a_servers_words_forge_no_line_of_the_clients_log() {
    let (server, _refusal) = rogue(|mut link| {
        link.send_close(1000, FORGERY).unwrap();
        link.wait_for_refusal()
    });
    let client = client(server.address(), &[]);
    assert_told_in_one_line(&client, "closed by peer: x");
}

#[test]
fn half_heads_beyond_the_budget_refuse_no_other_user() {
    const HALF_HEADS: usize = 100;
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "limits": { "undelivered": "1MiB" } }"#)
        .start();
    let half = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(30_000));
    // Three times the budget, all of it read.
    let users: Vec<TcpStream> = (0..HALF_HEADS)
        .map(|_| {
            let mut user = tunnel.connect();
            // It may be refused before the last byte.
            user.write_all(half.as_bytes()).ok();
            wait_until_read(&user);
            user
        })
        .collect();
    assert_eq!(HttpUser::connect(tunnel.address()).get("/").status, 200);
    drop(users);
}

#[test]
fn interim_answers_without_end_are_a_bad_answer() {
    const MANY: usize = 10_000;
    let origin = HttpOrigin::start(|exchange| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
        for _ in 0..MANY {
            // Until it is cut off.
            exchange.send(interim)?;
        }
        exchange.greet()
    });
    let tunnel = Tunnel::to("http", origin.address());
    let mut user = HttpUser::connect(tunnel.address());
    user.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answers = std::iter::repeat_with(|| user.reply("GET").status);
    let interims = answers.take_while(|status| *status == 103).count();
    assert!(interims < MANY, "{interims} were passed on");
    user.expect_end();
    origin.wait_for_open(0);
}

#[test]
fn a_parked_connection_serves_while_every_dial_hangs() {
    let (listener, fillers) = full_listener();
    let hanging = listener.local_addr().unwrap().as_socket().unwrap();
    let origin = HttpOrigin::greeting();
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow("127.0.0.1:*")
        .client_config(r#"{ "limits": { "dials": 1 } }"#)
        .start();
    let url = format!("http://{}/", origin.address());
    assert_eq!(HttpUser::connect(tunnel.address()).get(&url).status, 200);
    origin.wait_for_open(1);
    let before = connections_to(hanging);
    let mut waiting = tunnel.connect();
    write!(
        waiting,
        "CONNECT {hanging} HTTP/1.1\r\nHost: {hanging}\r\n\r\n"
    )
    .unwrap();
    eventually("the only dial is under way", || {
        (connections_to(hanging) > before).then_some(())
    });
    let reply = HttpUser::connect(tunnel.address()).get(&url);
    assert_eq!(reply.text(), "GET / on connection 1\n");
    drop(fillers);
}

#[test]
fn a_slow_upload_gets_no_408_inside_an_answer_that_has_begun() {
    let origin = HttpOrigin::start(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789")?;
        // The five bytes of the body that come, and the end.
        exchange.stream().read_exact(&mut [0; 6])?;
        Ok(Then::Close)
    });
    let tunnel = Tunnel::builder()
        .to("http", origin.address())
        .server_config(r#"{ "timeouts": { "request_body": "2s" } }"#)
        .start();
    let mut user = tunnel.connect();
    user.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        .unwrap();
    let mut answer = Vec::new();
    // An end or a reset: what counts is that nothing is put in the place of what is missing.
    user.read_to_end(&mut answer).ok();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(body, "0123456789");
    user.shutdown(Shutdown::Both).ok();
    origin.wait_for_open(0);
}

#[test]
fn a_server_at_its_limit_of_descriptors_says_so_once_however_many_come_and_go() {
    const USERS: usize = 80;
    let origin = Origin::echo();
    let tunnel = Tunnel::builder()
        .to("tcp", origin.address())
        .server_descriptors(40)
        .start();
    let mut waiting: Vec<TcpStream> = (0..USERS).map(|_| tunnel.connect()).collect();
    tunnel.server.log().wait_for("out of descriptors");
    // Whoever leaves makes room for one who waits, and then there is none again.
    for user in waiting.drain(..) {
        echoes(&user);
    }
    origin.wait_for_open(0);
    assert_eq!(origin.accepted(), USERS);
    assert_eq!(tunnel.server.log().count("out of descriptors"), 1);
}

#[test]
fn a_long_queue_at_one_listener_does_not_keep_others_out() {
    const QUEUE: usize = 100;
    /// There are three listeners, each of which may have its turn first; a busy machine tells late of it.
    const TURNS_MAX: usize = 20;
    let (crowded, quiet) = (Origin::echo(), Origin::echo());
    let tunnel = Tunnel::builder()
        .to("tcp", crowded.address())
        .to("ssh", quiet.address())
        .server_descriptors(64)
        .start();
    let before = tunnel.server.descriptors();
    let mut queue: VecDeque<TcpStream> = (0..QUEUE).map(|_| tunnel.connect()).collect();
    tunnel.server.log().wait_for("out of descriptors");
    let mut user = connect(tunnel.proxy(1));
    user.write_all(b"?").unwrap();
    let mut link = WebSocketPeer::knock(tunnel.link()).unwrap();
    // For each who leaves, more come: there is never room for more than one, and always a queue.
    let mut leave = || {
        let first = queue.pop_front().expect("there is always one");
        echoes(&first);
        drop(first);
        queue.extend((0..3).map(|_| tunnel.connect()));
    };
    for waiting in [&mut user, &mut link] {
        waiting.set_nonblocking(true).unwrap();
        let turns = (0..QUEUE).take_while(|_| {
            leave();
            waiting.peek(&mut [0]).is_err()
        });
        let turns = turns.count();
        assert!(turns <= TURNS_MAX, "not let in after {turns} have left");
    }
    drop((user, link, queue));
    eventually("all have left", || {
        (tunnel.server.descriptors() == before).then_some(())
    });
    echoes(&connect(tunnel.proxy(1)));
}

/// A server without proxies.
fn server() -> Siding {
    Siding::start(["server", "--listen", "127.0.0.1:0", "--log", "debug"])
}

/// A client with these further arguments.
fn client(link: SocketAddr, arguments: &[&str]) -> Siding {
    let url = format!("ws://{link}");
    Siding::start(
        ["client", "--server", &url, "--id", CLIENT, "--log", "debug"]
            .iter()
            .chain(arguments),
    )
}

/// A server that serves its first client by `serve`, right after the upgrade, and says how that ended.
fn rogue(
    serve: impl FnOnce(WebSocketPeer) -> Refusal + Send + 'static,
) -> (Origin, mpsc::Receiver<Refusal>) {
    let (ended, report) = mpsc::channel();
    let serve = Mutex::new(Some(serve));
    let origin = Origin::start(move |stream| {
        let serve = serve.lock().unwrap().take();
        if let (Some(serve), Ok(link)) = (serve, WebSocketPeer::accept(stream)) {
            ended.send(serve(link)).ok();
        }
    });
    (origin, report)
}

/// No later stream than the first one.
fn goaway() -> Vec<u8> {
    siding_frame(0, kind::GOAWAY, 0, br#"{"last":0}"#)
}

/// Asks for a proxy.
fn open(spec: &str) -> Vec<u8> {
    let open = format!(r#"{{"request":1,"spec":"{spec}"}}"#);
    siding_frame(0, kind::PROXY_OPEN, 0, open.as_bytes())
}

/// The kinds of the frames of a message.
fn kinds(message: &[u8]) -> Vec<u8> {
    frames(message).iter().map(|(_, kind, _)| *kind).collect()
}

/// The line of `part` is the only one that holds what the peer said, and shows it without control
/// characters.
#[track_caller]
fn assert_told_in_one_line(siding: &Siding, part: &str) {
    let line = siding.log().wait_for(part);
    assert!(!line.contains('\u{1b}'), "{line:?}");
    assert!(line.contains("[ERROR]"), "it is all in one line: {line:?}");
}

/// A listener that nobody connects to any more: its queue is full, and stays so while the second value
/// lives.
fn full_listener() -> (Socket, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fillers = std::iter::repeat_with(|| {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        // In progress, for ever as to most of them.
        filler.connect(&address).ok();
        filler
    });
    let fillers = fillers.take(3).collect();
    (listener, fillers)
}
