//! How things are printed.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use taba_process::Exit;

use super::{Config, Outcome};

/// One line, or its JSON.
pub(super) fn line(config: &Config, text: &str) -> Outcome {
    if config.json { print(&json!({ "done": text }).to_string()) } else { print(text) }
}

/// Prints; nobody may be reading any more.
pub(super) fn print(text: &str) -> Outcome {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Clean),
    }
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
