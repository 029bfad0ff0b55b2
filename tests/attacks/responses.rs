//! The table of attacks by origins, up to the end of the head. (Broken chunks are in `chunks`.)

use super::origins::{Asked, Attack, Meaning, Then};

/// A response of 200 with these fields, and what follows it.
pub fn ok(fields: impl AsRef<[u8]>, body: &str) -> Vec<u8> {
    [
        b"HTTP/1.1 200 OK\r\n",
        fields.as_ref(),
        b"\r\n",
        body.as_bytes(),
    ]
    .concat()
}

/// A response with this status line.
fn line(line: &str) -> String {
    format!("{line}\r\nContent-Length: 5\r\n\r\nhello")
}

/// Status lines and versions.
pub fn status_lines() -> Vec<Attack> {
    const RULE: &str = "RFC 9112 §4";
    const VERSION: &str = "RFC 9112 §2.3";
    const STATUS: &str = "RFC 9110 §15";
    const LINES: &str = "RFC 9112 §2.2";
    let mut attacks: Vec<Attack> = [
        ("two digits", RULE, "HTTP/1.1 20 OK"),
        ("four digits", RULE, "HTTP/1.1 2000 OK"),
        ("a signed status", RULE, "HTTP/1.1 +20 OK"),
        ("a status of words", RULE, "HTTP/1.1 two OK"),
        ("no status", RULE, "HTTP/1.1 OK"),
        ("a version alone", RULE, "HTTP/1.1"),
        ("two blanks before the status", RULE, "HTTP/1.1  200 OK"),
        ("no blank before the phrase", RULE, "HTTP/1.1 200OK"),
        ("a tab before the status", RULE, "HTTP/1.1\t200 OK"),
        ("a blank before the version", RULE, " HTTP/1.1 200 OK"),
        ("NUL in the phrase", RULE, "HTTP/1.1 200 O\0K"),
        ("an escape in the phrase", RULE, "HTTP/1.1 200 \x1b[2J"),
        ("a bare CR in the phrase", LINES, "HTTP/1.1 200 OK\rX: y"),
        ("a request", RULE, "GET /attack HTTP/1.1"),
        ("the other way round", RULE, "200 OK HTTP/1.1"),
        ("status 099", STATUS, "HTTP/1.1 099 Low"),
        ("status 000", STATUS, "HTTP/1.1 000 None"),
        ("status 600", STATUS, "HTTP/1.1 600 High"),
        ("status 999", STATUS, "HTTP/1.1 999 High"),
        ("HTTP/2.0", VERSION, "HTTP/2.0 200 OK"),
        ("HTTP/1.2", VERSION, "HTTP/1.2 200 OK"),
        ("HTTP/0.9", VERSION, "HTTP/0.9 200 OK"),
        ("a version in lower case", VERSION, "http/1.1 200 OK"),
        ("another protocol", VERSION, "ICY 200 OK"),
    ]
    .map(|(name, rule, text)| Attack::refused(name, rule, Asked::Get, line(text)))
    .into();
    attacks.extend(
        [
            (
                "an empty line first",
                LINES,
                "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ),
            (
                "an empty line of LF first",
                LINES,
                "\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ),
            (
                "lines of LF alone",
                LINES,
                "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            ),
            (
                "a status line that ends by LF",
                LINES,
                "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            ),
            (
                "a last line of LF alone",
                LINES,
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
            ),
            ("no head", "RFC 9112 §2.1", "<html>hello</html>\r\n\r\n"),
            (
                "a TLS alert",
                "RFC 9112 §2.1",
                "\x15\x03\x01\0\x02\x02\x16\r\n\r\n",
            ),
            ("SSH", "RFC 9112 §2.1", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        ]
        .map(|(name, rule, bytes)| Attack::refused(name, rule, Asked::Get, bytes)),
    );
    attacks
}

/// What is no field line.
pub fn fields() -> Vec<Attack> {
    const COLON: &str = "RFC 9112 §5.1";
    const FOLD: &str = "RFC 9112 §5.2";
    const LINES: &str = "RFC 9112 §2.2";
    const NAME: &str = "RFC 9110 §5.1";
    const VALUE: &str = "RFC 9110 §5.5";
    let mut attacks: Vec<Attack> = [
        ("a blank before the colon", COLON, "X : y\r\n"),
        (
            "a blank before the colon of CL",
            COLON,
            "Content-Length : 5\r\n",
        ),
        (
            "a tab before the colon of TE",
            COLON,
            "Transfer-Encoding\t: chunked\r\n",
        ),
        (
            "a line end before the colon of TE",
            COLON,
            "Transfer-Encoding\r\n: chunked\r\n",
        ),
        ("no colon", COLON, "X\r\n"),
        ("no name", NAME, ": y\r\n"),
        ("a name with a blank", NAME, "Content Length: 5\r\n"),
        ("a name with NUL", NAME, "Content-Length\0: 5\r\n"),
        ("a name beyond ASCII", NAME, "C\u{f6}ntent-Length: 5\r\n"),
        ("a name with a bracket", NAME, "X(y): z\r\n"),
        ("a folded value", FOLD, "X: y\r\n z\r\n"),
        ("a folded CL", FOLD, "Content-Length:\r\n 5\r\n"),
        ("a CL in a fold", FOLD, "X: y\r\n Content-Length: 5\r\n"),
        ("a folded TE", FOLD, "Transfer-Encoding:\r\n chunked\r\n"),
        ("a blank before the first field", LINES, " X: y\r\n"),
        ("a bare CR in a value", LINES, "X: y\rSet-Cookie: z\r\n"),
        ("a bare CR before the line end", LINES, "X: y\r\r\n"),
        ("a bare LF in a value", LINES, "X: y\nSet-Cookie: z\r\n"),
        ("an end of the head by LF CR LF", LINES, "X: y\n\r\n"),
        ("NUL in a value", VALUE, "X: \0\r\n"),
        ("an escape in a value", VALUE, "X: \x1b[2J\r\n"),
        ("DEL in a value", VALUE, "X: \x7f\r\n"),
        (
            "an option that is no token",
            "RFC 9110 §7.6.1",
            "Connection: a b\r\n",
        ),
        (
            "options without end",
            "RFC 9110 §7.6.1",
            "Connection: ,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,\r\n",
        ),
    ]
    .map(|(name, rule, fields)| {
        let bytes = ok(format!("{fields}Content-Length: 5\r\n"), "hello");
        Attack::refused(name, rule, Asked::Get, bytes)
    })
    .into();
    attacks.extend([
        Attack::refused(
            "a head without end",
            "RFC 9110 §5.4",
            Asked::Get,
            ok("X: yyyyyyyyyyyyyyyy\r\n".repeat(6000), ""),
        ),
        Attack::refused(
            "fields without number",
            "RFC 9110 §5.4",
            Asked::Get,
            ok("X:\r\n".repeat(300), ""),
        ),
    ]);
    attacks
}

/// How long is the body: `Content-Length` and `Transfer-Encoding`.
pub fn lengths() -> Vec<Attack> {
    const CL: &str = "RFC 9112 §6.2";
    const TE: &str = "RFC 9112 §6.1";
    const MANY: &str = "RFC 9112 §6.3";
    let mut attacks: Vec<Attack> = [
        "+5",
        "-5",
        "0x5",
        "5.0",
        "5 5",
        "5, 5",
        "5, 6",
        "\"5\"",
        "five",
        "",
        "9223372036854775808",
        "18446744073709551616",
        "18446744073709551621",
    ]
    .into_iter()
    .map(|value| {
        let bytes = ok(format!("Content-Length: {value}\r\n"), "hello");
        Attack::refused(format!("CL {value:?}"), CL, Asked::Get, bytes)
    })
    .collect();
    for value in [
        "gzip",
        "gzip, chunked",
        "identity",
        "chunked, identity",
        "chunked, chunked",
        "chunked;q=1",
        "xchunked",
        "\"chunked\"",
        "",
        "chunked,",
        "\x0bchunked",
    ] {
        let bytes = ok(
            format!("Transfer-Encoding: {value}\r\n"),
            "5\r\nhello\r\n0\r\n\r\n",
        );
        attacks.push(Attack::refused(
            format!("TE {value:?}"),
            TE,
            Asked::Get,
            bytes,
        ));
    }
    for (name, rule, fields) in [
        (
            "two CLs",
            MANY,
            "Content-Length: 5\r\nContent-Length: 6\r\n",
        ),
        (
            "two CLs, one with a zero",
            MANY,
            "Content-Length: 5\r\nContent-Length: 05\r\n",
        ),
        (
            "CL and TE",
            TE,
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "TE and CL",
            TE,
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ),
        (
            "two TEs",
            TE,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "two TEs, one unknown",
            TE,
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        ),
    ] {
        // The rules hold where there is no body, too: the next recipient may not know why.
        for asked in [Asked::Get, Asked::Head, Asked::OldGet] {
            attacks.push(Attack::refused(
                name,
                rule,
                asked,
                ok(fields, "5\r\nhello\r\n0\r\n\r\n"),
            ));
        }
    }
    attacks.push(Attack::refused(
        "TE in HTTP/1.0",
        TE,
        Asked::Get,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ));
    attacks
}

/// Responses before the final one, and other protocols.
pub fn interims() -> Vec<Attack> {
    const UPGRADE: &str = "RFC 9110 §15.2.2";
    const INTERIM: &str = "RFC 9110 §15.2";
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello";
    let final_one = ok("Content-Length: 5\r\n", "hello");
    let hello = |reused| Meaning {
        status: 200,
        body: b"hello".to_vec(),
        has: &[("content-length", "5")],
        lacks: &["transfer-encoding"],
        reused,
    };
    vec![
        Attack::refused("101 unasked", UPGRADE, Asked::Get, SWITCH),
        Attack::refused("101 for HTTP/1.0", UPGRADE, Asked::OldGet, SWITCH),
        Attack::refused(
            "101 before the request's end",
            UPGRADE,
            Asked::UpgradeAndPost,
            SWITCH,
        ),
        Attack::refused(
            "101 without a protocol",
            UPGRADE,
            Asked::Upgrade,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\nhello",
        ),
        Attack::refused(
            "101 in HTTP/1.0",
            UPGRADE,
            Asked::Upgrade,
            SWITCH.replace("HTTP/1.1", "HTTP/1.0"),
        ),
        Attack::cut(
            "an interim response and a bad one",
            INTERIM,
            Asked::Get,
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 20 OK\r\n\r\n",
        ),
        Attack::cut(
            "an interim response with a body",
            "RFC 9112 §6.3",
            Asked::Get,
            [
                &b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello"[..],
                &final_one,
            ]
            .concat(),
        ),
        Attack::cut(
            "nothing but an interim response",
            INTERIM,
            Asked::Get,
            "HTTP/1.1 100 Continue\r\n\r\n",
        )
        .then(Then::Close),
        Attack::means(
            "several interim responses",
            INTERIM,
            Asked::Get,
            [
                &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n"[..],
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 199 Own\r\n\r\n",
                &final_one,
            ]
            .concat(),
            hello(true),
        ),
        Attack::means(
            "interim responses that a user of HTTP/1.0 does not know",
            INTERIM,
            Asked::OldGet,
            [
                &b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..],
                &final_one,
            ]
            .concat(),
            hello(true),
        ),
        Attack::means(
            "a refused upgrade",
            "RFC 9110 §7.8",
            Asked::Upgrade,
            [
                &b"HTTP/1.1 200 OK\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\n"[..],
                b"hello",
            ]
            .concat(),
            hello(true),
        ),
    ]
}
