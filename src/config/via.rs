//! The way to the server: straight, or through an HTTP proxy (CONNECT, RFC 9110 §9.3.6).
//!
//! Owns how the proxy is written, which variables name one where nothing else does, and which servers
//! they are not for. It does not know how CONNECT is spoken. Passwords are printed nowhere.

use std::{ffi::OsString, fmt, rc::Rc, str::FromStr};

use super::{
    host::{Host, split_outside_brackets},
    no_proxy::NoProxy,
    target::Target,
    url::ServerUrl,
    value::{self, Invalid, impl_text},
};

/// How a client reaches its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Straight.
    #[default]
    Direct,
    /// Through the proxy that was asked for.
    Proxy(ProxyUrl),
    /// Through the proxy that a variable names.
    Variable(&'static str, ProxyUrl),
    /// Straight, although a variable names a proxy: it cannot be used, for this reason.
    Unusable(&'static str, Invalid),
}

impl Via {
    /// The proxy to dial, if there is one.
    pub fn proxy(&self) -> Option<&ProxyUrl> {
        match self {
            Via::Proxy(proxy) | Via::Variable(_, proxy) => Some(proxy),
            Via::Direct | Via::Unusable(..) => None,
        }
    }

    /// What the environment says, as curl reads it: a proxy for the scheme, else one for all. For plain
    /// `http` only the variable in lower case counts, since the other one can be set from outside where
    /// programs are started by a web server (as the field `Proxy` of a request).
    ///
    /// A server on loopback is never looked for elsewhere.
    pub fn from_environment(
        server: &ServerUrl,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let set = |name: &'static str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some((name, value.into_string()))
        };
        let own: &[&'static str] = if server.secure {
            &["https_proxy", "HTTPS_PROXY"]
        } else {
            &["http_proxy"]
        };
        let mut names = own.iter().chain(&["all_proxy", "ALL_PROXY"]).copied();
        let Some((name, proxy)) = names.find_map(set) else {
            return Via::Direct;
        };
        if is_loopback(&server.host) {
            return Via::Direct;
        }
        if let Some((name, excluded)) = ["no_proxy", "NO_PROXY"].into_iter().find_map(set) {
            match excluded {
                Ok(list) if NoProxy::read(&list).covers(&server.host, server.port) => {
                    return Via::Direct;
                }
                Ok(_) => {}
                Err(_) => return Via::Unusable(name, Invalid::new("it is not UTF-8")),
            }
        }
        match proxy {
            Ok(text) => match ProxyUrl::with_or_without_scheme(&text) {
                Ok(proxy) => Via::Variable(name, proxy),
                Err(reason) => Via::Unusable(name, reason),
            },
            Err(_) => Via::Unusable(name, Invalid::new("it is not UTF-8")),
        }
    }
}

/// Whether it is this machine, however the name is looked up (RFC 6761 §6.3).
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Address(address) => address.to_canonical().is_loopback(),
        Host::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
    }
}

/// What `--via` and the field `via` accept: a proxy, or `direct` for none, whatever the variables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked(pub Option<ProxyUrl>);

impl FromStr for Asked {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.eq_ignore_ascii_case("direct") {
            return Ok(Self(None));
        }
        text.parse().map(Some).map(Self)
    }
}

impl_text!(
    Asked,
    "the URL of a proxy, such as \"http://proxy.example.com:3128\", or \"direct\""
);

impl From<Asked> for Via {
    fn from(Asked(proxy): Asked) -> Self {
        proxy.map_or(Via::Direct, Via::Proxy)
    }
}

/// An HTTP proxy: `http://[user:password@]host[:port]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    host: Host,
    port: u16,
    credentials: Option<Credentials>,
}

/// Whom to be at the proxy.
#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: Rc<str>,
    password: Rc<str>,
}

impl ProxyUrl {
    /// What to dial.
    pub fn target(&self) -> Target {
        Target::Inet {
            host: self.host.clone(),
            port: self.port,
        }
    }

    /// What `Proxy-Authorization` says (RFC 7617), if anything: a secret.
    pub fn authorization(&self) -> Option<String> {
        self.credentials
            .as_ref()
            .map(|Credentials { user, password }| {
                format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
            })
    }

    /// As variables hold it, where the scheme is often left out.
    fn with_or_without_scheme(text: &str) -> Result<Self, Invalid> {
        if text.contains("://") {
            text.parse()
        } else {
            format!("http://{text}").parse()
        }
    }
}

/// The port of the `http` scheme.
const PORT_DEFAULT: u16 = 80;

/// The longest user name and password, decoded: longer ones are accidents, and a head has bounds.
const CREDENTIALS_BYTES_MAX: usize = 1024;

impl FromStr for ProxyUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Whatever is wrong, what may be a password is not repeated.
        let shown = match text.rsplit_once('@') {
            Some((_, rest)) => format!("…@{rest}"),
            None => text.to_owned(),
        };
        let refused = |why: &str| {
            Invalid::new(format!(
                "the proxy {shown:?} {why}; write http://[USER:PASSWORD@]HOST[:PORT], such as http://proxy.example.com:3128"
            ))
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| refused("is not a URL"))?;
        if !scheme.eq_ignore_ascii_case("http") {
            let scheme: String = scheme.chars().take(SCHEME_SHOWN_MAX).collect();
            return Err(refused(&format!(
                "has the scheme {scheme:?}, and only http is spoken to proxies"
            )));
        }
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(Credentials::parse(userinfo)?), authority),
            None => (None, rest),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#']) {
            return Err(refused("has a path, and a proxy has none"));
        }
        let (host, port) = match split_outside_brackets(authority)?.as_slice() {
            [host] => (host.parse()?, PORT_DEFAULT),
            [host, port] => (host.parse()?, value::target_port(port)?),
            _ => {
                return Err(refused(
                    "is not HOST[:PORT] behind http:// (IPv6 addresses in brackets)",
                ));
            }
        };
        Ok(Self {
            host,
            port,
            credentials,
        })
    }
}

const SCHEME_SHOWN_MAX: usize = 16;

impl Credentials {
    /// Reads `user:password`, percent-encoded (RFC 3986 §3.2.1). Nothing of it is in an error.
    fn parse(userinfo: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| Err(Invalid::new(format!("the proxy's user or password {why}")));
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let (Some(user), Some(password)) = (decoded(user), decoded(password)) else {
            return refused("is not percent-encoded UTF-8: write '%' as %25");
        };
        if user.contains(':') {
            // RFC 7617 §2: the first colon ends the name.
            return refused("cannot be sent: a name has no colon");
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return refused("holds a control character");
        }
        if user.len() + password.len() > CREDENTIALS_BYTES_MAX {
            return refused("is longer than 1024 bytes");
        }
        Ok(Self {
            user: user.into(),
            password: password.into(),
        })
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'%' {
            let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
            bytes.push((digit(0)? * 16 + digit(1)?) as u8);
            rest = &behind[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            text.push(if digit <= group.len() {
                char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

impl fmt::Display for ProxyUrl {
    /// Without the password, so this is the one value that does not parse to itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http://")?;
        if let Some(Credentials { user, .. }) = &self.credentials {
            write!(f, "{user}:***@")?;
        }
        write!(f, "{}", self.host)?;
        if self.port != PORT_DEFAULT {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests;
