//! What the mux keeps of one stream.

use std::{
    hash::Hasher,
    time::{Duration, Instant},
};

use crate::{
    http::{Astray, Follower},
    key::Key,
    tunnel::{
        control::{Disconnect, ProxyConnect},
        frame::StreamId,
        mux::{Ended, STALL_MAX, StreamEnd},
        rate::RateId,
        relay::{End, Relay},
        window::Budget,
    },
};

/// One stream. There may be a hundred thousand of them: its size is asserted in the tests.
#[derive(Debug)]
pub(super) struct Stream {
    pub id: StreamId,
    /// Tells it from earlier tenants of its slot.
    pub serial: u32,
    /// The role's own name for it.
    pub owner: u32,
    /// Its socket; `None` while the target is dialled, and once the stream is closing.
    pub key: Option<Key>,
    pub life: Life,
    pub queued: Queued,
    pub marks: Marks,
    /// proxy_connected was said (client) or received (server).
    pub connected: bool,
    /// Ends by FIN, not by the end of a message.
    pub raw: bool,
    /// The user asked to switch protocols (server): no client may do so of itself.
    pub may_upgrade: bool,
    /// The final response head has passed.
    pub answered: bool,
    pub relay: Relay,
    /// What few streams have, or none for long.
    pub aside: Option<Box<Aside>>,
    pub opened: Instant,
}

/// What a stream has besides, on the heap, so that those without need no room for it.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// What the peer is still to be told first.
    pub connect: Option<ProxyConnect>,
    /// Its part in a rate, where it has one (server).
    pub limited: Option<Limited>,
    /// Where the response has got to, where others' requests may follow it (server).
    pub follower: Option<Follower>,
}

/// A stream's part in a rate.
#[derive(Debug)]
pub(super) struct Limited {
    pub rate: RateId,
    /// Bytes of its first window that were not sent yet, and so not paid.
    pub unpaid: u32,
    /// To be read from.
    pub up: Place,
    /// To be announced, or to grant credit.
    pub down: Place,
}

/// Where a stream stands among those that share its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it may go as long as nobody waits.
    Free,
    InLine,
    /// It was the first in line, and may have so many bytes.
    Called(u32),
}

/// Whether a stream is still its role's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Live,
    /// Only this is still to be said.
    Closing(Disconnect),
}

/// In which queue a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queued {
    No,
    Fresh,
    Waiting,
    /// In that of its rate.
    Limited,
}

/// What is to be said of a stream besides its data; credit and disconnect are computed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// It stands in the queue of marked streams.
    pub queued: bool,
    pub connected: bool,
    pub upgraded: bool,
}

impl Stream {
    pub fn new(id: StreamId, relay: Relay, raw: bool, now: Instant) -> Stream {
        Stream {
            id,
            serial: 0,
            owner: u32::MAX,
            key: None,
            life: Life::Live,
            queued: Queued::No,
            marks: Marks::default(),
            raw,
            may_upgrade: false,
            answered: false,
            connected: false,
            relay,
            aside: None,
            opened: now,
        }
    }

    /// Whether bytes wait for its reader, which has taken none for [`STALL_MAX`].
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.relay
            .tail_moved()
            .is_some_and(|moved| now.saturating_duration_since(moved) >= STALL_MAX)
    }

    /// What the peer is still to be told first.
    pub fn connect(&self) -> Option<&ProxyConnect> {
        self.aside.as_ref()?.connect.as_ref()
    }

    /// The peer has been told of it.
    pub fn announced(&mut self, id: StreamId) {
        self.id = id;
        if let Some(aside) = &mut self.aside {
            aside.connect = None;
            if aside.limited.is_none() && aside.follower.is_none() {
                self.aside = None;
            }
        }
    }

    /// The rate that it shares.
    pub fn rate(&self) -> Option<RateId> {
        Some(self.aside.as_ref()?.limited.as_ref()?.rate)
    }

    /// Its part in that.
    pub fn limited(&mut self) -> Option<&mut Limited> {
        self.aside.as_mut()?.limited.as_mut()
    }

    /// Whether bytes that pass to its user, and their end if that has come, are of the one response it waits
    /// for.
    ///
    /// # Errors
    /// They are not; or too much is held of heads that have not ended.
    pub fn follow(
        &mut self,
        bytes: &[u8],
        end: Option<End>,
        budget: &mut Budget,
    ) -> Result<(), Astray> {
        let followed = self.aside.as_mut().and_then(|it| it.follower.as_mut());
        let Some(follower) = followed else {
            return Ok(());
        };
        let before = follower.held();
        let passed = follower.pass(bytes);
        if !budget.hold_head(before, follower.held()) {
            return Err("too many half heads");
        }
        passed?;
        self.answered |= follower.is_answered();
        match end {
            Some(End::Message { keep }) => follower.end(keep),
            Some(End::Fin) | None => Ok(()),
        }
    }

    /// Gives up what it shares with others.
    pub fn leave(&mut self, budget: &mut Budget) {
        self.leave_rate(budget);
        self.stop_following(budget);
    }

    /// What comes is no response, or of no use any more.
    pub fn stop_following(&mut self, budget: &mut Budget) {
        let follower = self.aside.as_mut().and_then(|it| it.follower.take());
        if let Some(follower) = follower {
            budget.drop_head(follower.held());
        }
    }

    /// How long ago it was opened.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// Whether it is for want of credit, or of its turn, that nothing is read from its socket.
    pub fn is_held_up(&self) -> bool {
        let unannounced = self.connect().is_some();
        self.queued != Queued::No || unannounced || self.relay.is_starved()
    }

    pub fn ended(&self, end: StreamEnd) -> Ended {
        Ended {
            end,
            sent: self.relay.sent,
            delivered: self.relay.delivered,
            opened: self.opened,
            answered: self.answered,
            torn: !self.answered && self.relay.is_between_bytes_of_a_head(),
        }
    }
}

/// Stream ids are dense and given by the server: one multiplication spreads them.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 / golden ratio: Knuth's multiplicative hashing, the high bits are the good ones.
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}
