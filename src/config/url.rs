//! The server's URL, as a client is given it.

use std::{fmt, str::FromStr};

use super::{
    host::{Host, split_outside_brackets},
    target::Target,
    value::{self, Invalid, impl_text},
};

/// Where a client finds its server: `ws://host[:port][/path]`, or `wss://` (RFC 6455 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// `wss`: TLS is spoken to it.
    pub secure: bool,
    /// The server's name or address.
    pub host: Host,
    /// Its port; that of the scheme where none was written. Never 0.
    pub port: u16,
    /// The request target of the upgrade, with any query: begins with `/`, visible ASCII only.
    pub path: Box<str>,
}

impl ServerUrl {
    /// What to dial.
    pub fn target(&self) -> Target {
        Target::Inet {
            host: self.host.clone(),
            port: self.port,
        }
    }

    /// What the upgrade says as `Host`.
    pub fn host_field(&self) -> String {
        self.target().host_field(default_port(self.secure))
    }
}

/// The port of a scheme (RFC 6455 §3).
const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// The longest path. The whole upgrade request must stay well under what a server reads before it
/// knows who asks.
const PATH_BYTES_MAX: usize = 1024;

impl FromStr for ServerUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| {
            Invalid::new(format!(
                "{text:?} {why}; write wss://HOST[:PORT][/PATH] or ws://…, such as ws://127.0.0.1:7000"
            ))
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| refused("is not a URL"))?;
        let secure = scheme.eq_ignore_ascii_case("wss");
        if !secure && !scheme.eq_ignore_ascii_case("ws") {
            return Err(refused("has another scheme than ws and wss"));
        }
        if secure && !cfg!(feature = "tls") {
            return Err(Invalid::new(format!(
                "{text:?} needs TLS, without which this siding was built"
            )));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(refused("holds a user name, which is never sent"));
        }
        if path.contains('#') {
            return Err(refused("has a fragment"));
        }
        if path.len() > PATH_BYTES_MAX || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(
                "has a path that is not visible ASCII of at most 1024 bytes",
            ));
        }
        let (host, port) = match split_outside_brackets(authority)?.as_slice() {
            [host] => (host.parse()?, default_port(secure)),
            [host, port] => (host.parse()?, value::target_port(port)?),
            _ => {
                return Err(refused(
                    "is not HOST[:PORT] after :// (IPv6 addresses in brackets)",
                ));
            }
        };
        let path = if path.starts_with('/') {
            path.into()
        } else {
            format!("/{path}").into()
        };
        Ok(Self {
            secure,
            host,
            port,
            path,
        })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default_port(self.secure) {
            write!(f, ":{}", self.port)?;
        }
        if &*self.path != "/" {
            f.write_str(&self.path)?;
        }
        Ok(())
    }
}

impl_text!(ServerUrl, "a URL, such as \"ws://127.0.0.1:7000\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_print_their_canonical_form() {
        for (text, canonical, host, port, path) in [
            (
                "ws://127.0.0.1:7000",
                "ws://127.0.0.1:7000",
                "127.0.0.1",
                7000,
                "/",
            ),
            (
                "ws://edge.example.com",
                "ws://edge.example.com",
                "edge.example.com",
                80,
                "/",
            ),
            (
                "WS://Edge.Example.com.:80/",
                "ws://edge.example.com",
                "edge.example.com",
                80,
                "/",
            ),
            ("ws://[::1]/a/b", "ws://[::1]/a/b", "[::1]", 80, "/a/b"),
            (
                "ws://[::1]:1/?x=y:z",
                "ws://[::1]:1/?x=y:z",
                "[::1]",
                1,
                "/?x=y:z",
            ),
            ("ws://a?x=/@", "ws://a/?x=/@", "a", 80, "/?x=/@"),
            ("ws://a:443", "ws://a:443", "a", 443, "/"),
            #[cfg(feature = "tls")]
            (
                "WSS://Edge.example.com/x",
                "wss://edge.example.com/x",
                "edge.example.com",
                443,
                "/x",
            ),
            #[cfg(feature = "tls")]
            ("wss://a:443", "wss://a", "a", 443, "/"),
            #[cfg(feature = "tls")]
            ("wss://a:80", "wss://a:80", "a", 80, "/"),
        ] {
            let url: ServerUrl = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.to_string(), canonical);
            assert_eq!(
                (url.host.to_string().as_str(), url.port, &*url.path),
                (host, port, path)
            );
            assert_eq!(url.target().to_string(), format!("{host}:{port}"));
            assert_eq!(url.to_string().parse(), Ok(url));
        }
    }

    #[test]
    fn other_urls_are_refused_with_the_reason() {
        for (text, expected) in [
            ("", "is not a URL"),
            ("127.0.0.1:7000", "is not a URL"),
            ("ws:127.0.0.1", "is not a URL"),
            ("http://a", "another scheme than ws and wss"),
            #[cfg(not(feature = "tls"))]
            ("wss://edge.example.com", "needs TLS"),
            ("ws://", "HOST \"\" is empty"),
            ("ws:///path", "HOST \"\" is empty"),
            ("ws://a:", "from 1 to 65535"),
            ("ws://a:0", "from 1 to 65535"),
            ("ws://a:1:2", "is not HOST[:PORT]"),
            ("ws://::1", "is not HOST[:PORT]"),
            ("ws://me@a", "user name"),
            ("ws://me:secret@a:80/", "user name"),
            ("ws://a/#top", "fragment"),
            ("ws://a#top", "fragment"),
            ("ws://a/b c", "visible ASCII"),
            ("ws://a/b\r\nX: y", "visible ASCII"),
            ("ws://a/é", "visible ASCII"),
            ("ws://127.1", "resolvers"),
            ("ws://[::1", "brackets"),
        ] {
            let reason = text.parse::<ServerUrl>().expect_err(text).to_string();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        let long = format!("ws://a/{}", "x".repeat(1023));
        assert!(long.parse::<ServerUrl>().is_ok());
        assert!(format!("{long}x").parse::<ServerUrl>().is_err());
    }
}
