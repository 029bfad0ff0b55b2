//! Scalars as people write them: addresses, durations, sizes, counts, port ranges.
//!
//! Owns how one value is spelled, on the command line and in JSON alike, and the sentence that says
//! what was wrong with it. It does not know which flag or field the value belongs to: whoever read
//! it adds that. The JSON side runs each check inside `Deserialize`, so that the reader of the file
//! still knows where it stood when a value is refused.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// Why a value was refused: one sentence that quotes what was wrong and names the accepted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    /// A refusal with its reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// A value that is written as one string wherever it occurs.
pub trait Text: FromStr<Err = Invalid> {
    /// What is accepted, to follow "expected": `"a client id"`.
    const FORM: &'static str;
}

/// Makes a [`FromStr`] type a [`Text`] that JSON holds as a string.
macro_rules! impl_text {
    ($type:ty, $form:expr) => {
        impl $crate::config::value::Text for $type {
            const FORM: &'static str = $form;
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::config::value::from_text(deserializer)
            }
        }
    };
}
pub(crate) use impl_text;

/// Reads a string and parses it on the spot.
///
/// # Errors
/// It is no string, or [`FromStr`] refuses it.
pub fn from_text<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct TextVisitor<T>(PhantomData<T>);

    impl<T: Text> Visitor<'_> for TextVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::FORM)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(TextVisitor(PhantomData))
}

/// An address to listen on, `ADDR:PORT`. Names are refused: which of its addresses would be meant?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.parse().map(Self).map_err(|_| {
            Invalid::new(format!(
                "{text:?} is not ADDR:PORT, such as 127.0.0.1:7000 or [::1]:7000 (names are not looked up)"
            ))
        })
    }
}

impl_text!(Address, "a string ADDR:PORT, such as \"127.0.0.1:7000\"");

/// A local address to bind to, an IP literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind(pub IpAddr);

impl Bind {
    /// Reads BIND as it stands in a SPEC, where an IPv6 address needs its brackets.
    ///
    /// # Errors
    /// It is not an IP literal.
    pub fn bracketed(text: &str) -> Result<IpAddr, Invalid> {
        if text == "*" {
            return Err(Invalid::new(
                "BIND \"*\" is not an address: write 0.0.0.0 or [::] to listen on every one",
            ));
        }
        let address = match text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        address.ok_or_else(|| {
            Invalid::new(format!(
                "BIND {text:?} is not an IP address, such as 127.0.0.1, 0.0.0.0 or [::1]"
            ))
        })
    }
}

impl FromStr for Bind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Alone there is nothing to tell an IPv6 address from, so the brackets may be left out.
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Self(IpAddr::V6(address))),
            Err(_) => Self::bracketed(text).map(Self),
        }
    }
}

impl_text!(Bind, "a string with an IP address, such as \"127.0.0.1\"");

/// Reads a port, 0 included: decimal digits only, where `u16::from_str` would accept a sign.
///
/// # Errors
/// It is not a number from 0 to 65535.
pub fn port(text: &str) -> Result<u16, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| Invalid::new(format!("PORT {text:?} is not a number from 0 to 65535")))
}

/// Reads a port to connect to.
///
/// # Errors
/// It is not a number from 1 to 65535.
pub fn target_port(text: &str) -> Result<u16, Invalid> {
    match port(text) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Invalid::new(format!(
            "PORT {text:?} is not a number from 1 to 65535"
        ))),
    }
}

/// A range of ports, `8000-8100` or just `8000`. Never empty, never holds 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (target_port(first)?, target_port(last)?),
            None => (target_port(text)?, target_port(text)?),
        };
        if first > last {
            return Err(Invalid::new(format!(
                "the range {text:?} ends before it begins"
            )));
        }
        Ok(Self(first..=last))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last {
            write!(f, "{first}")
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

impl_text!(
    PortRange,
    "a string with ports, such as \"1024-65535\" or \"8080\""
);

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
    use super::*;

    fn refusal<T: FromStr<Err = Invalid> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

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

    #[test]
    fn listening_addresses_are_literals_with_a_port() {
        for text in ["127.0.0.1:7000", "0.0.0.0:0", "[::1]:7000", "[::]:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().0.to_string(), text);
        }
        for text in [
            "",
            "7000",
            ":7000",
            "127.0.0.1",
            "localhost:7000",
            "::1:7000",
            "*:7000",
            "127.0.0.1:65536",
        ] {
            assert!(refusal::<Address>(text).contains("ADDR:PORT"), "{text}");
        }
    }

    #[test]
    fn bind_is_an_address_with_brackets_where_ports_follow() {
        assert_eq!("::1".parse::<Bind>(), "[::1]".parse::<Bind>());
        assert_eq!(
            "0.0.0.0".parse::<Bind>().unwrap().0,
            IpAddr::from([0, 0, 0, 0])
        );
        for text in [
            "",
            "localhost",
            "[127.0.0.1]",
            "127.1",
            "[::1",
            "::1]",
            "[::1%lo]",
            "127.0.0.1:80",
        ] {
            assert!(
                refusal::<Bind>(text).contains("is not an IP address"),
                "{text}"
            );
        }
        assert!(refusal::<Bind>("*").contains("write 0.0.0.0 or [::]"));
        assert!(Bind::bracketed("::1").is_err());
    }

    #[test]
    fn ports_are_plain_digits() {
        assert_eq!(port("0"), Ok(0));
        assert_eq!(port("65535"), Ok(65535));
        assert_eq!(target_port("1"), Ok(1));
        for text in ["", "+1", "-1", "65536", "1 ", "0x1", "http", "99999999999"] {
            assert!(port(text).is_err(), "{text}");
            assert!(target_port(text).is_err(), "{text}");
        }
        assert!(
            target_port("0")
                .unwrap_err()
                .to_string()
                .contains("from 1 to 65535")
        );
    }

    #[test]
    fn port_ranges_are_never_empty() {
        for text in ["1-65535", "8000-8100", "8080"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
        for text in [
            "", "-", "1-", "-1", "0", "0-10", "2-1", "1-65536", "1-2-3", "*",
        ] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
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
