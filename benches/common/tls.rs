//! TLS of users, and of attackers.

#![allow(
    dead_code,
    reason = "each bench is a crate of its own and uses its own part of this"
)]

use std::{net::TcpStream, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::common::TlsUser;

/// A session on a connection; the handshake is up to the first read or write.
pub fn over_tls(config: &Arc<ClientConfig>, stream: TcpStream) -> TlsUser {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
    StreamOwned::new(session, stream)
}

/// Who trusts the authority in a file, and resumes nothing, so that each handshake costs the server all of it.
pub fn without_tickets(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(ca).expect("it was written");
    roots.add(root).expect("it is a root");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}
