//! The TCP echo: says what it hears, and ends when its peer does.
//!
//! What the peer does not take is held, at most one read, and nothing is read meanwhile: so it is the
//! sender who waits.

use std::io::ErrorKind::WouldBlock;

use super::{Next, Owner, STEPS_PER_TURN_MAX};
use crate::{
    key::Key,
    reactor::{Reactor, net::Net},
};

/// One connection of the echo.
#[derive(Default)]
pub(super) struct Echo {
    /// Read and not yet written.
    held: Vec<u8>,
}

impl Echo {
    /// Echoes what it can.
    pub fn go_on<N: Net>(
        &mut self,
        io: &mut Reactor<N, Owner>,
        key: Key,
        scratch: &mut [u8],
    ) -> Next {
        for _ in 0..STEPS_PER_TURN_MAX {
            if !self.held.is_empty() {
                match io.write(key, &self.held) {
                    Ok(written) if written == self.held.len() => self.held = Vec::new(),
                    Ok(written) => {
                        self.held.drain(..written);
                    }
                    Err(error) if error.kind() == WouldBlock => return Next::Wait,
                    Err(_) => return Next::Abort,
                }
                continue;
            }
            let read = match io.read(key, scratch) {
                // The peer has said all and has got all of it back.
                Ok(0) => return Next::Close,
                Ok(read) => read,
                Err(error) if error.kind() == WouldBlock => return Next::Wait,
                Err(_) => return Next::Abort,
            };
            match io.write(key, &scratch[..read]) {
                Ok(written) => self.held.extend_from_slice(&scratch[written..read]),
                Err(error) if error.kind() == WouldBlock => {
                    self.held.extend_from_slice(&scratch[..read]);
                }
                Err(_) => return Next::Abort,
            }
        }
        Next::Again
    }

    /// Whether nothing is held.
    pub fn is_at_rest(&self) -> bool {
        self.held.is_empty()
    }
}
