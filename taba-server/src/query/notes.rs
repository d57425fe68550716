//! Reads the Ledger's notes for each Client, over all VBuckets.

use std::sync::Arc;

use taba_core::{Format, Panicked, TabName, TabType, Timestamp, ledger};

use super::catalog::{DecodedRow, TabStates, listed};
use super::error::QueryError;
use super::fault;
use super::missing::{Affects, Coverage, MissingPart};
use super::note::{Note, Notes};
use super::selection::Selection;
use super::state::QueryState;

/// The Ledger's notes, at most [`lost_age_max`](super::Limits::lost_age_max) old. Of concurrent queries one reads,
/// the others wait for it.
pub(super) async fn recent(state: &QueryState) -> Arc<Notes> {
    let mut held = state.shared.notes.recent.lock().await;
    let now = state.now();
    if let Some((read_at, notes)) = &*held {
        // A clock that stands still or goes back must not keep old notes alive.
        if now > *read_at && now.since(*read_at) < state.limits.lost_age_max {
            return Arc::clone(notes);
        }
    }
    // Without notes a query still has its results; the number of lost events is then unknown.
    let notes = read(state).await.unwrap_or_else(|error| {
        let missing = Some(MissingPart::of(&error, Affects::Lost));
        Notes { missing, ..Notes::default() }
    });
    let notes = Arc::new(notes);
    *held = Some((now, Arc::clone(&notes)));
    notes
}

/// The current notes of the readable VBuckets.
///
/// # Errors
/// When no VBucket can be read.
///
/// # Cost
/// Reads the index of every VBucket, and every State of the Ledger.
pub(super) async fn read(state: &QueryState) -> Result<Notes, QueryError> {
    let tab_type = TabType::new(ledger::TAB_TYPE).expect("the constant is a type name");
    let mut all = Selection::default().base(ledger::DROPPED);
    for name in [ledger::RECORDED, ledger::DELETED, ledger::CLAMPED] {
        all = all.base(name);
    }
    let mut notes = Notes::default();
    let coverage = Coverage::new(&state.store);
    for tab in listed(state, &all.tab_type(tab_type), &coverage).await? {
        let name = tab.name.clone();
        let mut states = TabStates::of(tab);
        while let Some(page) = states.next(state, &Selection::default(), &coverage).await {
            page.faults.into_iter().for_each(|fault| fault::add(&mut notes.faults, fault));
            for opened in page.opened {
                match total(&opened, state.now()) {
                    Ok(events) => take(notes.clients.entry(opened.client).or_default(), &name, events),
                    Err(panicked) => {
                        let (why, tab_type) = (panicked.into(), ledger::tab_type());
                        let fault = state.fault(&why, &tab_type, name.clone(), opened.client);
                        fault::add(&mut notes.faults, fault);
                    }
                }
            }
        }
    }
    notes.missing = coverage.missing().map(|missing| MissingPart { affects: Affects::Lost, ..missing });
    Ok(notes)
}

fn take(note: &mut Note, name: &TabName, events: u64) {
    match name.base() {
        ledger::RECORDED => note.recorded += events,
        ledger::DELETED => note.deleted += events,
        ledger::CLAMPED => note.clamped += events,
        _ => {
            let label = |key| name.label(key).unwrap_or("unknown").to_owned();
            *note.dropped.entry((label("where"), label("why"))).or_default() += events;
        }
    }
}

/// The total of a counter: the number of events of a note. Exact up to 2^53.
fn total(opened: &DecodedRow, at: Timestamp) -> Result<u64, Panicked> {
    let projection = opened.handler.project_now(&opened.state, at)?;
    let rendered = opened.handler.render(&projection, Format::Summary)?;
    Ok(rendered.get("total").and_then(serde_json::Value::as_f64).unwrap_or(0.0) as u64)
}
