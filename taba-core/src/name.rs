//! Names: [`TabName`], [`TabType`], [`ClientId`]. Each is checked once, by its constructor.

use std::borrow::{Borrow, Cow};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{CLIENT_ID_BYTES_MAX, LABELS_MAX, TAB_NAME_BYTES_MAX, TAB_TYPE_BYTES_MAX};

/// Why a name is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a {what} must not be empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// The name is too long.
    #[error("a {what} of {bytes} bytes is over the bound of {bytes_max}")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The maximum.
        bytes_max: usize,
    },
    /// The name has an invalid character.
    #[error("character {found:?} at byte {at} is not allowed in a {what}")]
    Character {
        /// The kind of name.
        what: &'static str,
        /// The first invalid character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
    /// A label is not `key=value`, or one side is empty.
    #[error("label {label:?} is not key=value")]
    Label {
        /// The text between two semicolons.
        label: String,
    },
    /// A label key is repeated.
    #[error("label key {key:?} is repeated")]
    LabelTwice {
        /// The key.
        key: String,
    },
    /// There are too many labels.
    #[error("{labels} labels are over the bound of {labels_max}")]
    TooManyLabels {
        /// Their number.
        labels: usize,
        /// The maximum.
        labels_max: usize,
    },
}

/// For `impl TryInto<TabName>` with a name that was already checked.
impl From<Infallible> for NameError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The characters of names: `[A-Za-z0-9._~:/?@!$()*+-]`.
const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'.' | b'_' | b'~' | b':' | b'/' | b'?' | b'@' | b'!' | b'$' | b'(' | b')' | b'*' | b'+' | b'-'
        )
}

fn check(what: &'static str, text: &str, bytes_max: usize, also: &[u8]) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > bytes_max {
        return Err(NameError::TooLong { what, bytes: text.len(), bytes_max });
    }
    match text
        .char_indices()
        .find(|(_, c)| !c.is_ascii() || !(is_name_byte(*c as u8) || also.contains(&(*c as u8))))
    {
        None => Ok(()),
        Some((at, found)) => Err(NameError::Character { what, found, at }),
    }
}

macro_rules! name_type {
    ($type:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&String> for $type {
            type Error = NameError;

            fn try_from(text: &String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&$type> for $type {
            type Error = NameError;

            fn try_from(name: &$type) -> Result<Self, NameError> {
                Ok(name.clone())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// The name of a Tab: a base name, then labels: `delay;from=ATL;to=MEM`.
/// The base is one or more of `[A-Za-z0-9._~:/?@!$()*+-]`; each label is `;key=value` with both sides of the same
/// characters. Keys are unique and sorted, so a Tab has one spelling. 1 to 1024 bytes in all
/// ([`TAB_NAME_BYTES_MAX`]). Names that begin with `taba.` are reserved for the Ledger.
///
/// Cloning is cheap: the text is shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TabName(Arc<str>);

name_type!(TabName);

impl TabName {
    /// The prefix of Tabs recorded by Taba itself.
    pub const RESERVED: &'static str = "taba.";

    /// Checks a name; labels may be in any order.
    ///
    /// # Examples
    /// ```
    /// use taba_core::TabName;
    ///
    /// let name = TabName::new("delay;to=MEM;from=ATL")?;
    /// assert_eq!(name.as_str(), "delay;from=ATL;to=MEM");
    /// assert_eq!(name.base(), "delay");
    /// assert_eq!(name.label("to"), Some("MEM"));
    /// # Ok::<(), taba_core::NameError>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        check("tab name", text, TAB_NAME_BYTES_MAX, b";=")?;
        let (base, rest) = text.split_once(';').map_or((text, None), |(base, rest)| (base, Some(rest)));
        check("tab name", base, TAB_NAME_BYTES_MAX, b"")?;
        let Some(rest) = rest else { return Ok(Self(text.into())) };
        let mut labels = Vec::new();
        for label in rest.split(';') {
            let bad = || NameError::Label { label: label.to_owned() };
            let (key, value) = label.split_once('=').ok_or_else(bad)?;
            if key.is_empty() || value.is_empty() || value.contains('=') {
                return Err(bad());
            }
            labels.push((key, value));
        }
        if labels.len() > LABELS_MAX {
            return Err(NameError::TooManyLabels { labels: labels.len(), labels_max: LABELS_MAX });
        }
        if labels.is_sorted_by(|a, b| a.0 < b.0) {
            return Ok(Self(text.into()));
        }
        labels.sort_unstable();
        if let Some(twice) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(NameError::LabelTwice { key: twice[0].0.to_owned() });
        }
        let mut sorted = base.to_owned();
        for (key, value) in labels {
            sorted.extend([";", key, "=", value]);
        }
        Ok(Self(sorted.into()))
    }

    /// A name whose labels may have any text: invalid characters are escaped, see [`escape_label`].
    ///
    /// # Examples
    /// ```
    /// use taba_core::TabName;
    ///
    /// let name = TabName::builder("http").label("path", "/users/{id}").label("city", "Zürich").build()?;
    /// assert_eq!(name.as_str(), "http;city=Z!C3!BCrich;path=/users/!7Bid!7D");
    /// assert_eq!(name.label_text("city").as_deref(), Some("Zürich"));
    /// assert_eq!(name.shown(), "http;city=Zürich;path=/users/{id}");
    /// # Ok::<(), taba_core::NameError>(())
    /// ```
    pub fn builder(base: &str) -> TabNameBuilder {
        TabNameBuilder { text: base.to_owned() }
    }

    /// Parses a name as [`shown`](Self::shown) writes it: labels may have any text without `;`.
    ///
    /// # Errors
    /// [`NameError`], as [`TabNameBuilder::build`].
    pub fn from_shown(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split(';');
        let mut name = Self::builder(parts.next().unwrap_or_default());
        for label in parts {
            let (key, value) =
                label.split_once('=').ok_or_else(|| NameError::Label { label: label.to_owned() })?;
            name = name.label(key, value);
        }
        name.build()
    }

    /// The name for people, with unescaped labels. It may hold any character.
    pub fn shown(&self) -> Cow<'_, str> {
        if !self.0.contains(ESCAPE) {
            return Cow::Borrowed(&self.0);
        }
        let mut shown = self.base().to_owned();
        for (key, value) in self.labels() {
            shown.extend([";", key, "=", &unescape_label(value)]);
        }
        Cow::Owned(shown)
    }

    /// The unescaped text of one label.
    pub fn label_text(&self, key: &str) -> Option<Cow<'_, str>> {
        self.label(key).map(unescape_label)
    }

    /// The name without its labels.
    pub fn base(&self) -> &str {
        self.0.split_once(';').map_or(&self.0, |(base, _)| base)
    }

    /// The labels as (key, value), sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split(';').skip(1).filter_map(|label| label.split_once('='))
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Whether the name has the reserved prefix.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(Self::RESERVED)
    }
}

/// The first character of an escape in a label's value; two hexadecimal digits follow.
const ESCAPE: char = '!';

/// Escapes any text for a label's value: each byte (of its UTF-8) that no name may hold, and each `!`, becomes `!`
/// and two upper-case hexadecimal digits; the empty text becomes `!`.
///
/// # Laws
/// **Back.** `unescape_label(escape_label(text)) == text`, for every text.
/// **Apart.** Different texts become different values.
/// Checked by the tests of this file.
///
/// # Cost
/// A text of n bytes becomes at most 3 n bytes. A whole name has room for 1,024.
pub fn escape_label(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| is_name_byte(byte) && byte != ESCAPE as u8;
    if text.is_empty() {
        return Cow::Borrowed("!");
    }
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut value = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if is_plain(byte) {
            value.push(byte as char);
        } else {
            value.extend([ESCAPE, hex(byte >> 4), hex(byte & 15)]);
        }
    }
    Cow::Owned(value)
}

/// Inverts [`escape_label`]; a value that it never returns is its own text.
pub fn unescape_label(value: &str) -> Cow<'_, str> {
    if !value.contains(ESCAPE) {
        return Cow::Borrowed(value);
    }
    match unescaped(value) {
        Some(text) if escape_label(&text) == value => Cow::Owned(text),
        _ => Cow::Borrowed(value),
    }
}

fn unescaped(value: &str) -> Option<String> {
    if value == "!" {
        return Some(String::new());
    }
    let mut parts = value.split(ESCAPE);
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

const fn hex(digit: u8) -> char {
    (if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }) as char
}

/// Builds a [`TabName`] whose labels may have any text.
#[derive(Clone, Debug)]
#[must_use]
pub struct TabNameBuilder {
    text: String,
}

impl TabNameBuilder {
    /// A label with this text, escaped if necessary ([`escape_label`]).
    pub fn label(mut self, key: &str, text: &str) -> Self {
        self.text.extend([";", key, "=", &escape_label(text)]);
        self
    }

    /// Checks the name.
    ///
    /// # Errors
    /// [`NameError`]: the base or a key is invalid, a key is repeated, or the name is over 1,024 bytes. The text of a
    /// label alone is never an error.
    pub fn build(self) -> Result<TabName, NameError> {
        TabName::new(&self.text)
    }
}

impl TryFrom<TabNameBuilder> for TabName {
    type Error = NameError;

    fn try_from(builder: TabNameBuilder) -> Result<Self, NameError> {
        builder.build()
    }
}

/// The name under which a Handler is registered: `CounterGroup`, `Gauge`, or one of your own.
///
/// One or more of `[A-Za-z0-9._-]`, at most 64 bytes ([`TAB_TYPE_BYTES_MAX`]). Cloning is cheap: the text is shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TabType(Arc<str>);

name_type!(TabType);

impl TabType {
    /// Checks a Tab type.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        check("tab type", text, TAB_TYPE_BYTES_MAX, b"")?;
        match text.char_indices().find(|(_, c)| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            None => Ok(Self(text.into())),
            Some((at, found)) => Err(NameError::Character { what: "tab type", found, at }),
        }
    }
}

/// The durable name of a recording application process: the same before and after a restart.
///
/// One or more of `[A-Za-z0-9._~:/?@!$()*+-]`, at most 256 bytes ([`CLIENT_ID_BYTES_MAX`]). Cloning is cheap: the
/// text is shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(Arc<str>);

name_type!(ClientId);

impl ClientId {
    /// Checks a Client id.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        check("client id", text, CLIENT_ID_BYTES_MAX, b"")?;
        Ok(Self(text.into()))
    }

    /// Whether the id has the reserved prefix: then it is no program, but what Agents and Servers count for lack of one.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(TabName::RESERVED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_may_have_as_many_labels_as_the_bound_says() {
        let with = |labels: usize| {
            let labels: Vec<_> = (0..labels).map(|n| format!(";k{n:02}=v")).collect();
            TabName::new(&format!("a{}", labels.concat()))
        };
        assert!(with(LABELS_MAX).is_ok());
        assert!(matches!(with(LABELS_MAX + 1), Err(NameError::TooManyLabels { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_a_label_and_comes_back(texts in prop::collection::vec(any::<String>(), 0..3)) {
            let mut name = TabName::builder("x");
            for (at, text) in texts.iter().enumerate() {
                name = name.label(&format!("k{at}"), text);
            }
            match name.build() {
                Ok(name) => for (at, text) in texts.iter().enumerate() {
                    let (key, text) = (format!("k{at}"), text.as_str());
                    let back = name.label_text(&key);
                    prop_assert_eq!(back.as_deref(), Some(text));
                },
                Err(error) => {
                    let is_too_long = matches!(error, NameError::TooLong { .. });
                    prop_assert!(is_too_long, "{error}");
                }
            }
        }

        #[test]
        fn what_was_never_escaped_is_its_own_text(value in "[a!-%A-F0-9]{1,8}") {
            let text = unescape_label(&value);
            prop_assert!(text == value || escape_label(&text) == value);
        }
    }

    #[test]
    fn labels_of_every_day_have_names() {
        for text in ["/users/{id}", "a b", "Zürich", "", "50%", "a,b", "[::1]", "!", "a;b=c", "\u{1b}[2J"] {
            let name = TabName::builder("x").label("k", text).build().unwrap();
            assert_eq!(name.label_text("k").as_deref(), Some(text));
            assert_eq!(TabName::new(name.as_str()), Ok(name.clone()));
            if !text.contains(';') {
                assert_eq!(TabName::from_shown(&name.shown()), Ok(name));
            }
        }
        assert_eq!(unescape_label("wow!"), "wow!", "it was given as it is");
        assert_eq!(unescape_label("a!41"), "a!41", "no text is escaped so");
        assert!(matches!(
            TabName::builder("x").label("k", &"é".repeat(200)).build(),
            Err(NameError::TooLong { .. })
        ));
        assert!(TabName::builder("x").label("k k", "v").build().is_err());
    }

    #[test]
    fn labels_are_sorted_and_unique() {
        assert_eq!(TabName::new("a;z=1;b=2").unwrap().as_str(), "a;b=2;z=1");
        assert_eq!(TabName::new("a;z=1;z=2").unwrap_err(), NameError::LabelTwice { key: "z".into() });
        assert_eq!(TabName::new("a;z").unwrap_err(), NameError::Label { label: "z".into() });
        assert_eq!(TabName::new("a;z=").unwrap_err(), NameError::Label { label: "z=".into() });
        assert_eq!(TabName::new("a;z=b=c").unwrap_err(), NameError::Label { label: "z=b=c".into() });
        assert_eq!(TabName::new(";z=b").unwrap_err(), NameError::Empty { what: "tab name" });
        let labels = TabName::new("a;z=1;b=2").unwrap();
        assert_eq!(labels.labels().collect::<Vec<_>>(), [("b", "2"), ("z", "1")]);
    }

    #[test]
    fn what_no_name_may_hold_is_named() {
        assert_eq!(
            TabName::new("bids won").unwrap_err(),
            NameError::Character { what: "tab name", found: ' ', at: 4 }
        );
        assert!(TabName::new("é").is_err());
        assert!(TabName::new("a=b").is_err());
        assert!(ClientId::new("web;1").is_err());
        assert!(TabType::new("A/B").is_err());
        assert!(TabName::new(&"x".repeat(1024)).is_ok());
        assert!(TabName::new(&"x".repeat(1025)).is_err());
        assert!(TabName::new(".~:/?@!$()*+-_").is_ok());
    }
}
