//! The driver: connections to Redis processes, and the scripts that run in them.
//!
//! | module | content |
//! |---|---|
//! | `url`, `url_error`, `topology`, `options` | where the shards are, and how they are used |
//! | `sentinel`, `seeds` | a primary that Sentinels name; the nodes of a Cluster that are asked first |
//! | `link`, `reconnect`, `info`, `reply`, `error` | one connection to one Redis: its settings, its replies, its errors |
//! | `scripts` | what runs in Redis |
//! | `shards`, `listed`, `request` | all shards together: a list and a shard map, or a Cluster |
//! | `census`, `head`, `bootstrap`, `adopt` | what the shards hold; making a deployment, and repairing one |
//! | `maps`, `membership` | the shard map, and shards that come and go |
//! | `cluster` | a Redis Cluster in place of a list: its slots, and requests that follow them |

mod adopt;
mod bootstrap;
mod census;
mod clock;
mod cluster;
mod error;
mod head;
mod hosts;
mod info;
mod link;
mod listed;
mod maps;
mod membership;
mod options;
mod reconnect;
mod reply;
mod request;
pub(crate) mod scripts;
mod seeds;
mod sentinel;
mod shards;
mod topology;
mod url;
mod url_error;

pub use self::adopt::Adoption;
pub use self::error::{ConnectError, LinkError, RedisRefusal};
pub use self::membership::{ShardHealth, SilentShard, Survey};
pub use self::options::{Bootstrap, ShardsOptions};
pub use self::shards::Shards;
pub use self::topology::{StaticTopology, Topology, TopologyError};
pub use self::url::ShardUrl;
pub use self::url_error::UrlError;

pub(crate) use self::clock::{monotonic, random};
pub(crate) use self::cluster::{SendRules, VBucketAnswer, VBucketRequest};
pub(crate) use self::head::{FoundHead, heads, read_head, read_time};
pub(crate) use self::link::{Answered, ShardLink, accepted};
pub(crate) use self::maps::change_map;
