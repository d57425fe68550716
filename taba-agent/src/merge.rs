//! Merges unsent Blocks: while Servers are unavailable, the Spool grows by Tabs, not by time.
//!
//! It is the Servers' fold, done early by the same Handlers; the laws make the result the same to the last bit. What
//! cannot be folded here (an unregistered type, a value that a Server will refuse, a time that a Server may clamp, a State
//! that may take too much memory) stays as it came, and so does what would merge into a State that cannot be read.

use std::collections::BTreeMap;

use bytes::Bytes;
use taba_core::guard::guard;
use taba_core::limits::{BATCH_EVENTS_MAX, BLOCK_BYTES_MAX, BLOCK_FOLDED_EVENTS_MAX};
use taba_core::wire::{Block, Content};
use taba_core::{
    AnyState, Arrival, ClientId, Guarded, HandlerError, Panicked, Registry, TabName, TabType, Timestamp,
};

use crate::sabotage::{MERGING, panic_in};

/// Bytes of memory that one State may come to when it is decoded, by what its Handler
/// [says](taba_core::Handler::decoded_bytes_max). Two are in memory at a time.
const DECODED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One State to be made of several Blocks.
struct Merged {
    state: AnyState,
    events: u64,
    earliest: Timestamp,
    latest: Timestamp,
}

/// The result of merging Blocks.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Merging {
    /// The Blocks, merged as far as possible.
    pub blocks: Vec<Block>,
    /// Panics of a Handler. Their Blocks stay as they came: a Server finds out, and counts their events.
    pub panics: u64,
}

/// Events that are folded one by one at a time; Blocks beyond stay as they came. Many events in few bytes gain nothing by a merge, and
/// everything else at the Agent waits meanwhile.
const EVENTS_MAX: u64 = 4 * BATCH_EVENTS_MAX;

/// Merges Blocks: those of one Client, Tab and type become one partial State. `believed` is the latest time that a
/// Server would certainly accept unchanged.
///
/// # Cost
/// What folding the Blocks costs, of at most 1,048,576 events that are not in States yet, and one encoded State for each Client and Tab.
pub fn merge(blocks: Vec<Block>, handlers: &Registry, believed: Timestamp) -> Merging {
    let mut groups: BTreeMap<(TabName, ClientId, TabType), Vec<Block>> = BTreeMap::new();
    for block in blocks {
        groups
            .entry((block.tab.clone(), block.client.clone(), block.tab_type.clone()))
            .or_default()
            .push(block);
    }
    let (mut out, mut budget) = (Merging::default(), EVENTS_MAX);
    for ((_, _, tab_type), blocks) in groups {
        match handlers.guarded(tab_type.as_str()) {
            Some(handler) if blocks.len() > 1 => {
                merge_group(blocks, &handler, believed, &mut budget, &mut out);
            }
            Some(_) | None => out.blocks.extend(blocks),
        }
    }
    out
}

/// Merges the Blocks of one Client, Tab and type into one State; others stay as they came. `budget` is how many events may still be
/// folded one by one.
fn merge_group(
    blocks: Vec<Block>,
    handler: &Guarded,
    believed: Timestamp,
    budget: &mut u64,
    out: &mut Merging,
) {
    let mut group: Option<(Merged, Vec<Block>)> = None;
    for block in blocks {
        let events = group.as_ref().map_or(0, |(merged, _)| merged.events).saturating_add(block.events);
        let unfolded = block.unfolded_events();
        if block.latest > believed || events > BLOCK_FOLDED_EVENTS_MAX || unfolded > *budget {
            out.blocks.push(block);
            continue;
        }
        *budget -= unfolded;
        let added = open(&block, handler).and_then(|state| match (state, &mut group) {
            (None, _) => Ok(false),
            (Some(state), Some((merged, _))) => handler.merge(&mut merged.state, &state).map(|()| true),
            (Some(state), None) => {
                let Block { events, earliest, latest, .. } = block;
                group = Some((Merged { state, events, earliest, latest }, Vec::new()));
                Ok(true)
            }
        });
        match (added, &mut group) {
            (Ok(true), Some((merged, sources))) => {
                merged.events = events;
                merged.earliest = merged.earliest.min(block.earliest);
                merged.latest = merged.latest.max(block.latest);
                sources.push(block);
            }
            (Ok(_), _) => out.blocks.push(block),
            // After the panic the State may be inconsistent: nothing of this group is merged so far.
            (Err(_), _) => {
                out.panics += 1;
                out.blocks.extend(group.take().into_iter().flat_map(|(_, sources)| sources));
                out.blocks.push(block);
            }
        }
    }
    if let Some((merged, sources)) = group {
        let closed = close(&merged, &sources, handler);
        out.panics += u64::from(closed.is_err());
        match closed {
            Ok(Some(block)) => out.blocks.push(block),
            Ok(None) | Err(_) => out.blocks.extend(sources),
        }
    }
}

/// The State of one Block; `None` when it cannot be folded completely.
fn open(block: &Block, handler: &Guarded) -> Result<Option<AnyState>, Panicked> {
    guard("fold", || panic_in(MERGING))?;
    match &block.content {
        Content::Events(columns) => {
            let mut state = handler.empty_state()?;
            let Ok(count) = usize::try_from(block.events) else { return Ok(None) };
            let folded = unless_panicked(handler.fold_columns(&mut state, columns, count, Arrival::ANY))?;
            Ok(folded.filter(|folded| folded.refused == 0).map(|_| state))
        }
        Content::State { bytes, .. } if handler.decoded_bytes_max(bytes.len())? > DECODED_BYTES_MAX => {
            Ok(None)
        }
        Content::State { version, bytes } => unless_panicked(handler.decode(*version, bytes)),
        Content::Withheld { .. } => Ok(None),
    }
}

/// A Handler's result; `None` when it refused.
fn unless_panicked<T>(result: Result<T, HandlerError>) -> Result<Option<T>, Panicked> {
    match result {
        Ok(given) => Ok(Some(given)),
        Err(HandlerError::Panicked(panicked)) => Err(panicked),
        Err(_) => Ok(None),
    }
}

/// The Block of a State; `None` when it is too large, or no smaller than its sources, or could not be read again.
fn close(merged: &Merged, sources: &[Block], handler: &Guarded) -> Result<Option<Block>, Panicked> {
    let Some(bytes) = unless_panicked(handler.encode_readable(&merged.state))? else { return Ok(None) };
    let (bytes, Some(first)) = (Bytes::from(bytes), sources.first()) else { return Ok(None) };
    let block = Block::new(
        first.tab.clone(),
        first.client.clone(),
        first.tab_type.clone(),
        merged.events,
        merged.earliest..=merged.latest,
        Content::State { version: handler.version(), bytes },
    );
    let before: usize = sources.iter().map(Block::encoded_bytes).sum();
    let is_better = block.encoded_bytes() < before.min(BLOCK_BYTES_MAX);
    Ok(is_better.then_some(block))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use taba_core::limits::BLOCK_EVENTS_MAX;
    use taba_core::{Event, Events, Handler};
    use taba_handlers::standard;

    use super::*;

    fn block(tab: &str, client: &str, tab_type: &str, values: &[f64]) -> Block {
        let times: Vec<_> = (0..values.len() as i64).map(Timestamp::from_secs).collect();
        let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new(client).unwrap());
        Block::of_events(tab, client, TabType::new(tab_type).unwrap(), Events::new(&times, values)).unwrap()
    }

    /// A Server's result for these Blocks: the encoded State of each (Client, Tab).
    fn folded(blocks: &[Block]) -> BTreeMap<(ClientId, TabName), (u64, Vec<u8>)> {
        let handlers = standard().build().unwrap();
        let mut states: BTreeMap<_, (u64, AnyState)> = BTreeMap::new();
        for block in blocks {
            let handler = handlers.get(block.tab_type.as_str()).unwrap();
            let into = states
                .entry((block.client.clone(), block.tab.clone()))
                .or_insert_with(|| (0, handler.empty_state()));
            into.0 += block.events;
            handler.merge(&mut into.1, &open(block, &Guarded::new(handler.clone())).unwrap().unwrap());
        }
        let encode = |state: &AnyState| handlers.get("CounterGroup").unwrap().encode(state);
        states.into_iter().map(|(key, (events, state))| (key, (events, encode(&state)))).collect()
    }

    #[test]
    fn few_bytes_of_many_events_are_not_much_work() {
        let (times, values) = (vec![Timestamp::from_secs(1); BLOCK_EVENTS_MAX], vec![1.0; BLOCK_EVENTS_MAX]);
        let full = |n: usize| {
            let (tab, client) = (TabName::new(&format!("tab{n}")).unwrap(), ClientId::new("c").unwrap());
            Block::of_events(
                tab,
                client,
                TabType::new("TotalsCounter").unwrap(),
                Events::new(&times, &values),
            )
            .unwrap()
        };
        let blocks: Vec<_> = (0..100).map(|n| full(n % 2)).collect();
        let merged = merge(blocks.clone(), &standard().build().unwrap(), Timestamp::MAX).blocks;
        let events = |blocks: &[Block]| blocks.iter().map(|block| block.events).sum::<u64>();
        assert_eq!((merged.len(), events(&merged)), (85, events(&blocks)), "16 Blocks are one State");
    }

    #[test]
    fn what_cannot_be_folded_is_left_as_it_came() {
        let handlers = standard().build().unwrap();
        let unknown = [block("a", "c", "Mine", &[1.0]), block("a", "c", "Mine", &[2.0])];
        assert_eq!(merge(unknown.to_vec(), &handlers, Timestamp::MAX).blocks, unknown);
        let mut wrong = block("a", "c", "TotalsCounter", &[1.0]);
        wrong.content = Content::Events(Bytes::from_static(b"nonsense"));
        let values: Vec<_> = (0..90).map(|n| f64::from(n) * 0.37).collect();
        let good = vec![block("a", "c", "TotalsCounter", &values); 3];
        let mut blocks = good.clone();
        blocks.insert(1, wrong.clone());
        let merged = merge(blocks, &handlers, Timestamp::MAX).blocks;
        assert_eq!(merged.len(), 2);
        assert_eq!((&merged[0], merged[1].events), (&wrong, 270));
        let late = block("a", "c", "TotalsCounter", &values);
        let merged =
            merge(vec![late.clone(), late.clone(), late], &handlers, Timestamp::from_secs(88)).blocks;
        assert_eq!(merged.len(), 3, "a server may set these times back");
    }

    #[test]
    fn states_of_a_newer_version_are_left_as_they_came() {
        let handlers = standard().build().unwrap();
        let values: Vec<_> = (0..90).map(|n| f64::from(n) * 0.37).collect();
        let known = block("a", "c", "TotalsCounter", &values);
        let version = handlers.get("TotalsCounter").unwrap().version() + 1;
        let bytes = Bytes::from_static(&[0; 9]);
        let newer = known.clone().with_content(Content::State { version, bytes });
        let blocks = vec![newer.clone(), known.clone(), newer.clone(), known.clone(), newer.clone()];
        let merged = merge(blocks, &handlers, Timestamp::MAX).blocks;
        let of_newer = merged.iter().filter(|block| **block == newer).count();
        assert_eq!((merged.len(), of_newer), (4, 3), "only the two that are known are merged");
        assert_eq!(merged.iter().find(|block| **block != newer).unwrap().events, 180);
    }

    /// Sums numbers, and panics on request.
    #[derive(Clone, Copy, Default)]
    struct Panics {
        in_merge: bool,
        in_encode: bool,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct PanicsState {
        n: u64,
        #[serde(serialize_with = "serialized")]
        is_bad: bool,
    }

    fn serialized<S: serde::Serializer>(is_bad: &bool, to: S) -> Result<S::Ok, S::Error> {
        assert!(!is_bad, "the deliberate fault in encode");
        to.serialize_bool(*is_bad)
    }

    impl Handler for Panics {
        type Value = f64;
        type State = PanicsState;
        type Projection = PanicsState;
        const VERSION: u16 = 1;
        fn fold(&self, state: &mut PanicsState, _: Event<&f64>) {
            *state = PanicsState { n: state.n + 1, is_bad: self.in_encode };
        }
        fn merge(&self, into: &mut PanicsState, other: &PanicsState) {
            assert!(!self.in_merge, "the deliberate fault in merge");
            into.n += other.n;
        }
        fn project(&self, state: &PanicsState, _: Timestamp) -> PanicsState {
            state.clone()
        }
        fn aggregate(&self, into: &mut PanicsState, other: &PanicsState) {
            into.n += other.n;
        }
        fn encoded_bytes_max(&self) -> usize {
            11
        }
    }

    #[test]
    fn a_handler_that_panics_is_counted_and_costs_its_own_tab_only() {
        let handlers = standard()
            .with("InMerge", Panics { in_merge: true, ..Panics::default() })
            .with("InEncode", Panics { in_encode: true, ..Panics::default() })
            .build()
            .unwrap();
        let values: Vec<_> = (0..90).map(f64::from).collect();
        let of = |tab: &str, tab_type: &str| vec![block(tab, "c", tab_type, &values); 2];
        let (bad, worse) = (of("a", "InMerge"), of("b", "InEncode"));
        let all = [bad.clone(), of("good", "TotalsCounter"), worse.clone()].concat();
        let Merging { blocks, panics } = merge(all, &handlers, Timestamp::MAX);
        assert_eq!(panics, 2);
        assert_eq!((&blocks[..2], &blocks[2..4]), (&bad[..], &worse[..]));
        assert_eq!((blocks.len(), blocks[4].events), (5, 180));
    }

    /// A State of three bytes that says it may take 11 MiB for each, and reads what it holds up to 200 only.
    struct Heavy;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(try_from = "(u8, u16)", into = "(u8, u16)")]
    struct UpTo200(u16);

    impl TryFrom<(u8, u16)> for UpTo200 {
        type Error = &'static str;
        fn try_from((_, count): (u8, u16)) -> Result<Self, Self::Error> {
            if count <= 200 { Ok(Self(count)) } else { Err("more than 200") }
        }
    }

    impl From<UpTo200> for (u8, u16) {
        fn from(state: UpTo200) -> Self {
            (0, state.0)
        }
    }

    impl Handler for Heavy {
        type Value = f64;
        type State = UpTo200;
        type Projection = u16;
        const VERSION: u16 = 1;
        fn fold(&self, state: &mut UpTo200, _: Event<&f64>) {
            state.0 += 1;
        }
        fn merge(&self, into: &mut UpTo200, other: &UpTo200) {
            into.0 += other.0;
        }
        fn project(&self, state: &UpTo200, _: Timestamp) -> u16 {
            state.0
        }
        fn aggregate(&self, into: &mut u16, other: &u16) {
            *into += other;
        }
        fn encoded_bytes_max(&self) -> usize {
            4
        }
        fn decoded_bytes_max(&self, encoded_bytes: usize) -> usize {
            encoded_bytes * (11 << 20)
        }
    }

    #[test]
    fn states_that_may_take_much_memory_or_could_not_be_read_again_stay_as_they_came() {
        let handlers = standard().with("Heavy", Heavy).build().unwrap();
        let state = |count: u16| {
            let bytes = taba_core::encode_state(&UpTo200(count)).into();
            block("a", "c", "Heavy", &vec![1.0; count.into()])
                .with_content(Content::State { version: 1, bytes })
        };
        let merged = |counts: &[u16]| {
            let blocks: Vec<_> = counts.iter().map(|&count| state(count)).collect();
            let Merging { blocks: merged, panics } = merge(blocks.clone(), &handlers, Timestamp::MAX);
            assert_eq!(panics, 0);
            if merged == blocks {
                None
            } else {
                Some(merged.iter().map(|block| block.events).collect::<Vec<_>>())
            }
        };
        assert_eq!(merged(&[100, 50]), Some(vec![150]), "two bytes each");
        assert_eq!(merged(&[101, 100]), None, "their sum could not be read again");
        // Three bytes: 33 MiB.
        assert_eq!(merged(&[150, 150]), None, "they may take too much memory");
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
            let mut merged = merge(blocks.clone(), &handlers, Timestamp::MAX).blocks;
            if twice {
                merged.extend(blocks.iter().cloned());
                merged = merge(merged, &handlers, Timestamp::MAX).blocks;
            }
            let expected = if twice { [blocks.clone(), blocks.clone()].concat() } else { blocks };
            prop_assert_eq!(folded(&merged), folded(&expected));
            let bytes = |blocks: &[Block]| blocks.iter().map(Block::encoded_bytes).sum::<usize>();
            prop_assert!(bytes(&merged) <= bytes(&expected));
        }
    }
}
