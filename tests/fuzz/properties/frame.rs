//! The frame codec: every message is read as its table says, whatever is read can be written again
//! to the same bytes, and no batch is ever longer than its limit.

use bytes::Bytes;
use siding::tunnel::frame::{
    BATCH_MAX, Batch, Flags, Frame, FrameError, HEADER_BYTES, Message, StreamId,
};

use super::wire::knobs;

/// Knobs: the limit of a batch. The rest is a message.
pub fn check(input: &[u8]) {
    let Some(([limit_high, limit_low], bytes)) = knobs(input) else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes([*limit_high, *limit_low]));
    let (frames, error) = frames(bytes);
    read_as_the_table_says(bytes, &frames, error);
    each_cut_ends_between_frames_or_is_truncated(bytes, &frames);
    if bytes.len() <= BATCH_MAX {
        written_again(bytes, &frames, error);
    }
    batched(&frames, limit);
}

/// One frame, with the bytes that it took.
#[derive(Debug, PartialEq, Eq)]
struct Read<'a> {
    frame: Frame<'a>,
    /// Where it ends.
    end: usize,
}

/// What the crate reads.
fn frames(bytes: &[u8]) -> (Vec<Read<'_>>, Option<FrameError>) {
    let mut message = Message::new(Bytes::copy_from_slice(bytes));
    let mut frames = Vec::new();
    let mut plain = Plain(bytes);
    loop {
        match message.frame() {
            Ok(Some(frame)) => {
                // The payload, as it lies in `bytes`.
                let known = plain.find(|header| header.kind < 128).expect("a frame");
                assert_eq!(frame.payload, known.payload);
                let frame = Frame {
                    payload: known.payload,
                    ..frame
                };
                let end = bytes.len() - plain.0.len();
                frames.push(Read { frame, end });
            }
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// Headers as their picture has them, whatever stands in them; ends where the bytes do not suffice.
struct Plain<'a>(&'a [u8]);

struct Header<'a> {
    stream: u64,
    kind: u8,
    flags: u8,
    payload: &'a [u8],
}

impl<'a> Iterator for Plain<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let stream = self.0.get(..8)?;
        let length = usize::from(*self.0.get(10)?) * 256 + usize::from(*self.0.get(11)?);
        let header = Header {
            stream: stream.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)),
            kind: self.0[8],
            flags: self.0[9],
            payload: self.0.get(12..12 + length)?,
        };
        self.0 = &self.0[12 + length..];
        Some(header)
    }
}

/// Kinds 1 to 12 are frames, 128 and up are skipped, and nothing else is passed over in silence;
/// flags stand on proxy_data alone, and only the lower four.
fn read_as_the_table_says(bytes: &[u8], frames: &[Read<'_>], error: Option<FrameError>) {
    let mut frames = frames.iter();
    let mut plain = Plain(bytes);
    let expected = loop {
        let Some(header) = plain.next() else {
            break (!plain.0.is_empty()).then_some(FrameError::Truncated);
        };
        match header.kind {
            0 | 13..128 => break Some(FrameError::UnknownKind(header.kind)),
            128.. => continue,
            7 if header.flags >= 16 => break Some(FrameError::UnknownFlags(header.flags)),
            7 => {}
            _ if header.flags != 0 => break Some(FrameError::UnknownFlags(header.flags)),
            _ => {}
        }
        let read = frames.next().expect("a frame was passed over").frame;
        assert_eq!(read.stream, StreamId(header.stream));
        assert_eq!(read.kind as u8, header.kind);
        assert_eq!(NAMES[usize::from(header.kind) - 1], read.kind.name());
        assert_eq!(read.payload, header.payload);
        let flags = [Flags::MESSAGE_END, Flags::FIN, Flags::FINAL, Flags::KEEP];
        for (bit, flag) in flags.into_iter().enumerate() {
            assert_eq!(read.flags.has(flag), header.flags >> bit & 1 == 1);
        }
    };
    assert_eq!(frames.next(), None, "a frame from nowhere");
    assert_eq!(error, expected);
}

/// The names on the wire, which no version may change.
const NAMES: [&str; 12] = [
    "hello",
    "welcome",
    "proxy_open",
    "proxy_opened",
    "proxy_connect",
    "proxy_connected",
    "proxy_data",
    "proxy_credit",
    "proxy_disconnect",
    "proxy_upgraded",
    "goaway",
    "proxy_close",
];

/// A message that lost its end has the frames that are whole, and no other.
fn each_cut_ends_between_frames_or_is_truncated(bytes: &[u8], whole: &[Read<'_>]) {
    // Where each frame, optional ones too, begins.
    let mut plain = Plain(bytes);
    let mut starts = vec![0];
    while plain.next().is_some() {
        starts.push(bytes.len() - plain.0.len());
    }
    for cut in 0..bytes.len().min(300) {
        let (frames, error) = frames(&bytes[..cut]);
        let there = whole.iter().take_while(|read| read.end <= cut).count();
        assert_eq!(frames, whole[..there], "cut at {cut}");
        match error {
            None => assert!(starts.contains(&cut), "cut at {cut}"),
            Some(FrameError::Truncated) => assert!(!starts.contains(&cut), "cut at {cut}"),
            // The frame at fault was whole.
            Some(_) => assert!(starts.iter().any(|start| *start > 0 && *start <= cut)),
        }
    }
}

/// A batch of what was read reads the same, and is byte for byte what came but for what was skipped.
fn written_again(bytes: &[u8], read: &[Read<'_>], error: Option<FrameError>) {
    let mut batch = Batch::default();
    batch.begin(BATCH_MAX);
    for Read { frame, .. } in read {
        batch.payload()[..frame.payload.len()].copy_from_slice(frame.payload);
        batch.seal(frame.stream, frame.kind, frame.flags, frame.payload.len());
    }
    let written = batch.as_slice().to_vec();
    let (again, none) = frames(&written);
    assert_eq!(none, None);
    let of = |read: &[Read<'_>]| -> Vec<String> {
        read.iter()
            .map(|read| format!("{:?}", read.frame))
            .collect()
    };
    assert_eq!(of(&again), of(read));
    let lent = batch.lend(|lent| lent.to_vec());
    assert_eq!(lent, written);
    let skipped = Plain(bytes).any(|header| header.kind >= 128);
    if error.is_none() && !skipped {
        assert_eq!(written, bytes);
    }
}

/// However short a batch may be, it takes frames as long as it says that it will and no longer.
fn batched(frames: &[Read<'_>], limit: usize) {
    let mut batch = Batch::default();
    batch.begin(limit);
    let mut expected = Vec::new();
    for Read { frame, .. } in frames {
        let before = batch.len();
        assert_eq!(batch.payload().len(), batch.room());
        let fits = before + HEADER_BYTES + frame.payload.len() <= limit;
        assert_eq!(batch.push(frame.stream, frame.kind, frame.payload), fits);
        if fits {
            expected.push((frame.stream, frame.kind, frame.payload));
        } else {
            assert_eq!(batch.len(), before, "what does not fit leaves no trace");
            assert!(frame.payload.len() > batch.room() || before + HEADER_BYTES > limit);
        }
        assert!(batch.len() <= limit);
    }
    assert_eq!(batch.is_empty(), expected.is_empty());
    let mut message = batch.lend(Message::new);
    for (stream, kind, payload) in expected {
        let frame = message.frame().expect("our own frame");
        let flags = Flags::NONE;
        assert_eq!(
            frame,
            Some(Frame {
                stream,
                kind,
                flags,
                payload
            })
        );
    }
    assert_eq!(message.frame(), Ok(None));
}
