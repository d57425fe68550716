//! [`Sketch`]: percentiles with a bounded relative error, from a State of bounded size.

mod bits;
mod buckets;
mod counts;
mod encoded;
mod exponential;
mod scale;
mod state;

use serde_json::{Value, json};
use taba_core::{Event, Events, Format, Handler, Timestamp};

pub use exponential::{ExponentialError, ExponentialHistogram};
pub use state::SketchState;

/// Percentiles of all values, negative, zero or positive, within 0.542 %; exact while at most 16 values differ.
///
/// Values fall into buckets whose ends differ by 1.09 %, and each bucket counts exactly. So States merge without any
/// loss, a percentile of many Clients is as good as that of one, and nothing is ever averaged. Rendered as
/// `{"pct": [p25, p50, p75, p90, p95, p99, p99.9]}`, `null` when there were no values; in detail also
/// `"histogram"`, the buckets as `[lower end, upper end, count]`.
///
/// The percentile `p` of `n` values is the smallest value whose rank is at least `p/100 * n` (the *nearest rank*),
/// and what is shown for it is within [`error_bound`](Handler::error_bound) of that value, relatively: 0.542 % as long
/// as the values need no more than 2,048 buckets, which span 32 octaves (1 to 4e9) even if every bucket is in use.
/// Below 1e-310 half the distance between two doubles comes on top. It never lies outside of what was recorded.
///
/// # Few values, and integers
/// Up to 16 different values are kept as they are, each with its count, and answered exactly. The values decide alone which
/// form a State has: a part never has more different ones than the whole, and no value is forgotten before there are 17.
///
/// When all values are integers (of at most 64 bits), so is every percentile. Up to 92 each integer has a bucket of its own
/// and is exact; above, where a bucket holds two, the one that is shown can be up to 1.08 % from the other. `error_bound` is
/// then computed from the buckets in use.
///
/// # Values that span more
/// When 2,048 buckets are not enough, the *level* rises by one: every bucket is joined with its neighbour, and the
/// error bound nearly doubles (1.09 %, 2.17 %, … 88 % at level 8, where every double there is fits). The level of a
/// State is therefore **the least at which the buckets of all its values fit**. That is a property of the values, not
/// of their order: joining at level *l* and then at *l + 1* is joining at *l + 1* at once, more values never need
/// fewer buckets, so a part never has a higher level than the whole, and a merge that starts at the higher level of
/// its two sides and goes on rising until the buckets fit stops exactly at the level of the whole. Hence merging is
/// associative and commutative, also across a rise.
///
/// # The same buckets elsewhere
/// They are those of OTLP's exponential histograms of scale 6 and of Prometheus' native histograms of schema 6, and a level
/// more is a scale less. [`ExponentialHistogram`] converts both ways without any error.
///
/// # Sources
/// Buckets at powers of γ: Masson, Rim, Lee, *DDSketch: a fast and fully-mergeable quantile sketch with
/// relative-error guarantees* (VLDB 2019). Joining all neighbours rather than the lowest buckets: Epicoco et al.,
/// *UDDSketch: accurate tracking of quantiles in data streams* (IEEE Access 2020).
///
/// # Cost
/// 5 to 15 ns an event. 16 bytes in memory for each of few values; then 1 to 9 for each bucket by the size of the
/// largest count, 8 more for each row of buckets, and about 1 when encoded. The latencies of a service use some 350 buckets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sketch;

/// The percentiles that are rendered, in thousandths: p25, p50, p75, p90, p95, p99, p99.9.
pub const PERCENTILES: [u32; 7] = [250, 500, 750, 900, 950, 990, 999];

impl Handler for Sketch {
    type Value = f64;
    type State = SketchState;
    type Projection = SketchState;
    const VERSION: u16 = 2;

    fn fold(&self, state: &mut SketchState, event: Event<&f64>) {
        state.add_all(&[*event.value]);
    }

    fn merge(&self, into: &mut SketchState, other: &SketchState) {
        into.merge(other);
    }

    fn project(&self, state: &SketchState, _at: Timestamp) -> SketchState {
        state.clone()
    }

    fn aggregate(&self, into: &mut SketchState, other: &SketchState) {
        into.merge(other);
    }

    fn tallies(&self) -> bool {
        false
    }

    fn encoded_bytes_max(&self) -> usize {
        SketchState::ENCODED_BYTES_MAX
    }

    fn heap_bytes(&self, state: &SketchState) -> Option<usize> {
        Some(crate::HeapBytes::heap_bytes(state))
    }

    fn fold_all(&self, state: &mut SketchState, events: Events<'_, f64>) {
        state.add_all(events.values());
    }

    fn render(&self, projection: &SketchState, format: Format) -> Value {
        let mut map = json!({ "pct": projection.quantiles(PERCENTILES) });
        if format == Format::Detail {
            map["histogram"] =
                projection.buckets().map(|(low, high, count)| json!([low, high, count])).collect();
        }
        map
    }

    fn error_bound(&self, projection: &SketchState) -> Option<f64> {
        projection.error_bound()
    }
}
