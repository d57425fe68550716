//! [`CounterGroup`]: a counter over four windows and all time.

use std::time::Duration;

use taba_core::{StateError, Timestamp};

use super::tab_type;
use crate::all_time::{AllTime, Whole};
use crate::old::unless_unknown;
use crate::{Group, Ring, Sketch, SketchState, Sum, SumState, Windowed};

type Windows = Windowed<Sum>;
type Ever = AllTime<Group<(Sum, Sketch)>>;

/// The State of version 1, which had no latest time.
pub(super) type StateV1 =
    (Ring<SumState>, Ring<SumState>, Ring<SumState>, Ring<SumState>, (SumState, SketchState));
/// The State of version 2.
pub(super) type State =
    (Ring<SumState>, Ring<SumState>, Ring<SumState>, Ring<SumState>, Whole<(SumState, SketchState)>);

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
    /// Totals are exact, percentiles within 0.97 % (see [`Sketch`]). A window holds every event of its length and at
    /// most one bucket's width more (see [`Windowed`]). Hit once a second for a day it takes up to 5 KiB encoded and
    /// 15 KiB in memory with doubles of random bits over some twenty octaves, 1.8 KiB and 12.5 KiB with integers up to
    /// 1000, and after one event 110 bytes encoded. The stated bound of 131 KiB needs values that span hundreds of
    /// octaves within every bucket.
    CounterGroup = Group<(Windows, Windows, Windows, Windows, Ever)>, version 2, made by {
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
    }, older read by |_, version, bytes| read_v1(version, bytes)
}

fn read_v1(version: u16, bytes: &[u8]) -> Result<State, StateError> {
    unless_unknown::<CounterGroup, StateV1>(1, version, bytes).map(upgraded)
}

/// A State of version 1 as one of version 2. Its latest event lies in the newest bucket of a second; the end of that is
/// taken for its time, so that no later event is ever taken for an earlier one.
pub(super) fn upgraded((minute, ten, hour, day, state): StateV1) -> State {
    let end = |second: i64| Timestamp::from_micros(second.saturating_add(1).saturating_mul(1_000_000) - 1);
    let latest = minute.newest().map(end);
    (minute, ten, hour, day, Whole { latest, state })
}
