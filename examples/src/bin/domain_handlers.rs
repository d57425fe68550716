//! Handlers of a domain as expressions of parts: what a visit of a page is, and three Tab types that each look at it in their way.
//!
//! `cargo run -p taba-examples --bin domain_handlers` shows them at work; `cargo test -p taba-examples` checks the laws.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use taba_core::{Event, Format, Handler, Keyed, Registry, RegistryError, Timestamp, Value};
use taba_handlers::{ByKey, Distinct, Group, On, Sketch, Sum, Totals, Windowed};

/// One visit of a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Visit {
    page: String,
    user: String,
    seconds: f64,
}

impl Value for Visit {}

/// How long visits are, in all and in the last hour, and of how many users they are.
fn visits() -> impl Handler<Value = Visit> {
    let seconds = |visit: &Visit| visit.seconds;
    let hour = Windowed::new(Sketch, Duration::from_secs(3600), Duration::from_secs(60));
    Group::new(
        ["all_time", "1h", "users"],
        (
            On::new(seconds, Totals),
            On::new(seconds, hour),
            On::new(|visit: &Visit| visit.user.clone(), Distinct),
        ),
    )
}

/// For each page: seconds and users. Of more than 100 pages, the rest is one.
fn pages() -> impl Handler<Value = Visit> {
    let each = Group::new(
        ["seconds", "users"],
        (On::new(|visit: &Visit| visit.seconds, Sum), On::new(|visit: &Visit| visit.user.clone(), Distinct)),
    );
    let by_page = |visit: &Visit| Keyed { key: visit.page.clone(), value: visit.clone() };
    On::new(by_page, ByKey::new(each).with_keys_max(100))
}

/// What Clients, Agents and Servers of this domain share.
fn handlers() -> Result<Registry, RegistryError> {
    taba_handlers::standard().with("Visits", visits()).with("Pages", pages()).build()
}

fn show<H: Handler<Value = Visit>>(handler: &H, visits: &[Visit]) {
    let now = Timestamp::from_secs(1_795_371_115);
    let mut state = H::State::default();
    visits.iter().for_each(|visit| handler.fold(&mut state, Event::new(now, visit)));
    println!("{:#}", handler.render(&handler.project(&state, now), Format::Summary));
}

fn main() -> Result<(), RegistryError> {
    let visit =
        |(page, user, seconds): (&str, &str, f64)| Visit { page: page.into(), user: user.into(), seconds };
    let seen = [("/", "ann", 2.0), ("/", "bob", 3.5), ("/prices", "ann", 40.0)].map(visit);
    show(&visits(), &seen);
    show(&pages(), &seen);
    assert!(handlers()?.get("Pages").is_some());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::handler_laws;
    use taba_core::laws::samples::{numbers, texts};

    use super::*;

    fn samples() -> impl Strategy<Value = Visit> + Clone {
        ("[a-d]{1,2}", texts(), numbers()).prop_map(|(page, user, seconds)| Visit { page, user, seconds })
    }

    handler_laws!(visits_keep_the_laws, visits(), samples());
    handler_laws!(pages_keep_the_laws, pages(), samples());
}
