use std::mem::size_of;

use proptest::{collection::vec, prelude::*};

use super::*;

const LIMITS: PoolLimits = PoolLimits {
    max_idle: 8,
    max_idle_per_target: 4,
    idle: Duration::from_secs(30),
    age: Duration::from_secs(600),
};

fn key(index: u32) -> Key {
    Key {
        index,
        serial: index,
    }
}

const PEER: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn young(now: Instant) -> Origin {
    Origin {
        born: now,
        uses: 1,
        peer: Some(PEER),
    }
}

fn kept(parked: Parked) -> (Slot, Instant, Option<Key>) {
    match parked {
        Parked::Kept {
            slot,
            expires,
            evicted,
        } => (slot, expires, evicted),
        Parked::Refused(why) => panic!("refused: {why}"),
    }
}

/// Parks a connection that was just made.
fn park(pool: &mut Pool<u8>, target: u8, index: u32, now: Instant) -> (Slot, Instant, Option<Key>) {
    let parked = pool.park(&target, key(index), young(now), now);
    pool.check_invariants();
    kept(parked)
}

fn take(pool: &mut Pool<u8>, target: u8, now: Instant) -> Option<u32> {
    let taken = pool.take(&target, true, now);
    pool.check_invariants();
    taken.map(|taken| taken.key.index)
}

#[test]
fn a_parked_connection_costs_at_most_72_bytes_and_its_label_8() {
    let size = size_of::<Entry>();
    println!("an entry of the pool: {size} bytes");
    assert!(size <= 72, "{size}");
    assert_eq!(size_of::<Slot>(), 8);
    assert_eq!(size_of::<Option<Slot>>(), 8);
}

#[test]
fn the_newest_of_a_target_is_taken_first() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    for (target, index) in [(1, 10), (2, 20), (1, 11), (2, 21)] {
        park(&mut pool, target, index, now);
    }
    assert_eq!((pool.len(), pool.len_of(&1), pool.len_of(&3)), (4, 2, 0));
    assert_eq!(take(&mut pool, 1, now), Some(11));
    assert_eq!(take(&mut pool, 1, now), Some(10));
    assert_eq!(take(&mut pool, 1, now), None);
    assert_eq!(take(&mut pool, 2, now), Some(21));
    assert_eq!((pool.counters().hits, pool.counters().misses), (3, 1));
}

#[test]
fn what_is_taken_comes_with_its_history() {
    let born = Instant::now();
    let now = born + Duration::from_secs(5);
    let mut pool = Pool::new(LIMITS);
    let origin = Origin {
        born,
        uses: 7,
        peer: Some(PEER),
    };
    let (slot, ..) = kept(pool.park(&1, key(1), origin, now));
    let parked_for = Duration::from_millis(1500);
    assert_eq!(
        pool.take(&1, true, now + parked_for),
        Some(Taken {
            key: key(1),
            slot,
            origin,
            parked_for
        })
    );
}

#[test]
fn a_request_that_cannot_be_repeated_takes_only_a_fresh_connection() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    park(&mut pool, 1, 1, now);
    assert_eq!(pool.take(&1, false, now + FRESH), None);
    let just_before = now + FRESH - Duration::from_nanos(1);
    assert_eq!(
        pool.take(&1, false, just_before).map(|taken| taken.key),
        Some(key(1))
    );
}

#[test]
fn a_connection_seems_parked_no_later_than_it_was() {
    let born = Instant::now();
    let micros = Duration::from_micros;
    let mut pool = Pool::new(LIMITS);
    let parked = born + micros(10_900);
    kept(pool.park(&1, key(1), young(born), parked));
    assert_eq!(
        pool.take(&1, false, parked + FRESH - micros(1)),
        None,
        "rounding errs to this side"
    );
    let taken = pool.take(&1, false, parked + FRESH - micros(900) - micros(1));
    assert!(taken.is_some_and(|taken| taken.parked_for < FRESH));
}

#[test]
fn a_connection_expires_by_idle_time_or_by_age_whichever_comes_first() {
    let born = Instant::now();
    let mut pool = Pool::new(LIMITS);
    let (_, expires, _) = park(&mut pool, 1, 1, born);
    assert_eq!(expires, born + LIMITS.idle);
    let late = born + LIMITS.age - Duration::from_secs(10);
    let (_, expires, _) = kept(pool.park(&2, key(2), young(born), late));
    assert_eq!(expires, born + LIMITS.age);
    assert_eq!(
        pool.park(&2, key(3), young(born), expires),
        Parked::Refused(Refusal::TooOld)
    );
    assert_eq!(pool.counters().refused(Refusal::TooOld), 1);
}

#[test]
fn what_was_made_before_the_limits_of_now_leaves_and_does_not_come_back() {
    let made = Instant::now();
    let now = made + Duration::from_secs(1);
    let mut pool = Pool::new(LIMITS);
    let mut given_up = Vec::new();
    park(&mut pool, 1, 1, made);
    park(&mut pool, 1, 2, made);
    assert_eq!(take(&mut pool, 1, made), Some(2));
    pool.set_limits(LIMITS, &mut given_up, now);
    assert_eq!(given_up, [key(1)]);
    // The one that was in use, and one of which nobody knows which side of it it was made on.
    for born in [made, now] {
        let parked = pool.park(&1, key(2), young(born), now);
        assert_eq!(parked, Parked::Refused(Refusal::Outdated));
    }
    assert_eq!(pool.counters().refused(Refusal::Outdated), 2);
    park(&mut pool, 1, 3, now + Duration::from_nanos(1));
    assert_eq!(take(&mut pool, 1, now + Duration::from_secs(1)), Some(3));
}

#[test]
fn a_connection_whose_time_is_over_leaves_for_the_reason_that_came_first() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    let old = Origin {
        born: now - LIMITS.age + Duration::from_secs(1),
        ..young(now)
    };
    for (origin, reason) in [(young(now), Eviction::Idle), (old, Eviction::Age)] {
        let (slot, expires, _) = kept(pool.park(&1, key(1), origin, now));
        assert_eq!(pool.expire(slot, expires), Some((key(1), origin)));
        assert_eq!(pool.expire(slot, expires), None);
        assert_eq!(pool.counters().evicted(reason), 1);
    }
}

#[test]
fn an_expired_connection_is_not_taken_even_before_its_timer_fired() {
    let born = Instant::now();
    let mut pool = Pool::new(LIMITS);
    park(&mut pool, 1, 1, born);
    assert_eq!(take(&mut pool, 1, born + LIMITS.idle), None);

    // The newest may be the older one: it was in use for long.
    let now = born + LIMITS.age - Duration::from_secs(2);
    park(&mut pool, 2, 20, now);
    kept(pool.park(&2, key(21), young(born), now));
    assert_eq!(take(&mut pool, 2, born + LIMITS.age), Some(20));
}

#[test]
fn a_full_target_evicts_its_own_oldest_and_a_full_pool_the_oldest_of_all() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    park(&mut pool, 9, 90, now);
    for index in 0..4 {
        assert_eq!(park(&mut pool, 1, index, now).2, None);
    }
    assert_eq!(park(&mut pool, 1, 4, now).2, Some(key(0)));
    for index in 10..13 {
        assert_eq!(park(&mut pool, 2, index, now).2, None);
    }
    assert_eq!(pool.len(), LIMITS.max_idle);
    assert_eq!(park(&mut pool, 3, 30, now).2, Some(key(90)));
    assert_eq!(park(&mut pool, 3, 31, now).2, Some(key(1)));
    assert_eq!(pool.counters().evicted(Eviction::Full), 3);
}

#[test]
fn a_pool_of_nothing_is_off() {
    let now = Instant::now();
    for limits in [
        PoolLimits {
            max_idle: 0,
            ..LIMITS
        },
        PoolLimits {
            max_idle_per_target: 0,
            ..LIMITS
        },
        PoolLimits {
            idle: Duration::ZERO,
            ..LIMITS
        },
    ] {
        let mut pool = Pool::new(limits);
        assert_eq!(
            pool.park(&1, key(1), young(now), now),
            Parked::Refused(Refusal::PoolOff)
        );
        assert_eq!(take(&mut pool, 1, now), None);
    }
}

#[test]
fn endless_limits_do_not_overflow() {
    let born = Instant::now();
    let forever = PoolLimits {
        idle: Duration::MAX,
        age: Duration::MAX,
        ..LIMITS
    };
    let mut pool = Pool::new(forever);
    let almost = born + LIMIT_MAX - Duration::from_millis(1);
    let (_, expires, _) = kept(pool.park(&1, key(1), young(born), almost));
    assert_eq!(expires, born + LIMIT_MAX);
    assert_eq!(take(&mut pool, 1, almost), Some(1));
}

#[test]
fn a_slot_misses_once_its_connection_has_left() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    let (taken, ..) = park(&mut pool, 1, 1, now);
    assert_eq!(take(&mut pool, 1, now), Some(1));
    let (forgotten, ..) = park(&mut pool, 1, 2, now);
    assert_eq!(
        pool.forget(forgotten, Eviction::Closed),
        Some((key(2), young(now)))
    );
    let (present, ..) = park(&mut pool, 1, 3, now);
    assert_eq!(present.index, taken.index, "the place was given away");
    for stale in [taken, forgotten] {
        assert_eq!(pool.forget(stale, Eviction::Idle), None);
    }
    assert_eq!(
        pool.forget(present, Eviction::Idle),
        Some((key(3), young(now)))
    );
    assert_eq!(pool.counters().evicted(Eviction::Closed), 1);
    assert_eq!(pool.counters().evicted(Eviction::Idle), 1);
    pool.check_invariants();
}

#[test]
fn under_pressure_the_oldest_of_all_goes() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    park(&mut pool, 1, 1, now);
    park(&mut pool, 2, 2, now);
    assert_eq!(pool.evict_oldest(), Some(key(1)));
    assert_eq!(pool.evict_oldest(), Some(key(2)));
    assert_eq!(pool.evict_oldest(), None);
    assert_eq!(pool.counters().evicted(Eviction::Pressure), 2);
}

#[test]
fn flushing_a_target_leaves_the_others() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    for (target, index) in [(1, 10), (2, 20), (1, 11)] {
        park(&mut pool, target, index, now);
    }
    let mut flushed = Vec::new();
    pool.flush(&1, &mut flushed);
    pool.flush(&3, &mut flushed);
    pool.check_invariants();
    assert_eq!(flushed, [key(10), key(11)]);
    assert_eq!(take(&mut pool, 2, now), Some(20));
}

#[test]
fn a_closed_pool_has_given_up_everything_and_parks_no_more() {
    let now = Instant::now();
    let mut pool = Pool::new(LIMITS);
    park(&mut pool, 1, 1, now);
    park(&mut pool, 2, 2, now);
    let mut drained = Vec::new();
    pool.close(&mut drained);
    pool.check_invariants();
    assert_eq!(drained, [key(1), key(2)]);
    assert_eq!(
        pool.park(&1, key(3), young(now), now),
        Parked::Refused(Refusal::Draining)
    );
    assert!(pool.is_empty());
}

#[test]
fn reasons_are_counted_in_their_order() {
    for (place, why) in Eviction::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, place);
    }
    let mut pool = Pool::<u8>::new(LIMITS);
    pool.refuse(Refusal::Surplus);
    assert_eq!(pool.counters().refused(Refusal::Surplus), 1);
}

/// The same pool, kept the plain way: the oldest first.
struct Model {
    limits: PoolLimits,
    parked: Vec<ModelEntry>,
}

#[derive(Clone, Copy, Debug)]
struct ModelEntry {
    target: u8,
    key: Key,
    slot: Slot,
    origin: Origin,
    parked: Instant,
}

impl Model {
    fn take(&mut self, target: u8, repeatable: bool, now: Instant) -> Option<ModelEntry> {
        let limit = if repeatable {
            self.limits.idle
        } else {
            self.limits.idle.min(FRESH)
        };
        let place = self.parked.iter().rposition(|entry| {
            entry.target == target
                && now - entry.parked < limit
                && now - entry.origin.born < self.limits.age
        })?;
        Some(self.parked.remove(place))
    }

    /// Makes room for one more.
    fn evict(&mut self, target: u8) -> Option<Key> {
        let share = self
            .parked
            .iter()
            .filter(|entry| entry.target == target)
            .count();
        let place = if share >= self.limits.max_idle_per_target {
            self.parked.iter().position(|entry| entry.target == target)
        } else {
            (self.parked.len() >= self.limits.max_idle).then_some(0)
        }?;
        Some(self.parked.remove(place).key)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Park { target: u8, age_millis: u64 },
    Take { target: u8, repeatable: bool },
    Forget(prop::sample::Index),
    EvictOldest,
    Flush(u8),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let target = 0u8..4;
    prop_oneof![
        8 => (target.clone(), 0u64..12_000)
            .prop_map(|(target, age_millis)| Step::Park { target, age_millis }),
        5 => (target.clone(), any::<bool>())
            .prop_map(|(target, repeatable)| Step::Take { target, repeatable }),
        2 => any::<prop::sample::Index>().prop_map(Step::Forget),
        1 => Just(Step::EvictOldest),
        1 => target.prop_map(Step::Flush),
        4 => (0u64..1500).prop_map(Step::Advance),
    ]
}

proptest! {
    #[test]
    fn the_pool_does_what_a_plain_list_does(
        max_idle in 0usize..8,
        max_idle_per_target in 0usize..4,
        steps in vec(step(), 1..150),
    ) {
        let limits = PoolLimits {
            max_idle,
            max_idle_per_target,
            idle: Duration::from_secs(3),
            age: Duration::from_secs(10),
        };
        let mut pool = Pool::new(limits);
        let mut model = Model { limits, parked: Vec::new() };
        let mut now = Instant::now() + Duration::from_secs(60);
        let mut serial = 0;
        for step in steps {
            match step {
                Step::Park { target, age_millis } => {
                    serial += 1;
                    let origin = Origin { born: now - Duration::from_millis(age_millis), uses: serial, peer: Some(PEER) };
                    match pool.park(&target, key(serial), origin, now) {
                        Parked::Kept { slot, expires, evicted } => {
                            prop_assert_eq!(evicted, model.evict(target));
                            prop_assert_eq!(
                                expires,
                                (now + limits.idle).min(origin.born + limits.age)
                            );
                            prop_assert!(expires > now);
                            let key = key(serial);
                            model.parked.push(ModelEntry { target, key, slot, origin, parked: now });
                        }
                        Parked::Refused(why) if age_millis >= 10_000 => {
                            prop_assert_eq!(why, Refusal::TooOld);
                        }
                        Parked::Refused(why) => {
                            prop_assert_eq!(why, Refusal::PoolOff);
                            prop_assert_eq!(max_idle.min(max_idle_per_target), 0);
                        }
                    }
                }
                Step::Take { target, repeatable } => {
                    let expected = model.take(target, repeatable, now).map(|entry| Taken {
                        key: entry.key,
                        slot: entry.slot,
                        origin: entry.origin,
                        parked_for: now - entry.parked,
                    });
                    prop_assert_eq!(pool.take(&target, repeatable, now), expected);
                }
                Step::Forget(index) if !model.parked.is_empty() => {
                    let entry = model.parked.remove(index.index(model.parked.len()));
                    let expected = Some((entry.key, entry.origin));
                    prop_assert_eq!(pool.forget(entry.slot, Eviction::Idle), expected);
                    prop_assert_eq!(pool.forget(entry.slot, Eviction::Idle), None);
                }
                Step::Forget(_) => {}
                Step::EvictOldest => {
                    let expected =
                        (!model.parked.is_empty()).then(|| model.parked.remove(0).key);
                    prop_assert_eq!(pool.evict_oldest(), expected);
                }
                Step::Flush(target) => {
                    let mut flushed = Vec::new();
                    pool.flush(&target, &mut flushed);
                    let is_its = |entry: &ModelEntry| entry.target == target;
                    let its = model.parked.iter().filter(|entry| is_its(entry));
                    let expected: Vec<_> = its.map(|entry| entry.key).collect();
                    model.parked.retain(|entry| !is_its(entry));
                    prop_assert_eq!(flushed, expected);
                }
                Step::Advance(millis) => now += Duration::from_millis(millis),
            }
            pool.check_invariants();
            prop_assert_eq!(pool.len(), model.parked.len());
        }
    }
}
