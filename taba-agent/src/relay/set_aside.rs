//! What no Server takes: Blocks are set aside, so that their Batch and Lane go on; Batches that are too large are cut anew.
//!
//! The content of a Batch that may have been sent never changes, but for this: a Block is replaced by one that is
//! [withheld](Content::Withheld), of the same Client and number of events. Whichever of the two contents a Server
//! folds, it folds whole, once, and moves the mark by the same number of events: each event of that Block is folded, or
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

/// Blocks of one Batch that were taken out of it because no Server takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct SetAsideBlocks {
    /// Which Lane.
    pub lane: LaneKey,
    /// The Batch's place in it.
    pub seq: u64,
    /// When they were taken out, by the Agent's clock.
    pub at: Timestamp,
    /// The Blocks, as they were.
    pub blocks: Vec<Block>,
    /// What Servers, or proxies, said or did last, for people.
    pub why: String,
    /// The Blocks of the Batch, with those withheld.
    replacement: Vec<u8>,
}

impl SetAsideBlocks {
    /// Events in them; the Ledger's own are not counted.
    pub fn events(&self) -> u64 {
        self.blocks.iter().filter(|block| !block.tab.is_reserved()).map(|block| block.events).sum()
    }
}

/// What was set aside since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAsideCounts {
    /// Batches of which something was.
    pub batches: u64,
    /// Blocks.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// The last Block: its Tab, its Client, and why.
    pub last: Option<(TabName, ClientId, String)>,
}

impl<S: Spool> Relay<S> {
    /// Blocks are to be taken out of their Batch: first they are to be kept where they outlive the process, then
    /// [`Relay::kept`] does it. Until then the Batch is not sent; what fails is tried again when its turn comes.
    pub(super) fn set_aside(&mut self, now: ClockReading, poison: PoisonBlocks) {
        let PoisonBlocks { batch, blocks: poison, why } = poison;
        let (key, seq) = (batch.lane, batch.seq);
        if self.keeping.contains(&key) {
            return;
        }
        let Some(lane) = self.dispatcher.get(key) else { return };
        // What stands behind is a note about damage, and in no log.
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
            // All that is left of it is withheld already: no Block is to blame, and it is tried again.
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

    /// What is to be set aside since the last call. Each is to be kept first, then given to [`Relay::kept`], or to
    /// [`Relay::not_kept`] when that failed.
    pub fn take_set_aside(&mut self) -> Vec<SetAsideBlocks> {
        std::mem::take(&mut self.aside)
    }

    /// These Blocks are kept, or there is no place to keep any: takes them out of their Batch, and counts them. Gives up to
    /// where the Spool has to be [safe](Spool::durable) until they are certainly not sent any more. `None` when they stay
    /// in their Batch, because the Spool takes nothing now; that is tried again.
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

    /// These Blocks could not be kept: they stay in their Batch, and are set aside again when its turn comes.
    pub fn not_kept(&mut self, aside: &SetAsideBlocks) {
        self.keeping.remove(&aside.lane);
    }

    /// A Server says that a Lane is not meant for its deployment. What an earlier run cut for another number of VBuckets is
    /// cut anew: no Server of this store has taken or will ever take a Batch that one calls misplaced, nor what comes
    /// behind it in its Lane. What was cut for the number that is set now stays: then the setting is wrong.
    ///
    /// `is_news`: a Server has just said so. Else what had to be read back for it may be here.
    pub(super) fn misplaced(&mut self, now: ClockReading, key: LaneKey, is_news: bool) {
        let vbuckets = self.vbuckets;
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
        let is_right =
            |block: &Block| vbuckets.of(&block.tab).index() == key.vbucket || block.tab.is_reserved();
        let is_here = vbuckets.get(key.vbucket).is_some();
        if blocks.is_empty() || (is_here && blocks.iter().all(is_right)) {
            return;
        }
        self.cut_anew += self.move_rest(now, key, seq, &blocks);
    }

    /// Adds the rest of a Lane, which no Server has taken or will take, to Lanes of the current stream; gives how many
    /// events it is. What cannot be written stays.
    pub(super) fn move_rest(&mut self, now: ClockReading, key: LaneKey, seq: SeqNo, blocks: &[Block]) -> u64 {
        let vbuckets = self.vbuckets;
        let mut by_lane: BTreeMap<u16, Vec<&Block>> = BTreeMap::new();
        for block in blocks {
            by_lane.entry(vbuckets.of(&block.tab).index()).or_default().push(block);
        }
        let plans = by_lane.into_iter().map(|(vbucket, blocks)| self.dispatcher.lane(vbucket).plan(blocks));
        let fragments: Vec<Fragment> = plans.flatten().collect();
        let (stream, taken_at) = (self.stream, now.time);
        let record = Record::Move { from: key, seq, stream, taken_at, fragments: &fragments };
        // Where a segment has to begin first, what was planned stays right: nothing is renumbered by that.
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

    /// Cuts what of a Lane was never sent into Batches that fit a request of so many bytes. What cannot be read or
    /// written now stays as it is.
    pub(super) fn recut(&mut self, key: LaneKey, request_bytes: usize) {
        let bytes = request_bytes.saturating_sub(2 * HEAD_BYTES_MAX).max(1);
        let Some(lane) = self.dispatcher.get(key) else { return };
        lane.bound_batches(bytes);
        let away = lane.unsent_away(Purpose::Copy);
        let Some(blocks) = lane.unsent() else {
            // Once they are here, it is tried again.
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

/// A Block as it is, and withheld; `None` when it is withheld already.
fn withhold(encoded: &bytes::Bytes) -> Option<(Block, Block)> {
    let block = Block::decode(&mut Reader::new(encoded), encoded).expect("what a lane holds are blocks");
    if matches!(block.content, Content::Withheld { .. }) {
        return None;
    }
    let withheld = Block {
        // Nothing of it stays but what it counts for: its name may be what somebody fails on.
        tab: if block.tab.is_reserved() { ledger::tab(ledger::RECORDED) } else { nameless() },
        tab_type: ledger::tab_type(),
        content: Content::Withheld { place: Where::Agent, why: Why::Poison },
        ..block.clone()
    };
    Some((block, withheld))
}
