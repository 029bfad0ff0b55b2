//! Whom TLS trusts: the sessions towards `https` targets, and towards the server.
//!
//! It owns the roots and the tickets of earlier sessions, and knows no socket. Certificates are always
//! verified, against the system's roots and those of `--target-ca` or `--ca`; nothing here can turn that
//! off. The system's roots are loaded when the first session is asked for: a client without `https`
//! targets needs neither the file nor the memory.

use std::sync::Arc;

use log::{debug, warn};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{DnsName, ServerName},
    sign::SingleCertAndKey,
};

use crate::{
    config::{Host, Identity, Roots},
    reactor::Session,
};

/// Trusted roots, and what is remembered of earlier sessions.
pub(super) struct Trust {
    added: Option<Roots>,
    /// What is shown to those who ask.
    identity: Option<Identity>,
    /// The option that adds roots, for the error that there are none.
    flag: &'static str,
    config: Option<Arc<ClientConfig>>,
}

impl Trust {
    /// The system's roots, and those that `flag` names. Where a certificate of ours is asked for, it is
    /// this one.
    pub fn new(flag: &'static str, added: Option<Roots>, identity: Option<Identity>) -> Trust {
        Trust {
            added,
            identity,
            flag,
            config: None,
        }
    }

    /// A session with a target, which has to show a certificate for the name that it was asked for by.
    ///
    /// # Errors
    /// There are no roots, or no certificate can be for that name.
    pub fn session(&mut self, host: &Host) -> Result<Session, String> {
        let name = match host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => DnsName::try_from(name.to_string())
                .map_err(|error| format!("no certificate can be for this name: {error}"))?
                .into(),
        };
        let config = match &self.config {
            Some(config) => config.clone(),
            None => self.config.insert(Arc::new(self.load()?)).clone(),
        };
        ClientConnection::new(config, name)
            .map(Session::Client)
            .map_err(|error| error.to_string())
    }

    fn load(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            warn!("system's trusted roots: {error}");
        }
        let (found, unusable) = roots.add_parsable_certificates(system.certs);
        debug!("{found} trusted roots of the system, {unusable} unusable");
        let added = self.added.iter().flat_map(Roots::certificates);
        for certificate in added.cloned() {
            // Checked when the configuration was read.
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            let flag = self.flag;
            return Err(format!(
                "TLS trusts nobody: the system has no roots; give {flag}"
            ));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
                identity.certified().as_ref().clone(),
            ))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(RESUMED_MAX);
        Ok(config)
    }
}

/// Targets whose tickets are remembered: a few hundred bytes each, and a `forward` listener's users may
/// name any number.
const RESUMED_MAX: usize = 256;
