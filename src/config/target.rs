//! Where a proxy leads: a TCP port of a host, or a unix socket.
//!
//! Owns how a target is written, `HOST:PORT` or `unix:/path`, and how `proxy_connect` names it. Whether it
//! may be dialled is for [`rule`](super::rule) to say; how, for whoever holds sockets.

use std::{fmt, rc::Rc, str::FromStr};

use super::{
    host::{Host, split_outside_brackets},
    value::{self, Invalid},
};

/// What a client dials. Also the key under which the pool parks connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A TCP port.
    Inet {
        /// Where.
        host: Host,
        /// Never 0 when parsed.
        port: u16,
    },
    /// A unix socket of the client's own machine.
    Unix(SocketPath),
}

impl Target {
    /// What `Host` says for it (RFC 9110 §7.2): the port only where it is not the scheme's own. A path is
    /// no host; origins behind unix sockets are used to the name of the machine that they share.
    pub fn host_field(&self, scheme_port: u16) -> String {
        match self {
            Target::Inet { host, port } if *port == scheme_port => host.to_string(),
            Target::Inet { .. } => self.to_string(),
            Target::Unix(_) => "localhost".into(),
        }
    }

    /// What `proxy_connect` says as `remote_host`.
    pub fn remote_host(&self) -> Rc<str> {
        match self {
            Target::Inet { host, .. } => host.text(),
            Target::Unix(_) => self.to_string().into(),
        }
    }

    /// What `proxy_connect` says as `remote_port`.
    pub fn remote_port(&self) -> u16 {
        match self {
            Target::Inet { port, .. } => *port,
            Target::Unix(_) => 0,
        }
    }

    /// The target that `proxy_connect` names. Here the port of a host may be 0.
    ///
    /// # Errors
    /// It is no host and no path.
    pub fn from_remote(host: &str, port: u16) -> Result<Self, Invalid> {
        match path_in(host) {
            Some(path) => path.parse().map(Self::Unix),
            None => Ok(Self::Inet {
                host: host.parse()?,
                port,
            }),
        }
    }
}

impl FromStr for Target {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = path_in(text) {
            return path.parse().map(Self::Unix);
        }
        match split_outside_brackets(text)?.as_slice() {
            [host, port] => Ok(Self::Inet {
                host: host.parse()?,
                port: value::target_port(port)?,
            }),
            _ => Err(Invalid::new(format!(
                "{text:?} is not HOST:PORT, such as example.com:80 or [::1]:80, nor unix:/path"
            ))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Inet { host, port } => write!(f, "{host}:{port}"),
            Target::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The path of a unix socket. Two spellings of one path are one path as far as the text can tell: doubled
/// slashes are one, and what only a walk through the file system could resolve is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketPath(Rc<str>);

impl SocketPath {
    /// The path, as the system takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The longest path: what `sun_path` holds beside its NUL.
#[cfg(unix)]
const PATH_BYTES_MAX: usize =
    size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

/// As on Linux: such a path is for others to dial.
#[cfg(not(unix))]
const PATH_BYTES_MAX: usize = 107;

impl FromStr for SocketPath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| {
            Err(Invalid::new(format!(
                "the unix socket's path {text:?} {why}"
            )))
        };
        let Some(below) = text.strip_prefix('/') else {
            return refused("is not absolute: write it from /, as in unix:/run/app.sock");
        };
        if text.chars().any(char::is_control) {
            return refused("holds a control character");
        }
        if text.contains('*') {
            return refused("holds a '*': a path is written out, there are no patterns");
        }
        let mut path = String::with_capacity(text.len());
        for part in below.split('/').filter(|part| !part.is_empty()) {
            if matches!(part, "." | "..") {
                return refused("has a part that is . or ..: write where it leads");
            }
            path.push('/');
            path.push_str(part);
        }
        if path.is_empty() || below.ends_with('/') {
            return refused("is a directory's");
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(Invalid::new(format!(
                "the unix socket's path {text:?} is longer than the {PATH_BYTES_MAX} bytes that the system takes"
            )));
        }
        Ok(Self(path.into()))
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What follows `unix:`, unless that can be the port, or ports, of a host called so.
pub(super) fn path_in(text: &str) -> Option<&str> {
    let (word, path) = text.split_once(':')?;
    let is_port = path
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"-*".contains(&byte));
    (word.eq_ignore_ascii_case("unix") && !is_port).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn targets_print_their_canonical_form() {
        for (text, canonical) in [
            ("Example.com:80", "example.com:80"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("UNIX:/run/app.sock", "unix:/run/app.sock"),
            ("unix://run///app.sock", "unix:/run/app.sock"),
            ("unix:/Run/a b:c[d]é.sock", "unix:/Run/a b:c[d]é.sock"),
            ("unix:/..a/...", "unix:/..a/..."),
            ("unix:80", "unix:80"),
        ] {
            assert_eq!(target(text).to_string(), canonical, "{text}");
            assert_eq!(target(canonical), target(text));
        }
        assert!(matches!(target("unix:/80"), Target::Unix(_)));
        assert!(matches!(target("unix:80"), Target::Inet { .. }));
    }

    #[test]
    fn targets_need_both_parts() {
        for text in ["", "a", "a:", ":80", "::1:80", "[::1]", "a:80:80", "a:0"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_is_absolute_plain_and_as_long_as_the_system_takes() {
        for (path, expected) in [
            ("app.sock", "is not absolute"),
            ("run/app.sock", "is not absolute"),
            ("~/app.sock", "is not absolute"),
            ("@abstract", "is not absolute"),
            ("/", "is a directory's"),
            ("//", "is a directory's"),
            ("/run/", "is a directory's"),
            ("/run/../app.sock", ". or .."),
            ("/./app.sock", ". or .."),
            ("/run/..", ". or .."),
            ("/run/*", "no patterns"),
            ("/run/a\0b", "control character"),
            ("/run/a\nb", "control character"),
            ("/run/a\u{85}b", "control character"),
        ] {
            let reason = format!("unix:{path}").parse::<Target>().expect_err(path);
            assert!(reason.to_string().contains(expected), "{path}: {reason}");
        }
        let longest = format!("/{}", "x".repeat(PATH_BYTES_MAX - 1));
        assert!(longest.parse::<SocketPath>().is_ok());
        assert!(format!("/{longest}").parse::<SocketPath>().is_ok());
        let reason = format!("{longest}x").parse::<SocketPath>().unwrap_err();
        assert!(reason.to_string().contains("longer than"), "{reason}");
        #[cfg(target_os = "linux")]
        assert_eq!(PATH_BYTES_MAX, 107);
    }

    #[test]
    fn a_target_crosses_the_wire_as_a_host_and_a_port() {
        for (text, host, port) in [
            ("a.example:80", "a.example", 80),
            ("[::1]:80", "[::1]", 80),
            ("unix:/run/app.sock", "unix:/run/app.sock", 0),
        ] {
            let target = target(text);
            assert_eq!((&*target.remote_host(), target.remote_port()), (host, port));
            assert_eq!(Target::from_remote(host, port), Ok(target));
        }
        for host in ["", "a b", "unix:", "unix:80", "unix:app.sock", "tcp:/run/x"] {
            assert!(Target::from_remote(host, 80).is_err(), "{host}");
        }
        // What clients before unix sockets do with it.
        assert!("unix:/run/app.sock".parse::<Host>().is_err());
    }

    #[test]
    fn a_host_field_leaves_out_the_port_of_its_scheme() {
        for (text, scheme_port, field) in [
            ("a.example:80", 80, "a.example"),
            ("a.example:443", 80, "a.example:443"),
            ("[::1]:443", 443, "[::1]"),
            ("[::1]:8443", 443, "[::1]:8443"),
            ("unix:/run/app.sock", 80, "localhost"),
        ] {
            assert_eq!(target(text).host_field(scheme_port), field);
        }
    }
}
