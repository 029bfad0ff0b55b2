//! Where all chance of a case comes from: one number.
//!
//! A case is drawn from its seed alone, whatever runs beside it, so that the same number draws the
//! same users, messages, pieces and damage again. What the kernel and the scheduler make of them is
//! not drawn.

use std::{env, fmt, ops::Range};

use crate::common::Random;

/// Repeatable chance.
pub struct Rng(Random);

/// Names one exchange of one user of one case, in every byte that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(u64);

impl Rng {
    /// The same seed gives the same draws.
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// Another source, whose draws do not shift this one's.
    pub fn fork(&mut self) -> Self {
        Self::new(self.0.next())
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.below(limit as u64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `chance` of a hundred draws.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of several, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let mut place = self.below(from.iter().map(|(weight, _)| weight).sum());
        for &(weight, item) in from {
            if place < weight {
                return item;
            }
            place -= weight;
        }
        unreachable!("the place is below the sum of the weights")
    }

    /// Puts items into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.between(0, last);
            items.swap(last, other);
        }
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

impl Tag {
    /// The tag of an exchange. No two exchanges of a run have the same, nor does damage make one of
    /// another but by a chance of 1 in 2^64.
    pub fn of(seed: u64, user: usize, exchange: usize) -> Self {
        let place = (user * 256 + exchange) as u64;
        Self(Random::new(seed ^ (place + 1) << 48).next())
    }

    /// Content of `length` bytes that shows its tag every few dozen bytes, and between these what
    /// would matter if a proxy took it for anything else than content.
    pub fn content(self, length: usize) -> Vec<u8> {
        let mut rng = Rng::new(self.0);
        let mut bytes = Vec::with_capacity(length + 64);
        while bytes.len() < length {
            bytes.extend_from_slice(format!("<{self}>").as_bytes());
            if rng.percent(30) {
                bytes.extend_from_slice(rng.pick(BAIT));
            } else {
                let count = rng.below(24);
                bytes.extend((0..count).map(|_| rng.byte()));
            }
        }
        bytes.truncate(length);
        bytes
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Content that is framing to whoever has lost his place.
const BAIT: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: bait.test\r\n\r\n",
    b"\0\0\0\0",
];

/// The seeds to run: `SIDING_GENERATED_SEED` is the first (then it runs alone) and
/// `SIDING_GENERATED_CASES` how many; without either, the first `cases`.
pub fn seeds(cases: u64) -> Range<u64> {
    let number = |name: &str| {
        env::var(name).ok().map(|value| {
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}: a number expected, not {value:?}"))
        })
    };
    let (first, count) = (number(SEED), number(CASES));
    let begin = first.unwrap_or(0);
    let count = count.unwrap_or(if first.is_some() { 1 } else { cases });
    begin..begin + count
}

/// The one command that runs a case of `test` again.
pub fn again(test: &str, seed: u64) -> String {
    format!(
        "{SEED}={seed} cargo test --test generated {test} -- --nocapture   ({CASES}=N for N cases from there)"
    )
}

const SEED: &str = "SIDING_GENERATED_SEED";
const CASES: &str = "SIDING_GENERATED_CASES";
