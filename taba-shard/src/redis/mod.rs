//! The driver: connections to Redis processes, and the scripts that run in them.

mod adopt;
mod bootstrap;
mod census;
mod clock;
mod cluster;
mod error;
mod head;
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
pub use self::membership::{ShardHealth, Survey};
pub use self::options::{Bootstrap, ShardsOptions};
pub use self::shards::Shards;
pub use self::topology::{StaticTopology, Topology, TopologyError};
pub use self::url::ShardUrl;
pub use self::url_error::UrlError;

pub(crate) use self::clock::{monotonic, random};
pub(crate) use self::cluster::{SendRules, VBucketAnswer, VBucketRequest};
pub(crate) use self::head::{FoundHead, read_head, read_time};
pub(crate) use self::link::{Answered, ShardLink, accepted};
