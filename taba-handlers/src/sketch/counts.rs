//! [`BucketCounts`]: how often each bucket of a sketch was hit.

use crate::heap::HeapBytes;

/// One count for each bucket; never 0. As wide as the largest count needs: hundreds of thousands of States are held at once.
#[derive(Clone, Debug)]
pub(super) enum BucketCounts {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

/// The same expression for each width.
macro_rules! each {
    ($of:expr, $counts:ident => $then:expr) => {
        match $of {
            BucketCounts::U8($counts) => $then,
            BucketCounts::U16($counts) => $then,
            BucketCounts::U32($counts) => $then,
            BucketCounts::U64($counts) => $then,
        }
    };
}

impl Default for BucketCounts {
    fn default() -> Self {
        Self::U8(Vec::new())
    }
}

impl PartialEq for BucketCounts {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && (0..self.len()).all(|place| self.get(place) == other.get(place))
    }
}

impl HeapBytes for BucketCounts {
    fn heap_bytes(&self) -> usize {
        fn bytes<T>(counts: &Vec<T>) -> usize {
            counts.capacity() * size_of::<T>()
        }
        each!(self, counts => bytes(counts))
    }
}

impl BucketCounts {
    pub(super) fn with_capacity(buckets: usize) -> Self {
        Self::U8(Vec::with_capacity(buckets))
    }

    pub(super) fn len(&self) -> usize {
        each!(self, counts => counts.len())
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> u64 {
        each!(self, counts => wide(counts[place]))
    }

    #[inline]
    pub(super) fn add(&mut self, place: usize, more: u64) {
        each!(self, counts => {
            let count = &mut counts[place];
            if let Some(sum) = narrow(wide(*count).saturating_add(more)) {
                *count = sum;
                return;
            }
        });
        self.widen();
        self.add(place, more);
    }

    /// Adds 1 at each place until one needs more width, and says at how many it did.
    #[inline]
    pub(super) fn add_one_at_each(&mut self, places: impl Iterator<Item = usize>) -> usize {
        let mut added = 0;
        each!(self, counts => for place in places {
            let count = &mut counts[place];
            let Some(sum) = narrow(wide(*count).saturating_add(1)) else { break };
            *count = sum;
            added += 1;
        });
        added
    }

    /// Puts a count before the one at `place`.
    pub(super) fn insert(&mut self, place: usize, count: u64) {
        each!(self, counts => match narrow(count) {
            Some(count) => {
                grow(counts);
                counts.insert(place, count);
            }
            None => {
                self.widen();
                self.insert(place, count);
            }
        });
    }

    /// The same counts, each twice as wide.
    #[cold]
    fn widen(&mut self) {
        fn wider<T: Copy, U: From<T>>(counts: &Vec<T>) -> Vec<U> {
            let mut wide = Vec::with_capacity(counts.capacity());
            wide.extend(counts.iter().map(|&count| U::from(count)));
            wide
        }
        *self = match self {
            Self::U8(counts) => Self::U16(wider(counts)),
            Self::U16(counts) => Self::U32(wider(counts)),
            Self::U32(counts) => Self::U64(wider(counts)),
            Self::U64(_) => unreachable!("every count fits 64 bits"),
        };
    }
}

fn wide(count: impl Into<u64>) -> u64 {
    count.into()
}

fn narrow<T: TryFrom<u64>>(count: u64) -> Option<T> {
    count.try_into().ok()
}

/// Makes room for one more, and an eighth: hundreds of thousands of States are held at once.
pub(super) fn grow<T>(items: &mut Vec<T>) {
    let len = items.len();
    if len == items.capacity() {
        items.reserve_exact(if len == 0 { 1 } else { (len / 8).max(3) });
    }
}
