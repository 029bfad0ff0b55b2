//! The streams of one link: what a batch costs to fill, and a message to take apart, by the number of
//! streams that live and of those that are busy.
//!
//! The sockets move no bytes: what is left is the mux's own work. What a stream sends it is given back
//! as credit, and what it receives is granted anew, outside of what is measured.

use std::{
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use siding::{
    clock::Now,
    http::Body,
    key::Key,
    tunnel::{
        Outlook, Sockets, Standing,
        control::ProxyConnect,
        frame::{BATCH_MAX, Batch, Flags, HEADER_BYTES, Kind, Message, StreamId},
        mux::{Handle, Mux, Opening, Side},
        window::Budget,
    },
};

use crate::key;

/// Streams that live: one, a home's, a small server's, and more than any link is known to have.
const LIVE: [u32; 4] = [1, 16, 1_000, 100_000];

/// Streams that are busy where most are not.
const FEW: u32 = 16;

/// What a stream has to say at a time: a keystroke.
const KEYSTROKE: usize = 64;

/// How many of them fill a batch.
const FRAMES: usize = BATCH_MAX / (HEADER_BYTES + KEYSTROKE);

/// From one stream to the next: a prime, so that all are met, in an order that no cache foresees.
const STRIDE: u32 = 7_919;

/// As in the tunnel, while the link has taken nothing yet in a turn.
const QUANTUM: usize = 16 * 1024;

/// Sockets that take all, and have what they are told to have.
struct Endless {
    /// Bytes that one read finds.
    chunk: usize,
    /// How many more reads find something, by socket.
    reads: Vec<u32>,
}

impl Sockets for Endless {
    fn read(&mut self, key: Key, into: &mut [u8]) -> io::Result<usize> {
        let reads = &mut self.reads[key.index as usize];
        match reads.checked_sub(1) {
            Some(fewer) => *reads = fewer,
            None => return Err(io::ErrorKind::WouldBlock.into()),
        }
        Ok(into.len().min(self.chunk))
    }

    fn unread(&mut self, _: Key, _: &[u8]) {}

    fn write(&mut self, _: Key, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn shutdown(&mut self, _: Key) {}

    fn outlook(&mut self, _: Key) -> Outlook {
        Outlook::Quiet
    }

    fn standing(&self, _: Key) -> Standing {
        Standing::Quiet
    }
}

/// A server's end of a link.
struct End {
    mux: Mux,
    budget: Budget,
    sockets: Endless,
    batch: Batch,
    streams: Vec<Handle>,
    now: Now,
}

impl End {
    /// So many raw streams, connected and silent.
    fn new(live: u32) -> End {
        let budget = Budget::new(64 << 20);
        let mut end = End {
            mux: Mux::new(Side::Server, &budget),
            sockets: Endless {
                chunk: KEYSTROKE,
                reads: vec![0; live as usize],
            },
            batch: Batch::default(),
            streams: Vec::new(),
            now: Now {
                instant: Instant::now(),
                unix: Duration::ZERO,
            },
            budget,
        };
        end.mux.welcomed(end.budget.window_initial());
        for nth in 0..live {
            let opening = Opening {
                key: key(nth),
                owner: nth,
                connect: connect(),
                head: Vec::new(),
                body: Body::raw(),
            };
            let handle = end.mux.open(opening, &mut end.budget, end.now);
            end.streams.push(handle);
        }
        while end.fill() > 0 {}
        for nth in 0..live {
            end.batch.begin(BATCH_MAX);
            assert!(end.batch.push(id(nth), Kind::ProxyConnected, &[]));
            let message = Bytes::copy_from_slice(end.batch.as_slice());
            end.receive(&message);
        }
        while end.fill() > 0 {}
        end
    }

    /// One batch; how many bytes it has.
    fn fill(&mut self) -> usize {
        self.batch.begin(BATCH_MAX);
        while let Some(happened) = self.mux.fill(
            &mut self.batch,
            QUANTUM,
            &mut self.sockets,
            &mut self.budget,
            self.now,
        ) {
            black_box(happened);
        }
        self.batch.len()
    }

    fn receive(&mut self, message: &Bytes) {
        let mut message = Message::new(message.clone());
        while let Some(happened) = self
            .mux
            .receive(&mut message, &mut self.sockets, &mut self.budget, self.now)
            .expect("these frames keep the protocol")
        {
            black_box(happened);
        }
    }

    /// As much credit for each stream as it has used up in the present batch.
    fn refund(&mut self) {
        let mut batch = Message::new(Bytes::copy_from_slice(self.batch.as_slice()));
        let mut refund = Batch::default();
        while let Some(frame) = batch.frame().expect("it was filled here") {
            if frame.kind == Kind::ProxyData {
                let credit = frame.payload.len() as u32;
                assert!(refund.push(frame.stream, Kind::ProxyCredit, &credit.to_be_bytes()));
            }
        }
        let message = Bytes::copy_from_slice(refund.as_slice());
        self.receive(&message);
    }

    /// Lets the first streams have bytes without end.
    fn keep_busy(&mut self, count: u32) {
        self.sockets.reads[..count as usize].fill(u32::MAX);
        for &stream in &self.streams[..count as usize] {
            self.mux.schedule(stream);
        }
    }
}

/// How batches are filled.
pub fn fill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux fill");
    for live in LIVE {
        // One stream wakes and says a few bytes: another one each time, as users do.
        let mut end = End::new(live);
        let mut nth = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("a keystroke", live), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    nth = (nth + STRIDE) % live;
                    end.sockets.reads[nth as usize] = 1;
                    let begun = Instant::now();
                    end.mux.schedule(end.streams[nth as usize]);
                    black_box(end.fill());
                    spent += begun.elapsed();
                    end.refund();
                    while end.fill() > 0 {}
                }
                spent
            });
        });

        // A whole batch of keystrokes: of few streams beside many silent ones, and of as many as fit,
        // all having more.
        let mut busy = vec![live.min(FEW), live];
        busy.dedup();
        for busy in busy {
            let mut end = End::new(live);
            end.keep_busy(busy);
            group.throughput(Throughput::Elements(FRAMES as u64));
            let name = BenchmarkId::new(format!("{busy} busy"), live);
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..iterations {
                        let begun = Instant::now();
                        black_box(end.fill());
                        spent += begun.elapsed();
                        assert_eq!(end.batch.frames() as usize, FRAMES);
                        end.refund();
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

/// How messages are taken apart.
pub fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mux receive");
    for live in LIVE {
        let mut cases = vec![
            ("a keystroke".to_owned(), live, 1),
            (format!("{} busy", live.min(FEW)), live.min(FEW), FRAMES),
            (format!("{live} busy"), live, FRAMES),
        ];
        cases.dedup();
        for (name, busy, frames) in cases {
            let messages = keystrokes(busy, frames);
            let mut end = End::new(live);
            let mut nth = 0;
            group.throughput(Throughput::Elements(frames as u64));
            group.bench_function(BenchmarkId::new(name, live), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..iterations {
                        nth = (nth + 1) % messages.len();
                        let begun = Instant::now();
                        end.receive(&messages[nth]);
                        spent += begun.elapsed();
                        // The credit that is due.
                        while end.fill() > 0 {}
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

/// Messages of so many frames, which together come to each of the `busy` streams.
fn keystrokes(busy: u32, frames: usize) -> Vec<Bytes> {
    let mut ids = (0..busy).cycle().map(|nth| id(nth * STRIDE % busy));
    let mut batch = Batch::default();
    (0..(busy as usize).div_ceil(frames))
        .map(|_| {
            batch.begin(BATCH_MAX);
            for id in ids.by_ref().take(frames) {
                batch.seal(id, Kind::ProxyData, Flags::NONE, KEYSTROKE);
            }
            Bytes::copy_from_slice(batch.as_slice())
        })
        .collect()
}

fn connect() -> ProxyConnect {
    ProxyConnect {
        proxy_id: "edge-1-10022-1".parse().expect("an id"),
        user_id: "user-10022-1".parse().expect("an id"),
        remote_host: "127.0.0.1".into(),
        remote_port: 22,
        protocol: "tcp".into(),
        request: None,
    }
}

/// The nth stream's: ids are given in order.
fn id(nth: u32) -> StreamId {
    StreamId(u64::from(nth) + 1)
}
