//! [`Renewing`]: a log whose files are not believed any more is written again.
//!
//! What a sync that failed leaves behind is unknown, and a second one that succeeds proves nothing: the system may have
//! dropped the pages. Where the directory was removed, the files are gone with the last who has them open. In both cases
//! all that is held is written again, to new segments: from memory, or read back, checksums compared. What is read of
//! that, and does not fit, is lost and told. Until all of it is on the disk, [`written`](super::LogSpool) and `durable`
//! stay where they were, so that no Client is answered and no Batch is sent for what may not be there; what was durable
//! goes on being sent.

use std::io;
use std::time::Duration;

use super::LogSpool;
use crate::spool::record::{Checkpoint, SegmentRole};
use crate::spool::{DiskFault, Renewal, SegmentId, SpoolError};

/// How often in a row a sync may fail; then the disk is given up.
const SYNC_FAILURES_MAX: u32 = 3;
/// Of the bytes of what is copied, one in so many is allowed for the heads of records and segments.
const HEADS_SHARE: u64 = 4;
/// How long to leave it before the next try.
const PAUSE: Duration = Duration::from_secs(1);

/// A renewal that is under way.
#[derive(Debug)]
pub(super) struct Renewing {
    /// The last segment that is not believed.
    pub(super) through: SegmentId,
    stage: Stage,
    sync_failures: u32,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// To be begun then.
    Waiting(Duration),
    Copying,
    /// All is written again once what ends here is safe.
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

    /// Whether something that is held may still have to be written again.
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
    /// Nothing that was written so far is believed any more.
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
        // Inside, everything counts as written: what is still needed is appended again.
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

    /// Whether all that is held up to this segment fits a second time. What was copied takes room at both places until the
    /// end, so a copy that ran out of room would wait for ever; without it, what is durable goes on being stored by Servers,
    /// its segments go, and there is room.
    pub(super) fn has_room_to_copy(&self, through: SegmentId) -> bool {
        let old = self.segments.iter().take_while(|segment| segment.id <= through);
        let bytes: u64 = old.map(|segment| segment.live_bytes).sum();
        let wanted = bytes + bytes / HEADS_SHARE + self.segment_bytes();
        bytes == 0 || self.bytes().saturating_add(wanted) <= self.bytes_max()
    }

    /// Says what is safe now, if the files are believed.
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
