//! Where connections come from: how many of one source there are, and how fast new ones come.
//!
//! A source is an IPv4 address, or the first half of an IPv6 one ([`Source`]). The rate is a token bucket, kept as the instant at which it is full again: a refusal changes
//! nothing, and a full one need not be remembered.
//!
//! Sources that somebody is connected from are as many as connections at most; of those that only have a
//! bucket there are [`SOURCES_MAX`], and beyond that the one is forgotten that is fullest. A source gains by
//! that what it lacks of a full bucket, and nobody is refused for want of room, however many addresses an
//! attacker has: to have one of his own forgotten he must keep [`SOURCES_MAX`] others emptier, which already
//! entitles him to more connections than a server accepts.
//!
//! It knows no socket, and whether an address was the peer's or one that a proxy in front has told of.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use slab::Slab;

use crate::source::Source;

/// The sources of one sort of connections.
#[derive(Debug)]
pub(super) struct Sources {
    /// Connections of one source at a time; 0 for any number.
    connections_max: usize,
    /// New ones per second; 0 for any number.
    rate: u32,
    by_source: HashMap<Source, u32>,
    entries: Slab<Entry>,
    /// Those that nobody is connected from, in the order in which their buckets are full.
    idle: BTreeSet<(Instant, u32)>,
}

#[derive(Debug)]
struct Entry {
    source: Source,
    connections: u32,
    bucket: Bucket,
}

/// Names the source of a connection until that has gone: an entry, or none where nothing is limited.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Seat(u32);

impl Seat {
    /// Of a connection whose source is not counted.
    pub const NONE: Seat = Seat(u32::MAX);
}

/// Why a source may not have one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Excess {
    /// It has as many as it may.
    Connections,
    /// It comes too fast: to come back after this time.
    Rate(Duration),
}

impl Sources {
    pub fn new(connections_max: usize, rate: u32) -> Sources {
        Sources {
            connections_max,
            rate,
            by_source: HashMap::new(),
            entries: Slab::new(),
            idle: BTreeSet::new(),
        }
    }

    /// What there may be from now on. Who is there and was not counted is not counted later.
    pub fn set_limits(&mut self, connections_max: usize, rate: u32) {
        (self.connections_max, self.rate) = (connections_max, rate);
        if rate == 0 {
            while let Some((_, index)) = self.idle.pop_first() {
                self.forget(index);
            }
        }
    }

    /// One more from this address.
    ///
    /// # Errors
    /// Its source has had its share; nothing is counted then.
    pub fn arrive(&mut self, address: IpAddr, now: Instant) -> Result<Seat, Excess> {
        if self.connections_max == 0 && self.rate == 0 {
            return Ok(Seat::NONE);
        }
        self.forget_full(now);
        let source = Source::of(address);
        let found = self.by_source.get(&source).copied();
        let mut bucket = match found.map(|index| &self.entries[index as usize]) {
            Some(entry) => {
                if self.connections_max > 0 && entry.connections as usize >= self.connections_max {
                    return Err(Excess::Connections);
                }
                entry.bucket
            }
            None => Bucket::full(now),
        };
        if self.rate > 0 {
            bucket
                .take(self.rate, burst(self.rate), now)
                .map_err(Excess::Rate)?;
        }
        let index = found.unwrap_or_else(|| {
            let index = self.entries.insert(Entry {
                source,
                connections: 0,
                bucket,
            }) as u32;
            self.by_source.insert(source, index);
            index
        });
        let entry = &mut self.entries[index as usize];
        if entry.connections == 0 {
            self.idle.remove(&(entry.bucket.full_at, index));
        }
        entry.connections += 1;
        entry.bucket = bucket;
        Ok(Seat(index))
    }

    /// As [`Sources::arrive`], of a connection of which only the rate is of interest.
    ///
    /// # Errors
    /// As there.
    pub fn pass(&mut self, address: IpAddr, now: Instant) -> Result<(), Excess> {
        self.arrive(address, now).map(|seat| self.leave(seat))
    }

    /// The connection has gone.
    pub fn leave(&mut self, seat: Seat) {
        let Seat(index) = seat;
        let Some(entry) = self.entries.get_mut(index as usize) else {
            debug_assert_eq!(seat, Seat::NONE, "an entry outlives its seats");
            return;
        };
        entry.connections -= 1;
        if entry.connections > 0 {
            return;
        }
        if self.rate == 0 {
            return self.forget(index);
        }
        self.idle.insert((entry.bucket.full_at, index));
        if self.idle.len() > SOURCES_MAX
            && let Some((_, fullest)) = self.idle.pop_first()
        {
            self.forget(fullest);
        }
    }

    /// Forgets those of which nothing is to be remembered.
    fn forget_full(&mut self, now: Instant) {
        while let Some(&(full_at, index)) = self.idle.first()
            && full_at <= now
        {
            self.idle.pop_first();
            self.forget(index);
        }
        if self.entries.is_empty() && self.entries.capacity() > TRIM_MIN {
            // A burst's memory goes back when it is over.
            self.entries = Slab::new();
            self.by_source = HashMap::new();
        }
    }

    fn forget(&mut self, index: u32) {
        let entry = self.entries.remove(index as usize);
        self.by_source.remove(&entry.source);
    }

    /// Panics where the invariants do not hold; `seats` are all that were given out and not given back.
    pub fn check_invariants<'a>(&self, seats: impl Iterator<Item = &'a Seat>) {
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for Seat(index) in seats.filter(|seat| **seat != Seat::NONE) {
            *counts.entry(*index).or_default() += 1;
        }
        assert_eq!(self.by_source.len(), self.entries.len());
        assert!(self.idle.len() <= SOURCES_MAX, "the table has an end");
        for (index, entry) in &self.entries {
            let index = index as u32;
            assert_eq!(self.by_source.get(&entry.source), Some(&index));
            let taken = counts.remove(&index).unwrap_or(0);
            assert_eq!(entry.connections, taken, "connections of a source");
            let is_idle = self.idle.contains(&(entry.bucket.full_at, index));
            assert_eq!(is_idle, taken == 0, "who has none is forgotten in time");
        }
        assert!(counts.is_empty(), "no seat without its source");
    }
}

/// A token bucket, by the instant at which it is full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub fn full(now: Instant) -> Bucket {
        Bucket { full_at: now }
    }

    /// Takes a token, of which there are `burst` at most and `rate` more each second.
    ///
    /// # Errors
    /// There is none; one will be there after this time.
    pub fn take(&mut self, rate: u32, burst: u32, now: Instant) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / rate;
        let full_at = self.full_at.max(now) + interval;
        let early = full_at.saturating_duration_since(now + interval * burst);
        if !early.is_zero() {
            return Err(early);
        }
        self.full_at = full_at;
        Ok(())
    }
}

/// What may come at once, of a source that was quiet: two seconds' worth, and never less than a browser that
/// opens two pages at its six connections each.
fn burst(rate: u32) -> u32 {
    rate.saturating_mul(2).max(BURST_MIN)
}

const BURST_MIN: u32 = 12;

/// Sources remembered for their buckets alone, some 110 bytes each. At one connection per second and source,
/// the lowest rate, so many sources may already send 16,384 in a second.
const SOURCES_MAX: usize = 16_384;

/// A table that a burst has filled is given back when it is empty again, if it was larger than this.
const TRIM_MIN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn what_belongs_to_one_machine_is_one_source() {
        let source = |text: &str| Source::of(text.parse().expect(text));
        for (one, other, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(source(one) == source(other), same, "{one}, {other}");
        }
    }

    #[test]
    fn a_source_has_so_many_at_a_time_and_others_have_theirs() {
        let now = Instant::now();
        let mut sources = Sources::new(2, 0);
        let first = sources.arrive(address(1), now).unwrap();
        let second = sources.arrive(address(1), now).unwrap();
        assert_eq!(sources.arrive(address(1), now), Err(Excess::Connections));
        let other = sources.arrive(address(2), now).unwrap();
        sources.check_invariants([&first, &second, &other].into_iter());
        sources.leave(first);
        let third = sources.arrive(address(1), now).unwrap();
        for seat in [second, third, other] {
            sources.leave(seat);
        }
        sources.check_invariants([].into_iter());
        assert!(sources.entries.is_empty(), "nothing is left of them");
    }

    #[test]
    fn a_source_comes_so_often_in_a_second_after_a_burst() {
        let start = Instant::now();
        let mut sources = Sources::new(0, 10);
        let mut came = |source: u32, milliseconds: u64| {
            let at = start + Duration::from_millis(milliseconds);
            sources.pass(address(source), at)
        };
        for _ in 0..20 {
            assert_eq!(came(1, 0), Ok(()));
        }
        let wait = Excess::Rate(Duration::from_millis(100));
        assert_eq!(came(1, 0), Err(wait));
        assert_eq!(came(1, 0), Err(wait), "a refusal costs nothing");
        assert_eq!(came(2, 0), Ok(()), "another is not to blame");
        assert_eq!(came(1, 100), Ok(()));
        assert!(came(1, 100).is_err());
        let granted = (100..10_100).filter(|at| came(1, *at).is_ok()).count();
        assert_eq!(granted, 99, "one each 100 ms, in just less than 10 s");
    }

    #[test]
    fn who_is_connected_is_not_forgotten_and_a_full_bucket_is() {
        let start = Instant::now();
        let mut sources = Sources::new(1, 1);
        let seat = sources.arrive(address(1), start).unwrap();
        assert_eq!(sources.pass(address(2), start), Ok(()));
        let later = start + Duration::from_secs(3600);
        assert_eq!(sources.arrive(address(1), later), Err(Excess::Connections));
        assert_eq!(sources.entries.len(), 1, "the second one's bucket is full");
        sources.check_invariants([&seat].into_iter());
        sources.leave(seat);
        assert_eq!(sources.pass(address(3), later), Ok(()));
        assert_eq!(sources.entries.len(), 1);
        sources.check_invariants([].into_iter());
    }

    #[test]
    fn the_table_has_an_end_and_who_is_most_in_debt_stays_in_it() {
        let now = Instant::now();
        let mut sources = Sources::new(0, 1);
        let guilty = address(u32::MAX);
        while sources.pass(guilty, now).is_ok() {}
        for number in 0..100_000 {
            assert_eq!(
                sources.pass(address(number), now),
                Ok(()),
                "none is refused"
            );
        }
        assert_eq!(sources.entries.len(), SOURCES_MAX);
        assert!(sources.pass(guilty, now).is_err(), "it is not forgotten");
        sources.check_invariants([].into_iter());
        let later = now + Duration::from_secs(60);
        assert_eq!(sources.pass(guilty, later), Ok(()));
        assert_eq!(sources.entries.len(), 1);
        assert!(sources.entries.capacity() <= TRIM_MIN);
    }

    #[test]
    fn where_nothing_is_limited_nothing_is_kept() {
        let mut sources = Sources::new(0, 0);
        for number in 0..1000 {
            let seat = sources.arrive(address(number), Instant::now());
            assert_eq!(seat, Ok(Seat::NONE));
        }
        assert!(sources.entries.is_empty() && sources.by_source.is_empty());
    }
}
