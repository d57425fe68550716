//! [`PercentileCounter`]: a counter with percentiles.

use super::tab_type;
use crate::old::unreadable;
use crate::{AllTime, Group, Sketch, Totals};

tab_type! {
    /// Count, exact total, average, extremes and percentiles of all time: [`Totals`] and [`Sketch`].
    ///
    /// Rendered as `{"count", "total", "average", "min", "max", "pct": [p25, p50, p75, p90, p95, p99, p99.9]}`.
    /// Percentiles are within 0.542 % (see [`Sketch`]); all else is exact.
    PercentileCounter = AllTime<Group<(Totals, Sketch)>>, version 3, made by {
        AllTime::new(Group::new(["", ""], (Totals, Sketch)))
    }, older read by unreadable
}
