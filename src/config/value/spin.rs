//! How long to spin.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer};

use super::{Invalid, size::count_within};

/// How long to look for the next event before sleeping: a whole number of microseconds, bare, on the
/// command line and in JSON alike. 0 sleeps at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spin(pub Duration);

/// The longest [`Spin`], in microseconds. Waking from sleep costs some tens of them; whoever looks for a
/// millisecond in vain has paid for far more than that.
pub const SPIN_MAX: u16 = 1_000;

impl FromStr for Spin {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .filter(|microseconds| *microseconds <= SPIN_MAX)
            .map(Self::microseconds)
            .ok_or_else(|| {
                Invalid::new(format!(
                    "{text:?} is not a number of microseconds from 0 to {SPIN_MAX}"
                ))
            })
    }
}

impl<'de> Deserialize<'de> for Spin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        count_within(deserializer, 0..=usize::from(SPIN_MAX))
            .map(|microseconds| Self::microseconds(microseconds as u16))
    }
}

impl Spin {
    fn microseconds(number: u16) -> Self {
        Self(Duration::from_micros(number.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    fn refusal<T: FromStr<Err = Invalid> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn spins_are_microseconds_up_to_a_thousand() {
        for (text, microseconds) in [("0", 0), ("50", 50), ("007", 7), ("1000", 1_000)] {
            let spin = text.parse::<Spin>().unwrap();
            assert_eq!(spin.0, Duration::from_micros(microseconds));
        }
        for text in [
            "",
            "1001",
            "65536",
            "+1",
            "-1",
            "50us",
            "1.5",
            " 50",
            "٣",
            "99999999999999999999999",
        ] {
            assert!(refusal::<Spin>(text).contains("from 0 to 1000"), "{text}");
        }
        let read = |json: &str| serde_json::from_str::<Spin>(json);
        assert_eq!(read("50").unwrap(), "50".parse().unwrap());
        assert_eq!(read("0").unwrap(), Spin::default());
        for json in ["1001", "-1", "1.5", "\"50\"", "\"50us\"", "null"] {
            let reason = read(json).unwrap_err().to_string();
            assert!(reason.contains("0 to 1000"), "{json}: {reason}");
        }
    }
}
