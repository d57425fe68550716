//! [`Row`]: one row of an answer.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;
use taba_core::{Caveats, ClientId, printable};

use super::aggregate::Aggregate;
use super::ledger::Account;
use super::lists::{ClientRow, TabRow, TypeRow};
use super::projection::ClientProjection;
use super::text::{shown, write_value};
use super::times;

/// A row of an answer: JSON by serde, and text for people.
pub(super) trait Row: Serialize + Send + 'static {
    /// Appends the row as whole lines.
    fn write_text(&self, out: &mut String);

    /// The Tab's name, if the row is about one.
    fn tab(&self) -> Option<&str> {
        None
    }

    /// Its key for `from=`; rows are sorted by it, and no two have the same.
    fn key(&self) -> Option<String> {
        self.tab().map(str::to_owned)
    }
}

/// An account with its Client.
#[derive(Serialize)]
pub(super) struct AccountRow {
    pub(super) client: ClientId,
    #[serde(flatten)]
    pub(super) account: Account,
}

impl Row for Aggregate {
    fn tab(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn key(&self) -> Option<String> {
        self.by.is_empty().then(|| self.name.clone())
    }

    fn write_text(&self, out: &mut String) {
        let quality = &self.quality;
        let _ = write!(
            out,
            "{}  {}  clients {}  events {}",
            shown(&self.name),
            self.tab_type,
            quality.clients,
            quality.events
        );
        if self.tabs > 1 {
            let _ = write!(out, "  tabs {}", self.tabs);
        }
        if self.partial {
            out.push_str("  PARTIAL");
        }
        write_quality(quality.lost, quality.error_bound, &times::show(quality.as_of), out);
        write_value(&self.value, 2, out);
        if !self.clients_by_value.is_empty() {
            let words: Vec<String> = self
                .clients_by_value
                .iter()
                .map(|(word, clients)| format!("{} × {clients}", printable(word)))
                .collect();
            let _ = writeln!(out, "  clients by value: {}", words.join(", "));
        }
        if self.clients_by_other_values > 0 {
            let _ = writeln!(out, "  clients by other values: {}", self.clients_by_other_values);
        }
        write_caveats(&quality.caveats, out);
    }
}

fn write_caveats(caveats: &Caveats, out: &mut String) {
    for (heading, all) in [("unknown", &caveats.unknown), ("left out", &caveats.left_out)] {
        if !all.is_empty() {
            let each: Vec<String> =
                all.iter().map(|(what, why)| format!("{} ({})", printable(what), printable(why))).collect();
            let _ = writeln!(out, "  {heading}: {}", each.join(", "));
        }
    }
    if let Some(error) = caveats.standard_error {
        let _ = writeln!(out, "  standard error: {:.2}%", error * 100.0);
    }
}

impl Row for ClientProjection {
    fn tab(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    /// Neither name holds a space.
    fn key(&self) -> Option<String> {
        Some(format!("{} {}", self.name, self.client))
    }

    fn write_text(&self, out: &mut String) {
        let _ = write!(
            out,
            "{}  {}  client {}  events {}",
            shown(self.name.as_str()),
            self.tab_type,
            self.client,
            self.events
        );
        write_quality(self.lost, self.error_bound, &times::show(self.as_of), out);
        write_value(&self.value, 2, out);
        write_caveats(&self.caveats, out);
    }
}

fn write_quality(lost: Option<u64>, error_bound: Option<f64>, as_of: &str, out: &mut String) {
    match lost {
        Some(lost) => drop(write!(out, "  lost {lost}")),
        None => out.push_str("  lost unknown"),
    }
    if let Some(bound) = error_bound {
        let _ = write!(out, "  ±{:.2}%", bound * 100.0);
    }
    let _ = writeln!(out, "  as of {as_of}");
}

impl Row for TabRow {
    fn tab(&self) -> Option<&str> {
        Some(self.name.as_str())
    }

    fn write_text(&self, out: &mut String) {
        let _ = writeln!(out, "{:<40}  {}", shown(self.name.as_str()), self.tab_type);
    }
}

impl Row for TypeRow {
    fn key(&self) -> Option<String> {
        Some(self.tab_type.to_string())
    }

    fn write_text(&self, out: &mut String) {
        let unknown = if self.known { "" } else { "  no handler" };
        let _ = writeln!(out, "{:<32}  {:>8} tabs{unknown}", self.tab_type, self.tabs);
    }
}

impl Row for ClientRow {
    fn key(&self) -> Option<String> {
        Some(self.client.to_string())
    }

    fn write_text(&self, out: &mut String) {
        let _ = writeln!(out, "{:<40}  {:>8} tabs", self.client, self.tabs);
    }
}

impl Row for AccountRow {
    fn key(&self) -> Option<String> {
        Some(self.client.to_string())
    }

    fn write_text(&self, out: &mut String) {
        write_account(self.client.as_str(), &self.account, out);
    }
}

pub(super) fn write_account(whose: &str, account: &Account, out: &mut String) {
    let Account { recorded, folded, deleted, .. } = account;
    let in_flight = account.in_flight.map_or_else(|| "unknown".to_owned(), |events| events.to_string());
    let dropped = account.dropped_total();
    let _ = write!(
        out,
        "{whose}  recorded {recorded} = folded {folded} + dropped {dropped} + in flight {in_flight}"
    );
    if account.excess > 0 {
        let _ = write!(out, "  (excess {})", account.excess);
    }
    if *deleted > 0 {
        let _ = write!(out, "  (deleted since {deleted})");
    }
    out.push('\n');
    for lost in &account.dropped {
        let _ = writeln!(out, "  dropped in {}, {}: {}", lost.place, lost.why, lost.events);
    }
}

/// A row of answers with a single JSON object.
pub(super) fn write_object(value: &Value, out: &mut String) {
    write_value(value, 0, out);
}
