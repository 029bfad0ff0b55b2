//! How often somebody was refused for one reason, and when the log is told.
//!
//! Whoever is refused can come back as often as the network allows; a line for each would let strangers
//! fill the disk. So all are counted and the log hears of one a second, with the count.

use std::time::{Duration, Instant};

/// The refusals at one place.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    total: u64,
    said: Option<Instant>,
}

impl Refusals {
    /// How many there were so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// One more; how many there were so far, if it is time to say so.
    #[must_use]
    pub fn count(&mut self, now: Instant) -> Option<u64> {
        self.total += 1;
        let lately = self
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < SAID_EVERY);
        if lately {
            return None;
        }
        self.said = Some(now);
        Some(self.total)
    }
}

/// Often enough to see an attack begin and go on, and at most 86,400 lines a day.
const SAID_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_one_a_second_is_said() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut refusals = Refusals::default();
        assert_eq!(refusals.count(at(0)), Some(1));
        assert_eq!(refusals.count(at(0)), None);
        assert_eq!(refusals.count(at(999)), None);
        assert_eq!(refusals.count(at(1000)), Some(4));
        assert_eq!(refusals.count(at(1999)), None);
        assert_eq!(refusals.count(at(90_000)), Some(6));
        assert_eq!(refusals.total(), 6);
    }
}
