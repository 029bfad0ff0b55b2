//! What Linux tells of changes outside: of files, of the network, of the clock. It owns the descriptors that bring it, each from when it is
//! first needed, and knows no reason to ask.

mod clock;
mod files;
mod network;

use std::{io, os::fd::OwnedFd, path::PathBuf};

use log::debug;
use mio::Registry;

use self::files::Files;
use super::Event;

/// What there is to be told of.
#[derive(Default)]
pub(super) struct Changes {
    files: Option<Files>,
    network: Option<OwnedFd>,
    clock: Option<OwnedFd>,
}

impl Changes {
    /// Watches these files, and none of those before.
    pub fn watch_files(&mut self, paths: &[PathBuf], registry: &Registry) -> io::Result<()> {
        if paths.is_empty() {
            self.files = None;
            return Ok(());
        }
        let files = match &mut self.files {
            Some(files) => files,
            none => none.insert(Files::new(registry)?),
        };
        files.watch(paths)
    }

    /// Tells of the next change of the network, and of whatever clock is set.
    pub fn watch_network(&mut self, registry: &Registry) -> io::Result<()> {
        if self.clock.is_none() {
            self.clock(registry);
        }
        self.network = Some(network::watch(registry)?);
        Ok(())
    }

    /// What there is to say of the network: that it changes. What else it has to tell nobody needs to read;
    /// a router with a full table has thousands of lines a second.
    pub fn network(&mut self) -> Option<Event> {
        self.network.take().map(|_| Event::NetworkChanged)
    }

    /// The clock was set, which the end of the poll has told; so will the next one.
    pub fn clock(&mut self, registry: &Registry) {
        let watch = clock::watch(registry);
        self.clock = watch.inspect_err(|error| debug!("timerfd: {error}")).ok();
    }

    /// What there is to say of the files, when they are told to be ready.
    pub fn files(&mut self) -> Option<Event> {
        let files = self.files.as_mut()?;
        files.changed().then_some(Event::FilesChanged)
    }
}
