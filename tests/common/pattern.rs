//! Bytes that can be checked wherever they arrive: each place of the stream of a seed has its own.

use std::io::{self, Read, Write};

/// Bytes moved per call; not a divisor of any window or batch.
const PIECE: usize = 30_011;

/// Repeatable chance (splitmix64).
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The endless byte stream of a seed.
pub struct Pattern {
    random: Random,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The stream of `seed` from its first byte.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            word: [0; 8],
            used: 8,
        }
    }

    /// The next bytes.
    pub fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.used == self.word.len() {
                self.word = self.random.next().to_le_bytes();
                self.used = 0;
            }
            let count = bytes.len().min(self.word.len() - self.used);
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&self.word[self.used..self.used + count]);
            self.used += count;
            bytes = later;
        }
    }

    /// The first `length` bytes of `seed`.
    pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Self::new(seed).fill(&mut bytes);
        bytes
    }
}

/// Writes the first `length` bytes of `seed`.
///
/// # Errors
/// The writer's own.
pub fn send_pattern(mut writer: impl Write, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut piece = vec![0; length.min(PIECE as u64) as usize];
    let mut left = length;
    while left > 0 {
        let count = left.min(PIECE as u64) as usize;
        pattern.fill(&mut piece[..count]);
        writer.write_all(&piece[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// Reads exactly the first `length` bytes of `seed`.
///
/// # Errors
/// The reader's own; `UnexpectedEof` when it ends early, `InvalidData` with the place of the first
/// byte that differs.
pub fn expect_pattern(mut reader: impl Read, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut piece = vec![0; length.min(PIECE as u64) as usize];
    let mut expected = piece.clone();
    let mut place = 0;
    while place < length {
        let count = (length - place).min(PIECE as u64) as usize;
        let count = match reader.read(&mut piece[..count])? {
            0 => {
                let message = format!("the stream ended at byte {place} of {length}");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            count => count,
        };
        pattern.fill(&mut expected[..count]);
        if piece[..count] != expected[..count] {
            let same = piece
                .iter()
                .zip(&expected)
                .take_while(|(a, b)| a == b)
                .count() as u64;
            let message = format!("byte {} of {length} is not what was sent", place + same);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        place += count as u64;
    }
    Ok(())
}
