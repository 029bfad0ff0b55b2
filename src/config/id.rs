//! The name of a client.

use std::{fmt, rc::Rc, str::FromStr};

use super::value::{Invalid, impl_text};

/// What a client is called: 1 to [`ClientId::BYTES_MAX`] of `A-Z a-z 0-9 . _ -`. Case counts.
///
/// Shared, so that every stream may hold its client's name for the price of a pointer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Rc<str>);

impl ClientId {
    /// The longest id. It is part of every proxy id and log line, and of a label in metrics.
    pub const BYTES_MAX: usize = 64;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, shared.
    pub fn shared(&self) -> Rc<str> {
        self.0.clone()
    }
}

impl FromStr for ClientId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let accepted = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > Self::BYTES_MAX || !text.bytes().all(accepted) {
            return Err(Invalid::new(format!(
                "{text:?} is not a client id: 1 to {} letters, digits, '.', '_' or '-'",
                Self::BYTES_MAX,
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl_text!(
    ClientId,
    "a client id: 1 to 64 letters, digits, '.', '_' or '-'",
    Serialize
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_plain() {
        for text in ["a", "edge-1", "Edge_1.lab", "0", "-", "..", &"x".repeat(64)] {
            assert_eq!(text.parse::<ClientId>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "a b",
            "a/b",
            "a=b",
            "a:b",
            "é",
            "a\n",
            "a\0",
            &"x".repeat(65),
        ] {
            let reason = text.parse::<ClientId>().expect_err(text).to_string();
            assert!(reason.contains("1 to 64"), "{text}: {reason}");
        }
    }

    #[test]
    fn ids_travel_as_json_strings() {
        let id: ClientId = serde_json::from_str("\"edge-1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"edge-1\"");
        assert!(serde_json::from_str::<ClientId>("\"edge 1\"").is_err());
        assert!(serde_json::from_str::<ClientId>("1").is_err());
    }
}
