//! [`Spool`]: the bounded place where what has been taken from Clients is written down, until it is safely stored.
//!
//! ```text
//!   a client Batch ──► append ──► written: answered ──► synced: sent by its Lane ──► applied ──► confirmed ──► release
//!                        │ no room     │ the disk says no
//!                        └─────────────┴──► not answered: the Client keeps it, and sends it again
//! ```
//! The Lanes know which Batch is where; a Spool only keeps bytes and says from when on they are safe. Two Spools:
//! [`LogSpool`] keeps segments of a log, and what it holds outlives the process; [`MemorySpool`] only counts.
//!
//! A Spool does no I/O. What there is to do with a disk it hands out, one [`DiskJob`] at a time, to a thread that owns the
//! [`Disk`] and tells it how that went ([`JobResult`]). So a disk that hangs holds up nobody who only wants to know, or to send
//! what is in memory.
//!
//! | file | what |
//! |---|---|
//! | `record.rs` | the bytes of the log |
//! | `log.rs` | [`LogSpool`]: segments, room, what is dead |
//! | `log/queue.rs` | what waits to be written, read, synced and removed |
//! | `log/renewal.rs` | what becomes of a log whose files are not believed any more |
//! | `job.rs` | [`DiskJob`] and [`JobResult`]: what a disk is to do |
//! | `recovery.rs` | what a log says when it is opened again, damage included |
//! | `disk.rs` | [`Disk`]: what a log needs of a disk |
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
pub struct Weight {
    /// Events, those of the Ledger's own Tabs not counted.
    pub events: u64,
    /// Bytes of encoded Blocks.
    pub bytes: u64,
}

impl Weight {
    /// Those of one Block, its bytes rounded up a little ([`Block::encoded_bytes`]).
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

/// Where a fragment of a Batch stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLocation {
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
pub struct Appended {
    /// Where each fragment of the record stands, in order.
    pub locations: Vec<FragmentLocation>,
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
    /// What waits to be written has reached its bound: the disk does not keep up, is full, or hangs.
    #[error("the spool's disk has not yet taken {bytes} bytes that wait to be written")]
    Behind {
        /// Bytes that wait.
        bytes: u64,
    },
    /// Syncs failed again and again: what was written may or may not be on the disk, so nothing is added to it.
    #[error("the spool's disk fails to sync; see to the disk, then start the agent anew")]
    Broken,
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

    /// Appends a record, if there is room. It outlives the process once [`written`](Spool::written) is beyond it.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing of it was kept.
    fn append(&mut self, record: &Record<'_>) -> Result<Appended, SpoolError>;

    /// Whether a record of so many bytes needs a new segment first: then call [`Spool::roll`].
    fn must_roll(&self, bytes: usize) -> bool;

    /// Begins a new segment, with what is to be known at its beginning.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing has changed.
    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError>;

    /// Releases fragments. Segments in which nothing is held any more go, the oldest first.
    fn release(&mut self, locations: &[FragmentLocation]);

    /// Releases fragments that stand elsewhere now, in what was appended since: their segments go once that is safe.
    fn moved(&mut self, locations: &[FragmentLocation]) {
        self.release(locations);
    }

    /// Up to where it was appended.
    fn position(&self) -> u64;

    /// Up to where what was appended outlives the process.
    fn written(&self) -> u64;

    /// Up to where what was appended may be sent: it is as safe as this Spool makes things.
    fn durable(&self) -> u64;

    /// Whether a record that ends at this position can be [read back](Spool::fetch): its content need not be kept in
    /// memory.
    fn is_readable(&self, position: u64) -> bool;

    /// Asks for the content of a Batch, all of it readable and not released; [`Spool::done`] gives it.
    fn fetch(&mut self, fetch: Fetch);

    /// What is to be done with the disk next. One is handed out at a time: the next comes after [`Spool::done`].
    fn next_job(&mut self, now: Duration) -> Option<DiskJob>;

    /// How a job went. Gives what was fetched.
    fn done(&mut self, now: Duration, done: JobResult) -> Option<(Fetch, io::Result<FetchedContent>)>;

    /// When [`Spool::next_job`] may have something to do that it has not now, if only time has to pass.
    fn wake_at(&self) -> Option<Duration>;

    /// How the room is used.
    fn usage(&self) -> SpoolUsage;

    /// The oldest segment, if there is another one to append to; releasing all that is held there frees it.
    fn oldest(&self) -> Option<SegmentId>;

    /// What is to be done because the files of the log are not believed any more.
    fn renewal(&self, _now: Duration) -> Renewal {
        Renewal::None
    }

    /// Takes the next step of a [renewal](Spool::renewal): begins a segment of a new log, or ends with one that holds this
    /// checkpoint.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing has changed.
    fn renew(&mut self, _checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        Ok(())
    }
}

/// What is to be done because the files of a log are not believed any more: a sync failed, or they are gone. Everything
/// that is held is written again, from memory or from what can still be read, to new segments; until that is on the disk,
/// nothing new is told to be safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing.
    #[default]
    None,
    /// Nothing for the moment: it was just tried, or what is written last is on its way to the disk.
    Wait,
    /// Call [`Spool::renew`]: the new log is begun.
    Begin,
    /// Copy everything that stands in this segment or an earlier one, then call [`Spool::renew`].
    Copy(SegmentId),
}

/// What is wrong with the disk of a Spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// It does not take what is to be written.
    Write,
    /// A sync failed; what is held is being written again.
    Sync,
    /// The files are gone; what is held is being written again.
    Gone,
    /// Syncs failed again and again; nothing more is taken.
    Broken,
}

/// How the room of a Spool is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolUsage {
    /// Bytes that it takes at most: the bound, or what its disk has, if that is less.
    pub bytes_max: u64,
    /// Bytes that it takes, what is dead and not yet removed included.
    pub bytes: u64,
    /// Bytes of fragments that are held.
    pub live_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// What is wrong with the disk, if something is.
    pub fault: Option<DiskFault>,
    /// The same for people.
    pub error: Option<String>,
    /// How often the disk did not take what was to be written or synced.
    pub failures: u64,
}

/// What went in and out since the start, in events. Those recovered from an earlier run were taken by this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolCounts {
    /// Offered by Clients, every repetition of what was refused included.
    pub offered: u64,
    /// Found in the log at the start.
    pub recovered: u64,
    /// Found damaged when they were read back to be sent; the Ledger is told in their place.
    pub damaged: u64,
    /// Turned away because there was no room; the Client kept it and offers it again.
    pub refused: u64,
    /// Safely stored and confirmed, and released.
    pub released: u64,
    /// Older than may still be sent, and released.
    pub expired: u64,
}

impl SpoolCounts {
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
