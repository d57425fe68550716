//! [`DiskJob`]: what the thread that owns the disk is to do next, one at a time; [`JobResult`]: how it went.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use taba_core::SeqNo;

use super::{Disk, FragmentLocation, SegmentId};
use crate::units::LaneKey;

/// One thing to do with the disk. It may take as long as the disk does: nothing of the Agent waits for it under a lock.
#[derive(Debug)]
pub enum DiskJob {
    /// Begin a segment that holds these bytes.
    Create {
        /// Its number.
        segment: SegmentId,
        /// Its head, with a checkpoint.
        bytes: Vec<u8>,
        /// Whether what was written before is not believed any more ([`Disk::renew`]).
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
    /// Prepare a sync of everything that was written.
    Sync {
        /// Everything up to here is durable when it succeeds.
        position: u64,
    },
    /// See how much room there is.
    Look,
}

/// A Batch whose content is to be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Of which Lane.
    pub lane: LaneKey,
    /// Which Batch.
    pub seq: SeqNo,
    /// Where its fragments stand, in order.
    pub locations: Vec<FragmentLocation>,
    /// What for.
    pub purpose: Purpose,
}

/// What the content of a Batch is read back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To send it.
    Send,
    /// To merge it with the rest of what its Lane never sent.
    Merge,
    /// To write it again at the end of the log.
    Copy,
}

/// What was read back of a Batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedContent {
    /// Its fragments, one behind the other, without those that are damaged.
    pub bytes: Bytes,
    /// Where the fragments stand whose bytes are not those that were written.
    pub damaged: Vec<FragmentLocation>,
}

impl Fetch {
    /// How many bytes that are.
    pub fn bytes(&self) -> usize {
        self.locations.iter().map(|location| location.bytes as usize).sum()
    }
}

/// A sync that is ready to run, on a thread that may wait for a disk.
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

/// What running a [`DiskJob`] gave.
#[derive(Debug)]
pub enum JobRun {
    /// It is done.
    Done(JobResult),
    /// A sync was prepared. Tell the Spool [`JobResult::Prepared`], and run it on another thread, so that writes need not wait.
    Sync(SyncJob),
}

/// How a [`DiskJob`] went.
#[derive(Debug)]
pub enum JobResult {
    /// A segment was begun, or appended to.
    Written {
        /// What was to be written.
        bytes: Vec<u8>,
        /// Whether it was.
        outcome: io::Result<()>,
        /// Bytes of room that the disk has left, if it says.
        free: Option<u64>,
    },
    /// A segment was removed.
    Removed {
        /// Which.
        segment: SegmentId,
        /// Whether it was.
        outcome: io::Result<()>,
    },
    /// A Batch was read.
    Fetched {
        /// What was asked for.
        fetch: Fetch,
        /// What was found, unless the disk could not say now.
        outcome: io::Result<FetchedContent>,
    },
    /// A sync was prepared, and [`JobResult::Synced`] is to come.
    Prepared {
        /// Of everything up to here.
        position: u64,
    },
    /// A sync has ended.
    Synced {
        /// It was of everything up to here.
        position: u64,
        /// How it went.
        outcome: io::Result<()>,
    },
    /// How much room there is.
    Looked {
        /// Bytes of room that the disk has left, if it says.
        free: Option<u64>,
    },
}

impl DiskJob {
    /// Does it, for as long as the disk takes.
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
                // A disk so full that it does not even take the note gets room by the removal. Should the agent be killed
                // before there is a note, a segment is reported as missing that was removed on purpose.
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

/// Reads fragments, one behind the other, and checks each.
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

/// Whether reading the same again would fail again: the segment is gone, or the medium does not give the bytes.
fn is_lasting(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(EIO)
}
