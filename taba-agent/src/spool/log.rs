//! [`LogSpool`]: a log of segments on a disk.
//!
//! Segments are appended to one after the other and removed from the oldest on, when nothing in them is live; so they
//! are always one contiguous range of the log, and everything follows from its first checkpoint on. Live content of
//! an old segment can be copied to the end (see [`Relay`](crate::Relay)).

// queue: pending writes, reads, syncs and removals; renewal: files that are no longer trusted.
mod queue;
mod renewal;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use self::queue::Queue;
use self::renewal::Renewing;
use super::record::{Checkpoint, FragmentSpan, Record, SEGMENT_HEAD_BYTES, SegmentHead, SegmentRole};
use super::recovery::{Recovered, recover};
use super::{
    Appended, Disk, DiskFault, DiskJob, Fetch, FetchedContent, FragmentLocation, JobResult, Renewal,
    SegmentId, Spool, SpoolError, SpoolUsage,
};

/// Maximum bytes of pending writes; a single record may exceed it.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// The least bytes of a segment on a disk that is smaller than the bound.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The number of segments on a disk that is smaller than the bound.
const SEGMENTS: u64 = 16;

/// When appended records are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before the Client gets its answer: nothing acknowledged is lost, even when the power fails.
    Always,
    /// Every few milliseconds, and before it is sent: a power failure loses the last of them, and nothing counts
    /// twice.
    #[default]
    Interval,
    /// When the system decides: a power failure may lose acknowledged events; killing only the process loses nothing.
    Never,
}

/// The options of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// Maximum bytes of all segments.
    pub bytes_max: u64,
    /// Bytes at which a segment is closed; at least one record goes into each.
    pub segment_bytes: u64,
    /// When what is appended is made durable.
    pub sync: SyncPolicy,
    /// How long a write waits for a common sync; zero with [`SyncPolicy::Always`].
    pub sync_interval: Duration,
}

/// A Spool as a log of segments on a disk, which outlives the process.
///
/// # Cost
/// Appending is a copy into a buffer, which is written when the disk has finished the previous write: concurrent
/// Batches share one write and one sync. Beginning a segment costs a checkpoint of all Lanes and incarnations, and
/// waits for a sync of the one before.
#[derive(Debug)]
pub struct LogSpool {
    options: LogOptions,
    /// Oldest first; the last is appended to, if `is_open`.
    segments: VecDeque<Segment>,
    /// The highest number of any segment so far.
    last: SegmentId,
    /// Whether this run began the last segment: segments of earlier runs are never appended to.
    is_open: bool,
    /// The end of appended records; those after `handed` are in the queue.
    position: u64,
    /// The end of what the disk has written.
    handed: u64,
    /// The end of what is synced.
    synced: u64,
    /// The reported value of `handed` and `synced`, which does not move during a renewal.
    written: u64,
    durable: u64,
    /// Positions between these were perhaps never written: the files were given up before.
    unwritten: (u64, u64),
    queue: Queue,
    renewing: Option<Renewing>,
    fault: Option<DiskFault>,
    error: Option<String>,
    failures: u64,
    /// Bytes of segments and free space together, as last reported by the disk.
    disk_bytes_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    id: SegmentId,
    bytes: u64,
    /// Bytes of its head and checkpoint.
    head_bytes: u64,
    live_bytes: u64,
    /// Whether the disk has created it.
    is_created: bool,
    /// The end of its head, in positions of this run: 0 for those of earlier runs.
    begun: u64,
    /// The position up to which the log must be safe before it is removed: its content was copied there.
    moved_to: u64,
}

impl LogSpool {
    /// Opens a log, and recovers its content. Nothing is written yet: call [`Spool::roll`] first, then run the
    /// [jobs](Spool::next_job) on the same disk.
    ///
    /// # Errors
    /// The disk's error when it cannot be read at all; damage is no error, but reported in [`Recovered`].
    pub fn open(disk: &mut dyn Disk, options: LogOptions) -> io::Result<(Self, Recovered)> {
        // Before the sync, which moves the end of the required range.
        let extent = disk.extent()?;
        if options.sync != SyncPolicy::Never {
            // An earlier run may have been killed before it synced what is used now.
            (disk.sync())()?;
        }
        let recovered = recover(disk, extent)?;
        keep_unreadable(disk, &recovered)?;
        // Reported once: the next run must not find the same damage, and attribute it to other missing bytes.
        let mut segments = recovered.segments.clone();
        for (id, bytes) in &recovered.torn {
            disk.cut(*id, *bytes)?;
            if let Some(segment) = segments.iter_mut().find(|(segment, _)| segment == id) {
                segment.1 = *bytes;
            }
        }
        for void in &recovered.void {
            disk.remove(*void)?;
        }
        segments.retain(|(segment, _)| !recovered.void.contains(segment));
        if !recovered.void.is_empty() && options.sync != SyncPolicy::Never {
            (disk.sync())()?;
        }
        let segment = |(id, bytes)| Segment {
            id,
            bytes,
            head_bytes: 0,
            live_bytes: 0,
            is_created: true,
            begun: 0,
            moved_to: 0,
        };
        let segments: VecDeque<_> = segments.into_iter().map(segment).collect();
        let mut spool = Self {
            options,
            segments,
            last: recovered.last,
            is_open: false,
            position: 0,
            handed: 0,
            synced: 0,
            written: 0,
            durable: 0,
            unwritten: (0, 0),
            queue: Queue::default(),
            renewing: None,
            fault: None,
            error: None,
            failures: 0,
            disk_bytes_max: u64::MAX,
        };
        for location in recovered.locations() {
            spool.hold(location);
        }
        spool.has_room(disk.free());
        Ok((spool, recovered))
    }

    fn hold(&mut self, location: &FragmentLocation) {
        if let Some(segment) = self.segment(location.segment) {
            segment.live_bytes += u64::from(location.bytes);
        }
    }

    /// Numbers ascend, with gaps only where files were removed by hand.
    fn segment(&mut self, id: SegmentId) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&id, |segment| segment.id).ok()?;
        self.segments.get_mut(index)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The disk reported its free space.
    fn has_room(&mut self, free: Option<u64>) {
        let taken = self.bytes().saturating_sub(self.queue.bytes as u64);
        self.disk_bytes_max = free.map_or(u64::MAX, |free| taken.saturating_add(free));
    }

    /// The maximum bytes: the bound, or the disk's size if that is smaller.
    fn bytes_max(&self) -> u64 {
        self.options.bytes_max.min(self.disk_bytes_max)
    }

    /// Bytes at which a segment is closed: smaller on a small disk, so that space is freed in small pieces, but not
    /// mostly head.
    fn segment_bytes(&self) -> u64 {
        let bytes = self.options.segment_bytes.min((self.bytes_max() / SEGMENTS).max(SEGMENT_BYTES_MIN));
        bytes.max(2 * self.segments.back().map_or(0, |last| last.head_bytes))
    }

    /// Whether this many bytes can be added. Intake leaves room for the records that free space.
    fn check_room(&self, bytes: u64, is_intake: bool) -> Result<(), SpoolError> {
        if self.fault == Some(DiskFault::Broken) {
            return Err(SpoolError::Broken);
        }
        // No intake between the copies: after a crash they are a prefix, Lane by Lane.
        if is_intake && self.renewing.as_ref().is_some_and(Renewing::is_copying) {
            return Err(SpoolError::Behind { bytes: self.queue.bytes as u64 });
        }
        let reserve = if is_intake { self.segment_bytes() } else { 0 };
        let wanted = self.bytes().saturating_add(bytes).saturating_add(reserve);
        if wanted > self.bytes_max() {
            return Err(SpoolError::Full { bytes_short: wanted - self.bytes_max() });
        }
        self.check_queue(bytes)
    }

    fn check_queue(&self, bytes: u64) -> Result<(), SpoolError> {
        let waiting = self.queue.bytes as u64;
        let is_over = waiting > 0 && waiting + bytes > QUEUE_BYTES_MAX as u64;
        if is_over { Err(SpoolError::Behind { bytes: waiting }) } else { Ok(()) }
    }

    /// The oldest segment, if nothing in it is live, and a later head durably holds what it says of Clients.
    fn removable(&self) -> Option<SegmentId> {
        if !self.is_open || self.segments.len() < 2 {
            return None;
        }
        let (oldest, next) = (self.segments[0], self.segments[1]);
        // During a renewal, only what was safe before counts: copied content stays in its place, with one old
        // segment, beside which the copies do not count. Freed segments make room.
        let safe = if self.renewing.is_some() { self.durable() } else { self.safe() };
        let is_safe = |segment: &Segment| (1..=safe).contains(&segment.begun);
        // The head of any segment of this run holds everything that segments of earlier runs say.
        let is_said = if next.begun == 0 { self.segments.iter().any(is_safe) } else { is_safe(&next) };
        (oldest.live_bytes == 0 && oldest.moved_to <= safe && is_said).then_some(oldest.id)
    }

    /// The end of what has the configured safety.
    fn safe(&self) -> u64 {
        match self.options.sync {
            SyncPolicy::Always | SyncPolicy::Interval => self.synced,
            SyncPolicy::Never => self.handed,
        }
    }

    /// Begins a segment in memory, to be written in turn.
    fn begin(&mut self, checkpoint: &Checkpoint, renews: bool) {
        let id = SegmentId(self.last.0 + 1);
        self.last = id;
        let mut head = Vec::with_capacity(SEGMENT_HEAD_BYTES + 1024);
        // After files were given up, some segments were perhaps never created, and the length of the last one is
        // unknown.
        let before = self.segments.iter().rfind(|before| before.is_created || !renews);
        let before_bytes = before.map_or(0, |before| if renews { 0 } else { before.bytes });
        let before = before.map_or(SegmentId(0), |before| before.id);
        head.extend_from_slice(&SegmentHead { id, before, before_bytes }.encode());
        Checkpoint { segment: id, ..checkpoint.clone() }.encode(&mut head);
        let bytes = head.len() as u64;
        self.position += bytes;
        self.queue.begin(id, head, self.position, renews);
        self.segments.push_back(Segment {
            id,
            bytes,
            head_bytes: bytes,
            live_bytes: 0,
            is_created: false,
            begun: self.position,
            moved_to: 0,
        });
        self.is_open = true;
    }
}

/// Copies unreadable bytes to files of their own.
fn keep_unreadable(disk: &mut dyn Disk, recovered: &Recovered) -> io::Result<()> {
    for stretch in &recovered.unreadable {
        let bytes = disk.read(stretch.segment, stretch.offset, stretch.bytes as usize)?;
        // Without room for a copy, the segment is delivered all the same.
        let _ = disk.keep_damaged(stretch.segment, stretch.offset, &bytes);
    }
    Ok(())
}

impl Spool for LogSpool {
    fn keeps_content(&self) -> bool {
        true
    }

    fn append(&mut self, record: &Record<'_>) -> Result<Appended, SpoolError> {
        self.check_room(record.bytes_max() as u64, record.is_intake())?;
        let Some(last) = self.segments.back_mut().filter(|_| self.is_open) else {
            return Err(SpoolError::Behind { bytes: self.queue.bytes as u64 });
        };
        let (segment, start) = (last.id, last.bytes);
        let (spans, bytes) = self.queue.append(segment, record);
        last.bytes += bytes as u64;
        self.position += bytes as u64;
        self.queue.ends_at(self.position);
        let location = |&(offset, bytes, crc): &FragmentSpan| FragmentLocation {
            segment,
            offset: (start + offset as u64) as u32,
            bytes: bytes as u32,
            crc,
        };
        let locations: Vec<_> = spans.iter().map(location).collect();
        locations.iter().for_each(|location| self.hold(location));
        Ok(Appended { locations, position: self.position })
    }

    fn must_roll(&self, bytes: usize) -> bool {
        let last = self.segments.back().filter(|_| self.is_open);
        last.is_none_or(|last| {
            last.bytes > last.head_bytes && last.bytes + bytes as u64 > self.segment_bytes()
        })
    }

    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        if self.fault == Some(DiskFault::Broken) {
            return Err(SpoolError::Broken);
        }
        self.check_queue(0)?;
        // Until everything is copied, a checkpoint may not hold for the new files.
        if self.renewing.as_ref().is_some_and(Renewing::is_copying) {
            self.begin(&Checkpoint { role: SegmentRole::Renews, ..Checkpoint::default() }, false);
        } else {
            self.begin(checkpoint, false);
        }
        Ok(())
    }

    fn release(&mut self, locations: &[FragmentLocation]) {
        for location in locations {
            if let Some(segment) = self.segment(location.segment) {
                debug_assert!(segment.live_bytes >= u64::from(location.bytes), "more released than was held");
                segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(location.bytes));
            }
        }
    }

    fn moved(&mut self, locations: &[FragmentLocation]) {
        self.release(locations);
        let position = self.position;
        for location in locations {
            if let Some(segment) = self.segment(location.segment) {
                segment.moved_to = position;
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn durable(&self) -> u64 {
        match self.options.sync {
            SyncPolicy::Always | SyncPolicy::Interval => self.durable,
            SyncPolicy::Never => self.written,
        }
    }

    fn is_readable(&self, position: u64) -> bool {
        let (from, to) = self.unwritten;
        position <= self.handed && !(from < position && position <= to)
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.queue.reads.push_back(fetch);
    }

    fn next_job(&mut self, now: Duration) -> Option<DiskJob> {
        self.take_job(now)
    }

    fn done(&mut self, now: Duration, done: JobResult) -> Option<(Fetch, io::Result<FetchedContent>)> {
        self.is_done(now, done)
    }

    fn wake_at(&self) -> Option<Duration> {
        self.queue_wakes_at()
    }

    fn usage(&self) -> SpoolUsage {
        SpoolUsage {
            bytes_max: self.bytes_max(),
            bytes: self.bytes(),
            live_bytes: self.segments.iter().map(|segment| segment.live_bytes).sum(),
            segments: self.segments.len() as u64,
            fault: self.fault,
            error: self.error.clone(),
            failures: self.failures,
        }
    }

    fn oldest(&self) -> Option<SegmentId> {
        let is_other = self.segments.len() > usize::from(self.is_open);
        self.segments.front().filter(|_| is_other).map(|oldest| oldest.id)
    }

    fn renewal(&self, now: Duration) -> Renewal {
        let step = self.renewing.as_ref().map_or(Renewal::None, |renewing| renewing.step(now));
        match step {
            Renewal::Copy(through) if !self.has_room_to_copy(through) => Renewal::Wait,
            step => step,
        }
    }

    fn renew(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        self.take_renewal_step(checkpoint)
    }
}
