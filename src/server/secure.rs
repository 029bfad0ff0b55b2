//! TLS as the server speaks it: to clients on the link, and to users where a proxy says so.
//!
//! It owns the certificates and who may present one, and knows no socket. With a new configuration there is
//! a new one of it; sessions that stand keep what they began with.

use std::sync::Arc;

use log::debug;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    client::verify_server_name,
    crypto::ring,
    pki_types::{DnsName, ServerName},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};

use crate::{
    config::{Identity, Roots},
    reactor::Session,
};

/// What sessions are made of.
pub(super) struct Acceptor {
    certificates: usize,
    sessions: Option<Sessions>,
}

/// One configuration for each sort of peer.
struct Sessions {
    link: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    raw: Arc<ServerConfig>,
}

impl Acceptor {
    /// Speaks as `identities`, the first by default; not at all where there are none.
    pub fn new(identities: Vec<Identity>, client_ca: Option<Roots>) -> Acceptor {
        Acceptor {
            certificates: identities.len(),
            sessions: Sessions::new(&identities, client_ca.as_ref()),
        }
    }

    /// How many certificates there are.
    pub fn len(&self) -> usize {
        self.certificates
    }

    /// A session with whoever may be a client; `None` where links are plain.
    pub fn link(&self) -> Option<Session> {
        self.sessions.as_ref().and_then(|all| session(&all.link))
    }

    /// A session with a user, who speaks HTTP in it or something else.
    pub fn user(&self, http: bool) -> Option<Session> {
        let all = self.sessions.as_ref()?;
        session(if http { &all.http } else { &all.raw })
    }
}

fn session(config: &Arc<ServerConfig>) -> Option<Session> {
    match ServerConnection::new(config.clone()) {
        Ok(session) => Some(Session::Server(session)),
        Err(error) => {
            debug!("TLS: {error}");
            None
        }
    }
}

impl Sessions {
    fn new(identities: &[Identity], client_ca: Option<&Roots>) -> Option<Sessions> {
        if identities.is_empty() {
            return None;
        }
        let certificates = Arc::new(Certificates(
            identities
                .iter()
                .map(|identity| identity.certified().clone())
                .collect(),
        ));
        let verifier = client_ca.map(|roots| {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(roots.certificates().iter().cloned());
            WebPkiClientVerifier::builder_with_provider(
                Arc::new(store),
                Arc::new(ring::default_provider()),
            )
            .build()
            .expect("there is a root, each was tried when it was read, and no list of revoked ones")
        });
        let config = |http: bool, verifier: Option<Arc<dyn ClientCertVerifier>>| {
            let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring offers what the default versions need");
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(certificates.clone());
            if http {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
            }
            // Tickets instead of a table of sessions: who comes back brings what is needed to resume.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            match ring::Ticketer::new() {
                Ok(ticketer) => config.ticketer = ticketer,
                Err(error) => debug!("TLS: no tickets: {error}"),
            }
            Arc::new(config)
        };
        Some(Sessions {
            link: config(true, verifier.map(|verifier| verifier as _)),
            http: config(true, None),
            raw: config(false, None),
        })
    }
}

/// The certificates, of which one is shown.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl Certificates {
    /// The first that is for this name; the first of all where none is, or no name was asked for.
    fn select(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let first = self.0.first();
        let Some(name) = name.and_then(|name| DnsName::try_from(name).ok()) else {
            return first;
        };
        let name = ServerName::DnsName(name);
        let is_for = |certified: &&Arc<CertifiedKey>| {
            certified.end_entity_cert().is_ok_and(|certificate| {
                ParsedCertificate::try_from(certificate)
                    .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
            })
        };
        self.0.iter().find(is_for).or(first)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.select(hello.server_name()).cloned()
    }
}
