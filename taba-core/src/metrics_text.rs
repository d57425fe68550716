//! [`MetricsText`]: numbers as Prometheus text.

use crate::text::printable_lines;
use std::fmt::{Display, Write};

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It grows and shrinks.
    Gauge,
}

/// Numbers as Prometheus text, version 0.0.4: families, each with its samples behind it.
///
/// Source of the format: Prometheus, *Exposition formats*, "Text-based format".
///
/// # Examples
/// ```
/// use taba_core::{MetricKind, MetricsText};
///
/// let mut text = MetricsText::default();
/// text.gauge("lanes", "Lanes in use", 3);
/// text.family(MetricKind::Counter, "refused_total", "Refused events");
/// text.sample("refused_total", &[("why", "full")], 7);
/// let lanes = "# HELP lanes Lanes in use\n# TYPE lanes gauge\nlanes 3\n";
/// let refused = "# HELP refused_total Refused events\n# TYPE refused_total counter\nrefused_total{why=\"full\"} 7\n";
/// assert_eq!(text.into_string(), [lanes, refused].concat());
/// ```
#[derive(Clone, Debug, Default)]
pub struct MetricsText(String);

impl MetricsText {
    /// The media type of the text.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// A family of one number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display + Copy) {
        self.family(MetricKind::Counter, name, help);
        self.sample(name, &[], value);
    }

    /// A family of one number that grows and shrinks.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display + Copy) {
        self.family(MetricKind::Gauge, name, help);
        self.sample(name, &[], value);
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, kind: MetricKind, name: &str, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A number of the family that was begun last. In the values of labels, a backslash, a quote and a line feed are escaped.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display + Copy) {
        let escape = |value: &str| {
            printable_lines(value).replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
        };
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.write(format_args!("{name}{labels} {value}\n"));
    }

    /// Adds what another text says.
    pub fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = MetricsText::default();
        text.sample("n", &[("a", "x\"y\\z\n"), ("b", "2\u{1b}")], 1);
        assert_eq!(text.into_string(), "n{a=\"x\\\"y\\\\z\\n\",b=\"2\\\\u{1b}\"} 1\n");
    }
}
