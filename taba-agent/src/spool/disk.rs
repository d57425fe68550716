//! [`Disk`]: what a log needs of a disk. The real one is `driver/disk.rs`; the tests have one that crashes.

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

/// Which range of the log must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The oldest segment that was not removed on purpose: nothing before it is missed.
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
    /// Whether so many bytes of this segment were certainly synced.
    pub fn holds(&self, segment: SegmentId, bytes: u64) -> bool {
        segment < self.last || (segment == self.last && bytes <= self.last_bytes)
    }
}

/// Files that are appended to, each under a number.
pub trait Disk: Send + 'static {
    /// The segments that are there, in order of their numbers, with their lengths in bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn segments(&self) -> io::Result<Vec<(SegmentId, u64)>>;

    /// Begins a segment that holds these bytes; it is the one that is appended to from here on.
    ///
    /// # Errors
    /// What the disk says; then there is no such segment, and the one before is still appended to.
    fn create(&mut self, segment: SegmentId, head: &[u8]) -> io::Result<()>;

    /// Appends to the last created segment, all or nothing.
    ///
    /// # Errors
    /// What the disk says; then the segment is as long as it was. [`io::ErrorKind::NotFound`], here and from a sync, says
    /// that the segment is gone.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Bytes of a segment. Fewer than were asked for when it ends before.
    ///
    /// # Errors
    /// What the disk says.
    fn read(&self, segment: SegmentId, offset: u64, bytes: usize) -> io::Result<Vec<u8>>;

    /// Cuts off what is behind so many bytes of a segment.
    ///
    /// # Errors
    /// What the disk says.
    fn cut(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()>;

    /// Gives a segment another number, under which there is none.
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&mut self, from: SegmentId, to: SegmentId) -> io::Result<()>;

    /// Which range of the log must be there; `None` when nobody knows. Every sync that succeeds moves its end.
    ///
    /// # Errors
    /// What the disk says.
    fn extent(&self) -> io::Result<Option<Extent>>;

    /// Notes, before segments are removed on purpose, that nothing before this one is missed from here on; the note
    /// outlives a power failure.
    ///
    /// # Errors
    /// What the disk says.
    fn begins_at(&mut self, oldest: SegmentId) -> io::Result<()>;

    /// Keeps a copy of bytes that no reader understands, in a place of its own. One that is there already stays as it is.
    /// `false` when there is no room for it within the bound of such copies.
    ///
    /// # Errors
    /// What the disk says.
    fn keep_damaged(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<bool>;

    /// Removes a segment, not the last.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&mut self, segment: SegmentId) -> io::Result<()>;

    /// What was written so far is not believed any more: no later sync covers it, though it is read from as long as that
    /// works. A place that is gone is made anew.
    ///
    /// # Errors
    /// What the disk says; then it is tried again.
    fn renew(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Bytes of room that are left; `None` when that is not known.
    fn free(&self) -> Option<u64> {
        None
    }

    /// What makes everything that is there so far durable, by whomever it was written. It is run on another thread, while
    /// this disk is written to.
    fn sync(&mut self) -> Box<dyn FnOnce() -> io::Result<()> + Send>;
}
