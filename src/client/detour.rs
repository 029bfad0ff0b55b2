//! To the server through an HTTP proxy: CONNECT, and what it is answered with (RFC 9110 §9.3.6).
//!
//! ```text
//!   dial the proxy --> CONNECT --2xx--> TLS, if it is wss --> upgrade
//! ```
//!
//! Owns one such question. It knows no socket and no deadline: the dial lends the one and has the other. The
//! proxy looks the server's name up; the client never does.

use std::io;

use crate::{
    config::{ProxyUrl, Target},
    http::{Asked, Gather, Gathered, HeadLimits, Kind, Response, Version, phrase},
    tunnel::control::Reason,
};

/// A server, and the proxy through which it is asked for.
pub(super) struct Detour {
    proxy: ProxyUrl,
    server: Target,
    gather: Gather,
    interims: usize,
}

/// What the proxy has said.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Answer {
    /// Not all of it yet.
    Partial,
    /// The connection leads to the server now, which has said this much already.
    Open(Vec<u8>),
    /// No, or nothing that makes sense; and that in words.
    Refused(Reason, String),
}

impl Detour {
    pub fn new(proxy: &ProxyUrl, server: &Target) -> Self {
        Self {
            proxy: proxy.clone(),
            server: server.clone(),
            gather: Gather::default(),
            interims: 0,
        }
    }

    pub fn proxy(&self) -> &ProxyUrl {
        &self.proxy
    }

    /// What to send when the proxy is connected. It holds a secret.
    pub fn request(&self) -> String {
        let server = &self.server;
        let authorization = match self.proxy.authorization() {
            Some(credentials) => format!("Proxy-Authorization: {credentials}\r\n"),
            None => String::new(),
        };
        format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n{authorization}\r\n")
    }

    /// Reads the answer, as far as it has come.
    pub fn answer(
        &mut self,
        scratch: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Answer {
        let mut behind = Vec::new();
        loop {
            // An interim answer may have come in one read with what follows it.
            let mut waiting = std::mem::take(&mut behind);
            let gathered = self.gather.read(scratch, LIMITS.bytes, |into| {
                if waiting.is_empty() {
                    return read(into);
                }
                let length = waiting.len().min(into.len());
                into[..length].copy_from_slice(&waiting[..length]);
                waiting.drain(..length);
                Ok(length)
            });
            let (bytes, head) = match gathered {
                Gathered::Partial => return Answer::Partial,
                Gathered::Head { bytes, head } => (bytes, head),
                Gathered::TooLong(_) => {
                    return Answer::Refused(Reason::BadResponse, "its answer is too long".into());
                }
                Gathered::Ended => {
                    let why = "closed before its answer".into();
                    return Answer::Refused(Reason::Unreachable, why);
                }
                Gathered::Failed(error) => {
                    return Answer::Refused(Reason::Unreachable, error.to_string());
                }
            };
            let response = match Response::parse(&bytes[..head], &ASKED, &LIMITS) {
                Ok(response) => response,
                Err(bad) => {
                    let why = format!("this is no HTTP proxy: {}", bad.reason);
                    return Answer::Refused(Reason::BadResponse, why);
                }
            };
            behind = bytes[head..].to_vec();
            behind.extend_from_slice(&waiting);
            match (response.kind, response.status) {
                (Kind::Interim, _) if self.interims < INTERIMS_MAX => self.interims += 1,
                (Kind::Final, 200..=299) => return Answer::Open(behind),
                (_, status) => return self.refused(status, response.phrase),
            }
        }
    }

    fn refused(&self, status: u16, said: &str) -> Answer {
        let said = if said.is_empty() {
            phrase(status)
        } else {
            said
        };
        let said: String = said.chars().take(PHRASE_SHOWN_MAX).collect();
        let hint = match (status, self.proxy.authorization()) {
            (407, None) => "; its URL has no user and password",
            (407, Some(_)) => "; it does not take this user and password by Basic",
            _ => "",
        };
        let reason = match status {
            401 | 403 | 407 => Reason::NotAllowed,
            _ => Reason::Unreachable,
        };
        Answer::Refused(
            reason,
            format!("answered {status} {}{hint}", said.escape_debug()),
        )
    }
}

/// What decides how the answer is read.
const ASKED: Asked = Asked {
    head: false,
    version: Version::Http11,
    upgrade: false,
    keep_alive: true,
    connection_auth: false,
};

/// A proxy that refuses says more than one that does not: several challenges, and where its page came from.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 16 * 1024,
    fields: 100,
    line: 4 * 1024,
};

/// One is more than any proxy sends.
const INTERIMS_MAX: usize = 4;

/// Of a reason phrase, which is meant for people, and which a log has to hold.
const PHRASE_SHOWN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn detour(proxy: &str) -> Detour {
        let server = "edge.example.com:443".parse().unwrap();
        Detour::new(&proxy.parse().unwrap(), &server)
    }

    /// The answer to a CONNECT that comes in pieces of `sizes`, a "would block" after each, and then the end.
    fn answered(detour: &mut Detour, input: &[u8], sizes: usize) -> Answer {
        let mut scratch = vec![0; 16 * 1024];
        let mut at = 0;
        loop {
            let mut pieces = Some(&input[at..input.len().min(at + sizes)]);
            let answer = detour.answer(&mut scratch, |into| match pieces.take() {
                Some(piece) => {
                    into[..piece.len()].copy_from_slice(piece);
                    at += piece.len();
                    Ok(piece.len())
                }
                None => Err(io::ErrorKind::WouldBlock.into()),
            });
            match answer {
                Answer::Partial => {}
                Answer::Open(mut behind) => {
                    behind.extend_from_slice(&input[at..]);
                    return Answer::Open(behind);
                }
                refused => return refused,
            }
        }
    }

    #[test]
    fn the_request_names_the_server_and_proves_who_asks() {
        assert_eq!(
            detour("http://proxy").request(),
            "CONNECT edge.example.com:443 HTTP/1.1\r\nHost: edge.example.com:443\r\n\r\n"
        );
        assert_eq!(
            detour("http://Aladdin:open%20sesame@proxy").request(),
            "CONNECT edge.example.com:443 HTTP/1.1\r\nHost: edge.example.com:443\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[test]
    fn whatever_follows_the_answer_is_the_servers() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200 Connection established\r\n\r\n",
            "HTTP/1.1 204\r\nX: y\r\n\r\n",
            // RFC 9110 §9.3.6: of no meaning here.
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            let input = [head.as_bytes(), b"from the server"].concat();
            for sizes in 1..=input.len() {
                assert_eq!(
                    answered(&mut detour("http://proxy"), &input, sizes),
                    Answer::Open(b"from the server".to_vec()),
                    "{head:?} in pieces of {sizes}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_status_and_in_printable_words() {
        let long = format!("HTTP/1.1 503 {}\r\n\r\n", "x".repeat(5000));
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(16 * 1024));
        let interims = "HTTP/1.1 100 Continue\r\n\r\n".repeat(5);
        for (proxy, input, reason, expected) in [
            (
                "http://proxy",
                "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nno\n",
                Reason::NotAllowed,
                "answered 407 Proxy Authentication Required; its URL has no user and password",
            ),
            (
                "http://u:secret@proxy",
                "HTTP/1.1 407\r\n\r\n",
                Reason::NotAllowed,
                "answered 407 Proxy Authentication Required; it does not take this user",
            ),
            (
                "http://proxy",
                "HTTP/1.1 403 Not\there\r\n\r\n",
                Reason::NotAllowed,
                "answered 403 Not\\there",
            ),
            (
                "http://proxy",
                "HTTP/1.1 502 \r\n\r\n",
                Reason::Unreachable,
                "answered 502 Bad Gateway",
            ),
            (
                "http://proxy",
                &long,
                Reason::Unreachable,
                "answered 503 xxxx",
            ),
            (
                "http://proxy",
                "HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n",
                Reason::Unreachable,
                "302",
            ),
            (
                "http://proxy",
                "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                Reason::BadResponse,
                "no HTTP proxy",
            ),
            (
                "http://proxy",
                &interims,
                Reason::Unreachable,
                "answered 100",
            ),
            ("http://proxy", &endless, Reason::BadResponse, "too long"),
            (
                "http://proxy",
                "SSH-2.0-OpenSSH\r\n\r\n",
                Reason::BadResponse,
                "no HTTP proxy",
            ),
            (
                "http://proxy",
                "\u{5}\u{0}\n\n",
                Reason::BadResponse,
                "no HTTP proxy",
            ),
            (
                "http://proxy",
                "",
                Reason::Unreachable,
                "closed before its answer",
            ),
            (
                "http://proxy",
                "HTTP/1.1 200 OK\r\n",
                Reason::Unreachable,
                "closed before its answer",
            ),
        ] {
            for sizes in [1, 7, 1000] {
                let answer = answered(&mut detour(proxy), input.as_bytes(), sizes);
                let Answer::Refused(told, why) = answer else {
                    panic!("{input:?}: {answer:?}");
                };
                assert_eq!(told, reason, "{input:?}");
                assert!(why.contains(expected), "{input:?}: {why}");
                assert!(why.len() < 200 && !why.contains("secret"), "{why}");
            }
        }
    }
}
