//! How a value that is not known is shown: in its usual shape, with `null` in the place of every value.

use serde_json::Value;

/// Why a total or a gauge as of an earlier time is not known.
pub(crate) const LATER: &str = "holds events after that time";
/// Why a window as of an earlier time is not known.
pub(crate) const GONE: &str = "begins before what is kept";

/// The same shape without values.
pub(crate) fn nulls(said: Value) -> Value {
    match said {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, nulls(value))).collect())
        }
        _ => Value::Null,
    }
}
