//! Sizes in bytes, and counts of things.

use std::{fmt, ops::RangeInclusive};

use serde::{
    Deserializer,
    de::{Error, Visitor},
};

use super::Invalid;

/// The largest size that may be configured, in bytes: small enough that sums and small multiples of
/// sizes cannot overflow a `usize`, on 32-bit routers too.
pub const SIZE_MAX: usize = 1 << (if usize::BITS >= 64 { 40 } else { 30 });

const SIZE_FORM: &str = "a number of bytes, or a string such as \"64KiB\", \"4MiB\" or \"1GiB\"";

const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a size in bytes: digits, alone or followed by `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// It has another form, or does not fit 64 bits.
pub fn size(text: &str) -> Result<u64, Invalid> {
    let (number, unit) = SIZE_UNITS
        .iter()
        .find_map(|(word, unit)| Some((text.strip_suffix(word)?, *unit)))
        .unwrap_or((text, 1));
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(Invalid::new(format!("{text:?} is not {SIZE_FORM}")));
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| Invalid::new(format!("{text:?} is too large a size")))
}

/// Writes a size in the largest unit that divides it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS
            .iter()
            .find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit))
        {
            Some((word, unit)) => write!(f, "{}{word}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

struct SizeVisitor {
    accepted: RangeInclusive<usize>,
}

impl Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIZE_FORM)
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
        within(bytes, &self.accepted).ok_or_else(|| {
            E::custom(format_args!(
                "a size of {} is outside {} to {}",
                Size(bytes),
                Size(*self.accepted.start() as u64),
                Size(*self.accepted.end() as u64),
            ))
        })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        self.visit_u64(size(text).map_err(E::custom)?)
    }
}

/// Deserialises a size in bytes, a number or a string, that must lie in `accepted`.
///
/// # Errors
/// It has another form, or lies outside.
pub fn size_within<'de, D: Deserializer<'de>>(
    deserializer: D,
    accepted: RangeInclusive<usize>,
) -> Result<usize, D::Error> {
    deserializer.deserialize_any(SizeVisitor { accepted })
}

struct CountVisitor {
    accepted: RangeInclusive<usize>,
}

impl Visitor<'_> for CountVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a whole number from {} to {}",
            self.accepted.start(),
            self.accepted.end()
        )
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<usize, E> {
        within(count, &self.accepted).ok_or_else(|| {
            E::custom(format_args!(
                "{count} is outside {} to {}",
                self.accepted.start(),
                self.accepted.end(),
            ))
        })
    }
}

/// Deserialises a number of things that must lie in `accepted`.
///
/// # Errors
/// It is no whole number, or lies outside.
pub fn count_within<'de, D: Deserializer<'de>>(
    deserializer: D,
    accepted: RangeInclusive<usize>,
) -> Result<usize, D::Error> {
    deserializer.deserialize_u64(CountVisitor { accepted })
}

fn within(number: u64, accepted: &RangeInclusive<usize>) -> Option<usize> {
    usize::try_from(number)
        .ok()
        .filter(|number| accepted.contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("64KiB", 64 << 10),
            ("4MiB", 4 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "KiB", "64kib", "64KB", "64K", "64 KiB", "-1", "+1", "1.5MiB", "0x10", "1B",
        ] {
            let reason = size(text).expect_err(text).to_string();
            assert!(reason.contains("such as \"64KiB\""), "{text}: {reason}");
        }
        for text in ["99999999999999999999", "18446744073709551615KiB"] {
            let reason = size(text).expect_err(text).to_string();
            assert!(reason.contains("too large"), "{text}: {reason}");
        }
    }

    #[test]
    fn sizes_and_counts_name_their_bounds() {
        let read = |json: &str| {
            let mut json = serde_json::Deserializer::from_str(json);
            size_within(&mut json, 1 << 20..=1 << 30).map_err(|error| error.to_string())
        };
        assert_eq!(read("1048576"), Ok(1 << 20));
        assert_eq!(read("\"2MiB\""), Ok(2 << 20));
        assert!(
            read("1048575")
                .unwrap_err()
                .contains("1048575 bytes is outside 1MiB to 1GiB")
        );
        assert!(
            read("\"1KiB\"")
                .unwrap_err()
                .contains("1KiB is outside 1MiB")
        );
        for json in ["-1", "1.5", "null", "true", "[]", "{}"] {
            let reason = read(json).unwrap_err();
            assert!(
                reason.contains("expected a number of bytes"),
                "{json}: {reason}"
            );
        }

        let count = |json: &str| {
            let mut json = serde_json::Deserializer::from_str(json);
            count_within(&mut json, 1..=100).map_err(|error| error.to_string())
        };
        assert_eq!(count("100"), Ok(100));
        assert!(count("0").unwrap_err().contains("0 is outside 1 to 100"));
        assert!(count("101").unwrap_err().contains("outside 1 to 100"));
        assert!(
            count("18446744073709551615")
                .unwrap_err()
                .contains("outside 1 to 100")
        );
        assert!(
            count("\"5\"")
                .unwrap_err()
                .contains("expected a whole number from 1 to 100")
        );
    }
}
