//! What an origin behind a gateway is told of the user: `Forwarded` (RFC 7239), and the
//! `X-Forwarded-*` fields that are older and more widely read.
//!
//! Owns which inbound fields may pass and how ours are written. Who the user is, the caller says; it
//! knows no connection. The rule: what a user says of itself is a forgery and goes, unless the proxy
//! is told that its users are other proxies, whose word is passed on with ours behind it.

use std::{fmt, net::IpAddr};

use super::{
    authority::Scheme,
    fields::{Fields, is_one_of, is_token, print, write_field},
};

/// What a gateway knows of a request's origin that the request itself does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The user's address; a v4-mapped one unwrapped by the caller.
    pub user: IpAddr,
    /// What the user speaks to us.
    pub proto: Scheme,
    /// Whether the user is a proxy that may speak for users of its own.
    pub trusted: bool,
}

impl Forwarded {
    /// Whether an inbound field stays where it is. The two lists do not even where they are trusted:
    /// they are written again, with ours at their end.
    pub(super) fn passes(&self, name: &str) -> bool {
        !(if self.trusted {
            is_one_of(name, LISTS)
        } else {
            tells_of_forwarding(name)
        })
    }

    /// Appends the fields that tell of this hop; `host` is the host that the user asked for.
    pub(super) fn write_to(&self, out: &mut Vec<u8>, fields: &Fields<'_>, host: Option<&str>) {
        self.write_list(out, fields, X_FORWARDED_FOR, self.user);
        if self.is_mine(fields, X_FORWARDED_PROTO) {
            write_field(out, X_FORWARDED_PROTO, self.proto.word().as_bytes());
        }
        if let Some(host) = host
            && self.is_mine(fields, X_FORWARDED_HOST)
        {
            write_field(out, X_FORWARDED_HOST, host.as_bytes());
        }
        let element = Element {
            user: self.user,
            host,
            proto: self.proto,
        };
        self.write_list(out, fields, FORWARDED, element);
    }

    /// Whether we have to say it, because nobody who is trusted has.
    fn is_mine(&self, fields: &Fields<'_>, name: &str) -> bool {
        !self.trusted || fields.values(name).next().is_none()
    }

    /// One field line (RFC 9110 §5.3), whatever number of lines came: some recipients read only one.
    fn write_list(
        &self,
        out: &mut Vec<u8>,
        fields: &Fields<'_>,
        name: &str,
        own: impl fmt::Display,
    ) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        if self.trusted {
            for value in fields.values(name) {
                if !value.is_empty() && is_closed(value) {
                    out.extend_from_slice(value);
                    out.extend_from_slice(b", ");
                }
            }
        }
        print(out, format_args!("{own}\r\n"));
    }
}

/// What `Forwarded` says of one hop (RFC 7239 §4 and §6).
struct Element<'a> {
    user: IpAddr,
    host: Option<&'a str>,
    proto: Scheme,
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            IpAddr::V4(user) => write!(f, "for={user}")?,
            IpAddr::V6(user) => write!(f, "for=\"[{user}]\"")?,
        }
        match self.host {
            Some(host) if is_token(host.as_bytes()) => write!(f, ";host={host}")?,
            // A host is checked before it comes here: it holds nothing that a quoted string escapes.
            Some(host) => write!(f, ";host=\"{host}\"")?,
            None => {}
        }
        write!(f, ";proto={}", self.proto.word())
    }
}

/// Whether a field is one of those by which proxies tell of users.
///
/// CGI and what descends from it (WSGI, Rack, PHP) make one variable of `-` and `_`, so that a
/// forged `X_Forwarded_For` would be the origin's `X-Forwarded-For`.
pub(super) fn tells_of_forwarding(name: &str) -> bool {
    let name = name.as_bytes();
    is_alike(name, FORWARDED)
        || is_alike(name, "X-Real-IP")
        || name
            .get(..PREFIX.len())
            .is_some_and(|start| is_alike(start, PREFIX))
}

/// Whether `name` is `known` to whoever takes `_` for `-`.
fn is_alike(name: &[u8], known: &str) -> bool {
    name.len() == known.len()
        && name.iter().zip(known.bytes()).all(|(byte, known)| {
            byte.eq_ignore_ascii_case(&known) || (*byte == b'_' && known == b'-')
        })
}

/// Whether no quoted string is open at the value's end: it would swallow what follows it in a list.
fn is_closed(value: &[u8]) -> bool {
    let mut quoted = false;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                bytes.next();
            }
            _ => {}
        }
    }
    !quoted
}

const FORWARDED: &str = "Forwarded";
const X_FORWARDED_FOR: &str = "X-Forwarded-For";
const X_FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const X_FORWARDED_HOST: &str = "X-Forwarded-Host";

/// Fields to which each proxy adds itself.
const LISTS: &[&str] = &[FORWARDED, X_FORWARDED_FOR];

/// Of the fields that are no standard, and of which there are more than these three.
const PREFIX: &str = "X-Forwarded-";

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a section, parsed as those of a head are.
    fn written(forwarded: &Forwarded, inbound: &str, host: Option<&str>) -> String {
        let section = format!("{inbound}\r\n");
        let mut room = [httparse::EMPTY_HEADER; 16];
        let httparse::Status::Complete((_, parsed)) =
            httparse::parse_headers(section.as_bytes(), &mut room).expect("good fields")
        else {
            panic!("the section has its end");
        };
        let fields = Fields::new(parsed);
        let mut out = Vec::new();
        for (name, value) in fields.iter() {
            if forwarded.passes(name) {
                write_field(&mut out, name, value);
            }
        }
        forwarded.write_to(&mut out, &fields, host);
        String::from_utf8(out).expect("the tests use ASCII")
    }

    fn of(user: &str) -> Forwarded {
        Forwarded {
            user: user.parse().expect("an address"),
            proto: Scheme::Http,
            trusted: false,
        }
    }

    fn trusted(user: &str) -> Forwarded {
        Forwarded {
            trusted: true,
            ..of(user)
        }
    }

    #[test]
    fn an_origin_is_told_address_protocol_and_host() {
        for (user, host, expected) in [
            (
                "192.0.2.43",
                Some("a.example"),
                "X-Forwarded-For: 192.0.2.43\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: a.example\r\n\
                 Forwarded: for=192.0.2.43;host=a.example;proto=http\r\n",
            ),
            (
                "2001:db8:cafe::17",
                Some("a.example:8080"),
                "X-Forwarded-For: 2001:db8:cafe::17\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: a.example:8080\r\n\
                 Forwarded: for=\"[2001:db8:cafe::17]\";host=\"a.example:8080\";proto=http\r\n",
            ),
            (
                "::1",
                Some("[::1]"),
                "X-Forwarded-For: ::1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: [::1]\r\n\
                 Forwarded: for=\"[::1]\";host=\"[::1]\";proto=http\r\n",
            ),
            (
                "192.0.2.43",
                None,
                "X-Forwarded-For: 192.0.2.43\r\nX-Forwarded-Proto: http\r\n\
                 Forwarded: for=192.0.2.43;proto=http\r\n",
            ),
        ] {
            assert_eq!(written(&of(user), "", host), expected);
            assert_eq!(written(&trusted(user), "", host), expected);
        }
    }

    #[test]
    fn what_a_user_says_of_itself_is_forged() {
        let forged = "X-Forwarded-For: 127.0.0.1\r\nx-forwarded-for: 127.0.0.2\r\n\
                      X-FORWARDED-PROTO: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 443\r\n\
                      X-Forwarded-Prefix: /admin\r\nX-Forwarded-Client-Cert: x\r\n\
                      forwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX_Forwarded_For: 127.0.0.1\r\n\
                      x-forwarded_host: evil\r\nX_Real-IP: 127.0.0.1\r\n";
        let own = written(&of("192.0.2.43"), "", Some("a"));
        assert_eq!(written(&of("192.0.2.43"), forged, Some("a")), own);
        let others = "X-Forwarded: 1\r\nX-Forward-For: 1\r\nForwarded-For: 1\r\nX-Real-IPs: 1\r\n";
        assert_eq!(
            written(&of("192.0.2.43"), others, Some("a")),
            format!("{others}{own}")
        );
    }

    #[test]
    fn a_trusted_proxy_is_passed_on_with_ours_behind_it() {
        let inbound = "X-Forwarded-For: 198.51.100.7, 10.0.0.1\r\nX-Real-IP: 198.51.100.7\r\n\
                       x-forwarded-for: 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\
                       Forwarded: for=\"[2001:db8::1]:4711\";by=_a\r\nX-Forwarded-Host: a.example\r\n\
                       Forwarded:\r\nforwarded: for=10.0.0.2\r\nX-Forwarded-Port: 443\r\n";
        assert_eq!(
            written(&trusted("10.0.0.3"), inbound, Some("b.example")),
            "X-Real-IP: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n\
             X-Forwarded-Port: 443\r\n\
             X-Forwarded-For: 198.51.100.7, 10.0.0.1, 10.0.0.2, 10.0.0.3\r\n\
             Forwarded: for=\"[2001:db8::1]:4711\";by=_a, for=10.0.0.2, \
             for=10.0.0.3;host=b.example;proto=http\r\n"
        );
        assert_eq!(
            written(
                &trusted("10.0.0.3"),
                "X-Forwarded-Proto: https\r\n",
                Some("b")
            ),
            "X-Forwarded-Proto: https\r\nX-Forwarded-For: 10.0.0.3\r\nX-Forwarded-Host: b\r\n\
             Forwarded: for=10.0.0.3;host=b;proto=http\r\n"
        );
    }

    #[test]
    fn an_open_quote_does_not_swallow_our_element() {
        for (open, passes) in [
            ("for=\"x", false),
            ("for=\"x\\\"", false),
            ("for=\"x\\", false),
            ("for=\"x\\\"\"", true),
            ("for=\"a\";by=\"b\"", true),
            ("for=a\\", true),
        ] {
            let inbound = format!("Forwarded: {open}\r\n");
            let all = written(&trusted("10.0.0.3"), &inbound, None);
            let list = all.lines().last().expect("a list is always written");
            let own = "for=10.0.0.3;proto=http";
            let expected = if passes {
                format!("Forwarded: {open}, {own}")
            } else {
                format!("Forwarded: {own}")
            };
            assert_eq!(list, expected);
        }
    }
}
