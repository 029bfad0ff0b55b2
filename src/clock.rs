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

impl Now {
    /// How much more time has passed since `before` by the wall clock than by the monotonic one: what the
    /// machine has slept, for which Linux and others stop the latter, or by how much the former was set ahead.
    pub fn skipped_since(&self, before: Now) -> Duration {
        let by_wall = self.unix.saturating_sub(before.unix);
        by_wall.saturating_sub(self.instant.saturating_duration_since(before.instant))
    }
}
