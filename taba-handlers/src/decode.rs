//! Decoding lists whose announced length nobody vouches for: memory grows with the elements that really come.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A list that is decoded with little more memory than its elements take.
///
/// serde sets aside up to 1 MiB for as many elements as a list announces, and each has at least a byte; a State of 400
/// bytes in memory that was announced in each of 1,000 bytes would take 400 KB before the first is there.
pub(crate) struct Announced<T>(pub(crate) Vec<T>);

/// Bytes that are set aside for each announced element, at most.
const ELEMENT_BYTES_MAX: usize = 32;

/// For how many elements to set memory aside, of those that are announced.
pub(crate) fn capacity<T>(announced: Option<usize>) -> usize {
    let announced = announced.unwrap_or(0).min(1 << 16);
    (announced * ELEMENT_BYTES_MAX).div_ceil(size_of::<T>().max(ELEMENT_BYTES_MAX))
}

/// Adds an element; a full list grows by a quarter.
pub(crate) fn push<T>(items: &mut Vec<T>, item: T) {
    let len = items.len();
    if len == items.capacity() {
        items.reserve_exact(len / 4 + 1);
    }
    items.push(item);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Announced<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AnnouncedVisitor(PhantomData))
    }
}

struct AnnouncedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AnnouncedVisitor<T> {
    type Value = Announced<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Announced<T>, A::Error> {
        let mut items = Vec::with_capacity(capacity::<T>(seq.size_hint()));
        while let Some(item) = seq.next_element()? {
            push(&mut items, item);
        }
        items.shrink_to_fit();
        Ok(Announced(items))
    }
}
