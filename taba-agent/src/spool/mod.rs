//! [`Spool`]: the bounded write-ahead log of accepted Batches, until they are stored for good.
//!
//! ```text
//!   a client Batch ──► append ──► written: answered ──► synced: sent by its Lane ──► applied ──► confirmed ──► release
//!                        │ no room     │ disk error
//!                        └─────────────┴──► not answered: the Client keeps it, and sends it again
//! ```
//! The Lanes know the location of each Batch; a Spool only keeps bytes and reports when they are safe. There are two:
//! [`LogSpool`] keeps segments of a log, which outlive the process; [`MemorySpool`] only counts.
//!
//! A Spool does no I/O. It gives [`DiskJob`]s, one at a time, to a thread that owns the [`Disk`] and reports each
//! result ([`JobResult`]). So a hanging disk blocks neither status requests nor the sending of what is in memory.
//!
//! | file | content |
//! |---|---|
//! | `record.rs` | the format of the log |
//! | `log.rs` | [`LogSpool`]: segments, space, live and dead bytes |
//! | `log/queue.rs` | pending writes, reads, syncs and removals |
//! | `log/renewal.rs` | rewrites a log whose files are no longer trusted |
//! | `job.rs` | [`DiskJob`] and [`JobResult`]: the jobs of the disk thread |
//! | `recovery.rs` | recovers the content of a log, with damage |
//! | `disk.rs` | [`Disk`]: the storage of a log |
//! | `memory.rs` | [`MemorySpool`] |

#[cfg(test)]
pub(crate) mod crash;
mod disk;
mod job;
mod log;
mod memory;
pub mod record;
pub mod recovery;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use taba_core::wire::Block;

pub use self::disk::{Disk, Extent, SegmentId};
pub use self::job::{DiskJob, Fetch, FetchedContent, JobResult, JobRun, Purpose, SyncJob};
pub use self::log::{LogOptions, LogSpool, SyncPolicy};
pub use self::memory::MemorySpool;
use self::record::{Checkpoint, Record};

/// A number of events, and the bytes of their Blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weight {
    /// Events, without those of the Ledger's own Tabs.
    pub events: u64,
    /// Bytes of encoded Blocks.
    pub bytes: u64,
}

impl Weight {
    /// The weight of one Block, its bytes rounded up ([`Block::encoded_bytes`]).
    pub fn of(block: &Block) -> Self {
        let events = if block.tab.is_reserved() { 0 } else { block.events };
        Self { events, bytes: block.encoded_bytes() as u64 }
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The difference; `other` is part of it.
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

/// The location of a fragment in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FragmentLocation {
    /// The segment.
    pub segment: SegmentId,
    /// The byte offset in it.
    pub offset: u32,
    /// Its bytes, at least 1.
    pub bytes: u32,
    /// Their CRC-32.
    pub crc: u32,
}

/// The result of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The location of each fragment, in order.
    pub locations: Vec<FragmentLocation>,
    /// The end of the record: it may be sent when [`Spool::durable`] reaches this.
    pub position: u64,
}

/// Why a record was not appended. None of it was kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The byte limit is reached.
    #[error("the spool is full: {bytes_short} bytes short")]
    Full {
        /// Missing bytes.
        bytes_short: u64,
    },
    /// Pending writes have reached their limit: the disk is slow, full, or hangs.
    #[error("the spool's disk has not yet taken {bytes} bytes that wait to be written")]
    Behind {
        /// Pending bytes.
        bytes: u64,
    },
    /// Syncs failed repeatedly: it is unknown what is on the disk, so nothing is added.
    #[error("the spool's disk fails to sync; fix the disk, then start the agent again")]
    Broken,
}

/// A bounded store of records.
///
/// # Laws
/// **Atomicity.** A record is appended as a whole or refused: a Client's Batch must not be counted in part and then
/// sent again. Checked by the tests of this crate, with a disk that fails at every byte.
///
/// **Prefix.** After a crash, the recovered records are a prefix of the appended ones, at least up to
/// [`Spool::durable`].
/// Checked likewise.
pub trait Spool: Send + 'static {
    /// Whether content can be read back: then the Lanes need not keep it in memory.
    fn keeps_content(&self) -> bool;

    /// Appends a record. It outlives the process once [`written`](Spool::written) reaches its end.
    ///
    /// # Errors
    /// [`SpoolError`]; none of it was kept.
    fn append(&mut self, record: &Record<'_>) -> Result<Appended, SpoolError>;

    /// Whether a record of this many bytes needs a new segment: then call [`Spool::roll`] first.
    fn must_roll(&self, bytes: usize) -> bool;

    /// Begins a new segment with this checkpoint.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing has changed.
    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError>;

    /// Releases fragments. Segments without live fragments are removed, the oldest first.
    fn release(&mut self, locations: &[FragmentLocation]);

    /// Releases fragments that were copied to later records: their segments are removed once those are safe.
    fn moved(&mut self, locations: &[FragmentLocation]) {
        self.release(locations);
    }

    /// The end of appended records.
    fn position(&self) -> u64;

    /// The end of records that outlive the process.
    fn written(&self) -> u64;

    /// The end of records that may be sent: they have the configured safety.
    fn durable(&self) -> u64;

    /// Whether a record that ends at this position can be [read back](Spool::fetch), and need not be kept in memory.
    fn is_readable(&self, position: u64) -> bool;

    /// Requests the content of a Batch, which must be readable and live; [`Spool::done`] returns it.
    fn fetch(&mut self, fetch: Fetch);

    /// The next disk job. One at a time: the next one comes after [`Spool::done`].
    fn next_job(&mut self, now: Duration) -> Option<DiskJob>;

    /// The result of a job. Returns content that was read back.
    fn done(&mut self, now: Duration, done: JobResult) -> Option<(Fetch, io::Result<FetchedContent>)>;

    /// When [`Spool::next_job`] may have a new job, if only time has to pass.
    fn wake_at(&self) -> Option<Duration>;

    /// The use of space.
    fn usage(&self) -> SpoolUsage;

    /// The oldest segment, if there is a later one; releasing all its fragments frees it.
    fn oldest(&self) -> Option<SegmentId>;

    /// The next step if the files of the log are no longer trusted.
    fn renewal(&self, _now: Duration) -> Renewal {
        Renewal::None
    }

    /// Takes the next step of a [renewal](Spool::renewal): begins a segment of the new log, or completes it with one
    /// that holds this checkpoint.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing has changed.
    fn renew(&mut self, _checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        Ok(())
    }
}

/// A step of rewriting a log whose files are no longer trusted: a sync failed, or they are gone. All live content is
/// written again to new segments, from memory or from what can still be read; until that is on the disk, nothing new
/// is reported as safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing.
    #[default]
    None,
    /// Nothing for now: it was just tried, or the last write is in progress.
    Wait,
    /// Call [`Spool::renew`]: the new log begins.
    Begin,
    /// Copy everything in this segment or an earlier one, then call [`Spool::renew`].
    Copy(SegmentId),
}

/// A fault of a Spool's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// Writes fail.
    Write,
    /// A sync failed; the live content is being rewritten.
    Sync,
    /// The files are gone; the live content is being rewritten.
    Gone,
    /// Syncs failed repeatedly; nothing more is accepted.
    Broken,
}

/// The use of a Spool's space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolUsage {
    /// The maximum bytes: the bound, or the size of its disk if smaller.
    pub bytes_max: u64,
    /// Its bytes, with dead ones not yet removed.
    pub bytes: u64,
    /// Bytes of live fragments.
    pub live_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// The fault of the disk, if any.
    pub fault: Option<DiskFault>,
    /// The error, for people.
    pub error: Option<String>,
    /// Failed writes and syncs.
    pub failures: u64,
}

/// Counters since the start, in events. Events recovered from an earlier run count as accepted by this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpoolCounts {
    /// Offered by Clients, with repetitions of refused Batches.
    pub offered: u64,
    /// Recovered from the log at the start.
    pub recovered: u64,
    /// Found damaged when read back for sending; the Ledger gets notes instead.
    pub damaged: u64,
    /// Refused for lack of room; the Client kept them and offers them again.
    pub refused: u64,
    /// Stored for good, confirmed, and released.
    pub released: u64,
    /// Too old to be sent, and released.
    pub expired: u64,
}

impl SpoolCounts {
    /// Checked in debug builds after every input:
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
    fn append(&mut self, record: &Record<'_>) -> Result<Appended, SpoolError> {
        (**self).append(record)
    }
    fn must_roll(&self, bytes: usize) -> bool {
        (**self).must_roll(bytes)
    }
    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        (**self).roll(checkpoint)
    }
    fn release(&mut self, locations: &[FragmentLocation]) {
        (**self).release(locations);
    }
    fn moved(&mut self, locations: &[FragmentLocation]) {
        (**self).moved(locations);
    }
    fn position(&self) -> u64 {
        (**self).position()
    }
    fn written(&self) -> u64 {
        (**self).written()
    }
    fn durable(&self) -> u64 {
        (**self).durable()
    }
    fn is_readable(&self, position: u64) -> bool {
        (**self).is_readable(position)
    }
    fn fetch(&mut self, fetch: Fetch) {
        (**self).fetch(fetch);
    }
    fn next_job(&mut self, now: Duration) -> Option<DiskJob> {
        (**self).next_job(now)
    }
    fn done(&mut self, now: Duration, done: JobResult) -> Option<(Fetch, io::Result<FetchedContent>)> {
        (**self).done(now, done)
    }
    fn wake_at(&self) -> Option<Duration> {
        (**self).wake_at()
    }
    fn usage(&self) -> SpoolUsage {
        (**self).usage()
    }
    fn oldest(&self) -> Option<SegmentId> {
        (**self).oldest()
    }
    fn renewal(&self, now: Duration) -> Renewal {
        (**self).renewal(now)
    }
    fn renew(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        (**self).renew(checkpoint)
    }
}
