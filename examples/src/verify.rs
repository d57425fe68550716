//! The answers of a Server against the ones computed from the file directly.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;

use crate::flights::{Seen, Truth};

/// The percentiles of an answer, in its order.
pub const QUANTILES: [f64; 7] = [0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999];

/// What was compared, and how far the estimates were off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verified {
    /// States of one Client and Tab, and aggregates over Clients.
    pub answers: usize,
    /// Counts and totals, each equal.
    pub numbers: usize,
    /// Percentiles, each within its bound.
    pub percentiles: usize,
    /// The largest relative error among them.
    pub error_max: f64,
}

/// The largest relative error that a percentile may have.
pub const ERROR_MAX: f64 = 0.01;

/// Asks the Server for everything, and compares it with the truth.
///
/// # Errors
/// With the first answer that is not as it must be: what was asked, what came, what is true.
pub fn verify(server: &str, truth: &Truth) -> Result<Verified, Box<dyn Error>> {
    let mut verified = Verified::default();
    let mut missing: BTreeSet<_> = truth.seen.keys().collect();
    for row in rows(&format!("{server}/v2/projections"))? {
        let key = (text(&row["client"])?, text(&row["name"])?);
        let seen =
            truth.seen.get(&key).ok_or_else(|| format!("{key:?} is answered, but is not in the file"))?;
        verified.compare(&format!("{key:?}"), &row, seen)?;
        missing.remove(&key);
    }
    if let Some(key) = missing.first() {
        return Err(format!("{} answers are missing, {key:?} the first of them", missing.len()).into());
    }
    for base in ["departures", "delay", "distance"] {
        let row = rows(&format!("{server}/v2/super?base={base}"))?.pop().ok_or("no super-aggregate")?;
        verified.compare(&format!("all {base}"), &row, &truth.over_clients(base))?;
    }
    Ok(verified)
}

impl Verified {
    /// Compares one row of an answer with what was seen.
    ///
    /// # Errors
    /// With the first number that is not as it must be.
    pub fn compare(&mut self, what: &str, row: &Value, seen: &Seen) -> Result<(), Box<dyn Error>> {
        let value = &row["value"];
        // A CounterGroup has its totals beside its percentiles, under `pct`; a PercentileCounter beside them.
        let totals = if value["pct"].is_object() { &value["pct"] } else { value };
        let found = (row["events"].as_u64(), totals["count"].as_u64(), totals["total"].as_f64());
        let expected = (Some(seen.count()), Some(seen.count()), Some(seen.total() as f64));
        if found != expected {
            return Err(
                format!("{what}: (events, count, total) are {found:?}, in the file {expected:?}").into()
            );
        }
        self.numbers += 3;
        let mut seen = seen.clone();
        let estimates = totals["pct"].as_array().filter(|pct| pct.len() == QUANTILES.len());
        for (q, estimate) in QUANTILES.iter().zip(estimates.ok_or_else(|| format!("{what}: no percentiles"))?)
        {
            let exact = f64::from(seen.quantile(*q));
            let off =
                (estimate.as_f64().ok_or_else(|| format!("{what}: {estimate} is no number"))? - exact).abs();
            let error = if exact == 0.0 { off } else { off / exact.abs() };
            if error > ERROR_MAX {
                return Err(format!("{what}: p{} is {estimate}, in the file {exact}", q * 100.0).into());
            }
            self.error_max = self.error_max.max(error);
            self.percentiles += 1;
        }
        self.answers += 1;
        Ok(())
    }
}

/// Waits until the Ledger says that nothing is in flight and that so many events are folded.
///
/// # Errors
/// When it does not say so in time, or says that events were dropped: with what it says.
pub fn wait_until_folded(server: &str, events: u64, patience: Duration) -> Result<(), Box<dyn Error>> {
    const PAUSE: Duration = Duration::from_millis(200);
    let mut totals = Value::Null;
    for _ in 0..patience.as_millis().div_ceil(PAUSE.as_millis()) {
        totals = get(&format!("{server}/v2/ledger"))?["totals"].clone();
        if totals["dropped"].as_array().is_some_and(|dropped| !dropped.is_empty()) {
            return Err(format!("events were dropped: {totals}").into());
        }
        if totals["folded"].as_u64() == Some(events) && totals["in_flight"].as_i64() == Some(0) {
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "another process has no clock that could be set")]
        std::thread::sleep(PAUSE);
    }
    Err(format!("{events} events were recorded; after {patience:?} the ledger says {totals}").into())
}

/// The JSON that a path answers with.
///
/// # Errors
/// When it does not.
pub fn get(url: &str) -> Result<Value, Box<dyn Error>> {
    let answer = ureq::get(url).header("accept", "application/json").call();
    Ok(answer
        .map_err(|error| format!("{url}: {error}"))?
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_json()?)
}

/// The rows of an answer, which must be complete.
fn rows(url: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let answer = ureq::get(url).header("accept", "application/x-ndjson").call();
    let mut answer = answer.map_err(|error| format!("{url}: {error}"))?;
    let mut rows = Vec::new();
    for line in BufReader::new(answer.body_mut().as_reader()).lines() {
        let row: Value = serde_json::from_str(&line?)?;
        match &row["end"] {
            Value::Null => rows.push(row),
            end if end["complete"] == true && end["truncated"] == false => return Ok(rows),
            end => return Err(format!("{url}: the answer is not complete: {end}").into()),
        }
    }
    Err(format!("{url}: the answer was cut off").into())
}

fn text(value: &Value) -> Result<String, Box<dyn Error>> {
    Ok(value.as_str().ok_or_else(|| format!("{value} is no text"))?.to_owned())
}
