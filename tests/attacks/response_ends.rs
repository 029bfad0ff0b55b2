//! The table of attacks by origins: where a response ends, and what becomes of its connection then.

use super::{
    origins::{Asked, Attack, Meaning, Then},
    responses::ok,
};

/// What must never come to a user, who would take it for the answer to a later request.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// What follows a response, and responses without a body.
pub fn ends() -> Vec<Attack> {
    const SURPLUS: &str = "RFC 9112 §9.2";
    const BODILESS: &str = "RFC 9112 §6.3";
    let hello = |has, lacks| Meaning {
        status: 200,
        body: b"hello".to_vec(),
        has,
        lacks,
        reused: false,
    };
    let empty = |status, has, lacks, reused| Meaning {
        status,
        body: Vec::new(),
        has,
        lacks,
        reused,
    };
    let length: &[_] = &[("content-length", "5")];
    let chunked: &[_] = &[("transfer-encoding", "chunked")];
    let no_length: &[_] = &["content-length", "transfer-encoding"];
    vec![
        Attack::means(
            "a second response behind a length",
            SURPLUS,
            Asked::Get,
            ok("Content-Length: 5\r\n", &format!("hello{POISON}")),
            hello(length, &["transfer-encoding"]),
        ),
        Attack::means(
            "a second response behind the last chunk",
            SURPLUS,
            Asked::Get,
            ok(
                "Transfer-Encoding: chunked\r\n",
                &format!("5\r\nhello\r\n0\r\n\r\n{POISON}"),
            ),
            hello(chunked, &["content-length"]),
        ),
        Attack::means(
            "a second response behind the last chunk, for a user of HTTP/1.0",
            SURPLUS,
            Asked::OldGet,
            ok(
                "Transfer-Encoding: chunked\r\n",
                &format!("5\r\nhello\r\n0\r\n\r\n{POISON}"),
            ),
            hello(&[], no_length),
        ),
        Attack::means(
            "an empty line behind a length",
            SURPLUS,
            Asked::Get,
            ok("Content-Length: 5\r\n", "hello\r\n"),
            hello(length, &["transfer-encoding"]),
        ),
        Attack::means(
            "a body of HEAD",
            BODILESS,
            Asked::Head,
            ok("Content-Length: 5\r\n", "hello"),
            empty(200, length, &["transfer-encoding"], false),
        ),
        Attack::means(
            "a chunked body of HEAD",
            BODILESS,
            Asked::Head,
            ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            empty(200, &[], &["content-length"], false),
        ),
        Attack::means(
            "the length of HEAD",
            BODILESS,
            Asked::Head,
            ok("Content-Length: 5000\r\n", ""),
            empty(
                200,
                &[("content-length", "5000")],
                &["transfer-encoding"],
                true,
            ),
        ),
        Attack::means(
            "HEAD without any length",
            BODILESS,
            Asked::Head,
            ok("X: y\r\n", ""),
            empty(200, &[("x", "y")], no_length, true),
        ),
        Attack::means(
            "chunks of HEAD that are not sent",
            BODILESS,
            Asked::Head,
            ok("Transfer-Encoding: chunked\r\n", ""),
            empty(200, &[], &["content-length"], true),
        ),
        Attack::means(
            "a body of 204",
            BODILESS,
            Asked::Get,
            format!("HTTP/1.1 204 No Content\r\nContent-Length: 54\r\n\r\n{POISON}"),
            empty(204, &[], no_length, false),
        ),
        Attack::means(
            "chunks of 204",
            BODILESS,
            Asked::Get,
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            empty(204, &[], no_length, false),
        ),
        Attack::means(
            "chunks of 204 that are not sent",
            BODILESS,
            Asked::Get,
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            empty(204, &[], no_length, true),
        ),
        Attack::means(
            "a body of 304",
            BODILESS,
            Asked::Get,
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 54\r\n\r\n{POISON}"),
            empty(
                304,
                &[("content-length", "54")],
                &["transfer-encoding"],
                false,
            ),
        ),
        Attack::means(
            "the length of 304",
            BODILESS,
            Asked::Get,
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5000\r\n\r\n",
            empty(
                304,
                &[("content-length", "5000"), ("etag", "\"a\"")],
                &[],
                true,
            ),
        ),
        Attack::means(
            "205 with a body: its framing is read, so that it stays in step",
            "RFC 9110 §15.3.6",
            Asked::Get,
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello",
            Meaning {
                status: 205,
                reused: true,
                ..hello(length, &[])
            },
        ),
        Attack::means(
            "equal CLs",
            BODILESS,
            Asked::Get,
            ok("Content-Length: 5\r\ncontent-length: 5\r\n", "hello"),
            Meaning {
                reused: true,
                ..hello(length, &["transfer-encoding"])
            },
        ),
        Attack::means(
            "a close that nothing has told",
            BODILESS,
            Asked::Get,
            ok("X: y\r\n", "hello"),
            hello(chunked, &["content-length"]),
        )
        .then(Then::Close),
        Attack::means(
            "a close that nothing has told, for a user of HTTP/1.0",
            BODILESS,
            Asked::OldGet,
            ok("X: y\r\n", "hello"),
            hello(&[("connection", "close")], no_length),
        )
        .then(Then::Close),
        Attack::means(
            "a response of HTTP/1.0",
            "RFC 9112 §9.3",
            Asked::Get,
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            hello(length, &[]),
        ),
        Attack::means(
            "a response of HTTP/1.0 that is kept alive",
            "RFC 9112 §9.3",
            Asked::Get,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            Meaning {
                reused: true,
                ..hello(length, &["connection"])
            },
        ),
        Attack::means(
            "a response that says close",
            "RFC 9112 §9.6",
            Asked::Get,
            ok("Connection: close\r\nContent-Length: 5\r\n", "hello"),
            hello(length, &["connection"]),
        ),
        Attack::means(
            "the last response that the origin will give",
            "RFC 2068 §19.7.1",
            Asked::Get,
            ok(
                "Keep-Alive: timeout=5, max=0\r\nContent-Length: 5\r\n",
                "hello",
            ),
            hello(length, &["keep-alive"]),
        ),
        Attack::means(
            "an origin that keeps no connection idle",
            "RFC 2068 §19.7.1",
            Asked::Get,
            ok("Keep-Alive: timeout=0\r\nContent-Length: 5\r\n", "hello"),
            hello(length, &["keep-alive"]),
        ),
        Attack::means(
            "a challenge that ties the connection to its user",
            "RFC 4559 §6",
            Asked::Get,
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 5\r\n\r\nhello",
            Meaning {
                status: 401,
                ..hello(&[("www-authenticate", "Negotiate")], &[])
            },
        ),
        Attack::means(
            "a challenge of NTLM among others",
            "RFC 4559 §6",
            Asked::Get,
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a, b\", nTLM\r\nContent-Length: 5\r\n\r\nhello",
            Meaning {
                status: 401,
                ..hello(&[], &[])
            },
        ),
        Attack::means(
            "hop-by-hop fields",
            "RFC 9110 §7.6.1",
            Asked::Get,
            ok(
                "Connection: keep-alive, X, Set-Cookie\r\nX: y\r\nSet-Cookie: z\r\nKeep-Alive: timeout=5\r\n\
                 Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nTrailer: T\r\nContent-Length: 5\r\n",
                "hello",
            ),
            Meaning {
                reused: true,
                ..hello(
                    &[("set-cookie", "z")],
                    &[
                        "connection",
                        "x",
                        "keep-alive",
                        "upgrade",
                        "proxy-authenticate",
                        "trailer",
                    ],
                )
            },
        ),
    ]
}
