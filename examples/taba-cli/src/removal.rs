//! `taba delete` and `taba prune`: a server answers within a minute, and says where to go on; this goes on to the end.

use std::io::Write;

use serde_json::{Map, Value, json};
use taba_core::printable;

use crate::client::{Client, Method};
use crate::error::CliError;
use crate::url::Question;

/// What each answer counts anew.
const COUNTS: [&str; 4] = ["tabs", "states", "events", "damaged"];

/// Asks until nothing is left; the sum of the answers. What was removed before an error stays removed.
pub(crate) fn whole(client: &Client, method: Method, question: &Question) -> Result<Value, CliError> {
    let (mut sum, mut from) = (Map::new(), None::<String>);
    loop {
        let answer = client.ask(method, &question.clone().with_some("from", from.as_deref()))?;
        let removed = answer["removed"].as_object().cloned().unwrap_or_default();
        for key in COUNTS {
            let before = sum.get(key).and_then(Value::as_u64).unwrap_or(0);
            let more = removed.get(key).and_then(Value::as_u64).unwrap_or(0);
            sum.insert(key.to_owned(), before.saturating_add(more).into());
        }
        sum.extend(removed.get("missing").map(|missing| ("missing".to_owned(), missing.clone())));
        let next = removed.get("next").and_then(Value::as_str).map(str::to_owned);
        let is_new = next != from;
        let Some(next) = next.filter(|_| is_new) else { break };
        let (done, all, states) = (&removed["vbuckets_done"], &removed["vbuckets"], &sum["states"]);
        let _ = writeln!(
            std::io::stderr(),
            "{}",
            printable(&format!("{done} of {all} vbuckets, {states} states removed"))
        );
        from = Some(next);
    }
    Ok(json!({ "removed": sum }))
}
