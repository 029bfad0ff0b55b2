//! The chunked coding (RFC 9112 §7.1), read from a message that is all there.

use siding::http::{BodyLimits, TRAILER_FIELDS_MAX};

use super::{Field, ends_in_quotes, field, is_control};

/// What `bytes` are the beginning of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    /// The payload of all chunks, up to the end or to the first byte that is wrong.
    pub payload: Vec<u8>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message ended.
    Complete {
        /// Just past its last byte.
        end: usize,
        trailers: Vec<Field>,
    },
    /// More bytes could make it complete.
    Incomplete,
    /// No more bytes could.
    Malformed,
}

/// Reads one message.
pub fn read(bytes: &[u8], limits: &BodyLimits) -> Chunked {
    let mut payload = Vec::new();
    let verdict = chunks(bytes, limits, &mut payload).unwrap_or_else(|short| short);
    Chunked { payload, verdict }
}

/// `Err` is a verdict too: that of a message that stops, or goes wrong, half-way.
type Read<T> = Result<T, Verdict>;

fn chunks(bytes: &[u8], limits: &BodyLimits, payload: &mut Vec<u8>) -> Read<Verdict> {
    let mut rest = bytes;
    // What has come of extensions that no data has paid for.
    let mut unpaid: u128 = 0;
    loop {
        let (size, extension) = size_line(&mut rest, limits)?;
        unpaid += extension as u128;
        unpaid = unpaid.saturating_sub(16 + 2 * u128::from(size));
        if unpaid > 16 * 1024 {
            return Err(Verdict::Malformed);
        }
        if size == 0 {
            let trailers = trailers(&mut rest, limits)?;
            let end = bytes.len() - rest.len();
            return Ok(Verdict::Complete { end, trailers });
        }
        let there = usize::try_from(size).map_or(rest.len(), |size| size.min(rest.len()));
        payload.extend_from_slice(&rest[..there]);
        rest = &rest[there..];
        if (there as u64) < size {
            return Err(Verdict::Incomplete);
        }
        crlf(&mut rest)?;
    }
}

/// `1*HEXDIG [ extensions ] CRLF`; extensions are skipped, but a quoted string must not be cut by
/// the end of the line. The size, and the length of the extensions.
fn size_line(rest: &mut &[u8], limits: &BodyLimits) -> Read<(u64, usize)> {
    let line = line(rest);
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let mut size: u64 = 0;
    for digit in digits {
        let digit = (*digit as char).to_digit(16).expect("a hex digit");
        size = size
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)))
            .filter(|size| *size <= i64::MAX as u64)
            .ok_or(Verdict::Malformed)?;
    }
    let misplaced = !extension.is_empty() && (digits.is_empty() || extension[0] != b';');
    let longest = limits.chunk_extension.min(usize::from(u16::MAX));
    if misplaced || digits.len() > 16 || extension.len() > longest {
        return Err(Verdict::Malformed);
    }
    if !rest.is_empty() && (digits.is_empty() || ends_in_quotes(extension)) {
        return Err(Verdict::Malformed);
    }
    crlf(rest)?;
    Ok((size, extension.len()))
}

fn trailers(rest: &mut &[u8], limits: &BodyLimits) -> Read<Vec<Field>> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let line = line(rest);
        length += line.len();
        // The CRLF counts as soon as it comes, but for that of the empty line.
        let ended = usize::from(!line.is_empty() && !rest.is_empty());
        if length + ended > limits.trailers {
            return Err(Verdict::Malformed);
        }
        crlf(rest)?;
        if line.is_empty() {
            break;
        }
        length += 2;
        if length > limits.trailers {
            return Err(Verdict::Malformed);
        }
        lines.push(line);
    }
    let fields: Option<Vec<Field>> = lines.iter().map(|line| field(line)).collect();
    fields
        .filter(|fields| fields.len() <= TRAILER_FIELDS_MAX)
        .ok_or(Verdict::Malformed)
}

/// Takes what comes before the next control byte.
fn line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| is_control(*byte));
    let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
    *rest = behind;
    line
}

fn crlf(rest: &mut &[u8]) -> Read<()> {
    match rest {
        [b'\r', b'\n', behind @ ..] => {
            *rest = behind;
            Ok(())
        }
        [] | [b'\r'] => Err(Verdict::Incomplete),
        _ => Err(Verdict::Malformed),
    }
}
