//! Tables of rows whose cells name their columns.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde_json::Value;
use taba_core::{TabName, printable};

use crate::number::{plain, whole};
use crate::shape::{self, Cell};

/// Lays out rows: columns in the order of first use, numbers right-aligned.
pub(crate) fn table(rows: &[Vec<Cell>]) -> String {
    let mut headings: Vec<(&str, bool)> = Vec::new();
    for cell in rows.iter().flatten() {
        match headings.iter_mut().find(|(heading, _)| *heading == cell.heading) {
            Some((_, is_number)) => *is_number &= cell.is_number,
            None => headings.push((&cell.heading, cell.is_number)),
        }
    }
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
    let align = |is_number| if is_number { CellAlignment::Right } else { CellAlignment::Left };
    table.set_header(
        headings
            .iter()
            .map(|(heading, number)| comfy_table::Cell::new(heading).set_alignment(align(*number))),
    );
    for row in rows {
        let text =
            |heading: &str| row.iter().find(|cell| cell.heading == heading).map_or("", |cell| &cell.text);
        table.add_row(
            headings
                .iter()
                .map(|(heading, number)| comfy_table::Cell::new(text(heading)).set_alignment(align(*number))),
        );
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Aggregates or projections: one table for each Tab type.
pub(crate) fn answers(results: &[Value], detail: bool) -> String {
    let mut types: Vec<&str> = results.iter().filter_map(|row| row["type"].as_str()).collect();
    types.sort_unstable();
    types.dedup();
    let mut out = String::new();
    for (at, tab_type) in types.iter().enumerate() {
        let of_type: Vec<&Value> = results.iter().filter(|row| row["type"] == **tab_type).collect();
        // A single Tab has room for all its windows.
        let detail = detail || of_type.len() == 1;
        let rows: Vec<Vec<Cell>> = of_type.iter().flat_map(|row| answer(row, detail)).collect();
        if at > 0 {
            out.push('\n');
        }
        out.push_str(&format!("{}\n{}\n", printable(tab_type), table(&rows)));
    }
    out + &quality(results)
}

/// The rows of one aggregate or projection. Its quality is in the first row only.
fn answer(row: &Value, detail: bool) -> Vec<Vec<Cell>> {
    let mut first = vec![Cell::text("name", tab(row["name"].as_str().unwrap_or("")))];
    for key in ["client", "clients", "tabs", "events", "lost"] {
        match row.get(key) {
            Some(tabs) if key == "tabs" && *tabs == 1 => {}
            Some(Value::Null) => first.push(Cell { is_number: true, ..Cell::text(key, "?") }),
            Some(value) => first.push(Cell::plain(key, value)),
            None => {}
        }
    }
    let mut rows = shape::rows(&row["value"], detail);
    if let (Some(first), Some(words)) = (rows.first_mut(), row["clients_by_value"].as_object()) {
        let words: Vec<String> =
            words.iter().map(|(word, clients)| format!("{} × {}", printable(word), plain(clients))).collect();
        let others =
            row["clients_by_other_values"].as_u64().map(|others| format!("{others} of other values"));
        let words: Vec<String> = words.into_iter().chain(others).collect();
        first.push(Cell::text("clients by value", shape::short(&words.join(", "))));
    }
    // Later rows keep the columns, so that their order does not depend on the first Tab.
    let blank = |cell: &Cell| Cell { text: String::new(), ..cell.clone() };
    let heads = std::iter::once(first.clone()).chain(std::iter::repeat(first.iter().map(blank).collect()));
    heads
        .zip(rows)
        .map(|(mut head, mut row)| {
            head.append(&mut row);
            head
        })
        .collect()
}

/// The row includes everything committed up to this time. (Times with and without fractions do not compare as texts.)
pub(crate) fn as_of(row: &Value) -> Option<jiff::Timestamp> {
    row["as_of"].as_str()?.parse().ok()
}

/// The quality of all results.
fn quality(results: &[Value]) -> String {
    let mut out = String::new();
    if let Some(as_of) = results.iter().filter_map(as_of).min() {
        out.push_str(&format!("\nas of {as_of}"));
    }
    let bounds = results.iter().filter_map(|row| row["error_bound"].as_f64());
    if let Some(bound) = bounds.reduce(f64::max).filter(|bound| *bound > 0.0) {
        out.push_str(&format!(" · estimates within {:.2} %, all else exact", bound * 100.0));
    }
    let unknown = results.iter().filter_map(|row| row["lost_unattributed"].as_i64()).max().unwrap_or(0);
    if unknown > 0 {
        out.push_str(&format!(" · {} events lost of unknown clients", whole(i128::from(unknown))));
    }
    let errors = results.iter().filter_map(|row| row["standard_error"].as_f64());
    if let Some(error) = errors.reduce(f64::max) {
        out.push_str(&format!(
            " · numbers of distinct texts with a standard error of {:.2} %",
            error * 100.0
        ));
    }
    for (key, heading) in [("unknown", "not known"), ("left_out", "left out")] {
        for row in results {
            let each = row[key].as_object().into_iter().flatten();
            let each: Vec<String> =
                each.map(|(what, why)| format!("{} ({})", printable(what), plain(why))).collect();
            if !each.is_empty() {
                let name = tab(row["name"].as_str().unwrap_or(""));
                out.push_str(&format!("\n{heading} of {name}: {}", each.join(", ")));
            }
        }
    }
    if out.is_empty() { out } else { out + "\n" }
}

/// A Tab's name for people: unescaped labels, no control characters.
pub(crate) fn tab(name: &str) -> String {
    let shown = TabName::new(name).map(|name| name.shown().into_owned());
    printable(shown.as_deref().unwrap_or(name)).into_owned()
}

/// Plain rows with named columns, in this order.
pub(crate) fn list(results: &[Value], columns: &[(&str, &str)]) -> String {
    let cell = |row: &Value, key: &str, heading: &str| match (key, &row[key]) {
        ("name", Value::String(name)) => Cell::text(heading, tab(name)),
        (_, value) => Cell::plain(heading, value),
    };
    let row = |row: &Value| columns.iter().map(|(key, heading)| cell(row, key, heading)).collect();
    table(&results.iter().map(row).collect::<Vec<Vec<Cell>>>()) + "\n"
}

/// The Ledger: accounts, their sum, and dropped events by place and reason.
pub(crate) fn ledger(results: &[Value], totals: &Value) -> String {
    let account = |whose: &str, account: &Value| {
        let dropped: u64 = account["dropped"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|lost| lost["events"].as_u64())
            .sum();
        let cell = |heading: &str, key: &str| Cell::plain(heading, &account[key]);
        // Events whose record the store lost, if any.
        let excess = account.get("excess").map(|events| Cell::plain("excess", events));
        let mut row = vec![
            Cell::text("client", whose),
            cell("recorded", "recorded"),
            cell("= folded", "folded"),
            Cell::plain("+ dropped", &dropped.into()),
            cell("+ in flight", "in_flight"),
            cell("deleted since", "deleted"),
        ];
        row.extend(excess);
        row
    };
    let mut rows: Vec<_> =
        results.iter().map(|row| account(row["client"].as_str().unwrap_or(""), row)).collect();
    rows.push(account("total", totals));
    let mut out = table(&rows) + "\n";
    if let Some(dropped) = totals["dropped"].as_array().filter(|dropped| !dropped.is_empty()) {
        out.push('\n');
        out.push_str(&list(dropped, &[("where", "dropped in"), ("why", "because"), ("events", "events")]));
    }
    out
}

/// One object, one line per plain field.
pub(crate) fn object(value: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", value, &mut lines);
    let width = lines.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(key, text)| format!("{key:<width$}  {text}\n")).collect()
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{}", printable(key)), value, lines);
            }
        }
        Value::Array(items) => {
            lines.push((prefix.to_owned(), items.iter().map(plain).collect::<Vec<_>>().join(" ")));
        }
        _ => lines.push((prefix.to_owned(), plain(value))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_or_was_left_out_is_said_below() {
        let row = json!({
            "name": "hits", "type": "CounterGroup", "value": { "count": null }, "as_of": "2001-09-09T01:46:40Z",
            "unknown": { "1m": "begins before what is kept" }, "left_out": { "keys": "about 3" },
            "standard_error": 0.0163,
        });
        let shown = answers(&[row], false);
        for line in [
            "not known of hits: 1m (begins before what is kept)",
            "left out of hits: keys (about 3)",
            "as of 2001-09-09T01:46:40Z · numbers of distinct texts with a standard error of 1.63 %",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{shown}");
        }
        assert!(shown.contains(" - ") || shown.contains(" -\n"), "a null is a dash: {shown}");
    }
}
