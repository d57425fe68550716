//! [`Counts`]: the counts of operations by name, the file in which they are kept, and their [`Comparison`].

use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Growth, and shrinkage, that is no change, in percent.
const TOLERANCE_PERCENT: u64 = 5;
/// The same for small counts, absolute: a table that grows one step earlier or later.
const TOLERANCE_INSTRUCTIONS: u64 = 20;

/// What one operation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Instructions of the program itself, without those of the C library.
    pub(crate) instructions: u64,
    /// How often memory was allocated, or moved to a greater allocation.
    pub(crate) allocations: u64,
}

/// Counts by the name of the operation.
pub(crate) type Counts = BTreeMap<String, Count>;

/// The text of the file.
pub(crate) fn text(counts: &Counts, rustc: &str) -> String {
    let mut text = format!(
        "# Instructions of each operation, and how often it allocates memory: written by `scripts/instructions --accept`.\n\
         # Recorded with {rustc}.\n"
    );
    for (name, Count { instructions, allocations }) in counts {
        let _ = writeln!(text, "{name} {instructions} {allocations}");
    }
    text
}

/// Whether the file was recorded with this rustc: another one makes other instructions.
pub(crate) fn is_recorded_with(text: &str, rustc: &str) -> bool {
    text.lines().any(|line| line == format!("# Recorded with {rustc}."))
}

/// Reads the file.
///
/// # Errors
/// The line that is none of `NAME INSTRUCTIONS ALLOCATIONS`.
pub(crate) fn parse(text: &str) -> Result<Counts, String> {
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let name = fields.next()?.to_owned();
        let instructions = fields.next()?.parse().ok()?;
        let allocations = fields.next()?.parse().ok()?;
        fields.next().is_none().then_some((name, Count { instructions, allocations }))
    };
    let lines = text.lines().filter(|text| !text.starts_with('#') && !text.is_empty());
    lines
        .map(|text| line(text).ok_or_else(|| format!("`{text}` is not NAME INSTRUCTIONS ALLOCATIONS")))
        .collect()
}

/// Recorded counts beside measured ones: what differs.
pub(crate) struct Comparison {
    grown: Vec<String>,
    shrunk: Vec<String>,
    unrecorded: Vec<String>,
    gone: Vec<String>,
    count: usize,
}

impl Comparison {
    pub(crate) fn of(recorded: &Counts, measured: &Counts) -> Self {
        let (mut grown, mut shrunk, mut unrecorded) = (Vec::new(), Vec::new(), Vec::new());
        for (name, new) in measured {
            let Some(old) = recorded.get(name) else {
                unrecorded.push(format!(
                    "{name}: {} instructions, {} allocations",
                    new.instructions, new.allocations
                ));
                continue;
            };
            for (what, old, new, slack) in [
                ("instructions", old.instructions, new.instructions, TOLERANCE_INSTRUCTIONS),
                ("allocations", old.allocations, new.allocations, 0),
            ] {
                let line = || format!("{name}: {what} {old} -> {new} ({})", percent(old, new));
                if is_more(old, new, slack) {
                    grown.push(line());
                } else if is_more(new, old, slack) {
                    shrunk.push(line());
                }
            }
        }
        let gone = recorded.keys().filter(|name| !measured.contains_key(*name)).cloned().collect();
        Self { grown, shrunk, unrecorded, gone, count: measured.len() }
    }

    /// Whether everything is as it is recorded, within the tolerance.
    pub(crate) const fn is_same(&self) -> bool {
        self.grown.is_empty() && self.shrunk.is_empty() && self.unrecorded.is_empty() && self.gone.is_empty()
    }
}

/// Whether `new` is more than `old` by more than the tolerance.
const fn is_more(old: u64, new: u64, slack: u64) -> bool {
    new * 100 > old * (100 + TOLERANCE_PERCENT) && new > old + slack
}

fn percent(old: u64, new: u64) -> String {
    if old == 0 { "new".to_owned() } else { format!("{:+.1} %", (new as f64 / old as f64 - 1.0) * 100.0) }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, lines) in [
            ("grew by more than 5 %", &self.grown),
            (
                "shrank by more than 5 %: write the gain down, so that it is not lost again unnoticed",
                &self.shrunk,
            ),
            ("not recorded yet", &self.unrecorded),
            ("recorded, but not measured any more", &self.gone),
        ] {
            if !lines.is_empty() {
                writeln!(f, "{what}:\n  {}", lines.join("\n  "))?;
            }
        }
        match self.is_same() {
            true => writeln!(f, "{} operations cost what is recorded, to {TOLERANCE_PERCENT} %", self.count),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(instructions: u64, allocations: u64) -> Counts {
        Counts::from([("fold".to_owned(), Count { instructions, allocations })])
    }

    #[test]
    fn the_file_reads_back() {
        let counts = one(12_345, 6);
        let text = text(&counts, "rustc 1.95.0");
        assert!(is_recorded_with(&text, "rustc 1.95.0") && !is_recorded_with(&text, "rustc 1.96.0"));
        assert_eq!(parse(&text), Ok(counts));
        assert!(parse("fold 1").is_err() && parse("fold 1 2 3").is_err() && parse("fold x 1").is_err());
    }

    #[test]
    fn growth_and_shrinkage_beyond_the_tolerance_differ_and_are_told() {
        let told = |old, new| {
            let comparison = Comparison::of(&old, &new);
            (comparison.is_same(), comparison.to_string())
        };
        assert!(told(one(1_000, 20), one(1_050, 21)).0);
        assert!(told(one(1_050, 21), one(1_000, 20)).0);
        assert!(told(one(100, 0), one(120, 0)).0, "20 instructions more are no change");
        let (is_same, text) = told(one(1_000, 20), one(1_051, 22));
        assert!(!is_same);
        assert_eq!(
            text,
            "grew by more than 5 %:\n  fold: instructions 1000 -> 1051 (+5.1 %)\n  \
             fold: allocations 20 -> 22 (+10.0 %)\n"
        );
        let (is_same, text) = told(one(1_000, 20), one(900, 20));
        assert!(!is_same && text.starts_with("shrank"), "{text}");
        assert!(!told(one(1_000, 0), one(1_000, 1)).0, "the first allocation is growth");
    }

    #[test]
    fn an_operation_that_only_one_of_both_has_differs() {
        let none = Counts::new();
        let both = [Comparison::of(&none, &one(1, 1)), Comparison::of(&one(1, 1), &none)];
        assert!(both.iter().all(|comparison| !comparison.is_same()));
        assert_eq!(both[0].to_string(), "not recorded yet:\n  fold: 1 instructions, 1 allocations\n");
        assert_eq!(both[1].to_string(), "recorded, but not measured any more:\n  fold\n");
    }
}
