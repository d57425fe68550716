//! [`Shards`]: the store: shards that each keep some VBuckets by the rules of a `Store`, with a replica that lags, and that go away, come
//! back and fail over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use taba_core::{
    Commit, Committed, Loaded, Mark, Part, StateKey, StreamId, TabName, TabType, Version, Wanted,
};
use taba_shard::layout;

/// What a Redis needs for a commit or a load, and for each field of it: see `docs/SCALING.md`.
const OPERATION: Duration = Duration::from_micros(6);
const FIELD: Duration = Duration::from_nanos(1_100);
/// What stands around a field and its value on the wire, in bytes.
const FRAMING: usize = 12;

/// What one VBucket holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VBucketContent {
    version: Version,
    marks: BTreeMap<StreamId, Mark>,
    tabs: BTreeMap<TabName, TabType>,
    /// The parts of each.
    states: BTreeMap<StateKey, BTreeMap<Part, Bytes>>,
}

/// What a Server asks of a shard.
#[derive(Debug)]
pub(super) enum StoreCall {
    Load(Wanted),
    Commit(Commit),
}

/// What a shard answers.
#[derive(Debug)]
pub(super) enum StoreReply {
    Loaded(Loaded),
    Committed(Committed),
}

struct Shard {
    is_away: bool,
    busy_until: Duration,
    /// Commits that its replica lacks, with the time of each.
    log: VecDeque<(Duration, u16, Commit)>,
    /// How often its replica has taken over.
    history: u32,
}

/// All shards, and which VBucket lies where.
pub(super) struct Shards {
    shards: Vec<Shard>,
    owners: Vec<u16>,
    fenced: Vec<bool>,
    primary: Vec<VBucketContent>,
    replica: Vec<VBucketContent>,
    lag: Duration,
}

/// A Lane that a failover took back, and its events at the mark that it had.
pub(super) type TakenBack = Vec<((StreamId, u16), u64)>;

impl Shards {
    pub(super) fn new(count: u16, vbuckets: u16, lag: Duration) -> Self {
        let content = vec![VBucketContent::default(); vbuckets.into()];
        let owners =
            (0..u32::from(vbuckets)).map(|vbucket| (vbucket * u32::from(count) / u32::from(vbuckets)) as u16);
        let mut shards = Self {
            shards: Vec::new(),
            owners: owners.collect(),
            fenced: vec![false; vbuckets.into()],
            replica: content.clone(),
            primary: content,
            lag,
        };
        shards.add(count);
        shards
    }

    /// Adds empty shards.
    pub(super) fn add(&mut self, count: u16) {
        let shard =
            |_| Shard { is_away: false, busy_until: Duration::ZERO, log: VecDeque::new(), history: 0 };
        self.shards.extend((0..count).map(shard));
    }

    pub(super) fn count(&self) -> u16 {
        self.shards.len() as u16
    }

    /// Which shard keeps each VBucket.
    pub(super) fn owners(&self) -> &[u16] {
        &self.owners
    }

    pub(super) fn is_away(&self, shard: u16) -> bool {
        self.shards[usize::from(shard)].is_away
    }

    pub(super) fn history(&self, shard: u16) -> u32 {
        self.shards[usize::from(shard)].history
    }

    pub(super) fn set_away(&mut self, shard: u16, is_away: bool) {
        self.shards[usize::from(shard)].is_away = is_away;
    }

    /// Whether writes are turned away, because the VBucket is being moved.
    pub(super) fn is_fenced(&self, vbucket: u16) -> bool {
        self.fenced[usize::from(vbucket)]
    }

    pub(super) fn fence(&mut self, vbucket: u16) {
        self.fenced[usize::from(vbucket)] = true;
    }

    /// The VBucket is at another shard from now on, and its replica has it.
    pub(super) fn switch(&mut self, vbucket: u16, to: u16) {
        let place = usize::from(vbucket);
        let from = usize::from(std::mem::replace(&mut self.owners[place], to));
        self.shards[from].log.retain(|(_, of, _)| *of != vbucket);
        self.replica[place] = self.primary[place].clone();
        self.fenced[place] = false;
    }

    /// Bytes of all that a VBucket holds, and fields.
    pub(super) fn size(&self, vbucket: u16) -> (usize, usize) {
        let content = &self.primary[usize::from(vbucket)];
        let marks = content.marks.len() * (FRAMING + 38);
        let parts = || {
            content
                .states
                .iter()
                .flat_map(|(key, parts)| parts.iter().map(move |(part, bytes)| (key, *part, bytes)))
        };
        let states: usize = parts().map(|(key, part, bytes)| state_bytes(key, part, bytes)).sum();
        (marks + states, content.marks.len() + parts().count())
    }

    /// A shard works for so long, from this time on or as soon as it can; answers when it is done.
    pub(super) fn work(&mut self, shard: u16, from: Duration, work: Duration) -> Duration {
        let shard = &mut self.shards[usize::from(shard)];
        shard.busy_until = shard.busy_until.max(from) + work;
        shard.busy_until
    }

    /// Does what the owner of the VBucket is asked, and says when it is done.
    pub(super) fn serve(&mut self, now: Duration, vbucket: u16, call: StoreCall) -> (Duration, StoreReply) {
        let place = usize::from(vbucket);
        let owner = usize::from(self.owners[place]);
        let (fields, reply) = match call {
            StoreCall::Load(wanted) => {
                let loaded = self.primary[place].load(&wanted);
                (loaded.marks.len() + loaded.states.len(), StoreReply::Loaded(loaded))
            }
            StoreCall::Commit(commit) => {
                self.catch_up(owner, now);
                let committed = self.primary[place].commit(&commit);
                let pairs = commit.pairs();
                if committed == Committed::Done {
                    self.shards[owner].log.push_back((now, vbucket, commit));
                }
                (pairs, StoreReply::Committed(committed))
            }
        };
        (self.work(owner as u16, now, OPERATION + FIELD * fields as u32), reply)
    }

    fn catch_up(&mut self, shard: usize, now: Duration) {
        while let Some((at, ..)) = self.shards[shard].log.front()
            && *at + self.lag <= now
            && let Some((_, vbucket, commit)) = self.shards[shard].log.pop_front()
        {
            let done = self.replica[usize::from(vbucket)].commit(&commit);
            assert_eq!(done, Committed::Done, "a replica does what its primary did");
        }
    }

    /// The replica takes over, with what it has. Answers how many commits are gone, and which Lanes they had moved.
    pub(super) fn fail_over(&mut self, shard: u16, died: Duration) -> (usize, TakenBack) {
        let place = usize::from(shard);
        self.catch_up(place, died);
        let lost = self.shards[place].log.len();
        self.shards[place].log.clear();
        (self.shards[place].is_away, self.shards[place].history) = (false, self.shards[place].history + 1);
        let mut taken_back = Vec::new();
        for vbucket in (0..self.owners.len()).filter(|vbucket| self.owners[*vbucket] == shard) {
            let replica = self.replica[vbucket].clone();
            let before = std::mem::replace(&mut self.primary[vbucket], replica);
            let marks = &self.primary[vbucket].marks;
            let events = |stream| marks.get(stream).map_or(0, |mark: &Mark| mark.events);
            let moved = before.marks.iter().filter(|(stream, mark)| mark.events > events(stream));
            taken_back.extend(moved.map(|(stream, mark)| ((*stream, vbucket as u16), mark.events)));
        }
        (lost, taken_back)
    }

    /// All States, each in its parts.
    pub(super) fn states(&self) -> impl Iterator<Item = (&StateKey, Vec<(Part, Bytes)>)> {
        let states = self.primary.iter().flat_map(|content| &content.states);
        states.map(|(key, parts)| (key, parts.iter().map(|(part, bytes)| (*part, bytes.clone())).collect()))
    }

    /// All marks.
    pub(super) fn marks(&self) -> usize {
        self.primary.iter().map(|content| content.marks.len()).sum()
    }
}

impl VBucketContent {
    fn load(&self, wanted: &Wanted) -> Loaded {
        let is_known = wanted.known == Some(self.version);
        let marks_max = if is_known { 0 } else { usize::MAX };
        let marks = self.marks.iter().take(marks_max).map(|(stream, mark)| (*stream, *mark));
        let tabs = wanted.tabs.iter().filter_map(|tab| Some((tab.clone(), self.tabs.get(tab)?.clone())));
        let states = wanted.states.iter().flat_map(|key| {
            let parts = self.states.get(key).into_iter().flatten();
            parts.map(|(part, bytes)| (key.clone(), *part, bytes.clone()))
        });
        Loaded::new(self.version)
            .with_marks(marks.collect())
            .with_tabs(tabs.collect())
            .with_states(states.collect())
    }

    fn commit(&mut self, commit: &Commit) -> Committed {
        if self.version != commit.expect {
            return Committed::Conflict { found: self.version };
        }
        self.version = commit.next;
        commit.marks.iter().for_each(|(stream, mark)| set(&mut self.marks, stream, mark.as_ref()));
        commit.tabs.iter().for_each(|(tab, tab_type)| set(&mut self.tabs, tab, tab_type.as_ref()));
        for (key, part, bytes) in &commit.states {
            let parts = self.states.entry(key.clone()).or_default();
            set(parts, part, bytes.as_ref());
            if parts.is_empty() {
                self.states.remove(key);
            }
        }
        Committed::Done
    }
}

fn set<K: Ord + Clone, V: Clone>(map: &mut BTreeMap<K, V>, key: &K, value: Option<&V>) {
    match value {
        Some(value) => map.insert(key.clone(), value.clone()),
        None => map.remove(key),
    };
}

fn state_bytes(key: &StateKey, part: Part, bytes: &Bytes) -> usize {
    FRAMING + layout::state_field(key, part).len() + bytes.len()
}

/// Bytes that the one command of a commit takes to a Redis.
pub(super) fn commit_bytes(commit: &Commit) -> usize {
    // EVALSHA, the hash of the script, the key, the two versions.
    let head = 120 + 2 * layout::put_version(commit.next).len();
    let marks: usize = commit
        .marks
        .iter()
        .map(|(stream, mark)| {
            FRAMING + layout::mark_field(*stream).len() + mark.map_or(0, |mark| layout::put_mark(&mark).len())
        })
        .sum();
    let tabs: usize = commit
        .tabs
        .iter()
        .map(|(tab, of)| {
            FRAMING + layout::tab_field(tab).len() + of.as_ref().map_or(0, |of| of.as_str().len())
        })
        .sum();
    let states: usize = commit
        .states
        .iter()
        .map(|(key, part, bytes)| state_bytes(key, *part, bytes.as_ref().unwrap_or(&Bytes::new())))
        .sum();
    head + marks + tabs + states
}
