//! Checks a client Batch: which Blocks are accepted, and which refused and counted.
//!
//! A bad Block does not affect the rest of its Batch: it alone is refused, reported in the Receipt, and its events
//! are counted in the Ledger under its Client, in Blocks of the same Batch.

use std::collections::BTreeMap;

use taba_core::ledger::{self, Where, Why};
use taba_core::limits::BLOCK_FOLDED_EVENTS_MAX;
use taba_core::wire::{BadBlock, Block, ClientBatch, Content, Reader, Refusal, column};
use taba_core::{ClientId, SpreadRules, Timestamp, VBucket, VBuckets};

/// The largest number of events that a note can tell exactly.
const EVENTS_MAX: f64 = 9_007_199_254_740_992.0;

/// A checked client Batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Intake {
    /// The good Blocks in order, then the Ledger's notes about the others.
    pub blocks: Vec<(VBucket, Block)>,
    /// The refused Blocks, by index in the Batch.
    pub refused: Vec<Refusal>,
}

/// Where Blocks go: how many VBuckets there are, and which Tabs are spread over several.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BlockPlaces {
    /// How many VBuckets the deployment has.
    pub vbuckets: VBuckets,
    /// What Servers said last. Whatever it is, each Block finds its Tab: rules only keep one VBucket from getting all.
    pub spread: SpreadRules,
}

impl BlockPlaces {
    /// Without rules: each Tab has one VBucket.
    pub const fn new(vbuckets: VBuckets, spread: SpreadRules) -> Self {
        Self { vbuckets, spread }
    }

    /// The VBucket of a Block; notes of the Ledger, which may lie anywhere, go by their Client.
    pub fn of(&self, block: &Block) -> VBucket {
        if block.tab.is_reserved() {
            self.vbuckets.of_client(&block.client)
        } else {
            self.vbuckets.place(&block.tab, &block.client, self.spread.spread(&block.tab))
        }
    }

    /// Whether a Block may lie in this VBucket, under any rules.
    pub fn is_place(&self, block: &Block, vbucket: VBucket) -> bool {
        block.tab.is_reserved() || self.vbuckets.spread_at(&block.tab, &block.client, vbucket).is_some()
    }
}

/// Checks every Block of a Batch. `bad` are those that the decoder refused.
pub fn sort_out(places: &BlockPlaces, now: Timestamp, batch: &ClientBatch, bad: &[BadBlock]) -> Intake {
    let mut refused: Vec<Refusal> =
        bad.iter().map(|bad| Refusal::new(bad.block, bad.why(), bad.events)).collect();
    let mut dropped: BTreeMap<Why, u64> = BTreeMap::new();
    for refusal in &refused {
        add(&mut dropped, refusal);
    }
    let mut blocks = Vec::with_capacity(batch.blocks.len());
    // The decoder removed the bad Blocks; the index of a good one is reduced by the number of bad ones before it.
    let mut bad_places = bad.iter().map(|bad| bad.block).peekable();
    let mut place = 0;
    for block in &batch.blocks {
        while bad_places.next_if_eq(&place).is_some() {
            place += 1;
        }
        match check(&batch.client, block) {
            Ok(()) => blocks.push((places.of(block), block.clone())),
            Err(why) => {
                let refusal = Refusal::new(place, why, block.events);
                // The Ledger's own notes never count as recorded, so not as dropped either.
                if !block.tab.is_reserved() {
                    add(&mut dropped, &refusal);
                }
                refused.push(refusal);
            }
        }
        place += 1;
    }
    refused.sort_by_key(|refusal| refusal.block);
    // Where nobody has that name, nobody gets a note.
    let dropped = if batch.client.is_reserved() { BTreeMap::new() } else { dropped };
    let notes = dropped.into_iter().map(|(why, events)| {
        Block::note(ledger::dropped_tab(Where::Agent, why), batch.client.clone(), now, events)
    });
    blocks.extend(notes.map(|note| (places.of(&note), note)));
    Intake { blocks, refused }
}

fn add(dropped: &mut BTreeMap<Why, u64>, refusal: &Refusal) {
    let events = dropped.entry(refusal.why).or_default();
    *events = events.saturating_add(refusal.events);
}

fn check(client: &ClientId, block: &Block) -> Result<(), Why> {
    if block.client != *client || !ledger::may_write(Where::Client, &block.tab, client) {
        return Err(Why::BadName);
    }
    if block.tab.is_reserved() {
        return check_note(block);
    }
    match block.content {
        Content::State { .. } if block.events > BLOCK_FOLDED_EVENTS_MAX => Err(Why::BadValue),
        Content::State { .. } | Content::Events(_) => Ok(()),
        // Only Agents withhold Blocks.
        Content::Withheld { .. } => Err(Why::Undecodable),
    }
}

/// A note of a Client is of numbers of events, as they are, so that its sum is one.
fn check_note(block: &Block) -> Result<(), Why> {
    if block.tab_type.as_str() != ledger::TAB_TYPE {
        return Err(Why::BadName);
    }
    let (Content::Events(bytes), Ok(count)) = (&block.content, usize::try_from(block.events)) else {
        return Err(Why::BadValue);
    };
    let mut reader = Reader::new(bytes);
    let numbers = column::times(&mut reader, count).and_then(|_| column::numbers(&mut reader, count));
    let is_count = |number: &f64| (0.0..=EVENTS_MAX).contains(number) && number.fract() == 0.0;
    let numbers = numbers.map_err(|_| Why::Undecodable)?;
    if numbers.iter().all(is_count) { Ok(()) } else { Err(Why::BadValue) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use taba_core::wire::{Reader, column};
    use taba_core::{Events, NameError, SeqNo, Spread, SpreadTabs, TabName, TabType};

    use super::*;

    fn block(client: &str, tab: &str, tab_type: &str) -> Block {
        let (tab, tab_type) = (TabName::new(tab).unwrap(), TabType::new(tab_type).unwrap());
        let times = [Timestamp::from_secs(1); 3];
        Block::of_events(tab, ClientId::new(client).unwrap(), tab_type, Events::new(&times, &[1.0; 3]))
            .unwrap()
    }

    fn batch(blocks: Vec<Block>) -> ClientBatch {
        let client = ClientId::new("web").unwrap();
        ClientBatch::new(client, 1, SeqNo(1), Timestamp::default(), blocks)
    }

    fn sorted(blocks: Vec<Block>, bad: &[BadBlock]) -> Intake {
        sort_out(&BlockPlaces::default(), Timestamp::from_secs(9), &batch(blocks), bad)
    }

    fn noted(block: &Block) -> f64 {
        let Content::Events(bytes) = &block.content else { panic!("a note is an event") };
        let mut reader = Reader::new(bytes);
        assert_eq!(column::times(&mut reader, 1).unwrap(), [Timestamp::from_secs(9)]);
        column::numbers(&mut reader, 1).unwrap()[0]
    }

    #[test]
    fn a_good_batch_passes_as_it_is() {
        let blocks =
            vec![block("web", "bids", "CounterGroup"), block("web", "taba.recorded", "TotalsCounter")];
        let intake = sorted(blocks.clone(), &[]);
        assert_eq!(intake.blocks.iter().map(|(_, block)| block.clone()).collect::<Vec<_>>(), blocks);
        assert!(intake.blocks.iter().all(|(vbucket, block)| *vbucket == BlockPlaces::default().of(block)));
        assert_eq!(intake.refused, []);
    }

    #[test]
    fn a_state_may_be_of_as_many_events_as_the_bound_says() {
        let content = Content::State { version: 1, bytes: Bytes::new() };
        let of = |events| {
            let mut block = block("web", "c", "X");
            block.events = events;
            block.content = content.clone();
            block
        };
        assert_eq!(sorted(vec![of(BLOCK_FOLDED_EVENTS_MAX)], &[]).refused, []);
        assert_eq!(sorted(vec![of(BLOCK_FOLDED_EVENTS_MAX + 1)], &[]).refused.len(), 1);
    }

    #[test]
    fn refused_blocks_keep_their_places_and_are_counted_once_per_reason() {
        let mut huge = block("web", "c", "X");
        huge.events = BLOCK_FOLDED_EVENTS_MAX + 1;
        huge.content = Content::State { version: 1, bytes: Bytes::new() };
        let bad = [
            BadBlock::new(0, 10, NameError::Empty { what: "tab name" }.into()),
            BadBlock::new(2, 20, NameError::Empty { what: "tab name" }.into()),
        ];
        let blocks = vec![block("web", "a", "X"), block("other", "b", "X"), huge];
        let intake = sorted(blocks, &bad);
        let refusal = |block, why, events| Refusal::new(block, why, events);
        let expected = [
            refusal(0, Why::BadName, 10),
            refusal(2, Why::BadName, 20),
            refusal(3, Why::BadName, 3),
            refusal(4, Why::BadValue, BLOCK_FOLDED_EVENTS_MAX + 1),
        ];
        assert_eq!(intake.refused, expected);
        let tabs: Vec<_> = intake.blocks.iter().map(|(_, block)| block.tab.as_str()).collect();
        assert_eq!(
            tabs,
            ["a", "taba.dropped;where=agent;why=bad_name", "taba.dropped;where=agent;why=bad_value"]
        );
        assert_eq!(noted(&intake.blocks[1].1), 33.0);
        assert!(intake.blocks.iter().all(|(_, block)| block.client.as_str() == "web"));
    }

    #[test]
    fn a_client_cannot_write_what_others_write_in_the_ledger() {
        for tab in ["taba.deleted", "taba.dropped;where=server;why=full", "taba.dropped", "taba.mine"] {
            let intake = sorted(vec![block("web", tab, "TotalsCounter")], &[]);
            assert_eq!(intake.refused, [Refusal::new(0, Why::BadName, 3)], "{tab}");
            assert_eq!(intake.blocks, [], "nothing was recorded, so nothing was dropped");
        }
        assert_eq!(sorted(vec![block("web", "taba.recorded", "Gauge")], &[]).refused.len(), 1);
        assert_eq!(
            sorted(vec![block("web", "taba.dropped;where=client;why=full", "TotalsCounter")], &[]).refused,
            []
        );
    }

    /// Each Client has notes; all in one VBucket they would be the first thing that does not grow.
    #[test]
    fn notes_of_many_clients_do_not_meet_in_one_vbucket() {
        let vbuckets = VBuckets::default();
        let mut notes = vec![0; usize::from(vbuckets.count())];
        for n in 0..10_000 {
            let client = ClientId::new(&format!("host-{n}")).unwrap();
            let block = Block::note(ledger::tab(ledger::RECORDED), client.clone(), Timestamp::default(), 5);
            let batch = ClientBatch::new(client, 1, SeqNo(1), Timestamp::default(), vec![block]);
            let intake = sort_out(&BlockPlaces::default(), Timestamp::default(), &batch, &[]);
            intake.blocks.iter().for_each(|(vbucket, _)| notes[usize::from(vbucket.index())] += 1);
        }
        assert!(notes.iter().all(|count| *count < 40), "about ten each: {notes:?}");
    }

    #[test]
    fn a_tab_that_is_spread_goes_by_client_and_its_notes_as_ever() {
        let tabs = SpreadTabs::Name(TabName::new("hot").unwrap());
        let mut rules = SpreadRules::default();
        rules.set(&tabs, Spread::new(8).unwrap(), 1);
        let places = BlockPlaces::new(VBuckets::default(), rules);
        let mut used = BTreeMap::new();
        for n in 0..100 {
            let client = format!("host-{n}");
            for tab in ["hot", "cold", "taba.recorded"] {
                let block = block(&client, tab, "TotalsCounter");
                let place = places.of(&block);
                assert!(places.is_place(&block, place));
                let unspread = BlockPlaces::default().of(&block);
                assert!(tab == "hot" || place == unspread, "{tab}");
                assert!(places.is_place(&block, unspread), "what an earlier run has cut is right: {tab}");
                used.entry(tab).or_insert_with(BTreeSet::new).insert(place);
            }
        }
        assert_eq!((used["hot"].len(), used["cold"].len()), (8, 1));
    }
}
