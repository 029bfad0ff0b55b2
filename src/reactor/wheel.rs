//! The timer wheel: which deadline is next, and which have passed.
//!
//! It owns deadlines and one small `Copy` value for each; it knows neither sockets nor protocols and
//! reads no clock. 100,000 idle connections have a timer each and almost none of them ever fires, so
//! what must be cheap is to insert and to cancel: both are O(1).
//!
//! Six levels of 64 slots. A slot of level 0 is one tick (1 ms) wide, one of level 1 64 ticks, and so
//! on up to 64^5 ticks (12 days) on level 5. An entry lies on the level of the highest digit, in base
//! 64, in which its deadline differs from the wheel's own time:
//!
//! ```text
//!   now       = 5 . 17 . 40          (base 64, level 2 . 1 . 0)
//!   5.17.41 -> level 0, slot 41      5.18.02 -> level 1, slot 18      6.00.00 -> level 2, slot 6
//! ```
//!
//! When time reaches a slot of a higher level, its entries are placed anew, each on a lower level, so
//! an entry moves at most five times in its life and usually once.
//!
//! Invariants (see [`TimerWheel::check_invariants`]):
//! - the wheel's time never passes an occupied slot of level 1 or above without emptying it. So every
//!   entry of a level is due before every entry of a higher one, and the first occupied slot of the
//!   lowest occupied level holds the earliest deadline;
//! - a bit of `occupied` is set exactly when that slot's list is not empty;
//! - a slot's `earliest` is at or before every deadline in it.

use std::{
    num::NonZeroU32,
    ops::Range,
    time::{Duration, Instant},
};

#[cfg(test)]
mod tests;

/// Timers of one reactor, each with a value that tells whose it is.
///
/// Deadlines are kept in whole ticks of 1 ms, rounded up: none is answered early, and none later
/// than one tick.
#[derive(Debug)]
pub struct TimerWheel<T: Copy> {
    /// Tick 0.
    start: Instant,
    /// The wheel's own time, in ticks since `start`: every earlier deadline was answered.
    elapsed: u64,
    /// Per level, which of its slots hold entries.
    occupied: [u64; LEVELS],
    /// All levels' slots, the lowest level first. On the heap, to keep the wheel itself movable.
    slots: Box<[Slot]>,
    /// A slab with its links inside. It never shrinks: what it grew to, it will need again.
    entries: Vec<Entry<T>>,
    /// First vacant entry, or [`NIL`].
    vacant: u32,
    len: usize,
    /// How often an entry was put into a slot: what the wheel has had to do.
    placed: u64,
}

/// Names one timer. It misses once that timer has fired or was cancelled, even when its place in the
/// wheel was given away since (2^32 tenants later it would hit again).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    /// Never zero, so that `Option<TimerId>` is as small as the id itself.
    serial: NonZeroU32,
}

/// The head of a circular list: its `previous` is the last one, so that entries of one tick fire in
/// the order in which they came.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// First entry, or [`NIL`].
    head: u32,
    /// No deadline in this slot is before this tick. Exact, unless the earliest entry was cancelled.
    earliest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    /// In ticks.
    deadline: u64,
    value: T,
    next: u32,
    previous: u32,
    serial: NonZeroU32,
    /// Index into `slots`, or [`VACANT`].
    place: u16,
}

/// The width of a tick: no deadline is answered later than this.
pub const TICK: Duration = Duration::from_millis(1);

const LEVELS: usize = 6;
/// Bits of a tick that one level decides; 64 slots are what one `u64` can map.
const BITS: usize = 6;
const SLOTS: usize = 1 << BITS;
/// How far ahead the top level reaches, in slots. A deadline further ahead than that (2.1 years)
/// waits in the last of them and is placed anew when its time comes: the slot of the present itself
/// must stay empty, or a lap of the ring could not be told from none.
const REACH: u64 = SLOTS as u64 - 1;
/// The end of time, 146 million years on: far enough from the end of `u64` for plain additions.
const TICK_MAX: u64 = 1 << 62;
/// End of a list. The slab holds fewer entries: 2^32 of them would need 128 GiB.
const NIL: u32 = u32::MAX;
const VACANT: u16 = u16::MAX;
/// After its earliest entry was cancelled, a slot with at most this many others is searched for its
/// new earliest. That keeps a process with few timers free of idle wake-ups, and a cancellation O(1).
const SEARCH_MAX: usize = 8;

impl<T: Copy> TimerWheel<T> {
    /// An empty wheel whose time begins at `start`. Nothing is allocated for entries yet.
    pub fn new(start: Instant) -> Self {
        let empty = Slot {
            head: NIL,
            earliest: 0,
        };
        Self {
            start,
            elapsed: 0,
            occupied: [0; LEVELS],
            slots: vec![empty; LEVELS * SLOTS].into_boxed_slice(),
            entries: Vec::new(),
            vacant: NIL,
            len: 0,
            placed: 0,
        }
    }

    /// Sets a timer. One in the past fires at the next [`TimerWheel::expire`].
    pub fn insert(&mut self, at: Instant, value: T) -> TimerId {
        let deadline = self.tick_at_or_after(at).max(self.elapsed);
        let index = self.occupy(deadline, value);
        self.place(index);
        TimerId {
            index,
            serial: self.entries[index as usize].serial,
        }
    }

    /// Takes a timer back; `None` when it has fired or was cancelled already.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let entry = *self.entry(id)?;
        let place = usize::from(entry.place);
        self.unlink(id.index);
        self.release(id.index);
        if self.slots[place].earliest == entry.deadline {
            self.search_earliest(place);
        }
        Some(entry.value)
    }

    /// When a timer will fire, rounded up to the tick; `None` when it has fired or was cancelled.
    pub fn deadline(&self, id: TimerId) -> Option<Instant> {
        self.instant(self.entry(id)?.deadline)
    }

    /// Until when it is safe to sleep: never later than the earliest deadline, and always later than
    /// the `now` of an [`TimerWheel::expire`] that has just answered `None`.
    ///
    /// It is that deadline exactly, with two exceptions. After the earliest timer of a crowded slot
    /// was cancelled it may be early, by less than the width of that slot (64^level ms): whoever then
    /// wakes for nothing has, by calling `expire`, spread the slot over lower levels, where the next
    /// answer is exact again. And deadlines over two years ahead are looked at every two years.
    pub fn next_deadline(&self) -> Option<Instant> {
        let place = self.first_slot()?;
        self.instant(self.slots[place].earliest)
    }

    /// Takes one timer whose deadline has passed, the earliest first and those of the same tick in
    /// the order of insertion (but for deadlines that were over two years ahead). Call it until it
    /// answers `None`.
    ///
    /// A far jump of `now` (the machine was suspended) costs no more than the timers it makes due and
    /// one slot per level that it cuts in two: empty slots are skipped by counting zeros.
    pub fn expire(&mut self, now: Instant) -> Option<(TimerId, T)> {
        let now = self.tick_at_or_before(now);
        while let Some(place) = self.first_slot() {
            let begins = self.ticks_of(place).start;
            if begins > now {
                break;
            }
            if place < SLOTS {
                self.elapsed = begins;
                return Some(self.pop(place));
            }
            self.cascade(place, now);
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How often a timer was put into a slot of the wheel so far, when it was set and each time that
    /// its slot's time came before its own.
    pub fn placed(&self) -> u64 {
        self.placed
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Panics when the wheel contradicts itself. For tests and the simulator; O(entries).
    pub fn check_invariants(&self) {
        let mut seen = 0;
        for place in 0..LEVELS * SLOTS {
            let bit = self.occupied[place / SLOTS] >> (place % SLOTS) & 1;
            let Slot { head, earliest } = self.slots[place];
            assert_eq!(
                bit == 1,
                head != NIL,
                "the bit of slot {place} tells whether it is occupied"
            );
            if head == NIL {
                continue;
            }
            let ticks = self.ticks_of(place);
            assert!(
                ticks.contains(&earliest),
                "a slot is looked at within its time"
            );
            assert!(
                place < SLOTS || ticks.start > self.elapsed,
                "the wheel passed no slot by"
            );
            let mut index = head;
            while index != NIL {
                let entry = &self.entries[index as usize];
                seen += 1;
                assert!(
                    seen <= self.len,
                    "lists are disjoint and hold {} entries",
                    self.len
                );
                assert_eq!(usize::from(entry.place), place, "an entry knows its slot");
                assert!(earliest <= entry.deadline, "no deadline is overlooked");
                assert!(
                    entry.deadline >= self.elapsed,
                    "no deadline was passed over"
                );
                if entry.deadline >= ticks.end {
                    assert_eq!(
                        place / SLOTS,
                        LEVELS - 1,
                        "only the top level holds the far future"
                    );
                } else {
                    assert_eq!(
                        self.place_of(entry.deadline),
                        place,
                        "it lies where it belongs"
                    );
                }
                let next = entry.next;
                assert_eq!(
                    self.entries[next as usize].previous, index,
                    "links agree both ways"
                );
                index = if next == head { NIL } else { next };
            }
        }
        assert_eq!(seen, self.len, "every entry is in a list");

        let mut vacant = 0;
        let mut index = self.vacant;
        while index != NIL {
            vacant += 1;
            assert!(vacant + seen <= self.entries.len(), "the vacant list ends");
            assert_eq!(
                self.entries[index as usize].place, VACANT,
                "a vacant entry is in no slot"
            );
            index = self.entries[index as usize].next;
        }
        assert_eq!(vacant + seen, self.entries.len(), "no entry is lost");
    }

    /// The first occupied slot of the lowest occupied level.
    fn first_slot(&self) -> Option<usize> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let current = self.elapsed >> (BITS * level);
        let ahead = self.occupied[level]
            .rotate_right(slot_of(current) as u32)
            .trailing_zeros();
        Some(level * SLOTS + slot_of(current + u64::from(ahead)))
    }

    /// The ticks that a slot stands for in this lap of its level.
    fn ticks_of(&self, place: usize) -> Range<u64> {
        let shift = BITS * (place / SLOTS);
        let current = self.elapsed >> shift;
        let ahead = (place % SLOTS + SLOTS - slot_of(current)) % SLOTS;
        let unit = current + ahead as u64;
        unit << shift..(unit + 1) << shift
    }

    /// The slot for a deadline.
    fn place_of(&self, deadline: u64) -> usize {
        // The lowest digit always counts: a deadline of this very tick is on level 0.
        let differing = (self.elapsed ^ deadline) | (SLOTS as u64 - 1);
        let level = (differing.ilog2() as usize / BITS).min(LEVELS - 1);
        let shift = BITS * level;
        let unit = (deadline >> shift).min((self.elapsed >> shift) + REACH);
        level * SLOTS + slot_of(unit)
    }

    /// Empties a slot of level 1 or above whose time has come and places its entries anew.
    fn cascade(&mut self, place: usize, now: u64) {
        let slot = self.slots[place];
        // Nothing is due before `earliest`; going there at once spares the entry the levels between.
        self.elapsed = slot.earliest.min(now);
        self.slots[place].head = NIL;
        self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        let mut index = slot.head;
        loop {
            let next = self.entries[index as usize].next;
            self.place(index);
            if next == slot.head {
                return;
            }
            index = next;
        }
    }

    /// Takes the first entry of an occupied slot.
    fn pop(&mut self, place: usize) -> (TimerId, T) {
        let index = self.slots[place].head;
        let Entry { serial, value, .. } = self.entries[index as usize];
        self.unlink(index);
        self.release(index);
        (TimerId { index, serial }, value)
    }

    /// Appends an entry to the list of the slot for its deadline.
    fn place(&mut self, index: u32) {
        self.placed += 1;
        let deadline = self.entries[index as usize].deadline;
        let place = self.place_of(deadline);
        let earliest = deadline.min(self.ticks_of(place).end - 1);
        let Slot {
            head,
            earliest: known,
        } = self.slots[place];
        let (next, previous) = if head == NIL {
            self.occupied[place / SLOTS] |= 1 << (place % SLOTS);
            self.slots[place] = Slot {
                head: index,
                earliest,
            };
            (index, index)
        } else {
            self.slots[place].earliest = known.min(earliest);
            (head, self.entries[head as usize].previous)
        };
        let entry = &mut self.entries[index as usize];
        entry.place = place as u16;
        entry.next = next;
        entry.previous = previous;
        self.entries[previous as usize].next = index;
        self.entries[next as usize].previous = index;
    }

    /// Takes an entry out of its list.
    fn unlink(&mut self, index: u32) {
        let Entry {
            next,
            previous,
            place,
            ..
        } = self.entries[index as usize];
        let place = usize::from(place);
        if next == index {
            self.slots[place].head = NIL;
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
            return;
        }
        self.entries[previous as usize].next = next;
        self.entries[next as usize].previous = previous;
        if self.slots[place].head == index {
            self.slots[place].head = next;
        }
    }

    /// Makes a slot's `earliest` exact again if that takes few steps.
    fn search_earliest(&mut self, place: usize) {
        let head = self.slots[place].head;
        let mut earliest = self.ticks_of(place).end - 1;
        let mut index = head;
        for _ in 0..SEARCH_MAX {
            if index == NIL {
                return;
            }
            let entry = &self.entries[index as usize];
            earliest = earliest.min(entry.deadline);
            index = entry.next;
            if index == head {
                self.slots[place].earliest = earliest;
                return;
            }
        }
    }

    fn entry(&self, id: TimerId) -> Option<&Entry<T>> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.serial == id.serial && entry.place != VACANT).then_some(entry)
    }

    /// Finds an entry for a new timer, which is in no list yet.
    fn occupy(&mut self, deadline: u64, value: T) -> u32 {
        self.len += 1;
        if self.vacant == NIL {
            let index = u32::try_from(self.entries.len())
                .ok()
                .filter(|&index| index != NIL)
                .expect("2^32 timers would need 128 GiB; descriptors run out first");
            let serial = NonZeroU32::MIN;
            self.entries.push(Entry {
                deadline,
                value,
                next: NIL,
                previous: NIL,
                serial,
                place: VACANT,
            });
            return index;
        }
        let index = self.vacant;
        let entry = &mut self.entries[index as usize];
        self.vacant = entry.next;
        entry.deadline = deadline;
        entry.value = value;
        entry.serial = entry.serial.checked_add(1).unwrap_or(NonZeroU32::MIN);
        index
    }

    /// Gives the entry of a timer that has ended to the next one.
    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.place = VACANT;
        entry.next = self.vacant;
        self.vacant = index;
        self.len -= 1;
    }

    /// Deadlines are rounded up, so that none fires early.
    fn tick_at_or_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        millis(since) + u64::from(!since.subsec_nanos().is_multiple_of(1_000_000))
    }

    /// The present is rounded down, for the same reason.
    fn tick_at_or_before(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }

    /// `None` past the end of the clock, which is as good as never.
    fn instant(&self, tick: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_millis(tick))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(TICK_MAX)
        .min(TICK_MAX)
}

/// Which slot of its level a unit (a tick shifted to that level) falls into.
fn slot_of(unit: u64) -> usize {
    (unit % SLOTS as u64) as usize
}
