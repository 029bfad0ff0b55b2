//! Bytes per second: how much the streams of one proxy say together, in each direction.
//!
//! Two token buckets, which the streams of all links share. They are kept at the server alone, by what it
//! decides anyway:
//!
//! - *up*, from users: a stream is not read from while there are no tokens; bytes wait in the kernel.
//! - *down*, to users: credit is granted against tokens, and what is left of it when a stream ends is given
//!   back. A stream's first window is the client's without a grant, so it is paid when it is used, by debt if
//!   need be; while there is debt no new stream is announced, or many short ones would have no limit at all.
//!
//! Nothing waits here: [`super::mux`] has the lines of streams, and the role one deadline for each rate.
//!
//! A bucket is one instant, at which it is full; what is taken moves it on, and before it all is arithmetic.

use std::time::{Duration, Instant};

use slab::Slab;

/// The rates that there are.
#[derive(Debug, Default)]
pub struct Rates(Slab<Rate>);

/// Names a rate while somebody has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateId(pub u32);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From users.
    Up,
    /// To them.
    Down,
}

#[derive(Debug)]
struct Rate {
    up: Bucket,
    down: Bucket,
    /// The proxy that made it, and the streams.
    holders: usize,
}

/// The tokens of one direction, each for a byte.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    per_second: u64,
    full_at: Instant,
}

impl Rates {
    /// So many bytes in a second, in each direction; for who gives it back to [`Rates::release`].
    pub fn open(&mut self, per_second: usize, now: Instant) -> RateId {
        let bucket = Bucket {
            per_second: per_second as u64,
            full_at: now,
        };
        RateId(self.0.insert(Rate {
            up: bucket,
            down: bucket,
            holders: 1,
        }) as u32)
    }

    /// Another holder.
    pub fn hold(&mut self, rate: RateId) {
        self.0[rate.0 as usize].holders += 1;
    }

    /// One holder less; with the last it is gone.
    pub fn release(&mut self, rate: RateId) {
        let found = &mut self.0[rate.0 as usize];
        found.holders -= 1;
        if found.holders == 0 {
            self.0.remove(rate.0 as usize);
        }
    }

    /// It is another from now on, and so is the time that it takes for what was taken to be there again.
    pub fn change(&mut self, rate: RateId, per_second: usize, now: Instant) {
        let Rate { up, down, .. } = &mut self.0[rate.0 as usize];
        for bucket in [up, down] {
            let taken = bucket.bytes(bucket.full_at.saturating_duration_since(now));
            bucket.per_second = per_second as u64;
            bucket.full_at = now + bucket.time(taken);
        }
    }

    /// How many bytes may go now: 0 where there are too few to be worth it.
    pub fn allowed(&self, rate: RateId, way: Way, now: Instant) -> usize {
        self.get(rate, way)
            .map_or(usize::MAX, |bucket| bucket.allowed(now))
    }

    /// When so many may go that it is worth to look.
    pub fn opens_at(&self, rate: RateId, way: Way) -> Option<Instant> {
        self.get(rate, way).map(|bucket| bucket.opens_at())
    }

    /// Bytes go, whether they may or not.
    pub fn take(&mut self, rate: RateId, way: Way, bytes: usize, now: Instant) {
        if let Some(bucket) = self.get_mut(rate, way) {
            bucket.full_at = bucket.full_at.max(now) + bucket.time(bytes as u64);
        }
    }

    /// Bytes for which tokens were taken have not gone, and will not.
    pub fn give_back(&mut self, rate: RateId, way: Way, bytes: usize) {
        if let Some(bucket) = self.get_mut(rate, way) {
            let full_at = bucket.full_at.checked_sub(bucket.time(bytes as u64));
            bucket.full_at = full_at.unwrap_or(bucket.full_at);
        }
    }

    fn get(&self, rate: RateId, way: Way) -> Option<&Bucket> {
        let found = self.0.get(rate.0 as usize)?;
        Some(match way {
            Way::Up => &found.up,
            Way::Down => &found.down,
        })
    }

    fn get_mut(&mut self, rate: RateId, way: Way) -> Option<&mut Bucket> {
        let found = self.0.get_mut(rate.0 as usize)?;
        Some(match way {
            Way::Up => &mut found.up,
            Way::Down => &mut found.down,
        })
    }
}

impl Bucket {
    fn burst(&self) -> u64 {
        (self.per_second / BURST_PART).max(BURST_MIN)
    }

    fn time(&self, bytes: u64) -> Duration {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn bytes(&self, time: Duration) -> u64 {
        let bytes = time.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn allowed(&self, now: Instant) -> usize {
        let empty_at = self.full_at.max(now);
        let left = (now + self.time(self.burst())).saturating_duration_since(empty_at);
        let tokens = usize::try_from(self.bytes(left)).unwrap_or(usize::MAX);
        if tokens < ALLOWED_MIN { 0 } else { tokens }
    }

    fn opens_at(&self) -> Instant {
        let short = (self.per_second / TICKS).max(PORTION_MAX);
        let portion = (self.per_second / PORTION_PART)
            .min(short)
            .clamp(PORTION_MIN, self.burst() / 2);
        let spare = self.time(self.burst() - portion);
        self.full_at.checked_sub(spare).unwrap_or(self.full_at)
    }
}

/// What may go at once, of a second's worth: 100 ms, or what a first window is.
const BURST_PART: u64 = 10;
const BURST_MIN: u64 = 64 * 1024;

/// What streams that wait are woken for, of a second's worth: 25 ms, so that a rate is looked at 40 times a
/// second; of a slow one a packet's worth. Of a fast one it would be a burst behind which all others wait: two
/// batches, or what comes from one tick of the clock to the next.
const PORTION_PART: u64 = 40;
const PORTION_MIN: u64 = 1460;
const PORTION_MAX: u64 = 128 * 1024;
const TICKS: u64 = 1000;

/// Fewer are not worth a frame; and more than the room that any framing needs.
const ALLOWED_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that go within `span` if as many as may are taken whenever it opens; how often that is, and the most
    /// that go at a time then.
    fn carried(per_second: usize, way: Way, span: Duration) -> (usize, usize, usize) {
        let start = Instant::now();
        let mut rates = Rates::default();
        let rate = rates.open(per_second, start);
        let (mut now, mut bytes, mut looks, mut most) = (start, 0, 0, 0);
        while now < start + span {
            let allowed = rates.allowed(rate, way, now);
            rates.take(rate, way, allowed, now);
            bytes += allowed;
            if now > start {
                looks += 1;
                most = most.max(allowed);
            }
            let at = rates.opens_at(rate, way).expect("it is there");
            assert!(at > now, "it waits once nothing is left");
            now = at;
        }
        (bytes, looks, most)
    }

    #[test]
    fn a_rate_is_kept_in_few_looks_and_short_bursts_whatever_it_is() {
        for per_second in [1 << 10, 64 << 10, 1 << 20, 10 << 20, 1 << 30, 1 << 40] {
            let (bytes, looks, at_once) = carried(per_second, Way::Up, Duration::from_secs(100));
            let burst = (per_second / 10).max(64 << 10);
            let most = per_second * 100 + burst;
            let least = per_second * 99;
            assert!(
                (least..=most).contains(&bytes),
                "{bytes} of {per_second}/s in 100 s"
            );
            let looks_max = (per_second / (128 << 10)).clamp(40, 1000) * 100;
            assert!(looks <= looks_max + 100, "{looks} looks at {per_second}/s");
            let at_once_max = (per_second / 1000).max(128 << 10);
            assert!(at_once <= at_once_max + 1, "{at_once} of {per_second}/s");
        }
    }

    #[test]
    fn directions_have_their_own_and_debt_is_paid_before_more_may_go() {
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut rates = Rates::default();
        let rate = rates.open(1_000_000, now);
        assert_eq!(rates.allowed(rate, Way::Down, now), 100_000);
        rates.take(rate, Way::Down, 600_000, now);
        assert_eq!(rates.allowed(rate, Way::Up, now), 100_000);
        assert_eq!(rates.allowed(rate, Way::Down, at(500)), 0);
        assert_eq!(rates.opens_at(rate, Way::Down), Some(at(525)));
        assert_eq!(rates.allowed(rate, Way::Down, at(525)), 25_000);
        rates.give_back(rate, Way::Down, 50_000);
        assert_eq!(rates.allowed(rate, Way::Down, at(525)), 75_000);
        assert_eq!(rates.allowed(rate, Way::Down, at(9_000)), 100_000);
    }

    #[test]
    fn what_was_taken_at_a_slow_rate_is_not_waited_for_at_a_fast_one() {
        let now = Instant::now();
        let mut rates = Rates::default();
        let rate = rates.open(1_000, now);
        rates.take(rate, Way::Up, 165_536, now);
        let opens = |rates: &Rates| rates.opens_at(rate, Way::Up).map(|at| at - now);
        assert!(opens(&rates) > Some(Duration::from_secs(100)));
        rates.change(rate, 1_000_000, now);
        assert!(opens(&rates) < Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_rate_is_there_as_long_as_somebody_holds_it() {
        let now = Instant::now();
        let mut rates = Rates::default();
        let rate = rates.open(1000, now);
        rates.hold(rate);
        rates.release(rate);
        assert!(rates.opens_at(rate, Way::Up).is_some());
        rates.release(rate);
        assert!(rates.opens_at(rate, Way::Up).is_none());
        assert!(rates.0.is_empty());
    }
}
