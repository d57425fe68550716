//! [`PercentileGroup`]: percentiles over four windows.

use std::time::Duration;

use super::tab_type;
use crate::old::unreadable;
use crate::{Group, Sketch, Sum, Windowed};

type Windows = Windowed<Group<(Sum, Sketch)>>;

tab_type! {
    /// Count, exact total, average and percentiles over the last minute, ten minutes, hour and day.
    ///
    /// Rendered as `{"1m": {"count", "total", "average", "pct": [p25, p50, p75, p90, p95, p99, p99.9]}, "10m": …,
    /// "1h": …, "1d": …}`. In detail each window also has its `"buckets"`.
    ///
    /// | window | buckets of | seen | kept beside |
    /// |---|---|---|---|
    /// | `1m` | 10 s | 6 + 1 | 1 |
    /// | `10m` | 2 min | 5 + 1 | 1 |
    /// | `1h` | 10 min | 6 + 1 | 1 |
    /// | `1d` | 3 h | 8 + 1 | 1 |
    ///
    /// Each bucket of a window is a sketch of its own, many times the size of a
    /// [`CounterGroup`](crate::CounterGroup)'s, so buckets are wider: a window holds every event of its length, and up
    /// to an eighth (`1d`) to a fifth (`10m`) more; see [`Windowed`]. Percentiles of whole windows are as good as those
    /// of single buckets, within 0.542 % (see [`Sketch`]).
    ///
    /// With the latencies of a busy service a State takes 6 KiB encoded and 27 KiB in memory; never more than 984 KiB
    /// encoded, which fits one Block. Where all-time percentiles will do, a `CounterGroup` costs less.
    PercentileGroup = Group<(Windows, Windows, Windows, Windows)>, version 3, made by {
        let window = |window, width| {
            let inner = Group::new(["", ""], (Sum, Sketch));
            Windowed::new(inner, Duration::from_secs(window), Duration::from_secs(width))
        };
        let windows = (window(60, 10), window(600, 120), window(3600, 600), window(86_400, 10_800));
        Group::new(["1m", "10m", "1h", "1d"], windows)
    }, older read by unreadable
}
