//! Handshakes under way: of links until they are welcomed, of users until TLS stands.
//!
//! There are at most so many. Who comes beyond that waits in the listener's backlog, so that a fleet
//! which comes back at once gets in bit by bit; but a handshake that has had its time makes room, so that
//! those who never finish theirs keep nobody out. It knows no socket.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::key::Key;

/// Handshakes of one sort.
#[derive(Debug)]
pub(super) struct Handshakes {
    max: usize,
    begun: BTreeMap<Handshake, (Key, Instant)>,
    next: u32,
    /// Listeners at which somebody waits.
    waiting: Vec<Key>,
}

/// The name of one: a later one is greater, until the count has gone round, when the oldest are taken for
/// the youngest once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handshake(u32);

/// Whether one more may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Room {
    /// Yes.
    Free,
    /// Once this one is given up.
    After(Key),
    /// When another has ended, or is old enough.
    Wait,
}

impl Handshakes {
    pub fn new(max: usize) -> Handshakes {
        Handshakes {
            max,
            begun: BTreeMap::new(),
            next: 0,
            waiting: Vec::new(),
        }
    }

    /// How many there may be from now on.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub fn len(&self) -> usize {
        self.begun.len()
    }

    /// Whether one more may begin that waits at `listener`.
    pub fn room(&mut self, listener: Key, now: Instant) -> Room {
        if self.begun.len() < self.max {
            return Room::Free;
        }
        if let Some(oldest) = self.overdue(now) {
            return Room::After(oldest);
        }
        if !self.waiting.contains(&listener) {
            self.waiting.push(listener);
        }
        Room::Wait
    }

    /// The oldest, if it has had its time.
    pub fn overdue(&self, now: Instant) -> Option<Key> {
        let (_, (oldest, since)) = self.begun.first_key_value()?;
        (now.saturating_duration_since(*since) >= GRACE).then_some(*oldest)
    }

    pub fn begin(&mut self, key: Key, now: Instant) -> Handshake {
        while self.begun.contains_key(&Handshake(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let handshake = Handshake(self.next);
        self.next = self.next.wrapping_add(1);
        self.begun.insert(handshake, (key, now));
        handshake
    }

    /// It has ended, however it did. The answer is at which listeners somebody waits for that.
    pub fn end(&mut self, handshake: Handshake) -> Vec<Key> {
        self.begun.remove(&handshake);
        std::mem::take(&mut self.waiting)
    }

    /// All have ended.
    pub fn clear(&mut self) {
        self.begun.clear();
        self.waiting.clear();
    }
}

/// How long a handshake keeps its place when others wait for one. 1 s: four round trips on a poor mobile
/// network, while who opens connections and says nothing holds a place no longer than that.
const GRACE: Duration = Duration::from_secs(1);

/// How soon a listener looks again whether a handshake is old enough to give way.
pub(super) const HANDSHAKE_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, serial: 0 }
    }

    #[test]
    fn who_comes_beyond_the_limit_waits_until_one_has_ended() {
        let now = Instant::now();
        let mut handshakes = Handshakes::new(2);
        assert_eq!(handshakes.room(key(9), now), Room::Free);
        let first = handshakes.begin(key(0), now);
        let second = handshakes.begin(key(1), now);
        assert_eq!(handshakes.room(key(9), now), Room::Wait);
        assert_eq!(handshakes.room(key(9), now), Room::Wait);
        assert_eq!(handshakes.room(key(8), now), Room::Wait);
        assert_eq!(handshakes.end(second), [key(9), key(8)], "each once");
        assert_eq!(handshakes.room(key(9), now), Room::Free);
        assert_eq!(handshakes.end(first), []);
        assert_eq!(handshakes.len(), 0);
    }

    #[test]
    fn the_oldest_gives_way_once_it_has_had_its_time() {
        let now = Instant::now();
        let mut handshakes = Handshakes::new(2);
        let first = handshakes.begin(key(0), now);
        handshakes.begin(key(1), now + GRACE / 2);
        assert_eq!(
            handshakes.room(key(9), now + GRACE - HANDSHAKE_PAUSE),
            Room::Wait
        );
        assert_eq!(handshakes.room(key(9), now + GRACE), Room::After(key(0)));
        handshakes.end(first);
        handshakes.begin(key(2), now + GRACE);
        assert_eq!(handshakes.room(key(9), now + GRACE), Room::Wait);
        assert_eq!(
            handshakes.room(key(9), now + GRACE / 2 + GRACE),
            Room::After(key(1))
        );
    }

    #[test]
    fn names_stay_apart_when_the_count_goes_round() {
        let now = Instant::now();
        let mut handshakes = Handshakes::new(10);
        handshakes.next = u32::MAX;
        let last = handshakes.begin(key(0), now);
        let first = handshakes.begin(key(1), now);
        handshakes.next = u32::MAX;
        let between = handshakes.begin(key(2), now);
        assert_eq!(handshakes.len(), 3);
        assert!(last != first && first != between && between != last);
    }
}
