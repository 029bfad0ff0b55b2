//! Where exchanges go, and how many may be there at a time.
//!
//! An origin that serves so many requests at once and no more is given no more: the others wait here,
//! in the order in which they came, in a bounded queue with a deadline. It knows no socket; a place is
//! taken when an exchange is let in and given back when its stream has ended, however it did.
//!
//! Invariants: an upstream without exchanges has no entry; nobody waits while a place is free, but
//! between [`Places::leave`] and the same turn's [`Places::next`].

use std::{
    collections::{HashMap, VecDeque},
    fmt,
};

use crate::{config::Target, key::Key};

/// What makes two connections to an origin interchangeable: the key of the pool.
///
/// The host is the one that was asked for, so it is also the name that the certificate was verified
/// for and the one in SNI. Whatever else could tell connections apart (trusted roots, ALPN, that no
/// certificate of ours is shown) is the same for all connections of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Upstream {
    /// `https`: TLS is spoken to it.
    pub secure: bool,
    pub target: Target,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.target)
    }
}

/// The exchanges of each upstream, where there is a limit to them.
#[derive(Debug)]
pub(super) struct Places {
    /// 0 is no limit, and then nothing is counted.
    max: usize,
    queue_max: usize,
    taken: HashMap<Upstream, Taken>,
    /// Upstreams at which a place became free for somebody who waits.
    freed: Vec<Upstream>,
}

#[derive(Debug, Default)]
struct Taken {
    active: usize,
    /// Who waits, and the timer that ends the wait.
    waiting: VecDeque<(u32, Key)>,
}

/// Whether an exchange may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Admission {
    /// Yes; it has a place now.
    Now,
    /// When another one ends.
    Wait,
    /// Too many wait already.
    Refused,
}

impl Places {
    pub fn new(max: usize, queue_max: usize) -> Places {
        Places {
            max,
            queue_max,
            taken: HashMap::new(),
            freed: Vec::new(),
        }
    }

    /// Whether there is a limit at all.
    pub fn are_limited(&self) -> bool {
        self.max > 0
    }

    pub fn admit(&mut self, upstream: &Upstream) -> Admission {
        if !self.are_limited() {
            return Admission::Now;
        }
        let Some(taken) = self.taken.get_mut(upstream) else {
            let taken = Taken {
                active: 1,
                ..Taken::default()
            };
            self.taken.insert(upstream.clone(), taken);
            return Admission::Now;
        };
        if taken.active < self.max && taken.waiting.is_empty() {
            taken.active += 1;
            Admission::Now
        } else if taken.waiting.len() < self.queue_max {
            Admission::Wait
        } else {
            Admission::Refused
        }
    }

    /// Queues whoever was told to wait.
    pub fn wait(&mut self, upstream: &Upstream, carried: u32, timer: Key) {
        if let Some(taken) = self.taken.get_mut(upstream) {
            taken.waiting.push_back((carried, timer));
        }
    }

    /// Somebody who waited does so no longer.
    pub fn give_up(&mut self, upstream: &Upstream, timer: Key) {
        if let Some(taken) = self.taken.get_mut(upstream) {
            taken.waiting.retain(|(_, waiting)| *waiting != timer);
        }
        self.forget_if_unused(upstream);
    }

    /// An exchange that had a place has ended.
    pub fn leave(&mut self, upstream: &Upstream) {
        let Some(taken) = self.taken.get_mut(upstream) else {
            return;
        };
        taken.active -= 1;
        if !taken.waiting.is_empty() {
            self.freed.push(upstream.clone());
        }
        self.forget_if_unused(upstream);
    }

    /// Who has waited and may begin now; it has a place. To be asked until the answer is `None`.
    pub fn next(&mut self) -> Option<u32> {
        while let Some(upstream) = self.freed.pop() {
            if let Some(taken) = self.taken.get_mut(&upstream)
                && taken.active < self.max
                && let Some((carried, _)) = taken.waiting.pop_front()
            {
                taken.active += 1;
                return Some(carried);
            }
        }
        None
    }

    /// All exchanges have ended.
    pub fn clear(&mut self) {
        self.taken.clear();
        self.freed.clear();
    }

    fn forget_if_unused(&mut self, upstream: &Upstream) {
        if let Some(taken) = self.taken.get(upstream)
            && taken.active == 0
            && taken.waiting.is_empty()
        {
            self.taken.remove(upstream);
        }
    }

    /// Panics where the invariants do not hold: `active` and `waiting` are what the streams say.
    pub fn check_invariants(&self, active: usize, waiting: usize) {
        let mut counted = (0, 0);
        for taken in self.taken.values() {
            assert!(
                taken.active > 0 || !taken.waiting.is_empty(),
                "an upstream without exchanges is forgotten"
            );
            assert!(taken.active <= self.max, "no more places than there are");
            assert!(
                taken.waiting.len() <= self.queue_max,
                "the queue is bounded"
            );
            assert!(
                taken.waiting.is_empty() || taken.active == self.max || !self.freed.is_empty(),
                "nobody waits while a place is free"
            );
            counted.0 += taken.active;
            counted.1 += taken.waiting.len();
        }
        assert_eq!(counted, (active, waiting), "places agree with the streams");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(port: u16) -> Upstream {
        Upstream {
            secure: false,
            target: format!("a:{port}").parse().unwrap(),
        }
    }

    fn timer(serial: u32) -> Key {
        Key { index: 0, serial }
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let mut places = Places::new(0, 0);
        for _ in 0..10 {
            assert_eq!(places.admit(&upstream(1)), Admission::Now);
        }
        places.leave(&upstream(1));
        places.check_invariants(0, 0);
        assert_eq!(places.next(), None);
    }

    #[test]
    fn those_over_the_limit_wait_in_their_order_and_no_more_than_the_queue_holds() {
        let mut places = Places::new(2, 2);
        let one = upstream(1);
        assert_eq!(places.admit(&one), Admission::Now);
        assert_eq!(places.admit(&one), Admission::Now);
        for waiting in 0..2 {
            assert_eq!(places.admit(&one), Admission::Wait);
            places.wait(&one, waiting, timer(waiting));
        }
        assert_eq!(places.admit(&one), Admission::Refused);
        assert_eq!(places.admit(&upstream(2)), Admission::Now, "another origin");
        places.check_invariants(3, 2);
        assert_eq!(places.next(), None);
        places.leave(&one);
        // Who comes now must not overtake those who wait.
        assert_eq!(places.admit(&one), Admission::Refused);
        assert_eq!(places.next(), Some(0));
        assert_eq!(places.next(), None);
        places.leave(&one);
        assert_eq!(places.next(), Some(1));
        places.check_invariants(3, 0);
    }

    #[test]
    fn who_gives_up_leaves_no_trace_and_an_unused_upstream_neither() {
        let mut places = Places::new(1, 2);
        let one = upstream(1);
        assert_eq!(places.admit(&one), Admission::Now);
        for waiting in 0..2 {
            assert_eq!(places.admit(&one), Admission::Wait);
            places.wait(&one, waiting, timer(waiting));
        }
        places.give_up(&one, timer(0));
        places.leave(&one);
        assert_eq!(places.next(), Some(1));
        places.leave(&one);
        assert_eq!(places.next(), None);
        places.check_invariants(0, 0);
        assert!(places.taken.is_empty());
    }
}
