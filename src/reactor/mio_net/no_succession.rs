//! In the place of `succession` on systems where descriptors are not handed on, and where siding is built
//! without: there is no other process.

use std::{
    io,
    net::{self, SocketAddr},
    time::Duration,
};

use mio::{Registry, Token, net::TcpListener};

use crate::reactor::net::Phase;

/// As of the module that this one stands for.
#[derive(Debug, Default)]
pub(super) struct Succession {}

impl Succession {
    pub fn from_environment() -> Succession {
        Succession {}
    }

    pub fn listener(&mut self, _: SocketAddr) -> Option<net::TcpListener> {
        None
    }

    pub fn notes(&mut self) -> Option<Vec<u8>> {
        None
    }

    pub fn opened(&mut self, _: &TcpListener) {}

    pub fn closes(&mut self, _: &TcpListener) {}

    pub fn tell(&mut self, _: Phase) {}

    pub fn bequeath(&mut self, _: &[u8]) {}

    pub fn start(
        &mut self,
        _: &[&TcpListener],
        _: &[u8],
        _: &Registry,
        _: Token,
    ) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn heard(&mut self) -> Option<Result<(), String>> {
        None
    }

    pub fn give_up(&mut self) {}

    pub fn sleep_max(&mut self) -> Option<Duration> {
        None
    }
}
