//! The origin: it answers what it is asked for, in a way that can be checked to the byte.
//!
//! | request | answer |
//! |---|---|
//! | `GET /fixed/SEED/LENGTH` | bytes of the pattern, with their length |
//! | `GET /chunked/SEED/LENGTH` | the same in chunks |
//! | `GET /slow/SEED/LENGTH` | the same in small chunks, one after the other |
//! | `POST /echo/NUMBER` | the body |
//! | `POST /upload/NUMBER/LENGTH` | whether the body was the pattern of that number, as a word |
//! | `GET /upgrade` | 101, and from then on what comes |

use std::{
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;

use crate::{
    common::{Exchange, HttpOrigin, PATIENCE, Pattern, Then, expect_pattern, pass, send_pattern},
    ledger::Ledger,
};

/// What it says of an upload.
pub const RECEIVED: &str = "received";

/// Bytes of a chunk.
const CHUNK: usize = 5_003;

/// Bytes of a slow answer's chunk, and the time between two of them.
const MORSEL: usize = 20;
const MORSEL_EVERY: Duration = Duration::from_millis(100);

/// How long it keeps every other connection that says nothing; a shorter time than the client parks one, and
/// longer than the client gives it to a request that cannot be repeated.
const KEPT: Duration = Duration::from_secs(3);

/// Starts one, with TLS or without.
pub fn start(tls: Option<Arc<ServerConfig>>, ledger: &Arc<Ledger>) -> HttpOrigin {
    let ledger = Arc::clone(ledger);
    let answer = move |exchange: &mut Exchange<'_>| answer(exchange, &ledger);
    match tls {
        None => HttpOrigin::start(answer),
        Some(config) => HttpOrigin::start_tls(config, answer),
    }
}

fn answer(exchange: &mut Exchange<'_>, ledger: &Ledger) -> io::Result<Then> {
    let stream = exchange.stream().get_ref().tcp();
    // Users may take longer than any test would.
    stream.set_write_timeout(None)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let target = exchange.request.target.clone();
    let mut words = target.split('/').skip(1);
    let what = words.next().unwrap_or_default();
    let mut number = || {
        let number = words.next().and_then(|word| word.parse::<u64>().ok());
        number.ok_or(ErrorKind::InvalidData)
    };
    match what {
        "fixed" => {
            let (seed, length) = (number()?, number()?);
            exchange.send(head(&format!("Content-Length: {length}")))?;
            send_pattern(exchange.stream().get_mut(), seed, length)?;
        }
        "chunked" => {
            let body = Pattern::bytes(number()?, number()? as usize);
            exchange.send(head("Transfer-Encoding: chunked"))?;
            send_chunks(exchange, &body, CHUNK, Duration::ZERO)?;
        }
        "slow" => {
            let body = Pattern::bytes(number()?, number()? as usize);
            exchange.send(head("Transfer-Encoding: chunked"))?;
            send_chunks(exchange, &body, MORSEL, MORSEL_EVERY)?;
        }
        "echo" => {
            ledger.posted(number()?);
            let body = exchange.body()?.bytes;
            exchange.send(head(&format!("Content-Length: {}", body.len())))?;
            exchange.send(body)?;
        }
        "upload" => {
            let (number, length) = (number()?, number()?);
            ledger.posted(number);
            expect_body(exchange, number, length)?;
            exchange.send(head(&format!("Content-Length: {}", RECEIVED.len())))?;
            exchange.send(RECEIVED)?;
        }
        "upgrade" => {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )?;
            echo(exchange)?;
            return Ok(Then::Close);
        }
        _ => return Err(ErrorKind::InvalidData.into()),
    }
    if exchange.connection.is_multiple_of(2) {
        exchange
            .stream()
            .get_ref()
            .tcp()
            .set_read_timeout(Some(KEPT))?;
    }
    Ok(Then::Keep)
}

/// Reads a body that has to be the pattern of a seed, however it is framed.
fn expect_body(exchange: &mut Exchange<'_>, seed: u64, length: u64) -> io::Result<()> {
    if exchange.request.field("content-length").is_some() {
        return expect_pattern(exchange.stream(), seed, length);
    }
    let body = exchange.body()?.bytes;
    match body.len() as u64 == length {
        true => expect_pattern(&*body, seed, length),
        false => Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("{} bytes of {length} came", body.len()),
        )),
    }
}

fn send_chunks(
    exchange: &mut Exchange<'_>,
    body: &[u8],
    size: usize,
    pause: Duration,
) -> io::Result<()> {
    for chunk in body.chunks(size) {
        let head = format!("{:x}\r\n", chunk.len());
        exchange.send([head.as_bytes(), chunk, b"\r\n"].concat())?;
        if !pause.is_zero() {
            pass(pause);
        }
    }
    exchange.send("0\r\n\r\n")
}

fn echo(exchange: &mut Exchange<'_>) -> io::Result<()> {
    let stream = exchange.stream();
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        stream.get_mut().write_all(&bytes[..count])?;
    }
}

fn head(framing: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")
}
