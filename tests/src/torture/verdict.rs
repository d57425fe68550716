//! [`differences`]: what a Server answers against what Clients recorded.

use std::collections::BTreeMap;

use serde_json::Value;

use super::expected::{Expected, Sum};
use super::load::GAUGES_AT_SECS;
use super::server::ServerSlot;

/// No list of differences is longer; a wrong run has hundreds.
const DIFFERENCES_MAX: usize = 20;

/// All in which a Server's answers differ from what was recorded; nothing if they are exact.
pub fn differences(server: &ServerSlot, expected: &Expected) -> Vec<String> {
    let mut found = Vec::new();
    // Gauges as of then, because those from long ago are shown no more.
    let gauges = format!("/v2/tabs?limit=10000&at={GAUGES_AT_SECS}");
    let answers = ["/v2/tabs?limit=10000", &gauges].map(|path| server.get(path).map(|answer| rows(&answer)));
    let [Some(rows), Some(gauges)] = answers else {
        return vec![format!("{} does not answer", server.name)];
    };
    let nothing = Value::Null;
    let value = |tab: &str| rows.get(tab).unwrap_or(&nothing);
    for (tab, sum) in &expected.totals {
        compare(&mut found, tab, value(tab), sum, true);
    }
    for (tab, sum) in &expected.counters {
        compare(&mut found, tab, &value(tab)["pct"], sum, false);
    }
    for (tab, sum) in &expected.percentiles {
        compare(&mut found, tab, value(tab), sum, true);
    }
    for (tab, latest) in &expected.gauges {
        let seen = gauges.get(tab).unwrap_or(&nothing)["value"].as_f64();
        if seen != Some(*latest as f64) {
            found.push(format!("{tab} is {seen:?} rather than {latest}"));
        }
    }
    found.extend(ledger_differences(server, expected));
    found.truncate(DIFFERENCES_MAX);
    found.into_iter().map(|what| format!("{}: {what}", server.name)).collect()
}

fn rows(answer: &Value) -> BTreeMap<String, Value> {
    let rows = answer["results"].as_array().into_iter().flatten();
    rows.filter_map(|row| Some((row["name"].as_str()?.to_owned(), row["value"].clone()))).collect()
}

fn compare(found: &mut Vec<String>, tab: &str, value: &Value, sum: &Sum, has_extremes: bool) {
    let count = value["count"].as_u64().unwrap_or(0);
    let mut total = |field: &str, halves: u64| {
        let (seen, right) = (value[field].as_f64(), super::expected::halves(halves));
        if seen != Some(right) {
            let difference = seen.unwrap_or(0.0) - right;
            found.push(format!("{field} of {tab} is {seen:?} rather than {right} ({difference:+})"));
        }
    };
    total("total", sum.halves);
    if has_extremes {
        total("min", sum.min);
        total("max", sum.max);
    }
    if count != sum.count {
        let difference = count as i64 - sum.count as i64;
        found.push(format!("count of {tab} is {count} rather than {} ({difference:+})", sum.count));
    }
}

/// Whether more was folded than recorded: that never becomes right again.
pub(super) fn has_too_much(server: &ServerSlot, expected: &Expected) -> bool {
    let Some(ledger) = server.get("/v2/ledger") else { return false };
    let accounts = ledger["results"].as_array().into_iter().flatten();
    accounts.into_iter().any(|account| {
        let recorded = account["client"].as_str().and_then(|client| expected.clients.get(client));
        recorded.is_some_and(|recorded| account["folded"].as_u64() > Some(*recorded))
    })
}

/// Differences of the Ledger: for each Client, what was recorded must be folded, nothing dropped, nothing in flight.
/// And no Stream may have lost anything.
pub fn ledger_differences(server: &ServerSlot, expected: &Expected) -> Vec<String> {
    let Some(ledger) = server.get("/v2/ledger") else { return vec!["the ledger is not answered".to_owned()] };
    let accounts = ledger["results"].as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (client, events) in &expected.clients {
        let account = accounts.iter().find(|account| account["client"] == client.as_str());
        let number = |field: &str| account.and_then(|account| account[field].as_i64()).unwrap_or(0);
        let seen = (number("recorded"), number("folded"), number("in_flight"));
        if seen != (*events as i64, *events as i64, 0) {
            let (recorded, folded, in_flight) = seen;
            found.push(format!(
                "{client} recorded {events} events; the ledger: recorded {recorded}, folded {folded}, in flight {in_flight}"
            ));
        }
    }
    for account in &accounts {
        let dropped = account["dropped"].as_array().filter(|dropped| !dropped.is_empty());
        if let Some(dropped) = dropped {
            found.push(format!("{} dropped {}", account["client"], Value::from(dropped.clone())));
        }
    }
    found
}
