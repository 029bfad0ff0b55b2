//! What requests and responses share: where a head ends, its limits, and the check of its lines.
//!
//! Owns the order in which a head is read: find the blank line, check every line end and control
//! byte, and only then parse, once. httparse alone would take a bare LF for a line end and parse a
//! partial head again from its first byte on every call. Knows neither role.

/// The most fields that any configuration may allow in one head.
///
/// The parser's stack array has this size (32 bytes each, 31 KiB, of which only what is used is
/// touched); browsers send about 20, and the usual limit of servers is 100.
pub const FIELDS_MAX: usize = 1000;

/// Empty lines that are skipped before a request line (RFC 9112 §2.2).
///
/// One is what old clients send after the body of a POST; a second forgives a front that adds its
/// own. More is noise that would keep a connection alive for nothing.
pub const LEADING_EMPTY_LINES_MAX: usize = 2;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first one received to the end of the blank line.
    pub bytes: usize,
    /// Number of fields; above [`FIELDS_MAX`] it means [`FIELDS_MAX`].
    pub fields: usize,
    /// Bytes of a request line, its CRLF included. Of no meaning for a response.
    pub line: usize,
}

impl Default for HeadLimits {
    /// 32 KiB, which is what nginx's four buffers of 8 KiB come to and holds any cookie jar that a
    /// browser sends (4 KiB each, few large); 128 fields, a little above Apache's 100; a request line
    /// of 8 KiB, just above the 8000 bytes that RFC 9112 §3 recommends to support.
    fn default() -> Self {
        HeadLimits {
            bytes: 32 * 1024,
            fields: 128,
            line: 8 * 1024,
        }
    }
}

/// The version that a message was sent with. What we write is always HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: no chunks, no interim responses, connections close unless asked otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// From the minor version that httparse reports, which is 0 or 1.
    pub(super) fn from_minor(minor: u8) -> Version {
        if minor == 0 {
            Version::Http10
        } else {
            Version::Http11
        }
    }
}

/// A request that is answered with an error, after which the user's connection is closed: behind
/// such a head nobody can tell where the next request starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Refused {
    /// The status to answer with: 400, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// What is wrong, in words that may be shown to the user.
    pub reason: &'static str,
}

impl Refused {
    /// 400, the answer to whatever has no status of its own.
    pub(super) fn bad(reason: &'static str) -> Refused {
        Refused {
            status: 400,
            reason,
        }
    }
}

/// A response that is not forwarded: the user gets 502, and the origin's connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Bad {
    /// What is wrong, for the log and the body of the 502.
    pub reason: &'static str,
}

/// The offset just past the blank line that ends the head at the start of `bytes`.
///
/// `scanned` is the length of `bytes` at the last call that answered `None` (0 at first): what was
/// looked at is not looked at again, so a head that dribbles in costs linear time. Up to
/// [`LEADING_EMPTY_LINES_MAX`] leading empty lines belong to the head that follows them.
///
/// Where a lenient parser would see a blank line (bare LF) or an empty head, the head ends as well:
/// parsing then refuses it at once, instead of waiting for an end that will not come.
pub fn head_end(bytes: &[u8], scanned: usize) -> Option<usize> {
    let start = bytes.len() - skip_empty_lines(bytes).len();
    if let Some(length) = line_end(&bytes[start..]) {
        return Some(start + length);
    }
    // The last two bytes that were scanned may be the LF CR of an unfinished blank line.
    let mut at = scanned.saturating_sub(2).max(start);
    while let Some(found) = bytes.get(at..)?.iter().position(|&byte| byte == b'\n') {
        at += found + 1;
        if let Some(length) = line_end(&bytes[at..]) {
            return Some(at + length);
        }
    }
    None
}

/// The head without the empty lines before it that RFC 9112 §2.2 lets a server ignore.
pub(super) fn skip_empty_lines(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    for _ in 0..LEADING_EMPTY_LINES_MAX {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    rest
}

/// The length of the line end that `bytes` start with, if they do.
fn line_end(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    }
}

/// Checks what httparse would let pass, in a head or a trailer section.
///
/// Every CR stands before an LF and every LF behind a CR (RFC 9112 §2.2), there is no other control
/// byte but HTAB (RFC 9110 §5.5), and no line starts with whitespace: neither a folded field
/// (RFC 9112 §5.2) nor one before the first field (§2.2).
pub(super) fn check_lines(section: &[u8]) -> Result<(), &'static str> {
    let mut previous = b'\n';
    for &byte in section {
        match byte {
            b'\n' if previous != b'\r' => return Err("a bare LF in the head"),
            b'\n' => {}
            _ if previous == b'\r' => return Err("a bare CR in the head"),
            b' ' | b'\t' if previous == b'\n' => {
                return Err("a line of the head starts with whitespace");
            }
            b'\r' | b'\t' => {}
            0..0x20 | 0x7f => return Err("a control byte in the head"),
            _ => {}
        }
        previous = byte;
    }
    if section.ends_with(b"\r\n") {
        Ok(())
    } else {
        Err("the head does not end with an empty line")
    }
}

/// What a syntax error of httparse means, in our words.
pub(super) fn syntax(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field name is not a token followed by a colon",
        httparse::Error::HeaderValue => "a field value has a byte that is not allowed",
        httparse::Error::NewLine => "a line does not end with CRLF",
        httparse::Error::Status => "the status line is malformed",
        httparse::Error::Token => "the start line is malformed",
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::Version => "the version is not HTTP/1.0 or HTTP/1.1",
    }
}

#[cfg(test)]
mod tests;
