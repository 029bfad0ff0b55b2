//! Certificates of a private authority, from a file.

use std::{fmt, path::Path, rc::Rc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{Invalid, files};

/// Roots to trust: at least one, and each is a certificate.
#[derive(Clone)]
pub struct Roots(Rc<[CertificateDer<'static>]>);

impl Roots {
    /// Reads a PEM file of one or more certificates.
    ///
    /// # Errors
    /// It cannot be read, holds no certificate, or one that is malformed; the message begins with the
    /// file's name.
    pub fn read(path: &Path) -> Result<Roots, Invalid> {
        let refused =
            |reason: &dyn fmt::Display| Invalid::new(format!("{}: {reason}", path.display()));
        let pem = read_pem(path)?;
        let mut certificates = Vec::new();
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate =
                certificate.map_err(|error| refused(&format_args!("is no PEM: {error}")))?;
            let number = certificates.len() + 1;
            store.add(certificate.clone()).map_err(|error| {
                refused(&format_args!(
                    "certificate {number} cannot be a root: {error}"
                ))
            })?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(refused(&"holds no certificate in PEM"));
        }
        Ok(Roots(certificates.into()))
    }

    /// The certificates, in the order of the file.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} certificates)", self.0.len())
    }
}

/// Reads a file of PEM.
///
/// # Errors
/// It cannot be read, or is too large; the message begins with its name.
pub(super) fn read_pem(path: &Path) -> Result<Vec<u8>, Invalid> {
    let refused = |reason: &dyn fmt::Display| Invalid::new(format!("{}: {reason}", path.display()));
    let pem = files::read(path, FILE_BYTES_MAX + 1).map_err(|error| refused(&error))?;
    if pem.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(
            &"is larger than 4 MiB, which no list of certificates is",
        ));
    }
    Ok(pem)
}

/// The roots of all browsers together take a quarter of a megabyte.
const FILE_BYTES_MAX: u64 = 4 << 20;
