//! The service manager, where one has started this process and wants to be told: sd_notify(3).
//!
//! It is told when we are at work, when we read our files again, and when we stop; it gets a sign of life as
//! often as it wants one; and it is given our listeners to keep, so that nobody is refused between this
//! process and the next. What it cannot be told is said in the log at `debug`: there may be none that
//! listens.

use std::{
    env, io,
    net::SocketAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use log::debug;
use sd_notify::{NotifyState, notify, notify_with_fds, watchdog_enabled};

use super::{inherited::NOTES, successor::written};
use crate::reactor::net::Phase;

/// Whom to tell.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// There is one.
    listens: bool,
    /// It keeps descriptors for us.
    keeps: bool,
    watchdog: Option<Watchdog>,
}

/// The sign of life.
#[derive(Debug)]
struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Manager {
    /// Whoever the environment speaks of.
    pub fn from_environment() -> Manager {
        let listens = env::var_os("NOTIFY_SOCKET").is_some();
        // Before systemd 254 it did not say whether it keeps any; who does not passes over what it is given.
        let keeps = listens && env::var("FDSTORE").map_or(true, |most| most != "0");
        let watchdog = watchdog_enabled().filter(|_| listens).map(|limit| {
            let every = (limit / 2).max(WATCHDOG_MIN);
            Watchdog {
                every,
                next: Instant::now() + every,
            }
        });
        Manager {
            listens,
            keeps,
            watchdog,
        }
    }

    /// Whether there is one.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// Tells of a phase of ours.
    pub fn tell(&self, phase: Phase) {
        match phase {
            Phase::Ready => self.say(&[NotifyState::Ready]),
            Phase::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => self.say(&[NotifyState::Reloading, now]),
                Err(_) => self.say(&[NotifyState::Reloading]),
            },
            Phase::Stopping => self.say(&[NotifyState::Stopping]),
        }
    }

    /// Another process is the one to look after, and this one is silent from now on.
    pub fn pass_on(&mut self, process: u32) {
        self.say(&[NotifyState::MainPid(process)]);
        *self = Manager::default();
    }

    /// Gives it a listener to keep.
    pub fn keep(&self, address: SocketAddr, listener: &impl AsFd) {
        if self.keeps {
            self.store(&name(address), listener);
        }
    }

    /// Asks it not to keep a listener any longer.
    pub fn release(&self, address: SocketAddr) {
        if self.keeps {
            self.remove(&name(address));
        }
    }

    /// Gives it what the next process must know.
    pub fn keep_notes(&self, notes: &[u8]) {
        if self.keeps {
            match written(notes) {
                Ok(file) => self.store(NOTES, &file),
                Err(error) => debug!("notes for the next process: {error}"),
            }
        }
    }

    /// Asks it to forget them: they have been read.
    pub fn release_notes(&self) {
        if self.keeps {
            self.remove(NOTES);
        }
    }

    /// How long a poll may sleep before the next sign of life; gives it if it is time.
    pub fn sign_of_life(&mut self) -> Option<Duration> {
        let Watchdog { every, next } = self.watchdog.as_mut()?;
        let now = Instant::now();
        if now >= *next {
            *next = now + *every;
            let every = *every;
            self.say(&[NotifyState::Watchdog]);
            return Some(every);
        }
        Some(*next - now)
    }

    fn store(&self, name: &str, what: &impl AsFd) {
        let state = [NotifyState::FdStore, NotifyState::FdName(name)];
        note(notify_with_fds(&state, &[what.as_fd()]));
    }

    fn remove(&self, name: &str) {
        self.say(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    fn say(&self, state: &[NotifyState<'_>]) {
        if self.listens {
            note(notify(state));
        }
    }
}

/// What a listener is called where descriptors have names, which have no colons.
fn name(address: SocketAddr) -> String {
    address.to_string().replace(':', "-")
}

fn note(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        debug!("the service manager is not told: {error}");
    }
}

/// Whoever asks for more signs of life than that has mistaken the unit.
const WATCHDOG_MIN: Duration = Duration::from_millis(100);
