//! A model of shards that go back in time: several processes commit, sweep, crash and fail over, and no field is ever
//! without its index entries.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use taba_core::{ClientId, Mark, TabType};

use super::*;

fn tab(n: u8) -> TabName {
    TabName::new(&format!("t{n}")).unwrap()
}

fn key(n: u8) -> StateKey {
    StateKey { tab: tab(n % 2), client: ClientId::new(&format!("c{n}")).unwrap() }
}

/// One VBucket on one shard: fields (by the entry of each, without parts) and index entries.
#[derive(Clone, Debug, Default)]
struct Shard {
    version: Version,
    streams: BTreeSet<StreamId>,
    types: BTreeSet<TabName>,
    states: BTreeSet<StateKey>,
    entries: BTreeSet<IndexEntry>,
}

impl Shard {
    fn check(&self) {
        for stream in &self.streams {
            assert!(self.entries.contains(&IndexEntry::Stream(*stream)), "{stream} is in no index: {self:?}");
        }
        for tab in self.types.iter().chain(self.states.iter().map(|key| &key.tab)) {
            assert!(self.entries.contains(&IndexEntry::Tab(tab.clone())), "{tab} is in no index: {self:?}");
        }
        for key in &self.states {
            assert!(
                self.entries.contains(&IndexEntry::Client(key.clone())),
                "{key} is in no index: {self:?}"
            );
        }
    }

    /// The commit script. `looks`: whether it checks its index entries (rule 1).
    fn commit(&mut self, commit: &Commit, unknown: &[IndexEntry], looks: bool) -> bool {
        if self.version != commit.expect || looks && !unknown.iter().all(|entry| self.entries.contains(entry))
        {
            return false;
        }
        self.version = commit.next;
        for (stream, mark) in &commit.marks {
            set(&mut self.streams, *stream, mark.is_some());
        }
        for (tab, tab_type) in &commit.tabs {
            set(&mut self.types, tab.clone(), tab_type.is_some());
        }
        for (key, _, bytes) in &commit.states {
            set(&mut self.states, key.clone(), bytes.is_some());
        }
        true
    }

    fn sweep(&mut self) {
        let (streams, types, states) = (self.streams.clone(), self.types.clone(), self.states.clone());
        self.entries.retain(|entry| match entry {
            IndexEntry::Stream(stream) => streams.contains(stream),
            IndexEntry::Tab(tab) => types.contains(tab) || states.iter().any(|key| key.tab == *tab),
            IndexEntry::Client(key) | IndexEntry::Part(key, _) => states.contains(key),
        });
    }
}

fn set<T: Ord>(items: &mut BTreeSet<T>, item: T, is_there: bool) {
    if is_there {
        items.insert(item);
    } else {
        items.remove(&item);
    }
}

/// Which rules are in force.
#[derive(Clone, Copy)]
struct Rules {
    looks: bool,
    ties_to_a_version: bool,
    forgets_removed: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// A process writes the entries it needs; its commit follows in a later step, or never.
    Index {
        process: usize,
    },
    /// A process makes its planned commit.
    Commit {
        process: usize,
    },
    /// A process reads the shard and plans a commit.
    Plan {
        process: usize,
        set: Vec<(u8, u8, bool)>,
    },
    Sweep,
    /// A failover to the state before this many changes.
    GoBack {
        changes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let process = 0_usize..2;
    let set = prop::collection::vec((0_u8..3, 0_u8..3, prop::bool::weighted(0.7)), 1..3);
    prop_oneof![
        3 => process.clone().prop_map(|process| Step::Index { process }),
        4 => process.clone().prop_map(|process| Step::Commit { process }),
        4 => (process, set).prop_map(|(process, set)| Step::Plan { process, set }),
        2 => Just(Step::Sweep),
        1 => (1_usize..5).prop_map(|changes| Step::GoBack { changes }),
    ]
}

/// A process like a planner: the version it read or made, and its next commit.
#[derive(Default)]
struct Process {
    known: IndexCache,
    seen: Version,
    planned: Option<(Commit, Vec<IndexEntry>)>,
}

fn run(steps: Vec<Step>, rules: Rules) {
    let mut history = vec![Shard::default()];
    let mut processes = [Process::default(), Process::default()];
    let mut versions = 0;
    for step in steps {
        let mut shard = history.last().unwrap().clone();
        match step {
            Step::Plan { process, set } => {
                let process = &mut processes[process];
                versions += 1;
                let next = Version { writer: 1, count: versions };
                let mut commit = Commit::new(process.seen, next);
                let (mut marks, mut tabs, mut states) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
                for (kind, n, is_set) in set {
                    match kind {
                        0 => drop(marks.insert(StreamId(n.into()), is_set.then(Mark::default))),
                        1 => drop(tabs.insert(tab(n), is_set.then(|| TabType::new("T").unwrap()))),
                        _ => drop(states.insert(key(n), is_set.then(|| "x".into()))),
                    }
                }
                commit.marks.extend(marks);
                commit.tabs.extend(tabs);
                commit.states.extend(states.into_iter().map(|(key, bytes)| (key, Part::WHOLE, bytes)));
                let unknown = if rules.ties_to_a_version {
                    process.known.missing(&commit)
                } else {
                    let at = process.known.at;
                    process.known.missing(&commit.clone().with_expect(at.unwrap_or_default()))
                };
                process.planned = Some((commit, unknown));
                continue;
            }
            Step::Index { process } => {
                if let Some((_, unknown)) = &processes[process].planned {
                    shard.entries.extend(unknown.iter().cloned());
                }
            }
            Step::Commit { process } => {
                let process = &mut processes[process];
                let Some((commit, unknown)) = process.planned.take() else { continue };
                if shard.commit(&commit, &unknown, rules.looks) {
                    process.known.committed(&commit, usize::MAX);
                    if !rules.forgets_removed {
                        process.known.entries.extend(removed(&commit).map(|entry| entry.digest()));
                    }
                    process.seen = commit.next;
                } else if rules.ties_to_a_version {
                    process.known.forget();
                    process.seen = shard.version;
                } else {
                    process.seen = shard.version;
                    process.known.at = Some(shard.version);
                }
            }
            Step::Sweep => shard.sweep(),
            Step::GoBack { changes } => {
                history.truncate(history.len().saturating_sub(changes).max(1));
                continue;
            }
        }
        shard.check();
        history.push(shard);
    }
}

const ALL: Rules = Rules { looks: true, ties_to_a_version: true, forgets_removed: true };

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_field_is_ever_without_its_entries(steps in steps()) {
        run(steps, ALL);
    }
}

/// Whether one of many runs leaves a field without its entries.
fn breaks(rules: Rules) -> bool {
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig {
            cases: 20_000,
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    runner
        .run(&steps(), |steps| {
            let run = std::panic::catch_unwind(|| run(steps, rules));
            run.map_err(|_| TestCaseError::fail("a field without entries"))
        })
        .is_err()
}

#[test]
fn each_rule_is_needed() {
    assert!(breaks(Rules { looks: false, ..ALL }), "the script must look");
    assert!(breaks(Rules { ties_to_a_version: false, ..ALL }), "what is known must be tied to a version");
    assert!(breaks(Rules { forgets_removed: false, ..ALL }), "what is removed must be forgotten");
    assert!(!breaks(ALL));
}

#[test]
fn past_the_bound_nothing_is_remembered() {
    let next = Version { writer: 1, count: 1 };
    let tabs = (0..3).map(|n| (tab(n), Some(TabType::new("T").unwrap()))).collect();
    let commit = Commit::new(Version::NEVER, next).with_tabs(tabs);
    let mut known = IndexCache::default();
    known.committed(&commit, 2);
    assert!(known.is_empty());
    assert_eq!(known.missing(&commit.clone().with_expect(next)).len(), 3);
    known.committed(&commit, 3);
    assert_eq!(known.len(), 3);
    assert!(!known.is_empty());
    assert!(known.missing(&commit.clone().with_expect(next)).is_empty());
    assert_eq!(known.missing(&commit).len(), 3, "at another version nothing is known");
}

#[test]
fn a_commit_from_another_version_keeps_only_its_own_entries() {
    let at = |count| Version { writer: 1, count };
    let of = |n: u8, expect, next| {
        let tabs = vec![(tab(n), Some(TabType::new("T").unwrap()))];
        Commit::new(at(expect), at(next)).with_tabs(tabs)
    };
    let mut known = IndexCache::default();
    known.committed(&of(0, 0, 1), usize::MAX);
    known.committed(&of(1, 1, 2), usize::MAX);
    assert_eq!(known.len(), 2, "each commit follows on the one before");
    known.committed(&of(2, 7, 8), usize::MAX);
    assert_eq!(known.missing(&of(0, 8, 9)).len(), 1, "others have committed in between");
    assert!(known.missing(&of(2, 8, 9)).is_empty());
}

#[test]
fn a_part_has_an_entry_of_its_own_and_a_whole_state_has_none() {
    let commit = |part, bytes: Option<&'static str>| {
        Commit::default().with_states(vec![(key(0), part, bytes.map(Into::into))])
    };
    let (tab, client) = (IndexEntry::Tab(tab(0)), IndexEntry::Client(key(0)));
    let part = IndexEntry::Part(key(0), Part(7));
    let cache = IndexCache::default();
    let sorted = |mut entries: Vec<IndexEntry>| {
        entries.sort_unstable();
        entries
    };
    let whole = sorted(vec![tab.clone(), client.clone()]);
    let with_part = sorted(vec![tab, client, part]);
    assert_eq!(cache.missing(&commit(Part::WHOLE, Some("x"))), whole);
    assert_eq!(cache.missing(&commit(Part(7), Some("x"))), with_part);
    assert_eq!(sorted(removed(&commit(Part::WHOLE, None)).collect()), whole);
    assert_eq!(sorted(removed(&commit(Part(7), None)).collect()), with_part);
}
