//! The table of attacks by users: what is no head. (What a good one means is in `request_meanings`, broken
//! bodies are in `chunks`.)

use super::users::Attack;

/// A whole head of GET with these fields.
pub fn get(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [
        b"GET /attack HTTP/1.1\r\nHost: a\r\n",
        fields.as_ref(),
        b"\r\n",
    ]
    .concat()
}

/// A head with this request line.
pub fn line(line: impl AsRef<[u8]>) -> Vec<u8> {
    [line.as_ref(), b"\r\nHost: a\r\n\r\n"].concat()
}

/// A head of GET with these fields and no Host.
fn without_host(fields: &str) -> Vec<u8> {
    format!("GET /attack HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

/// Request lines and versions.
pub fn request_lines() -> Vec<Attack> {
    const LINE: &str = "RFC 9112 §3";
    const METHOD: &str = "RFC 9112 §3.1";
    const TARGET: &str = "RFC 9112 §3.2";
    const VERSION: &str = "RFC 9112 §2.3";
    const LINES: &str = "RFC 9112 §2.2";
    let mut attacks = Vec::new();
    for (name, rule, text) in [
        (
            "two blanks before the target",
            LINE,
            "GET  /attack HTTP/1.1",
        ),
        (
            "two blanks before the version",
            LINE,
            "GET /attack  HTTP/1.1",
        ),
        ("a tab for a blank", LINE, "GET\t/attack HTTP/1.1"),
        (
            "a vertical tab for a blank",
            LINE,
            "GET\x0b/attack HTTP/1.1",
        ),
        ("a blank behind the version", LINE, "GET /attack HTTP/1.1 "),
        ("a blank before the method", LINE, " GET /attack HTTP/1.1"),
        ("no version", LINE, "GET /attack"),
        ("no target", LINE, "GET HTTP/1.1"),
        ("a method alone", LINE, "GET"),
        ("no method", METHOD, " /attack HTTP/1.1"),
        ("a method that is no token", METHOD, "G@T /attack HTTP/1.1"),
        ("a method with NUL", METHOD, "GE\0T /attack HTTP/1.1"),
        ("a method with a colon", METHOD, "GET: /attack HTTP/1.1"),
        ("a blank in the target", TARGET, "GET /attack now HTTP/1.1"),
        (
            "two targets and versions",
            TARGET,
            "GET /a HTTP/1.1 /b HTTP/1.1",
        ),
        ("NUL in the target", TARGET, "GET /attack\0 HTTP/1.1"),
        ("DEL in the target", TARGET, "GET /attack\x7f HTTP/1.1"),
        (
            "a byte beyond ASCII in the target",
            TARGET,
            "GET /\u{e9} HTTP/1.1",
        ),
        ("a fragment in the target", TARGET, "GET /attack#x HTTP/1.1"),
        ("a relative target", TARGET, "GET attack HTTP/1.1"),
        ("a query alone", TARGET, "GET ?attack HTTP/1.1"),
        (
            "another scheme",
            "RFC 9112 §3.2.2",
            "GET ftp://a/attack HTTP/1.1",
        ),
        (
            "no authority",
            "RFC 9112 §3.2.2",
            "GET http:///attack HTTP/1.1",
        ),
        (
            "a user in the authority",
            "RFC 9110 §4.2.4",
            "GET http://u@a/attack HTTP/1.1",
        ),
        (
            "a host behind a backslash",
            "RFC 9112 §3.2.2",
            "GET http://a\\@b/attack HTTP/1.1",
        ),
        (
            "authority-form without CONNECT",
            "RFC 9112 §3.2.3",
            "GET a:80 HTTP/1.1",
        ),
        (
            "an asterisk without OPTIONS",
            "RFC 9112 §3.2.4",
            "GET * HTTP/1.1",
        ),
        (
            "CONNECT to a path",
            "RFC 9112 §3.2.3",
            "CONNECT /attack HTTP/1.1",
        ),
        ("a version in lower case", VERSION, "GET /attack http/1.1"),
        ("a version of two digits", VERSION, "GET /attack HTTP/1.10"),
        (
            "a version with a leading zero",
            VERSION,
            "GET /attack HTTP/01.1",
        ),
        (
            "a version without its minor",
            VERSION,
            "GET /attack HTTP/1.",
        ),
        ("a version of words", VERSION, "GET /attack HTTP/one.one"),
        ("another protocol", VERSION, "GET /attack ICAP/1.0"),
    ] {
        attacks.push(Attack::refused(name, rule, 400, line(text)));
    }
    for text in ["HTTP/1.2", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9"] {
        let bytes = line(format!("GET /attack {text}"));
        attacks.push(Attack::refused(text, VERSION, 505, bytes));
    }
    attacks.extend([
        Attack::refused(
            "the preface of HTTP/2",
            "RFC 9113 §3.4",
            505,
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ),
        Attack::refused(
            "CONNECT where no tunnel is offered",
            "RFC 9110 §9.3.6",
            405,
            line("CONNECT a:80 HTTP/1.1"),
        ),
        Attack::refused("three empty lines first", LINES, 400, "\r\n\r\n\r\n"),
        Attack::refused(
            "an empty line of LF first",
            LINES,
            400,
            [b"\n", &*get("")].concat(),
        ),
        Attack::refused("CR CR LF", LINES, 400, line("GET /attack HTTP/1.1\r")),
        Attack::refused(
            "lines of LF alone",
            LINES,
            400,
            "GET /attack HTTP/1.1\nHost: a\n\n",
        ),
        Attack::refused(
            "a request line that ends by LF",
            LINES,
            400,
            "GET /attack HTTP/1.1\nHost: a\r\n\r\n",
        ),
        Attack::refused(
            "a last line of LF alone",
            LINES,
            400,
            "GET /attack HTTP/1.1\r\nHost: a\r\n\n",
        ),
        Attack::refused(
            "a TLS ClientHello",
            LINE,
            400,
            *b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ),
    ]);
    attacks
}

/// Who is asked: `Host`.
pub fn hosts() -> Vec<Attack> {
    const RULE: &str = "RFC 9112 §3.2";
    let mut attacks: Vec<Attack> = [
        "a b",
        "a, b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "user@a",
        "u:p@a",
        "http://a",
        "a:80:80",
        "a:65536",
        "a:0",
        "a:+80",
        "a:-1",
        "a:8O",
        "[::1",
        "::1",
        "[::1]80",
        "[]",
        "[1.2.3.4]",
        "a%00b",
        "a%2eb",
        "b\u{fc}cher",
        "a;b",
        "a'b",
        "(a)",
        "a\"",
        "*",
        "",
    ]
    .into_iter()
    .map(|host| {
        Attack::refused(
            format!("Host: {host}"),
            RULE,
            400,
            without_host(&format!("Host: {host}\r\n")),
        )
    })
    .collect();
    attacks.extend(
        [
            ("no Host", ""),
            ("no Host, but a field like it", "X-Host: a\r\n"),
            ("two Hosts", "Host: a\r\nHost: b\r\n"),
            ("two equal Hosts", "Host: a\r\nHost: a\r\n"),
            ("two Hosts in two letter cases", "Host: a\r\nhOST: b\r\n"),
            ("a second, empty Host", "Host: a\r\nHost:\r\n"),
            ("a folded Host", "Host: a\r\n .evil.test\r\n"),
            ("a blank before the colon of Host", "Host : a\r\n"),
            ("a second Host behind a blank", "Host: a\r\n Host: b\r\n"),
            ("a second Host behind a bare CR", "Host: a\rHost: b\r\n"),
            ("a second Host behind a bare LF", "Host: a\nHost: b\r\n"),
        ]
        .map(|(name, fields)| Attack::refused(name, RULE, 400, without_host(fields))),
    );
    attacks.push(Attack::refused(
        "two Hosts in HTTP/1.0",
        RULE,
        400,
        "GET /attack HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ));
    attacks
}

/// What is no field line.
pub fn fields() -> Vec<Attack> {
    const COLON: &str = "RFC 9112 §5.1";
    const FOLD: &str = "RFC 9112 §5.2";
    const LINES: &str = "RFC 9112 §2.2";
    const VALUE: &str = "RFC 9110 §5.5";
    const NAME: &str = "RFC 9110 §5.1";
    let mut attacks: Vec<Attack> = [
        ("a blank before the colon", COLON, "X : y\r\n"),
        ("a tab before the colon", COLON, "X\t: y\r\n"),
        (
            "a blank before the colon of CL",
            COLON,
            "Content-Length : 5\r\n",
        ),
        (
            "a blank before the colon of TE",
            COLON,
            "Transfer-Encoding : chunked\r\n",
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
        (
            "a blank for the colon",
            COLON,
            "Transfer-Encoding chunked\r\n",
        ),
        ("no name: CVE-2023-25725", NAME, ": y\r\n"),
        (
            "no name before others",
            NAME,
            ": y\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "a name with a blank",
            NAME,
            "Transfer Encoding: chunked\r\n",
        ),
        (
            "a name with a vertical tab",
            NAME,
            "Content-Length\x0b: 5\r\n",
        ),
        ("a name with NUL", NAME, "Transfer-Encoding\0: chunked\r\n"),
        (
            "a name with NUL before it",
            NAME,
            "\0Transfer-Encoding: chunked\r\n",
        ),
        (
            "a name beyond ASCII",
            NAME,
            "Transf\u{e9}r-Encoding: chunked\r\n",
        ),
        ("a name with a bracket", NAME, "X(y): z\r\n"),
        ("a name in quotes", NAME, "\"Content-Length\": 5\r\n"),
        ("a folded value", FOLD, "X: y\r\n z\r\n"),
        ("a value folded by a tab", FOLD, "X: y\r\n\tz\r\n"),
        ("an empty fold", FOLD, "X: y\r\n \r\n"),
        ("a folded TE", FOLD, "Transfer-Encoding:\r\n chunked\r\n"),
        (
            "a TE in a fold",
            FOLD,
            "X: y\r\n Transfer-Encoding: chunked\r\n",
        ),
        ("a folded CL", FOLD, "Content-Length:\r\n 5\r\n"),
        ("a CL of two lines", FOLD, "Content-Length: 1\r\n 0\r\n"),
        ("a bare CR in a value", LINES, "X: y\rz\r\n"),
        ("a bare CR before the line end", LINES, "X: y\r\r\n"),
        (
            "a TE behind a bare CR",
            LINES,
            "X: y\rTransfer-Encoding: chunked\r\n",
        ),
        (
            "a TE behind a bare LF",
            LINES,
            "X: y\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "a name behind a bare CR",
            LINES,
            "\rTransfer-Encoding: chunked\r\n",
        ),
        ("an end of the head by LF CR LF", LINES, "X: y\n\r\n"),
        ("an end of the head by CR CR", LINES, "X: y\r\r"),
    ]
    .map(|(name, rule, fields)| Attack::refused(name, rule, 400, get(fields)))
    .into();
    // Tab is white space; CR and LF have rows of their own.
    let controls = (0..0x20)
        .chain([0x7f])
        .filter(|byte| !b"\t\r\n".contains(byte));
    attacks.extend(controls.map(|byte| {
        let field = [b"X: y", &[byte][..], b"z\r\n"].concat();
        Attack::refused(format!("0x{byte:02x} in a value"), VALUE, 400, get(field))
    }));
    attacks.push(Attack::refused(
        "a blank before the first field",
        LINES,
        400,
        without_host(" X: y\r\nHost: a\r\n"),
    ));
    attacks
}
