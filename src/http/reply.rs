//! The answers that we write ourselves: an error in one line, CONNECT's success, and the answer to a
//! request that may go no further.
//!
//! Knows nothing of why an error is answered; status and reason come from whoever refused.

use std::time::Duration;

use super::{
    fields::{write_date, write_field, write_length},
    request::Request,
};

/// What a user gets whose CONNECT reached its target (RFC 9110 §9.3.6): no fields, since a length
/// or a coding would be ignored, and what follows is the tunnel.
pub const CONNECT_ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Bytes of a reason that are shown: a sentence; reasons may hold names that a peer chose.
pub const REASON_MAX: usize = 256;

/// Appends a whole error response to `out`: one line of plain text that says `reason`.
///
/// `close` adds `Connection: close`; `head_only` leaves the body out, for an answer to HEAD (its
/// length is still given, RFC 9110 §9.3.2). Of `reason`, visible ASCII and spaces are kept, any
/// other byte becomes `?`, and it is cut at [`REASON_MAX`]. It is `unix` after the Unix epoch.
pub fn error_reply(
    out: &mut Vec<u8>,
    status: u16,
    reason: &str,
    close: bool,
    head_only: bool,
    unix: Duration,
) {
    reply(out, status, reason, None, close, head_only, unix);
}

/// As [`error_reply`], to who may not come in: 401 and 407 say what is asked for (RFC 7617 §2), 429 when
/// to come back, which is in `wait`.
pub fn denial(
    out: &mut Vec<u8>,
    status: u16,
    wait: Duration,
    close: bool,
    head_only: bool,
    unix: Duration,
) {
    let challenge = || "Basic realm=\"siding\", charset=\"UTF-8\"".to_owned();
    let (reason, name, value) = match status {
        401 => (
            "a name and a password are needed",
            "WWW-Authenticate",
            challenge(),
        ),
        407 => (
            "the proxy needs a name and a password",
            "Proxy-Authenticate",
            challenge(),
        ),
        _ => (
            "too many wrong passwords",
            "Retry-After",
            (wait.as_secs() + 1).to_string(),
        ),
    };
    let field = Some((name, value.as_str()));
    reply(out, status, reason, field, close, head_only, unix);
}

fn reply(
    out: &mut Vec<u8>,
    status: u16,
    reason: &str,
    field: Option<(&str, &str)>,
    close: bool,
    head_only: bool,
    unix: Duration,
) {
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

    let kind = Some("text/plain; charset=utf-8");
    let length = Some(body.len());
    write_head(out, status, kind, length, field.as_slice(), close, unix);
    if !head_only {
        out.extend_from_slice(&body);
    }
}

/// Appends a whole response with a page of ours, or without one ([`None`], which is for 204, too). `fields` are
/// further ones; `head_only` leaves the page out, for an answer to HEAD.
pub fn page(
    out: &mut Vec<u8>,
    status: u16,
    page: Option<(&str, &[u8])>,
    fields: &[(&str, &str)],
    close: bool,
    head_only: bool,
    unix: Duration,
) {
    // RFC 9110 §8.6: 204 has no length.
    let length = match page {
        Some((_, content)) => Some(content.len()),
        None => (status != 204).then_some(0),
    };
    // What is told is told of this moment, and is what it says it is, whoever shows it.
    let ours = [
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ];
    let fields = [&ours[..], fields].concat();
    let kind = page.map(|(kind, _)| kind);
    write_head(out, status, kind, length, &fields, close, unix);
    if let (Some((_, content)), false) = (page, head_only) {
        out.extend_from_slice(content);
    }
}

/// Appends the answer to whoever has asked nothing yet and is not going to be heard; `wait` is when to come
/// back. Without a body it is right for any method, HEAD included.
pub fn turned_away(out: &mut Vec<u8>, status: u16, wait: Option<Duration>, unix: Duration) {
    let wait = wait.map(|wait| (wait.as_secs() + 1).to_string());
    let field = wait.as_deref().map(|wait| ("Retry-After", wait));
    write_head(out, status, None, Some(0), field.as_slice(), true, unix);
}

/// Appends the answer to a request whose `Max-Forwards` has come to 0, as its final recipient: to
/// TRACE the request as it was received, less what is secret (RFC 9110 §9.3.8), to OPTIONS nothing
/// (§9.3.7). The connection closes after it: whatever of a body follows is not read.
pub fn end_of_forwarding(out: &mut Vec<u8>, request: &Request<'_>, unix: Duration) {
    if request.method != "TRACE" {
        return write_head(out, 200, None, Some(0), &[], true, unix);
    }
    let mut received = Vec::new();
    request.reflect(&mut received);
    let kind = Some("message/http");
    let length = Some(received.len());
    write_head(out, 200, kind, length, &[], true, unix);
    out.extend_from_slice(&received);
}

fn write_head(
    out: &mut Vec<u8>,
    status: u16,
    content_type: Option<&str>,
    length: Option<usize>,
    fields: &[(&str, &str)],
    close: bool,
    unix: Duration,
) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", phrase(status)).as_bytes());
    write_date(out, unix);
    if let Some(kind) = content_type {
        write_field(out, "Content-Type", kind.as_bytes());
    }
    if let Some(length) = length {
        write_length(out, length as u64);
    }
    for (name, value) in fields {
        write_field(out, name, value.as_bytes());
    }
    if close {
        write_field(out, "Connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status that siding may answer with itself (RFC 9110 §15).
pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
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

    /// The example of RFC 9110 §5.6.7.
    const UNIX: Duration = Duration::from_secs(784_111_777);

    fn reply(status: u16, reason: &str, close: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        error_reply(&mut out, status, reason, close, head_only, UNIX);
        String::from_utf8(out).expect("replies are ASCII")
    }

    #[test]
    fn an_error_is_one_line_of_text_with_its_length() {
        assert_eq!(
            reply(502, "connection refused", true, false),
            "HTTP/1.1 502 Bad Gateway\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 36\r\n\
             Connection: close\r\n\
             \r\n\
             502 Bad Gateway: connection refused\n"
        );
        assert_eq!(
            reply(404, "", false, false),
            "HTTP/1.1 404 Not Found\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
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
    fn a_denial_says_what_would_help() {
        let denial = |status, close, head_only| {
            let mut out = Vec::new();
            let wait = Duration::from_millis(58_500);
            denial(&mut out, status, wait, close, head_only, UNIX);
            String::from_utf8(out).expect("replies are ASCII")
        };
        assert_eq!(
            denial(401, false, false),
            "HTTP/1.1 401 Unauthorized\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 51\r\n\
             WWW-Authenticate: Basic realm=\"siding\", charset=\"UTF-8\"\r\n\
             \r\n\
             401 Unauthorized: a name and a password are needed\n"
        );
        let proxy = denial(407, true, true);
        assert!(proxy.contains("\r\nProxy-Authenticate: Basic realm=\"siding\", charset"));
        assert!(proxy.ends_with("\r\nConnection: close\r\n\r\n"), "{proxy}");
        let later = denial(429, true, false);
        assert!(later.contains("\r\nRetry-After: 59\r\n"), "{later}");
    }

    #[test]
    fn a_page_has_its_kind_its_length_and_no_cache() {
        let written = |status, content: Option<(&str, &[u8])>, head_only| {
            let mut out = Vec::new();
            page(&mut out, status, content, &[], false, head_only, UNIX);
            String::from_utf8(out).expect("pages are ASCII")
        };
        let head = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                    Content-Type: text/plain\r\nContent-Length: 3\r\nCache-Control: no-store\r\n\
                    X-Content-Type-Options: nosniff\r\n\r\n";
        let content = Some(("text/plain", &b"ok\n"[..]));
        assert_eq!(written(200, content, false), format!("{head}ok\n"));
        assert_eq!(written(200, content, true), head);
        let done = written(204, None, false);
        assert!(done.starts_with("HTTP/1.1 204 No Content\r\n") && !done.contains("Length"));
    }

    fn last(head: &str) -> String {
        let request = Request::parse(head.as_bytes(), &HeadLimits::default()).expect("a request");
        assert_eq!(request.max_forwards, Some(0));
        let mut out = Vec::new();
        end_of_forwarding(&mut out, &request, UNIX);
        String::from_utf8(out).expect("the tests use ASCII")
    }

    #[test]
    fn trace_is_answered_with_what_was_received_less_its_secrets() {
        let received = "TRACE http://a.example:80/x?y HTTP/1.1\r\nhost: b\r\nMax-Forwards: 0\r\n\
                        Via: 1.1 other\r\nX-A: \u{e9}\r\nConnection: x-hop\r\nX-Hop: 1\r\n";
        let secret = "Authorization: Basic x\r\nCOOKIE: a=b\r\nProxy-authorization: Basic y\r\n";
        assert_eq!(
            last(&format!("\r\n{received}{secret}\r\n")),
            format!(
                "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 Content-Type: message/http\r\nContent-Length: {}\r\nConnection: close\r\n\r\n\
                 {received}\r\n",
                received.len() + 2
            )
        );
        assert!(
            last("TRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")
                .ends_with("\r\n\r\nTRACE / HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n")
        );
    }

    #[test]
    fn options_is_answered_with_nothing() {
        assert_eq!(
            last("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 00\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
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
