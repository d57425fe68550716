//! How things are printed.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use taba_core::{VBucket, printable, printable_json};
use taba_process::Exit;
use taba_shard::migration::Head;
use taba_shard::shard_map::ShardMap;
use taba_shard::{ShardName, SilentShard, Survey};

use super::{Config, Outcome};

/// One line, or its JSON.
pub(super) fn line(config: &Config, text: &str) -> Outcome {
    if config.json { print(&json!({ "done": text }).to_string()) } else { print(text) }
}

/// Prints a line, or JSON; nobody may be reading any more. What Redis and others say acts on no terminal.
pub(super) fn print(text: &str) -> Outcome {
    let text = if text.starts_with('{') { printable_json(text) } else { printable(text) };
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Clean),
    }
}

/// The shards that do not answer, one line each: what the map says they own, and what waits for them.
pub(super) fn silent_lines(survey: &Survey, map: Option<&ShardMap>) -> Vec<String> {
    let line = |silent: &SilentShard| {
        let owned = map.map_or(0, |map| map.owned_by(silent.name).count());
        let towards = |(_, copies): &&(VBucket, Vec<(ShardName, Head)>)| {
            let is_towards = |moved: Option<(u64, ShardName)>| moved.is_some_and(|(_, to)| to == silent.name);
            copies.iter().any(|(_, head)| head.has_content && is_towards(head.moved))
        };
        let fenced = survey.copies.iter().filter(towards).count();
        format!(
            "{} ({}) does not answer: {}; the map has {owned} vbuckets there, and {fenced} are fenced on their way to it. What \
             it has no part in goes on. If it is lost for good: taba-shard forget {}",
            silent.label, silent.name, silent.cause, silent.name
        )
    };
    survey.silent.iter().map(line).collect()
}

/// Who runs this: user, machine and process.
pub(super) fn operator() -> String {
    let user =
        std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}:{}", host.trim(), std::process::id())
}

/// `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `12 ms`.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
