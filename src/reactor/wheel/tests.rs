use std::{
    collections::{BTreeMap, HashMap},
    mem::size_of,
};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::key::Key;

const MILLI: Duration = Duration::from_millis(1);

/// A wheel that has just begun, and a way to say "at n milliseconds".
fn wheel() -> (TimerWheel<u32>, impl Fn(u64) -> Instant) {
    let start = Instant::now();
    (TimerWheel::new(start), move |millis| {
        start + Duration::from_millis(millis)
    })
}

/// The first and last ticks of each level's slots, counted from zero, and of the wheel's reach.
fn boundaries() -> impl Iterator<Item = u64> {
    (1..=7).flat_map(|level| {
        let width = 1u64 << (6 * level);
        [
            width - 1,
            width,
            width + 1,
            2 * width - 1,
            2 * width,
            63 * width,
            63 * width + 1,
        ]
    })
}

#[test]
fn a_timer_costs_at_most_32_bytes_and_its_id_8() {
    assert!(size_of::<Entry<Key>>() <= 32);
    assert_eq!(size_of::<TimerId>(), 8);
    assert_eq!(size_of::<Option<TimerId>>(), 8);
}

#[test]
fn a_timer_fires_at_its_tick_on_both_sides_of_every_level() {
    for base in [0, 1, 63, 64, 4095, 4096, 262_143, (1 << 36) - 1, 1 << 36] {
        for ahead in boundaries() {
            let (mut wheel, at) = wheel();
            assert!(wheel.expire(at(base)).is_none());
            let id = wheel.insert(at(base + ahead), 7);
            wheel.check_invariants();
            assert_eq!(wheel.deadline(id), Some(at(base + ahead)));
            assert!(
                wheel.expire(at(base + ahead - 1)).is_none(),
                "{base} + {ahead}: too early"
            );
            wheel.check_invariants();
            assert_eq!(
                wheel.next_deadline(),
                Some(at(base + ahead)),
                "{base} + {ahead}"
            );
            assert_eq!(
                wheel.expire(at(base + ahead)),
                Some((id, 7)),
                "{base} + {ahead}: too late"
            );
            assert!(wheel.is_empty());
            wheel.check_invariants();
        }
    }
}

#[test]
fn the_next_deadline_is_known_exactly_up_to_two_years_ahead() {
    for ahead in boundaries().filter(|&ahead| ahead < 63 << 30) {
        let (mut wheel, at) = wheel();
        wheel.insert(at(ahead + 1), 2);
        wheel.insert(at(ahead), 1);
        assert_eq!(wheel.next_deadline(), Some(at(ahead)));
    }
}

#[test]
fn one_jump_over_everything_fires_all_in_order() {
    let (mut wheel, at) = wheel();
    let mut all: Vec<u64> = boundaries().collect();
    for &deadline in all.iter().rev() {
        wheel.insert(at(deadline), deadline as u32);
    }
    all.sort_unstable();
    let mut fired = Vec::new();
    while let Some((_, value)) = wheel.expire(at(1 << 49)) {
        wheel.check_invariants();
        fired.push(value);
    }
    assert_eq!(
        fired,
        all.iter()
            .map(|&deadline| deadline as u32)
            .collect::<Vec<_>>()
    );
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn a_deadline_between_two_ticks_is_rounded_up() {
    let (mut wheel, at) = wheel();
    let id = wheel.insert(at(5) + Duration::from_nanos(1), 1);
    assert!(wheel.expire(at(6) - Duration::from_nanos(1)).is_none());
    assert_eq!(wheel.next_deadline(), Some(at(6)));
    assert_eq!(wheel.expire(at(6)), Some((id, 1)));
}

#[test]
fn a_deadline_in_the_past_fires_at_once() {
    let (mut wheel, at) = wheel();
    assert!(wheel.expire(at(1000)).is_none());
    let id = wheel.insert(at(3), 1);
    assert_eq!(wheel.next_deadline(), Some(at(1000)));
    assert_eq!(wheel.expire(at(1000)), Some((id, 1)));

    let before_the_start = at(0)
        .checked_sub(MILLI)
        .expect("the clock began before this test");
    let id = wheel.insert(before_the_start, 2);
    assert_eq!(wheel.expire(at(1000)), Some((id, 2)));
}

#[test]
fn timers_of_the_same_tick_fire_in_the_order_of_insertion() {
    let (mut wheel, at) = wheel();
    for value in 0..50 {
        assert!(wheel.expire(at(u64::from(value) * 90)).is_none());
        wheel.insert(at(5000), value);
    }
    for value in 0..50 {
        assert_eq!(wheel.expire(at(5000)).map(|(_, value)| value), Some(value));
    }
}

#[test]
fn a_fired_or_cancelled_id_misses_also_when_its_place_is_taken() {
    let (mut wheel, at) = wheel();
    let fired = wheel.insert(at(1), 1);
    assert_eq!(wheel.expire(at(1)), Some((fired, 1)));
    let cancelled = wheel.insert(at(2), 2);
    assert_eq!(wheel.cancel(cancelled), Some(2));
    let present = wheel.insert(at(3), 3);
    assert_eq!(present.index, fired.index);
    for stale in [fired, cancelled] {
        assert_eq!(wheel.cancel(stale), None);
        assert_eq!(wheel.deadline(stale), None);
    }
    assert_eq!(wheel.cancel(present), Some(3));
    assert_eq!(wheel.cancel(present), None);
    wheel.check_invariants();
}

#[test]
fn few_timers_never_wake_for_a_cancelled_one() {
    let (mut wheel, at) = wheel();
    let first = wheel.insert(at(30_000), 0);
    for value in 1..=SEARCH_MAX as u32 {
        wheel.insert(at(30_000 + u64::from(value)), value);
    }
    wheel.cancel(first);
    assert_eq!(wheel.next_deadline(), Some(at(30_001)));
}

#[test]
fn a_crowded_slot_wakes_at_most_once_for_its_cancelled_earliest() {
    let (mut wheel, at) = wheel();
    let first = wheel.insert(at(30_000), 0);
    for value in 1..1000 {
        wheel.insert(at(30_100 + u64::from(value)), value);
    }
    wheel.cancel(first);
    assert_eq!(wheel.next_deadline(), Some(at(30_000)));
    assert!(wheel.expire(at(30_000)).is_none());
    assert_eq!(wheel.next_deadline(), Some(at(30_101)));
}

#[test]
fn a_deadline_past_the_end_of_the_clock_is_kept_and_cancelled() {
    let (mut wheel, at) = wheel();
    let mut far = at(0);
    for bits in (0..62).rev() {
        far = far
            .checked_add(Duration::from_secs(1 << bits))
            .unwrap_or(far);
    }
    let id = wheel.insert(far, 1);
    wheel.check_invariants();
    assert!(
        wheel
            .next_deadline()
            .is_some_and(|next| next > at(2 * 365 * 86_400_000))
    );
    assert!(wheel.expire(at(1 << 40)).is_none());
    wheel.check_invariants();
    assert_eq!(wheel.cancel(id), Some(1));
}

#[derive(Clone, Debug)]
enum Step {
    /// Microseconds from the present, backwards too.
    Insert(i64),
    Cancel(Index),
    /// Microseconds.
    Advance(u64),
    AdvanceToNext,
}

/// Microseconds of every magnitude, with an inclination to the boundaries of levels.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..200_000,
        (0u32..47, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1)),
        (1u32..=6, 0u64..70, 0u64..3).prop_map(|(level, slots, more)| {
            ((slots << (6 * level)) + more).saturating_sub(1) * 1000
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => span().prop_map(|micros| Step::Insert(micros as i64)),
        1 => (0i64..5_000_000).prop_map(|micros| Step::Insert(-micros)),
        4 => any::<Index>().prop_map(Step::Cancel),
        3 => span().prop_map(Step::Advance),
        3 => Just(Step::AdvanceToNext),
    ]
}

/// The same timers, kept the plain way: by tick of the deadline and order of insertion.
#[derive(Default)]
struct Model {
    timers: BTreeMap<(u64, u32), TimerId>,
    /// How many were set over two years ahead: those are looked at early.
    far: u32,
    /// The most timers there ever were: a crowd may leave an inexact slot behind.
    peak: usize,
    /// The tick up to which timers were answered.
    elapsed: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_wheel_does_what_a_sorted_map_does(steps in vec(step(), 1..120)) {
        let start = Instant::now() + Duration::from_secs(60);
        let mut wheel = TimerWheel::new(start);
        let mut model = Model::default();
        let mut ids = HashMap::new();
        let mut now = start;
        let mut serial = 0u32;
        for step in steps {
            match step {
                Step::Insert(micros) => {
                    let at = if micros < 0 {
                        now - Duration::from_micros(micros.unsigned_abs()).min(now - start)
                    } else {
                        now + Duration::from_micros(micros as u64)
                    };
                    let tick = (at - start).as_nanos().div_ceil(1_000_000) as u64;
                    let tick = tick.max(model.elapsed);
                    serial += 1;
                    model.far += u32::from(tick - model.elapsed > 63 << 30);
                    let id = wheel.insert(at, serial);
                    prop_assert!(ids.insert(id, serial).is_none(), "ids are unique");
                    prop_assert_eq!(wheel.deadline(id), Some(start + Duration::from_millis(tick)));
                    model.timers.insert((tick, serial), id);
                }
                Step::Cancel(index) => {
                    if model.timers.is_empty() {
                        continue;
                    }
                    let nth = index.index(model.timers.len());
                    let (&key, &id) = model.timers.iter().nth(nth).expect("nth is below len");
                    model.timers.remove(&key);
                    prop_assert_eq!(wheel.cancel(id), Some(key.1));
                    prop_assert_eq!(wheel.cancel(id), None);
                }
                Step::Advance(_) | Step::AdvanceToNext => {
                    now = match step {
                        Step::Advance(micros) => now + Duration::from_micros(micros),
                        _ => wheel.next_deadline().unwrap_or(now).max(now),
                    };
                    let tick = (now - start).as_millis() as u64;
                    let mut last = 0;
                    while let Some((id, value)) = wheel.expire(now) {
                        wheel.check_invariants();
                        let key = *model
                            .timers
                            .iter()
                            .find(|&(_, &known)| known == id)
                            .expect("only what was set fires, and once")
                            .0;
                        model.timers.remove(&key);
                        prop_assert_eq!(key.1, value);
                        prop_assert!(key.0 <= tick, "not early");
                        prop_assert!(key.0 >= last, "in order");
                        last = key.0;
                    }
                    model.elapsed = tick;
                    let next = model.timers.keys().next();
                    prop_assert!(next.is_none_or(|&(next, _)| next > tick), "not late");
                    prop_assert!(wheel.next_deadline().is_none_or(|next| next > now - MILLI), "progress");
                }
            }
            wheel.check_invariants();
            prop_assert_eq!(wheel.len(), model.timers.len());
            model.peak = model.peak.max(wheel.len());
            let earliest = model.timers.keys().next().map(|&(tick, _)| tick);
            let answer = wheel.next_deadline().map(|at| (at - start).as_millis() as u64);
            prop_assert_eq!(answer.is_some(), earliest.is_some());
            if let (Some(answer), Some(earliest)) = (answer, earliest) {
                prop_assert!(answer <= earliest, "never later than the earliest deadline");
                prop_assert!(answer >= model.elapsed);
                let level = ((model.elapsed ^ earliest) | 63).ilog2() / 6;
                prop_assert!(
                    model.far > 0 || earliest - answer < 1 << (6 * level),
                    "early by less than the width of its slot"
                );
                if model.peak <= SEARCH_MAX + 1 && model.far == 0 {
                    prop_assert_eq!(answer, earliest, "exact while there are few");
                }
            }
        }
    }
}
