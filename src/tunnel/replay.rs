//! What a request has said so far, kept so that it can be said again.
//!
//! A parked connection may be closed by its origin in the very moment in which it is used. The far
//! side of the link must not be asked to send twice, so the first bytes are kept here until the origin
//! has answered, or until it is certain that they may not be sent again. Whether a second try is safe is
//! for the role to say (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
//!
//! Invariant: it holds everything that was received, or it does not exist.

use super::relay::End;

/// How much of a request is kept: its head and a form. What is longer is sent once only.
pub const REPLAY_MAX: usize = 64 * 1024;

/// The beginning of what the far side said.
#[derive(Debug)]
pub(super) struct Replay {
    pub bytes: Vec<u8>,
    /// The far side has said all.
    pub end: Option<End>,
    /// Saying it twice is like saying it once; else it is kept only until its first byte is written.
    pub repeatable: bool,
}

impl Replay {
    /// Keeps what was received; `None` when that is too much.
    pub fn push(mut self: Box<Self>, bytes: &[u8]) -> Option<Box<Self>> {
        if self.bytes.len() + bytes.len() > REPLAY_MAX {
            return None;
        }
        self.bytes.extend_from_slice(bytes);
        Some(self)
    }
}
