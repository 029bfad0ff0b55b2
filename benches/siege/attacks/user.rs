//! Attacks by users.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use super::{dial, is_closed, keep, noise, wait_for_end};
use crate::{attacker::Score, common::reset, ground::Ground, limits};

/// Who say nothing.
const HALF_OPEN: usize = 10_000;
const HALF_OPEN_TLS: usize = 1_000;

/// Descriptors that an attacker and siding need for anything else.
const OTHERS: usize = 400;

/// Who speak byte by byte.
const SLOW: usize = 1_000;

/// Threads of those who are fast.
const THREADS: usize = 8;

/// Connections without a byte.
pub fn half_open(ground: &Ground, score: &Score) {
    silent(ground.http, HALF_OPEN, score);
}

/// The same where TLS is spoken.
pub fn half_open_tls(ground: &Ground, score: &Score) {
    silent(ground.https, HALF_OPEN_TLS, score);
}

fn silent(listener: SocketAddr, count: usize, score: &Score) {
    let count = count.min(limits::descriptors().saturating_sub(OTHERS));
    let begin = |_| {
        score.add(1);
        begin_silent(listener)
    };
    keep(score, THREADS, count, begin, |user| match is_closed(user) {
        true => Err(ErrorKind::UnexpectedEof.into()),
        false => Ok(0),
    });
}

/// Requests whose heads come byte by byte.
pub fn slow_heads(ground: &Ground, score: &Score) {
    const HEAD: &[u8] = b"GET /slow HTTP/1.1\r\nHost: a\r\n";
    const FIELD: &[u8] = b"X-Slow: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n";
    let begin = |_| Ok((begin_silent(ground.http)?, 0));
    keep(score, THREADS, SLOW, begin, |(user, said)| {
        let byte = match HEAD.get(*said) {
            Some(byte) => *byte,
            None => FIELD[(*said - HEAD.len()) % FIELD.len()],
        };
        user.write_all(&[byte])?;
        *said += 1;
        match is_closed(user) {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(1),
        }
    });
}

/// Heads of one line without end, and of fields without end.
pub fn giant_heads(ground: &Ground, score: &Score) {
    let line = [b"GET /".as_slice(), &[b'x'; 1 << 20]].concat();
    let fields = [
        b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec(),
        b"X: y\r\n".repeat(200_000),
    ];
    let large = [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(),
        &[b'y'; 1 << 20],
    ];
    let heads = [line, fields.concat(), large.concat()];
    score.repeat(THREADS, |number| {
        let mut user = dial(ground.http)?;
        // It is answered before the end.
        user.write_all(&heads[number % heads.len()]).ok();
        let mut answer = [0; 12];
        if user.read_exact(&mut answer).is_ok() && !answer.starts_with(b"HTTP/1.1 4") {
            score.fault(format!("answered {:?}", String::from_utf8_lossy(&answer)));
        }
        reset(&user);
        io::Result::Ok(())
    });
}

/// What is no TLS.
pub fn garbage(ground: &Ground, score: &Score) {
    let said = [
        vec![0; 4096],
        noise(1, 16 << 10),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        // A hello that is promised, and then something else; and an alert, data, a record without end.
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc][..], &noise(2, 600)].concat(),
        vec![0x15, 3, 3, 0, 2, 2, 40],
        [&[0x17, 3, 3, 0x40, 0][..], &noise(3, 0x4000)].concat(),
        [&[0x16, 3, 1, 0xff, 0xff][..], &noise(4, 0xffff)].concat(),
    ];
    score.repeat(THREADS, |number| {
        for (turn, said) in said.iter().enumerate() {
            let to = match (number + turn) % 2 {
                0 => ground.https,
                _ => ground.link,
            };
            let mut user = dial(to)?;
            // It may be closed before the last byte.
            user.write_all(said).ok();
            wait_for_end(&user);
            score.add(1);
        }
        io::Result::Ok(())
    });
}

/// Connections to each listener, and from one of them to a target, that are reset at once.
pub fn resets(ground: &Ground, score: &Score) {
    let target = TcpListener::bind(ground.raw_target).expect("the port was kept for us");
    thread::scope(|scope| {
        scope.spawn(|| target.incoming().for_each(drop));
        let listeners = [ground.http, ground.https, ground.raw, ground.link];
        score.repeat(THREADS, |number| {
            let user = dial(listeners[number % listeners.len()])?;
            reset(&user);
            io::Result::Ok(())
        });
    });
}

fn begin_silent(listener: SocketAddr) -> io::Result<TcpStream> {
    let user = dial(listener)?;
    user.set_nonblocking(true)?;
    Ok(user)
}
