//! Attacks by a target of the honest client, with users of its own who go there.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{dial, noise, wait_for_end};
use crate::{
    attacker::Score,
    common::{Origin, Random, pass, reset},
    ground::Ground,
};

/// Users who go there.
const USERS: usize = 16;

/// One in so many of them reads an answer that has no end.
const READERS: usize = 4;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Reads nothing, while users send bodies without end.
pub fn deaf(ground: &Ground, score: &Score) {
    let _target = target(ground, |_stream| pass(super::PATIENCE));
    let body = vec![b'x'; 64 << 10];
    score.repeat(USERS, |_| {
        let mut user = dial(ground.detour)?;
        user.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n")?;
        // Until nobody takes more of it.
        user.set_write_timeout(Some(super::CONNECTING))?;
        while user.write_all(&body).is_ok() {}
        reset(&user);
        io::Result::Ok(())
    });
}

/// Answers by fields without end.
pub fn endless_heads(ground: &Ground, score: &Score) {
    let fields = b"X-Endless: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(100);
    let line = vec![b'y'; 8 << 10];
    let turn = AtomicUsize::new(0);
    let _target = target(ground, move |mut stream| {
        if request(&stream).is_err() {
            return;
        }
        let endless: &[u8] = match turn.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => &fields,
            _ => &line,
        };
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while sent.is_ok() {
            sent = stream.write_all(endless);
        }
    });
    score.repeat(USERS, |_| expect_refusal(ground, score));
}

/// Answers by bodies without end.
pub fn endless_bodies(ground: &Ground, score: &Score) {
    let chunk = [b"4000\r\n".as_slice(), &noise(1, 0x4000), b"\r\n"].concat();
    let _target = target(ground, move |mut stream| {
        let mut sent = request(&stream).and_then(|()| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        });
        while sent.is_ok() {
            sent = stream.write_all(&chunk);
        }
    });
    score.repeat(USERS, |number| {
        let mut user = dial(ground.detour)?;
        user.write_all(GET)?;
        let mut piece = vec![0; 64 << 10];
        user.read_exact(&mut piece[..1])?;
        match number % READERS {
            0 => {
                for _ in 0..100 {
                    user.read_exact(&mut piece)?;
                }
            }
            _ => pass(super::CONNECTING),
        }
        reset(&user);
        io::Result::Ok(())
    });
}

/// Answers by what is no HTTP.
pub fn garbage(ground: &Ground, score: &Score) {
    let turn = AtomicUsize::new(0);
    let _target = target(ground, move |mut stream| {
        let seed = turn.fetch_add(1, Ordering::Relaxed);
        let answer = match seed % 4 {
            0 => noise(seed, 10_000),
            1 => b"\0".repeat(100),
            2 => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n".to_vec(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".to_vec(),
        };
        request(&stream)
            .and_then(|()| stream.write_all(&answer))
            .ok();
    });
    score.repeat(USERS, |_| {
        let mut user = dial(ground.detour)?;
        user.write_all(GET)?;
        wait_for_end(&user);
        io::Result::Ok(())
    });
}

/// Closes, or resets, anywhere.
pub fn closes(ground: &Ground, score: &Score) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n0123456789012345678901234567890123456789";
    let turn = AtomicUsize::new(0);
    let _target = target(ground, move |mut stream| {
        let seed = turn.fetch_add(1, Ordering::Relaxed);
        let mut random = Random::new(seed as u64);
        let is_read = random.below(4) > 0;
        let said = random.below(ANSWER.len() as u64 + 1) as usize;
        if !is_read || request(&stream).is_ok() {
            stream.write_all(&ANSWER[..said]).ok();
        }
        if random.below(2) == 0 {
            reset(&stream);
        }
    });
    score.repeat(USERS, |_| {
        let mut user = dial(ground.detour)?;
        user.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")?;
        wait_for_end(&user);
        io::Result::Ok(())
    });
}

fn target(ground: &Ground, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Origin {
    let listener = TcpListener::bind(ground.target).expect("the port was kept for us");
    Origin::on(listener, serve)
}

/// Reads a request without a body.
fn request(stream: &TcpStream) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        if line?.is_empty() {
            return Ok(());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// A request whose answer is siding's own: the target's is none, or who asks is turned away by the limits.
fn expect_refusal(ground: &Ground, score: &Score) -> io::Result<()> {
    let mut user = dial(ground.detour)?;
    user.write_all(GET)?;
    let mut answer = [0; 12];
    user.read_exact(&mut answer)?;
    let ours = [b"HTTP/1.1 50".as_slice(), b"HTTP/1.1 429"];
    if !ours.iter().any(|status| answer.starts_with(status)) {
        score.fault(format!("answered {:?}", String::from_utf8_lossy(&answer)));
    }
    reset(&user);
    Ok(())
}
