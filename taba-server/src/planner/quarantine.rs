//! [`Quarantine`]: Blocks at which a Handler has panicked.
//!
//! A Handler that panics breaks the law of totality, but it must not stop a Server, nor come back with each try of the
//! Agent. The panic ends the commit that was being made: whoever drives the planner lets go of it, cache and all, and
//! nothing of that commit is stored or acknowledged. When the same Batch comes again, the Block is known and refused,
//! and the rest of its Lane goes on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use taba_core::{SeqNo, StreamId};

/// Blocks that are remembered; the oldest goes when there are more.
const BLOCKS_MAX: usize = 4096;

/// Which Block: of which Batch of which Lane, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId {
    /// Which sender incarnation.
    pub stream: StreamId,
    /// Which VBucket.
    pub vbucket: u16,
    /// Which Batch.
    pub seq: SeqNo,
    /// Its place in the Batch, from 0.
    pub place: u32,
}

/// Blocks at which a Handler has panicked, shared by all planners of a Server.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// How many there are. Nearly always none, and then nobody takes the lock.
    count: AtomicUsize,
    blocks: Mutex<VecDeque<BlockId>>,
}

impl Quarantine {
    /// Remembers a Block.
    pub(super) fn add(&self, block: BlockId) {
        let mut blocks = self.blocks();
        blocks.push_back(block);
        if blocks.len() > BLOCKS_MAX {
            blocks.pop_front();
        }
        self.count.store(blocks.len(), Ordering::Relaxed);
    }

    /// Whether a Block is remembered.
    pub(super) fn holds(&self, block: BlockId) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.blocks().contains(&block)
    }

    fn blocks(&self) -> MutexGuard<'_, VecDeque<BlockId>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
