//! A Handler of your own: what a checkout is, what to remember of many, and that it keeps the laws.
//!
//! `cargo run -p taba-examples --bin custom_handler` shows it at work; `cargo test -p taba-examples` checks the laws.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use serde::{Deserialize, Serialize};
use taba_core::{Event, Events, Format, Handler, Timestamp, Value};

// The whole Handler is from here …
/// One attempt to pay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Checkout {
    cents: u32,
    paid: bool,
}

impl Value for Checkout {}

/// What is remembered, and what is shown: both are the same here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sales {
    paid: u64,
    failed: u64,
    cents: u64,
    largest_cents: u32,
}

/// Sales of a shop: orders paid and failed, revenue, the largest order.
#[derive(Debug)]
struct Checkouts;

impl Handler for Checkouts {
    type Value = Checkout;
    type State = Sales;
    type Projection = Sales;
    const VERSION: u16 = 1;

    fn fold(&self, sales: &mut Sales, event: Event<&Checkout>) {
        let Checkout { cents, paid } = *event.value;
        let one = if paid {
            Sales { paid: 1, cents: cents.into(), largest_cents: cents, ..Sales::default() }
        } else {
            Sales { failed: 1, ..Sales::default() }
        };
        self.merge(sales, &one);
    }

    fn merge(&self, into: &mut Sales, other: &Sales) {
        into.paid = into.paid.saturating_add(other.paid);
        into.failed = into.failed.saturating_add(other.failed);
        into.cents = into.cents.saturating_add(other.cents);
        into.largest_cents = into.largest_cents.max(other.largest_cents);
    }

    fn project(&self, sales: &Sales, _at: Timestamp) -> Sales {
        sales.clone()
    }

    fn aggregate(&self, into: &mut Sales, other: &Sales) {
        self.merge(into, other);
    }

    fn encoded_bytes_max(&self) -> usize {
        35 // three integers of 64 bits and one of 32, seven bits a byte
    }
}
// … to here.

fn main() {
    let checkouts: Vec<_> =
        (1..=1000).map(|n| Checkout { cents: n * 7 % 5_000, paid: n % 10 != 0 }).collect();
    let times = vec![Timestamp::from_secs(1_795_371_115); checkouts.len()];

    // All at once, or on three machines that meet later: it is the same to the last bit.
    let mut whole = Sales::default();
    Checkouts.fold_all(&mut whole, Events::new(&times, &checkouts));
    let mut parts = Sales::default();
    for part in checkouts.chunks(400) {
        let mut machine = Sales::default();
        Checkouts.fold_all(&mut machine, Events::new(&times[..part.len()], part));
        Checkouts.merge(&mut parts, &machine);
    }
    assert_eq!(parts, whole);
    println!("{}", Checkouts.render(&Checkouts.project(&whole, times[0]), Format::Summary));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::handler_laws;

    use super::*;

    fn checkouts() -> impl Strategy<Value = Checkout> + Clone {
        (any::<u32>(), any::<bool>()).prop_map(|(cents, paid)| Checkout { cents, paid })
    }

    handler_laws!(checkouts_keep_the_laws, Checkouts, checkouts());
}
