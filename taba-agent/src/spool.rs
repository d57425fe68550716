//! [`Spool`]: the bounded place of what has been taken from Clients and is not yet safely stored; [`MemorySpool`].
//!
//! The Spool answers one question, whether there is room, and keeps the balance. It is the seam for durability: a
//! Spool that writes a log does so in [`Spool::offer`], before a Client is told that its Batch is safe, and forgets in
//! [`Spool::release`], when the Servers have it. The Lanes hold the Blocks themselves, so that a Spool never decides
//! what is sent when.

use taba_core::VBucket;
use taba_core::wire::Block;

/// How much something weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Events, those of the Ledger's own Tabs not counted.
    pub events: u64,
    /// Bytes of encoded Blocks, rounded up a little ([`Block::encoded_bytes`]).
    pub bytes: u64,
}

impl Weight {
    /// What one Block weighs.
    pub fn of(block: &Block) -> Self {
        let events = if block.tab.is_reserved() { 0 } else { block.events };
        Self { events, bytes: block.encoded_bytes() as u64 }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

/// What became of an offer.
#[must_use = "what is refused is still the sender's"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The Spool has it, as safe as this Spool makes things.
    Kept,
    /// There is no room; nothing of it was kept.
    Refused {
        /// Bytes of room that are missing.
        bytes_short: u64,
    },
}

/// What went in and out since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Offered by Clients.
    pub offered: Weight,
    /// Safely stored, and let go.
    pub acked: Weight,
    /// Still here.
    pub held: Weight,
    /// Turned away because there was no room; the Client kept it and offers it again.
    pub refused: Weight,
}

impl Tally {
    /// Debug builds check after every input that nothing left in silence: offered = acked + held + refused.
    pub fn audit(&self) {
        debug_assert_eq!(
            self.offered,
            self.acked.plus(self.held).plus(self.refused),
            "the spool lost count: {self:?}"
        );
    }
}

/// A bounded place of Blocks.
///
/// # Laws
/// **Balance.** offered = acked + held + refused, in events and in bytes. Checked after every input in debug builds.
///
/// **All or nothing.** An offer is kept whole or refused whole: a Client's Batch must not be counted in part and then
/// sent again. Checked by the tests of this crate.
pub trait Spool: Send + 'static {
    /// Takes the Blocks of one client Batch, if there is room for all of them.
    fn offer(&mut self, blocks: &[(VBucket, Block)]) -> Offer;

    /// Lets go of what the Servers have stored. `weight` was offered and kept before.
    fn release(&mut self, weight: Weight);

    /// The balance.
    fn tally(&self) -> &Tally;

    /// Bytes that it holds at most.
    fn bytes_max(&self) -> u64;
}

/// A Spool without a log: what it holds is gone with the process.
#[derive(Debug)]
pub struct MemorySpool {
    bytes_max: u64,
    tally: Tally,
}

impl MemorySpool {
    /// An empty Spool for at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, tally: Tally::default() }
    }
}

impl Spool for MemorySpool {
    fn offer(&mut self, blocks: &[(VBucket, Block)]) -> Offer {
        let weight: Weight = blocks.iter().map(|(_, block)| Weight::of(block)).sum();
        self.tally.offered = self.tally.offered.plus(weight);
        let wanted = self.tally.held.plus(weight);
        let offer = if wanted.bytes <= self.bytes_max {
            self.tally.held = wanted;
            Offer::Kept
        } else {
            self.tally.refused = self.tally.refused.plus(weight);
            Offer::Refused { bytes_short: wanted.bytes - self.bytes_max }
        };
        self.tally.audit();
        offer
    }

    fn release(&mut self, weight: Weight) {
        let held = &mut self.tally.held;
        debug_assert!(
            held.events >= weight.events && held.bytes >= weight.bytes,
            "more released than was held"
        );
        held.events = held.events.saturating_sub(weight.events);
        held.bytes = held.bytes.saturating_sub(weight.bytes);
        self.tally.acked = self.tally.acked.plus(weight);
        self.tally.audit();
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use taba_core::{ClientId, Events, TabName, TabType, Timestamp, VBuckets};

    use super::*;

    fn block(tab: &str, events: usize) -> (VBucket, Block) {
        let times = vec![Timestamp::from_secs(1); events];
        let values = vec![1.0; events];
        let tab = TabName::new(tab).unwrap();
        let client = ClientId::new("web").unwrap();
        let tab_type = TabType::new("TotalsCounter").unwrap();
        let vbucket = VBuckets::default().of(&tab);
        (vbucket, Block::of_events(tab, client, tab_type, Events::new(&times, &values)).unwrap())
    }

    #[test]
    fn a_full_spool_takes_nothing_of_a_batch() {
        let blocks = [block("a", 3), block("b", 4)];
        let one = Weight::of(&blocks[0].1);
        let mut spool = MemorySpool::new(one.bytes + 1);
        assert!(matches!(spool.offer(&blocks), Offer::Refused { bytes_short } if bytes_short > 0));
        assert_eq!(spool.tally().held, Weight::default());
        assert_eq!(spool.tally().refused.events, 7);
        assert_eq!(spool.offer(&blocks[..1]), Offer::Kept);
        assert!(matches!(spool.offer(&blocks[..1]), Offer::Refused { .. }));
        spool.release(one);
        assert_eq!(spool.offer(&blocks[..1]), Offer::Kept);
        assert_eq!((spool.tally().acked.events, spool.tally().held.events), (3, 3));
    }

    #[test]
    fn the_ledgers_own_events_weigh_bytes_only() {
        let (_, note) = block("taba.recorded", 1);
        assert_eq!(Weight::of(&note).events, 0);
        assert!(Weight::of(&note).bytes > 0);
    }
}
