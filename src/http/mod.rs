//! Pure HTTP/1.1: what a head means, where a message ends, and how both are written again.
//!
//! The server role parses what users send ([`Request`]), the client role what origins answer
//! ([`Response`]); each message is parsed once, by the side whose socket it arrived on. Nothing that
//! was received is passed on as it came: heads are serialised again from checked fields and bodies
//! framed again ([`Body`]), so no two parsers further on can disagree about what a byte means, and
//! what crosses the link is exactly what is written to the far socket.
//!
//! This module knows no socket, no clock and no tunnel. A body reads from a [`Source`] that is lent
//! for one call, straight into the buffer that will leave the process:
//!
//! ```text
//!   user ──► head_end ──► Request::parse ──► write_to ──┐
//!            Body::transfer (decode, count, re-frame) ──┴─► batch ──► far socket
//! ```
//!
//! The rule for doubt is refusal: a message that two implementations could read in two ways is
//! answered (request, [`Refused`]) or dropped with its connection (response, [`Bad`]), never repaired.

mod authority;
mod basic;
mod chunked;
mod fields;
mod follower;
mod forwarded;
mod framing;
mod gather;
mod head;
mod reply;
mod request;
mod response;

pub use authority::{Authority, Scheme};
pub use basic::{Credentials, Presented};
pub use chunked::{BodyLimits, TRAILER_FIELDS_MAX};
pub use fields::{CONNECTION_OPTIONS_MAX, Fields};
pub use follower::{Astray, Follower};
pub use forwarded::Forwarded;
pub use framing::{Body, BodyError, Coding, Framing, Source, Step};
pub use gather::{Gather, Gathered};
pub use head::{Bad, FIELDS_MAX, HeadLimits, LEADING_EMPTY_LINES_MAX, Refused, Version, head_end};
pub use reply::{
    CONNECT_ESTABLISHED, REASON_MAX, denial, end_of_forwarding, error_reply, page, phrase,
    turned_away,
};
pub use request::{Edits, Request, RequestTarget};
pub use response::{Asked, KeepAlive, Kind, NotReusable, Response};

#[cfg(test)]
mod testing;
