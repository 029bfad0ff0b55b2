//! What becomes of closed sockets.
//!
//! Their slots are vacated at the end of the turn. Their descriptors are closed then, too, if they are few; of a
//! burst each turn closes a share, for that is the dearest call of them all, with what TLS says before it, and
//! nobody waits for it. They are closed sooner where somebody wants their descriptors.

use std::{collections::VecDeque, io, time::Instant};

use slab::Slab;

use super::{
    Reactor,
    net::Net,
    room::Room,
    socket::{Kind, Life, Socket},
};
use crate::key::Key;

impl<N: Net, O: Copy> Reactor<N, O> {
    /// Closes at the end of the turn, or where many are closed in one of the next: FIN after what the kernel
    /// holds, or RST where bytes were left unread. A listener is closed at once: its port may be wanted in this
    /// very turn.
    pub fn close(&mut self, key: Key) {
        self.close_by(key, false);
    }

    /// Closes with RST: the peer learns that this was no orderly end.
    pub fn abort(&mut self, key: Key) {
        self.close_by(key, true);
    }

    /// Closes at once, for its descriptor; the slot is vacated at the end of the turn all the same.
    pub fn close_now(&mut self, key: Key) {
        self.close(key);
        if let Some(socket) = self.sockets.get_mut(key.index as usize)
            && socket.serial == key.serial
            && socket.has_descriptor()
        {
            let before = socket.held();
            socket.say_last_words(&mut self.net, self.now.instant);
            self.unread = self.unread + socket.held() - before;
            socket.kind = Kind::Timer;
            self.room.closed();
        }
    }

    fn close_by(&mut self, key: Key, reset: bool) {
        let Some(socket) = self.sockets.get_mut(key.index as usize) else {
            return;
        };
        if socket.serial != key.serial || socket.is_closing() {
            return;
        }
        if matches!(socket.life, Life::Lingering { .. }) {
            self.lingering -= 1;
            self.parted.push(socket.owner);
        }
        if let Kind::Listener(listener) = &mut socket.kind {
            self.net.unlisten(listener);
            socket.kind = Kind::Timer;
            self.room.closed();
        }
        socket.life = Life::Closing { reset };
        self.room.unload(std::mem::take(&mut socket.weight));
        self.closing.push(key);
    }

    /// How many sockets are over for everybody but the system, which closes them in one of the next turns.
    pub fn unclosed(&self) -> usize {
        self.unclosed.len()
    }

    /// Closes one of those at once, because a descriptor is wanted; whether there was one, and that would help.
    pub(super) fn gives_way(&mut self, error: &io::Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) && self.close_next()
    }

    /// Tries what takes a descriptor, as long as one can be had for it.
    pub(super) fn with_descriptor<T>(
        &mut self,
        mut attempt: impl FnMut(&Room, &mut N) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt(&self.room, &mut self.net) {
                Err(error) if self.gives_way(&error) => {}
                done => return done,
            }
        }
    }

    /// Vacates the slots of closed sockets, and closes their descriptors, or as many as this turn may.
    pub(super) fn sweep(&mut self) {
        if self.closing.is_empty() && self.unclosed.is_empty() {
            return;
        }
        // Whoever is closed among few others does not wait behind a burst of before.
        let backlog = self.unclosed.len();
        let kept = backlog.min(CLOSES_MIN / 2);
        let share = kept + self.vacate(CLOSES_MIN - kept);
        for _ in 0..share.max(backlog / CLOSES_SHARE).min(backlog) {
            self.close_next();
        }
        if self.unclosed.is_empty() && self.unclosed.capacity() > TRIM_MIN {
            self.unclosed = VecDeque::new();
        }
        // Who was first the last time is last now: what has become free may be no more than one.
        if !self.starved.is_empty() {
            self.starved.rotate_left(1);
        }
        for listener in std::mem::take(&mut self.starved) {
            self.again(listener);
        }
    }

    /// Closes what is left: the role has ended, and a reset must not become an orderly end because of that.
    pub(super) fn close_rest(&mut self) {
        while self.close_next() {}
    }

    fn close_next(&mut self) -> bool {
        let Some(mut socket) = self.unclosed.pop_front() else {
            return false;
        };
        socket.say_last_words(&mut self.net, self.now.instant);
        self.room.closed();
        true
    }

    /// Vacates the slots of what was closed in this turn, and closes so many of the descriptors; how many more it
    /// might have.
    fn vacate(&mut self, mut share: usize) -> usize {
        let mut highest_left = false;
        let mut closing = std::mem::take(&mut self.closing);
        // The first to be closed is vacated last, and so is the first to have a new tenant: of a burst, the
        // high slots stay empty.
        for key in closing.drain(..).rev() {
            let mut socket = self.sockets.remove(key.index as usize);
            if let Some(timer) = socket.timer {
                self.wheel.cancel(timer);
            }
            self.unread -= socket.held();
            match &mut socket.kind {
                Kind::Stream(_) if share > 0 => {
                    socket.say_last_words(&mut self.net, self.now.instant);
                    self.room.closed();
                    share -= 1;
                }
                Kind::Stream(stream) => {
                    // Its slot may have a new tenant, who is not to hear of it.
                    self.net.deregister(stream);
                    socket.drop_unread();
                    self.unclosed.push_back(socket);
                }
                Kind::Listener(_) | Kind::Timer => {}
            }
            self.closed += 1;
            highest_left |= self.highest == Some(key);
        }
        // Kept for the next turn, but for what a burst has made of it.
        if closing.capacity() <= TRIM_MIN {
            self.closing = closing;
        }
        // An eighth, so that whatever ends in several turns is seen to have ended by the last of them; at
        // eight steps per close, if there is anything to give back.
        if self.closed >= self.sockets.capacity().max(TRIM_MIN) / 8 {
            self.closed = 0;
            self.highest = self.trim();
        } else if highest_left {
            self.trim();
            self.highest = None;
        }
        share
    }

    /// Gives a burst's memory back when the burst is over, as far as nobody is above it. The answer is who
    /// is, where that is most of it: a link's streams end with it, but the timer of the next attempt is
    /// already there then.
    fn trim(&mut self) -> Option<Key> {
        let is_large = |sockets: &Slab<_>| sockets.len() < sockets.capacity() / 4;
        if !is_large(&self.sockets) {
            return None;
        }
        self.sockets.shrink_to_fit();
        if !is_large(&self.sockets) {
            return None;
        }
        let (index, socket) = self.sockets.iter().next_back()?;
        Some(Key {
            index: index as u32,
            serial: socket.serial,
        })
    }
}

impl<N: Net, O> Socket<N, O> {
    /// What is said before it is closed: with TLS, that it ends, as far as the kernel takes it at once, or the
    /// peer takes the end for a cut; or that it is reset.
    fn say_last_words(&mut self, net: &mut N, now: Instant) {
        match (&mut self.kind, self.life) {
            (Kind::Stream(stream), Life::Closing { reset: true }) => net.abort(stream),
            _ if self.tls.is_some() => {
                let _ = self.finish(net, now);
            }
            _ => {}
        }
    }
}

/// How many descriptors are closed in a turn, half of them of earlier turns if there are any; of more than
/// [`CLOSES_SHARE`] times as many, one in so many, so that they do not grow without bound. No fewer than one
/// listener takes in a turn.
const CLOSES_MIN: usize = 16;
const CLOSES_SHARE: usize = 128;

/// Fewer entries than this are not worth giving back.
const TRIM_MIN: usize = 1024;

#[cfg(test)]
mod tests;
