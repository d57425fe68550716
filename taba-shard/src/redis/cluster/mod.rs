//! [`Cluster`]: a Redis Cluster in place of a list of shards. Its slots say which node has a VBucket.
//!
//! A shard is a node here: one [`ShardLink`] for each address. Who has a slot is learned from `CLUSTER NODES` and from
//! `MOVED`; the nodes decide, and what is known here only saves a redirection.

mod begin;
mod nodes;
mod send;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::{IntoConnectionInfo, Pipeline};
use taba_core::{Remedy, VBucket};

pub(super) use self::begin::{bootstrap_cluster, cluster_census, holdings};
pub(crate) use self::send::{SendRules, VBucketAnswer, VBucketRequest};

use self::nodes::SlotClaims;
use super::clock::{monotonic, random};
use super::error::{ConnectError, RedisRefusal};
use super::link::{ShardLink, refusal};
use super::options::ShardsOptions;
use super::reply::ask_once;
use super::seeds::ClusterSeeds;
use super::topology::Topology;
use super::url::ShardUrl;
use crate::command::Reply;
use crate::keys::slot_of;
use crate::limits::{CLUSTER_NODES_ASKED_MAX, CLUSTER_TIMEOUT};
use crate::map::ShardId;

/// A Redis Cluster as the shards of a deployment.
pub(crate) struct Cluster {
    /// The nodes that are asked first, and how to sign in to all of them.
    url: ShardUrl,
    options: ShardsOptions,
    /// The slot of each VBucket.
    slots: Vec<u16>,
    /// Replaced as one; the place of a node never changes.
    table: RwLock<Arc<SlotTable>>,
    /// When the nodes were last asked; held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// The nodes, and which has which slot.
#[derive(Clone, Default)]
struct SlotTable {
    links: Arc<Vec<Arc<ShardLink>>>,
    /// The address of each link.
    addresses: Vec<String>,
    owners: BTreeMap<u16, ShardId>,
    /// How often a slot was found on another node.
    generation: u64,
}

/// The Cluster that a topology names, if it names one.
///
/// # Errors
/// [`ConnectError::ClusterAmong`] when it names others besides.
pub(super) async fn cluster_url(topology: &dyn Topology) -> Result<Option<ShardUrl>, ConnectError> {
    let (shards, mut found) = (topology.shards(), None);
    for shard in (0..shards).map(|shard| ShardId(shard as u16)) {
        // A shard whose address is not known is a silent one.
        let Ok(url) = topology.address(shard).await else { continue };
        if url.seeds().is_some() && found.replace(url).is_none() && shards > 1 {
            return Err(ConnectError::ClusterAmong { shards });
        }
    }
    Ok(found)
}

impl Cluster {
    /// Asks the nodes of the URL for the slots.
    ///
    /// # Errors
    /// [`ConnectError`] when none answers, or no node has the slot of a VBucket.
    pub(super) async fn connect(url: ShardUrl, options: &ShardsOptions) -> Result<Arc<Self>, ConnectError> {
        let cluster = Self {
            url,
            options: options.clone(),
            slots: options.vbuckets.iter().map(slot_of).collect(),
            table: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
        };
        cluster.refresh(Duration::ZERO).await?;
        cluster.check_covered()?;
        Ok(Arc::new(cluster))
    }

    pub(super) fn check_covered(&self) -> Result<(), ConnectError> {
        let mut uncovered = self.options.vbuckets.iter().filter(|vbucket| self.shard_of(*vbucket).is_none());
        let Some(vbucket) = uncovered.next() else { return Ok(()) };
        Err(ConnectError::Uncovered { vbucket, slot: self.slot(vbucket), others: uncovered.count() })
    }

    /// The nodes that are known, by number.
    pub(crate) fn links(&self) -> Arc<Vec<Arc<ShardLink>>> {
        Arc::clone(&self.table().links)
    }

    /// The node that has a VBucket, as far as is known.
    pub(crate) fn shard_of(&self, vbucket: VBucket) -> Option<ShardId> {
        self.table().owners.get(&self.slot(vbucket)).copied()
    }

    /// A number that grows whenever a slot is found on another node.
    pub(crate) fn generation(&self) -> u64 {
        self.table().generation
    }

    fn slot(&self, vbucket: VBucket) -> u16 {
        self.slots[usize::from(vbucket.index())]
    }

    fn table(&self) -> Arc<SlotTable> {
        // Replaced as a whole, so a panic leaves it intact.
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node has said who has the slot of a VBucket.
    fn moved(&self, vbucket: VBucket, address: &str) {
        let slot = self.slot(vbucket);
        self.change(|table, cluster| {
            if let Some(shard) = cluster.number(table, address) {
                table.links[usize::from(shard.0)].retire(false);
                table.own(slot, shard);
            }
        });
    }

    /// The number of the node at an address.
    fn node(&self, address: &str) -> Option<ShardId> {
        self.change(|table, cluster| cluster.number(table, address))
    }

    fn change<T>(&self, change: impl FnOnce(&mut SlotTable, &Self) -> T) -> T {
        let mut held = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut table = held.as_ref().clone();
        let changed = change(&mut table, self);
        *held = Arc::new(table);
        changed
    }

    /// The number of the node at an address, which gets one if it is new; `None` when this is no address.
    fn number(&self, table: &mut SlotTable, address: &str) -> Option<ShardId> {
        if let Some(place) = table.addresses.iter().position(|known| known == address) {
            return Some(ShardId(place as u16));
        }
        let shard = ShardId(u16::try_from(table.links.len()).ok()?);
        let link = ShardLink::to_node(shard, self.url.at(address).ok()?, &self.options);
        Arc::make_mut(&mut table.links).push(Arc::new(link));
        table.addresses.push(address.to_owned());
        tracing::info!(shard = shard.0, address, "a node of the redis cluster is known");
        Some(shard)
    }

    /// Asks the nodes who has which slot, unless they were asked within this time, or since this was called.
    ///
    /// # Errors
    /// [`ConnectError::Cluster`] when none answers; what is known stays.
    async fn refresh(&self, interval: Duration) -> Result<(), ConnectError> {
        let called = monotonic();
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|last| called.saturating_duration_since(last) < interval || last > called) {
            return Ok(());
        }
        *asked = Some(monotonic());
        let claims = self.ask_nodes().await?;
        self.change(|table, cluster| cluster.follow(table, &claims));
        Ok(())
    }

    /// As [`refresh`](Self::refresh), where it is no fault that none answers: what is known is used.
    pub(crate) async fn try_refresh(&self, interval: Duration) {
        if let Err(error) = self.refresh(interval).await {
            tracing::debug!(error = taba_core::causes(&error), "the nodes do not say who has which slot");
        }
    }

    fn follow(&self, table: &mut SlotTable, claims: &SlotClaims) {
        let mut known: BTreeMap<&str, Option<ShardId>> = BTreeMap::new();
        for slot in &self.slots {
            let number = |address| *known.entry(address).or_insert_with(|| self.number(table, address));
            match claims.owner(*slot).and_then(number) {
                Some(shard) => table.own(*slot, shard),
                None => drop(table.owners.remove(slot)),
            }
        }
        let with_slots: BTreeSet<ShardId> = table.owners.values().copied().collect();
        for link in table.links.iter() {
            link.retire(!with_slots.contains(&link.shard()));
        }
    }

    /// What more than half of the nodes that are asked say, or all that answer in time.
    async fn ask_nodes(&self) -> Result<SlotClaims, ConnectError> {
        let seeds = self.url.seeds().map(ClusterSeeds::addresses).unwrap_or_default();
        let mut addresses = [seeds, &self.table().addresses].concat();
        addresses.sort_unstable();
        addresses.dedup();
        let first = random() as usize % addresses.len().max(1);
        addresses.rotate_left(first);
        addresses.truncate(CLUSTER_NODES_ASKED_MAX);
        let ask = |address: &String| {
            let address = address.clone();
            async move { (tokio::time::timeout(CLUSTER_TIMEOUT, self.ask_node(&address)).await, address) }
        };
        let mut asked: FuturesUnordered<_> = addresses.iter().map(ask).collect();
        let (mut claims, mut answered) = (SlotClaims::default(), 0);
        let (mut causes, mut is_lasting) = (Vec::new(), true);
        while let Some((answer, address)) = asked.next().await {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let cause = match answer {
                Ok(Ok(text)) if claims.add(&text, host).is_some() => {
                    answered += 1;
                    if answered * 2 > addresses.len() {
                        break;
                    }
                    continue;
                }
                Ok(Ok(_)) => "this is no answer of a node of a Redis Cluster".to_owned(),
                Ok(Err(NodeError::Refused(refusal))) => {
                    is_lasting &= refusal.remedy() == Remedy::GiveUp;
                    refusal.to_string()
                }
                Ok(Err(NodeError::Silent(words))) => {
                    is_lasting = false;
                    words
                }
                Err(_) => {
                    is_lasting = false;
                    format!("no answer within {CLUSTER_TIMEOUT:?}")
                }
            };
            causes.push(format!("{address}: {cause}"));
        }
        if answered > 0 {
            return Ok(claims);
        }
        Err(ConnectError::Cluster { url: self.url.to_string(), causes: causes.join("; "), is_lasting })
    }

    async fn ask_node(&self, address: &str) -> Result<String, NodeError> {
        let url = self.url.at(address).map_err(|error| NodeError::Silent(taba_core::causes(&error)))?;
        let mut questions = Pipeline::with_capacity(1);
        questions.cmd("CLUSTER").arg("NODES");
        let info = url.info().clone().into_connection_info().map_err(NodeError::from)?;
        match ask_once(info, &questions).await?.pop() {
            Some(Reply::Bytes(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Some(Reply::Refused { code, detail }) => Err(NodeError::Refused(RedisRefusal { code, detail })),
            _ => Ok("no text".to_owned()),
        }
    }
}

/// Why a node has not said who has which slot.
enum NodeError {
    Refused(RedisRefusal),
    Silent(String),
}

impl From<redis::RedisError> for NodeError {
    fn from(error: redis::RedisError) -> Self {
        refusal(&error).map_or_else(|| Self::Silent(taba_core::causes(&error)), Self::Refused)
    }
}

impl SlotTable {
    fn own(&mut self, slot: u16, shard: ShardId) {
        if self.owners.insert(slot, shard).is_some_and(|before| before != shard) {
            self.generation += 1;
            tracing::debug!(slot, shard = shard.0, "a slot is on another node");
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("url", &self.url).finish_non_exhaustive()
    }
}
