//! [`MissingPart`]: the part of the store that a query could not read. The rest is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};
use taba_core::{Peek, Peeked, Store, StoreError, VBucket, Version};

use super::error::QueryError;
use super::tab_cache::TabVersions;

/// Causes listed in full; the rest is left out.
const CAUSES_MAX: usize = 8;

/// What an answer lacks because VBuckets could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Affects {
    /// Only the counts of lost events: they are `null`, and all results are complete.
    Lost,
    /// Results: some may be missing, and aggregates over many Tabs lack the States of those VBuckets.
    Results,
}

/// The part of the store that a query could not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MissingPart {
    /// The VBuckets; serialized as their number.
    #[serde(serialize_with = "count")]
    pub vbuckets: BTreeSet<VBucket>,
    /// Their shards, sorted; empty for a store without shards.
    pub shards: BTreeSet<String>,
    /// The distinct causes, at most 8.
    pub why: BTreeSet<String>,
    /// What the answer lacks.
    pub affects: Affects,
}

fn count<S: Serializer>(vbuckets: &BTreeSet<VBucket>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(vbuckets.len() as u64)
}

/// An answer, and the part of the store that it lacks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PartialAnswer<T> {
    /// The answer.
    pub value: T,
    /// The unreadable part, if any.
    pub missing: Option<MissingPart>,
}

impl MissingPart {
    /// The union.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.vbuckets.extend(other.vbuckets);
        self.shards.extend(other.shards);
        for why in other.why {
            add_cause(&mut self.why, why);
        }
        self.affects = self.affects.max(other.affects);
        self
    }

    /// The union, if there is any.
    pub(super) fn join(one: Option<Self>, two: Option<Self>) -> Option<Self> {
        match (one, two) {
            (Some(one), Some(two)) => Some(one.and(two)),
            (one, two) => one.or(two),
        }
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        let lacks = match self.affects {
            Affects::Lost => "how many events were lost is unknown",
            Affects::Results => "results may be missing or too low",
        };
        let on = if self.shards.is_empty() { String::new() } else { format!(" on {}", words(&self.shards)) };
        let vbuckets = self.vbuckets.len();
        format!("# missing: {vbuckets} vbuckets{on} could not be read, so {lacks}: {}\n", words(&self.why))
    }
}

fn words(words: &BTreeSet<String>) -> String {
    words.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn add_cause(why: &mut BTreeSet<String>, cause: String) {
    if why.len() < CAUSES_MAX {
        why.insert(cause);
    }
}

/// Reads for one query, and collects what cannot be read.
pub(super) struct Coverage {
    store: Arc<dyn Store>,
    seen: Mutex<CoverageState>,
}

#[derive(Default)]
struct CoverageState {
    /// Successful reads, or ones that were not needed, since the last [`Coverage::settle`].
    read: u64,
    /// The first error since the last [`Coverage::settle`].
    failed: Option<QueryError>,
    missing: Option<MissingPart>,
    /// The versions that VBuckets were found at.
    versions: BTreeMap<VBucket, Version>,
    /// Shards that did not answer; they are not asked again in this query.
    away: BTreeSet<String>,
}

impl Coverage {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        Self { store: Arc::clone(store), seen: Mutex::default() }
    }

    /// Reads from this VBucket; `None` when that fails, or when its shard did not answer before.
    pub(super) async fn read<T>(
        &self,
        vbucket: VBucket,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Option<T> {
        if self.is_away(vbucket) {
            return None;
        }
        match read.await {
            Ok(value) => {
                self.has_all();
                Some(value)
            }
            Err(error) => {
                self.lacks(vbucket, error.into());
                None
            }
        }
    }

    /// Looks at VBuckets in one go; those that cannot be read are left out. Whoever needs to read no more of one
    /// [says so](Self::has_all).
    pub(super) async fn peek(&self, mut peeks: Vec<Peek>) -> Vec<(VBucket, Peeked)> {
        peeks.retain(|peek| !self.is_away(peek.vbucket));
        let answers = self.store.peek(&peeks).await;
        let found = |(peek, answer): (&Peek, Result<Peeked, StoreError>)| {
            let error = match answer {
                Ok(peeked) => return Some((peek.vbucket, peeked)),
                Err(error) => error,
            };
            self.lacks(peek.vbucket, error.into());
            None
        };
        peeks.iter().zip(answers).filter_map(found).collect()
    }

    /// Whether the shard of a VBucket did not answer before; then the VBucket is missing.
    fn is_away(&self, vbucket: VBucket) -> bool {
        if self.seen().away.is_empty() {
            return false;
        }
        let Some(shard) = self.store.place(vbucket).filter(|shard| self.seen().away.contains(shard)) else {
            return false;
        };
        self.seen().lacks(vbucket, Some(&shard), None);
        true
    }

    /// Notes the version that a VBucket was found at.
    pub(super) fn found_at(&self, vbucket: VBucket, version: Option<Version>) {
        if let Some(version) = version {
            self.seen().versions.insert(vbucket, version);
        }
    }

    /// The versions that these VBuckets were found at; `None` if that is not known of all.
    pub(super) fn versions(&self, vbuckets: &[VBucket]) -> Option<TabVersions> {
        let seen = self.seen();
        vbuckets.iter().map(|vbucket| Some((*vbucket, *seen.versions.get(vbucket)?))).collect()
    }

    /// Notes that what a read would bring is here.
    pub(super) fn has_all(&self) {
        self.seen().read += 1;
    }

    /// Notes that a VBucket could not be read completely.
    pub(super) fn lacks(&self, vbucket: VBucket, error: QueryError) {
        let shard = self.store.place(vbucket);
        let mut seen = self.seen();
        if let (QueryError::Store(StoreError::Unavailable { .. }), Some(shard)) = (&error, &shard) {
            seen.away.insert(shard.clone());
        }
        seen.lacks(vbucket, shard.as_ref(), Some(error));
    }

    /// Ends one phase of the query, such as listing the Tabs.
    ///
    /// # Errors
    /// [`QueryError::Store`] when every read of the phase failed.
    pub(super) fn settle(&self) -> Result<(), QueryError> {
        let mut seen = self.seen();
        let read = std::mem::take(&mut seen.read);
        match seen.failed.take() {
            Some(error) if read == 0 => Err(error),
            _ => Ok(()),
        }
    }

    /// The part that could not be read so far.
    pub(super) fn missing(&self) -> Option<MissingPart> {
        self.seen().missing.clone()
    }

    /// The number of VBuckets that could not be read so far.
    pub(super) fn missing_count(&self) -> usize {
        self.seen().missing.as_ref().map_or(0, |missing| missing.vbuckets.len())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, CoverageState> {
        // It belongs to one query, which a panic ends.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoverageState {
    fn lacks(&mut self, vbucket: VBucket, shard: Option<&String>, error: Option<QueryError>) {
        let affects = Affects::Results;
        let (vbuckets, shards, why) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let missing = self.missing.get_or_insert(MissingPart { vbuckets, shards, why, affects });
        missing.vbuckets.insert(vbucket);
        missing.shards.extend(shard.cloned());
        if let Some(error) = error {
            let cause = match &error {
                QueryError::Store(error) => error.reason(),
                error => error.message(),
            };
            add_cause(&mut missing.why, cause);
            self.failed.get_or_insert(error);
        }
    }
}
