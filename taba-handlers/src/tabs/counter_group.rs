//! [`CounterGroup`]: a counter over four windows and all time.

use std::time::Duration;

use super::tab_type;
use crate::old::unreadable;
use crate::{AllTime, Group, Sketch, Sum, Windowed};

type Windows = Windowed<Sum>;
type Ever = AllTime<Group<(Sum, Sketch)>>;

tab_type! {
    /// Count, exact total and average over the last minute, ten minutes, hour and day, and all-time percentiles.
    ///
    /// Rendered as the first Taba did: `{"1m": {"count", "total", "average"}, "10m": …, "1h": …, "1d": …, "pct":
    /// {"count", "total", "average", "pct": [p25, p50, p75, p90, p95, p99, p99.9]}}`. In detail each window also has
    /// `"covers": [from, to]` and `"buckets": [[start in seconds, {"count", "total", "average"}], …]`.
    ///
    /// | window | buckets of | seen | kept beside |
    /// |---|---|---|---|
    /// | `1m` | 1 s | 60 + 1 | 10 |
    /// | `10m` | 10 s | 60 + 1 | 1 |
    /// | `1h` | 30 s | 120 + 1 | 1 |
    /// | `1d` | 15 min | 96 + 1 | 1 |
    ///
    /// Totals are exact, percentiles within 0.542 % (see [`Sketch`]). A window holds every event of its length and at
    /// most one bucket's width more (see [`Windowed`]). Hit once a second for a day it takes up to 5 KiB encoded and
    /// 16 KiB in memory with doubles of random bits over some twenty octaves, 1.8 KiB and 12.5 KiB with integers up to
    /// 1000, and after one event 110 bytes encoded. The stated bound of 132 KiB needs values that span hundreds of
    /// octaves within every bucket.
    CounterGroup = Group<(Windows, Windows, Windows, Windows, Ever)>, version 3, made by {
        let window = |window, width| Windowed::new(Sum, Duration::from_secs(window), Duration::from_secs(width));
        Group::new(
            ["1m", "10m", "1h", "1d", "pct"],
            (
                window(60, 1),
                window(600, 10),
                window(3600, 30),
                window(86_400, 900),
                AllTime::new(Group::new(["", ""], (Sum, Sketch))),
            ),
        )
    }, older read by unreadable
}
