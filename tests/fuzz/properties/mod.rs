//! What must hold for any bytes that a peer may send.
//!
//! Each module here is one property, `check(input)`, which panics where it does not hold. It is the
//! same function for the fuzz targets and for the replay of their corpus by the crate's own tests.
//! The first bytes of an input choose the circumstances ([`wire::knobs`]): limits, roles, and how
//! the rest is cut into reads. The rest is what the peer sends.
//!
//! [`rfc`] says what is right: a second reading of RFC 9110 and 9112, slow and plain, of whole
//! messages only. It shares no line with the crate, and knows of the crate's own decisions only the
//! named limits.

pub mod body;
pub mod control;
pub mod frame;
pub mod gather;
mod hop;
pub mod request;
pub mod requests;
pub mod response;
pub mod responses;
mod rfc;
mod wire;

/// A property, by the name of its target and of the directory of its corpus.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Property] = &[
    ("body", body::check),
    ("control", control::check),
    ("frame", frame::check),
    ("gather", gather::check),
    ("request", request::check),
    ("requests", requests::check),
    ("response", response::check),
    ("responses", responses::check),
];
