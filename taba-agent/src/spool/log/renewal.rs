//! [`Renewing`]: rewrites a log whose files are no longer trusted.
//!
//! After a failed sync the state of the files is unknown, and a second successful one proves nothing: the system may
//! have dropped the pages. If the directory was removed, the files vanish when they are closed. In both cases all
//! live content is written again to new segments: from memory, or read back with checksums. What is then damaged is
//! lost and reported. Until everything is on the disk, [`written`](super::LogSpool) and `durable` do not move, so
//! that no Client is answered and no Batch is sent for content that may not exist; Batches that were durable before
//! are still sent.

use std::io;
use std::time::Duration;

use super::LogSpool;
use crate::spool::record::{Checkpoint, SegmentRole};
use crate::spool::{DiskFault, Renewal, SegmentId, SpoolError};

/// Failed syncs in a row after which the disk is given up.
const SYNC_FAILURES_MAX: u32 = 3;
/// Of the copied bytes, one in this many is allowed for the heads of records and segments.
const HEADS_SHARE: u64 = 4;
/// The pause before the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// A renewal in progress.
#[derive(Debug)]
pub(super) struct Renewing {
    /// The last segment that is not trusted.
    pub(super) through: SegmentId,
    stage: Stage,
    sync_failures: u32,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Begins at this time.
    Waiting(Duration),
    Copying,
    /// Everything is copied, and done once this position is safe.
    Sealing(u64),
}

impl Renewing {
    pub(super) fn step(&self, now: Duration) -> Renewal {
        match self.stage {
            Stage::Waiting(until) if until <= now => Renewal::Begin,
            Stage::Waiting(_) | Stage::Sealing(_) => Renewal::Wait,
            Stage::Copying => Renewal::Copy(self.through),
        }
    }

    /// Whether live content may still have to be copied.
    pub(super) fn is_copying(&self) -> bool {
        !matches!(self.stage, Stage::Sealing(_))
    }

    pub(super) fn wakes_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::Waiting(until) => Some(until),
            Stage::Copying | Stage::Sealing(_) => None,
        }
    }
}

impl LogSpool {
    /// Stops trusting everything written so far.
    pub(super) fn distrust(&mut self, now: Duration, why: DiskFault, error: &io::Error) {
        self.failures += 1;
        let before = self.renewing.as_ref().map_or(0, |renewing| renewing.sync_failures);
        let sync_failures = before + u32::from(why == DiskFault::Sync);
        self.queue.forget();
        self.error = Some(match why {
            DiskFault::Gone => error.to_string(),
            DiskFault::Write | DiskFault::Sync | DiskFault::Broken => format!("a sync failed: {error}"),
        });
        if sync_failures >= SYNC_FAILURES_MAX {
            self.fault = Some(DiskFault::Broken);
            return;
        }
        self.fault = Some(why);
        let from = if self.renewing.is_some() { self.unwritten.0.min(self.handed) } else { self.handed };
        self.unwritten = (from, self.position);
        // Internally everything counts as written: what is still needed is appended again.
        (self.handed, self.synced) = (self.position, self.position);
        let pause = if self.renewing.is_some() { PAUSE } else { Duration::ZERO };
        let through = self.segments.back().map_or(SegmentId(0), |last| last.id);
        self.renewing = Some(Renewing { through, stage: Stage::Waiting(now + pause), sync_failures });
    }

    pub(super) fn take_renewal_step(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        let Some(stage) = self.renewing.as_ref().map(|renewing| renewing.stage) else { return Ok(()) };
        self.check_queue(0)?;
        let next = match stage {
            Stage::Waiting(_) => {
                self.begin(&Checkpoint { role: SegmentRole::Renews, ..Checkpoint::default() }, true);
                Stage::Copying
            }
            Stage::Copying => {
                self.begin(&Checkpoint { role: SegmentRole::Seals, ..checkpoint.clone() }, false);
                Stage::Sealing(self.position)
            }
            Stage::Sealing(_) => stage,
        };
        if let Some(renewing) = &mut self.renewing {
            renewing.stage = next;
        }
        Ok(())
    }

    /// Whether all live content up to this segment fits a second time. Copies take space twice until the end, so a
    /// copy without room would wait forever; without it, Servers store what is durable, its segments are freed, and
    /// there is room.
    pub(super) fn has_room_to_copy(&self, through: SegmentId) -> bool {
        let old = self.segments.iter().take_while(|segment| segment.id <= through);
        let bytes: u64 = old.map(|segment| segment.live_bytes).sum();
        let wanted = bytes + bytes / HEADS_SHARE + self.segment_bytes();
        bytes == 0 || self.bytes().saturating_add(wanted) <= self.bytes_max()
    }

    /// Updates the reported positions, if the files are trusted.
    pub(super) fn settle(&mut self) {
        if self.fault == Some(DiskFault::Broken) {
            return;
        }
        if let Some(renewing) = &self.renewing {
            let Stage::Sealing(end) = renewing.stage else { return };
            if self.handed < end || self.safe() < end {
                return;
            }
            (self.renewing, self.fault, self.error) = (None, None, None);
            self.unwritten = (0, 0);
        }
        (self.written, self.durable) = (self.handed, self.synced);
    }
}
