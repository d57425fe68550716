//! [`LogSpool`]: a log of segments on a disk.
//!
//! Segments are appended to one after the other and removed from the oldest on, when nothing in them is held any more;
//! so what is there is always one stretch of the log, and reading it from its first checkpoint on says all there is to
//! know. What holds up an old segment can be copied to the end (see [`Relay`](crate::Relay)).

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use super::record::{Checkpoint, Record, SEGMENT_HEAD_BYTES, Span, segment_head};
use super::recovery::{Recovered, recover};
use super::{Disk, Place, ReadError, Room, SegmentId, Spool, SpoolError, SyncJob, Written};

/// Bytes that wait to be written, about: more only when one record is larger.
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// When what is appended is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum SyncPolicy {
    /// Before its Client is told that it is safe: nothing that was acknowledged is lost, also when the power fails
    Always,
    /// Every few milliseconds, and before it is sent: when the power fails, the last of them are lost, and nothing is counted twice
    #[default]
    Interval,
    /// When the system finds time: when the power fails, what was acknowledged may be lost; nothing is when only the process is killed
    Never,
}

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of all segments together, at most.
    pub bytes_max: u64,
    /// Bytes at which a segment is closed; at least one record goes into each.
    pub segment_bytes: u64,
    /// When what is appended is made durable.
    pub sync: SyncPolicy,
}

/// A Spool that is a log of segments on a disk: what it holds outlives the process.
///
/// # Cost
/// Appending is a copy into a buffer, and flushing one write of all that came since the last: so what many Clients bring
/// at a time costs one write together, as it costs one sync. Beginning a segment costs a checkpoint of all Lanes and incarnations, and
/// waits for a sync of what was not synced of the one before.
#[derive(Debug)]
pub struct LogSpool<D> {
    disk: D,
    options: LogOptions,
    /// Oldest first; the last is appended to, if `is_open`.
    segments: VecDeque<Segment>,
    /// Whether the last segment was begun by this run: what an earlier one wrote is never appended to.
    is_open: bool,
    /// Up to where it was appended; what is behind `written` is in `buffer`.
    position: u64,
    /// Up to where it was handed to the disk: it outlives the process.
    written: u64,
    buffer: Vec<u8>,
    durable: u64,
    /// Where the last sync job was taken.
    syncing: u64,
    error: Option<String>,
    is_broken: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    id: SegmentId,
    bytes: u64,
    live_bytes: u64,
    /// Where its head ends, in the positions of this run: 0 for those of earlier runs.
    begun: u64,
}

impl<D: Disk> LogSpool<D> {
    /// Opens a log, and says what it holds. Nothing is written yet: call [`Spool::roll`] first.
    ///
    /// # Errors
    /// What the disk says when it cannot be read at all; damage is no error, but told in [`Recovered`].
    pub fn open(mut disk: D, options: LogOptions) -> io::Result<(Self, Recovered)> {
        let found = disk.segments()?;
        if options.sync != SyncPolicy::Never {
            // What an earlier run wrote and did not sync before it was killed is about to be relied on.
            (disk.sync())()?;
        }
        let recovered = recover(&disk, &found)?;
        let segment = |(id, bytes)| Segment { id, bytes, live_bytes: 0, begun: 0 };
        let mut segments: VecDeque<_> = found.into_iter().map(segment).collect();
        // Told once: the next run is not to find the same again, and take it for what is missing elsewhere.
        for (id, bytes) in &recovered.torn {
            disk.cut(*id, *bytes)?;
            if let Some(segment) = segments.iter_mut().find(|segment| segment.id == *id) {
                segment.bytes = *bytes;
            }
        }
        let mut spool = Self {
            disk,
            options,
            segments,
            is_open: false,
            position: 0,
            written: 0,
            buffer: Vec::new(),
            durable: 0,
            syncing: 0,
            error: None,
            is_broken: false,
        };
        for place in recovered.places() {
            spool.hold(place);
        }
        Ok((spool, recovered))
    }

    fn hold(&mut self, place: &Place) {
        if let Some(segment) = self.segment(place.segment) {
            segment.live_bytes += u64::from(place.bytes);
        }
    }

    /// Their numbers go up, with gaps only where somebody removed files by hand.
    fn segment(&mut self, id: SegmentId) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&id, |segment| segment.id).ok()?;
        self.segments.get_mut(index)
    }

    /// The bytes of a place that was not written yet.
    fn unwritten(&self, place: &Place) -> Option<&[u8]> {
        let last = self.segments.back().filter(|last| last.id == place.segment)?;
        let start = u64::from(place.offset).checked_sub(last.bytes - self.buffer.len() as u64)? as usize;
        self.buffer.get(start..start + place.bytes as usize)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether so many bytes more may be had. New data leaves room for what has to be written to make room.
    fn check_room(&self, bytes: u64, is_intake: bool) -> Result<(), SpoolError> {
        let reserve = if is_intake { self.options.segment_bytes } else { 0 };
        let wanted = self.bytes().saturating_add(bytes).saturating_add(reserve);
        if wanted > self.options.bytes_max {
            return Err(SpoolError::Full { bytes_short: wanted - self.options.bytes_max });
        }
        if self.is_broken { Err(SpoolError::Broken) } else { Ok(()) }
    }

    /// Removes the oldest segments as long as nothing in them is held, and what they said of Clients stands at the head
    /// of a later one for good.
    fn remove_dead(&mut self) {
        while self.is_open && self.segments.len() > 1 {
            let (oldest, next) = (self.segments[0], self.segments[1]);
            if oldest.live_bytes > 0
                || next.begun == 0 && !self.is_sealed_by_last()
                || next.begun > self.durable()
            {
                break;
            }
            if let Err(error) = self.disk.remove(oldest.id) {
                // It is tried again with the next release; until then it takes room.
                self.error = Some(format!("segment {} cannot be removed: {error}", oldest.id));
                break;
            }
            self.segments.pop_front();
        }
    }

    /// Whether the head of the last segment is durable: it says all that segments of earlier runs say.
    fn is_sealed_by_last(&self) -> bool {
        self.segments.back().is_some_and(|last| last.begun <= self.durable())
    }

    /// What a checkpoint says was taken must be there if the checkpoint is: of two files that were both not synced, a
    /// power failure may leave the second and not the first. So a segment is synced before the next begins, which is
    /// seldom, and little, since what came before was synced all along.
    fn sync_before_roll(&mut self) -> Result<(), SpoolError> {
        if self.options.sync == SyncPolicy::Never || self.durable >= self.position {
            return Ok(());
        }
        let outcome = (self.disk.sync())();
        let failed = outcome.is_err();
        self.synced(self.position, outcome);
        if failed { Err(SpoolError::Broken) } else { Ok(()) }
    }

    fn failed(&mut self, error: io::Error) -> SpoolError {
        self.error = Some(error.to_string());
        SpoolError::Disk(error)
    }
}

impl<D: Disk> Spool for LogSpool<D> {
    fn keeps_content(&self) -> bool {
        true
    }

    fn append(&mut self, record: &Record<'_>) -> Result<Written, SpoolError> {
        let bytes_max = record.bytes_max();
        self.check_room(bytes_max as u64, record.is_intake())?;
        // What cannot be written waits in memory, and for no more than a bound.
        if !self.buffer.is_empty() && self.buffer.len() + bytes_max > BUFFER_BYTES_MAX {
            self.flush()?;
        }
        let before = self.buffer.len();
        let Some(last) = self.segments.back_mut().filter(|_| self.is_open) else {
            return Err(SpoolError::Disk(io::Error::other("no segment could be begun")));
        };
        let spans = record.encode(&mut self.buffer);
        let (segment, start, bytes) = (last.id, last.bytes, (self.buffer.len() - before) as u64);
        last.bytes += bytes;
        self.position += bytes;
        let place = |&(offset, bytes, crc): &Span| Place {
            segment,
            offset: (start + offset as u64) as u32,
            bytes: bytes as u32,
            crc,
        };
        let places: Vec<_> = spans.iter().map(place).collect();
        places.iter().for_each(|place| self.hold(place));
        Ok(Written { places, position: self.position })
    }

    fn flush(&mut self) -> Result<u64, SpoolError> {
        if self.buffer.is_empty() {
            return Ok(self.written);
        }
        if self.is_broken {
            return Err(SpoolError::Broken);
        }
        if let Err(error) = self.disk.append(&self.buffer) {
            return Err(self.failed(error));
        }
        self.buffer.clear();
        (self.written, self.error) = (self.position, None);
        Ok(self.written)
    }

    fn must_roll(&self, bytes: usize) -> bool {
        let last = self.segments.back().filter(|_| self.is_open);
        last.is_none_or(|last| last.bytes > 0 && last.bytes + bytes as u64 > self.options.segment_bytes)
    }

    fn roll(&mut self, checkpoint: &Checkpoint) -> Result<(), SpoolError> {
        let id = SegmentId(self.segments.back().map_or(0, |last| last.id.0) + 1);
        let mut head = Vec::with_capacity(SEGMENT_HEAD_BYTES + 1024);
        head.extend_from_slice(&segment_head(id));
        checkpoint.encode(&mut head);
        if self.is_broken {
            return Err(SpoolError::Broken);
        }
        self.flush()?;
        self.sync_before_roll()?;
        if let Err(error) = self.disk.create(id, &head) {
            return Err(self.failed(error));
        }
        self.position += head.len() as u64;
        self.written = self.position;
        self.segments.push_back(Segment {
            id,
            bytes: head.len() as u64,
            live_bytes: 0,
            begun: self.position,
        });
        (self.is_open, self.error) = (true, None);
        self.remove_dead();
        Ok(())
    }

    fn read(&self, places: &[Place]) -> Result<Bytes, ReadError> {
        let bytes: usize = places.iter().map(|place| place.bytes as usize).sum();
        let mut out = BytesMut::with_capacity(bytes);
        for place in places {
            if let Some(found) = self.unwritten(place) {
                out.extend_from_slice(found);
                continue;
            }
            let Place { segment, offset, bytes, crc } = *place;
            let found =
                self.disk.read(segment, u64::from(offset), bytes as usize).map_err(ReadError::Disk)?;
            if found.len() != bytes as usize || crc32fast::hash(&found) != crc {
                return Err(ReadError::Damaged { segment, offset, bytes });
            }
            out.extend_from_slice(&found);
        }
        Ok(out.freeze())
    }

    fn release(&mut self, places: &[Place]) {
        for place in places {
            if let Some(segment) = self.segment(place.segment) {
                debug_assert!(segment.live_bytes >= u64::from(place.bytes), "more released than was held");
                segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(place.bytes));
            }
        }
        self.remove_dead();
    }

    fn durable(&self) -> u64 {
        match self.options.sync {
            SyncPolicy::Always | SyncPolicy::Interval => self.durable,
            SyncPolicy::Never => self.written,
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn sync_job(&mut self) -> Option<SyncJob> {
        if self.options.sync == SyncPolicy::Never || self.is_broken || self.syncing >= self.written {
            return None;
        }
        self.syncing = self.written;
        Some(SyncJob { position: self.written, run: self.disk.sync() })
    }

    fn synced(&mut self, position: u64, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {
                self.durable = self.durable.max(position);
                self.remove_dead();
            }
            // What a failed sync leaves behind is unknown, and a second one that succeeds proves nothing: the system may
            // have dropped the pages. What is durable goes on being sent; a new run reads what is really there.
            Err(error) => {
                self.error = Some(format!("a sync failed: {error}"));
                self.is_broken = true;
            }
        }
    }

    fn room(&self) -> Room {
        Room {
            bytes_max: self.options.bytes_max,
            bytes: self.bytes(),
            live_bytes: self.segments.iter().map(|segment| segment.live_bytes).sum(),
            segments: self.segments.len() as u64,
            error: self.error.clone(),
        }
    }

    fn oldest(&self) -> Option<SegmentId> {
        let is_other = self.segments.len() > usize::from(self.is_open);
        self.segments.front().filter(|_| is_other).map(|oldest| oldest.id)
    }
}
