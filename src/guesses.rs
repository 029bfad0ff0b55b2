//! Who has guessed passwords lately, and may not try again yet.
//!
//! Owns the count of wrong passwords of each address within a minute; past [`GUESSES_MAX`] not even the
//! right one is looked at until the minute is over, or else guessing would only be slowed by the network.
//! Addresses of one [`Source`] are one. It does not know what was guessed, nor where: whoever tries at one
//! proxy has tried at all.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::source::Source;

/// The addresses that were wrong within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    counts: HashMap<Source, u8>,
    /// When each was wrong first; since all minutes are equally long, also the order in which they end.
    since: VecDeque<(Source, Instant)>,
}

impl Guesses {
    /// How long the address must wait before it may try again; `None` if it need not.
    pub fn wait(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.forget(now);
        let source = Source::of(address);
        if *self.counts.get(&source)? < GUESSES_MAX {
            return None;
        }
        // Few come so far that they are looked for.
        let (_, first) = self.since.iter().find(|(of, _)| *of == source)?;
        Some((*first + WINDOW).saturating_duration_since(now))
    }

    /// The address was wrong.
    pub fn count(&mut self, address: IpAddr, now: Instant) {
        self.forget(now);
        let source = Source::of(address);
        if let Some(count) = self.counts.get_mut(&source) {
            *count = count.saturating_add(1);
            return;
        }
        if self.since.len() == SOURCES_MAX
            && let Some((oldest, _)) = self.since.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.counts.insert(source, 1);
        self.since.push_back((source, now));
    }

    /// Forgets the addresses whose minute is over.
    fn forget(&mut self, now: Instant) {
        while let Some((source, first)) = self.since.front()
            && now.saturating_duration_since(*first) >= WINDOW
        {
            self.counts.remove(source);
            self.since.pop_front();
        }
    }
}

/// Wrong passwords of an address in a minute: more than anybody mistypes, and 14,400 a day, which is not
/// enough to find a password that deserves the name.
const GUESSES_MAX: u8 = 10;

/// See [`GUESSES_MAX`].
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses remembered, some 80 bytes each. Whoever commands more can guess faster, by the oldest being
/// forgotten; but by no more than its addresses would allow in twice the time.
const SOURCES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn ten_wrong_passwords_are_enough_for_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let guesser = address("192.0.2.1");
        let mut guesses = Guesses::default();
        for second in 0..10 {
            assert_eq!(guesses.wait(guesser, at(second)), None);
            guesses.count(guesser, at(second));
        }
        assert_eq!(
            guesses.wait(guesser, at(10)),
            Some(Duration::from_secs(50)),
            "from the first one on"
        );
        assert_eq!(guesses.wait(address("192.0.2.2"), at(10)), None);
        for _ in 0..1000 {
            guesses.count(guesser, at(11));
        }
        assert_eq!(guesses.wait(guesser, at(59)), Some(Duration::from_secs(1)));
        assert_eq!(guesses.wait(guesser, at(60)), None, "a new minute");
        assert!(guesses.counts.is_empty() && guesses.since.is_empty());
    }

    #[test]
    fn what_belongs_to_one_machine_is_one_address() {
        let now = Instant::now();
        for (one, other, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let mut guesses = Guesses::default();
            for _ in 0..GUESSES_MAX {
                guesses.count(address(one), now);
            }
            let waits = guesses.wait(address(other), now).is_some();
            assert_eq!(waits, same, "{one}, {other}");
        }
    }

    #[test]
    fn memory_has_an_end() {
        let now = Instant::now();
        let mut guesses = Guesses::default();
        for number in 0..100_000_u32 {
            guesses.count(IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(guesses.counts.len(), SOURCES_MAX);
        assert_eq!(guesses.since.len(), SOURCES_MAX);
        guesses.forget(now + WINDOW);
        assert!(guesses.counts.is_empty() && guesses.since.is_empty());
    }
}
