//! [`CommonPrefixCounterGroup`]: a counter group for each key.

use super::tab_type;
use crate::old::unreadable;
use crate::{ByKey, CounterGroup};

/// Keys kept apart. With more, the State of a Tab whose every key is busy would outgrow a Block.
const KEYS_MAX: usize = 128;

tab_type! {
    /// A [`CounterGroup`] for each of up to 128 keys; all further keys share one: [`ByKey`].
    ///
    /// Rendered as `{"keys": {key: what a CounterGroup says, …}, "other": …}`.
    ///
    /// As exact as a `CounterGroup`, and up to 129 times its size: 230 to 640 KiB encoded when every key is hit every
    /// second for a day. Labels (`requests;path=/a`) give each series a State of its own and have no such bound;
    /// prefer them unless the series are few and belong together.
    CommonPrefixCounterGroup = ByKey<CounterGroup>, version 3, made by {
        ByKey::new(CounterGroup::new()).with_keys_max(KEYS_MAX)
    }, older read by unreadable
}
