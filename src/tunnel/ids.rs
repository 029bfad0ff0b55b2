//! The ids that people see: of proxies and of users.
//!
//! They are stored as integers and never are keys. The wall clock in them may stand still or jump
//! back, so [`Unique`] sees to it that no two are equal.

use std::{fmt, rc::Rc, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `<client id>-<port>-<unix seconds at which the proxy was made>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyId {
    /// The client's id.
    pub client: Rc<str>,
    /// The port it listens on.
    pub port: u16,
    /// When it was made, in seconds since the Unix epoch.
    pub made: u64,
}

/// `user-<port>-<unix nanoseconds>`, and `#n` for the n-th HTTP exchange of that user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserId {
    /// The port the user connected to.
    pub port: u16,
    /// When, in nanoseconds since the Unix epoch.
    pub connected: u64,
    /// Which HTTP exchange, from 1; 0 names the connection.
    pub exchange: u32,
}

impl UserId {
    /// The n-th exchange on this connection.
    #[must_use]
    pub fn exchange(self, exchange: u32) -> UserId {
        UserId { exchange, ..self }
    }
}

/// An id was not of the form that its writer gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed id")
    }
}

impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.client, self.port, self.made)
    }
}

impl FromStr for ProxyId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<ProxyId, Malformed> {
        // From the right: a client's id may hold dashes.
        let mut parts = text.rsplitn(3, '-');
        let made = parts.next().and_then(integer).ok_or(Malformed)?;
        let port = parts.next().and_then(integer).ok_or(Malformed)?;
        // It is printed in logs: nothing else may be in it than in a client's id.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let client = parts
            .next()
            .filter(|id| !id.is_empty() && id.bytes().all(plain))
            .ok_or(Malformed)?;
        Ok(ProxyId {
            client: client.into(),
            port,
            made,
        })
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user-{}-{}", self.port, self.connected)?;
        if self.exchange > 0 {
            write!(f, "#{}", self.exchange)?;
        }
        Ok(())
    }
}

impl FromStr for UserId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<UserId, Malformed> {
        let rest = text.strip_prefix("user-").ok_or(Malformed)?;
        let (port, rest) = rest.split_once('-').ok_or(Malformed)?;
        let (connected, exchange) = match rest.split_once('#') {
            None => (rest, 0),
            Some((connected, exchange)) => (
                connected,
                integer(exchange).filter(|&n| n > 0).ok_or(Malformed)?,
            ),
        };
        Ok(UserId {
            port: integer(port).ok_or(Malformed)?,
            connected: integer(connected).ok_or(Malformed)?,
            exchange,
        })
    }
}

/// Digits alone, without the sign that `parse` lets pass, and without leading zeros.
fn integer<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

macro_rules! as_string {
    ($($id:ty),*) => {$(
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$id, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $id;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an id")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$id, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

as_string!(ProxyId, UserId);

/// Gives numbers that follow a clock and never repeat: two in one instant become last + 1.
#[derive(Debug, Default)]
pub struct Unique(u64);

impl Unique {
    /// The clock's reading, or the next number after the last one given.
    pub fn after(&mut self, reading: u64) -> u64 {
        self.0 = reading.max(self.0 + 1);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_they_were_written() {
        for text in [
            "edge-1-10033-1765020008",
            "a-1-2",
            "c4f8833612e59561da41f565b48ed459-80-0",
        ] {
            assert_eq!(text.parse::<ProxyId>().unwrap().to_string(), text);
        }
        for text in [
            "user-10033-1765242071641539471",
            "user-80-1#1",
            "user-0-0#4294967295",
        ] {
            assert_eq!(text.parse::<UserId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_text_is_no_id() {
        for text in [
            "",
            "-",
            "--",
            "a-1",
            "-1-2",
            "a-b-1",
            "a-1-b",
            "a-65536-1",
            "a-+1-2",
            "a-01-2",
        ] {
            assert_eq!(text.parse::<ProxyId>(), Err(Malformed), "{text}");
        }
        for text in [
            "user-",
            "user-1",
            "usr-1-2",
            "user-1-2#",
            "user-1-2#0",
            "user-1-2#x",
            "user-1-2-3",
        ] {
            assert_eq!(text.parse::<UserId>(), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn two_in_one_instant_differ() {
        let mut unique = Unique::default();
        assert_eq!(unique.after(10), 10);
        assert_eq!(unique.after(10), 11);
        assert_eq!(unique.after(5), 12, "even when the clock jumps back");
        assert_eq!(unique.after(20), 20);
    }
}
