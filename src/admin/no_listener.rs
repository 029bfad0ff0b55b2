//! In the place of `listener` where siding is built without it.

use std::io;

use super::{Asked, Told};
use crate::{
    clock::Now,
    config::AdminConfig,
    reactor::{Reactor, net::Net},
};

/// Nobody can make one.
pub enum Admin {}

impl Admin {
    /// # Errors
    /// Always: there is nobody to listen.
    pub fn open<N: Net, O: Copy>(
        _: &AdminConfig,
        _: &mut Reactor<N, O>,
        _: O,
    ) -> io::Result<Admin> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As where there is a listener.
    pub fn set_config(&mut self, _: Option<&AdminConfig>) {
        match *self {}
    }

    /// As where there is a listener.
    pub fn accept<N: Net, O: Copy>(&mut self, _: &mut Reactor<N, O>, _: impl Fn(u32) -> O, _: Now) {
        match *self {}
    }

    /// As where there is a listener.
    pub fn ready<N: Net, O: Copy>(
        &mut self,
        _: &mut Reactor<N, O>,
        _: u32,
        _: Now,
    ) -> Option<Asked> {
        match *self {}
    }

    /// As where there is a listener.
    pub fn timeout<N: Net, O: Copy>(&mut self, _: &mut Reactor<N, O>, _: u32) {
        match *self {}
    }

    /// As where there is a listener.
    pub fn answer<N: Net, O: Copy>(&mut self, _: &mut Reactor<N, O>, _: u32, _: Told, _: Now) {
        match *self {}
    }

    /// As where there is a listener.
    pub fn close<N: Net, O: Copy>(&mut self, _: &mut Reactor<N, O>) {
        match *self {}
    }
}
