//! In the place of `tls` where siding is built without it: there are no sessions, so none has to be asked
//! anything.

use std::io;

use super::Outlook;

/// As of the module that this one stands for.
pub(super) trait Wire {
    /// As of [`io::Read`].
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// As of [`io::Write`].
    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;
}

/// Nobody can make one.
#[derive(Clone, Copy, Debug)]
pub enum Session {}

pub(super) struct Tls(Session);

impl Tls {
    pub fn new(session: Session, _: Vec<u8>, _: usize) -> Tls {
        Tls(session)
    }

    pub fn held(&self) -> usize {
        match self.0 {}
    }

    pub fn has_news(&self) -> bool {
        match self.0 {}
    }

    pub fn is_flushed(&self) -> bool {
        match self.0 {}
    }

    pub fn handshake(&mut self, _: &mut impl Wire, _: &mut [u8]) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn read(&mut self, _: &mut [u8], _: &mut impl Wire, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn write(&mut self, _: &[u8], _: &mut impl Wire) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn flush(&mut self, _: &mut impl Wire) -> io::Result<()> {
        match self.0 {}
    }

    pub fn finish(&mut self, _: &mut impl Wire) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn is_finished(&self) -> bool {
        match self.0 {}
    }

    pub fn outlook(&mut self, _: &mut impl Wire, _: &mut [u8]) -> Outlook {
        match self.0 {}
    }
}

/// Nothing is read for sessions, nor written.
pub(super) const SCRATCH: usize = 0;
pub(super) const UNSENT_MAX: usize = 0;
pub(super) const LINK_UNSENT_MAX: usize = 0;
