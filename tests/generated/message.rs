//! HTTP messages as what they mean, and the many ways to spell one on the wire.

use std::fmt::Write as _;

use crate::seed::Rng;

/// The version that a message is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A field: its name in the letters it was sent with, its value without blanks around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// A token.
    pub name: String,
    /// Any bytes but controls; HTAB is none.
    pub value: Vec<u8>,
}

/// How the end of a message is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It ends with its head.
    None,
    /// By Content-Length.
    Length,
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What follows a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// How its end is told.
    pub framing: Framing,
    /// The payload.
    pub bytes: Vec<u8>,
    /// What follows the last chunk.
    pub trailers: Vec<Field>,
}

/// A request, all of its fields included: those of framing, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// A token.
    pub method: String,
    /// As it is written.
    pub target: String,
    /// The user's version.
    pub version: Version,
    /// In their order.
    pub fields: Vec<Field>,
    /// Never [`Framing::UntilClose`].
    pub content: Content,
}

/// A response, final or interim, with all of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The origin's version.
    pub version: Version,
    /// Three digits.
    pub status: u16,
    /// May be empty.
    pub phrase: Vec<u8>,
    /// In their order.
    pub fields: Vec<Field>,
    /// What follows.
    pub content: Content,
}

/// A message on the wire.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Up to the empty line.
    pub head: Vec<u8>,
    /// What follows it.
    pub body: Vec<u8>,
}

impl Version {
    /// As it stands in a start line.
    pub fn text(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

impl Field {
    /// A field of these two.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }

    /// Whether it is called so, in any letter case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

impl Content {
    /// None at all.
    pub fn none() -> Self {
        Self {
            framing: Framing::None,
            bytes: Vec::new(),
            trailers: Vec::new(),
        }
    }

    fn spell(&self, rng: &mut Rng) -> Vec<u8> {
        match self.framing {
            Framing::None => Vec::new(),
            Framing::Length | Framing::UntilClose => self.bytes.clone(),
            Framing::Chunked => self.spell_chunks(rng),
        }
    }

    /// In chunks of random sizes, with sizes and extensions spelled in every legal way.
    fn spell_chunks(&self, rng: &mut Rng) -> Vec<u8> {
        let mut out = Vec::new();
        // A few hundred chunks show all that ten thousand would.
        let size_max = match rng.below(4) {
            0 => self.bytes.len().max(1),
            1 => self.bytes.len().div_ceil(300).max(1),
            2 => self.bytes.len().div_ceil(20).max(1),
            _ => (self.bytes.len() / 3).max(1),
        };
        let extended = rng.percent(25);
        let mut rest = &self.bytes[..];
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(rng.between(1, size_max.min(rest.len())));
            spell_size(&mut out, chunk.len(), extended, rng);
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
            rest = later;
        }
        spell_size(&mut out, 0, extended, rng);
        spell_fields(&mut out, &self.trailers, rng);
        out.extend_from_slice(b"\r\n");
        out
    }
}

fn spell_size(out: &mut Vec<u8>, size: usize, extended: bool, rng: &mut Rng) {
    let zeros = if rng.percent(10) {
        rng.between(1, 4)
    } else {
        0
    };
    let digits = if rng.percent(50) {
        format!("{size:x}")
    } else {
        format!("{size:X}")
    };
    out.extend(std::iter::repeat_n(b'0', zeros));
    out.extend_from_slice(digits.as_bytes());
    if extended && rng.percent(40) {
        out.extend_from_slice(rng.pick(EXTENSIONS).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// RFC 9112 §7.1.1, quoted strings with what would end the line or the extension outside of them.
const EXTENSIONS: &[&str] = &[
    ";a",
    ";a=b",
    ";name=value;other",
    ";q=\"a;b\"",
    ";q=\"0\\\"\\\\ 5\"",
    ";chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
];

impl Request {
    /// The values of the fields called `name`.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        values(&self.fields, name)
    }

    /// One way to write it.
    pub fn spell(&self, rng: &mut Rng) -> Wire {
        let start = format!(
            "{} {} {}\r\n",
            self.method,
            self.target,
            self.version.text()
        );
        let mut head = start.into_bytes();
        // Empty lines before a request are forgiven (RFC 9112 §2.2).
        if rng.percent(4) {
            head.splice(..0, *b"\r\n");
        }
        spell_fields(&mut head, &self.fields, rng);
        head.extend_from_slice(b"\r\n");
        let body = self.content.spell(rng);
        Wire { head, body }
    }

    /// What it is, in a line.
    pub fn summary(&self) -> String {
        let mut text = format!("{} {} {}", self.method, self.target, self.version.text());
        write!(
            text,
            ", {:?} of {} bytes",
            self.content.framing,
            self.content.bytes.len()
        )
        .expect("a String takes everything");
        text
    }
}

impl Response {
    /// The values of the fields called `name`.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        values(&self.fields, name)
    }

    /// One way to write it.
    pub fn spell(&self, rng: &mut Rng) -> Wire {
        let mut head = format!("{} {}", self.version.text(), self.status).into_bytes();
        // The blank before an empty phrase is often left out.
        if !self.phrase.is_empty() || rng.percent(50) {
            head.push(b' ');
        }
        head.extend_from_slice(&self.phrase);
        head.extend_from_slice(b"\r\n");
        spell_fields(&mut head, &self.fields, rng);
        head.extend_from_slice(b"\r\n");
        let body = self.content.spell(rng);
        Wire { head, body }
    }

    /// What it is, in a line.
    pub fn summary(&self) -> String {
        format!(
            "{} {}, {:?} of {} bytes",
            self.version.text(),
            self.status,
            self.content.framing,
            self.content.bytes.len()
        )
    }
}

impl Wire {
    /// Head and body.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.head[..], &self.body].concat()
    }
}

/// The values of the fields called `name`.
pub fn values<'a>(fields: &'a [Field], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.is(name))
        .map(|field| &field.value[..])
}

/// The elements of the lists in the fields called `name`, without blanks; empty ones too.
pub fn elements<'a>(fields: &'a [Field], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    values(fields, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn spell_fields(out: &mut Vec<u8>, fields: &[Field], rng: &mut Rng) {
    let odd = rng.percent(30);
    for field in fields {
        out.extend_from_slice(field.name.as_bytes());
        out.push(b':');
        let (before, after) = match odd {
            true => (rng.pick(BLANKS), rng.pick(BLANKS)),
            false => (" ", ""),
        };
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(&field.value);
        out.extend_from_slice(after.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Optional whitespace (RFC 9110 §5.6.3).
const BLANKS: &[&str] = &["", " ", "  ", "\t", " \t ", "       "];

/// Cuts `bytes` into the pieces in which they are written.
pub fn pieces(bytes: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut cuts = Vec::new();
    match rng.below(10) {
        0..4 => {}
        // Once, anywhere.
        4 => cuts.push(rng.below(bytes.len().max(1))),
        // Byte by byte, for a while.
        5..7 => {
            let begin = match rng.percent(50) {
                true => 0,
                false => rng.below(bytes.len().max(1)),
            };
            cuts.extend(begin..bytes.len().min(begin + rng.between(1, SINGLE_MAX)));
        }
        // In small pieces, or in large ones.
        few => {
            let most = if few == 7 { 40 } else { 70_000 };
            let mut at = 0;
            while at < bytes.len() && cuts.len() < PIECES_MAX {
                cuts.push(at);
                at += rng.between(1, most);
            }
        }
    }
    let ends = cuts.iter().skip(1).copied().chain([bytes.len()]);
    let first = cuts.first().copied().unwrap_or(0);
    [(0, first)]
        .into_iter()
        .chain(cuts.iter().copied().zip(ends))
        .chain(cuts.is_empty().then_some((0, bytes.len())))
        .filter(|(begin, end)| begin < end)
        .map(|(begin, end)| bytes[begin..end].to_vec())
        .collect()
}

/// How many bytes are written one by one: the longest line of most heads, and what is around it.
const SINGLE_MAX: usize = 200;

/// Into how many pieces a message is cut; one of them is the rest.
const PIECES_MAX: usize = 200;
