//! Response heads, in the light of what was asked.

use siding::http::{Asked, FIELDS_MAX, HeadLimits};

use super::{
    Declared, Field, Length, binds_connection, connection_options, declared, elements, fields,
    lines, persists,
};

/// A response that breaks no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub minor: u8,
    /// Empty where it is not ASCII.
    pub phrase: String,
    pub length: Length,
    /// `Content-Length`, whether or not it frames a body.
    pub told: Option<u64>,
    pub persists: bool,
    /// Some challenge is of a scheme that authenticates the connection.
    pub binds_connection: bool,
    /// The options of `Connection`, in lower case.
    pub connection: Vec<String>,
    pub fields: Vec<Field>,
}

/// Reads a whole head; `None` where it breaks a rule.
pub fn read(head: &[u8], asked: &Asked, limits: &HeadLimits) -> Option<Response> {
    let lines = lines(head)?;
    let (start, rest) = lines.split_first()?;
    if head.len() > limits.bytes || rest.len() > limits.fields.min(FIELDS_MAX) {
        return None;
    }
    let (minor, start) = match start.split_at_checked(9)? {
        (b"HTTP/1.0 ", rest) => (0, rest),
        (b"HTTP/1.1 ", rest) => (1, rest),
        _ => return None,
    };
    let (digits, phrase) = start.split_at_checked(3)?;
    let status = str::from_utf8(digits).ok()?;
    if !status.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let status = status.parse().ok()?;
    let phrase = match phrase {
        [] => phrase,
        [b' ', phrase @ ..] => phrase,
        _ => return None,
    };
    let fields = fields(rest)?;
    let connection = connection_options(&fields)?;
    let declared = declared(&fields, minor, true);
    let named = elements(&fields, "upgrade").iter().any(|e| !e.is_empty());
    let length = match (status, declared) {
        (..100 | 600.., _) => return None,
        (_, Declared::Malformed | Declared::OtherCoding) => return None,
        (101, _) if !asked.upgrade || minor == 0 || !named => return None,
        (101, _) => Length::Opaque,
        (..200 | 204 | 304, _) => Length::Nothing,
        _ if asked.head => Length::Nothing,
        (_, Declared::Bytes(length)) => Length::Bytes(length),
        (_, Declared::Chunks) => Length::Chunks,
        (_, Declared::Nothing) => Length::Close,
    };
    Some(Response {
        status,
        minor,
        phrase: if phrase.is_ascii() {
            String::from_utf8_lossy(phrase).into_owned()
        } else {
            String::new()
        },
        length,
        told: match declared {
            Declared::Bytes(length) => Some(length),
            _ => None,
        },
        persists: persists(&connection, minor),
        binds_connection: binds_connection(&fields, "www-authenticate")
            || binds_connection(&fields, "proxy-authenticate"),
        connection,
        fields,
    })
}
