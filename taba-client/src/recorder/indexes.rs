//! [`ClientIndexes`]: which index a Client has in the table of each thread.

use std::sync::Mutex;

use crate::lock::lock;

/// Which indexes are taken. There are as many as Clients live at the same time.
struct ClientIndexes {
    next_number: u64,
    free: Vec<usize>,
    taken: usize,
}

static INDEXES: Mutex<ClientIndexes> =
    Mutex::new(ClientIndexes { next_number: 0, free: Vec::new(), taken: 0 });

/// The number of a new Client, which no other ever has, and its index, which no other has at the same time.
pub(super) fn take() -> (u64, usize) {
    let Some(mut indexes) = lock(&INDEXES) else { return (0, 0) };
    indexes.next_number += 1;
    // Every index up to `taken + free` has been given out once.
    let index = indexes.free.pop().unwrap_or(indexes.taken);
    indexes.taken += 1;
    (indexes.next_number, index)
}

/// The index is free again.
pub(super) fn give_back(index: usize) {
    if let Some(mut indexes) = lock(&INDEXES) {
        indexes.taken -= 1;
        indexes.free.push(index);
    }
}
