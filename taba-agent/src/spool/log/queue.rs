//! [`Queue`]: pending disk jobs and their order.
//!
//! Removals come first, then reads, then writes in the order of the log. Records appended during a write go with the
//! next one. A segment is synced before the next one begins: a checkpoint must not exist without the records it
//! covers, and of two unsynced files a power failure may leave the second and not the first.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::{LogSpool, Renewing, SyncPolicy};
use crate::spool::record::{FragmentSpan, Record};
use crate::spool::{DiskFault, DiskJob, Fetch, FetchedContent, JobResult, SegmentId};

/// The pause after a failed job.
const RETRY: Duration = Duration::from_millis(100);
/// The interval of reading the free space, on a disk that is smaller than the bound.
const LOOK: Duration = Duration::from_secs(1);

/// Pending disk jobs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    chunks: VecDeque<WriteChunk>,
    /// Bytes of all chunks, with the one being written.
    pub(super) bytes: usize,
    pub(super) reads: VecDeque<Fetch>,
    /// The job in progress.
    busy: Option<Busy>,
    /// Whether a sync is prepared or running.
    is_syncing: bool,
    /// Whether that sync is of files that are no longer trusted.
    is_sync_void: bool,
    /// Since when a write has been waiting for a sync.
    unsynced_since: Option<Duration>,
    /// Whether a segment was removed since the last finished sync: the next removal waits, so that after a power
    /// failure the log is one range, and a missing segment is known to be lost.
    is_removed: bool,
    /// Whether the running sync makes that removal durable.
    is_removal_syncing: bool,
    retry_at: Option<Duration>,
    remove_at: Option<Duration>,
    look_at: Option<Duration>,
}

/// Records that are written together.
#[derive(Debug)]
struct WriteChunk {
    to: ChunkTarget,
    bytes: Vec<u8>,
}

/// The target of a chunk.
#[derive(Clone, Copy, Debug)]
struct ChunkTarget {
    segment: SegmentId,
    /// Whether it is the head of its segment.
    begins: bool,
    /// Whether it is the head of a renewed log.
    renews: bool,
    /// The position of its end.
    end: u64,
}

#[derive(Clone, Copy, Debug)]
enum Busy {
    Write(ChunkTarget),
    Other,
}

impl Queue {
    /// Adds the head of a segment.
    pub(super) fn begin(&mut self, segment: SegmentId, head: Vec<u8>, end: u64, renews: bool) {
        self.bytes += head.len();
        let to = ChunkTarget { segment, begins: true, renews, end };
        self.chunks.push_back(WriteChunk { to, bytes: head });
    }

    /// Adds a record; call [`ends_at`](Self::ends_at) afterwards. Returns the offsets of its fragments, and its size
    /// in bytes.
    pub(super) fn append(&mut self, segment: SegmentId, record: &Record<'_>) -> (Vec<FragmentSpan>, usize) {
        let is_open = |chunk: &WriteChunk| chunk.to.segment == segment && !chunk.to.begins;
        if !self.chunks.back().is_some_and(is_open) {
            let to = ChunkTarget { segment, begins: false, renews: false, end: 0 };
            self.chunks.push_back(WriteChunk { to, bytes: Vec::new() });
        }
        let chunk = self.chunks.back_mut().expect("one was pushed if there was none");
        let before = chunk.bytes.len();
        let spans = record.encode(&mut chunk.bytes);
        let bytes = chunk.bytes.len() - before;
        self.bytes += bytes;
        (spans, bytes)
    }

    pub(super) fn ends_at(&mut self, position: u64) {
        if let Some(last) = self.chunks.back_mut() {
            last.to.end = position;
        }
    }

    /// Drops pending writes and syncs: the files are no longer trusted.
    pub(super) fn forget(&mut self) {
        self.chunks.clear();
        (self.bytes, self.is_sync_void) = (0, self.is_syncing);
        (self.retry_at, self.unsynced_since) = (None, None);
    }

    fn begins_next(&self) -> bool {
        self.chunks.front().is_some_and(|chunk| chunk.to.begins && !chunk.to.renews)
    }
}

impl LogSpool {
    pub(super) fn take_job(&mut self, now: Duration) -> Option<DiskJob> {
        if self.queue.busy.is_some() {
            return None;
        }
        let job = self.removal(now).or_else(|| self.queue.reads.pop_front().map(DiskJob::Read));
        let job = job.or_else(|| self.write(now)).or_else(|| self.sync(now)).or_else(|| self.look(now))?;
        self.queue.busy.get_or_insert(Busy::Other);
        Some(job)
    }

    pub(super) fn queue_wakes_at(&self) -> Option<Duration> {
        let queue = &self.queue;
        if queue.busy.is_some() {
            return None;
        }
        let sync = queue.unsynced_since.map(|since| since + self.options.sync_interval);
        let sync = sync.filter(|_| self.wants_sync());
        let renewal = self.renewing.as_ref().and_then(Renewing::wakes_at);
        [queue.retry_at, queue.remove_at, queue.look_at, sync, renewal].into_iter().flatten().min()
    }

    fn removal(&mut self, now: Duration) -> Option<DiskJob> {
        self.queue.remove_at = self.queue.remove_at.filter(|at| *at > now);
        let may = self.queue.remove_at.is_none() && !self.queue.is_removed;
        let segment = self.removable().filter(|_| may)?;
        Some(DiskJob::Remove { segment })
    }

    fn write(&mut self, now: Duration) -> Option<DiskJob> {
        self.queue.retry_at = self.queue.retry_at.filter(|at| *at > now);
        let waits_for_sync = self.queue.begins_next() && self.safe() < self.handed;
        if self.queue.retry_at.is_some() || waits_for_sync || self.fault == Some(DiskFault::Broken) {
            return None;
        }
        let WriteChunk { to, bytes } = self.queue.chunks.pop_front()?;
        self.queue.busy = Some(Busy::Write(to));
        let ChunkTarget { segment, begins, renews, .. } = to;
        Some(if begins { DiskJob::Create { segment, bytes, renews } } else { DiskJob::Write { bytes } })
    }

    fn wants_sync(&self) -> bool {
        let is_kept = self.options.sync != SyncPolicy::Never && self.fault != Some(DiskFault::Broken);
        let is_wanted = self.synced < self.handed || self.queue.is_removed && self.removable().is_some();
        is_kept && !self.queue.is_syncing && is_wanted
    }

    fn sync(&mut self, now: Duration) -> Option<DiskJob> {
        let is_due = self.queue.unsynced_since.is_none_or(|since| since + self.options.sync_interval <= now);
        let is_wanted = self.wants_sync() && (is_due || self.queue.begins_next());
        is_wanted.then_some(DiskJob::Sync { position: self.handed })
    }

    fn look(&mut self, now: Duration) -> Option<DiskJob> {
        self.queue.look_at.take_if(|at| *at <= now).map(|_| DiskJob::Look)
    }

    pub(super) fn is_done(
        &mut self,
        now: Duration,
        done: JobResult,
    ) -> Option<(Fetch, io::Result<FetchedContent>)> {
        match done {
            JobResult::Written { bytes, outcome, free } => {
                if let Some(Busy::Write(to)) = self.queue.busy.take() {
                    self.was_written(now, to, bytes, outcome);
                }
                self.looked(now, free);
            }
            JobResult::Removed { segment, outcome } => {
                self.queue.busy = None;
                self.was_removed(now, segment, outcome);
            }
            JobResult::Fetched { fetch, outcome } => {
                self.queue.busy = None;
                return Some((fetch, outcome));
            }
            JobResult::Prepared { .. } => {
                self.queue.busy = None;
                (self.queue.is_syncing, self.queue.unsynced_since) = (true, None);
                self.queue.is_removal_syncing = self.queue.is_removed;
            }
            JobResult::Synced { position, outcome } => self.was_synced(now, position, outcome),
            JobResult::Looked { free } => {
                self.queue.busy = None;
                self.looked(now, free);
            }
        }
        None
    }

    fn was_written(&mut self, now: Duration, to: ChunkTarget, bytes: Vec<u8>, outcome: io::Result<()>) {
        if to.begins
            && outcome.is_ok()
            && let Some(segment) = self.segment(to.segment)
        {
            segment.is_created = true;
        }
        if self.renewing.as_ref().is_some_and(|renewing| to.segment <= renewing.through) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.queue.bytes -= bytes.len();
                self.handed = to.end;
                self.queue.unsynced_since.get_or_insert(now);
                if self.renewing.is_none() && self.fault == Some(DiskFault::Write) {
                    (self.fault, self.error) = (None, None);
                }
                self.settle();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !to.renews => {
                self.distrust(now, DiskFault::Gone, &error);
            }
            Err(error) => {
                self.queue.chunks.push_front(WriteChunk { to, bytes });
                self.queue.retry_at = Some(now + RETRY);
                self.failures += 1;
                self.error = Some(error.to_string());
                self.fault.get_or_insert(DiskFault::Write);
            }
        }
    }

    fn was_removed(&mut self, now: Duration, segment: SegmentId, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {
                debug_assert_eq!(self.segments.front().map(|oldest| oldest.id), Some(segment));
                self.segments.pop_front();
                self.queue.is_removed = self.options.sync != SyncPolicy::Never;
                self.error = self.error.take().filter(|_| self.fault.is_some());
            }
            // It takes space until then.
            Err(error) => {
                self.error = Some(format!("segment {segment} cannot be removed: {error}"));
                self.queue.remove_at = Some(now + LOOK);
            }
        }
    }

    fn was_synced(&mut self, now: Duration, position: u64, outcome: io::Result<()>) {
        self.queue.is_syncing = false;
        if std::mem::take(&mut self.queue.is_sync_void) {
            return;
        }
        match outcome {
            Ok(()) => {
                self.synced = self.synced.max(position);
                self.queue.is_removed &= !std::mem::take(&mut self.queue.is_removal_syncing);
                self.settle();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.distrust(now, DiskFault::Gone, &error);
            }
            Err(error) => self.distrust(now, DiskFault::Sync, &error),
        }
    }

    fn looked(&mut self, now: Duration, free: Option<u64>) {
        self.has_room(free);
        let is_small = self.disk_bytes_max < self.options.bytes_max;
        self.queue.look_at = is_small.then_some(now + LOOK);
    }
}
