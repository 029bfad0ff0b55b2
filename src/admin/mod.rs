//! What a role tells of itself: health, metrics and status, over HTTP, on a listener of its own.
//!
//! ```text
//!   visitor --> listener --asked--> role --snapshot--> metrics | status (JSON) --> visitor
//!   browser --> listener --page (HTML), which asks for the status every two seconds
//! ```
//!
//! - `snapshot`: what there is to tell; the roles make it, on demand, and nothing is kept for it.
//! - `listener`: the connections, what they ask, and who may.
//! - `answer`: what may be asked; `metrics`: a snapshot as Prometheus reads it; `page`: what people look at.
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
#[cfg(feature = "admin")]
mod page;
pub mod snapshot;
#[cfg(feature = "admin")]
pub mod status;
#[cfg(feature = "admin")]
mod table;

pub use self::{
    listener::Admin,
    snapshot::{Asked, Figures, STREAMS_MAX, Status, Told},
};

use crate::{
    config::AdminConfig,
    reactor::{Reactor, net::Net},
};

/// Opens the listener, if one is asked for.
///
/// # Errors
/// The address cannot be had; the text is for the operator.
pub fn open<N: Net, O: Copy>(
    config: Option<&AdminConfig>,
    io: &mut Reactor<N, O>,
    owner: O,
) -> Result<Option<Admin>, String> {
    let Some(config) = config else {
        return Ok(None);
    };
    match Admin::open(config, io, owner) {
        Ok(admin) => Ok(Some(admin)),
        Err(error) => Err(format!(
            "--admin: cannot listen on {}: {error}",
            config.listen
        )),
    }
}
