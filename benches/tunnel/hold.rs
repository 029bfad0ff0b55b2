//! An origin in a process of its own: with users in this one, neither needs two descriptors for each
//! connection, of which a process may have some ten thousand.
//!
//! The process is this program again, told by its first argument.

use std::{env, net::SocketAddr, path::PathBuf, process::Command, sync::Arc, thread};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    common::{Authority, Process},
    service::{Asks, Service},
};

/// The argument by which this program is the origin.
const HOLD: &str = "--hold-connections";

/// What it says when it listens.
const AT: &str = "at ";

/// The origin, which ends with the value.
pub struct Holder {
    address: SocketAddr,
    process: Process,
    /// Descriptors that it has without any connection.
    own: usize,
}

impl Holder {
    /// Starts one. `hold`: see [`Service::start`]; `tls`: who certifies it, where it speaks TLS.
    pub fn start(asks: Asks, hold: usize, tls: Option<&Authority>) -> Holder {
        let body = match asks {
            Asks::Byte => 0,
            Asks::Http { body } => body,
        };
        let mut command = Command::new(env::current_exe().expect("it runs"));
        command.args([HOLD, &hold.to_string(), &body.to_string()]);
        if let Some(authority) = tls {
            let (certificate, key) = authority.files(&["127.0.0.1"]);
            command.arg(certificate).arg(key);
        }
        let process = Process::start("holder", &mut command);
        let said = process.log().wait_for(AT);
        let (_, address) = said.split_once(AT).expect("the line was found by it");
        Holder {
            address: address.parse().expect("it has said an address"),
            own: process.descriptors(),
            process,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it holds.
    pub fn open(&self) -> usize {
        self.process.descriptors() - self.own
    }
}

/// Is the origin until the end, where that is what this process was started for.
pub fn hold_if_told() {
    let mut words = env::args().skip(1);
    if words.next().is_none_or(|word| word != HOLD) {
        return;
    }
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let (Some(hold), Some(body)) = (number(), number()) else {
        panic!("it is started by the bench alone");
    };
    let asks = match body {
        0 => Asks::Byte,
        body => Asks::Http { body },
    };
    let files = words.next().zip(words.next());
    let tls = files.map(|(certificate, key)| configuration(certificate.into(), key.into()));
    let service = Service::start(asks, tls, hold);
    println!("{AT}{}", service.address());
    loop {
        thread::park();
    }
}

fn configuration(certificate: PathBuf, key: PathBuf) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(certificate).expect("it was written");
    let key = PrivateKeyDer::from_pem_file(key).expect("it was written");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is the certificate's");
    Arc::new(config)
}
