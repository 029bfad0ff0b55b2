//! A moment in words: as HTTP writes it in `Date` (RFC 9110 §5.6.7: IMF-fixdate, always in GMT), and as
//! logs do (RFC 3339, in UTC).
//!
//! Pure arithmetic: what time it is, the caller says, as time since the Unix epoch. No time zone, no
//! locale, no leap second (the Unix clock has none either).

use std::{fmt, time::Duration};

/// A moment, which prints as `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    seconds: u64,
}

impl Date {
    /// The moment `unix` after the Unix epoch; fractions of a second are cut.
    pub fn at(unix: Duration) -> Date {
        Date {
            seconds: unix.as_secs().min(LAST),
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.seconds / DAY;
        let (year, month, day) = civil(days);
        let weekday = WEEKDAYS[(days % 7) as usize];
        let month = MONTHS[month - 1];
        let (hour, minute, second) = of_day(self.seconds);
        write!(
            f,
            "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
        )
    }
}

/// A moment, which prints as `1994-11-06T08:49:37.000000Z`: of fixed width, so that lines sort as they are.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    seconds: u64,
    microseconds: u32,
}

impl Timestamp {
    /// The moment `unix` after the Unix epoch; fractions of a microsecond are cut.
    pub fn at(unix: Duration) -> Timestamp {
        Timestamp {
            seconds: unix.as_secs().min(LAST),
            microseconds: unix.subsec_micros(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.seconds / DAY);
        let (hour, minute, second) = of_day(self.seconds);
        let micros = self.microseconds;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

/// Hour, minute and second.
fn of_day(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Year, month (from 1) and day (from 1) of a day since the Unix epoch, in the Gregorian calendar.
///
/// Counted from 1 March of year 0, so that the leap day ends the year it belongs to: 400 years have
/// 146,097 days whatever else, and the months from March on repeat in groups of five with 153 days.
fn civil(days: u64) -> (u64, usize, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, carry) = match month_from_march {
        from_march @ 0..10 => (from_march + 3, 0),
        from_march => (from_march - 9, 1),
    };
    (400 * era + year_of_era + carry, month as usize, day)
}

const DAY: u64 = 24 * 60 * 60;

/// The last second of the year 9999: the form has four digits for a year.
const LAST: u64 = 253_402_300_799;

/// From the weekday of the epoch on.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> String {
        Date::at(Duration::from_secs(seconds)).to_string()
    }

    #[test]
    fn known_moments_print_as_they_are_known() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (68_169_599, "Mon, 28 Feb 1972 23:59:59 GMT"),
            (68_169_600, "Tue, 29 Feb 1972 00:00:00 GMT"),
            (68_256_000, "Wed, 01 Mar 1972 00:00:00 GMT"),
            // The example of RFC 9110 §5.6.7.
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (946_684_799, "Fri, 31 Dec 1999 23:59:59 GMT"),
            // 2000 is a leap year, 2100 is none.
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_000_000_000, "Sun, 09 Sep 2001 01:46:40 GMT"),
            (1_234_567_890, "Fri, 13 Feb 2009 23:31:30 GMT"),
            // Past 31 and 32 bits.
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (4_294_967_296, "Sun, 07 Feb 2106 06:28:16 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (LAST + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(date(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn fractions_of_a_second_are_cut() {
        let almost = Duration::from_nanos(784_111_777_999_999_999);
        assert_eq!(
            Date::at(almost),
            Date::at(Duration::from_secs(784_111_777)),
            "a date is never in the future"
        );
    }

    #[test]
    fn a_timestamp_has_microseconds_and_a_fixed_width() {
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (784_111_777_000_000_999, "1994-11-06T08:49:37.000000Z"),
            (951_782_400_000_001_000, "2000-02-29T00:00:00.000001Z"),
            (1_795_663_545_123_456_789, "2026-11-26T03:25:45.123456Z"),
        ] {
            let moment = Timestamp::at(Duration::from_nanos(nanoseconds));
            assert_eq!(moment.to_string(), expected);
        }
        let far = Timestamp::at(Duration::MAX).to_string();
        assert!(far.starts_with("9999-12-31T23:59:59."), "{far}");
    }

    /// Counts days one by one through 700 years by the rule that everybody knows.
    #[test]
    fn every_day_follows_the_one_before() {
        let leaps = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..700 * 365 {
            assert_eq!(civil(days), (year, month, day), "day {days}");
            let length = match month {
                2 if leaps(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
