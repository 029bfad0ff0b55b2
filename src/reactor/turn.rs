//! One pass of the event loop, and the role that is called in it.
//!
//! ```text
//! poll --> events --> names --> work kept --> deadlines --> flush --> vacate
//! ```
//!
//! Everything is handled before anything is sent, so that what many events ask for leaves in few
//! writes; slots are vacated last, so that no event of this turn can meet a new tenant.
//!
//! What one turn may do has a bound wherever many can ask for it at once: the others' bytes wait for its end.

use std::{io, time::Duration};

use log::{trace, warn};

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

    /// A connection of this owner that was left to [linger](Reactor::linger) is closed.
    fn parted(&mut self, _: Self::Owner) {}

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
        self.discards = DISCARDS_MAX;
        self.accepts.divide();
        self.taking = None;
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
                Life::Closing { .. } => {}
            }
        }
        for _ in 0..DEADLINES_MAX {
            let Some((_, key)) = self.wheel.expire(self.now.instant) else {
                break;
            };
            self.expired(role, key);
        }
        let flushed = role.flush(self, self.now);
        for owner in std::mem::take(&mut self.parted) {
            role.parted(owner);
        }
        self.put_off();
        self.sweep();
        if role.is_over() {
            self.close_rest();
        }
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
            Life::Closing { .. } => return,
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
        if socket.serial != key.serial || socket.is_closing() {
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
}

/// What a clock may be set by without anybody being told: so long a sleep harms nothing either.
const SKIPPED_MIN: Duration = Duration::from_secs(5);

/// Deadlines answered in a turn: those behind them have passed, so that the next turn does not sleep.
const DEADLINES_MAX: usize = 512;

/// Reads of what nobody wants, of all connections together: 256 KiB.
pub(super) const DISCARDS_MAX: usize = 16;
