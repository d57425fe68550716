//! Keeping the Spool small: what may go, goes; what holds up an old segment is copied to the end of the log; what was
//! never sent is merged while Servers are away.

use std::time::Duration;

use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::wire::Block;

use super::{Moment, Relay};
use crate::lane::{LaneKey, Released};
use crate::merge::merge;
use crate::spool::record::{Checkpoint, RECORD_HEAD_BYTES, Record};
use crate::spool::{Spool, SpoolError, Written};

/// How long to leave it after making room was in vain.
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a Lane's unsent Blocks below which they are not merged.
const MERGE_BYTES_MIN: u64 = 16 << 10;
/// A log is copied together when less than one byte in this many is held.
const DEAD_SHARE: u64 = 3;
/// Segments that may be dead before that, at least.
const DEAD_SEGMENTS: u64 = 4;
/// Bytes of a record around what a Client sends, at most: its head, the Client, and the heads of pieces and refusals.
const RECORD_SLACK: usize = RECORD_HEAD_BYTES + (256 << 10);

impl<S: Spool> Relay<S> {
    /// Makes sure that a record with so many bytes of Blocks can be appended, as far as that can be known.
    pub(super) fn prepare(&mut self, now: Moment, bytes: usize) -> Result<(), SpoolError> {
        if self.spool.must_roll(bytes + RECORD_SLACK.min(bytes)) {
            self.begin_segment()?;
        }
        let room = self.spool.room();
        let is_tight = room.bytes + (bytes as u64) + room.bytes_max / 8 > room.bytes_max;
        let is_early = self.room_tried.is_some_and(|tried| now.uptime < tried + ROOM_PAUSE);
        if is_tight && !is_early && !self.make_room(now.uptime) {
            self.room_tried = Some(now.uptime);
        }
        Ok(())
    }

    pub(super) fn begin_segment(&mut self) -> Result<(), SpoolError> {
        let floors = self.dispatcher.all().map(|lane| lane.floor()).collect();
        let clocks = self.stream_clocks();
        self.spool.roll(&Checkpoint { floors, incarnations: self.dedup.remembered().collect(), clocks })?;
        self.clock.written();
        Ok(())
    }

    /// Frees the oldest segment: Batches that are stable go before their time, the rest is copied to the end if little
    /// is held. Whether something was freed.
    fn make_room(&mut self, now: Duration) -> bool {
        let Some(oldest) = self.spool.oldest() else { return false };
        let mut released = Released::default();
        for lane in self.dispatcher.all() {
            released.add(lane.release_stable(oldest));
        }
        self.let_go(now, &released);
        let room = self.spool.room();
        if self.spool.oldest() == Some(oldest) && room.live_bytes < room.bytes / 2 {
            self.copy_together();
        }
        self.spool.oldest() != Some(oldest)
    }

    fn let_go(&mut self, now: Duration, released: &Released) {
        if released.batches > 0 {
            self.spool_tally.released += released.events;
            self.spool.release(&released.places);
            self.dispatcher.has_released(now, released);
        }
    }

    /// Keeps the log from being mostly dead: one Lane that waits for long must not hold up all that came after it.
    pub(super) fn compact(&mut self, now: Duration) {
        // Where no segment could be begun, nothing of what is there can go either.
        if self.spool.must_roll(0) && self.room_tried.is_none_or(|tried| now >= tried + ROOM_PAUSE) {
            self.room_tried = self.begin_segment().err().map(|_| now);
        }
        let room = self.spool.room();
        let dead_min = DEAD_SEGMENTS * room.bytes / room.segments.max(1);
        if room.segments > DEAD_SEGMENTS && room.bytes > DEAD_SHARE * room.live_bytes + dead_min {
            self.copy_together();
        }
    }

    /// Writes again what is held in the oldest segment, so that it can go.
    fn copy_together(&mut self) {
        let Some(oldest) = self.spool.oldest() else { return };
        let keys: Vec<LaneKey> = self.dispatcher.all().map(|lane| lane.key()).collect();
        for key in keys {
            let Some(lane) = self.dispatcher.get(key) else { continue };
            // What cannot be read or written now stays where it is.
            let Ok(copies) = lane.copies(oldest, &self.spool) else { return };
            for (taken_at, piece) in copies {
                let record = Record::Copy { stream: key.stream, taken_at, piece: &piece };
                let Ok(written) = self.write(&record) else { return };
                let Some(lane) = self.dispatcher.get(key) else { return };
                for place in written.places {
                    let before = lane.moved(piece.seq, place, written.position);
                    self.spool.release(&before);
                }
            }
        }
    }

    /// Appends what is no intake, in a new segment if need be.
    pub(super) fn write(&mut self, record: &Record<'_>) -> Result<Written, SpoolError> {
        if self.spool.must_roll(record.bytes_max()) {
            self.begin_segment()?;
        }
        self.spool.append(record)
    }

    /// Merges what a Lane of the current stream could not send for a while.
    pub(super) fn merge_if_due(&mut self, now: Moment, vbucket: u16) {
        let since = now.uptime.saturating_sub(self.merge_after);
        let has_handlers = self.handlers.types().next().is_some();
        if has_handlers && self.dispatcher.lane(vbucket).wants_merge(since, MERGE_BYTES_MIN) {
            // What cannot be read or written now stays as it is.
            let _ = self.merge(now, vbucket);
        }
    }

    fn merge(&mut self, now: Moment, vbucket: u16) -> Result<(), Box<dyn std::error::Error>> {
        let blocks = self.dispatcher.lane(vbucket).unsent(&self.spool)?;
        let bytes = |blocks: &[Block]| blocks.iter().map(|block| block.encoded_bytes() as u64).sum::<u64>();
        let bytes_before = bytes(&blocks);
        let believed = now.time.saturating_add(Duration::from_micros(FUTURE_MICROS_MAX as u64));
        let merged = merge(blocks, &self.handlers, believed);
        let bytes_after = bytes(&merged);
        let lane = self.dispatcher.lane(vbucket);
        if bytes_after > bytes_before / 4 * 3 {
            lane.skip_merge();
            return Ok(());
        }
        let (taken_at, pieces) = lane.plan_unsent(&merged);
        let record = Record::Merge { stream: self.stream, taken_at, pieces: &pieces };
        let written = self.write(&record)?;
        let pieces = pieces.into_iter().zip(written.places);
        let before = self.dispatcher.lane(vbucket).replace_unsent(pieces, written.position);
        self.spool.release(&before);
        self.tally.merges.count += 1;
        self.tally.merges.bytes_before += bytes_before;
        self.tally.merges.bytes_after += bytes_after;
        Ok(())
    }
}
