//! Folding one Block into one State, or refusing it with a reason. A refusal changes nothing.

use std::sync::Arc;

use taba_core::ledger::{self, Why};
use taba_core::wire::{Block, Content};
use taba_core::{AnyHandler, Arrival, ClientId, Registry, TabName, TabType, Timestamp};

use super::cache::{Cache, Live, Place, Slot, why};

/// What became of a Block, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) folded: u64,
    /// What was refused, and why; the whole Block, or some of its values.
    pub(super) refused: Option<(Why, u64)>,
    pub(super) clamped: u64,
}

impl Outcome {
    /// The whole Block is refused.
    pub(super) fn refused(why: Why, block: &Block) -> Self {
        Self { refused: Some((why, block.events)), ..Self::default() }
    }
}

/// Folds a Block whose State was touched and loaded. A time that is not believed counts as that of the arrival.
pub(super) fn fold_block(cache: &mut Cache, handlers: &Registry, block: &Block, arrival: Arrival) -> Outcome {
    match try_fold(cache, handlers, block, arrival) {
        Ok(outcome) => outcome,
        Err(why) => Outcome::refused(why, block),
    }
}

fn try_fold(cache: &mut Cache, handlers: &Registry, block: &Block, arrival: Arrival) -> Result<Outcome, Why> {
    let handler = handlers.get(block.tab_type.as_str()).ok_or(Why::UnknownType)?;
    let place = cache.place(&block.tab, &block.client);
    let outcome = change(place, &block.tab_type, handler, |live| match &block.content {
        Content::Events(columns) => {
            let count = usize::try_from(block.events).map_err(|_| Why::Undecodable)?;
            let done = live.handler.fold_columns(&mut live.state, columns, count, arrival);
            let done = done.map_err(|_| Why::Undecodable)?;
            live.events = live.events.saturating_add(done.folded);
            let refused = (done.refused > 0).then_some((Why::BadValue, done.refused));
            Ok(Outcome { folded: done.folded, refused, clamped: done.clamped })
        }
        Content::State { version, bytes } => {
            if *version == handler.version() && bytes.len() > handler.encoded_bytes_max() {
                return Err(Why::Undecodable);
            }
            let mut partial = handler.decode(*version, bytes).map_err(|error| why(&error))?;
            // Which of the events behind a partial State lie too late cannot be told any more: all are counted.
            let clamped = if block.latest > arrival.latest { block.events } else { 0 };
            if clamped > 0 {
                handler.clamp(&mut partial, arrival.at);
            }
            live.handler.merge(&mut live.state, &partial);
            live.events = live.events.saturating_add(block.events);
            Ok(Outcome { folded: block.events, refused: None, clamped })
        }
    })?;
    if outcome.1.folded > 0 {
        cache.set_changed(&block.tab, &block.client, outcome.0);
    }
    Ok(outcome.1)
}

/// Adds `events` to one Tab of the Ledger.
///
/// # Errors
/// The reason, when that Tab's State cannot take it; nothing has changed.
pub(super) fn fold_note(
    cache: &mut Cache,
    handlers: &Registry,
    (tab, client): (&TabName, &ClientId),
    events: u64,
    now: Timestamp,
) -> Result<(), Why> {
    let tab_type = ledger::tab_type();
    let handler = handlers.get(tab_type.as_str()).ok_or(Why::UnknownType)?;
    let place = cache.place(tab, client);
    let (is_new_tab, _) = change(place, &tab_type, handler, |live| {
        let value = vec![events as f64];
        live.handler.fold_values(&mut live.state, &[now], &value).map_err(|_| Why::TypeConflict)?;
        live.events = live.events.saturating_add(1);
        Ok(Outcome { folded: 1, ..Outcome::default() })
    })?;
    cache.set_changed(tab, client, is_new_tab);
    Ok(())
}

/// Lets `fold` work on the State in a place, a new one if there is none. Answers whether the Tab's type was not known.
fn change(
    Place { tab_type: known, slot }: Place<'_>,
    tab_type: &TabType,
    handler: &Arc<dyn AnyHandler>,
    fold: impl FnOnce(&mut Live) -> Result<Outcome, Why>,
) -> Result<(bool, Outcome), Why> {
    if known.as_ref().is_some_and(|known| known != tab_type) {
        return Err(Why::TypeConflict);
    }
    let outcome = match slot {
        Slot::Unreadable(why) => return Err(*why),
        Slot::Live(live) if live.tab_type != *tab_type => return Err(Why::TypeConflict),
        Slot::Live(live) => fold(live)?,
        Slot::Unknown | Slot::Absent => {
            let state = handler.empty_state();
            let mut live =
                Live { tab_type: tab_type.clone(), handler: Arc::clone(handler), state, events: 0 };
            let outcome = fold(&mut live)?;
            if outcome.folded > 0 {
                *slot = Slot::Live(live);
            }
            outcome
        }
    };
    let is_new_tab = outcome.folded > 0 && known.is_none();
    if is_new_tab {
        *known = Some(tab_type.clone());
    }
    Ok((is_new_tab, outcome))
}
