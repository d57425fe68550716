//! [`SpreadRules`]: which Tabs are split over several VBuckets by Client.
//!
//! A Tab that every Client of a large fleet writes pins one VBucket, and so one Redis. With a [`Spread`] of n, its States lie in
//! up to n VBuckets, by a hash of their Client. Where exactly follows from the names ([`VBuckets::place`](crate::VBuckets::place)),
//! so rules are needed by two only: Agents, to know how wide to spread, and queries, to know how wide a Tab was *ever* spread.
//! Hence two numbers in each rule; the second never falls.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::TabName;

/// Over how many VBuckets a Tab is split: a power of two from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Spread(u16);

/// A spread was not a power of two from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a spread of {spread}: it must be a power of two from 1 to {}", Spread::MAX)]
#[non_exhaustive]
pub struct SpreadError {
    /// What was asked for.
    pub spread: u32,
}

impl Spread {
    /// All in one VBucket, as long as nobody says otherwise.
    pub const ONE: Self = Self(1);
    /// The widest. A deployment has 64 VBuckets at least.
    pub const MAX: Self = Self(64);

    /// A spread over this many VBuckets.
    ///
    /// # Errors
    /// [`SpreadError`] when it is not a power of two from 1 to 64.
    pub const fn new(spread: u32) -> Result<Self, SpreadError> {
        if spread.is_power_of_two() && spread <= Self::MAX.0 as u32 {
            Ok(Self(spread as u16))
        } else {
            Err(SpreadError { spread })
        }
    }

    /// The number of VBuckets.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Every spread there is, from 1 on.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MAX.0.trailing_zeros()).map(|bits| Self(1 << bits))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u32> for Spread {
    type Error = SpreadError;

    fn try_from(spread: u32) -> Result<Self, SpreadError> {
        Self::new(spread)
    }
}

impl From<Spread> for u32 {
    fn from(spread: Spread) -> Self {
        Self::from(spread.0)
    }
}

/// The Tabs of a rule. Never those of the Ledger, which lie by Client anyway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SpreadTabs {
    /// The Tab with this whole name.
    Name(TabName),
    /// Tabs whose names begin so; the empty text: all.
    Prefix(String),
}

impl SpreadTabs {
    fn has(&self, tab: &TabName) -> bool {
        match self {
            Self::Name(name) => name == tab,
            Self::Prefix(prefix) => tab.as_str().starts_with(prefix.as_str()),
        }
    }
}

impl fmt::Display for SpreadTabs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}…"),
        }
    }
}

/// How wide some Tabs are spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SpreadRule {
    /// Which Tabs.
    #[serde(flatten)]
    pub tabs: SpreadTabs,
    /// How wide Agents spread them.
    pub spread: Spread,
    /// How wide they may ever have been spread: where queries look.
    pub widest: Spread,
    /// The number of the change that set [`spread`](Self::spread): of two rules for the same Tabs the higher is the newer.
    pub change: u64,
}

/// There are as many rules as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are {} rules of spread already, and rules stay, because queries need them; use one for a prefix",
    SpreadRules::MAX
)]
#[non_exhaustive]
pub struct TooManySpreadRules;

/// Which Tabs are spread, and how wide. Of several rules for one Tab the widest counts.
///
/// As JSON, stores keep them and Servers tell them to Agents; fields of later versions are passed over.
///
/// # Examples
/// ```
/// use taba_core::{Spread, SpreadRules, SpreadTabs, TabName};
///
/// let mut rules = SpreadRules::default();
/// let (hot, tabs) = (TabName::new("requests")?, SpreadTabs::Prefix("req".to_owned()));
/// rules.widen(&tabs, Spread::new(16)?); // from now on, queries look in 16 VBuckets
/// rules.set(&tabs, Spread::new(16)?, 1); // and Agents may use them
/// rules.set(&tabs, Spread::ONE, 2); // no longer
/// assert_eq!((rules.spread(&hot).get(), rules.widest(&hot).get()), (1, 16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpreadRules(Vec<SpreadRule>);

impl SpreadRules {
    /// The most rules there can be.
    pub const MAX: usize = 256;

    /// What somebody has to suppose who cannot read the rules: each Tab may have been spread as wide as can be.
    pub fn unknown() -> Self {
        let tabs = SpreadTabs::Prefix(String::new());
        Self(vec![SpreadRule { tabs, spread: Spread::ONE, widest: Spread::MAX, change: 0 }])
    }

    /// The rules, sorted by their Tabs.
    pub fn iter(&self) -> impl Iterator<Item = &SpreadRule> {
        self.0.iter()
    }

    /// How wide Agents spread this Tab.
    ///
    /// # Cost
    /// A comparison for each rule.
    pub fn spread(&self, tab: &TabName) -> Spread {
        self.most(tab, |rule| rule.spread)
    }

    /// How wide this Tab may ever have been spread.
    pub fn widest(&self, tab: &TabName) -> Spread {
        self.most(tab, |rule| rule.widest)
    }

    fn most(&self, tab: &TabName, of: impl Fn(&SpreadRule) -> Spread) -> Spread {
        if self.0.is_empty() || tab.is_reserved() {
            return Spread::ONE;
        }
        self.0.iter().filter(|rule| rule.tabs.has(tab)).map(of).max().unwrap_or(Spread::ONE)
    }

    /// How wide a rule says that queries have to look; [`Spread::ONE`] without such a rule.
    pub fn widest_of(&self, tabs: &SpreadTabs) -> Spread {
        self.0.iter().find(|rule| rule.tabs == *tabs).map_or(Spread::ONE, |rule| rule.widest)
    }

    /// Whether there may be a rule for these Tabs.
    ///
    /// # Errors
    /// [`TooManySpreadRules`] when it would be one more than there may be.
    pub fn check_room(&self, tabs: &SpreadTabs) -> Result<(), TooManySpreadRules> {
        let is_known = self.0.iter().any(|rule| rule.tabs == *tabs);
        if is_known || self.0.len() < Self::MAX { Ok(()) } else { Err(TooManySpreadRules) }
    }

    /// Lets queries look so wide, if they do not yet. Agents go on as before.
    pub fn widen(&mut self, tabs: &SpreadTabs, widest: Spread) {
        self.merge(&Self(vec![SpreadRule { tabs: tabs.clone(), spread: Spread::ONE, widest, change: 0 }]));
    }

    /// Lets Agents spread so wide, from the change with this number on, and [queries look](Self::widen) so wide at least.
    pub fn set(&mut self, tabs: &SpreadTabs, spread: Spread, change: u64) {
        self.merge(&Self(vec![SpreadRule { tabs: tabs.clone(), spread, widest: spread, change }]));
    }

    /// Only what Agents may do, and queries because of that.
    #[must_use]
    pub fn in_use(&self) -> Self {
        let in_use = |rule: &&SpreadRule| rule.spread > Spread::ONE;
        let rules = self.0.iter().filter(in_use);
        Self(rules.map(|rule| SpreadRule { widest: rule.spread, ..rule.clone() }).collect())
    }

    /// The number for the next change.
    pub fn next_change(&self) -> u64 {
        self.0.iter().map(|rule| rule.change).max().unwrap_or(0) + 1
    }

    /// What two copies both tell queries: of rules in both, the narrower place to look.
    #[must_use]
    pub fn in_both(&self, other: &Self) -> Self {
        let both = |rule: &SpreadRule| SpreadRule {
            widest: rule.widest.min(other.widest_of(&rule.tabs)),
            spread: Spread::ONE,
            ..rule.clone()
        };
        Self(self.0.iter().map(both).filter(|rule| rule.widest > Spread::ONE).collect())
    }

    /// Joins what two copies say: the wider place to look, the newer spread. In any order, any number of times.
    pub fn merge(&mut self, other: &Self) {
        for rule in &other.0 {
            match self.0.iter_mut().find(|known| known.tabs == rule.tabs) {
                None => self.0.push(rule.clone()),
                Some(known) => {
                    known.widest = known.widest.max(rule.widest);
                    let newer = (known.change, known.spread).max((rule.change, rule.spread));
                    (known.change, known.spread) = newer;
                }
            }
        }
        self.0.sort_by(|a, b| a.tabs.cmp(&b.tabs));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(name: &str) -> SpreadTabs {
        SpreadTabs::Name(TabName::new(name).unwrap())
    }

    fn prefix(prefix: &str) -> SpreadTabs {
        SpreadTabs::Prefix(prefix.to_owned())
    }

    fn of(spread: u32) -> Spread {
        Spread::new(spread).unwrap()
    }

    #[test]
    fn a_spread_is_a_power_of_two_up_to_64() {
        assert_eq!(Spread::all().map(Spread::get).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64]);
        for spread in [0, 3, 12, 65, 128, u32::MAX] {
            assert_eq!(Spread::new(spread), Err(SpreadError { spread }));
        }
    }

    #[test]
    fn the_widest_rule_of_a_tab_counts_and_none_for_the_ledger() {
        let mut rules = SpreadRules::default();
        rules.set(&name("req;a=b"), of(4), 1);
        rules.set(&prefix("req"), of(2), 2);
        rules.set(&prefix(""), of(16), 3);
        rules.set(&prefix(""), of(1), 4);
        let spread = |tab: &str| {
            let tab = TabName::new(tab).unwrap();
            (rules.spread(&tab).get(), rules.widest(&tab).get())
        };
        assert_eq!(spread("req;a=b"), (4, 16));
        assert_eq!(spread("req"), (2, 16));
        assert_eq!(spread("other"), (1, 16));
        assert_eq!(spread("taba.recorded"), (1, 1));
        let unknown = SpreadRules::unknown();
        let tab = TabName::new("any").unwrap();
        assert_eq!((unknown.spread(&tab), unknown.widest(&tab)), (Spread::ONE, Spread::MAX));
    }

    #[test]
    fn there_are_only_so_many_rules_and_known_ones_can_be_changed() {
        let mut rules = SpreadRules::default();
        for n in 0..SpreadRules::MAX {
            assert_eq!(rules.check_room(&name("more")), Ok(()));
            rules.set(&name(&format!("t{n}")), of(2), 1);
        }
        assert_eq!(rules.check_room(&name("more")), Err(TooManySpreadRules));
        assert_eq!(rules.check_room(&name("t0")), Ok(()));
        assert_eq!(rules.next_change(), 2);
    }

    fn encode(rules: &SpreadRules) -> String {
        serde_json::to_string(rules).unwrap()
    }

    fn decode(text: &[u8]) -> Option<SpreadRules> {
        serde_json::from_slice(text).ok()
    }

    #[test]
    fn the_bytes_in_a_store_are_a_promise() {
        let mut rules = SpreadRules::default();
        rules.set(&prefix("ads."), of(8), 2);
        rules.set(&name("hot;a=b"), of(16), 1);
        let text = r#"[{"name":"hot;a=b","spread":16,"widest":16,"change":1},{"prefix":"ads.","spread":8,"widest":8,"change":2}]"#;
        assert_eq!(encode(&rules), text);
        let later = text.replace("\"change\":1", "\"change\":1,\"by\":\"ops\"");
        assert_eq!(decode(later.as_bytes()), Some(rules));
        for bad in ["", "{}", "[1]", &text.replace(":16", ":17"), &text.replace("name", "regex")] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        /// Copies are joined in any order, any number of times; and no copy lets a query look less far than before.
        #[test]
        fn joining_is_a_join(changes in prop::collection::vec((0..3usize, 0..3usize, 0..7u32, 1..5u64), 0..20)) {
            let mut copies = vec![SpreadRules::default(); 3];
            for (copy, tabs, bits, change) in changes {
                let tabs = [name("a"), name("b"), prefix("a")][tabs].clone();
                let before = copies[copy].widest_of(&tabs);
                copies[copy].set(&tabs, of(1 << bits), change);
                prop_assert!(copies[copy].widest_of(&tabs) >= before.max(of(1 << bits)));
            }
            let joined = |order: &[usize]| {
                let mut all = SpreadRules::default();
                order.iter().for_each(|copy| all.merge(&copies[*copy]));
                all
            };
            let all = joined(&[0, 1, 2]);
            prop_assert_eq!(&all, &joined(&[2, 1, 0, 1]));
            let mut again = all.clone();
            again.merge(&all);
            prop_assert_eq!(&again, &all);
            prop_assert_eq!(decode(encode(&all).as_bytes()), Some(all));
        }
    }
}
