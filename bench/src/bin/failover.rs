//! How soon after a primary that Redis Sentinel monitors was killed, and its replica promoted, queries count everything that
//! was recorded: real processes with their default settings, under load; with a replica that has everything, and with one
//! that lags.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use taba_bench::print_machine;
use taba_tests::pair::{Pair, master, monitor, serve};

const ROUNDS: usize = 5;
/// Events that a replica that lags does not have, about.
const LAG_EVENTS: u64 = 5000;

fn main() {
    print_machine();
    let mut millis: [Vec<u128>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let mut pairs = Pair::start_many(2);
        let sentinel = monitor(&pairs);
        let (_servers, _agent, load) = serve(&sentinel, 2);
        for (n, pair) in pairs.iter_mut().enumerate() {
            pair.catch_up();
            if n > 0 {
                pair.link.stall();
                load.records(LAG_EVENTS);
            }
            pair.kill_primary();
            pair.wait_for_failover(&sentinel, &master(n));
            millis[n].push(load.becomes_fresh("promoted").as_millis());
        }
        load.end("one round");
    }
    for (of, millis) in ["a replica that has everything", "a replica that lags"].iter().zip(&mut millis) {
        millis.sort_unstable();
        let (median, least, most) = (millis[ROUNDS / 2], millis[0], millis[ROUNDS - 1]);
        println!(
            "from the promotion of {of} until all is counted: {median} ms ({least}..{most}; {ROUNDS} rounds)"
        );
    }
}
