//! Connects to the shards of a Redis store, and waits for those that are not ready.

use std::time::Duration;

use taba_core::{Remedy, causes};
use taba_server::config::VerifiedServerConfig;
use taba_shard::{Bootstrap, ConnectError, ShardedRedis, ShardsOptions};

/// The longest pause between tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A lasting cause is logged again after this many tries.
const TOLD_EVERY: u32 = 10;

/// The options of the shards.
pub(crate) fn options(config: &VerifiedServerConfig) -> ShardsOptions {
    let mut options = ShardsOptions::default();
    options.vbuckets = config.vbuckets();
    options.stability.replicas = config.redis_replicas;
    options
}

/// Connects to the shards; makes the deployment if all are empty. Several Servers that start at once make the same
/// one.
///
/// Waits while no shard answers, one is loading its data, or a deployment may have to be made and not all shards
/// answer. Once one shard shows a deployment, the others may come later.
///
/// # Errors
/// Permanent ones: shards that do not belong together, a wrong password, a setting that loses data.
pub(crate) async fn connect(config: &VerifiedServerConfig) -> Result<ShardedRedis, ConnectError> {
    let mut options = options(config);
    options.bootstrap = Bootstrap::IfEmpty;
    let (mut told, mut tries) = (String::new(), 0_u32);
    loop {
        let error = match ShardedRedis::connect(config.shards().to_vec(), options.clone()).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let Remedy::Wait(pause) = error.remedy() else { return Err(error) };
        let cause = causes(&error);
        if cause != told || tries.is_multiple_of(TOLD_EVERY) {
            tracing::warn!(cause, tries, "waiting for the redis store");
            told = cause;
        }
        tries += 1;
        tokio::time::sleep(pause.clamp(PAUSE_MAX / 4, PAUSE_MAX)).await;
    }
}
