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

use std::collections::BTreeMap;

use taba_core::StoreId;

/// The store that is delivered to. Cost: one pass over the Servers for each answer.
#[derive(Clone, Debug)]
pub struct StoreChoice {
    chosen: Option<StoreId>,
    /// What each Server said last, by its URL.
    met: BTreeMap<String, ReportedStore>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReportedStore {
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
    /// No Server has said anything; `chosen` is what an earlier run, or the setting, says.
    pub const fn new(chosen: Option<StoreId>) -> Self {
        Self { chosen, met: BTreeMap::new() }
    }

    /// Forgets what other Servers said than these.
    pub fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.met.retain(|server, _| is_kept(server));
    }

    /// The store that is delivered to.
    pub fn chosen(&self) -> Option<StoreId> {
        self.chosen
    }

    /// Whether a Server may be sent to without asking it again.
    pub fn may_send(&self, server: &str) -> bool {
        match self.met.get(server) {
            None => false,
            Some(ReportedStore::Silent) => true,
            Some(ReportedStore::Store(theirs)) => self.is_chosen(*theirs),
        }
    }

    /// A Server reported its store, or that it has no name for it.
    #[must_use = "what is not written down is not chosen"]
    pub fn meet(&mut self, server: &str, theirs: Option<StoreId>) -> StoreMatch {
        let said = theirs.map_or(ReportedStore::Silent, ReportedStore::Store);
        self.met.insert(server.to_owned(), said);
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

    /// Servers that have another store: their URLs, and what they have.
    pub fn others(&self) -> impl Iterator<Item = (&str, StoreId)> {
        self.met.iter().filter_map(|(server, met)| match met {
            ReportedStore::Store(theirs) if self.chosen.is_some() && !self.is_chosen(*theirs) => {
                Some((server.as_str(), *theirs))
            }
            ReportedStore::Store(_) | ReportedStore::Silent => None,
        })
    }

    fn is_chosen(&self, theirs: StoreId) -> bool {
        self.chosen.is_some_and(|chosen| chosen.number == theirs.number)
    }

    fn is_met(&self, store: StoreId) -> bool {
        self.met
            .values()
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
        StoreChoice::new(Some(chosen))
    }

    #[test]
    fn the_first_store_that_is_met_is_chosen_and_stays() {
        let mut choice = StoreChoice::new(None);
        assert!(!choice.may_send("a"), "nobody has said anything");
        assert_eq!(choice.meet("a", Some(A)), StoreMatch::Choose(A));
        assert!(!choice.may_send("a"), "it is not written down");
        choice.choose(A);
        assert!(choice.may_send("a"));
        assert_eq!(choice.meet("b", Some(B)), StoreMatch::Other { chosen: A, theirs: B });
        assert_eq!((choice.may_send("b"), choice.others().collect()), (false, vec![("b", B)]));
        // It is put right.
        assert_eq!(choice.meet("b", Some(A)), StoreMatch::Fits);
        assert_eq!((choice.may_send("b"), choice.others().count()), (true, 0));
        // The other one is replaced while this runs.
        assert_eq!(choice.meet("a", Some(B)), StoreMatch::Other { chosen: A, theirs: B });
        assert!(!choice.may_send("a"));
    }

    #[test]
    fn a_store_that_ends_with_its_process_may_be_another_one_each_time() {
        let mut choice = chosen(M);
        assert_eq!(choice.meet("a", Some(N)), StoreMatch::Choose(N));
        choice.choose(N);
        assert_eq!(choice.meet("b", Some(M)), StoreMatch::Other { chosen: N, theirs: M }, "two at one time");
        for (kept, met) in [(A, M), (M, A)] {
            assert_eq!(chosen(kept).meet("a", Some(met)), StoreMatch::Other { chosen: kept, theirs: met });
        }
    }

    #[test]
    fn who_does_not_say_is_not_compared() {
        let mut choice = chosen(A);
        assert_eq!(choice.meet("a", None), StoreMatch::Fits);
        assert_eq!((choice.may_send("a"), choice.may_send("b"), choice.chosen()), (true, false, Some(A)));
    }
}
