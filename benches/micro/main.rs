//! What the structures on every turn's way cost, each alone and without a socket: frames, the streams
//! of a link, bodies and heads, the timer wheel, the pool of parked connections.

mod frames;
mod http;
mod mux;
mod pool;
mod wheel;

use criterion::{criterion_group, criterion_main};
use siding::key::Key;

fn key(index: u32) -> Key {
    Key { index, serial: 1 }
}

criterion_group!(
    benches,
    frames::frames,
    mux::fill,
    mux::receive,
    http::bodies,
    http::heads,
    wheel::wheel,
    pool::pool
);
criterion_main!(benches);
