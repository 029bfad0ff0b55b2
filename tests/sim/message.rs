//! HTTP/1.1 messages as the actors write and read them: strictly, and not with the code under test.

use std::fmt;

use crate::rng::{Rng, pattern};

/// A message's first line and fields.
#[derive(Debug)]
pub struct Head {
    pub first: String,
    fields: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    /// In a chunk, so many bytes before its end; `None` between two.
    Chunked(Option<usize>),
    UntilClose,
}

/// A body as far as it has come.
#[derive(Debug)]
pub struct Body {
    pub framing: Framing,
    pub bytes: Vec<u8>,
}

impl Head {
    pub fn take(input: &mut Vec<u8>) -> Option<Head> {
        let end = head_end(input)?;
        let text: Vec<u8> = input.drain(..end).collect();
        let text = String::from_utf8(text).expect("heads are text");
        let mut lines = text.trim_end().split("\r\n");
        let first = lines.next().expect("a first line").to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a field");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Some(Head {
            first,
            fields: fields.collect(),
        })
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(of, _)| of == name);
        let value = found.next().map(|(_, value)| &**value);
        assert!(found.next().is_none(), "{name} twice: {self:?}");
        value
    }

    pub fn framing(&self, otherwise: Framing) -> Framing {
        match (
            self.field("transfer-encoding"),
            self.field("content-length"),
        ) {
            (Some("chunked"), None) => Framing::Chunked(None),
            (None, Some(length)) => Framing::Length(length.parse().expect("a length")),
            (None, None) => otherwise,
            _ => panic!("ambiguous framing: {self:?}"),
        }
    }
}

impl Body {
    pub fn new(framing: Framing) -> Body {
        Body {
            framing,
            bytes: Vec::new(),
        }
    }

    /// Takes what is the body's of the input; whether that was its end.
    pub fn feed(&mut self, input: &mut Vec<u8>) -> bool {
        loop {
            match self.framing {
                Framing::UntilClose => {
                    self.bytes.append(input);
                    return false;
                }
                Framing::Length(left) => {
                    let length = left.min(input.len());
                    self.bytes.extend(input.drain(..length));
                    self.framing = Framing::Length(left - length);
                    return left == length;
                }
                Framing::Chunked(None) => {
                    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
                        return false;
                    };
                    let size = String::from_utf8_lossy(&input[..end]).into_owned();
                    let size = usize::from_str_radix(&size, 16).expect("a chunk size");
                    if size == 0 {
                        // No trailers are sent here.
                        if input.len() < end + 4 {
                            return false;
                        }
                        assert_eq!(&input[end..end + 4], b"\r\n\r\n");
                        input.drain(..end + 4);
                        return true;
                    }
                    input.drain(..end + 2);
                    self.framing = Framing::Chunked(Some(size));
                }
                Framing::Chunked(Some(left)) => {
                    let length = left.min(input.len());
                    self.bytes.extend(input.drain(..length));
                    self.framing = Framing::Chunked(Some(left - length));
                    if left > length || input.len() < 2 {
                        return false;
                    }
                    assert_eq!(&input[..2], b"\r\n", "a chunk ends with its line");
                    input.drain(..2);
                    self.framing = Framing::Chunked(None);
                }
            }
        }
    }

    pub fn check(&self, owner: u64, length: usize, exchange: &impl fmt::Debug) {
        let mut expected = vec![0; length];
        pattern(owner, 0, &mut expected);
        assert!(
            self.bytes == expected,
            "a wrong body of {} for {length}: {exchange:?}",
            self.bytes.len()
        );
    }
}

pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Ends the head with its framing, and writes the body.
pub fn write_body(sent: &mut Vec<u8>, body: &[u8], chunked: bool, rng: &mut Rng) {
    if !chunked {
        sent.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        sent.extend_from_slice(body);
        return;
    }
    sent.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let most = rng.pick(&[10, 1_000, 50_000]).max(body.len() / 100);
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rng.between(1, most).min(rest.len()));
        sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        sent.extend_from_slice(chunk);
        sent.extend_from_slice(b"\r\n");
        rest = after;
    }
    sent.extend_from_slice(b"0\r\n\r\n");
}
