//! Bytes that can be checked wherever they arrive, at the cost of a comparison.
//!
//! The stream of a seed is one block of noise, over and over, begun at a place of the seed's own. The
//! block's length is a prime, so no window, batch or buffer is a multiple of it: bytes that are lost,
//! repeated, moved or another stream's differ from what is expected. It fits into a core's own cache,
//! so checking costs little beside moving.

use std::{io, sync::OnceLock};

use crate::common::Pattern;

/// Bytes after which a stream repeats itself.
const PERIOD: usize = 65_521;

/// Bytes that are moved and checked at a time, at most.
pub const PIECE: usize = 128 * 1024;

/// Between the places where the streams of two neighbouring seeds begin.
const STRIDE: u64 = 7_919;

/// Bytes of the stream of `seed`, `count` of them from `offset` on.
///
/// # Panics
/// When they are more than [`PIECE`].
pub fn at(seed: u64, offset: u64, count: usize) -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    let block = BLOCK.get_or_init(|| {
        let mut block = Pattern::bytes(5, PERIOD);
        while block.len() < PERIOD + PIECE {
            block.extend_from_within(..PERIOD.min(PERIOD + PIECE - block.len()));
        }
        block
    });
    let begin = seed.wrapping_mul(STRIDE).wrapping_add(offset) % PERIOD as u64;
    &block[begin as usize..][..count]
}

/// Compares what has arrived at `offset` of the stream of `seed`.
///
/// # Errors
/// `InvalidData` with the place of the first byte that differs.
pub fn check(seed: u64, offset: u64, arrived: &[u8]) -> io::Result<()> {
    let expected = at(seed, offset, arrived.len());
    if arrived == expected {
        return Ok(());
    }
    let same = arrived.iter().zip(expected).take_while(|(a, b)| a == b);
    let place = offset + same.count() as u64;
    Err(wrong(format!(
        "byte {place} of stream {seed} is not what was sent"
    )))
}

/// What ends the whole run: bytes that nobody sent.
pub fn wrong(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}
