//! SPEC: what one proxy listens on, speaks and leads to, written as in ssh.
//!
//! ```text
//! KIND:[BIND:]PORT:HOST:PORT     tcp:10033:127.0.0.1:2222   ssh:0.0.0.0:10022:[::1]:22
//! KIND:[BIND:]PORT:unix:/path    http:8080:unix:/run/app.sock
//! forward:[BIND:]PORT            forward:3128
//! socks5:[BIND:]PORT             socks5:1080
//! ```
//!
//! A SPEC is told apart by the number of its fields outside brackets, once the path of a unix socket, which
//! may hold anything, is split off. What is parsed here prints its canonical form and parses again to an
//! equal value, since SPECs cross the link too.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{
    host::{Bracketed, split_outside_brackets},
    target::{Target, path_in},
    value::{self, Bind, Invalid, impl_text},
};

/// One proxy: a listener, what its users speak, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// What the users of the listener speak.
    pub kind: Kind,
    /// The address to listen on; `None` takes the server's `bind`.
    pub bind: Option<IpAddr>,
    /// The port to listen on; 0 takes any free one.
    pub port: u16,
    /// What the client dials; `None` for [`Kind::Forward`] and [`Kind::Socks5`] alone, where each user
    /// names it.
    pub target: Option<Target>,
}

impl Spec {
    /// The address to listen on, where `bind` is the server's own.
    pub fn address(&self, bind: IpAddr) -> SocketAddr {
        SocketAddr::new(self.bind.unwrap_or(bind), self.port)
    }
}

impl FromStr for Spec {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (word, rest) = text.split_once(':').ok_or_else(|| {
            Invalid::new(format!(
                "{text:?} is not a SPEC: KIND:[BIND:]PORT:HOST:PORT, such as tcp:10033:127.0.0.1:2222, forward:[BIND:]PORT or socks5:[BIND:]PORT"
            ))
        })?;
        let kind: Kind = word.parse()?;
        let (listener, path) = if kind.has_target() {
            split_socket(rest)
        } else {
            (rest, None)
        };
        let fields = split_outside_brackets(listener)?;
        let (bind, port, target) = match (kind, path, fields.as_slice()) {
            (Kind::Forward | Kind::Socks5, _, [port]) => (None, port, None),
            (Kind::Forward | Kind::Socks5, _, [bind, port]) => (Some(bind), port, None),
            (Kind::Forward | Kind::Socks5, ..) => {
                return Err(Invalid::new(format!(
                    "{text:?} is not {kind}:[BIND:]PORT, such as {kind}:3128 (no target; IPv6 addresses in brackets)"
                )));
            }
            // A certificate is for a name, and only the server knows of one that an option gives.
            (Kind::Https, Some(_), _) => {
                return Err(Invalid::new(format!(
                    "{text:?}: a unix socket has no name to verify a certificate for; write http, or https with HOST:PORT"
                )));
            }
            (_, Some(path), [port]) => (None, port, Some(Target::Unix(path.parse()?))),
            (_, Some(path), [bind, port]) => (Some(bind), port, Some(Target::Unix(path.parse()?))),
            (_, None, [port, host, target_port]) => (None, port, Some(inet(host, target_port)?)),
            (_, None, [bind, port, host, target_port]) => {
                (Some(bind), port, Some(inet(host, target_port)?))
            }
            _ => {
                return Err(Invalid::new(format!(
                    "{text:?} is not {kind}:[BIND:]PORT:HOST:PORT, such as {kind}:10033:127.0.0.1:2222 (IPv6 addresses in brackets), nor {kind}:[BIND:]PORT:unix:/path"
                )));
            }
        };
        Ok(Self {
            kind,
            bind: bind.map(|bind| Bind::bracketed(bind)).transpose()?,
            port: value::port(port)?,
            target,
        })
    }
}

fn inet(host: &str, port: &str) -> Result<Target, Invalid> {
    Ok(Target::Inet {
        host: host.parse()?,
        port: value::target_port(port)?,
    })
}

/// Splits off the path of a unix socket, colons and brackets and all, if it leads to one.
fn split_socket(text: &str) -> (&str, Option<&str>) {
    text.match_indices(':')
        .find_map(|(at, _)| Some((&text[..at], Some(path_in(&text[at + 1..])?))))
        .unwrap_or((text, None))
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        if let Some(bind) = self.bind {
            write!(f, "{}:", Bracketed(bind))?;
        }
        write!(f, "{}", self.port)?;
        match &self.target {
            Some(target) => write!(f, ":{target}"),
            None => Ok(()),
        }
    }
}

impl_text!(
    Spec,
    "a SPEC, such as \"tcp:10033:127.0.0.1:2222\"",
    Serialize
);

/// What the users of a proxy speak, and so how their bytes are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Opaque bytes, each user a fresh connection.
    Tcp,
    /// As [`Kind::Tcp`]; the word is kept for people.
    Ssh,
    /// As [`Kind::Tcp`]; the word is kept for people.
    Telnet,
    /// HTTP to one origin, whose connections are parked between exchanges.
    Http,
    /// As [`Kind::Http`] to its users; the client speaks TLS to the origin, and parks the connection
    /// with it.
    Https,
    /// An HTTP forward proxy: absolute-form requests, and CONNECT as an opaque tunnel.
    Forward,
    /// A SOCKS5 proxy: opaque bytes behind a request that names the target.
    Socks5,
    /// TLS that is the target's: opaque bytes, of which the server reads the name that is asked for.
    Tls,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Tcp,
        Kind::Ssh,
        Kind::Telnet,
        Kind::Http,
        Kind::Https,
        Kind::Forward,
        Kind::Socks5,
        Kind::Tls,
    ];

    /// The word in a SPEC, in lower case.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Ssh => "ssh",
            Kind::Telnet => "telnet",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Forward => "forward",
            Kind::Socks5 => "socks5",
            Kind::Tls => "tls",
        }
    }

    /// Whether its proxies can share a listener, told apart by what their users ask for.
    pub const fn has_routes(self) -> bool {
        matches!(self, Kind::Http | Kind::Https | Kind::Tls)
    }

    /// Whether it leads to one target; else each user names its own.
    pub const fn has_target(self) -> bool {
        !matches!(self, Kind::Forward | Kind::Socks5)
    }

    /// Whether users speak HTTP to the listener.
    pub const fn is_http(self) -> bool {
        matches!(self, Kind::Http | Kind::Https | Kind::Forward)
    }

    /// Whether users are not listened to: all that they say is their target's, which is known without them.
    pub const fn is_raw(self) -> bool {
        matches!(self, Kind::Tcp | Kind::Ssh | Kind::Telnet)
    }
}

impl FromStr for Kind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL
            .into_iter()
            .find(|kind| kind.word().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let accepted = Self::ALL.map(Self::word).join(", ");
            Invalid::new(format!("unknown kind {text:?}; accepted are {accepted}"))
        })
    }
}

impl_text!(Kind, "a kind, such as \"http\"");

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::config::host::Host;

    fn refusal(text: &str) -> String {
        text.parse::<Spec>().expect_err(text).to_string()
    }

    #[test]
    fn specs_print_their_canonical_form() {
        for (text, canonical) in [
            ("tcp:10033:127.0.0.1:2222", ""),
            ("TCP:10033:127.0.0.1:2222", "tcp:10033:127.0.0.1:2222"),
            ("http:8080:127.0.0.1:3000", ""),
            (
                "HTTPS:8081:API.example.com:443",
                "https:8081:api.example.com:443",
            ),
            ("ssh:0.0.0.0:10022:[::1]:22", ""),
            (
                "telnet:[::]:23:Router.Lab.:23",
                "telnet:[::]:23:router.lab:23",
            ),
            (
                "tcp:[::1]:0:[2001:DB8:0::1]:1",
                "tcp:[::1]:0:[2001:db8::1]:1",
            ),
            ("forward:3128", ""),
            ("Forward:0", "forward:0"),
            ("forward:127.0.0.1:3128", ""),
            ("forward:[::1]:3128", ""),
            ("SOCKS5:1080", "socks5:1080"),
            ("socks5:0.0.0.0:1080", ""),
            ("tcp:007:a_b-c:0080", "tcp:7:a_b-c:80"),
            ("tcp:1:1.2.3.4.:80", "tcp:1:1.2.3.4:80"),
            ("tcp:10033:unix:/run/app.sock", ""),
            ("http:[::1]:8080:unix:/run/app.sock", ""),
            ("ssh:127.0.0.1:0:unix:/a:unix:/b]:[c:1", ""),
            ("TELNET:1:Unix://run/App", "telnet:1:unix:/run/App"),
            ("tcp:1:unix:22", ""),
            ("tcp:127.0.0.1:1:unix:22", ""),
        ] {
            let spec: Spec = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            let expected = if canonical.is_empty() {
                text
            } else {
                canonical
            };
            assert_eq!(spec.to_string(), expected);
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }

    #[test]
    fn fields_land_where_they_belong() {
        let spec: Spec = "ssh:0.0.0.0:10022:[::1]:22".parse().unwrap();
        assert_eq!(
            spec,
            Spec {
                kind: Kind::Ssh,
                bind: Some(IpAddr::from([0, 0, 0, 0])),
                port: 10022,
                target: Some(Target::Inet {
                    host: Host::Address(IpAddr::from(Ipv6Addr::LOCALHOST)),
                    port: 22
                }),
            }
        );
        let spec: Spec = "http:80:Example.COM.:8080".parse().unwrap();
        assert_eq!(
            spec.target,
            Some(Target::Inet {
                host: Host::Name("example.com".into()),
                port: 8080
            })
        );
        assert_eq!(spec.bind, None);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let spec: Spec = "forward:3128".parse().unwrap();
        assert_eq!(spec.target, None);
        assert_eq!(spec.address(loopback).to_string(), "127.0.0.1:3128");
        let spec: Spec = "forward:[::1]:3128".parse().unwrap();
        assert_eq!(spec.address(loopback).to_string(), "[::1]:3128");
    }

    #[test]
    fn unknown_kinds_are_answered_with_the_list() {
        for text in [
            "tpc:1:a:2",
            "socks4:1080",
            "sni:1:a:2",
            ":1:a:2",
            "10033:a:22",
            "tcp :1:a:2",
        ] {
            let reason = refusal(text);
            assert!(reason.contains("unknown kind"), "{text}: {reason}");
            assert!(
                reason.ends_with("tcp, ssh, telnet, http, https, forward, socks5, tls"),
                "{text}: {reason}"
            );
        }
    }

    #[test]
    fn wrong_numbers_of_fields_are_answered_with_the_form() {
        for text in [
            "tcp:",
            "tcp:1",
            "tcp:1:a",
            "tcp:1:a:2:b:3",
            "tcp:127.0.0.1:1:a:2:3",
            "tcp:1:::1:22",
        ] {
            let reason = refusal(text);
            assert!(
                reason.contains("tcp:[BIND:]PORT:HOST:PORT"),
                "{text}: {reason}"
            );
        }
        for text in ["forward:1:a:2", "forward:127.0.0.1:1:a:2", "forward:::1:80"] {
            let reason = refusal(text);
            assert!(reason.contains("forward:[BIND:]PORT"), "{text}: {reason}");
        }
        let reason = refusal("socks5:1080:a:22");
        assert!(reason.contains("is not socks5:[BIND:]PORT"), "{reason}");
        for text in ["", "tcp", "forward"] {
            assert!(refusal(text).contains("is not a SPEC"), "{text}");
        }
    }

    #[test]
    fn each_field_is_checked() {
        for (text, expected) in [
            ("tcp:x:a:2", "PORT \"x\" is not a number from 0 to 65535"),
            ("tcp:65536:a:2", "from 0 to 65535"),
            ("tcp:+1:a:2", "from 0 to 65535"),
            ("tcp::a:2", "from 0 to 65535"),
            ("tcp:1:a:0", "PORT \"0\" is not a number from 1 to 65535"),
            ("tcp:1:a:", "from 1 to 65535"),
            ("tcp:1:a:65536", "from 1 to 65535"),
            ("tcp:*:1:a:2", "write 0.0.0.0 or [::]"),
            ("tcp::1:a:2", "BIND \"\" is not an IP address"),
            (
                "tcp:localhost:1:a:2",
                "BIND \"localhost\" is not an IP address",
            ),
            ("tcp:[127.0.0.1]:1:a:2", "is not an IP address"),
            ("forward:*:3128", "write 0.0.0.0 or [::]"),
            ("forward:x", "from 0 to 65535"),
            ("tcp:1::2", "HOST \"\" is empty"),
            ("tcp:1:.:2", "HOST \"\" is empty"),
            ("tcp:1:a..b:2", "label that is empty"),
            ("tcp:1:.a:2", "label that is empty"),
            ("tcp:1:a b:2", "is not a name"),
            ("tcp:1:a/b:2", "is not a name"),
            ("tcp:1:*.a:2", "is not a name"),
            ("tcp:1:bücher.example:2", "is not a name"),
            ("tcp:1:127.1:2", "resolvers would read it as one"),
            ("tcp:1:1.2.3:2", "resolvers would read it as one"),
            ("tcp:1:1.2.3.4.5:2", "resolvers would read it as one"),
            ("tcp:1:127.0.0.01:2", "resolvers would read it as one"),
            ("tcp:1:256.1.1.1:2", "resolvers would read it as one"),
            ("tcp:1:2130706433:2", "resolvers would read it as one"),
            ("tcp:1:0x7f000001:2", "resolvers would read it as one"),
            ("tcp:1:127.0X1:2", "resolvers would read it as one"),
            ("tcp:1:a.0x:2", "resolvers would read it as one"),
            ("tcp:1:[::g]:2", "not an IPv6 address in brackets"),
            ("tcp:1:[127.0.0.1]:2", "not an IPv6 address in brackets"),
            ("tcp:1:[fe80::1%eth0]:2", "not an IPv6 address in brackets"),
            ("tcp:1:[::1]x:2", "not an IPv6 address in brackets"),
            ("tcp:1:[::1:2", "brackets"),
            ("tcp:1:::1]:2", "brackets"),
            ("tcp:1:[[::1]]:2", "brackets"),
            ("tcp:1:unix:app.sock", "is not absolute"),
            ("tcp:1:unix:22:/app.sock", "is not absolute"),
            ("tcp:1:unix:/run/../x", ". or .."),
            ("tcp:1:unix:", "from 1 to 65535"),
            ("tcp:x:unix:/run/x", "from 0 to 65535"),
            ("tcp:*:1:unix:/run/x", "write 0.0.0.0 or [::]"),
            ("tcp:unix:/run/x", "is not tcp:[BIND:]PORT:HOST:PORT"),
            ("tcp:1:a:2:unix:/run/x", "is not tcp:[BIND:]PORT:HOST:PORT"),
            ("forward:1:unix:/run/x", "no target"),
            ("https:1:unix:/run/x", "no name to verify a certificate for"),
        ] {
            let reason = refusal(text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
    }

    #[test]
    fn specs_travel_as_json_strings() {
        let spec: Spec = serde_json::from_str("\"SSH:22:[::1]:22\"").unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), "\"ssh:22:[::1]:22\"");
        assert!(serde_json::from_str::<Spec>("22").is_err());
    }

    fn any_spec() -> impl Strategy<Value = Spec> {
        let host = prop_oneof![
            any::<IpAddr>().prop_map(Host::Address),
            "([a-z0-9_-]{1,20}\\.){0,3}[a-z_-][a-z0-9_-]{0,10}"
                .prop_map(|name| Host::Name(name.into())),
        ];
        let target = prop_oneof![
            4 => (host, 1u16..).prop_map(|(host, port)| Target::Inet { host, port }),
            1 => "(/[^/*.\\p{C}][^/*\\p{C}]{0,6}){1,3}".prop_map(|path| {
                Target::Unix(path.parse().expect("an absolute path without . and .."))
            }),
        ];
        (
            0..Kind::ALL.len(),
            any::<Option<IpAddr>>(),
            any::<u16>(),
            target,
        )
            .prop_map(|(kind, bind, port, target)| {
                let kind = Kind::ALL[kind];
                let has_name = !matches!((kind, &target), (Kind::Https, Target::Unix(_)));
                let kind = if has_name { kind } else { Kind::Http };
                let target = kind.has_target().then_some(target);
                Spec {
                    kind,
                    bind,
                    port,
                    target,
                }
            })
    }

    proptest! {
        #[test]
        fn a_printed_spec_parses_to_itself(spec in any_spec()) {
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}|(tcp|forward|socks5)[:\\[\\]0-9a-f.*x]{0,40}|http:1:unix:[:\\[\\]/.a]{0,20}") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(spec.to_string().parse(), Ok(spec));
            }
        }
    }
}
