//! What the reactor asks of the outside world beside sockets: to tell when something has changed there.

use std::{io, path::PathBuf};

use super::{Reactor, net::Net};

impl<N: Net, O: Copy> Reactor<N, O> {
    /// Watches these files from here on, and none of those before.
    ///
    /// # Errors
    /// Some of them cannot be watched; the others are.
    pub fn watch_files(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        self.net.watch_files(paths)
    }
}
