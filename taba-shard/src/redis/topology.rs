//! [`Topology`]: the address of each shard's primary, or the Sentinels that name it.

use async_trait::async_trait;

use super::url::ShardUrl;
use crate::map::ShardId;

/// The address of a shard is not known.
#[derive(Debug, thiserror::Error)]
#[error("the address of {shard} is not known")]
#[non_exhaustive]
pub struct TopologyError {
    /// The shard.
    pub shard: ShardId,
    /// The reason.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The address of each shard's primary.
///
/// Asked at every connect, so a changed address is used as soon as the old process is gone or refuses writes. Which
/// VBuckets a shard owns is stored in the VBuckets.
#[async_trait]
pub trait Topology: Send + Sync + 'static {
    /// The number of shards, numbered from 0.
    fn shards(&self) -> usize;

    /// The current address of this shard's primary, or the Sentinels that name it; they are asked at every connect. A Redis
    /// Cluster (`redis+cluster://…`) is all shards, so it is the address of the only one.
    ///
    /// # Errors
    /// [`TopologyError`]; connecting is tried again later.
    ///
    /// # Cancel safety
    /// Required: the call is dropped when connecting takes too long.
    async fn address(&self, shard: ShardId) -> Result<ShardUrl, TopologyError>;

    /// The operator's name of the shard, without secrets, for answers and log lines.
    fn name(&self, shard: ShardId) -> String {
        shard.to_string()
    }
}

/// A fixed list of URLs: the first is shard 0.
#[derive(Clone, Debug)]
pub struct StaticTopology(Vec<ShardUrl>);

impl StaticTopology {
    /// The addresses of shards 0, 1, …
    pub const fn new(addresses: Vec<ShardUrl>) -> Self {
        Self(addresses)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the list has only {0} addresses")]
struct TooFew(usize);

#[async_trait]
impl Topology for StaticTopology {
    fn shards(&self) -> usize {
        self.0.len()
    }

    async fn address(&self, shard: ShardId) -> Result<ShardUrl, TopologyError> {
        let address = self.0.get(usize::from(shard.0)).cloned();
        address.ok_or_else(|| TopologyError { shard, source: Box::new(TooFew(self.0.len())) })
    }

    fn name(&self, shard: ShardId) -> String {
        self.0.get(usize::from(shard.0)).map_or_else(|| shard.to_string(), ShardUrl::label)
    }
}

/// One shard at a fixed address: one that the shard map names.
pub(super) struct AtAddress(pub(super) ShardUrl);

#[async_trait]
impl Topology for AtAddress {
    fn shards(&self) -> usize {
        1
    }

    async fn address(&self, _shard: ShardId) -> Result<ShardUrl, TopologyError> {
        Ok(self.0.clone())
    }

    fn name(&self, _shard: ShardId) -> String {
        self.0.label()
    }
}
