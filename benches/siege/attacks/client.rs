//! Attacks by clients: with no token, with a token of their own, before they are let in.

use std::{
    io::{self, ErrorKind, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
};

use rustls::ClientConfig;

use super::{ROUND, dial, expect_closed, is_closed, keep, wait_for_end};
use crate::{
    attacker::Score,
    common::{
        CLIENT, TlsUser, WebSocketPeer, pass, reset,
        websocket::{NONCE, SUBPROTOCOL, frame, frames, kind, request, siding_frame},
    },
    ground::{Ground, HOSTILE_CLIENTS},
    tls::{over_tls, without_tickets},
};

/// Handshakes at a time.
const SLOW: usize = 500;

/// Who stay after they were refused.
const STAYING: usize = 10_000;

type Link = WebSocketPeer<TlsUser>;

/// Hellos in the name of the honest client, at speed.
pub fn wrong_token(ground: &Ground, score: &Score) {
    let tls = without_tickets(&ground.ca);
    score.repeat(HOSTILE_CLIENTS, |_| {
        let mut link = refused(&tls, ground, score)?;
        reset(&link.stream().sock);
        io::Result::Ok(())
    });
}

/// The same, who then stay and go on sending.
pub fn stays(ground: &Ground, score: &Score) {
    let tls = without_tickets(&ground.ca);
    let begin = |_| {
        let mut link = refused(&tls, ground, score)?;
        link.stream().sock.set_nonblocking(true)?;
        score.add(1);
        Ok(link)
    };
    keep(score, HOSTILE_CLIENTS, STAYING, begin, |link| {
        // The server has said goodbye, which is no reason to go: only a reset is.
        link.stream().sock.write_all(b"?")?;
        Ok(0)
    });
}

/// Links that break the protocol, each in another way.
pub fn bad_frames(ground: &Ground, score: &Score) {
    let tls = without_tickets(&ground.ca);
    let junk: [&[u8]; 10] = [
        // Kinds that are not known, or not a client's.
        &siding_frame(0, 99, 0, b""),
        &siding_frame(1, kind::PROXY_CONNECT, 0, b"{}"),
        &siding_frame(0, kind::WELCOME, 0, b"{}"),
        // Out of order: a second hello, an answer to nothing.
        &siding_frame(0, kind::HELLO, 0, b"{}"),
        &siding_frame(1, kind::PROXY_CONNECTED, 0, b""),
        // Above the highest stream.
        &siding_frame(7, kind::PROXY_DATA, 0, b"data"),
        &siding_frame(u64::MAX, kind::PROXY_CREDIT, 0, &[0xff; 4]),
        &siding_frame(1 << 40, kind::PROXY_DISCONNECT, 0, b"{}"),
        // No frame.
        &siding_frame(0, kind::PROXY_OPEN, 0, b"{}")[..7],
        &[0xff; 4096],
    ];
    score.repeat(HOSTILE_CLIENTS, |index| {
        for junk in junk {
            let mut link = enter(&tls, ground, index)?;
            link.send_binary(junk)?;
            wait_for_end(&link.stream().sock);
            score.add(1);
        }
        io::Result::Ok(())
    });
}

/// Streams that are opened by accomplices, and reset at once.
pub fn resets(ground: &Ground, score: &Score) {
    let tls = &without_tickets(&ground.ca);
    thread::scope(|scope| {
        for index in 0..HOSTILE_CLIENTS {
            scope.spawn(move || {
                while !score.is_over() {
                    // A link that is lost is made anew.
                    reset_streams(tls, ground, index, score).ok();
                }
            });
        }
        score.repeat(HOSTILE_CLIENTS, |index| {
            let user = dial(exposed(ground, index))?;
            wait_for_end(&user);
            io::Result::Ok(())
        });
    });
}

fn reset_streams(
    tls: &Arc<ClientConfig>,
    ground: &Ground,
    index: usize,
    score: &Score,
) -> io::Result<()> {
    const RESET: &[u8] = br#"{"how":"abort","reason":"target_reset"}"#;
    let mut link = expose(tls, ground, index)?;
    while !score.is_over() {
        for stream in opened(&mut link)? {
            link.send_binary(&siding_frame(stream, kind::PROXY_DISCONNECT, 0, RESET))?;
        }
    }
    Ok(())
}

/// Streams whose user does not read, with more data than there is credit for.
pub fn overspends(ground: &Ground, score: &Score) {
    /// More than the largest window and all that a kernel takes.
    const ENOUGH: usize = 32 << 20;
    let tls = without_tickets(&ground.ca);
    score.repeat(HOSTILE_CLIENTS, |index| {
        let mut link = expose(&tls, ground, index)?;
        let user = dial(exposed(ground, index))?;
        let stream = loop {
            if let Some(&stream) = opened(&mut link)?.first() {
                break stream;
            }
        };
        link.send_binary(&siding_frame(stream, kind::PROXY_CONNECTED, 0, b""))?;
        let data = siding_frame(stream, kind::PROXY_DATA, 0, &[0; 16_000]);
        for _ in 0..ENOUGH / data.len() {
            if link.send_binary(&data).is_err() {
                break;
            }
        }
        expect_closed(&mut link, score);
        reset(&link.stream().sock);
        reset(&user);
        io::Result::Ok(())
    });
}

/// Pings, requests to close nothing, and credit for streams that are gone: as many to a system call as there
/// may be. Not without a pause, as they cost little to send: siding would take what there is of a processor, and
/// times would be those of the scheduler (see `classes`).
pub fn floods(ground: &Ground, score: &Score) {
    const BYTES: usize = 48 * 1024;
    let tls = without_tickets(&ground.ca);
    let close = siding_frame(0, kind::PROXY_CLOSE, 0, br#"{"proxy_id":"a-1-1"}"#);
    let credit = siding_frame(1, kind::PROXY_CREDIT, 0, &[0, 0, 0, 1]);
    let of = |one: Vec<u8>| one.repeat(BYTES / one.len());
    let floods = [
        of(frame(0x9, b"")),
        frame(0x2, &of(close)),
        frame(0x2, &of(credit)),
    ];
    score.repeat(HOSTILE_CLIENTS, |index| {
        let mut link = expose(&tls, ground, index)?;
        // So that there was a stream.
        reset(&dial(exposed(ground, index))?);
        while opened(&mut link)?.is_empty() {}
        for flood in floods.iter().cycle() {
            link.send_raw(flood)?;
            link.send_raw(&frame(0x9, b"read"))?;
            while link.read_frame()? != (0xa, b"read".to_vec()) {}
            score.add(1);
            pass(ROUND);
            if score.is_over() {
                break;
            }
        }
        io::Result::Ok(())
    });
}

/// Those who come and are slow about it: a third of them each way.
pub fn slow_handshakes(ground: &Ground, score: &Score) {
    let tls = without_tickets(&ground.ca);
    let begin = |number: usize| {
        let slow = match number % 3 {
            0 => Slow::Silent(dial(ground.link)?),
            1 => {
                let mut stream = over_tls(&tls, dial(ground.link)?);
                // The hello of TLS, and nothing after it.
                stream.conn.write_tls(&mut stream.sock)?;
                Slow::Silent(stream.sock)
            }
            _ => {
                let mut stream = over_tls(&tls, dial(ground.link)?);
                stream.conn.complete_io(&mut stream.sock)?;
                Slow::Upgrade(Box::new(stream), 0)
            }
        };
        slow.tcp().set_nonblocking(true)?;
        score.add(1);
        Ok(slow)
    };
    let upgrade = request(ground.link, &[SUBPROTOCOL, NONCE]);
    keep(score, 8, SLOW, begin, |slow| {
        if let Slow::Upgrade(stream, said) = slow
            && let Some(byte) = upgrade.as_bytes().get(*said)
        {
            stream.write_all(&[*byte])?;
            *said += 1;
        }
        match is_closed(slow.tcp()) {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(0),
        }
    });
}

enum Slow {
    Silent(TcpStream),
    /// And how much of the request it has sent.
    Upgrade(Box<TlsUser>, usize),
}

impl Slow {
    fn tcp(&self) -> &TcpStream {
        match self {
            Slow::Silent(stream) => stream,
            Slow::Upgrade(stream, _) => &stream.sock,
        }
    }
}

fn begin(tls: &Arc<ClientConfig>, link: SocketAddr) -> io::Result<Link> {
    WebSocketPeer::begin(over_tls(tls, dial(link)?), link)
}

/// A link in the name of the honest client, whose proof was refused.
fn refused(tls: &Arc<ClientConfig>, ground: &Ground, score: &Score) -> io::Result<Link> {
    let mut link = begin(tls, ground.link)?;
    link.prove(CLIENT, "not the token of honest clients")?;
    if let (0x2, message) = link.read_frame()? {
        score.fault(format!("let in without the token: {message:?}"));
    }
    Ok(link)
}

/// A link of the hostile client of this index, which is let in.
fn enter(tls: &Arc<ClientConfig>, ground: &Ground, index: usize) -> io::Result<Link> {
    let mut link = begin(tls, ground.link)?;
    link.prove(&Ground::id(index), &ground.token)?;
    match link.read_frame()? {
        (0x2, message) if frames(&message)[0].1 == kind::WELCOME => Ok(link),
        (_, payload) => Err(io::Error::other(String::from_utf8_lossy(&payload))),
    }
}

/// As [`enter`], and it has its port.
fn expose(tls: &Arc<ClientConfig>, ground: &Ground, index: usize) -> io::Result<Link> {
    let mut link = enter(tls, ground, index)?;
    let spec = format!("tcp:{}:127.0.0.1:9", ground.exposed[index]);
    let open = format!(r#"{{"request":1,"spec":"{spec}"}}"#);
    link.send_binary(&siding_frame(0, kind::PROXY_OPEN, 0, open.as_bytes()))?;
    let (_, message) = link.read_frame()?;
    match String::from_utf8_lossy(&message).contains("proxy_id") {
        true => Ok(link),
        false => Err(io::Error::other("the port is another's")),
    }
}

fn exposed(ground: &Ground, index: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ground.exposed[index]))
}

/// The streams that the next message of the server opens. Pings are answered.
fn opened(link: &mut Link) -> io::Result<Vec<u64>> {
    match link.read_frame()? {
        (0x2, message) => {
            let opened = frames(&message).into_iter();
            let opened = opened.filter(|(_, kind, _)| *kind == kind::PROXY_CONNECT);
            Ok(opened.map(|(stream, ..)| stream).collect())
        }
        (0x9, payload) => {
            link.send_raw(&frame(0xa, &payload))?;
            Ok(Vec::new())
        }
        (0x8, payload) => Err(io::Error::other(String::from_utf8_lossy(&payload))),
        _ => Ok(Vec::new()),
    }
}
