//! [`Question`]: a path with encoded parameters.

use std::fmt::Write;

use crate::args::{Choice, Page, ProjArgs};

#[derive(Clone, Debug)]
pub(crate) struct Question {
    path: &'static str,
    query: String,
}

impl Question {
    pub(crate) fn new(path: &'static str) -> Self {
        Self { path, query: String::new() }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        encode(key, &mut self.query);
        self.query.push('=');
        encode(value, &mut self.query);
        self
    }

    /// Adds a parameter for each value.
    pub(crate) fn with_all(self, key: &str, values: &[String]) -> Self {
        values.iter().fold(self, |question, value| question.with(key, value))
    }

    pub(crate) fn with_flag(self, key: &str, set: bool) -> Self {
        if set { self.with(key, "true") } else { self }
    }

    pub(crate) fn with_some(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    pub(crate) fn choosing(self, choice: &Choice) -> Self {
        let question = self
            .with_all("name", &choice.names)
            .with_all("base", &choice.base)
            .with_all("type", &choice.types)
            .with_all("client", &choice.clients)
            .with_flag("re", choice.re)
            .with_flag("reserved", choice.reserved);
        choice
            .labels
            .iter()
            .fold(question, |question, (key, value)| question.with(&format!("label.{key}"), value))
    }

    pub(crate) fn projecting(self, args: &ProjArgs) -> Self {
        self.choosing(&args.choice).with_flag("detail", args.detail)
    }

    pub(crate) fn paging(self, page: &Page) -> Self {
        let limit = page.limit.map(|limit| limit.to_string());
        self.with_some("limit", limit.as_deref()).with_some("from", page.from.as_deref())
    }

    pub(crate) fn url(&self, server: &str) -> String {
        let scheme = if server.contains("://") { "" } else { "http://" };
        format!("{scheme}{}{}{}", server.trim_end_matches('/'), self.path, self.query)
    }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_unusual_is_encoded() {
        let question = Question::new("/v2/tabs").with("name", "a+b;to=é,c").with_flag("re", true);
        assert_eq!(
            question.url("localhost:1/"),
            "http://localhost:1/v2/tabs?name=a%2Bb%3Bto%3D%C3%A9%2Cc&re=true"
        );
    }
}
