use proptest::prelude::*;

use super::*;
use crate::http::head_end;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 16 * 1024,
    fields: 100,
    line: 8 * 1024,
};

/// The example of RFC 9110 §5.6.7.
const UNIX: Duration = Duration::from_secs(784_111_777);

/// An HTTP/1.1 user who sent GET and keeps its connection.
const GET: Asked = Asked {
    head: false,
    version: Version::Http11,
    upgrade: false,
    keep_alive: true,
    connection_auth: false,
};
const HEAD: Asked = Asked { head: true, ..GET };
const UPGRADE: Asked = Asked {
    upgrade: true,
    ..GET
};
const OLD: Asked = Asked {
    version: Version::Http10,
    ..GET
};
const CLOSING: Asked = Asked {
    keep_alive: false,
    ..GET
};

fn parse<'a>(head: &'a [u8], asked: &Asked) -> Result<Response<'a>, Bad> {
    assert_eq!(
        head_end(head, 0),
        Some(head.len()),
        "{}",
        head.escape_ascii()
    );
    Response::parse(head, asked, &LIMITS)
}

fn good<'a>(head: &'a str, asked: &Asked) -> Response<'a> {
    parse(head.as_bytes(), asked).unwrap_or_else(|bad| panic!("{bad:?} for {head:?}"))
}

fn written(head: &str, asked: &Asked) -> String {
    let response = good(head, asked);
    let mut out = Vec::new();
    response.write_to(&mut out, response.keep(), UNIX);
    String::from_utf8(out).expect("the tests use ASCII")
}

fn ok(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

#[test]
fn what_breaks_the_rules_is_not_forwarded() {
    let fields = |fields: &str| ok(fields).into_bytes();
    let line = |line: &str| format!("{line}\r\n\r\n").into_bytes();
    for (what, head) in [
        (
            "§6.1 CL and TE",
            fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "§6.1 TE and CL",
            fields("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ),
        (
            "§6.3 CL twice, different",
            fields("Content-Length: 5\r\nContent-Length: 6\r\n"),
        ),
        (
            "§6.3 CL twice, written differently",
            fields("Content-Length: 5\r\nContent-Length: 05\r\n"),
        ),
        ("§6.3 CL as a list", fields("Content-Length: 5, 5\r\n")),
        ("§6.2 CL with a plus", fields("Content-Length: +5\r\n")),
        ("§6.2 CL negative", fields("Content-Length: -1\r\n")),
        ("§6.2 CL empty", fields("Content-Length:\r\n")),
        (
            "§6.2 CL of 2^63",
            fields("Content-Length: 9223372036854775808\r\n"),
        ),
        ("§6.1 unknown coding", fields("Transfer-Encoding: gzip\r\n")),
        (
            "§6.3 a coding that does not end in chunked",
            fields("Transfer-Encoding: chunked, gzip\r\n"),
        ),
        (
            "§6.1 a coding before chunked",
            fields("Transfer-Encoding: gzip, chunked\r\n"),
        ),
        ("§7 identity", fields("Transfer-Encoding: identity\r\n")),
        (
            "§6.1 TE twice",
            fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "§6.1 TE in HTTP/1.0",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ),
        ("§5.2 a folded line", fields("A: b\r\n c\r\n")),
        ("§2.2 blank before the first field", fields(" A: b\r\n")),
        (
            "§5.1 blank before the colon",
            fields("Content-Length : 5\r\n"),
        ),
        ("9110 §5.1 no name", fields(": b\r\n")),
        ("§5.1 no colon", fields("A\r\n")),
        ("§2.2 a bare CR", fields("A: b\rc\r\n")),
        ("§2.2 a bare LF", fields("A: b\nC: d\r\n")),
        ("9110 §5.5 NUL", fields("A: \0\r\n")),
        ("9110 §5.5 a control byte", fields("A: \x08\r\n")),
        (
            "9110 §7.6.1 an option that is no token",
            fields("Connection: a b\r\n"),
        ),
        ("§4 another protocol", line("ICY 200 OK")),
        ("§2.3 another version", line("HTTP/2.0 200 OK")),
        ("§2.3 version 1.2", line("HTTP/1.2 200 OK")),
        ("§4 two digits", line("HTTP/1.1 20 OK")),
        ("§4 four digits", line("HTTP/1.1 2000 OK")),
        ("§4 no number", line("HTTP/1.1 OK")),
        ("§4 no status", line("HTTP/1.1")),
        ("§4 two blanks", line("HTTP/1.1  200 OK")),
        (
            "§4 a control byte in the phrase",
            line("HTTP/1.1 200 O\x01K"),
        ),
        ("9110 §15 status 099", line("HTTP/1.1 099 Low")),
        ("9110 §15 status 000", line("HTTP/1.1 000 None")),
        ("9110 §15 status 600", line("HTTP/1.1 600 High")),
        ("9110 §15 status 999", line("HTTP/1.1 999 High")),
        (
            "§2.2 an empty line before it",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n".to_vec(),
        ),
        ("no head", b"\n".to_vec()),
        ("HTTP/0.9", b"<html>\r\n\r\n".to_vec()),
        (
            "101 unasked (RFC 9110 §15.2.2)",
            b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
        ),
    ] {
        for asked in [GET, HEAD, OLD] {
            let outcome = parse(&head, &asked);
            assert!(outcome.is_err(), "{what} was taken: {outcome:?}");
        }
    }
    for head in [
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade:\r\n\r\n",
        "HTTP/1.0 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert!(parse(head.as_bytes(), &UPGRADE).is_err(), "{head:?}");
    }
}

#[test]
fn a_head_that_was_cut_wrongly_or_is_too_large_is_refused() {
    for head in [
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"",
    ] {
        assert!(Response::parse(head, &GET, &LIMITS).is_err());
    }
    let head = ok("A: b\r\nC: d\r\n");
    let with = |limits| Response::parse(head.as_bytes(), &GET, &limits).map(|_| ());
    let bytes = |bytes| HeadLimits { bytes, ..LIMITS };
    assert_eq!(with(bytes(head.len())), Ok(()));
    assert!(with(bytes(head.len() - 1)).is_err());
    let fields = |fields| HeadLimits { fields, ..LIMITS };
    assert_eq!(with(fields(2)), Ok(()));
    assert!(with(fields(1)).is_err());
}

#[test]
fn heads_are_written_again_for_their_user() {
    for (what, asked, head, expected) in [
        (
            "a length",
            GET,
            "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 05\r\nConnection: keep-alive\r\n\
             Keep-Alive: timeout=5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
             Via: 1.1 siding\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Length: 5\r\n\r\n",
        ),
        (
            "a length for a user that closes",
            CLOSING,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\n\
             Connection: close\r\n\r\n",
        ),
        (
            "a length for HTTP/1.0",
            OLD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\n\
             Connection: keep-alive\r\n\r\n",
        ),
        (
            "equal lengths",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "an origin that closes does not close the user",
            GET,
            "HTTP/1.0 200 Fine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 Fine\r\nVia: 1.0 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "chunks and trailers",
            GET,
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "chunks for HTTP/1.0",
            OLD,
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\n",
        ),
        (
            "until close",
            GET,
            "HTTP/1.0 200 OK\r\nServer: old\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 200 OK\r\nServer: old\r\nVia: 1.0 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "until close for HTTP/1.0",
            OLD,
            "HTTP/1.0 200 OK\r\nServer: old\r\n\r\n",
            "HTTP/1.1 200 OK\r\nServer: old\r\nVia: 1.0 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\n",
        ),
        (
            "205 is framed as any other",
            GET,
            "HTTP/1.1 205 Reset Content\r\n\r\n",
            "HTTP/1.1 205 Reset Content\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "HEAD keeps the length as information",
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 5000\r\n\r\n",
        ),
        (
            "HEAD without a length, or with chunks",
            HEAD,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        ),
        (
            "304 keeps the length as information",
            GET,
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 9\r\n\r\n",
        ),
        (
            "304 without a length",
            OLD,
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "204 has no length (RFC 9110 §8.6)",
            GET,
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        ),
        (
            "204 has no coding (RFC 9112 §6.1)",
            HEAD,
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        ),
        (
            "an interim response says nothing about the connection",
            CLOSING,
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 5\r\n\
             Connection: close\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "100",
            GET,
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nVia: 1.1 siding\r\n\r\n",
        ),
        (
            "an upgrade",
            UPGRADE,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: x\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\
             Via: 1.1 siding\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "a refused upgrade",
            UPGRADE,
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Content-Length: 0\r\n\r\n",
            "HTTP/1.1 426 Upgrade Required\r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "hop-by-hop fields, listed and known",
            GET,
            "HTTP/1.1 200 OK\r\nConnection: X-Hop, Set-Cookie, Content-Type, Date\r\nX-Hop: 1\r\n\
             Set-Cookie: c\r\nContent-Type: t\r\nDate: d\r\nProxy-Connection: close\r\n\
             Upgrade: h2c\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nSet-Cookie: c\r\nContent-Type: t\r\nDate: d\r\n\
             Via: 1.1 siding\r\nContent-Length: 1\r\n\r\n",
        ),
        (
            "no phrase",
            GET,
            "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 404 \r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "no phrase and no blank",
            GET,
            "HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 599 \r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a phrase that is not ASCII",
            GET,
            "HTTP/1.1 404 Inexistant\u{e9}\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 404 \r\nVia: 1.1 siding\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        assert_eq!(written(head, &asked), expected, "{what}");
    }
}

#[test]
fn a_final_response_without_a_date_gets_one() {
    let dated = |head: &str, asked: &Asked| {
        written(head, asked)
            .lines()
            .filter_map(|line| line.strip_prefix("Date: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let ours = ["Sun, 06 Nov 1994 08:49:37 GMT"];
    for status in [200, 204, 304, 404, 500] {
        let head = format!("HTTP/1.1 {status} X\r\n\r\n");
        assert_eq!(dated(&head, &GET), ours, "{status}");
    }
    let theirs = "HTTP/1.1 200 X\r\ndate: yesterday\r\n\r\n";
    assert!(dated(theirs, &GET).is_empty(), "theirs passes as it is");
    assert!(written(theirs, &GET).contains("\r\ndate: yesterday\r\n"));
    assert!(dated("HTTP/1.1 103 X\r\n\r\n", &GET).is_empty());
    assert!(dated("HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n", &UPGRADE).is_empty());
}

#[test]
fn the_framing_follows_the_method_the_status_and_the_fields() {
    use Coding::{Chunked, Plain};
    for (asked, head, framing, coding, keep) in [
        (
            GET,
            "200\r\nContent-Length: 5",
            Framing::Length(5),
            Plain,
            true,
        ),
        (
            OLD,
            "200\r\nContent-Length: 5",
            Framing::Length(5),
            Plain,
            true,
        ),
        (
            CLOSING,
            "200\r\nContent-Length: 5",
            Framing::Length(5),
            Plain,
            false,
        ),
        (
            GET,
            "200\r\nTransfer-Encoding: chunked",
            Framing::Chunked,
            Chunked,
            true,
        ),
        (
            OLD,
            "200\r\nTransfer-Encoding: chunked",
            Framing::Chunked,
            Plain,
            false,
        ),
        (GET, "200\r\nA: b", Framing::UntilClose, Chunked, true),
        (OLD, "200\r\nA: b", Framing::UntilClose, Plain, false),
        (GET, "205\r\nA: b", Framing::UntilClose, Chunked, true),
        (
            GET,
            "205\r\nContent-Length: 0",
            Framing::Length(0),
            Plain,
            true,
        ),
        (HEAD, "200\r\nContent-Length: 5", Framing::None, Plain, true),
        (HEAD, "200\r\nA: b", Framing::None, Plain, true),
        (GET, "204\r\nContent-Length: 5", Framing::None, Plain, true),
        (
            GET,
            "304\r\nTransfer-Encoding: chunked",
            Framing::None,
            Plain,
            true,
        ),
        (OLD, "304\r\nA: b", Framing::None, Plain, true),
        (UPGRADE, "101\r\nUpgrade: x", Framing::Raw, Plain, false),
        (
            UPGRADE,
            "200\r\nContent-Length: 5",
            Framing::Length(5),
            Plain,
            true,
        ),
        (
            UPGRADE,
            "100\r\nContent-Length: 5",
            Framing::None,
            Plain,
            false,
        ),
    ] {
        let head = format!("HTTP/1.1 {head}\r\n\r\n");
        let response = good(&head, &asked);
        assert_eq!(
            (response.framing, response.coding, response.keep()),
            (framing, coding, keep),
            "{head:?} for {asked:?}"
        );
    }
}

#[test]
fn a_head_is_interim_switching_or_final() {
    for (asked, head, kind) in [
        (GET, "100", Kind::Interim),
        (GET, "102", Kind::Interim),
        (GET, "103", Kind::Interim),
        (GET, "199", Kind::Interim),
        (UPGRADE, "100", Kind::Interim),
        (UPGRADE, "101 X\r\nUpgrade: websocket", Kind::Switching),
        (UPGRADE, "200", Kind::Final),
        (GET, "599", Kind::Final),
    ] {
        let head = format!("HTTP/1.1 {head}\r\n\r\n");
        assert_eq!(good(&head, &asked).kind, kind, "{head:?}");
    }
}

#[test]
fn a_connection_is_reusable_or_there_is_a_reason() {
    let bound = Asked {
        connection_auth: true,
        ..GET
    };
    for (asked, head, reusable) in [
        (GET, "1.1 200 X\r\nContent-Length: 5", Ok(())),
        (GET, "1.1 200 X\r\nTransfer-Encoding: chunked", Ok(())),
        (OLD, "1.1 200 X\r\nTransfer-Encoding: chunked", Ok(())),
        // What the user wants of its own connection does not matter to the origin's.
        (CLOSING, "1.1 200 X\r\nContent-Length: 5", Ok(())),
        (GET, "1.1 204 X", Ok(())),
        (HEAD, "1.1 200 X", Ok(())),
        (
            GET,
            "1.1 401 X\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0",
            Ok(()),
        ),
        (
            GET,
            "1.0 200 X\r\nConnection: Keep-Alive\r\nContent-Length: 5",
            Ok(()),
        ),
        (GET, "1.1 200 X", Err(NotReusable::CloseDelimited)),
        (
            GET,
            "1.0 200 X\r\nConnection: keep-alive",
            Err(NotReusable::CloseDelimited),
        ),
        (
            GET,
            "1.0 200 X\r\nContent-Length: 5",
            Err(NotReusable::OldVersion),
        ),
        (
            GET,
            "1.1 200 X\r\nConnection: CLOSE\r\nContent-Length: 5",
            Err(NotReusable::AskedToClose),
        ),
        (
            GET,
            "1.1 200 X\r\nKeep-Alive: max=0\r\nContent-Length: 5",
            Err(NotReusable::AskedToClose),
        ),
        (
            GET,
            "1.1 401 X\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0",
            Err(NotReusable::ConnectionAuth),
        ),
        (
            GET,
            "1.1 401 X\r\nWWW-Authenticate: Basic realm=x, ntlm\r\nContent-Length: 0",
            Err(NotReusable::ConnectionAuth),
        ),
        (
            GET,
            "1.1 407 X\r\nProxy-Authenticate: NTLM TlRM\r\nContent-Length: 0",
            Err(NotReusable::ConnectionAuth),
        ),
        (
            bound,
            "1.1 200 X\r\nContent-Length: 5",
            Err(NotReusable::ConnectionAuth),
        ),
        (
            UPGRADE,
            "1.1 101 X\r\nUpgrade: x",
            Err(NotReusable::NotFinal),
        ),
        (GET, "1.1 100 X", Err(NotReusable::NotFinal)),
    ] {
        let head = format!("HTTP/{head}\r\n\r\n");
        assert_eq!(good(&head, &asked).reusable, reusable, "{head:?}");
    }
}

#[test]
fn hints_about_idle_connections_are_read_and_nonsense_is_ignored() {
    let hints = |fields: &str| good(&ok(fields), &GET).keep_alive;
    assert_eq!(
        hints("Keep-Alive: timeout=5, max=100\r\n"),
        KeepAlive {
            timeout: Some(Duration::from_secs(5)),
            max: Some(100)
        }
    );
    assert_eq!(
        hints("Keep-Alive: Timeout = 7\r\n").timeout,
        Some(Duration::from_secs(7))
    );
    for nonsense in [
        "",
        "timeout",
        "timeout=",
        "timeout=-1",
        "timeout=99999999999",
        "x=1",
        ",,=,",
    ] {
        let fields = format!("Keep-Alive: {nonsense}\r\n");
        assert_eq!(hints(&fields), KeepAlive::default(), "{nonsense:?}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        head in proptest::collection::vec(any::<u8>(), 0..200),
        upgrade in any::<bool>(),
    ) {
        let asked = if upgrade { UPGRADE } else { GET };
        let _ = Response::parse(&head, &asked, &LIMITS).map(|_| ());
    }

    /// Good heads with a few bytes replaced: what is still taken is written in a form that is taken
    /// again, and with which the user sees the end where we see it.
    #[test]
    fn mutated_heads_are_refused_or_written_safely(
        base in prop_oneof![
            Just("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, y\r\nX: y\r\n\r\n"),
            Just("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"),
            Just("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n"),
            Just("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ],
        asked in prop_oneof![Just(GET), Just(HEAD), Just(UPGRADE), Just(OLD), Just(CLOSING)],
        edits in proptest::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b','), Just(b':'),
                Just(b'0'), Just(b'1'), Just(b'4'),
            ]),
            0..4,
        ),
    ) {
        let mut head = base.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(head.len());
            head[at] = byte;
        }
        if let Ok(response) = Response::parse(&head, &asked, &LIMITS) {
            let mut out = Vec::new();
            response.write_to(&mut out, response.keep(), UNIX);
            prop_assert_eq!(head_end(&out, 0), Some(out.len()));
            let again = Response::parse(&out, &asked, &LIMITS).expect("our own head");
            let seen = match (response.framing, response.coding) {
                (Framing::UntilClose, Coding::Chunked) => Framing::Chunked,
                (Framing::Chunked, Coding::Plain) => Framing::UntilClose,
                (framing, _) => framing,
            };
            prop_assert_eq!(again.framing, seen);
            prop_assert_eq!(again.status, response.status);
            prop_assert_eq!(again.kind, response.kind);
            if response.keep() {
                prop_assert!(again.framing != Framing::UntilClose);
            }
        }
    }
}
