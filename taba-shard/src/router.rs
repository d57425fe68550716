//! [`Routed`]: items for many shards → bounded requests, one shard each → the answers, in the order of the items.
//! Pure.

use std::collections::BTreeMap;

use crate::limits::{REQUEST_BYTES_MAX, REQUEST_COMMANDS_MAX};
use crate::map::ShardId;

/// One request to one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRequest<T> {
    /// The receiver.
    pub shard: ShardId,
    /// Its items, in their original order.
    pub items: Vec<T>,
    /// The index of each item in the original order.
    places: Vec<usize>,
}

/// Collects the answers of routed requests.
#[derive(Debug)]
pub struct Routed<A> {
    answers: Vec<Option<A>>,
}

/// The maximum size of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestBounds {
    /// Items, at least 1.
    pub items_max: usize,
    /// Bytes; a larger single item gets a request of its own.
    pub bytes_max: usize,
}

impl Default for RequestBounds {
    fn default() -> Self {
        Self { items_max: REQUEST_COMMANDS_MAX, bytes_max: REQUEST_BYTES_MAX }
    }
}

/// Groups items by shard, and splits each group into requests within the bounds.
///
/// The requests of one shard are in the order of the items: a caller that sends them one after another keeps that
/// order.
pub fn route<T, A>(
    items: impl IntoIterator<Item = (ShardId, usize, T)>,
    bounds: RequestBounds,
) -> (Vec<ShardRequest<T>>, Routed<A>) {
    let mut by_shard: BTreeMap<ShardId, Vec<(ShardRequest<T>, usize)>> = BTreeMap::new();
    let mut count = 0;
    for (place, (shard, bytes, item)) in items.into_iter().enumerate() {
        count += 1;
        let requests = by_shard.entry(shard).or_default();
        let fits = requests.last().is_some_and(|(request, held)| {
            request.items.len() < bounds.items_max && held.saturating_add(bytes) <= bounds.bytes_max
        });
        if !fits {
            requests.push((ShardRequest { shard, items: Vec::new(), places: Vec::new() }, 0));
        }
        let (request, held) = requests.last_mut().expect("one was pushed if there was none");
        request.items.push(item);
        request.places.push(place);
        *held = held.saturating_add(bytes);
    }
    let requests = by_shard.into_values().flatten().map(|(request, _)| request).collect();
    (requests, Routed { answers: std::iter::repeat_with(|| None).take(count).collect() })
}

impl<T> ShardRequest<T> {
    /// The index of each item in the original order, for [`Routed::put`].
    pub fn places(&self) -> &[usize] {
        &self.places
    }
}

impl<A> Routed<A> {
    /// Takes the answers of one request, in its order.
    ///
    /// # Panics
    /// When the number of answers is not that of the places, or a place is answered twice.
    pub fn put(&mut self, places: &[usize], answers: impl IntoIterator<Item = A>) {
        let mut answers = answers.into_iter();
        for place in places {
            let answer = answers.next().expect("one answer for each item");
            assert!(self.answers[*place].replace(answer).is_none(), "an item is answered once");
        }
        assert!(answers.next().is_none(), "one answer for each item");
    }

    /// All answers, in the order of the items.
    ///
    /// # Panics
    /// When a request was not answered.
    pub fn finish(self) -> Vec<A> {
        self.answers.into_iter().map(|answer| answer.expect("each request is answered")).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_filled_before_another_begins() {
        let sizes = |bytes: &[usize], items_max, bytes_max| {
            let items = bytes.iter().map(|bytes| (ShardId(3), *bytes, ()));
            let (requests, _) = route::<_, ()>(items, RequestBounds { items_max, bytes_max });
            requests.iter().map(|request| request.items.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[1; 7], 3, 100), [3, 3, 1]);
        assert_eq!(sizes(&[1; 7], 100, 4), [4, 3]);
        assert_eq!(sizes(&[9, 1, 1], 100, 4), [1, 2]);
    }

    proptest! {
        #[test]
        fn every_thing_is_sent_once_within_bounds_and_answered_in_its_place(
            items in prop::collection::vec((0_u16..5, 0_usize..30), 0..80),
            items_max in 1_usize..10, bytes_max in 0_usize..60,
            shuffle in any::<prop::sample::Index>(),
        ) {
            let things = items.iter().enumerate().map(|(n, (shard, bytes))| (ShardId(*shard), *bytes, n));
            let (mut requests, mut routed) = route(things, RequestBounds { items_max, bytes_max });
            for request in &requests {
                prop_assert!(!request.items.is_empty() && request.items.len() <= items_max);
                let bytes: usize = request.items.iter().map(|n| items[*n].1).sum();
                prop_assert!(bytes <= bytes_max || request.items.len() == 1);
                prop_assert!(request.items.iter().all(|n| items[*n].0 == request.shard.0));
                prop_assert_eq!(&request.items, request.places());
            }
            for shard in 0..5 {
                let sent = requests.iter().filter(|request| request.shard == ShardId(shard));
                let sent: Vec<_> = sent.flat_map(|request| request.items.clone()).collect();
                let given: Vec<_> = (0..items.len()).filter(|n| items[*n].0 == shard).collect();
                prop_assert_eq!(sent, given, "the order of one shard's things is kept");
            }
            if !requests.is_empty() {
                let middle = shuffle.index(requests.len());
                requests.rotate_left(middle);
            }
            for request in &requests {
                routed.put(request.places(), request.items.iter().map(|n| n * 10));
            }
            prop_assert_eq!(routed.finish(), (0..items.len()).map(|n| n * 10).collect::<Vec<_>>());
        }
    }

    #[test]
    #[should_panic(expected = "each request is answered")]
    fn a_forgotten_request_is_noticed() {
        let (_, routed) = route::<_, u8>([(ShardId(0), 1, "a")], RequestBounds::default());
        routed.finish();
    }
}
