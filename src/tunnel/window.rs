//! Credit: how much each side of a stream may send, and the one budget behind all of it.
//!
//! [`Window`] is the receiver's half: what was granted, and when to grant more. Everything it needs
//! is computed from positions, so credit can neither be lost nor given twice:
//!
//! ```text
//! |<------------------- size ------------------->|
//! |  tail (received,   |  outstanding  |   due    |
//! |  socket refused)   |  (at sender)  |          |
//! ```
//!
//! [`Credit`] is the sender's half, a count. [`Budget`] bounds the undelivered bytes of the process.

use super::rate::Rates;

/// The receiver's half of flow control of one direction of one stream.
#[derive(Debug)]
pub struct Window {
    /// How many bytes may be under way or in the tail together.
    size: u32,
    /// How many the sender may still send.
    outstanding: u32,
    /// Bytes that went straight to the socket since the window last grew or shrank.
    through: u32,
    /// Until the connection stands, nothing is granted beyond what the sender held from the start.
    opened: bool,
}

/// The peer sent more than it was given: it has broken the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overspent;

impl Window {
    /// A window of `initial` bytes of which the sender holds `outstanding` from the start.
    pub fn new(initial: u32, outstanding: u32) -> Window {
        Window {
            size: initial,
            outstanding,
            through: 0,
            opened: outstanding >= initial,
        }
    }

    /// The connection stands: the whole window is the sender's, without a credit frame. It held
    /// `early` bytes of it until now, if it did not hold all.
    pub fn open(&mut self, early: u32) {
        if !std::mem::replace(&mut self.opened, true) {
            self.outstanding += self.size.saturating_sub(early);
        }
    }

    /// Bytes have arrived.
    ///
    /// # Errors
    /// They are more than the sender held.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Overspent> {
        let bytes = u32::try_from(bytes).map_err(|_| Overspent)?;
        self.outstanding = self.outstanding.checked_sub(bytes).ok_or(Overspent)?;
        Ok(())
    }

    /// Bytes went straight to the socket. A window grows once a whole one went through so: then the
    /// link is what limits the stream, not its reader.
    /// `size_max` below its size keeps it as it is.
    pub fn passed(&mut self, bytes: usize, size_max: u32) {
        self.through = self.through.saturating_add(bytes as u32);
        if self.through >= self.size {
            self.through = 0;
            self.size = self.size.saturating_mul(2).min(size_max.max(self.size));
        }
    }

    /// The socket refused bytes: its reader is slow, and a large window would only fill memory.
    pub fn refused(&mut self, initial: u32) {
        self.through = 0;
        self.size = self.size.min(initial);
    }

    /// What to grant now; 0 while it is too little to be worth a frame.
    ///
    /// A quarter of a window at a time, and anything at all where the sender is at 0 and nothing waits
    /// here: nobody else would ever wake it.
    pub fn due(&self, tail: usize, pressure: Pressure) -> u32 {
        if !self.opened || (tail > 0 && pressure != Pressure::Calm) {
            return 0;
        }
        let tail = u32::try_from(tail).unwrap_or(u32::MAX);
        let due = self
            .size
            .saturating_sub(self.outstanding.saturating_add(tail));
        let starved = self.outstanding == 0 && tail == 0;
        if due >= self.size / WORTH_A_FRAME || starved {
            due
        } else {
            0
        }
    }

    /// A credit frame over `bytes` goes out.
    pub fn grant(&mut self, bytes: u32) {
        self.outstanding = self.outstanding.saturating_add(bytes);
    }

    /// How many bytes the sender may still send.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Its present size.
    pub fn size(&self) -> u32 {
        self.size
    }
}

/// The sender's half: how many bytes may still be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit(u32);

impl Credit {
    /// What a new stream starts with.
    pub fn new(bytes: u32) -> Credit {
        Credit(bytes)
    }

    /// How many bytes may be sent now.
    pub fn available(self) -> usize {
        self.0 as usize
    }

    /// More has come.
    ///
    /// # Errors
    /// The sum is no window that anyone would grant: the peer has broken the protocol.
    pub fn add(&mut self, bytes: u32) -> Result<(), Overspent> {
        self.0 = self.0.checked_add(bytes).ok_or(Overspent)?;
        Ok(())
    }

    /// `bytes` were put in a frame.
    ///
    /// # Panics
    /// When they are more than [`Credit::available`]: a bug of ours.
    pub fn spend(&mut self, bytes: usize) {
        self.0 = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.0.checked_sub(bytes))
            .expect("fill never reads more than the credit it was given");
    }
}

/// How full the budget is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Below half.
    Calm,
    /// From half: a stream with a tail gets no credit.
    Tight,
    /// Above three quarters: new streams are refused.
    Full,
    /// Past all of it: a stream whose reader stands still is reset.
    Over,
}

/// The budget of all undelivered bytes of the process: tails, heads and dialling data. Beside them the rates,
/// which all links share, too.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    window_initial: u32,
    footprint: Footprint,
    unread: usize,
    heads: usize,
    /// How fast streams may be that have a rate.
    pub rates: Rates,
}

/// What a stream, or all streams of a link, cost the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes held: tails, heads and dialling data.
    pub held: usize,
    /// Bytes by which windows are larger than they began: what may come to be held, and cannot be
    /// taken back.
    pub promised: usize,
}

impl Footprint {
    /// Counts a part that has changed from `before` to `after`.
    ///
    /// # Panics
    /// When `before` was never counted: a bug of ours.
    pub fn account(&mut self, before: Footprint, after: Footprint) {
        let count = |whole: usize, before: usize, after: usize| {
            (whole + after)
                .checked_sub(before)
                .expect("what is released was taken before")
        };
        self.held = count(self.held, before.held, after.held);
        self.promised = count(self.promised, before.promised, after.promised);
    }
}

impl Budget {
    /// A budget of `limit` bytes. Each stream's window begins at 1/256 of it, so that 256 slow readers
    /// fill it.
    pub fn new(limit: usize) -> Budget {
        Budget::beginning(
            limit,
            (limit / 256).clamp(WINDOW_INITIAL_MIN, WINDOW_INITIAL_MAX),
        )
    }

    /// A budget that however many streams at once do not pass by much, because each window begins as the
    /// smallest.
    pub fn frugal(limit: usize) -> Budget {
        Budget::beginning(limit, WINDOW_INITIAL_MIN)
    }

    fn beginning(limit: usize, window_initial: usize) -> Budget {
        Budget {
            limit,
            window_initial: window_initial as u32,
            footprint: Footprint::default(),
            unread: 0,
            heads: 0,
            rates: Rates::default(),
        }
    }

    /// A part of the process has changed what it costs.
    pub fn account(&mut self, before: Footprint, after: Footprint) {
        self.footprint.account(before, after);
    }

    /// Whether a window may grow by `bytes`. All growth, together with what is held already, stays
    /// within a quarter of the budget, so that neither readers who stop all at once can exceed it by
    /// what they were granted when all was well, nor readers who stop one after the other, each with
    /// the growth that the one before has just turned into a tail.
    pub fn may_promise(&self, bytes: u32) -> bool {
        self.held() + self.footprint.promised + bytes as usize <= self.limit / 4
    }

    /// An unfinished head has changed its length. `false`: together they are more than an eighth of
    /// the budget, and this one is to be given up. They are counted apart, so that strangers who send
    /// half a head do not refuse everybody else's streams.
    #[must_use]
    pub fn hold_head(&mut self, before: usize, after: usize) -> bool {
        self.heads = (self.heads + after)
            .checked_sub(before)
            .expect("what is released was taken before");
        after <= before || self.heads <= self.limit / 8
    }

    /// An unfinished head of `bytes` is held no longer.
    pub fn drop_head(&mut self, bytes: usize) {
        self.heads = self
            .heads
            .checked_sub(bytes)
            .expect("what is released was taken before");
    }

    /// Whether `unread` bytes, all in all, may wait at their sockets for the end of something else: a quarter,
    /// so that they refuse nobody's streams.
    pub fn may_read_ahead(&self, unread: usize) -> bool {
        unread <= self.limit / 4
    }

    /// Bytes that were read and given back to their sockets, all in all.
    pub fn note_unread(&mut self, bytes: usize) {
        self.unread = bytes;
    }

    /// Undelivered bytes of the process, as of the last [`Budget::note_unread`].
    pub fn held(&self) -> usize {
        self.footprint.held + self.unread
    }

    /// Those of them that streams hold.
    pub fn held_by_streams(&self) -> usize {
        self.footprint.held
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How full it is.
    pub fn pressure(&self) -> Pressure {
        let held = self.held();
        if held > self.limit {
            Pressure::Over
        } else if held > self.limit / 4 * 3 {
            Pressure::Full
        } else if held >= self.limit / 2 {
            Pressure::Tight
        } else {
            Pressure::Calm
        }
    }

    /// The window a stream begins with.
    pub fn window_initial(&self) -> u32 {
        self.window_initial
    }

    /// The largest window a stream may grow to: 1/16 of the budget (4 MiB of the default), which is
    /// 320 Mbit/s at 100 ms for one stream.
    pub fn window_max(&self) -> u32 {
        u32::try_from(self.limit / 16)
            .unwrap_or(u32::MAX)
            .max(self.window_initial())
    }
}

/// What a stream's opener may send before the target is connected: one quantum, enough for nearly
/// every request, and small beside the number of dials in progress.
pub const EARLY_MAX: u32 = 16 * 1024;

/// The part of a window that is granted at a time. What is due and not yet granted is of no use to the
/// sender: where a round trip is long, and a window comes as one burst in each, the last bytes of the
/// burst may stay just below the limit until the next. With halves that was half of the throughput;
/// with quarters it is a quarter at most, for one small frame in each quarter.
const WORTH_A_FRAME: u32 = 4;

/// Below this, a window would be spent on frame headers and round trips.
const WINDOW_INITIAL_MIN: usize = 4 * 1024;

/// Above this, a thousand new streams could claim the whole budget at once.
const WINDOW_INITIAL_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_whole_window_that_goes_straight_through_doubles_it() {
        let mut window = Window::new(1000, 1000);
        window.receive(1000).unwrap();
        window.passed(1000, 3000);
        assert_eq!(window.size(), 2000);
        assert_eq!(window.due(0, Pressure::Calm), 2000);
        window.grant(2000);
        window.receive(2000).unwrap();
        window.passed(2000, 3000);
        assert_eq!(window.size(), 3000, "and not past its maximum");
    }

    #[test]
    fn a_slow_reader_loses_what_its_window_had_grown_to() {
        let mut window = Window::new(1000, 1000);
        window.receive(1000).unwrap();
        window.passed(1000, 8000);
        window.grant(window.due(0, Pressure::Calm));
        window.receive(1500).unwrap();
        window.refused(1000);
        assert_eq!(window.due(1500, Pressure::Calm), 0);
        assert_eq!(
            window.due(0, Pressure::Calm),
            500,
            "500 are still at the sender"
        );
    }

    #[test]
    fn a_sender_at_zero_is_woken_even_for_a_byte() {
        let mut window = Window::new(1000, 1000);
        window.receive(1000).unwrap();
        assert_eq!(window.due(800, Pressure::Calm), 0);
        assert_eq!(window.due(0, Pressure::Over), 1000);
    }

    #[test]
    fn a_window_in_bursts_carries_three_quarters_of_itself_in_each_round_trip() {
        let (size, message) = (256 * 1024, 16 * 1024 - 12);
        let mut window = Window::new(size, size);
        let mut credit = size;
        for trip in 0..100 {
            // All that was granted until now comes as one burst; what is granted meanwhile is for the next.
            let burst = std::mem::take(&mut credit);
            assert!(
                burst >= size / 4 * 3 - message,
                "{burst} in round trip {trip}"
            );
            let mut left = burst;
            while left > 0 {
                let part = left.min(message);
                window.receive(part as usize).unwrap();
                let due = window.due(0, Pressure::Calm);
                window.grant(due);
                credit += due;
                left -= part;
            }
        }
    }

    #[test]
    fn under_pressure_a_stream_with_a_tail_gets_nothing() {
        let mut window = Window::new(1000, 1000);
        window.receive(1000).unwrap();
        assert_eq!(window.due(1, Pressure::Tight), 0);
        assert_eq!(window.due(1, Pressure::Calm), 999);
    }

    #[test]
    fn nothing_is_granted_before_the_connection_stands() {
        let mut window = Window::new(1000, 400);
        window.receive(400).unwrap();
        assert_eq!(window.due(0, Pressure::Calm), 0);
        window.open(400);
        assert_eq!(window.outstanding(), 600);
        assert_eq!(window.due(400, Pressure::Calm), 0);
        window.open(400);
        assert_eq!(window.outstanding(), 600, "it opens once");
    }

    #[test]
    fn more_than_was_granted_is_overspent() {
        let mut window = Window::new(1000, 10);
        assert_eq!(window.receive(11), Err(Overspent));
        assert_eq!(window.receive(10), Ok(()));
        assert_eq!(window.receive(1), Err(Overspent));
    }

    #[test]
    fn windows_grow_within_a_quarter_of_the_budget_and_heads_within_an_eighth() {
        let mut budget = Budget::new(4 << 20);
        assert!(budget.may_promise(1 << 20));
        let promised = |promised| Footprint { held: 0, promised };
        budget.account(promised(0), promised(1 << 20));
        assert!(!budget.may_promise(1));
        // The reader stops: what was promised is held now, and is not there to be promised again.
        let held = |held| Footprint { held, promised: 0 };
        budget.account(promised(1 << 20), held(1 << 20));
        assert!(!budget.may_promise(1));
        budget.account(held(1 << 20), promised(0));
        assert!(budget.may_promise(1 << 20));
        assert!(budget.hold_head(0, 512 << 10));
        assert!(!budget.hold_head(0, 1));
        assert!(budget.hold_head(1, 0));
        budget.drop_head(512 << 10);
        assert_eq!((budget.held(), budget.pressure()), (0, Pressure::Calm));
    }

    #[test]
    fn pressure_follows_the_quarters_of_the_budget() {
        let mut budget = Budget::new(4 << 20);
        assert_eq!(budget.pressure(), Pressure::Calm);
        let held = |held| Footprint { held, promised: 0 };
        budget.account(held(0), held(2 << 20));
        assert_eq!(budget.pressure(), Pressure::Tight);
        budget.note_unread((1 << 20) + 1);
        assert_eq!(budget.pressure(), Pressure::Full);
        budget.account(held(0), held(1 << 20));
        assert_eq!(budget.pressure(), Pressure::Over);
        budget.note_unread(0);
        budget.account(held(3 << 20), held(0));
        assert_eq!(budget.held(), 0);
        assert_eq!(budget.window_initial(), 16 * 1024);
        assert_eq!(budget.window_max(), 256 * 1024);
    }

    proptest! {
        /// Whatever arrives and is delivered: what the sender holds and what waits here never exceed
        /// the largest size the window had, and a reader that reads never leaves the sender stuck.
        #[test]
        fn credit_is_conserved(steps in prop::collection::vec((0usize..5000, 0usize..5000), 1..200)) {
            let (initial, size_max) = (4096u32, 65536u32);
            let mut window = Window::new(initial, initial);
            let mut credit = Credit::new(initial);
            let mut tail = 0usize;
            for (send, drain) in steps {
                let sent = send.min(credit.available());
                credit.spend(sent);
                window.receive(sent).unwrap();
                if tail == 0 && drain >= sent {
                    window.passed(sent, size_max);
                } else {
                    tail += sent;
                    window.refused(initial);
                    tail -= drain.min(tail);
                }
                let due = window.due(tail, Pressure::Calm);
                window.grant(due);
                credit.add(due).unwrap();
                prop_assert_eq!(credit.available(), window.outstanding() as usize);
                prop_assert!(tail + credit.available() <= size_max as usize);
                prop_assert!(tail > 0 || credit.available() > 0);
            }
        }
    }
}
