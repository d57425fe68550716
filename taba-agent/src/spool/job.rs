//! [`DiskJob`]: the next job of the disk thread; [`JobResult`]: its result.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use taba_core::SeqNo;

use super::{Disk, FragmentLocation, SegmentId};
use crate::units::LaneKey;

/// A job of the disk thread. It may block on the disk: nothing of the Agent waits for it under a lock.
#[derive(Debug)]
pub enum DiskJob {
    /// Begin a segment with these bytes.
    Create {
        /// Its number.
        segment: SegmentId,
        /// Its head, with a checkpoint.
        bytes: Vec<u8>,
        /// Whether earlier writes are no longer trusted ([`Disk::renew`]).
        renews: bool,
    },
    /// Append these bytes to the last segment.
    Write {
        /// One or more whole records.
        bytes: Vec<u8>,
    },
    /// Remove a segment.
    Remove {
        /// Its number.
        segment: SegmentId,
    },
    /// Read back the content of a Batch.
    Read(Fetch),
    /// Prepare a sync of everything written.
    Sync {
        /// Everything up to here is durable when it succeeds.
        position: u64,
    },
    /// Read the free space.
    Look,
}

/// A Batch to read back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetch {
    /// The Lane.
    pub lane: LaneKey,
    /// The Batch.
    pub seq: SeqNo,
    /// The locations of its fragments, in order.
    pub locations: Vec<FragmentLocation>,
    /// The purpose.
    pub purpose: Purpose,
}

/// Why a Batch is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To send it.
    Send,
    /// To merge it with other unsent Batches of its Lane.
    Merge,
    /// To copy it to the end of the log.
    Copy,
}

/// The content of a Batch that was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedContent {
    /// Its intact fragments, in order.
    pub bytes: Bytes,
    /// The locations of damaged fragments.
    pub damaged: Vec<FragmentLocation>,
}

impl Fetch {
    /// The total bytes to read.
    pub fn bytes(&self) -> usize {
        self.locations.iter().map(|location| location.bytes as usize).sum()
    }
}

/// A prepared sync, to run on a thread that may block.
#[non_exhaustive]
pub struct SyncJob {
    /// Everything up to here is durable when it succeeds.
    pub position: u64,
    /// The work.
    pub run: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

impl SyncJob {
    /// Does it.
    pub fn run(self) -> JobResult {
        JobResult::Synced { position: self.position, outcome: (self.run)() }
    }
}

impl fmt::Debug for SyncJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncJob").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The outcome of running a [`DiskJob`].
#[derive(Debug)]
pub enum JobRun {
    /// It is done.
    Done(JobResult),
    /// A sync was prepared. Report [`JobResult::Prepared`] to the Spool, and run it on another thread, so that writes
    /// need not wait.
    Sync(SyncJob),
}

/// The result of a [`DiskJob`].
#[derive(Debug)]
pub enum JobResult {
    /// A segment was begun, or appended to.
    Written {
        /// The bytes to write.
        bytes: Vec<u8>,
        /// Whether they were written.
        outcome: io::Result<()>,
        /// Free bytes of the disk, if known.
        free: Option<u64>,
    },
    /// A segment was removed.
    Removed {
        /// The segment.
        segment: SegmentId,
        /// Whether it was removed.
        outcome: io::Result<()>,
    },
    /// A Batch was read.
    Fetched {
        /// The request.
        fetch: Fetch,
        /// The content, or the disk's error.
        outcome: io::Result<FetchedContent>,
    },
    /// A sync was prepared; [`JobResult::Synced`] follows.
    Prepared {
        /// It covers everything up to here.
        position: u64,
    },
    /// A sync has ended.
    Synced {
        /// It covered everything up to here.
        position: u64,
        /// Its result.
        outcome: io::Result<()>,
    },
    /// The free space was read.
    Looked {
        /// Free bytes of the disk, if known.
        free: Option<u64>,
    },
}

impl DiskJob {
    /// Runs the job, blocking on the disk.
    pub fn run(self, disk: &mut dyn Disk) -> JobRun {
        JobRun::Done(match self {
            Self::Create { segment, bytes, renews } => {
                let renewed = if renews { disk.renew() } else { Ok(()) };
                let outcome = renewed.and_then(|()| disk.create(segment, &bytes));
                JobResult::Written { bytes, outcome, free: disk.free() }
            }
            Self::Write { bytes } => {
                let outcome = disk.append(&bytes);
                JobResult::Written { bytes, outcome, free: disk.free() }
            }
            Self::Remove { segment } => {
                // A disk too full for the record gets room by the removal. If the Agent is killed before there is a
                // record, a segment that was removed on purpose is reported as missing.
                let _ = disk.begins_at(SegmentId(segment.0 + 1));
                JobResult::Removed { segment, outcome: disk.remove(segment) }
            }
            Self::Read(fetch) => {
                let outcome = read(disk, &fetch.locations);
                JobResult::Fetched { fetch, outcome }
            }
            Self::Sync { position } => return JobRun::Sync(SyncJob { position, run: disk.sync() }),
            Self::Look => JobResult::Looked { free: disk.free() },
        })
    }
}

/// Reads consecutive fragments, and checks each.
fn read(disk: &dyn Disk, locations: &[FragmentLocation]) -> io::Result<FetchedContent> {
    let mut bytes = BytesMut::with_capacity(locations.iter().map(|location| location.bytes as usize).sum());
    let mut damaged = Vec::new();
    for location in locations {
        let found = match disk.read(location.segment, u64::from(location.offset), location.bytes as usize) {
            Ok(found) => found,
            Err(error) if is_lasting(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        if found.len() == location.bytes as usize && crc32fast::hash(&found) == location.crc {
            bytes.extend_from_slice(&found);
        } else {
            damaged.push(*location);
        }
    }
    Ok(FetchedContent { bytes: bytes.freeze(), damaged })
}

/// Whether the error is permanent: the segment is gone, or the medium is defective.
fn is_lasting(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(EIO)
}
