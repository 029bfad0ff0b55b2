//! Ways to spoil a message: by chance, and by what smugglers and broken peers are known to send.

use crate::seed::Rng;

/// Spoils `bytes` in one to three ways, and names them.
pub fn spoil(bytes: &[u8], side: Side, rng: &mut Rng) -> (Vec<u8>, Vec<&'static str>) {
    let mut spoiled = bytes.to_vec();
    let mut names = Vec::new();
    let wanted = rng.weighted(&[(70, 1), (20, 2), (10, 3)]);
    // Many a way leads nowhere in the message at hand: then another is tried.
    for _ in 0..100 {
        if names.len() == wanted {
            break;
        }
        let (name, way) = rng.pick(WAYS);
        let before = spoiled.clone();
        way(&mut spoiled, side, rng);
        if spoiled != before {
            names.push(name);
        }
    }
    (spoiled, names)
}

/// Whose messages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Requests.
    User,
    /// Responses.
    Origin,
}

/// The names of all ways.
pub fn names() -> impl Iterator<Item = &'static str> {
    WAYS.iter().map(|(name, _)| *name)
}

type Way = fn(&mut Vec<u8>, Side, &mut Rng);

const WAYS: &[(&str, Way)] = &[
    ("a bit flipped", flip),
    ("a byte replaced", replace),
    ("a byte inserted", insert),
    ("a byte deleted", delete),
    ("some bytes deleted", delete_some),
    ("some bytes repeated", repeat_some),
    ("the end cut off", truncate),
    ("the end cut off", truncate),
    ("the end cut off", truncate),
    ("the end cut off", truncate),
    ("a line repeated", repeat_line),
    ("a line deleted", delete_line),
    ("two lines exchanged", exchange_lines),
    ("a forbidden line inserted", insert_line),
    ("a forbidden line inserted", insert_line),
    ("a bare LF", bare_lf),
    ("a bare CR", bare_cr),
    ("CR CR LF", double_cr),
    ("a folded line", fold),
    ("an oversized field", oversized_field),
    ("too many fields", many_fields),
    ("an oversized start line", oversized_start),
    ("another start line", start_line),
    ("another start line", start_line),
    ("another Content-Length", other_length),
    ("another Content-Length", other_length),
    ("another chunk size", other_size),
    ("another chunk size", other_size),
    ("another chunk size", other_size),
    ("no CRLF behind a chunk", no_chunk_end),
    ("bad trailers", bad_trailers),
    ("extensions without end", many_extensions),
    ("empty lines before it", empty_lines),
    ("bytes behind it", behind),
];

/// A place, in a head more often than not: there is more to spoil.
fn place(bytes: &[u8], rng: &mut Rng) -> usize {
    let head = head_length(bytes);
    match head > 0 && rng.percent(70) {
        true => rng.below(head),
        false => rng.below(bytes.len().max(1)),
    }
}

fn head_length(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    end.map_or(0, |end| end + 4)
}

/// Where each line of the first head begins and ends, its CRLF included; without the empty line.
fn lines(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut lines = Vec::new();
    let mut begin = 0;
    let end = head_length(bytes).saturating_sub(2);
    for at in 1..end {
        if bytes[at - 1..=at] == *b"\r\n" && at > begin {
            lines.push((begin, at + 1));
            begin = at + 1;
        }
    }
    lines
}

/// A field line.
fn field(bytes: &[u8], rng: &mut Rng) -> Option<(usize, usize)> {
    let lines = lines(bytes);
    (lines.len() > 1).then(|| lines[rng.between(1, lines.len() - 1)])
}

/// The size lines of the first chunked body, without CRLF, as long as they are good.
fn sizes(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut at = head_length(bytes);
    let head = bytes[..at].to_ascii_lowercase();
    let coding = b"transfer-encoding:";
    let mut sizes = Vec::new();
    if !head.windows(coding.len()).any(|window| window == coding) {
        return sizes;
    }
    loop {
        let rest = &bytes[at.min(bytes.len())..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return sizes;
        };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let digits = String::from_utf8_lossy(&rest[..digits.count()]).into_owned();
        let Ok(size) = usize::from_str_radix(&digits, 16) else {
            return sizes;
        };
        sizes.push((at, at + end));
        if size == 0 || size > bytes.len() {
            return sizes;
        }
        at += end + 2 + size + 2;
    }
}

fn splice(bytes: &mut Vec<u8>, (begin, end): (usize, usize), with: impl AsRef<[u8]>) {
    bytes.splice(begin..end, with.as_ref().iter().copied());
}

fn flip(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = place(bytes, rng);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

fn nasty(rng: &mut Rng) -> u8 {
    match rng.percent(80) {
        true => rng.pick(b"\r\n\0 \t:;,\"0159afAF-+*/?#@%<>[]\\=\x7f\x80\xff\x0b\x0c\x01"),
        false => rng.byte(),
    }
}

fn replace(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = place(bytes, rng);
    let with = nasty(rng);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = with;
    }
}

fn insert(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = place(bytes, rng);
    let byte = nasty(rng);
    bytes.insert(at, byte);
}

fn delete(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = place(bytes, rng);
    if at < bytes.len() {
        bytes.remove(at);
    }
}

fn delete_some(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = place(bytes, rng);
    let end = bytes.len().min(at + rng.between(2, 40));
    bytes.drain(at..end);
}

fn repeat_some(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = place(bytes, rng);
    let end = bytes.len().min(at + rng.between(1, 200));
    let again = bytes[at..end].to_vec();
    splice(bytes, (at, at), again);
}

fn truncate(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let at = match rng.percent(30) {
        // Just before the end, where a message is almost whole.
        true => bytes.len().saturating_sub(rng.between(1, 8)),
        false => place(bytes, rng),
    };
    bytes.truncate(at);
}

fn repeat_line(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((begin, end)) = field(bytes, rng) {
        let line = bytes[begin..end].to_vec();
        splice(bytes, (begin, begin), line);
    }
}

fn delete_line(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((begin, end)) = field(bytes, rng) {
        bytes.drain(begin..end);
    }
}

fn exchange_lines(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let lines = lines(bytes);
    if lines.len() > 1 {
        let at = rng.between(1, lines.len() - 1);
        let ((begin, middle), (_, end)) = (lines[at - 1], lines[at]);
        bytes[begin..end].rotate_left(middle - begin);
    }
}

fn insert_line(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((begin, _)) = field(bytes, rng) {
        let line = format!("{}\r\n", rng.pick(LINES));
        splice(bytes, (begin, begin), line);
    }
}

const LINES: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: 5",
    "content-length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 0x5",
    "Content-Length: 5 5",
    "Content-Length: -1",
    "Content-Length:",
    "Content-Length: 18446744073709551616",
    "Content-Length: 9223372036854775808",
    "Content-Length : 5",
    "Content_Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding:",
    "Transfer-Encoding : chunked",
    "Transfer_Encoding: chunked",
    " Transfer-Encoding: chunked",
    "Host: other.test",
    "Host:",
    "Host: a, b",
    "Host: user@a.test",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: content-length, transfer-encoding, host, x-exchange",
    "Connection: a b",
    "Connection: ,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Max-Forwards: 0",
    "Max-Forwards: x",
    "Upgrade: h2c",
    "TE: trailers",
    "Trailer: Content-Length",
    ": no name",
    "no colon",
    "two words: x",
    "x\ty: tab",
    "x(y): comment",
    "X-Null: a\0b",
    "X-Delete: a\x7fb",
    "X-Text: \u{e9}",
    "X-Forwarded-For: forged",
    "\t",
];

fn bare_lf(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some(at) = line_end(bytes, rng) {
        bytes.remove(at);
    }
}

fn bare_cr(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some(at) = line_end(bytes, rng) {
        bytes.remove(at + 1);
    }
}

fn double_cr(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some(at) = line_end(bytes, rng) {
        bytes.insert(at, b'\r');
    }
}

/// Some CRLF of the head or behind a chunk size.
fn line_end(bytes: &[u8], rng: &mut Rng) -> Option<usize> {
    let mut ends: Vec<usize> = lines(bytes).iter().map(|(_, end)| end - 2).collect();
    ends.extend(sizes(bytes).iter().map(|(_, end)| *end));
    let head = head_length(bytes);
    if head > 0 {
        ends.push(head - 2);
    }
    (!ends.is_empty()).then(|| ends[rng.below(ends.len())])
}

fn fold(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((begin, end)) = field(bytes, rng) {
        let with = rng.pick(&["\r\n ", "\r\n\t", "\n "]);
        let at = match rng.percent(50) {
            true => end - 2,
            false => rng.between(begin, end - 2),
        };
        splice(bytes, (at, at), with);
    }
}

fn oversized_field(bytes: &mut Vec<u8>, side: Side, rng: &mut Rng) {
    if let Some((begin, _)) = field(bytes, rng) {
        // Around both limits.
        let length = match side {
            Side::User => rng.pick(&[30_000, 32_000, 32_768, 33_000, 70_000]),
            Side::Origin => rng.pick(&[33_000, 64_000, 65_536, 70_000, 140_000]),
        };
        let line = format!("X-Large: {}\r\n", "l".repeat(length));
        splice(bytes, (begin, begin), line);
    }
}

fn many_fields(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((begin, _)) = field(bytes, rng) {
        let count = rng.pick(&[60, 95, 99, 100, 101, 300]);
        splice(bytes, (begin, begin), "X-Many: m\r\n".repeat(count));
    }
}

fn oversized_start(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let line = lines(bytes).first().copied();
    let Some((begin, end)) = line else { return };
    let blank = bytes[begin..end].iter().rposition(|&byte| byte == b' ');
    if let Some(blank) = blank {
        let length = rng.pick(&[8_000, 8_192, 9_000, 33_000, 70_000]);
        splice(
            bytes,
            (begin + blank, begin + blank),
            "/l".repeat(length / 2),
        );
    }
}

fn start_line(bytes: &mut Vec<u8>, side: Side, rng: &mut Rng) {
    let line = lines(bytes).first().copied();
    let Some((begin, end)) = line else { return };
    let text = String::from_utf8_lossy(&bytes[begin..end - 2]).into_owned();
    let mut words: Vec<&str> = text.splitn(3, ' ').collect();
    if words.len() < 3 {
        return;
    }
    let other = match side {
        Side::User => [METHODS, TARGETS, VERSIONS],
        Side::Origin => [VERSIONS, STATUSES, PHRASES],
    };
    let index = rng.below(4);
    if let Some(others) = other.get(index) {
        words[index] = rng.pick(others);
    }
    let between = match index {
        3 => rng.pick(&["  ", "\t", "", " \t "]),
        _ => " ",
    };
    splice(bytes, (begin, end - 2), words.join(between));
}

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "OPTIONS", "TRACE", "get", "G ET", "", "GE\tT", "(GET)", "\u{e9}",
];
const TARGETS: &[&str] = &[
    "/",
    "*",
    "",
    "relative",
    "/a#fragment",
    "/a b",
    "http://",
    "http:///path",
    "http://user@a.test/",
    "http://a.test:0/",
    "http://a.test:70000/",
    "http://a.test,b.test/",
    "ftp://a.test/",
    "//a.test/",
    "/\u{e9}",
    "a.test:80",
    "http://a.test?query",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/1.10",
    "HTTP/1",
    "http/1.1",
    "HTTP/1,1",
    "HTTP /1.1",
    "ICAP/1.0",
    "",
];
const STATUSES: &[&str] = &[
    "200", "204", "304", "100", "103", "199", "101", "099", "000", "600", "999", "20", "2000",
    "2x0", "-20", "",
];
const PHRASES: &[&str] = &["", "OK", "\u{e9}", "a\0b", "a\x7fb", "a\tb", " OK"];

fn other_length(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let length = b"content-length:";
    let line = lines(bytes)
        .into_iter()
        .find(|&(begin, end)| bytes[begin..end].to_ascii_lowercase().starts_with(length));
    let Some((begin, end)) = line else { return };
    let value = String::from_utf8_lossy(&bytes[begin + length.len()..end]).into_owned();
    let number: u64 = value.trim().parse().unwrap_or(0);
    let other = match rng.below(6) {
        0 => (number + 1).to_string(),
        1 => number.saturating_sub(1).to_string(),
        2 => (number / 2).to_string(),
        3 => (number + 1000).to_string(),
        4 => "9223372036854775807".to_owned(),
        _ => format!("{number}{}", nasty(rng) as char),
    };
    splice(bytes, (begin + length.len(), end - 2), format!(" {other}"));
}

fn other_size(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let sizes = sizes(bytes);
    if sizes.is_empty() {
        return;
    }
    let (begin, end) = sizes[rng.below(sizes.len())];
    let text = String::from_utf8_lossy(&bytes[begin..end]).into_owned();
    let number = text.split(';').next().unwrap_or_default();
    let number = u64::from_str_radix(number, 16).unwrap_or(0);
    let other = match rng.below(17) {
        0 => format!("{:x}", number + 1),
        1 => format!("{:x}", number.saturating_sub(1)),
        2 => String::new(),
        3 => format!("0x{number:x}"),
        4 => format!("{number:x} "),
        5 => format!(" {number:x}"),
        6 => format!("-{number:x}"),
        7 => format!("+{number:x}"),
        8 => format!("{number:x}g"),
        9 => format!("{number:017x}"),
        10 => format!("{number:016x}"),
        11 => "ffffffffffffffff".to_owned(),
        12 => format!("1{number:016x}"),
        13 => format!(
            "{number:x};{}",
            "e".repeat(rng.pick(&[1, 1000, 1023, 1024, 2000]))
        ),
        14 => format!("{number:x};a=\"b\\\"c"),
        15 => format!("{number:x}\t;a"),
        _ => format!("{number:x};a\x01"),
    };
    splice(bytes, (begin, end), other);
}

fn no_chunk_end(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let sizes = sizes(bytes);
    if sizes.len() > 1 {
        let (begin, _) = sizes[rng.between(1, sizes.len() - 1)];
        let with = rng.pick(&["", "\n", "\r", "x", "xx", "\r\r\n"]);
        splice(bytes, (begin - 2, begin), with);
    }
}

fn bad_trailers(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((_, end)) = sizes(bytes).last().copied()
        && end + 2 <= bytes.len()
    {
        let line = match rng.below(8) {
            0 => format!("X-Large: {}\r\n", "t".repeat(9_000)),
            1 => "X-Many: t\r\n".repeat(rng.pick(&[60, 64, 65, 100])),
            2 => "X: a\r\n folded\r\n".to_owned(),
            3 => "X: a\n".to_owned(),
            _ => format!("{}\r\n", rng.pick(LINES)),
        };
        splice(bytes, (end + 2, end + 2), line);
    }
}

fn many_extensions(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    if let Some((begin, _)) = sizes(bytes).first().copied() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(rng.pick(&[100, 600, 1000])));
        splice(
            bytes,
            (begin, begin),
            chunk.repeat(rng.pick(&[10, 40, 100])),
        );
    }
}

fn empty_lines(bytes: &mut Vec<u8>, _: Side, rng: &mut Rng) {
    let lines = rng.pick(&["\r\n", "\r\n\r\n", "\r\n\r\n\r\n", "\n", "\r", " \r\n"]);
    splice(bytes, (0, 0), lines);
}

fn behind(bytes: &mut Vec<u8>, side: Side, rng: &mut Rng) {
    let message = match side {
        Side::User => "GET /behind HTTP/1.1\r\nHost: behind.test\r\n\r\n",
        Side::Origin => "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbehind",
    };
    let more = rng.pick(&["\r\n", "x", "\0", "0\r\n\r\n", message, message]);
    bytes.extend_from_slice(more.as_bytes());
}
