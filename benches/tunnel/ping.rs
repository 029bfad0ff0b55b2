//! Small round trips: 64 bytes there and back, one at a time on each stream, as fast as they come or
//! at a pace.
//!
//! A round trip is measured from its own first byte: one that comes late delays the next of its stream
//! instead of counting for those that were not sent meanwhile.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    bulk::{Want, ask},
    payload::{at, check},
};

/// Bytes of a message.
const MESSAGE: usize = 64;

/// How many streams there are, and when each of them sends.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// Streams, of which each has a thread.
    pub streams: u64,
    /// From one message to the next of a stream; zero sends the next at once.
    pub pace: Duration,
}

impl Pings {
    /// Sends for `warm_up` and then for `span`, and says how long the round trips of the latter took.
    ///
    /// # Errors
    /// A stream's own; `InvalidData` where something else came back.
    pub fn run(
        &self,
        address: SocketAddr,
        warm_up: Duration,
        span: Duration,
    ) -> io::Result<Vec<Duration>> {
        let start = Instant::now();
        thread::scope(|scope| {
            let streams: Vec<_> = (0..self.streams)
                .map(|number| {
                    // Evenly spread over the pace.
                    let first = self.pace * number as u32 / self.streams as u32;
                    scope.spawn(move || {
                        self.stream(address, number, start + first, start + warm_up, span)
                    })
                })
                .collect();
            let mut all = Vec::new();
            for stream in streams {
                all.extend(stream.join().expect("a user does not panic")?);
            }
            Ok(all)
        })
    }

    fn stream(
        &self,
        address: SocketAddr,
        seed: u64,
        mut due: Instant,
        counts_from: Instant,
        span: Duration,
    ) -> io::Result<Vec<Duration>> {
        let mut stream = ask(address, Want::Echo, seed)?;
        let mut took = Vec::new();
        let mut answer = [0; MESSAGE];
        for offset in (0..).step_by(MESSAGE) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            if sent >= counts_from + span {
                break;
            }
            stream.write_all(at(seed, offset, MESSAGE))?;
            stream.read_exact(&mut answer)?;
            let answered = Instant::now();
            check(seed, offset, &answer)?;
            if sent >= counts_from {
                took.push(answered - sent);
            }
            due = answered.max(due + self.pace);
        }
        Ok(took)
    }
}
