//! [`collect`]: makes Batches of lines, by Client.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;
use taba_core::ledger::{self, Where, Why};
use taba_core::limits::BATCH_EVENTS_MAX;
use taba_core::wire::Block;
use taba_core::{ClientId, JsonEvents, Registry, TabName, TabType, Timestamp, json_events, printable};

use super::{
    CLIENTS_MAX, Decoder, LINES_MAX, LineError, NUMBER_TYPE, Observation, REFUSED_LISTED_MAX, TEXT_TYPE,
};

/// Blocks of one Batch besides the Ledger's notes.
const BLOCKS_MAX: usize = taba_core::limits::BATCH_BLOCKS_MAX / 2;
/// Bytes of one Batch's Blocks without notes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The context of a request's lines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LineContext<'a> {
    /// The time of the first line without one. Each further line is a microsecond later, so that the last of several
    /// settings of a gauge counts.
    pub now: Timestamp,
    /// The Client of lines without one.
    pub client: ClientId,
    /// The Handlers, which read values. Numbers and texts of other Tab types are accepted unread, and a Server checks
    /// them; without any Handler, nothing is accepted.
    pub handlers: &'a Registry,
}

/// The result of collecting lines.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Collected {
    /// The Batches. The same lines give the same Batches, except for generated times.
    pub batches: Vec<FrontBatch>,
    /// The answer.
    pub outcome: RecordedLines,
    /// Lines that follow the protocol, refused or not.
    pub readable: u64,
}

/// A Batch that has no number yet: the Blocks of one Client, with the Ledger's notes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FrontBatch {
    /// The Client.
    pub client: ClientId,
    /// The index among that Client's Batches of the request, from 0.
    pub part: u64,
    /// The Blocks.
    pub blocks: Vec<Block>,
}

/// The result of a request's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RecordedLines {
    /// Events accepted.
    pub recorded: u64,
    /// The first [`REFUSED_LISTED_MAX`] refused lines; all others were accepted.
    pub refused: Vec<RefusedLine>,
    /// The number of refused lines.
    pub refused_lines: u64,
}

/// A refused line, counted as dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RefusedLine {
    /// Its number in the request, from 1, counting blank lines.
    pub line: u64,
    /// The code, one of the Ledger's.
    pub reason: &'static str,
    /// The error, for people.
    pub message: String,
}

/// A request had more lines than [`LINES_MAX`]; none was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {LINES_MAX} lines; send them in several requests")]
pub struct TooManyLines;

/// Makes Batches of a request's lines, by Client. Refused lines are reported, and noted in the Ledger.
///
/// # Errors
/// [`TooManyLines`].
///
/// # Cost
/// Decodes each line once, and encodes its value twice. Memory: about 200 bytes per line, and the lines' content.
pub fn collect(
    decoder: &dyn Decoder,
    bytes: &[u8],
    given: &LineContext<'_>,
) -> Result<Collected, TooManyLines> {
    let mut clients = Clients::default();
    let at = |line: u64| given.now.saturating_add(Duration::from_micros(line - 1));
    let (mut outcome, mut readable, mut lines) = (RecordedLines::default(), 0, 0);
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let text = text.trim_ascii();
        let Some(decoded) = (if text.is_empty() { None } else { decoder.decode(text) }) else { continue };
        lines += 1;
        if lines > LINES_MAX {
            return Err(TooManyLines);
        }
        readable += u64::from(!matches!(&decoded, Err(unread) if unread.why == Why::Undecodable));
        match decoded.and_then(|observation| clients.add(observation, at(line), given)) {
            Ok(()) => outcome.recorded += 1,
            Err(unread) => {
                clients.refuse(&unread, given);
                outcome.refused_lines += 1;
                if outcome.refused.len() < REFUSED_LISTED_MAX {
                    // It may quote the input.
                    let message = printable(&unread.message).into_owned();
                    outcome.refused.push(RefusedLine { line, reason: unread.why.as_str(), message });
                }
            }
        }
    }
    Ok(Collected { batches: clients.into_batches(given.now), outcome, readable })
}

/// Collected lines by Client, in the order of arrival.
#[derive(Default)]
struct Clients {
    places: HashMap<ClientId, usize>,
    clients: Vec<ClientLines>,
}

struct ClientLines {
    client: ClientId,
    places: HashMap<(TabName, TabType), usize>,
    tabs: Vec<(TabName, TabType, Box<dyn JsonEvents>)>,
    dropped: BTreeMap<Why, u64>,
}

impl Clients {
    fn add(
        &mut self,
        observation: Observation,
        at: Timestamp,
        given: &LineContext<'_>,
    ) -> Result<(), LineError> {
        let Observation { client, tab, tab_type, time, value } = observation;
        let of_client = |unread: LineError| unread.of(client.clone());
        if tab.is_reserved() {
            let message = format!("names under {} are the ledger's", TabName::RESERVED);
            return Err(LineError { client, why: Why::BadName, message });
        }
        let tab_type = tab_type.map_or_else(|| default_type(&value), Ok).map_err(of_client)?;
        let Some(events) = self.of(client.as_ref().unwrap_or(&given.client)) else {
            let message = format!("more than {CLIENTS_MAX} clients; send them in several requests");
            return Err(LineError { client: None, why: Why::Full, message });
        };
        let place = match events.places.get(&(tab.clone(), tab_type.clone())) {
            Some(place) => *place,
            None => {
                let column = column(&tab_type, &value, given.handlers).map_err(of_client)?;
                events.places.insert((tab.clone(), tab_type.clone()), events.tabs.len());
                events.tabs.push((tab, tab_type, column));
                events.tabs.len() - 1
            }
        };
        let pushed = events.tabs[place].2.push(time.unwrap_or(at), &value);
        pushed.map_err(|error| LineError::value(error).of(client))
    }

    /// Counts a refused line: under its Client, or the request's if there are too many.
    fn refuse(&mut self, unread: &LineError, given: &LineContext<'_>) {
        let client = unread.client.as_ref().filter(|client| self.of(client).is_some());
        let client = client.unwrap_or(&given.client).clone();
        let known = match self.of(&client) {
            Some(known) => known,
            // The request's own Client always has room.
            None => self.insert(&client),
        };
        *known.dropped.entry(unread.why).or_default() += 1;
    }

    /// The lines of this Client; `None` when there are too many Clients.
    fn of(&mut self, client: &ClientId) -> Option<&mut ClientLines> {
        match self.places.get(client) {
            Some(place) => Some(&mut self.clients[*place]),
            None if self.clients.len() >= CLIENTS_MAX => None,
            None => Some(self.insert(client)),
        }
    }

    fn insert(&mut self, client: &ClientId) -> &mut ClientLines {
        let place = self.clients.len();
        self.places.insert(client.clone(), place);
        let (client, places, tabs) = (client.clone(), HashMap::new(), Vec::new());
        self.clients.push(ClientLines { client, places, tabs, dropped: BTreeMap::new() });
        &mut self.clients[place]
    }

    fn into_batches(self, now: Timestamp) -> Vec<FrontBatch> {
        self.clients.into_iter().flat_map(|of_client| of_client.into_batches(now)).collect()
    }
}

impl ClientLines {
    fn into_batches(self, now: Timestamp) -> Vec<FrontBatch> {
        let Self { client, tabs, mut dropped, .. } = self;
        let blocks =
            tabs.into_iter().flat_map(|(tab, tab_type, events)| events.into_blocks(&tab, &client, &tab_type));
        let (mut parts, mut bytes, mut unfolded) = (vec![Vec::new()], 0, 0);
        for block in blocks {
            bytes += block.encoded_bytes();
            unfolded += block.unfolded_events();
            let has_room = |part: &&mut Vec<Block>| {
                part.len() < BLOCKS_MAX && bytes <= BATCH_BYTES_MAX && unfolded <= BATCH_EVENTS_MAX
            };
            match parts.last_mut().filter(has_room) {
                Some(part) => part.push(block),
                None => {
                    (bytes, unfolded) = (block.encoded_bytes(), block.unfolded_events());
                    parts.push(vec![block]);
                }
            }
        }
        let batch = |(part, mut blocks): (u64, Vec<Block>)| {
            let dropped = std::mem::take(&mut dropped);
            let events: u64 = blocks.iter().map(|block| block.events).chain(dropped.values().copied()).sum();
            let drops =
                dropped.into_iter().map(|(why, events)| (ledger::dropped_tab(Where::Client, why), events));
            let notes = [(ledger::tab(ledger::RECORDED), events)].into_iter().chain(drops);
            blocks.extend(
                notes
                    .filter(|(_, events)| *events > 0)
                    .map(|(tab, events)| Block::note(tab, client.clone(), now, events)),
            );
            FrontBatch { client: client.clone(), part, blocks }
        };
        (0..).zip(parts).map(batch).filter(|batch| !batch.blocks.is_empty()).collect()
    }
}

fn default_type(value: &serde_json::Value) -> Result<TabType, LineError> {
    let name = match value {
        serde_json::Value::Number(_) => NUMBER_TYPE,
        serde_json::Value::String(_) => TEXT_TYPE,
        _ => return Err(LineError::value("a value that is neither number nor text needs a \"type\"")),
    };
    Ok(TabType::new(name).expect("the constants are names"))
}

/// An empty column for values of this type.
fn column(
    tab_type: &TabType,
    value: &serde_json::Value,
    handlers: &Registry,
) -> Result<Box<dyn JsonEvents>, LineError> {
    let unknown = |words: &str| {
        let message = format!("this agent has no handler {tab_type}{words}");
        LineError { client: None, why: Why::UnknownType, message }
    };
    match handlers.get(tab_type.as_str()) {
        Some(handler) => Ok(handler.json_events()),
        None if handlers.types().next().is_none() => Err(unknown(": give it some by Agent::with_handlers")),
        None if value.is_number() => Ok(json_events::<f64>()),
        None if value.is_string() => Ok(json_events::<String>()),
        None => Err(unknown(", and takes only numbers and texts of other types")),
    }
}

#[cfg(test)]
mod tests {
    use taba_core::wire::Content;

    use super::*;
    use crate::frontend::JsonLines;

    fn collected(lines: &str) -> Result<Collected, TooManyLines> {
        let handlers = taba_handlers::standard().build().unwrap();
        let (now, client) = (Timestamp::from_secs(9), ClientId::new("http").unwrap());
        collect(&JsonLines, lines.as_bytes(), &LineContext { now, client, handlers: &handlers })
    }

    /// Events of each (Client, Tab, type), notes by their value.
    fn counts(collected: &Collected) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for block in collected.batches.iter().flat_map(|batch| &batch.blocks) {
            let events = if block.tab.is_reserved() { noted(block) } else { block.events };
            *counts.entry(format!("{} {} {}", block.client, block.tab, block.tab_type)).or_default() +=
                events;
        }
        counts
    }

    fn noted(block: &Block) -> u64 {
        let Content::Events(bytes) = &block.content else { panic!("{block:?}") };
        let mut reader = taba_core::wire::Reader::new(bytes);
        taba_core::wire::column::times(&mut reader, 1).unwrap();
        taba_core::wire::column::numbers(&mut reader, 1).unwrap()[0] as u64
    }

    #[test]
    fn lines_become_batches_by_client_and_the_ledger_balances() {
        let lines = "\n{\"tab\":\"bids\"}\r\n{\"tab\":\"bids\",\"value\":\"x\",\"type\":\"CounterGroup\"}\n\
                     {\"client\":\"web\",\"tab\":\"mood\",\"value\":\"good\"}\n{\"client\":\"web\",\"tab\":\"taba.deleted\"}\n\
                     {\"tab\":\"bids\",\"value\":2.5,\"time\":3}\nnonsense\n{\"tab\":\"k\",\"value\":{\"key\":\"a\",\"value\":1}}\n\
                     {\"client\":\"web\",\"tab\":\"k\",\"type\":\"CommonPrefixCounterGroup\",\"value\":{\"key\":\"a\",\"value\":1}}\n\
                     {\"tab\":\"own\",\"type\":\"OfATeam\",\"value\":7}\n{\"tab\":\"own2\",\"type\":\"OfATeam\",\"value\":[]}\n";
        let collected = collected(lines).unwrap();
        let expected = [
            ("http bids CounterGroup", 2),
            ("http own OfATeam", 1),
            ("http taba.dropped;where=client;why=bad_value TotalsCounter", 2),
            ("http taba.dropped;where=client;why=undecodable TotalsCounter", 1),
            ("http taba.dropped;where=client;why=unknown_type TotalsCounter", 1),
            ("http taba.recorded TotalsCounter", 7),
            ("web k CommonPrefixCounterGroup", 1),
            ("web mood Gauge", 1),
            ("web taba.dropped;where=client;why=bad_name TotalsCounter", 1),
            ("web taba.recorded TotalsCounter", 3),
        ];
        assert_eq!(counts(&collected), expected.map(|(key, n)| (key.to_owned(), n)).into());
        assert_eq!(
            (collected.outcome.recorded, collected.outcome.refused_lines, collected.readable),
            (5, 5, 9)
        );
        let refused: Vec<_> = collected.outcome.refused.iter().map(|line| (line.line, line.reason)).collect();
        let expected =
            [(3, "bad_value"), (5, "bad_name"), (7, "undecodable"), (8, "bad_value"), (11, "unknown_type")];
        assert_eq!(refused, expected);
        // All of it passes an Agent's intake checks.
        for FrontBatch { client, blocks, .. } in collected.batches {
            let (seq, sent_at) = (taba_core::SeqNo(1), Timestamp::default());
            let batch = taba_core::wire::ClientBatch::new(client, 1, seq, sent_at, blocks);
            let intake = crate::intake::sort_out(
                &crate::intake::BlockPlaces::default(),
                Timestamp::default(),
                &batch,
                &[],
            );
            assert_eq!(intake.refused, []);
        }
    }

    #[test]
    fn without_any_handler_nothing_is_taken_for_something_else() {
        let (now, client) = (Timestamp::default(), ClientId::new("http").unwrap());
        let given = LineContext { now, client, handlers: &Registry::default() };
        let outcome = collect(&JsonLines, b"{\"tab\":\"a\"}", &given).unwrap().outcome;
        assert_eq!((outcome.recorded, outcome.refused[0].reason), (0, "unknown_type"));
    }

    #[test]
    fn each_bound_is_kept_and_nothing_is_lost_uncounted() {
        let line = |n: usize| format!("{{\"tab\":\"a\",\"client\":\"c{n}\"}}\n");
        let many: String = (0..CLIENTS_MAX + 150).map(line).collect();
        let many = collected(&many).unwrap();
        assert_eq!((many.outcome.recorded, many.outcome.refused_lines), (CLIENTS_MAX as u64, 150));
        assert_eq!(many.outcome.refused.len(), REFUSED_LISTED_MAX);
        assert_eq!(counts(&many)["http taba.dropped;where=client;why=full TotalsCounter"], 150);

        let lines = |count: usize| (0..count).map(|n| format!("{{\"tab\":\"t{n}\"}}\n")).collect::<String>();
        assert_eq!(collected(&lines(LINES_MAX + 1)), Err(TooManyLines));
        let full = collected(&lines(LINES_MAX)).unwrap();
        assert_eq!(
            full.batches.iter().map(|batch| batch.part).collect::<Vec<_>>(),
            (0..17).collect::<Vec<_>>()
        );
        assert!(full.batches.iter().all(|batch| batch.blocks.len() <= taba_core::limits::BATCH_BLOCKS_MAX));
        assert_eq!(counts(&full)["http taba.recorded TotalsCounter"], LINES_MAX as u64);
        assert_eq!(full, collected(&lines(LINES_MAX)).unwrap(), "the same lines, the same Batches");
    }
}
