//! Values as text for people.

use std::fmt::Write;

use serde_json::Value;
use taba_core::{TabName, number_text, printable};

/// Writes a value below its heading: an object of plain values on one line, anything else one line each.
pub(super) fn write_value(value: &Value, indent: usize, out: &mut String) {
    let Value::Object(fields) = value else {
        let _ = writeln!(out, "{:indent$}{}", "", scalar(value));
        return;
    };
    let plain: Vec<_> = fields.iter().filter(|(_, value)| !value.is_object()).collect();
    if !plain.is_empty() {
        let words: Vec<String> =
            plain.iter().map(|(key, value)| format!("{} {}", printable(key), scalar(value))).collect();
        let _ = writeln!(out, "{:indent$}{}", "", words.join(", "));
    }
    for (key, value) in fields.iter().filter(|(_, value)| value.is_object()) {
        match value.as_object() {
            Some(inner) if inner.is_empty() => {}
            Some(inner) if inner.values().all(|value| !value.is_object()) => {
                let words: Vec<String> = inner
                    .iter()
                    .map(|(key, value)| format!("{} {}", printable(key), scalar(value)))
                    .collect();
                let _ = writeln!(out, "{:indent$}{}: {}", "", printable(key), words.join(", "));
            }
            _ => {
                let _ = writeln!(out, "{:indent$}{}:", "", printable(key));
                write_value(value, indent + 2, out);
            }
        }
    }
}

/// A name for people: the texts of its labels, without control characters.
pub(super) fn shown(name: &str) -> String {
    let text = TabName::new(name).map(|name| name.shown().into_owned());
    printable(text.as_deref().unwrap_or(name)).into_owned()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text).into_owned(),
        Value::Null => "-".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => decimal(float),
            _ => number.to_string(),
        },
        Value::Array(values) => values.iter().map(scalar).collect::<Vec<_>>().join(" "),
        other => printable(&other.to_string()).into_owned(),
    }
}

/// A number with at most four decimals; six digits when small; scientific when large.
fn decimal(number: f64) -> String {
    if number.abs() >= 1e15 {
        return number_text(number);
    }
    let text =
        if number != 0.0 && number.abs() < 0.01 { format!("{number:.5e}") } else { format!("{number:.4}") };
    match text.split_once('.') {
        Some((_, decimals)) if !decimals.contains('e') => {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_number_has_hundreds_of_digits() {
        assert_eq!(decimal(1.7e308), "1.7e308");
        assert_eq!(decimal(-1e15), "-1000000000000000");
        assert_eq!(decimal(1234.5), "1234.5");
        assert_eq!(decimal(5e-324), "4.94066e-324");
    }

    #[test]
    fn texts_of_others_act_on_no_terminal() {
        let mut out = String::new();
        let value = json!({ "value": "ok\u{1b}[2J\r\nforged", "keys": { "a\u{9b}K": { "n\u{7}": 1 } } });
        write_value(&value, 0, &mut out);
        assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
        assert_eq!(out.lines().count(), 3, "{out:?}");
        assert_eq!(shown("shop;city=Z!C3!BCrich;x=wow!"), "shop;city=Zürich;x=wow!");
        assert_eq!(shown("shop;x=!1B!5B2J"), "shop;x=\\u{1b}[2J");
    }

    #[test]
    fn nested_values_are_a_line_each() {
        let mut out = String::new();
        let value =
            json!({ "count": 3, "1m": { "total": 2.50, "mean": 0.000_123 }, "x": { "y": { "z": null } } });
        write_value(&value, 2, &mut out);
        assert_eq!(out, "  count 3\n  1m: total 2.5, mean 1.23000e-4\n  x:\n    y: z -\n");
    }
}
