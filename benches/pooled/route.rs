//! The way of a request: through siding or directly, near or far, each with an origin of its own, so
//! that what the origin has counted proves what was measured.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version,
};

use crate::{
    common::{Authority, Pattern, Process, Tunnel, connect},
    origin::{BODY_BYTES, Counts, Origin},
    relay,
};

/// How a new connection to the origin begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// `http`: by TCP's handshake alone.
    Plain,
    /// `https`: TLS 1.3 from the start, since the origin gives no tickets.
    Full,
    /// `https`: TLS 1.3, resumed by a ticket of an earlier connection.
    Resumed,
}

/// Who connects to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// siding, with this `--pool`.
    Siding(&'static str),
    /// Nobody but the user.
    Direct,
}

/// A place to send requests to, and the origin at its end.
pub struct Route {
    origin: Origin,
    tunnel: Option<Tunnel>,
    address: SocketAddr,
    /// TLS of a user who speaks to an `https` origin without siding.
    tls: Option<Arc<ClientConfig>>,
    /// Connections that the origin keeps open between two requests.
    kept: usize,
}

/// A user's connection, with TLS or without.
pub trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// The trust of the whole bench: one authority, and who believes it.
pub struct Certified {
    authority: Authority,
    roots: Arc<RootCertStore>,
}

impl Certified {
    /// A new authority.
    pub fn new() -> Certified {
        let authority = Authority::new();
        let certificate = CertificateDer::from_pem_file(authority.file()).expect("it was written");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("it is a root");
        Certified {
            authority,
            roots: Arc::new(roots),
        }
    }

    fn server(&self, opening: Opening) -> Option<Arc<ServerConfig>> {
        if opening == Opening::Plain {
            return None;
        }
        let config = self.authority.server_of(&["127.0.0.1"], &[&version::TLS13]);
        let mut config = Arc::unwrap_or_clone(config);
        if opening == Opening::Full {
            config.send_tls13_tickets = 0;
        }
        Some(Arc::new(config))
    }

    fn user(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .expect("ring knows it")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl Route {
    /// Starts an origin, `one_way` from whoever connects to it, and what leads there. `kept`: how many
    /// connections to the origin are meant to serve request after request.
    pub fn start(
        certified: &Certified,
        opening: Opening,
        one_way: Duration,
        through: Through,
        kept: usize,
    ) -> Route {
        let origin = Origin::start(certified.server(opening));
        let target = match one_way {
            Duration::ZERO => origin.address(),
            _ => relay::start(origin.address(), one_way),
        };
        let is_plain = opening == Opening::Plain;
        let tunnel = match through {
            Through::Direct => None,
            Through::Siding(pool) => Some(
                Tunnel::builder()
                    .to(if is_plain { "http" } else { "https" }, target)
                    .client_argument("--pool")
                    .client_argument(pool)
                    .client_argument("--target-ca")
                    .client_argument(certified.authority.file().display().to_string())
                    // The least at which the tunnel says that it is up; a request is not logged.
                    .log("info")
                    .start(),
            ),
        };
        Route {
            address: tunnel.as_ref().map_or(target, Tunnel::address),
            tls: (tunnel.is_none() && !is_plain).then(|| certified.user()),
            origin,
            tunnel,
            kept,
        }
    }

    /// One GET, on the user's connection if there is one, and how long it took from its first byte (or
    /// from the connecting, where that is part of it) to the last one of the answer.
    ///
    /// # Panics
    /// When the answer is not the one to this very request.
    pub fn get(&self, kept: &mut Option<Box<dyn Connection>>, number: u64) -> Duration {
        let expected = Pattern::bytes(number, BODY_BYTES);
        let request = format!(
            "GET /{number} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
            self.address
        );
        let mut answer = [0; 2 * BODY_BYTES];

        let start = Instant::now();
        let connection = kept.get_or_insert_with(|| self.connect());
        let exchanged = exchange(connection, request.as_bytes(), &mut answer);
        let took = start.elapsed();

        let body = exchanged.unwrap_or_else(|error| panic!("GET /{number}: {error}"));
        assert!(answer[body..][..BODY_BYTES] == expected, "GET /{number}");
        took
    }

    /// Waits until the connections are closed that no further request will use.
    pub fn settle(&self) {
        self.origin.wait_for_open(self.kept);
    }

    /// What the origin has counted.
    pub fn counts(&self) -> Counts {
        self.origin.counts()
    }

    /// The private side of the tunnel, where there is one.
    pub fn client(&self) -> Option<&Process> {
        self.tunnel.as_ref().map(|tunnel| &*tunnel.client)
    }

    fn connect(&self) -> Box<dyn Connection> {
        let stream = connect(self.address);
        match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::IpAddress(self.address.ip().into());
                let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
                Box::new(StreamOwned::<_, TcpStream>::new(session, stream))
            }
        }
    }
}

/// Sends a request and reads the whole answer; returns where its body begins.
fn exchange(
    connection: &mut impl Connection,
    request: &[u8],
    answer: &mut [u8],
) -> io::Result<usize> {
    connection.write_all(request)?;
    let mut held = 0;
    let body = loop {
        let count = connection.read(&mut answer[held..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        held += count;
        let end = answer[..held].windows(4).position(|at| at == b"\r\n\r\n");
        if let Some(end) = end
            && held >= end + 4 + BODY_BYTES
        {
            break end + 4;
        }
    };
    // The caller compares the body; whatever else there is to say of a head, the tests say it.
    let is_whole = answer.starts_with(b"HTTP/1.1 200 ") && held == body + BODY_BYTES;
    match is_whole {
        true => Ok(body),
        false => {
            let head = String::from_utf8_lossy(&answer[..held]).into_owned();
            Err(io::Error::new(io::ErrorKind::InvalidData, head))
        }
    }
}
