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
pub mod id;
#[cfg_attr(not(feature = "tls"), path = "no_identity.rs")]
pub mod identity;
pub mod limits;
pub mod locate;
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
    ops::RangeInclusive,
    time::Duration,
};

pub use self::{
    access::Networks,
    id::ClientId,
    identity::Identity,
    limits::{ClientLimits, ClientTimeouts, PoolLimits, PoolMode, ServerLimits, ServerTimeouts},
    memory::MemoryMax,
    options::{HostPolicy, ProxyOptions},
    roots::Roots,
    routes::Routes,
    rule::{Allow, Rule},
    spec::{Host, Kind, Spec},
    target::{SocketPath, Target},
    token::Token,
    upgrade::{HostField, UpgradeFields},
    url::ServerUrl,
    users::Users,
    value::Invalid,
    via::{ProxyUrl, Via},
};

/// Reads a configuration again, as it was read at the start; the error is what to tell the operator.
pub type Source<C> = Box<dyn FnMut() -> Result<C, String>>;

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
            proxies: Vec::new(),
            clients: Vec::new(),
            memory_max: None,
            timeouts: ServerTimeouts::default(),
            limits: ServerLimits::default(),
            spin: Duration::ZERO,
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
    /// whoever wrote a list meant it to be the whole list.
    pub fn grant(&self, client: &ClientId) -> Grant {
        match self.clients.iter().find(|grant| grant.id == *client) {
            Some(own) => Grant {
                token: own.token.clone().or_else(|| self.token.clone()),
                ports: Some(own.ports.clone()),
                bind: own.bind,
            },
            None => Grant {
                token: self.token.clone(),
                ports: self.clients.is_empty().then_some(PORTS_DEFAULT),
                bind: self.bind,
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

/// What one client may expose: an entry of `clients`.
#[derive(Clone, Debug)]
pub struct ClientGrant {
    /// Whom this is about.
    pub id: ClientId,
    /// Overrides the common token for this id.
    pub token: Option<Token>,
    /// The ports it may open.
    pub ports: RangeInclusive<u16>,
    /// Where it may open them.
    pub bind: IpAddr,
}

/// What a client must prove and may ask for: the answer of [`ServerConfig::grant`].
#[derive(Clone, Debug)]
pub struct Grant {
    /// What the client must prove to know, if anything.
    pub token: Option<Token>,
    /// The ports it may open; `None` for none at all.
    pub ports: Option<RangeInclusive<u16>>,
    /// Where it may open them.
    pub bind: IpAddr,
}

impl Grant {
    /// Where to listen for what the client asks to expose.
    ///
    /// Another BIND than the granted one is refused, unless the grant is for every address of its
    /// family and so includes it. Port 0 needs a grant that includes whatever the system may choose,
    /// which is any port from 1024.
    ///
    /// # Errors
    /// It was not granted; the reason is meant for the client.
    pub fn listener(&self, spec: &Spec) -> Result<SocketAddr, Invalid> {
        let Some(ports) = &self.ports else {
            return Err(Invalid::new("the server lets this client expose nothing"));
        };
        let address = spec.address(self.bind);
        let within = if address.port() == 0 {
            ports.contains(PORTS_DEFAULT.start()) && ports.contains(PORTS_DEFAULT.end())
        } else {
            ports.contains(&address.port())
        };
        if !within {
            return Err(Invalid::new(format!(
                "the server lets this client expose ports {}, not {}",
                value::PortRange(ports.clone()),
                address.port(),
            )));
        }
        let everywhere = self.bind.is_unspecified() && self.bind.is_ipv4() == address.is_ipv4();
        if address.ip() != self.bind && !everywhere {
            return Err(Invalid::new(format!(
                "the server lets this client expose ports on {}, not on {}",
                self.bind,
                address.ip(),
            )));
        }
        Ok(address)
    }
}

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
        }
    }
}

/// Where a server listens that was not told: a port nothing common uses, and nobody else's network.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(BIND_DEFAULT, 7000);

/// Where proxies listen unless told: opening a port to the world is said, never implied.
pub const BIND_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a client may expose unless told: nothing that pretends to be a service of the system.
pub const PORTS_DEFAULT: RangeInclusive<u16> = 1024..=u16::MAX;

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

    fn token(text: &str) -> Token {
        Token::new(text.as_bytes()).unwrap()
    }

    fn id(text: &str) -> ClientId {
        text.parse().unwrap()
    }

    fn secret(grant: &Grant) -> Option<&[u8]> {
        grant.token.as_ref().map(Token::as_bytes)
    }

    fn server() -> ServerConfig {
        ServerConfig {
            token: Some(token("the common token")),
            ..ServerConfig::default()
        }
    }

    fn restricted() -> ServerConfig {
        let everywhere = IpAddr::from([0, 0, 0, 0]);
        ServerConfig {
            clients: vec![
                ClientGrant {
                    id: id("own"),
                    token: Some(token("a token of its own")),
                    ports: 80..=90,
                    bind: everywhere,
                },
                ClientGrant {
                    id: id("plain"),
                    token: None,
                    ports: 8080..=8080,
                    bind: BIND_DEFAULT,
                },
            ],
            ..server()
        }
    }

    #[test]
    fn without_a_list_everybody_gets_the_default() {
        let grant = server().grant(&id("anybody"));
        assert_eq!(secret(&grant), Some(&b"the common token"[..]));
        assert_eq!(grant.ports, Some(1024..=65535));
        assert_eq!(grant.bind, BIND_DEFAULT);
        assert!(
            ServerConfig::default()
                .grant(&id("anybody"))
                .token
                .is_none()
        );
    }

    #[test]
    fn a_listed_client_has_its_own_terms() {
        let own = restricted().grant(&id("own"));
        assert_eq!(secret(&own), Some(&b"a token of its own"[..]));
        assert_eq!(
            (own.ports, own.bind.to_string().as_str()),
            (Some(80..=90), "0.0.0.0")
        );
        let plain = restricted().grant(&id("plain"));
        assert_eq!(secret(&plain), Some(&b"the common token"[..]));
        assert_eq!(plain.ports, Some(8080..=8080));
    }

    #[test]
    fn an_unlisted_client_may_link_but_expose_nothing() {
        let grant = restricted().grant(&id("stranger"));
        assert_eq!(secret(&grant), Some(&b"the common token"[..]));
        assert_eq!(grant.ports, None);
        let spec = "tcp:10033:127.0.0.1:22".parse().unwrap();
        assert!(
            grant
                .listener(&spec)
                .unwrap_err()
                .to_string()
                .contains("expose nothing")
        );
    }

    #[test]
    fn listeners_stay_within_the_grant() {
        let standard = server().grant(&id("a"));
        let everywhere = restricted().grant(&id("own"));
        let one = restricted().grant(&id("plain"));
        for (grant, spec, expected) in [
            (&standard, "forward:1024", Ok("127.0.0.1:1024")),
            (&standard, "forward:127.0.0.1:65535", Ok("127.0.0.1:65535")),
            (&standard, "forward:0", Ok("127.0.0.1:0")),
            (&standard, "forward:1023", Err("ports 1024-65535, not 1023")),
            (
                &standard,
                "forward:0.0.0.0:3128",
                Err("on 127.0.0.1, not on 0.0.0.0"),
            ),
            (
                &standard,
                "forward:[::1]:3128",
                Err("on 127.0.0.1, not on ::1"),
            ),
            (&everywhere, "forward:80", Ok("0.0.0.0:80")),
            (&everywhere, "forward:127.0.0.1:90", Ok("127.0.0.1:90")),
            (
                &everywhere,
                "forward:[::1]:90",
                Err("on 0.0.0.0, not on ::1"),
            ),
            (&everywhere, "forward:91", Err("ports 80-90, not 91")),
            (&everywhere, "forward:0", Err("ports 80-90, not 0")),
            (&one, "forward:8080", Ok("127.0.0.1:8080")),
            (&one, "forward:8081", Err("ports 8080, not 8081")),
        ] {
            let address = grant.listener(&spec.parse().unwrap());
            match (address, expected) {
                (Ok(address), Ok(expected)) => assert_eq!(address.to_string(), expected),
                (Err(reason), Err(expected)) => {
                    assert!(reason.to_string().contains(expected), "{spec}: {reason}");
                }
                (address, expected) => panic!("{spec}: {address:?}, not {expected:?}"),
            }
        }
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
