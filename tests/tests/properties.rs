//! `docs/PROPERTIES.md` names tests that exist.

use std::fs;
use std::path::Path;

/// The words between backticks.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/PROPERTIES.md")).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| promise");
    let rows: Vec<&str> = text.lines().filter(is_row).collect();
    assert!(rows.len() > 10, "the tables were not found");
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [_promise, _rule, tests] = cells[..] else { panic!("not three columns: {row}") };
        let named: Vec<_> = code(tests).filter_map(|word| word.split_once(".rs::")).collect();
        assert!(!named.is_empty(), "no test is named: {row}");
        for (file, function) in named {
            let source = fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
            let is_there =
                source.contains(&format!("fn {function}(")) || source.contains(&format!("fn {function}<"));
            assert!(is_there, "there is no {function} in {file}.rs: {row}");
        }
    }
}
