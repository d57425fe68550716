//! A *check*: whether a Batch could be folded into what is stored. Everything is done as for a commit, and thrown away.

use taba_core::wire::{Ack, Answer, Block, Content, LaneBatch, Refusal};
use taba_core::{Arrival, Loaded, Registry, SeqNo, Timestamp, Wanted};

use super::cache::Cache;
use super::fold::fold_block;
use super::message::IncomingMessage;
use super::newer::{first_newer, unavailable};

/// What has to be loaded before a Batch can be [checked](check).
pub fn wanted_of(blocks: &[Block]) -> Wanted {
    let (mut cache, mut wanted) = (Cache::default(), Wanted::default());
    for block in blocks.iter().filter(|block| !matches!(block.content, Content::Withheld { .. })) {
        cache.touch(&block.tab, &block.client, &mut wanted);
    }
    wanted
}

/// Folds a Batch into what was loaded of its VBucket, encodes what came out, and answers what would be refused. A Handler
/// that ends the process does so here as it would in a commit, and nothing is lost by it. A Batch for which this build is too
/// old is answered *unavailable*, as it would be in a commit: that is no fault of a Block.
pub fn check(
    handlers: &Registry,
    batch: &LaneBatch,
    (wanted, loaded): (&Wanted, &Loaded),
    arrived: Timestamp,
) -> Ack {
    let mut cache = Cache::default();
    cache.begin(true);
    let mut unused = Wanted::default();
    for block in batch.blocks.iter().filter(|block| !matches!(block.content, Content::Withheld { .. })) {
        cache.touch(&block.tab, &block.client, &mut unused);
    }
    let _ = cache.load(wanted, loaded, handlers);
    if let Some((place, _)) = first_newer(&mut cache, handlers, &batch.blocks) {
        return unavailable(&IncomingMessage::Batch(batch.clone()), place);
    }
    let arrival = Arrival { at: arrived, latest: arrived };
    let mut refused = Vec::new();
    for (place, block) in (0..).zip(&batch.blocks) {
        if let Some((_, why, events)) = fold_block(&mut cache, handlers, block, arrival).refused {
            refused.push(Refusal { block: place, why, events });
        }
    }
    // Each State was encoded when it was tried out.
    let LaneBatch { stream, vbucket, .. } = *batch;
    Ack { stream, vbucket, applied: SeqNo::NONE, stable: SeqNo::NONE, answer: Answer::Applied, refused }
}
