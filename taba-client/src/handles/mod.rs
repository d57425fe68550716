//! What an application records with: a handle for each kind of Tab. All are cheap to clone, and can be used from any
//! thread. Recording never fails: what cannot be kept is counted ([`ClientStats::dropped`](crate::ClientStats)). The
//! default of each is a handle that records nothing.

mod constructors;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use taba_core::{Expiring, Keyed, Number, Reading, Timestamp, Value};

use crate::client::Client;
use crate::client_core::ClientCore;
use crate::clock::Stopwatch;
use crate::recorder::Recorder;
use crate::tabs::TabLease;

/// A Tab whose events carry values of type `V`, for any Handler.
///
/// It keeps its [`Client`](crate::Client) alive. Dropping the last handle of a Tab lets the Client forget it.
pub struct Tab<V> {
    recorder: Arc<Recorder>,
    number: u32,
    // PERF: one pointer for both, as each start of a timer clones it.
    owned: Arc<HandleOwned>,
    values: PhantomData<fn(V)>,
}

/// Shared by a handle and its clones. Dropped in this order: the Tab is released, then the Client flushes if this was its last use.
struct HandleOwned {
    _lease: Arc<TabLease>,
    core: Arc<ClientCore>,
}

impl<V> Clone for Tab<V> {
    fn clone(&self) -> Self {
        let (recorder, owned) = (Arc::clone(&self.recorder), Arc::clone(&self.owned));
        Self { recorder, number: self.number, owned, values: PhantomData }
    }
}

impl<V> fmt::Debug for Tab<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tab({} of {})", self.number, self.recorder.client())
    }
}

impl<V: Value> Default for Tab<V> {
    /// A handle that records nothing, of [`Client::disabled`].
    fn default() -> Self {
        Self::disabled(Client::disabled().core())
    }
}

impl<V: Value> Tab<V> {
    fn new(lease: Arc<TabLease>, core: &Arc<ClientCore>) -> Self {
        // PERF: both are behind what is owned too, but recording should not follow two pointers more.
        let (recorder, number) = (Arc::clone(&core.recorder), lease.number());
        let owned = Arc::new(HandleOwned { _lease: lease, core: Arc::clone(core) });
        Self { recorder, number, owned, values: PhantomData }
    }

    fn disabled(core: &Arc<ClientCore>) -> Self {
        Self::new(TabLease::disabled(Arc::clone(&core.recorder) as _), core)
    }

    /// The Client of this Tab: for its [`stats`](crate::Client::stats), or to flush where only a handle is at hand.
    pub fn client(&self) -> Client {
        Client::of(&self.owned.core)
    }

    /// Records a value now.
    ///
    /// # Cost
    /// A few nanoseconds for a number, or a [`Reading`] that is one; two allocations more for anything else.
    #[inline]
    pub fn record(&self, value: V) {
        self.recorder.record(self.number, value);
    }

    /// Records a value at a time of its own.
    #[inline]
    pub fn record_at(&self, time: Timestamp, value: V) {
        self.recorder.record_at(self.number, time, value);
    }

    /// Records a value now, for Handlers to which it matters which of two events is the last: its time is later than
    /// that of every value recorded so before ([`Clock::next`](crate::Clock::next)), where [`record`](Self::record) gives all values of one
    /// tick of the clock (4 ms) one time.
    ///
    /// # Cost
    /// About 10 ns more than [`record`](Self::record).
    pub fn record_in_order(&self, value: V) {
        self.record_at(self.next(), value);
    }

    fn next(&self) -> Timestamp {
        self.recorder.clock().next()
    }
}

/// Something that is counted or added up.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_client::{Client, Reading, TestSink};
///
/// let sink = TestSink::new();
/// let client = Client::builder("test").sink(sink.clone()).build()?;
/// let bytes = client.counter("bytes").unwrap();
/// bytes.add("some text".len());
/// bytes.add(0.5);
/// client.gauge("threads").unwrap().set(4);
/// let _ = client.flush(Duration::from_secs(5));
/// assert_eq!(sink.values::<f64>("bytes"), [9.0, 0.5]);
/// assert_eq!(sink.values::<Reading>("threads"), [Reading::from(4.0)]);
/// # Ok::<(), taba_client::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counter(Tab<f64>);

impl Counter {
    /// Counts one.
    #[inline]
    pub fn increment(&self) {
        self.0.record(1.0);
    }

    /// Adds an amount, of any primitive [`Number`] type. NaN and infinities are dropped.
    #[inline]
    pub fn add(&self, amount: impl Number) {
        self.0.record(amount.to_f64());
    }

    /// Adds an amount at a time of its own.
    #[inline]
    pub fn add_at(&self, time: Timestamp, amount: impl Number) {
        self.0.record_at(time, amount.to_f64());
    }
}

/// Something whose distribution matters.
#[derive(Clone, Debug, Default)]
pub struct Percentile(Tab<f64>);

impl Percentile {
    /// Records an observation. NaN and infinities are dropped.
    #[inline]
    pub fn record(&self, value: impl Number) {
        self.0.record(value.to_f64());
    }

    /// Records an observation at a time of its own.
    #[inline]
    pub fn record_at(&self, time: Timestamp, value: impl Number) {
        self.0.record_at(time, value.to_f64());
    }
}

/// Measures how long things take, in seconds.
#[derive(Clone, Debug, Default)]
pub struct Timer(Tab<f64>);

impl Timer {
    /// Starts measuring; dropping the guard records.
    #[must_use = "dropped at once, it measures nothing"]
    pub fn start(&self) -> TimerGuard {
        TimerGuard { tab: Some(self.0.clone()), since: Stopwatch::start() }
    }

    /// Records a time that was measured otherwise.
    pub fn record(&self, elapsed: Duration) {
        self.0.record(elapsed.as_secs_f64());
    }

    /// Records, at a time of its own, how long something took.
    pub fn record_at(&self, time: Timestamp, elapsed: Duration) {
        self.0.record_at(time, elapsed.as_secs_f64());
    }
}

/// Records how long it has lived, in seconds, when it is dropped.
#[derive(Debug)]
pub struct TimerGuard {
    tab: Option<Tab<f64>>,
    since: Stopwatch,
}

impl TimerGuard {
    /// How long it has lived.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Ends without recording.
    pub fn discard(mut self) {
        self.tab = None;
    }
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        if let Some(tab) = &self.tab {
            tab.record(self.since.elapsed().as_secs_f64());
        }
    }
}

/// Something that has a value: the latest counts. Of two values, the one set last, also when they are set within one
/// tick of the clock.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Tab<Reading>);

impl Gauge {
    /// Sets the value: a number or a text.
    #[inline]
    pub fn set(&self, value: impl Into<Reading>) {
        self.0.record_in_order(value.into());
    }

    /// Sets the value as of a time of its own.
    #[inline]
    pub fn set_at(&self, time: Timestamp, value: impl Into<Reading>) {
        self.0.record_at(time, value.into());
    }
}

/// Something that has a value until a time.
#[derive(Clone, Debug, Default)]
pub struct ExpiryGauge(Tab<Expiring>);

impl ExpiryGauge {
    /// Sets the value until `expires`.
    pub fn set_until(&self, value: impl Into<Reading>, expires: Timestamp) {
        self.0.record_in_order(Expiring { expires, reading: value.into() });
    }

    /// Sets the value for as long as `ttl` from now.
    pub fn set_for(&self, value: impl Into<Reading>, ttl: Duration) {
        let now = self.0.next();
        self.set_at(now, value, now.saturating_add(ttl));
    }

    /// Sets the value, as of a time of its own, until `expires`.
    pub fn set_at(&self, time: Timestamp, value: impl Into<Reading>, expires: Timestamp) {
        self.0.record_at(time, Expiring { expires, reading: value.into() });
    }
}

/// Recent things worth looking at one by one, each for a while.
#[derive(Clone, Debug, Default)]
pub struct Buffered(Tab<Expiring>);

impl Buffered {
    /// Keeps a number or a text for as long as `ttl` from now.
    pub fn push(&self, reading: impl Into<Reading>, ttl: Duration) {
        let now = self.0.next();
        self.push_at(now, reading, now.saturating_add(ttl));
    }

    /// Keeps a number or a text until `expires`.
    pub fn push_until(&self, reading: impl Into<Reading>, expires: Timestamp) {
        self.0.record_in_order(Expiring { expires, reading: reading.into() });
    }

    /// Keeps a number or a text of a time of its own until `expires`.
    pub fn push_at(&self, time: Timestamp, reading: impl Into<Reading>, expires: Timestamp) {
        self.0.record_at(time, Expiring { expires, reading: reading.into() });
    }
}

/// Several counters that share a Tab, each under a key.
#[derive(Clone, Debug, Default)]
pub struct KeyedCounter(Tab<Keyed>);

impl KeyedCounter {
    /// Adds an amount under a key of 1 to 256 bytes.
    pub fn add(&self, key: impl Into<String>, amount: impl Number) {
        self.0.record(Keyed { key: key.into(), value: amount.to_f64() });
    }

    /// Adds an amount, at a time of its own, under a key of 1 to 256 bytes.
    pub fn add_at(&self, time: Timestamp, key: impl Into<String>, amount: impl Number) {
        self.0.record_at(time, Keyed { key: key.into(), value: amount.to_f64() });
    }
}

/// How many different texts there were.
#[derive(Clone, Debug, Default)]
pub struct Distinct(Tab<String>);

impl Distinct {
    /// One more text, which may have been there before.
    pub fn observe(&self, text: impl Into<String>) {
        self.0.record(text.into());
    }

    /// One more text, at a time of its own.
    pub fn observe_at(&self, time: Timestamp, text: impl Into<String>) {
        self.0.record_at(time, text.into());
    }
}
