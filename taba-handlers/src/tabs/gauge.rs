//! [`Gauge`]: the last reading of each Client.

use std::time::Duration;

use super::tab_type;
use crate::Latest;

/// How long a gauge is shown after its last reading.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);

tab_type! {
    /// The latest reading, a number or a text, until 48 hours after its time: [`Latest`].
    ///
    /// Rendered as `{"value": "v1.2", "time": 1795371115.67}`, or `{}`. As of a time before it,
    /// both are `null`. How many Clients hold which reading is
    /// counted by queries, from [`tally`](taba_core::Handler::tally).
    Gauge = Latest, version 2, made by Latest::living(LIFETIME)
}
