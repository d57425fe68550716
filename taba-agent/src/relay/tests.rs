use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use taba_core::wire::{Ack, Answer, Block, LaneBatch, Lanes};
use taba_core::{ClientId, Events, NameError, SeqNo, TabName, TabType};

use super::*;

const CLIENTS: usize = 3;

fn moment(uptime: Duration) -> Moment {
    Moment { uptime, time: Timestamp::from_secs(1).saturating_add(uptime) }
}

fn config(change: impl FnOnce(&mut Config)) -> Verified<Config> {
    let servers = (0..3).map(|n| format!("http://server{n}:1").parse().unwrap()).collect();
    let mut config = Config {
        servers,
        vbuckets: 64,
        batch_bytes_max: 300,
        linger: Duration::from_millis(20),
        ..Config::default()
    };
    change(&mut config);
    config.verify().unwrap()
}

fn relay(config: &Verified<Config>) -> Relay {
    Relay::new(config, MemorySpool::new(config.spool_bytes_max), StreamId(7), 1)
}

/// A Block whose Tab says which one it is; Blocks of 40 numbers in a row lie in as many VBuckets as chance has it.
fn block(client: usize, number: usize) -> Block {
    let tab = TabName::new(&format!("tab{number}")).unwrap();
    let client = ClientId::new(&format!("client{client}")).unwrap();
    let times = vec![Timestamp::from_secs(1); 1 + number % 3];
    let tab_type = TabType::new("TotalsCounter").unwrap();
    Block::of_events(tab, client, tab_type, Events::new(&times, &vec![1.0; times.len()])).unwrap()
}

fn batch(client: usize, seq: u64, blocks: Vec<Block>) -> ClientBatch {
    let client = ClientId::new(&format!("client{client}")).unwrap();
    ClientBatch { client, incarnation: 1, seq: SeqNo(seq), sent_at: Timestamp::default(), blocks }
}

#[test]
fn a_repeated_batch_gets_the_same_answer_and_is_not_taken_twice() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let first = batch(0, 1, vec![block(0, 1), block(1, 2)]);
    let bad = [BadBlock { block: 1, events: 5, error: NameError::Empty { what: "tab name" } }];
    let Verdict::Taken(receipt) = relay.accept(moment(Duration::ZERO), &first, &bad) else { panic!() };
    assert_eq!(receipt.refused.iter().map(|refusal| refusal.block).collect::<Vec<_>>(), [1, 2]);
    let held = relay.spool().tally().held;
    assert_eq!(held.events, 2);
    assert_eq!(relay.accept(moment(Duration::ZERO), &first, &bad), Verdict::Taken(receipt));
    assert_eq!(relay.spool().tally().held, held);
    let status = relay.status(moment(Duration::ZERO));
    assert_eq!((status.batches.taken, status.batches.repeated), (1, 1));
    assert_eq!(status.refused["bad_name"], 8);
}

#[test]
fn a_full_spool_turns_a_batch_away_and_takes_it_later() {
    let config = config(|_| {});
    let blocks: Vec<_> = (0..10).map(|number| block(0, number)).collect();
    let bytes: usize = blocks.iter().map(Block::encoded_bytes).sum();
    let mut relay = Relay::new(&config, MemorySpool::new(bytes as u64), StreamId(7), 1);
    assert!(matches!(
        relay.accept(moment(Duration::ZERO), &batch(0, 1, blocks.clone()), &[]),
        Verdict::Taken(_)
    ));
    let second = batch(0, 2, vec![block(0, 1)]);
    assert!(matches!(relay.accept(moment(Duration::ZERO), &second, &[]), Verdict::Full { .. }));
    let mut requests = Vec::new();
    relay.handle(moment(Duration::from_millis(20)), Input::Tick, &mut requests);
    let mut store = Store::default();
    for request in requests {
        let acks = store.take_all(&request);
        relay.handle(
            moment(Duration::from_millis(30)),
            Input::Answered { request: request.id, acks },
            &mut Vec::new(),
        );
    }
    assert!(matches!(relay.accept(moment(Duration::from_millis(40)), &second, &[]), Verdict::Taken(_)));
    let spool = relay.status(moment(Duration::from_millis(40))).spool;
    assert_eq!(spool.events_offered, spool.events_acked + spool.events_held + spool.events_turned_away);
    assert_eq!((spool.events_held, spool.events_turned_away), (2, 2));
}

#[test]
fn a_stopping_relay_takes_nothing_new_and_answers_repetitions() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let first = batch(0, 1, vec![block(0, 1)]);
    let now = moment(Duration::ZERO);
    let Verdict::Taken(_) = relay.accept(now, &first, &[]) else { panic!() };
    relay.stop(now);
    assert!(matches!(relay.accept(now, &first, &[]), Verdict::Taken(_)));
    assert_eq!(relay.accept(now, &batch(0, 2, vec![block(0, 2)]), &[]), Verdict::Stopping);
    let mut requests = Vec::new();
    relay.handle(now, Input::Tick, &mut requests);
    assert_eq!(requests.len(), 1, "nothing lingers");
    assert!(!relay.is_done());
    let acks = Store::default().take_all(&requests[0]);
    relay.handle(now, Input::Answered { request: requests[0].id, acks }, &mut requests);
    assert!(relay.is_done());
}

#[test]
fn the_metrics_are_what_prometheus_reads() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    let _ = relay.accept(moment(Duration::ZERO), &batch(0, 1, vec![block(0, 1), block(1, 3)]), &[]);
    let text = relay.status(moment(Duration::from_secs(2))).metrics();
    for line in [
        "taba_agent_uptime_seconds 2",
        "taba_agent_spool_events_held 2",
        "taba_agent_events_refused_total{why=\"bad_name\"} 1",
        "taba_agent_server_up{server=\"http://server1:1\"} 1",
        "# TYPE taba_agent_lane_batches_answered_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// Lost, or the Server is away.
    Lost,
    /// Stored, but the answer is lost.
    Unheard,
    /// Every n-th Batch is answered so, and not stored.
    Some(Answer, usize),
    /// Every n-th Batch is missing in the answer, though it is stored.
    Unmentioned(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Accept {
        client: usize,
        blocks: usize,
    },
    Repeat {
        client: usize,
    },
    Pass(u64),
    Deliver(usize, Fate),
    /// A copy of any request ever sent arrives late.
    Late(usize),
    /// The store goes back to what it was this many changes ago.
    GoBack(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    let answer = prop_oneof![Just(Answer::Unavailable), Just(Answer::Busy)];
    prop_oneof![
        4 => Just(Fate::Answered),
        2 => Just(Fate::Lost),
        2 => Just(Fate::Unheard),
        1 => (answer, 1_usize..4).prop_map(|(answer, n)| Fate::Some(answer, n)),
        1 => (1_usize..4).prop_map(Fate::Unmentioned),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..CLIENTS, 0_usize..20).prop_map(|(client, blocks)| Step::Accept { client, blocks }),
        1 => (0..CLIENTS).prop_map(|client| Step::Repeat { client }),
        3 => (0_u64..200).prop_map(Step::Pass),
        5 => (any::<usize>(), fate()).prop_map(|(which, fate)| Step::Deliver(which, fate)),
        1 => any::<usize>().prop_map(Step::Late),
    ]
}

/// The store behind all Servers, with the rule of DESIGN section 6 for each Lane.
#[derive(Clone, Debug, Default)]
struct Store {
    /// Of each VBucket: the mark, and the sender's count of events at it.
    marks: BTreeMap<u16, (u64, u64)>,
    /// How often each Block was folded.
    folded: BTreeMap<String, u64>,
    events: u64,
    lost: u64,
}

impl Store {
    fn take(&mut self, batch: &LaneBatch) -> Ack {
        let (mark, events) = self.marks.entry(batch.vbucket).or_default();
        let answer = if batch.seq.0 <= *mark {
            Answer::Duplicate
        } else if batch.seq.0 > *mark + 1 && batch.seq != batch.base {
            Answer::Nak
        } else {
            self.lost += batch.events_before - *events;
            (*mark, *events) = (batch.seq.0, batch.events_before + batch.events());
            self.events += batch.events();
            for block in &batch.blocks {
                *self.folded.entry(block.tab.to_string()).or_default() += 1;
            }
            Answer::Applied
        };
        let applied = SeqNo(*mark);
        Ack {
            stream: batch.stream,
            vbucket: batch.vbucket,
            applied,
            stable: SeqNo::NONE,
            answer,
            refused: Vec::new(),
        }
    }

    fn take_all(&mut self, request: &Request) -> Vec<Ack> {
        batches(request).iter().map(|batch| self.take(batch)).collect()
    }
}

/// The request as a Server reads it.
fn batches(request: &Request) -> Vec<LaneBatch> {
    Lanes::decode(&Bytes::from(request.message())).unwrap().batches
}

struct World {
    relay: Relay,
    now: Duration,
    store: Store,
    history: Vec<Store>,
    flying: Vec<Request>,
    sent: Vec<Request>,
    last: Vec<Option<ClientBatch>>,
    blocks: usize,
    taken: u64,
}

impl World {
    fn new() -> Self {
        let relay = relay(&config(|config| config.requests_per_server_max = 2));
        let store = Store::default();
        let (history, last) = (vec![store.clone()], vec![None; CLIENTS]);
        let (flying, sent) = (Vec::new(), Vec::new());
        Self { relay, now: Duration::ZERO, store, history, flying, sent, last, blocks: 0, taken: 0 }
    }

    fn handle(&mut self, input: Input) {
        let mut requests = Vec::new();
        self.relay.handle(moment(self.now), input, &mut requests);
        self.sent.extend(requests.iter().cloned());
        self.flying.extend(requests);
    }

    fn accept(&mut self, client: usize, blocks: usize) {
        let blocks: Vec<_> =
            (self.blocks..self.blocks + blocks).map(|number| block(client, number)).collect();
        self.blocks += blocks.len();
        let seq = self.last[client].as_ref().map_or(1, |last| last.seq.0 + 1);
        let batch = batch(client, seq, blocks);
        self.taken += batch.blocks.iter().map(|block| block.events).sum::<u64>();
        assert!(matches!(self.relay.accept(moment(self.now), &batch, &[]), Verdict::Taken(_)));
        self.last[client] = Some(batch);
        self.handle(Input::Tick);
    }

    fn deliver(&mut self, which: usize, fate: Fate) {
        if self.flying.is_empty() {
            return;
        }
        let request = self.flying.swap_remove(which % self.flying.len());
        let failed = Input::Failed { request: request.id, why: "lost".into(), retry_after: None };
        let input = match fate {
            Fate::Lost => failed,
            Fate::Unheard => {
                self.store.take_all(&request);
                failed
            }
            Fate::Answered => Input::Answered { request: request.id, acks: self.store.take_all(&request) },
            Fate::Unmentioned(n) => {
                let acks = self.store.take_all(&request).into_iter().enumerate();
                let acks = acks.filter(|(place, _)| place % n != 0).map(|(_, ack)| ack).collect();
                Input::Answered { request: request.id, acks }
            }
            Fate::Some(answer, n) => {
                let mut acks = Vec::new();
                for (place, batch) in batches(&request).iter().enumerate() {
                    acks.push(if place % n == 0 {
                        let applied = SeqNo(batch.seq.0 - 1);
                        Ack {
                            stream: batch.stream,
                            vbucket: batch.vbucket,
                            applied,
                            stable: SeqNo::NONE,
                            answer,
                            refused: Vec::new(),
                        }
                    } else {
                        self.store.take(batch)
                    });
                }
                Input::Answered { request: request.id, acks }
            }
        };
        self.handle(input);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Accept { client, blocks } => self.accept(client, blocks),
            Step::Repeat { client } => {
                if let Some(last) = self.last[client].clone() {
                    assert!(matches!(self.relay.accept(moment(self.now), &last, &[]), Verdict::Taken(_)));
                }
            }
            Step::Pass(millis) => {
                self.now += Duration::from_millis(millis);
                self.handle(Input::Tick);
            }
            Step::Deliver(which, fate) => self.deliver(which, fate),
            Step::Late(which) => {
                if !self.sent.is_empty() {
                    let request = self.sent[which % self.sent.len()].clone();
                    self.store.take_all(&request);
                }
            }
            Step::GoBack(by) => {
                let to = self.history.len().saturating_sub(1 + by);
                self.history.truncate(to + 1);
                self.store = self.history[to].clone();
            }
        }
        if self.store.marks != self.history[self.history.len() - 1].marks {
            self.history.push(self.store.clone());
        }
    }

    /// No more faults: everything must come to rest, soon.
    fn heal(&mut self) {
        self.relay.stop(moment(self.now));
        self.handle(Input::Tick);
        for _ in 0..10_000 {
            if self.relay.is_done() {
                return;
            }
            if self.flying.is_empty() {
                let wake = self.relay.next_wake().expect("there is something to wait for");
                assert!(wake > self.now, "it would spin");
                self.now = wake;
                self.handle(Input::Tick);
            } else {
                self.deliver(0, Fate::Answered);
            }
        }
        panic!("does not drain: {:?}", self.relay);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Lost, repeated, late and half-answered requests change nothing: every event is stored exactly once.
    #[test]
    fn every_event_is_stored_once(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.take(step));
        world.heal();
        prop_assert_eq!((world.store.events, world.store.lost), (world.taken, 0));
        prop_assert_eq!(world.store.folded.len(), world.blocks);
        prop_assert!(world.store.folded.values().all(|times| *times == 1));
        let tally = *world.relay.spool().tally();
        prop_assert_eq!((tally.acked.events, tally.held), (world.taken, Default::default()));
    }

    /// When the store also goes back in time, nothing is stored twice, and what is missing is counted as a gap, as
    /// soon as the Lane speaks again.
    #[test]
    fn every_event_is_stored_once_or_counted_as_gap(
        steps in prop::collection::vec(prop_oneof![12 => step(), 1 => (0_usize..4).prop_map(Step::GoBack)], 0..80),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.take(step));
        // Every Lane speaks once more, and so learns where the store is.
        let vbuckets = world.relay.vbuckets;
        let mut silent: std::collections::BTreeSet<_> = vbuckets.iter().collect();
        while !silent.is_empty() {
            silent.remove(&vbuckets.of(&block(0, world.blocks).tab));
            world.accept(0, 1);
        }
        world.heal();
        prop_assert_eq!(world.store.events + world.store.lost, world.taken);
        prop_assert!(world.store.folded.values().all(|times| *times == 1));
    }
}
