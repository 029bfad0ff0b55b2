//! How fast a link's socket drains: what it was given until it took no more, and how long it then took no more.
//!
//! Pure: it writes nothing, and time is an argument.

use std::time::Instant;

/// What one socket was given, and what it made of it.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Bytes since it last took no more, or there was nothing to give: of several turns, where it has room for
    /// more than is given in one.
    given: usize,
    /// Since when it takes no more.
    blocked: Option<Instant>,
    /// It took long for that when it last did.
    slow: bool,
}

impl Drain {
    /// It was given so much.
    pub fn given(&mut self, bytes: usize) {
        self.given += bytes;
    }

    /// There is nothing more to give.
    pub fn pause(&mut self) {
        self.given = 0;
    }

    /// It takes no more.
    pub fn block(&mut self, now: Instant) {
        self.blocked.get_or_insert(now);
    }

    /// It takes more.
    pub fn open(&mut self, now: Instant) {
        if let Some(since) = self.blocked.take() {
            let given = std::mem::take(&mut self.given);
            let took = now.saturating_duration_since(since).as_micros();
            self.slow = took * FAST_RATE > given as u128;
        }
    }

    /// Whether it takes no more for now.
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Whether a whole batch is long under way.
    pub fn is_slow(&self) -> bool {
        self.slow
    }
}

/// Bytes per microsecond (256 Mbit/s) that a link takes, or it is a slow one: a whole batch is 2 ms then, for
/// which a keystroke may have to wait.
const FAST_RATE: u128 = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a socket is slow that took no more for `millis` after it was given these pieces.
    fn is_slow_after(pieces: &[usize], millis: u64) -> bool {
        let start = Instant::now();
        let mut drain = Drain::default();
        for piece in pieces {
            drain.given(*piece);
        }
        drain.block(start);
        // It may be asked again before it takes more.
        drain.block(start + Duration::from_millis(millis) / 2);
        assert!(drain.is_blocked());
        drain.open(start + Duration::from_millis(millis));
        assert!(!drain.is_blocked());
        drain.is_slow()
    }

    #[test]
    fn all_that_it_took_counts_in_however_many_turns() {
        // 1 Gbit/s: 512 KiB in 4 ms.
        assert!(!is_slow_after(&[512 << 10], 4));
        assert!(!is_slow_after(&[64 << 10; 8], 4));
        assert!(is_slow_after(&[64 << 10], 4));
        // 100 Mbit/s.
        assert!(is_slow_after(&[512 << 10], 42));
        assert!(is_slow_after(&[64 << 10; 8], 42));
    }

    #[test]
    fn what_went_before_a_pause_has_drained_since() {
        let start = Instant::now();
        let mut drain = Drain::default();
        drain.given(1 << 20);
        drain.pause();
        drain.given(64 << 10);
        drain.block(start);
        drain.open(start + Duration::from_millis(4));
        assert!(drain.is_slow());
        // One that was never full tells nothing new.
        drain.given(64 << 10);
        drain.open(start + Duration::from_millis(9));
        assert!(drain.is_slow());
    }
}
