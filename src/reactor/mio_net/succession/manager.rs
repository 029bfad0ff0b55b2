//! The service manager, where one has started this process and wants to be told: sd_notify(3).
//!
//! It is told when we are at work, when we read our files again, and when we stop; it gets a sign of life as
//! often as it wants one; and it is given our listeners to keep, so that nobody is refused between this
//! process and the next. What it cannot be told is said in the log at `debug`: there may be none that
//! listens, or it may not read what it is sent, which holds nobody up for long.

use std::{
    env, fmt,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    process,
    time::{Duration, Instant},
};

use log::debug;
use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr},
    time::{ClockId, clock_gettime},
};

use super::{inherited::NOTES, successor::written};
use crate::reactor::net::Phase;

/// Whom to tell.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// Where it listens, if there is one.
    address: Option<SocketAddrUnix>,
    /// It does not read what it is sent: it is not waited for until it does.
    is_stuck: bool,
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
        let address = address();
        // Before systemd 254 it did not say whether it keeps any; who does not passes over what it is given.
        let keeps = address.is_some() && env::var("FDSTORE").map_or(true, |most| most != "0");
        let watchdog = watchdog_limit().filter(|_| address.is_some()).map(|limit| {
            let every = (limit / 2).max(WATCHDOG_MIN);
            Watchdog {
                every,
                next: Instant::now() + every,
            }
        });
        Manager {
            address,
            is_stuck: false,
            keeps,
            watchdog,
        }
    }

    /// Whether there is one.
    pub fn listens(&self) -> bool {
        self.address.is_some()
    }

    /// Tells of a phase of ours.
    pub fn tell(&mut self, phase: Phase) {
        match phase {
            Phase::Ready => self.say("READY=1\n"),
            Phase::Reloading => {
                let now = Duration::try_from(clock_gettime(ClockId::Monotonic));
                let microseconds = now.unwrap_or_default().as_micros();
                self.say(format_args!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
            }
            Phase::Stopping => self.say("STOPPING=1\n"),
        }
    }

    /// Another process is the one to look after, and this one is silent from now on.
    pub fn pass_on(&mut self, process: u32) {
        self.say(format_args!("MAINPID={process}\n"));
        *self = Manager::default();
    }

    /// Gives it a listener to keep.
    pub fn keep(&mut self, address: SocketAddr, listener: &impl AsFd) {
        if self.keeps {
            self.store(&name(address), listener);
        }
    }

    /// Asks it not to keep a listener any longer.
    pub fn release(&mut self, address: SocketAddr) {
        if self.keeps {
            self.remove(&name(address));
        }
    }

    /// Gives it what the next process must know.
    pub fn keep_notes(&mut self, notes: &[u8]) {
        if self.keeps {
            match written(notes) {
                Ok(file) => self.store(NOTES, &file),
                Err(error) => debug!("notes for the next process: {error}"),
            }
        }
    }

    /// Asks it to forget them: they have been read.
    pub fn release_notes(&mut self) {
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
            self.say("WATCHDOG=1\n");
            return Some(every);
        }
        Some(*next - now)
    }

    fn store(&mut self, name: &str, what: &impl AsFd) {
        self.send(&format!("FDSTORE=1\nFDNAME={name}\n"), Some(what.as_fd()));
    }

    fn remove(&mut self, name: &str) {
        self.say(format_args!("FDSTOREREMOVE=1\nFDNAME={name}\n"));
    }

    fn say(&mut self, what: impl fmt::Display) {
        self.send(&what.to_string(), None);
    }

    fn send(&mut self, text: &str, descriptor: Option<BorrowedFd<'_>>) {
        let Some(address) = &self.address else {
            return;
        };
        let sent = send(address, text, descriptor, !self.is_stuck);
        self.is_stuck = matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if let Err(error) = sent {
            debug!("the service manager is not told: {error}");
        }
    }
}

/// Where it listens: at a path, or, after an `@`, at a name that is in no file system.
fn address() -> Option<SocketAddrUnix> {
    let text = env::var_os("NOTIFY_SOCKET")?;
    let address = match text.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        path => SocketAddrUnix::new(path),
    };
    if let Err(error) = &address {
        debug!("the service manager is not told: NOTIFY_SOCKET: {error}");
    }
    address.ok()
}

/// How often it wants a sign of life from this process at the least.
fn watchdog_limit() -> Option<Duration> {
    let limit = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let is_ours = match env::var("WATCHDOG_PID") {
        Ok(process) => process.parse() == Ok(process::id()),
        Err(_) => true,
    };
    is_ours.then(|| Duration::from_micros(limit))
}

/// Sends a message, which waits if there is no room for it and it `may_wait`.
fn send(
    address: &SocketAddrUnix,
    text: &str,
    descriptor: Option<BorrowedFd<'_>>,
    may_wait: bool,
) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(ROOM_AWAITED))?;
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, !may_wait);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: &[BorrowedFd<'_>] = descriptor.as_slice();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg_addr(
        &socket,
        address,
        &[IoSlice::new(text.as_bytes())],
        &mut ancillary,
        flags,
    )?;
    Ok(())
}

/// What a listener is called where descriptors have names, which have no colons.
fn name(address: SocketAddr) -> String {
    address.to_string().replace(':', "-")
}

/// How long to wait for room among the messages that it has not read. It reads them as they come, but for the
/// seconds in which it reads its own files; users wait as long.
const ROOM_AWAITED: Duration = Duration::from_secs(5);

/// Whoever asks for more signs of life than that has mistaken the unit.
const WATCHDOG_MIN: Duration = Duration::from_millis(100);
