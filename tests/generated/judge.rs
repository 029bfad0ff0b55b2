//! Whether what a user got is what it must get.

use crate::{
    message::Framing,
    model::{Returning, trailer_section},
    reader::{self, Found, chunked},
    user::{End, Received},
};

/// What the user must get for one request.
#[derive(Debug)]
pub struct Answer {
    /// For whoever reads of its failure.
    pub label: String,
    /// What comes before.
    pub interims: Vec<Returning>,
    /// One of these.
    pub finals: Vec<Returning>,
}

/// What the user must get after the last whole answer.
#[derive(Debug)]
pub enum Last {
    /// An orderly end.
    End,
    /// An error of siding's own with one of these statuses, then an orderly end.
    Error {
        /// The choice.
        statuses: Vec<u16>,
        /// The user asked by HEAD.
        to_head: bool,
    },
    /// The request was cut off: an error, or an end of any kind.
    CutOff {
        /// The user asked by HEAD.
        to_head: bool,
    },
    /// The response was: 502, or some of it and a visible cut.
    Cut {
        /// Some of these may come before.
        interims: Vec<Returning>,
        /// What of the response there was, if its head was good.
        response: Option<Returning>,
        /// It may also come whole.
        whole: bool,
        /// The user asked by HEAD.
        to_head: bool,
    },
}

/// What siding says by itself (RFC 9110 §15).
const OWN_STATUSES: &[u16] = &[
    400, 403, 405, 408, 413, 414, 417, 431, 501, 502, 503, 504, 505,
];

/// Compares what a user got with what it must get.
pub fn judge(received: &Received, answers: &[Answer], last: &Last) -> Result<(), String> {
    let mut at = 0;
    for answer in answers {
        let rest = &received.bytes[at..];
        at += answer.check(rest, received.end).map_err(|wrong| {
            format!(
                "the user, {}: {wrong}\nof\n{}\nthen {:?}",
                answer.label,
                shown(rest),
                received.end
            )
        })?;
    }
    let rest = &received.bytes[at..];
    last.check(rest, received.end).map_err(|wrong| {
        format!(
            "the user, after {} answers: {wrong}; it got\n{}\nthen {:?}",
            answers.len(),
            shown(rest),
            received.end
        )
    })
}

impl Answer {
    /// How many bytes it takes.
    fn check(&self, bytes: &[u8], end: End) -> Result<usize, String> {
        let mut at = 0;
        for interim in &self.interims {
            at += check_head(interim, &bytes[at..])?;
        }
        let mut wrong = String::new();
        for returning in &self.finals {
            match check_whole(returning, &bytes[at..], end) {
                Ok(length) => return Ok(at + length),
                Err(reason) => wrong = reason,
            }
        }
        Err(wrong)
    }
}

impl Last {
    fn check(&self, bytes: &[u8], end: End) -> Result<(), String> {
        match self {
            Last::End if !bytes.is_empty() => Err("bytes after the last answer".to_owned()),
            Last::End if end != End::Closed => Err("no orderly end".to_owned()),
            Last::End => Ok(()),
            Last::Error { statuses, to_head } => check_error(bytes, end, statuses, *to_head),
            Last::CutOff { .. } if bytes.is_empty() && end != End::Silent => Ok(()),
            Last::CutOff { to_head } => check_error(bytes, end, &[400], *to_head),
            Last::Cut {
                interims,
                response,
                whole,
                to_head,
            } => {
                let mut at = 0;
                for interim in interims {
                    at += check_head(interim, &bytes[at..]).unwrap_or(0);
                }
                let bytes = &bytes[at..];
                if check_error(bytes, end, &[502], *to_head).is_ok() {
                    return Ok(());
                }
                match response {
                    Some(response) if *whole && check_whole(response, bytes, end).is_ok() => Ok(()),
                    Some(response) => check_cut(response, bytes, end),
                    None => Err("neither 502 nor a visible cut".to_owned()),
                }
            }
        }
    }
}

fn check_head(returning: &Returning, bytes: &[u8]) -> Result<usize, String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return Err(format!("no whole head in\n{}", shown(bytes)));
    };
    let head = &bytes[..end + 4];
    returning.head.check(head)?;
    Ok(head.len())
}

/// The length of a whole response.
fn check_whole(returning: &Returning, bytes: &[u8], end: End) -> Result<usize, String> {
    let head = check_head(returning, bytes)?;
    let (rest, content) = (&bytes[head..], &returning.content);
    let (got, length) = match content.framing {
        Framing::None => (Vec::new(), 0),
        Framing::Length => {
            let length = rest.len().min(content.bytes.len());
            (rest[..length].to_vec(), length)
        }
        Framing::UntilClose if end != End::Closed => {
            return Err("the end of the connection is that of the content, and no FIN".to_owned());
        }
        Framing::UntilClose => (rest.to_vec(), rest.len()),
        Framing::Chunked => {
            let chunks = chunked(rest);
            let Some(length) = chunks.length else {
                return Err(format!(
                    "chunks that have no end, {} bytes",
                    chunks.content.len()
                ));
            };
            if chunks.odd_sizes {
                return Err(format!("odd chunks:\n{}", shown(rest)));
            }
            if chunks.trailers != content.trailers {
                return Err(format!(
                    "the trailers are\n{}\ninstead of\n{}",
                    trailer_section(&chunks.trailers).escape_ascii(),
                    trailer_section(&content.trailers).escape_ascii()
                ));
            }
            (chunks.content, length)
        }
    };
    if got == content.bytes {
        return Ok(head + length);
    }
    let same = got
        .iter()
        .zip(&content.bytes)
        .take_while(|(a, b)| a == b)
        .count();
    Err(format!(
        "{} bytes of content instead of {}, byte {same} differs:\n{}",
        got.len(),
        content.bytes.len(),
        shown(&got[same..])
    ))
}

/// Some of a response, and nobody could take it for all of it.
fn check_cut(returning: &Returning, bytes: &[u8], end: End) -> Result<(), String> {
    if end == End::Silent {
        return Err("neither end nor cut".to_owned());
    }
    let Ok(head) = check_head(returning, bytes) else {
        // A reset may have destroyed what was on its way.
        return match end == End::Reset && bytes.is_empty() {
            true => Ok(()),
            false => check_head(returning, bytes).map(|_| ()),
        };
    };
    let (rest, content) = (&bytes[head..], &returning.content);
    let (got, visible) = match content.framing {
        Framing::None => (Vec::new(), end == End::Reset),
        // More was told than there was: the whole of it never came.
        Framing::Length => (rest.to_vec(), true),
        Framing::UntilClose => (rest.to_vec(), end == End::Reset),
        Framing::Chunked => {
            let chunks = chunked(rest);
            let visible = chunks.length.is_none() && !chunks.broken && !chunks.odd_sizes;
            (chunks.content, visible || end == End::Reset)
        }
    };
    if !content.bytes.starts_with(&got) {
        return Err("other content than was sent".to_owned());
    }
    match visible {
        true => Ok(()),
        false => Err("it looks whole".to_owned()),
    }
}

/// An answer of siding's own: one line of text, and the end.
fn check_error(bytes: &[u8], end: End, statuses: &[u16], to_head: bool) -> Result<(), String> {
    let Found::Whole { message, length } = reader::response(bytes, to_head) else {
        return Err(format!("no error with a status of {statuses:?}"));
    };
    let status = message.status;
    if !statuses.contains(&status) || !OWN_STATUSES.contains(&status) {
        return Err(format!("{status} instead of {statuses:?}"));
    }
    let text = String::from_utf8_lossy(&message.content.bytes).into_owned();
    let one = |name: &str, value: &[u8]| message.values(name).eq([value]);
    if !one("connection", b"close")
        || !one("content-type", b"text/plain; charset=utf-8")
        || message.values("content-length").count() != 1
        || !(to_head || text.starts_with(&format!("{status} ")) && text.ends_with('\n'))
        || message.values("x-exchange").next().is_some()
    {
        return Err("an error that is none of siding's".to_owned());
    }
    if length != bytes.len() {
        return Err("bytes after an error".to_owned());
    }
    match end {
        End::Closed => Ok(()),
        _ => Err("no orderly end after an error".to_owned()),
    }
}

/// Bytes for people, the first of them if there are many.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 2000;
    match bytes.get(..MOST) {
        Some(some) => format!("{}... ({} bytes)", some.escape_ascii(), bytes.len()),
        None => bytes.escape_ascii().to_string(),
    }
}
