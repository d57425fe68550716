//! [`Value`]: the value of an event, and the encoding of a column of values.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Reader, WireError, column};
use crate::limits::VALUE_BYTES_MAX;

/// The value of an event: an `f64`, a `String`, or a type of your own.
///
/// For a type of your own, derive serde's traits and write `impl Value for MyType {}`: values are then encoded as
/// postcard.
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
/// use taba_core::Value;
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// struct Request { status: u16, micros: u32 }
///
/// impl Value for Request {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Taba value yet",
    label = "an event cannot carry this type",
    note = "derive `Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize`, then write `impl Value for {Self} {{}}`"
)]
pub trait Value: Serialize + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Whether the value is meaningful. One that is not is refused and counted where it is recorded; for numbers, NaN
    /// and the infinities.
    fn is_valid(&self) -> bool {
        true
    }

    /// Whether the value can be encoded. serde allows shapes that postcard cannot write: a type with
    /// `#[serde(flatten)]` is a map of unknown length. A value that cannot be encoded is refused, and counted as
    /// `bad_value`; [`encode_column`](Self::encode_column) is called only for values that can.
    fn is_encodable(&self) -> bool {
        postcard::serialize_with_flavor(self, postcard::ser_flavors::Size::default()).is_ok()
    }

    /// Appends the column of `values`.
    ///
    /// # Panics
    /// When one of them [cannot be encoded](Self::is_encodable).
    fn encode_column(values: &[Self], out: &mut Vec<u8>) {
        let encoded: Vec<Vec<u8>> = values
            .iter()
            .map(|value| postcard::to_stdvec(value).expect("the caller has checked `is_encodable`"))
            .collect();
        column::put_chunks(&encoded, out);
    }

    /// Decodes a column of `count` values.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no column of these values. Any bytes are safe.
    fn decode_column(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Self>, WireError> {
        let chunks = column::chunks(reader, count, VALUE_BYTES_MAX)?;
        chunks
            .into_iter()
            .map(|chunk| {
                postcard::from_bytes(chunk).map_err(|_| WireError::Malformed { what: "an opaque value" })
            })
            .collect()
    }

    /// The heap bytes of the value, beside its own size, for memory bounds.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// The value from JSON, for events from other languages; by default as serde reads it. The caller checks
    /// [`is_valid`](Self::is_valid).
    ///
    /// # Errors
    /// serde's error, when the JSON has another shape.
    fn from_json(json: &serde_json::Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(json)
    }
}

impl Value for f64 {
    fn is_valid(&self) -> bool {
        self.is_finite()
    }

    fn is_encodable(&self) -> bool {
        true
    }

    fn encode_column(values: &[Self], out: &mut Vec<u8>) {
        column::put_numbers(values, out);
    }

    fn decode_column(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Self>, WireError> {
        column::numbers(reader, count)
    }
}

impl Value for String {
    fn is_valid(&self) -> bool {
        self.len() <= VALUE_BYTES_MAX
    }

    fn is_encodable(&self) -> bool {
        true
    }

    fn encode_column(values: &[Self], out: &mut Vec<u8>) {
        column::put_chunks(values, out);
    }

    fn decode_column(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Self>, WireError> {
        column::chunks(reader, count, VALUE_BYTES_MAX)?
            .into_iter()
            .map(|chunk| match std::str::from_utf8(chunk) {
                Ok(text) => Ok(text.to_owned()),
                Err(_) => Err(WireError::Malformed { what: "a text that is not UTF-8" }),
            })
            .collect()
    }

    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Plain(u8);

    impl Value for Plain {}

    /// serde writes it as a map of unknown length.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        all: BTreeMap<String, u8>,
    }

    impl Value for Flat {}

    #[test]
    fn what_cannot_be_encoded_is_told_from_what_means_nothing() {
        assert!(Plain(1).is_valid() && Plain(1).is_encodable());
        let flat = Flat { all: BTreeMap::from([("a".to_owned(), 1)]) };
        assert!(flat.is_valid() && !flat.is_encodable());
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!number.is_valid(), "{number}");
        }
        assert!(f64::MAX.is_valid());
        let text = |bytes| "x".repeat(bytes);
        assert!(text(VALUE_BYTES_MAX).is_valid());
        assert!(!text(VALUE_BYTES_MAX + 1).is_valid());
    }

    #[test]
    fn the_heap_of_a_value_is_counted() {
        assert_eq!((Plain(1).heap_bytes(), 1.5_f64.heap_bytes(), "abc".to_owned().heap_bytes()), (0, 0, 3));
    }
}
