//! Maps rendered values to table cells. The standard Tab types have a few shapes: plain fields, `pct` with seven
//! percentiles, windows under `1m` to `1d`, values under `keys`, a list of readings.

use serde_json::{Map, Value};
use taba_core::printable;

use crate::number::{plain, time};

/// One cell of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) heading: String,
    pub(crate) text: String,
    pub(crate) is_number: bool,
}

/// The percentiles in a `pct`, and whether the short form shows them.
const PERCENTILES: [(&str, bool); 7] = [
    ("p25", false),
    ("p50", true),
    ("p75", false),
    ("p90", true),
    ("p95", false),
    ("p99", true),
    ("p99.9", false),
];
/// The windows of groups.
const WINDOWS: [&str; 4] = ["1m", "10m", "1h", "1d"];
/// The maximum characters of a list or an unknown value.
const TEXT_MAX: usize = 60;

impl Cell {
    pub(crate) fn text(heading: &str, text: impl AsRef<str>) -> Self {
        let (heading, text) = (printable(heading).into_owned(), printable(text.as_ref()).into_owned());
        Self { heading, text, is_number: false }
    }

    pub(crate) fn plain(heading: &str, value: &Value) -> Self {
        let is_number = value.is_number() || value.is_null();
        Self { heading: printable(heading).into_owned(), text: plain(value), is_number }
    }
}

/// The rows of one value: one, or one for each window or key if they do not fit a line.
pub(crate) fn rows(value: &Value, detail: bool) -> Vec<Vec<Cell>> {
    let Value::Object(fields) = value else { return vec![list(value)] };
    if let Some(Value::Object(keys)) = fields.get("keys") {
        let other = fields.get("other").map(|other| ("(other)", other));
        let keys = keys.iter().map(|(key, value)| (key.as_str(), value)).chain(other);
        return keys.flat_map(|(key, value)| under(&Cell::text("key", key), rows(value, detail))).collect();
    }
    let windows: Vec<(&str, &Map<String, Value>)> =
        WINDOWS.iter().filter_map(|window| Some((*window, fields.get(*window)?.as_object()?))).collect();
    let has_percentiles = windows.iter().any(|(_, window)| window.contains_key("pct"));
    if !windows.is_empty() && (detail || has_percentiles) {
        let all = fields.get("pct").and_then(Value::as_object).map(|all| ("all", all));
        let each = windows.into_iter().chain(all);
        return each.map(|(name, fields)| under_one(&Cell::text("window", name), fields, detail)).collect();
    }
    let mut cells = plain_cells(fields, detail);
    cells.extend(
        windows.iter().map(|(name, window)| Cell::plain(name, window.get("count").unwrap_or(&Value::Null))),
    );
    vec![cells]
}

fn under(first: &Cell, rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    rows.into_iter().map(|row| std::iter::once(first.clone()).chain(row).collect()).collect()
}

fn under_one(first: &Cell, fields: &Map<String, Value>, detail: bool) -> Vec<Cell> {
    std::iter::once(first.clone()).chain(plain_cells(fields, detail)).collect()
}

/// The cells of an object's own fields.
fn plain_cells(fields: &Map<String, Value>, detail: bool) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("pct", Value::Object(inner)) => cells.extend(plain_cells(inner, detail)),
            ("pct", Value::Array(values)) => {
                let shown = PERCENTILES.iter().zip(values).filter(|((_, short), _)| *short || detail);
                cells.extend(shown.map(|((name, _), value)| Cell::plain(name, value)));
            }
            ("pct", Value::Null) => {}
            ("time" | "expires", Value::Number(seconds)) => {
                cells.push(Cell::text(key, time(seconds.as_f64().unwrap_or(0.0))));
            }
            (window, _) if WINDOWS.contains(&window) => {}
            // Buckets and the like are for plots: only with --json.
            ("buckets" | "histogram" | "covers", _) => {}
            (_, Value::Object(_) | Value::Array(_)) => cells.push(Cell::text(key, short(&value.to_string()))),
            _ => cells.push(Cell::plain(key, value)),
        }
    }
    cells
}

/// A list of (reading, time): the number, and the latest ones.
fn list(value: &Value) -> Vec<Cell> {
    let Value::Array(items) = value else { return vec![Cell::plain("value", value)] };
    let shown: Vec<String> = items.iter().rev().map(|item| plain(item.get(0).unwrap_or(item))).collect();
    vec![Cell::plain("items", &items.len().into()), Cell::text("latest first", short(&shown.join(", ")))]
}

/// Truncates a long text.
pub(crate) fn short(text: &str) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text.to_owned();
    }
    text.chars().take(TEXT_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: &Value, detail: bool) -> Vec<String> {
        let row = |row: &Vec<Cell>| {
            row.iter().map(|cell| format!("{}={}", cell.heading, cell.text)).collect::<Vec<_>>().join(" ")
        };
        rows(value, detail).iter().map(row).collect()
    }

    #[test]
    fn every_shape_has_its_rows() {
        let totals = json!({ "count": 1200, "total": 2.5, "average": null });
        assert_eq!(shown(&totals, false), ["count=1,200 total=2.5 average=-"]);
        let group = json!({ "1m": { "count": 1 }, "1d": { "count": 7 }, "pct": { "count": 9, "pct": [1, 2, 3, 4, 5, 6, 7] } });
        assert_eq!(shown(&group, false), ["count=9 p50=2 p90=4 p99=6 1m=1 1d=7"]);
        assert_eq!(
            shown(&group, true),
            [
                "window=1m count=1",
                "window=1d count=7",
                "window=all count=9 p25=1 p50=2 p75=3 p90=4 p95=5 p99=6 p99.9=7"
            ]
        );
        let windows = json!({ "1m": { "count": 1, "pct": [1, 2, 3, 4, 5, 6, 7] } });
        assert_eq!(shown(&windows, false), ["window=1m count=1 p50=2 p90=4 p99=6"]);
        let keyed = json!({ "keys": { "a": { "count": 1 }, "b": { "count": 2 } }, "other": { "count": 3 } });
        assert_eq!(shown(&keyed, false), ["key=a count=1", "key=b count=2", "key=(other) count=3"]);
        assert_eq!(shown(&json!([["x", 1.0], ["y", 2.0]]), false), ["items=2 latest first=y, x"]);
        assert_eq!(
            shown(&json!({ "value": "up", "time": 1e9 }), false),
            ["value=up time=2001-09-09T01:46:40Z"]
        );
        assert_eq!(shown(&json!({}), false), [""]);
    }
}
