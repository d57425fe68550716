//! [`printable`]: texts of others, shown so that they can do nothing to a terminal or a log.

use std::borrow::Cow;

/// The text with those of its characters escaped that do something instead of being something: control characters (ESC,
/// line ends, tabs), and those that turn the direction of a line or end it.
///
/// # Examples
/// ```
/// use taba_core::printable;
///
/// assert_eq!(printable("Zürich 50%"), "Zürich 50%");
/// assert_eq!(printable("ok\u{1b}[2J\r\n9999"), "ok\\u{1b}[2J\\r\\n9999");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if acts(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// The same of a text of several lines: their ends stay.
///
/// # Examples
/// ```
/// assert_eq!(taba_core::printable_lines("a\u{1b}\nb\r\n"), "a\\u{1b}\nb\\r\n");
/// ```
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\n' && acts(c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(printable).collect::<Vec<_>>().join("\n"))
}

/// The same of a text that is JSON and stays that JSON: the characters are escaped as JSON does it.
///
/// # Examples
/// ```
/// assert_eq!(taba_core::printable_json("{\"a\": \"\u{202e}x\"}"), "{\"a\": \"\\u202ex\"}");
/// ```
pub fn printable_json(text: &str) -> Cow<'_, str> {
    // Of ASCII, JSON itself lets only white space between its parts pass.
    let is_raw = |c: char| !c.is_ascii() && acts(c) || c == '\u{7f}';
    if !text.contains(is_raw) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if is_raw(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown_and_the_rest_stays() {
        for text in ["", "Zürich 50%", "日本", "e\u{301}"] {
            assert_eq!(printable(text), text);
        }
        for c in ['\0', '\u{1b}', '\t', '\n', '\u{85}', '\u{202e}', '\u{2067}', '\u{feff}'] {
            let shown = printable(&format!("a{c}b")).into_owned();
            assert!(shown.starts_with("a\\") && shown.ends_with('b') && !shown.contains(c), "{shown:?}");
        }
    }
}
