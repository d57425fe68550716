//! [`Config`]: every bound and interval of a Client, as plain data; [`Verified`] once they agree with each other.

use std::ops::Deref;
use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::limits::{BATCH_BLOCKS_MAX, BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, FRAME_BYTES_MAX};
use taba_core::{OutOfRange, bytes_within, time_within, within};

/// Bytes that one recorded event takes in its thread's ring.
pub(crate) const RING_EVENT_BYTES: usize = 24;
/// Blocks of the Ledger that one Batch may hold: what was recorded, and what was dropped for each reason.
pub(crate) const LEDGER_BLOCKS_MAX: usize = 1 + Why::ALL.len();
/// What a Batch of the greatest size may take in a frame beside its Blocks.
const FRAME_SLACK_BYTES: usize = 64 * 1024;

/// Every bound and interval of a Client.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_client::Config;
///
/// let mut config = Config::default();
/// config.flush_interval = Duration::from_millis(100);
/// assert!(config.verify().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How often events are sent. Default 250 ms, at least 1 ms. Shorter is fresher; longer folds more into one State. The
    /// first event after an interval without any does not wait for it.
    pub flush_interval: Duration,
    /// Events of one ring. Default 256 (6 KiB), at least 16. A thread that records holds one ring; while it fills them
    /// faster than they are drained, it takes more, which go back when they are drained.
    pub ring_events_min: usize,
    /// Events that one thread puts into rings between two drains, about; further ones it folds itself, where their type is
    /// known. Default 65,536 (1.5 MiB). At half of it the background thread is woken to drain them.
    pub ring_events_max: usize,
    /// Bytes of all rings of the Client, and of what threads have folded themselves. Default 64 MiB, which is 10,900 threads that record at the same time. The last
    /// quarter is for threads that have no ring yet.
    pub rings_bytes_max: usize,
    /// Bytes of all values in the rings that are not numbers. Default 16 MiB.
    pub opaque_bytes_max: usize,
    /// Tabs of the Client in use: those that have a handle, and those whose events are not all sealed yet. One more is
    /// an error where its handle is made. Default 65,536. A Tab that is used no more is forgotten at the next flush (250
    /// ms), so a Client whose names always change can make 65,536 new ones in that time; while the Agent is away, in all.
    pub tabs_max: usize,
    /// Events of one Tab that travel as they are; more are folded into a State, where its type is known. Default 16.
    pub raw_events_max: usize,
    /// Events of one Tab that wait to be sent when they cannot be folded. Default 65,536. Numbers that are equal, of one
    /// tick of the clock, count once.
    pub tab_events_max: usize,
    /// Bytes of everything that waits to be sent, about. Default 64 MiB. At the bound, what waits is folded and its
    /// States are encoded; only when that is no longer enough are events dropped. So it holds about this many bytes
    /// divided by those of an encoded State and 128: 64 MiB are 130,000 Tabs of type `CounterGroup` in an outage of a
    /// minute, and 18,000 whose values all differ in one of an hour. The last quarter is for Tabs that have a State.
    pub pending_bytes_max: usize,
    /// Blocks in one Batch, those of the Ledger included. Default and at most [`BATCH_BLOCKS_MAX`].
    pub batch_blocks_max: usize,
    /// Bytes of one Batch. Default 4 MiB; at least 2 MiB, at most a little less than [`FRAME_BYTES_MAX`].
    pub batch_bytes_max: usize,
    /// How long one request to the Agent may take, connecting included. Default 10 s.
    pub request_timeout: Duration,
    /// How long to wait after the first failed request; it doubles with each further one. Default 100 ms.
    pub backoff_min: Duration,
    /// The longest wait between two requests, unless the Agent asks for more. Default 5 s.
    pub backoff_max: Duration,
    /// How long dropping the last `Client` or handle may wait for what is unsent. Default 2 s; 0 does not wait.
    pub drop_deadline: Duration,
    /// How long the end of the process may wait for what is unsent of a Client that was not dropped: one in a static, or
    /// one that is there at `std::process::exit`. Default 1 s; 0 does not flush then.
    pub exit_deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_millis(250),
            ring_events_min: 256,
            ring_events_max: 64 * 1024,
            rings_bytes_max: 64 << 20,
            opaque_bytes_max: 16 << 20,
            tabs_max: 64 * 1024,
            raw_events_max: 16,
            tab_events_max: BLOCK_EVENTS_MAX,
            pending_bytes_max: 64 << 20,
            batch_blocks_max: BATCH_BLOCKS_MAX,
            batch_bytes_max: 4 << 20,
            request_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            drop_deadline: Duration::from_secs(2),
            exit_deadline: Duration::from_secs(1),
        }
    }
}

/// A [`Config`] whose values agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Config);

impl Deref for Verified {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.0
    }
}

impl Default for Verified {
    fn default() -> Self {
        Config::default().verify().expect("the defaults agree with each other; a test says so")
    }
}

impl Config {
    /// Checks that the values agree with each other.
    ///
    /// # Errors
    /// [`OutOfRange`], which names the field to mend.
    pub fn verify(self) -> Result<Verified, OutOfRange> {
        const HOUR: Duration = Duration::from_secs(3600);
        const MS: Duration = Duration::from_millis(1);
        within("ring_events_min", self.ring_events_min, 16..=self.ring_events_max)?;
        within("ring_events_max", self.ring_events_max, 16..=1 << 24)?;
        bytes_within(
            "rings_bytes_max",
            self.rings_bytes_max,
            self.ring_events_min * RING_EVENT_BYTES..=usize::MAX,
        )?;
        within("tabs_max", self.tabs_max, 1..=1 << 24)?;
        within("raw_events_max", self.raw_events_max, 0..=BLOCK_EVENTS_MAX)?;
        within("tab_events_max", self.tab_events_max, self.raw_events_max.max(1)..=1 << 24)?;
        bytes_within("pending_bytes_max", self.pending_bytes_max, 64 * 1024..=usize::MAX)?;
        within("batch_blocks_max", self.batch_blocks_max, LEDGER_BLOCKS_MAX + 1..=BATCH_BLOCKS_MAX)?;
        let bytes_max = FRAME_BYTES_MAX - FRAME_SLACK_BYTES;
        bytes_within("batch_bytes_max", self.batch_bytes_max, 2 * BLOCK_BYTES_MAX..=bytes_max)?;
        time_within("flush_interval", self.flush_interval, MS..=HOUR)?;
        time_within("request_timeout", self.request_timeout, MS..=HOUR)?;
        time_within("backoff_min", self.backoff_min, MS..=self.backoff_max)?;
        time_within("backoff_max", self.backoff_max, MS..=HOUR)?;
        time_within("drop_deadline", self.drop_deadline, Duration::ZERO..=HOUR)?;
        time_within("exit_deadline", self.exit_deadline, Duration::ZERO..=HOUR)?;
        Ok(Verified(self))
    }

    /// The most memory that a Client takes with these bounds, in bytes, about: rings and what is in them, what waits,
    /// and one Batch in flight, packed and unpacked. The table of Tabs comes on top, a few hundred bytes for each.
    pub fn bytes_max(&self) -> usize {
        [self.rings_bytes_max, self.opaque_bytes_max, self.pending_bytes_max, 3 * self.batch_bytes_max]
            .into_iter()
            .fold(0, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(*Verified::default(), Config::default());
    }

    #[test]
    fn the_field_to_mend_is_named() {
        let field = |config: Config| config.verify().unwrap_err().setting;
        assert_eq!(field(Config { flush_interval: Duration::ZERO, ..Config::default() }), "flush_interval");
        assert_eq!(field(Config { ring_events_max: 8, ..Config::default() }), "ring_events_min");
        assert_eq!(field(Config { batch_blocks_max: 1901, ..Config::default() }), "batch_blocks_max");
        assert_eq!(field(Config { batch_bytes_max: 8 << 20, ..Config::default() }), "batch_bytes_max");
        assert_eq!(field(Config { backoff_min: Duration::from_secs(9), ..Config::default() }), "backoff_min");
        assert_eq!(field(Config { tabs_max: 0, ..Config::default() }), "tabs_max");
    }
}
