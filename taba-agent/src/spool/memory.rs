//! [`MemorySpool`]: a Spool without a log.

use std::io;
use std::time::Duration;

use super::record::{Checkpoint, Record};
use super::{
    Appended, DiskJob, Fetch, FetchedContent, FragmentLocation, JobResult, SegmentId, Spool, SpoolError,
    SpoolUsage,
};

/// A Spool that only counts bytes: the Lanes keep the content in memory, and it is lost with the process.
#[derive(Debug)]
pub struct MemorySpool {
    bytes_max: u64,
    bytes: u64,
    position: u64,
}

impl MemorySpool {
    /// An empty Spool for at most `bytes_max` bytes.
    pub const fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, position: 0 }
    }
}

impl Spool for MemorySpool {
    fn keeps_content(&self) -> bool {
        false
    }

    fn append(&mut self, record: &Record<'_>) -> Result<Appended, SpoolError> {
        let location =
            |bytes: usize| FragmentLocation { segment: SegmentId(0), offset: 0, bytes: bytes as u32, crc: 0 };
        let locations: Vec<_> = record.fragments().map(|fragment| location(fragment.bytes.len())).collect();
        let wanted = self.bytes + locations.iter().map(|location| u64::from(location.bytes)).sum::<u64>();
        // Records of the Lanes themselves reduce the content, and are never refused.
        if wanted > self.bytes_max && record.is_intake() {
            return Err(SpoolError::Full { bytes_short: wanted - self.bytes_max });
        }
        self.bytes = wanted;
        self.position += 1;
        Ok(Appended { locations, position: self.position })
    }

    fn must_roll(&self, _: usize) -> bool {
        false
    }

    fn roll(&mut self, _: &Checkpoint) -> Result<(), SpoolError> {
        Ok(())
    }

    fn release(&mut self, locations: &[FragmentLocation]) {
        let bytes: u64 = locations.iter().map(|location| u64::from(location.bytes)).sum();
        debug_assert!(bytes <= self.bytes, "more released than was held");
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn written(&self) -> u64 {
        self.position
    }

    fn durable(&self) -> u64 {
        self.position
    }

    fn is_readable(&self, _: u64) -> bool {
        false
    }

    fn fetch(&mut self, _: Fetch) {
        debug_assert!(false, "the Lanes keep what they hold");
    }

    fn next_job(&mut self, _: Duration) -> Option<DiskJob> {
        None
    }

    fn done(&mut self, _: Duration, _: JobResult) -> Option<(Fetch, io::Result<FetchedContent>)> {
        None
    }

    fn wake_at(&self) -> Option<Duration> {
        None
    }

    fn usage(&self) -> SpoolUsage {
        SpoolUsage {
            bytes_max: self.bytes_max,
            bytes: self.bytes,
            live_bytes: self.bytes,
            ..SpoolUsage::default()
        }
    }

    fn oldest(&self) -> Option<SegmentId> {
        None
    }
}
