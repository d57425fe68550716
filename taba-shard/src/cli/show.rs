//! Looking: the shards, what is unfinished, and what was moved.

use std::collections::BTreeMap;

use serde_json::json;
use taba_core::VBucket;
use taba_process::Exit;
use taba_shard::migration::Head;
use taba_shard::migration::pace::Rates;
use taba_shard::migration::survey::Pending;
use taba_shard::{ShardName, Shards};

use super::text::{bytes, print, silent_lines};
use super::{Config, Outcome};

/// How many lines of a long list are shown.
const SHOWN_MAX: usize = 20;

/// How fast vbuckets may move, as an operator has set it.
pub(super) fn rates(config: &Config, set: Option<Rates>) -> Outcome {
    let Rates { bytes: size, moves } = set.unwrap_or_default();
    if config.json {
        print(&json!({ "bytes_per_second": size, "moves_per_second": moves }).to_string())?;
        return Ok(Exit::Clean);
    }
    let size = size.map_or_else(|| "as many bytes as can be".to_owned(), bytes);
    let moves = moves.map_or_else(|| "as many as can be".to_owned(), |moves| moves.to_string());
    print(&format!("{size} a second, {moves} moves a second"))?;
    Ok(Exit::Clean)
}

/// Shows the shards, what they hold, and what is unfinished.
pub(super) async fn status(config: &Config, shards: &Shards) -> Outcome {
    let survey = shards.survey().await?;
    let (map, silent) = (shards.map(), survey.silent_names());
    let exit = if silent.is_empty() { Exit::Clean } else { Exit::Failed };
    let mut owned: BTreeMap<ShardName, Vec<VBucket>> = BTreeMap::new();
    for (vbucket, owner) in survey.owners() {
        owned.entry(owner).or_default().push(vbucket);
    }
    let pending: Vec<(VBucket, Pending)> = survey.pending(map.as_deref()).collect();
    let count = |is: fn(&Pending) -> bool| pending.iter().filter(|(_, pending)| is(pending)).count();
    let fenced = count(|pending| matches!(pending, Pending::Fenced(_)));
    let leftover = count(|pending| matches!(pending, Pending::Leftover(_)));
    let wanted = count(|pending| matches!(pending, Pending::Wanted(_)));
    let unowned = count(|pending| *pending == Pending::Unowned);
    let waiting = count(|pending| matches!(pending, Pending::Silent(_)));
    let mut rows = Vec::new();
    for shard in map.iter().flat_map(|map| map.shards()) {
        let vbuckets = owned.remove(&shard.name).unwrap_or_default();
        if silent.contains(&shard.name) {
            continue;
        }
        let size: u64 = shards.sizes(shard.name, &vbuckets).await?.iter().sum();
        let health = shards.health(shard.name).await?;
        rows.push((shard, vbuckets.len(), size, health));
    }
    let epoch = map.as_ref().map_or(0, |map| map.epoch());
    let deployment = format!("{:016x}", shards.view().deployment().id);
    if config.json {
        let list: Vec<_> = rows
            .iter()
            .map(|(shard, vbuckets, size, health)| {
                json!({
                    "name": shard.name.to_string(), "address": shard.address, "draining": shard.is_draining,
                    "vbuckets": vbuckets, "bytes": size, "replicas": health.replicas, "lag_bytes": health.lag,
                })
            })
            .collect();
        let gone: Vec<_> = map
            .iter()
            .flat_map(|map| map.shards().iter().map(move |shard| (map, shard)))
            .filter(|(_, shard)| silent.contains(&shard.name))
            .map(|(map, shard)| {
                let cause =
                    survey.silent.iter().find(|silent| silent.name == shard.name).map(|silent| &silent.cause);
                json!({
                    "name": shard.name.to_string(), "address": shard.address, "draining": shard.is_draining,
                    "vbuckets_of_map": map.owned_by(shard.name).count(), "cause": cause,
                })
            })
            .collect();
        print(
            &json!({
                "deployment": deployment, "vbuckets": shards.vbuckets().count(), "epoch": epoch, "shards": list,
                "fenced": fenced, "leftover": leftover, "to_move": wanted, "unowned": unowned,
                "silent": gone, "waiting": waiting,
            })
            .to_string(),
        )?;
        return Ok(exit);
    }
    print(&format!("deployment {deployment}, {} vbuckets, shard map {epoch}", shards.vbuckets().count()))?;
    print("NAME              ADDRESS                   VBUCKETS        BYTES  REPLICAS       LAG")?;
    for (shard, vbuckets, size, health) in rows {
        let lag = health.lag.map_or_else(|| "-".to_owned(), bytes);
        let draining = if shard.is_draining { "  draining" } else { "" };
        print(&format!(
            "{}  {:24}  {vbuckets:8}  {:>11}  {:8}  {lag:>8}{draining}",
            shard.name,
            shard.address,
            bytes(size),
            health.replicas
        ))?;
    }
    for shard in map.iter().flat_map(|map| map.shards()).filter(|shard| shard.is_draining) {
        print(&format!("{0} is draining: taba-shard add {0} takes that back", shard.address))?;
    }
    for (count, what) in [
        (fenced, "take no writes: a move was left. taba-shard resume goes on with it, abort takes it back"),
        (leftover, "have a copy left behind. taba-shard resume removes it"),
        (wanted, "are not where the map wants them. taba-shard resume moves them"),
        (unowned, "are on no shard. See taba-server adopt"),
        (
            waiting,
            "may belong to a shard that does not answer, and are left alone; those that are fenced take no writes",
        ),
    ] {
        if count > 0 {
            print(&format!("{count} vbuckets {what}"))?;
        }
    }
    for line in silent_lines(&survey, map.as_deref()) {
        print(&line)?;
    }
    Ok(exit)
}

/// Checks that each VBucket has one owner, no copies, and that all shards have the same map.
pub(super) async fn verify(config: &Config, shards: &Shards) -> Outcome {
    let survey = shards.survey().await?;
    let map = shards.map();
    let mut wrong: Vec<String> = silent_lines(&survey, map.as_deref());
    if map.is_none() {
        wrong.push(
            "there is no shard map, so whether a shard that is not named owns a vbucket is not known; name all to --redis, and \
             taba-shard rebalance makes one"
                .to_owned(),
        );
    }
    let open = |copies: &[(ShardName, Head)]| -> Vec<String> {
        let open = copies.iter().filter(|(_, head)| head.moved.is_none());
        open.map(|(name, head)| format!("{name} under epoch {}", head.epoch)).collect()
    };
    for (vbucket, owners) in survey.copies.iter().map(|(vbucket, copies)| (vbucket, open(copies))) {
        if owners.len() > 1 {
            let owners = owners.join(", ");
            wrong.push(format!(
                "{vbucket} is owned by {owners}; the highest counts, resume removes the others"
            ));
        }
    }
    for (vbucket, pending) in survey.pending(map.as_deref()) {
        wrong.push(match pending {
            Pending::Fenced(this) => format!("{vbucket} takes no writes: {this} was left"),
            Pending::Leftover(this) => format!("{vbucket} has a copy left at {}", this.from),
            Pending::Wanted(this) => {
                format!("{vbucket} is at {}, and the map wants it at {}", this.from, this.to)
            }
            Pending::Unowned => format!("{vbucket} is on no shard"),
            Pending::Silent(name) => format!("{vbucket} waits for shard {name}, which does not answer"),
            _ => continue,
        });
    }
    for (label, epoch) in shards.map_epochs().await? {
        let expected = map.as_ref().map_or(0, |map| map.epoch());
        if epoch != expected {
            wrong.push(format!(
                "{label} has shard map {epoch}, others have {expected}; taba-shard resume writes it anew"
            ));
        }
    }
    if config.json {
        print(&json!({ "vbuckets": shards.vbuckets().count(), "wrong": wrong }).to_string())?;
    } else {
        for line in wrong.iter().take(SHOWN_MAX) {
            print(line)?;
        }
        if wrong.len() > SHOWN_MAX {
            print(&format!("and {} more", wrong.len() - SHOWN_MAX))?;
        }
        if wrong.is_empty() {
            print(&format!(
                "{} vbuckets, each with one owner, and one map on all shards",
                shards.vbuckets().count()
            ))?;
        }
    }
    Ok(if wrong.is_empty() { Exit::Clean } else { Exit::Failed })
}

/// Shows the log of moves.
pub(super) async fn log(config: &Config, shards: &Shards, lines: usize) -> Outcome {
    let moves = shards.moves(lines).await?;
    let silent: Vec<String> = shards.survey().await?.silent.into_iter().map(|silent| silent.label).collect();
    let exit = if silent.is_empty() { Exit::Clean } else { Exit::Failed };
    if config.json {
        print(&json!({ "moves": moves, "silent": silent }).to_string())?;
        return Ok(exit);
    }
    if !moves.is_empty() {
        print("TIME, VBUCKET, FROM -> TO, EPOCH, SIZE, HOW LONG WRITES WERE HELD, WHAT IT CAME TO, WHO")?;
    }
    for line in moves {
        let held = line
            .pause_us
            .map_or_else(|| "-".to_owned(), |micros| format!("{:.1} ms", micros as f64 / 1000.0));
        print(&format!(
            "{}  vb{:04}  {} -> {}  epoch {}  {}  held {held}  {}  by {}",
            time(line.at_ms),
            line.vbucket,
            line.from,
            line.to,
            line.epoch,
            bytes(line.bytes),
            line.outcome,
            line.by
        ))?;
    }
    for label in silent {
        print(&format!("{label} does not answer: what was moved there is not shown"))?;
    }
    Ok(exit)
}

/// `2026-11-27T20:09:09.123Z`.
fn time(at_ms: u64) -> String {
    i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok())
        .map_or_else(|| at_ms.to_string(), |time| time.to_string())
}
