//! The event loop.
pub mod net;
