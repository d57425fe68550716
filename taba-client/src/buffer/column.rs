//! [`Datum`]: one value on its way; [`Column`]: many of one Tab, their Rust type forgotten but for numbers.

use std::any::Any;
use std::fmt;
use std::ops::Range;

use taba_core::limits::VALUE_BYTES_MAX;
use taba_core::{AnyValues, Value};

/// What a column of one opaque value takes beside the value: a width, and its length in two bytes.
const COLUMN_BYTES: usize = 3;

/// One value on its way: a number, or anything else behind a pointer.
pub enum Datum {
    /// The value of most events.
    Number(f64),
    /// A value of the Tab's own type.
    Opaque(Box<dyn Any + Send>),
}

impl Datum {
    /// A value of any type. Numbers are kept as they are, others are boxed.
    #[inline]
    pub fn of<V: Value>(value: V) -> Self {
        // The compiler knows both types here, so nothing is left of the question.
        match (&value as &dyn Any).downcast_ref::<f64>() {
            Some(&number) => Self::Number(number),
            None => Self::Opaque(Box::new(value)),
        }
    }
}

impl fmt::Debug for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Opaque(_) => f.write_str("opaque"),
        }
    }
}

/// Many values of one Tab.
pub(crate) enum Column {
    Numbers(Vec<f64>),
    Opaque(Box<dyn Values>),
}

impl Column {
    /// An empty column for values of type `V`.
    pub(crate) fn of<V: Value>() -> Self {
        match (&Vec::<V>::new() as &dyn Any).downcast_ref::<Vec<f64>>() {
            Some(_) => Self::Numbers(Vec::new()),
            None => Self::Opaque(Box::new(Vec::<V>::new())),
        }
    }

    /// Adds a value. Gives how many bytes it takes here; `None` when it is not valid, too long to be sent, or of
    /// another type.
    #[inline]
    pub(crate) fn push(&mut self, datum: Datum) -> Option<usize> {
        match (self, datum) {
            (Self::Numbers(numbers), Datum::Number(number)) if number.is_finite() => {
                numbers.push(number);
                Some(size_of::<f64>())
            }
            (Self::Opaque(values), Datum::Opaque(value)) => values.push(value),
            (Self::Numbers(_), _) | (Self::Opaque(_), Datum::Number(_)) => None,
        }
    }

    pub(crate) fn values(&self) -> &dyn AnyValues {
        match self {
            Self::Numbers(numbers) => numbers,
            Self::Opaque(values) => values.as_values(),
        }
    }

    /// Appends the wire form of some of the values.
    pub(crate) fn encode(&self, range: Range<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Numbers(numbers) => f64::encode_column(&numbers[range], out),
            Self::Opaque(values) => values.encode(range, out),
        }
    }

    /// Forgets the first `count` values.
    pub(crate) fn forget(&mut self, count: usize) {
        match self {
            Self::Numbers(numbers) => drop(numbers.drain(..count)),
            Self::Opaque(values) => values.forget(count),
        }
    }

    /// Gives back memory that an empty column holds.
    pub(crate) fn release(&mut self) {
        match self {
            Self::Numbers(numbers) => numbers.shrink_to_fit(),
            Self::Opaque(values) => values.release(),
        }
    }
}

/// A `Vec` of some opaque type.
pub(crate) trait Values: Send {
    fn push(&mut self, value: Box<dyn Any + Send>) -> Option<usize>;
    fn as_values(&self) -> &dyn AnyValues;
    fn encode(&self, range: Range<usize>, out: &mut Vec<u8>);
    fn forget(&mut self, count: usize);
    fn release(&mut self);
}

impl<V: Value> Values for Vec<V> {
    fn push(&mut self, value: Box<dyn Any + Send>) -> Option<usize> {
        let value = *value.downcast::<V>().ok().filter(|value| value.is_valid())?;
        // A value may not tell its heap, but its wire form does; and a reader of the Block would refuse a longer one.
        let mut encoded = Vec::with_capacity(64);
        V::encode_column(std::slice::from_ref(&value), &mut encoded);
        if encoded.len() > VALUE_BYTES_MAX + COLUMN_BYTES {
            return None;
        }
        let bytes = size_of::<V>() + value.heap_bytes().max(encoded.len());
        Vec::push(self, value);
        Some(bytes)
    }

    fn as_values(&self) -> &dyn AnyValues {
        self
    }

    fn encode(&self, range: Range<usize>, out: &mut Vec<u8>) {
        V::encode_column(&self[range], out);
    }

    fn forget(&mut self, count: usize) {
        drop(self.drain(..count));
    }

    fn release(&mut self) {
        self.shrink_to_fit();
    }
}
