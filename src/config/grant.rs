//! What a client must prove to the server, and what it may ask of it.
//!
//! Owns the terms of single clients, the entries of `clients`, and the answers that follow from them: where to
//! listen for what a client asks to expose, or why not. It does not know what listens already, nor how a token
//! is proved.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    ClientId, Kind, ProxyOptions, Spec, Token,
    routes::{Name, Names},
    value::{Bind, Invalid, PortRange, count_within},
};

/// What one client must prove and may ask for: an entry of `clients`.
#[derive(Clone, Debug)]
pub struct ClientGrant {
    /// Whom this is about.
    pub id: ClientId,
    /// Overrides the common token for this id.
    pub token: Option<Token>,
    /// What it may expose.
    pub terms: Terms,
}

/// What a client may expose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The ports it may open.
    pub ports: RangeInclusive<u16>,
    /// Where it may open them; the first is where it does if it does not say.
    pub binds: Vec<IpAddr>,
    /// Of which kinds; `None` for all.
    pub kinds: Option<Vec<Kind>>,
    /// How many.
    pub max_proxies: usize,
    /// For which names, where it shares a port or means to; `None` for any, and for none at all.
    pub hosts: Option<Names>,
    /// It may say who is a balancer, and so have users come from wherever that says.
    pub accept_proxy: bool,
}

/// What a client must prove and may ask for: the answer of [`ServerConfig::grant`](super::ServerConfig::grant).
#[derive(Clone, Debug)]
pub struct Grant {
    /// What it must prove.
    pub proof: Proof,
    /// What it may expose; `None` for nothing at all.
    pub terms: Option<Terms>,
}

/// What a client must prove.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Nothing: there is no token that it would have to know.
    Nothing,
    /// That it knows this.
    Token(Token),
    /// Whatever it proves is wrong: clients have their own tokens, and it has none.
    Impossible,
}

/// Whether clients are told apart by their tokens: each that is listed has its own, so that without a common
/// one nobody else can link.
pub fn each_has_its_own(clients: &[ClientGrant]) -> bool {
    !clients.is_empty() && clients.iter().all(|client| client.token.is_some())
}

impl Terms {
    /// What a client may expose unless told: nothing that pretends to be a service of the system.
    pub const PORTS: RangeInclusive<u16> = 1024..=u16::MAX;

    /// Proxies of one client. Listeners cost descriptors, which are for users; no known client needs a quarter
    /// of this.
    pub const PROXIES_MAX: usize = 1000;

    /// What is granted where nothing is said: anything on the usual ports of this address.
    pub fn on(bind: IpAddr) -> Terms {
        Terms {
            ports: Self::PORTS,
            binds: vec![bind],
            kinds: None,
            max_proxies: Self::PROXIES_MAX,
            hosts: None,
            accept_proxy: false,
        }
    }

    /// Where to listen for what the client asks to expose.
    ///
    /// Another BIND than those granted is refused, unless one is for every address of its family and so
    /// includes it. Port 0 needs a grant that includes whatever the system may choose, which is any port from
    /// 1024.
    ///
    /// # Errors
    /// It was not granted; the reason is meant for the client.
    fn listener(&self, spec: &Spec) -> Result<SocketAddr, Invalid> {
        let refused = |granted: String| {
            Err(Invalid::new(format!(
                "the server lets this client expose {granted}"
            )))
        };
        if let Some(kinds) = &self.kinds
            && !kinds.contains(&spec.kind)
        {
            return match &kinds[..] {
                [] => refused("nothing".into()),
                _ => refused(format!("{}, not {}", list(kinds), spec.kind)),
            };
        }
        // There is one at least; where there is none, the client's own is none of them.
        let first = self.binds.first().copied();
        let address = spec.address(first.unwrap_or(super::BIND_DEFAULT));
        let within = if address.port() == 0 {
            self.ports.contains(Self::PORTS.start()) && self.ports.contains(Self::PORTS.end())
        } else {
            self.ports.contains(&address.port())
        };
        if !within {
            let ports = PortRange(self.ports.clone());
            return refused(format!("ports {ports}, not {}", address.port()));
        }
        let ip = address.ip();
        let includes = |bind: &IpAddr| {
            *bind == ip || bind.is_unspecified() && bind.is_ipv4() == address.is_ipv4()
        };
        if !self.binds.iter().any(includes) {
            return refused(format!("ports on {}, not on {ip}", list(&self.binds)));
        }
        Ok(address)
    }
}

impl Proof {
    /// Whether who has proved the one would prove the other.
    pub fn is_same(&self, other: &Proof) -> bool {
        match (self, other) {
            (Proof::Token(one), Proof::Token(other)) => one.as_bytes() == other.as_bytes(),
            (Proof::Nothing, Proof::Nothing) | (Proof::Impossible, Proof::Impossible) => true,
            _ => false,
        }
    }
}

impl Grant {
    /// Whether the client may have a proxy with these options.
    ///
    /// # Errors
    /// It may not; the reason is meant for the client.
    pub fn options(&self, kind: Kind, options: &ProxyOptions) -> Result<(), Invalid> {
        let Some(terms) = &self.terms else {
            return Ok(());
        };
        if !terms.accept_proxy && !options.accept_proxy.is_empty() {
            return Err(Invalid::new(
                "the server lets this client expose nothing with accept_proxy, which tells where users come from",
            ));
        }
        match &terms.hosts {
            Some(granted) if kind.has_routes() => Self::names(granted, &options.hosts),
            _ => Ok(()),
        }
    }

    fn names(granted: &Names, hosts: &Names) -> Result<(), Invalid> {
        let refused = |what: &dyn fmt::Display| {
            Err(Invalid::new(format!(
                "the server lets this client expose hosts {granted}, not {what}"
            )))
        };
        let is_granted = |name: &Name| granted.iter().any(|granted| granted.covers(name));
        match hosts.iter().find(|name| !is_granted(name)) {
            Some(name) => refused(name),
            None if hosts.is_empty() => refused(&"any"),
            None => Ok(()),
        }
    }

    /// As the terms have it.
    ///
    /// # Errors
    /// They do not; the reason is meant for the client.
    pub fn listener(&self, spec: &Spec) -> Result<SocketAddr, Invalid> {
        match &self.terms {
            Some(terms) => terms.listener(spec),
            None => Err(Invalid::new("the server lets this client expose nothing")),
        }
    }

    /// How many proxies it may have exposed.
    pub fn max_proxies(&self) -> usize {
        self.terms.as_ref().map_or(0, |terms| terms.max_proxies)
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

/// `bind` as it stands in an entry: an address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binds(pub Vec<IpAddr>);

impl<'de> Deserialize<'de> for Binds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BindsVisitor;

        impl<'de> Visitor<'de> for BindsVisitor {
            type Value = Binds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an IP address, or a list of them, such as [\"127.0.0.1\", \"192.0.2.7\"]",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Binds, E> {
                let Bind(address) = text.parse().map_err(E::custom)?;
                Ok(Binds(vec![address]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Binds, A::Error> {
                let mut binds = Vec::new();
                while let Some(Bind(address)) = list.next_element()? {
                    binds.push(address);
                }
                if binds.is_empty() {
                    return Err(A::Error::custom(
                        "a list of no address: leave `bind` out for the server's own, or give `kinds` an empty list to grant nothing",
                    ));
                }
                Ok(Binds(binds))
            }
        }

        deserializer.deserialize_any(BindsVisitor)
    }
}

/// Deserialises how many proxies a client may expose.
///
/// # Errors
/// It is more than [`Terms::PROXIES_MAX`], or no number.
pub fn max_proxies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    count_within(deserializer, 0..=Terms::PROXIES_MAX).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BIND_DEFAULT, ServerConfig};

    fn token(text: &str) -> Token {
        Token::new(text.as_bytes()).unwrap()
    }

    fn id(text: &str) -> ClientId {
        text.parse().unwrap()
    }

    fn secret(grant: &Grant) -> Option<&[u8]> {
        match &grant.proof {
            Proof::Token(token) => Some(token.as_bytes()),
            Proof::Nothing | Proof::Impossible => None,
        }
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
                    terms: Terms {
                        ports: 80..=90,
                        ..Terms::on(everywhere)
                    },
                },
                ClientGrant {
                    id: id("plain"),
                    token: None,
                    terms: Terms {
                        ports: 8080..=8080,
                        ..Terms::on(BIND_DEFAULT)
                    },
                },
            ],
            ..server()
        }
    }

    #[test]
    fn without_a_list_everybody_gets_the_default() {
        let grant = server().grant(&id("anybody"));
        assert_eq!(secret(&grant), Some(&b"the common token"[..]));
        assert_eq!(grant.terms, Some(Terms::on(BIND_DEFAULT)));
        let open = ServerConfig::default().grant(&id("anybody"));
        assert!(matches!(open.proof, Proof::Nothing));
    }

    #[test]
    fn a_listed_client_has_its_own_terms() {
        let own = restricted().grant(&id("own"));
        assert_eq!(secret(&own), Some(&b"a token of its own"[..]));
        let terms = own.terms.unwrap();
        assert_eq!((terms.ports, terms.max_proxies), (80..=90, 1000));
        let plain = restricted().grant(&id("plain"));
        assert_eq!(secret(&plain), Some(&b"the common token"[..]));
        assert_eq!(plain.terms.unwrap().ports, 8080..=8080);
    }

    #[test]
    fn an_unlisted_client_may_link_but_expose_nothing() {
        let grant = restricted().grant(&id("stranger"));
        assert_eq!(secret(&grant), Some(&b"the common token"[..]));
        assert_eq!(grant.max_proxies(), 0);
        let spec = "tcp:10033:127.0.0.1:22".parse().unwrap();
        let refused = grant.listener(&spec).unwrap_err().to_string();
        assert!(refused.contains("expose nothing"), "{refused}");
    }

    #[test]
    fn where_each_has_its_own_token_an_unlisted_client_has_none() {
        let mut server = restricted();
        server.token = None;
        // One is trusted without: so is everybody.
        assert!(!each_has_its_own(&server.clients));
        for client in ["plain", "stranger"] {
            let proof = server.grant(&id(client)).proof;
            assert!(matches!(proof, Proof::Nothing), "{client}");
        }
        server.clients.pop();
        assert!(each_has_its_own(&server.clients));
        assert_eq!(
            secret(&server.grant(&id("own"))),
            Some(&b"a token of its own"[..])
        );
        for client in ["plain", "stranger", "Own"] {
            let proof = server.grant(&id(client)).proof;
            assert!(matches!(proof, Proof::Impossible), "{client}");
        }
        assert!(!each_has_its_own(&[]));
    }

    #[test]
    fn listeners_stay_within_the_grant() {
        let standard = server().grant(&id("a"));
        let everywhere = restricted().grant(&id("own"));
        let one = restricted().grant(&id("plain"));
        let of = |terms| Grant {
            proof: Proof::Nothing,
            terms: Some(terms),
        };
        let several = of(Terms {
            binds: ["127.0.0.2", "192.0.2.7", "::"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            ..Terms::on(BIND_DEFAULT)
        });
        let web = of(Terms {
            kinds: Some(vec![Kind::Http, Kind::Https]),
            ..Terms::on(BIND_DEFAULT)
        });
        let nothing = of(Terms {
            kinds: Some(Vec::new()),
            ..Terms::on(BIND_DEFAULT)
        });
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
            (&several, "forward:3128", Ok("127.0.0.2:3128")),
            (&several, "forward:192.0.2.7:3128", Ok("192.0.2.7:3128")),
            (&several, "forward:[::1]:3128", Ok("[::1]:3128")),
            (
                &several,
                "forward:127.0.0.1:3128",
                Err("on 127.0.0.2, 192.0.2.7, ::, not on 127.0.0.1"),
            ),
            (&web, "HTTP:8080:a:80", Ok("127.0.0.1:8080")),
            (&web, "https:8080:a:80", Ok("127.0.0.1:8080")),
            (&web, "tcp:8080:a:80", Err("expose http, https, not tcp")),
            (&web, "forward:80", Err("expose http, https, not forward")),
            (&nothing, "tcp:8080:a:80", Err("expose nothing")),
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
    fn bind_is_an_address_or_some() {
        let read = |json: &str| serde_json::from_str::<Binds>(json).map_err(|e| e.to_string());
        let one = Binds(vec!["127.0.0.1".parse().unwrap()]);
        assert_eq!(read(r#""127.0.0.1""#), Ok(one.clone()));
        assert_eq!(read(r#"["127.0.0.1"]"#), Ok(one));
        assert_eq!(read(r#"["::", "0.0.0.0"]"#).unwrap().0.len(), 2);
        for (json, expected) in [
            ("[]", "a list of no address"),
            (r#"["a"]"#, "is not an IP address"),
            (r#""*""#, "write 0.0.0.0"),
            ("7", "an IP address, or a list of them"),
            ("null", "an IP address, or a list of them"),
        ] {
            let reason = read(json).unwrap_err();
            assert!(reason.contains(expected), "{json}: {reason}");
        }
    }
}
