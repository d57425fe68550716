//! [`JsonEvents`]: events whose values come as JSON, kept as what their Handler folds.

use crate::event::Events;
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, VALUE_BYTES_MAX};
use crate::name::{ClientId, TabName, TabType};
use crate::time::Timestamp;
use crate::wire::{Block, Value};

/// What a column of one value takes beside the value: a width, and its length in two bytes.
const COLUMN_BYTES: usize = 3;
/// Bytes of one event beside its value, at most.
const TIME_BYTES: usize = 8;
/// Bytes of values and times that one Block is filled with; the rest of [`BLOCK_BYTES_MAX`] is for its names.
const FILL_BYTES_MAX: usize = BLOCK_BYTES_MAX / 2;

/// Why a value was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonValueError {
    /// It is JSON of another shape than the values of this Tab type have.
    #[error("the value is not what this tab type takes: {0}")]
    Shape(#[from] serde_json::Error),
    /// [`Value::is_valid`] or [`Value::is_encodable`] says no.
    #[error("the value is out of the range of this tab type")]
    Invalid,
    /// Its encoding is longer than an encoded value may be ([`VALUE_BYTES_MAX`]).
    #[error("the value takes {bytes} bytes, over the bound of {VALUE_BYTES_MAX}")]
    TooLong {
        /// How long the encoding is.
        bytes: usize,
    },
}

/// Events of one (Client, Tab) in the making, their values given as JSON; the Rust type of the values is forgotten.
pub trait JsonEvents: Send {
    /// Adds an event.
    ///
    /// # Errors
    /// [`JsonValueError`]; then nothing was added.
    fn push(&mut self, time: Timestamp, value: &serde_json::Value) -> Result<(), JsonValueError>;
    /// Makes Blocks of the events, in their order: none of no events, more than one where they do not fit into one.
    fn into_blocks(self: Box<Self>, tab: &TabName, client: &ClientId, tab_type: &TabType) -> Vec<Block>;
}

/// No events yet, of a Tab whose values are of type `V`.
pub fn json_events<V: Value>() -> Box<dyn JsonEvents> {
    Box::new(Typed::<V> { times: Vec::new(), values: Vec::new(), cuts: Vec::new(), filled: 0 })
}

struct Typed<V> {
    times: Vec<Timestamp>,
    values: Vec<V>,
    /// Where a Block ends and the next begins.
    cuts: Vec<usize>,
    /// Bytes of the last Block's events, at most.
    filled: usize,
}

impl<V: Value> JsonEvents for Typed<V> {
    fn push(&mut self, time: Timestamp, value: &serde_json::Value) -> Result<(), JsonValueError> {
        let value = V::from_json(value)?;
        if !value.is_valid() || !value.is_encodable() {
            return Err(JsonValueError::Invalid);
        }
        let mut encoded = Vec::with_capacity(64);
        V::encode_column(std::slice::from_ref(&value), &mut encoded);
        if encoded.len() > VALUE_BYTES_MAX + COLUMN_BYTES {
            return Err(JsonValueError::TooLong { bytes: encoded.len() - COLUMN_BYTES });
        }
        let bytes = encoded.len() + TIME_BYTES;
        let since_cut = self.times.len() - self.cuts.last().copied().unwrap_or_default();
        if self.filled + bytes > FILL_BYTES_MAX || since_cut == BLOCK_EVENTS_MAX {
            self.cuts.push(self.times.len());
            self.filled = 0;
        }
        self.filled += bytes;
        self.times.push(time);
        self.values.push(value);
        Ok(())
    }

    fn into_blocks(mut self: Box<Self>, tab: &TabName, client: &ClientId, tab_type: &TabType) -> Vec<Block> {
        self.cuts.push(self.times.len());
        let events = Events::new(&self.times, &self.values);
        let mut from = 0;
        let block = |to: usize| {
            let part = events.slice(std::mem::replace(&mut from, to)..to);
            Block::of_events(tab.clone(), client.clone(), tab_type.clone(), part)
        };
        self.cuts.iter().copied().filter_map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reading::{Expiring, Keyed, Reading};
    use crate::wire::{BadBlock, ClientBatch, Content, Reader, column};
    use crate::{SeqNo, Timestamp};

    fn blocks(events: Box<dyn JsonEvents>) -> Vec<Block> {
        let (tab, client) = (TabName::new("a").unwrap(), ClientId::new("c").unwrap());
        events.into_blocks(&tab, &client, &TabType::new("T").unwrap())
    }

    fn values<V: Value>(block: &Block) -> Vec<V> {
        let Content::Events(bytes) = &block.content else { panic!("{block:?}") };
        let mut reader = Reader::new(bytes);
        column::times(&mut reader, block.events as usize).unwrap();
        V::decode_column(&mut reader, block.events as usize).unwrap()
    }

    fn one<V: Value>(value: &serde_json::Value) -> V {
        let mut events = json_events::<V>();
        events.push(Timestamp::from_secs(1), value).unwrap();
        values(&blocks(events)[0]).remove(0)
    }

    #[test]
    fn each_standard_value_has_a_plain_form() {
        assert_eq!(one::<f64>(&json!(3)), 3.0);
        assert_eq!(one::<String>(&json!("x")), "x");
        assert_eq!(one::<Reading>(&json!(1.5)), Reading::Number(1.5));
        assert_eq!(one::<Reading>(&json!("up")), Reading::Text("up".into()));
        assert_eq!(one::<Keyed>(&json!({"key": "a", "value": 2})), Keyed { key: "a".into(), value: 2.0 });
        let expiring = Expiring { expires: Timestamp::from_micros(7_500_000), reading: Reading::Number(1.0) };
        assert_eq!(one::<Expiring>(&json!({"expires": 7.5, "reading": 1})), expiring);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing() {
        let refused = |mut events: Box<dyn JsonEvents>, value| {
            let error = events.push(Timestamp::default(), &value).unwrap_err();
            assert!(blocks(events).is_empty(), "{error}");
            error
        };
        for value in [json!("1"), json!(null), json!(true), json!([1]), json!({})] {
            assert!(matches!(refused(json_events::<f64>(), value), JsonValueError::Shape(_)));
        }
        let long = || json!("x".repeat(VALUE_BYTES_MAX + 1));
        assert!(matches!(refused(json_events::<String>(), long()), JsonValueError::Invalid));
        assert!(matches!(refused(json_events::<Reading>(), long()), JsonValueError::Invalid));
        assert!(matches!(
            refused(json_events::<Keyed>(), json!({"key": "", "value": 1})),
            JsonValueError::Invalid
        ));
    }

    #[test]
    fn many_events_become_blocks_that_every_receiver_takes() {
        let mut long = json_events::<String>();
        (0..400).for_each(|_| long.push(Timestamp::default(), &json!("x".repeat(4000))).unwrap());
        let mut many = json_events::<f64>();
        (0..BLOCK_EVENTS_MAX + 1).for_each(|n| many.push(Timestamp::from_secs(n as i64), &json!(n)).unwrap());
        for (events, count) in [(long, 400), (many, BLOCK_EVENTS_MAX as u64 + 1)] {
            let blocks = blocks(events);
            assert!(blocks.len() > 1);
            assert_eq!(blocks.iter().map(|block| block.events).sum::<u64>(), count);
            let (client, sent_at) = (ClientId::new("c").unwrap(), Timestamp::default());
            let batch = ClientBatch { client, incarnation: 1, seq: SeqNo(1), sent_at, blocks };
            let (read, bad) = ClientBatch::decode(&batch.encode().into()).unwrap();
            assert_eq!((read, bad), (batch, Vec::<BadBlock>::new()));
        }
    }
}
