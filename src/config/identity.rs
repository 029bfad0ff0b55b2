//! Who we are towards those who ask for a certificate: a chain and its key, from two files.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{Invalid, roots::read_pem};

/// A certificate, what leads from it to an authority, and the key that belongs to it.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads the certificate, first in its file and followed by its chain, and the key; both in PEM.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should, or the key is another certificate's; the
    /// message begins with the name of the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Identity, Invalid> {
        let refused = |path: &Path, reason: &dyn fmt::Display| {
            Invalid::new(format!("{}: {reason}", path.display()))
        };
        let chain = CertificateDer::pem_slice_iter(&read_pem(certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| refused(certificate, &format_args!("is no PEM: {error}")))?;
        if chain.is_empty() {
            return Err(refused(certificate, &"holds no certificate in PEM"));
        }
        let secret = PrivateKeyDer::from_pem_slice(&read_pem(key)?)
            .map_err(|error| refused(key, &format_args!("holds no private key in PEM: {error}")))?;
        let certified =
            CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|error| {
                refused(
                    certificate,
                    &format_args!("with {}: {error}", key.display()),
                )
            })?;
        Ok(Identity(Arc::new(certified)))
    }

    /// What TLS needs of it.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.0
    }
}

/// The key is in no log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}
