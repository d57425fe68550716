//! [`Windowed`]: any part, over the last minute, hour, day.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::{Caveats, Event, Events, Format, Handler, Timestamp};

use crate::latest::seconds_json;
use crate::ring::{RING_BUCKETS_MAX, Ring};
use crate::unknown::{GONE, nulls};

/// What `H` makes of the events of a window that ends now.
///
/// Time is cut into buckets of one width at its multiples (`floor(time / width)`), the same for everybody, so States
/// merge bucket by bucket.
///
/// # Which events are in
/// A window of length `W` read at a time `at` is the bucket of `at - W`, the bucket of `at` and all between, so
/// `W / width + 1` buckets. It holds **every event with a time in `(at - W, at]`**, and at most one bucket's width more:
/// what of the first bucket lies before, and, where `at` is in the past, what of the last bucket lies after `at`. In
/// detail the rendered value says which time that is: `"covers": [start of the first bucket, at]`, in seconds.
///
/// # What is kept
/// The newest buckets: as many as the window has, and enough more to cover 10 s, so that an event up to [that
/// far](taba_core::limits::FUTURE_MICROS_MAX) ahead of a reader's time takes nothing out of the reader's window. An
/// event older than what is kept is not in the window's State; it was late by more than the whole window.
///
/// # What is not known
/// As of a time at which the window began before what is kept, nobody knows what was in it: all values are `null`, and
/// [`Caveats`] say why. So it is for times that lie long ago, and behind an event that lies further in the future than 10 s
/// (a Server's clock was wrong), until the window as of now begins after what is kept again. What is kept of several
/// States is what all of them keep, so an aggregate is unknown when one of its Projections is.
///
/// Rendered as `H` renders the merged buckets; in detail also `"buckets": [[start, …], …]`, oldest first, the start
/// in seconds since the Unix epoch and then what `H` says of that bucket.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use taba_core::{Event, Format, Handler, Timestamp};
/// use taba_handlers::{Sum, Windowed};
///
/// let minute = Windowed::new(Sum, Duration::from_secs(60), Duration::from_secs(1));
/// let mut state = Default::default();
/// for second in 0..100 {
///     minute.fold(&mut state, Event::new(Timestamp::from_secs(second), &1.0));
/// }
/// let last_minute = minute.project(&state, Timestamp::from_secs(99));
/// // Events at 39, 40, …, 99: the bucket of 99 - 60 is in.
/// assert_eq!(minute.render(&last_minute, Format::Summary)["count"], 61);
/// ```
///
/// # Cost
/// One division for each row of events that fall in one bucket; then what `H` costs.
#[derive(Clone, Debug)]
pub struct Windowed<H> {
    inner: H,
    /// Microseconds.
    width: i64,
    /// Buckets that a reader sees: those of the window, and one more.
    seen: usize,
    /// Buckets that are kept.
    kept: usize,
}

impl<H: Handler> Windowed<H> {
    /// A window cut into buckets of `width`.
    ///
    /// # Panics
    /// When `window` is not one or more times `width`, `width` is below a microsecond, or more than
    /// [`RING_BUCKETS_MAX`] buckets would be needed: that is a bug of the caller.
    pub fn new(inner: H, window: Duration, width: Duration) -> Self {
        let (window, width) = (window.as_micros(), width.as_micros());
        assert!(
            width > 0 && window >= width && window.is_multiple_of(width),
            "a window is a number of whole buckets"
        );
        let seen = window / width + 1;
        let kept = seen + (FUTURE_MICROS_MAX as u128).div_ceil(width);
        assert!(kept <= RING_BUCKETS_MAX as u128, "{kept} buckets are too many for one window");
        let width = i64::try_from(width).expect("a bucket is shorter than all of time");
        Self { inner, width, seen: seen as usize, kept: kept as usize }
    }

    fn index(&self, time: Timestamp) -> i64 {
        time.as_micros().div_euclid(self.width)
    }

    /// The last bucket that a reader at `at` does not see any more.
    fn horizon(&self, at: Timestamp) -> i64 {
        self.index(at).saturating_sub(self.seen as i64)
    }

    /// A bucket's start in seconds, a whole number if it is one.
    fn start(&self, index: i64) -> Value {
        let micros = i128::from(index) * i128::from(self.width);
        match i64::try_from(micros / 1_000_000) {
            Ok(secs) if micros % 1_000_000 == 0 => json!(secs),
            Ok(_) | Err(_) => json!(micros as f64 / 1e6),
        }
    }

    fn render_buckets(&self, view: &WindowView<H::State>) -> Vec<Value> {
        let held =
            view.buckets.iter().enumerate().rev().filter(|(_, bucket)| **bucket != H::State::default());
        held.map(|(back, bucket)| {
            let said = self.inner.project_now(bucket, view.at);
            json!([
                self.start(view.last.saturating_sub(back as i64)),
                self.inner.render(&said, Format::Summary)
            ])
        })
        .collect()
    }

    fn merged(&self, view: &WindowView<H::State>) -> H::Projection {
        let mut whole = H::State::default();
        view.buckets.iter().for_each(|bucket| self.inner.merge(&mut whole, bucket));
        // Which events count is decided by buckets, so what lies after `at` within the last is no reason to say nothing.
        self.inner.project_now(&whole, view.at)
    }

    /// Whether some of the window's buckets are not kept any more.
    fn is_unknown(&self, view: &WindowView<H::State>) -> bool {
        view.horizon.is_some_and(|horizon| horizon > view.last.saturating_sub(self.seen as i64))
    }
}

/// The Projection of a [`Windowed`]: the buckets that a reader at one time sees.
///
/// They stay apart, because which of them count depends on the newest event of all States together: one far in the
/// future moves the `horizon` for everybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WindowView<S> {
    at: Timestamp,
    /// The bucket of `at`.
    last: i64,
    /// The bucket before the first that counts. `None` before anything was projected.
    horizon: Option<i64>,
    /// From `last` backwards; the oldest is not in its default State.
    buckets: Vec<S>,
}

impl<S: Default + PartialEq> WindowView<S> {
    /// Drops what lies beyond the horizon, and what says nothing at the old end.
    fn trim(&mut self) {
        let most = match self.horizon {
            Some(horizon) if horizon < self.last => self.last.abs_diff(horizon),
            Some(_) | None => 0,
        };
        self.buckets.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        while self.buckets.last().is_some_and(|bucket| *bucket == S::default()) {
            self.buckets.pop();
        }
    }
}

impl<H: Handler> Handler for Windowed<H> {
    type Value = H::Value;
    type State = Ring<H::State>;
    type Projection = WindowView<H::State>;
    const VERSION: u16 = H::VERSION;

    fn fold(&self, state: &mut Self::State, event: Event<&H::Value>) {
        if let Some(bucket) = state.slot(self.index(event.time), self.kept) {
            self.inner.fold(bucket, event);
        }
    }

    fn merge(&self, into: &mut Self::State, other: &Self::State) {
        into.merge(other, self.kept, |a, b| self.inner.merge(a, b));
    }

    fn project(&self, state: &Self::State, at: Timestamp) -> Self::Projection {
        let last = self.index(at);
        let mut view = WindowView { at, last, horizon: Some(self.horizon(at)), buckets: Vec::new() };
        if let Some(newest) = state.newest() {
            view.horizon = view.horizon.max(Some(newest.saturating_sub(self.kept as i64)));
            for (back, state) in state.iter() {
                let Some(index) = newest.checked_sub(i64::from(back)) else { break };
                let Ok(place) = usize::try_from(last.saturating_sub(index)) else { continue };
                if place >= self.seen {
                    break;
                }
                view.buckets.resize_with(place, H::State::default);
                view.buckets.push(state.clone());
            }
        }
        view.trim();
        view
    }

    fn aggregate(&self, into: &mut Self::Projection, other: &Self::Projection) {
        if other.horizon.is_none() {
            return;
        }
        if into.horizon.is_none() || into.last < other.last {
            // What follows adds the older to the later; the contract is that both are of one time.
            let earlier = std::mem::replace(into, other.clone());
            return self.aggregate(into, &earlier);
        }
        into.at = into.at.max(other.at);
        into.horizon = into.horizon.max(other.horizon);
        let offset = into.last.abs_diff(other.last);
        if let Some(offset) = usize::try_from(offset).ok().filter(|offset| *offset < self.seen) {
            for (i, bucket) in other.buckets.iter().enumerate() {
                let place = i + offset;
                if place >= into.buckets.len() {
                    into.buckets.resize_with(place + 1, H::State::default);
                }
                self.inner.merge(&mut into.buckets[place], bucket);
            }
        }
        into.trim();
    }

    fn encoded_bytes_max(&self) -> usize {
        // The newest bucket's number, the number of runs, and for each bucket at worst a run of its own.
        10 + 2 + self.kept * (2 + 2 + self.inner.encoded_bytes_max())
    }

    fn heap_bytes(&self, state: &Self::State) -> Option<usize> {
        state.states().try_fold(state.slots_bytes(), |sum, held| Some(sum + self.inner.heap_bytes(held)?))
    }

    fn fit(&self, state: &mut Self::State) {
        state.drop_oldest(self.kept as u64);
        state.states_mut().for_each(|held| self.inner.fit(held));
    }

    fn fold_all(&self, state: &mut Self::State, events: Events<'_, H::Value>) {
        let times = events.times();
        let mut from = 0;
        while let Some(&time) = times.get(from) {
            let index = self.index(time);
            // At the ends of the range of times a bucket is cut short; the last microsecond of all is a row of its
            // own.
            let start = Timestamp::from_micros(index.saturating_mul(self.width));
            let end = Timestamp::from_micros((index + 1).saturating_mul(self.width));
            let to =
                from + 1 + times[from + 1..].iter().take_while(|time| (start..end).contains(time)).count();
            if let Some(bucket) = state.slot(index, self.kept) {
                self.inner.fold_all(bucket, events.slice(from..to));
            }
            from = to;
        }
    }

    fn render(&self, projection: &Self::Projection, format: Format) -> Value {
        let mut whole = self.inner.render(&self.merged(projection), Format::Summary);
        if self.is_unknown(projection) {
            whole = nulls(whole);
        }
        if format == Format::Detail {
            let first = projection.last.saturating_sub(self.seen as i64 - 1);
            let covers = json!([self.start(first), seconds_json(projection.at)]);
            let buckets = Value::Array(self.render_buckets(projection));
            match &mut whole {
                Value::Object(map) => {
                    map.insert("covers".to_owned(), covers);
                    map.insert("buckets".to_owned(), buckets);
                }
                other => whole = json!({ "window": other.take(), "covers": covers, "buckets": buckets }),
            }
        }
        whole
    }

    fn should_prune(&self, state: &Self::State, at: Timestamp) -> bool {
        state.newest().is_none_or(|newest| newest <= self.horizon(at))
    }

    fn compact(&self, state: &mut Self::State, at: Timestamp) {
        // What `H` would forget of a bucket stays until the bucket goes: the Projection shows States, and compares
        // them.
        state.drop_through(self.horizon(at));
    }

    fn clamp(&self, state: &mut Self::State, latest: Timestamp) {
        let last = self.index(latest);
        if state.newest().is_none_or(|newest| newest < last) {
            return;
        }
        let mut moved = H::State::default();
        while state.newest().is_some_and(|newest| newest > last) {
            let bucket = state.pop_newest().unwrap_or_default();
            self.inner.merge(&mut moved, &bucket);
        }
        if let Some(bucket) = state.slot(last, self.kept) {
            self.inner.merge(bucket, &moved);
            self.inner.clamp(bucket, latest);
        }
    }

    fn tallies(&self) -> bool {
        self.inner.tallies()
    }

    fn tally(&self, projection: &Self::Projection) -> Option<String> {
        if self.is_unknown(projection) { None } else { self.inner.tally(&self.merged(projection)) }
    }

    fn error_bound(&self, projection: &Self::Projection) -> Option<f64> {
        if self.is_unknown(projection) { None } else { self.inner.error_bound(&self.merged(projection)) }
    }

    fn caveats(&self, projection: &Self::Projection) -> Caveats {
        if self.is_unknown(projection) {
            Caveats::unknown(GONE)
        } else {
            self.inner.caveats(&self.merged(projection))
        }
    }
}
