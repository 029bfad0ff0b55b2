//! A request that is said again, to another socket.

use super::*;
use crate::tunnel::replay::REPLAY_MAX;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n";

/// A stream whose request was opened with `head` and `body`, adopted and not yet connected.
fn request(pair: &mut Pair, head: &[u8], body: &[u8]) -> (Handle, Handle) {
    let framing = Framing::Length(body.len() as u64);
    let stream = pair.open(0, Some(facts()), head, Body::new(framing, Coding::Plain));
    let socket = pair.server.sockets.0.get_mut(&user(0)).unwrap();
    socket.input.extend(body);
    pair.server.mux.schedule(stream);
    pair.run(false);
    let far = opened(&pair.client, 0);
    (stream, far)
}

fn connect(pair: &mut Pair, far: Handle, n: u32) {
    pair.client
        .sockets
        .0
        .entry(target(n))
        .or_insert_with(|| Socket {
            room: usize::MAX,
            ..Socket::default()
        });
    let End {
        mux,
        budget,
        sockets,
        happened,
        ..
    } = &mut pair.client;
    happened.extend(mux.connected(far, target(n), sockets, budget, pair.now));
}

fn output(pair: &Pair, n: u32) -> Vec<u8> {
    pair.client.sockets.0[&target(n)].output.clone()
}

fn keep(pair: &mut Pair, far: Handle, repeatable: bool) {
    let End { mux, budget, .. } = &mut pair.client;
    mux.keep_replay(far, repeatable, budget);
}

fn rewind(pair: &mut Pair, far: Handle) -> bool {
    let End { mux, budget, .. } = &mut pair.client;
    mux.rewind(far, budget, pair.now)
}

/// The answer to it ends the exchange, and leaves nothing behind.
fn answer(pair: &mut Pair, far: Handle) {
    let End { mux, budget, .. } = &mut pair.client;
    mux.send(
        far,
        b"HTTP/1.1 204\r\n\r\n".to_vec(),
        true,
        budget,
        pair.now,
    );
    mux.respond(far, Body::new(Framing::None, Coding::Plain), true);
    pair.run(false);
    let answered = StreamEnd::Answered {
        keep: true,
        request_whole: true,
    };
    assert_eq!(pair.server_ended(0), Some(answered));
    assert_eq!(pair.client_ended(0), Some(answered));
    assert!(pair.is_clean());
}

#[test]
fn a_request_is_said_again_whole_wherever_its_socket_failed() {
    for fails_at in 0..=HEAD.len() + 4 {
        for early in [true, false] {
            let mut pair = Pair::new(64 << 20);
            let (_, far) = if early {
                request(&mut pair, HEAD, b"body")
            } else {
                // The body comes after the connection.
                let body = Body::new(Framing::Length(4), Coding::Plain);
                let stream = pair.open(0, Some(facts()), HEAD, body);
                pair.run(false);
                (stream, opened(&pair.client, 0))
            };
            keep(&mut pair, far, true);
            pair.client.sockets.0.insert(
                target(0),
                Socket {
                    room: fails_at,
                    ..Socket::default()
                },
            );
            connect(&mut pair, far, 0);
            pair.run(false);
            pair.client
                .sockets
                .0
                .get_mut(&target(0))
                .unwrap()
                .write_fails = true;
            if !early {
                let user = pair.server.sockets.0.get_mut(&user(0)).unwrap();
                user.input.extend(b"body");
                let stream = pair.server.mux.handle(0);
                pair.server.mux.schedule(stream);
                pair.run(false);
            }
            assert!(rewind(&mut pair, far), "after {fails_at} bytes");
            assert!(!rewind(&mut pair, far), "and not once more");
            pair.run(false);
            connect(&mut pair, far, 1);
            pair.run(false);
            assert_eq!(output(&pair, 1), [HEAD, b"body"].concat());
            answer(&mut pair, far);
        }
    }
}

#[test]
fn what_comes_while_it_is_connected_anew_follows_what_was_kept() {
    let mut pair = Pair::new(64 << 20);
    let body = Body::new(Framing::Length(4), Coding::Plain);
    let stream = pair.open(0, Some(facts()), HEAD, body);
    pair.run(false);
    let far = opened(&pair.client, 0);
    keep(&mut pair, far, true);
    connect(&mut pair, far, 0);
    pair.run(false);
    assert!(rewind(&mut pair, far));
    let socket = pair.server.sockets.0.get_mut(&user(0)).unwrap();
    socket.input.extend(b"body");
    pair.server.mux.schedule(stream);
    pair.run(false);
    connect(&mut pair, far, 1);
    pair.run(false);
    assert_eq!(output(&pair, 1), [HEAD, b"body"].concat());
    answer(&mut pair, far);
}

#[test]
fn what_may_not_be_repeated_is_said_again_only_if_no_byte_of_it_was_written() {
    for (room, again) in [(0, true), (1, false)] {
        let mut pair = Pair::new(64 << 20);
        let (_, far) = request(&mut pair, HEAD, b"body");
        keep(&mut pair, far, false);
        pair.client.sockets.0.insert(
            target(0),
            Socket {
                room,
                ..Socket::default()
            },
        );
        connect(&mut pair, far, 0);
        pair.run(false);
        assert_eq!(rewind(&mut pair, far), again, "{room}");
        if again {
            connect(&mut pair, far, 1);
            pair.run(false);
            assert_eq!(output(&pair, 1), [HEAD, b"body"].concat());
            answer(&mut pair, far);
        }
    }
}

#[test]
fn a_request_past_the_limit_is_not_kept_and_one_at_it_is() {
    for (length, again) in [(REPLAY_MAX, true), (REPLAY_MAX + 1, false)] {
        let mut pair = Pair::new(64 << 20);
        let body = vec![7; length - HEAD.len()];
        let framing = Framing::Length(body.len() as u64);
        let stream = pair.open(0, Some(facts()), HEAD, Body::new(framing, Coding::Plain));
        pair.run(false);
        let far = opened(&pair.client, 0);
        keep(&mut pair, far, true);
        connect(&mut pair, far, 0);
        let socket = pair.server.sockets.0.get_mut(&user(0)).unwrap();
        socket.input.extend(&body);
        pair.server.mux.schedule(stream);
        pair.run(false);
        assert_eq!(output(&pair, 0), [HEAD, &body].concat());
        assert_eq!(pair.client.budget.held(), if again { length } else { 0 });
        assert_eq!(rewind(&mut pair, far), again, "{length}");
    }
}

#[test]
fn what_was_kept_is_let_go_once_the_origin_has_answered() {
    let mut pair = Pair::new(64 << 20);
    let (_, far) = request(&mut pair, HEAD, b"body");
    keep(&mut pair, far, true);
    connect(&mut pair, far, 0);
    pair.run(false);
    assert_eq!(pair.client.budget.held(), HEAD.len() + 4);
    let End { mux, budget, .. } = &mut pair.client;
    mux.drop_replay(far, budget);
    assert_eq!(pair.client.budget.held(), 0);
    assert!(!rewind(&mut pair, far));
    answer(&mut pair, far);
}

#[test]
fn nothing_is_kept_while_memory_is_short() {
    let mut pair = Pair::new(64 << 20);
    let (_, far) = request(&mut pair, HEAD, b"body");
    pair.client.budget.note_unread(32 << 20);
    keep(&mut pair, far, true);
    connect(&mut pair, far, 0);
    assert!(!rewind(&mut pair, far));
}
