//! The pool of parked connections: a request takes one and gives it back.

use std::{
    hint::black_box,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use siding::pool::{Origin, Parked, Pool, PoolLimits};

use crate::key;

pub fn pool(criterion: &mut Criterion) {
    let now = Instant::now();
    let origin = Origin {
        born: now,
        uses: 1,
        peer: Some(Ipv4Addr::LOCALHOST.into()),
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
