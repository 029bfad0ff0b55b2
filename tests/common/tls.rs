//! TLS at the origins: an authority of the test's own, and what it certifies.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    version,
};

use super::{Scratch, connect};

/// Who certifies, and the file that says so.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    scratch: Scratch,
}

impl Authority {
    /// One that nobody knows yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are no bad names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two of one name would be told apart only by their signatures.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", MADE.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("the system has randomness");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a root");
        let scratch = Scratch::new();
        scratch.write("ca.pem", issuer.pem());
        Self { issuer, scratch }
    }

    /// Its certificate, in PEM.
    pub fn file(&self) -> PathBuf {
        self.scratch.path("ca.pem")
    }

    /// A certificate for these names and addresses, and its key, both in PEM.
    pub fn certify(&self, names: &[&str]) -> (String, String) {
        let (certificate, key) = self.pair(names);
        (certificate.pem(), key.serialize_pem())
    }

    /// As [`Authority::certify`], in files of a server that reads them: certificate and key.
    pub fn files(&self, names: &[&str]) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.certify(names);
        let name = names.first().unwrap_or(&"nobody");
        let certificate = self.scratch.write(&format!("{name}.pem"), certificate);
        (certificate, self.scratch.write(&format!("{name}.key"), key))
    }

    /// A peer that trusts this authority alone, and shows no certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A server with a certificate for these names, that speaks TLS 1.2 and 1.3.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.server_of(names, &[&version::TLS12, &version::TLS13])
    }

    /// As [`Authority::server`], of these versions.
    pub fn server_of(
        &self,
        names: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let (certificate, key) = self.pair(names);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key is the certificate's");
        Arc::new(config)
    }

    fn pair(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("good names");
        let key = KeyPair::generate().expect("the system has randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate, key)
    }
}

/// A user who speaks TLS.
pub type TlsUser = StreamOwned<ClientConnection, TcpStream>;

/// Connects a user who asks for `name`; the handshake is up to the first read or write.
pub fn tls_user(config: Arc<ClientConfig>, address: SocketAddr, name: &'static str) -> TlsUser {
    let name = ServerName::try_from(name).expect("a name");
    let session = ClientConnection::new(config, name).expect("a session");
    StreamOwned::new(session, connect(address))
}

/// A connection of an origin, with TLS or without.
pub enum Wire {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// Accepts a connection, with TLS where there is a configuration for it.
    pub fn accept(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Self {
        match tls {
            None => Wire::Plain(stream),
            Some(config) => {
                let session = ServerConnection::new(Arc::clone(config)).expect("a session");
                Wire::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        }
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    /// The session, where there is one.
    pub fn session(&mut self) -> Option<&mut ServerConnection> {
        match self {
            Wire::Plain(_) => None,
            Wire::Tls(stream) => Some(&mut stream.conn),
        }
    }

    /// Ends in order what was written; the drop closes.
    pub fn close(&mut self) {
        if let Wire::Tls(stream) = self {
            stream.conn.send_close_notify();
            // Who has gone already needs no goodbye.
            stream.flush().ok();
        }
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(into),
            Wire::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
        }
    }
}
