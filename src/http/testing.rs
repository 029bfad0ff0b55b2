//! What the tests of this module share: a source that delivers in pieces, and a decoder of its own.

use std::io;

use super::{Body, BodyError, Source, Step};

/// A source whose bytes come in pieces of given sizes, with a would-block before each if asked.
pub(super) struct Pieces<'a> {
    rest: &'a [u8],
    sizes: Vec<usize>,
    turn: usize,
    blocks: bool,
    blocked: bool,
    /// What happens behind the last byte: the end of the stream, or would-block for ever.
    closes: bool,
    unread: Vec<u8>,
    pub(super) reads: usize,
    pub(super) bytes_read: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(bytes: &'a [u8], sizes: &[usize]) -> Pieces<'a> {
        assert!(sizes.iter().all(|&size| size > 0));
        Pieces {
            rest: bytes,
            sizes: sizes.to_vec(),
            turn: 0,
            blocks: false,
            blocked: false,
            closes: true,
            unread: Vec::new(),
            reads: 0,
            bytes_read: 0,
        }
    }

    pub(super) fn whole(bytes: &'a [u8]) -> Pieces<'a> {
        Pieces::new(bytes, &[usize::MAX])
    }

    pub(super) fn with_blocks(mut self, blocks: bool) -> Self {
        self.blocks = blocks;
        self
    }

    pub(super) fn left_open(mut self) -> Self {
        self.closes = false;
        self
    }

    pub(super) fn is_drained(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything behind the message: given back, and never read.
    pub(super) fn surplus(&self) -> Vec<u8> {
        [&self.unread, self.rest].concat()
    }
}

impl Source for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        assert!(!into.is_empty(), "a read into an empty slice");
        assert!(self.unread.is_empty(), "a read past the end of a message");
        self.reads += 1;
        if self.blocks && !self.blocked {
            self.blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.blocked = false;
        if self.rest.is_empty() && !self.closes {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let size = self.sizes[self.turn % self.sizes.len()];
        self.turn += 1;
        let length = size.min(into.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        into[..length].copy_from_slice(now);
        self.rest = later;
        self.bytes_read += length;
        Ok(length)
    }

    fn unread(&mut self, surplus: &[u8]) {
        assert!(!surplus.is_empty());
        assert!(self.unread.is_empty(), "surplus twice");
        self.unread = surplus.to_vec();
    }
}

/// Transfers a whole message through buffers of the given sizes, and returns what was written.
pub(super) fn drive(
    body: &mut Body,
    source: &mut Pieces<'_>,
    rooms: &[usize],
) -> Result<Vec<u8>, BodyError> {
    let mut written = Vec::new();
    let mut turn = 0;
    loop {
        let mut out = vec![0xee; rooms[turn % rooms.len()]];
        turn += 1;
        match body.transfer(&mut out, source) {
            Ok(Step::Moved(length)) => {
                assert!(length > 0, "a move of nothing");
                assert!(!body.is_ended());
                written.extend_from_slice(&out[..length]);
            }
            Ok(Step::Ended {
                written: length,
                rest,
            }) => {
                assert!(body.is_ended());
                written.extend_from_slice(&out[..length]);
                written.extend_from_slice(&rest);
                return Ok(written);
            }
            Err(BodyError::Blocked) if !source.is_drained() || source.blocked => {}
            Err(error) => return Err(error),
        }
    }
}

/// Payload and trailer section of a message in the one form of the chunked coding that we write:
/// lower-case sizes without leading zeros, no extensions, nothing behind the end.
pub(super) fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, String) {
    let mut payload = Vec::new();
    loop {
        let line_end = bytes
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a size line");
        let digits = str::from_utf8(&bytes[..line_end]).expect("ASCII");
        let size = usize::from_str_radix(digits, 16).expect("a hexadecimal size");
        assert_eq!(format!("{size:x}"), digits, "not the shortest form");
        bytes = &bytes[line_end + 2..];
        if size == 0 {
            let trailers = str::from_utf8(bytes).expect("ASCII");
            let fields = trailers.strip_suffix("\r\n").expect("an empty line");
            assert!(fields.is_empty() || fields.ends_with("\r\n"));
            assert!(!fields.contains("\r\n\r\n") && !fields.starts_with("\r\n"));
            return (payload, fields.to_owned());
        }
        payload.extend_from_slice(&bytes[..size]);
        assert_eq!(&bytes[size..size + 2], b"\r\n");
        bytes = &bytes[size + 2..];
    }
}
