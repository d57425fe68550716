//! [`Spool`]: the bounded place where what has been taken from Clients is written down, until it is safely stored.
//!
//! ```text
//!   a client Batch ──► append ──► flush: answered ──► sync: sent by its Lane ──► applied ──► confirmed ──► release
//!                        │ no room     │ the disk says no
//!                        └─────────────┴──► not answered: the Client keeps it, and sends it again
//! ```
//! The Lanes know which Batch is where; a Spool only keeps bytes and says from when on they are safe. Two Spools:
//! [`LogSpool`] writes segments of a log, and what it holds outlives the process; [`MemorySpool`] only counts.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | the bytes of the log |
//! | `log.rs` | [`LogSpool`]: segments, room, what is dead |
//! | `recovery.rs` | what a log says when it is opened again, damage included |
//! | `disk.rs` | [`Disk`]: what a log needs of a disk |
//! | `memory.rs` | [`MemorySpool`] |

#[cfg(test)]
pub(crate) mod crash;
mod disk;
mod log;
mod memory;
pub mod record;
pub mod recovery;
#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use taba_core::wire::Block;

pub use self::disk::{Disk, SegmentId, SyncJob};
pub use self::log::{LogOptions, LogSpool, SyncPolicy};
pub use self::memory::MemorySpool;
use self::record::{Checkpoint, Record};

/// How much something weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Events, those of the Ledger's own Tabs not counted.
    pub events: u64,
    /// Bytes of encoded Blocks.
    pub bytes: u64,
}

impl Weight {
    /// What one Block weighs, its bytes rounded up a little ([`Block::encoded_bytes`]).
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

    /// This without the other, which is part of it.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        debug_assert!(
            self.events >= other.events && self.bytes >= other.bytes,
            "a part is no more than the whole"
        );
        Self {
            events: self.events.saturating_sub(other.events),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

impl std::iter::Sum for Weight {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

/// Where a piece of a Batch stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which segment.
    pub segment: SegmentId,
    /// At which byte of it.
    pub offset: u32,
    /// How many bytes, at least 1.
    pub bytes: u32,
    /// Their CRC-32.
    pub crc: u32,
}

/// What was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where each piece of the record stands, in order.
    pub places: Vec<Place>,
    /// The end of the record: what is to be sent only once it is durable compares this with [`Spool::durable`].
    pub position: u64,
}

/// Why a record was not appended. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The bound on its bytes is reached.
    #[error("the spool is full: {bytes_short} bytes short")]
    Full {
        /// Bytes of room that are missing.
        bytes_short: u64,
    },
    /// The disk did not take it.
    #[error("the spool's disk did not take it")]
    Disk(#[source] io::Error),
    /// An earlier sync failed: what was written before may or may not be on the disk, so nothing is added to it.
    #[error("the spool's disk failed to sync; the agent has to be started anew")]
    Broken,
}

/// Why bytes could not be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The disk did not give them.
    #[error("the spool cannot be read")]
    Disk(#[source] io::Error),
    /// They are not those that were written.
    #[error(
        "the spool is damaged: {bytes} bytes at {offset} of segment {segment} are not those that were written"
    )]
    Damaged {
        /// Of which segment.
        segment: SegmentId,
        /// From where.
        offset: u32,
        /// How many.
        bytes: u32,
    },
}

/// A bounded place of records.
///
/// # Laws
/// **All or nothing.** A record is appended whole or refused whole: a Client's Batch must not be counted in part and
/// then sent again. Checked by the tests of this crate, with a disk that fails at every byte.
///
/// **Prefix.** After a crash, what is read back is a prefix of what was appended, at least up to [`Spool::durable`].
/// Checked likewise.
pub trait Spool: Send + 'static {
    /// Whether what is appended can be read back: then the Lanes need not keep it in memory.
    fn keeps_content(&self) -> bool;

    /// Appends a record, if there is room. It is safe once it is [flushed](Spool::flush).
    ///
    /// # Errors
    /// [`SpoolError`]; nothing of it was kept.
    fn append(&mut self, record: &Record<'_>) -> Result<Written, SpoolError>;

    /// Hands everything appended so far to the disk: from then on it outlives the process. Answers up to where that is so.
    /// What a disk does not take is kept, and tried again with the next flush.
    ///
    /// # Errors
    /// [`SpoolError`] when the disk did not take it.
    fn flush(&mut self) -> Result<u64, SpoolError>;

    /// Whether a record of so many bytes needs a new segment first: then call [`Spool::roll`].
    fn must_roll(&self, bytes: usize) -> bool;

    /// Begins a new segment, with what is to be known at its beginning.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing has changed.
    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError>;

    /// Reads back pieces that were appended and not released, one behind the other.
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, places: &[Place]) -> Result<Bytes, ReadError>;

    /// Lets go of pieces. Segments in which nothing is held any more go, the oldest first.
    fn release(&mut self, places: &[Place]);

    /// Up to where what was appended may be sent: it is as safe as this Spool makes things.
    fn durable(&self) -> u64;

    /// Up to where it was appended.
    fn position(&self) -> u64;

    /// What has to be done for everything flushed so far to be durable, on a thread that may wait for a disk; then
    /// say how it went with [`Spool::synced`]. `None` when there is nothing to do.
    fn sync_job(&mut self) -> Option<SyncJob>;

    /// How a sync went, which had been taken at `position`.
    fn synced(&mut self, position: u64, outcome: io::Result<()>);

    /// How the room is used.
    fn room(&self) -> Room;

    /// The oldest segment, if there is another one to append to; releasing all that is held there frees it.
    fn oldest(&self) -> Option<SegmentId>;
}

/// How the room of a Spool is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that it takes at most.
    pub bytes_max: u64,
    /// Bytes that it takes, what is dead and not yet removed included.
    pub bytes: u64,
    /// Bytes of pieces that are held.
    pub live_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// What is wrong with the disk, if something is.
    pub error: Option<String>,
}

/// What went in and out since the start, in events. Those recovered from an earlier run were taken by this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Offered by Clients, every repetition of what was refused included.
    pub offered: u64,
    /// Found in the log at the start.
    pub recovered: u64,
    /// Found damaged when they were read back to be sent; the Ledger is told in their place.
    pub damaged: u64,
    /// Turned away because there was no room; the Client kept it and offers it again.
    pub refused: u64,
    /// Safely stored and confirmed, and let go.
    pub released: u64,
    /// Older than may still be sent, and let go.
    pub expired: u64,
}

impl Tally {
    /// Debug builds check after every input that nothing left in silence:
    /// offered + recovered = released + expired + damaged + refused + held.
    pub fn audit(&self, held: u64) {
        debug_assert_eq!(
            self.offered + self.recovered,
            self.released + self.expired + self.damaged + self.refused + held,
            "the spool lost count: {self:?}, {held} held"
        );
    }
}

impl Spool for Box<dyn Spool> {
    fn keeps_content(&self) -> bool {
        (**self).keeps_content()
    }
    fn append(&mut self, record: &Record<'_>) -> Result<Written, SpoolError> {
        (**self).append(record)
    }
    fn flush(&mut self) -> Result<u64, SpoolError> {
        (**self).flush()
    }
    fn must_roll(&self, bytes: usize) -> bool {
        (**self).must_roll(bytes)
    }
    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        (**self).roll(checkpoint)
    }
    fn read(&self, places: &[Place]) -> Result<Bytes, ReadError> {
        (**self).read(places)
    }
    fn release(&mut self, places: &[Place]) {
        (**self).release(places);
    }
    fn durable(&self) -> u64 {
        (**self).durable()
    }
    fn position(&self) -> u64 {
        (**self).position()
    }
    fn sync_job(&mut self) -> Option<SyncJob> {
        (**self).sync_job()
    }
    fn synced(&mut self, position: u64, outcome: io::Result<()>) {
        (**self).synced(position, outcome);
    }
    fn room(&self) -> Room {
        (**self).room()
    }
    fn oldest(&self) -> Option<SegmentId> {
        (**self).oldest()
    }
}
