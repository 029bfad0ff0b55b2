//! The table of attacks by users: heads in good form that mean nothing, or two things; and such as look
//! so, and have one meaning.

use super::{
    request_heads::{get, line},
    users::{Attack, Meaning},
};

/// A whole head of POST with these fields, and what follows it.
fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /attack HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
}

/// How long is the body: `Content-Length` and `Transfer-Encoding`.
pub fn lengths() -> Vec<Attack> {
    const CL: &str = "RFC 9112 §6.2";
    const TE: &str = "RFC 9112 §6.1";
    const BOTH: &str = "RFC 9112 §6.1 and §6.3";
    let mut attacks: Vec<Attack> = [
        "+5",
        "-5",
        "0x5",
        "5.0",
        "5e0",
        "5 5",
        "5,5",
        "5, 5",
        "5;5",
        "\"5\"",
        "5_0",
        "five",
        "",
        "\u{665}",
        "\u{ff15}",
        "5\x0b",
        "\x0c5",
        "9223372036854775808",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999999999999999999",
    ]
    .into_iter()
    .map(|value| {
        let bytes = post(&format!("Content-Length: {value}\r\n"), "hello");
        Attack::refused(format!("CL {value:?}"), CL, 400, bytes)
    })
    .collect();
    attacks.extend(
        [
            (
                "two equal CLs",
                "Content-Length: 5\r\nContent-Length: 5\r\n",
            ),
            ("two CLs", "Content-Length: 5\r\nContent-Length: 40\r\n"),
            ("a CL and 0", "Content-Length: 5\r\nContent-Length: 0\r\n"),
            (
                "two CLs in two letter cases",
                "Content-Length: 5\r\ncontent-length: 6\r\n",
            ),
            (
                "a CL and an empty one",
                "Content-Length: 5\r\nContent-Length:\r\n",
            ),
        ]
        .map(|(name, fields)| Attack::refused(name, "RFC 9112 §6.3", 400, post(fields, "hello"))),
    );
    attacks.extend(
        [
            (
                "CL and TE",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "TE and CL",
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            ),
            (
                "CL 0 and TE",
                "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "CL and an unknown TE",
                "Content-Length: 5\r\nTransfer-Encoding: x\r\n",
            ),
            (
                "CL and an empty TE",
                "Content-Length: 5\r\nTransfer-Encoding:\r\n",
            ),
            (
                "a bad CL and TE",
                "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "CL and TE in lower case",
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            ),
        ]
        .map(|(name, fields)| Attack::refused(name, BOTH, 400, post(fields, "0\r\n\r\n"))),
    );
    for (status, value) in [
        (400, "chunked, chunked"),
        (400, "chunked, identity"),
        (400, "chunked, gzip"),
        (400, "chunked,"),
        (400, ",chunked"),
        (400, ", "),
        (400, ""),
        (400, "chunked;q=1"),
        (400, "\"chunked\""),
        (501, "'chunked"),
        (400, "chunked chunked"),
        (400, "chunked\x0b"),
        (400, "\x0bchunked"),
        (400, "\0chunked"),
        (400, "chunked\0"),
        (400, "chun\u{212a}ed"),
        (400, "chunked/1.0"),
        (501, "gzip"),
        (501, "gzip, chunked"),
        (501, "identity"),
        (501, "identity, chunked"),
        (501, "xchunked"),
        (501, "chunkedx"),
        (501, "'chunked'"),
    ] {
        let bytes = post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
        attacks.push(Attack::refused(format!("TE {value:?}"), TE, status, bytes));
    }
    attacks.extend(
        [
            (
                "two TEs",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "two TEs, the last unknown",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
            ),
            (
                "two TEs, the first unknown",
                "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "two TEs, one empty",
                "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
            ),
        ]
        .map(|(name, fields)| Attack::refused(name, TE, 400, post(fields, "0\r\n\r\n"))),
    );
    attacks.extend([
        Attack::refused(
            "TE in HTTP/1.0: CVE-2026-2835",
            TE,
            400,
            "POST /attack HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        Attack::refused(
            "TE in HTTP/1.0 that is kept alive",
            TE,
            400,
            "POST /attack HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        Attack::refused(
            "an unknown TE in HTTP/1.0",
            TE,
            400,
            "POST /attack HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n",
        ),
    ]);
    attacks
}

/// Fields with a meaning that an intermediary must know.
pub fn meanings() -> Vec<Attack> {
    const EXPECT: &str = "RFC 9110 §10.1.1";
    const CONNECTION: &str = "RFC 9110 §7.6.1";
    let mut attacks: Vec<Attack> = [
        ("another expectation", 417, EXPECT, "Expect: 200-ok\r\n"),
        ("an empty expectation", 417, EXPECT, "Expect:\r\n"),
        (
            "two expectations",
            417,
            EXPECT,
            "Expect: 100-continue, x\r\n",
        ),
        (
            "the expectation twice",
            417,
            EXPECT,
            "Expect: 100-continue\r\nExpect: 100-continue\r\n",
        ),
        (
            "an option that is no token",
            400,
            CONNECTION,
            "Connection: a b\r\n",
        ),
        (
            "an option in quotes",
            400,
            CONNECTION,
            "Connection: \"close\"\r\n",
        ),
    ]
    .map(|(name, status, rule, fields)| Attack::refused(name, rule, status, get(fields)))
    .into();
    let options = format!("Connection: {}close\r\n", "x,".repeat(64));
    attacks.push(Attack::refused(
        "options without end",
        CONNECTION,
        400,
        get(options),
    ));
    attacks.extend(
        [
            ("TRACE with content", "Content-Length: 5\r\n\r\nhello"),
            (
                "TRACE with chunks",
                "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
        ]
        .map(|(name, rest)| {
            let bytes = format!("TRACE /attack HTTP/1.1\r\nHost: a\r\n{rest}");
            Attack::refused(name, "RFC 9110 §9.3.8", 400, bytes)
        }),
    );
    for value in [
        "",
        "-1",
        "+1",
        "0x1",
        "1.0",
        "1, 2",
        "1 2",
        "one",
        "1\r\nMax-Forwards: 1",
    ] {
        let bytes = format!("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: {value}\r\n\r\n");
        let name = format!("Max-Forwards {value:?}");
        attacks.push(Attack::refused(name, "RFC 9110 §7.6.2", 400, bytes));
    }
    attacks
}

/// What an origin is told of every user of these tests, whatever the user says of itself.
const TOLD: &[(&str, &str)] = &[
    ("via", "1.1 siding"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "a"),
    ("forwarded", "for=127.0.0.1;host=a;proto=http"),
];

/// What looks like an attack and has one meaning only, which is what the origin must see.
pub fn one_meaning() -> Vec<Attack> {
    const GET: Meaning = Meaning {
        line: "GET /attack",
        has: &[],
        lacks: &["content-length", "transfer-encoding"],
        body: Vec::new(),
    };
    let posted = |body: &str| Meaning {
        line: "POST /attack",
        has: &[],
        lacks: &[],
        body: body.into(),
    };
    let length = |length: &'static [(&str, &str)], body| Meaning {
        has: length,
        lacks: &["transfer-encoding"],
        ..posted(body)
    };
    let chunked = |body| Meaning {
        has: &[("transfer-encoding", "chunked")],
        lacks: &["content-length", "trailer"],
        ..posted(body)
    };
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    // A name so long that a length field of one byte wraps: HAProxy read a CL of 0 here.
    let long_name = format!("Content-Length0{}:\r\n", "a".repeat(255));
    vec![
        Attack::means(
            "one empty line first",
            "RFC 9112 §2.2",
            [b"\r\n", &*get("")].concat(),
            [GET],
        ),
        Attack::means(
            "a request that is a body: CVE-2021-40346",
            "RFC 9112 §6.3",
            post(
                &format!("{long_name}Content-Length: {}\r\n", hidden.len()),
                hidden,
            ),
            [length(&[("content-length", "35")], hidden)],
        ),
        Attack::means(
            "a body of GET",
            "RFC 9110 §9.3.1",
            format!("GET /attack HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n{hidden}"),
            [Meaning {
                has: &[("content-length", "35")],
                lacks: &["transfer-encoding"],
                body: hidden.into(),
                ..GET
            }],
        ),
        Attack::means(
            "leading zeros of CL",
            "RFC 9112 §6.2",
            post("Content-Length: 0000005\r\n", "hello"),
            [length(&[("content-length", "5")], "hello")],
        ),
        Attack::means(
            "white space around CL",
            "RFC 9110 §5.5",
            post("Content-Length:\t 5 \t\r\n", "hello"),
            [length(&[("content-length", "5")], "hello")],
        ),
        Attack::means(
            "TE in any letter case, and white space",
            "RFC 9112 §7",
            post(
                "tRANSFER-eNCODING: \tcHUNKED\t \r\n",
                "5\r\nhello\r\n0\r\n\r\n",
            ),
            [chunked("hello")],
        ),
        Attack::means(
            "chunks with leading zeros, capitals and extensions",
            "RFC 9112 §7.1",
            post(
                "Transfer-Encoding: chunked\r\n",
                "000A;a;b=c;d=\"e\\\"\x7e;f\"\r\n0123456789\r\n0000;x\r\n\r\n",
            ),
            [chunked("0123456789")],
        ),
        Attack::means(
            "framing in trailers",
            "RFC 9110 §6.5.1",
            post(
                "Transfer-Encoding: chunked\r\n",
                "5\r\nhello\r\n0\r\nContent-Length: 35\r\nTransfer-Encoding: x\r\nHost: b\r\nAuthorization: c\r\n\r\n",
            ),
            [Meaning {
                lacks: &["content-length", "authorization"],
                has: &[("host", "a")],
                ..chunked("hello")
            }],
        ),
        Attack::means(
            "framing as hop-by-hop fields",
            "RFC 9110 §7.6.1",
            post(
                "Connection: Content-Length, Transfer-Encoding, keep-alive\r\nContent-Length: 35\r\n",
                hidden,
            ),
            [length(&[("content-length", "35")], hidden)],
        ),
        Attack::means(
            "Host, credentials and cookies as hop-by-hop fields",
            "RFC 9110 §7.6.1",
            get("Connection: Host, Authorization, Cookie\r\nAuthorization: x\r\nCookie: y\r\n"),
            [Meaning {
                has: &[("host", "a"), ("authorization", "x"), ("cookie", "y")],
                lacks: &["connection"],
                ..GET
            }],
        ),
        Attack::means(
            "hop-by-hop fields",
            "RFC 9110 §7.6.1",
            get(
                "Connection: keep-alive, X\r\nX: y\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\n\
                 Proxy-Authorization: Basic eDp5\r\nTE: gzip\r\n",
            ),
            [Meaning {
                lacks: &[
                    "connection",
                    "x",
                    "keep-alive",
                    "proxy-connection",
                    "proxy-authorization",
                    "te",
                ],
                ..GET
            }],
        ),
        Attack::means(
            "words about the user that are its own",
            "RFC 7239 §8.1",
            get(
                "Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX_Forwarded_For: 10.0.0.1\r\n\
                 x-forwarded-PROTO: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 10.0.0.1\r\n",
            ),
            [Meaning {
                has: TOLD,
                lacks: &["x-real-ip", "x_forwarded_for", "x-forwarded-port"],
                ..GET
            }],
        ),
        Attack::means(
            "words about the user as hop-by-hop fields",
            "RFC 9110 §7.6.1",
            get(
                "Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded, Via\r\n",
            ),
            [Meaning {
                has: TOLD,
                lacks: &["connection"],
                ..GET
            }],
        ),
        Attack::means(
            "trailers of the answer, and of nothing else",
            "RFC 9110 §10.1.4",
            get("TE: gzip;q=0.5, trailers\r\nConnection: TE, keep-alive\r\n"),
            [Meaning {
                has: &[("te", "trailers"), ("connection", "TE")],
                lacks: &["keep-alive"],
                ..GET
            }],
        ),
        Attack::means(
            "one intermediary less",
            "RFC 9110 §7.6.2",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 00010\r\n\r\n",
            [Meaning {
                line: "OPTIONS *",
                has: &[("max-forwards", "9")],
                ..GET
            }],
        ),
        Attack::means(
            "Max-Forwards where it has no meaning",
            "RFC 9110 §7.6.2",
            get("Max-Forwards: x, 0\r\n"),
            [Meaning {
                has: &[("max-forwards", "x, 0")],
                ..GET
            }],
        ),
        Attack::means(
            "h2c, a second way to send requests",
            "RFC 9113 §3.1",
            get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            ),
            [Meaning {
                lacks: &["connection", "upgrade", "http2-settings"],
                ..GET
            }],
        ),
        Attack::means(
            "an upgrade in HTTP/1.0",
            "RFC 9110 §7.8",
            "GET /attack HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            [Meaning {
                has: &[("host", "a")],
                lacks: &["connection", "upgrade"],
                ..GET
            }],
        ),
        Attack::means(
            "an absolute target with another Host",
            "RFC 9112 §3.2.2",
            "GET http://b/attack HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            [Meaning {
                has: &[("host", "b")],
                ..GET
            }],
        ),
        Attack::means(
            "pipelined requests behind bodies that look like requests",
            "RFC 9112 §9.3.2",
            [
                post("Content-Length: 35\r\n", hidden),
                post(
                    "Transfer-Encoding: chunked\r\n",
                    &format!("23\r\n{hidden}\r\n0\r\n\r\n"),
                ),
                get(""),
            ]
            .concat(),
            [posted(hidden), posted(hidden), GET],
        ),
    ]
}

/// What only a forward proxy is asked.
pub fn forward() -> Vec<Attack> {
    const TARGET: &str = "RFC 9112 §3.2.2";
    const CONNECT: &str = "RFC 9112 §3.2.3";
    let mut attacks: Vec<Attack> = [
        ("origin-form", TARGET, "GET /attack"),
        ("an asterisk", "RFC 9112 §3.2.4", "OPTIONS *"),
        (
            "a user in the authority",
            "RFC 9110 §4.2.4",
            "GET http://u@{origin}/attack",
        ),
        (
            "a host as the user",
            "RFC 9110 §4.2.4",
            "GET http://{origin}@evil.test/attack",
        ),
        (
            "a host behind a backslash",
            TARGET,
            "GET http://{origin}\\@evil.test/attack",
        ),
        ("an empty host", TARGET, "GET http://:80/attack"),
        ("an empty host and port", TARGET, "GET http:///attack"),
        ("a port of 0", TARGET, "GET http://127.0.0.1:0/attack"),
        (
            "a port of 65536",
            TARGET,
            "GET http://127.0.0.1:65536/attack",
        ),
        ("a signed port", TARGET, "GET http://127.0.0.1:+80/attack"),
        (
            "a host of two",
            TARGET,
            "GET http://{origin},evil.test/attack",
        ),
        (
            "a host with an escape",
            TARGET,
            "GET http://127.0.0.1%00/attack",
        ),
        (
            "an address with a zone",
            TARGET,
            "GET http://[::1%25lo]/attack",
        ),
        (
            "an address without its bracket",
            TARGET,
            "GET http://[::1/attack",
        ),
        ("another scheme", TARGET, "GET ftp://{origin}/attack"),
        ("a fragment", TARGET, "GET http://{origin}/attack#x"),
        (
            "a fragment before the path",
            TARGET,
            "GET http://{origin}#@evil.test/attack",
        ),
        ("CONNECT without a port", CONNECT, "CONNECT 127.0.0.1"),
        ("CONNECT with an empty port", CONNECT, "CONNECT 127.0.0.1:"),
        ("CONNECT to port 0", CONNECT, "CONNECT 127.0.0.1:0"),
        ("CONNECT with a user", CONNECT, "CONNECT u@{origin}"),
        ("CONNECT to a URI", CONNECT, "CONNECT http://{origin}"),
        ("CONNECT to a path", CONNECT, "CONNECT {origin}/attack"),
        ("CONNECT in lower case", CONNECT, "connect {origin}"),
        ("CONNECT to half an address", CONNECT, "CONNECT [::1:80"),
    ]
    .map(|(name, rule, text)| Attack::refused(name, rule, 400, line(format!("{text} HTTP/1.1"))))
    .into();
    attacks.extend(
        [
            (
                "CONNECT with content",
                "RFC 9110 §9.3.6",
                "CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\nContent-Length: 5\r\n\r\nhello",
            ),
            (
                "CONNECT with chunks",
                "RFC 9110 §9.3.6",
                "CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            (
                "CONNECT without Host",
                "RFC 9112 §3.2",
                "CONNECT {origin} HTTP/1.1\r\n\r\n",
            ),
            (
                "an absolute target without Host",
                "RFC 9112 §3.2",
                "GET http://{origin}/attack HTTP/1.1\r\n\r\n",
            ),
            (
                "an absolute target with two Hosts",
                "RFC 9112 §3.2",
                "GET http://{origin}/attack HTTP/1.1\r\nHost: {origin}\r\nHost: b\r\n\r\n",
            ),
            (
                "an absolute target with a bad Host",
                "RFC 9112 §3.2",
                "GET http://{origin}/attack HTTP/1.1\r\nHost: a b\r\n\r\n",
            ),
        ]
        .map(|(name, rule, bytes)| Attack::refused(name, rule, 400, bytes)),
    );
    attacks.push(Attack::refused(
        "a target that is not allowed, whatever Host says",
        TARGET,
        403,
        "GET http://127.0.0.1:1/attack HTTP/1.1\r\nHost: {origin}\r\n\r\n",
    ));
    let get = Meaning {
        line: "GET /attack",
        lacks: &[
            "proxy-connection",
            "proxy-authorization",
            "content-length",
            "transfer-encoding",
        ],
        ..Meaning::default()
    };
    attacks.extend([
        Attack::means(
            "a Host that differs from the target",
            TARGET,
            "GET http://{origin}/attack HTTP/1.1\r\nHost: evil.test\r\nProxy-Connection: x\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
            [get.clone()],
        ),
        Attack::means(
            "words about the user, which a proxy of its own neither adds nor takes away",
            "RFC 7239 §8.3",
            "GET http://{origin}/attack HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
            [Meaning {
                has: &[("x-forwarded-for", "10.0.0.1")],
                lacks: &["forwarded", "x-forwarded-host", "x-forwarded-proto"],
                ..get.clone()
            }],
        ),
        Attack::means(
            "a path that looks like another host",
            TARGET,
            "GET http://{origin}//evil.test/@b HTTP/1.1\r\nHost: a\r\n\r\n",
            [Meaning { line: "GET //evil.test/@b", ..get.clone() }],
        ),
        Attack::means(
            "a query that follows the host",
            TARGET,
            "GET http://{origin}?@evil.test/ HTTP/1.1\r\nHost: a\r\n\r\n",
            [Meaning { line: "GET /?@evil.test/", ..get }],
        ),
    ]);
    attacks
}
