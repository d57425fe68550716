//! A Client and its Agent in one process, without a socket between them: a `Sink` that hands Batches to an `AgentHandle`.
//!
//! The Sink stands here, and not in a library: `taba-client` and `taba-agent` know `taba-core`, and not each other.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use taba_agent::{Agent, AgentHandle};
use taba_client::{Client, SealedBatch, Sink, SinkError, async_trait};
use taba_core::Remedy;
use taba_core::wire::Receipt;

struct InProcess(AgentHandle);

#[async_trait]
impl Sink for InProcess {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        self.0.accept(batch.batch()).await.map_err(|error| match error.remedy() {
            Remedy::Wait(wait) => SinkError::Busy { status: 503, retry_after: Some(wait) },
            _ => SinkError::Rejected { status: 400, reason: error.reason().to_owned() },
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let agent = Agent::builder().listen("127.0.0.1:0".parse()?).memory_spool().build()?.start().await?;
    let client = Client::builder("web-1").sink(InProcess(agent.handle())).build()?;
    client.counter("bids_won")?.add(3.0);
    let report = tokio::task::spawn_blocking(move || client.shutdown(Duration::from_secs(5))).await?;
    println!("left in the client: {report:?}");
    let left = agent.shutdown(Duration::ZERO).await;
    println!("held by the agent, for want of a server: {left:?}");
    assert_eq!(left.events, 1);
    Ok(())
}
