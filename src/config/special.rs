//! IP networks, and which of them are not global unicast.
//!
//! Owns the one table of special-purpose ranges. It knows nothing of rules and names: it tells what
//! an address is, and `rule` decides what that means.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A network in CIDR notation; the bits of `base` past `prefix` are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` bits that holds `address`.
    ///
    /// `None` when the prefix is longer than an address of that family.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > width(address) {
            return None;
        }
        let base = match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(
                v4.to_bits() & (mask(prefix) >> 96) as u32,
            )),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask(prefix))),
        };
        Some(Self { base, prefix })
    }

    /// The network of this one address.
    pub fn single(address: IpAddr) -> Self {
        Self {
            base: address,
            prefix: width(address),
        }
    }

    /// The network that is written `address/prefix`.
    ///
    /// # Errors
    /// It is none; the reason is to follow what was written.
    pub fn written(address: IpAddr, prefix: &str) -> Result<Self, String> {
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("is not a CIDR, such as 10.0.0.0/8 or [fd00::/8]".into());
        }
        let network = prefix
            .parse()
            .ok()
            .and_then(|prefix| Self::around(address, prefix))
            .ok_or("has a prefix longer than its address")?;
        if network.base == address {
            Ok(network)
        } else {
            // Likely a slip: either one host was meant, or another network.
            Err(format!(
                "has bits set past its prefix; write {network} for the network"
            ))
        }
    }

    /// Its first address.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Whether the address lies in it. Families do not mix: see [`unwrap_address`].
    pub fn contains(&self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4()
            && (bits(self.base) ^ bits(address)) & mask(self.prefix) == 0
    }

    /// Whether all of `other` lies in it.
    pub fn holds(&self, other: &Network) -> bool {
        self.prefix <= other.prefix && self.contains(other.base)
    }

    /// The network as IPv4 when all of it is IPv4 in disguise: see [`unwrap_address`].
    pub fn unwrapped(self) -> Self {
        match unwrap_address(self.base) {
            IpAddr::V4(base) if self.base.is_ipv6() && self.prefix >= 96 => Self {
                base: base.into(),
                prefix: self.prefix - 96,
            },
            _ => self,
        }
    }
}

impl fmt::Display for Network {
    /// As it stands before a port: IPv6 in brackets, and no prefix for a single address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = self.prefix == width(self.base);
        match (self.base, single) {
            (IpAddr::V4(base), true) => write!(f, "{base}"),
            (IpAddr::V4(base), false) => write!(f, "{base}/{}", self.prefix),
            (IpAddr::V6(base), true) => write!(f, "[{base}]"),
            (IpAddr::V6(base), false) => write!(f, "[{base}/{}]", self.prefix),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with its first bit on top, so that one [`mask`] serves both families.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

/// The IPv4 address that an IPv6 one merely spells: v4-mapped (`::ffff:0:0/96`, RFC 4291 §2.5.5.2)
/// and NAT64 (`64:ff9b::/96`, RFC 6052 §2.1). Any other address is itself.
pub fn unwrap_address(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            joined(high, low).into()
        }
        _ => address,
    }
}

/// The IPv4 address that the network beyond a transition mechanism would deliver to: 6to4 (RFC 3056),
/// Teredo (RFC 4380 §4), IPv4-compatible (RFC 4291 §2.5.5.1) and local-use NAT64 (RFC 8215, when
/// it has 96-bit prefixes). Unlike [`unwrap_address`], the address is not that IPv4 address.
pub fn carried_address(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let carried = match v6.segments() {
        [0x2002, high, low, ..] => joined(high, low),
        [0x2001, 0, .., high, low] => joined(!high, !low),
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return None,
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, .., high, low] => joined(high, low),
        _ => return None,
    };
    Some(carried.into())
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

/// What an address is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Global unicast: reaches one host of the Internet.
    Global,
    /// This host.
    Loopback,
    /// Neighbours on one wire; among them the metadata services of clouds.
    LinkLocal,
    /// Many hosts.
    Multicast,
    /// No host; some systems take it for loopback.
    Unspecified,
    /// Private, shared, reserved, or for documentation and benchmarks.
    Other,
}

/// A range that is not global unicast.
#[derive(Clone, Copy, Debug)]
struct Special {
    network: Network,
    class: Class,
}

/// What an address is. Unwrap it first.
pub fn class(address: IpAddr) -> Class {
    innermost(address).map_or(Class::Global, |special| special.class)
}

/// Whether `network` may speak for `address`, which lies in it: an ordinary address always, a
/// special one only if `network` as a whole belongs to the range that makes it special. So
/// `0.0.0.0/0` says nothing about `10.0.0.1`, and `10.1.0.0/16` does.
pub fn speaks_for(network: &Network, address: IpAddr) -> bool {
    innermost(address).is_none_or(|special| special.network.holds(network))
}

/// The smallest special range that holds the address.
fn innermost(address: IpAddr) -> Option<&'static Special> {
    SPECIAL
        .iter()
        .filter(|special| special.network.contains(address))
        .max_by_key(|special| special.network.prefix)
}

/// The IANA registries of special-purpose addresses (RFC 6890 and its updates), multicast, and what
/// is not allocated for unicast at all. Where a registry carves a global exception out of a range
/// (192.0.0.9, 2001:20::/28, …) the whole range counts as special: nothing that one tunnels to
/// lives there.
const SPECIAL: &[Special] = &[
    v4([0, 0, 0, 0], 8, Class::Unspecified), // this network, RFC 791 §3.2
    v4([10, 0, 0, 0], 8, Class::Other),      // private, RFC 1918
    v4([100, 64, 0, 0], 10, Class::Other),   // shared (CGNAT), RFC 6598
    v4([127, 0, 0, 0], 8, Class::Loopback),  // RFC 1122 §3.2.1.3
    v4([169, 254, 0, 0], 16, Class::LinkLocal), // RFC 3927
    v4([172, 16, 0, 0], 12, Class::Other),   // private, RFC 1918
    v4([192, 0, 0, 0], 24, Class::Other),    // protocol assignments, RFC 6890 §2.1
    v4([192, 0, 2, 0], 24, Class::Other),    // documentation, RFC 5737
    v4([192, 88, 99, 0], 24, Class::Other),  // 6to4 relay anycast, RFC 7526
    v4([192, 168, 0, 0], 16, Class::Other),  // private, RFC 1918
    v4([198, 18, 0, 0], 15, Class::Other),   // benchmarking, RFC 2544
    v4([198, 51, 100, 0], 24, Class::Other), // documentation, RFC 5737
    v4([203, 0, 113, 0], 24, Class::Other),  // documentation, RFC 5737
    v4([224, 0, 0, 0], 4, Class::Multicast), // RFC 5771
    v4([240, 0, 0, 0], 4, Class::Other),     // reserved, RFC 1112 §4
    v4([255, 255, 255, 255], 32, Class::Other), // limited broadcast, RFC 919
    // Only 2000::/3 is allocated for global unicast (RFC 4291 §2.4): these three are the rest.
    v6([0, 0, 0, 0, 0, 0, 0, 0], 3, Class::Other),
    v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2, Class::Other),
    v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1, Class::Other),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, Class::Other), // IPv4-compatible, RFC 4291 §2.5.5.1
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, Class::Unspecified), // RFC 4291 §2.5.2
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Class::Loopback), // RFC 4291 §2.5.3
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Class::Other), // local-use NAT64, RFC 8215
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, Class::Other), // discard, RFC 6666
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, Class::Other), // dummy, RFC 9780
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Class::Other), // protocol assignments, RFC 2928
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Class::Other), // Teredo, RFC 4380
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, Class::Other), // benchmarking, RFC 5180
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Class::Other), // documentation, RFC 3849
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Class::Other), // 6to4, RFC 3056
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Class::Other), // documentation, RFC 9637
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, Class::Other), // segment routing, RFC 9602
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Class::Other), // unique local, RFC 4193
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Class::LinkLocal), // RFC 4291 §2.5.6
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Class::Other), // site-local, RFC 3879
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Class::Multicast), // RFC 4291 §2.7
];

const fn v4(octets: [u8; 4], prefix: u8, class: Class) -> Special {
    let [a, b, c, d] = octets;
    Special {
        network: Network {
            base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        },
        class,
    }
}

const fn v6(segments: [u16; 8], prefix: u8, class: Class) -> Special {
    let [a, b, c, d, e, f, g, h] = segments;
    let base = IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h));
    Special {
        network: Network { base, prefix },
        class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn network(text: &str) -> Network {
        let (base, prefix) = text.split_once('/').expect(text);
        let network = Network::around(ip(base), prefix.parse().unwrap()).expect(text);
        assert_eq!(network.base(), ip(base), "{text} has host bits");
        network
    }

    #[test]
    fn the_table_is_made_of_networks_without_host_bits() {
        for special in SPECIAL {
            let Network { base, prefix } = special.network;
            assert_eq!(
                Network::around(base, prefix),
                Some(special.network),
                "{base}/{prefix}"
            );
        }
    }

    #[test]
    fn addresses_have_their_class() {
        use Class::*;
        for (text, expected) in [
            ("1.1.1.1", Global),
            ("9.255.255.255", Global),
            ("10.0.0.0", Other),
            ("10.255.255.255", Other),
            ("11.0.0.0", Global),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("100.63.255.255", Global),
            ("100.64.0.0", Other),
            ("100.127.255.255", Other),
            ("100.128.0.0", Global),
            ("126.255.255.255", Global),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("128.0.0.0", Global),
            ("169.253.255.255", Global),
            ("169.254.169.254", LinkLocal),
            ("169.255.0.0", Global),
            ("172.15.255.255", Global),
            ("172.16.0.0", Other),
            ("172.31.255.255", Other),
            ("172.32.0.0", Global),
            ("192.0.0.1", Other),
            ("192.0.1.0", Global),
            ("192.0.2.1", Other),
            ("192.0.3.0", Global),
            ("192.88.99.1", Other),
            ("192.167.255.255", Global),
            ("192.168.0.1", Other),
            ("192.169.0.0", Global),
            ("198.17.255.255", Global),
            ("198.18.0.0", Other),
            ("198.19.255.255", Other),
            ("198.20.0.0", Global),
            ("198.51.100.7", Other),
            ("203.0.113.7", Other),
            ("203.0.114.0", Global),
            ("223.255.255.255", Global),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("240.0.0.0", Other),
            ("255.255.255.255", Other),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::2", Other),
            ("::127.0.0.1", Other),
            ("64:ff9b:1::1", Other),
            ("100::1", Other),
            ("100:0:0:1::1", Other),
            ("1fff::1", Other),
            ("2000::1", Global),
            ("2001::1", Other),
            ("2001:1ff::1", Other),
            ("2001:200::1", Global),
            ("2001:db8::1", Other),
            ("2001:db9::1", Global),
            ("2002:808:808::1", Other),
            ("2003::1", Global),
            ("2606:4700::1111", Global),
            ("3ffe::1", Global),
            ("3fff:fff::1", Other),
            ("3fff:1000::1", Global),
            ("4000::1", Other),
            ("5f00::1", Other),
            ("8000::1", Other),
            ("fc00::1", Other),
            ("fd00:ec2::254", Other),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fec0::1", Other),
            ("ff02::1", Multicast),
        ] {
            assert_eq!(class(ip(text)), expected, "{text}");
        }
    }

    #[test]
    fn ipv4_in_disguise_is_unwrapped() {
        for (text, expected) in [
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("64:ff9b::169.254.169.254", "169.254.169.254"),
            ("64:ff9b:1::7f00:1", "64:ff9b:1::7f00:1"),
            ("::127.0.0.1", "::127.0.0.1"),
            ("::1", "::1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(unwrap_address(ip(text)), ip(expected), "{text}");
        }
        assert_eq!(
            network("::ffff:10.0.0.0/104").unwrapped(),
            network("10.0.0.0/8")
        );
        assert_eq!(
            network("::ffff:0.0.0.0/96").unwrapped(),
            network("0.0.0.0/0")
        );
        assert_eq!(network("64:ff9b::/96").unwrapped(), network("0.0.0.0/0"));
        for text in ["64:ff9b::/64", "::/0", "2001:db8::/104", "10.0.0.0/8"] {
            assert_eq!(network(text).unwrapped(), network(text));
        }
    }

    #[test]
    fn transition_addresses_carry_ipv4_ones() {
        for (text, expected) in [
            ("2002:7f00:1::", Some("127.0.0.1")),
            ("2001:0:808:808::80ff:fffe", Some("127.0.0.1")),
            ("::169.254.169.254", Some("169.254.169.254")),
            ("64:ff9b:1::7f00:1", Some("127.0.0.1")),
            ("::", None),
            ("::1", None),
            ("2001:1::1", None),
            ("2606:4700::1111", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(carried_address(ip(text)), expected.map(ip), "{text}");
        }
    }

    #[test]
    fn networks_hold_what_shares_their_prefix() {
        assert!(network("0.0.0.0/0").contains(ip("255.255.255.255")));
        assert!(!network("0.0.0.0/0").contains(ip("::1")));
        assert!(!network("::/0").contains(ip("127.0.0.1")));
        assert!(network("10.0.0.0/9").contains(ip("10.127.255.255")));
        assert!(!network("10.0.0.0/9").contains(ip("10.128.0.0")));
        assert!(network("10.0.0.0/8").holds(&network("10.1.0.0/16")));
        assert!(network("10.0.0.0/8").holds(&network("10.0.0.0/8")));
        assert!(!network("10.1.0.0/16").holds(&network("10.0.0.0/8")));
        assert!(network("2001:db8::/127").contains(ip("2001:db8::1")));
        assert!(!network("2001:db8::/127").contains(ip("2001:db8::2")));
        assert_eq!(Network::around(ip("10.0.0.0"), 33), None);
        assert_eq!(Network::around(ip("::"), 129), None);
        assert_eq!(
            Network::around(ip("10.1.2.3"), 8),
            Some(network("10.0.0.0/8"))
        );
    }
}
