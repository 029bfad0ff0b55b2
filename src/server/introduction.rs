//! What a balancer says before a connection's first byte: whose it is (`accept_proxy`).
//!
//! Owns how its PROXY header is read off a socket, before TLS and whatever else is spoken there; what
//! follows it goes back to where it was read from. Who is asked for one is the configuration's to say, and
//! what becomes of a connection whose owner is known the fronts' and the links'.

use std::{io, net::SocketAddr};

use super::Owner;
use crate::{
    key::Key,
    proxy_protocol::{self, Beginning, Ends, HEADER_MAX},
    reactor::{Reactor, net::Net},
};

/// Who has connected, and where to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whence {
    pub source: SocketAddr,
    /// Where a balancer has said so; else it is where the connection has come in.
    pub destination: Option<SocketAddr>,
}

impl Whence {
    /// Nobody has said otherwise than the kernel.
    pub fn directly(peer: SocketAddr) -> Whence {
        Whence {
            source: peer,
            destination: None,
        }
    }
}

/// What a balancer has said so far.
#[derive(Debug)]
#[must_use]
pub(super) enum Introduction {
    /// Not all of it.
    Partial,
    /// Whose connection it is; the balancer's own, where it is nobody else's that it knows of.
    Whole(Option<Whence>),
    /// Nothing, and it is gone: as balancers look whether somebody listens.
    Left,
    /// Something else; what is wrong with it.
    Refused(&'static str),
}

/// Reads as much of a header as has come.
pub(super) fn read<N: Net>(
    io: &mut Reactor<N, Owner>,
    key: Key,
    scratch: &mut [u8],
) -> Introduction {
    // What was given back last time, and what has come since.
    let mut said: Vec<u8> = Vec::new();
    loop {
        match io.read(key, scratch) {
            Ok(length @ 1..) => said.extend_from_slice(&scratch[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                io.unread(key, &said);
                return Introduction::Partial;
            }
            Ok(0) | Err(_) if said.is_empty() => return Introduction::Left,
            Ok(0) | Err(_) => return Introduction::Refused("it ends within its PROXY header"),
        }
        match proxy_protocol::read(&said) {
            Beginning::Partial => debug_assert!(said.len() < HEADER_MAX, "a longer one is whole"),
            Beginning::Header { length, ends } => {
                io.unread(key, &said[length..]);
                let whence = |ends: Ends| Whence {
                    source: ends.source,
                    destination: Some(ends.destination),
                };
                return Introduction::Whole(ends.map(whence));
            }
            Beginning::Malformed(why) => return Introduction::Refused(why),
        }
    }
}

/// Why a connection is refused of which nothing was said in time.
pub(super) const TOO_SLOW: &str = "no whole PROXY header in time";
