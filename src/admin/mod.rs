//! What a role tells of itself: health, metrics and status, over HTTP, on a listener of its own.
//!
//! ```text
//!   visitor --> listener --asked--> role --snapshot--> metrics | status (JSON) --> visitor
//! ```
//!
//! - `snapshot`: what there is to tell; the roles make it, on demand, and nothing is kept for it.
//! - `listener`: the connections, what they ask, and who may.
//! - `answer`: pages; `metrics`: a snapshot as Prometheus reads it.
//! - `status`: the command that asks a running role; `table`: its answer, for people.
//!
//! It runs in the reactor of its role, without a thread. It knows no role: a role embeds an [`Admin`], hands
//! it the events of its sockets, and answers what comes back as [`Asked`].

#[cfg(feature = "admin")]
mod answer;
#[cfg_attr(not(feature = "admin"), path = "no_listener.rs")]
mod listener;
#[cfg(feature = "admin")]
mod metrics;
pub mod snapshot;
#[cfg(feature = "admin")]
pub mod status;
#[cfg(feature = "admin")]
mod table;

pub use self::{
    listener::Admin,
    snapshot::{Asked, Figures, STREAMS_MAX, Status, Told},
};
