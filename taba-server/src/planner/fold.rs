//! Folds one Block into one State, or refuses it with a reason. A refusal changes nothing.
//!
//! Handlers are user code and may panic. Normally nothing is copied: after a panic the cached States may be
//! inconsistent, so the attempt is dropped and repeated *carefully*: each State is copied before it is changed, and
//! encoded afterwards. A Block that panics then is refused, and its State stays unchanged.

use taba_core::ledger::{self, Where, Why};
use taba_core::limits::BATCH_DECODED_BYTES_MAX;
use taba_core::wire::{Block, Content};
use taba_core::{
    Arrival, ClientId, Guarded, HandlerError, Panicked, Registry, StateError, TabName, TabType, Timestamp,
};

use super::cache::{Cache, CacheEntry, StateChange};
use super::live::{CachedSlot, DecodedState};

/// The outcome of a Block, in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FoldOutcome {
    pub(super) folded: u64,
    /// The refused events, with place and reason; all of the Block, or some of its values.
    pub(super) refused: Option<(Where, Why, u64)>,
    pub(super) clamped: u64,
}

impl FoldOutcome {
    /// The whole Block is refused.
    fn refused(place: Where, why: Why, block: &Block) -> Self {
        Self { refused: Some((place, why, block.events)), ..Self::default() }
    }
}

/// The memory that the States in one Batch may yet take when they are decoded; it is set aside before.
pub(super) struct DecodeRoom(usize);

impl Default for DecodeRoom {
    fn default() -> Self {
        Self(BATCH_DECODED_BYTES_MAX)
    }
}

impl DecodeRoom {
    fn take(&mut self, bytes: usize) -> Result<(), Why> {
        self.0 = self.0.checked_sub(bytes).ok_or(Why::Undecodable)?;
        Ok(())
    }
}

/// The memory to set aside before the State in a Block is decoded; 0 for events, and for what is refused anyway.
pub(super) fn decoded_bytes_max(handlers: &Registry, block: &Block) -> usize {
    let Content::State { bytes, .. } = &block.content else { return 0 };
    let handler = handlers.guarded(block.tab_type.as_str());
    handler.map_or(0, |handler| handler.decoded_bytes_max(bytes.len()).unwrap_or_default())
}

/// Why a Block is not folded.
enum FoldRefusal {
    Why(Why),
    Panicked(Panicked),
}

impl From<Why> for FoldRefusal {
    fn from(why: Why) -> Self {
        Self::Why(why)
    }
}

impl From<Panicked> for FoldRefusal {
    fn from(panicked: Panicked) -> Self {
        Self::Panicked(panicked)
    }
}

impl From<HandlerError> for FoldRefusal {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Panicked(panicked) => Self::Panicked(panicked),
            HandlerError::State(StateError::UnknownVersion { .. }) => Self::Why(Why::UnknownVersion),
            _ => Self::Why(Why::Undecodable),
        }
    }
}

/// Folds a Block whose State was touched and loaded. A time too far in the future becomes the time of arrival.
pub(super) fn fold_block(
    cache: &mut Cache,
    handlers: &Registry,
    block: &Block,
    arrival: Arrival,
    room: &mut DecodeRoom,
) -> FoldOutcome {
    if let Content::Withheld { place, why } = block.content {
        return FoldOutcome::refused(place, why, block);
    }
    let is_wrong_type = block.tab.is_reserved() && block.tab_type.as_str() != ledger::TAB_TYPE;
    if is_wrong_type || !ledger::may_write(Where::Agent, &block.tab, &block.client) {
        return FoldOutcome::refused(Where::Server, Why::BadName, block);
    }
    match try_fold(cache, handlers, block, arrival, room) {
        Ok(outcome) => outcome,
        Err(FoldRefusal::Why(why)) => FoldOutcome::refused(Where::Server, why, block),
        Err(FoldRefusal::Panicked(panicked)) => {
            cache.panicked(&block.tab_type, panicked);
            FoldOutcome::refused(Where::Server, Why::HandlerPanicked, block)
        }
    }
}

fn try_fold(
    cache: &mut Cache,
    handlers: &Registry,
    block: &Block,
    arrival: Arrival,
    room: &mut DecodeRoom,
) -> Result<FoldOutcome, FoldRefusal> {
    let handler = handlers.guarded(block.tab_type.as_str()).ok_or(Why::UnknownType)?;
    let is_careful = cache.is_careful;
    let place = cache.entry(&block.tab, &block.client, handlers);
    let id = place.id;
    let outcome = change(place, &block.tab_type, &handler, is_careful, |live| match &block.content {
        Content::Events(columns) => {
            let count = usize::try_from(block.events).map_err(|_| Why::Undecodable)?;
            let done = live.fold_columns(columns, count, arrival)?;
            live.events = live.events.saturating_add(done.folded);
            let refused = (done.refused > 0).then_some((Where::Server, Why::BadValue, done.refused));
            Ok(FoldOutcome { folded: done.folded, refused, clamped: done.clamped })
        }
        Content::State { version, bytes } => {
            if *version == handler.version() && bytes.len() > handler.encoded_bytes_max()? {
                return Err(Why::Undecodable.into());
            }
            room.take(handler.decoded_bytes_max(bytes.len())?)?;
            let mut partial = handler.decode(*version, bytes)?;
            // It is unknown which events of a partial State are too late: all are counted.
            let clamped = if block.latest > arrival.latest { block.events } else { 0 };
            if clamped > 0 {
                handler.clamp(&mut partial, arrival.at)?;
            }
            live.merge(&partial)?;
            live.events = live.events.saturating_add(block.events);
            Ok(FoldOutcome { folded: block.events, refused: None, clamped })
        }
        Content::Withheld { .. } => unreachable!("there is nothing to fold in it"),
    })?;
    if outcome.1.folded > 0 {
        let is_merge = matches!(block.content, Content::State { .. });
        cache.set_changed(id, StateChange { is_new_tab: outcome.0, is_merge });
    }
    Ok(outcome.1)
}

/// Adds `events` to one Tab of the Ledger. Returns whether it did; if not, nothing is changed.
pub(super) fn fold_note(
    cache: &mut Cache,
    handlers: &Registry,
    (tab, client): (&TabName, &ClientId),
    events: u64,
    now: Timestamp,
) -> bool {
    let tab_type = ledger::tab_type();
    let Some(handler) = handlers.guarded(tab_type.as_str()) else { return false };
    let is_careful = cache.is_careful;
    let place = cache.entry(tab, client, handlers);
    let id = place.id;
    let changed = change(place, &tab_type, &handler, is_careful, |live| {
        let value = vec![events as f64];
        live.fold_values(&[now], &value)?;
        live.events = live.events.saturating_add(1);
        Ok(FoldOutcome { folded: 1, ..FoldOutcome::default() })
    });
    match changed {
        Ok((is_new_tab, _)) => {
            cache.set_changed(id, StateChange { is_new_tab, is_merge: false });
            true
        }
        Err(FoldRefusal::Why(_)) => false,
        Err(FoldRefusal::Panicked(panicked)) => {
            cache.panicked(&tab_type, panicked);
            false
        }
    }
}

/// Applies `fold` to the State in a slot, or to a new one. Returns whether the Tab's type is new.
fn change(
    CacheEntry { tab_type: known, slot, .. }: CacheEntry<'_>,
    tab_type: &TabType,
    handler: &Guarded,
    is_careful: bool,
    fold: impl FnOnce(&mut DecodedState) -> Result<FoldOutcome, FoldRefusal>,
) -> Result<(bool, FoldOutcome), FoldRefusal> {
    if known.as_ref().is_some_and(|known| known != tab_type) {
        return Err(Why::TypeConflict.into());
    }
    let outcome = match slot {
        CachedSlot::Unreadable(why) => return Err((*why).into()),
        // Batches with such Blocks are not folded at all: this is a note of the Ledger.
        CachedSlot::Newer { .. } => return Err(Why::UnknownVersion.into()),
        CachedSlot::Live(live) if live.tab_type != *tab_type => return Err(Why::TypeConflict.into()),
        CachedSlot::Live(live) if is_careful => {
            let before = live.copy()?;
            let outcome = try_out(live, fold);
            if outcome.is_err() {
                **live = before;
            }
            outcome?
        }
        CachedSlot::Live(live) => fold(live)?,
        CachedSlot::Unknown | CachedSlot::Packed(_) | CachedSlot::Absent => {
            let mut live = DecodedState::empty(tab_type.clone(), handler.clone())?;
            let outcome = if is_careful { try_out(&mut live, fold)? } else { fold(&mut live)? };
            if outcome.folded > 0 {
                *slot = CachedSlot::Live(Box::new(live));
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

/// Folds, and checks that the result can be stored, and read again.
fn try_out(
    live: &mut DecodedState,
    fold: impl FnOnce(&mut DecodedState) -> Result<FoldOutcome, FoldRefusal>,
) -> Result<FoldOutcome, FoldRefusal> {
    let outcome = fold(live)?;
    live.check()?;
    Ok(outcome)
}
