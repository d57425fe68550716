//! [`Load`]: a Client that records and queries that are asked, all along a test of what happens to a deployment meanwhile.
//!
//! Every test ends in exact totals and an exact Ledger, and prints the same three numbers: for how long writes of a VBucket
//! were held by moves, how many queries failed, how many Batches were sent again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use taba_client::Client;

use crate::{Account, PATIENCE, get, timed, wait_until, waited};

/// Tabs that are written to: enough that most of 64 VBuckets have some.
pub const TABS: usize = 100;
/// One event of each Tab is recorded so often: 5,000 a second.
const TICK: Duration = Duration::from_millis(20);
const CLIENT: &str = "web";

/// What queries were answered.
#[derive(Debug, Default)]
struct QueryCounts {
    whole: AtomicU64,
    /// Those that name shards that were away.
    partial: AtomicU64,
    /// Each with the reason; there should be none.
    failed: Mutex<Vec<String>>,
}

/// A Client that records without end, and one thread for each Server that queries it without end.
#[derive(Debug)]
pub struct Load {
    agent: String,
    servers: Vec<String>,
    client: Client,
    stop: Arc<AtomicBool>,
    recorded: Arc<AtomicU64>,
    /// Microseconds that recording an event of each Tab took at most.
    longest: Arc<AtomicU64>,
    /// Tabs that were written to once.
    others: AtomicU64,
    queries: Arc<QueryCounts>,
    threads: Vec<JoinHandle<()>>,
    /// Milliseconds for which writes were held, by VBucket and epoch.
    pauses: Mutex<BTreeMap<(u64, u64), f64>>,
}

impl Load {
    /// Begins, and waits until events and queries get through. URLs without a path.
    ///
    /// # Panics
    /// When they do not.
    pub fn start(agent: &str, servers: &[String]) -> Self {
        let handlers = taba_handlers::standard().build().expect("the standard handlers");
        let builder = Client::builder(CLIENT).agent(agent).handlers(handlers);
        let client = builder.flush_interval(TICK).build().expect("a client");
        let (stop, queries) = (Arc::<AtomicBool>::default(), Arc::<QueryCounts>::default());
        let (recorded, longest) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let record = record(&client, Arc::clone(&stop), [&recorded, &longest].map(Arc::clone));
        let mut threads = vec![std::thread::spawn(record)];
        for server in servers {
            let (server, stop, queries) = (server.clone(), Arc::clone(&stop), Arc::clone(&queries));
            threads.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    query(&server, &queries);
                }
            }));
        }
        let (agent, servers) = (agent.to_owned(), servers.to_vec());
        let (others, pauses) = (AtomicU64::default(), Mutex::default());
        let load = Self { agent, servers, client, stop, recorded, longest, others, queries, threads, pauses };
        load.goes_on();
        load
    }

    /// How many events were recorded so far.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Records one event of each of as many other Tabs, which are never written to again.
    ///
    /// # Panics
    /// When they are too many.
    pub fn record_others(&self, count: u64) {
        for n in 0..count {
            self.client.totals(format!("load;other={n}")).expect("a tab").add(1.0);
        }
        self.others.fetch_add(count, Ordering::Relaxed);
        self.recorded.fetch_add(count, Ordering::Relaxed);
    }

    /// Queries that were answered so far, and those of them whose answer lacks a shard.
    pub fn queried(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let partial = of(&self.queries.partial);
        (of(&self.queries.whole) + partial, partial)
    }

    /// Waits until more is recorded.
    pub fn records(&self, more: u64) {
        let wanted = self.recorded() + more;
        wait_until("recording goes on", || self.recorded() >= wanted);
    }

    /// Waits until more is recorded, and more queries are answered in full.
    ///
    /// # Panics
    /// When they are not.
    pub fn goes_on(&self) {
        let whole = || self.queries.whole.load(Ordering::Relaxed);
        let before = (self.recorded(), whole());
        wait_until("events and queries go on", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a thread has failed; see above");
            self.recorded() > before.0 + 500 && whole() > before.1 + 4
        });
    }

    /// Waits until each Server counts in each Tab all that is recorded at this moment, in an answer that lacks nothing; how
    /// long that took.
    pub fn becomes_fresh(&self, after: &str) -> Duration {
        let others = self.others.load(Ordering::Relaxed);
        let each = (self.recorded() - others) / TABS as u64;
        let is_fresh = |server: &String| {
            let answer = get(server, &format!("/v2/tabs?base=load&limit={}", TABS as u64 + others));
            let Some(answer) = answer.filter(|answer| answer["missing"].is_null()) else { return false };
            let counts = answer["results"].as_array().into_iter().flatten().map(|row| row["events"].as_u64());
            // Of those that were written to once, none has more.
            let (mut whole, mut once) = (0, 0);
            counts.for_each(|count| match count {
                Some(1) => once += 1,
                count => whole += usize::from(count >= Some(each)),
            });
            whole == TABS && once == others
        };
        let waited = waited("all that was recorded is counted", || self.servers.iter().all(is_fresh));
        say(&format!("{after}: all was counted {} ms later", waited.as_millis()));
        waited
    }

    /// Notes for how long moves have held writes, as `taba-shard log --json` says. What was noted before does not count twice.
    pub fn note_moves(&self, log: &Value) {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        for line in log["moves"].as_array().into_iter().flatten() {
            if let (Some(vbucket), Some(epoch), Some(micros)) =
                (line["vbucket"].as_u64(), line["epoch"].as_u64(), line["pause_us"].as_u64())
            {
                pauses.insert((vbucket, epoch), micros as f64 / 1000.0);
            }
        }
    }

    /// Stops, sees that everything is counted once, and prints what the test has found out.
    ///
    /// # Panics
    /// When something is not counted, or twice, or a query has failed.
    pub fn end(mut self, test: &str) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no thread has failed");
        }
        let recorded = self.recorded();
        wait_until("the agent has everything", || self.client.stats().acked >= recorded);
        let events = recorded as i64;
        let all = Account { recorded: events, folded: events, dropped: 0, in_flight: 0 };
        for server in &self.servers {
            let mut last = None;
            wait_until("all is folded", || {
                last = Account::at(server, CLIENT);
                last.is_some_and(|last| last.folded >= events && last.in_flight == 0)
            });
            assert_eq!(last, Some(all), "the ledger of {server}");
            let answer = get(server, "/v2/super?base=load").expect("it is answered");
            let value = &answer["results"][0]["value"];
            assert_eq!((counted(&answer), value["total"].as_f64()), (recorded, Some(recorded as f64)));
        }
        self.report(test);
    }

    fn report(&self, test: &str) {
        let status = get(&self.agent, "/v2/status").expect("the agent answers");
        let replayed = status["lane_batches"]["replayed"].as_u64().expect("a number of batches");
        let mut pauses: Vec<f64> =
            self.pauses.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
        pauses.sort_by(f64::total_cmp);
        let of = |per_mille: usize| {
            let place = (pauses.len() * per_mille).div_ceil(1000).saturating_sub(1);
            pauses.get(place).copied().unwrap_or_default()
        };
        let failed = self.queries.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let (queries, partial) = self.queried();
        say(&format!(
            "{test}: {} events, exact; {TABS} of them were recorded in {:.1} ms at most; writes paused per vbucket, ms: p50 {:.1}, p99 {:.1}, max {:.1} ({} moves); \
             queries failed {} of {queries} ({partial} named what was away); batches replayed {replayed}",
            self.recorded(),
            self.longest.load(Ordering::Relaxed) as f64 / 1000.0,
            of(500),
            of(990),
            of(1000),
            pauses.len(),
            failed.len(),
        ));
        assert_eq!(*failed, Vec::<String>::new(), "queries have failed");
    }
}

/// Records an event of each Tab in each tick, whatever becomes of them.
fn record(
    client: &Client,
    stop: Arc<AtomicBool>,
    [recorded, longest]: [Arc<AtomicU64>; 2],
) -> impl FnOnce() + use<> {
    let tab = |n| client.totals(format!("load;tab={n}")).expect("a tab");
    let tabs: Vec<_> = (0..TABS).map(tab).collect();
    move || {
        while !stop.load(Ordering::Relaxed) {
            let took = timed(|| tabs.iter().for_each(|tab| tab.add(1.0)));
            longest.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
            recorded.fetch_add(TABS as u64, Ordering::Relaxed);
            // The pace of the load, not a wait for anything.
            std::thread::park_timeout(TICK);
        }
    }
}

fn query(server: &str, queries: &QueryCounts) {
    let asked = || -> Result<Value, ureq::Error> {
        let request = ureq::get(&format!("{server}/v2/super?base=load"));
        let request = request.header("accept", "application/json").config().timeout_global(Some(PATIENCE));
        request.build().call()?.body_mut().read_json()
    };
    match asked() {
        Ok(answer) if !answer["results"].is_array() => queries.fail(answer.to_string()),
        Ok(answer) if answer["missing"].is_null() => {
            queries.whole.fetch_add(1, Ordering::Relaxed);
        }
        Ok(_) => {
            queries.partial.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => queries.fail(error.to_string()),
    }
    // So that queries leave the processors to what is tested.
    std::thread::park_timeout(TICK);
}

impl QueryCounts {
    fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

fn counted(answer: &Value) -> u64 {
    answer["results"][0]["value"]["count"].as_u64().unwrap_or(0)
}

#[expect(clippy::print_stderr, reason = "a test says what it has measured")]
fn say(line: &str) {
    eprintln!("{line}");
}
