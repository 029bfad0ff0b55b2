//! `no_proxy`: which servers the proxy of a variable is not for.
//!
//! Nobody owns the form of this list; what is read here is what curl and most others have in common: names
//! (and all below them, with or without a leading dot or `*.`), addresses, CIDRs and `*`, each with a port if
//! it is for that port only, between commas or blanks. What cannot be understood covers nothing, as there.

use std::net::IpAddr;

use super::{
    host::Host,
    special::{Network, unwrap_address},
    value,
};

/// The servers of a list.
#[derive(Debug, Default)]
pub(super) struct NoProxy(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    what: What,
    port: Option<u16>,
}

#[derive(Debug)]
enum What {
    All,
    /// This name and all below it, in the form of [`Host::Name`].
    Name(Box<str>),
    Network(Network),
}

impl NoProxy {
    pub fn read(list: &str) -> Self {
        let entries = list.split(|c: char| c == ',' || c.is_ascii_whitespace());
        Self(entries.filter_map(Entry::read).collect())
    }

    /// Whether a server is on it. Names are not looked up: that would be the proxy's to do.
    pub fn covers(&self, host: &Host, port: u16) -> bool {
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port)
                && match (&entry.what, host) {
                    (What::All, _) => true,
                    (What::Name(suffix), Host::Name(name)) => name
                        .strip_suffix(&**suffix)
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
                    (What::Network(network), Host::Address(address)) => {
                        network.contains(unwrap_address(*address))
                    }
                    (What::Name(_), Host::Address(_)) | (What::Network(_), Host::Name(_)) => false,
                }
        })
    }
}

impl Entry {
    fn read(text: &str) -> Option<Self> {
        let of = |what, port| Some(Self { what, port });
        if let Some(what) = What::read(text) {
            return of(what, None);
        }
        let (host, port) = text.rsplit_once(':')?;
        of(What::read(host)?, Some(value::target_port(port).ok()?))
    }
}

impl What {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        // Alone, an IPv6 address may stand without its brackets.
        let bare = |text: &str| match text.parse::<IpAddr>() {
            Ok(address) => Some(address),
            Err(_) => match text.parse() {
                Ok(Host::Address(address)) => Some(address),
                Ok(Host::Name(_)) | Err(_) => None,
            },
        };
        if let Some(address) = bare(text) {
            return Some(Self::Network(Network::single(address).unwrapped()));
        }
        if let Some((address, prefix)) = text.split_once('/') {
            let network = Network::around(bare(address)?, prefix.parse().ok()?)?;
            return Some(Self::Network(network.unwrapped()));
        }
        let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        match name.unwrap_or(text).parse() {
            Ok(Host::Name(name)) => Some(Self::Name((*name).into())),
            Ok(Host::Address(_)) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_covers_what_it_says() {
        for (list, covered, not_covered) in [
            ("*", &["a:1", "1.2.3.4:1", "[::1]:1"][..], &[][..]),
            ("", &[], &["a:1", "1.2.3.4:1"]),
            (
                "Example.com",
                &["example.com:1", "a.b.example.com:1"],
                &["badexample.com:1", "com:1", "example.com.evil:1"],
            ),
            (
                ".example.com",
                &["example.com:1", "a.example.com:1"],
                &["badexample.com:1"],
            ),
            ("*.example.com.", &["a.example.com:1"], &["b.com:1"]),
            ("a,b\tc , d", &["a:1", "b:1", "c:1", "d:1"], &["e:1"]),
            ("a:80", &["a:80", "x.a:80"], &["a:81"]),
            (
                "10.0.0.1",
                &["10.0.0.1:1", "[::ffff:10.0.0.1]:1"],
                &["10.0.0.2:1", "a:1"],
            ),
            ("10.0.0.0/8", &["10.9.9.9:1"], &["11.0.0.0:1"]),
            ("10.1.2.3/8", &["10.9.9.9:1"], &["11.0.0.0:1"]),
            ("10.0.0.0/8:443", &["10.9.9.9:443"], &["10.9.9.9:80"]),
            ("fd00::/8", &["[fd12::1]:1"], &["[fe80::1]:1"]),
            ("[fd00::1]", &["[fd00::1]:1"], &["[fd00::2]:1"]),
            ("[fd00::1]:80", &["[fd00::1]:80"], &["[fd00::1]:81"]),
            ("fd00::1", &["[fd00::1]:1"], &["[fd00::2]:1"]),
            // Nonsense covers nothing, and does not spoil what stands beside it.
            (
                "10.0.0.0/33,a..b,:80,/8,*a b",
                &["b:1"],
                &["10.0.0.1:1", "a:1"],
            ),
            (
                "10.0.0.0/-1,http://a,127.1",
                &[],
                &["10.0.0.1:1", "a:1", "127.0.0.1:1"],
            ),
        ] {
            let no_proxy = NoProxy::read(list);
            let covers = |server: &&str| {
                let (host, port) = server.rsplit_once(':').expect("a port");
                no_proxy.covers(&host.parse().expect(host), port.parse().expect(port))
            };
            for server in covered {
                assert!(covers(server), "{list:?} covers {server}");
            }
            for server in not_covered {
                assert!(!covers(server), "{list:?} does not cover {server}");
            }
        }
    }
}
