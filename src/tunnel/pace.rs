//! How much may be under way on a link: no more than the peer takes in about the time that a byte needs to
//! get there.
//!
//! What the kernel holds unsent is small (`TCP_NOTSENT_LOWAT`), but a peer that is slower than its network
//! has megabytes in its own receive buffer, and a keystroke waits behind all of them. Acknowledgements of
//! TCP tell nothing of that; what tells is how long a WebSocket ping takes there and back, which the peer
//! answers when it has read up to it. So while much is sent, pings are sent along, and the bytes that are
//! not confirmed by a pong are bounded by a window, as in TCP Vegas: it grows while a round trip takes
//! little longer than the shortest, and shrinks to what fits where it takes more.
//!
//! Pure: it sends nothing, and time is an argument. It bounds bulk alone; what is short goes all the same,
//! see [`super::mux`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The bytes under way on one link.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes sent since the link began, and those of them that the peer has read.
    sent: u64,
    confirmed: u64,
    /// Pings under way: behind which byte, and when they were sent.
    probes: VecDeque<(u64, Instant)>,
    window: u64,
    /// It was what kept something from being sent since it last grew.
    limits: bool,
    /// It was too large once: from then on it grows slowly.
    found: bool,
    /// The shortest round trip of the present period, and of the one before.
    shortest: Duration,
    before: Duration,
    period: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Pace {
        Pace {
            sent: 0,
            confirmed: 0,
            probes: VecDeque::new(),
            window: WINDOW_INITIAL,
            limits: false,
            found: false,
            shortest: Duration::MAX,
            before: Duration::MAX,
            period: now,
        }
    }

    /// Whether bulk may be sent now.
    pub fn is_open(&mut self) -> bool {
        // While no pong is to come, nothing would ever open it.
        let open = self.sent - self.confirmed < self.window || self.probes.is_empty();
        self.limits |= !open;
        open
    }

    /// Bytes were sent; whether a ping is to follow them, and with what in it.
    pub fn sent(&mut self, bytes: usize, now: Instant) -> Option<[u8; 8]> {
        self.sent += bytes as u64;
        let probed = self.probes.back().map_or(self.confirmed, |probe| probe.0);
        let is_due = self.sent - probed >= self.window / PROBES;
        if !is_due || self.probes.len() >= PROBES_MAX {
            return None;
        }
        self.probes.push_back((self.sent, now));
        Some(self.sent.to_be_bytes())
    }

    /// A pong has come; when its ping was sent. Those that answer nothing of this are of no interest.
    pub fn confirmed(&mut self, payload: &[u8], now: Instant) -> Option<Instant> {
        let position = payload.try_into().map(u64::from_be_bytes).ok()?;
        let index = self.probes.iter().position(|probe| probe.0 == position)?;
        let (_, at) = self.probes[index];
        self.probes.drain(..=index);
        let bytes = position - self.confirmed;
        self.confirmed = position;
        self.adapt(now.saturating_duration_since(at), bytes, now);
        Some(at)
    }

    fn adapt(&mut self, trip: Duration, bytes: u64, now: Instant) {
        if now.saturating_duration_since(self.period) >= PERIOD {
            // A way that has become longer is no queue for ever.
            (self.before, self.shortest, self.period) = (self.shortest, trip, now);
        }
        self.shortest = self.shortest.min(trip);
        let shortest = self.shortest.min(self.before);
        let most = shortest + QUEUE_MAX.max(shortest / 4);
        if trip <= most {
            if std::mem::take(&mut self.limits) {
                let more = if self.found { bytes / GENTLY } else { bytes };
                self.window = (self.window + more).min(WINDOW_MAX);
            }
        } else {
            self.found = true;
            let fits = u128::from(self.window) * most.as_nanos() / trip.as_nanos();
            self.window = (fits as u64).max(self.window / 2).max(WINDOW_MIN);
        }
    }
}

/// What a byte may wait behind others, besides the way itself, or a quarter of that.
const QUEUE_MAX: Duration = Duration::from_millis(1);

/// For so long a shortest round trip is believed, and for as long again.
const PERIOD: Duration = Duration::from_secs(10);

/// The part of what was confirmed by which the window grows once it has found its size: it doubles at first,
/// and then takes a sixteenth more in each round trip.
const GENTLY: u64 = 16;

/// Pings in a window: each confirms a quarter.
const PROBES: u64 = 4;

/// Pings under way, of a window that has shrunk and of what goes all the same: a peer that answers none is
/// not asked for ever.
const PROBES_MAX: usize = 64;

/// What a link begins with: more than a new TCP connection sends in its first few round trips, which are
/// what it is bounded by at first.
const WINDOW_INITIAL: u64 = 2 << 20;

/// Four whole batches, so that neither side waits for the other where both are near.
const WINDOW_MIN: u64 = 256 * 1024;

/// More than any kernel has room for.
const WINDOW_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all that it may, to a peer that takes `rate` bytes per millisecond, `way` away; the most that
    /// waited there in the last half.
    fn run(way: Duration, rate: u64, millis: u64) -> (u64, u64) {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut taken, mut arrived, mut most) = (0u64, VecDeque::new(), 0);
        let (mut there, mut pongs) = (0u64, VecDeque::new());
        let mut pings = VecDeque::new();
        for millisecond in 0..millis {
            let now = start + Duration::from_millis(millisecond);
            while pongs.front().is_some_and(|(at, _)| *at <= now) {
                let (_, pong): (Instant, [u8; 8]) = pongs.pop_front().unwrap();
                pace.confirmed(&pong, now);
            }
            while pace.is_open() {
                arrived.push_back((now + way, 64 * 1024u64));
                if let Some(ping) = pace.sent(64 * 1024, now) {
                    pings.push_back(ping);
                }
            }
            while arrived.front().is_some_and(|(at, _)| *at <= now) {
                there += arrived.pop_front().unwrap().1;
            }
            taken = (taken + rate).min(there);
            if millisecond > millis / 2 {
                most = most.max(there - taken);
            }
            while pings
                .front()
                .is_some_and(|ping| u64::from_be_bytes(*ping) <= taken)
            {
                pongs.push_back((now + way, pings.pop_front().unwrap()));
            }
        }
        (taken * 1000 / millis, most)
    }

    #[test]
    fn a_slow_reader_has_little_in_front_of_it_and_is_kept_busy() {
        for (way, rate) in [
            (0, 100_000),
            (1, 100_000),
            (10, 100_000),
            (50, 20_000),
            (100, 12_500),
        ] {
            let (throughput, queue) = run(Duration::from_millis(way), rate, 20_000);
            let waits = queue / rate;
            assert!(
                throughput > rate * 1000 * 8 / 10,
                "{way} ms, {rate}: {throughput} bytes/s"
            );
            let bound = 2 * (2 + way / 2) + WINDOW_MIN / rate + 4;
            assert!(
                waits <= bound,
                "{way} ms, {rate}: {waits} ms of queue, at most {bound}"
            );
        }
    }

    #[test]
    fn a_peer_that_answers_no_ping_is_not_remembered_for_ever() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let pings = (0..10_000).filter(|_| pace.sent(WINDOW_INITIAL as usize, now).is_some());
        assert_eq!(pings.count(), PROBES_MAX);
        assert!(!pace.is_open());
    }

    #[test]
    fn what_answers_nothing_is_of_no_interest() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let ping = pace
            .sent(WINDOW_INITIAL as usize, now)
            .expect("a ping is due");
        assert!(!pace.is_open());
        for pong in [&b""[..], b"12345678", &[0; 9], &7u64.to_be_bytes()] {
            pace.confirmed(pong, now);
            assert!(!pace.is_open());
        }
        pace.confirmed(&ping, now);
        assert!(pace.is_open());
        pace.confirmed(&ping, now);
    }
}
