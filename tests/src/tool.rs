//! [`Tool`]: the real `taba-shard`, for one deployment.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::network::Machine;
use crate::{binary, sabotaged};

/// `taba-shard`, and the shards that it is told of.
#[derive(Clone, Debug)]
pub struct Tool {
    /// The binary.
    pub program: PathBuf,
    /// What `--redis` says.
    pub redis: String,
    /// Where it runs; the default is the machine of the test.
    pub machine: Option<Machine>,
}

impl Tool {
    /// The one that is shipped. URLs with commas between.
    pub fn of(redis: impl Into<String>) -> Self {
        Self { program: binary("taba-shard"), redis: redis.into(), machine: None }
    }

    /// The one that stops where `TABA_SABOTAGE` says.
    pub fn sabotaged(redis: impl Into<String>) -> Self {
        Self { program: sabotaged("taba-shard"), redis: redis.into(), machine: None }
    }

    /// The command, ready to be started.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match &self.machine {
            Some(machine) => machine.command(&self.program),
            None => Command::new(&self.program),
        };
        command.args(["--redis", &self.redis, "--json"]).args(words);
        command
    }

    /// Runs it to its end, with these rules switched off.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run(&self, sabotage: &str, words: &[&str]) -> Output {
        self.command(words).env("TABA_SABOTAGE", sabotage).output().expect("taba-shard starts")
    }

    /// Runs it, and reads what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn json(&self, words: &[&str]) -> Value {
        let done = self.run("", words);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words:?}: {said} {}", String::from_utf8_lossy(&done.stdout));
        serde_json::from_slice(&done.stdout).unwrap_or_default()
    }

    /// The newest lines of the log of moves.
    ///
    /// # Panics
    /// When it fails.
    pub fn log(&self) -> Value {
        self.json(&["log", "-n", "10000"])
    }
}
