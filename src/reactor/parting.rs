//! Connections that their owners have left: what is still to be written is, then FIN is sent, and what
//! comes in the meantime is discarded, so that no reset destroys what the kernel has not delivered.
//!
//! All of it has an end: a peer that takes nothing, or goes on sending, is given up, and the sooner the more it
//! sends. What was not written
//! by then ends in a reset, because a cut must not look like an end. Until then it is a connection like any other to
//! whoever counts them: its owner is [told](super::Role::parted) when it is closed.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use super::{
    Deadline, Reactor,
    net::Net,
    socket::{Kind, Life},
};
use crate::key::Key;

impl<N: Net, O: Copy> Reactor<N, O> {
    /// Sends FIN, then discards what the peer still sends until it closes, too, is quiet for `idle`,
    /// or [`LINGER_MAX`] has passed. Closing at once would answer its bytes with RST, which can
    /// destroy what we wrote before the peer has read it (RFC 9112 §9.6). The owner is called no more, but
    /// for [`Role::parted`](super::Role::parted).
    pub fn linger(&mut self, key: Key, idle: Duration) {
        self.farewell(key, &[], idle);
    }

    /// As [`Reactor::linger`], for at most `longest` in all: a peer that goes on sending what nobody is
    /// there to read is told so by a reset.
    pub fn linger_at_most(&mut self, key: Key, longest: Duration) {
        self.farewell_at_most(key, &[], longest);
    }

    /// As [`Reactor::farewell`], and as [`Reactor::linger_at_most`] after it.
    pub fn farewell_at_most(&mut self, key: Key, bytes: &[u8], longest: Duration) {
        self.farewell(key, bytes, longest);
        let latest = self.now.instant + longest;
        // With something left to be written, the time runs from when it is.
        if let Some(socket) = self.sockets.get_mut(key.index as usize)
            && socket.serial == key.serial
            && let Life::Lingering { until: Some(until) } = &mut socket.life
        {
            *until = latest.min(*until);
        }
    }

    /// Writes `bytes`, however long the peer takes them within `idle` of each other, and then
    /// [lingers](Reactor::linger).
    pub fn farewell(&mut self, key: Key, bytes: &[u8], idle: Duration) {
        let Some(socket) = self.socket(key) else {
            return;
        };
        let dropped = socket.unread_len();
        socket.drop_unread();
        // From here on these are the bytes that are still to be written.
        socket.unread(bytes);
        socket.life = Life::Lingering { until: None };
        self.unread = self.unread - dropped + bytes.len();
        self.lingering += 1;
        self.set_deadline(key, Deadline::idle(idle));
        self.part(key);
    }

    /// Closes a connection that lingers, if it still does: another is to have its place.
    pub fn part_now(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get(key.index as usize)
            && socket.serial == key.serial
            && matches!(socket.life, Life::Lingering { .. })
        {
            self.part_for_good(key);
        }
    }

    /// Gives up what is still to be written on connections that are left: the process ends.
    pub fn part_from_all(&mut self) {
        let left: Vec<Key> = self
            .sockets
            .iter()
            .filter(|(_, socket)| matches!(socket.life, Life::Lingering { .. }))
            .map(|(index, socket)| Key {
                index: index as u32,
                serial: socket.serial,
            })
            .collect();
        for key in left {
            self.part_for_good(key);
        }
    }

    /// Closes a connection that is left. Where not all is written, its peer must not think so.
    pub(super) fn part_for_good(&mut self, key: Key) {
        let socket = &self.sockets[key.index as usize];
        match socket.unread_len() == 0 && socket.is_flushed() {
            true => self.close(key),
            false => self.abort(key),
        }
    }

    /// Goes on with a connection that is left: writes the rest, then FIN, then discards.
    pub(super) fn part(&mut self, key: Key) {
        let now = self.now.instant;
        let Some(socket) = self.sockets.get_mut(key.index as usize) else {
            return;
        };
        let Life::Lingering { until } = socket.life else {
            return;
        };
        if !matches!(socket.kind, Kind::Stream(_)) {
            return self.close(key);
        }
        let until = match until {
            Some(until) => until,
            None => {
                let before = socket.held();
                let written = socket.write_unread(now);
                self.unread = self.unread + socket.held() - before;
                match written {
                    // Meanwhile the peer must not be kept from writing, or it may never read.
                    Ok(false) => return self.discard(key, None),
                    Ok(true) => {}
                    Err(_) => return self.close(key),
                }
                match self.finish(key) {
                    Ok(true) => {}
                    Ok(false) => return self.discard(key, None),
                    Err(_) => return self.close(key),
                }
                let until = now + LINGER_MAX;
                self.sockets[key.index as usize].life = Life::Lingering { until: Some(until) };
                until
            }
        };
        self.discard(key, Some(until));
    }

    /// Reads what nobody wants, at most `until`.
    fn discard(&mut self, key: Key, until: Option<Instant>) {
        let reads = DISCARD_READS_MAX.min(self.discards);
        if reads == 0 {
            return self.deferred.push(key);
        }
        let now = self.now.instant;
        let Some(socket) = self.sockets.get_mut(key.index as usize) else {
            return;
        };
        let Kind::Stream(stream) = &mut socket.kind else {
            return;
        };
        let mut sink = [0; DISCARD];
        let mut until = until;
        for _ in 0..reads {
            self.discards -= 1;
            match (stream.read(&mut sink), &mut until) {
                // Only what it takes counts as progress then.
                (Ok(1..), None) => {}
                (Ok(count @ 1..), Some(until)) if now < *until => {
                    socket.active = now;
                    let spent = Duration::from_secs(count as u64) / DISCARD_RATE;
                    *until = until.checked_sub(spent).unwrap_or(now);
                    socket.life = Life::Lingering {
                        until: Some(*until),
                    };
                }
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The peer may still read what is left to be written.
                (Ok(0), None) => return,
                // It ended, failed, or took too long.
                _ => return self.close(key),
            }
        }
        self.again(key);
    }
}

/// How long a closed connection may go on sending what nobody wants (nginx: `lingering_time`).
pub const LINGER_MAX: Duration = Duration::from_secs(30);

const DISCARD: usize = 16 * 1024;

/// Bytes that take a second from that time: an uploader has as many to learn that nobody wants more as are on
/// the way to us and a few round trips of them, while who sends without end, as fast as the processor lets it,
/// is soon told by a reset.
const DISCARD_RATE: u32 = 8 << 20;

/// 64 KiB in one turn: nobody wants them, and others wait.
const DISCARD_READS_MAX: usize = 4;
