//! [`Shards`]: connections to several Redis processes, and the view of which shard owns which VBucket.

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

/// Several Redis processes as one store. Cheap to clone: clones share the connections.
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
    /// When the last census began; held during one.
    census: tokio::sync::Mutex<Option<Instant>>,
    /// Why shards were silent in the last census.
    silence: Mutex<String>,
}

impl Shards {
    /// Connects to shards at fixed addresses: the first is shard 0.
    ///
    /// # Errors
    /// [`ConnectError`] when a shard cannot be reached or is not safe, or the shards do not hold one deployment with
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
    /// An interrupted bootstrap stays unfinished; connecting again continues it.
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
            tracing::warn!(
                shard,
                cause,
                "a shard does not answer; its vbuckets wait for it, all others work"
            );
        }
        for (vbucket, shard) in view.damaged() {
            let (vbucket, shard) = (vbucket.index(), topology.name(shard));
            tracing::error!(vbucket, shard, "a vbucket is damaged; all others work. See taba-server check");
        }
        let (view, census) = (RwLock::new(Arc::new(view)), tokio::sync::Mutex::default());
        let silence = Mutex::new(silence);
        Ok(Self { inner: Arc::new(Inner { options, topology, links, view, census, silence }) })
    }

    /// Makes a deployment on empty shards, or continues an unfinished bootstrap; does nothing if a deployment exists.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn bootstrap(addresses: Vec<ShardUrl>, options: ShardsOptions) -> Result<Self, ConnectError> {
        Self::connect(addresses, ShardsOptions { bootstrap: Bootstrap::IfEmpty, ..options }).await
    }

    /// The number of VBuckets.
    pub fn vbuckets(&self) -> VBuckets {
        self.inner.options.vbuckets
    }

    /// The number of shards.
    pub fn count(&self) -> usize {
        self.inner.links.len()
    }

    /// The owner of each VBucket, as far as known.
    pub fn view(&self) -> Arc<View> {
        // The view is replaced as a whole, so a panic leaves it intact.
        Arc::clone(&self.inner.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks every shard for its VBuckets, and updates the view. A shard that does not answer keeps its VBuckets.
    ///
    /// # Errors
    /// [`ConnectError`]; the view then stays as it was.
    pub async fn census(&self) -> Result<(), ConnectError> {
        let mut last = self.inner.census.lock().await;
        *last = Some(monotonic());
        let outcome = self.follow_census().await;
        if let Err(error) = &outcome {
            *self.inner.silence.lock().unwrap_or_else(PoisonError::into_inner) = taba_core::causes(error);
        }
        outcome
    }

    async fn follow_census(&self) -> Result<(), ConnectError> {
        let mut taken = take_census(&self.inner.links, self.vbuckets()).await?;
        let CensusOutcome::All(view) = taken.found else { return Err(ConnectError::Empty) };
        // Replaced as a whole at the end: a panic before leaves the old one.
        let mut old = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.deployment().id != old.deployment().id {
            let (found, expected) = (view.deployment().id, old.deployment().id);
            return Err(ConnectError::Replaced { found, expected });
        }
        let view = view.over(&old);
        for shard in old.silent().iter().filter(|shard| !view.silent().contains(shard)) {
            tracing::info!(shard = self.inner.topology.name(*shard), "a silent shard has answered");
        }
        *old = Arc::new(view);
        taken.silence.pop().map_or(Ok(()), |(_, error)| Err(error.into()))
    }

    /// A census because a VBucket was not on its shard; at most one each [`CENSUS_INTERVAL`].
    pub(crate) async fn census_after_a_miss(&self) {
        let is_due = |last: &Option<Instant>| {
            last.is_none_or(|last| monotonic().saturating_duration_since(last) >= CENSUS_INTERVAL)
        };
        // The census that runs now brings the answer.
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

    /// The operator's name of the shard that holds the VBucket, or of those that may.
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
