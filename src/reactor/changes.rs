//! What the reactor asks of the outside world beside sockets: to tell when something has changed there.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    Reactor,
    net::{Net, Way},
    socket::Kind,
};
use crate::key::Key;

impl<N: Net, O: Copy> Reactor<N, O> {
    /// Watches these files from here on, and none of those before.
    ///
    /// # Errors
    /// Some of them cannot be watched; the others are.
    pub fn watch_files(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        self.net.watch_files(paths)
    }

    /// Has the role told, once, when an address, a route or an interface of this machine is another than now.
    ///
    /// # Errors
    /// The system does not tell us.
    pub fn watch_network(&mut self) -> io::Result<()> {
        self.net.watch_network()
    }

    /// Which way packets to the peer of a connection take now.
    pub fn way(&self, key: Key) -> Way {
        match self.sockets.get(key.index as usize) {
            Some(socket) if socket.serial == key.serial => match &socket.kind {
                Kind::Stream(stream) => self.net.way(stream),
                Kind::Listener(_) | Kind::Timer => Way::Same,
            },
            _ => Way::Same,
        }
    }

    /// From which address of ours packets to `peer` would leave now, if any.
    pub fn source_towards(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.net.source_towards(peer)
    }

    /// Looks up names anew from here on: who was asked may not be who is asked now.
    pub fn forget_names(&mut self) {
        self.names.forget();
    }
}
