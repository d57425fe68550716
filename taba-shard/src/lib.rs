//! Several Redis processes as one store.
//!
//! ```text
//! Store, Data ─► view: VBucket ─► shard   (from a census of all shards)
//!                  │ one script for each VBucket: checks owner and version, then writes all or nothing
//!                  ▼
//!        shard 0 {vb0000} {vb0003} …     shard 1 {vb0001} …     each with replicas
//! ```
//!
//! Read [`layout`] first (the storage format), then [`census`] and [`index_cache`]; for moves, [`migration`].
//!
//! # Examples
//! ```
//! # use taba_tests::redis::{Options, Redis};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let redis = Redis::start_many(2, &Options::durable());
//! # let (one, two) = (redis[0].url(), redis[1].url());
//! # let urls = [one.as_str(), two.as_str()];
//! use taba_shard::{ShardUrl, Shards, ShardsOptions, command};
//!
//! // urls: redis://127.0.0.1:6379 and redis://127.0.0.1:6380, say
//! let urls = urls.iter().map(|url| ShardUrl::new(url)).collect::<Result<Vec<_>, _>>()?;
//! let shards = Shards::bootstrap(urls, ShardsOptions::default()).await?;
//! let data = shards.data("shop")?;
//!
//! data.set_many([("apples", "3"), ("pears", "5")]).await;
//! assert_eq!(data.get_many(["pears", "plums"]).await?, [Some("5".into()), None]);
//!
//! // The braces choose the VBucket: these two keys share one, so they can change in one transaction.
//! let mut transaction = data.transaction();
//! let items = transaction.add(command::increment("{cart:7}:items", 1))?;
//! let total = transaction.add(command::increment("{cart:7}:total", 1995))?;
//! let mut answers = transaction.run().await?;
//! assert_eq!((answers.take(items)?, answers.take(total)?), (1, 1995));
//! # Ok(())
//! # }
//! ```
//!
//! The key space is cut into [`VBuckets`](taba_core::VBuckets); each shard owns some of them. All keys of a VBucket
//! carry its hash tag, so a Redis Cluster can keep them in place of a list of shards (see [`ShardUrl`]). Works with Redis 7 and Valkey.
//!
//! | module | content |
//! |---|---|
//! | [`map`] | [`VBucketMap`]: the owners of VBuckets in a new deployment; [`ShardName`]: the name of a Redis for its life |
//! | [`shard_map`] | the shards of a deployment, and which is to own each VBucket |
//! | [`keys`] | the names of keys, and the VBucket of a user's key |
//! | [`router`] | items for many shards → bounded requests → answers in order |
//! | [`command`] | one operation on one key: strings, counters, hashes, sets |
//! | [`layout`] | the storage format of a VBucket |
//! | [`census`] | the owner of each VBucket, from the answers of all shards |
//! | [`migration`] | the next step of a VBucket that moves to another shard |
//! | [`index_cache`] | index entries that need not be written again |
//! | [`stability`] | when a commit survives the loss of a machine |
//! | [`adoption`] | repairs shards that do not hold one deployment |
//! | [`limits`] | every bound by name |
//!
//! These modules are pure: no socket, no clock, no runtime. The feature `redis` (default) adds [`Shards`] (the
//! connections), [`Data`] (a user's keys: single, batched, in [`Transaction`]s, under a [`LockLease`], by
//! [`scan`](Data::scan)), [`ShardedRedis`], the [`Store`](taba_core::Store) of Taba's Servers, and [`mover::Mover`], which
//! moves VBuckets between shards. The feature `cli` (of the binary) adds the tool `taba-shard`.

#![deny(missing_docs)]
#![doc(test(attr(deny(unused_imports))))]

pub mod adoption;
pub mod census;
pub mod command;
pub mod index_cache;
pub mod keys;
pub mod layout;
pub mod limits;
pub mod map;
pub mod migration;
pub mod router;
#[cfg(feature = "redis")]
mod sabotage;
pub mod shard_map;
pub mod stability;

/// Compiles the README's example with the tests.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "redis")]
mod data;
#[cfg(feature = "redis")]
mod loss;
#[cfg(feature = "redis")]
pub mod mover;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod sharded;

pub use command::Command;
pub use keys::{KeyError, Namespace, vbucket_of};
pub use map::{MapError, ShardId, ShardName, ShardNameError, VBucketMap};

#[cfg(feature = "redis")]
pub use data::{
    Data, DataError, Fenced, FencingToken, LockError, LockLease, Replies, ReplySlot, ScanCursor, ScanPage,
    Swap, Transaction,
};
#[cfg(feature = "redis")]
pub use loss::Loss;
#[cfg(feature = "redis")]
pub use redis::{
    Adoption, Bootstrap, ConnectError, LinkError, RedisRefusal, ShardHealth, ShardUrl, Shards, ShardsOptions,
    SilentShard, StaticTopology, Survey, Topology, TopologyError, UrlError,
};
#[cfg(feature = "redis")]
pub use sharded::{Misplaced, ShardedRedis, Swept};
