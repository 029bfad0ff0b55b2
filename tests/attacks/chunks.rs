//! Broken chunked bodies, as they may come from either side.

const SIZE: &str = "RFC 9112 §7.1";
const EXTENSION: &str = "RFC 9112 §7.1.1";
const TRAILER: &str = "RFC 9112 §7.1.2";

/// A name, the rule that is broken, and a body that breaks it after its first chunk, `3 abc`.
pub fn broken() -> Vec<(String, &'static str, Vec<u8>)> {
    let mut rows: Vec<(String, &'static str, Vec<u8>)> = [
        ("no size", SIZE, "\r\n"),
        (
            "no size before an extension",
            SIZE,
            ";x\r\nhello\r\n0\r\n\r\n",
        ),
        ("a size of a word", SIZE, "x\r\nhello\r\n0\r\n\r\n"),
        ("a signed size", SIZE, "+5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", SIZE, "-1\r\nhello\r\n0\r\n\r\n"),
        ("a size with its base", SIZE, "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a blank before the size", SIZE, " 5\r\nhello\r\n0\r\n\r\n"),
        ("a blank behind the size", SIZE, "5 \r\nhello\r\n0\r\n\r\n"),
        ("a tab behind the size", SIZE, "5\t\r\nhello\r\n0\r\n\r\n"),
        (
            "a vertical tab behind the size",
            SIZE,
            "5\x0b\r\nhello\r\n0\r\n\r\n",
        ),
        ("NUL behind the size", SIZE, "5\0\r\nhello\r\n0\r\n\r\n"),
        (
            "an underscore in the size",
            SIZE,
            "0_5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a size of digits of another script",
            SIZE,
            "\u{ff15}\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a size of 2^63",
            SIZE,
            "8000000000000000\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a size of 2^64 - 1",
            SIZE,
            "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a size of 2^64 + 5",
            SIZE,
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "zeros without end",
            SIZE,
            "00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("a size line that ends by LF", SIZE, "5\nhello\r\n0\r\n\r\n"),
        ("a size line that ends by CR", SIZE, "5\rhello\r\n0\r\n\r\n"),
        (
            "a size line that ends by CR CR LF",
            SIZE,
            "5\r\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "data longer than its size",
            SIZE,
            "5\r\nhelloXX\r\n0\r\n\r\n",
        ),
        ("data shorter than its size", SIZE, "5\r\nhell\r\n0\r\n\r\n"),
        ("data that ends by LF", SIZE, "5\r\nhello\n0\r\n\r\n"),
        ("data that ends by CR", SIZE, "5\r\nhello\r0\r\n\r\n"),
        ("data without an end", SIZE, "5\r\nhello0\r\n\r\n"),
        ("a last chunk with data", SIZE, "0\r\nhello\r\n\r\n"),
        (
            "LF in an extension",
            EXTENSION,
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "LF behind an extension",
            EXTENSION,
            "5;a\nhello\r\n0\r\n\r\n",
        ),
        (
            "CR in an extension",
            EXTENSION,
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "NUL in an extension",
            EXTENSION,
            "5;a\0b\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a line end in quotes",
            EXTENSION,
            "5;a=\"b\r\n\"\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a line end that is escaped",
            EXTENSION,
            "5;a=\"\\\r\n\"\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "LF in the extension of the last chunk",
            EXTENSION,
            "0;a\n\r\n",
        ),
        ("an empty line of LF at the end", TRAILER, "0\r\n\n"),
        ("an empty line of CR at the end", TRAILER, "0\r\n\rX"),
        ("a trailer that ends by LF", TRAILER, "0\r\nX: y\n\r\n"),
        ("a bare CR in a trailer", TRAILER, "0\r\nX: y\rZ: z\r\n\r\n"),
        ("NUL in a trailer", TRAILER, "0\r\nX: \0\r\n\r\n"),
        ("a folded trailer", TRAILER, "0\r\nX: y\r\n z\r\n\r\n"),
        (
            "white space before the first trailer",
            TRAILER,
            "0\r\n X: y\r\n\r\n",
        ),
        (
            "a blank before the colon of a trailer",
            TRAILER,
            "0\r\nX : y\r\n\r\n",
        ),
        ("a trailer without a colon", TRAILER, "0\r\nX\r\n\r\n"),
        ("a trailer without a name", TRAILER, "0\r\n: y\r\n\r\n"),
        (
            "a request for a trailer",
            TRAILER,
            "0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ]
    .map(|(name, rule, body)| {
        (
            name.to_owned(),
            rule,
            [b"3\r\nabc\r\n", body.as_bytes()].concat(),
        )
    })
    .into();
    rows.extend([
        (
            "an extension without end".to_owned(),
            EXTENSION,
            [
                b"3\r\nabc\r\n5;",
                &*vec![b'x'; 3000],
                b"\r\nhello\r\n0\r\n\r\n",
            ]
            .concat(),
        ),
        (
            "trailers without end".to_owned(),
            TRAILER,
            [
                b"3\r\nabc\r\n0\r\n",
                &*b"X: yyyyyyyyyy\r\n".repeat(1000),
                b"\r\n",
            ]
            .concat(),
        ),
        (
            "trailers without number".to_owned(),
            TRAILER,
            [b"3\r\nabc\r\n0\r\n", &*b"X:\r\n".repeat(200), b"\r\n"].concat(),
        ),
    ]);
    rows
}
