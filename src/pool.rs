//! Which parked connection to use, which to park, and why not.
//!
//! It owns the keys of idle origin connections and their history. It holds no sockets, reads no clock
//! and knows no protocol: whoever owns the sockets tells it what happened and closes what it gives up.
//! A target is whatever makes two connections interchangeable (scheme, name, port and
//! everything that was verified); here it is only compared.
//!
//! The newest is taken first: its congestion window is warm and it is the most likely to be alive,
//! while the surplus is left to grow old. The oldest is evicted first. So each entry is in two lists,
//! that of its target and that of all, both newest first:
//!
//! ```text
//!   all       d - c - b - a          d was parked last
//!   target 1  d ----- b
//!   target 2      c ----- a
//! ```
//!
//! Invariants (see [`Pool::check_invariants`]): an entry is in both lists or vacant; a target without
//! entries costs nothing; and every connection that was parked was taken, evicted or is still here.

mod counters;
mod rule;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

pub use self::{
    counters::{Counters, Eviction},
    rule::{Facts, Refusal, is_poolable, refusal},
};
use crate::key::Key;

/// Idle connections by target.
#[derive(Debug)]
pub struct Pool<K: Eq + Hash + Clone> {
    limits: PoolLimits,
    /// When they became these, if they have been others.
    since: Option<Instant>,
    closed: bool,
    targets: HashMap<K, u32>,
    /// What `targets` points to; `None` is vacant.
    buckets: Vec<Option<Bucket<K>>>,
    vacant_buckets: Vec<u32>,
    entries: Vec<Entry>,
    /// First of the vacant entries, linked by `next` of [`ALL`].
    vacant: u32,
    /// All parked entries, the newest first.
    newest: u32,
    len: usize,
    counters: Counters,
}

/// How many connections may be idle, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Idle connections in total. 0 turns the pool off.
    pub max_idle: usize,
    /// Idle connections to one target. 0 turns the pool off.
    pub max_idle_per_target: usize,
    /// How long a connection stays parked. Below what origins grant, or they close it first.
    pub idle: Duration,
    /// How long a connection is used at all, so that a change of DNS or of certificates comes through.
    pub age: Duration,
}

/// Names a parked entry, for the label of its socket. It misses once the entry was taken or evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    index: u32,
    /// Never zero, so that `Option<Slot>` is as small.
    serial: NonZeroU32,
}

/// The history of a connection. It travels with the connection from one exchange to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// When it was established.
    pub born: Instant,
    /// Exchanges it has carried; the owner of the exchange counts.
    pub uses: u32,
    /// The address it leads to, if that is what it leads to, for whoever must allow it anew; a v4-mapped
    /// one may come back unwrapped.
    pub peer: Option<IpAddr>,
}

/// What became of a connection that was offered.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// It is in the pool.
    Kept {
        /// Goes into the label of the socket.
        slot: Slot,
        /// When to forget it, for being idle or old: the owner sets a timer.
        expires: Instant,
        /// The one that had to leave for it and is to be closed: the oldest of this target if that
        /// had its share, else the oldest of all.
        evicted: Option<Key>,
    },
    /// It is to be closed.
    Refused(Refusal),
}

/// A connection for the next exchange. The caller peeks before it trusts it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The socket.
    pub key: Key,
    /// The entry it had, which no longer exists: to compare with the socket's label.
    pub slot: Slot,
    /// Its history.
    pub origin: Origin,
    /// How long it was idle, in whole milliseconds rounded up.
    pub parked_for: Duration,
}

/// A connection parked less than this ago is as good as new for a request that cannot be repeated:
/// the shortest idle limits in use are 2 s (gunicorn), and half of one covers the way there.
pub const FRESH: Duration = Duration::from_secs(1);

/// The longest limits that make a difference here: 49 days, so that they count in a `u32` of
/// milliseconds.
const LIMIT_MAX: Duration = Duration::from_millis(u32::MAX as u64);
/// End of a list.
const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Bucket<K> {
    target: K,
    newest: u32,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    born: Instant,
    uses: u32,
    /// An IPv4 address as a mapped one, which takes a word less than both kinds; none as `::`, which is
    /// nobody's.
    peer: Ipv6Addr,
    /// Age at which it was parked, rounded down, so that it seems parked a little earlier. It takes
    /// four bytes where the time itself would take sixteen.
    parked_at_millis: u32,
    serial: NonZeroU32,
    /// Index into `buckets`, or [`NIL`] when the entry is vacant.
    bucket: u32,
    /// By list: [`TARGET`] and [`ALL`].
    links: [Links; 2],
}

/// Neighbours in a circular list: before the newest comes the oldest.
#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    previous: u32,
}

/// The list of the entry's target.
const TARGET: usize = 0;
/// The list of all entries.
const ALL: usize = 1;

impl PoolLimits {
    fn clamped(self) -> PoolLimits {
        PoolLimits {
            idle: self.idle.min(LIMIT_MAX),
            age: self.age.min(LIMIT_MAX),
            ..self
        }
    }
}

impl<K: Eq + Hash + Clone> Pool<K> {
    /// An empty pool, which allocates when it is first used.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits: limits.clamped(),
            since: None,
            closed: false,
            targets: HashMap::new(),
            buckets: Vec::new(),
            vacant_buckets: Vec::new(),
            entries: Vec::new(),
            vacant: NIL,
            newest: NIL,
            len: 0,
            counters: Counters::default(),
        }
    }

    /// Takes the newest connection to a target that is within its limits. A request that cannot be
    /// repeated only gets one parked less than [`FRESH`] ago.
    pub fn take(&mut self, target: &K, repeatable: bool, now: Instant) -> Option<Taken> {
        let found = self.find(target, repeatable, now);
        let Some(index) = found else {
            self.counters.misses += 1;
            return None;
        };
        self.counters.hits += 1;
        let entry = self.entries[index as usize];
        self.remove(index);
        Some(Taken {
            key: entry.key,
            slot: Slot {
                index,
                serial: entry.serial,
            },
            origin: entry.origin(),
            parked_for: entry.parked_for(now),
        })
    }

    /// Parks a connection whose exchange has ended cleanly: [`refusal`] had nothing against it, it
    /// was read to `WouldBlock`, and it stays registered.
    pub fn park(&mut self, target: &K, key: Key, origin: Origin, now: Instant) -> Parked {
        if let Some(why) = self.objection(origin, now) {
            self.refuse(why);
            return Parked::Refused(why);
        }
        let evicted = self
            .surplus(target)
            .map(|index| self.evict(index, Eviction::Full));
        let slot = self.insert(target, key, origin, now);
        self.counters.parked += 1;
        let left = self
            .limits
            .age
            .saturating_sub(now.saturating_duration_since(origin.born));
        let expires = now + self.limits.idle.min(left);
        Parked::Kept {
            slot,
            expires,
            evicted,
        }
    }

    /// Gives up a parked connection, which the caller closes; `None` when it has left already.
    pub fn forget(&mut self, slot: Slot, why: Eviction) -> Option<(Key, Origin)> {
        let entry = *self.entries.get(slot.index as usize)?;
        if entry.serial != slot.serial || entry.bucket == NIL {
            return None;
        }
        Some((self.evict(slot.index, why), entry.origin()))
    }

    /// Gives up a parked connection, which the caller closes, because its time is over: that of its
    /// age if it is that old, else that of being idle. `None` when it has left already.
    pub fn expire(&mut self, slot: Slot, now: Instant) -> Option<(Key, Origin)> {
        let born = self.entries.get(slot.index as usize)?.born;
        let old = now.saturating_duration_since(born) >= self.limits.age;
        self.forget(slot, if old { Eviction::Age } else { Eviction::Idle })
    }

    /// Gives up the connection that was parked first, because its descriptor is needed.
    pub fn evict_oldest(&mut self) -> Option<Key> {
        let oldest = self.end_of(self.newest, ALL)?;
        Some(self.evict(oldest, Eviction::Pressure))
    }

    /// Gives up all connections to a target, because one of them proved stale.
    pub fn flush(&mut self, target: &K, into: &mut Vec<Key>) {
        while let Some(oldest) = self
            .bucket(target)
            .and_then(|it| self.end_of(it.newest, TARGET))
        {
            into.push(self.evict(oldest, Eviction::Flushed));
        }
    }

    /// Gives up everything, whatever the reason, to be closed by the caller.
    pub fn give_up(&mut self, into: &mut Vec<Key>) {
        while let Some(oldest) = self.end_of(self.newest, ALL) {
            into.push(self.evict(oldest, Eviction::Drained));
        }
    }

    /// Gives up everything and parks nothing from now on: the process is draining.
    pub fn close(&mut self, into: &mut Vec<Key>) {
        self.closed = true;
        self.give_up(into);
    }

    /// Other limits from now on; all that is parked is given up, since whom it leads to was found out under
    /// the old ones, and so is what is in use, when it is offered. To be closed by the caller.
    pub fn set_limits(&mut self, limits: PoolLimits, into: &mut Vec<Key>, now: Instant) {
        self.give_up(into);
        self.limits = limits.clamped();
        self.since = Some(now);
    }

    /// Counts a connection that was not even offered, because [`refusal`] named a reason.
    pub fn refuse(&mut self, why: Refusal) {
        self.counters.refused[why as usize] += 1;
    }

    /// Counts a connection that was taken and then found closed by the peek.
    pub fn stale_at_take(&mut self) {
        self.counters.stale_at_take += 1;
    }

    /// Counts a connection that was taken, passed the peek, and was closed by its origin before it
    /// answered.
    pub fn stale_after_take(&mut self) {
        self.counters.stale_after_take += 1;
    }

    /// Counts such an exchange that was answered on a fresh connection.
    pub fn retried(&mut self) {
        self.counters.retried += 1;
    }

    /// Idle connections.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is idle.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Idle connections to one target.
    pub fn len_of(&self, target: &K) -> usize {
        self.bucket(target).map_or(0, |bucket| bucket.len)
    }

    /// The parked connections, the newest first.
    pub fn keys(&self) -> impl Iterator<Item = (Slot, Key)> {
        self.walk(self.newest, ALL).into_iter().map(|index| {
            let entry = &self.entries[index as usize];
            let serial = entry.serial;
            (Slot { index, serial }, entry.key)
        })
    }

    /// The targets to which connections are idle, and to each how many.
    pub fn targets(&self) -> impl Iterator<Item = (&K, usize)> {
        let buckets = self.buckets.iter().flatten();
        buckets.map(|bucket| (&bucket.target, bucket.len))
    }

    /// How long ago the one that is idle longest was parked.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        let oldest = self.end_of(self.newest, ALL)?;
        Some(self.entries[oldest as usize].parked_for(now))
    }

    /// What has happened so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Panics when the pool contradicts itself. For tests and the simulator; O(entries).
    pub fn check_invariants(&self) {
        assert!(self.len <= self.limits.max_idle, "the total is bounded");
        assert!(
            !self.closed || self.len == 0,
            "nothing is parked while draining"
        );

        let all = self.walk(self.newest, ALL);
        assert_eq!(all.len(), self.len, "all entries are in the list of all");
        let mut in_buckets = 0;
        for (target, &at) in &self.targets {
            let bucket = self.buckets[at as usize]
                .as_ref()
                .expect("a known target has a bucket");
            assert!(bucket.target == *target, "the bucket knows its target");
            assert!(bucket.len > 0, "an empty bucket is freed");
            assert!(
                bucket.len <= self.limits.max_idle_per_target,
                "each target is bounded"
            );
            let list = self.walk(bucket.newest, TARGET);
            assert_eq!(list.len(), bucket.len, "a bucket knows its length");
            assert!(
                list.iter()
                    .all(|&index| self.entries[index as usize].bucket == at),
                "an entry knows its bucket"
            );
            let in_all = all
                .iter()
                .filter(|&&index| self.entries[index as usize].bucket == at);
            assert!(list.iter().eq(in_all), "both lists have the same order");
            in_buckets += list.len();
        }
        assert_eq!(
            in_buckets, self.len,
            "all entries are in the list of their target"
        );
        assert_eq!(
            self.targets.len() + self.vacant_buckets.len(),
            self.buckets.len(),
            "no bucket is lost"
        );

        let mut vacant = 0;
        let mut index = self.vacant;
        while index != NIL {
            vacant += 1;
            assert!(vacant <= self.entries.len(), "the vacant list ends");
            assert_eq!(
                self.entries[index as usize].bucket, NIL,
                "a vacant entry is in no bucket"
            );
            index = self.entries[index as usize].links[ALL].next;
        }
        assert_eq!(vacant + self.len, self.entries.len(), "no entry is lost");

        let counted = &self.counters;
        assert_eq!(
            counted.parked,
            counted.hits + counted.evicted.iter().sum::<u64>() + self.len as u64,
            "what was parked was taken, evicted or is here"
        );
        assert!(
            counted.stale_at_take + counted.stale_after_take <= counted.hits,
            "only what was taken can be stale"
        );
        assert!(
            counted.retried <= counted.stale_after_take,
            "only what was stale is retried"
        );
    }

    /// The newest entry of a target that may be used.
    fn find(&self, target: &K, repeatable: bool, now: Instant) -> Option<u32> {
        let bucket = self.bucket(target)?;
        let idle = if repeatable {
            self.limits.idle
        } else {
            self.limits.idle.min(FRESH)
        };
        let mut index = bucket.newest;
        for _ in 0..bucket.len {
            let entry = &self.entries[index as usize];
            // All that follow were parked earlier still.
            if entry.parked_for(now) >= idle {
                return None;
            }
            // Past its age the timer will fetch it; one behind it may be younger.
            if now.saturating_duration_since(entry.born) < self.limits.age {
                return Some(index);
            }
            index = entry.links[TARGET].next;
        }
        None
    }

    /// What this pool has against a connection, in the order of [`refusal`].
    fn objection(&self, origin: Origin, now: Instant) -> Option<Refusal> {
        if now.saturating_duration_since(origin.born) >= self.limits.age {
            return Some(Refusal::TooOld);
        }
        // What was made in that very turn may have been so before.
        if self.since.is_some_and(|since| origin.born <= since) {
            return Some(Refusal::Outdated);
        }
        if self.closed {
            return Some(Refusal::Draining);
        }
        let room = self.limits.max_idle.min(self.limits.max_idle_per_target);
        (room == 0 || self.limits.idle.is_zero()).then_some(Refusal::PoolOff)
    }

    /// Who has to leave before one more is parked for this target.
    fn surplus(&self, target: &K) -> Option<u32> {
        if let Some(bucket) = self.bucket(target)
            && bucket.len >= self.limits.max_idle_per_target
        {
            return self.end_of(bucket.newest, TARGET);
        }
        if self.len >= self.limits.max_idle {
            return self.end_of(self.newest, ALL);
        }
        None
    }

    fn bucket(&self, target: &K) -> Option<&Bucket<K>> {
        self.buckets[*self.targets.get(target)? as usize].as_ref()
    }

    /// The oldest of a list.
    fn end_of(&self, newest: u32, list: usize) -> Option<u32> {
        (newest != NIL).then(|| self.entries[newest as usize].links[list].previous)
    }

    fn insert(&mut self, target: &K, key: Key, origin: Origin, now: Instant) -> Slot {
        let bucket = self.bucket_for(target);
        let lived = now.saturating_duration_since(origin.born).as_millis();
        let mut entry = Entry {
            key,
            born: origin.born,
            uses: origin.uses,
            peer: match origin.peer {
                Some(IpAddr::V4(peer)) => peer.to_ipv6_mapped(),
                Some(IpAddr::V6(peer)) => peer,
                None => Ipv6Addr::UNSPECIFIED,
            },
            parked_at_millis: u32::try_from(lived).expect("the age limit fits into a u32"),
            serial: NonZeroU32::MIN,
            bucket,
            links: [Links {
                next: NIL,
                previous: NIL,
            }; 2],
        };
        let index = self.vacant;
        let index = if index == NIL {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("descriptors run out before 2^32")
        } else {
            let place = &mut self.entries[index as usize];
            self.vacant = place.links[ALL].next;
            entry.serial = place.serial.checked_add(1).unwrap_or(NonZeroU32::MIN);
            *place = entry;
            index
        };
        self.len += 1;
        link(&mut self.entries, ALL, &mut self.newest, index);
        let bucket = self.buckets[bucket as usize]
            .as_mut()
            .expect("it was just looked up");
        bucket.len += 1;
        link(&mut self.entries, TARGET, &mut bucket.newest, index);
        let serial = self.entries[index as usize].serial;
        Slot { index, serial }
    }

    /// The bucket of a target, made if there is none.
    fn bucket_for(&mut self, target: &K) -> u32 {
        if let Some(&at) = self.targets.get(target) {
            return at;
        }
        let bucket = Some(Bucket {
            target: target.clone(),
            newest: NIL,
            len: 0,
        });
        let at = if let Some(at) = self.vacant_buckets.pop() {
            self.buckets[at as usize] = bucket;
            at
        } else {
            self.buckets.push(bucket);
            u32::try_from(self.buckets.len() - 1).expect("no more buckets than entries")
        };
        self.targets.insert(target.clone(), at);
        at
    }

    fn evict(&mut self, index: u32, why: Eviction) -> Key {
        self.counters.evicted[why as usize] += 1;
        let key = self.entries[index as usize].key;
        self.remove(index);
        key
    }

    /// Takes an entry out of both lists, and its bucket away if it was the last.
    fn remove(&mut self, index: u32) {
        let at = self.entries[index as usize].bucket;
        unlink(&mut self.entries, ALL, &mut self.newest, index);
        let place = &mut self.buckets[at as usize];
        let bucket = place.as_mut().expect("a parked entry has a bucket");
        bucket.len -= 1;
        unlink(&mut self.entries, TARGET, &mut bucket.newest, index);
        if bucket.len == 0 {
            self.targets.remove(&bucket.target);
            *place = None;
            self.vacant_buckets.push(at);
        }
        let entry = &mut self.entries[index as usize];
        entry.bucket = NIL;
        entry.links[ALL].next = self.vacant;
        self.vacant = index;
        self.len -= 1;
    }

    /// A list, the newest first, its links checked both ways.
    fn walk(&self, newest: u32, list: usize) -> Vec<u32> {
        let mut walked = Vec::new();
        let mut index = newest;
        while index != NIL {
            walked.push(index);
            assert!(walked.len() <= self.len, "a list ends");
            let next = self.entries[index as usize].links[list].next;
            assert_eq!(
                self.entries[next as usize].links[list].previous, index,
                "links agree"
            );
            index = if next == newest { NIL } else { next };
        }
        walked
    }
}

impl Entry {
    fn origin(&self) -> Origin {
        Origin {
            born: self.born,
            uses: self.uses,
            peer: (!self.peer.is_unspecified()).then(|| self.peer.to_canonical()),
        }
    }

    fn parked_for(&self, now: Instant) -> Duration {
        let parked_at = Duration::from_millis(self.parked_at_millis.into());
        now.saturating_duration_since(self.born)
            .saturating_sub(parked_at)
    }
}

/// Puts an entry at the head of a list.
fn link(entries: &mut [Entry], list: usize, newest: &mut u32, index: u32) {
    let (next, previous) = match *newest {
        NIL => (index, index),
        head => (head, entries[head as usize].links[list].previous),
    };
    entries[index as usize].links[list] = Links { next, previous };
    entries[previous as usize].links[list].next = index;
    entries[next as usize].links[list].previous = index;
    *newest = index;
}

/// Takes an entry out of a list.
fn unlink(entries: &mut [Entry], list: usize, newest: &mut u32, index: u32) {
    let Links { next, previous } = entries[index as usize].links[list];
    if next == index {
        *newest = NIL;
        return;
    }
    entries[previous as usize].links[list].next = next;
    entries[next as usize].links[list].previous = previous;
    if *newest == index {
        *newest = next;
    }
}
