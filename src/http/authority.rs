//! `host[:port]`, as it stands in a request target or a `Host` field.
//!
//! Owns the syntax only: which hosts may be reached is for the rules of the client to say.

use std::net::Ipv6Addr;

/// The longest host name: 253 bytes of a DNS name and a trailing dot (RFC 1035 §2.3.4).
const HOST_MAX: usize = 254;

/// The scheme of an absolute-form target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`, default port 80.
    Http,
    /// `https`, default port 443: the client speaks TLS to the origin.
    Https,
}

impl Scheme {
    /// As it stands before `://`.
    pub fn word(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port meant where none is written (RFC 9110 §4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A host and a port (RFC 3986 §3.2, without userinfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name or an address as it is dialled: an IPv6 address has no brackets.
    pub host: &'a str,
    /// 1 to 65535, the default one if none was written.
    pub port: u16,
    /// As it was written, which is what a `Host` field for it says.
    pub text: &'a str,
}

impl<'a> Authority<'a> {
    /// Parses `host[:port]`. Stricter than the grammar: names are letters, digits, `-`, `.`, `_`
    /// and `~`, since no name that can be resolved holds a percent-encoding or a sub-delimiter, and
    /// each is a way to make two parsers see two hosts.
    pub(super) fn parse(
        text: &'a str,
        default_port: Option<u16>,
    ) -> Result<Authority<'a>, &'static str> {
        if text.contains('@') {
            return Err("user information before a host");
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest
                    .split_once(']')
                    .ok_or("an IPv6 address without its closing bracket")?;
                host.parse::<Ipv6Addr>()
                    .map_err(|_| "no IPv6 address in brackets")?;
                (host, port)
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if host.is_empty() {
            return Err("an empty host");
        }
        if host.len() > HOST_MAX {
            return Err("a host name of more than 254 bytes");
        }
        if !text.starts_with('[') && !host.bytes().all(is_name_byte) {
            return Err("a byte in a host name that is not allowed there");
        }
        let port = match port {
            "" | ":" => default_port.ok_or("a host without a port")?,
            _ => port
                .strip_prefix(':')
                .and_then(parse_port)
                .ok_or("a port that is not a number from 1 to 65535")?,
        };
        Ok(Authority {
            host,
            port,
            text: text.strip_suffix(':').unwrap_or(text),
        })
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    // `u16::from_str` takes a sign.
    if digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, default, host, port) in [
            ("example.com", Some(80), "example.com", 80),
            ("example.com:", Some(443), "example.com", 443),
            ("example.com:8080", None, "example.com", 8080),
            ("127.0.0.1:1", None, "127.0.0.1", 1),
            ("[::1]", Some(80), "::1", 80),
            ("[2001:db8::7]:65535", None, "2001:db8::7", 65535),
            ("my_service.local.", Some(80), "my_service.local.", 80),
        ] {
            let authority = Authority::parse(text, default).expect("a good authority");
            assert_eq!((authority.host, authority.port), (host, port), "{text}");
        }
        let authority = Authority::parse("example.com:", Some(80)).expect("an empty port is legal");
        assert_eq!(authority.text, "example.com");
    }

    #[test]
    fn doubtful_authorities_are_refused() {
        let long = "a".repeat(HOST_MAX + 1);
        for text in [
            "",
            ":80",
            "a b",
            "a/b",
            "a,b",
            "a\\b",
            "a%2eb",
            "a:b",
            "a:80:80",
            "a:0",
            "a:65536",
            "a:000080",
            "a:+80",
            "a: 80",
            "user@a",
            "u:p@a:80",
            "[::1",
            "::1",
            "[::1]80",
            "[]",
            "[1.2.3.4]",
            "[fe80::1%eth0]",
            "[v1.x]",
            "a]",
            "b\u{e9}",
            &long,
        ] {
            assert!(Authority::parse(text, Some(80)).is_err(), "{text:?}");
        }
        for text in ["a", "a:", "[::1]", "[::1]:"] {
            assert!(
                Authority::parse(text, None).is_err(),
                "{text:?} has no port"
            );
        }
    }
}
