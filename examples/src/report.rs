//! What the quickstart shows: aggregates, a group-by, percentiles and the Ledger, as tables.

use std::error::Error;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

use crate::verify::get;

/// The tables, as of a time in RFC 3339.
///
/// # Errors
/// When the Server does not answer.
pub fn report(server: &str, at: &str) -> Result<String, Box<dyn Error>> {
    let mut out = String::new();
    let mut section = |title: &str, table: Table| out += &format!("\n{title}\n{table}\n");
    section(&format!("Departures of all airports, as of {at}"), windows(server, at)?);
    section("Arrival delay in minutes, by destination: the ten with the most flights", delays(server, at)?);
    section("The ledger: recorded = folded + dropped + in flight", ledger(server)?);
    Ok(out)
}

fn windows(server: &str, at: &str) -> Result<Table, Box<dyn Error>> {
    let answer = get(&format!("{server}/v2/tabs?name=departures&at={at}"))?;
    let row = &answer["results"][0];
    let mut table = table(&["window", "flights", "average"]);
    for window in ["1m", "10m", "1h", "1d"] {
        let value = &row["value"][window];
        table.add_row([window.to_owned(), number(&value["count"]), number(&value["average"])]);
    }
    table.add_row(["all time".to_owned(), number(&row["value"]["pct"]["count"]), String::new()]);
    table.add_row([format!("from {} clients", number(&row["clients"])), String::new(), String::new()]);
    Ok(table)
}

fn delays(server: &str, at: &str) -> Result<Table, Box<dyn Error>> {
    let answer = get(&format!("{server}/v2/tabs?base=delay&by=to&at={at}"))?;
    let mut rows = answer["results"].as_array().cloned().unwrap_or_default();
    rows.sort_by_key(|row| std::cmp::Reverse(row["events"].as_u64()));
    let mut table =
        table(&["tab", "flights", "total", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9", "±"]);
    for row in rows.iter().take(10) {
        let pct = &row["value"]["pct"];
        let mut cells = vec![
            row["name"].as_str().unwrap_or("?").to_owned(),
            number(&pct["count"]),
            number(&pct["total"]),
        ];
        cells.extend((0..7).map(|place| number(&pct["pct"][place])));
        cells.push(
            row["error_bound"].as_f64().map_or(String::new(), |bound| format!("{:.2} %", bound * 100.0)),
        );
        table.add_row(cells);
    }
    Ok(table)
}

fn ledger(server: &str) -> Result<Table, Box<dyn Error>> {
    let answer = get(&format!("{server}/v2/ledger"))?;
    let mut table = table(&["client", "recorded", "folded", "dropped", "in flight"]);
    let mut add = |name: &str, account: &Value| {
        let dropped = account["dropped"].as_array().into_iter().flatten();
        let dropped: u64 = dropped.filter_map(|drop| drop["events"].as_u64()).sum();
        let [recorded, folded, in_flight] =
            ["recorded", "folded", "in_flight"].map(|field| number(&account[field]));
        table.add_row([name.to_owned(), recorded, folded, dropped.to_string(), in_flight]);
    };
    let rows = answer["results"].as_array().cloned().unwrap_or_default();
    for row in rows.iter().take(3) {
        add(row["client"].as_str().unwrap_or("?"), row);
    }
    if rows.len() > 3 {
        add(&format!("… all {}", rows.len()), &answer["totals"]);
    }
    Ok(table)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header);
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    table
}

/// A number with marks between thousands, and at most two decimals.
fn number(value: &Value) -> String {
    let Some(number) = value.as_f64() else { return "–".to_owned() };
    let rounded = format!("{:.2}", number.abs());
    let (whole, fraction) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let mut text = if number < 0.0 { "-".to_owned() } else { String::new() };
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { text } else { format!("{text}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::number;

    #[test]
    fn numbers_are_readable() {
        let shown =
            [json!(1_234_567), json!(-1_000.5), json!(0.999), json!(12), json!(null)].map(|n| number(&n));
        assert_eq!(shown, ["1,234,567", "-1,000.5", "1", "12", "–"]);
    }
}
