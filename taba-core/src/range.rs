//! [`within`]: whether a setting is in its range; [`OutOfRange`]: which one is not.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A setting is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {found} is not from {min} to {max}")]
#[non_exhaustive]
pub struct OutOfRange {
    /// The setting.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// The least that it may be.
    pub min: String,
    /// The most that it may be.
    pub max: String,
}

impl OutOfRange {
    fn check<T: PartialOrd>(
        setting: &'static str,
        found: &T,
        range: &RangeInclusive<T>,
        text: impl Fn(&T) -> String,
    ) -> Result<(), Self> {
        if range.contains(found) {
            return Ok(());
        }
        Err(Self { setting, found: text(found), min: text(range.start()), max: text(range.end()) })
    }
}

/// Checks a number.
///
/// # Errors
/// [`OutOfRange`], which names the setting.
pub fn within<T: Copy + PartialOrd + fmt::Debug>(
    setting: &'static str,
    found: T,
    range: RangeInclusive<T>,
) -> Result<(), OutOfRange> {
    OutOfRange::check(setting, &found, &range, |value| format!("{value:?}"))
}

/// Checks a time.
///
/// # Errors
/// [`OutOfRange`], which names the setting.
pub fn time_within(
    setting: &'static str,
    found: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), OutOfRange> {
    OutOfRange::check(setting, &found, &range, |&time| duration_text(time))
}

/// Writes a time as settings are written, in the largest unit that makes it a whole number: `24h`, `90s`, `5ms`.
fn duration_text(time: Duration) -> String {
    let units = [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];
    let nanos = time.as_nanos();
    match units.into_iter().find(|(_, size)| nanos >= *size && nanos % size == 0) {
        Some((unit, size)) => format!("{}{unit}", nanos / size),
        None if time.is_zero() => "0s".to_owned(),
        None => format!("{time:?}"),
    }
}

/// Checks a size in bytes.
///
/// # Errors
/// [`OutOfRange`], which names the setting.
pub fn bytes_within<T: Copy + PartialOrd + TryInto<u64>>(
    setting: &'static str,
    found: T,
    range: RangeInclusive<T>,
) -> Result<(), OutOfRange> {
    OutOfRange::check(setting, &found, &range, |&bytes| bytes_text(bytes.try_into().unwrap_or(u64::MAX)))
}

/// Writes a size as settings are written, in the largest unit that makes it a whole number: `64MiB`, `1000B`.
pub fn bytes_text(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fits = units.into_iter().find(|(_, size)| bytes >= *size && bytes % size == 0);
    let (unit, size) = fits.unwrap_or(("B", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_largest_unit_that_makes_them_whole() {
        let sizes = [0, 1000, 1 << 10, 1 << 20, 64 << 20, (1 << 20) + 1, 3 << 30].map(bytes_text);
        assert_eq!(sizes, ["0B", "1000B", "1KiB", "1MiB", "64MiB", "1048577B", "3GiB"]);
    }

    #[test]
    fn both_ends_are_in_a_range_and_what_is_out_of_it_is_told_as_it_is_written() {
        assert_eq!(within("workers", 1, 1..=2).and(within("workers", 2, 1..=2)), Ok(()));
        let errors = [
            (within("workers", 3, 1..=2), "workers = 3 is not from 1 to 2"),
            (
                time_within(
                    "linger",
                    Duration::from_secs(90_000),
                    Duration::ZERO..=Duration::from_secs(86_400),
                ),
                "linger = 25h is not from 0s to 24h",
            ),
            (bytes_within("held", 1, 1 << 20..=1 << 30), "held = 1B is not from 1MiB to 1GiB"),
        ];
        for (error, text) in errors {
            assert_eq!(error.unwrap_err().to_string(), text);
        }
    }
}
