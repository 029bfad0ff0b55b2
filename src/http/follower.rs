//! A response as it passes to its user, followed to where it ends: as that user's parser will see it.
//!
//! Whoever writes responses for a connection that others' requests may come on (a proxy in front of us keeps
//! its connections, and asks for several hosts on each) could say more than one on the request it has, or less,
//! and so answer for somebody else. What is written by this crate is read strictly here; nothing is repaired.
//!
//! Pure: it copies nothing but the beginning of a head whose end has not come.

use super::{
    chunked::at_most,
    framing::Framing,
    head::{FIELDS_MAX, HeadLimits, head_end},
    response::{Asked, Kind, Response},
};

/// One response, its interim heads before it.
#[derive(Debug)]
pub struct Follower {
    asked: Asked,
    at: At,
}

/// Why what was said is no response, or not one only.
pub type Astray = &'static str;

/// Where in the response its next byte is.
#[derive(Debug)]
enum At {
    /// In a head, of which so much has come.
    Head(Vec<u8>),
    /// In a body of which so many bytes, more than 0, are to come.
    Length(u64),
    Chunked(Chunk),
    UntilClose,
    Ended,
}

/// Where in the chunked coding (RFC 9112 §7.1) the next byte is. We write no extensions.
#[derive(Debug)]
enum Chunk {
    /// In a size, of so many digits so far.
    Size(u64, u8),
    /// Before the LF of its line.
    SizeEnd(u64),
    /// In the payload, of which so many bytes, more than 0, are to come.
    Data(u64),
    /// Before the CR, or the LF, behind it.
    DataEnd { cr: bool },
    /// In a line of the trailers.
    Trailer { empty: bool, cr: bool },
}

impl Follower {
    /// The response to what was asked so.
    pub fn new(asked: Asked) -> Follower {
        Follower {
            asked,
            at: At::Head(Vec::new()),
        }
    }

    /// Bytes held: of a head whose end has not come.
    pub fn held(&self) -> usize {
        match &self.at {
            At::Head(said) => said.len(),
            _ => 0,
        }
    }

    /// Whether the final head has passed.
    pub fn is_answered(&self) -> bool {
        !matches!(self.at, At::Head(_))
    }

    /// The next bytes pass.
    ///
    /// # Errors
    /// They are not of this response.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Astray> {
        while !bytes.is_empty() {
            let passed = match &mut self.at {
                At::Head(_) => self.pass_head(bytes)?,
                At::Length(left) => {
                    let passed = at_most(*left, bytes.len());
                    *left -= passed as u64;
                    if *left == 0 {
                        self.at = At::Ended;
                    }
                    passed
                }
                At::Chunked(chunk) => {
                    let (passed, ended) = chunk.pass(bytes)?;
                    if ended {
                        self.at = At::Ended;
                    }
                    passed
                }
                At::UntilClose => bytes.len(),
                At::Ended => return Err("more than the response"),
            };
            bytes = &bytes[passed..];
        }
        Ok(())
    }

    /// That was all; whether another response may follow on the connection.
    ///
    /// # Errors
    /// It was not all, and one would follow.
    pub fn end(&self, keep: bool) -> Result<(), Astray> {
        match self.at {
            At::Ended => Ok(()),
            _ if !keep => Ok(()),
            _ => Err("less than the response"),
        }
    }

    /// Takes bytes of a head, and what it says if that is all of it.
    fn pass_head(&mut self, bytes: &[u8]) -> Result<usize, Astray> {
        let At::Head(said) = &mut self.at else {
            return Ok(0);
        };
        let before = said.len();
        let end = match before {
            0 => head_end(bytes, 0),
            _ => {
                said.extend_from_slice(bytes);
                head_end(said, before)
            }
        };
        let Some(end) = end else {
            if before == 0 {
                *said = bytes.to_vec();
            }
            return match said.len() > HEAD_MAX {
                true => Err("a head that is too long"),
                false => Ok(bytes.len()),
            };
        };
        let head = match before {
            0 => &bytes[..end],
            _ => &said[..end],
        };
        let limits = HeadLimits {
            bytes: HEAD_MAX,
            fields: FIELDS_MAX,
            line: HEAD_MAX,
        };
        let response = Response::parse(head, &self.asked, &limits);
        let response = response.map_err(|_| "no response head")?;
        self.at = match (response.kind, response.framing) {
            (Kind::Interim, _) => At::Head(Vec::new()),
            (Kind::Switching, _) | (Kind::Final, Framing::Raw) => {
                return Err("a switch of protocols");
            }
            (Kind::Final, Framing::None | Framing::Length(0)) => At::Ended,
            (Kind::Final, Framing::Length(length)) => At::Length(length),
            (Kind::Final, Framing::Chunked) => At::Chunked(Chunk::Size(0, 0)),
            (Kind::Final, Framing::UntilClose) => At::UntilClose,
        };
        Ok(end - before)
    }
}

impl Chunk {
    /// Takes bytes, at least one; how many, and whether the last of them ended the body.
    fn pass(&mut self, bytes: &[u8]) -> Result<(usize, bool), Astray> {
        if let Chunk::Data(left) = self {
            let passed = at_most(*left, bytes.len());
            *left -= passed as u64;
            if *left == 0 {
                *self = Chunk::DataEnd { cr: false };
            }
            return Ok((passed, false));
        }
        let mut ended = false;
        *self = match (&*self, bytes[0]) {
            (&Chunk::Size(size, digits @ 0..16), digit) if digit.is_ascii_hexdigit() => {
                let value = (digit as char).to_digit(16).map_or(0, u64::from);
                Chunk::Size(size << 4 | value, digits + 1)
            }
            (&Chunk::Size(size, 1..), b'\r') => Chunk::SizeEnd(size),
            (Chunk::SizeEnd(0), b'\n') => Chunk::Trailer {
                empty: true,
                cr: false,
            },
            (&Chunk::SizeEnd(size), b'\n') => Chunk::Data(size),
            (Chunk::DataEnd { cr: false }, b'\r') => Chunk::DataEnd { cr: true },
            (Chunk::DataEnd { cr: true }, b'\n') => Chunk::Size(0, 0),
            (&Chunk::Trailer { empty, cr: false }, b'\r') => Chunk::Trailer { empty, cr: true },
            (&Chunk::Trailer { empty, cr: true }, b'\n') => {
                ended = empty;
                Chunk::Trailer {
                    empty: true,
                    cr: false,
                }
            }
            (Chunk::Trailer { cr: false, .. }, byte) if byte != b'\n' => Chunk::Trailer {
                empty: false,
                cr: false,
            },
            _ => return Err("no chunk"),
        };
        Ok((1, ended))
    }
}

/// The longest head that a client may be told to take, and what it adds.
const HEAD_MAX: usize = (1 << 20) + Response::ADDED;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::{Body, BodyLimits, Source, Step, Version};

    const GET: Asked = asked(false, Version::Http11);

    const fn asked(head: bool, version: Version) -> Asked {
        Asked {
            head,
            version,
            upgrade: true,
            keep_alive: true,
            connection_auth: false,
        }
    }

    /// Follows `said` in pieces of `size`.
    fn follow(asked: Asked, said: &[u8], size: usize) -> Result<Follower, Astray> {
        let mut follower = Follower::new(asked);
        for piece in said.chunks(size) {
            follower.pass(piece)?;
        }
        Ok(follower)
    }

    #[test]
    fn a_response_ends_where_its_user_sees_it_end_however_it_comes() {
        for said in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0000000c\r\nhello\r\n0\r\n\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\n\n\r\n0\r\nDigest: a\r\nX: \r\n\r\n",
        ] {
            for size in 1..=said.len() {
                let follower = follow(GET, said.as_bytes(), size).expect(said);
                assert!(follower.is_answered());
                assert_eq!(follower.held(), 0);
                assert_eq!(follower.end(true), Ok(()), "{said}");
                // Not one byte less, nor more.
                let short = follow(GET, &said.as_bytes()[..said.len() - 1], size).expect(said);
                assert!(short.end(true).is_err(), "{said}");
                assert_eq!(short.end(false), Ok(()), "the user sees that it was cut");
                let more = follow(GET, format!("{said}H").as_bytes(), size);
                assert_eq!(more.err(), Some("more than the response"), "{said}");
            }
        }
    }

    #[test]
    fn what_ends_with_the_connection_leaves_nothing_to_follow_it() {
        for (asked, said) in [
            (GET, "HTTP/1.1 200 OK\r\n\r\nhello"),
            (asked(false, Version::Http10), "HTTP/1.1 200 OK\r\n\r\n"),
        ] {
            let follower = follow(asked, said.as_bytes(), 3).expect(said);
            assert_eq!(follower.end(false), Ok(()));
            assert!(follower.end(true).is_err());
        }
        let head = asked(true, Version::Http11);
        let said = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(follow(head, said, 7).expect("no body").end(true), Ok(()));
        let more = follow(head, &[said, &b"h"[..]].concat(), 7);
        assert!(more.is_err(), "HEAD has no body");
    }

    #[test]
    fn what_two_parsers_could_read_in_two_ways_is_no_response() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for said in [
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "hello\r\n\r\n".into(),
            format!("{chunked}\r\n"),
            format!("{chunked}5;a=b\r\nhello\r\n"),
            format!("{chunked}5\nhello\r\n"),
            format!("{chunked}5\r\nhello!\r\n"),
            format!("{chunked}5\r\nhello\n"),
            format!("{chunked}-5\r\n"),
            format!("{chunked} 5\r\n"),
            format!("{chunked}00000000000000005\r\n"),
            format!("{chunked}0\r\nX: a\n\r\n"),
            format!("{chunked}0\r\nX: a\rb\r\n"),
        ] {
            for size in 1..=said.len() {
                assert!(follow(GET, said.as_bytes(), size).is_err(), "{said:?}");
            }
        }
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 2 << 20]].concat();
        assert!(follow(GET, &endless, 16 << 10).is_err());
    }

    /// What an origin says.
    struct Said<'a>(&'a [u8]);

    impl Source for Said<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let read = self.0.len().min(into.len());
            into[..read].copy_from_slice(&self.0[..read]);
            self.0 = &self.0[read..];
            Ok(read)
        }

        fn unread(&mut self, _: &[u8]) {}
    }

    proptest! {
        /// Whatever an origin says, what is written of it for the user is followed to its end.
        #[test]
        fn what_we_write_is_followed_to_its_end(
            body in prop::collection::vec(any::<u8>(), 0..300),
            framing in 0..3,
            (http10, head) in any::<(bool, bool)>(),
            room in 64..200_usize,
            size in 1..200_usize,
        ) {
            let version = if http10 { Version::Http10 } else { Version::Http11 };
            let asked = asked(head, version);
            let mut said = b"HTTP/1.1 200 OK\r\n".to_vec();
            match framing {
                0 => said.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes()),
                1 => said.extend(b"Transfer-Encoding: chunked\r\n\r\n"),
                _ => said.extend(b"\r\n"),
            }
            let end = said.len();
            match framing {
                1 => {
                    for chunk in body.chunks(70) {
                        said.extend(format!("{:x};a=b\r\n", chunk.len()).bytes());
                        said.extend(chunk);
                        said.extend(b"\r\n");
                    }
                    said.extend(b"0\r\nX: a\r\n\r\n");
                }
                _ => said.extend(&body),
            }
            let response = Response::parse(&said[..end], &asked, &HeadLimits::default()).unwrap();
            let keep = response.keep();
            let mut written = Vec::new();
            response.write_to(&mut written, keep, std::time::Duration::ZERO);
            let mut body: Body = response.body(BodyLimits::default());
            let mut source = Said(&said[end..]);
            let mut out = vec![0; room];
            while !body.is_ended() {
                match body.transfer(&mut out, &mut source).unwrap() {
                    Step::Moved(length) => written.extend(&out[..length]),
                    Step::Ended { written: length, rest } => {
                        written.extend(&out[..length]);
                        written.extend(rest);
                    }
                }
            }
            let follower = follow(asked, &written, size).expect("it is well formed");
            prop_assert_eq!(follower.end(keep), Ok(()));
        }
    }
}
