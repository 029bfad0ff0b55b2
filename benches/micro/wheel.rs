//! The timer wheel: what a connection's timeout costs beside the timeouts of so many others.
//!
//! The sizes are those of a small server, of the design goal and of ten times that: a cost that grows
//! from one to the next by more than the caches explain is no longer O(1).

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use siding::{
    key::Key,
    reactor::wheel::{TimerId, TimerWheel},
};

use crate::key;

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

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

pub fn wheel(criterion: &mut Criterion) {
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
