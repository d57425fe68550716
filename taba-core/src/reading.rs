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
