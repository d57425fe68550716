//! [`Places`]: which place a Client has in the table of each thread.

use std::sync::Mutex;

use crate::lock::lock;

/// Which places are taken. There are as many as Clients live at the same time.
struct Places {
    next_number: u64,
    free: Vec<usize>,
    taken: usize,
}

static PLACES: Mutex<Places> = Mutex::new(Places { next_number: 0, free: Vec::new(), taken: 0 });

/// The number of a new Client, which no other ever has, and its place, which no other has at the same time.
pub(super) fn take() -> (u64, usize) {
    let Some(mut places) = lock(&PLACES) else { return (0, 0) };
    places.next_number += 1;
    // Every place up to `taken + free` has been given out once.
    let place = places.free.pop().unwrap_or(places.taken);
    places.taken += 1;
    (places.next_number, place)
}

/// The place is free again.
pub(super) fn give_back(place: usize) {
    if let Some(mut places) = lock(&PLACES) {
        places.taken -= 1;
        places.free.push(place);
    }
}
