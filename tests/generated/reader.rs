//! A second opinion on what bytes mean: messages read to the letter of RFC 9112, slowly and plainly.
//!
//! It reads what siding writes, and, in place of siding, what was damaged before it: what it finds
//! there is what siding has to make of it. Where the RFC leaves a choice, siding's documented one is
//! taken: whatever is doubtful is refused. It knows limits as numbers of its own.

use crate::message::{Content, Field, Framing, Request, Response, Version, elements, values};

/// What stands at the front of some bytes.
#[derive(Debug)]
pub enum Found<M> {
    /// A message, which takes `length` bytes.
    Whole { message: M, length: usize },
    /// The bytes end before the head does.
    HeadCut,
    /// No message: any of these statuses is a right answer.
    HeadBroken(Vec<u16>),
    /// The bytes end before the content does, which is what came of it.
    ContentCut(M),
    /// The chunked coding is broken behind this content.
    ContentBroken(M),
}

/// Bytes of a request's head.
pub const REQUEST_HEAD_MAX: usize = 32 << 10;
/// Bytes of a response's head.
pub const RESPONSE_HEAD_MAX: usize = 64 << 10;
/// Bytes of a request line.
pub const REQUEST_LINE_MAX: usize = 8 << 10;
/// Fields of a head.
pub const FIELDS_MAX: usize = 100;
/// Bytes of one chunk's extensions.
pub const EXTENSION_MAX: usize = 1 << 10;
/// Bytes of extensions for which no data pays: two for each of its bytes, and 16 for each chunk.
const EXTENSIONS_EXCESS_MAX: u64 = 16 << 10;
/// Bytes of a trailer section.
pub const TRAILERS_MAX: usize = 8 << 10;
/// Fields of a trailer section.
const TRAILER_FIELDS_MAX: usize = 64;
/// Options in Connection.
const OPTIONS_MAX: usize = 32;
/// Empty lines that are forgiven before a request.
const EMPTY_LINES_MAX: usize = 2;

/// Reads a request.
pub fn request(bytes: &[u8]) -> Found<Request> {
    let mut start = 0;
    for _ in 0..EMPTY_LINES_MAX {
        if bytes[start..].starts_with(b"\r\n") {
            start += 2;
        }
    }
    let whole = head_length(&bytes[start..]).map(|length| start + length);
    let mut faults = Vec::new();
    if whole.unwrap_or(bytes.len() + 1) > REQUEST_HEAD_MAX {
        faults.push(431);
    }
    let line = bytes[start..].iter().position(|&byte| byte == b'\n');
    if line.unwrap_or(bytes.len() - start) >= REQUEST_LINE_MAX {
        faults.push(414);
    }
    let Some(length) = whole else {
        return match bytes.len() >= REQUEST_HEAD_MAX || faults == [414] {
            true => Found::HeadBroken(faults),
            false => Found::HeadCut,
        };
    };
    let Some((line, fields)) = lines(&bytes[start..length], &mut faults) else {
        return Found::HeadBroken(faults);
    };
    let words: Vec<&str> = line.split(' ').collect();
    let &[method, target, version] = &words[..] else {
        faults.push(400);
        return Found::HeadBroken(faults);
    };
    if !is_token(method) {
        faults.push(400);
    }
    let version = version_of(version).unwrap_or_else(|status| {
        faults.push(status);
        Version::Http11
    });
    check_target(method, target, &mut faults);
    check_host(&fields, version, target, &mut faults);
    check_connection(&fields, &mut faults);
    let expectations: Vec<&[u8]> = values(&fields, "expect").collect();
    if !matches!(expectations[..], [] | [_])
        || expectations
            .iter()
            .any(|one| !one.eq_ignore_ascii_case(b"100-continue"))
    {
        faults.push(417);
    }
    let hops: Vec<&[u8]> = values(&fields, "max-forwards").collect();
    let is_number = |hops: &[u8]| !hops.is_empty() && hops.iter().all(u8::is_ascii_digit);
    let counted = matches!(method, "OPTIONS" | "TRACE");
    if counted && (hops.len() > 1 || !hops.iter().all(|hops| is_number(hops))) {
        faults.push(400);
    }
    let framing = declared(&fields, version, false, &mut faults);
    // RFC 9110 §9.3.8.
    if method == "TRACE" && !matches!(framing, Declared::Nothing | Declared::Length(0)) {
        faults.push(400);
    }
    if !faults.is_empty() {
        return Found::HeadBroken(faults);
    }
    let message = |content| Request {
        method: method.to_owned(),
        target: target.to_owned(),
        version,
        fields: fields.clone(),
        content,
    };
    body(bytes, length, framing, message)
}

/// Reads a response, one head at a time; `to_head` where the request was HEAD. Content that ends by
/// closing is found [cut](Found::ContentCut).
pub fn response(bytes: &[u8], to_head: bool) -> Found<Response> {
    let Some(length) = head_length(bytes) else {
        return match bytes.len() >= RESPONSE_HEAD_MAX {
            true => Found::HeadBroken(Vec::new()),
            false => Found::HeadCut,
        };
    };
    let mut faults = Vec::new();
    let Some((line, fields)) = lines(&bytes[..length], &mut faults) else {
        return Found::HeadBroken(faults);
    };
    if length > RESPONSE_HEAD_MAX {
        faults.push(502);
    }
    let mut words = line.splitn(3, ' ');
    let version = version_of(words.next().unwrap_or_default()).unwrap_or_else(|status| {
        faults.push(status);
        Version::Http11
    });
    let code = words.next().unwrap_or_default();
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        faults.push(502);
    }
    let status: u16 = code.parse().unwrap_or_default();
    // Nobody asks for 101 here.
    if !(100..600).contains(&status) || status == 101 {
        faults.push(502);
    }
    check_connection(&fields, &mut faults);
    let declared = declared(&fields, version, true, &mut faults);
    if !faults.is_empty() {
        return Found::HeadBroken(faults);
    }
    // What is not ASCII in a phrase is not passed on, nor the phrase around it.
    let phrase = words.next().unwrap_or_default();
    let phrase = match phrase.is_ascii() {
        true => phrase.into(),
        false => Vec::new(),
    };
    let framing = match declared {
        _ if to_head || status < 200 || status == 204 || status == 304 => Declared::Nothing,
        Declared::Nothing => Declared::UntilClose,
        other => other,
    };
    let message = |content| Response {
        version,
        status,
        phrase: phrase.clone(),
        fields: fields.clone(),
        content,
    };
    body(bytes, length, framing, message)
}

/// What was read of a chunked body.
#[derive(Debug, Default)]
pub struct Chunked {
    /// The content so far.
    pub content: Vec<u8>,
    /// The trailer fields, once they are whole.
    pub trailers: Vec<Field>,
    /// There was something behind a size, or a size in other letters than ours.
    pub odd_sizes: bool,
    /// The bytes it takes; `None` while it has no end.
    pub length: Option<usize>,
    /// It breaks the grammar.
    pub broken: bool,
}

/// Reads a chunked body (RFC 9112 §7.1).
pub fn chunked(bytes: &[u8]) -> Chunked {
    let mut found = Chunked::default();
    let mut at = 0;
    let mut excess = 0;
    loop {
        let Some(end) = line_end(&bytes[at..]) else {
            return found;
        };
        let line = &bytes[at..at + end];
        at += end;
        let size = line.strip_suffix(b"\r\n").and_then(size_line);
        let Some((size, extension, odd)) = size else {
            found.broken = true;
            return found;
        };
        found.odd_sizes |= odd;
        excess = (excess + extension).saturating_sub(size.saturating_mul(2).saturating_add(16));
        if excess > EXTENSIONS_EXCESS_MAX {
            found.broken = true;
            return found;
        }
        if size == 0 {
            break;
        }
        let rest = &bytes[at..];
        let here = rest.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        found.content.extend_from_slice(&rest[..here]);
        match &rest[here..] {
            [b'\r', b'\n', ..] => at += here + 2,
            [] | [b'\r'] => return found,
            _ => {
                found.broken = true;
                return found;
            }
        }
    }
    let begin = at;
    loop {
        if at - begin > TRAILERS_MAX || found.trailers.len() > TRAILER_FIELDS_MAX {
            found.broken = true;
            return found;
        }
        let Some(end) = line_end(&bytes[at..]) else {
            // Past the limit it will not get better.
            found.broken = bytes.len() - begin > TRAILERS_MAX;
            return found;
        };
        let line = &bytes[at..at + end];
        at += end;
        match line.strip_suffix(b"\r\n") {
            Some(b"") => break,
            line => match line.and_then(field) {
                Some(field) => found.trailers.push(field),
                None => {
                    found.broken = true;
                    return found;
                }
            },
        }
    }
    found.length = Some(at);
    found
}

/// The number in a chunk's size line, the bytes of its extensions, and whether it is written otherwise
/// than siding would.
fn size_line(line: &[u8]) -> Option<(u64, u64, bool)> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, extension) = line.split_at(digits.count());
    if digits.is_empty() || digits.len() > 16 || extension.len() > EXTENSION_MAX {
        return None;
    }
    let size = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    if size >= 1 << 63 || !(extension.is_empty() || extension.starts_with(b";")) {
        return None;
    }
    let mut quoted = false;
    let mut bytes = extension.iter();
    while let Some(&byte) = bytes.next() {
        let escaped = match byte {
            b'\\' if quoted => match bytes.next() {
                // The string is still open.
                None => return None,
                Some(&escaped) => escaped,
            },
            b'"' => {
                quoted = !quoted;
                byte
            }
            _ => byte,
        };
        if is_control(byte) || is_control(escaped) {
            return None;
        }
    }
    let ours = format!("{size:x}");
    (!quoted).then_some((size, extension.len() as u64, line != ours.as_bytes()))
}

/// Up to the empty line: where a lenient reader would see one, the head ends as well (and is broken).
fn head_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            rest => at += line_end(rest)?,
        }
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.iter().position(|&byte| byte == b'\n')?;
    Some(at + 1)
}

/// The start line and the fields of a head.
fn lines(head: &[u8], faults: &mut Vec<u16>) -> Option<(String, Vec<Field>)> {
    let text = head.strip_suffix(b"\r\n\r\n");
    let lines: Vec<&[u8]> = text.map_or_else(Vec::new, |text| split_lines(text));
    let sound = |line: &&[u8]| !line.is_empty() && !line.iter().any(|&byte| is_control(byte));
    let (Some(start), true) = (lines.first(), lines.iter().all(sound)) else {
        faults.push(400);
        return None;
    };
    let fields: Option<Vec<Field>> = lines[1..].iter().map(|line| field(line)).collect();
    if lines.len() - 1 > FIELDS_MAX {
        faults.push(431);
    }
    let Some(fields) = fields else {
        faults.push(400);
        return None;
    };
    Some((String::from_utf8_lossy(start).into_owned(), fields))
}

fn split_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

/// `name: value`, the name right before the colon (RFC 9112 §5.1).
fn field(line: &[u8]) -> Option<Field> {
    if line.iter().any(|&byte| is_control(byte)) {
        return None;
    }
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = str::from_utf8(&line[..colon]).ok()?;
    is_token(name).then(|| Field::new(name, trimmed(&line[colon + 1..])))
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// All but HTAB.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

fn is_token(text: &str) -> bool {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(may)
}

fn version_of(word: &str) -> Result<Version, u16> {
    match word.as_bytes() {
        b"HTTP/1.0" => Ok(Version::Http10),
        b"HTTP/1.1" => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(505),
        _ => Err(400),
    }
}

/// Scheme and authority of an absolute-form target, and what follows them.
pub fn absolute(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if scheme.contains(['/', '?']) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((scheme, &rest[..end], &rest[end..]))
}

fn check_target(method: &str, target: &str, faults: &mut Vec<u16>) {
    let visible = target.bytes().all(|byte| byte.is_ascii_graphic());
    let good = match target {
        // For other than a forward proxy; and whether it is well-formed matters no more.
        _ if method == "CONNECT" => {
            faults.push(405);
            false
        }
        "*" => method == "OPTIONS",
        _ if target.starts_with('/') => true,
        _ => absolute(target).is_some_and(|(scheme, authority, _)| {
            let known = ["http", "https"].map(|one| scheme.eq_ignore_ascii_case(one));
            known.contains(&true) && is_authority(authority)
        }),
    };
    if !(good && visible) || target.contains('#') {
        faults.push(400);
    }
}

fn check_host(fields: &[Field], version: Version, target: &str, faults: &mut Vec<u16>) {
    let hosts: Vec<&[u8]> = values(fields, "host").collect();
    let good = match hosts[..] {
        [] => version == Version::Http10,
        [b""] => absolute(target).is_some(),
        [host] => str::from_utf8(host).is_ok_and(is_authority),
        _ => false,
    };
    if !good {
        faults.push(400);
    }
}

/// A host that can be resolved and perhaps a port: no user, no escapes.
pub fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                (address, port)
            }
            _ => return false,
        },
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let may = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if !host.bytes().all(may) {
                return false;
            }
            (host, port)
        }
    };
    let port_is_good = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some("") => true,
        Some(digits) => {
            digits.len() <= 5
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits
                    .parse::<u32>()
                    .is_ok_and(|port| (1..65536).contains(&port))
        }
    };
    (1..=254).contains(&host.len()) && port_is_good
}

fn check_connection(fields: &[Field], faults: &mut Vec<u16>) {
    let options: Vec<&[u8]> = elements(fields, "connection").collect();
    let is_option =
        |option: &&[u8]| option.is_empty() || str::from_utf8(option).is_ok_and(is_token);
    if options.len() > OPTIONS_MAX || !options.iter().all(is_option) {
        faults.push(400);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
    UntilClose,
}

/// RFC 9112 §6.1 to §6.3; `collapse` where equal lengths that are told twice are forgiven.
fn declared(fields: &[Field], version: Version, collapse: bool, faults: &mut Vec<u16>) -> Declared {
    let lengths: Vec<&[u8]> = values(fields, "content-length").collect();
    let codings: Vec<&[u8]> = values(fields, "transfer-encoding").collect();
    let mut length = None;
    if let Some(&first) = lengths.first() {
        let digits = str::from_utf8(first).unwrap_or_default();
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        length = digits.parse::<u64>().ok();
        let sound = number && digits.len() <= 19 && length.is_some_and(|length| length < 1 << 63);
        let alone = lengths.len() == 1 || collapse && lengths.iter().all(|one| *one == first);
        if !(sound && alone) {
            faults.push(400);
        }
    }
    match codings[..] {
        [] => length.map_or(Declared::Nothing, Declared::Length),
        [coding] => {
            if length.is_some() || version == Version::Http10 {
                faults.push(400);
            }
            if !coding.eq_ignore_ascii_case(b"chunked") {
                faults.extend([400, 501]);
            }
            Declared::Chunked
        }
        _ => {
            faults.push(400);
            Declared::Chunked
        }
    }
}

fn body<M>(
    bytes: &[u8],
    head: usize,
    framing: Declared,
    message: impl Fn(Content) -> M,
) -> Found<M> {
    let rest = &bytes[head..];
    match framing {
        Declared::Nothing => Found::Whole {
            message: message(Content::none()),
            length: head,
        },
        Declared::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let whole = rest.get(..length);
            let found = message(Content {
                framing: Framing::Length,
                bytes: whole.unwrap_or(rest).to_vec(),
                trailers: Vec::new(),
            });
            match whole {
                Some(_) => Found::Whole {
                    message: found,
                    length: head + length,
                },
                None => Found::ContentCut(found),
            }
        }
        Declared::Chunked => {
            let chunks = chunked(rest);
            let found = message(Content {
                framing: Framing::Chunked,
                bytes: chunks.content,
                trailers: chunks.trailers,
            });
            match chunks.length {
                Some(length) => Found::Whole {
                    message: found,
                    length: head + length,
                },
                None if chunks.broken => Found::ContentBroken(found),
                None => Found::ContentCut(found),
            }
        }
        Declared::UntilClose => Found::ContentCut(message(Content {
            framing: Framing::UntilClose,
            bytes: rest.to_vec(),
            trailers: Vec::new(),
        })),
    }
}
