//! [`BucketCounts`]: how often each bucket of a sketch was hit.

use crate::heap::HeapBytes;

/// One count for each bucket; never 0. Four bytes are enough for nearly all.
#[derive(Clone, Debug)]
pub(super) enum BucketCounts {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Default for BucketCounts {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl PartialEq for BucketCounts {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl HeapBytes for BucketCounts {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Narrow(counts) => counts.capacity() * size_of::<u32>(),
            Self::Wide(counts) => counts.capacity() * size_of::<u64>(),
        }
    }
}

impl BucketCounts {
    pub(super) fn with_capacity(buckets: usize) -> Self {
        Self::Narrow(Vec::with_capacity(buckets))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let (narrow, wide): (&[u32], &[u64]) = match self {
            Self::Narrow(counts) => (counts, &[]),
            Self::Wide(counts) => (&[], counts),
        };
        narrow.iter().map(|&count| u64::from(count)).chain(wide.iter().copied())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(counts) => counts.len(),
            Self::Wide(counts) => counts.len(),
        }
    }

    pub(super) fn get(&self, place: usize) -> u64 {
        match self {
            Self::Narrow(counts) => u64::from(counts[place]),
            Self::Wide(counts) => counts[place],
        }
    }

    #[inline]
    pub(super) fn add(&mut self, place: usize, more: u64) {
        if let Self::Narrow(counts) = self {
            let sum = u64::from(counts[place]).saturating_add(more);
            if let Ok(sum) = u32::try_from(sum) {
                counts[place] = sum;
                return;
            }
        }
        let counts = self.widen();
        counts[place] = counts[place].saturating_add(more);
    }

    pub(super) fn insert(&mut self, place: usize, count: u64) {
        match (self, u32::try_from(count)) {
            (Self::Narrow(counts), Ok(count)) => counts.insert(place, count),
            (counts, _) => counts.widen().insert(place, count),
        }
    }

    pub(super) fn grow(&mut self) {
        match self {
            Self::Narrow(counts) => grow(counts),
            Self::Wide(counts) => grow(counts),
        }
    }

    #[cold]
    fn widen(&mut self) -> &mut Vec<u64> {
        if let Self::Narrow(counts) = self {
            let mut wide = Vec::with_capacity(counts.capacity());
            wide.extend(counts.iter().map(|&count| u64::from(count)));
            *self = Self::Wide(wide);
        }
        match self {
            Self::Wide(counts) => counts,
            Self::Narrow(_) => unreachable!("it was widened on the line above"),
        }
    }
}

/// Makes room for one more, and an eighth: hundreds of thousands of States are held at once.
pub(super) fn grow<T>(items: &mut Vec<T>) {
    let len = items.len();
    if len == items.capacity() {
        items.reserve_exact(if len == 0 { 1 } else { (len / 8).max(3) });
    }
}
