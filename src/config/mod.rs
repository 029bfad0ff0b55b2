//! What the operator wants, checked once.
//!
//! Owns the values that the two roles are built from, and how each is written: SPECs and RULEs,
//! addresses and durations, the JSON files. It does not know what was typed on the command line
//! ([`crate::cli`] joins that with a file), and nothing is read from here at use time: the roles
//! copy what they need when they are made.
//!
//! Invariant: a value that was parsed here is acceptable as it is, and prints a form that parses to
//! an equal value.

pub mod access;
pub mod file;
pub mod files;
pub mod grant;
pub mod host;
pub mod host_policy;
pub mod id;
#[cfg_attr(not(feature = "tls"), path = "no_identity.rs")]
pub mod identity;
pub mod limits;
pub mod locate;
pub mod logging;
pub mod memory;
mod no_proxy;
pub mod options;
#[cfg_attr(not(feature = "tls"), path = "no_roots.rs")]
pub mod roots;
pub mod routes;
pub mod rule;
pub mod spec;
pub mod special;
pub mod target;
pub mod token;
pub mod upgrade;
pub mod url;
pub mod users;
pub mod value;
pub mod via;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

pub use self::{
    access::Networks,
    files::{Files, Source},
    grant::{ClientGrant, Grant, Proof, Terms},
    host::Host,
    host_policy::HostPolicy,
    id::ClientId,
    identity::Identity,
    limits::{ClientLimits, ClientTimeouts, PoolLimits, PoolMode, ServerLimits, ServerTimeouts},
    logging::{LogFormat, Logging},
    memory::MemoryMax,
    options::ProxyOptions,
    roots::Roots,
    routes::Routes,
    rule::{Allow, Rule},
    spec::{Kind, Spec},
    target::{SocketPath, Target},
    token::Token,
    upgrade::{HostField, UpgradeFields},
    url::ServerUrl,
    users::Users,
    value::Invalid,
    via::{ProxyUrl, Via},
};

/// Everything a server needs to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where proxies listen that do not say otherwise.
    pub bind: IpAddr,
    /// What clients must prove to know, unless [`ServerConfig::clients`] says otherwise. `None`
    /// asks for nothing; `cli` sees to it that `listen` is a loopback address then.
    pub token: Option<Token>,
    /// Who it is, where TLS is spoken to it: the first one by default, any other to those who ask for a
    /// name that it is for. Without any the clients' listener is plain.
    pub identities: Vec<Identity>,
    /// Whom clients must be certified by, where they have to show a certificate.
    pub client_ca: Option<Roots>,
    /// Whence clients may connect; from anywhere, where it is absent.
    pub allow_from: Option<Networks>,
    /// Whence they may not.
    pub deny_from: Networks,
    /// The balancers in front of their listener: they say whose each connection is before its first byte.
    pub accept_proxy: Networks,
    /// What the server asks of its clients.
    pub proxies: Vec<ProxyEntry>,
    /// What single clients may ask of the server; ids are unique.
    pub clients: Vec<ClientGrant>,
    /// How much memory it may take.
    pub memory_max: Option<MemoryMax>,
    /// Deadlines.
    pub timeouts: ServerTimeouts,
    /// Limits.
    pub limits: ServerLimits,
    /// How long to look for the next event before sleeping.
    pub spin: Duration,
    /// Where it tells of itself, if anywhere.
    pub admin: Option<AdminConfig>,
    /// How it logs.
    pub log: Logging,
}

/// Where a role tells of itself, and to whom.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What whoever asks must show. `cli` sees to it that `listen` is a loopback address without.
    pub token: Option<Token>,
}

impl Default for ServerConfig {
    /// What `siding server` without flags, variable and file means.
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT,
            bind: BIND_DEFAULT,
            token: None,
            identities: Vec::new(),
            client_ca: None,
            allow_from: None,
            deny_from: Networks::default(),
            accept_proxy: Networks::default(),
            proxies: Vec::new(),
            clients: Vec::new(),
            memory_max: None,
            timeouts: ServerTimeouts::default(),
            limits: ServerLimits::default(),
            spin: Duration::ZERO,
            admin: None,
            log: Logging::default(),
        }
    }
}

impl ServerConfig {
    /// Whether a client may connect from this address.
    #[must_use]
    pub fn admits_client(&self, address: IpAddr) -> bool {
        access::admits(self.allow_from.as_ref(), &self.deny_from, address)
    }

    /// What a client of this id must prove and may ask for.
    ///
    /// Without a `clients` list everybody who proves the common token may expose ports from 1024
    /// on the server's `bind`. With one, a listed client has its own terms; one that is not listed
    /// may still link with the common token, since `proxies` may name it, but may expose nothing:
    /// whoever wrote a list meant it to be the whole list. Where each listed client has its own token,
    /// and there is no common one, nobody else may link either.
    pub fn grant(&self, client: &ClientId) -> Grant {
        let own = self.clients.iter().find(|grant| grant.id == *client);
        let token = own
            .and_then(|own| own.token.as_ref())
            .or(self.token.as_ref());
        Grant {
            proof: match token {
                Some(token) => Proof::Token(token.clone()),
                None if grant::each_has_its_own(&self.clients) => Proof::Impossible,
                None => Proof::Nothing,
            },
            terms: match own {
                Some(own) => Some(own.terms.clone()),
                None => self.clients.is_empty().then(|| Terms::on(self.bind)),
            },
        }
    }
}

/// One listener that the server asks a client to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyEntry {
    /// Who serves it.
    pub client: ClientId,
    /// What it is.
    pub spec: Spec,
    /// Who may come in, and how its heads are edited.
    pub options: ProxyOptions,
}

/// One listener that a client asks the server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// What it is.
    pub spec: Spec,
    /// Who may come in, and how its heads are edited.
    pub options: ProxyOptions,
}

impl From<Spec> for Exposed {
    fn from(spec: Spec) -> Self {
        Self {
            spec,
            options: ProxyOptions::default(),
        }
    }
}

/// Where `siding status` asks unless told: the port next to [`LISTEN_DEFAULT`]'s.
pub const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(BIND_DEFAULT, 7001);

/// Everything a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where its server is.
    pub server: ServerUrl,
    /// How it is reached.
    pub via: Via,
    /// What the upgrade says as `Host`, if that is not what the URL says.
    pub host: Option<HostField>,
    /// What else the upgrade says.
    pub headers: UpgradeFields,
    /// What it is called there.
    pub id: ClientId,
    /// What it proves to know. A client may connect without; the server refuses if it wants one.
    pub token: Option<Token>,
    /// Whom its server may be certified by, besides the system's roots.
    pub ca: Option<Roots>,
    /// What it shows to a server that asks for a certificate.
    pub identity: Option<Identity>,
    /// What it asks of the server.
    pub expose: Vec<Exposed>,
    /// All that it dials, exposed targets included.
    pub allow: Allow,
    /// Whom `https` targets may be certified by, besides the system's roots.
    pub target_ca: Option<Roots>,
    /// How much memory it may take.
    pub memory_max: Option<MemoryMax>,
    /// Deadlines.
    pub timeouts: ClientTimeouts,
    /// What it keeps parked.
    pub pool: PoolLimits,
    /// Limits.
    pub limits: ClientLimits,
    /// As at the server.
    pub spin: Duration,
    /// As at the server.
    pub admin: Option<AdminConfig>,
    /// As at the server.
    pub log: Logging,
}

impl ClientConfig {
    /// What `siding client --id ID` without further flags, variable and file means.
    pub fn new(id: ClientId) -> Self {
        Self {
            server: server_default(),
            via: Via::Direct,
            host: None,
            headers: UpgradeFields::default(),
            id,
            token: None,
            ca: None,
            identity: None,
            expose: Vec::new(),
            allow: Allow::default(),
            target_ca: None,
            memory_max: None,
            timeouts: ClientTimeouts::default(),
            pool: PoolLimits::default(),
            limits: ClientLimits::default(),
            spin: Duration::ZERO,
            admin: None,
            log: Logging::default(),
        }
    }
}

/// Where a server listens that was not told: a port nothing common uses, and nobody else's network.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(BIND_DEFAULT, 7000);

/// Where proxies listen unless told: opening a port to the world is said, never implied.
pub const BIND_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The server that a client dials unless told: one on [`LISTEN_DEFAULT`].
pub fn server_default() -> ServerUrl {
    ServerUrl {
        secure: false,
        host: Host::Address(LISTEN_DEFAULT.ip()),
        port: LISTEN_DEFAULT.port(),
        path: "/".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ClientId {
        text.parse().unwrap()
    }

    #[test]
    fn defaults_are_loopback() {
        let server = ServerConfig::default();
        assert_eq!(server.listen.to_string(), "127.0.0.1:7000");
        assert_eq!(server.bind.to_string(), "127.0.0.1");
        let client = ClientConfig::new(id("edge-1"));
        assert_eq!(client.server.to_string(), "ws://127.0.0.1:7000");
        assert_eq!(client.server.to_string().parse(), Ok(client.server));
        assert!(client.allow.rules().is_empty());
    }
}
