//! Times in queries and answers.

use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;
use serde::Serializer;
use taba_core::Timestamp;

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
/// The first second of the year 0, in seconds since the Unix epoch.
const EPOCH_OF_YEAR_0: i64 = -62_167_219_200;

/// The last second of the year 9999, the last that RFC 3339 can write; later times in seconds are surely milliseconds
/// or microseconds.
const SECONDS_MAX: i64 = 253_402_300_799;
/// The expected form of a time.
pub(super) const WANTED: &str =
    "a time up to the year 9999 is needed: RFC 3339, or seconds (not milliseconds) since the Unix epoch";

/// RFC 3339 in UTC with as many decimals as needed; plain seconds for times outside the calendar.
pub(super) fn show(time: Timestamp) -> String {
    time.to_string()
}

/// RFC 3339 with any offset, or seconds since the Unix epoch with decimals, in the years 0 to 9999.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let micros = match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1e6).round(),
        Err(_) => return calendar(text),
    };
    let range = EPOCH_OF_YEAR_0 as f64 * 1e6..(SECONDS_MAX + 1) as f64 * 1e6;
    range.contains(&micros).then_some(Timestamp::from_micros(micros as i64))
}

/// A date, a time of day and an offset. This library's instants end a day before the year 9999 does, so that any
/// offset can be added; dates do not.
fn calendar(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let (time, offset) = (pieces.time()?, pieces.to_numeric_offset()?);
    let local = pieces.date().to_datetime(time).duration_since(EPOCH);
    let micros = i64::try_from(local.as_micros()).ok()?;
    let micros = micros - i64::from(offset.seconds()) * 1_000_000;
    let is_year = (EPOCH_OF_YEAR_0 * 1_000_000..(SECONDS_MAX + 1) * 1_000_000).contains(&micros);
    is_year.then_some(Timestamp::from_micros(micros))
}

/// As [`show`], for serde.
pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_can_be_written_in_two_ways() {
        let noon = Timestamp::from_micros(1_000_000_000_250_000);
        assert_eq!(parse("2001-09-09T01:46:40.25Z"), Some(noon));
        assert_eq!(parse("2001-09-09T03:46:40.25+02:00"), Some(noon));
        assert_eq!(parse("1000000000.25"), Some(noon));
        assert_eq!(parse("-1.5"), Some(Timestamp::from_micros(-1_500_000)));
        assert_eq!(show(noon), "2001-09-09T01:46:40.25Z");
        let last = Timestamp::from_micros(253_402_300_799_999_999);
        assert_eq!(parse("253402300799"), Some(Timestamp::from_secs(SECONDS_MAX)));
        for text in ["9999-12-31T23:59:59.999999Z", "9999-12-31T22:59:59.999999-01:00"] {
            assert_eq!(parse(text), Some(last), "{text}");
        }
        assert_eq!(show(last), "9999-12-31T23:59:59.999999Z");
        assert_eq!(parse("1795371115000"), None, "milliseconds");
        assert_eq!(parse("9999-12-31T23:59:59-01:00"), None, "that is the year 10000");
        assert_eq!(parse("0000-01-01T00:00:00Z"), Some(Timestamp::from_secs(EPOCH_OF_YEAR_0)));
        assert_eq!(show(Timestamp::from_secs(-1)), "1969-12-31T23:59:59Z");
        assert_eq!(parse("2001-09-09T01:46:40.25[Europe/Berlin]"), None, "an offset is needed");
        for bad in ["", "noon", "NaN", "inf", "1e300", "2001-09-09", "2001-13-09T00:00:00Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(show(Timestamp::MAX), "9223372036854.775807");
    }
}
