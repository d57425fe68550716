//! [`tell`]: a trace as a person would tell it.

use super::audit::Violation;
use super::checker::{Checker, Found};
use super::operator::{At, Goal};
use super::shard::Head;
use super::store::Mark;
use super::world::{Step, World, newest};

/// One line per step, with what came of it; the last line says what is wrong.
pub fn tell(checker: &Checker, found: &Found) -> String {
    let mut world = checker.world();
    let mut story = String::new();
    for (n, step) in found.trace.iter().enumerate() {
        let before = world.clone();
        world.step(*step);
        story += &format!("{:>4}. {}\n", n + 1, line(&before, *step, &world));
    }
    if world.audit().is_ok() {
        story += "      Then all faults stop.\n";
    }
    story + "   => " + &wrong(found.violation)
}

/// Walks so many steps, and says how far that came.
///
/// # Panics
/// When something is found; and when hardly anything happened: less than 10 events were let go, or fewer Batches were taken back
/// than this.
#[expect(clippy::print_stdout, reason = "a test says what it has walked through")]
pub fn assert_holds(checker: &Checker, steps: u64, taken_back_min: u64) {
    let verdict = checker.search(steps);
    println!(
        "{} walks, {} steps; {} events let go, {} Batches taken back by the store",
        verdict.walks, verdict.steps, verdict.released, verdict.taken_back
    );
    if let Some(found) = verdict.found {
        panic!("the protocol has a hole:\n{}", tell(checker, &checker.shorten(&found)));
    }
    assert!(verdict.released >= 10, "hardly anything is let go amid faults");
    assert!(verdict.taken_back >= taken_back_min, "stores hardly ever go back");
}

fn wrong(violation: Violation) -> String {
    match violation {
        Violation::Twice(events) => format!("{events} counted twice"),
        Violation::LetGoTooEarly(events) => {
            format!("{events} let go by its Agent, and a node that may rule lacks it")
        }
        Violation::Gone(events) => format!("{events} lost: in no store that rules, and with no Agent"),
        Violation::CountedTooMany(events) => format!("{events} counted as lost, and not lost"),
        Violation::NotDrained(events) => {
            format!("the Lane stands still, with {events} and what else it has to tell")
        }
        Violation::ThrownAway(events) => {
            format!("{events} thrown away as too old, and taken a moment before")
        }
        Violation::Unfinished => "the move neither ends nor is rolled back".into(),
        Violation::Cycle => "all is as it was before: it may go on like this forever".into(),
        Violation::NotCounted(events) => format!("{events} lost, and not counted as lost"),
    }
}

fn line(before: &World, step: Step, after: &World) -> String {
    let agent = |n: usize| if before.agents.len() == 1 { "Agent".into() } else { format!("Agent {}", n + 1) };
    let server = |n: usize| format!("Server {}", char::from(b'A' + n as u8));
    let node = |n: usize| node_name(before, n);
    let ruling = |n: usize| {
        let shard = n / before.size().nodes;
        node(shard * before.size().nodes + before.shards[shard].ruling)
    };
    let sent = || after.requests.last().map(message).unwrap_or_default();
    match step {
        Step::Tick => "time goes on".into(),
        Step::Take(n) => {
            format!("{} takes {}", agent(n), after.agents[n].taken.but(before.agents[n].taken))
        }
        Step::Send(n, _) => format!("{} sends {}", agent(n), sent()),
        Step::Probe(n, _) => format!("{} sends a {}", agent(n), sent()),
        Step::GiveUp(n, _) => format!("{} waits no longer", agent(n)),
        Step::Lose(n, _) => {
            format!("{} throws away {}", agent(n), after.agents[n].lost.but(before.agents[n].lost))
        }
        Step::Crash(n, 0) => format!("{} is killed and starts again", agent(n)),
        Step::Crash(n, faults) => format!(
            "{} is killed and starts again, its clock {} by {}",
            agent(n),
            if faults > 0 { "fast" } else { "slow" },
            before.times.clock_fault
        ),
        Step::SetAgentClock(n, 0) => format!("the clock of {} is set right", agent(n)),
        Step::SetAgentClock(n, faults) => {
            format!("the clock of {} is set, and off by {}", agent(n), faults * before.times.clock_fault)
        }
        Step::Arrive(request, n) => {
            let request = newest(&before.requests, request).map(message).unwrap_or_default();
            format!("the {request} arrives at {}", server(n))
        }
        Step::DropRequest(_) | Step::DropAnswer(_) => "a message is lost".into(),
        Step::Hear(answer) => {
            let Some(answer) = newest(&before.answers, answer) else { return "nothing".into() };
            let (was, is) = (&before.agents[answer.agent], &after.agents[answer.agent]);
            let let_go = is.released.but(was.released);
            let go = if let_go.is_empty() { String::new() } else { format!(", and lets go of {let_go}") };
            let (applied, stable) = (answer.applied, answer.stable);
            format!("{} hears {:?}, applied {applied}, stable {stable}{go}", agent(answer.agent), answer.kind)
        }
        Step::Work(n) | Step::WorkUnheard(n) => work(before, n, step, after, &server(n)),
        Step::Learn(n) => format!("{} hears that what it asked after is stable", server(n)),
        Step::Kill(n) => format!("{} is killed and starts again", server(n)),
        Step::Reconnect(n) => format!("{} is connected to {} now", server(n), server_node(after, n)),
        Step::SetClock(n, 0) => format!("the clock of {} is set right", server(n)),
        Step::SetClock(n, faults) => {
            format!("the clock of {} is off by {}", server(n), faults * before.times.clock_fault)
        }
        Step::Replicate(n) => format!("{} copies the next write: it holds {}", node(n), holds(after, n)),
        Step::FailOver(n) => {
            format!("{} dies; {} rules, and holds {}", ruling(n), node(n), holds(after, n))
        }
        Step::Split(n) => {
            format!("{} rules, and holds {}; {} does not know", node(n), holds(after, n), ruling(n))
        }
        Step::Follow(n) => {
            format!("{} becomes a replica of {}: it holds {}", node(n), ruling(n), holds(after, n))
        }
        Step::Cut(n) => format!("{} is cut off", node(n)),
        Step::Restart(shard, _) => {
            let n = shard * before.size().nodes + after.shards[shard].ruling;
            format!("{} is killed and starts again from its disk: it holds {}", node(n), holds(after, n))
        }
        Step::Begin(n, from, goal) => {
            let goal = if goal == Goal::Forward { "moves the VBucket" } else { "rolls back the move" };
            format!("Operator {} {goal} from Shard {} to Shard {}", n + 1, from + 1, 2 - from)
        }
        Step::End(n) => format!("Operator {} is killed", n + 1),
        Step::Operate(n) => operate(before, n, after),
        Step::Census(n, silent) => {
            format!("{} asks all shards but Shard {}: {}", server(n), silent + 1, owns(after, n))
        }
    }
}

fn node_name(world: &World, n: usize) -> String {
    let (shard, node) = world.node(n);
    if world.shards.len() == 1 {
        format!("Node {}", n + 1)
    } else {
        format!("Node {} of Shard {}", node + 1, shard + 1)
    }
}

fn server_node(world: &World, n: usize) -> String {
    let server = &world.servers[n];
    node_name(world, server.place * world.size().nodes + server.node())
}

fn owns(world: &World, n: usize) -> String {
    let server = &world.servers[n];
    format!("Shard {} owns the VBucket under epoch {}", server.place + 1, server.epoch)
}

fn operate(before: &World, n: usize, after: &World) -> String {
    let (was, is) = (&before.operators[n], &after.operators[n]);
    let len = |world: &World, shard: usize| world.shards[shard].nodes[is.nodes[shard]].history.len();
    let writes = [is.from, is.to()].into_iter().filter(|shard| len(after, *shard) > len(before, *shard));
    let wrote = writes.map(|shard| {
        let node = shard * after.size().nodes + is.nodes[shard];
        format!(", and writes to {}: {}", node_name(after, node), holds(after, node))
    });
    let does = match &was.at {
        At::Ended => "has nothing to do".into(),
        At::Look => match &is.at {
            At::Do(decision) => format!("looks: next is {decision:?}"),
            _ => "looks: there is nothing to do".into(),
        },
        At::Do(_) => "goes on".into(),
        At::ConfirmFence { .. } => "waits for the fence, and copies".into(),
        At::Switch { .. } => "switches".into(),
        At::SettleSwitch { .. } => "sees that the switch is stable".into(),
        At::Retire { .. } => "retires the old copy".into(),
        At::SettleSource { .. } => "sees that the source is stable, and bars".into(),
        At::ConfirmBar { .. } => "waits for the bar".into(),
        At::Unfence { .. } => "unfences".into(),
    };
    format!("Operator {} {does}{}", n + 1, wrote.collect::<String>())
}

fn message(request: &super::server::Request) -> String {
    let (stream, base) = (request.stream, request.base);
    match request.batch {
        Some((seq, events)) => format!("Batch {stream}#{seq}{events} (base {base})"),
        None => format!("Probe {stream} (base {base})"),
    }
}

fn work(before: &World, n: usize, step: Step, after: &World, server: &str) -> String {
    let (was, is) = (&before.servers[n], &after.servers[n]);
    let at = was.place * before.size().nodes + was.node();
    let node = node_name(before, at);
    let len = |world: &World| world.shards[was.place].nodes[was.node()].history.len();
    let what = if was.links != is.links || (was.place, was.epoch) != (is.place, is.epoch) {
        format!("{server} looks for the owner: {}, {}", owns(after, n), server_node(after, n))
    } else if was.cache.is_none() {
        return format!("{server} loads from {node}: {}", holds(before, at));
    } else if len(after) > len(before) {
        format!("{server} commits on {node}: it holds {}", holds(after, at))
    } else if is.cache.is_some() {
        format!("{server} answers without a commit")
    } else {
        format!("{server} is turned away by {node}, and forgets its cache")
    };
    if matches!(step, Step::WorkUnheard(_)) { what + ", but does not hear that" } else { what }
}

fn head(head: Head) -> String {
    let what = match (head.is_bar, head.has_content) {
        _ if head.epoch == 0 => return "no copy".into(),
        (true, _) => "a bar",
        (_, false) => "a tombstone",
        (_, true) => "a copy",
    };
    let moved =
        head.moved.map(|moved| format!(", moved to Shard {} under epoch {}", moved.to + 1, moved.epoch));
    format!("{what} of epoch {}{}", head.epoch, moved.unwrap_or_default())
}

fn holds(world: &World, node: usize) -> String {
    let (shard, node) = world.node(node);
    let tip = world.shards[shard].nodes[node].tip();
    let marks = tip.marks.iter().enumerate().filter(|(_, mark)| **mark != Mark::default());
    let marks: Vec<String> = marks.map(|(stream, mark)| format!("{stream}#{}", mark.seq)).collect();
    let twice =
        if tip.folded.twice.is_empty() { String::new() } else { format!(", {} twice", tip.folded.twice) };
    let counted = if tip.counted == 0 { String::new() } else { format!(", {} counted as lost", tip.counted) };
    let marks = if marks.is_empty() { "no mark".into() } else { format!("mark {}", marks.join(" ")) };
    let head = if world.shards.len() == 1 { String::new() } else { format!("{}: ", head(tip.head)) };
    format!("{head}{}{twice}, {marks}{counted}", tip.folded.once)
}
