//! [`PercentileCounter`]: a counter with percentiles.

use super::tab_type;
use crate::{AllTime, Group, Sketch, Totals};

tab_type! {
    /// Count, exact total, average, extremes and percentiles of all time: [`Totals`] and [`Sketch`].
    ///
    /// Rendered as `{"count", "total", "average", "min", "max", "pct": [p25, p50, p75, p90, p95, p99, p99.9]}`.
    /// Percentiles are within 0.97 % (see [`Sketch`]), and within the extremes; all else is exact.
    PercentileCounter = AllTime<Group<(Totals, Sketch)>>, version 2, made by {
        AllTime::new(Group::new(["", ""], (Totals, Sketch)))
    }
}
