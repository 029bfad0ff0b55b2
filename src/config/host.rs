//! Names and addresses of hosts, as people write them: IPv6 in brackets, where a port may follow.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    rc::Rc,
    str::FromStr,
};

use super::value::Invalid;

/// A host as it was asked for: two spellings of one name are one host, a name and its address two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name in lower case, without a trailing dot. Parse to get one that keeps this promise.
    Name(Rc<str>),
    /// An IP literal.
    Address(IpAddr),
}

impl Host {
    /// What a user has asked for: as [`Host::from_str`], and IPv6 addresses without brackets.
    pub fn asked_for(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) => text.parse().ok(),
        }
    }

    /// As it prints.
    pub fn text(&self) -> Rc<str> {
        match self {
            Host::Name(name) => Rc::clone(name),
            Host::Address(_) => self.to_string().into(),
        }
    }
}

/// The longest name in text form (RFC 1035 §2.3.4: 255 octets on the wire).
const NAME_BYTES_MAX: usize = 253;

/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

impl FromStr for Host {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner
                .strip_suffix(']')
                .and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return address
                .map(|address| Self::Address(address.into()))
                .ok_or_else(|| {
                    Invalid::new(format!("HOST {text:?} is not an IPv6 address in brackets"))
                });
        }
        if text.contains(':') {
            return Err(Invalid::new(format!(
                "HOST {text:?}: an IPv6 address goes in brackets"
            )));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        check_name(text)?;
        Ok(Self::Name(text.to_ascii_lowercase().into()))
    }
}

/// Accepts what DNS and hosts files hold in practice: underscores, and hyphens anywhere.
fn check_name(name: &str) -> Result<(), Invalid> {
    let refused = |why: &str| Err(Invalid::new(format!("HOST {name:?} {why}")));
    if name.is_empty() {
        return refused("is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return refused("is longer than 253 bytes");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return refused("has a label that is empty or longer than 63 bytes");
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return refused("is not a name: labels of letters, digits, '-' and '_'");
        }
    }
    if ends_in_a_number(name) {
        return refused("is not an IPv4 address, but resolvers would read it as one");
    }
    Ok(())
}

/// Whether `inet_aton`, and so getaddrinfo, may take the name for an address: its last label is a
/// decimal, octal or hexadecimal number (URL standard, "ends in a number").
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => Bracketed(*address).fmt(f),
        }
    }
}

/// Prints an address as it stands before a port: IPv6 in brackets.
pub(super) struct Bracketed(pub IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Splits at each `:` that stands outside `[…]`.
pub(super) fn split_outside_brackets(text: &str) -> Result<Vec<&str>, Invalid> {
    let mut fields = Vec::new();
    let mut start = 0;
    let mut inside = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' if !inside => inside = true,
            b']' if inside => inside = false,
            b'[' | b']' => {
                return Err(Invalid::new(format!(
                    "the brackets in {text:?} do not match"
                )));
            }
            b':' if !inside => {
                fields.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(Invalid::new(format!(
            "the brackets in {text:?} do not match"
        )));
    }
    fields.push(&text[start..]);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_long_as_dns_allows() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(longest.parse::<Host>().is_ok());
        assert!(format!("{longest}.").parse::<Host>().is_ok());
        assert!(format!("{longest}a").parse::<Host>().is_err());
        assert!(format!("{label}a").parse::<Host>().is_err());
        for name in [
            "1a",
            "a1.b2",
            "3com",
            "x.0xg",
            "1.2.3.4a",
            "-",
            "_srv._tcp.a",
        ] {
            assert_eq!(name.parse(), Ok(Host::Name(name.into())), "{name}");
        }
    }

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        assert!(
            "::1"
                .parse::<Host>()
                .unwrap_err()
                .to_string()
                .contains("in brackets")
        );
    }
}
