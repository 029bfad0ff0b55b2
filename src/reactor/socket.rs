//! What the reactor keeps of one socket, listener or timer.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{net::Net, wheel::TimerId};

/// One entry of the reactor's slab. There may be a hundred thousand: no heap while idle.
pub(super) struct Socket<N: Net, O> {
    pub kind: Kind<N>,
    pub owner: O,
    pub serial: u32,
    pub life: Life,
    pub deadline: Deadline,
    /// Its one entry in the wheel.
    pub timer: Option<TimerId>,
    /// When bytes last moved.
    pub active: Instant,
    /// Why the socket failed, once an event or a read has said so.
    pub failed: Option<io::ErrorKind>,
    /// Bytes that were given back; of a lingering socket, those to be written.
    pub unread: Option<Box<Unread>>,
    pub readable: bool,
    pub writable: bool,
    /// The peer was seen to close, or the socket to fail.
    pub closed: bool,
    /// A short read does not mean that there is no more: only "would block" does.
    pub read_on: bool,
    pub connecting: bool,
    /// It stands in the reactor's queue of work kept.
    pub again: bool,
}

pub(super) enum Kind<N: Net> {
    Stream(N::Stream),
    Listener(N::Listener),
    Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// Its owner has left it: what is unread is still to be written, then FIN is sent, and until then
    /// what comes is discarded.
    Lingering {
        /// Known once FIN is sent.
        until: Option<Instant>,
    },
    /// Its slot is vacated at the end of the turn.
    Closing,
}

/// When an entry's owner is to be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// Never.
    #[default]
    None,
    /// At this instant.
    At(Instant),
    /// When no byte was read or written for so long, counted from when this was set.
    Idle(Duration),
}

/// Bytes that wait at a socket.
pub(super) struct Unread {
    bytes: Vec<u8>,
    taken: usize,
}

impl Unread {
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes `bytes` off the front; what is empty then is gone.
    pub fn advance(unread: &mut Option<Box<Unread>>, bytes: usize) {
        if let Some(waiting) = unread {
            waiting.taken += bytes;
            if waiting.taken == waiting.bytes.len() {
                *unread = None;
            }
        }
    }
}

impl<N: Net, O> Socket<N, O> {
    pub fn new(serial: u32, kind: Kind<N>, owner: O, now: Instant) -> Socket<N, O> {
        // A listener may hold connections from before it was polled; a stream's first event tells.
        let readable = matches!(kind, Kind::Listener(_));
        Socket {
            kind,
            owner,
            serial,
            life: Life::Open,
            deadline: Deadline::None,
            timer: None,
            active: now,
            failed: None,
            unread: None,
            readable,
            writable: true,
            closed: false,
            read_on: false,
            connecting: false,
            again: false,
        }
    }

    pub fn is_readable(&self) -> bool {
        self.readable || self.unread.is_some()
    }

    /// When its owner is to be called.
    pub fn due(&self) -> Option<Instant> {
        match self.deadline {
            Deadline::None => None,
            Deadline::At(at) => Some(at),
            Deadline::Idle(idle) => Some(self.active + idle),
        }
    }

    pub fn unread_len(&self) -> usize {
        self.unread.as_ref().map_or(0, |unread| unread.rest().len())
    }

    pub fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match &mut self.unread {
            None => {
                self.unread = Some(Box::new(Unread {
                    bytes: bytes.to_vec(),
                    taken: 0,
                }))
            }
            Some(unread) => {
                unread.bytes.splice(..unread.taken, bytes.iter().copied());
                unread.taken = 0;
            }
        }
    }

    /// Takes of what was given back; `None` when there is nothing.
    pub fn take_unread(&mut self, into: &mut [u8]) -> Option<usize> {
        let rest = self.unread.as_ref()?.rest();
        let taken = rest.len().min(into.len());
        into[..taken].copy_from_slice(&rest[..taken]);
        Unread::advance(&mut self.unread, taken);
        Some(taken)
    }

    pub fn drop_unread(&mut self) {
        self.unread = None;
    }
}
