//! [`Store`]: where States are kept. Three stores pass the same kit (`taba_core::laws::store`): memory, one
//! directory, several Redis processes.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::batch::{Mark, StreamId};
use crate::error::Remedy;
use crate::name::{ClientId, TabName, TabType};
use crate::server_entry::ServerEntry;
use crate::store_id::StoreId;
use crate::vbucket::{VBucket, VBuckets};

/// Which State: of which Tab, of which Client. Sorts by Tab, then by Client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateKey {
    /// What was measured.
    pub tab: TabName,
    /// Who measured it.
    pub client: ClientId,
}

impl StateKey {
    /// A key that sorts before or at every State of this Tab.
    pub(crate) fn first_of(tab: &TabName) -> Self {
        // "!" is the first of the characters that a Client id may hold, and alone it is the first of all ids.
        Self { tab: tab.clone(), client: ClientId::new("!").expect("one name character") }
    }
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.client, self.tab)
    }
}

/// A piece of a State that is stored by itself. To a store, parts are bytes under numbers; an
/// [`Envelope`](crate::Envelope) makes a State of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Part(pub u16);

impl Part {
    /// The part that every State has: it holds all there is, or all since the [base](Self::BASE).
    pub const WHOLE: Self = Self(0);
    /// What a divided State was at some time.
    pub const BASE: Self = Self(1);
}

/// What a VBucket held when it was read: a token that never comes again with other content.
///
/// Not a counter: a store that went back in time would reach the same number with different content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The writer's incarnation: a random number; 0 for a VBucket that was never written.
    pub writer: u64,
    /// How many versions that writer had made.
    pub count: u64,
}

impl Version {
    /// The version of a VBucket that was never written.
    pub const NEVER: Self = Self { writer: 0, count: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.writer, self.count)
    }
}

/// What [`Store::load`] is to read, besides the version and the marks.
///
/// This, [`Loaded`], [`Commit`] and [`Scan`] may get fields that default to what they do now: make them with `default` or `new`
/// and `with_…`, and read fields by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Wanted {
    /// Tabs whose type is needed.
    pub tabs: Vec<TabName>,
    /// States that are needed.
    pub states: Vec<StateKey>,
    /// The version of which the asker has all marks. A store that is at it may leave them out: with 10,000 senders they are
    /// half a megabyte.
    pub known: Option<Version>,
}

/// A VBucket at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Loaded {
    /// The version that was read.
    pub version: Version,
    /// The marks of all Lanes, in any order; perhaps none when this is the version that was [known](Wanted::known).
    pub marks: Vec<(StreamId, Mark)>,
    /// The types of the wanted Tabs that exist.
    pub tabs: Vec<(TabName, TabType)>,
    /// All parts of the wanted States that exist, those of one State in a row.
    pub states: Vec<(StateKey, Part, Bytes)>,
}

/// A change of one VBucket: all of it happens, or nothing. With serde's traits, as all that a [`Store`] is asked and gives, for a
/// store that hands it to another process; the form is that of this version of the crate, and no promise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Commit {
    /// The VBucket must still be at this version.
    pub expect: Version,
    /// It is at this one afterwards.
    pub next: Version,
    /// Marks to set; `None` forgets the Lane.
    pub marks: Vec<(StreamId, Option<Mark>)>,
    /// The types of Tabs to set; `None` removes the Tab from the index.
    pub tabs: Vec<(TabName, Option<TabType>)>,
    /// Parts of States to set; `None` removes the part.
    pub states: Vec<(StateKey, Part, Option<Bytes>)>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a commit that met a conflict has changed nothing"]
#[non_exhaustive]
pub enum Committed {
    /// It is stored.
    Done,
    /// The VBucket is at another version; nothing was changed.
    Conflict {
        /// The version it is at. If that is [`Commit::next`], this very commit had been stored before.
        found: Version,
    },
}

/// What [`Store::scan`] is to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scan {
    /// Only States of this Tab.
    pub tab: Option<TabName>,
    /// Only States after this one, in the order of keys.
    pub after: Option<StateKey>,
    /// At most this many States, at least one.
    pub limit: usize,
    /// Whether to bring the States or only their keys.
    pub what: ScanWhat,
}

/// Whether a scan brings States or only their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanWhat {
    /// Keys; [`Scanned::parts`] stays empty.
    Keys,
    /// Keys and States.
    #[default]
    States,
}

impl Default for Scan {
    /// All States, on one page.
    fn default() -> Self {
        Self { tab: None, after: None, limit: usize::MAX, what: ScanWhat::States }
    }
}

/// One State that a scan found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Scanned {
    /// Which State.
    pub key: StateKey,
    /// Its parts, in order; empty for [`ScanWhat::Keys`].
    pub parts: Vec<(Part, Bytes)>,
}

/// The Tabs of a VBucket, as [`Store::tab_list`] gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TabList {
    /// The version that the VBucket is at; `None` when the store does not say, or it changed meanwhile.
    pub version: Option<Version>,
    /// The version since which these are its Tabs, in each history that contains it; `None` when the store does not say.
    pub since: Option<Version>,
    /// Every Tab with its type, sorted by name; `None` when they are those that the asker knows.
    pub tabs: Option<Vec<(TabName, TabType)>>,
}

/// A page of a scan, as [`Store::page`] gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The one version of the VBucket that all of the page is of; `None` when the store does not say, or there were several.
    pub version: Option<Version>,
    /// The States.
    pub states: Vec<Scanned>,
}

/// Which States of a VBucket [`Store::peek`] is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peek {
    /// Of which VBucket.
    pub vbucket: VBucket,
    /// Which States; of each only the part [`Part::WHOLE`].
    pub states: Vec<StateKey>,
}

/// A few small things of a VBucket at one moment, as [`Store::peek`] gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peeked {
    /// The version that all of it is of; `None` when the store does not say.
    pub version: Option<Version>,
    /// The [`TabList::since`] of the Tabs of that version; `None` when the store does not say.
    pub tabs_since: Option<Version>,
    /// For each State that was asked for, in that order: its part [`Part::WHOLE`], if there is one.
    pub states: Vec<Option<Bytes>>,
}

/// What [`Store::tidy`] and [`Store::reclaim`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tidied {
    /// Fields and index entries that nobody could see.
    pub entries: u64,
    /// Bytes given back to the system.
    pub bytes: u64,
}

impl Wanted {
    /// With these Tabs.
    #[must_use]
    pub fn with_tabs(self, tabs: Vec<TabName>) -> Self {
        Self { tabs, ..self }
    }

    /// With these States.
    #[must_use]
    pub fn with_states(self, states: Vec<StateKey>) -> Self {
        Self { states, ..self }
    }

    /// With what the asker knows: the marks of this version.
    #[must_use]
    pub fn with_known(self, known: impl Into<Option<Version>>) -> Self {
        Self { known: known.into(), ..self }
    }
}

impl Loaded {
    /// A VBucket that holds nothing, at a version.
    pub fn new(version: Version) -> Self {
        Self { version, ..Self::default() }
    }

    /// With these marks.
    #[must_use]
    pub fn with_marks(self, marks: Vec<(StreamId, Mark)>) -> Self {
        Self { marks, ..self }
    }

    /// With these types of Tabs.
    #[must_use]
    pub fn with_tabs(self, tabs: Vec<(TabName, TabType)>) -> Self {
        Self { tabs, ..self }
    }

    /// With these parts of States.
    #[must_use]
    pub fn with_states(self, states: Vec<(StateKey, Part, Bytes)>) -> Self {
        Self { states, ..self }
    }
}

impl Scan {
    /// Of this Tab only; `None`: of all.
    #[must_use]
    pub fn with_tab(self, tab: impl Into<Option<TabName>>) -> Self {
        Self { tab: tab.into(), ..self }
    }

    /// From behind this State on: the next page begins after the last State of the one before.
    #[must_use]
    pub fn with_after(self, after: impl Into<Option<StateKey>>) -> Self {
        Self { after: after.into(), ..self }
    }

    /// At most this many States.
    #[must_use]
    pub fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Keys, or States.
    #[must_use]
    pub fn with_what(self, what: ScanWhat) -> Self {
        Self { what, ..self }
    }
}

impl Scanned {
    /// A State, and its parts in order; none for [`ScanWhat::Keys`].
    pub const fn new(key: StateKey, parts: Vec<(Part, Bytes)>) -> Self {
        Self { key, parts }
    }
}

impl TabList {
    /// Of a VBucket at a version.
    #[must_use]
    pub fn with_version(self, version: impl Into<Option<Version>>) -> Self {
        Self { version: version.into(), ..self }
    }

    /// The same since a version.
    #[must_use]
    pub fn with_since(self, since: impl Into<Option<Version>>) -> Self {
        Self { since: since.into(), ..self }
    }

    /// With these Tabs, sorted by name.
    #[must_use]
    pub fn with_tabs(self, tabs: Vec<(TabName, TabType)>) -> Self {
        Self { tabs: Some(tabs), ..self }
    }
}

impl Page {
    /// These States.
    pub const fn new(version: Option<Version>, states: Vec<Scanned>) -> Self {
        Self { version, states }
    }
}

impl Peek {
    /// These States of a VBucket.
    pub const fn new(vbucket: VBucket, states: Vec<StateKey>) -> Self {
        Self { vbucket, states }
    }
}

impl Peeked {
    /// The whole parts of these States, of a VBucket at a version.
    pub fn new(version: impl Into<Option<Version>>, states: Vec<Option<Bytes>>) -> Self {
        Self { version: version.into(), tabs_since: None, states }
    }

    /// With Tabs that are the same since a version.
    #[must_use]
    pub fn with_tabs_since(self, since: impl Into<Option<Version>>) -> Self {
        Self { tabs_since: since.into(), ..self }
    }

    /// The same, of all that was loaded.
    fn of(wanted: &[StateKey], loaded: Loaded) -> Self {
        let whole = loaded.states.into_iter().filter(|(_, part, _)| *part == Part::WHOLE);
        let found: BTreeMap<StateKey, Bytes> = whole.map(|(key, _, bytes)| (key, bytes)).collect();
        Self::new(loaded.version, wanted.iter().map(|key| found.get(key).cloned()).collect())
    }
}

impl Tidied {
    /// Entries that were removed, and bytes that were given back.
    pub const fn new(entries: u64, bytes: u64) -> Self {
        Self { entries, bytes }
    }
}

/// Why a store did not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or cannot write: a broken connection, a full disk. Whether a commit that failed
    /// so has happened is unknown; loading the VBucket again tells.
    #[error("the store is unavailable")]
    Unavailable {
        /// How long to wait before the next try.
        retry_after: std::time::Duration,
        /// What went wrong underneath.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What is stored is not what a store writes.
    #[error("{vbucket} holds a damaged {what}")]
    Damaged {
        /// Where.
        vbucket: VBucket,
        /// What could not be read.
        what: &'static str,
    },
    /// The VBucket is not kept where it was looked for: it was moved, is being moved, or was never set up.
    #[error("{vbucket} is not kept where it was looked for")]
    Misplaced {
        /// Which one.
        vbucket: VBucket,
        /// What was found instead.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The commit is larger than a commit may be.
    #[error("a commit of {pairs} pairs is over the bound of {pairs_max}")]
    TooLarge {
        /// How large it is.
        pairs: usize,
        /// How large it may be.
        pairs_max: usize,
    },
}

impl StoreError {
    /// What happened, without the VBucket that it happened to: the same for all that fail for one reason.
    pub fn reason(&self) -> String {
        match self {
            Self::Misplaced { source, .. } => {
                format!("not kept where it was looked for: {}", crate::causes(&**source))
            }
            Self::Damaged { what, .. } => format!("a damaged {what}"),
            Self::Unavailable { .. } | Self::TooLarge { .. } => crate::causes(self),
        }
    }

    /// What to do next.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unavailable { retry_after, .. } => Remedy::Wait(*retry_after),
            Self::Misplaced { .. } => Remedy::Reroute,
            Self::Damaged { .. } => Remedy::GiveUp,
            Self::TooLarge { .. } => Remedy::Split,
        }
    }
}

impl Commit {
    /// A commit that makes `next` of a VBucket that is at `expect`, and changes nothing else yet.
    pub fn new(expect: Version, next: Version) -> Self {
        Self { expect, next, ..Self::default() }
    }

    /// Of a VBucket at this version.
    #[must_use]
    pub fn with_expect(self, expect: Version) -> Self {
        Self { expect, ..self }
    }

    /// That makes this version.
    #[must_use]
    pub fn with_next(self, next: Version) -> Self {
        Self { next, ..self }
    }

    /// With these marks; `None` forgets the Lane.
    #[must_use]
    pub fn with_marks(self, marks: Vec<(StreamId, Option<Mark>)>) -> Self {
        Self { marks, ..self }
    }

    /// With these types of Tabs; `None` removes the Tab from the index.
    #[must_use]
    pub fn with_tabs(self, tabs: Vec<(TabName, Option<TabType>)>) -> Self {
        Self { tabs, ..self }
    }

    /// With these parts of States; `None` removes the part.
    #[must_use]
    pub fn with_states(self, states: Vec<(StateKey, Part, Option<Bytes>)>) -> Self {
        Self { states, ..self }
    }

    /// How many pairs the commit writes: what its size is bounded in.
    pub fn pairs(&self) -> usize {
        self.marks.len() + self.tabs.len() + self.states.len() + 1
    }
}

/// Where States are kept, and beside them how far each Lane is contained in them.
///
/// The trait is written with [`macro@async_trait`], which this crate re-exports: put it on the `impl` as well.
///
/// # Examples
/// A store in front of another; all that is not written here has a default.
/// ```
/// use taba_core::{
///     Commit, Committed, Loaded, Scan, Scanned, Store, StoreError, TabName, TabType, VBucket, VBuckets, Wanted, async_trait,
/// };
///
/// struct Told<S>(S);
///
/// #[async_trait]
/// impl<S: Store> Store for Told<S> {
///     fn vbuckets(&self) -> VBuckets {
///         self.0.vbuckets()
///     }
///     async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
///         self.0.load(vbucket, wanted).await
///     }
///     async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
///         println!("{vbucket}: {} pairs", commit.pairs());
///         self.0.commit(vbucket, commit).await
///     }
///     async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
///         self.0.stable(vbucket).await
///     }
///     async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
///         self.0.tabs(vbucket).await
///     }
///     async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
///         self.0.scan(vbucket, scan).await
///     }
/// }
/// ```
///
/// # Laws
/// Each is checked by `store_laws!`.
///
/// - **Atomic.** After a commit, all of it is visible; after anything else, none of it, also across a restart.
/// - **Conditional.** A commit whose `expect` is not the VBucket's version changes nothing and says which version it
///   found. Of two commits with the same `expect`, at most one is done.
/// - **Durable.** What a `Done` commit wrote is there after the process was killed ([`MemoryStore`](crate::MemoryStore)
///   excepted).
/// - **Consistent.** `load` shows one version with the marks, Tabs and States of exactly that version.
/// - **Complete.** It leaves the marks out only at the version that the asker [knows](Wanted::known), if at all.
/// - **Ordered.** `scan` yields each State once, in the order of keys; States that stay unchanged meanwhile are never
///   skipped.
/// - **Kept lists.** Tabs that [`tab_list`](Self::tab_list) calls known are those that it gave since that version, whatever was
///   committed meanwhile; a version beside a list or a [`page`](Self::page) is that of its content.
/// - **Peeked as loaded.** [`peek`](Self::peek) answers for each VBucket in the order of the questions, and says what `load` and
///   `tab_list` would.
/// - **Isolated.** A commit to one VBucket shows in no other.
/// - **Listed as said.** [`servers`](Store::servers) gives what runs of Servers [said](Store::register) last and did not take
///   back; or always nothing.
/// - **Invisible upkeep.** [`tidy`](Store::tidy) and [`reclaim`](Store::reclaim) change nothing that a look, a scan or a
///   commit can tell.
/// - **Stable.** When `stable` is done, every commit to the VBucket that was `Done` before it was called survives the
///   loss of the machine that holds the VBucket, as far as the store is set up to survive that. The kit checks that it
///   comes to an end, and that what is stable is there after a restart; what happens in a failover is the store's own
///   test.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// How many VBuckets the store was made for.
    fn vbuckets(&self) -> VBuckets;

    /// Which store this is. Agents keep what they hold for one store from another one. `None`: it cannot tell; then nothing
    /// is compared.
    fn identity(&self) -> Option<StoreId> {
        None
    }

    /// The processes that keep it, as one number: another one than before when a process was replaced, by a replica that was
    /// promoted or by itself after a restart, since the new one may hold less. All Servers of a store come to the same. `None`:
    /// it ends with the Server's own process.
    fn processes(&self) -> Option<u64> {
        None
    }

    /// The machine or process that keeps a VBucket, as an operator names it: what answers say is missing when it is
    /// away. `None`: the store is one place, or does not know.
    fn place(&self, _vbucket: VBucket) -> Option<String> {
        None
    }

    /// Looks at a VBucket: its version, all marks, and what is wanted.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError>;

    /// Changes a VBucket, all or nothing, if it is still at the expected version.
    ///
    /// # Errors
    /// [`StoreError`]; after [`StoreError::Unavailable`] it is unknown whether the commit has happened.
    ///
    /// # Cancel safety
    /// When dropped, it is unknown whether the commit has happened.
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError>;

    /// Waits until every commit to the VBucket that was done before the call is safe from the loss of one machine.
    ///
    /// Acknowledged is not safe: a store with replicas answers before they have the commit, and the replica that takes
    /// over may lack it. A store without such a gap answers at once.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is known about those commits, and only later ones can be asked after.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError>;

    /// Tidies a VBucket: takes away what removals have left behind and nobody can see. Changes no content and no
    /// version. A store that leaves nothing behind does nothing.
    ///
    /// # Errors
    /// [`StoreError`]; what was tidied stays so.
    ///
    /// # Cost
    /// As a scan of the VBucket's keys: for once an hour, not for each commit.
    async fn tidy(&self, _vbucket: VBucket) -> Result<Tidied, StoreError> {
        Ok(Tidied::default())
    }

    /// Gives space back that large removals have left free. Changes no content.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cost
    /// May hold up commits while it runs: for once an hour. A store decides by itself whether it is worth it.
    async fn reclaim(&self) -> Result<Tidied, StoreError> {
        Ok(Tidied::default())
    }

    /// Writes down what a run of a Server says of itself, in place of what it said before; `None` removes it. It needs not
    /// outlive the store's processes, nor be there for all readers at once. A store that only one Server can use may keep
    /// nothing: that is the default.
    ///
    /// # Errors
    /// [`StoreError`]; the Server says it again soon.
    async fn register(&self, _process: u64, _entry: Option<&ServerEntry>) -> Result<(), StoreError> {
        Ok(())
    }

    /// What Servers have said of themselves, each once, in any order; also those that have died since.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn servers(&self) -> Result<Vec<ServerEntry>, StoreError> {
        Ok(Vec::new())
    }

    /// Every Tab of a VBucket, with its type, sorted by name.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError>;

    /// The same as [`tabs`](Self::tabs), for somebody who keeps them: `known` is the [`TabList::since`] of what is kept. By
    /// default always all of them.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Cost
    /// A look at one version where they are known.
    async fn tab_list(&self, vbucket: VBucket, known: Option<Version>) -> Result<TabList, StoreError> {
        let _ = known;
        Ok(TabList::default().with_tabs(self.tabs(vbucket).await?))
    }

    /// States of a VBucket, in the order of keys, a page at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError>;

    /// The same as [`scan`](Self::scan), with the version of the VBucket that they are of. By default without.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn page(&self, vbucket: VBucket, scan: &Scan) -> Result<Page, StoreError> {
        Ok(Page::new(None, self.scan(vbucket, scan).await?))
    }

    /// A look at many VBuckets in one go: one answer for each, in order. Each is of one moment; together they are of several. By
    /// default they are loaded one after the other.
    ///
    /// # Errors
    /// [`StoreError`] for each VBucket that cannot be read; the others are answered.
    ///
    /// # Cost
    /// A store in several places asks each of them once, whatever the number of VBuckets.
    async fn peek(&self, peeks: &[Peek]) -> Vec<Result<Peeked, StoreError>> {
        let mut answers = Vec::with_capacity(peeks.len());
        for Peek { vbucket, states } in peeks {
            let loaded = self.load(*vbucket, &Wanted::default().with_states(states.clone())).await;
            answers.push(loaded.map(|loaded| Peeked::of(states, loaded)));
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VBuckets;
    use crate::batch::SeqNo;

    #[test]
    fn a_reason_is_the_same_for_every_vbucket() {
        let source = || Box::new(std::io::Error::other("gone"));
        let reasons = |index| {
            let vbucket = VBuckets::default().get(index).unwrap();
            let misplaced = StoreError::Misplaced { vbucket, source: source() };
            let large = StoreError::TooLarge { pairs: 3, pairs_max: 2 };
            [misplaced.reason(), large.reason()]
        };
        assert_eq!(reasons(1), reasons(2));
        assert_eq!(
            reasons(1),
            ["not kept where it was looked for: gone", "a commit of 3 pairs is over the bound of 2"]
        );
    }

    #[test]
    fn what_a_store_is_asked_and_gives_can_be_written_down_and_read() {
        let key = StateKey { tab: TabName::new("a;b=c").unwrap(), client: ClientId::new("web").unwrap() };
        let version = Version { writer: u64::MAX, count: 3 };
        let mark = Mark { seq: SeqNo(4), events: 5, hour: 6 };
        let commit = Commit {
            expect: Version::NEVER,
            next: version,
            marks: vec![(StreamId(7), Some(mark)), (StreamId(8), None)],
            tabs: vec![(key.tab.clone(), Some(TabType::new("T").unwrap()))],
            states: vec![(key.clone(), Part::WHOLE, Some(Bytes::from_static(b"\0\xff")))],
        };
        assert_eq!(commit.pairs(), 5, "each mark, Tab and part, and the version");
        let json = serde_json::to_string(&commit).unwrap();
        assert_eq!(serde_json::from_str::<Commit>(&json).unwrap(), commit);
        let bytes = postcard::to_stdvec(&commit).unwrap();
        assert_eq!(postcard::from_bytes::<Commit>(&bytes).unwrap(), commit);
        let scanned = Scanned::new(key, vec![(Part::WHOLE, Bytes::from_static(b"x"))]);
        let bytes = postcard::to_stdvec(&(&scanned, Committed::Conflict { found: version })).unwrap();
        let read = postcard::from_bytes::<(Scanned, Committed)>(&bytes).unwrap();
        assert_eq!(read, (scanned, Committed::Conflict { found: version }));
    }

    #[test]
    fn one_reason_reads_the_same_for_all_vbuckets() {
        let vbuckets = VBuckets::new(64).unwrap();
        let errors = |vbucket: u16| {
            let vbucket = vbuckets.get(vbucket).unwrap();
            [
                StoreError::Damaged { vbucket, what: "key" },
                StoreError::Misplaced { vbucket, source: "the shard does not hold it".into() },
            ]
        };
        for (one, other) in errors(7).iter().zip(&errors(8)) {
            assert_ne!(one.to_string(), other.to_string());
            assert_eq!(one.reason(), other.reason());
        }
    }
}
