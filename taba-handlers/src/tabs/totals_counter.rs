//! [`TotalsCounter`]: a plain counter.

use super::tab_type;
use crate::{AllTime, Totals};

tab_type! {
    /// Count, exact total, average, smallest and largest value of all time: [`Totals`].
    ///
    /// Rendered as `{"count": 2, "total": 3.5, "average": 1.75, "min": 1.0, "max": 2.5}`.
    ///
    /// The smallest Tab type: 48 bytes in memory, some 10 encoded. Exact.
    TotalsCounter = AllTime<Totals>, version 2, made by AllTime::new(Totals)
}
