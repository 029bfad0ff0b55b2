//! Pure SOCKS5: what a user says before its bytes, and what it is answered (RFC 1928, RFC 1929).
//!
//! ```text
//!   user                                     server
//!   05 n methods            ---greeting--->
//!                           <--choice-----   05 method
//!   01 n name n password    ---login------>                 (where the proxy has users)
//!                           <--verdict----   01 status
//!   05 command 00 address   ---request---->
//!                           <--reply------   05 code 00 01 0.0.0.0:0
//! ```
//!
//! Nothing is kept here: each message says by its first bytes how long it is, and none is longer than
//! [`MESSAGE_MAX`], so whoever reads gives all that has come of one until it is whole. This module knows
//! neither socket nor user; a message that no RFC allows is refused at the byte that shows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest message is a login: 255 bytes of name and of password, each with its length, and a version.
pub const MESSAGE_MAX: usize = 3 + 255 + 255;

/// Which message is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The methods that the user knows.
    Greeting,
    /// Its name and password.
    Login,
    /// Where it wants to go.
    Request,
}

/// What a user has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// By which methods it can say who it is.
    Greeting(Methods<'a>),
    /// Who it says it is.
    Login {
        /// At least a byte.
        name: &'a [u8],
        /// At least a byte.
        password: &'a [u8],
    },
    /// To connect there (the one command that we know).
    Connect(Destination<'a>, u16),
}

/// The methods of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods<'a>(&'a [u8]);

impl Methods<'_> {
    /// Whether this one is among them.
    pub fn have(self, method: Method) -> bool {
        self.0.contains(&(method as u8))
    }
}

/// How a user says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Open = 0x00,
    /// By name and password.
    Password = 0x02,
    /// None of those it knows: goodbye.
    Unacceptable = 0xff,
}

impl Method {
    /// The answer to a greeting.
    pub fn answer(self) -> [u8; 2] {
        [VERSION, self as u8]
    }
}

/// Where a user wants to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// An address.
    Address(IpAddr),
    /// A name, as it was sent; at least a byte, whatever it may be.
    Name(&'a [u8]),
}

/// The answer to a login; after the second the connection must be closed (RFC 1929 §2).
pub const LOGIN_RIGHT: [u8; 2] = [LOGIN_VERSION, 0x00];
/// See [`LOGIN_RIGHT`].
pub const LOGIN_WRONG: [u8; 2] = [LOGIN_VERSION, 0x01];

/// How a request ended (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The target is connected: what follows are its bytes.
    Succeeded = 0x00,
    /// Whatever has no code of its own.
    Failed = 0x01,
    /// The rules forbid it.
    NotAllowed = 0x02,
    /// No route, or no such name.
    HostUnreachable = 0x04,
    /// The target refuses.
    Refused = 0x05,
    /// It took too long.
    Expired = 0x06,
    /// BIND, UDP ASSOCIATE, or no command at all.
    UnknownCommand = 0x07,
    /// Neither IPv4, IPv6 nor a name.
    UnknownAddress = 0x08,
}

impl Code {
    /// The answer to a request. The address that we connect from is the client's to know, and nobody
    /// uses it.
    pub fn answer(self) -> [u8; 10] {
        [VERSION, self as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]
    }
}

/// Why the user is not listened to any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not speak SOCKS5: no answer would be understood.
    Foreign(&'static str),
    /// Its request is answered with this code.
    Request(Code),
}

impl Stage {
    /// Reads the message that `bytes` begin with; how long it is, too. `None` while it is not whole.
    ///
    /// # Errors
    /// It cannot become a message any more.
    pub fn read(self, bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, Refused> {
        let mut rest = Rest { bytes, taken: 0 };
        let message = match self {
            Stage::Greeting => greeting(&mut rest),
            Stage::Login => login(&mut rest),
            Stage::Request => request(&mut rest),
        };
        match message {
            Ok(message) => Ok(Some((message, rest.taken))),
            Err(Stop::Partial) => Ok(None),
            Err(Stop::Refused(refused)) => Err(refused),
        }
    }
}

/// Why a message was not read to its end.
enum Stop {
    Partial,
    Refused(Refused),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What has come, and how much of it belongs to the message so far.
struct Rest<'a> {
    bytes: &'a [u8],
    taken: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let from = self.taken;
        let taken = self.bytes.get(from..from + count).ok_or(Stop::Partial)?;
        self.taken += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        self.take(1).map(|taken| taken[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// As many bytes as the first one says.
    fn counted(&mut self) -> Result<&'a [u8], Stop> {
        let count = self.byte()?;
        self.take(count.into())
    }
}

fn greeting<'a>(rest: &mut Rest<'a>) -> Result<Message<'a>, Stop> {
    match rest.byte()? {
        VERSION => {}
        4 => return Err(Refused::Foreign("SOCKS4").into()),
        _ => return Err(Refused::Foreign("not SOCKS5").into()),
    }
    Ok(Message::Greeting(Methods(rest.counted()?)))
}

fn login<'a>(rest: &mut Rest<'a>) -> Result<Message<'a>, Stop> {
    if rest.byte()? != LOGIN_VERSION {
        return Err(Refused::Foreign("a login of an unknown version").into());
    }
    let mut counted = || match rest.counted()? {
        [] => Err(Refused::Foreign("a login without a name or a password").into()),
        text => Ok::<_, Stop>(text),
    };
    Ok(Message::Login {
        name: counted()?,
        password: counted()?,
    })
}

fn request<'a>(rest: &mut Rest<'a>) -> Result<Message<'a>, Stop> {
    if rest.byte()? != VERSION {
        return Err(Refused::Foreign("a request of another version").into());
    }
    let command = rest.byte()?;
    let reserved = rest.byte()?;
    let destination = match rest.byte()? {
        _ if reserved != 0 => return Err(Refused::Request(Code::Failed).into()),
        IPV4 => Destination::Address(Ipv4Addr::from(rest.array::<4>()?).into()),
        IPV6 => Destination::Address(Ipv6Addr::from(rest.array::<16>()?).into()),
        NAME => match rest.counted()? {
            [] => return Err(Refused::Request(Code::Failed).into()),
            name => Destination::Name(name),
        },
        // How long it is, nobody knows.
        _ => return Err(Refused::Request(Code::UnknownAddress).into()),
    };
    let port = u16::from_be_bytes(rest.array()?);
    match command {
        CONNECT => Ok(Message::Connect(destination, port)),
        _ => Err(Refused::Request(Code::UnknownCommand).into()),
    }
}

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;

// Kinds of address (RFC 1928 §5).
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Messages that are whole, with what they mean.
    fn whole() -> Vec<(Stage, Vec<u8>, Message<'static>)> {
        let address = |address: [u8; 4]| Destination::Address(IpAddr::from(address));
        vec![
            (
                Stage::Greeting,
                vec![5, 2, 0, 2],
                Message::Greeting(Methods(&[0, 2])),
            ),
            (Stage::Greeting, vec![5, 0], Message::Greeting(Methods(&[]))),
            (
                Stage::Login,
                b"\x01\x05alice\x04:\x00\xff ".to_vec(),
                Message::Login {
                    name: b"alice",
                    password: b":\x00\xff ",
                },
            ),
            (
                Stage::Login,
                [&[1, 255][..], &[b'n'; 255], &[255], &[b'p'; 255]].concat(),
                Message::Login {
                    name: &[b'n'; 255],
                    password: &[b'p'; 255],
                },
            ),
            (
                Stage::Request,
                vec![5, 1, 0, 1, 192, 0, 2, 7, 0x1f, 0x90],
                Message::Connect(address([192, 0, 2, 7]), 8080),
            ),
            (
                Stage::Request,
                [&[5, 1, 0, 4][..], &Ipv6Addr::LOCALHOST.octets(), &[0, 22]].concat(),
                Message::Connect(Destination::Address(Ipv6Addr::LOCALHOST.into()), 22),
            ),
            (
                Stage::Request,
                b"\x05\x01\x00\x03\x0bexample.com\x00\x50".to_vec(),
                Message::Connect(Destination::Name(b"example.com"), 80),
            ),
            (
                Stage::Request,
                [&[5, 1, 0, 3, 255][..], &[b'x'; 255], &[0, 0]].concat(),
                Message::Connect(Destination::Name(&[b'x'; 255]), 0),
            ),
        ]
    }

    #[test]
    fn messages_are_whole_at_their_last_byte_and_not_before() {
        for (stage, bytes, message) in whole() {
            assert!(bytes.len() <= MESSAGE_MAX);
            for length in 0..bytes.len() {
                assert_eq!(stage.read(&bytes[..length]), Ok(None), "{length} bytes");
            }
            assert_eq!(stage.read(&bytes), Ok(Some((message, bytes.len()))));
            let more = [&bytes[..], b"what follows"].concat();
            assert_eq!(stage.read(&more), Ok(Some((message, bytes.len()))));
        }
    }

    #[test]
    fn what_cannot_become_a_message_is_refused_at_the_byte_that_shows_it() {
        use Refused::{Foreign, Request};
        for (stage, bytes, shown, refused) in [
            (
                Stage::Greeting,
                &b"GET / HTTP/1.1\r\n"[..],
                1,
                Foreign("not SOCKS5"),
            ),
            (Stage::Greeting, b"\x16\x03\x01", 1, Foreign("not SOCKS5")),
            (Stage::Greeting, &[4, 1, 0, 80], 1, Foreign("SOCKS4")),
            (
                Stage::Login,
                &[5, 1, 0],
                1,
                Foreign("a login of an unknown version"),
            ),
            (
                Stage::Login,
                &[1, 0, 1, b'x'],
                2,
                Foreign("a login without a name or a password"),
            ),
            (
                Stage::Login,
                &[1, 1, b'x', 0],
                4,
                Foreign("a login without a name or a password"),
            ),
            (
                Stage::Request,
                &[1, 1, b'x', 1, b'x'],
                1,
                Foreign("a request of another version"),
            ),
            (
                Stage::Request,
                &[5, 1, 1, 1, 127, 0, 0, 1, 0, 80],
                4,
                Request(Code::Failed),
            ),
            (
                Stage::Request,
                &[5, 1, 0, 2, 127, 0, 0, 1, 0, 80],
                4,
                Request(Code::UnknownAddress),
            ),
            (
                Stage::Request,
                &[5, 1, 0, 3, 0, 0, 80],
                5,
                Request(Code::Failed),
            ),
            (
                Stage::Request,
                &[5, 2, 0, 1, 127, 0, 0, 1, 0, 80],
                10,
                Request(Code::UnknownCommand),
            ),
            (
                Stage::Request,
                &[5, 3, 0, 3, 1, b'a', 0, 80],
                8,
                Request(Code::UnknownCommand),
            ),
        ] {
            for length in 0..shown {
                assert_eq!(stage.read(&bytes[..length]), Ok(None), "{bytes:?}");
            }
            for length in shown..=bytes.len() {
                assert_eq!(stage.read(&bytes[..length]), Err(refused), "{bytes:?}");
            }
        }
    }

    #[test]
    fn answers_are_as_in_the_rfcs() {
        assert_eq!(Method::Open.answer(), [5, 0]);
        assert_eq!(Method::Password.answer(), [5, 2]);
        assert_eq!(Method::Unacceptable.answer(), [5, 0xff]);
        assert_eq!((LOGIN_RIGHT, LOGIN_WRONG), ([1, 0], [1, 1]));
        assert_eq!(
            Code::HostUnreachable.answer(),
            [5, 4, 0, 1, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn methods_are_looked_for_among_those_that_were_said() {
        let Ok(Some((Message::Greeting(methods), _))) = Stage::Greeting.read(&[5, 2, 1, 2, 0])
        else {
            panic!("a greeting");
        };
        assert!(methods.have(Method::Password));
        assert!(
            !methods.have(Method::Open),
            "that byte is behind the message"
        );
    }

    fn stage() -> impl Strategy<Value = Stage> {
        prop_oneof![
            Just(Stage::Greeting),
            Just(Stage::Login),
            Just(Stage::Request)
        ]
    }

    /// Bytes that often are the beginning of something.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![0..6_u8, any::<u8>()];
        prop::collection::vec(byte, 0..600)
    }

    proptest! {
        #[test]
        fn what_was_said_is_never_taken_back(stage in stage(), bytes in bytes()) {
            let mut said = None;
            for length in 0..=bytes.len() {
                let read = stage.read(&bytes[..length]);
                match &said {
                    // Once whole or refused, more bytes change nothing.
                    Some(said) => prop_assert_eq!(&read, said),
                    None if read == Ok(None) => prop_assert!(length < MESSAGE_MAX),
                    None => {
                        if let Ok(Some((_, taken))) = read {
                            prop_assert_eq!(taken, length, "whole at its last byte");
                        }
                        said = Some(read);
                    }
                }
            }
        }
    }
}
