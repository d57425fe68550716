//! [`Datum`]: one value on its way; [`Column`]: many of one Tab, their Rust type forgotten but for numbers.

use std::any::Any;
use std::fmt;
use std::ops::Range;

use taba_core::limits::VALUE_BYTES_MAX;
use taba_core::{AnyValues, Reading, Value};

use crate::fault::guarded;

/// What a column of one opaque value takes beside the value: a width, and its length in two bytes.
const COLUMN_BYTES: usize = 3;
/// Bytes of a number in an encoded column of [`Reading`]s: its kind, its eight bytes, and those of a column.
const READING_BYTES: usize = 9 + COLUMN_BYTES;

/// One value on its way: a number, or anything else behind a pointer.
pub enum Datum {
    /// The value of most events.
    Number(f64),
    /// A [`Reading`] that is a number.
    Reading(f64),
    /// A value of the Tab's own type.
    Opaque(Box<dyn Any + Send>),
}

impl Datum {
    /// A value of any type. Numbers and readings of numbers are kept as they are, others are boxed.
    #[inline]
    pub fn of<V: Value>(value: V) -> Self {
        // The compiler knows all types here, so nothing is left of the questions.
        let any = &value as &dyn Any;
        match (any.downcast_ref::<f64>(), any.downcast_ref::<Reading>()) {
            (Some(&number), _) => Self::Number(number),
            (None, Some(&Reading::Number(number))) => Self::Reading(number),
            (None, Some(Reading::Text(_)) | None) => Self::Opaque(Box::new(value)),
        }
    }
}

impl fmt::Debug for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) | Self::Reading(number) => write!(f, "{number}"),
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

    /// Adds a value. Gives how many bytes it takes beside its place in the column.
    ///
    /// # Errors
    /// [`Unsendable`], and the value is dropped.
    #[inline]
    pub(crate) fn push(&mut self, datum: Datum) -> Result<usize, Unsendable> {
        match (self, datum) {
            (Self::Numbers(numbers), Datum::Number(number)) if number.is_finite() => {
                numbers.push(number);
                Ok(0)
            }
            (Self::Opaque(values), Datum::Opaque(value)) => values.push(value),
            (Self::Opaque(values), Datum::Reading(number)) if number.is_finite() => {
                values.push_reading(number)
            }
            (Self::Opaque(_), Datum::Reading(_))
            | (Self::Numbers(_), _)
            | (Self::Opaque(_), Datum::Number(_)) => Err(Unsendable::Invalid),
        }
    }

    /// Bytes of the column's places, used or not.
    pub(crate) fn allocated(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.capacity() * size_of::<f64>(),
            Self::Opaque(values) => values.allocated(),
        }
    }

    pub(crate) fn values(&self) -> &dyn AnyValues {
        match self {
            Self::Numbers(numbers) => numbers,
            Self::Opaque(values) => values.as_values(),
        }
    }

    /// Adds all values of another column of the same Tab.
    #[cfg(any(test, feature = "driver"))]
    pub(crate) fn append(&mut self, other: Self) {
        match (self, other) {
            (Self::Numbers(mine), Self::Numbers(mut numbers)) => mine.append(&mut numbers),
            (Self::Opaque(mine), Self::Opaque(values)) => mine.append(values.into_any()),
            (Self::Numbers(_), Self::Opaque(_)) | (Self::Opaque(_), Self::Numbers(_)) => {
                unreachable!("the values of a tab have one type")
            }
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

/// Why a value cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// It is not valid, or of another type than its Tab's.
    Invalid,
    /// Encoded, it has more bytes than a reader takes.
    TooLong,
    /// It has no encoding, or its own code panicked.
    Unencodable(String),
}

/// A `Vec` of some opaque type.
pub(crate) trait Values: Send {
    fn push(&mut self, value: Box<dyn Any + Send>) -> Result<usize, Unsendable>;
    fn push_reading(&mut self, number: f64) -> Result<usize, Unsendable>;
    fn allocated(&self) -> usize;
    fn as_values(&self) -> &dyn AnyValues;
    fn encode(&self, range: Range<usize>, out: &mut Vec<u8>);
    fn forget(&mut self, count: usize);
    fn release(&mut self);
    #[cfg(any(test, feature = "driver"))]
    fn append(&mut self, other: Box<dyn Any>);
    #[cfg(any(test, feature = "driver"))]
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

impl<V: Value> Values for Vec<V> {
    fn push(&mut self, value: Box<dyn Any + Send>) -> Result<usize, Unsendable> {
        let value = *value.downcast::<V>().map_err(|_| Unsendable::Invalid)?;
        // The value's code is the application's.
        let measured = guarded(|| measure(&value));
        match measured {
            Ok(Ok(bytes)) => {
                Vec::push(self, value);
                Ok(bytes)
            }
            Ok(Err(why)) => Err(why),
            Err(panic) => Err(Unsendable::Unencodable(panic)),
        }
    }

    fn push_reading(&mut self, number: f64) -> Result<usize, Unsendable> {
        let readings = (self as &mut dyn Any).downcast_mut::<Vec<Reading>>().ok_or(Unsendable::Invalid)?;
        readings.push(Reading::Number(number));
        Ok(READING_BYTES)
    }

    fn allocated(&self) -> usize {
        self.capacity() * size_of::<V>()
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

    #[cfg(any(test, feature = "driver"))]
    fn append(&mut self, other: Box<dyn Any>) {
        Vec::append(self, &mut other.downcast::<Self>().expect("the values of a tab have one type"));
    }

    #[cfg(any(test, feature = "driver"))]
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Bytes that a value takes beside its own size, as well as can be known.
fn measure<V: Value>(value: &V) -> Result<usize, Unsendable> {
    if !value.is_valid() {
        return Err(Unsendable::Invalid);
    }
    if !value.is_encodable() {
        let what = format!("a value of type {} has no encoding", std::any::type_name::<V>());
        return Err(Unsendable::Unencodable(what));
    }
    // `heap_bytes` may be an underestimate, the encoded length is not; and a reader of the Block refuses a longer value.
    let mut encoded = Vec::with_capacity(64);
    V::encode_column(std::slice::from_ref(value), &mut encoded);
    if encoded.len() > VALUE_BYTES_MAX + COLUMN_BYTES {
        return Err(Unsendable::TooLong);
    }
    Ok(value.heap_bytes().max(encoded.len()))
}
