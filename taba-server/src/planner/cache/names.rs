//! [`Names`]: a number for each name, so that a State's key is 8 bytes and all States share the text.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Which State of a cache: the numbers of its Tab and of its Client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::planner) struct StateId {
    pub(super) tab: u32,
    pub(super) client: u32,
}

/// A table by [`StateId`].
pub(super) type ByState<T> = HashMap<StateId, T, BuildHasherDefault<StateIdHasher>>;

/// Numbers for names, from 0.
pub(super) struct Names<N> {
    numbers: HashMap<N, u32>,
    names: Vec<N>,
    /// Bytes of their text.
    text_bytes: usize,
}

impl<N> Default for Names<N> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), names: Vec::new(), text_bytes: 0 }
    }
}

impl<N: Clone + Eq + Hash + AsRef<str>> Names<N> {
    /// The number of a name that has one.
    pub(super) fn find(&self, name: &N) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number of a name.
    pub(super) fn number(&mut self, name: &N) -> u32 {
        if let Some(number) = self.find(name) {
            return number;
        }
        let number = u32::try_from(self.names.len()).expect("a cache is emptied long before it has so many");
        self.numbers.insert(name.clone(), number);
        self.names.push(name.clone());
        self.text_bytes += 2 * size_of::<usize>() + name.as_ref().len();
        number
    }

    /// The name with this number.
    pub(super) fn name(&self, number: u32) -> &N {
        &self.names[number as usize]
    }

    /// Bytes of memory that they take.
    pub(super) fn weight(&self) -> usize {
        table_bytes::<(N, u32)>(self.numbers.capacity())
            + self.names.capacity() * size_of::<N>()
            + self.text_bytes
    }
}

/// Bytes that a hash table of this capacity takes: it is full at seven eighths, and has a byte of its own for each place.
pub(super) const fn table_bytes<T>(capacity: usize) -> usize {
    capacity.div_ceil(7) * 8 * (size_of::<T>() + 1)
}

/// A hash of numbers that count up, which nobody outside can choose.
#[derive(Default)]
pub(super) struct StateIdHasher(u64);

impl Hasher for StateIdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = self.0.rotate_left(32) ^ u64::from(number);
    }

    fn finish(&self) -> u64 {
        // The upper bits of the product depend on all of the number; a table looks at the lower ones.
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26)
    }
}
