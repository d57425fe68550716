//! Several Redis processes as one store.
//!
//! ```text
//! Store, Data ─► view: VBucket ─► shard   (from a census of all shards)
//!                  │ one script for each VBucket: checks owner and version, then writes all or nothing
//!                  ▼
//!        shard 0 {vb0000} {vb0003} …     shard 1 {vb0001} …     each with replicas
//! ```
//!
//! Read [`layout`] first (what lies in a Redis), then [`census`] and [`index_cache`].
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
//! // What stands in braces says where a key lives: these two live together, and change together.
//! let mut transaction = data.transaction();
//! let items = transaction.add(command::increment("{cart:7}:items", 1))?;
//! let total = transaction.add(command::increment("{cart:7}:total", 1995))?;
//! let mut answers = transaction.run().await?;
//! assert_eq!((answers.take(items)?, answers.take(total)?), (1, 1995));
//! # Ok(())
//! # }
//! ```
//!
//! The key space is cut into [`VBuckets`](taba_core::VBuckets); a shard owns some of them. All keys of a VBucket
//! carry its tag, so the layout is legal on Redis Cluster too. Works with Redis 7 and Valkey.
//!
//! | module | what is in it |
//! |---|---|
//! | [`map`] | [`VBucketMap`]: which shard is to own which VBucket |
//! | [`keys`] | the names of keys, and where a user's key lives |
//! | [`router`] | many things for many shards → bounded requests, and their answers in order |
//! | [`command`] | one operation on one key: strings, counters, hashes, sets |
//! | [`layout`] | the bytes of a VBucket, drawn |
//! | [`census`] | who owns what, from what all shards say |
//! | [`index_cache`] | when an index entry may be taken for written |
//! | [`stability`] | when what was committed is safe from the loss of a machine |
//! | [`adoption`] | what makes one deployment of shards that do not hold one |
//! | [`limits`] | every bound by name |
//!
//! Those are the pure half: no socket, no clock, no runtime. With the feature `redis` (default) come [`Shards`] (the
//! connections), [`Data`] (a user's keys: alone, many at once, in [`Transaction`]s, under a [`LockLease`], by
//! [`scan`](Data::scan)), and [`ShardedRedis`], the [`Store`](taba_core::Store) of Taba's Servers.
//!
//! Features: `redis` (default): connections, data types and `ShardedRedis`.

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
pub mod router;
#[cfg(feature = "redis")]
mod sabotage;
pub mod stability;

/// Its example is compiled with the tests.
#[cfg(all(doctest, feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "redis")]
mod data;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod sharded;

pub use command::Command;
pub use keys::{KeyError, Namespace, vbucket_of};
pub use map::{MapError, ShardId, VBucketMap};

#[cfg(feature = "redis")]
pub use data::{
    Data, DataError, Fenced, FencingToken, LockError, LockLease, Replies, ReplySlot, ScanCursor, ScanPage,
    Swap, Transaction,
};
#[cfg(feature = "redis")]
pub use redis::{
    Adoption, Bootstrap, ConnectError, LinkError, RedisRefusal, ShardUrl, Shards, ShardsOptions,
    StaticTopology, Topology, TopologyError, UrlError,
};
#[cfg(feature = "redis")]
pub use sharded::{Misplaced, ShardedRedis, Swept};
