//! Cuts Blocks into Batches.

use taba_core::SeqNo;
use taba_core::limits::{BATCH_BLOCKS_MAX, BATCH_EVENTS_MAX};
use taba_core::wire::Block;

use super::Lane;
use super::entry::LaneEntry;
use crate::spool::record::Fragment;

impl Lane {
    /// Cuts these Blocks: first into the open Batch, then into new ones from `next` on, whose number and preceding
    /// events are given.
    pub(super) fn cut<'a>(
        &self,
        open: Option<&LaneEntry>,
        next: SeqNo,
        events_before: u64,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Vec<Fragment> {
        let vbucket = self.key.vbucket;
        let empty = |seq, events_before| Fragment {
            vbucket,
            seq,
            events_before,
            batch_events_before: 0,
            blocks_before: 0,
            blocks: 0,
            events: 0,
            unfolded: 0,
            bytes: Vec::new(),
        };
        let mut fragments: Vec<Fragment> = Vec::new();
        let (mut events, mut scratch) = (events_before, Vec::new());
        // The content of the open Batch before its fragment.
        let mut held =
            open.map_or((0, 0, 0), |open| (open.blocks, open.weight.bytes as usize, open.unfolded));
        if let Some(open) = open {
            let (blocks_before, batch_events_before) = (open.blocks, open.weight.events);
            fragments.push(Fragment {
                blocks_before,
                batch_events_before,
                ..empty(open.seq, open.events_before)
            });
        }
        for block in blocks {
            scratch.clear();
            block.encode(&mut scratch);
            let has_room = |fragment: &Fragment| {
                let (blocks, bytes) = (held.0 + fragment.blocks, held.1 + fragment.bytes.len());
                blocks < BATCH_BLOCKS_MAX as u64
                    && held.2 + fragment.unfolded + block.unfolded_events() <= BATCH_EVENTS_MAX
                    && (blocks == 0 || bytes + scratch.len() <= self.bounds.batch_bytes_max)
            };
            if !fragments.last().is_some_and(has_room) {
                let seq = fragments.last().map_or(next, |fragment| fragment.seq.next());
                fragments.push(empty(seq, events));
                held = (0, 0, 0);
            }
            let fragment = fragments.last_mut().expect("one was pushed if there was none");
            fragment.blocks += 1;
            fragment.unfolded += block.unfolded_events();
            fragment.bytes.extend_from_slice(&scratch);
            if !block.tab.is_reserved() {
                fragment.events = fragment.events.saturating_add(block.events);
                events = events.saturating_add(block.events);
            }
        }
        fragments.retain(|fragment| fragment.blocks > 0);
        fragments
    }
}
