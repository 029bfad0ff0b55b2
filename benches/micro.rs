//! What the structures on every turn's way cost: frames, the timer wheel, and the pool of parked
//! connections.
//!
//! The sizes are those of a small server, of the design goal and of ten times that: a cost that grows
//! from one to the next by more than the caches explain is no longer O(1).

use std::{
    hint::black_box,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siding::{
    key::Key,
    pool::{Origin, Parked, Pool, PoolLimits},
    reactor::wheel::{TimerId, TimerWheel},
    tunnel::frame::{BATCH_MAX, Batch, Flags, HEADER_BYTES, Kind as FrameKind, Message, StreamId},
};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

fn key(index: u32) -> Key {
    Key { index, serial: 1 }
}

/// The nth of a sequence of deadlines within the two minutes that most timeouts are set to.
fn deadline(start: Instant, nth: u32) -> Instant {
    // A multiplicative hash: scattered, and the same in every run.
    start + Duration::from_millis(u64::from(nth.wrapping_mul(0x9E37_79B9)) % 120_000)
}

fn filled(start: Instant, size: u32) -> (TimerWheel<Key>, Vec<TimerId>) {
    let mut wheel = TimerWheel::new(start);
    let ids = (0..size)
        .map(|nth| wheel.insert(deadline(start, nth), key(nth)))
        .collect();
    (wheel, ids)
}

fn wheel(criterion: &mut Criterion) {
    let start = Instant::now();
    let mut group = criterion.benchmark_group("wheel");
    for size in SIZES {
        group.sample_size(if size > 100_000 { 10 } else { 50 });

        // One timer more and one less, beside `size` others: what a connection's timeout costs.
        group.throughput(Throughput::Elements(1));
        let (mut wheel, _) = filled(start, size);
        let mut nth = size;
        group.bench_function(BenchmarkId::new("insert and cancel", size), |bencher| {
            bencher.iter(|| {
                nth = nth.wrapping_add(1);
                let id = wheel.insert(deadline(start, nth), key(nth));
                black_box(wheel.cancel(id))
            });
        });
        group.bench_function(BenchmarkId::new("next deadline", size), |bencher| {
            bencher.iter(|| black_box(&wheel).next_deadline());
        });

        // All of them, one tick after the other, as the reactor does.
        group.throughput(Throughput::Elements(size.into()));
        group.bench_function(BenchmarkId::new("expire by ticks", size), |bencher| {
            bencher.iter_batched_ref(
                || filled(start, size).0,
                |wheel| {
                    while let Some(now) = wheel.next_deadline() {
                        while let Some(fired) = wheel.expire(now) {
                            black_box(fired);
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
        // All at once, as after a suspend.
        group.bench_function(BenchmarkId::new("expire by one jump", size), |bencher| {
            let end = start + Duration::from_secs(3600);
            bencher.iter_batched_ref(
                || filled(start, size).0,
                |wheel| {
                    while let Some(fired) = wheel.expire(end) {
                        black_box(fired);
                    }
                },
                BatchSize::PerIteration,
            );
        });
        // All links of a server cut at once.
        group.bench_function(BenchmarkId::new("cancel all", size), |bencher| {
            bencher.iter_batched_ref(
                || filled(start, size),
                |(wheel, ids)| {
                    for &id in ids.iter() {
                        black_box(wheel.cancel(id));
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn pool(criterion: &mut Criterion) {
    let now = Instant::now();
    let origin = Origin {
        born: now,
        uses: 1,
        peer: Ipv4Addr::LOCALHOST.into(),
    };
    let limits = PoolLimits {
        max_idle: 1024,
        max_idle_per_target: 32,
        idle: Duration::from_secs(30),
        age: Duration::from_secs(600),
    };
    let mut group = criterion.benchmark_group("pool");
    group.throughput(Throughput::Elements(1));
    for (name, targets) in [("one target", 1), ("many targets", 100)] {
        // Half full, as it is when nothing has to be evicted.
        let targets: Vec<(u8, String, u16)> = (0..targets)
            .map(|number| (0, format!("host-{number}.example.com"), 80))
            .collect();
        let mut pool = Pool::new(limits);
        for (nth, target) in targets.iter().cycle().take(5 * targets.len()).enumerate() {
            let parked = pool.park(target, key(nth as u32), origin, now);
            assert!(matches!(parked, Parked::Kept { evicted: None, .. }));
        }
        let mut nth = 0;
        group.bench_function(BenchmarkId::new("take and park", name), |bencher| {
            bencher.iter(|| {
                nth = (nth + 1) % targets.len();
                let taken = pool
                    .take(&targets[nth], true, now)
                    .expect("five are parked");
                black_box(pool.park(&targets[nth], taken.key, taken.origin, now))
            });
        });
    }

    // The worst case of a miss and a park: the target is new, and another must leave for it.
    let mut pool = Pool::new(PoolLimits {
        max_idle: 32,
        ..limits
    });
    let mut target = 0u32;
    group.bench_function("miss, then park in a full pool", |bencher| {
        bencher.iter(|| {
            target = target.wrapping_add(1);
            black_box(pool.take(&target, true, now));
            black_box(pool.park(&target, key(target), origin, now))
        });
    });
    group.finish();
}

/// One batch of data frames, written and read back.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for payload in [64usize, 4 * 1024, 16 * 1024] {
        let count = (BATCH_MAX / (HEADER_BYTES + payload)).min(64);
        let mut batch = Batch::default();
        group.throughput(Throughput::Bytes((count * payload) as u64));
        group.bench_function(BenchmarkId::new("seal", payload), |bencher| {
            bencher.iter(|| {
                batch.begin(BATCH_MAX);
                for stream in 1..=count as u64 {
                    // What is read from a socket is read in place: nothing is copied here.
                    black_box(&mut batch.payload()[..payload]);
                    batch.seal(StreamId(stream), FrameKind::ProxyData, Flags::NONE, payload);
                }
                black_box(batch.len())
            });
        });
        let bytes = Bytes::copy_from_slice(batch.as_slice());
        group.bench_function(BenchmarkId::new("read", payload), |bencher| {
            bencher.iter(|| {
                let mut message = Message::new(bytes.clone());
                while let Some(frame) = message.frame().expect("it was sealed here") {
                    black_box(frame);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frames, wheel, pool);
criterion_main!(benches);
