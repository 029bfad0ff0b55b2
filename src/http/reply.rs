//! The answers that we write ourselves: an error in one line, and CONNECT's success.
//!
//! Knows nothing of why an error is answered; status and reason come from whoever refused.

use super::fields::{write_field, write_length};

/// What a user gets whose CONNECT reached its target (RFC 9110 §9.3.6): no fields, since a length
/// or a coding would be ignored, and what follows is the tunnel.
pub const CONNECT_ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Bytes of a reason that are shown: a sentence; reasons may hold names that a peer chose.
pub const REASON_MAX: usize = 256;

/// Appends a whole error response to `out`: one line of plain text that says `reason`.
///
/// `close` adds `Connection: close`; `head_only` leaves the body out, for an answer to HEAD (its
/// length is still given, RFC 9110 §9.3.2). Of `reason`, visible ASCII and spaces are kept, any
/// other byte becomes `?`, and it is cut at [`REASON_MAX`].
pub fn error_reply(out: &mut Vec<u8>, status: u16, reason: &str, close: bool, head_only: bool) {
    let phrase = phrase(status);
    let mut body = format!("{status} {phrase}").into_bytes();
    if !reason.is_empty() {
        body.extend_from_slice(b": ");
        body.extend(reason.bytes().take(REASON_MAX).map(|byte| match byte {
            b' '..=b'~' => byte,
            _ => b'?',
        }));
    }
    body.push(b'\n');

    out.extend_from_slice(format!("HTTP/1.1 {status} {phrase}\r\n").as_bytes());
    write_field(out, "Content-Type", b"text/plain; charset=utf-8");
    write_length(out, body.len() as u64);
    if close {
        write_field(out, "Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(&body);
    }
}

/// The reason phrase of a status that siding may answer with itself (RFC 9110 §15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Asked, Framing, HeadLimits, Response, Version, head_end};

    const STATUSES: [u16; 15] = [
        400, 403, 404, 405, 408, 413, 414, 417, 431, 500, 501, 502, 503, 504, 505,
    ];

    fn reply(status: u16, reason: &str, close: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        error_reply(&mut out, status, reason, close, head_only);
        String::from_utf8(out).expect("replies are ASCII")
    }

    #[test]
    fn an_error_is_one_line_of_text_with_its_length() {
        assert_eq!(
            reply(502, "connection refused", true, false),
            "HTTP/1.1 502 Bad Gateway\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 36\r\n\
             Connection: close\r\n\
             \r\n\
             502 Bad Gateway: connection refused\n"
        );
        assert_eq!(
            reply(404, "", false, false),
            "HTTP/1.1 404 Not Found\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 14\r\n\
             \r\n\
             404 Not Found\n"
        );
    }

    #[test]
    fn an_answer_to_head_gives_the_length_and_no_body() {
        let with_body = reply(504, "dial", true, false);
        let without = reply(504, "dial", true, true);
        assert!(without.ends_with("\r\n\r\n"));
        assert!(with_body.starts_with(&without));
    }

    #[test]
    fn a_reason_cannot_smuggle_lines_or_grow() {
        let hostile = "a\r\nSet-Cookie: x\r\n\r\n<b>\u{e9}\0";
        let reply = reply(502, &hostile.repeat(100), true, false);
        let (head, body) = reply.split_once("\r\n\r\n").expect("one blank line");
        assert!(!head.contains("Cookie"));
        assert_eq!(body.matches('\n').count(), 1);
        assert!(body.len() <= REASON_MAX + 24);
    }

    #[test]
    fn every_answer_is_a_response_that_we_would_forward() {
        let asked = Asked {
            head: false,
            version: Version::Http11,
            upgrade: false,
            keep_alive: true,
            connection_auth: false,
        };
        for status in STATUSES {
            assert_ne!(phrase(status), "Error", "{status}");
            let text = reply(status, "reason", true, false);
            let end = head_end(text.as_bytes(), 0).expect("a whole head");
            let response = Response::parse(&text.as_bytes()[..end], &asked, &HeadLimits::default())
                .expect("a good response");
            assert_eq!(response.status, status);
            assert_eq!(response.framing, Framing::Length((text.len() - end) as u64));
        }
    }
}
