//! What passes from one process to the next: all listeners, and notes that only roles understand.

use std::io;

use super::{
    Reactor,
    net::{Net, Phase},
    socket::{Kind, Life},
};

impl<N: Net, O: Copy> Reactor<N, O> {
    /// What the process before this one has left for it, once; its listeners are found by
    /// [`Reactor::listen`].
    pub fn notes(&mut self) -> Option<Vec<u8>> {
        self.net.notes()
    }

    /// The role has all that it needs: whoever looks after this process hears so, the process before it goes,
    /// and listeners that were inherited for nothing are closed.
    pub fn settled(&mut self) {
        self.net.tell(Phase::Ready);
    }

    /// Leaves to the next process what this one knows, which is about to stop.
    pub fn bequeath(&mut self, notes: &[u8]) {
        self.net.bequeath(notes);
    }

    /// Starts a process that is to take over all listeners, with `notes` of what it must know; its id.
    /// [`Role::succeeded`] brings what came of it.
    ///
    /// # Errors
    /// As of [`Net::start_successor`].
    pub fn start_successor(&mut self, notes: &[u8]) -> io::Result<u32> {
        let listeners = self.sockets.iter().filter_map(|(_, socket)| {
            let Kind::Listener(listener) = &socket.kind else {
                return None;
            };
            (socket.life == Life::Open).then_some(listener)
        });
        let listeners: Vec<&N::Listener> = listeners.collect();
        self.net.start_successor(&listeners, notes)
    }

    /// Ends the one that was started and was not heard of.
    pub fn give_up_successor(&mut self) {
        self.net.give_up_successor();
    }
}
