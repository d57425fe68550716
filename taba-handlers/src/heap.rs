//! [`HeapBytes`]: what a State takes beside its own size, so that whoever holds many can add them up.

/// What a value takes on the heap, capacity that is not in use included.
///
/// A State takes `size_of::<S>() + state.heap_bytes()` bytes of memory, not counting what the allocator adds.
pub trait HeapBytes {
    /// Bytes on the heap that this value owns.
    fn heap_bytes(&self) -> usize;
}

macro_rules! tuple {
    ($($name:ident $place:tt),+) => {
        impl<$($name: HeapBytes),+> HeapBytes for ($($name,)+) {
            fn heap_bytes(&self) -> usize {
                0 $(+ self.$place.heap_bytes())+
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
