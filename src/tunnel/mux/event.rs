//! What the mux hands to its role: events, and how streams ended.

use std::{fmt, time::Instant};

use crate::tunnel::{
    control::{How, ProxyConnect, Reason},
    frame::Kind,
    mux::Handle,
};

/// Something that the role must see now, before the rest of the message.
#[derive(Debug)]
pub enum Happened {
    /// A frame that concerns the link.
    Control(Kind, Box<[u8]>),
    /// The server opened a stream: dial, then [`adopt`](super::Mux::adopt) and
    /// [`connected`](super::Mux::connected).
    Opened(Handle, ProxyConnect),
    /// The client has connected the stream's target.
    Connected(u32),
    /// The origin switched protocols; the stream is raw from here on.
    Upgraded(u32),
    /// The request of an HTTP exchange was completely sent.
    RequestSent(u32),
    /// One direction is over: nothing may stand still for long from now on.
    HalfClosed(u32),
    /// The stream is over and gone; its socket is the role's to dispose of.
    Ended(u32, Ended),
    /// As that, but bytes are left which the socket has not taken yet.
    Orphaned(Orphan),
}

/// How a stream ended, for its role and its log line.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// What ended it.
    pub end: StreamEnd,
    /// Payload bytes sent to the peer.
    pub sent: u64,
    /// Payload bytes delivered to the socket.
    pub delivered: u64,
    /// When it was opened.
    pub opened: Instant,
    /// The final response head has passed: no other answer may be given.
    pub answered: bool,
    /// A part of an interim head has reached the socket, and not its end: nothing may follow.
    pub torn: bool,
}

/// A stream that is gone before its socket: its link is, or the far side gave it up in order.
#[derive(Debug)]
pub struct Orphan {
    /// The role's name for it.
    pub owner: u32,
    /// Its story.
    pub ended: Ended,
    /// The far side had said all, and these are the last bytes of it: no reason to keep them from the
    /// socket.
    pub rest: Option<Vec<u8>>,
}

/// What ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Both directions of a raw stream were closed in order.
    Closed,
    /// The final response was sent or delivered whole.
    Answered {
        /// The user's connection may be kept.
        keep: bool,
        /// The request had been sent (server) or delivered (client) whole, too.
        request_whole: bool,
    },
    /// The peer gave it up.
    Disconnected(How, Reason),
    /// Our own socket failed, or what it said breaks HTTP.
    Failed(Reason),
}

impl fmt::Display for StreamEnd {
    /// The word of its line in the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StreamEnd::Closed => "closed",
            StreamEnd::Answered { .. } => "answered",
            StreamEnd::Disconnected(_, reason) | StreamEnd::Failed(reason) => reason.word(),
        })
    }
}

/// How many streams ended in each way, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndCounts {
    closed: u64,
    answered: u64,
    by_reason: [u64; Reason::ALL.len()],
}

impl EndCounts {
    /// One more has ended.
    pub fn count(&mut self, end: StreamEnd) {
        *match end {
            StreamEnd::Closed => &mut self.closed,
            StreamEnd::Answered { .. } => &mut self.answered,
            StreamEnd::Disconnected(_, reason) | StreamEnd::Failed(reason) => {
                &mut self.by_reason[reason as usize]
            }
        } += 1;
    }

    /// How many have ended at all.
    pub fn total(&self) -> u64 {
        self.closed + self.answered + self.by_reason.iter().sum::<u64>()
    }

    /// Each way by the word of its line in the log, and how many ended so.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let in_order = [("closed", self.closed), ("answered", self.answered)];
        let words = Reason::ALL.iter().map(|reason| reason.word());
        in_order.into_iter().chain(words.zip(self.by_reason))
    }
}

/// What becomes of the socket of a half-closed stream on which nothing moves.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Expired {
    /// It goes on: the far reader is slow, not this socket.
    Waits,
    /// The stream is given up.
    GivenUp {
        /// Its story.
        ended: Ended,
        /// The socket was not given all that was meant for it, and must not think so; else all of it,
        /// and its end, are with the kernel.
        cut: bool,
    },
}
