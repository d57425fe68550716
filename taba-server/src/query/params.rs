//! The query parameters of a URL. An unknown parameter is an error: a misspelt filter must not select everything.

use taba_core::{ClientId, Format, NameError, Spread, SpreadTabs, TabName, TabType};

use super::context::Query;
use super::error::QueryError;
use super::removal::RemovalCursor;
use super::selection::{Pattern, Selection};
use super::state::Limits;
use super::times;

/// Any parameter that begins with `label.`.
pub(super) const ANY_LABEL: &str = "label.KEY";
/// Those of removals.
pub(super) const REMOVAL: &[&str] = &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "from"];

/// The parameters, in order.
pub(super) struct Params(Vec<(String, String)>);

/// Parses the query of a URL, if it has one.
pub(super) fn params(query: Option<&String>, known: &'static [&'static str]) -> Result<Params, QueryError> {
    Params::parse(query.map_or("", String::as_str), known)
}

impl Params {
    /// Parses the query of a URL.
    pub(super) fn parse(query: &str, known: &'static [&'static str]) -> Result<Self, QueryError> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key, pair)?, decode(value, pair)?);
            let is_label = key.strip_prefix("label.").is_some_and(|label| !label.is_empty());
            let word = if is_label { ANY_LABEL } else { key.as_str() };
            if !known.contains(&word) {
                return Err(QueryError::UnknownParameter { found: key, known });
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn one<'a>(&'a self, key: &'a str) -> Result<Option<&'a str>, QueryError> {
        let mut values = self.all(key);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(second)) => Err(bad(key, second, "it may appear only once")),
        }
    }

    /// The elements of a list parameter, which may be repeated.
    fn list<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(key).flat_map(|value| value.split(','))
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, QueryError> {
        match self.one(key)? {
            None => Ok(default),
            Some("" | "true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(bad(key, value, "true or false is needed")),
        }
    }

    /// The maximum number of results.
    pub(super) fn limit(&self, limits: &Limits) -> Result<usize, QueryError> {
        match self.one("limit")? {
            None => Ok(limits.results_max),
            Some(value) => match value.parse() {
                Ok(limit) if limit > 0 => Ok(limits.results_max.min(limit)),
                _ => Err(bad("limit", value, "a whole number from 1 is needed")),
            },
        }
    }

    /// Seconds, within bounds.
    pub(super) fn seconds(&self, key: &str, default: f64, range: (f64, f64)) -> Result<f64, QueryError> {
        let Some(value) = self.one(key)? else { return Ok(default) };
        match value.parse::<f64>() {
            Ok(seconds) if (range.0..=range.1).contains(&seconds) => Ok(seconds),
            _ => Err(bad(key, value, &format!("seconds from {} to {} are needed", range.0, range.1))),
        }
    }

    /// Whether the answer is of the totals only, which have no rows.
    pub(super) fn totals(&self) -> Result<bool, QueryError> {
        let is_of_totals = self.flag("totals", false)?;
        match self.0.iter().find(|(key, _)| is_of_totals && key != "totals") {
            Some((key, value)) => {
                Err(bad(key, value, "totals are of all clients, and have no rows to choose"))
            }
            None => Ok(is_of_totals),
        }
    }

    /// The first Client of the answer.
    pub(super) fn first_client(&self) -> Result<Option<ClientId>, QueryError> {
        self.one("from")?.map(|from| named("from", from, ClientId::new)).transpose()
    }

    /// The Client that is to be forgotten.
    pub(super) fn one_client(&self) -> Result<ClientId, QueryError> {
        let client =
            self.one("client")?.ok_or_else(|| bad("client", "", "the id of one client is needed"))?;
        named("client", client, ClientId::new)
    }

    /// The first Tab type of the answer.
    pub(super) fn first_type(&self) -> Result<Option<TabType>, QueryError> {
        self.one("from")?.map(|from| named("from", from, TabType::new)).transpose()
    }

    /// The first Tab of the answer.
    pub(super) fn first_tab(&self) -> Result<Option<TabName>, QueryError> {
        self.one("from")?.map(|from| named("from", from, TabName::new)).transpose()
    }

    /// Where a removal goes on.
    pub(super) fn removal_from(&self) -> Result<Option<RemovalCursor>, QueryError> {
        let read =
            |from: &str| from.parse::<RemovalCursor>().map_err(|error| bad("from", from, &error.to_string()));
        self.one("from")?.map(read).transpose()
    }

    /// The selected Tabs and Clients.
    pub(super) fn selection(&self, limits: &Limits) -> Result<Selection, QueryError> {
        let mut selection = Selection::default();
        if self.flag("re", false)? {
            for pattern in self.all("name") {
                selection = selection.name_pattern(Pattern::new(pattern, limits.regex_bytes_max)?);
            }
            for pattern in self.all("client") {
                selection = selection.client_pattern(Pattern::new(pattern, limits.regex_bytes_max)?);
            }
        } else {
            for name in self.list("name") {
                selection = selection.name(named("name", name, tab_name)?);
            }
            for client in self.list("client") {
                selection = selection.client(named("client", client, ClientId::new)?);
            }
        }
        for base in self.list("base") {
            let name = named("base", base, TabName::new)?;
            if name.base() != base {
                return Err(bad("base", base, "a name without labels is needed"));
            }
            selection = selection.base(base);
        }
        for tab_type in self.list("type") {
            selection = selection.tab_type(named("type", tab_type, TabType::new)?);
        }
        for (key, values) in &self.0 {
            let Some(label) = key.strip_prefix("label.") else { continue };
            // A key that no name can have would select nothing, and hide a mistake.
            label_key(key, label)?;
            // The whole text too: it may contain commas.
            for value in values.split(',').chain([values.as_str()]) {
                selection = selection.label(label, value);
            }
        }
        Ok(if self.flag("reserved", false)? { selection.with_reserved() } else { selection })
    }

    /// Which Tabs are to be spread, and how wide.
    pub(super) fn spread(&self) -> Result<(SpreadTabs, Spread), QueryError> {
        let tabs = match (self.one("name")?, self.one("prefix")?) {
            (Some(name), None) => SpreadTabs::Name(named("name", name, tab_name)?),
            (None, Some(prefix)) => {
                // It may end within a label.
                let begins_a_name = |end| TabName::new(&format!("{prefix}{end}")).is_ok();
                if prefix.is_empty() || !["", "x", "=x", "x=x"].into_iter().any(begins_a_name) {
                    return Err(bad("prefix", prefix, "the beginning of the names of tabs is needed"));
                }
                SpreadTabs::Prefix(prefix.to_owned())
            }
            (name, _) => {
                return Err(bad("name", name.unwrap_or_default(), "one of name= and prefix= is needed"));
            }
        };
        let spread = self.one("spread")?.unwrap_or_default();
        let number = spread.parse().ok().and_then(|spread| Spread::new(spread).ok());
        let wanted = format!("a power of two from 1 to {} is needed", Spread::MAX);
        Ok((tabs, number.ok_or_else(|| bad("spread", spread, &wanted))?))
    }

    /// The complete query of Projections.
    pub(super) fn query(&self, limits: &Limits) -> Result<Query, QueryError> {
        self.query_from(self.first_tab()?, limits)
    }

    /// The same, where rows are named by a Tab and, behind a space, a Client.
    pub(super) fn query_of_clients(&self, limits: &Limits) -> Result<Query, QueryError> {
        let Some((tab, client)) = self.one("from")?.and_then(|from| from.split_once(' ')) else {
            return self.query(limits);
        };
        let query = self.query_from(Some(named("from", tab, TabName::new)?), limits)?;
        Ok(Query { from_client: Some(named("from", client, ClientId::new)?), ..query })
    }

    fn query_from(&self, from: Option<TabName>, limits: &Limits) -> Result<Query, QueryError> {
        let at = match self.one("at")? {
            None => None,
            Some(text) => Some(times::parse(text).ok_or_else(|| bad("at", text, times::WANTED))?),
        };
        let mut by: Vec<String> = Vec::new();
        for key in self.list("by") {
            label_key("by", key)?;
            if !by.iter().any(|known| known == key) {
                by.push(key.to_owned());
            }
        }
        let format = if self.flag("detail", false)? { Format::Detail } else { Format::Summary };
        let mut selection = self.selection(limits)?;
        if let Some(from) = from {
            if !by.is_empty() {
                return Err(bad(
                    "from",
                    from.as_str(),
                    "groups (by=) have no names to continue from; leave it out",
                ));
            }
            selection = selection.from(from);
        }
        Ok(Query { selection, at, by, format, from_client: None })
    }
}

fn bad(key: &str, value: &str, wanted: &str) -> QueryError {
    QueryError::BadParameter { parameter: key.to_owned(), value: value.to_owned(), wanted: wanted.to_owned() }
}

fn named<T>(key: &str, text: &str, new: fn(&str) -> Result<T, NameError>) -> Result<T, QueryError> {
    new(text).map_err(|error| bad(key, text, &error.to_string()))
}

/// Checks that a label can have this key.
fn label_key(parameter: &str, key: &str) -> Result<(), QueryError> {
    let wanted = "the key of a label is needed, as in the names of tabs";
    let named = TabName::new(&format!("x;{key}=x")).ok().filter(|name| name.label(key).is_some());
    named.map(|_| ()).ok_or_else(|| bad(parameter, key, wanted))
}

/// A name as stored, or as shown to people.
fn tab_name(text: &str) -> Result<TabName, NameError> {
    TabName::new(text).or_else(|error| match text.contains(';') {
        true => TabName::from_shown(text),
        false => Err(error),
    })
}

/// Decodes percent-encoding. A `+` means itself.
fn decode(text: &str, pair: &str) -> Result<String, QueryError> {
    let wrong = || bad(pair, text, "the percent-encoding is broken");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(wrong()) };
        let digit = |hex: &u8| (*hex as char).to_digit(16);
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(wrong()) };
        bytes.push((high * 16 + low) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_a_plus() {
        assert_eq!(decode("a+b%2Bc%3b", "").unwrap(), "a+b+c;");
        assert!(decode("%", "").is_err());
        assert!(decode("%zz", "").is_err());
        assert!(decode("%+1", "").is_err());
        assert!(decode("%ff", "").is_err());
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known() {
        let Err(QueryError::UnknownParameter { found, known }) = Params::parse("nmae=a", REMOVAL) else {
            panic!("a misspelt parameter was accepted")
        };
        assert_eq!((found.as_str(), known), ("nmae", REMOVAL));
        assert!(Params::parse("label.to=MEM", REMOVAL).is_ok());
        assert!(Params::parse("label.=MEM", REMOVAL).is_err());
        assert!(Params::parse("label.to=MEM", &["name"]).is_err());
    }

    #[test]
    fn an_error_shows_what_was_asked_for() {
        let known = &["by", ANY_LABEL];
        for (query, shown) in [
            ("by=", "parameter by=\"\": the key of a label is needed"),
            ("by=a,,b", "parameter by=\"\": the key of a label is needed"),
            ("by=a%20b", "parameter by=\"a b\": the key of a label is needed"),
            ("by=a;b", "parameter by=\"a;b\": the key of a label is needed"),
            ("label.a%3Db=1", "parameter label.a=b=\"a=b\": the key of a label is needed"),
        ] {
            let params = Params::parse(query, known).unwrap();
            let error = params.query(&Limits::default()).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(shown), "{query}: {error}");
        }
    }
}
