//! [`Notice`]: log messages of an Agent: once when a condition begins and once when it ends, or at intervals with a
//! count.

use std::time::Duration;

use super::{IntakeCounts, Relay, SpoolCounts};
use crate::spool::{DiskFault, Spool, SpoolUsage};

/// A Spool that accepted everything for this long is no longer full.
const FULL_AFTER: Duration = Duration::from_secs(10);
/// The interval of repeated notices.
const INTERVAL: Duration = Duration::from_secs(10);

/// An event that is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A fault of the Spool's disk has begun.
    DiskFault {
        /// Which fault.
        fault: DiskFault,
        /// The error.
        error: String,
    },
    /// The fault is over.
    Well,
    /// The Spool is full, and rejects Batches.
    Full {
        /// Its maximum bytes.
        bytes_max: u64,
    },
    /// It has accepted everything for a while.
    HasRoom {
        /// Events rejected meanwhile, with repetitions.
        events: u64,
    },
    /// Events that became too old to be sent since the last notice.
    Expired {
        /// Events.
        events: u64,
    },
    /// Events found damaged when read back since the last notice.
    Damaged {
        /// Events.
        events: u64,
    },
    /// Panics of Handlers during merges since the last notice.
    Panicked {
        /// Their number.
        times: u64,
    },
}

/// The logged and pending notices.
#[derive(Debug, Default)]
pub(super) struct Notices {
    fault: Option<DiskFault>,
    /// While the Spool is full: the last time, and the events rejected before.
    full: Option<(Duration, u64)>,
    expired: NoticeCount,
    damaged: NoticeCount,
    panicked: NoticeCount,
    notices: Vec<Notice>,
}

/// A count that is logged at once, then at most once per interval.
#[derive(Debug, Default)]
struct NoticeCount {
    notices: u64,
    not_before: Duration,
}

impl NoticeCount {
    /// The count since the last notice, if one is due.
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
    /// The Spool is full now.
    pub(super) fn full(&mut self, now: Duration, room: &SpoolUsage, turned_away: u64) {
        if self.full.is_none() {
            self.notices.push(Notice::Full { bytes_max: room.bytes_max });
        }
        self.full = Some((now, self.full.map_or(turned_away, |(_, before)| before)));
    }

    /// Compares with the last state.
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
    /// The notices since the last call.
    pub fn take_notices(&mut self, now: Duration) -> Vec<Notice> {
        self.notices.look(now, self.spool.usage(), &self.spool_counts, &self.counts);
        std::mem::take(&mut self.notices.notices)
    }
}
