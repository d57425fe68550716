//! [`Selection`]: the Tabs and Clients of a query.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::literal::{Extractor, Literal};
use taba_core::{ClientId, TabName, TabType, ledger, unescape_label};

use super::error::QueryError;
use crate::spread;

/// A regular expression that must match a name in full.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression to at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`QueryError::BadPattern`] when it is invalid or compiles to more.
    pub fn new(text: &str, bytes_max: usize) -> Result<Self, QueryError> {
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern).size_limit(bytes_max).dfa_size_limit(bytes_max).build().map_err(
                |source| QueryError::BadPattern { pattern: text.to_owned(), source: Box::new(source) },
            )
        };
        // Alone first: `a)|(b` is invalid, but would be valid inside the parentheses, and escape the anchors.
        compile(text)?;
        let whole = compile(&format!(r"\A(?:{text})\z"));
        // In mode `x` a comment extends to the end of its line, and would include the parenthesis.
        let regex = whole.or_else(|_| compile(&format!("\\A(?:{text}\n)\\z")))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// Texts of which one begins every name that matches; `None` when there are too many, or none is known.
    fn prefixes(&self) -> Option<Vec<String>> {
        let parsed = regex_syntax::parse(&self.text).ok()?;
        let found = Extractor::new().extract(&parsed);
        let begin = |literal: &Literal| {
            let text = literal.as_bytes();
            // What is shown differs from the name behind the base: only that far do both begin alike.
            let end = text.iter().position(|byte| *byte == b';').map_or(text.len(), |end| end + 1);
            String::from_utf8(text[..end].to_vec()).ok().filter(|begin| !begin.is_empty())
        };
        found.literals()?.iter().map(begin).collect()
    }

    /// Whether the expression itself begins with the reserved prefix.
    fn asks_for_reserved(&self) -> bool {
        self.text.starts_with(TabName::RESERVED) || self.text.starts_with(r"taba\.")
    }
}

/// The Tabs and Clients of a query. By default all, except the Ledger's Tabs.
///
/// # Examples
/// ```
/// use taba_core::{TabName, TabType};
/// use taba_server::query::Selection;
///
/// let delays = Selection::default().base("delay").label("to", "MEM").label("to", "ATL");
/// let group = TabType::new("CounterGroup")?;
/// assert!(delays.has_tab(&TabName::new("delay;to=ATL")?, &group));
/// assert!(!delays.has_tab(&TabName::new("delay;to=JFK")?, &group));
/// # Ok::<(), taba_core::NameError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Selection {
    names: BTreeSet<TabName>,
    bases: BTreeSet<String>,
    name_patterns: Vec<Pattern>,
    types: BTreeSet<TabType>,
    labels: BTreeMap<String, BTreeSet<String>>,
    clients: BTreeSet<ClientId>,
    client_patterns: Vec<Pattern>,
    reserved: bool,
    /// The first Tab.
    from: Option<TabName>,
}

impl Selection {
    /// Adds this Tab; once a name, base or pattern is given, only matching Tabs are selected.
    #[must_use]
    pub fn name(mut self, name: TabName) -> Self {
        self.names.insert(name);
        self
    }

    /// Adds all Tabs with this base name.
    #[must_use]
    pub fn base(mut self, base: &str) -> Self {
        self.bases.insert(base.to_owned());
        self
    }

    /// Adds the Tabs whose whole name matches, as stored or as shown to people.
    #[must_use]
    pub fn name_pattern(mut self, pattern: Pattern) -> Self {
        self.name_patterns.push(pattern);
        self
    }

    /// Adds a type; once one is given, only Tabs of given types are selected.
    #[must_use]
    pub fn tab_type(mut self, tab_type: TabType) -> Self {
        self.types.insert(tab_type);
        self
    }

    /// Adds a label's value, as stored or unescaped: only Tabs with one of the values given for the key are selected.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.entry(key.to_owned()).or_default().insert(value.to_owned());
        self
    }

    /// Adds a Client; once one or a pattern is given, only matching Clients are selected.
    #[must_use]
    pub fn client(mut self, client: ClientId) -> Self {
        self.clients.insert(client);
        self
    }

    /// Adds the Clients whose whole id matches.
    #[must_use]
    pub fn client_pattern(mut self, pattern: Pattern) -> Self {
        self.client_patterns.push(pattern);
        self
    }

    /// Only Tabs from this name on, by name order.
    #[must_use]
    pub fn from(mut self, name: TabName) -> Self {
        self.from = Some(name);
        self
    }

    /// Whether this is the Tab that [`from`](Self::from) names.
    pub(super) fn begins_with(&self, name: &TabName) -> bool {
        self.from.as_ref() == Some(name)
    }

    /// Includes the Tabs of the Ledger.
    #[must_use]
    pub fn with_reserved(mut self) -> Self {
        self.reserved = true;
        self
    }

    /// Whether the Tab is selected.
    pub fn has_tab(&self, name: &TabName, tab_type: &TabType) -> bool {
        self.from.as_ref().is_none_or(|from| from <= name)
            && (self.types.is_empty() || self.types.contains(tab_type))
            && self
                .labels
                .iter()
                .all(|(key, values)| name.label(key).is_some_and(|value| has_value(values, value)))
            && self.has_name(name)
    }

    fn has_name(&self, name: &TabName) -> bool {
        let is_ours = || [spread::TAB, ledger::ACCOUNTS].contains(&name.as_str());
        let is_for_nobody = || !self.asks_for_reserved() || is_ours();
        if name.is_reserved() && is_for_nobody() {
            return false;
        }
        let any = self.names.is_empty() && self.bases.is_empty() && self.name_patterns.is_empty();
        any || self.names.contains(name) || self.bases.contains(name.base()) || self.has_pattern(name)
    }

    fn has_pattern(&self, name: &TabName) -> bool {
        let matches = |text: &str| self.name_patterns.iter().any(|pattern| pattern.matches(text));
        let as_shown = || if let Cow::Owned(shown) = name.shown() { matches(&shown) } else { false };
        matches(name.as_str()) || as_shown()
    }

    /// Texts that begin the names of all selected Tabs, as far as can be told; `None`: any may be selected.
    pub(super) fn prefixes(&self) -> Option<BTreeSet<String>> {
        let mut prefixes: BTreeSet<String> = self.names.iter().map(|name| name.as_str().to_owned()).collect();
        prefixes.extend(self.bases.iter().cloned());
        for pattern in &self.name_patterns {
            prefixes.extend(pattern.prefixes()?);
        }
        Some(prefixes).filter(|prefixes| !prefixes.is_empty())
    }

    /// Whether the Client is selected.
    pub fn has_client(&self, client: &ClientId) -> bool {
        self.has_all_clients()
            || self.clients.contains(client)
            || self.client_patterns.iter().any(|pattern| pattern.matches(client.as_str()))
    }

    /// Whether all Clients are selected.
    pub fn has_all_clients(&self) -> bool {
        self.clients.is_empty() && self.client_patterns.is_empty()
    }

    /// The ids of all selected Clients, where they are all named.
    pub(super) fn exact_clients(&self) -> Option<&BTreeSet<ClientId>> {
        (!self.clients.is_empty() && self.client_patterns.is_empty()).then_some(&self.clients)
    }

    /// Whether all Tabs are selected but the reserved ones.
    pub(super) fn has_all_tabs(&self) -> bool {
        let has_no_names = self.names.is_empty() && self.bases.is_empty() && self.name_patterns.is_empty();
        has_no_names
            && self.types.is_empty()
            && self.labels.is_empty()
            && !self.reserved
            && self.from.is_none()
    }

    /// Whether everything is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.names.is_empty()
            && self.bases.is_empty()
            && self.name_patterns.is_empty()
            && self.types.is_empty()
            && self.labels.is_empty()
            && self.has_all_clients()
    }

    fn asks_for_reserved(&self) -> bool {
        self.reserved || self.reserved_name().is_some()
    }

    /// The part of the selection that names the Ledger's Tabs.
    pub(super) fn reserved_name(&self) -> Option<&str> {
        let name = self.names.iter().find(|name| name.is_reserved()).map(TabName::as_str);
        let base = || self.bases.iter().find(|base| base.starts_with(TabName::RESERVED)).map(String::as_str);
        let pattern = || self.name_patterns.iter().find(|pattern| pattern.asks_for_reserved());
        name.or_else(base).or_else(|| pattern().map(|pattern| pattern.text.as_str()))
    }

    /// The Tabs that are selected by their whole names.
    pub(super) fn exactly_named(&self) -> impl Iterator<Item = &TabName> {
        self.names.iter()
    }

    pub(super) fn is_reserved_included(&self) -> bool {
        self.reserved
    }

    /// The names of all selected Tabs, where they are all named. `None`: the Tabs can be in any VBucket, as reserved ones.
    pub(super) fn exact_names(&self) -> Option<&BTreeSet<TabName>> {
        let exact = !self.names.is_empty() && self.bases.is_empty() && self.name_patterns.is_empty();
        (exact && !self.asks_for_reserved()).then_some(&self.names)
    }

    /// The selected names as text: the name of a super-aggregate.
    pub(super) fn title(&self) -> String {
        let names = self.names.iter().map(|name| name.as_str().to_owned());
        let bases = self.bases.iter().map(|base| format!("{base};*"));
        let patterns = self.name_patterns.iter().map(|pattern| pattern.text.clone());
        let title = names.chain(bases).chain(patterns).collect::<Vec<_>>().join(",");
        if title.is_empty() { "*".to_owned() } else { title }
    }
}

/// Whether a label's value, or its unescaped text, is among these.
fn has_value(values: &BTreeSet<String>, value: &str) -> bool {
    values.contains(value) || values.contains(&*unescape_label(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tab(name: &str) -> TabName {
        TabName::new(name).unwrap()
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text, 1 << 20).unwrap()
    }

    #[test]
    fn patterns_match_in_full_and_cannot_escape_their_anchors() {
        assert!(pattern("a|ab").matches("ab"));
        assert!(!pattern("a|ab").matches("abc"));
        assert!(!pattern("b").matches("abc"));
        assert!(matches!(Pattern::new("a)|(b", 1 << 20), Err(QueryError::BadPattern { .. })));
        assert!(pattern("(?i)REQUESTS").matches("requests") && pattern("(?i-u)REQUESTS").matches("requests"));
        assert!(pattern("(?x)a #c").matches("a") && !pattern("(?x)a #c").matches("ab"));
        assert!(pattern("a # b").matches("a # b") && !pattern("a # b").matches("a # b\n"));
        assert!(matches!(Pattern::new("(?x)a) #(", 1 << 20), Err(QueryError::BadPattern { .. })));
        assert!(matches!(Pattern::new("(a", 1 << 20), Err(QueryError::BadPattern { .. })));
        assert!(matches!(Pattern::new(r"\w{500}{500}", 1 << 20), Err(QueryError::BadPattern { .. })));
    }

    #[test]
    fn reserved_tabs_show_only_when_asked_for() {
        let ty = TabType::new("TotalsCounter").unwrap();
        let recorded = tab("taba.recorded");
        assert!(!Selection::default().has_tab(&recorded, &ty));
        assert!(!Selection::default().name_pattern(pattern(".*")).has_tab(&recorded, &ty));
        assert!(Selection::default().with_reserved().has_tab(&recorded, &ty));
        assert!(Selection::default().name(recorded.clone()).has_tab(&recorded, &ty));
        assert!(Selection::default().name_pattern(pattern(r"taba\..*")).has_tab(&recorded, &ty));
        assert!(
            Selection::default().base("taba.dropped").has_tab(&tab("taba.dropped;where=agent;why=gap"), &ty)
        );
    }

    #[test]
    fn exact_names_are_looked_for_only_where_they_live() {
        let exact = Selection::default().name(tab("a")).name(tab("b"));
        assert_eq!(exact.exact_names().map(BTreeSet::len), Some(2));
        assert_eq!(exact.clone().base("c").exact_names(), None);
        assert_eq!(Selection::default().name(tab("taba.recorded")).exact_names(), None);
    }

    #[test]
    fn different_parameters_must_all_hold() {
        let ty = |name: &str| TabType::new(name).unwrap();
        let selection = Selection::default().base("delay").label("to", "MEM").tab_type(ty("Gauge"));
        assert!(selection.has_tab(&tab("delay;from=A;to=MEM"), &ty("Gauge")));
        assert!(!selection.has_tab(&tab("delay;from=A;to=MEM"), &ty("Buffer")));
        assert!(!selection.has_tab(&tab("delay;from=MEM"), &ty("Gauge")));
        assert!(!selection.has_tab(&tab("distance;to=MEM"), &ty("Gauge")));
    }
}
