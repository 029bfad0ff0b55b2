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
    /// Connections that passed the peek and were closed by their origin before they answered.
    pub stale_after_take: u64,
    /// Exchanges on such a connection that were answered on a fresh one.
    pub retried: u64,
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
    /// Its origin closed it.
    Closed,
    /// Its origin spoke without being asked (RFC 9112 §9.2). Worth a look when it happens.
    Unasked,
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

impl fmt::Display for Counters {
    /// One line for the log: what never happened is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} hits, {} misses, {} parked",
            self.hits, self.misses, self.parked
        )?;
        for (count, what) in [
            (self.stale_at_take, "stale at take"),
            (self.stale_after_take, "stale after take"),
            (self.retried, "retried"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        for why in Refusal::ALL {
            if self.refused(why) > 0 {
                write!(f, ", {} not parked: {why}", self.refused(why))?;
            }
        }
        for why in Eviction::ALL {
            if self.evicted(why) > 0 {
                write!(f, ", {} closed: {why}", self.evicted(why))?;
            }
        }
        Ok(())
    }
}

impl Eviction {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Full,
        Self::Idle,
        Self::Age,
        Self::Closed,
        Self::Unasked,
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
            Self::Closed => "closed by its origin",
            Self::Unasked => "unasked bytes",
            Self::Pressure => "pressure",
            Self::Flushed => "flushed",
            Self::Drained => "drained",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_what_has_happened_and_nothing_else() {
        let mut counters = Counters {
            hits: 3,
            ..Counters::default()
        };
        assert_eq!(counters.to_string(), "3 hits, 0 misses, 0 parked");
        counters.retried = 1;
        counters.refused[Refusal::Surplus as usize] = 2;
        counters.evicted[Eviction::Idle as usize] = 4;
        assert_eq!(
            counters.to_string(),
            "3 hits, 0 misses, 0 parked, 1 retried, 2 not parked: surplus bytes, 4 closed: idle"
        );
    }
}
