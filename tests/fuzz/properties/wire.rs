//! How an input reaches the code: knobs, cuts, and a connection that delivers in pieces.

use std::io;

use siding::http::Source;

/// The first `N` bytes of an input, which choose the circumstances, and what the peer sends; `None`
/// where the input is shorter than that.
pub fn knobs<const N: usize>(input: &[u8]) -> Option<(&[u8; N], &[u8])> {
    input.split_first_chunk::<N>()
}

/// How long each read is. The same seed always cuts alike.
#[derive(Clone, Debug)]
pub enum Cuts {
    /// All that there is, and never a would-block.
    Whole,
    /// One byte, each behind a would-block.
    Bytewise,
    /// By a generator: mostly a few bytes, now and then many, now and then a would-block.
    Random(u32),
}

impl Cuts {
    /// The three ways in which every input is delivered.
    pub fn each(seed: u8) -> [Cuts; 3] {
        [Cuts::Whole, Cuts::Bytewise, Cuts::seeded(seed)]
    }

    pub fn seeded(seed: u8) -> Cuts {
        Cuts::Random((u32::from(seed) + 1).wrapping_mul(0x9e37_79b9))
    }

    /// A number below `bound`; 0 unless random.
    fn below(&mut self, bound: u32) -> u32 {
        let Cuts::Random(state) = self else {
            return 0;
        };
        // Marsaglia's xorshift; never 0 as it does not start there.
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        *state % bound
    }

    /// The most that the next read brings.
    pub fn size(&mut self) -> usize {
        match self {
            Cuts::Whole => usize::MAX,
            Cuts::Bytewise => 1,
            Cuts::Random(_) => match self.below(8) {
                0 => 1 + self.below(512) as usize,
                1 => 1 + self.below(64) as usize,
                _ => 1 + self.below(8) as usize,
            },
        }
    }

    fn blocks(&mut self) -> bool {
        match self {
            Cuts::Whole => false,
            Cuts::Bytewise => true,
            Cuts::Random(_) => self.below(4) == 0,
        }
    }
}

/// A peer's half of a connection: the bytes that it sends, and whether it closes behind them.
#[derive(Debug)]
pub struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
    cuts: Cuts,
    closes: bool,
    blocked: bool,
    surplus: usize,
}

impl<'a> Wire<'a> {
    pub fn new(bytes: &'a [u8], cuts: Cuts, closes: bool) -> Wire<'a> {
        Wire {
            bytes,
            at: 0,
            cuts,
            closes,
            blocked: false,
            surplus: 0,
        }
    }

    /// How much was taken, what was given back not counted.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The most that was read past the end of a body.
    pub fn surplus(&self) -> usize {
        self.surplus
    }

    /// Whether a would-block is for ever: nothing is left and the peer keeps the connection open.
    pub fn is_dry(&self) -> bool {
        self.at == self.bytes.len() && !self.closes
    }

    /// Puts back what belongs to the next reader, which must be the last bytes that were read.
    pub fn give_back(&mut self, surplus: &[u8]) {
        let start = self.at.checked_sub(surplus.len()).expect("never read");
        assert_eq!(
            surplus.escape_ascii().to_string(),
            self.bytes[start..self.at].escape_ascii().to_string(),
            "what was given back is not what was read last"
        );
        self.at = start;
    }
}

impl Source for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "a read into an empty slice");
        // Every other call at most, so that each loop over would-blocks ends.
        self.blocked = !self.blocked && self.cuts.blocks();
        if self.blocked || self.is_dry() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let rest = &self.bytes[self.at..];
        let length = self.cuts.size().min(into.len()).min(rest.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }

    fn unread(&mut self, surplus: &[u8]) {
        assert!(!surplus.is_empty(), "nothing was given back");
        self.surplus = self.surplus.max(surplus.len());
        self.give_back(surplus);
    }
}
