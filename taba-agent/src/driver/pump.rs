//! The loop that drives the Relay: passes inputs, and sends its requests.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::select;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::sender::RequestSender;
use super::shared::{PumpStep, Shared};
use crate::dispatcher::Input;
use crate::sabotage::{PUMP, panic_in};

/// Runs until the Relay was stopped and is empty.
///
/// # Cancel safety
/// Safe: requests in flight are cancelled; the Relay still holds their Batches.
pub(super) async fn pump(shared: Arc<Shared>) {
    let seen = (Arc::clone(&shared.vbuckets), Arc::clone(&shared.stores));
    let sender = RequestSender::new(&shared.options, Arc::clone(&shared.lines), seen);
    let mut flights = JoinSet::new();
    // Asked at the start and regularly: reports mismatches without traffic, and detects new Server processes.
    let mut greetings = interval(shared.options.relay.dispatcher.lane.probe_interval);
    greetings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_met = false;
    let mut requests = Vec::new();
    let mut input = Input::Tick;
    loop {
        // The failure of an inconsistent state has been reported.
        let Ok(next) = shared.handle(input, &mut requests) else { return };
        for request in requests.drain(..) {
            panic_in(PUMP);
            flights.spawn(sender.clone().send(request));
        }
        let alarm = async {
            match next {
                PumpStep::At(instant) => sleep_until(instant).await,
                PumpStep::Wait => std::future::pending().await,
                PumpStep::Done => {}
            }
        };
        input = select! {
            biased;
            Some(answer) = flights.join_next() => match answer {
                Ok(input) => input,
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime is ending; the Relay still holds the request's Batches.
                Err(_) => Input::Tick,
            },
            () = shared.wake.notified() => Input::Tick,
            _ = greetings.tick() => {
                if !std::mem::replace(&mut is_met, true) || shared.holds_events() {
                    for server in 0..shared.options.servers().len() {
                        flights.spawn(sender.clone().greet(server));
                    }
                }
                Input::Tick
            },
            () = alarm => match next {
                PumpStep::Done => return,
                PumpStep::At(_) | PumpStep::Wait => Input::Tick,
            },
        };
    }
}
