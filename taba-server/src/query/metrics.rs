//! `GET /metrics`: Prometheus text. The Server's own counters, the Ledger's totals, and, when Tabs are chosen, the
//! numbers of those Tabs.

use std::collections::BTreeSet;
use std::pin::pin;

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::StreamExt;
use serde_json::{Value, json};
use taba_core::MetricKind::{self, Counter, Gauge};
use taba_core::{MetricsText, TabName, unescape_label};

use super::aggregate::Aggregate;
use super::aggregates::aggregates;
use super::context::Query;
use super::error::QueryError;
use super::fault::QueryItem;
use super::ledger::{Account, Ledger, ledger_totals};
use super::missing::Affects;
use super::params::{ANY_LABEL, params};
use super::state::QueryState;

const METRICS: &[&str] = &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "by", "ledger"];

/// What of an aggregate becomes a metric: the metric's name, what it is, and which field of the value it shows.
const TAB_METRICS: [(&str, MetricKind, &str, &str); 2] = [
    ("taba_tab_count", Counter, "count", "Events counted by the tab"),
    ("taba_tab_total", Gauge, "total", "Total of the values; a gauge, because values can be negative"),
];

pub(super) async fn get_metrics(
    State(state): State<QueryState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, QueryError> {
    let params = params(raw.as_ref(), METRICS)?;
    let query = params.query(&state.limits)?;
    let mut out = MetricsText::default();
    write_counters("taba_server", "Counter of this server", &json!(state.status.report()), &mut out);
    write_counters("taba_query", "Counter of this server's queries", &json!(state.report()), &mut out);
    let refused = "taba_server_requests_refused_total";
    out.family(Counter, refused, "Requests refused because a web page may have sent them");
    for (reason, count) in state.guard.refused() {
        out.sample(refused, &[("reason", reason)], count);
    }
    if let Some(connections) = &state.connections {
        connections.write_metrics("taba_server", &mut out);
    }
    if params.flag("ledger", true)? {
        write_ledger(&state, &mut out).await;
    }
    if !query.selection.is_everything() {
        let answered = write_tabs(&state, query, &mut out).await;
        write_answered("tabs", answered, &mut out)?;
    }
    Ok(([(header::CONTENT_TYPE, MetricsText::CONTENT_TYPE)], out.into_string()).into_response())
}

/// A report of plain counters: one metric for each field.
fn write_counters(prefix: &str, help: &str, report: &Value, out: &mut MetricsText) {
    for (field, count) in report.as_object().into_iter().flatten().filter(|(_, count)| count.is_u64()) {
        out.counter(&format!("{prefix}_{field}_total"), &format!("{help}: {field}"), count);
    }
}

/// The Ledger's totals; none while a part of the store cannot be read, since counters must not go back.
async fn write_ledger(state: &QueryState, out: &mut MetricsText) {
    let (totals, unread) = match ledger_totals(state).await {
        Ok(Ledger { totals, missing: None, .. }) => (Some(totals), 0),
        Ok(Ledger { missing: Some(missing), .. }) => (None, missing.vbuckets.len()),
        Err(_) => (None, usize::from(state.store.vbuckets().count())),
    };
    let help = "VBuckets that could not be read; if any, no totals follow";
    out.gauge("taba_ledger_unread_vbuckets", help, unread);
    if let Some(totals) = totals {
        write_totals(&totals, out);
    }
}

/// Whether the chosen tabs could be read: a store that is away takes no other metric with it.
fn write_answered(
    what: &'static str,
    answered: Result<usize, QueryError>,
    out: &mut MetricsText,
) -> Result<(), QueryError> {
    let (unread, error) = match answered {
        Ok(unread) => (Some(unread), None),
        Err(error @ (QueryError::Store(_) | QueryError::Timeout { .. })) => (None, Some(error.reason().word)),
        Err(error) => return Err(error),
    };
    if let Some(unread) = unread {
        out.gauge("taba_tab_unread_vbuckets", "VBuckets of the chosen tabs that could not be read", unread);
    }
    out.family(Gauge, "taba_metrics_error", "1 if a part of this answer could not be read");
    let labels = [("part", what), ("reason", error.unwrap_or("none"))];
    out.sample("taba_metrics_error", &labels, usize::from(error.is_some()));
    Ok(())
}

fn write_totals(totals: &Account, out: &mut MetricsText) {
    let counts = [
        ("recorded", totals.recorded, "Events recorded by clients"),
        ("folded", totals.folded, "Events folded into states, those deleted since included"),
        ("deleted", totals.deleted, "Events in states that were deleted or pruned"),
        ("clamped", totals.clamped, "Events whose time was set back"),
    ];
    for (what, count, help) in counts {
        out.counter(&format!("taba_ledger_{what}_events_total"), help, count);
    }
    let name = "taba_ledger_dropped_events_total";
    out.family(Counter, name, "Events dropped");
    for lost in &totals.dropped {
        out.sample(name, &[("where", lost.place.as_str()), ("why", lost.why.as_str())], lost.events);
    }
    let help = "Events folded or dropped that the store knows nothing recorded of";
    out.gauge("taba_ledger_excess_events", help, totals.excess);
    if let Some(in_flight) = totals.in_flight {
        let help = "Events recorded, and neither folded nor dropped";
        out.gauge("taba_ledger_in_flight_events", help, in_flight);
    }
}

/// One family after the other, as the format wants it, so the samples have to be held: hence the bound on Tabs.
///
/// How many VBuckets could not be read.
async fn write_tabs(state: &QueryState, query: Query, out: &mut MetricsText) -> Result<usize, QueryError> {
    let tabs_max = state.limits.metrics_tabs_max;
    let mut families = TAB_METRICS.map(|(name, kind, _, help)| {
        let mut family = MetricsText::default();
        family.family(kind, name, help);
        family
    });
    let (mut tabs, mut unreadable, mut unread) = (0, 0, 0);
    let mut answers = pin!(aggregates(state, query));
    while let Some(item) = answers.next().await {
        let aggregate = match item? {
            QueryItem::Row(aggregate) => aggregate,
            QueryItem::Fault(fault) => {
                unreadable += fault.states;
                continue;
            }
            QueryItem::Missing(missing) => {
                unread = if missing.affects == Affects::Results { missing.vbuckets.len() } else { 0 };
                continue;
            }
        };
        tabs += 1;
        if tabs > tabs_max {
            return Err(QueryError::TooManyTabs { tabs_max });
        }
        let labels = tab_labels(&aggregate);
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        for ((name, _, field, _), family) in TAB_METRICS.iter().zip(&mut families) {
            if let Some(number) = number(&aggregate.value, field) {
                family.sample(name, &labels, number);
            }
        }
    }
    families.iter().for_each(|family| out.append(family));
    out.gauge("taba_tab_unreadable_states", "States of the chosen tabs that could not be read", unreadable);
    Ok(unread)
}

/// A number of all time: a field of the value, or, where the value itself is windows, of the percentiles beside them.
fn number<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    let found = value.get(field).or_else(|| value.get("pct")?.get(field));
    found.filter(|value| value.is_number())
}

/// The Tab's whole name, its type, and each label as `label_KEY`; of keys that become the same word, the first.
fn tab_labels(aggregate: &Aggregate) -> Vec<(String, String)> {
    let name = TabName::new(&aggregate.name).ok();
    let base = name.as_ref().map_or(aggregate.name.as_str(), TabName::base);
    let mut pairs = vec![
        ("tab".to_owned(), aggregate.name.clone()),
        ("base".to_owned(), base.to_owned()),
        ("type".to_owned(), aggregate.tab_type.as_str().to_owned()),
    ];
    let mut used = BTreeSet::new();
    for (key, value) in name.iter().flat_map(TabName::labels) {
        let word: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if used.insert(word.clone()) {
            pairs.push((format!("label_{word}"), unescape_label(value).into_owned()));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_time_are_found_beside_windows() {
        assert_eq!(number(&json!({ "count": 3 }), "count"), Some(&json!(3)));
        assert_eq!(number(&json!({ "1m": { "count": 1 }, "pct": { "count": 7 } }), "count"), Some(&json!(7)));
        assert_eq!(number(&json!({ "count": "many", "pct": [1, 2] }), "count"), None);
        assert_eq!(number(&json!([1, 2]), "count"), None);
    }
}
