//! Listeners, and the connections that they take.
//!
//! Each may take its share in a turn, while everybody else waits: the more of them are flooded at once, the less.
//! Closing has a share of its own, so that nobody who floods makes one turn pay for both.

use std::{io, net::SocketAddr, time::Duration};

use log::debug;

use super::{
    Reactor,
    net::{Net, Purpose, is_out_of_descriptors},
    socket::{Deadline, Kind},
};
use crate::{key::Key, share::Share};

/// What [`Reactor::accept`] came to.
#[derive(Debug)]
#[must_use]
pub enum Accepted {
    /// A connection, registered, and where it comes from.
    Connection(Key, SocketAddr),
    /// None waits.
    Empty,
    /// Descriptors, or room, have run out. The listener is ready again after a socket was closed, or
    /// [`ACCEPT_PAUSE`].
    Starved,
}

impl<N: Net, O: Copy> Reactor<N, O> {
    /// Opens a listener.
    ///
    /// # Errors
    /// The address is in use, not ours, or not permitted; or descriptors have run out.
    pub fn listen(&mut self, address: SocketAddr, owner: O) -> io::Result<(Key, SocketAddr)> {
        let key = self.vacant();
        let listener = self.with_descriptor(|room, net| {
            room.admit_listener()?;
            net.listen(address, key)
        })?;
        let bound = self.net.local_address(&listener)?;
        self.occupy(key, Kind::Listener(listener), owner);
        Ok((key, bound))
    }

    /// Takes a connection that waits at a listener, and labels it.
    pub fn accept(&mut self, listener: Key, purpose: Purpose, owner: O) -> Accepted {
        loop {
            let key = self.vacant();
            let admitted = self.room.admit(purpose);
            let Some(socket) = self.sockets.get_mut(listener.index as usize) else {
                return Accepted::Empty;
            };
            let Kind::Listener(from) = &mut socket.kind else {
                return Accepted::Empty;
            };
            match admitted.and_then(|()| self.net.accept(from)) {
                Ok((mut stream, address)) => match self.net.register(&mut stream, key) {
                    Ok(()) => {
                        self.occupy(key, Kind::Stream(stream), owner);
                        self.weigh(key, purpose);
                        return Accepted::Connection(key, address);
                    }
                    Err(error) => debug!("connection from {address} not registered: {error}"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable = false;
                    return Accepted::Empty;
                }
                Err(error) if self.gives_way(&error) => {}
                Err(error) if is_out_of_descriptors(&error) => {
                    if !self.starved.contains(&listener) {
                        self.starved.push(listener);
                    }
                    let at = self.now.instant + ACCEPT_PAUSE;
                    self.set_deadline(listener, Deadline::At(at));
                    return Accepted::Starved;
                }
                // The connection died while it waited; the next one may be well.
                Err(error) => debug!("accept: {error}"),
            }
        }
    }

    /// Whether a listener may take one more in this turn; if not, it is called again in the next.
    pub fn takes_another(&mut self, listener: Key) -> bool {
        let (_, taken) = self
            .taking
            .filter(|(taking, _)| *taking == listener)
            .unwrap_or((listener, 0));
        let takes = taken < self.accepts.each();
        self.taking = Some((listener, taken + usize::from(takes)));
        if !takes && self.is_new_work(listener) {
            self.again.push_back(listener);
            self.accepts.wants_more();
        }
        takes
    }
}

/// How many connections a listener may take in a turn: at most as many as are closed in one, too.
pub(super) const ACCEPTS: Share = Share::new(1, 16, 32);

/// How long a listener waits for a descriptor before it tries again by itself.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
