//! What a connection would tell whoever may not read it now, and what its events have told.

use std::io;

use super::{
    Reactor,
    net::Net,
    socket::{Kind, Socket},
};
use crate::key::Key;

/// What a read would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing, as far as we were told.
    Quiet,
    /// Bytes.
    Data,
    /// The end of the stream.
    End,
    /// An error.
    Failed,
}

impl<N: Net, O: Copy> Reactor<N, O> {
    /// What a read would find, for who may not read now; at most one look at the network. A failure
    /// comes before the bytes that are still there: nobody is going to read them.
    pub fn outlook(&mut self, key: Key) -> Outlook {
        let Ok((socket, net)) = self.lend(key) else {
            return Outlook::Failed;
        };
        if socket.failed.is_some() {
            return Outlook::Failed;
        }
        if socket.unread_len() > 0 {
            return Outlook::Data;
        }
        if !socket.is_readable() {
            return Outlook::Quiet;
        }
        if socket.tls.is_some() {
            let tls = |socket: &mut Socket<N, O>, scratch: &mut [u8], now| {
                Ok(socket.tls_outlook(scratch, now).unwrap_or(Outlook::Failed))
            };
            return self.work(key, tls).unwrap_or(Outlook::Failed);
        }
        let Kind::Stream(stream) = &mut socket.kind else {
            return Outlook::Failed;
        };
        match net.peek(stream) {
            Ok(0) => Outlook::End,
            Ok(_) => Outlook::Data,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable = false;
                Outlook::Quiet
            }
            Err(_) => Outlook::Failed,
        }
    }

    /// As [`Reactor::outlook`], from a look at the network itself, whether it has told us of anything or
    /// not. What is still to be sent counts as a failure: this is for a connection that is idle, or
    /// should be.
    pub fn look(&mut self, key: Key) -> Outlook {
        if let Some(socket) = self.socket(key) {
            if !socket.is_flushed() {
                return Outlook::Failed;
            }
            socket.readable = true;
        }
        self.outlook(key)
    }

    /// Whether the socket has a pending error: its peer reset it, or it timed out.
    pub fn is_failed(&self, key: Key) -> bool {
        self.sockets
            .get(key.index as usize)
            .is_some_and(|socket| socket.serial == key.serial && socket.failed.is_some())
    }

    /// Whether the peer has ended in order, and was reset then: it takes nothing any more.
    pub fn is_deaf(&self, key: Key) -> bool {
        self.sockets
            .get(key.index as usize)
            .is_some_and(|socket| socket.serial == key.serial && socket.deaf)
    }

    /// Whether a read may find something, as far as we were told.
    pub fn is_readable(&self, key: Key) -> bool {
        self.sockets
            .get(key.index as usize)
            .is_some_and(|socket| socket.serial == key.serial && socket.is_readable())
    }
}
