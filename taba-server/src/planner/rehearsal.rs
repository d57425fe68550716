//! *check*: whether a Batch could be folded into the stored States. Does everything as for a commit, and discards it.

use taba_core::wire::{Ack, Answer, Block, Content, LaneBatch, Refusal};
use taba_core::{Arrival, Loaded, Registry, SeqNo, Timestamp, Wanted};

use super::cache::Cache;
use super::fold::{DecodeRoom, fold_block};
use super::message::IncomingMessage;
use super::newer::{first_newer, unavailable};

/// The States to load before a Batch can be [checked](check).
pub fn wanted_of(blocks: &[Block]) -> Wanted {
    let (mut cache, mut wanted) = (Cache::default(), Wanted::default());
    for block in blocks.iter().filter(|block| !matches!(block.content, Content::Withheld { .. })) {
        cache.touch(&block.tab, &block.client, &mut wanted);
    }
    wanted
}

/// Folds a Batch into the loaded States, encodes the results, and reports which Blocks would be refused. A Handler
/// that aborts the process does so here as in a commit, and nothing is lost. A Batch for which this build is too old
/// is answered *unavailable*, as in a commit.
pub fn check(
    handlers: &Registry,
    batch: &LaneBatch,
    (wanted, loaded): (&Wanted, &Loaded),
    arrived: Timestamp,
) -> Ack {
    let mut cache = Cache::default();
    cache.begin(true, arrived);
    let mut unused = Wanted::default();
    for block in batch.blocks.iter().filter(|block| !matches!(block.content, Content::Withheld { .. })) {
        cache.touch(&block.tab, &block.client, &mut unused);
    }
    let _ = cache.load(wanted, loaded, handlers);
    if let Some((place, _)) = first_newer(&mut cache, handlers, &batch.blocks) {
        return unavailable(&IncomingMessage::Batch(batch.clone()), place);
    }
    let arrival = Arrival { at: arrived, latest: arrived };
    let (mut refused, mut room) = (Vec::new(), DecodeRoom::default());
    for (place, block) in (0..).zip(&batch.blocks) {
        if let Some((_, why, events)) = fold_block(&mut cache, handlers, block, arrival, &mut room).refused {
            refused.push(Refusal::new(place, why, events));
        }
    }
    // Each State was encoded on its copy.
    let LaneBatch { stream, vbucket, .. } = *batch;
    Ack::new(stream, vbucket, SeqNo::NONE, Answer::Applied).with_refused(refused)
}
