//! Blocks that no Server accepts are set aside, so that their Batch and Lane continue; Batches that are too large are
//! cut again.
//!
//! The content of a Batch that may have been sent never changes, with one exception: a Block is replaced by a
//! [withheld](Content::Withheld) one, of the same Client and number of events. A Server folds one of the two
//! contents, whole and once, and moves the mark by the same number of events: each event of that Block is folded, or
//! counted as dropped (`where=agent;why=poison`), never both and never neither.

use std::collections::BTreeMap;

use taba_core::ledger::{self, Where, Why};
use taba_core::wire::{Block, Content, Reader};
use taba_core::{ClientId, SeqNo, TabName, Timestamp};

use super::{ClockReading, Relay};
use crate::dispatcher::PoisonBlocks;
use crate::lane::{HEAD_BYTES_MAX, LaneKey};
use crate::spool::record::{Fragment, Record};
use crate::spool::{Purpose, Spool};

/// Blocks removed from one Batch because no Server accepts them.
#[derive(Clone, Debug, PartialEq)]
pub struct SetAsideBlocks {
    /// The Lane.
    pub lane: LaneKey,
    /// The number of the Batch.
    pub seq: u64,
    /// The time of removal, by the Agent's clock.
    pub at: Timestamp,
    /// The original Blocks.
    pub blocks: Vec<Block>,
    /// The last error of Servers or proxies, for people.
    pub why: String,
    /// The Blocks of the Batch, with the removed ones withheld.
    replacement: Vec<u8>,
}

impl SetAsideBlocks {
    /// Their events, without the Ledger's own.
    pub fn events(&self) -> u64 {
        self.blocks.iter().filter(|block| !block.tab.is_reserved()).map(|block| block.events).sum()
    }
}

/// Counters of Blocks set aside since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAsideCounts {
    /// Batches with Blocks set aside.
    pub batches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// The last Block: its Tab, its Client, and the reason.
    pub last: Option<(TabName, ClientId, String)>,
}

impl<S: Spool> Relay<S> {
    /// Starts to remove Blocks from their Batch: first they are stored durably, then [`Relay::kept`] removes them.
    /// Until then the Batch is not sent; after a failure this is tried again at its next turn.
    pub(super) fn set_aside(&mut self, now: ClockReading, poison: PoisonBlocks) {
        let PoisonBlocks { batch, blocks: poison, why } = poison;
        let (key, seq) = (batch.lane, batch.seq);
        if self.keeping.contains(&key) {
            return;
        }
        let Some(lane) = self.dispatcher.get(key) else { return };
        // Blocks after these are notes of damage, and not in the log.
        let encoded = batch.each().into_iter().take(lane.blocks_written(seq));
        let (mut bytes, mut blocks) = (Vec::new(), Vec::new());
        for (place, block) in encoded.enumerate() {
            match poison.binary_search(&place).ok().and_then(|_| withhold(&block)) {
                None => bytes.extend_from_slice(&block),
                Some((before, withheld)) => {
                    withheld.encode(&mut bytes);
                    blocks.push(before);
                }
            }
        }
        if blocks.is_empty() {
            // All its Blocks are withheld already, so none is the cause, and it is tried again.
            return self.dispatcher.changed(key);
        }
        self.keeping.insert(key);
        self.aside.push(SetAsideBlocks {
            lane: key,
            seq: seq.0,
            at: now.time,
            blocks,
            why,
            replacement: bytes,
        });
    }

    /// The Blocks to set aside since the last call. Store each, then pass it to [`Relay::kept`], or on failure to
    /// [`Relay::not_kept`].
    pub fn take_set_aside(&mut self) -> Vec<SetAsideBlocks> {
        std::mem::take(&mut self.aside)
    }

    /// These Blocks are stored, or cannot be: removes them from their Batch, and counts them. Returns the position up
    /// to which the Spool must be [durable](Spool::durable) before they are certainly never sent. `None` when they
    /// stay in their Batch, because the Spool accepts nothing now; that is tried again.
    #[must_use = "the file of it is ready only then"]
    pub fn kept(&mut self, aside: &SetAsideBlocks) -> Option<u64> {
        let (key, seq) = (aside.lane, SeqNo(aside.seq));
        self.keeping.remove(&key);
        let lane = self.dispatcher.get(key)?;
        let (taken_at, fragment) = lane.plan_replacement(seq, aside.replacement.clone())?;
        let record = Record::Copy { stream: key.stream, taken_at, fragment: &fragment };
        let written = self.write(&record).ok()?;
        let (lane, place) = (self.dispatcher.get(key)?, written.locations.first()?);
        let before = lane.replace(fragment, *place, written.position);
        self.spool.moved(&before);
        self.dispatcher.changed(key);
        if let Some(last) = aside.blocks.last() {
            let counts = &mut self.set_aside_counts;
            counts.batches += 1;
            counts.blocks += aside.blocks.len() as u64;
            counts.events = counts.events.saturating_add(aside.events());
            counts.last = Some((last.tab.clone(), last.client.clone(), aside.why.clone()));
        }
        Some(written.position)
    }

    /// These Blocks could not be stored: they stay in their Batch until its next turn.
    pub fn not_kept(&mut self, aside: &SetAsideBlocks) {
        self.keeping.remove(&aside.lane);
    }

    /// A Server says that a Lane is not for its deployment. Batches that an earlier run cut for another number of
    /// VBuckets are cut again: no Server of this store has accepted or will ever accept a Batch that one calls
    /// misplaced, nor later ones of its Lane. Those cut for the current number stay: then the setting is wrong.
    ///
    /// `is_news`: a Server has just said so. Otherwise what had to be read back may be available.
    pub(super) fn misplaced(&mut self, now: ClockReading, key: LaneKey, is_news: bool) {
        let Some(lane) = self.dispatcher.get(key).filter(|lane| lane.is_recovered()) else { return };
        let seq = lane.cursor();
        let Some(blocks) = lane.rest(seq) else {
            if is_news {
                let away = lane.rest_away(seq, Purpose::Copy);
                away.into_iter().for_each(|fetch| self.spool.fetch(fetch));
                self.misplaced.insert(key);
            }
            return;
        };
        self.misplaced.remove(&key);
        // Under any rules: a Server that calls a Block misplaced which has a place there is wrong, and another one may have it.
        let is_right = |vbucket| blocks.iter().all(|block| self.places.is_place(block, vbucket));
        if blocks.is_empty() || self.places.vbuckets.get(key.vbucket).is_some_and(is_right) {
            return;
        }
        self.cut_anew += self.move_rest(now, key, seq, &blocks);
    }

    /// Adds the rest of a Lane, which no Server has accepted or will accept, to Lanes of the current stream; returns
    /// the number of events. After a failed write it stays.
    pub(super) fn move_rest(&mut self, now: ClockReading, key: LaneKey, seq: SeqNo, blocks: &[Block]) -> u64 {
        let mut by_lane: BTreeMap<u16, Vec<&Block>> = BTreeMap::new();
        for block in blocks {
            by_lane.entry(self.places.of(block).index()).or_default().push(block);
        }
        let plans = by_lane.into_iter().map(|(vbucket, blocks)| self.dispatcher.lane(vbucket).plan(blocks));
        let fragments: Vec<Fragment> = plans.flatten().collect();
        let (stream, taken_at) = (self.stream, now.time);
        let record = Record::Move { from: key, seq, stream, taken_at, fragments: &fragments };
        // If a segment must begin first, the plan stays valid: nothing is renumbered by that.
        let Ok(written) = self.write(&record) else { return 0 };
        let mut touched: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for (fragment, place) in fragments.into_iter().zip(written.locations) {
            touched.entry(fragment.vbucket).or_default().push((fragment, place));
        }
        for (vbucket, fragments) in touched {
            self.dispatcher.append(self.clock.as_written(now), vbucket, fragments, written.position);
        }
        let Some(lane) = self.dispatcher.get(key) else { return 0 };
        let released = lane.give_up_rest(seq);
        self.spool.moved(&released.locations);
        self.dispatcher.moved_away(released.events);
        released.events
    }

    /// Cuts the unsent part of a Lane into Batches that fit a request of this many bytes. After a failed read or
    /// write it stays unchanged.
    pub(super) fn recut(&mut self, key: LaneKey, request_bytes: usize) {
        let bytes = request_bytes.saturating_sub(2 * HEAD_BYTES_MAX).max(1);
        let Some(lane) = self.dispatcher.get(key) else { return };
        lane.bound_batches(bytes);
        let away = lane.unsent_away(Purpose::Copy);
        let Some(blocks) = lane.unsent() else {
            // Tried again once they are read.
            return away.into_iter().for_each(|fetch| self.spool.fetch(fetch));
        };
        let (taken_at, fragments) = lane.plan_unsent(&blocks);
        let record = Record::Merge { stream: key.stream, taken_at, fragments: &fragments };
        let Ok(written) = self.write(&record) else { return };
        let Some(lane) = self.dispatcher.get(key) else { return };
        let before = lane.replace_unsent(fragments.into_iter().zip(written.locations), written.position);
        self.spool.moved(&before);
    }
}

fn nameless() -> TabName {
    TabName::new("withheld").expect("the constant is a name")
}

/// A Block and its withheld form; `None` when it is withheld already.
fn withhold(encoded: &bytes::Bytes) -> Option<(Block, Block)> {
    let block = Block::decode(&mut Reader::new(encoded), encoded).expect("what a lane holds are blocks");
    if matches!(block.content, Content::Withheld { .. }) {
        return None;
    }
    let mut withheld = block.clone();
    // Keeps only the counts: the name may be the cause of the failure.
    withheld.tab = if block.tab.is_reserved() { ledger::tab(ledger::RECORDED) } else { nameless() };
    withheld.tab_type = ledger::tab_type();
    withheld.content = Content::Withheld { place: Where::Agent, why: Why::Poison };
    Some((block, withheld))
}
