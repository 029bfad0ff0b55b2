use proptest::prelude::*;

use super::*;
use crate::http::{CONNECTION_OPTIONS_MAX, head_end};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 16 * 1024,
    fields: 100,
    line: 8 * 1024,
};

fn parse(head: &[u8]) -> Result<Request<'_>, Refused> {
    assert_eq!(
        head_end(head, 0),
        Some(head.len()),
        "{}",
        head.escape_ascii()
    );
    Request::parse(head, &LIMITS)
}

fn good(head: &str) -> Request<'_> {
    parse(head.as_bytes()).unwrap_or_else(|refused| panic!("{refused:?} for {head:?}"))
}

fn written(head: &str) -> String {
    edited(head, Edits::default())
}

fn edited(head: &str, edits: Edits<'_>) -> String {
    let mut out = Vec::new();
    good(head).write_to(&mut out, &edits);
    String::from_utf8(out).expect("the tests use ASCII")
}

/// A GET with these fields behind its Host.
fn with_fields(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn what_breaks_the_rules_is_refused_with_its_status() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let get = |fields: &str| with_fields(fields).into_bytes();
    let hosts = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes();
    let attacks: Vec<(&str, u16, Vec<u8>)> = vec![
        // Length (RFC 9112 §6).
        (
            "§6.1 CL and TE",
            400,
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "§6.1 TE and CL",
            400,
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ),
        (
            "§6.1 CL and an unknown TE",
            400,
            post("Content-Length: 5\r\nTransfer-Encoding: x\r\n"),
        ),
        (
            "§6.3 CL twice, equal",
            400,
            post("Content-Length: 5\r\nContent-Length: 5\r\n"),
        ),
        (
            "§6.3 CL twice, different",
            400,
            post("Content-Length: 5\r\ncontent-length: 6\r\n"),
        ),
        ("§6.3 CL as a list", 400, post("Content-Length: 5, 5\r\n")),
        ("§6.2 CL with a plus", 400, post("Content-Length: +5\r\n")),
        ("§6.2 CL with a minus", 400, post("Content-Length: -5\r\n")),
        (
            "§6.2 CL in hexadecimal",
            400,
            post("Content-Length: 0x5\r\n"),
        ),
        (
            "§6.2 CL with a blank inside",
            400,
            post("Content-Length: 5 5\r\n"),
        ),
        (
            "§6.2 CL with a fraction",
            400,
            post("Content-Length: 5.0\r\n"),
        ),
        ("§6.2 CL in quotes", 400, post("Content-Length: \"5\"\r\n")),
        ("§6.2 CL empty", 400, post("Content-Length:\r\n")),
        (
            "§6.2 CL of 2^63",
            400,
            post("Content-Length: 9223372036854775808\r\n"),
        ),
        (
            "§6.2 CL of 2^64",
            400,
            post("Content-Length: 18446744073709551616\r\n"),
        ),
        (
            "§6.2 CL in digits of another script",
            400,
            post("Content-Length: \u{0665}\r\n"),
        ),
        (
            "§6.1 unknown coding",
            501,
            post("Transfer-Encoding: gzip\r\n"),
        ),
        (
            "§6.1 unknown coding before chunked",
            501,
            post("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        (
            "§6.1 a name like chunked",
            501,
            post("Transfer-Encoding: xchunked\r\n"),
        ),
        (
            "§7 identity is no coding any more",
            501,
            post("Transfer-Encoding: identity\r\n"),
        ),
        (
            "§6.3 chunked is not last",
            400,
            post("Transfer-Encoding: chunked, gzip\r\n"),
        ),
        (
            "§6.1 chunked twice",
            400,
            post("Transfer-Encoding: chunked, chunked\r\n"),
        ),
        (
            "§6.1 TE twice",
            400,
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "§6.1 TE twice, one unknown",
            400,
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ),
        (
            "§7.1 chunked with a parameter",
            400,
            post("Transfer-Encoding: chunked;q=1\r\n"),
        ),
        (
            "§6.1 chunked in quotes",
            400,
            post("Transfer-Encoding: \"chunked\"\r\n"),
        ),
        (
            "§6.1 TE with an empty element",
            400,
            post("Transfer-Encoding: ,chunked\r\n"),
        ),
        (
            "§6.1 TE with an empty element behind",
            400,
            post("Transfer-Encoding: chunked,\r\n"),
        ),
        ("§6.1 TE empty", 400, post("Transfer-Encoding:\r\n")),
        (
            "§6.1 two words",
            400,
            post("Transfer-Encoding: chunked chunked\r\n"),
        ),
        (
            "§2.2 TE with a vertical tab",
            400,
            post("Transfer-Encoding: \x0bchunked\r\n"),
        ),
        (
            "§6.1 TE in HTTP/1.0",
            400,
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
        // Fields (RFC 9112 §5, RFC 9110 §5).
        ("§5.2 a folded line", 400, get("A: b\r\n c\r\n")),
        ("§5.2 a folded line with a tab", 400, get("A: b\r\n\tc\r\n")),
        (
            "§2.2 blank before the first field",
            400,
            hosts(" Host: a\r\n"),
        ),
        ("§5.1 blank before the colon", 400, get("A : b\r\n")),
        (
            "§5.1 tab before the colon",
            400,
            get("Content-Length\t: 5\r\n"),
        ),
        ("§5.1 no colon", 400, get("A\r\n")),
        ("9110 §5.1 no name", 400, get(": b\r\n")),
        ("9110 §5.1 no token", 400, get("A(b): c\r\n")),
        (
            "9110 §5.1 a name that is not ASCII",
            400,
            get("\u{e9}: c\r\n"),
        ),
        ("§2.2 a bare CR", 400, get("A: b\rc\r\n")),
        ("§2.2 a bare CR before CRLF", 400, get("A: b\r\r\n")),
        ("§2.2 a bare LF", 400, get("A: b\nContent-Length: 5\r\n")),
        ("9110 §5.5 NUL", 400, get("A: b\0c\r\n")),
        ("9110 §5.5 escape", 400, get("A: \x1b[2J\r\n")),
        ("9110 §5.5 DEL", 400, get("A: \x7f\r\n")),
        // Host (RFC 9112 §3.2).
        ("§3.2 no Host", 400, hosts("")),
        ("§3.2 two Hosts", 400, hosts("Host: a\r\nHost: a\r\n")),
        (
            "§3.2 two Hosts in HTTP/1.0",
            400,
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(),
        ),
        ("§3.2 an empty Host", 400, hosts("Host:\r\n")),
        ("§3.2 a Host with a path", 400, hosts("Host: a/b\r\n")),
        ("§3.2 a Host with a user", 400, hosts("Host: user@a\r\n")),
        ("§3.2 a Host list", 400, hosts("Host: a, b\r\n")),
        ("§3.2 a Host with a blank", 400, hosts("Host: a b\r\n")),
        (
            "§3.2 a Host with a port too large",
            400,
            hosts("Host: a:65536\r\n"),
        ),
        (
            "§3.2 a Host with a word for a port",
            400,
            hosts("Host: a:http\r\n"),
        ),
        (
            "§3.2 a Host with half an address",
            400,
            hosts("Host: [::1\r\n"),
        ),
        (
            "§3.2 a Host that is not ASCII",
            400,
            hosts("Host: b\u{fc}cher\r\n"),
        ),
        (
            "§3.2 a bad Host beside an absolute target",
            400,
            b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec(),
        ),
        // Request line (RFC 9112 §3).
        (
            "§3.1 a method that is no token",
            400,
            line("G@T / HTTP/1.1"),
        ),
        ("§3.1 no method", 400, line(" / HTTP/1.1")),
        ("§3 two blanks", 400, line("GET  / HTTP/1.1")),
        (
            "§3 two blanks before the version",
            400,
            line("GET /  HTTP/1.1"),
        ),
        ("§3 a tab", 400, line("GET\t/ HTTP/1.1")),
        (
            "§3 a blank behind the version",
            400,
            line("GET / HTTP/1.1 "),
        ),
        ("§3.2 a blank in the target", 400, line("GET /a b HTTP/1.1")),
        ("§3.2 no target", 400, line("GET HTTP/1.1")),
        (
            "§3.2 a target that is not ASCII",
            400,
            line("GET /\u{e9} HTTP/1.1"),
        ),
        ("§3.2 a fragment", 400, line("GET /a#b HTTP/1.1")),
        ("§3.2 a relative target", 400, line("GET a/b HTTP/1.1")),
        ("§3.2 a query alone", 400, line("GET ?a HTTP/1.1")),
        ("§3.2.2 another scheme", 400, line("GET ftp://a/ HTTP/1.1")),
        ("§3.2.2 no authority", 400, line("GET http:///a HTTP/1.1")),
        ("§3.2.2 no slashes", 400, line("GET http:a HTTP/1.1")),
        ("§3.2.2 a user", 400, line("GET http://user@a/ HTTP/1.1")),
        (
            "§3.2.2 a user and a password",
            400,
            line("GET http://u:p@a/ HTTP/1.1"),
        ),
        ("§3.2.2 a bad port", 400, line("GET http://a:x/ HTTP/1.1")),
        (
            "§3.2.2 a backslash for a slash",
            400,
            line("GET http://a\\@b/ HTTP/1.1"),
        ),
        (
            "§3.2.3 authority-form without CONNECT",
            400,
            line("GET a:80 HTTP/1.1"),
        ),
        (
            "§3.2.3 CONNECT in lower case",
            400,
            line("connect a:80 HTTP/1.1"),
        ),
        (
            "§3.2.3 CONNECT without a port",
            400,
            line("CONNECT a HTTP/1.1"),
        ),
        (
            "§3.2.3 CONNECT with an empty port",
            400,
            line("CONNECT a: HTTP/1.1"),
        ),
        (
            "§3.2.3 CONNECT to port 0",
            400,
            line("CONNECT a:0 HTTP/1.1"),
        ),
        ("§3.2.3 CONNECT to a path", 400, line("CONNECT / HTTP/1.1")),
        (
            "§3.2.3 CONNECT to a URI",
            400,
            line("CONNECT http://a:80 HTTP/1.1"),
        ),
        (
            "§3.2.3 CONNECT with a user",
            400,
            line("CONNECT u@a:80 HTTP/1.1"),
        ),
        (
            "§3.2.4 an asterisk without OPTIONS",
            400,
            line("GET * HTTP/1.1"),
        ),
        (
            "9110 §9.3.6 CONNECT with content",
            400,
            b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n".to_vec(),
        ),
        (
            "9110 §9.3.6 CONNECT with chunks",
            400,
            b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
        (
            "9110 §9.3.8 TRACE with content",
            400,
            b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".to_vec(),
        ),
        (
            "9110 §9.3.8 TRACE with chunks",
            400,
            b"TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
        // Version (RFC 9112 §2.3).
        ("§2.3 HTTP/2.0", 505, line("GET / HTTP/2.0")),
        ("§2.3 HTTP/1.2", 505, line("GET / HTTP/1.2")),
        ("§2.3 HTTP/0.9", 505, line("GET / HTTP/0.9")),
        (
            "9113 §3.4 the preface of HTTP/2",
            505,
            b"PRI * HTTP/2.0\r\n\r\n".to_vec(),
        ),
        ("§2.3 lower case", 400, line("GET / http/1.1")),
        ("§2.3 two digits", 400, line("GET / HTTP/1.10")),
        ("§2.3 one number", 400, line("GET / HTTP/1")),
        ("§2.3 no version", 400, line("GET /")),
        ("§2.3 another protocol", 400, line("GET / RTSP/1.0")),
        // Expect (RFC 9110 §10.1.1).
        (
            "9110 §10.1.1 another expectation",
            417,
            get("Expect: 200-ok\r\n"),
        ),
        ("9110 §10.1.1 an empty one", 417, get("Expect:\r\n")),
        (
            "9110 §10.1.1 two",
            417,
            get("Expect: 100-continue\r\nExpect: 100-continue\r\n"),
        ),
        // Connection (RFC 9110 §7.6.1).
        (
            "9110 §7.6.1 an option that is no token",
            400,
            get("Connection: \"close\"\r\n"),
        ),
        (
            "9110 §7.6.1 endless options",
            400,
            get(&format!(
                "Connection: {}\r\n",
                ",".repeat(CONNECTION_OPTIONS_MAX)
            )),
        ),
        // What is no head at all.
        ("§2.2 three empty lines", 400, b"\r\n\r\n\r\n".to_vec()),
        ("§2.2 an empty line of LF alone", 400, b"\n".to_vec()),
        (
            "§2.2 lines of LF alone",
            400,
            b"GET / HTTP/1.1\nHost: a\n\n".to_vec(),
        ),
        (
            "a TLS ClientHello",
            400,
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec(),
        ),
    ];
    for (what, status, head) in attacks {
        match parse(&head) {
            Err(refused) => assert_eq!(refused.status, status, "{what}: {}", refused.reason),
            Ok(request) => panic!("{what} was taken: {request:?}"),
        }
    }
}

#[test]
fn a_head_that_was_cut_wrongly_is_refused() {
    for head in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1",
        b"",
    ] {
        assert_eq!(
            Request::parse(head, &LIMITS)
                .map(|_| ())
                .map_err(|r| r.status),
            Err(400)
        );
    }
}

#[test]
fn limits_have_their_own_answers() {
    let status = |head: &str, limits: &HeadLimits| {
        Request::parse(head.as_bytes(), limits)
            .map_err(|refused| refused.status)
            .map(|_| ())
    };
    let line = |length: usize| {
        let around = "GET / HTTP/1.1\r\n".len();
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
            "x".repeat(length - around)
        )
    };
    for longest in [100, 8 * 1024] {
        let limits = HeadLimits {
            line: longest,
            ..LIMITS
        };
        assert_eq!(status(&line(longest), &limits), Ok(()));
        assert_eq!(status(&line(longest + 1), &limits), Err(414));
        assert_eq!(
            status(&format!("\r\n\r\n{}", line(longest)), &limits),
            Ok(())
        );
    }

    let head = with_fields("A: b\r\n");
    let bytes = |bytes| HeadLimits { bytes, ..LIMITS };
    assert_eq!(status(&head, &bytes(head.len())), Ok(()));
    assert_eq!(status(&head, &bytes(head.len() - 1)), Err(431));

    let fields = |fields| HeadLimits { fields, ..LIMITS };
    assert_eq!(status(&head, &fields(2)), Ok(()));
    assert_eq!(status(&head, &fields(1)), Err(431));
    let most = with_fields(&"A: b\r\n".repeat(FIELDS_MAX - 1));
    assert_eq!(status(&most, &fields(usize::MAX)), Ok(()));
    let more = with_fields(&"A: b\r\n".repeat(FIELDS_MAX));
    assert_eq!(status(&more, &fields(usize::MAX)), Err(431));
}

#[test]
fn a_head_that_grows_too_large_is_refused_before_its_end() {
    let overlong = |partial: &[u8]| Request::overlong(partial, &LIMITS).map(|r| r.status);
    let line = [b'x'; LIMITS.line];
    assert_eq!(overlong(&line[..LIMITS.line - 1]), None);
    assert_eq!(overlong(&line), Some(414));
    let mut head = b"\r\nGET / HTTP/1.1\r\nA: ".to_vec();
    head.resize(LIMITS.bytes - 1, b'x');
    assert_eq!(overlong(&head), None);
    head.push(b'x');
    assert_eq!(overlong(&head), Some(431));
}

#[test]
fn heads_are_written_again_from_what_they_mean() {
    for (what, head, expected) in [
        (
            "a browser",
            "GET /a?b=c HTTP/1.1\r\nhost:  a.example:8080 \r\nAccept: */*\r\nCookie: x=y\r\n\
             Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
            "GET /a?b=c HTTP/1.1\r\nHost: a.example:8080\r\nAccept: */*\r\n\
             Cookie: x=y\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "empty lines before it",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "a body with a length",
            "POST / HTTP/1.1\r\nContent-Length: 0005\r\nHost: a\r\nContent-Type: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: x\r\nVia: 1.1 siding\r\n\
             Content-Length: 5\r\n\r\n",
        ),
        (
            "an empty body",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTrailer: X\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nVia: 1.1 siding\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "chunks and trailers",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nVia: 1.1 siding\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "an expectation",
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nVia: 1.1 siding\r\n\
             Content-Length: 1\r\n\r\n",
        ),
        (
            "HTTP/1.0, whose expectation is ignored (RFC 9110 §10.1.1)",
            "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: \r\nVia: 1.0 siding\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            "hop-by-hop fields, listed and known",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop,\r\nx-hop: 1\r\nTE: gzip\r\n\
             Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nX-End: 2\r\n\
             HTTP2-Settings: AAMAAABkAAQ\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-End: 2\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "Connection cannot strip what is for the origin (RFC 9110 §7.6.1)",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length, Cookie, Authorization\r\n\
             Connection: X-Forwarded-For, Content-Type, Sec-Fetch-Site\r\nCookie: c\r\n\
             Authorization: b\r\nX-Forwarded-For: 1.2.3.4\r\nContent-Type: t\r\n\
             Sec-Fetch-Site: none\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nCookie: c\r\nAuthorization: b\r\n\
             X-Forwarded-For: 1.2.3.4\r\nContent-Type: t\r\nSec-Fetch-Site: none\r\n\
             Via: 1.1 siding\r\nContent-Length: 3\r\n\r\n",
        ),
        (
            "a WebSocket",
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
            "GET /chat HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\n\
             Via: 1.1 siding\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "an upgrade with a body",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x/1\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nVia: 1.1 siding\r\n\
             Transfer-Encoding: chunked\r\nConnection: Upgrade\r\nUpgrade: x/1\r\n\r\n",
        ),
        (
            "no way to HTTP/2",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\n\
             HTTP2-Settings: AAMAAABkAAQ\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "absolute-form wins over Host (RFC 9112 §3.2.2)",
            "GET HTTP://b.example:81/x?y HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET /x?y HTTP/1.1\r\nHost: b.example:81\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "absolute-form with an empty Host",
            "GET http://b.example HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: b.example\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "absolute-form without a path",
            "GET http://[::1]:80?q=/ HTTP/1.0\r\n\r\n",
            "GET /?q=/ HTTP/1.1\r\nHost: [::1]:80\r\nVia: 1.0 siding\r\n\r\n",
        ),
        (
            "OPTIONS for the whole server (RFC 9112 §3.2.4)",
            "OPTIONS http://b.example:81 HTTP/1.1\r\nHost: b.example:81\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: b.example:81\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "OPTIONS *",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "bytes that browsers do not encode",
            "GET //a/../b|c\\\"<>^`{}[]?d[]=%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET //a/../b|c\\\"<>^`{}[]?d[]=%00 HTTP/1.1\r\nHost: a\r\n\
             Via: 1.1 siding\r\n\r\n",
        ),
        (
            "an unknown method and an empty value",
            "PROPFIND /a HTTP/1.1\r\nHost: a\r\nX-Empty: \t \r\nX-In:\ta \tb\t\r\n\r\n",
            "PROPFIND /a HTTP/1.1\r\nHost: a\r\nX-Empty: \r\nX-In: a \tb\r\n\
             Via: 1.1 siding\r\n\r\n",
        ),
    ] {
        assert_eq!(written(head), expected, "{what}");
    }
}

#[test]
fn what_was_written_is_parsed_alike_and_written_alike() {
    for head in [
        "GET http://b.example/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let once = written(head);
        let (before, behind) = once.split_once(" siding\r\n").expect("our Via");
        let twice = format!("{before} siding\r\nVia: 1.1 siding\r\n{behind}");
        assert_eq!(written(&once), twice);
    }
}

#[test]
fn credentials_that_were_for_us_go_no_further() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\nX: y\r\n\
                Connection: authorization\r\n\r\n";
    let mut request = parse(head.as_bytes()).expect(head);
    let written = |request: &Request<'_>| {
        let mut out = Vec::new();
        request.write_to(&mut out, &Edits::default());
        String::from_utf8(out).expect("the tests use ASCII")
    };
    assert!(written(&request).contains("\r\nAuthorization: Basic YTpi\r\n"));
    request.authorized_here();
    assert_eq!(
        written(&request),
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nVia: 1.1 siding\r\n\r\n"
    );
}

#[test]
fn a_request_without_a_body_ends_with_its_head() {
    for (head, ends) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", true),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            false,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            false,
        ),
    ] {
        let request = parse(head.as_bytes()).expect(head);
        assert_eq!(request.ends_with_its_head(), ends, "{head}");
    }
}

#[test]
fn a_given_host_replaces_the_users() {
    for head in [
        "GET / HTTP/1.1\r\nA: b\r\nHost: evil.example\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nA: b\r\n\r\n",
    ] {
        let edits = Edits {
            host: Some("api.example.com"),
            forwarded: None,
        };
        assert_eq!(
            edited(head, edits),
            "GET / HTTP/1.1\r\nHost: api.example.com\r\nA: b\r\nVia: 1.1 siding\r\n\r\n"
        );
    }
}

#[test]
fn a_gateway_tells_of_the_user_behind_via_and_before_the_framing() {
    let edits = Edits {
        host: Some("target.example"),
        forwarded: Some(Forwarded {
            user: "192.0.2.43".parse().expect("an address"),
            proto: Scheme::Http,
            trusted: false,
        }),
    };
    for (head, host) in [
        (
            "POST / HTTP/1.1\r\nHost: a:81\r\nVia: 1.0 other\r\nX-Forwarded-For: 127.0.0.1\r\n\
             X-A: b\r\nConnection: X-Forwarded-For, Forwarded, Via\r\nTE: trailers\r\n\
             Content-Length: 1\r\n\r\n",
            "a:81",
        ),
        (
            "POST http://b:82/ HTTP/1.1\r\nHost: a:81\r\nVia: 1.0 other\r\nX-Real-IP: 127.0.0.1\r\n\
             X-A: b\r\nTE: trailers\r\nContent-Length: 1\r\n\r\n",
            "b:82",
        ),
    ] {
        assert_eq!(
            edited(head, edits),
            format!(
                "POST / HTTP/1.1\r\nHost: target.example\r\nVia: 1.0 other\r\nX-A: b\r\n\
                 Via: 1.1 siding\r\nX-Forwarded-For: 192.0.2.43\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: {host}\r\n\
                 Forwarded: for=192.0.2.43;host=\"{host}\";proto=http\r\n\
                 TE: trailers\r\nContent-Length: 1\r\nConnection: TE\r\n\r\n"
            )
        );
    }
    let nameless = edited("GET / HTTP/1.0\r\n\r\n", edits);
    assert_eq!(
        nameless,
        "GET / HTTP/1.1\r\nHost: target.example\r\nVia: 1.0 siding\r\n\
         X-Forwarded-For: 192.0.2.43\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=192.0.2.43;proto=http\r\n\r\n"
    );
}

#[test]
fn trailers_are_asked_for_where_the_user_takes_them() {
    for (fields, expected) in [
        ("TE: trailers\r\n", "TE: trailers\r\nConnection: TE\r\n"),
        (
            "TE: deflate;q=0.5, Trailers\r\nConnection: te\r\n",
            "TE: trailers\r\nConnection: TE\r\n",
        ),
        (
            "TE: gzip\r\nTE: trailers\r\nConnection: close\r\n",
            "TE: trailers\r\nConnection: TE\r\n",
        ),
        (
            "TE: trailers\r\nConnection: Upgrade, TE\r\nUpgrade: x\r\n",
            "TE: trailers\r\nConnection: Upgrade, TE\r\nUpgrade: x\r\n",
        ),
        ("TE: gzip\r\n", ""),
        ("TE:\r\n", ""),
        ("TE: trailers;q=1\r\n", ""),
        ("TE: xtrailers\r\n", ""),
    ] {
        assert_eq!(
            written(&with_fields(fields)),
            format!("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 siding\r\n{expected}\r\n"),
            "{fields:?}"
        );
    }
    let old = "GET / HTTP/1.0\r\nHost: a\r\nTE: trailers\r\n\r\n";
    assert!(!written(old).contains("TE:"));
}

#[test]
fn max_forwards_counts_the_hops_of_trace_and_options() {
    for method in ["TRACE", "OPTIONS"] {
        for (value, hops, next) in [
            ("0", 0, "0"),
            ("1", 1, "0"),
            ("010", 10, "9"),
            ("99999999999999999999999", u64::MAX, "18446744073709551614"),
        ] {
            let head =
                format!("{method} / HTTP/1.1\r\nmax-Forwards: {value}\r\nHost: a\r\nA: b\r\n\r\n");
            assert_eq!(good(&head).max_forwards, Some(hops));
            assert_eq!(
                written(&head),
                format!(
                    "{method} / HTTP/1.1\r\nHost: a\r\nmax-Forwards: {next}\r\nA: b\r\n\
                     Via: 1.1 siding\r\n\r\n"
                )
            );
        }
        for (what, fields) in [
            ("empty", "Max-Forwards:\r\n"),
            ("a sign", "Max-Forwards: +1\r\n"),
            ("a minus", "Max-Forwards: -1\r\n"),
            ("a fraction", "Max-Forwards: 1.5\r\n"),
            ("a list", "Max-Forwards: 1, 1\r\n"),
            ("two", "Max-Forwards: 1\r\nMax-Forwards: 1\r\n"),
        ] {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let status = parse(head.as_bytes()).map(|_| ()).map_err(|r| r.status);
            assert_eq!(status, Err(400), "{what}");
        }
        let head = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: Max-Forwards\r\nMax-Forwards: 2\r\n\r\n"
        );
        assert!(written(&head).contains("Max-Forwards: 1\r\n"));
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(good(&head).max_forwards, None);
    }
    // RFC 9110 §7.6.2: in other methods it may be ignored.
    let head = with_fields("Max-Forwards: 0\r\nMax-Forwards: x\r\n");
    assert_eq!(good(&head).max_forwards, None);
    assert!(written(&head).contains("Max-Forwards: 0\r\nMax-Forwards: x\r\n"));
}

#[test]
fn trace_without_content_passes() {
    let head = "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(good(head).framing, Framing::Length(0));
}

#[test]
fn obs_text_in_a_value_is_passed_on() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xe9\r\n\r\n";
    let mut out = Vec::new();
    parse(head)
        .expect("obs-text is legal")
        .write_to(&mut out, &Edits::default());
    assert_eq!(
        out,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xe9\r\nVia: 1.1 siding\r\n\r\n"
    );
}

#[test]
fn targets_are_taken_apart() {
    assert_eq!(
        good("GET https://a.example/x HTTP/1.1\r\nHost: a\r\n\r\n").target,
        RequestTarget::Absolute {
            scheme: Scheme::Https,
            authority: Authority {
                host: "a.example",
                port: 443,
                text: "a.example"
            },
            path_and_query: "/x",
        }
    );
    assert_eq!(
        good("CONNECT [::1]:22 HTTP/1.1\r\nHost: [::1]:22\r\n\r\n").target,
        RequestTarget::Authority(Authority {
            host: "::1",
            port: 22,
            text: "[::1]:22"
        })
    );
    assert_eq!(
        good("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target,
        RequestTarget::Asterisk
    );
    let origin = good("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(origin.target, RequestTarget::Origin("/x"));
    assert_eq!(origin.target.authority(), None);
    assert_eq!(origin.host, Some("a"));
}

#[test]
fn connect_opens_an_opaque_tunnel() {
    let request = good("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(request.framing, Framing::Raw);
    assert!(!request.keep_alive);
    assert!(!request.repeatable());
    let upgrade = "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    assert!(!good(upgrade).upgrade);
}

#[test]
fn the_connection_stays_open_as_the_version_has_it() {
    for (version, connection, stays) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Keep-Alive, CLOSE\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Proxy-Connection: close\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(good(&head).keep_alive, stays, "{head:?}");
    }
}

#[test]
fn an_upgrade_takes_both_fields_and_http_1_1() {
    for (head, upgrades) in [
        (
            with_fields("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            true,
        ),
        (
            with_fields("Connection: upgrade\r\nUpgrade: a/1, b\r\n"),
            true,
        ),
        (with_fields("Connection: upgrade\r\n"), false),
        (with_fields("Upgrade: websocket\r\n"), false),
        (with_fields("Connection: upgrade\r\nUpgrade:\r\n"), false),
        (
            with_fields("Connection: upgrade\r\nUpgrade: h2c\r\n"),
            false,
        ),
        (
            with_fields("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n"),
            false,
        ),
        (
            with_fields("Connection: upgrade\r\nUpgrade: x\r\nUpgrade: HTTP/2.0\r\n"),
            false,
        ),
        (
            "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
            false,
        ),
    ] {
        let request = good(&head);
        assert_eq!(request.upgrade, upgrades, "{head:?}");
        assert_eq!(request.asked().upgrade, upgrades);
    }
}

#[test]
fn credentials_of_ntlm_and_negotiate_bind_the_connection() {
    for (value, binds) in [
        ("NTLM TlRMTVNTUAAB", true),
        ("negotiate YIIJ", true),
        ("Basic bnRsbQ==", false),
        ("Bearer negotiate", false),
    ] {
        let head = with_fields(&format!("Authorization: {value}\r\n"));
        assert_eq!(good(&head).asked().connection_auth, binds, "{value}");
    }
}

#[test]
fn only_idempotent_methods_are_repeatable() {
    for (method, repeatable) in [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("POST", false),
        ("PATCH", false),
        ("get", false),
        ("LOCK", false),
    ] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(good(&head).repeatable(), repeatable, "{method}");
        assert_eq!(good(&head).is_head(), method == "HEAD");
    }
}

#[test]
fn fields_are_found_in_any_letter_case() {
    let head = with_fields("X-A: 1\r\nx-a: 2\r\n");
    let values: Vec<_> = good(&head).field("X-a").collect();
    assert_eq!(values, [b"1", b"2"]);
}

#[test]
fn a_request_is_never_framed_by_a_close() {
    for (fields, framing) in [
        ("", Framing::None),
        ("Connection: close\r\n", Framing::None),
        (
            "Content-Length: 9223372036854775807\r\n",
            Framing::Length(i64::MAX as u64),
        ),
        ("Transfer-Encoding: CHUNKED\r\n", Framing::Chunked),
    ] {
        let head = with_fields(fields);
        assert_eq!(good(&head).framing, framing, "{fields:?}");
    }
    assert!(
        good(&with_fields(""))
            .body(BodyLimits::default())
            .is_ended()
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(head in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&head, &LIMITS).map(|_| ());
        let _ = Request::overlong(&head, &LIMITS);
        prop_assert!(head_end(&head, 0).is_none_or(|end| end <= head.len()));
    }

    /// Good heads with a few bytes replaced: what is still taken is written in a form that is taken
    /// again, with the same length and no line more than there are fields.
    #[test]
    fn mutated_heads_are_refused_or_written_safely(
        base in prop_oneof![
            Just("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: x, y\r\n\r\n"),
            Just("POST http://b/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Just("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ],
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b','), Just(b':'),
            ]),
            0..4,
        ),
    ) {
        let mut head = base.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(head.len());
            head[at] = byte;
        }
        if let Ok(request) = Request::parse(&head, &LIMITS) {
            let mut out = Vec::new();
            request.write_to(&mut out, &Edits::default());
            prop_assert_eq!(head_end(&out, 0), Some(out.len()));
            let again = Request::parse(&out, &LIMITS).expect("our own head");
            prop_assert_eq!(again.framing, request.framing);
            prop_assert_eq!(again.method, request.method);
            prop_assert_eq!(again.upgrade, request.upgrade);
            prop_assert!(again.keep_alive || again.framing == Framing::Raw);
        }
    }
}
