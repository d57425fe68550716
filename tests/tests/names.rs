//! One word names one type in the whole family, but for words that are general.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod sources;

use std::collections::{BTreeMap, BTreeSet};

use syn::Item;

use sources::{is_test, library_files};

/// Words that say the same wherever they stand: what a program is told and tells, what goes into a pure machine and comes out,
/// and what only a module or the compiler sees.
const GENERAL: &[&str] = &[
    "Action",
    "Answer",
    "BuildError",
    "Cli",
    "Clock",
    "Command",
    "Config",
    "ConfigError",
    "Error",
    "Inner",
    "Input",
    "Params",
    "Readme",
    "Request",
    "Sealed",
    "Shared",
    "Status",
    "Tool",
    "Verified",
];
/// A handle that records has the name of the Handler that it records for.
const HANDLES: &[&str] = &["Distinct", "ExpiryGauge"];

/// Names of types by where they are declared; tests are left out.
fn items(items: &[Item], place: &str, names: &mut BTreeMap<String, BTreeSet<String>>) {
    for item in items {
        let (attributes, name) = match item {
            Item::Struct(item) => (&item.attrs, &item.ident),
            Item::Enum(item) => (&item.attrs, &item.ident),
            Item::Trait(item) => (&item.attrs, &item.ident),
            Item::Mod(item) => {
                if let (false, Some((_, inside))) = (is_test(&item.attrs), &item.content) {
                    self::items(inside, place, names);
                }
                continue;
            }
            _ => continue,
        };
        if !is_test(attributes) {
            names.entry(name.to_string()).or_default().insert(place.to_owned());
        }
    }
}

#[test]
fn one_word_names_one_type() {
    let mut names = BTreeMap::new();
    for (path, file) in library_files() {
        items(&file.items, &path.display().to_string(), &mut names);
    }
    assert!(names.len() > 300, "{} names", names.len());
    let twice: Vec<_> = names
        .iter()
        .filter(|(name, places)| {
            places.len() > 1 && !GENERAL.contains(&name.as_str()) && !HANDLES.contains(&name.as_str())
        })
        .map(|(name, places)| {
            let places: Vec<_> = places.iter().map(|place| place.rsplit("/../").next().unwrap()).collect();
            format!("{name}: {}", places.join(", "))
        })
        .collect();
    assert!(twice.is_empty(), "{} words name several types:\n{}", twice.len(), twice.join("\n"));
}
