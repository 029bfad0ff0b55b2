//! Collecting a head from a socket, of which any read may bring any part.
//!
//! A head that comes in one read, as nearly all do, is parsed where it was read; only an unfinished
//! one is copied. Each byte is looked at once.

use std::{borrow::Cow, io};

use super::head::head_end;

/// The beginning of a head whose end has not come yet.
#[derive(Debug, Default)]
pub struct Gather(Option<Box<Partial>>);

#[derive(Debug)]
struct Partial {
    bytes: Vec<u8>,
    scanned: usize,
}

/// What a read brought.
#[derive(Debug)]
#[must_use]
pub enum Gathered<'s> {
    /// A whole head, `bytes[..head]`, and what came behind it.
    Head {
        /// All that was read.
        bytes: Cow<'s, [u8]>,
        /// How much of it is the head.
        head: usize,
    },
    /// Not the end yet; wait for more.
    Partial,
    /// The head is longer than the limit; these are its first bytes.
    TooLong(Vec<u8>),
    /// The peer closed.
    Ended,
    /// The socket failed.
    Failed(io::Error),
}

impl Gather {
    /// Bytes held.
    pub fn held(&self) -> usize {
        self.bytes().len()
    }

    /// What has come of an unfinished head.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |partial| &partial.bytes)
    }

    /// Reads into `scratch` until the head is whole, the source would block, or `limit` bytes of it
    /// have come. Once it answers anything but [`Gathered::Partial`] it is empty again.
    pub fn read<'s>(
        &mut self,
        scratch: &'s mut [u8],
        limit: usize,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Gathered<'s> {
        loop {
            let length = match read(scratch) {
                Ok(0) => {
                    self.0 = None;
                    return Gathered::Ended;
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Gathered::Partial;
                }
                Err(error) => {
                    self.0 = None;
                    return Gathered::Failed(error);
                }
            };
            let Some(mut partial) = self.0.take() else {
                match head_end(&scratch[..length], 0) {
                    Some(head) if head <= limit => {
                        return Gathered::Head {
                            bytes: Cow::Borrowed(&scratch[..length]),
                            head,
                        };
                    }
                    None if length < limit => {
                        let bytes = scratch[..length].to_vec();
                        self.0 = Some(Box::new(Partial {
                            bytes,
                            scanned: length,
                        }));
                        continue;
                    }
                    _ => return Gathered::TooLong(scratch[..length].to_vec()),
                }
            };
            partial.bytes.extend_from_slice(&scratch[..length]);
            match head_end(&partial.bytes, partial.scanned) {
                Some(head) if head <= limit => {
                    return Gathered::Head {
                        bytes: Cow::Owned(partial.bytes),
                        head,
                    };
                }
                None if partial.bytes.len() < limit => {
                    partial.scanned = partial.bytes.len();
                    self.0 = Some(partial);
                }
                _ => return Gathered::TooLong(partial.bytes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Feeds `input` in pieces of `sizes`, a "would block" after each; gives head and surplus.
    fn gather(input: &[u8], sizes: usize, limit: usize) -> Result<(Vec<u8>, Vec<u8>), usize> {
        let mut gather = Gather::default();
        let mut scratch = [0; 64];
        let mut at = 0;
        while at < input.len() {
            let mut pieces = Some(&input[at..input.len().min(at + sizes)]);
            let read = |into: &mut [u8]| match pieces.take() {
                Some(piece) => {
                    into[..piece.len()].copy_from_slice(piece);
                    at += piece.len();
                    Ok(piece.len())
                }
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
            match gather.read(&mut scratch, limit, read) {
                Gathered::Head { bytes, head } => {
                    let mut surplus = bytes[head..].to_vec();
                    surplus.extend_from_slice(&input[at..]);
                    assert_eq!(gather.held(), 0);
                    return Ok((bytes[..head].to_vec(), surplus));
                }
                Gathered::Partial => assert_eq!(gather.held(), at),
                Gathered::TooLong(bytes) => return Err(bytes.len()),
                other => panic!("{other:?}"),
            }
        }
        Err(0)
    }

    #[test]
    fn every_split_gives_the_same_head_and_surplus() {
        let input = [HEAD, b"the body"].concat();
        for sizes in 1..=input.len() {
            assert_eq!(
                gather(&input, sizes, 1000),
                Ok((HEAD.to_vec(), b"the body".to_vec())),
                "in pieces of {sizes}"
            );
        }
    }

    #[test]
    fn a_head_past_the_limit_is_given_up_at_the_limit() {
        for sizes in 1..=HEAD.len() {
            assert!(gather(HEAD, sizes, HEAD.len()).is_ok());
            let held = gather(HEAD, sizes, HEAD.len() - 1).unwrap_err();
            assert!(
                held >= HEAD.len() - 1 && held <= HEAD.len() + sizes,
                "{held}"
            );
        }
    }
}
