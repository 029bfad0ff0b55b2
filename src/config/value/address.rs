//! Addresses and ports to listen on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
};

use super::{Invalid, impl_text};

/// An address to listen on, `ADDR:PORT`. Names are refused: which of its addresses would be meant?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse().map(Self).map_err(|_| {
            Invalid::new(format!(
                "{text:?} is not ADDR:PORT, such as 127.0.0.1:7000 or [::1]:7000 (names are not looked up)"
            ))
        })
    }
}

impl_text!(Address, "a string ADDR:PORT, such as \"127.0.0.1:7000\"");

/// A local address to bind to, an IP literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind(pub IpAddr);

impl Bind {
    /// Reads BIND as it stands in a SPEC, where an IPv6 address needs its brackets.
    ///
    /// # Errors
    /// It is not an IP literal.
    pub fn bracketed(text: &str) -> Result<IpAddr, Invalid> {
        if text == "*" {
            return Err(Invalid::new(
                "BIND \"*\" is not an address: write 0.0.0.0 or [::] to listen on every one",
            ));
        }
        let address = match text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        address.ok_or_else(|| {
            Invalid::new(format!(
                "BIND {text:?} is not an IP address, such as 127.0.0.1, 0.0.0.0 or [::1]"
            ))
        })
    }
}

impl FromStr for Bind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Alone there is nothing to tell an IPv6 address from, so the brackets may be left out.
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Self(IpAddr::V6(address))),
            Err(_) => Self::bracketed(text).map(Self),
        }
    }
}

impl_text!(Bind, "a string with an IP address, such as \"127.0.0.1\"");

/// Reads a port, 0 included: decimal digits only, where `u16::from_str` would accept a sign.
///
/// # Errors
/// It is not a number from 0 to 65535.
pub fn port(text: &str) -> Result<u16, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| Invalid::new(format!("PORT {text:?} is not a number from 0 to 65535")))
}

/// Reads a port to connect to.
///
/// # Errors
/// It is not a number from 1 to 65535.
pub fn target_port(text: &str) -> Result<u16, Invalid> {
    match port(text) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Invalid::new(format!(
            "PORT {text:?} is not a number from 1 to 65535"
        ))),
    }
}

/// A range of ports, `8000-8100` or just `8000`. Never empty, never holds 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (target_port(first)?, target_port(last)?),
            None => (target_port(text)?, target_port(text)?),
        };
        if first > last {
            return Err(Invalid::new(format!(
                "the range {text:?} ends before it begins"
            )));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

impl_text!(
    PortRange,
    "a string with ports, such as \"1024-65535\" or \"8080\""
);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = Invalid> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn listening_addresses_are_literals_with_a_port() {
        for text in ["127.0.0.1:7000", "0.0.0.0:0", "[::1]:7000", "[::]:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().0.to_string(), text);
        }
        for text in [
            "",
            "7000",
            ":7000",
            "127.0.0.1",
            "localhost:7000",
            "::1:7000",
            "*:7000",
            "127.0.0.1:65536",
        ] {
            assert!(refusal::<Address>(text).contains("ADDR:PORT"), "{text}");
        }
    }

    #[test]
    fn bind_is_an_address_with_brackets_where_ports_follow() {
        assert_eq!("::1".parse::<Bind>(), "[::1]".parse::<Bind>());
        assert_eq!(
            "0.0.0.0".parse::<Bind>().unwrap().0,
            IpAddr::from([0, 0, 0, 0])
        );
        for text in [
            "",
            "localhost",
            "[127.0.0.1]",
            "127.1",
            "[::1",
            "::1]",
            "[::1%lo]",
            "127.0.0.1:80",
        ] {
            assert!(
                refusal::<Bind>(text).contains("is not an IP address"),
                "{text}"
            );
        }
        assert!(refusal::<Bind>("*").contains("write 0.0.0.0 or [::]"));
        assert!(Bind::bracketed("::1").is_err());
    }

    #[test]
    fn ports_are_plain_digits() {
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        assert_eq!(target_port("1"), Ok(1));
        for text in ["", "+1", "-1", "65536", "1 ", "0x1", "http", "99999999999"] {
            assert!(port(text).is_err(), "{text}");
            assert!(target_port(text).is_err(), "{text}");
        }
        assert!(
            target_port("0")
                .unwrap_err()
                .to_string()
                .contains("from 1 to 65535")
        );
    }

    #[test]
    fn port_ranges_are_never_empty() {
        for text in ["1-65535", "8000-8100", "8080"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
        for text in [
            "", "-", "1-", "-1", "0", "0-10", "2-1", "1-65536", "1-2-3", "*",
        ] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
