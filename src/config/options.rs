//! What may be said of a proxy besides its SPEC.
//!
//! Owns the values and for which kinds they mean something. They are written beside `spec` in the
//! object form of an entry, and travel as `options` in `proxy_open` when a client exposes; the server
//! checks both by the same functions. An option that it does not know it refuses, there too: one that
//! says who may come in must not be passed over.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{
    spec::{Host, Kind, split_outside_brackets},
    value::{self, Invalid, impl_text},
};

/// Options of one proxy; absent ones have the defaults of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyOptions {
    /// What the origin gets as `Host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPolicy>,
    /// The proxy's users are proxies themselves, and what they say of their users is passed on.
    #[serde(skip_serializing_if = "is_false")]
    pub trust_forwarded: bool,
    /// TLS is spoken to its users, with the server's certificates.
    #[serde(skip_serializing_if = "is_false")]
    pub tls: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl ProxyOptions {
    /// What the origin of a proxy of this kind gets as `Host`.
    pub fn host_policy(&self, kind: Kind) -> &HostPolicy {
        match (&self.host, kind) {
            (Some(policy), _) => policy,
            // Whoever is reached by TLS is known by the name in its certificate.
            (None, Kind::Https) => &HostPolicy::Target,
            (None, _) => &HostPolicy::User,
        }
    }

    /// As written, without what has its default.
    pub fn to_json(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(options)) => options,
            // A struct of strings, numbers and lists is an object.
            _ => Map::new(),
        }
    }

    /// The field that makes no sense for a proxy of this kind, if there is one, and why.
    pub fn misplaced(&self, kind: Kind) -> Option<(&'static str, Invalid)> {
        if matches!(kind, Kind::Http | Kind::Https) {
            return None;
        }
        let field = if self.host.is_some() {
            "host"
        } else if self.trust_forwarded {
            "trust_forwarded"
        } else {
            return None;
        };
        let reason = format!("{field} is for the kinds http and https, not for {kind}");
        Some((field, Invalid::new(reason)))
    }
}

/// What an origin gets as `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// What the user asked for: default of `http`.
    User,
    /// The target's name, with its port unless that is the scheme's: default of `https`.
    Target,
    /// This one, and the port if there is one.
    Name(Host, Option<u16>),
}

impl FromStr for HostPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.eq_ignore_ascii_case("user") {
            return Ok(Self::User);
        }
        if text.eq_ignore_ascii_case("target") {
            return Ok(Self::Target);
        }
        match split_outside_brackets(text)?.as_slice() {
            [host] => Ok(Self::Name(host.parse()?, None)),
            [host, port] => Ok(Self::Name(host.parse()?, Some(value::target_port(port)?))),
            _ => Err(Invalid::new(format!(
                "{text:?} is not \"user\", \"target\" or NAME[:PORT], such as api.example.com (IPv6 addresses in brackets)"
            ))),
        }
    }
}

impl fmt::Display for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Target => f.write_str("target"),
            Self::Name(host, None) => host.fmt(f),
            Self::Name(host, Some(port)) => write!(f, "{host}:{port}"),
        }
    }
}

impl Serialize for HostPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl_text!(
    HostPolicy,
    "a string: \"user\", \"target\" or a name, such as \"api.example.com\""
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_print_their_canonical_form() {
        for (text, canonical) in [
            ("user", "user"),
            ("User", "user"),
            ("TARGET", "target"),
            ("API.Example.com.", "api.example.com"),
            ("api.example.com:8443", "api.example.com:8443"),
            ("user:80", "user:80"),
            ("127.0.0.1", "127.0.0.1"),
            ("[2001:DB8::1]:0080", "[2001:db8::1]:80"),
        ] {
            let policy: HostPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(policy));
        }
        assert_eq!("user".parse(), Ok(HostPolicy::User));
        assert_eq!("target".parse(), Ok(HostPolicy::Target));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:b:c",
            "a b",
            "a/b",
            "u@a",
            "a\r\nX: y",
            "b\u{e9}",
            "::1",
            "[::1",
            "1.2.3",
        ] {
            assert!(text.parse::<HostPolicy>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn each_kind_has_its_default() {
        let none = ProxyOptions::default();
        assert_eq!(none.host_policy(Kind::Http), &HostPolicy::User);
        assert_eq!(none.host_policy(Kind::Forward), &HostPolicy::User);
        assert_eq!(none.host_policy(Kind::Https), &HostPolicy::Target);
        let user = ProxyOptions {
            host: Some(HostPolicy::User),
            ..none
        };
        assert_eq!(user.host_policy(Kind::Https), &HostPolicy::User);
    }

    #[test]
    fn options_of_http_belong_to_http() {
        let host = ProxyOptions {
            host: Some(HostPolicy::User),
            ..ProxyOptions::default()
        };
        let trust = ProxyOptions {
            trust_forwarded: true,
            ..ProxyOptions::default()
        };
        for (options, field) in [(&host, "host"), (&trust, "trust_forwarded")] {
            for kind in [Kind::Http, Kind::Https] {
                assert!(options.misplaced(kind).is_none());
            }
            for kind in [Kind::Tcp, Kind::Ssh, Kind::Telnet, Kind::Forward] {
                let (named, reason) = options.misplaced(kind).expect("misplaced");
                assert_eq!(named, field);
                assert_eq!(
                    reason.to_string(),
                    format!("{field} is for the kinds http and https, not for {kind}")
                );
                assert!(ProxyOptions::default().misplaced(kind).is_none());
            }
        }
    }
}
