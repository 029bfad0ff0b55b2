//! A session of a proxy that is closed while it goes on.

use std::{
    io::{self, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    common::{Pattern, digest_reply, pass, with_deadlines},
    ledger::{Deed, Ledger},
};

/// Bytes that it sends before and after, and those that it is sent.
const BEFORE: usize = 10_000;
const AFTER: usize = 20_000;
const DOWN: u64 = 40_000;

/// How long the proxy may take to open once both sides have their configurations.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

const STAY: Deed = Deed {
    name: "session of a closed proxy",
    is_request: false,
    is_timed: false,
};

/// The session, in its middle.
pub struct Guest {
    stream: TcpStream,
    seed: u64,
    began: Instant,
}

impl Guest {
    /// Begins, as soon as the proxy is there; what began then is in the ledger, if it failed.
    pub fn come(door: SocketAddr, seed: u64, began: Instant, ledger: &Ledger) -> Option<Guest> {
        let come = || {
            let mut stream = connect(door)?;
            with_deadlines(&stream);
            stream.write_all(&[seed.to_be_bytes(), DOWN.to_be_bytes()].concat())?;
            stream.write_all(&Pattern::bytes(seed, BEFORE))?;
            Ok(stream)
        };
        match come() {
            Ok(stream) => Some(Guest {
                stream,
                seed,
                began,
            }),
            Err(error) => {
                ledger.enter(STAY, began, Err(error));
                None
            }
        }
    }

    /// The proxy is closed: says the rest, and hears all.
    pub fn leave(self, ledger: &Ledger) {
        let done = self.rest();
        ledger.enter(STAY, self.began, done);
    }

    fn rest(&self) -> io::Result<()> {
        let all = Pattern::bytes(self.seed, BEFORE + AFTER);
        (&self.stream).write_all(&all[BEFORE..])?;
        self.stream.shutdown(Shutdown::Write)?;
        digest_reply(&self.stream, self.seed, all.len() as u64, DOWN)
    }
}

fn connect(door: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + OPEN_WITHIN;
    loop {
        match TcpStream::connect(door) {
            Err(_) if Instant::now() < deadline => pass(LOOK_EVERY),
            connected => return connected,
        }
    }
}
