//! Bytes that wait: what a socket refused, and what is ready to be sent.
//!
//! A tail exists only while it holds bytes; an idle stream owns none.

use std::time::Instant;

/// A queue of bytes with a read position.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    taken: usize,
    /// When a byte last left it (or it began).
    pub moved: Instant,
}

impl Tail {
    pub fn new(now: Instant) -> Tail {
        Tail {
            bytes: Vec::new(),
            taken: 0,
            moved: now,
        }
    }

    /// One that begins with `bytes`.
    pub fn of(bytes: Vec<u8>, now: Instant) -> Tail {
        Tail {
            bytes,
            ..Tail::new(now)
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub fn push(&mut self, bytes: &[u8]) {
        // Move the rest to the front once half of the buffer is dead, so that a tail that never
        // quite empties does not grow for ever, at an amortised cost of one copy per byte.
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        // Not twice as large, as it would by itself: all tails together are what the budget is for.
        let missing = (self.bytes.len() + bytes.len()).saturating_sub(self.bytes.capacity());
        if missing > 0 {
            let spare = (self.bytes.len() / 4).clamp(SPARE_MIN, SPARE_MAX);
            self.bytes.reserve_exact(bytes.len() + spare);
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn advance(&mut self, bytes: usize, now: Instant) {
        debug_assert!(bytes <= self.len());
        self.taken += bytes;
        if bytes > 0 {
            self.moved = now;
        }
    }
}

/// What a growing tail has to spare: enough for few copies as it grows, and little beside what is in it.
const SPARE_MIN: usize = 64;
const SPARE_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came_and_the_buffer_stays_small() {
        let now = Instant::now();
        let mut tail = Tail::new(now);
        let (mut pushed, mut taken) = (0u32, 0u32);
        for round in 0..10_000usize {
            let bytes: Vec<u8> = (0..round % 7)
                .map(|n| (pushed as usize + n) as u8)
                .collect();
            tail.push(&bytes);
            pushed += bytes.len() as u32;
            let n = tail.len().min(3);
            for (i, byte) in tail.as_slice()[..n].iter().enumerate() {
                assert_eq!(*byte, (taken as usize + i) as u8);
            }
            tail.advance(n, now);
            taken += n as u32;
            assert!(tail.bytes.len() <= 2 * tail.len() + 16);
        }
        assert_eq!(tail.len(), (pushed - taken) as usize);
    }
}
