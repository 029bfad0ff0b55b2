//! The fields of a head, and what the names of some mean to an intermediary.
//!
//! Owns the lists (hop-by-hop, protected, forbidden in trailers) and the reading of the fields that
//! decide about the connection and the length: `Connection`, `Content-Length`, `Transfer-Encoding`.
//! Does not know which role reads, except where the RFC treats requests and responses differently.

use std::{fmt, io::Write, time::Duration};

use httparse::Header;

use super::{forwarded::tells_of_forwarding, head::Version};
use crate::date::Date;

/// The most options that one message may list in `Connection`, empty elements included.
///
/// Each is compared with each field name, so this bounds the work at 32 × 1000 comparisons; real
/// messages list one to three.
pub const CONNECTION_OPTIONS_MAX: usize = 32;

/// The fields of one head or trailer section, in the order received; syntax checked.
#[derive(Debug)]
pub struct Fields<'a>(Vec<Header<'a>>);

impl<'a> Fields<'a> {
    pub(super) fn new(parsed: &[Header<'a>]) -> Fields<'a> {
        Fields(parsed.to_vec())
    }

    /// Name and value of each field. Values have no whitespace around them and may hold any byte
    /// from 0x20 up except 0x7F, and HTAB.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.0.iter().map(|field| (field.name, field.value))
    }

    /// The values of the fields called `name`, in any letter case.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The elements of the lists in all fields called `name`, trimmed; empty ones too.
    pub(super) fn elements<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        self.values(name).flat_map(elements)
    }

    /// Whether some challenge or credentials in fields called `name` authenticate the connection
    /// rather than the message, as NTLM and Negotiate do.
    pub(super) fn authenticates_connection(&self, name: &str) -> bool {
        self.elements(name).any(|element| {
            let scheme = element.split(|&byte| byte == b' ').next().unwrap_or(b"");
            scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
        })
    }
}

/// What the `Connection` fields of a message say (RFC 9110 §7.6.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Some option is none of the three above, so it may name a field.
    names_fields: bool,
}

impl Connection {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Connection, &'static str> {
        let mut connection = Connection::default();
        for (index, option) in fields.elements("connection").enumerate() {
            if index >= CONNECTION_OPTIONS_MAX {
                return Err("too many options in Connection");
            }
            if option.is_empty() {
                continue;
            }
            if !is_token(option) {
                return Err("an option in Connection is not a token");
            }
            if option.eq_ignore_ascii_case(b"close") {
                connection.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                connection.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                connection.upgrade = true;
            } else {
                connection.names_fields = true;
            }
        }
        Ok(connection)
    }

    /// Whether the connection stays open after this message, as far as its sender is concerned
    /// (RFC 9112 §9.3).
    pub(super) fn persists(self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        }
    }

    /// Whether the field `name` is meant for the far side, not for us: not hop-by-hop by
    /// definition, nor listed in `Connection` while it may be.
    pub(super) fn passes(self, name: &str, fields: &Fields<'_>) -> bool {
        if is_one_of(name, HOP_BY_HOP) {
            return false;
        }
        !self.names_fields
            || is_protected(name)
            || !fields
                .elements("connection")
                .any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// The length that a head declares for its message; what it means depends on role and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declared {
    Nothing,
    Bytes(u64),
    Chunked,
}

/// Why no length could be told from a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LengthError {
    Malformed(&'static str),
    /// Well-formed, but a transfer coding that we do not know (501 to a user).
    UnknownCoding,
}

/// Several `Content-Length` fields with the same value: RFC 9112 §6.3 lets a recipient choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duplicates {
    Refuse,
    Collapse,
}

/// Reads `Content-Length` and `Transfer-Encoding` as one thing, because they decide one thing
/// (RFC 9112 §6.1 to §6.3).
pub(super) fn declared_length(
    fields: &Fields<'_>,
    version: Version,
    duplicates: Duplicates,
) -> Result<Declared, LengthError> {
    let length = content_length(fields, duplicates).map_err(LengthError::Malformed)?;
    let mut codings = fields.values("transfer-encoding");
    let Some(coding) = codings.next() else {
        return Ok(length.map_or(Declared::Nothing, Declared::Bytes));
    };
    if length.is_some() {
        return Err(LengthError::Malformed(
            "both Content-Length and Transfer-Encoding",
        ));
    }
    if version == Version::Http10 {
        return Err(LengthError::Malformed("Transfer-Encoding in HTTP/1.0"));
    }
    if codings.next().is_some() {
        return Err(LengthError::Malformed("more than one Transfer-Encoding"));
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Declared::Chunked);
    }
    // Chunked may only be the last coding, and only once; here it is not the only one.
    let is_chunked = |element: &&[u8]| element.eq_ignore_ascii_case(b"chunked");
    let well_formed = elements(coding).all(is_token);
    let count = elements(coding).count();
    let chunked_early = elements(coding).take(count - 1).any(|e| is_chunked(&e));
    if well_formed && !chunked_early {
        Err(LengthError::UnknownCoding)
    } else {
        Err(LengthError::Malformed("Transfer-Encoding is not `chunked`"))
    }
}

fn content_length(
    fields: &Fields<'_>,
    duplicates: Duplicates,
) -> Result<Option<u64>, &'static str> {
    let mut values = fields.values("content-length");
    let Some(first) = values.next() else {
        return Ok(None);
    };
    for other in values {
        if duplicates == Duplicates::Refuse {
            return Err("more than one Content-Length");
        }
        if other != first {
            return Err("Content-Length fields that differ");
        }
    }
    match decimal(first) {
        Some(length) => Ok(Some(length)),
        None => Err("Content-Length is not a decimal number below 2^63"),
    }
}

/// A number written in digits alone, below 2^63: every peer's integer can hold it.
fn decimal(text: &[u8]) -> Option<u64> {
    const DIGITS_MAX: usize = 19; // of 2^63 - 1
    if text.is_empty() || text.len() > DIGITS_MAX || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text
        .iter()
        .fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    (value < 1 << 63).then_some(value)
}

/// Meant for the next hop only, or written by ourselves (RFC 9110 §7.6.1; RFC 9112 App. C.2.2).
///
/// `TE` goes because what it asks of us is not what we ask of the origin, `HTTP2-Settings` because
/// h2c is not spoken, and what concerns a proxy's own authentication because it is for the first
/// proxy that meets it.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Meant for the origin or the user, whatever `Connection` lists. RFC 9110 §7.6.1 forbids a sender
/// to list such fields; one that does wants them stripped behind the place where they were checked
/// (Pingora #706, #734).
const PROTECTED: &[&str] = &[
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "expect",
    "host",
    "location",
    "max-forwards",
    "origin",
    "range",
    "set-cookie",
    "trailer",
    "vary",
    "via",
    "www-authenticate",
];
const PROTECTED_PREFIXES: &[&str] = &["content-", "if-", "sec-"];

fn is_protected(name: &str) -> bool {
    is_one_of(name, PROTECTED) || has_prefix(name, PROTECTED_PREFIXES) || tells_of_forwarding(name)
}

/// Fields that mean something before the content, so that they must not come after it: framing,
/// routing, request modifiers, authentication, response control and how the content is to be read
/// (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: &[&str] = &[
    "age",
    "authentication-info",
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "trailer",
    "vary",
    "via",
    "www-authenticate",
];
const NOT_IN_TRAILERS_PREFIXES: &[&str] = &[
    "accept",
    "access-control-",
    "content-",
    "if-",
    "proxy-",
    "sec-",
];

/// Whether a field may be forwarded in a trailer section. `Content-Digest` is the one field of its
/// prefix that is made for trailers (RFC 9530 §2).
pub(super) fn may_trail(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-digest")
        || !(is_one_of(name, HOP_BY_HOP)
            || is_one_of(name, NOT_IN_TRAILERS)
            || tells_of_forwarding(name)
            || has_prefix(name, NOT_IN_TRAILERS_PREFIXES))
}

/// Appends one field line.
pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends one field line whose value prints as visible ASCII.
pub(super) fn print_field(out: &mut Vec<u8>, name: &str, value: impl fmt::Display) {
    print(out, format_args!("{name}: {value}\r\n"));
}

/// Appends what prints as it is sent.
pub(super) fn print(out: &mut Vec<u8>, what: fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a vector takes all");
}

/// Appends the field by which a message tells that it came through here (RFC 9110 §7.6.3); `received`
/// is the version that it came with. A line of its own: what is in the lines before need not be read.
pub(super) fn write_via(out: &mut Vec<u8>, received: Version) {
    let via: &[u8] = match received {
        Version::Http10 => b"1.0 siding",
        Version::Http11 => b"1.1 siding",
    };
    write_field(out, "Via", via);
}

/// Appends `Date`, which is `unix` after the Unix epoch.
pub(super) fn write_date(out: &mut Vec<u8>, unix: Duration) {
    print_field(out, "Date", Date::at(unix));
}

/// Appends `Content-Length: length`.
pub(super) fn write_length(out: &mut Vec<u8>, length: u64) {
    print_field(out, "Content-Length", length);
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

pub(super) fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn has_prefix(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}
