//! Times as readers write and read them.

use serde::Serializer;
use taba_core::Timestamp;

/// RFC 3339 in UTC with as many decimals as needed; plain seconds for times that no calendar has.
pub(super) fn show(time: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.as_micros()) {
        Ok(calendar) => calendar.to_string(),
        Err(_) => time.as_secs_f64().to_string(),
    }
}

/// RFC 3339 with any offset, or seconds since the Unix epoch with decimals.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(calendar) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_micros(calendar.as_microsecond()));
    }
    let micros = (text.parse::<f64>().ok()? * 1e6).round();
    // The bound itself is 2^63, which is no i64.
    (micros.abs() < i64::MAX as f64).then_some(Timestamp::from_micros(micros as i64))
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
        for bad in ["", "noon", "NaN", "inf", "1e300", "2001-09-09", "2001-13-09T00:00:00Z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(show(Timestamp::MAX), "9223372036854.775");
    }
}
