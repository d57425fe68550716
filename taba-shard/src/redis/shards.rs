//! [`Shards`]: connections to several Redis processes, and the view of which shard owns which VBucket.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use taba_core::{VBucket, VBuckets};

use super::bootstrap::bootstrap;
use super::census::take_census;
use super::clock::{monotonic, random};
use super::cluster::{Cluster, bootstrap_cluster, cluster_census, cluster_url};
use super::error::{ConnectError, LinkError};
use super::link::ShardLink;
use super::listed::{add_links, refuse_strangers};
use super::maps::{change_map, first_map, keeper, newest_map};
use super::options::{Bootstrap, ShardsOptions};
use super::topology::{StaticTopology, Topology};
use super::url::ShardUrl;
use crate::census::{CensusOutcome, Location, Owner, View};
use crate::layout::FIRST_EPOCH;
use crate::limits::{CENSUS_INTERVAL, MOVE_PAUSE_MAX, SHARDS_MAX};
use crate::map::{ShardId, ShardName, VBucketMap};
use crate::shard_map::{ShardMap, ShardMapError};

/// Several Redis processes as one store. Cheap to clone: clones share the connections.
///
/// The addresses that it is given are where it begins: the shard map names all shards, and those that come later are
/// connected to when a VBucket moves there, with the user and password of the first address.
///
/// # Examples
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use taba_shard::{Bootstrap, ShardUrl, Shards, ShardsOptions};
///
/// let urls = ["redis://127.0.0.1:6379", "redis://127.0.0.1:6380"];
/// let urls = urls.iter().map(|url| ShardUrl::new(url)).collect::<Result<Vec<_>, _>>()?;
/// let mut options = ShardsOptions::default();
/// options.bootstrap = Bootstrap::IfEmpty;
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
    /// Where the shards are nodes of a Redis Cluster: its slots say which of them has a VBucket, in place of a shard map.
    cluster: Option<Arc<Cluster>>,
    /// Replaced as one, by a longer list; the place of a shard never changes.
    links: RwLock<Arc<Vec<Arc<ShardLink>>>>,
    map: RwLock<Option<Arc<ShardMap>>>,
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

    /// Connects to the shards of a topology, and to those that the shard map names besides; or to the nodes of the Redis
    /// Cluster that it names.
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
        if let Some(url) = cluster_url(&*topology).await? {
            return Self::connect_cluster(topology, url, options).await;
        }
        let link = |shard| Arc::new(ShardLink::new(ShardId(shard as u16), Arc::clone(&topology), &options));
        let mut links: Vec<Arc<ShardLink>> = (0..shards).map(link).collect();
        let mut map = newest_map(&links).await?;
        if let Some(map) = &map {
            refuse_strangers(&links, map, options.vbuckets).await?;
            add_links(&mut links, map, &topology, &options).await?;
        }
        let taken = take_census(&links, options.vbuckets).await?;
        for (shard, connection) in &taken.connections {
            links[usize::from(shard.0)].answered_census(*connection);
        }
        let silence = taken.silence_words();
        let view = match view_or_id(taken.found, options.bootstrap)? {
            Ok(view) => view,
            Err(id) => bootstrap(&links, options.vbuckets, id).await?,
        };
        if map.is_none() {
            map = newest_map(&links).await?;
        }
        Ok(Self::with(options, topology, (None, links), map, (view, silence)))
    }

    async fn connect_cluster(
        topology: Arc<dyn Topology>,
        url: ShardUrl,
        options: ShardsOptions,
    ) -> Result<Self, ConnectError> {
        let cluster = Cluster::connect(url, &options).await?;
        let taken = cluster_census(&cluster, options.vbuckets).await?;
        let silence = taken.silence_words();
        let view = match view_or_id(taken.found, options.bootstrap)? {
            Ok(view) => view,
            Err(id) => bootstrap_cluster(&cluster, options.vbuckets, id).await?,
        };
        let links = cluster.links().as_ref().clone();
        Ok(Self::with(options, topology, (Some(cluster), links), None, (view, silence)))
    }

    fn with(
        options: ShardsOptions,
        topology: Arc<dyn Topology>,
        (cluster, links): (Option<Arc<Cluster>>, Vec<Arc<ShardLink>>),
        map: Option<ShardMap>,
        (view, silence): (View, String),
    ) -> Self {
        for shard in view.silent() {
            let (shard, cause) = (links[usize::from(shard.0)].label(), silence.as_str());
            tracing::warn!(
                shard,
                cause,
                "a shard does not answer; its vbuckets wait for it, all others work"
            );
        }
        for (vbucket, shard) in view.damaged() {
            let (vbucket, shard) = (vbucket.index(), links[usize::from(shard.0)].label());
            tracing::error!(vbucket, shard, "a vbucket is damaged; all others work. See taba-server check");
        }
        Self {
            inner: Arc::new(Inner {
                options,
                topology,
                cluster,
                links: RwLock::new(Arc::new(links)),
                map: RwLock::new(map.map(Arc::new)),
                view: RwLock::new(Arc::new(view)),
                census: tokio::sync::Mutex::default(),
                silence: Mutex::new(silence),
            }),
        }
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
        self.links().len()
    }

    /// The owner of each VBucket, as far as known.
    pub fn view(&self) -> Arc<View> {
        // The view is replaced as a whole, so a panic leaves it intact.
        Arc::clone(&self.inner.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the shards are nodes of a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        self.inner.cluster.is_some()
    }

    /// The shard map, as far as is known; `None` for a deployment that was made before there were maps, and in a Redis
    /// Cluster.
    pub fn map(&self) -> Option<Arc<ShardMap>> {
        // Replaced as one, as a view.
        self.inner.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number by which this process knows the shard of a name.
    pub fn id_of(&self, name: ShardName) -> Option<ShardId> {
        self.links().iter().find(|link| link.name() == Some(name)).map(|link| link.shard())
    }

    /// Reads the newest shard map, and connects to shards that are new in it.
    ///
    /// # Errors
    /// [`ConnectError`]; what is known stays.
    pub async fn refresh_map(&self) -> Result<(), ConnectError> {
        if self.is_cluster() {
            return Ok(());
        }
        let links = self.links();
        let Some(map) = newest_map(&links).await? else { return Ok(()) };
        self.adopt_map(map).await
    }

    /// Changes the shard map, under a lock of its keeper and by compare-and-set, and spreads it to all shards. A
    /// deployment without a map gets one first, which says what is.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn change_map(
        &self,
        change: impl FnOnce(&ShardMap) -> Result<ShardMap, ShardMapError>,
    ) -> Result<Arc<ShardMap>, ConnectError> {
        self.change_map_beside(&[], change).await
    }

    /// The same while these shards are silent: what they own, or would get, stays as it is in the map, and they get the new
    /// map with the next change after they have come back.
    ///
    /// # Errors
    /// [`ConnectError`]; [`ConnectError::KeeperSilent`] when one of them keeps the map.
    pub async fn change_map_beside(
        &self,
        silent: &[ShardName],
        change: impl FnOnce(&ShardMap) -> Result<ShardMap, ShardMapError>,
    ) -> Result<Arc<ShardMap>, ConnectError> {
        self.refuse_cluster()?;
        let links = self.links();
        if newest_map(&links).await?.is_none() {
            self.census().await?;
            let view = self.view();
            let owners = self.vbuckets().iter().map(|vbucket| view.owner(vbucket).map(|owner| owner.shard));
            let owners: Option<Vec<ShardId>> = owners.collect();
            let owners = owners.ok_or_else(|| self.unanswered())?;
            let in_order: Vec<&Arc<ShardLink>> = links.iter().collect();
            first_map(&in_order, view.deployment().id, VBucketMap::from_owners(self.vbuckets(), owners))
                .await?;
        }
        let change = |map: &ShardMap| change(map)?.leaving_alone(silent, map);
        let map = change_map(&links, silent, change).await?;
        self.adopt_map(map).await?;
        self.map().ok_or(ConnectError::Empty)
    }

    pub(crate) async fn adopt_map(&self, map: ShardMap) -> Result<(), ConnectError> {
        if self.map().is_some_and(|known| known.epoch() >= map.epoch()) {
            return Ok(());
        }
        let mut links = self.links().as_ref().clone();
        add_links(&mut links, &map, &self.inner.topology, &self.inner.options).await?;
        {
            let mut held = self.inner.links.write().unwrap_or_else(PoisonError::into_inner);
            // Another task may have added some meanwhile; then this one looks again, at its next turn.
            if held.len() > links.len() {
                return Ok(());
            }
            *held = Arc::new(links);
        }
        tracing::info!(epoch = map.epoch(), shards = map.shards().len(), "follows a new shard map");
        *self.inner.map.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(map));
        Ok(())
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
        if let Err(error) = self.refresh_map().await {
            tracing::warn!(
                error = taba_core::causes(&error),
                "the shard map cannot be read; the old one stays"
            );
        }
        let begun = monotonic();
        let mut taken = match &self.inner.cluster {
            Some(cluster) => cluster_census(cluster, self.vbuckets()).await?,
            None => take_census(&self.links(), self.vbuckets()).await?,
        };
        let CensusOutcome::All(view) = taken.found else { return Err(ConnectError::Empty) };
        // Replaced as a whole at the end: a panic before leaves the old one.
        let mut old = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.deployment().id != old.deployment().id {
            let (found, expected) = (view.deployment().id, old.deployment().id);
            return Err(ConnectError::Replaced { found, expected });
        }
        let view = view.over(&old);
        for shard in old.silent().iter().filter(|shard| !view.silent().contains(shard)) {
            tracing::info!(shard = self.link(*shard).label(), "a silent shard has answered");
        }
        *old = Arc::new(view);
        drop(old);
        for (shard, connection) in taken.connections {
            self.link(shard).answered_census(connection);
            if taken.silence.is_empty() {
                self.link(shard).answered_with_all(connection, begun);
            }
        }
        taken.silence.pop().map_or(Ok(()), |(_, error)| Err(ConnectError::Link(error)))
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

    pub(super) fn topology(&self) -> &Arc<dyn Topology> {
        &self.inner.topology
    }

    pub(crate) fn options(&self) -> &ShardsOptions {
        &self.inner.options
    }

    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.inner.cluster.as_ref()
    }

    /// What shards of a list do, and nodes of a Redis Cluster do not.
    pub(crate) fn refuse_cluster(&self) -> Result<(), ConnectError> {
        if self.is_cluster() { Err(ConnectError::ClusterMoves) } else { Ok(()) }
    }

    /// Where a VBucket is. In a Redis Cluster the slots say where, also of a node that has not answered yet; whether it is
    /// there, each script looks itself.
    pub(crate) fn place(&self, vbucket: VBucket) -> Location {
        let place = self.view().place(vbucket);
        match (place, self.inner.cluster.as_ref().and_then(|cluster| cluster.shard_of(vbucket))) {
            (Location::Owned(owner), Some(shard)) => Location::Owned(Owner { shard, ..owner }),
            (Location::Damaged(_), Some(shard)) => Location::Damaged(shard),
            (Location::Unknown, Some(shard)) => Location::Owned(Owner { shard, epoch: FIRST_EPOCH }),
            (place, _) => place,
        }
    }

    /// The operator's name of the shard that holds the VBucket, or of those that may.
    pub(crate) fn place_name(&self, vbucket: VBucket) -> String {
        match self.place(vbucket) {
            Location::Owned(Owner { shard, .. }) | Location::Damaged(shard) => self.link(shard).label(),
            Location::Unknown => self.names(self.view().silent()),
        }
    }

    /// Why the location of a VBucket is unknown.
    pub(crate) fn unanswered(&self) -> LinkError {
        let cause = self.inner.silence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LinkError::Unanswered { shards: self.names(self.view().silent()), cause }
    }

    fn names(&self, shards: &[ShardId]) -> String {
        let names: Vec<String> = shards.iter().map(|shard| self.link(*shard).label()).collect();
        names.join(", ")
    }

    pub(crate) fn links(&self) -> Arc<Vec<Arc<ShardLink>>> {
        if let Some(cluster) = &self.inner.cluster {
            return cluster.links();
        }
        Arc::clone(&self.inner.links.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn link(&self, shard: ShardId) -> Arc<ShardLink> {
        Arc::clone(&self.links()[usize::from(shard.0)])
    }

    /// The connection over which a shard last said what it holds: over any other it may hold something else, since
    /// behind a new one may be a Redis that has gone back to before a VBucket moved away. If it is connected to anew,
    /// all are asked again.
    pub(crate) async fn known_connection(&self, shard: ShardId) -> Option<u64> {
        let link = self.link(shard);
        let used = link.connection();
        if used.is_some() && used != link.censused() {
            let mut last = self.inner.census.lock().await;
            // The one that ran meanwhile may have asked over this connection.
            if used != link.censused() {
                *last = Some(monotonic());
                if let Err(error) = self.follow_census().await {
                    tracing::debug!(error = taba_core::causes(&error), "a census after a reconnect");
                }
            }
        }
        link.censused()
    }

    /// Whether what is stable on a shard, over this connection, is so on the shard that owns it: behind the connection may
    /// be a Redis that has forgotten that a VBucket moves away, and another shard may have been switched after it was
    /// asked. So all are asked again, once no switch can come any more that was under way when the connection was made.
    pub(crate) async fn ask_again(&self, shard: ShardId, connection: u64) -> bool {
        let link = self.link(shard);
        let Some(made) = link.made(connection) else { return false };
        let asks_at = made + MOVE_PAUSE_MAX + Duration::from_millis(1);
        tokio::time::sleep(asks_at.saturating_duration_since(monotonic())).await;
        let mut last = self.inner.census.lock().await;
        // The one that ran meanwhile may have been late enough.
        if !link.is_settled(connection) {
            *last = Some(monotonic());
            if let Err(error) = self.follow_census().await {
                tracing::debug!(error = taba_core::causes(&error), "a census before anything is stable");
            }
        }
        link.is_settled(connection)
    }

    /// The shard that keeps the shard map.
    pub(crate) fn keeper(&self) -> Result<Arc<ShardLink>, LinkError> {
        keeper(&self.links()).map(Arc::clone).map_err(|_| self.unanswered())
    }

    /// Another connection to a shard.
    pub(crate) fn new_link(&self, shard: ShardId) -> Arc<ShardLink> {
        Arc::new(self.link(shard).again(&self.inner.options))
    }

    /// A VBucket was found to be owned by this shard.
    pub(crate) fn found_owner(&self, vbucket: VBucket, owner: Owner) {
        let mut view = self.inner.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.owner(vbucket).is_none_or(|known| known.epoch < owner.epoch) {
            *view = Arc::new(view.with_owner(vbucket, owner));
        }
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("options", &self.inner.options).field("links", &self.links()).finish()
    }
}

/// The view that a census has found, or else the number of the deployment that is to be made.
fn view_or_id(found: CensusOutcome, bootstrap: Bootstrap) -> Result<Result<View, u64>, ConnectError> {
    match (found, bootstrap) {
        (CensusOutcome::All(view), _) => Ok(Ok(view)),
        (CensusOutcome::Nothing | CensusOutcome::Unfinished(_), Bootstrap::Refuse) => {
            Err(ConnectError::Empty)
        }
        (CensusOutcome::Nothing, Bootstrap::IfEmpty) => Ok(Err(random())),
        (CensusOutcome::Unfinished(deployment), Bootstrap::IfEmpty) => Ok(Err(deployment.id)),
    }
}
