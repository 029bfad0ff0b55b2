//! Chance, all of it from one seed, and bytes that tell whose they are.

/// SplitMix64: small, and every seed is a good one.
#[derive(Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        let span = most.saturating_sub(least) as u64 + 1;
        least + (self.next() % span) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        percent > 0 && self.between(0, 99) < percent
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.between(0, of.len() - 1)]
    }

    /// Mostly small, now and then anything up to `most`.
    pub fn size(&mut self, most: usize) -> usize {
        let limit = self.pick(&[0, 1, 100, 3_000, 20_000, 70_000, most]);
        self.between(0, limit.min(most))
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.between(0, last);
            items.swap(last, other);
        }
    }
}

/// The bytes of an owner from `offset` on: no two owners have the same.
pub fn pattern(owner: u64, offset: usize, into: &mut [u8]) {
    let mut at = offset;
    let mut rest = into;
    while !rest.is_empty() {
        let block = Rng(owner.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ (at / 8) as u64)
            .next()
            .to_le_bytes();
        let from = at % 8;
        let length = rest.len().min(8 - from);
        rest[..length].copy_from_slice(&block[from..from + length]);
        rest = &mut rest[length..];
        at += length;
    }
}
