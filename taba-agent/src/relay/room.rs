//! Keeps the Spool small: releases what it can, and copies the rest of old segments to the end of the log.

use std::time::Duration;

use super::{ClockReading, Relay};
use crate::lane::ReleasedBatches;
use crate::spool::record::{Checkpoint, RECORD_HEAD_BYTES};
use crate::spool::{Spool, SpoolError};

/// The pause after a failed attempt to make room.
pub(super) const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// A log is compacted when less than one byte in this many is live.
const DEAD_SHARE: u64 = 3;
/// The least number of dead segments before that.
const DEAD_SEGMENTS: u64 = 4;
/// Maximum bytes of a record besides its Blocks: its head, the Client, and the heads of fragments and refusals.
const RECORD_SLACK: usize = RECORD_HEAD_BYTES + (256 << 10);

impl<S: Spool> Relay<S> {
    /// Ensures, as far as known, that a record with this many bytes of Blocks can be appended.
    pub(super) fn prepare(&mut self, now: ClockReading, bytes: usize) -> Result<(), SpoolError> {
        if self.spool.must_roll(bytes + RECORD_SLACK.min(bytes)) {
            self.begin_segment()?;
        }
        let room = self.spool.usage();
        let is_tight = room.bytes + (bytes as u64) + room.bytes_max / 8 > room.bytes_max;
        let is_early = self.room_tried.is_some_and(|tried| now.uptime < tried + ROOM_PAUSE);
        if is_tight && !is_early && !self.make_room(now.uptime) {
            self.room_tried = Some(now.uptime);
        }
        Ok(())
    }

    pub(super) fn begin_segment(&mut self) -> Result<(), SpoolError> {
        let checkpoint = self.checkpoint();
        self.spool.roll(&checkpoint)?;
        self.clock.written();
        Ok(())
    }

    pub(super) fn checkpoint(&mut self) -> Checkpoint {
        let lanes = self.dispatcher.all().map(|lane| lane.checkpoint()).collect();
        let clocks = self.stream_clocks();
        let incarnations = self.dedup.remembered().chain(self.front.keys.remembered()).collect();
        let sendings = self.written_sendings();
        Checkpoint { lanes, incarnations, clocks, sendings, ..Checkpoint::default() }
    }

    /// Frees the oldest segment: releases stable Batches early, and copies the rest to the end if it is small.
    /// Returns whether anything was freed.
    fn make_room(&mut self, now: Duration) -> bool {
        let Some(oldest) = self.spool.oldest() else { return false };
        let mut released = ReleasedBatches::default();
        for lane in self.dispatcher.all() {
            released.add(lane.release_stable(oldest));
        }
        self.release_all(now, &released);
        let room = self.spool.usage();
        if self.spool.oldest() == Some(oldest) && room.live_bytes < room.bytes / 2 {
            self.copy_through(oldest);
        }
        self.spool.oldest() != Some(oldest)
    }

    fn release_all(&mut self, now: Duration, released: &ReleasedBatches) {
        if released.batches > 0 {
            self.spool_counts.released += released.events;
            self.spool.release(&released.locations);
            self.dispatcher.released_elsewhere(now, released);
        }
    }

    /// Keeps the log from being mostly dead: one Lane that waits for long must not retain all later segments.
    pub(super) fn compact(&mut self, now: Duration) {
        // If no segment could be begun, nothing can be freed either.
        if self.spool.must_roll(0) && self.room_tried.is_none_or(|tried| now >= tried + ROOM_PAUSE) {
            self.room_tried = self.begin_segment().err().map(|_| now);
        }
        let room = self.spool.usage();
        let dead_min = DEAD_SEGMENTS * room.bytes / room.segments.max(1);
        if room.segments > DEAD_SEGMENTS
            && room.bytes > DEAD_SHARE * room.live_bytes + dead_min
            && let Some(oldest) = self.spool.oldest()
        {
            self.copy_through(oldest);
        }
    }
}
