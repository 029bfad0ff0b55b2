//! What this process was given when it started: listeners, from the process before it or from the service
//! manager, and what that process knew.
//!
//! They come as sd_listen_fds(3) describes it: descriptors from 3 on, `LISTEN_FDS` of them, named in
//! `LISTEN_FDNAMES`. A listener is found again by its address alone; two names say that a descriptor is no
//! listener.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    time::Duration,
};

use listenfd::ListenFd;
use log::{info, warn};
use nix::unistd::close;
use socket2::SockRef;

/// What was given, as far as nobody has taken it.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    listeners: Vec<(SocketAddr, TcpListener)>,
    notes: Option<Vec<u8>>,
    predecessor: Option<UnixStream>,
}

impl Inherited {
    /// Takes all that the environment speaks of. To be called once, before there are other threads.
    pub fn from_environment() -> Inherited {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut given = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for index in 0..given.len() {
            let name = names.next().unwrap_or_default();
            if let Err(error) = inherited.take(&mut given, index, name) {
                let called = called(name);
                warn!("inherited descriptor {}{called}: {error}", index + FIRST);
                if let Ok(Some(descriptor)) = given.take_raw_fd(index) {
                    let _ = close(descriptor);
                }
            }
        }
        inherited
    }

    fn take(&mut self, given: &mut ListenFd, index: usize, name: &str) -> io::Result<()> {
        match name {
            NOTES => {
                let Some(descriptor) = given.take_raw_fd(index)? else {
                    return Ok(());
                };
                // By its path it is opened once more, from its beginning.
                let notes = File::open(format!("/proc/self/fd/{descriptor}"));
                let _ = close(descriptor);
                let mut bytes = Vec::new();
                notes?.take(NOTES_MAX).read_to_end(&mut bytes)?;
                self.notes = Some(bytes);
            }
            PREDECESSOR => {
                let (family, kind) = (libc::AF_UNIX, libc::SOCK_STREAM);
                self.predecessor = given.take_custom(index, family, kind, "unix socket")?;
            }
            _ => {
                let Some(listener) = given.take_tcp_listener(index)? else {
                    return Ok(());
                };
                if !SockRef::from(&listener).is_listener()? {
                    return Err(io::Error::other("it does not listen"));
                }
                let address = listener.local_addr()?;
                info!("inherited a listener on {address}{}", called(name));
                self.listeners.push((address, listener));
            }
        }
        Ok(())
    }

    /// The listener on this very address, if there is one; it is the caller's then.
    pub fn listener(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let is_there = |(there, _): &(SocketAddr, _)| *there == address;
        let index = self.listeners.iter().position(is_there)?;
        Some(self.listeners.swap_remove(index).1)
    }

    /// What the process before this one has left, once.
    pub fn notes(&mut self) -> Option<Vec<u8>> {
        self.notes.take()
    }

    /// Whether there is a process before this one that waits for it to be at work.
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// This process is at work: closes the listeners that nobody has asked for, which are the answer, and tells
    /// the one before it, which goes then. If it matters that this one `follows`, it waits until the one before
    /// has said so.
    pub fn settled(&mut self, follows: bool) -> Vec<SocketAddr> {
        let unused = self.listeners.drain(..).map(|(address, _)| address);
        let unused: Vec<SocketAddr> = unused.collect();
        for address in &unused {
            warn!("the inherited listener on {address} is nobody's by now: closed");
        }
        if let Some(mut predecessor) = self.predecessor.take() {
            let told = predecessor.write_all(READY).and_then(|()| match follows {
                true => ended(&mut predecessor),
                false => Ok(()),
            });
            if let Err(error) = told {
                warn!("the process before this one: {error}");
            }
        }
        unused
    }
}

/// A descriptor's name behind something else, if it has one.
fn called(name: &str) -> String {
    match name {
        "" => String::new(),
        name => format!(", {name}"),
    }
}

/// Waits for the end of what the process before this one had to do with us.
fn ended(predecessor: &mut UnixStream) -> io::Result<()> {
    predecessor.set_read_timeout(Some(FOLLOWED_MAX))?;
    predecessor.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The first descriptor that is handed over, `SD_LISTEN_FDS_START`.
pub(super) const FIRST: usize = 3;

/// What the process before this one has left.
pub(super) const NOTES: &str = "siding-notes";

/// Through this the process before this one hears that it may go.
pub(super) const PREDECESSOR: &str = "siding-predecessor";

/// What it hears.
pub(super) const READY: &[u8] = b"R";

/// It does in its next turn.
const FOLLOWED_MAX: Duration = Duration::from_secs(2);

/// Of a hundred thousand proxies.
const NOTES_MAX: u64 = 64 << 20;
