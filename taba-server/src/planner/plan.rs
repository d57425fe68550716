//! [`Plan`]: what one commit is made of: which Batches were admitted, what they changed, and what the Ledger is to say
//! about what was refused.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use taba_core::ledger::{self, Where, Why};
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::wire::{Ack, Answer, Block, LaneBatch, Refusal};
use taba_core::{Arrival, ClientId, Mark, SeqNo, StreamId, TabName, Timestamp, Wanted};

use super::Env;
use super::cache::Cache;
use super::fold::{Outcome, fold_block, fold_note};
use super::quarantine::BlockId;
use crate::admission::{Admission, admit, mark_after};

/// Pairs of a commit that are kept free for the Ledger: enough for every one of its Tabs under one Client.
pub(super) const LEDGER_PAIRS: usize = 64;
/// Under which Client the Ledger counts what would not fit a commit Client by Client.
const CROWD: &str = "taba.crowd";

/// How many events took which way. Events of the Ledger itself are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) batches: u64,
    pub(super) duplicates: u64,
    pub(super) naks: u64,
    pub(super) events: u64,
    pub(super) folded: u64,
    pub(super) refused: u64,
    pub(super) gap: u64,
}

/// What is to be committed, besides what the cache knows to have changed.
#[derive(Default)]
pub(super) struct Plan {
    /// One for each Batch taken, in order.
    pub(super) acks: Vec<Ack>,
    /// The Lanes that moved, each once however many of its Batches were taken.
    pub(super) marks: BTreeMap<StreamId, Mark>,
    pub(super) notes: BTreeMap<(TabName, ClientId), u64>,
    pub(super) tally: Tally,
}

impl Plan {
    /// Admits and folds one Batch. `pairs` bounds what the taken Batches may need for their States, Tabs and marks.
    pub(super) fn add(
        &mut self,
        cache: &mut Cache,
        batch: &LaneBatch,
        arrived: Timestamp,
        pairs: usize,
        env: &Env<'_>,
    ) {
        let mark = cache.marks.get(&batch.stream).copied();
        let gap = match admit(mark, batch) {
            Admission::Next => 0,
            Admission::AfterGap { events_lost } => events_lost,
            refused @ (Admission::Duplicate | Admission::Nak) => {
                let is_duplicate = refused == Admission::Duplicate;
                *(if is_duplicate { &mut self.tally.duplicates } else { &mut self.tally.naks }) += 1;
                let answer = if is_duplicate { Answer::Duplicate } else { Answer::Nak };
                let applied = mark.map_or(SeqNo::NONE, |mark| mark.seq);
                self.acks.push(Ack {
                    stream: batch.stream,
                    vbucket: batch.vbucket,
                    applied,
                    stable: SeqNo::NONE,
                    answer,
                    refused: Vec::new(),
                });
                return;
            }
        };
        let mut notes = Vec::new();
        if gap > 0 {
            notes.push((ledger::dropped_tab(Where::Agent, Why::Gap), stream_client(batch.stream), gap));
        }
        let refused = self.fold(cache, batch, arrived, env, &mut notes);
        self.note(notes, COMMIT_PAIRS_MAX.saturating_sub(pairs + LEDGER_PAIRS));
        let mark = mark_after(batch, hour_of(env.now));
        cache.marks.insert(batch.stream, mark);
        self.marks.insert(batch.stream, mark);
        self.tally.batches += 1;
        self.tally.gap += gap;
        self.tally.events += batch.events();
        let answer = Answer::Applied;
        self.acks.push(Ack {
            stream: batch.stream,
            vbucket: batch.vbucket,
            applied: batch.seq,
            stable: SeqNo::NONE,
            answer,
            refused,
        });
    }

    fn fold(
        &mut self,
        cache: &mut Cache,
        batch: &LaneBatch,
        arrived: Timestamp,
        env: &Env<'_>,
        notes: &mut Vec<(TabName, ClientId, u64)>,
    ) -> Vec<Refusal> {
        let arrival = Arrival { at: arrived, latest: arrived.saturating_add(env.future_max) };
        let mut refusals = Vec::new();
        for (place, block) in batch.blocks.iter().enumerate() {
            let place = place as u32;
            let id = BlockId { stream: batch.stream, vbucket: batch.vbucket, seq: batch.seq, place };
            let outcome = if env.quarantine.holds(id) {
                Outcome::refused(Why::Undecodable, block)
            } else {
                fold_or_quarantine(cache, block, arrival, id, env)
            };
            if let Some((why, events)) = outcome.refused {
                refusals.push(Refusal { block: place, why, events });
            }
            // The Ledger counts events, and its own notes are none.
            if block.tab.is_reserved() {
                continue;
            }
            self.tally.folded += outcome.folded;
            if let Some((why, events)) = outcome.refused {
                self.tally.refused += events;
                notes.push((ledger::dropped_tab(Where::Server, why), block.client.clone(), events));
            }
            if outcome.clamped > 0 {
                notes.push((ledger::tab(ledger::CLAMPED), block.client.clone(), outcome.clamped));
            }
        }
        refusals
    }

    /// Adds to what the Ledger is to say; what would be more than `room` pairs is counted under one Client for all.
    fn note(&mut self, notes: Vec<(TabName, ClientId, u64)>, room: usize) {
        for (tab, client, events) in notes {
            let mut key = (tab, client);
            if !self.notes.contains_key(&key) && self.notes.len() >= room {
                key.1 = ClientId::new(CROWD).expect("name characters");
            }
            let sum = self.notes.entry(key).or_default();
            *sum = sum.saturating_add(events);
        }
    }

    /// What must be loaded before [`apply_notes`](Self::apply_notes).
    pub(super) fn touch_notes(&self, cache: &mut Cache) -> Wanted {
        let mut wanted = Wanted::default();
        for (tab, client) in self.notes.keys() {
            cache.touch(tab, client, &mut wanted);
        }
        wanted
    }

    /// Folds the notes. Answers how many events stay without a note, because the Ledger's Handler is not registered or
    /// its State cannot be read.
    pub(super) fn apply_notes(&self, cache: &mut Cache, env: &Env<'_>) -> u64 {
        let fold = |((tab, client), events): (&(TabName, ClientId), &u64)| match fold_note(
            cache,
            env.handlers,
            (tab, client),
            *events,
            env.now,
        ) {
            Ok(()) => 0,
            Err(_) => *events,
        };
        self.notes.iter().map(fold).fold(0, u64::saturating_add)
    }

    /// Every event of an admitted Batch was folded or refused.
    pub(super) fn audit(&self) {
        let n = &self.tally;
        debug_assert_eq!(n.events, n.folded + n.refused, "a commit lost count: {n:?}");
    }
}

/// Folds a Block. When its Handler panics, the Block is remembered and the panic goes on.
fn fold_or_quarantine(
    cache: &mut Cache,
    block: &Block,
    arrival: Arrival,
    id: BlockId,
    env: &Env<'_>,
) -> Outcome {
    // What the panic leaves behind in the cache is seen by nobody: see `Planner::handle`.
    let fold = AssertUnwindSafe(|| fold_block(cache, env.handlers, block, arrival));
    catch_unwind(fold).unwrap_or_else(|panic| {
        env.quarantine.add(id);
        resume_unwind(panic)
    })
}

/// The hour of a moment, since the Unix epoch.
pub(crate) fn hour_of(now: Timestamp) -> u32 {
    u32::try_from(now.as_micros() / 3_600_000_000).unwrap_or(0)
}

/// The Client under which the Ledger counts what a Stream lost.
fn stream_client(stream: StreamId) -> ClientId {
    ClientId::new(&format!("taba.stream/{stream}")).expect("hexadecimal digits are name characters")
}
