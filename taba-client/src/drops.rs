//! [`Drops`]: how many events were dropped, by reason.

use std::fmt;

use taba_core::ledger::Why;

const PLACES: usize = Why::ALL.len() + 1;

/// How many events were dropped, by reason.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops([u64; PLACES]);

impl Drops {
    /// Events dropped for this reason.
    pub const fn get(&self, why: Why) -> u64 {
        self.0[why as usize]
    }

    /// Events dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons for which there were any.
    pub fn iter(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        Why::ALL.into_iter().map(|why| (why, self.get(why))).filter(|(_, events)| *events > 0)
    }

    pub(crate) fn add(&mut self, why: Why, events: u64) {
        self.0[why as usize] += events;
    }

    /// What is in these but not in `earlier`, which must have been these at some time.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|place| self.0[place] - earlier.0[place]))
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(why, events)| (why.as_str(), events))).finish()
    }
}
