//! In the place of `identity` where siding is built without TLS.

use std::path::Path;

use super::{Invalid, roots::WITHOUT};

/// Nobody can make one.
#[derive(Clone, Debug)]
pub enum Identity {}

impl Identity {
    /// # Errors
    /// Always: there is nobody to show it to.
    pub fn read(_: &Path, _: &Path) -> Result<Identity, Invalid> {
        Err(Invalid::new(WITHOUT))
    }
}
