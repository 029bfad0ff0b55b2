//! In the place of `roots` where siding is built without TLS.

use std::path::Path;

use super::Invalid;

/// Nobody can make one.
#[derive(Clone, Debug)]
pub enum Roots {}

impl Roots {
    /// # Errors
    /// Always: there is nothing to trust them for.
    pub fn read(_: &Path) -> Result<Roots, Invalid> {
        Err(Invalid::new(WITHOUT))
    }
}

pub(super) const WITHOUT: &str = "this siding was built without TLS";
