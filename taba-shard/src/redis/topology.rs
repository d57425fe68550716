//! [`Topology`]: where the primary of each shard is. A fixed list today; Sentinel, or a registry, by the same trait.

use async_trait::async_trait;

use super::url::ShardUrl;
use crate::map::ShardId;

/// The address of a shard is not known.
#[derive(Debug, thiserror::Error)]
#[error("where {shard} is, is not known")]
pub struct TopologyError {
    /// Which shard.
    pub shard: ShardId,
    /// Why not.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where the primary of each shard is.
///
/// It is asked at every connect and reconnect, so an answer that changes is followed as soon as the old process is
/// gone or refuses to write. Which VBuckets a shard owns is not its business: that is in the VBuckets.
#[async_trait]
pub trait Topology: Send + Sync + 'static {
    /// How many shards there are, numbered from 0.
    fn shards(&self) -> usize;

    /// Where the primary of this shard is now.
    ///
    /// # Errors
    /// [`TopologyError`]; connecting is tried again later.
    ///
    /// # Cancel safety
    /// Must be safe: it is dropped when connecting takes too long.
    async fn address(&self, shard: ShardId) -> Result<ShardUrl, TopologyError>;

    /// What an operator calls the shard, without secrets: in answers and log lines.
    fn name(&self, shard: ShardId) -> String {
        shard.to_string()
    }
}

/// A list of addresses that never changes: the first is shard 0.
#[derive(Clone, Debug)]
pub struct StaticTopology(Vec<ShardUrl>);

impl StaticTopology {
    /// One shard for each address, in this order.
    pub const fn new(addresses: Vec<ShardUrl>) -> Self {
        Self(addresses)
    }
}

/// An address is asked for that is not in the list.
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
        self.0.get(usize::from(shard.0)).map_or_else(|| shard.to_string(), |url| format!("redis://{url}"))
    }
}
