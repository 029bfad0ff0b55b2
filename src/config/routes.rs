//! What of a listener is a proxy's, where several share it: the options `hosts` and `paths`.
//!
//! Owns how they are written, which of several proxies a name and a path lead to, and which proxies may
//! stand side by side. It does not know where names and paths come from: a request, or the beginning of a
//! TLS handshake.
//!
//! Paths are compared as an origin would read them, percent-encoding undone and doubled slashes taken for
//! one. What origins read in different ways (dot segments, an encoded slash) leads nowhere: whoever
//! could choose the reading could go around whatever stands on one of the paths.

use std::{borrow::Cow, fmt, rc::Rc, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    host::Host,
    value::{Invalid, impl_text},
};

/// The part of a listener that is a proxy's. Without hosts it is for any, without paths for all.
#[derive(Clone, Copy, Debug)]
pub struct Routes<'a> {
    /// The names that lead to it.
    pub hosts: &'a Names,
    /// The beginnings of paths that lead to it.
    pub paths: &'a Paths,
}

/// How closely a proxy is meant; the greatest wins. A host counts for more than a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness {
    host: usize,
    path: usize,
}

impl Routes<'_> {
    /// Whether it is for whatever nobody else is for.
    pub fn are_open(&self) -> bool {
        self.hosts.0.is_empty() && self.paths.0.is_empty()
    }

    /// How closely a name, where one was said, and a path, as [`plain_path`] has it, fit; `None` where they
    /// do not.
    pub fn fit(&self, host: Option<&Host>, path: &str) -> Option<Closeness> {
        Some(Closeness {
            host: closest(&self.hosts.0, |name| name.fit(host?))?,
            path: closest(&self.paths.0, |prefix| prefix.fit(path))?,
        })
    }

    /// Whether some name and path would lead to both alike.
    pub fn clash(&self, other: &Routes<'_>) -> bool {
        alike(&self.hosts.0, &other.hosts.0, |one, other| one == other)
            && alike(&self.paths.0, &other.paths.0, |one, other| one == other)
    }

    /// Whether some name leads, or would lead without the other, to both: then they must be one owner's.
    pub fn overlap(&self, other: &Routes<'_>) -> bool {
        let (one, other) = (&self.hosts.0, &other.hosts.0);
        one.is_empty()
            || other.is_empty()
            || alike(one, other, |one, other| {
                one.covers(other) || other.covers(one)
            })
    }
}

impl fmt::Display for Routes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = !self.hosts.is_empty() && !self.paths.is_empty();
        let separator = if both { ", " } else { "" };
        write!(f, "{}{separator}{}", self.hosts, self.paths)
    }
}

/// The best of a list; an empty one fits everything, as loosely as can be.
fn closest<T>(list: &[T], fit: impl Fn(&T) -> Option<usize>) -> Option<usize> {
    if list.is_empty() {
        return Some(0);
    }
    list.iter().filter_map(fit).max()
}

fn alike<T>(one: &[T], other: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    (one.is_empty() && other.is_empty())
        || one
            .iter()
            .any(|one| other.iter().any(|other| same(one, other)))
}

/// A name, or all below one: `*.example.com` is not for `example.com` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// This one.
    Exact(Host),
    /// Those that end so, behind a dot.
    Suffix(Rc<str>),
}

impl Name {
    fn fit(&self, host: &Host) -> Option<usize> {
        match (self, host) {
            (Name::Exact(name), _) => (name == host).then_some(usize::MAX),
            (Name::Suffix(suffix), Host::Name(name)) => {
                is_below(name, suffix).then_some(suffix.len())
            }
            (Name::Suffix(_), Host::Address(_)) => None,
        }
    }

    /// Whether it is for all that the other is for.
    pub fn covers(&self, other: &Name) -> bool {
        match (self, other) {
            (Name::Exact(one), Name::Exact(other)) => one == other,
            (Name::Exact(_), Name::Suffix(_)) => false,
            (Name::Suffix(_), Name::Exact(host)) => self.fit(host).is_some(),
            (Name::Suffix(one), Name::Suffix(other)) => one == other || is_below(other, one),
        }
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("*.") {
            None => text.parse().map(Name::Exact),
            Some(suffix) => match suffix.parse()? {
                Host::Name(suffix) => Ok(Name::Suffix(suffix)),
                Host::Address(_) => Err(Invalid::new(format!("{text:?} is no part of an address"))),
            },
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Exact(host) => host.fmt(f),
            Name::Suffix(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl_text!(
    Name,
    "a name, such as \"www.example.com\" or \"*.example.com\""
);

/// The beginning of paths, by whole segments: `/api` is for `/api` and `/api/x`, not for `/apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(Rc<str>);

impl PathPrefix {
    fn fit(&self, path: &str) -> Option<usize> {
        let rest = path.strip_prefix(&*self.0)?;
        let whole = rest.is_empty() || rest.starts_with('/') || self.0.ends_with('/');
        whole.then_some(self.0.len())
    }
}

impl FromStr for PathPrefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_plain = text.starts_with('/')
            && text.len() <= PATH_BYTES_MAX
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte));
        let path = is_plain.then(|| plain_path(text)).flatten();
        let Some(path) = path.filter(|path| path == text) else {
            return Err(Invalid::new(format!(
                "{text:?} is not the beginning of a path, such as \"/api\": visible ASCII, at most {PATH_BYTES_MAX} bytes, no '?', '#' or '%', no empty segment and no dots for one"
            )));
        };
        // A slash at its end says nothing more.
        let path = path
            .strip_suffix('/')
            .filter(|path| !path.is_empty())
            .unwrap_or(&path);
        Ok(PathPrefix(path.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl_text!(PathPrefix, "the beginning of a path, such as \"/api\"");

/// A path without its query, as it is compared; `None` where there is more than one reading of it.
pub fn plain_path(path: &str) -> Option<Cow<'_, str>> {
    let needs_work = path.contains('%') || path.contains("//");
    let plain = if needs_work {
        let mut decoded = Vec::with_capacity(path.len());
        let mut bytes = path.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'%' => {
                    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                    let byte = (16 * digit(bytes.next())? + digit(bytes.next())?) as u8;
                    if byte == b'/' {
                        return None;
                    }
                    byte
                }
                byte => byte,
            };
            if byte != b'/' || decoded.last() != Some(&b'/') {
                decoded.push(byte);
            }
        }
        Cow::Owned(String::from_utf8(decoded).ok()?)
    } else {
        Cow::Borrowed(path)
    };
    let is_dotted = |segment: &str| {
        // Parameters are no part of a segment's name to some.
        let name = segment.split(';').next().unwrap_or(segment);
        name == "." || name == ".."
    };
    let is_plain =
        !plain.chars().any(|c| c == '\\' || c.is_control()) && !plain.split('/').any(is_dotted);
    is_plain.then_some(plain)
}

macro_rules! list {
    ($(#[$doc:meta])* $list:ident of $entry:ident, $form:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $list(Rc<[$entry]>);

        impl $list {
            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// What there is.
            pub fn iter(&self) -> impl Iterator<Item = &$entry> {
                self.0.iter()
            }
        }

        impl fmt::Display for $list {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                for entry in self.iter() {
                    write!(f, "{separator}{entry}")?;
                    separator = ", ";
                }
                Ok(())
            }
        }

        impl<'de> Deserialize<'de> for $list {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ListVisitor;

                impl<'de> Visitor<'de> for ListVisitor {
                    type Value = $list;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($form)
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<$list, A::Error> {
                        let mut entries = Vec::new();
                        while let Some(entry) = list.next_element()? {
                            if entries.len() == ENTRIES_MAX {
                                return Err(A::Error::custom(format_args!(
                                    "a list of more than {ENTRIES_MAX} is too long"
                                )));
                            }
                            entries.push(entry);
                        }
                        Ok($list(entries.into()))
                    }
                }

                deserializer.deserialize_seq(ListVisitor)
            }
        }

        impl Serialize for $list {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter().map(ToString::to_string))
            }
        }
    };
}

list!(
    /// Names that lead to a proxy.
    Names of Name, "a list of names, such as [\"www.example.com\", \"*.example.com\"]"
);
list!(
    /// Beginnings of paths that lead to a proxy.
    Paths of PathPrefix, "a list of beginnings of paths, such as [\"/api\"]"
);

/// Proxies that share a listener: each request is compared with all of them, in some nanoseconds each.
pub const SHARING_MAX: usize = 1000;

/// Names or paths of one proxy. Each request is compared with each of its listener's.
const ENTRIES_MAX: usize = 64;

/// The longest beginning of a path: as long as anybody writes by hand.
const PATH_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Owned(Names, Paths);

    impl Owned {
        fn of(hosts: &[&str], paths: &[&str]) -> Self {
            Self(
                serde_json::from_value(hosts.into()).expect("names"),
                serde_json::from_value(paths.into()).expect("paths"),
            )
        }

        fn routes(&self) -> Routes<'_> {
            Routes {
                hosts: &self.0,
                paths: &self.1,
            }
        }
    }

    #[test]
    fn the_closest_name_wins_and_then_the_longest_path() {
        let proxies = [
            Owned::of(&[], &[]),
            Owned::of(&["a.test"], &[]),
            Owned::of(&["*.test"], &[]),
            Owned::of(&["*.b.test"], &[]),
            Owned::of(&["a.test"], &["/api"]),
            Owned::of(&["a.test", "c.test"], &["/api/v2", "/x"]),
            Owned::of(&[], &["/open"]),
        ];
        for (host, path, expected) in [
            (None, "/", 0),
            (Some("z.example"), "/", 0),
            (Some("a.test"), "/", 1),
            (Some("a.test"), "/apis", 1),
            (Some("a.test"), "/open", 1),
            (Some("c.test"), "/", 2),
            (Some("x.b.test"), "/", 3),
            (Some("b.test"), "/", 2),
            (Some("test"), "/", 0),
            (Some("a.test"), "/api", 4),
            (Some("a.test"), "/api/", 4),
            (Some("a.test"), "/api/v1", 4),
            (Some("a.test"), "/api/v2", 5),
            (Some("c.test"), "/x/y", 5),
            (Some("127.0.0.1"), "/open/door", 6),
        ] {
            let host = host.map(|host| host.parse::<Host>().expect("a host"));
            let fits = proxies.iter().enumerate().filter_map(|(index, proxy)| {
                Some((proxy.routes().fit(host.as_ref(), path)?, index))
            });
            let (_, found) = fits.max().expect("one is for everything");
            assert_eq!(found, expected, "{host:?} {path}");
        }
    }

    #[test]
    fn what_leads_to_both_alike_is_a_clash_and_a_name_below_the_others_overlaps() {
        let of = Owned::of;
        for (one, other, clash, overlap) in [
            (of(&[], &[]), of(&[], &[]), true, true),
            (of(&["a.test"], &[]), of(&[], &[]), false, true),
            (of(&["a.test"], &[]), of(&["A.Test."], &[]), true, true),
            (
                of(&["a.test", "b.test"], &[]),
                of(&["c.test", "b.test"], &[]),
                true,
                true,
            ),
            (of(&["a.test"], &[]), of(&["b.test"], &[]), false, false),
            (
                of(&["a.test"], &["/x"]),
                of(&["a.test"], &["/y"]),
                false,
                true,
            ),
            (
                of(&["a.test"], &["/x"]),
                of(&["a.test"], &["/x/"]),
                true,
                true,
            ),
            (of(&["*.test"], &[]), of(&["a.test"], &[]), false, true),
            (of(&["*.test"], &[]), of(&["*.a.test"], &[]), false, true),
            (of(&["*.a.test"], &[]), of(&["a.test"], &[]), false, false),
            (
                of(&["*.a.test"], &[]),
                of(&["*.ba.test"], &[]),
                false,
                false,
            ),
        ] {
            for (one, other) in [(&one, &other), (&other, &one)] {
                let (one, other) = (one.routes(), other.routes());
                assert_eq!(one.clash(&other), clash, "{one} | {other}");
                assert_eq!(one.overlap(&other), overlap, "{one} | {other}");
            }
        }
    }

    #[test]
    fn a_path_has_one_reading_or_none() {
        for (path, plain) in [
            ("/", Some("/")),
            ("/api/x", Some("/api/x")),
            ("/%61pi", Some("/api")),
            ("//api///x", Some("/api/x")),
            ("/%C3%A9", Some("/é")),
            ("/...", Some("/...")),
            ("/.well-known", Some("/.well-known")),
            ("/%2f", None),
            ("/a%2Fb", None),
            ("/..", None),
            ("/a/../b", None),
            ("/a/./b", None),
            ("/%2e%2E/b", None),
            ("/a/..;x/b", None),
            ("/a\\b", None),
            ("/a%5cb", None),
            ("/%00", None),
            ("/%0a", None),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%ff", None),
        ] {
            assert_eq!(plain_path(path).as_deref(), plain, "{path}");
        }
    }

    #[test]
    fn what_is_no_name_or_path_is_refused() {
        for name in [
            "",
            "*",
            "*.",
            "a b",
            "*.127.0.0.1",
            "a/b",
            "http://a",
            "*.*.a",
            "a:80",
        ] {
            assert!(name.parse::<Name>().is_err(), "{name}");
        }
        for path in [
            "", "api", "/a?b", "/a#b", "/%61", "//a", "/a//b", "/../a", "/a/.", "/é", "/a b",
        ] {
            assert!(path.parse::<PathPrefix>().is_err(), "{path}");
        }
        for (path, canonical) in [("/", "/"), ("/api/", "/api"), ("/a/b", "/a/b")] {
            assert_eq!(
                path.parse::<PathPrefix>().expect(path).to_string(),
                canonical
            );
        }
        let long = vec!["a"; ENTRIES_MAX + 1];
        assert!(serde_json::from_value::<Names>(long.into()).is_err());
    }

    proptest! {
        #[test]
        fn an_encoded_path_leads_where_the_plain_one_does(path in "(/[a-z.]{1,4}){1,4}", which in any::<u64>()) {
            let encoded: String = path
                .chars()
                .enumerate()
                .map(|(at, c)| match which >> (at % 64) & 1 {
                    1 if c != '/' => format!("%{:02x}", c as u32),
                    _ => c.to_string(),
                })
                .collect();
            prop_assert_eq!(plain_path(&encoded), plain_path(&path));
        }
    }
}
