//! Giving up shards that are lost for good.

use serde_json::json;
use taba_core::VBucket;
use taba_process::Exit;
use taba_shard::shard_map::{ShardMap, ShardMapError};
use taba_shard::{Loss, ShardName, Shards};

use super::text::{operator, print};
use super::{Config, Outcome, moving};

/// A shard of the map, or the whole name of one that was in it.
fn named(map: &ShardMap, text: &str) -> Result<ShardName, ShardMapError> {
    let found = map.find(text).map(|shard| shard.name);
    found.or_else(|error| if text.len() == 16 { text.parse().map_err(|_| error) } else { Err(error) })
}

/// Shows what the loss comes to; with `yes` gives the shards up.
pub(super) async fn forget(
    config: &Config,
    shards: &Shards,
    lost: &[String],
    anew: bool,
    yes: bool,
) -> Outcome {
    let map = moving::map(shards).await?;
    let names = lost.iter().map(|text| named(&map, text)).collect::<Result<Vec<_>, _>>()?;
    let loss = if yes {
        shards.forget(&names, anew, &operator()).await?
    } else {
        shards.plan_forget(&names).await?
    };
    let Loss { kept, freed, lost, .. } = &loss;
    if config.json {
        let list = |vbuckets: &[(VBucket, ShardName)]| -> Vec<_> {
            vbuckets
                .iter()
                .map(|(vbucket, on)| json!({"vbucket": vbucket.index(), "shard": on.to_string()}))
                .collect()
        };
        let (kept, freed, lost) = (list(kept), list(freed), list(lost));
        return print(&json!({"done": yes, "kept": kept, "freed": freed, "lost": lost}).to_string());
    }
    for name in &names {
        let address = map.shard(*name).map_or("no shard any more", |shard| &shard.address);
        print(&format!("shard {name} ({address})"))?;
    }
    for (vbuckets, what) in [
        (kept, "stay on the shard that has them, and were to go to a lost one"),
        (
            freed,
            "were fenced on their way to it, and are owned again by the shard that they came from, as they were then. If the \
             lost one had taken over, what it took since is gone, but for what Agents still keep and send again",
        ),
        (
            lost,
            if yes {
                "were only there, and are made anew, empty"
            } else {
                "are only there: they cannot be answered"
            },
        ),
    ] {
        if let Some((first, _)) = vbuckets.first() {
            print(&format!("{} vbuckets, from {first} on, {what}", vbuckets.len()))?;
        }
    }
    print(match (yes, lost.is_empty()) {
        (true, _) => {
            "given up: leave it out of the settings of the servers; taba-shard rebalance spreads what is left"
        }
        (false, true) => "nothing was changed; --yes gives it up",
        (false, false) => {
            "nothing was changed; --yes --recreate-empty gives it up and makes those vbuckets anew, empty: what Agents still \
             keep comes again, all else is lost. Bring its data back, if there is any way"
        }
    })?;
    Ok(Exit::Clean)
}
