//! [`StoreChoice`]: the store that an Agent delivers to, and Servers with another one.
//!
//! The content of a Spool is for one store: sent to another one, it would be missing in the first and wrong in the
//! second. So one store is chosen, and nothing is sent to Servers of others.
//!
//! - If none is chosen and the Spool is empty or new, the first store met is chosen.
//! - A choice stays until the setting `store-id` changes it.
//! - A store that ends with its process ([`StoreId::is_durable`]) gets a new number at each start. If a chosen one of
//!   these is gone from all Servers, another one of these replaces it.
//! - A Server that does not name its store is not compared.

use taba_core::StoreId;

/// The store that is delivered to. Cost: one pass over the Servers for each answer.
#[derive(Clone, Debug)]
pub struct StoreChoice {
    chosen: Option<StoreId>,
    /// The last report of each Server.
    met: Vec<ReportedStore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportedStore {
    NotYet,
    Silent,
    Store(StoreId),
}

/// The consequence of a Server's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMatch {
    /// Requests may be sent to it.
    Fits,
    /// Its store must be [chosen](StoreChoice::choose), after it was recorded for the next run.
    Choose(StoreId),
    /// It has another store than the chosen one: nothing is sent to it.
    Other {
        /// The chosen store.
        chosen: StoreId,
        /// Its store.
        theirs: StoreId,
    },
}

impl StoreChoice {
    /// For this many Servers; `chosen` is from the setting or an earlier run.
    pub fn new(servers: usize, chosen: Option<StoreId>) -> Self {
        Self { chosen, met: vec![ReportedStore::NotYet; servers] }
    }

    /// The store that is delivered to.
    pub fn chosen(&self) -> Option<StoreId> {
        self.chosen
    }

    /// Whether requests may be sent to a Server without asking it again.
    pub fn may_send(&self, server: usize) -> bool {
        match self.met[server] {
            ReportedStore::NotYet => false,
            ReportedStore::Silent => true,
            ReportedStore::Store(theirs) => self.is_chosen(theirs),
        }
    }

    /// A Server reported its store, or that it has no name for it.
    #[must_use = "what is not written down is not chosen"]
    pub fn meet(&mut self, server: usize, theirs: Option<StoreId>) -> StoreMatch {
        self.met[server] = theirs.map_or(ReportedStore::Silent, ReportedStore::Store);
        let Some(theirs) = theirs else { return StoreMatch::Fits };
        match self.chosen {
            None => StoreMatch::Choose(theirs),
            Some(_) if self.is_chosen(theirs) => StoreMatch::Fits,
            Some(chosen) if chosen.is_durable || theirs.is_durable || self.is_met(chosen) => {
                StoreMatch::Other { chosen, theirs }
            }
            Some(_) => StoreMatch::Choose(theirs),
        }
    }

    /// Delivers to this store from now on.
    pub fn choose(&mut self, store: StoreId) {
        self.chosen = Some(store);
    }

    /// The indices of Servers with another store, and that store.
    pub fn others(&self) -> impl Iterator<Item = (usize, StoreId)> {
        self.met.iter().enumerate().filter_map(|(server, met)| match met {
            ReportedStore::Store(theirs) if self.chosen.is_some() && !self.is_chosen(*theirs) => {
                Some((server, *theirs))
            }
            ReportedStore::Store(_) | ReportedStore::NotYet | ReportedStore::Silent => None,
        })
    }

    fn is_chosen(&self, theirs: StoreId) -> bool {
        self.chosen.is_some_and(|chosen| chosen.number == theirs.number)
    }

    fn is_met(&self, store: StoreId) -> bool {
        self.met
            .iter()
            .any(|met| matches!(met, ReportedStore::Store(theirs) if theirs.number == store.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StoreId = StoreId { number: 1, is_durable: true };
    const B: StoreId = StoreId { number: 2, is_durable: true };
    const M: StoreId = StoreId { number: 3, is_durable: false };
    const N: StoreId = StoreId { number: 4, is_durable: false };

    fn chosen(chosen: StoreId) -> StoreChoice {
        StoreChoice::new(2, Some(chosen))
    }

    #[test]
    fn the_first_store_that_is_met_is_chosen_and_stays() {
        let mut choice = StoreChoice::new(2, None);
        assert!(!choice.may_send(0), "nobody has said anything");
        assert_eq!(choice.meet(0, Some(A)), StoreMatch::Choose(A));
        assert!(!choice.may_send(0), "it is not written down");
        choice.choose(A);
        assert!(choice.may_send(0));
        assert_eq!(choice.meet(1, Some(B)), StoreMatch::Other { chosen: A, theirs: B });
        assert_eq!((choice.may_send(1), choice.others().collect()), (false, vec![(1, B)]));
        // It is corrected.
        assert_eq!(choice.meet(1, Some(A)), StoreMatch::Fits);
        assert_eq!((choice.may_send(1), choice.others().count()), (true, 0));
        // The other one is replaced meanwhile.
        assert_eq!(choice.meet(0, Some(B)), StoreMatch::Other { chosen: A, theirs: B });
        assert!(!choice.may_send(0));
    }

    #[test]
    fn a_store_that_ends_with_its_process_may_be_another_one_each_time() {
        let mut choice = chosen(M);
        assert_eq!(choice.meet(0, Some(N)), StoreMatch::Choose(N));
        choice.choose(N);
        assert_eq!(choice.meet(1, Some(M)), StoreMatch::Other { chosen: N, theirs: M }, "two at one time");
        for (kept, met) in [(A, M), (M, A)] {
            assert_eq!(chosen(kept).meet(0, Some(met)), StoreMatch::Other { chosen: kept, theirs: met });
        }
    }

    #[test]
    fn who_does_not_say_is_not_compared() {
        let mut choice = chosen(A);
        assert_eq!(choice.meet(0, None), StoreMatch::Fits);
        assert_eq!((choice.may_send(0), choice.may_send(1), choice.chosen()), (true, false, Some(A)));
    }
}
