//! Who may come in, by address: the lists `allow_from` and `deny_from`.
//!
//! Owns how a list is written and what it holds. It does not know who asks, nor when: the address may be
//! that of a connection just accepted, or one that a trusted party in front has told of.

use std::{fmt, net::IpAddr, rc::Rc, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    special::{self, Network},
    value::{Bind, Invalid, impl_text},
};

/// Whether somebody from `address` may come in: no `deny_from` holds it, and `allow_from` is absent or
/// does. An IPv4 address in IPv6's clothes is taken for what it is.
#[must_use]
pub fn admits(allow_from: Option<&Networks>, deny_from: &Networks, address: IpAddr) -> bool {
    let address = special::unwrap_address(address);
    !deny_from.holds(address) && allow_from.is_none_or(|networks| networks.holds(address))
}

/// A list of addresses and networks, unwrapped. An empty one holds nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Rc<[Network]>);

impl Networks {
    /// The longest list. Each accepted connection is compared with each entry, a few nanoseconds for each;
    /// longer lists are a firewall's.
    pub const LENGTH_MAX: usize = 256;

    /// Whether it holds nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is in one of the networks; one in IPv6's clothes is taken for what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.holds(special::unwrap_address(address))
    }

    /// Whether the address, unwrapped, is in one of the networks.
    fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = Networks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of addresses and CIDRs, such as [\"10.0.0.0/8\", \"::1\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Networks, A::Error> {
                let mut networks = Vec::new();
                while let Some(Entry(network)) = list.next_element()? {
                    if networks.len() == Networks::LENGTH_MAX {
                        return Err(A::Error::custom(format_args!(
                            "a list of more than {} addresses is a firewall's",
                            Networks::LENGTH_MAX
                        )));
                    }
                    networks.push(network);
                }
                Ok(Networks(networks.into()))
            }
        }

        deserializer.deserialize_seq(ListVisitor)
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().copied().map(Entry))
    }
}

/// One entry, as it is written alone: IPv6 needs no brackets, and may have them.
struct Entry(Network);

impl FromStr for Entry {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |reason: &str| Invalid::new(format!("{text:?} {reason}"));
        // `[fd00::/8]` as in a RULE; `[fd00::]/8` and `[::1]` are seen to below.
        let inner = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        let (address, prefix) = match inner.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (inner, None),
        };
        let Ok(Bind(address)) = address.parse() else {
            return Err(refused(
                "is not an address or a CIDR, such as 192.0.2.7, 10.0.0.0/8 or fd00::/8 (names are not looked up)",
            ));
        };
        let network = match prefix {
            Some(prefix) => Network::written(address, prefix).map_err(|reason| refused(&reason))?,
            None => Network::single(address),
        };
        Ok(Self(network.unwrapped()))
    }
}

impl_text!(
    Entry,
    "a string with an address or a CIDR, such as \"10.0.0.0/8\""
);

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Networks {
        serde_json::from_str(json).expect(json)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn denied_addresses_stay_out_and_so_does_who_is_not_allowed() {
        let office = list(r#"["10.1.0.0/16", "192.0.2.7", "fd00::/8", "2001:db8::1"]"#);
        let guest = list(r#"["10.1.9.0/24", "fd00:9::/32"]"#);
        let nobody = Networks::default();
        for (user, with_both, without_allow) in [
            ("10.1.0.0", true, true),
            ("10.1.255.255", true, true),
            ("10.2.0.0", false, true),
            ("10.1.9.1", false, false),
            ("192.0.2.7", true, true),
            ("192.0.2.8", false, true),
            ("::ffff:192.0.2.7", true, true),
            ("::ffff:10.1.9.200", false, false),
            ("64:ff9b::10.1.9.200", false, false),
            ("fd12::1", true, true),
            ("fd00:9::1", false, false),
            ("2001:db8::1", true, true),
            ("2001:db8::2", false, true),
            ("::1", false, true),
        ] {
            let user_address = address(user);
            assert_eq!(
                admits(Some(&office), &guest, user_address),
                with_both,
                "{user}"
            );
            assert_eq!(admits(None, &guest, user_address), without_allow, "{user}");
            assert!(admits(None, &nobody, user_address), "{user}");
            assert!(!admits(Some(&nobody), &nobody, user_address), "{user}");
        }
    }

    #[test]
    fn each_family_has_its_own_everybody() {
        let nobody = Networks::default();
        for (everybody, four, six) in [
            ("0.0.0.0/0", true, false),
            ("::/0", false, true),
            ("::ffff:0:0/96", true, false),
        ] {
            let everybody = list(&format!("[{everybody:?}]"));
            assert_eq!(
                admits(Some(&everybody), &nobody, address("192.0.2.1")),
                four
            );
            assert_eq!(
                admits(Some(&everybody), &nobody, address("::ffff:192.0.2.1")),
                four
            );
            assert_eq!(
                admits(Some(&everybody), &nobody, address("2001:db8::1")),
                six
            );
        }
    }

    #[test]
    fn lists_print_a_form_that_reads_back() {
        for (json, canonical) in [
            ("[]", "[]"),
            (r#"["192.0.2.7/32", "::1/128"]"#, r#"["192.0.2.7","[::1]"]"#),
            (
                r#"["fd00::/8", "[fd00::/8]", "[fd00::]/8", "FD00::/8"]"#,
                r#"["[fd00::/8]","[fd00::/8]","[fd00::/8]","[fd00::/8]"]"#,
            ),
            (r#"["::ffff:10.0.0.0/104"]"#, r#"["10.0.0.0/8"]"#),
        ] {
            let networks = list(json);
            assert_eq!(serde_json::to_string(&networks).unwrap(), canonical);
            assert_eq!(list(canonical), networks);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be() {
        for (json, expected) in [
            (r#"["localhost"]"#, "names are not looked up"),
            (r#"["10.0.0.0/33"]"#, "a prefix longer than its address"),
            (
                r#"["10.0.0.1/8"]"#,
                "bits set past its prefix; write 10.0.0.0/8 for the network",
            ),
            (r#"["10.0.0.0/"]"#, "is not a CIDR"),
            (r#"["10.0.0.0/+8"]"#, "is not a CIDR"),
            (r#"["10.0/16"]"#, "is not an address or a CIDR"),
            (r#"["*"]"#, "is not an address or a CIDR"),
            (r#"["10.0.0.1:80"]"#, "is not an address or a CIDR"),
            (r#"["[10.0.0.1"]"#, "is not an address or a CIDR"),
            (r#"[""]"#, "is not an address or a CIDR"),
            (r#""10.0.0.1""#, "expected a list of addresses"),
            ("[7]", "expected a string with an address"),
        ] {
            let reason = serde_json::from_str::<Networks>(json)
                .expect_err(json)
                .to_string();
            assert!(reason.contains(expected), "{json}: {reason}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let entries = |count| serde_json::to_string(&vec!["10.0.0.0/8"; count]).unwrap();
        assert!(serde_json::from_str::<Networks>(&entries(256)).is_ok());
        let reason = serde_json::from_str::<Networks>(&entries(257)).unwrap_err();
        assert!(reason.to_string().contains("more than 256"), "{reason}");
    }
}
