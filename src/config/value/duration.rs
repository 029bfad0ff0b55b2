//! Times, with a unit.

use std::{fmt, time::Duration};

use serde::{
    Deserializer,
    de::{Error, Visitor},
};

use super::Invalid;

/// The longest time that may be configured. Any point in time plus this stays representable on
/// every platform, so no deadline can overflow; and a longer wait is a slip of the unit.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const DURATION_FORM: &str = "a number with a unit, such as \"500ms\", \"30s\", \"10m\" or \"1h\"";

/// Reads a duration, 0 included: a whole number followed by `ms`, `s`, `m` or `h`.
///
/// # Errors
/// The number or the unit is missing, or it is longer than [`DURATION_MAX`].
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    let refused = || Invalid::new(format!("{text:?} is not {DURATION_FORM}"));
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(refused)?;
    let (number, unit) = text.split_at(unit_at);
    let unit_milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        _ => return Err(refused()),
    };
    if number.is_empty() {
        return Err(refused());
    }
    // What does not fit is digits all the same, so it can only be too long.
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_milliseconds))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| Invalid::new(format!("{text:?} is longer than a year (8760h)")))
}

struct DurationVisitor {
    zero_allowed: bool,
}

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string: {DURATION_FORM}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        let duration = duration(text).map_err(E::custom)?;
        if duration.is_zero() && !self.zero_allowed {
            return Err(E::custom(format_args!(
                "{text:?} leaves no time at all: it must be longer than 0, at least \"1ms\""
            )));
        }
        Ok(duration)
    }
}

/// Deserialises a duration for which 0 makes no sense.
///
/// # Errors
/// As [`duration`], or it is 0.
pub fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor {
        zero_allowed: false,
    })
}

/// Deserialises a duration for which 0 means "do not wait at all".
///
/// # Errors
/// As [`duration`].
pub fn grace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(DurationVisitor { zero_allowed: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, milliseconds) in [
            ("1ms", 1),
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("8760h", 365 * 24 * 3_600_000),
            ("0s", 0),
            ("007s", 7_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "", "s", "30", "30 s", " 30s", "30S", "1.5s", "-1s", "+1s", "30d", "30sec", "s30",
            "1m30s", "٣s",
        ] {
            let reason = duration(text).expect_err(text).to_string();
            assert!(reason.contains("such as \"500ms\""), "{text}: {reason}");
        }
    }

    #[test]
    fn durations_are_bounded_by_a_year() {
        for text in [
            "8761h",
            "525601m",
            "18446744073709551615h",
            "99999999999999999999999s",
        ] {
            let reason = duration(text).expect_err(text).to_string();
            assert!(reason.contains("longer than a year"), "{text}: {reason}");
        }
    }

    #[test]
    fn zero_is_a_duration_only_where_it_has_a_meaning() {
        let read = |text: &str, zero_allowed| {
            DurationVisitor { zero_allowed }.visit_str::<serde_json::Error>(text)
        };
        assert_eq!(read("0ms", true).unwrap(), Duration::ZERO);
        let reason = read("0ms", false).unwrap_err().to_string();
        assert!(reason.contains("longer than 0"), "{reason}");
    }
}
