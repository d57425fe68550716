use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

impl World {
    /// All requests under way come to nothing: the Servers are away.
    fn nobody_answers(&mut self) {
        for request in std::mem::take(&mut self.flying) {
            let (why, cause) = ("no route".into(), FailureCause::Unreached);
            self.sent.retain(|sent| sent.id != request.id);
            self.handle(Input::Failed { request: request.id, why, cause, retry_after: None });
        }
    }

    /// So much time passes, in small steps, while Servers are away.
    fn outage(&mut self, secs: u64) {
        for _ in 0..secs / HOUR + 2 {
            self.now += Duration::from_secs((secs / (secs / HOUR + 2)).max(1));
            self.handle(Input::Tick);
            self.sync();
            self.nobody_answers();
        }
    }

    /// The machine's clock is set; whether the Agent follows is up to it.
    fn set_clock(&mut self, ahead: i64) {
        let step = (ahead - self.ahead) * 1_000_000;
        if self.relay.follows_clock(step) {
            self.ahead = ahead;
            self.relay.set_clock(self.moment(), step);
            self.handle(Input::Tick);
        }
    }

    fn stored(&self) -> u64 {
        self.store.folded.values().sum()
    }

    fn expired(&self) -> u64 {
        self.relay.expired()
    }
}

#[test]
fn what_came_in_an_outage_of_a_week_is_delivered() {
    for (is_killed, was_well) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::new(1);
        if was_well {
            world.accept(0, 5);
            world.drain();
        }
        world.outage(HOUR);
        for day in 0..7 {
            world.accept(day % CLIENTS, 9);
            world.sync();
            world.outage(DAY);
            if is_killed {
                world.restart();
            }
        }
        world.drain();
        assert_eq!((world.stored(), world.store.lost), (world.expected.values().sum(), 0));
        assert_eq!(world.expired(), 0);
    }
}

/// It was killed before any Server was there, and its clock was days behind, or ahead.
#[test]
fn what_a_wrong_clock_took_before_any_server_was_there_is_delivered() {
    for (ahead, then) in [(-3, 0), (3, 0), (-300, 0), (0, 3), (0, -3), (-3, 3)] {
        let mut world = World::new(1);
        (world.now, world.ahead) = (Duration::from_secs(400 * DAY), ahead * DAY as i64);
        world.began = world.now;
        world.restart();
        world.accept(0, 20);
        world.sync();
        world.outage(HOUR);
        world.ahead = then * DAY as i64;
        world.restart();
        // With a Server that does not agree, nothing is sent, and nothing is given up.
        for _ in 0..20 {
            world.now += Duration::from_secs(10);
            world.handle(Input::Tick);
            world.sync();
            while !world.flying.is_empty() {
                assert!(then == 0 || world.flying[0].lanes().next().is_none(), "it is sent by a wrong clock");
                world.deliver(0, Fate::Answered);
            }
        }
        world.ahead = 0;
        world.restart();
        world.drain();
        assert_eq!((world.stored(), world.store.lost), (world.expected.values().sum(), 0));
        assert_eq!(world.expired(), 0);
    }
}

/// Before the first of a stream is sent, the Spool says so: a run that was killed just then is not taken for one that has
/// sent nothing, and what may be stored is not sent again once its mark may be gone.
#[test]
fn what_may_have_been_sent_has_an_age_in_the_next_run() {
    for days in [1, 3] {
        let mut world = World::new(1);
        world.accept(0, 20);
        world.sync();
        while world.flying.iter().all(|request| request.batches.is_empty()) {
            world.deliver(0, Fate::Answered);
            world.now += Duration::from_secs(1);
            world.handle(Input::Tick);
            world.sync();
        }
        world.deliver(0, Fate::Unheard);
        assert!(world.stored() > 0);
        world.flying.clear();
        world.now += Duration::from_secs(days * DAY - 60);
        world.restart();
        if days > 2 {
            // The marks are gone.
            world.store.marks.clear();
        }
        let before = world.stored();
        world.drain();
        let sum: u64 = world.expected.values().sum();
        assert!(days < 2 || world.stored() == before, "it is folded twice");
        assert!(world.stored() <= sum);
        assert!(world.expired() + world.stored() >= sum);
    }
}

#[derive(Clone, Copy, Debug)]
enum Slow {
    Accept(usize, usize),
    Pass(u64),
    Deliver(usize, Fate),
    Kill,
}

fn slow() -> impl Strategy<Value = Slow> {
    prop_oneof![
        4 => (0..CLIENTS, 1_usize..6).prop_map(|(client, blocks)| Slow::Accept(client, blocks)),
        2 => (0_u64..60).prop_map(Slow::Pass),
        3 => (HOUR..30 * HOUR).prop_map(Slow::Pass),
        6 => (any::<usize>(), fate()).prop_map(|(which, fate)| Slow::Deliver(which, fate)),
        2 => Just(Slow::Kill),
    ]
}

/// When each mark was written, to be forgotten after 48 h as Servers do.
#[derive(Default)]
struct WrittenBatch(BTreeMap<(StreamId, u16), ((u64, u64), Duration)>);

impl WrittenBatch {
    fn look(&mut self, world: &mut World) {
        for (lane, mark) in &world.store.marks {
            let known = self.0.entry(*lane).or_insert((*mark, world.now));
            if known.0 != *mark {
                *known = (*mark, world.now);
            }
        }
        let is_old = |at: Duration| world.now.saturating_sub(at) > Duration::from_secs(48 * HOUR);
        let old: Vec<_> = self.0.iter().filter(|(_, (_, at))| is_old(*at)).map(|(lane, _)| *lane).collect();
        for lane in old {
            self.0.remove(&lane);
            world.store.marks.remove(&lane);
        }
        world.replica = world.store.clone();
    }
}

#[derive(Clone, Copy, Debug)]
enum Clocks {
    Accept(usize, usize),
    Pass(u64),
    Deliver(usize, Fate),
    Kill(i64),
    Set(i64),
    SetServers(i64),
}

fn clocks() -> impl Strategy<Value = Clocks> {
    let hours = || prop::sample::select(vec![-72_i64, -25, -6, -2, 0, 0, 2, 23, 72]);
    prop_oneof![
        4 => (0..CLIENTS, 1_usize..6).prop_map(|(client, blocks)| Clocks::Accept(client, blocks)),
        3 => (0_u64..20).prop_map(Clocks::Pass),
        6 => (any::<usize>(), fate()).prop_map(|(which, fate)| Clocks::Deliver(which, fate)),
        1 => hours().prop_map(Clocks::Kill),
        1 => hours().prop_map(Clocks::Set),
        1 => hours().prop_map(Clocks::SetServers),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(64), ..ProptestConfig::default() })]

    /// Whatever clocks have said, everything drains once they agree to some hours; and nothing expires for the clock of an
    /// Agent alone.
    #[test]
    fn after_any_clocks_everything_drains(
        seed in any::<u64>(),
        steps in prop::collection::vec(clocks(), 0..80),
        last in prop::sample::select(vec![-2_i64, 0, 2]),
    ) {
        let mut world = World::new(seed);
        world.now = Duration::from_secs(400 * DAY);
        world.began = world.now;
        world.restart();
        let (mut expired, mut were_wrong) = (0, false);
        for step in steps {
            match step {
                Clocks::Accept(client, blocks) => world.accept(client, blocks),
                Clocks::Pass(secs) => {
                    world.now += Duration::from_secs(secs);
                    world.handle(Input::Tick);
                }
                Clocks::Deliver(which, fate) => world.deliver(which, fate),
                Clocks::Kill(hours) => {
                    expired += world.expired();
                    world.ahead = hours * HOUR as i64;
                    world.restart();
                }
                Clocks::Set(hours) => world.set_clock(hours * HOUR as i64),
                Clocks::SetServers(hours) => {
                    world.servers_ahead = hours * HOUR as i64;
                    were_wrong |= hours.unsigned_abs() > 5;
                }
            }
            world.sync();
        }
        world.servers_ahead = 0;
        world.set_clock(last * HOUR as i64);
        if world.ahead != last * HOUR as i64 {
            // It keeps the time that Servers agreed with.
            expired += world.expired();
            world.ahead = last * HOUR as i64;
            world.restart();
        }
        world.drain();
        expired += world.expired();
        let expected: u64 = world.expected.values().sum();
        prop_assert!(world.stored() + expired >= expected, "missing, and not notices");
        prop_assert!(were_wrong || (world.stored(), world.store.lost) == (expected, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(64), ..ProptestConfig::default() })]

    /// Days pass, requests are lost, marks are forgotten, agents are killed: no event is stored twice, none is both stored
    /// and found to be missing, and what is not stored was counted as expired.
    #[test]
    fn over_days_nothing_is_stored_twice_and_nothing_is_missing_unsaid(
        seed in any::<u64>(),
        steps in prop::collection::vec(slow(), 0..60),
    ) {
        let (mut world, mut written, mut expired) = (World::new(seed), WrittenBatch::default(), 0);
        for step in steps {
            match step {
                Slow::Accept(client, blocks) => world.accept(client, blocks),
                Slow::Pass(secs) => {
                    world.now += Duration::from_secs(secs);
                    // What was under way for so long has failed.
                    if secs > 60 {
                        world.nobody_answers();
                    }
                    world.handle(Input::Tick);
                }
                Slow::Deliver(which, fate) => world.deliver(which, fate),
                Slow::Kill => {
                    expired += world.expired();
                    world.restart();
                }
            }
            world.sync();
            written.look(&mut world);
        }
        world.drain();
        expired += world.expired();
        let expected: u64 = world.expected.values().sum();
        for (tab, folded) in &world.store.folded {
            prop_assert!(*folded <= world.expected[tab], "{tab} is stored twice");
        }
        prop_assert!(world.stored() + world.store.lost <= expected, "stored, and found to be missing");
        prop_assert!(world.stored() + expired >= expected, "missing, and not notices");
    }
}
