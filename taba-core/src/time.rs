//! [`Timestamp`]: when an event happened. This crate has no clock; times come with events or as arguments.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since the Unix epoch; negative before 1970.
///
/// Leap seconds do not exist here, as in Unix time. The range is about ±292,000 years. Adding and subtracting a
/// [`Duration`] rounds that down to microseconds, and saturates at the ends of the range.
///
/// # Examples
/// ```
/// use std::time::{Duration, SystemTime};
/// use taba_core::Timestamp;
///
/// let time = Timestamp::from_secs(1_000_000_000) + Duration::from_millis(250);
/// assert_eq!(time.to_string(), "2001-09-09T01:46:40.25Z");
/// assert_eq!(Timestamp::from(SystemTime::UNIX_EPOCH), Timestamp::from_secs(0));
/// assert_eq!(SystemTime::from(time), SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_250));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment that can be told.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// A moment given in microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// A moment given in whole seconds since the Unix epoch; saturates at the ends of the range.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, rounded to the nearest `f64`.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This moment, `by` later; saturates at the ends of the range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This moment, `by` earlier; saturates at the ends of the range.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// How long after `earlier` this moment lies; zero if it does not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).try_into().unwrap_or(0))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        self.saturating_add(by)
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        self.saturating_sub(by)
    }
}

impl SubAssign<Duration> for Timestamp {
    fn sub_assign(&mut self, by: Duration) {
        *self = *self - by;
    }
}

impl From<SystemTime> for Timestamp {
    /// The same moment, rounded down to a microsecond; saturates at the ends of the range.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(micros(after)),
            Err(before) => {
                let nanos = before.duration().as_nanos();
                Self(i64::try_from(nanos.div_ceil(1000)).map_or(i64::MIN, |micros| -micros))
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    /// The same moment. On a system whose times have a shorter range (Windows: 1601 to 30828), the year 1601 for what
    /// lies before, and 9999 for what lies behind.
    fn from(time: Timestamp) -> Self {
        let since = Duration::from_micros(time.0.unsigned_abs());
        let end = |secs| Duration::from_secs(secs);
        match time.0 {
            0.. => UNIX_EPOCH.checked_add(since).unwrap_or_else(|| UNIX_EPOCH + end(253_402_300_799)),
            ..0 => UNIX_EPOCH.checked_sub(since).unwrap_or_else(|| UNIX_EPOCH - end(11_644_473_600)),
        }
    }
}

/// RFC 3339 in UTC, with as many decimals as needed; outside of the years 0 to 9999, which that cannot tell, the seconds
/// since the Unix epoch.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_SECS: i64 = 86_400;
        let (secs, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (year, month, day) = civil(secs.div_euclid(DAY_SECS));
        let fraction = match micros {
            0 => String::new(),
            micros => format!(".{micros:06}").trim_end_matches('0').to_owned(),
        };
        if !(0..=9999).contains(&year) {
            let sign = if self.0 < 0 { "-" } else { "" };
            let (secs, micros) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
            return f.pad(format!("{sign}{secs}.{micros:06}").trim_end_matches('0').trim_end_matches('.'));
        }
        let second = secs.rem_euclid(DAY_SECS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        f.pad(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
    }
}

/// Year, month and day of the Gregorian calendar, by the days since 1970-01-01: H. Hinnant, *chrono-Compatible Low-Level
/// Date Algorithms* (2014), `civil_from_days`.
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + (month <= 2) as i64;
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_shown_by_the_calendar() {
        let shown = |micros| Timestamp::from_micros(micros).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1_614_834_367_000_000), "2021-03-04T05:06:07Z");
        assert_eq!(shown(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(shown(951_782_400_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(shown(253_402_300_799_999_999), "9999-12-31T23:59:59.999999Z");
        assert_eq!(shown(253_402_300_800_000_000), "253402300800");
        assert_eq!(shown(-62_167_219_200_000_000), "0000-01-01T00:00:00Z");
        assert_eq!(shown(-62_167_219_200_000_001), "-62167219200.000001");
        assert_eq!(shown(i64::MIN), "-9223372036854.775808");
        assert_eq!(format!("{:>22}", Timestamp::from_secs(0)), "  1970-01-01T00:00:00Z");
    }

    #[test]
    fn nanoseconds_are_rounded_down() {
        assert_eq!(Timestamp::from(UNIX_EPOCH + Duration::from_nanos(1999)).as_micros(), 1);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_nanos(1)).as_micros(), -1);
        let mut time = Timestamp::from_secs(1);
        time += Duration::from_secs(2);
        time -= Duration::from_micros(1);
        assert_eq!(time.as_micros(), 2_999_999);
        assert_eq!(time.as_secs_f64(), 2.999_999);
        assert_eq!(time.since(Timestamp::from_secs(1)), Duration::from_micros(1_999_999));
        assert_eq!(Timestamp::from_secs(1).since(time), Duration::ZERO);
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::MIN - Duration::MAX, Timestamp::MIN);
    }

    proptest! {
        #[test]
        #[cfg(unix)]
        fn the_system_has_the_same_times(micros: i64) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }

        #[test]
        fn each_day_follows_the_one_before(day in -719_528_i64..2_932_896) {
            let (before, after) = (civil(day - 1), civil(day));
            let next = match before {
                (year, month, _) if after.2 == 1 => if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) },
                (year, month, day) => (year, month, day + 1),
            };
            prop_assert_eq!(after, next);
        }
    }
}
