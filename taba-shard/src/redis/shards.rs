//! [`Shards`]: several Redis processes as one: which shard owns which VBucket, and the connection to each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use taba_core::{VBucket, VBuckets};

use super::bootstrap::bootstrap;
use super::census::take_census;
use super::clock::{monotonic, random};
use super::error::{ConnectError, LinkError};
use super::link::ShardLink;
use super::options::{Bootstrap, ShardsOptions};
use super::topology::{StaticTopology, Topology};
use super::url::ShardUrl;
use crate::census::{CensusOutcome, Location, Owner, View};
use crate::limits::{CENSUS_INTERVAL, SHARDS_MAX};
use crate::map::ShardId;

/// Several Redis processes as one. Cheap to clone: all clones share the connections.
///
/// # Examples
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use taba_shard::{Bootstrap, ShardUrl, Shards, ShardsOptions};
///
/// let urls = ["redis://127.0.0.1:6379", "redis://127.0.0.1:6380"];
/// let urls = urls.iter().map(|url| ShardUrl::new(url)).collect::<Result<Vec<_>, _>>()?;
/// let options = ShardsOptions { bootstrap: Bootstrap::IfEmpty, ..ShardsOptions::default() };
/// let shards = Shards::connect(urls, options).await?;
/// let data = shards.data("shop")?;
/// data.set("greeting", "hello").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Shards {
    inner: Arc<Inner>,
}

struct Inner {
    options: ShardsOptions,
    topology: Arc<dyn Topology>,
    links: Vec<ShardLink>,
    view: RwLock<Arc<View>>,
    /// When the last census began; held while one is taken.
    census: tokio::sync::Mutex<Option<Instant>>,
    /// Why the last census did not hear all shards.
    silence: Mutex<String>,
}

impl Shards {
    /// Connects to shards at fixed addresses: the first is shard 0.
    ///
    /// # Errors
    /// [`ConnectError`] when a shard cannot be reached or is not safe, or when they do not hold one deployment with
    /// this number of VBuckets.
    pub async fn connect(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        Self::connect_to(Arc::new(StaticTopology::new(addresses)), options).await
    }

    /// Connects to the shards of a topology.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// A bootstrap that was under way is left unfinished; connecting again goes on with it.
    pub async fn connect_to(
        topology: Arc<dyn Topology>,
        options: ShardsOptions,
    ) -> Result<Self, ConnectError> {
        let shards = topology.shards();
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(ConnectError::Shards { shards });
        }
        let link = |shard| ShardLink::new(ShardId(shard as u16), Arc::clone(&topology), &options);
        let links: Vec<ShardLink> = (0..shards).map(link).collect();
        let taken = take_census(&links, options.vbuckets).await?;
        let silence = taken.silence_words();
        let view = match (taken.found, options.bootstrap) {
            (CensusOutcome::All(view), _) => view,
            (CensusOutcome::Nothing | CensusOutcome::Unfinished(_), Bootstrap::Refuse) => {
                return Err(ConnectError::Empty);
            }
            (CensusOutcome::Nothing, Bootstrap::IfEmpty) => {
                bootstrap(&links, options.vbuckets, random()).await?
            }
            (CensusOutcome::Unfinished(deployment), Bootstrap::IfEmpty) => {
                bootstrap(&links, options.vbuckets, deployment.id).await?
            }
        };
        for shard in view.silent() {
            let (shard, cause) = (topology.name(*shard), silence.as_str());
            tracing::warn!(shard, cause, "a shard is away; its vbuckets wait for it, the others go on");
        }
        for (vbucket, shard) in view.damaged() {
            let (vbucket, shard) = (vbucket.index(), topology.name(shard));
            tracing::error!(vbucket, shard, "a vbucket is damaged; the others go on. See taba-server check");
        }
        let (view, census) = (RwLock::new(Arc::new(view)), tokio::sync::Mutex::default());
        let silence = Mutex::new(silence);
        Ok(Self { inner: Arc::new(Inner { options, topology, links, view, census, silence }) })
    }

    /// Makes a deployment on empty shards, or goes on with one that was not finished; on one that is there, does
    /// nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn bootstrap(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        Self::connect(addresses, ShardsOptions { bootstrap: Bootstrap::IfEmpty, ..options }).await
    }

    /// How many VBuckets there are.
    pub fn vbuckets(&self) -> VBuckets {
        self.inner.options.vbuckets
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.inner.links.len()
    }

    /// Who owns which VBucket, as far as is known.
    pub fn view(&self) -> Arc<View> {
        // A view is replaced as one, so a panic leaves it whole.
        Arc::clone(&self.inner.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks every shard which VBuckets it holds, and follows what they say. What a shard held that does not answer
    /// now, it holds still.
    ///
    /// # Errors
    /// [`ConnectError`]; what is not known any better stays as it was.
    pub async fn census(&self) -> Result<(), ConnectError> {
        let mut last = self.inner.census.lock().await;
        *last = Some(monotonic());
        let outcome = self.follow_census().await;
        if let Err(error) = &outcome {
            // A message, replaced as one.
            *self.inner.silence.lock().unwrap_or_else(PoisonError::into_inner) = taba_core::causes(error);
        }
        outcome
    }

    async fn follow_census(&self) -> Result<(), ConnectError> {
        let mut taken = take_census(&self.inner.links, self.vbuckets()).await?;
        let CensusOutcome::All(view) = taken.found else { return Err(ConnectError::Empty) };
        // Replaced as one, at the end: a panic before leaves the old one.
        let mut old = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.deployment().id != old.deployment().id {
            let (found, expected) = (view.deployment().id, old.deployment().id);
            return Err(ConnectError::Replaced { found, expected });
        }
        let view = view.over(&old);
        for shard in old.silent().iter().filter(|shard| !view.silent().contains(shard)) {
            tracing::info!(shard = self.inner.topology.name(*shard), "a shard that was away has answered");
        }
        *old = Arc::new(view);
        taken.silence.pop().map_or(Ok(()), |(_, error)| Err(error.into()))
    }

    /// A census because something was not where it was looked for; not more often than each [`CENSUS_INTERVAL`].
    pub(crate) async fn census_after_a_miss(&self) {
        let is_due = |last: &Option<Instant>| {
            last.is_none_or(|last| monotonic().saturating_duration_since(last) >= CENSUS_INTERVAL)
        };
        // A census that runs now brings the answer.
        if !self.inner.census.try_lock().is_ok_and(|last| is_due(&last)) {
            return;
        }
        if let Err(error) = self.census().await {
            tracing::warn!(error = taba_core::causes(&error), "a census failed; the old view stays");
        }
    }

    pub(crate) fn options(&self) -> &ShardsOptions {
        &self.inner.options
    }

    pub(crate) fn place(&self, vbucket: VBucket) -> Location {
        self.view().place(vbucket)
    }

    /// What an operator calls the shard that keeps the VBucket, or those that may.
    pub(crate) fn place_name(&self, vbucket: VBucket) -> String {
        let view = self.view();
        match view.place(vbucket) {
            Location::Owned(Owner { shard, .. }) | Location::Damaged(shard) => {
                self.inner.topology.name(shard)
            }
            Location::Unknown => self.names(view.silent()),
        }
    }

    /// Why the location of a VBucket is unknown.
    pub(crate) fn unanswered(&self) -> LinkError {
        let cause = self.inner.silence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LinkError::Unanswered { shards: self.names(self.view().silent()), cause }
    }

    fn names(&self, shards: &[ShardId]) -> String {
        let names: Vec<String> = shards.iter().map(|shard| self.inner.topology.name(*shard)).collect();
        names.join(", ")
    }

    pub(crate) fn link(&self, shard: ShardId) -> &ShardLink {
        &self.inner.links[usize::from(shard.0)]
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards")
            .field("options", &self.inner.options)
            .field("links", &self.inner.links)
            .finish()
    }
}
