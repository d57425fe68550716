//! Times and sizes in settings: `200ms`, `10s`, `1h 30m`; `65536`, `512KiB`, `64MiB`. Parsed by jiff (its *friendly*
//! format) and parse-size, exactly; the text written here parses to the same value.

use std::time::Duration;

use jiff::SignedDuration;

pub use taba_core::bytes_text;

/// A time or a size in a wrong format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write {0}")]
pub struct UnitError(&'static str);

const TIME: UnitError = UnitError("a time as 20ms, 10s, 5m or 1h");
const SIZE: UnitError = UnitError("a size as 65536, 512KiB, 64MiB or 1GiB");

/// Parses a time: numbers with `ms`, `s`, `m` or `h`; `0` needs no unit.
///
/// # Errors
/// When the format is wrong, or the time is negative or too long.
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    // Otherwise `-5s` and `5s ago` would parse, and a number without a unit would get a confusing message.
    let time: SignedDuration = text.parse().map_err(|_| TIME)?;
    time.try_into().map_err(|_| TIME)
}

/// Parses a size in bytes: a number, optionally with `KiB`, `MiB`, `GiB` (powers of 1024), or `KB`, `MB`, `GB`
/// (powers of 1000).
///
/// # Errors
/// When the format is wrong, or the size too large.
pub fn parse_bytes<T: TryFrom<u64>>(text: &str) -> Result<T, UnitError> {
    parse_size::parse_size(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(SIZE)
}

/// Formats a time for [`parse_time`]: `1h 30m`.
pub fn time_text(time: Duration) -> String {
    // A time beyond this range exceeds every setting's maximum.
    format!("{:#}", SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_come_back() {
        for text in ["0B", "1B", "1023B", "1KiB", "1536KiB", "64MiB", "1GiB", "18446744073709551615B"] {
            assert_eq!(bytes_text(parse_bytes(text).unwrap()), text);
        }
        for text in ["20ms", "1s", "1m 30s", "5m", "1h", "1h 30m", "1µs"] {
            assert_eq!(time_text(parse_time(text).unwrap()), text);
        }
        assert_eq!(parse_time(&time_text(Duration::ZERO)), Ok(Duration::ZERO));
    }

    #[test]
    fn what_people_write_is_read() {
        for (text, bytes) in
            [("77", 77), ("512 KiB", 512 << 10), ("64MiB", 64 << 20), ("1.5KiB", 1536), ("2MB", 2_000_000)]
        {
            assert_eq!(parse_bytes::<u64>(text), Ok(bytes), "{text}");
        }
        for (text, ms) in
            [("0", 0), ("0s", 0), ("90s", 90_000), ("20 ms", 20), ("1h30m", 5_400_000), ("1.5s", 1500)]
        {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "x", "5 elephants", "-1", "99999999999999999999", "18446744073709551615GiB"] {
            assert_eq!(parse_bytes::<u64>(text), Err(SIZE), "{text}");
        }
        assert_eq!(parse_bytes::<u16>("64KiB"), Err(SIZE));
        for text in ["", "10", "-1s", "1s ago", "1d", "soon", "99999999999999999999h"] {
            assert_eq!(parse_time(text), Err(TIME), "{text}");
        }
    }
}
