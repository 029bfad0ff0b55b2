//! What the upgrade says besides what it must: fields that a proxy or a CDN in front of the server asks for.
//!
//! Owns which fields may be added, and that the whole request stays within what a server reads of it. The
//! values may be secrets and are printed nowhere.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{
    host::{Host, split_outside_brackets},
    value::{self, Invalid, impl_text},
};

/// Fields of the upgrade, in the order in which they were written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UpgradeFields(Vec<(Box<str>, Box<str>)>);

/// All of them together, as sent. A server reads 4 KiB: with the longest path and the longest name, what
/// the upgrade itself says takes less than half of it.
const BYTES_MAX: usize = 2048;

/// As many as are of use, well within the 64 that a server takes.
const FIELDS_MAX: usize = 32;

/// What the upgrade says itself, or what is between two neighbours (RFC 9110 §7.6.1).
const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// As [`OURS`], by how they begin.
const OURS_PREFIXES: [&str; 3] = ["proxy-", "sec-websocket-", "siding-"];

impl UpgradeFields {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn push(&mut self, name: &str, value: &str) -> Result<(), Invalid> {
        let refused = |why: &str| Err(Invalid::new(format!("the field {name:?} {why}")));
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return refused("has a name that is no token: letters, digits and '-'");
        }
        let lower = name.to_ascii_lowercase();
        if lower == "host" {
            return refused("is not for here: write it as the field host of the client");
        }
        if OURS.contains(&&*lower) || OURS_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
            return refused("is what the upgrade itself says, or is between two neighbours");
        }
        let is_text = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
        if !value.bytes().all(is_text) || value.trim_ascii() != value {
            return refused("has a value that is not visible ASCII without blanks around it");
        }
        if self
            .0
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            return refused("stands there twice");
        }
        self.0.push((name.into(), value.into()));
        let bytes: usize = self
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        if self.0.len() > FIELDS_MAX || bytes > BYTES_MAX {
            return refused("is too much: at most 32 fields and 2048 bytes in all");
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for UpgradeFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = UpgradeFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings, such as { \"X-Edge\": \"1\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UpgradeFields, A::Error> {
                let mut fields = UpgradeFields::default();
                while let Some(name) = map.next_key::<String>()? {
                    let value: String = map.next_value()?;
                    fields.push(&name, &value).map_err(A::Error::custom)?;
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl fmt::Debug for UpgradeFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

/// What the upgrade says as `Host`: a name, and the port if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostField {
    host: Host,
    port: Option<u16>,
}

impl FromStr for HostField {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match split_outside_brackets(text)?.as_slice() {
            [host] => Ok(Self {
                host: host.parse()?,
                port: None,
            }),
            [host, port] => Ok(Self {
                host: host.parse()?,
                port: Some(value::target_port(port)?),
            }),
            _ => Err(Invalid::new(format!(
                "{text:?} is not NAME[:PORT], such as edge.example.com (IPv6 addresses in brackets)"
            ))),
        }
    }
}

impl fmt::Display for HostField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl_text!(HostField, "a name, such as \"edge.example.com\"");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<UpgradeFields, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_kept_in_their_order_and_their_values_are_not_printed() {
        let fields = read(r#"{ "X-Edge": "1", "Authorization": "Bearer secret", "a": "" }"#);
        let fields = fields.unwrap();
        let listed: Vec<_> = fields.iter().collect();
        assert_eq!(
            listed,
            [
                ("X-Edge", "1"),
                ("Authorization", "Bearer secret"),
                ("a", "")
            ]
        );
        assert_eq!(format!("{fields:?}"), r#"["X-Edge", "Authorization", "a"]"#);
    }

    #[test]
    fn what_the_upgrade_says_itself_or_could_be_read_in_two_ways_is_refused() {
        for (name, value, expected) in [
            ("", "1", "no token"),
            ("a b", "1", "no token"),
            ("a:", "1", "no token"),
            ("a\\r\\nb", "1", "no token"),
            ("\u{e9}", "1", "no token"),
            ("hOST", "a", "as the field host"),
            ("Connection", "close", "itself says"),
            ("upgrade", "h2c", "itself says"),
            ("Transfer-Encoding", "chunked", "itself says"),
            ("Content-Length", "1", "itself says"),
            ("TE", "trailers", "itself says"),
            ("Proxy-Authorization", "Basic x", "itself says"),
            ("Sec-WebSocket-Key", "x", "itself says"),
            ("SEC-WEBSOCKET-EXTENSIONS", "x", "itself says"),
            ("Siding-Nonce", "00", "itself says"),
            ("a", "secret\\r\\nb: c", "visible ASCII"),
            ("a", "secret\\n", "visible ASCII"),
            ("a", " secret", "visible ASCII"),
            ("a", "secret\u{e9}", "visible ASCII"),
            ("a", "secret\\u0000", "visible ASCII"),
        ] {
            let reason = read(&format!(r#"{{ "{name}": "{value}" }}"#)).unwrap_err();
            assert!(reason.contains(expected), "{name}: {reason}");
            assert!(!reason.contains("secret"), "{reason}");
        }
        assert!(
            read(r#"{ "a": "1", "A": "2" }"#)
                .unwrap_err()
                .contains("twice")
        );
        for json in ["[]", "\"a\"", "1", "{ \"a\": 1 }", "{ \"a\": [\"1\"] }"] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_upgrade_stays_within_what_a_server_reads() {
        let value = "x".repeat(BYTES_MAX - 5);
        assert!(read(&format!(r#"{{ "a": "{value}" }}"#)).is_ok());
        let reason = read(&format!(r#"{{ "a": "{value}x" }}"#)).unwrap_err();
        assert!(reason.contains("too much"), "{reason}");
        let many: Vec<_> = (0..=FIELDS_MAX).map(|n| format!(r#""a{n}": """#)).collect();
        assert!(read(&format!("{{ {} }}", many[1..].join(","))).is_ok());
        assert!(read(&format!("{{ {} }}", many.join(","))).is_err());
    }

    #[test]
    fn a_host_field_is_a_name_with_or_without_a_port() {
        for (text, printed) in [
            ("Edge.Example.", "edge.example"),
            ("edge.example:8443", "edge.example:8443"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let field: HostField = text.parse().unwrap();
            assert_eq!(field.to_string(), printed);
            assert_eq!(printed.parse(), Ok(field));
        }
        for text in ["", "a:b:c", "a:0", "a b", "a\r\nX: y", "http://a", "::1"] {
            assert!(text.parse::<HostField>().is_err(), "{text:?}");
        }
    }
}
