//! Moving: what is pending, how large it is, and how far it is.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use taba_core::{VBucket, causes};
use taba_process::signals::StopSignals;
use taba_process::{Exit, Log};
use taba_shard::migration::survey::Pending;
use taba_shard::migration::{Goal, Move};
use taba_shard::mover::{MoveEvent, MoveReport, Mover};
use taba_shard::shard_map::ShardMap;
use taba_shard::{ConnectError, ShardName, Shards};

use super::text::{bytes, millis, print, silent_lines};
use super::{CommandError, Config, Outcome};

/// Bytes a second that are copied where no rate is set: for the expected time only.
const BYTES_PER_SECOND: u64 = 50_000_000;
/// What a move takes besides its bytes.
const MOVE_TIME: Duration = Duration::from_millis(10);
/// Where no terminal shows a bar, a line is written so often.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// The map in force.
pub(super) async fn map(shards: &Shards) -> Result<Arc<ShardMap>, Box<dyn std::error::Error>> {
    shards.refresh_map().await?;
    Ok(shards.map().ok_or(CommandError::NoMap)?)
}

/// Moves, with the bytes of each.
async fn sized(shards: &Shards, moves: &[Move]) -> Result<Vec<(Move, u64)>, Box<dyn std::error::Error>> {
    let mut by_source: BTreeMap<ShardName, Vec<Move>> = BTreeMap::new();
    for this in moves {
        by_source.entry(this.from).or_default().push(*this);
    }
    let mut all = Vec::with_capacity(moves.len());
    for (source, moves) in by_source {
        let vbuckets: Vec<VBucket> = moves.iter().map(|this| this.vbucket).collect();
        all.extend(moves.into_iter().zip(shards.sizes(source, &vbuckets).await?));
    }
    Ok(all)
}

/// Prints what would move, how large it is, and how long it takes.
pub(super) async fn plan(config: &Config, shards: &Shards, map: &ShardMap) -> Outcome {
    let survey = shards.survey().await?;
    let exit = if survey.silent.is_empty() { Exit::Clean } else { Exit::Failed };
    let moves = survey.moves(Some(map));
    let sized = sized(shards, &moves).await?;
    let total: u64 = sized.iter().map(|(_, bytes)| bytes).sum();
    // The shard that has them may be silent.
    let rates = shards.mover_rates().await.ok().flatten().unwrap_or_default();
    let rate = rates.bytes.unwrap_or(BYTES_PER_SECOND);
    let copying = Duration::from_secs_f64(total as f64 / rate as f64);
    let beginning = match rates.moves {
        Some(rate) => Duration::from_secs_f64(moves.len() as f64 / rate as f64),
        None => MOVE_TIME * moves.len() as u32 / config.parallel.max(1) as u32,
    };
    let expected = copying.max(beginning);
    if config.json {
        let list: Vec<_> = sized
            .iter()
            .map(|(this, bytes)| {
                json!({"vbucket": this.vbucket.index(), "from": this.from.to_string(), "to": this.to.to_string(), "bytes": bytes})
            })
            .collect();
        let seconds = expected.as_secs_f64();
        let silent: Vec<String> = survey.silent.iter().map(|silent| silent.label.clone()).collect();
        print(
            &json!({
                "moves": list, "bytes": total, "bytes_per_second": rate, "expected_seconds": seconds,
                "silent": silent,
            })
            .to_string(),
        )?;
        return Ok(exit);
    }
    let mut by_pair: BTreeMap<(ShardName, ShardName), (usize, u64)> = BTreeMap::new();
    for (this, bytes) in &sized {
        let pair = by_pair.entry((this.from, this.to)).or_default();
        *pair = (pair.0 + 1, pair.1 + bytes);
    }
    let address = |name: ShardName| {
        map.shard(name).map_or_else(|| name.to_string(), |shard| format!("{} ({name})", shard.address))
    };
    for ((from, to), (count, size)) in by_pair {
        print(&format!("{count} vbuckets, about {}: {} -> {}", bytes(size), address(from), address(to)))?;
    }
    print(&format!(
        "{} moves, about {} in all; expected {:.1} s at {}/s",
        moves.len(),
        bytes(total),
        expected.as_secs_f64(),
        bytes(rate)
    ))?;
    for line in silent_lines(&survey, Some(map)) {
        print(&line)?;
    }
    Ok(exit)
}

/// Moves whatever is not where the map wants it, the unfinished first, until nothing is.
pub(super) async fn settle(config: &Config, shards: &Shards, log: &Log) -> Outcome {
    let mut all = MoveReport::default();
    let silent = shards.survey().await?.silent_names();
    if let Err(error) = shards.renew_map(&silent).await {
        // The map is as good as it was.
        if silent.is_empty() {
            return Err(error.into());
        }
        log.say(format_args!("the shard map is not written anew: {}", causes(&error)));
    }
    loop {
        let survey = shards.survey().await?;
        let map = map(shards).await?;
        let unowned = survey.pending(Some(&map)).filter(|(_, pending)| *pending == Pending::Unowned).count();
        let moves = survey.moves(Some(&map));
        if unowned > 0 {
            log.say(format_args!("{unowned} vbuckets are on no shard; see taba-server adopt"));
        }
        if moves.is_empty() {
            shards.remove_staged().await?;
            for line in silent_lines(&survey, Some(&map)) {
                log.say(line);
            }
            return ended(config, &all, unowned > 0 || !survey.silent.is_empty());
        }
        let report = run(config, shards, log, Goal::Forward, (&moves, survey.silent_names())).await?;
        let is_over = report.failed + report.left > 0;
        all.add(report);
        if is_over {
            return ended(config, &all, true);
        }
    }
}

/// Rolls back what is not yet switched, finishes what is, and makes the map say what is.
pub(super) async fn abort(config: &Config, shards: &Shards, log: &Log) -> Outcome {
    let survey = shards.survey().await?;
    let (known, silent) = (shards.map(), survey.silent_names());
    let of = |is_wanted: fn(&Pending) -> bool| -> Vec<Move> {
        survey
            .pending(known.as_deref())
            .filter(|(_, pending)| is_wanted(pending))
            .filter_map(|(_, pending)| pending.to_move())
            .collect()
    };
    let fenced = of(|pending| matches!(pending, Pending::Fenced(_)));
    let leftover = of(|pending| matches!(pending, Pending::Leftover(_)));
    let mut all = run(config, shards, log, Goal::Back, (&fenced, silent.clone())).await?;
    all.add(run(config, shards, log, Goal::Forward, (&leftover, silent.clone())).await?);
    let owners: Vec<(VBucket, ShardName)> = shards.survey().await?.owners().collect();
    if all.failed == 0 {
        shards.remove_staged().await?;
        match shards.change_map_beside(&silent, |map| map.with_owners(owners.clone())).await {
            // The map wants what it wanted; what was fenced is free.
            Err(error @ ConnectError::KeeperSilent { .. }) => log.say(causes(&error)),
            changed => drop(changed?),
        }
    }
    for line in silent_lines(&survey, known.as_deref()) {
        log.say(line);
    }
    let failed = all.failed > 0 || !silent.is_empty();
    ended(config, &all, failed)
}

/// Where VBuckets came from: these, or those that the newest run in the log has moved.
pub(super) async fn back(
    shards: &Shards,
    vbuckets: &[VBucket],
) -> Result<Vec<(VBucket, ShardName)>, Box<dyn std::error::Error>> {
    let log = shards.moves(usize::from(u16::MAX)).await?;
    let moved = || log.iter().rev().filter(|line| line.outcome == "moved");
    let by = moved().next().map(|line| line.by.clone());
    let mut back: BTreeMap<VBucket, ShardName> = BTreeMap::new();
    for line in moved() {
        let Some(vbucket) = shards.vbuckets().get(line.vbucket) else { continue };
        let is_wanted =
            if vbuckets.is_empty() { Some(&line.by) == by.as_ref() } else { vbuckets.contains(&vbucket) };
        if let (true, Ok(from)) = (is_wanted, line.from.parse()) {
            // Of a run that moved one twice, where it was at first; of one that is named, where it was last.
            if vbuckets.is_empty() {
                back.insert(vbucket, from);
            } else {
                back.entry(vbucket).or_insert(from);
            }
        }
    }
    Ok(back.into_iter().collect())
}

fn ended(config: &Config, report: &MoveReport, is_unfinished: bool) -> Outcome {
    let exit = if is_unfinished { Exit::Failed } else { Exit::Clean };
    let (p50, p99, max) = (report.pause(500), report.pause(990), report.pause(1000));
    if config.json {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        print(
            &json!({
                "moved": report.ended, "rolled_back": report.rolled_back, "failed": report.failed, "left": report.left,
                "bytes": report.bytes, "pause_ms": {"p50": millis(p50), "p99": millis(p99), "max": millis(max)},
            })
            .to_string(),
        )?;
        return Ok(exit);
    }
    let MoveReport { ended, rolled_back, failed, left, bytes: size, .. } = report;
    if ended + rolled_back + failed + left == 0 {
        print(match exit {
            Exit::Clean => "nothing to move: every vbucket is where the map wants it",
            _ => "nothing was moved",
        })?;
        return Ok(exit);
    }
    if report.pauses.is_empty() && *size == 0 {
        print(&format!("{ended} vbuckets are where they are to be; nothing was copied"))?;
    } else {
        print(&format!(
            "{ended} vbuckets moved, {}; writes of a vbucket were held for {} (median), {} (p99), {} (max)",
            bytes(*size),
            millis(p50),
            millis(p99),
            millis(max)
        ))?;
    }
    if rolled_back + failed + left > 0 {
        print(&format!(
            "{rolled_back} rolled back, {failed} failed, {left} not begun: taba-shard resume goes on, taba-shard abort takes back"
        ))?;
    }
    Ok(exit)
}

/// Carries out moves, and shows how far it is. The first signal lets what is under way come to its end.
async fn run(
    config: &Config,
    shards: &Shards,
    log: &Log,
    goal: Goal,
    (moves, silent): (&[Move], Vec<ShardName>),
) -> Result<MoveReport, Box<dyn std::error::Error>> {
    let mover = Mover::new(shards.clone(), config.mover_options(silent));
    let total: u64 = sized(shards, moves).await?.iter().map(|(_, bytes)| bytes).sum();
    let bar = ProgressBar::new(moves.len() as u64);
    let is_shown = std::io::stderr().is_terminal() && !config.json;
    if !is_shown {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = "{bar:30} {pos}/{len} vbuckets, {per_sec}, {eta} left; {msg}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    // Bytes so far, and the pauses so far.
    let so_far = Mutex::new((0_u64, Vec::<Duration>::new()));
    let tell = |event: MoveEvent| match event {
        MoveEvent::Waiting { why } => bar.set_message(format!("waits: {why}")),
        MoveEvent::Switched { pause, bytes: size, .. } => {
            let mut so_far = so_far.lock().unwrap_or_else(PoisonError::into_inner);
            so_far.0 += size;
            so_far.1.extend(pause);
            let longest = so_far.1.iter().max().copied().unwrap_or_default();
            let of = format!(
                "{} of about {}, held for {} at most",
                bytes(so_far.0),
                bytes(total),
                millis(longest)
            );
            bar.set_message(of);
        }
        MoveEvent::Ended { .. } | MoveEvent::RolledBack { .. } => bar.inc(1),
        MoveEvent::Failed { this, error } => {
            bar.suspend(|| log.say(format_args!("{this}: {}", causes(&error))));
        }
        _ => {}
    };
    let lines = async {
        loop {
            tokio::time::sleep(LINE_INTERVAL).await;
            if !is_shown {
                let said = bar.message();
                let colon = if said.is_empty() { "" } else { ": " };
                log.say(format_args!("{} of {} vbuckets{colon}{said}", bar.position(), moves.len()));
            }
        }
    };
    let mut signals = StopSignals::listen()?;
    let stopped = async {
        signals.next().await;
        mover.stop();
        log.say("what is under way comes to its end; a second signal ends at once");
        signals.next().await;
    };
    tokio::select! {
        report = mover.run(goal, moves, tell) => {
            bar.finish_and_clear();
            Ok(report)
        }
        () = lines => Ok(MoveReport::default()),
        () = stopped => {
            log.say("ended; vbuckets that were under way take no writes until taba-shard resume or abort");
            let mut report = MoveReport::default();
            report.failed = moves.len();
            Ok(report)
        }
    }
}
