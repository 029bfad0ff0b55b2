//! A name and a password in a request (RFC 7617).
//!
//! Owns how they are written. It does not know whose they must be.

use super::{fields::Fields, request::Request};
use crate::base64;

/// What a request presents in the field that was asked about.
#[derive(Debug)]
pub enum Presented {
    /// No such field.
    Nothing,
    /// A name and a password, for somebody to check.
    Credentials(Credentials),
    /// Another scheme, or none that can be read.
    Other,
    /// The field more than once: two readers could take two of them.
    Twice,
}

/// A name and a password. Debug-prints without them.
pub struct Credentials {
    decoded: Vec<u8>,
    /// Where the name ends.
    colon: usize,
}

impl Credentials {
    /// Who it is said to be.
    pub fn name(&self) -> &[u8] {
        &self.decoded[..self.colon]
    }

    /// What is to prove it.
    pub fn password(&self) -> &[u8] {
        &self.decoded[self.colon + 1..]
    }

    /// The value of one field: `Basic`, spaces, and `name:password` in base64, of which the name has no
    /// colon.
    fn read(value: &[u8]) -> Option<Self> {
        let space = value.iter().position(|&byte| byte == b' ')?;
        let (scheme, rest) = value.split_at(space);
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let decoded = base64::decode(rest.trim_ascii_start())?;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        Some(Self { decoded, colon })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Request<'_> {
    /// What the field `name`, which is `authorization` or `proxy-authorization`, presents.
    pub fn presented(&self, name: &str) -> Presented {
        presented(&self.fields, name)
    }
}

fn presented(fields: &Fields<'_>, name: &str) -> Presented {
    let mut values = fields.values(name);
    match (values.next(), values.next()) {
        (None, _) => Presented::Nothing,
        (Some(_), Some(_)) => Presented::Twice,
        (Some(value), None) => {
            Credentials::read(value).map_or(Presented::Other, Presented::Credentials)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadLimits;

    fn presented(fields: &str) -> Presented {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let request = Request::parse(head.as_bytes(), &HeadLimits::default()).expect(fields);
        request.presented("authorization")
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        for value in [
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "bASIC   QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ] {
            match presented(&format!("authorization: {value}\r\n")) {
                Presented::Credentials(credentials) => {
                    assert_eq!(credentials.name(), b"Aladdin");
                    assert_eq!(credentials.password(), b"open sesame");
                    assert_eq!(format!("{credentials:?}"), "Credentials(..)");
                }
                other => panic!("{value}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_first_colon_ends_the_name() {
        let both = |text: &str| {
            let value = base64::encode(text.as_bytes());
            match presented(&format!("Authorization: Basic {value}\r\n")) {
                Presented::Credentials(both) => (both.name().to_vec(), both.password().to_vec()),
                other => panic!("{text}: {other:?}"),
            }
        };
        assert_eq!(both("a:b:c"), (b"a".to_vec(), b"b:c".to_vec()));
        assert_eq!(both(":"), (vec![], vec![]));
        assert_eq!(both("::"), (vec![], b":".to_vec()));
    }

    #[test]
    fn what_is_no_name_and_password_is_something_else() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic YQ==",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "Basic\tYTpi",
            "Basic YTpi, Basic YTpi",
            "BasicYTpi",
            "Basic\u{a0}YTpi",
            "Bearer YTpi",
            "Negotiate YTpi",
        ] {
            let other = presented(&format!("Authorization: {value}\r\n"));
            assert!(matches!(other, Presented::Other), "{value}: {other:?}");
        }
        assert!(matches!(presented(""), Presented::Nothing));
        assert!(matches!(
            presented("Proxy-Authorization: Basic YTpi\r\n"),
            Presented::Nothing
        ));
    }

    #[test]
    fn a_field_that_comes_twice_is_nobodys() {
        for second in ["Basic YTpi", "Bearer x", ""] {
            let fields = format!("Authorization: Basic YTpi\r\nauthorization: {second}\r\n");
            assert!(matches!(presented(&fields), Presented::Twice), "{second}");
        }
    }
}
