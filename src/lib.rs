//! siding: a reverse tunnel over one WebSocket.
//!
//! The map, in the order in which a byte meets it:
//!
//! - [`config`]: what was typed becomes what is meant; every limit with its default and reason.
//! - [`reactor`]: owns every socket and the timer wheel, knows no protocol.
//! - [`tunnel`]: pure protocol: frames, windows, relays, the mux of one link, the link itself.
//! - [`http`]: pure HTTP/1.1: heads, framing, error replies.
//! - [`socks`]: pure SOCKS5: what a user says before its bytes.
//! - [`proxy_protocol`]: pure: what one proxy says to the next of whose connection it is.
//! - [`pool`]: pure: which parked connection to use, park or refuse, with reasons.
//! - [`server`], [`client`]: the two roles, which join all of these and never each other.
//! - [`admin`]: what the roles tell of themselves, over HTTP on a listener of its own.
//! - [`demo`]: both roles and two small origins in one process.
//!
//! Time and IO are arguments: nothing in `tunnel`, `http`, `socks`, `proxy_protocol` or `pool` reads a clock
//! or holds a socket, so the release code runs on real sockets and on a simulated network alike.

#![forbid(unsafe_code)]

pub mod admin;
mod base64;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
mod date;
#[cfg(feature = "demo")]
pub mod demo;
mod guesses;
pub mod histogram;
pub mod http;
pub mod journal;
pub mod key;
mod lend;
pub mod pool;
pub mod proxy_protocol;
pub mod reactor;
mod readable;
mod refusals;
mod reload;
pub mod run;
pub mod server;
pub mod share;
pub mod socks;
mod source;
mod stage;
pub mod tunnel;
