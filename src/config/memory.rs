//! A ceiling on the memory of a process, and what follows from it.
//!
//! What a process needs above what it has at rest is bytes that wait for a reader, connections, and the
//! buffers of links. Each gets a part of the ceiling that it cannot pass:
//!
//! - A quarter for undelivered bytes. A growing buffer may be a quarter larger than what is in it, and
//!   for as long as it grows there may be two of it.
//! - One connection for each 16 KiB: it may hold its first window (4 KiB, the smallest, so that so many
//!   that stall at once are still within the part) and about 1 KiB of state. One with TLS counts as four,
//!   a link as eight ([`Purpose::weight`](crate::reactor::net::Purpose::weight)).
//!
//! The rest is for what all share, and for the allocator's own losses.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::value::{Invalid, SIZE_MAX, size, size_within};

/// How much more memory than at rest a process may take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMax(usize);

impl MemoryMax {
    /// Bytes that were received and not yet delivered.
    pub fn undelivered(self) -> usize {
        self.0 / 4
    }

    /// How many connections there may be, by their weight.
    pub fn room(self) -> usize {
        self.0 / CONNECTION
    }
}

impl FromStr for MemoryMax {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bytes = size(text)?;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if !(LEAST..=SIZE_MAX).contains(&bytes) {
            return Err(Invalid::new(format!(
                "{text:?} is not a ceiling on memory: at least 4MiB"
            )));
        }
        Ok(MemoryMax(bytes))
    }
}

impl<'de> Deserialize<'de> for MemoryMax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        size_within(deserializer, LEAST..=SIZE_MAX).map(MemoryMax)
    }
}

/// What one connection may come to cost.
const CONNECTION: usize = 16 << 10;

/// Room for 256 connections, and a megabyte that waits: the least for which `undelivered` may be set.
const LEAST: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_4_mib_or_more() {
        let memory = |text: &str| text.parse::<MemoryMax>();
        assert_eq!(memory("4MiB").map(MemoryMax::undelivered), Ok(1 << 20));
        assert_eq!(memory("4MiB").map(MemoryMax::room), Ok(256));
        assert_eq!(memory("16777216").map(MemoryMax::room), Ok(1024));
        for text in ["4194303", "0", "", "all", "-1", "1e9"] {
            assert!(memory(text).is_err(), "{text:?}");
        }
    }
}
