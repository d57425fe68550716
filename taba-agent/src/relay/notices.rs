//! [`Notice`]: what an Agent says in its log, once when it begins and once when it is over, or once in a while with a count.

use std::time::Duration;

use super::{IntakeCounts, Relay, SpoolCounts};
use crate::spool::{DiskFault, Spool, SpoolUsage};

/// A Spool that took everything for so long is not full any more.
const FULL_AFTER: Duration = Duration::from_secs(10);
/// How often the same is said again, with what came since.
const INTERVAL: Duration = Duration::from_secs(10);

/// An event that is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The disk under the Spool is in trouble, from here on.
    DiskFault {
        /// In which.
        fault: DiskFault,
        /// What it said.
        error: String,
    },
    /// It is out of trouble.
    Well,
    /// The Spool has reached its bound, and turns Batches away.
    Full {
        /// Bytes that it takes at most.
        bytes_max: u64,
    },
    /// It has taken everything for a while.
    HasRoom {
        /// Events that it had turned away meanwhile, every repetition counted.
        events: u64,
    },
    /// So many events became too old to be sent since this was last said.
    Expired {
        /// Events.
        events: u64,
    },
    /// So many events were found damaged when they were read back since this was last said.
    Damaged {
        /// Events.
        events: u64,
    },
    /// So often a Handler panicked over merging since this was last said.
    Panicked {
        /// Times.
        times: u64,
    },
}

/// Which notices were logged, and which are to be.
#[derive(Debug, Default)]
pub(super) struct Notices {
    fault: Option<DiskFault>,
    /// Since the Spool is full: when it was last, and what it had turned away before.
    full: Option<(Duration, u64)>,
    expired: NoticeCount,
    damaged: NoticeCount,
    panicked: NoticeCount,
    notices: Vec<Notice>,
}

/// A count that is said at once, then at most once an interval.
#[derive(Debug, Default)]
struct NoticeCount {
    notices: u64,
    not_before: Duration,
}

impl NoticeCount {
    /// What came since it was last said, if it is to be said now.
    fn notices(&mut self, now: Duration, count: u64) -> Option<u64> {
        let more = count - self.notices;
        if more == 0 || now < self.not_before {
            return None;
        }
        (self.notices, self.not_before) = (count, now + INTERVAL);
        Some(more)
    }
}

impl Notices {
    /// The Spool was full just now.
    pub(super) fn full(&mut self, now: Duration, room: &SpoolUsage, turned_away: u64) {
        if self.full.is_none() {
            self.notices.push(Notice::Full { bytes_max: room.bytes_max });
        }
        self.full = Some((now, self.full.map_or(turned_away, |(_, before)| before)));
    }

    /// Sees what has changed.
    fn look(&mut self, now: Duration, room: SpoolUsage, spool: &SpoolCounts, counts: &IntakeCounts) {
        if room.fault != self.fault {
            self.fault = room.fault;
            self.notices.push(match room.fault {
                Some(fault) => Notice::DiskFault { fault, error: room.error.unwrap_or_default() },
                None => Notice::Well,
            });
        }
        if let Some((last, before)) = self.full
            && now >= last + FULL_AFTER
        {
            self.full = None;
            self.notices.push(Notice::HasRoom { events: spool.refused - before });
        }
        let expired = self.expired.notices(now, spool.expired).map(|events| Notice::Expired { events });
        let damaged = self.damaged.notices(now, spool.damaged).map(|events| Notice::Damaged { events });
        let panicked = self.panicked.notices(now, counts.merges.panicked);
        let panicked = panicked.map(|times| Notice::Panicked { times });
        self.notices.extend([expired, damaged, panicked].into_iter().flatten());
    }
}

impl<S: Spool> Relay<S> {
    /// What is worth a line in the log since this was last asked.
    pub fn take_notices(&mut self, now: Duration) -> Vec<Notice> {
        self.notices.look(now, self.spool.usage(), &self.spool_counts, &self.counts);
        std::mem::take(&mut self.notices.notices)
    }
}
