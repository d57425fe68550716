//! [`TabChooser`]: finds the selected Tabs in sorted lists.

use taba_core::{TabName, TabType};

use super::selection::Selection;

/// Finds the selected Tabs in lists that are sorted by name.
pub(super) struct TabChooser<'a> {
    selection: &'a Selection,
    /// Texts of which one begins the name of each selected Tab, sorted, none a beginning of another; `None`: any name.
    prefixes: Option<Vec<String>>,
}

impl<'a> TabChooser<'a> {
    pub(super) fn of(selection: &'a Selection) -> Self {
        let prefixes = selection.prefixes().map(|all| {
            let mut least: Vec<String> = Vec::new();
            for prefix in all {
                if least.last().is_none_or(|last| !prefix.starts_with(last.as_str())) {
                    least.push(prefix);
                }
            }
            least
        });
        Self { selection, prefixes }
    }

    /// The selected ones, in order.
    pub(super) fn of_list<'b>(
        &'b self,
        tabs: &'b [(TabName, TabType)],
    ) -> impl Iterator<Item = &'b (TabName, TabType)> {
        // With more prefixes than Tabs, each Tab is looked at once.
        let prefixes = self.prefixes.as_deref().filter(|prefixes| prefixes.len() < tabs.len());
        let ranges = prefixes.unwrap_or_default().iter().map(|prefix| range(tabs, prefix));
        let all = prefixes.is_none().then_some(tabs);
        let candidates = all.into_iter().chain(ranges).flatten();
        candidates.filter(|(name, tab_type)| self.selection.has_tab(name, tab_type))
    }
}

/// The Tabs whose names begin so.
fn range<'a>(tabs: &'a [(TabName, TabType)], prefix: &str) -> &'a [(TabName, TabType)] {
    let tabs = &tabs[tabs.partition_point(|(name, _)| name.as_str() < prefix)..];
    &tabs[..tabs.partition_point(|(name, _)| name.as_str().starts_with(prefix))]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::selection::Pattern;
    use super::*;

    fn list(names: &[String]) -> Vec<(TabName, TabType)> {
        let tab_type = TabType::new("Gauge").unwrap();
        let mut tabs: Vec<_> =
            names.iter().map(|name| (TabName::new(name).unwrap(), tab_type.clone())).collect();
        tabs.sort();
        tabs.dedup();
        tabs
    }

    /// Of expressions.
    const PIECES: [&str; 14] =
        ["a", "b", "A", "é", "!", ";k=", "(a|b)", "(a;k=|b)", "a*", "[ab]", "a?", ".", ".*", "(?i)"];

    proptest! {
        /// Beginnings only spare looks: what is found is what a look at each Tab finds.
        #[test]
        fn nothing_selected_is_passed_over(
            names in prop::collection::vec("[ab!]{1,3}(;k=([ab]|!C3!A9|!41){1,2})?", 1..30),
            patterns in prop::collection::vec(prop::collection::vec(prop::sample::select(&PIECES[..]), 1..6), 0..3),
            bases in prop::collection::vec("[ab!]{1,2}", 0..2),
            exact in prop::collection::vec("[ab]{1,2}(;k=[ab])?", 0..2),
        ) {
            let tabs = list(&names);
            let mut selection = Selection::default();
            for pattern in &patterns {
                selection = selection.name_pattern(Pattern::new(&pattern.concat(), 1 << 20).unwrap());
            }
            for base in &bases {
                selection = selection.base(base);
            }
            for name in &exact {
                selection = selection.name(TabName::new(name).unwrap());
            }
            let expected: Vec<_> = tabs.iter().filter(|(name, of)| selection.has_tab(name, of)).collect();
            let chooser = TabChooser::of(&selection);
            prop_assert_eq!(chooser.of_list(&tabs).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn few_tabs_are_looked_at_where_a_beginning_is_known() {
        let of = |pattern: &str| {
            let selection = Selection::default().name_pattern(Pattern::new(pattern, 1 << 20).unwrap());
            TabChooser::of(&selection).prefixes
        };
        assert_eq!(of("tab-001.."), Some(vec!["tab-001".to_owned()]));
        assert_eq!(
            of("(delay|departures);to=MEM"),
            Some(vec!["delay;".to_owned(), "departures;".to_owned()])
        );
        assert_eq!(of(".*delay"), None);
        let both = Selection::default().base("delay").base("delays").base("wind");
        assert_eq!(TabChooser::of(&both).prefixes, Some(vec!["delay".to_owned(), "wind".to_owned()]));
    }
}
