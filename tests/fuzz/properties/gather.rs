//! Collecting heads from a connection: the same heads for every way to cut it, none of them longer
//! than the limit, and what follows each left where it was.

use siding::http::{Gather, Gathered, Source as _};

use super::{
    rfc,
    wire::{Cuts, Wire, knobs},
};

/// Knobs: the limit (two bytes, so that heads around it are short), the room for one read, the cuts,
/// and whether the peer closes. The rest is a sequence of heads.
pub fn check(input: &[u8]) {
    let Some(([limit_high, limit_low, room, seed], bytes)) = knobs(input) else {
        return;
    };
    let limit = 1 + usize::from(u16::from_be_bytes([*limit_high, *limit_low]));
    let room = 1 + 16 * usize::from(*room);
    let closes = seed & 1 == 0;
    let expected = expected(bytes, limit, closes);
    for cuts in Cuts::each(*seed) {
        let name = format!("{cuts:?}");
        let wire = Wire::new(bytes, cuts, closes);
        assert_eq!(gathered(wire, bytes, limit, room), expected, "{name}");
    }
}

/// The length of each head in turn, and why there are no more.
type Heads = (Vec<usize>, Last);

#[derive(Debug, PartialEq, Eq)]
enum Last {
    TooLong,
    Ended,
    Waiting,
}

fn expected(bytes: &[u8], limit: usize, closes: bool) -> Heads {
    let mut heads = Vec::new();
    let mut rest = bytes;
    loop {
        match rfc::head_end(rest) {
            Some(end) if end <= limit => {
                heads.push(end);
                rest = &rest[end..];
            }
            None if rest.len() < limit && closes => return (heads, Last::Ended),
            None if rest.len() < limit => return (heads, Last::Waiting),
            _ => return (heads, Last::TooLong),
        }
    }
}

fn gathered(mut wire: Wire<'_>, sent: &[u8], limit: usize, room: usize) -> Heads {
    let mut heads = Vec::new();
    let mut gather = Gather::default();
    let mut scratch = vec![0; room];
    // Of the head that is being gathered.
    let mut start = 0;
    loop {
        match gather.read(&mut scratch, limit, |into| wire.read(into)) {
            Gathered::Head { bytes, head } => {
                assert_eq!(bytes, &sent[start..wire.at()], "what was read is there");
                assert!(head <= bytes.len() && head <= limit);
                wire.give_back(&bytes[head..]);
                heads.push(head);
                start += head;
            }
            Gathered::Partial => {
                assert_eq!(gather.held(), wire.at() - start);
                assert!(gather.held() < limit);
                if wire.is_dry() {
                    return (heads, Last::Waiting);
                }
                continue;
            }
            Gathered::TooLong(bytes) => {
                assert_eq!(bytes, &sent[start..wire.at()]);
                assert!(bytes.len() >= limit && bytes.len() < limit + room);
                assert_eq!(gather.held(), 0);
                return (heads, Last::TooLong);
            }
            Gathered::Ended => {
                assert_eq!(gather.held(), 0);
                return (heads, Last::Ended);
            }
            Gathered::Failed(error) => panic!("the wire does not fail: {error}"),
        }
        assert_eq!(gather.held(), 0);
    }
}
