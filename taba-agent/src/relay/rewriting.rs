//! Rewrites what the Spool holds: copies to the end of the log, to free an old segment or replace untrusted files;
//! and merges, while Servers are unavailable.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::wire::Block;
use taba_core::{SeqNo, Timestamp};

use super::{ClockReading, Relay};
use crate::lane::{LaneKey, ReleasedBatches};
use crate::merge::{Merging, merge};
use crate::spool::record::{Checkpoint, Fragment, Record};
use crate::spool::{Appended, Fetch, FetchedContent, Purpose, Renewal, SegmentId, Spool, SpoolError};

/// Bytes of Blocks that the Lanes keep in memory besides a log on a disk, without those being sent.
pub const HELD_HERE_BYTES_MAX: u64 = 64 << 20;
/// Unsent bytes of a Lane below which they are not merged.
const MERGE_BYTES_MIN: u64 = 16 << 10;
/// Maximum unsent bytes of a Lane that are read back for a merge.
const MERGE_BYTES_MAX: usize = 32 << 20;
/// Maximum bytes read back at a time for copies; a single Batch may be larger.
const COPY_BYTES_MAX: usize = 4 << 20;

/// The pause after a failed read.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// A copy to the end of the log.
#[derive(Debug)]
pub(super) struct Copying {
    /// The last segment to copy.
    through: SegmentId,
    /// Batches being read back for it, and their bytes.
    reading: BTreeMap<(LaneKey, SeqNo), usize>,
    /// The earliest time of the next read, after a failure.
    not_before: Duration,
}

impl<S: Spool> Relay<S> {
    /// Maintenance when nothing else is due: keeps the log small and trustworthy.
    pub(super) fn maintain(&mut self, now: ClockReading) {
        match self.spool.renewal(now.uptime) {
            Renewal::None => self.compact(now.uptime),
            Renewal::Wait => {}
            // On failure this is tried again at the next input.
            Renewal::Begin => {
                self.copying = None;
                let _ = self.spool.renew(&Checkpoint::default());
            }
            Renewal::Copy(through) => self.copy_through(through),
        }
        self.copy(now.uptime);
    }

    /// Starts to copy everything in this segment and earlier ones, so that they can be removed.
    pub(super) fn copy_through(&mut self, through: SegmentId) {
        let begun = Copying { through, reading: BTreeMap::new(), not_before: Duration::ZERO };
        let copying = self.copying.get_or_insert(begun);
        copying.through = copying.through.max(through);
    }

    /// Copies what is in memory, and reads some of the rest; continues when that is done.
    ///
    /// # Cost
    /// Visits each held Batch, once for each [`COPY_BYTES_MAX`] read back.
    fn copy(&mut self, now: Duration) {
        let is_due = |copying: &mut Copying| copying.not_before <= now && copying.reading.is_empty();
        let Some(mut copying) = self.copying.take_if(is_due) else { return };
        let keys: Vec<LaneKey> = self.dispatcher.all().map(|lane| lane.key()).collect();
        let mut is_all = true;
        for key in keys {
            let mut from = SeqNo::NONE;
            let through = copying.through;
            let next = |relay: &mut Self, from| relay.dispatcher.get(key)?.next_copy(from, through);
            while let Some((seq, copy)) = next(self, from) {
                (is_all, from) = (false, seq.next());
                match copy {
                    Ok((taken_at, fragment)) => {
                        // On failure this is tried again at the next input.
                        if self.write_copy(key, taken_at, &fragment).is_err() {
                            self.copying = Some(copying);
                            return;
                        }
                    }
                    Err(fetch) => copying.ask(&mut self.spool, fetch),
                }
            }
        }
        let is_renewal = matches!(self.spool.renewal(Duration::MAX), Renewal::Copy(_));
        let is_done = is_all && copying.reading.is_empty();
        if is_done && is_renewal {
            let checkpoint = self.checkpoint();
            if self.spool.renew(&checkpoint).is_err() {
                self.copying = Some(copying);
            }
        } else if !copying.reading.is_empty() {
            self.copying = Some(copying);
        }
    }

    fn write_copy(
        &mut self,
        key: LaneKey,
        taken_at: Timestamp,
        fragment: &Fragment,
    ) -> Result<(), SpoolError> {
        let record = Record::Copy { stream: key.stream, taken_at, fragment };
        let written = self.write(&record)?;
        let Some(lane) = self.dispatcher.get(key) else { return Ok(()) };
        for place in written.locations {
            let before = lane.moved(fragment.seq, place, written.position);
            self.spool.moved(&before);
        }
        self.holds_here(fragment.bytes.len());
        Ok(())
    }

    /// Appends a record other than intake, in a new segment if needed.
    pub(super) fn write(&mut self, record: &Record<'_>) -> Result<Appended, SpoolError> {
        if self.spool.must_roll(record.bytes_max()) {
            self.begin_segment()?;
        }
        self.spool.append(record)
    }

    /// Counts bytes kept in memory; if there are many, drops what the Spool can return.
    pub(super) fn holds_here(&mut self, bytes: usize) {
        self.bytes_here += bytes as u64;
        if self.bytes_here > HELD_HERE_BYTES_MAX {
            self.bytes_here = 0;
            let spool = &self.spool;
            self.dispatcher.all().for_each(|lane| lane.put_away(|position| spool.is_readable(position)));
        }
    }

    /// A Batch was read back.
    pub(super) fn fetched(&mut self, now: ClockReading, fetch: &Fetch, outcome: io::Result<FetchedContent>) {
        let is_read = outcome.is_ok();
        let lost = self.dispatcher.fetched(now, fetch, outcome);
        self.lost(&lost);
        match fetch.purpose {
            Purpose::Send => {}
            Purpose::Copy => {
                if let Some(copying) = &mut self.copying {
                    copying.reading.remove(&(fetch.lane, fetch.seq));
                    copying.not_before = if is_read { Duration::ZERO } else { now.uptime + READ_PAUSE };
                }
                if self.misplaced.contains(&fetch.lane) {
                    self.misplaced(now, fetch.lane, false);
                }
            }
            Purpose::Merge => self.fetched_to_merge(now, is_read),
        }
    }

    /// Damaged Batches: the Ledger gets notes instead.
    fn lost(&mut self, lost: &ReleasedBatches) {
        self.spool_counts.damaged += lost.events;
        self.spool.release(&lost.locations);
    }

    /// Merges the Batches of a Lane of the current stream that have waited.
    pub(super) fn merge_if_due(&mut self, now: ClockReading, vbucket: u16) {
        let since = now.uptime.saturating_sub(self.merge_after);
        let has_handlers = self.handlers.types().next().is_some();
        let may_write = self.spool.renewal(now.uptime) == Renewal::None;
        let lane = self.dispatcher.lane(vbucket);
        if !has_handlers || !may_write || self.merging.is_some() || !lane.wants_merge(since, MERGE_BYTES_MIN)
        {
            return;
        }
        let away = lane.unsent_away(Purpose::Merge);
        if away.is_empty() {
            // On failure the Batches stay as they are.
            let _ = self.merge(now, vbucket);
        } else if away.iter().map(Fetch::bytes).sum::<usize>() > MERGE_BYTES_MAX {
            lane.skip_merge();
        } else {
            self.merging = Some((vbucket, away.len()));
            away.into_iter().for_each(|fetch| self.spool.fetch(fetch));
        }
    }

    fn fetched_to_merge(&mut self, now: ClockReading, is_read: bool) {
        let Some((vbucket, left)) = self.merging else { return };
        self.merging = Some((vbucket, left - 1));
        if left > 1 {
            return;
        }
        self.merging = None;
        let lane = self.dispatcher.lane(vbucket);
        if is_read && lane.unsent_away(Purpose::Merge).is_empty() {
            self.merge_if_due(now, vbucket);
        } else {
            lane.skip_merge();
        }
        let spool = &self.spool;
        self.dispatcher.lane(vbucket).put_away(|position| spool.is_readable(position));
    }

    fn merge(&mut self, now: ClockReading, vbucket: u16) -> Result<(), SpoolError> {
        let Some(blocks) = self.dispatcher.lane(vbucket).unsent() else { return Ok(()) };
        let bytes = |blocks: &[Block]| blocks.iter().map(|block| block.encoded_bytes() as u64).sum::<u64>();
        let bytes_before = bytes(&blocks);
        let believed = now.time.saturating_add(Duration::from_micros(FUTURE_MICROS_MAX as u64));
        let Merging { blocks: merged, panics } = merge(blocks, &self.handlers, believed);
        self.counts.merges.panicked += panics;
        let lane = self.dispatcher.lane(vbucket);
        let bytes_after = bytes(&merged);
        if bytes_after > bytes_before / 4 * 3 {
            lane.skip_merge();
            return Ok(());
        }
        let (taken_at, fragments) = lane.plan_unsent(&merged);
        let record = Record::Merge { stream: self.stream, taken_at, fragments: &fragments };
        let written = self.write(&record)?;
        let fragments = fragments.into_iter().zip(written.locations);
        let before = self.dispatcher.lane(vbucket).replace_unsent(fragments, written.position);
        self.spool.moved(&before);
        self.counts.merges.count += 1;
        self.counts.merges.bytes_before += bytes_before;
        self.counts.merges.bytes_after += bytes_after;
        Ok(())
    }
}

impl Copying {
    /// When it continues, if it is waiting for a time.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        Some(self.not_before).filter(|at| *at > Duration::ZERO)
    }

    /// Reads back a Batch, unless it is being read or too many are.
    fn ask<S: Spool>(&mut self, spool: &mut S, fetch: Fetch) {
        let (name, bytes) = ((fetch.lane, fetch.seq), fetch.bytes());
        let reading: usize = self.reading.values().sum();
        let has_room = reading == 0 || reading + bytes <= COPY_BYTES_MAX;
        if has_room && !self.reading.contains_key(&name) {
            self.reading.insert(name, bytes);
            spool.fetch(fetch);
        }
    }
}
