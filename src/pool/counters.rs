//! What happened in the pool, for status and metrics. Plain numbers, bumped where the fact happens;
//! how many are idle is not one of them, for that the pool itself tells.

use std::fmt;

use super::Refusal;

/// What has happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Takes that found a connection.
    pub hits: u64,
    /// Takes that did not.
    pub misses: u64,
    /// Connections parked.
    pub parked: u64,
    /// Connections that the peek after a take found closed; they are among the hits.
    pub stale_at_take: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
    pub(super) evicted: [u64; Eviction::ALL.len()],
}

/// Why a parked connection left the pool without being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// A newer one needed its place.
    Full,
    /// It was parked for the idle limit.
    Idle,
    /// It reached the age limit.
    Age,
    /// It became readable: its origin closed it, or spoke without being asked.
    Readable,
    /// Its descriptor was needed.
    Pressure,
    /// Another connection to its target proved stale, so all of them are suspect.
    Flushed,
    /// The process is draining.
    Drained,
}

impl Counters {
    /// Connections that were not parked for this reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize]
    }

    /// Connections that left unused for this reason.
    pub fn evicted(&self, why: Eviction) -> u64 {
        self.evicted[why as usize]
    }
}

impl Eviction {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Full,
        Self::Idle,
        Self::Age,
        Self::Readable,
        Self::Pressure,
        Self::Flushed,
        Self::Drained,
    ];
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Readable => "readable",
            Self::Pressure => "pressure",
            Self::Flushed => "flushed",
            Self::Drained => "drained",
        })
    }
}
