//! The frame codec.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use siding::tunnel::frame::{
    BATCH_MAX, Batch, Flags, HEADER_BYTES, Kind as FrameKind, Message, StreamId,
};

/// One batch of data frames, written and read back.
pub fn frames(criterion: &mut Criterion) {
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
