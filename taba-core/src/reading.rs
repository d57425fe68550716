//! Values that are more than a number: [`Reading`] for gauges, [`Expiring`] for what is valid until a time, [`Keyed`]
//! for numbers with a suffix.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::VALUE_BYTES_MAX;
use crate::time::Timestamp;
use crate::wire::Value;

/// What a gauge shows: a number or a text.
///
/// Readings have a total order, numbers before texts, so that "the latest" has one answer even when two readings
/// carry the same time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reading {
    /// A finite number.
    Number(f64),
    /// A text of at most [`VALUE_BYTES_MAX`] bytes.
    Text(String),
}

impl Default for Reading {
    fn default() -> Self {
        Self::Number(0.0)
    }
}

impl Ord for Reading {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for Reading {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Reading {}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => f.write_str(&number_text(*number)),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The shortest text that reads back as the same number, in scientific form where it would be long: `2`, `0.001`,
/// `1.7e308`.
pub fn number_text(number: f64) -> String {
    let is_long = number != 0.0 && !(1e-5..1e17).contains(&number.abs());
    if is_long { format!("{number:e}") } else { number.to_string() }
}

impl From<f64> for Reading {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Reading {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Reading {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Value for Reading {
    fn is_valid(&self) -> bool {
        match self {
            Self::Number(number) => number.is_finite(),
            Self::Text(text) => text.len() <= VALUE_BYTES_MAX - 16,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Text(text) => text.len(),
        }
    }

    /// A number or a text, without more around it.
    fn from_json(json: &serde_json::Value) -> Result<Self, serde_json::Error> {
        match json {
            serde_json::Value::String(text) => Ok(Self::Text(text.clone())),
            number => f64::deserialize(number).map(Self::Number),
        }
    }
}

/// A reading that is valid until a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Expiring {
    /// When it stops being valid.
    pub expires: Timestamp,
    /// What is shown until then.
    pub reading: Reading,
}

impl Value for Expiring {
    fn is_valid(&self) -> bool {
        self.reading.is_valid()
    }

    fn heap_bytes(&self) -> usize {
        self.reading.heap_bytes()
    }

    /// `{"expires": 1795730400, "reading": "up"}`: seconds since 1970, and a number or a text.
    fn from_json(json: &serde_json::Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            expires: f64,
            reading: serde_json::Value,
        }
        let fields = Fields::deserialize(json)?;
        let expires = Timestamp::from_micros((fields.expires * 1e6).round() as i64);
        Ok(Self { expires, reading: Reading::from_json(&fields.reading)? })
    }
}

/// A value under a key: one of several series that share a Tab; a number unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keyed<V = f64> {
    /// Which series: 1 to 256 bytes.
    pub key: String,
    /// What was observed.
    pub value: V,
}

impl Keyed {
    /// Bytes of one key: 1 to this many.
    pub const KEY_BYTES_MAX: usize = 256;
}

impl<V: Value> Value for Keyed<V> {
    fn is_valid(&self) -> bool {
        (1..=Keyed::KEY_BYTES_MAX).contains(&self.key.len()) && self.value.is_valid()
    }

    fn heap_bytes(&self) -> usize {
        self.key.len() + self.value.heap_bytes()
    }

    /// `{"key": "a", "value": …}`, and the value as its type reads it.
    fn from_json(json: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let Keyed { key, value } = Keyed::<serde_json::Value>::deserialize(json)?;
        Ok(Self { key, value: V::from_json(&value)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reading {
        text.into()
    }

    #[test]
    fn readings_have_one_order_and_equality_agrees_with_it() {
        let sorted = [Reading::from(-1.0), 0.0.into(), 2.0.into(), text(""), text("a"), text("b")];
        assert!(sorted.is_sorted());
        for (n, one) in sorted.iter().enumerate() {
            for (m, other) in sorted.iter().enumerate() {
                assert_eq!(one.cmp(other), n.cmp(&m), "{one} {other}");
                assert_eq!(one.partial_cmp(other), Some(n.cmp(&m)), "{one} {other}");
                assert_eq!(one == other, n == m, "{one} {other}");
            }
        }
    }

    #[test]
    fn numbers_are_short_texts() {
        let shown = [0.0, 2.0, 0.001, 1e-5, 9e-6, -1e16, 1e17, f64::MAX].map(number_text);
        let expected =
            ["0", "2", "0.001", "0.00001", "9e-6", "-10000000000000000", "1e17", "1.7976931348623157e308"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_a_value_holds_is_valid_and_counted_with_it() {
        let of = |bytes: usize| Reading::from("x".repeat(bytes));
        let until = |reading| Expiring { expires: Timestamp::default(), reading };
        assert!(of(VALUE_BYTES_MAX - 16).is_valid() && until(of(1)).is_valid());
        assert!(!of(VALUE_BYTES_MAX - 15).is_valid());
        assert!(!until(f64::NAN.into()).is_valid());
        assert_eq!(
            (of(5).heap_bytes(), until(of(5)).heap_bytes(), until(1.0.into()).heap_bytes()),
            (5, 5, 0)
        );
        let keyed = |bytes: usize| Keyed { key: "k".repeat(bytes), value: of(3) };
        assert_eq!(keyed(2).heap_bytes(), 5);
        assert!(keyed(Keyed::KEY_BYTES_MAX).is_valid());
        assert!(!keyed(Keyed::KEY_BYTES_MAX + 1).is_valid() && !keyed(0).is_valid());
    }
}
