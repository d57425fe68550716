//! Numbers and times for people.

use serde_json::Value;
use taba_core::printable;

/// An integer in groups of three digits: `1,234,567`.
pub(crate) fn whole(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its significant decimals: `1,234.5`, `3.25`, `0.00123`.
pub(crate) fn decimal(number: f64) -> String {
    let size = number.abs();
    // Every integer up to 2^53 is an exact double.
    if !(1e-4..=9_007_199_254_740_992.0).contains(&size) && number != 0.0 {
        return format!("{number:.3e}");
    }
    let decimals = match size {
        size if size >= 1000.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 4,
        _ => 6,
    };
    let text = format!("{number:.decimals$}");
    let (before, after) = text.split_once('.').unwrap_or((&text, ""));
    let after = after.trim_end_matches('0');
    let sign = if number < 0.0 && before.starts_with('-') { "-" } else { "" };
    let before = whole(before.trim_start_matches('-').parse().unwrap_or(0));
    if after.is_empty() { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") }
}

/// Any plain value.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text).into_owned(),
        Value::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(number), _) => whole(number),
            (None, Some(number)) => decimal(number),
            (None, None) => number.to_string(),
        },
        other => printable(&other.to_string()).into_owned(),
    }
}

/// Seconds since 1970 as UTC, to the millisecond.
pub(crate) fn time(seconds: f64) -> String {
    let millis = (seconds * 1e3).round();
    match jiff::Timestamp::from_millisecond(millis as i64) {
        Ok(time) => time.to_string(),
        Err(_) => decimal(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (1234.0, "1,234"),
            (-1_234_567.891, "-1,234,567.9"),
            (3.25, "3.25"),
            (-0.5, "-0.5"),
            (0.001_234, "0.001234"),
            (0.000_012_34, "1.234e-5"),
            (1_234_567_890_123_456.0, "1,234,567,890,123,456"),
            (9_007_199_254_740_992.0, "9,007,199,254,740,992"),
            (1e18, "1.000e18"),
            (999.999, "1,000"),
        ];
        for (number, text) in cases {
            assert_eq!(decimal(number), text, "{number}");
        }
        assert_eq!(whole(-1_000), "-1,000");
        assert_eq!(whole(100), "100");
        assert_eq!(time(1e9 + 0.25), "2001-09-09T01:46:40.25Z");
    }
}
