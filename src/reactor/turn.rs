//! One pass of the event loop, and the role that is called in it.
//!
//! ```text
//! poll --> events --> names --> work kept --> deadlines --> flush --> vacate
//! ```
//!
//! Everything is handled before anything is sent, so that what many events ask for leaves in few
//! writes; slots are vacated last, so that no event of this turn can meet a new tenant. Of what a burst leaves
//! behind each turn closes a share: that is the dearest call of them all, and nobody waits for it.

use std::{collections::VecDeque, io, time::Duration};

use log::{trace, warn};
use slab::Slab;

use super::{
    Found, Reactor,
    net::{Event, Net, Phase, Ready},
    socket::{Deadline, Kind, Life},
};
use crate::{clock::Now, key::Key};

/// What a role answers to.
pub trait Role<N: Net> {
    /// The role's label of a socket.
    type Owner: Copy;

    /// A socket may be ready; a listener may have a connection.
    fn ready(&mut self, io: &mut Reactor<N, Self::Owner>, key: Key, owner: Self::Owner, now: Now);

    /// A deadline has passed; it is unset by then.
    fn timeout(&mut self, io: &mut Reactor<N, Self::Owner>, key: Key, owner: Self::Owner, now: Now);

    /// A name that was pending has an answer.
    fn resolved(&mut self, io: &mut Reactor<N, Self::Owner>, name: &str, found: &Found, now: Now);

    /// The operator asks to end; asked a second time, at once.
    fn stop(&mut self, io: &mut Reactor<N, Self::Owner>, now: Now);

    /// The operator asks to read files again.
    fn reload(&mut self, io: &mut Reactor<N, Self::Owner>, now: Now);

    /// The operator asks for a new process in the place of this one; most roles have nothing to pass on.
    fn upgrade(&mut self, _: &mut Reactor<N, Self::Owner>, _: Now) {
        warn!("upgrade: only a server passes its listeners on; this needs a restart");
    }

    /// The process that [`Reactor::start_successor`] has started is at work, or has failed, and why.
    fn succeeded(&mut self, _: &mut Reactor<N, Self::Owner>, _: Result<(), String>, _: Now) {}

    /// One of the files that are [watched](Reactor::watch_files) may hold something else now.
    fn files_changed(&mut self, _: &mut Reactor<N, Self::Owner>, _: Now) {}

    /// Something of the machine's network, which is [watched](Reactor::watch_network), is another now.
    fn network_changed(&mut self, _: &mut Reactor<N, Self::Owner>, _: Now) {}

    /// The machine has slept for so long since the last turn, and no deadline has come nearer meanwhile; or
    /// its wall clock was set.
    fn clock_skipped(&mut self, _: &mut Reactor<N, Self::Owner>, _: Duration, _: Now) {}

    /// Everything of this turn was handled: send what there is to send.
    fn flush(&mut self, io: &mut Reactor<N, Self::Owner>, now: Now) -> Flushed;

    /// Whether the role has ended.
    fn is_over(&self) -> bool;
}

/// Whether there is more to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// No.
    Idle,
    /// Yes: poll without sleeping.
    More,
}

impl<N: Net, O: Copy> Reactor<N, O> {
    /// Runs `role` until it is over.
    ///
    /// # Errors
    /// The selector failed: the process cannot go on.
    pub fn run<R: Role<N, Owner = O>>(&mut self, role: &mut R) -> io::Result<()> {
        let mut flushed = role.flush(self, self.now);
        while !role.is_over() {
            flushed = self.turn(role, flushed)?;
        }
        Ok(())
    }

    /// One turn: poll, handle, flush.
    ///
    /// # Errors
    /// The selector failed: the process cannot go on.
    pub fn turn<R: Role<N, Owner = O>>(
        &mut self,
        role: &mut R,
        flushed: Flushed,
    ) -> io::Result<Flushed> {
        let is_at_work = !self.again.is_empty() || !self.unclosed.is_empty();
        let timeout = if flushed == Flushed::More || is_at_work {
            Some(Duration::ZERO)
        } else {
            self.wheel
                .next_deadline()
                .map(|at| at.saturating_duration_since(self.now.instant))
        };
        let again = self.again.len();
        let mut events = std::mem::take(&mut self.events);
        self.net.poll(&mut events, timeout)?;
        let before = std::mem::replace(&mut self.now, self.net.now());
        let skipped = self.now.skipped_since(before);
        if skipped >= SKIPPED_MIN {
            role.clock_skipped(self, skipped, self.now);
        }
        trace!(
            "turn: {} events, {again} kept, slept up to {timeout:?}",
            events.len()
        );
        for event in events.drain(..) {
            match event {
                Event::Ready { index, ready } => self.dispatch(role, index, ready),
                Event::Resolved { name, result } => {
                    let found = self.names.resolved(&name, result, self.now.instant);
                    role.resolved(self, &name, &found, self.now);
                }
                Event::Stop => {
                    self.net.tell(Phase::Stopping);
                    role.stop(self, self.now);
                }
                Event::Reload => {
                    self.net.tell(Phase::Reloading);
                    role.reload(self, self.now);
                    self.net.tell(Phase::Ready);
                }
                Event::Upgrade => role.upgrade(self, self.now),
                Event::Succeeded(outcome) => role.succeeded(self, outcome, self.now),
                Event::FilesChanged => role.files_changed(self, self.now),
                Event::NetworkChanged => role.network_changed(self, self.now),
            }
        }
        self.events = events;
        for _ in 0..again {
            let Some(key) = self.again.pop_front() else {
                break;
            };
            let Some(socket) = self.sockets.get_mut(key.index as usize) else {
                continue;
            };
            if socket.serial != key.serial || !std::mem::take(&mut socket.again) {
                continue;
            }
            match socket.life {
                Life::Open => {
                    let owner = socket.owner;
                    role.ready(self, key, owner, self.now);
                }
                Life::Lingering { .. } => self.part(key),
                Life::Closing => {}
            }
        }
        while let Some((_, key)) = self.wheel.expire(self.now.instant) {
            self.expired(role, key);
        }
        let flushed = role.flush(self, self.now);
        self.sweep();
        if let Some(turns) = &mut self.turns {
            let end = self.net.now().instant;
            turns.count(end.saturating_duration_since(self.now.instant));
        }
        Ok(flushed)
    }

    fn dispatch<R: Role<N, Owner = O>>(&mut self, role: &mut R, index: u32, ready: Ready) {
        let Some(socket) = self.sockets.get_mut(index as usize) else {
            return;
        };
        let key = Key {
            index,
            serial: socket.serial,
        };
        socket.readable |= ready.readable || ready.closed;
        socket.writable |= ready.writable;
        socket.read_on |= ready.closed || ready.error || ready.urgent;
        match socket.life {
            Life::Closing => return,
            Life::Lingering { .. } => return self.part(key),
            Life::Open => {}
        }
        if ready.writable && socket.tls.is_some() {
            let before = socket.held();
            socket.flush_tls(&mut self.net, self.now.instant);
            self.unread = self.unread + socket.held() - before;
        }
        if ready.error
            && !socket.connecting
            && let Kind::Stream(stream) = &mut socket.kind
            && let Some(error) = self.net.take_error(stream)
        {
            socket.readable = true;
            // A reset after a FIN (EPIPE): what came before was whole, only writing has failed.
            if error.kind() == io::ErrorKind::BrokenPipe {
                socket.deaf = true;
            } else {
                socket.failed = Some(error.kind());
            }
        }
        let owner = socket.owner;
        role.ready(self, key, owner, self.now);
    }

    fn expired<R: Role<N, Owner = O>>(&mut self, role: &mut R, key: Key) {
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(key.index as usize) else {
            return;
        };
        if socket.serial != key.serial || socket.life == Life::Closing {
            return;
        }
        socket.timer = None;
        let Some(at) = socket.due() else { return };
        if at > now.instant {
            socket.timer = Some(self.wheel.insert(at, key));
            return;
        }
        socket.deadline = Deadline::None;
        if matches!(socket.life, Life::Lingering { .. }) {
            self.part_for_good(key);
        } else if matches!(socket.kind, Kind::Listener(_)) {
            self.again(key);
        } else {
            let owner = socket.owner;
            role.timeout(self, key, owner, now);
        }
    }

    /// Vacates the slots of closed sockets, and closes their descriptors, or as many as this turn may.
    fn sweep(&mut self) {
        if self.closing.is_empty() && self.unclosed.is_empty() {
            return;
        }
        let share = self.close_share();
        self.vacate(share);
        // Who was first the last time is last now: what has become free may be no more than one.
        if !self.starved.is_empty() {
            self.starved.rotate_left(1);
        }
        for listener in std::mem::take(&mut self.starved) {
            self.again(listener);
        }
    }

    /// Closes what earlier turns have left, as much as this one may; how many more it may close.
    fn close_share(&mut self) -> usize {
        let share = CLOSES_MIN.max(self.unclosed.len() / CLOSES_SHARE);
        let count = share.min(self.unclosed.len());
        for stream in self.unclosed.drain(..count) {
            drop(stream);
            self.room.closed();
        }
        if self.unclosed.is_empty() && self.unclosed.capacity() > TRIM_MIN {
            self.unclosed = VecDeque::new();
        }
        share - count
    }

    /// Vacates the slots of what was closed in this turn, and closes so many of the descriptors.
    fn vacate(&mut self, mut share: usize) {
        let mut highest_left = false;
        let mut closing = std::mem::take(&mut self.closing);
        // The first to be closed is vacated last, and so is the first to have a new tenant: of a burst, the
        // high slots stay empty.
        for key in closing.drain(..).rev() {
            let socket = self.sockets.remove(key.index as usize);
            if let Some(timer) = socket.timer {
                self.wheel.cancel(timer);
            }
            self.unread -= socket.held();
            if let Kind::Stream(mut stream) = socket.kind {
                if share > 0 {
                    drop(stream);
                    self.room.closed();
                    share -= 1;
                } else {
                    // Its slot may have a new tenant, who is not to hear of it.
                    self.net.deregister(&mut stream);
                    self.unclosed.push_back(stream);
                }
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

/// What a clock may be set by without anybody being told: so long a sleep harms nothing either.
const SKIPPED_MIN: Duration = Duration::from_secs(5);

/// How many descriptors are closed in a turn; of more than [`CLOSES_SHARE`] times as many, one in so many, so that
/// they do not grow without bound.
const CLOSES_MIN: usize = 16;
const CLOSES_SHARE: usize = 256;

/// Fewer entries than this are not worth giving back.
const TRIM_MIN: usize = 1024;

#[cfg(test)]
mod tests;
