//! How long to wait before the link is dialled again.
//!
//! Doubling from 0.2 s to 30 s with jitter, so that a thousand clients whose server restarts do not
//! come back in one instant; from the start again after a link that held for a while, or in another network.

use std::time::{Duration, Instant};

/// The state of the wait.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    /// When another network was last a reason to begin anew.
    renewed: Option<Instant>,
}

impl Backoff {
    /// The next wait; `random` spreads it over its upper half.
    pub fn next(&mut self, random: u32) -> Duration {
        let wait = self.due(random);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// What the next wait would be.
    pub fn due(&self, random: u32) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(10));
        spread(doubled.min(LONGEST), random)
    }

    /// The wait after an end that will not mend itself soon: a wrong token, or another client of the
    /// same name.
    pub fn longest(&mut self, random: u32) -> Duration {
        self.failures = u32::MAX;
        LONGEST + spread(FIRST, random)
    }

    /// The link was up for `held`.
    pub fn was_up(&mut self, held: Duration) {
        if held >= STABLE {
            self.failures = 0;
        }
    }

    /// The server of a link that was up for `held` has said that it drains: whoever takes its place is likely
    /// there, and users wait for the next link. But one that says so again and again is none.
    pub fn drained(&mut self, held: Duration) {
        if held >= SERVED {
            self.failures = 0;
        }
    }

    /// The network is another, so that earlier failures say little. Not more often than a link has to hold,
    /// for one that changes all the time is none.
    pub fn renew(&mut self, now: Instant) {
        let lately = |at| now.saturating_duration_since(at) < STABLE;
        if !self.renewed.is_some_and(lately) {
            self.renewed = Some(now);
            self.failures = 0;
        }
    }
}

fn spread(whole: Duration, random: u32) -> Duration {
    whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// A link that held for so long was no failure.
const STABLE: Duration = Duration::from_secs(30);

/// A server that has served for so long, and drains then, has not failed. Shorter, for operators upgrade twice in
/// a row; long enough for a dial each.
const SERVED: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_thirty_seconds_and_stay_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..12)
            .map(|_| backoff.next(u32::MAX).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000, 30000
            ]
        );
        for _ in 0..100 {
            assert!(backoff.next(0) >= LONGEST / 2);
        }
    }

    #[test]
    fn only_a_link_that_held_begins_anew() {
        let mut backoff = Backoff::default();
        backoff.next(0);
        backoff.next(0);
        backoff.was_up(Duration::from_secs(29));
        assert_eq!(backoff.next(u32::MAX), FIRST * 4);
        backoff.was_up(Duration::from_secs(30));
        assert_eq!(backoff.next(u32::MAX), FIRST);
    }

    #[test]
    fn another_network_begins_anew_but_a_flapping_one_does_not() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let mut seconds = Vec::new();
        for second in [0, 1, 2, 29, 30, 31] {
            backoff.renew(start + Duration::from_secs(second));
            seconds.push(backoff.next(u32::MAX).as_millis());
        }
        assert_eq!(seconds, [200, 400, 800, 1600, 200, 400]);
    }

    #[test]
    fn a_server_that_drains_after_a_while_has_not_failed() {
        let mut backoff = Backoff::default();
        for held in [0, 4] {
            backoff.next(0);
            backoff.drained(Duration::from_secs(held));
        }
        assert_eq!(backoff.next(u32::MAX), FIRST * 4);
        backoff.drained(Duration::from_secs(5));
        assert_eq!(backoff.next(u32::MAX), FIRST);
    }

    #[test]
    fn a_wrong_token_makes_no_storm() {
        let mut backoff = Backoff::default();
        assert!(backoff.longest(0) >= LONGEST);
        assert!(
            backoff.next(0) >= LONGEST / 2,
            "and what follows is no faster"
        );
    }
}
