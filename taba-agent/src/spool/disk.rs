//! [`Disk`]: the storage of a log. The real one is `driver/disk.rs`; tests have one that crashes.

use std::fmt;
use std::io;

/// The number of a segment: 1, 2, 3, …; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The range of the log that must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extent {
    /// The oldest segment that was not removed on purpose.
    pub oldest: SegmentId,
    /// The last segment that was synced, 0 if none was.
    pub last: SegmentId,
    /// Bytes of that segment that were synced.
    pub last_bytes: u64,
}

impl Default for Extent {
    fn default() -> Self {
        Self { oldest: SegmentId(1), last: SegmentId(0), last_bytes: 0 }
    }
}

impl Extent {
    /// Whether this many bytes of the segment were certainly synced.
    pub fn holds(&self, segment: SegmentId, bytes: u64) -> bool {
        segment < self.last || (segment == self.last && bytes <= self.last_bytes)
    }
}

/// Numbered files that are appended to.
pub trait Disk: Send + 'static {
    /// The existing segments by number, with their lengths in bytes.
    ///
    /// # Errors
    /// The disk's error.
    fn segments(&self) -> io::Result<Vec<(SegmentId, u64)>>;

    /// Begins a segment with these bytes; later appends go to it.
    ///
    /// # Errors
    /// The disk's error; then there is no such segment, and appends still go to the one before.
    fn create(&mut self, segment: SegmentId, head: &[u8]) -> io::Result<()>;

    /// Appends to the last created segment, all or nothing.
    ///
    /// # Errors
    /// The disk's error; then the segment is unchanged. [`io::ErrorKind::NotFound`], here and from a sync, means that
    /// the segment is gone.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Reads bytes of a segment; fewer at its end.
    ///
    /// # Errors
    /// The disk's error.
    fn read(&self, segment: SegmentId, offset: u64, bytes: usize) -> io::Result<Vec<u8>>;

    /// Truncates a segment.
    ///
    /// # Errors
    /// The disk's error.
    fn cut(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()>;

    /// Renames a segment to a free number.
    ///
    /// # Errors
    /// The disk's error.
    fn rename(&mut self, from: SegmentId, to: SegmentId) -> io::Result<()>;

    /// The range of the log that must exist; `None` if unknown. Every successful sync moves its end.
    ///
    /// # Errors
    /// The disk's error.
    fn extent(&self) -> io::Result<Option<Extent>>;

    /// Records durably, before segments are removed on purpose, that none before this one is missing.
    ///
    /// # Errors
    /// The disk's error.
    fn begins_at(&mut self, oldest: SegmentId) -> io::Result<()>;

    /// Keeps a copy of unreadable bytes in a file of its own; an existing one stays. `false` when the limit of such
    /// copies is reached.
    ///
    /// # Errors
    /// The disk's error.
    fn keep_damaged(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<bool>;

    /// Removes a segment, not the last.
    ///
    /// # Errors
    /// The disk's error.
    fn remove(&mut self, segment: SegmentId) -> io::Result<()>;

    /// Stops trusting what was written so far: no later sync covers it, though it can be read while that works.
    /// Recreates a missing directory.
    ///
    /// # Errors
    /// The disk's error; it is tried again.
    fn renew(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Free bytes; `None` if unknown.
    fn free(&self) -> Option<u64> {
        None
    }

    /// A sync of everything written so far, to run on another thread while this disk is written to.
    fn sync(&mut self) -> Box<dyn FnOnce() -> io::Result<()> + Send>;
}
