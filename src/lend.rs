//! Lends the reactor's sockets to the tunnel: the one place where the two meet.

use std::io;

use crate::{
    config::MemoryMax,
    key::Key,
    reactor::{self, Reactor, net::Net},
    tunnel::{Outlook, Shared, Sockets, Standing, window::Budget},
};

/// What the links of a process share, within its ceiling on memory if it has one.
pub fn shared<N: Net, O: Copy>(
    memory_max: Option<MemoryMax>,
    undelivered: usize,
    io: &mut Reactor<N, O>,
) -> Shared {
    Shared::new(match memory_max {
        None => Budget::new(undelivered),
        Some(memory_max) => {
            io.set_room(memory_max.room());
            Budget::frugal(undelivered.min(memory_max.undelivered()))
        }
    })
}

impl<N: Net, O: Copy> Sockets for Reactor<N, O> {
    fn read(&mut self, key: Key, into: &mut [u8]) -> io::Result<usize> {
        Reactor::read(self, key, into)
    }

    fn unread(&mut self, key: Key, bytes: &[u8]) {
        Reactor::unread(self, key, bytes);
    }

    fn write(&mut self, key: Key, bytes: &[u8]) -> io::Result<usize> {
        Reactor::write(self, key, bytes)
    }

    fn shutdown(&mut self, key: Key) {
        Reactor::shutdown(self, key);
    }

    fn outlook(&mut self, key: Key) -> Outlook {
        match Reactor::outlook(self, key) {
            reactor::Outlook::Quiet => Outlook::Quiet,
            reactor::Outlook::Data => Outlook::Data,
            reactor::Outlook::End => Outlook::End,
            reactor::Outlook::Failed => Outlook::Failed,
        }
    }

    fn standing(&self, key: Key) -> Standing {
        if self.is_failed(key) {
            Standing::Failed
        } else if self.is_deaf(key) {
            Standing::Deaf
        } else if self.is_readable(key) {
            Standing::Readable
        } else {
            Standing::Quiet
        }
    }
}
