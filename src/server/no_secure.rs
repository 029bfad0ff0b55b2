//! In the place of `secure` where siding is built without TLS.

use crate::{
    config::{Identity, Roots},
    reactor::Session,
};

/// Speaks no TLS.
pub(super) struct Acceptor;

impl Acceptor {
    pub fn new(_: Vec<Identity>, _: Option<Roots>) -> Acceptor {
        Acceptor
    }

    pub fn len(&self) -> usize {
        0
    }

    pub fn link(&self) -> Option<Session> {
        None
    }

    pub fn user(&self, _: bool) -> Option<Session> {
        None
    }
}
