//! Checks that a Batch or a Probe is for this Server: sender and Server may have different numbers of VBuckets, and
//! data folded into the wrong VBucket would never be found.

use taba_core::limits::BATCH_BLOCKS_MAX;
use taba_core::wire::{Block, Content};
use taba_core::{Spread, VBucket, VBuckets};

/// Why Batches cannot be for this Server; sending them again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misdirected {
    /// The VBucket does not exist here.
    #[error(
        "there is no vbucket {vbucket}: this deployment has {vbuckets}; give sender and server the same number"
    )]
    UnknownVBucket {
        /// The VBucket of the Batch.
        vbucket: u16,
        /// The number of VBuckets here.
        vbuckets: u16,
    },
    /// A Block's Tab belongs to another VBucket, under any spread.
    #[error(
        "a block of vbucket {found} came for {vbucket}: give sender and server the same number of vbuckets"
    )]
    WrongVBucket {
        /// The VBucket of the Batch.
        vbucket: u16,
        /// The VBucket of the Tab while it is not spread.
        found: u16,
    },
    /// The Batch has too many Blocks.
    #[error("{blocks} blocks in one batch are over the bound of {BATCH_BLOCKS_MAX}")]
    TooManyBlocks {
        /// Their number.
        blocks: usize,
    },
}

impl Misdirected {
    /// A code for machines: the `reason` of an error answer.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownVBucket { .. } => "unknown_vbucket",
            Self::WrongVBucket { .. } => "wrong_vbucket",
            Self::TooManyBlocks { .. } => "too_large",
        }
    }
}

/// The Ledger's Tabs have States in every VBucket, and withheld Blocks are folded into none.
fn is_anywhere(block: &Block) -> bool {
    block.tab.is_reserved() || matches!(block.content, Content::Withheld { .. })
}

/// Of a Block that lies here because its Tab is spread: how wide that must be.
pub(crate) fn spread_needed(vbuckets: VBuckets, vbucket: u16, block: &Block) -> Option<Spread> {
    if is_anywhere(block) {
        return None;
    }
    let spread = vbuckets.spread_at(&block.tab, &block.client, vbuckets.get(vbucket)?)?;
    (spread > Spread::ONE).then_some(spread)
}

/// The VBucket of a Batch with these Blocks, or of a Probe, which has none.
pub(crate) fn check(vbuckets: VBuckets, vbucket: u16, blocks: &[Block]) -> Result<VBucket, Misdirected> {
    let unknown = Misdirected::UnknownVBucket { vbucket, vbuckets: vbuckets.count() };
    let vbucket = vbuckets.get(vbucket).ok_or(unknown)?;
    if blocks.len() > BATCH_BLOCKS_MAX {
        return Err(Misdirected::TooManyBlocks { blocks: blocks.len() });
    }
    // Whatever rules of spread this Server knows: what one Server takes, no other one may call misplaced.
    let elsewhere = |block: &&Block| {
        !is_anywhere(block) && vbuckets.spread_at(&block.tab, &block.client, vbucket).is_none()
    };
    match blocks.iter().find(elsewhere) {
        None => Ok(vbucket),
        Some(block) => {
            let found = vbuckets.of(&block.tab).index();
            Err(Misdirected::WrongVBucket { vbucket: vbucket.index(), found })
        }
    }
}
