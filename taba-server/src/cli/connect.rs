//! Connecting to the shards of a Redis store, and waiting for those that are not ready yet.

use std::time::Duration;

use taba_core::{Remedy, causes};
use taba_server::config::VerifiedServerConfig;
use taba_shard::stability::StabilityRules;
use taba_shard::{Bootstrap, ConnectError, ShardedRedis, ShardsOptions};

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A cause that lasts is told again after so many tries.
const TOLD_EVERY: u32 = 10;

/// How to use the shards.
pub(crate) fn options(config: &VerifiedServerConfig) -> ShardsOptions {
    ShardsOptions {
        vbuckets: config.vbuckets(),
        stability: StabilityRules { replicas: config.redis_replicas, ..StabilityRules::default() },
        ..ShardsOptions::default()
    }
}

/// Connects to the shards; where they are all empty, makes the deployment. Of several Servers that start at once on
/// empty shards, all make the same one.
///
/// Waits as long as no shard is there, as one is loading its data, or as there may be a deployment to make and not all
/// shards answer. Once one shard shows that there is a deployment, the others may come later.
///
/// # Errors
/// What does not pass by itself: shards that do not belong together, a wrong password, a setting that loses data.
pub(crate) async fn connect(config: &VerifiedServerConfig) -> Result<ShardedRedis, ConnectError> {
    let options = ShardsOptions { bootstrap: Bootstrap::IfEmpty, ..options(config) };
    let (mut told, mut tries) = (String::new(), 0_u32);
    loop {
        let error = match ShardedRedis::connect(config.shards().to_vec(), options.clone()).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let Remedy::Wait(pause) = error.remedy() else { return Err(error) };
        let cause = causes(&error);
        if cause != told || tries.is_multiple_of(TOLD_EVERY) {
            tracing::warn!(cause, tries, "the redis store is not ready; the server waits for it");
            told = cause;
        }
        tries += 1;
        tokio::time::sleep(pause.clamp(PAUSE_MAX / 4, PAUSE_MAX)).await;
    }
}
