//! `GET /v2/watch`: changed aggregates as server-sent events.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::aggregates::aggregates;
use super::answer::label_texts;
use super::context::Query;
use super::error::QueryError;
use super::fault::QueryItem;
use super::missing::{Affects, MissingPart};
use super::params::{ANY_LABEL, params};
use super::state::QueryState;

const WATCH: &[&str] =
    &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "by", "detail", "every"];
/// Seconds between two queries: the default, and the range.
const EVERY: f64 = 1.0;
const EVERY_RANGE: (f64, f64) = (0.1, 3600.0);
/// The interval of comments while nothing changes, so that no proxy closes the connection as idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events: `aggregate` with an aggregate, `gone` with the name of a removed one, `missing` with the unreadable part
/// of the store when it changes (`null`: none), `error` with an error; the watch continues after one.
pub(super) async fn get_watch(
    State(state): State<QueryState>,
    RawQuery(raw): RawQuery,
) -> Result<Response, QueryError> {
    let params = params(raw.as_ref(), WATCH)?;
    let query = params.query(&state.limits)?;
    let every = Duration::from_secs_f64(params.seconds("every", EVERY, EVERY_RANGE)?);
    let closing = state.shared.closing.subscribe();
    let permit = state.shared.watches.clone().try_acquire_owned().map_err(|_| QueryError::Busy)?;
    if *closing.borrow() {
        return Err(QueryError::Busy);
    }
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch {
        state,
        query,
        interval,
        closing,
        _permit: permit,
        last: BTreeMap::new(),
        missing: None,
        ready: VecDeque::new(),
    };
    // The first query also finds invalid parameters, while the answer can still be an error.
    watch.interval.tick().await;
    watch.look().await?;
    let events = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok::<_, Infallible>(event), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

struct Watch {
    state: QueryState,
    query: Query,
    interval: Interval,
    closing: watch::Receiver<bool>,
    /// The permit of an open watch.
    _permit: OwnedSemaphorePermit,
    /// The last aggregates sent, by name and type, without fields that always change.
    last: BTreeMap<(String, String), Value>,
    /// The unreadable part at the last query.
    missing: Option<MissingPart>,
    ready: VecDeque<Event>,
}

impl Watch {
    /// The next event; `None` when the Server closes.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return None,
                _ = self.interval.tick() => {}
            }
            if let Err(error) = self.look().await {
                self.ready.push_back(Event::default().event("error").data(error.to_json().to_string()));
            }
        }
    }

    /// Queries again, and queues what changed.
    async fn look(&mut self) -> Result<(), QueryError> {
        let tabs_max = self.state.limits.watch_tabs_max;
        let mut seen = BTreeMap::new();
        let mut changed = Vec::new();
        let mut missing = None;
        let mut answers = pin!(aggregates(&self.state, self.query.clone()));
        while let Some(item) = answers.next().await {
            let aggregate = match item? {
                QueryItem::Row(aggregate) => aggregate,
                QueryItem::Fault(_) => continue,
                QueryItem::Missing(found) => {
                    missing = Some(found);
                    continue;
                }
            };
            if seen.len() == tabs_max {
                return Err(QueryError::TooManyTabs { tabs_max });
            }
            let key = (aggregate.name.clone(), aggregate.tab_type.to_string());
            let mut shown = json!(aggregate);
            let labels = label_texts(&aggregate.name);
            if !labels.is_empty() {
                shown["labels"] = labels.into();
            }
            let mut lasting = shown.clone();
            lasting["as_of"] = Value::Null;
            if self.last.get(&key) != Some(&lasting) {
                changed.push(Event::default().event("aggregate").data(shown.to_string()));
            }
            seen.insert(key, lasting);
        }
        let is_whole = missing.as_ref().is_none_or(|missing: &MissingPart| missing.affects == Affects::Lost);
        for (key, last) in std::mem::take(&mut self.last) {
            if seen.contains_key(&key) {
                continue;
            }
            if !is_whole {
                // It may only be unreadable now.
                seen.insert(key, last);
                continue;
            }
            let gone = json!({ "name": key.0, "type": key.1 });
            changed.push(Event::default().event("gone").data(gone.to_string()));
        }
        if missing != self.missing {
            changed.push(Event::default().event("missing").data(json!(missing).to_string()));
            self.missing = missing;
        }
        self.ready.extend(changed);
        self.last = seen;
        Ok(())
    }
}
