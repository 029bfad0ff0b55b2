//! How a link begins: the HTTP upgrade to a WebSocket (RFC 6455 §4), with a nonce of each side.
//!
//! Pure text in, text out. The listener that takes it may also be asked by people and balancers, so
//! what is not an upgrade gets an answer that says what this is.

use std::{fmt, time::Duration};

use tungstenite::handshake::{client::generate_key, derive_accept_key};

use crate::{
    date::Date,
    http::{Asked, HeadLimits, Kind, Request, RequestTarget, Response, Version, phrase},
    tunnel::proof::{Nonce, from_hex, to_hex},
};

/// The WebSocket subprotocol, which is the version of the tunnel protocol.
pub const SUBPROTOCOL: &str = "siding.1";

/// Bounds of an upgrade's head, either way: what is needed, and what balancers add to it.
pub const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes: 4 * 1024,
    fields: 64,
    line: 4 * 1024,
};

const NONCE_FIELD: &str = "Siding-Nonce";

/// What the client has asked with, to be kept until the answer comes.
#[derive(Debug)]
pub struct Asking {
    key: String,
}

impl Asking {
    /// The request for `host` (as in the `Host` field) and `path`, and what its answer must match. The
    /// other fields are for whoever stands before the server; they are as good as what is written here.
    pub fn new<'a>(
        host: &str,
        path: &str,
        fields: impl Iterator<Item = (&'a str, &'a str)>,
        nonce: &Nonce,
    ) -> (Asking, String) {
        let key = generate_key();
        let mut request = format!(
            "GET {path} HTTP/1.1\r\n\
             Host: {host}\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
             {NONCE_FIELD}: {}\r\n",
            to_hex(nonce)
        );
        for (name, value) in fields {
            for part in [name, ": ", value, "\r\n"] {
                request.push_str(part);
            }
        }
        request.push_str("\r\n");
        (Asking { key }, request)
    }

    /// The server's nonce.
    ///
    /// # Errors
    /// The answer is no upgrade, or not by a siding server.
    pub fn answered(&self, head: &[u8]) -> Result<Nonce, NotUpgraded> {
        let asked = Asked {
            head: false,
            version: Version::Http11,
            upgrade: true,
            keep_alive: true,
            connection_auth: false,
        };
        let response = Response::parse(head, &asked, &HEAD_LIMITS)
            .map_err(|bad| NotUpgraded::NoServer(bad.reason))?;
        if response.kind != Kind::Switching {
            let text = one(response.fields.values(REASON_FIELD)).unwrap_or_default();
            return Err(NotUpgraded::Refused(response.status, text.to_owned()));
        }
        if one(response.fields.values("Sec-WebSocket-Accept"))
            != Some(&*derive_accept_key(self.key.as_bytes()))
        {
            return Err(NotUpgraded::NoServer("wrong Sec-WebSocket-Accept"));
        }
        if one(response.fields.values("Sec-WebSocket-Protocol")) != Some(SUBPROTOCOL) {
            return Err(NotUpgraded::NoServer("it does not speak siding.1"));
        }
        // RFC 6455 §4.1: none was offered.
        if response
            .fields
            .values("Sec-WebSocket-Extensions")
            .next()
            .is_some()
        {
            return Err(NotUpgraded::NoServer("it wants an extension"));
        }
        one(response.fields.values(NONCE_FIELD))
            .and_then(nonce)
            .ok_or(NotUpgraded::NoServer("its answer has no nonce"))
    }
}

/// Why a server's answer is not the beginning of a link.
#[derive(Debug, PartialEq, Eq)]
pub enum NotUpgraded {
    /// It answered with this status and, if it is a siding server, its reason.
    Refused(u16, String),
    /// What answered is no siding server.
    NoServer(&'static str),
}

impl fmt::Display for NotUpgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotUpgraded::Refused(status, text) if text.is_empty() => {
                write!(f, "answered {status} {}", phrase(*status))
            }
            NotUpgraded::Refused(status, text) => write!(f, "answered {status}: {text}"),
            NotUpgraded::NoServer(why) => write!(f, "this is no siding server: {why}"),
        }
    }
}

/// An upgrade request that is right.
#[derive(Debug)]
pub struct Upgrade {
    accept: String,
    /// The client's nonce.
    pub nonce: Nonce,
}

impl Upgrade {
    /// Checks a request.
    ///
    /// # Errors
    /// It is not what a siding client sends: the status and text to answer with.
    pub fn parse(head: &[u8]) -> Result<Upgrade, (u16, &'static str)> {
        let request = Request::parse(head, &HEAD_LIMITS)
            .map_err(|refused| (refused.status, refused.reason))?;
        let websocket = request.upgrade
            && one(request.field("Upgrade"))
                .is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
        if !websocket {
            return Err((
                426,
                "this is a siding server: it speaks WebSocket, subprotocol siding.1",
            ));
        }
        if request.method != "GET" || !matches!(request.target, RequestTarget::Origin(_)) {
            return Err((400, "a WebSocket begins with GET"));
        }
        if one(request.field("Sec-WebSocket-Version")) != Some("13") {
            return Err((426, "WebSocket version 13 expected"));
        }
        let offered = request.field("Sec-WebSocket-Protocol").any(|value| {
            value
                .split(|byte| *byte == b',')
                .any(|word| word.trim_ascii() == SUBPROTOCOL.as_bytes())
        });
        if !offered {
            return Err((400, "this server speaks the subprotocol siding.1"));
        }
        // RFC 6455 §4.2.1: 16 bytes in base64 are 24 characters.
        let key = one(request.field("Sec-WebSocket-Key"))
            .filter(|key| key.len() == 24)
            .ok_or((400, "malformed Sec-WebSocket-Key"))?;
        let nonce = one(request.field(NONCE_FIELD))
            .and_then(nonce)
            .ok_or((400, "malformed Siding-Nonce"))?;
        Ok(Upgrade {
            accept: derive_accept_key(key.as_bytes()),
            nonce,
        })
    }

    /// The answer that accepts it.
    pub fn accept(&self, nonce: &Nonce) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\n\
             Connection: Upgrade\r\n\
             Upgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
             {NONCE_FIELD}: {}\r\n\r\n",
            self.accept,
            to_hex(nonce)
        )
    }
}

/// The answer that refuses a request, for people and for clients, `unix` after the Unix epoch.
pub fn refuse(status: u16, reason: &str, unix: Duration) -> String {
    let body = format!("{reason}\n");
    let upgrade = if status == 426 {
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {status} {}\r\n\
         Date: {}\r\n\
         Connection: close\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         {upgrade}{REASON_FIELD}: {reason}\r\n\r\n{body}",
        phrase(status),
        Date::at(unix),
        body.len()
    )
}

/// Tells a client in one line what the body tells a person.
const REASON_FIELD: &str = "Siding-Reason";

/// The one value of a field; `None` when there are more, or it is not text.
fn one<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<&'a str> {
    let value = values.next()?;
    if values.next().is_some() {
        None
    } else {
        std::str::from_utf8(value).ok()
    }
}

fn nonce(text: &str) -> Option<Nonce> {
    let mut nonce = Nonce::default();
    from_hex(text, &mut nonce).then_some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_a_server_agree() {
        let (asking, request) = Asking::new("127.0.0.1:7000", "/", [].into_iter(), &[1; 32]);
        let upgrade = Upgrade::parse(request.as_bytes()).unwrap();
        assert_eq!(upgrade.nonce, [1; 32]);
        assert_eq!(
            asking.answered(upgrade.accept(&[2; 32]).as_bytes()),
            Ok([2; 32])
        );
    }

    #[test]
    fn what_a_gateway_wants_to_see_stands_beside_what_the_upgrade_says() {
        let fields = [("X-Edge", "1"), ("Authorization", "Bearer x y")];
        let (_, request) = Asking::new("h", "/tunnel", fields.into_iter(), &[1; 32]);
        assert!(request.ends_with("\r\nX-Edge: 1\r\nAuthorization: Bearer x y\r\n\r\n"));
        assert!(Upgrade::parse(request.as_bytes()).is_ok());
    }

    /// The longest that a configuration allows, each of them.
    #[test]
    fn a_server_reads_the_longest_upgrade_there_is() {
        let host = format!(
            "{}.{}.{}.{}:65535",
            "a".repeat(63),
            "a".repeat(63),
            "a".repeat(63),
            "a".repeat(61)
        );
        let path = format!("/{}", "p".repeat(1023));
        let value = "v".repeat(2048 - 4 - 1);
        let (_, request) = Asking::new(&host, &path, [("a", &*value)].into_iter(), &[1; 32]);
        assert!(request.len() <= HEAD_LIMITS.bytes, "{}", request.len());
        assert!(Upgrade::parse(request.as_bytes()).is_ok());
    }

    #[test]
    fn another_server_is_told_apart() {
        let (asking, request) = Asking::new("h", "/", [].into_iter(), &[1; 32]);
        let good = Upgrade::parse(request.as_bytes()).unwrap().accept(&[2; 32]);
        for (from, to) in [
            ("Siding-Nonce", "Other"),
            ("siding.1", "chat"),
            ("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: x"),
        ] {
            let bad = good.replace(from, to);
            assert!(
                matches!(
                    asking.answered(bad.as_bytes()),
                    Err(NotUpgraded::NoServer(_))
                ),
                "{bad}"
            );
        }
        let refused = refuse(400, "malformed Siding-Nonce", Duration::ZERO)
            .replace("malformed Siding-Nonce\n", "");
        assert_eq!(
            asking.answered(refused.as_bytes()),
            Err(NotUpgraded::Refused(400, "malformed Siding-Nonce".into()))
        );
    }

    #[test]
    fn what_is_no_upgrade_gets_a_status() {
        let (_, good) = Asking::new("h", "/", [].into_iter(), &[1; 32]);
        let cases = [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 426),
            (good.replace("siding.1", "siding.2"), 400),
            (good.replace("Version: 13", "Version: 8"), 426),
            (good.replace("GET", "POST"), 400),
            (good.replace("Siding-Nonce: 01", "Siding-Nonce: 0x"), 400),
            (
                good.replace("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: short"),
                400,
            ),
            ("nonsense\r\n\r\n".to_owned(), 400),
        ];
        for (request, status) in cases {
            assert_eq!(
                Upgrade::parse(request.as_bytes()).unwrap_err().0,
                status,
                "{request}"
            );
        }
    }
}
