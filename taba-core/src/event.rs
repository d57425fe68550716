//! [`Event`]: one observation of one Tab by one Client; [`Events`]: many of them, as two columns.

use crate::time::Timestamp;

/// One observation: when, and what. Which Tab and which Client is said by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<V> {
    /// When it happened.
    pub time: Timestamp,
    /// What was observed.
    pub value: V,
}

impl<V> Event<V> {
    /// An event at `time`.
    pub const fn new(time: Timestamp, value: V) -> Self {
        Self { time, value }
    }

    /// The same event, its value borrowed.
    pub const fn as_ref(&self) -> Event<&V> {
        Event { time: self.time, value: &self.value }
    }
}

/// Many events of one (Client, Tab), as two columns of equal length. The order is that of recording, which need not
/// be that of time.
#[derive(Debug)]
pub struct Events<'a, V> {
    times: &'a [Timestamp],
    values: &'a [V],
}

impl<V> Clone for Events<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Events<'_, V> {}

impl<'a, V> Events<'a, V> {
    /// Puts two columns side by side.
    ///
    /// # Panics
    /// When the columns differ in length: that is a bug of the caller.
    pub fn new(times: &'a [Timestamp], values: &'a [V]) -> Self {
        assert_eq!(times.len(), values.len(), "an event has one time and one value");
        Self { times, values }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The column of times.
    pub fn times(&self) -> &'a [Timestamp] {
        self.times
    }

    /// The column of values.
    pub fn values(&self) -> &'a [V] {
        self.values
    }

    /// Events `from..to`, counted from zero, the end excluded.
    ///
    /// # Panics
    /// When the range is not within `0..self.len()`.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        Self { times: &self.times[range.clone()], values: &self.values[range] }
    }

    /// One event after the other.
    pub fn iter(&self) -> impl Iterator<Item = Event<&'a V>> + use<'a, V> {
        self.times.iter().zip(self.values).map(|(&time, value)| Event { time, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_events_says_how_many_there_are() {
        let (times, values) = ([Timestamp::from_secs(1); 2], [1.0, 2.0]);
        let events = Events::new(&times, &values);
        assert_eq!((events.len(), events.is_empty()), (2, false));
        assert_eq!((events.slice(1..1).len(), events.slice(1..1).is_empty()), (0, true));
    }
}
