//! Merging what was never sent: while Servers are away, what waits for them grows by Tabs, not by time.
//!
//! It is the fold that the Servers would do, done early by the same Handlers; the laws make it the same to the last bit.
//! What cannot be folded here (a type that nobody registered, a value that a Server will refuse and count, a time that a
//! Server may not believe) is left as it came.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use taba_core::limits::{BLOCK_BYTES_MAX, BLOCK_FOLDED_EVENTS_MAX};
use taba_core::wire::{Block, Content};
use taba_core::{AnyHandler, AnyState, Arrival, ClientId, Registry, TabName, TabType, Timestamp};

/// One State to be made of several Blocks.
struct Merged {
    state: AnyState,
    events: u64,
    earliest: Timestamp,
    latest: Timestamp,
}

/// Blocks that say the same in fewer: those of one Client, Tab and type become one partial State. `believed` is the
/// latest time that a Server would certainly take as it is.
///
/// # Cost
/// What folding the Blocks costs, and one encoded State for each Client and Tab.
pub fn merge(blocks: Vec<Block>, handlers: &Registry, believed: Timestamp) -> Vec<Block> {
    let mut groups: BTreeMap<(TabName, ClientId, TabType), Vec<Block>> = BTreeMap::new();
    for block in blocks {
        groups
            .entry((block.tab.clone(), block.client.clone(), block.tab_type.clone()))
            .or_default()
            .push(block);
    }
    let mut out = Vec::new();
    for ((_, _, tab_type), blocks) in groups {
        match handlers.get(tab_type.as_str()) {
            Some(handler) if blocks.len() > 1 => out.extend(merge_group(blocks, handler.as_ref(), believed)),
            Some(_) | None => out.extend(blocks),
        }
    }
    out
}

/// The Blocks of one Client, Tab and type: one State, and what is left as it came.
fn merge_group(blocks: Vec<Block>, handler: &dyn AnyHandler, believed: Timestamp) -> Vec<Block> {
    let mut merged: Option<(Merged, Vec<Block>)> = None;
    let mut left = Vec::new();
    for block in blocks {
        let events = merged.as_ref().map_or(0, |(merged, _)| merged.events).saturating_add(block.events);
        if block.latest > believed || events > BLOCK_FOLDED_EVENTS_MAX {
            left.push(block);
            continue;
        }
        // A Handler that panics breaks its laws; a Server will find out and count it.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let state = open(&block, handler)?;
            match &mut merged {
                None => Some(Some(state)),
                Some((merged, _)) => {
                    handler.merge(&mut merged.state, &state);
                    Some(None)
                }
            }
        }));
        match opened {
            Ok(Some(first)) => {
                if let Some(state) = first {
                    let Block { events, earliest, latest, .. } = block;
                    merged = Some((Merged { state, events, earliest, latest }, vec![block]));
                } else if let Some((merged, sources)) = &mut merged {
                    merged.events = events;
                    merged.earliest = merged.earliest.min(block.earliest);
                    merged.latest = merged.latest.max(block.latest);
                    sources.push(block);
                }
            }
            Ok(None) => left.push(block),
            // What the panic left in the State is unknown: nothing of this group is merged.
            Err(_) => {
                left.extend(merged.take().into_iter().flat_map(|(_, sources)| sources));
                left.push(block);
            }
        }
    }
    if let Some((merged, sources)) = merged {
        match close(&merged, &sources, handler) {
            Some(block) => left.push(block),
            None => left.extend(sources),
        }
    }
    left
}

/// The State of one Block; `None` when not all of it can be folded.
fn open(block: &Block, handler: &dyn AnyHandler) -> Option<AnyState> {
    match &block.content {
        Content::Events(columns) => {
            let mut state = handler.empty_state();
            let count = usize::try_from(block.events).ok()?;
            let folded = handler.fold_columns(&mut state, columns, count, Arrival::ANY).ok()?;
            (folded.refused == 0).then_some(state)
        }
        Content::State { version, bytes } => handler.decode(*version, bytes).ok(),
        Content::Withheld { .. } => None,
    }
}

/// The Block of a State; `None` when it is no smaller than its sources, or too large.
fn close(merged: &Merged, sources: &[Block], handler: &dyn AnyHandler) -> Option<Block> {
    let bytes: Bytes = catch_unwind(AssertUnwindSafe(|| handler.encode(&merged.state))).ok()?.into();
    let first = sources.first()?;
    let block = Block {
        tab: first.tab.clone(),
        client: first.client.clone(),
        tab_type: first.tab_type.clone(),
        events: merged.events,
        earliest: merged.earliest,
        latest: merged.latest,
        content: Content::State { version: handler.version(), bytes },
    };
    let before: usize = sources.iter().map(Block::encoded_bytes).sum();
    let is_better = block.encoded_bytes() < before.min(BLOCK_BYTES_MAX);
    is_better.then_some(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::Events;
    use taba_handlers::standard;

    use super::*;

    fn block(tab: &str, client: &str, tab_type: &str, values: &[f64]) -> Block {
        let times: Vec<_> = (0..values.len() as i64).map(Timestamp::from_secs).collect();
        let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
        Block::of_events(tab, client, TabType::new(tab_type).unwrap(), Events::new(&times, values)).unwrap()
    }

    /// What a Server makes of these Blocks: the encoded State of each (Client, Tab).
    fn folded(blocks: &[Block]) -> BTreeMap<(ClientId, TabName), (u64, Vec<u8>)> {
        let handlers = standard().build().unwrap();
        let mut states: BTreeMap<_, (u64, AnyState)> = BTreeMap::new();
        for block in blocks {
            let handler = handlers.get(block.tab_type.as_str()).unwrap();
            let into = states
                .entry((block.client.clone(), block.tab.clone()))
                .or_insert_with(|| (0, handler.empty_state()));
            into.0 += block.events;
            handler.merge(&mut into.1, &open(block, handler.as_ref()).unwrap());
        }
        let encode = |state: &AnyState| handlers.get("CounterGroup").unwrap().encode(state);
        states.into_iter().map(|(key, (events, state))| (key, (events, encode(&state)))).collect()
    }

    #[test]
    fn what_cannot_be_folded_is_left_as_it_came() {
        let handlers = standard().build().unwrap();
        let unknown = [block("a", "c", "Mine", &[1.0]), block("a", "c", "Mine", &[2.0])];
        assert_eq!(merge(unknown.to_vec(), &handlers, Timestamp::MAX), unknown);
        let mut wrong = block("a", "c", "TotalsCounter", &[1.0]);
        wrong.content = Content::Events(Bytes::from_static(b"nonsense"));
        let values: Vec<_> = (0..90).map(|n| f64::from(n) * 0.37).collect();
        let good = vec![block("a", "c", "TotalsCounter", &values); 3];
        let mut blocks = good.clone();
        blocks.insert(1, wrong.clone());
        let merged = merge(blocks, &handlers, Timestamp::MAX);
        assert_eq!(merged.len(), 2);
        assert_eq!((&merged[0], merged[1].events), (&wrong, 270));
        let late = block("a", "c", "TotalsCounter", &values);
        let merged = merge(vec![late.clone(), late.clone(), late], &handlers, Timestamp::from_secs(88));
        assert_eq!(merged.len(), 3, "a server may set these times back");
    }

    proptest! {
        #[test]
        fn merged_is_the_same_to_the_last_bit(
            blocks in prop::collection::vec((0..3_u8, 0..2_u8, prop::collection::vec(-1e9..1e9, 1..40)), 1..30),
            twice in any::<bool>(),
        ) {
            let handlers = standard().build().unwrap();
            let blocks: Vec<_> = blocks
                .into_iter()
                .map(|(tab, client, values)| block(&format!("t{tab}"), &format!("c{client}"), "CounterGroup", &values))
                .collect();
            let mut merged = merge(blocks.clone(), &handlers, Timestamp::MAX);
            if twice {
                merged.extend(blocks.iter().cloned());
                merged = merge(merged, &handlers, Timestamp::MAX);
            }
            let expected = if twice { [blocks.clone(), blocks.clone()].concat() } else { blocks };
            prop_assert_eq!(folded(&merged), folded(&expected));
            let bytes = |blocks: &[Block]| blocks.iter().map(Block::encoded_bytes).sum::<usize>();
            prop_assert!(bytes(&merged) <= bytes(&expected));
        }
    }
}
