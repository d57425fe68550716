//! [`tell`]: a trace as a person would tell it.

use super::checker::{Checker, Found};
use super::store::Mark;
use super::world::{Step, Violation, World, newest};

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
        Violation::Cycle => "all is as it was before: it may go on like this forever".into(),
        Violation::NotCounted(events) => format!("{events} lost, and not counted as lost"),
    }
}

fn line(before: &World, step: Step, after: &World) -> String {
    let agent = |n: usize| if before.agents.len() == 1 { "Agent".into() } else { format!("Agent {}", n + 1) };
    let server = |n: usize| format!("Server {}", char::from(b'A' + n as u8));
    let node = |n: usize| format!("Node {}", n + 1);
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
        Step::Reconnect(n) => format!("{} is connected to {} now", server(n), node(after.servers[n].node)),
        Step::SetClock(n, 0) => format!("the clock of {} is set right", server(n)),
        Step::SetClock(n, faults) => {
            format!("the clock of {} is off by {}", server(n), faults * before.times.clock_fault)
        }
        Step::Replicate(n) => format!("{} copies the next write: it holds {}", node(n), holds(after, n)),
        Step::FailOver(n) => {
            format!("{} dies; {} rules, and holds {}", node(before.store.ruling), node(n), holds(after, n))
        }
        Step::Split(n) => format!(
            "{} rules, and holds {}; {} does not know",
            node(n),
            holds(after, n),
            node(before.store.ruling)
        ),
        Step::Follow(n) => {
            format!(
                "{} becomes a replica of {}: it holds {}",
                node(n),
                node(after.store.ruling),
                holds(after, n)
            )
        }
        Step::Cut(n) => format!("{} is cut off", node(n)),
        Step::Restart(_) => {
            let n = after.store.ruling;
            format!("{} is killed and starts again from its disk: it holds {}", node(n), holds(after, n))
        }
    }
}

fn message(request: &super::server::Request) -> String {
    let (stream, base) = (request.stream, request.base);
    match request.batch {
        Some((seq, events)) => format!("Batch {stream}#{seq}{events} (base {base})"),
        None => format!("Probe {stream} (base {base})"),
    }
}

fn work(before: &World, n: usize, step: Step, after: &World, server: &str) -> String {
    let at = before.servers[n].node;
    if before.servers[n].cache.is_none() {
        return format!("{server} loads from Node {}: {}", at + 1, holds(before, at));
    }
    let wrote = after.store.nodes[at].history.len() > before.store.nodes[at].history.len();
    let what = if wrote {
        format!("{server} commits on Node {}: it holds {}", at + 1, holds(after, at))
    } else if after.servers[n].cache.is_some() {
        format!("{server} answers without a commit")
    } else {
        format!("{server} is turned away by Node {}, and forgets its cache", at + 1)
    };
    if matches!(step, Step::WorkUnheard(_)) { what + ", but does not hear that" } else { what }
}

fn holds(world: &World, node: usize) -> String {
    let tip = world.store.nodes[node].tip();
    let marks = tip.marks.iter().enumerate().filter(|(_, mark)| **mark != Mark::default());
    let marks: Vec<String> = marks.map(|(stream, mark)| format!("{stream}#{}", mark.seq)).collect();
    let twice =
        if tip.folded.twice.is_empty() { String::new() } else { format!(", {} twice", tip.folded.twice) };
    let counted = if tip.counted == 0 { String::new() } else { format!(", {} counted as lost", tip.counted) };
    let marks = if marks.is_empty() { "no mark".into() } else { format!("mark {}", marks.join(" ")) };
    format!("{}{twice}, {marks}{counted}", tip.folded.once)
}
