//! [`copy`]: streams a Server's JSON, made safe for its readers.

use std::io::{BufRead, Write};

use serde_json::Value;
use taba_core::printable;

use crate::error::CliError;

/// The largest integer up to which every integer is an exact double, as many JSON readers have.
const EXACT_MAX: u128 = 1 << 53;

/// Copies an answer to standard output, and returns its last object.
///
/// # Cost
/// One line at a time: a row of an answer.
pub(crate) fn copy(mut answer: impl BufRead) -> Result<Value, CliError> {
    let mut out = std::io::stdout().lock();
    let (mut line, mut last) = (Vec::new(), String::new());
    loop {
        line.clear();
        answer.read_until(b'\n', &mut line).map_err(|source| CliError::BrokeOff { source })?;
        if line.is_empty() {
            break;
        }
        last = String::from_utf8_lossy(&line).into_owned();
        out.write_all(plain(&last).as_bytes())?;
    }
    out.flush()?;
    let last = last.trim();
    let end = last.strip_prefix("],").map_or_else(|| last.to_owned(), |end| format!("{{{end}"));
    serde_json::from_str(&end).map_err(|source| CliError::Unreadable { source })
}

/// A line of JSON in which integers beyond 2^53 are strings, -0 is 0, and control characters are escaped.
pub(crate) fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' => text(rest, &mut out),
            '-' | '0'..='9' => number(rest, &mut out),
            _ => {
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// Copies a string; returns its length in bytes.
fn text(rest: &str, out: &mut String) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else if printable(c.encode_utf8(&mut [0; 4])).starts_with('\\') {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
        if c == '"' && at > 0 && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    rest.len()
}

/// Copies a number; returns its length in bytes.
fn number(rest: &str, out: &mut String) -> usize {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let number = &rest[..end];
    let is_large = number.trim_start_matches('-').parse::<u128>().is_ok_and(|size| size > EXACT_MAX);
    match number {
        "-0" | "-0.0" => out.push_str(number.trim_start_matches('-')),
        _ if is_large => out.push_str(&format!("\"{number}\"")),
        _ => out.push_str(number),
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_would_get_wrong_is_written_so_that_they_do_not() {
        for (line, is) in [
            (r#"{"a":-0.0,"b":[0.0,-0,1e300]}"#, r#"{"a":0.0,"b":[0.0,0,1e300]}"#),
            (
                r#"{"a":9007199254740993,"b":9007199254740992}"#,
                r#"{"a":"9007199254740993","b":9007199254740992}"#,
            ),
            (
                r#"{"9007199254740993 -0.0 \" \\":-9007199254740993}"#,
                r#"{"9007199254740993 -0.0 \" \\":"-9007199254740993"}"#,
            ),
            ("{\"a\":\"é \u{9b}31m \u{202e}\u{61c}\"}", "{\"a\":\"é \\u009b31m \\u202e\\u061c\"}"),
            ("],\"complete\":true}\n", "],\"complete\":true}\n"),
        ] {
            assert_eq!(plain(line), is);
        }
    }
}
