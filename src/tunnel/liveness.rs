//! Whether the peer of a link is there: when it is to be asked, and by when it has to have answered.
//!
//! Pure: it sends nothing, and time is an argument. Any byte is an answer.

use std::time::{Duration, Instant};

/// Whether the peer is there.
#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    pinged: Option<Instant>,
    /// By when it has to answer, once it was asked.
    due: Instant,
    ping: Duration,
    pong: Duration,
}

/// What is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Alive {
    Yes,
    /// It is to be asked now.
    Ask,
    /// It was asked, and has not answered in time.
    No,
}

impl Liveness {
    /// One that was heard just now; it is asked after a silence of `ping`, and has `pong` to answer.
    pub fn new(ping: Duration, pong: Duration, now: Instant) -> Liveness {
        Liveness {
            heard: now,
            pinged: None,
            due: now,
            ping,
            pong,
        }
    }

    /// Any byte has come.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// When it was asked, if it has not answered.
    pub fn pinged(&self) -> Option<Instant> {
        self.pinged
    }

    /// When [`Liveness::timeout`] is due.
    pub fn deadline(&self) -> Instant {
        match self.pinged {
            Some(_) => self.due,
            None => self.heard + self.ping,
        }
    }

    /// What a look at the clock says. Harmless when it is early.
    pub fn timeout(&mut self, now: Instant) -> Alive {
        if now < self.deadline() {
            Alive::Yes
        } else if self.pinged.is_some() {
            Alive::No
        } else {
            self.ask(self.pong, now);
            Alive::Ask
        }
    }

    /// It is asked, and has to answer `within` so long, or when it had to before if that is sooner.
    pub fn ask(&mut self, within: Duration, now: Instant) {
        let due = now + within.min(self.pong);
        self.due = match self.pinged {
            Some(_) => self.due.min(due),
            None => due,
        };
        self.pinged.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_once_and_then_given_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(Duration::from_secs(15), Duration::from_secs(10), start);
        assert_eq!(liveness.timeout(at(14)), Alive::Yes);
        assert_eq!(liveness.deadline(), at(15));
        assert_eq!(liveness.timeout(at(15)), Alive::Ask);
        assert_eq!(liveness.timeout(at(24)), Alive::Yes);
        liveness.heard(at(24));
        assert_eq!(liveness.deadline(), at(39), "any byte is an answer");
        assert_eq!(liveness.timeout(at(39)), Alive::Ask);
        assert_eq!(liveness.timeout(at(49)), Alive::No);

        // Out of turn it has less time, and never more.
        liveness.heard(at(50));
        liveness.ask(Duration::from_secs(3), at(51));
        assert_eq!(liveness.deadline(), at(54));
        liveness.ask(Duration::from_secs(3), at(52));
        assert_eq!(liveness.deadline(), at(54));
        assert_eq!(liveness.timeout(at(54)), Alive::No);
        liveness.heard(at(54));
        assert_eq!(liveness.timeout(at(69)), Alive::Ask);
        liveness.ask(Duration::from_secs(3), at(70));
        assert_eq!(liveness.deadline(), at(73));
        liveness.heard(at(71));
        liveness.ask(Duration::from_secs(60), at(72));
        assert_eq!(liveness.deadline(), at(82));
    }
}
