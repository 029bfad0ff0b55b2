//! In the place of `secure` where siding is built without TLS.

use crate::{
    config::{Host, Identity, Roots},
    reactor::Session,
};

/// Trusts nobody.
pub(super) struct Trust;

impl Trust {
    pub fn new(_: &'static str, _: Option<Roots>, _: Option<Identity>) -> Trust {
        Trust
    }

    /// # Errors
    /// Always.
    pub fn session(&mut self, _: &Host) -> Result<Session, String> {
        Err(WITHOUT.into())
    }
}

const WITHOUT: &str = "this siding was built without TLS";
