//! A second reading of the RFCs: whole messages only, one pass for each question, no state.
//!
//! What is in doubt is refused here too, since that is the crate's rule, but told by other means:
//! heads are split into lines, lines into words, and each demand of the RFC is asked by itself.

pub mod chunked;
pub mod request;
pub mod response;

use std::net::Ipv6Addr;

/// Name as received, and value without the whitespace around it.
pub type Field = (String, Vec<u8>);

/// How a body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Nothing,
    Bytes(u64),
    Chunks,
    Close,
    /// What follows is not HTTP.
    Opaque,
}

/// What `Content-Length` and `Transfer-Encoding` come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    Nothing,
    Bytes(u64),
    Chunks,
    /// A list of codings other than chunked alone, but not a malformed one.
    OtherCoding,
    Malformed,
}

/// Where the head ends that `bytes` start with, if its end is there: behind its first empty line,
/// where up to two CRLF before the start line do not count (RFC 9112 §2.2). A bare LF ends a line
/// here, so that it is seen and refused.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    let mut skipped = 0;
    while let Some(lf) = bytes[line_start..].iter().position(|&byte| byte == b'\n') {
        let line = &bytes[line_start..line_start + lf + 1];
        let leading = line_start == 2 * skipped && skipped < 2;
        line_start += line.len();
        if line == b"\r\n" && leading {
            skipped += 1;
        } else if line == b"\r\n" || line == b"\n" {
            return Some(line_start);
        }
    }
    None
}

/// The lines of a head without their CRLF, the empty one at the end left out; `None` where a line
/// ends otherwise, the head does not end with the one empty line in it, or there is a control byte.
pub fn lines(head: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = head;
    loop {
        let control = rest.iter().position(|byte| is_control(*byte))?;
        let (line, behind) = rest.split_at(control);
        rest = behind.strip_prefix(b"\r\n")?;
        if line.is_empty() {
            return rest.is_empty().then_some(lines);
        }
        lines.push(line);
    }
}

/// RFC 9112 §5: `name ":" OWS value OWS`.
pub fn field(line: &[u8]) -> Option<Field> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = &line[..colon];
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let value = &line[colon + 1..];
    let start = value.iter().position(|byte| !blank(byte));
    let end = value.iter().rposition(|byte| !blank(byte));
    let value = match (start, end) {
        (Some(start), Some(end)) => &value[start..=end],
        _ => b"",
    };
    is_token(name).then(|| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, value.to_vec())
    })
}

/// All field lines, or `None` if one is none.
pub fn fields(lines: &[&[u8]]) -> Option<Vec<Field>> {
    lines.iter().map(|line| field(line)).collect()
}

/// The values of one field, in any letter case.
pub fn values<'a>(fields: &'a [Field], name: &str) -> Vec<&'a [u8]> {
    fields
        .iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_slice())
        .collect()
}

/// The elements of a list field, all its lines together (RFC 9110 §5.6.1); empty ones too.
pub fn elements(fields: &[Field], name: &str) -> Vec<String> {
    let mut elements = Vec::new();
    for value in values(fields, name) {
        for element in value.split(|&byte| byte == b',') {
            // Latin-1, so that each byte is a character of its own.
            let text: String = element.iter().map(|&byte| char::from(byte)).collect();
            elements.push(text.trim_matches([' ', '\t']).to_owned());
        }
    }
    elements
}

/// The options of `Connection`, in lower case; `None` if the field is malformed, or longer than any
/// honest one ([`siding::http::CONNECTION_OPTIONS_MAX`]).
pub fn connection_options(fields: &[Field]) -> Option<Vec<String>> {
    let options = elements(fields, "connection");
    let good = |option: &String| option.is_empty() || is_token(option.as_bytes());
    (options.len() <= siding::http::CONNECTION_OPTIONS_MAX && options.iter().all(good)).then(|| {
        options
            .iter()
            .filter(|option| !option.is_empty())
            .map(|option| option.to_ascii_lowercase())
            .collect()
    })
}

/// RFC 9112 §9.3.
pub fn persists(options: &[String], minor: u8) -> bool {
    let says = |option: &str| options.iter().any(|other| other == option);
    !says("close") && (minor == 1 || says("keep-alive"))
}

/// Whether a challenge or credentials are of a scheme that authenticates the connection.
pub fn binds_connection(fields: &[Field], name: &str) -> bool {
    elements(fields, name).iter().any(|element| {
        let scheme = element.split(' ').next().unwrap_or("");
        ["ntlm", "negotiate"].contains(&scheme.to_ascii_lowercase().as_str())
    })
}

/// RFC 9112 §6.1 to §6.3. Several equal lengths are one where `equal_lengths_are_one`.
pub fn declared(fields: &[Field], minor: u8, equal_lengths_are_one: bool) -> Declared {
    let mut lengths = values(fields, "content-length");
    let codings = values(fields, "transfer-encoding");
    if equal_lengths_are_one {
        lengths.dedup();
    }
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Declared::Nothing,
        ([length], []) => match number(length) {
            Some(length) => Declared::Bytes(length),
            None => Declared::Malformed,
        },
        ([], [coding]) if minor == 1 => {
            let list = elements(&[("T".to_owned(), coding.to_vec())], "t");
            let chunked = |coding: &String| coding.eq_ignore_ascii_case("chunked");
            let tokens = list.iter().all(|coding| is_token(coding.as_bytes()));
            match list.split_last() {
                Some((last, [])) if chunked(last) => Declared::Chunks,
                Some((_, before)) if tokens && !before.iter().any(chunked) => Declared::OtherCoding,
                _ => Declared::Malformed,
            }
        }
        _ => Declared::Malformed,
    }
}

/// Digits alone, 19 at most, below 2^63.
pub fn number(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.len() <= 19 && text.chars().all(|c| c.is_ascii_digit());
    if !digits {
        return None;
    }
    text.parse::<u64>().ok().filter(|n| *n <= i64::MAX as u64)
}

/// `host[:port]` (RFC 9110 §4.2.1) of a host that can be looked up: host without brackets, port if
/// one was written.
pub fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rfind(']') {
        Some(bracket) => {
            let address = text[..bracket].strip_prefix('[')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, &text[bracket + 1..])
        }
        None => {
            let colon = text.find(':').unwrap_or(text.len());
            let name = &text[..colon];
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            if name.is_empty() || name.len() > 254 || !name.chars().all(allowed) {
                return None;
            }
            (name, &text[colon..])
        }
    };
    let port = match port {
        "" | ":" => None,
        _ => {
            let digits = port.strip_prefix(':')?;
            if digits.len() > 5 || !digits.chars().all(|c| c.is_ascii_digit()) {
                return None;
            }
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
    };
    Some((host.to_owned(), port))
}

/// Whether a quoted string (RFC 9110 §5.6.4) is open at the end of `text`.
pub fn ends_in_quotes(text: &[u8]) -> bool {
    let mut rest = text.iter();
    let mut open = false;
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => open = !open,
            b'\\' if open => _ = rest.next(),
            _ => {}
        }
    }
    open
}

/// RFC 9110 §5.6.2.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_tchar(*byte))
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte)
}

/// Every control byte but HTAB.
pub fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}
