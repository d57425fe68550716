//! The loop that drives the Relay: passes inputs, and sends its requests.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::sender::{RequestSender, SpreadSeen};
use super::shared::{Finding, PumpStep, Shared};
use crate::discovery::DiscoveryJob;
use crate::dispatcher::Input;
use crate::sabotage::{PUMP, panic_in};

/// What the pump is told.
enum PumpInput {
    Relay(Input),
    Discovery(Finding),
}

async fn find(sender: RequestSender, job: DiscoveryJob) -> PumpInput {
    PumpInput::Discovery(match job {
        DiscoveryJob::Resolve(seed, host_port) => Finding::Resolved(seed, sender.resolve(&host_port).await),
        DiscoveryJob::Ask(server) => {
            let list = sender.ask_servers(&server).await;
            Finding::Told(server, list)
        }
        DiscoveryJob::Reach(server) => {
            let reached = sender.reach(&server).await;
            Finding::Reached(server, reached)
        }
    })
}

/// Runs until the Relay was stopped and is empty.
///
/// # Cancel safety
/// Safe: requests in flight are cancelled; the Relay still holds their Batches.
pub(super) async fn pump(shared: Arc<Shared>) {
    let spread: Arc<SpreadSeen> = Arc::default();
    let seen = (Arc::clone(&shared.vbuckets), Arc::clone(&shared.stores), Arc::clone(&spread));
    let sender = RequestSender::new(&shared.options, Arc::clone(&shared.lines), seen);
    let mut flights: JoinSet<PumpInput> = JoinSet::new();
    // Asked at the start and regularly: reports mismatches without traffic, and detects new Server processes.
    let mut greetings = interval(shared.options.relay.dispatcher.lane.probe_interval);
    greetings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_met = false;
    let mut requests = Vec::new();
    let mut input = Input::Tick;
    loop {
        // The failure of an inconsistent state has been reported.
        let Ok((jobs, discovers_at)) = shared.discover() else { return };
        for job in jobs {
            flights.spawn(find(sender.clone(), job));
        }
        if let Some(rules) = spread.take() {
            shared.set_spread(&rules);
        }
        let Ok(next) = shared.handle(input, &mut requests) else { return };
        for request in requests.drain(..) {
            panic_in(PUMP);
            let sent = sender.clone().send(request);
            flights.spawn(async { PumpInput::Relay(sent.await) });
        }
        let alarm = async {
            match next {
                PumpStep::At(instant) => sleep_until(instant).await,
                PumpStep::Wait => std::future::pending().await,
                PumpStep::Done => {}
            }
        };
        let discovery = async {
            match discovers_at {
                Some(instant) => sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        input = select! {
            biased;
            Some(answer) = flights.join_next() => match answer {
                Ok(PumpInput::Relay(input)) => input,
                Ok(PumpInput::Discovery(finding)) => {
                    shared.found(finding);
                    Input::Tick
                }
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime is ending; the Relay still holds the request's Batches.
                Err(_) => Input::Tick,
            },
            () = shared.wake.notified() => Input::Tick,
            () = sender.new_process() => Input::NewServer,
            _ = greetings.tick() => {
                if !std::mem::replace(&mut is_met, true) || shared.holds_events() {
                    for server in shared.servers() {
                        let greeted = sender.clone().greet(server);
                        flights.spawn(async { PumpInput::Relay(greeted.await) });
                    }
                }
                Input::Tick
            },
            () = discovery => Input::Tick,
            () = alarm => match next {
                PumpStep::Done => return,
                PumpStep::At(_) | PumpStep::Wait => Input::Tick,
            },
        };
    }
}
