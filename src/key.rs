//! A name for a socket.
//!
//! Protocol types hold a [`Key`] where a naive design would hold the socket. It imports nothing, and
//! every module may import it.

/// Names one entry of the reactor: a socket, a listener or a timer.
///
/// `index` is the slot in the reactor's slab; `serial` tells this tenant of the slot from earlier
/// ones, so a key that outlived its socket misses instead of reaching a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Slot in the reactor's slab.
    pub index: u32,
    /// Which tenant of that slot.
    pub serial: u32,
}
