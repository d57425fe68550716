//! Every standard Tab type: what a Handler does to a State.

use taba_core::{
    Event, Events, Expiring, Format, Handler, Keyed, Reading, Timestamp, decode_state, encode_state,
};
use taba_handlers::{
    AllTime, Buffer, CommonPrefixCounterGroup, CounterGroup, Distinct, ExpiryGauge, Gauge, PercentileCounter,
    PercentileGroup, TotalsCounter,
};

use super::{START, double, integer, times};
use crate::measure::{noise, operation};

/// Events in a State before it is measured: one a minute for a day.
const HELD: usize = 1_440;
/// Events of a batch.
const BATCH: usize = 1_000;

pub(super) fn all() {
    handler("TotalsCounter/integers", &TotalsCounter::new(), integer);
    handler("TotalsCounter/doubles", &TotalsCounter::new(), double);
    handler("PercentileCounter/integers", &PercentileCounter::new(), integer);
    handler("PercentileCounter/doubles", &PercentileCounter::new(), double);
    handler("CounterGroup/integers", &CounterGroup::new(), integer);
    handler("CounterGroup/doubles", &CounterGroup::new(), double);
    handler("PercentileGroup/doubles", &PercentileGroup::new(), double);
    handler("Gauge", &Gauge::new(), |n| Reading::Number(double(n)));
    handler("ExpiryGauge", &ExpiryGauge, expiring);
    handler("Buffer", &AllTime::new(Buffer), expiring);
    handler("CommonPrefixCounterGroup", &CommonPrefixCounterGroup::new(), keyed);
    handler("Distinct", &AllTime::new(Distinct), |n| format!("user-{}", noise(n, 100_000)));
}

/// Expires a day after the last event, or somewhat later.
fn expiring(n: usize) -> Expiring {
    let expires = Timestamp::from_secs(START + 2 * 86_400 + noise(n, 600) as i64);
    Expiring { expires, reading: Reading::Number(double(n)) }
}

fn keyed(n: usize) -> Keyed {
    Keyed { key: format!("x{}", noise(n, 8)), value: integer(n) }
}

/// A State that has seen those events, after another `skipped` of them.
fn held<H: Handler>(handler: &H, value: fn(usize) -> H::Value, skipped: usize) -> H::State {
    let times = times(START, HELD, 60_000_000);
    let values: Vec<_> = (skipped..skipped + HELD).map(value).collect();
    let mut state = H::State::default();
    handler.fold_all(&mut state, Events::new(&times, &values));
    state
}

fn handler<H: Handler>(name: &str, handler: &H, value: fn(usize) -> H::Value) {
    let name = |what: &str| format!("handler/{name}/{what}");
    let end = START + 86_400;
    let (times, values) = (times(end, BATCH, 1_000), (0..BATCH).map(value).collect::<Vec<_>>());
    let state = held(handler, value, 0);
    let other = held(handler, value, HELD);
    let (one, bytes) = (value(BATCH), encode_state(&state));
    let now = Timestamp::from_secs(end);
    let (said, also) = (handler.project(&state, now), handler.project(&other, now));
    operation(&name("fold_first"), H::State::default, |mut state| {
        handler.fold(&mut state, Event::new(now, &one));
        state
    });
    operation(
        &name("fold_one"),
        || state.clone(),
        |mut state| {
            handler.fold(&mut state, Event::new(now, &one));
            state
        },
    );
    operation(
        &name("fold_1000"),
        || state.clone(),
        |mut state| {
            handler.fold_all(&mut state, Events::new(&times, &values));
            state
        },
    );
    operation(
        &name("merge"),
        || state.clone(),
        |mut state| {
            handler.merge(&mut state, &other);
            state
        },
    );
    operation(&name("encode"), || (), |()| encode_state(&state));
    operation(
        &name("decode"),
        || (),
        |()| decode_state(handler, H::VERSION, &bytes).expect("it was encoded"),
    );
    operation(&name("project"), || (), |()| handler.project(&state, now));
    operation(
        &name("aggregate"),
        || said.clone(),
        |mut said| {
            handler.aggregate(&mut said, &also);
            said
        },
    );
    operation(&name("render"), || (), |()| handler.render(&said, Format::Summary));
}
