//! Nothing tells here when a file or the network has changed.

use std::{io, path::PathBuf};

use mio::Registry;

use super::Event;

#[derive(Default)]
pub(super) struct Changes {}

impl Changes {
    pub fn watch_files(&mut self, _: &[PathBuf], _: &Registry) -> io::Result<()> {
        Ok(())
    }

    pub fn watch_network(&mut self, _: &Registry) -> io::Result<()> {
        Ok(())
    }

    pub fn network(&mut self) -> Option<Event> {
        None
    }

    pub fn clock(&mut self, _: &Registry) {}

    pub fn files(&mut self) -> Option<Event> {
        None
    }
}
