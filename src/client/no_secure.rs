//! In the place of `secure` where siding is built without TLS.

use crate::{
    config::{Host, Roots},
    reactor::Session,
};

/// Trusts nobody.
pub(super) struct Trust;

impl Trust {
    pub fn new(_: Option<Roots>) -> Trust {
        Trust
    }

    /// # Errors
    /// Always.
    pub fn session(&mut self, _: &Host) -> Result<Session, String> {
        Err(WITHOUT.into())
    }
}

const WITHOUT: &str = "this siding was built without TLS";
