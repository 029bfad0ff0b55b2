//! What time it is, read once per turn by the reactor and handed on as the last argument.

use std::time::{Duration, Instant};

/// One reading of both clocks.
///
/// Deadlines are computed from `instant` alone; `unix` only names things for people (ids), because
/// it may jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock, since the Unix epoch.
    pub unix: Duration,
}
