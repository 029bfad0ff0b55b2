//! The processes before and after this one, and whoever keeps things for the time between.
//!
//! ```text
//!   predecessor --listeners, notes--> this process --listeners, notes--> successor
//!        ^---------at work----------------'   ^----------at work------------'
//!
//!   service manager <--ready, reloading, stopping, signs of life; listeners and notes to keep-- this process
//! ```
//!
//! Owns the descriptors that nobody has asked for yet, and the process that was started to take over. Does not
//! know what listeners are for, nor what the notes say.

mod inherited;
mod manager;
mod successor;

use std::{
    io,
    net::{self, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpListener};

use self::{inherited::Inherited, manager::Manager, successor::Successor};
use crate::reactor::net::Phase;

/// This process's place among those of its service.
#[derive(Debug, Default)]
pub(super) struct Succession {
    inherited: Inherited,
    manager: Manager,
    successor: Option<Successor>,
    /// Listeners that we have opened while the service manager listens to the process before this one only.
    unkept: Vec<(SocketAddr, OwnedFd)>,
    /// Whatever there was to leave has been left: what is closed from now on goes on without us.
    bequeathed: bool,
}

impl Succession {
    /// As the environment has it. To be called once, before there are other threads.
    pub fn from_environment() -> Succession {
        Succession {
            inherited: Inherited::from_environment(),
            manager: Manager::from_environment(),
            ..Succession::default()
        }
    }

    /// The listener on this very address, if one was inherited.
    pub fn listener(&mut self, address: SocketAddr) -> Option<net::TcpListener> {
        self.inherited.listener(address)
    }

    /// What the process before this one has left, once.
    pub fn notes(&mut self) -> Option<Vec<u8>> {
        let notes = self.inherited.notes();
        if notes.is_some() && !self.inherited.has_predecessor() {
            // Read once: if they keep us from starting, they do not do so again.
            self.manager.release_notes();
        }
        notes
    }

    /// A listener was opened, and not inherited: whoever has given us those has them.
    pub fn opened(&mut self, listener: &TcpListener) {
        let Ok(address) = listener.local_addr() else {
            return;
        };
        if !self.inherited.has_predecessor() {
            self.manager.keep(address, listener);
        } else if let Ok(listener) = listener.as_fd().try_clone_to_owned() {
            self.unkept.push((address, listener));
        }
    }

    /// A listener is about to be closed.
    pub fn closes(&mut self, listener: &TcpListener) {
        if !self.bequeathed
            && let Ok(address) = listener.local_addr()
        {
            self.manager.release(address);
        }
    }

    /// Tells of a phase of ours whoever is concerned.
    pub fn tell(&mut self, phase: Phase) {
        if phase == Phase::Ready {
            let unused = self.inherited.settled(self.manager.listens());
            for (address, listener) in self.unkept.drain(..) {
                self.manager.keep(address, &listener);
            }
            for address in unused {
                self.manager.release(address);
            }
        }
        self.manager.tell(phase);
    }

    /// Leaves to the next process what this one knows; it is about to stop.
    pub fn bequeath(&mut self, notes: &[u8]) {
        self.manager.keep_notes(notes);
        self.bequeathed = true;
    }

    /// Starts the process that is to take over.
    ///
    /// # Errors
    /// There is one already that was not heard of; or the system's own.
    pub fn start(
        &mut self,
        listeners: &[&TcpListener],
        notes: &[u8],
        registry: &Registry,
        token: Token,
    ) -> io::Result<u32> {
        if self.successor.is_some() {
            return Err(io::Error::other(
                "one was started, and has not been heard of",
            ));
        }
        let mut successor = Successor::start(listeners, notes)?;
        let heard = registry.register(successor.channel(), token, Interest::READABLE);
        if let Err(error) = heard {
            successor.end();
            return Err(error);
        }
        let id = successor.id();
        self.successor = Some(successor);
        Ok(id)
    }

    /// What the one that was started has said: `None` as long as that is nothing.
    ///
    /// # Errors
    /// It has failed; the text says how.
    pub fn heard(&mut self) -> Option<Result<(), String>> {
        let successor = self.successor.as_mut()?;
        let heard = successor.heard()?;
        if heard.is_ok() {
            self.manager.pass_on(successor.id());
            self.bequeathed = true;
        }
        self.successor = None;
        Some(heard)
    }

    /// Ends the one that was started, if it was not heard of.
    pub fn give_up(&mut self) {
        if let Some(mut successor) = self.successor.take() {
            successor.end();
        }
    }

    /// How long a poll may sleep at most, if the service manager wants a sign of life by then.
    pub fn sleep_max(&mut self) -> Option<Duration> {
        self.manager.sign_of_life()
    }
}
