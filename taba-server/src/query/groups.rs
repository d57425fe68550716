//! [`groups`]: which Tabs have one aggregate.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use taba_core::{TabType, unescape_label};

use super::catalog::ListedTab;

/// Tabs of one type with one aggregate.
pub(super) struct TabGroup {
    pub(super) name: String,
    pub(super) by: Map<String, Value>,
    pub(super) tab_type: TabType,
    pub(super) tabs: Vec<ListedTab>,
    /// Whether it is a single Tab: no other can belong to it.
    pub(super) is_alone: bool,
}

pub(super) fn groups(tabs: Vec<ListedTab>, by: &[String]) -> Vec<TabGroup> {
    if by.is_empty() {
        let alone = |tab: ListedTab| TabGroup {
            name: tab.name.to_string(),
            by: Map::new(),
            tab_type: tab.tab_type.clone(),
            tabs: vec![tab],
            is_alone: true,
        };
        return tabs.into_iter().map(alone).collect();
    }
    let mut together: BTreeMap<GroupKey, Vec<ListedTab>> = BTreeMap::new();
    for tab in tabs {
        let values = by.iter().map(|key| tab.name.label(key).map(str::to_owned)).collect();
        let key = GroupKey { base: tab.name.base().to_owned(), tab_type: tab.tab_type.clone(), values };
        together.entry(key).or_default().push(tab);
    }
    let mut groups: Vec<_> = together.into_iter().map(|(key, tabs)| key.group(by, tabs)).collect();
    groups.sort_by(|a, b| (&a.name, &a.tab_type).cmp(&(&b.name, &b.tab_type)));
    groups
}

/// The common properties of a group's Tabs.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    base: String,
    tab_type: TabType,
    /// In the order of the requested keys.
    values: Vec<Option<String>>,
}

impl GroupKey {
    fn group(self, by: &[String], tabs: Vec<ListedTab>) -> TabGroup {
        let given = by.iter().zip(&self.values).filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let mut name = self.base;
        // Sorted by key, as in the name of a Tab.
        for (key, value) in given.collect::<BTreeMap<_, _>>() {
            name.extend([";", key, "=", value]);
        }
        let texts = self.values.iter().map(|value| value.as_deref().map(unescape_label).into());
        let by = by.iter().cloned().zip(texts).collect();
        TabGroup { name, by, tab_type: self.tab_type, tabs, is_alone: false }
    }
}
