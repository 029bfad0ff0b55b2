//! What an origin gets as `Host`: the option `host` of a proxy.

use std::{fmt, str::FromStr};

use super::{
    host::{Host, split_outside_brackets},
    value::{self, Invalid, impl_text},
};

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

impl_text!(
    HostPolicy,
    "a string: \"user\", \"target\" or a name, such as \"api.example.com\"",
    Serialize
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
}
