//! Questions to Servers and Agents, which may be down, paused or slow.

use std::time::Duration;

use serde_json::Value;

/// Who takes longer does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The JSON that a process answers to this path, if it answers.
pub(super) fn get(port: u16, path: &str) -> Option<Value> {
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build();
    let url = format!("http://127.0.0.1:{port}{path}");
    let mut answer =
        ureq::Agent::new_with_config(config).get(&url).header("accept", "application/json").call().ok()?;
    answer.body_mut().read_json().ok()
}
