//! [`CommitPlan`]: the content of one commit: the admitted Batches, their changes, and the Ledger's notes of refused
//! events.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use taba_core::ledger::{self, Where, Why};
use taba_core::limits::COMMIT_PAIRS_MAX;
use taba_core::wire::{Ack, Answer, LaneBatch, Probe, Refusal};
use taba_core::{Arrival, ClientId, SeqNo, StreamId, TabName, Timestamp, Wanted};

use super::cache::Cache;
use super::exchange::{Env, RefusedBlock};
use super::fold::{DecodeRoom, fold_block, fold_note};
use super::live::CachedSlot;
use super::marks::{Hours, hour_of};
use super::message::{IncomingMessage, PendingMessage};
use super::newer::{NewerState, first_newer, unavailable};
use crate::admission::{Admission, ProbeOutcome, admit, admit_probe, mark_after, mark_below};
use crate::status::Status;

/// Pairs of a commit reserved for the Ledger: enough for all its Tabs under one Client.
pub(super) const LEDGER_PAIRS: usize = 64;
/// The Client of notes that do not fit a commit Client by Client.
const CROWD: &str = "taba.crowd";

/// Counts of one commit, by outcome, without events of the Ledger itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CommitCounts {
    pub(super) batches: u64,
    pub(super) duplicates: u64,
    pub(super) naks: u64,
    pub(super) probes: u64,
    pub(super) events: u64,
    pub(super) folded: u64,
    pub(super) refused: u64,
    pub(super) notes_refused: u64,
    pub(super) misdated: u64,
    pub(super) newer: u64,
    pub(super) gaps: u64,
    pub(super) gap_events: u64,
}

impl CommitCounts {
    pub(super) fn add_to(self, status: &Status) {
        for (counter, by) in [
            (&status.batches_committed, self.batches),
            (&status.batches_duplicate, self.duplicates),
            (&status.batches_nak, self.naks),
            (&status.events_in, self.events),
            (&status.events_folded, self.folded),
            (&status.events_refused, self.refused),
            (&status.notes_refused, self.notes_refused),
            (&status.probes_answered, self.probes),
            (&status.messages_misdated, self.misdated),
            (&status.gaps, self.gaps),
            (&status.events_gap, self.gap_events),
            (&status.batches_newer, self.newer),
        ] {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }
}

/// The content of a commit, besides the changes in the cache.
#[derive(Default)]
pub(super) struct CommitPlan {
    /// One for each message, in order.
    pub(super) acks: Vec<Ack>,
    pub(super) notes: BTreeMap<(TabName, ClientId), u64>,
    pub(super) counts: CommitCounts,
    /// The States for which this build is too old, one for each Batch answered *unavailable* because of it.
    pub(super) newer: Vec<NewerState>,
}

impl CommitPlan {
    /// Admits and folds one message. `pairs` bounds the States, Tabs and marks of all messages.
    pub(super) fn add<T>(
        &mut self,
        cache: &mut Cache,
        pending: &PendingMessage<T>,
        pairs: usize,
        env: &Env<'_>,
    ) {
        if cache.marks.get(pending.message.stream()).is_none() && pending.is_misdated(env.now) {
            self.counts.misdated += 1;
            return self.acks.push(pending.message.unanswered(Answer::Misdated));
        }
        let hour = Hours { server: hour_of(env.now), sender: pending.sent_hour() }.later();
        let room = COMMIT_PAIRS_MAX.saturating_sub(pairs + LEDGER_PAIRS);
        match &pending.message {
            IncomingMessage::Batch(batch) => {
                let is_due = matches!(
                    admit(cache.marks.get(batch.stream), batch),
                    Admission::Next | Admission::AfterGap { .. }
                );
                if is_due && let Some((place, newer)) = first_newer(cache, env.handlers, &batch.blocks) {
                    self.counts.newer += 1;
                    self.newer.push(newer);
                    return self.acks.push(unavailable(&pending.message, place));
                }
                self.add_batch(cache, batch, pending.arrived, (hour, room), env);
            }
            IncomingMessage::Probe(probe) => self.add_probe(cache, probe, (hour, room)),
        }
    }

    fn add_batch(
        &mut self,
        cache: &mut Cache,
        batch: &LaneBatch,
        arrived: Timestamp,
        (hour, room): (u32, usize),
        env: &Env<'_>,
    ) {
        let mark = cache.marks.get(batch.stream);
        let mut notes = Vec::new();
        let (answer, applied) = match admit(mark, batch) {
            Admission::Next => (Answer::Applied, batch.seq),
            Admission::AfterGap { events_lost } => {
                self.gap(batch.stream, events_lost, &mut notes);
                (Answer::Applied, batch.seq)
            }
            Admission::Duplicate => (Answer::Duplicate, mark.unwrap_or_default().seq),
            Admission::Nak => (Answer::Nak, mark.unwrap_or_default().seq),
        };
        let mut refused = Vec::new();
        match answer {
            Answer::Duplicate => self.counts.duplicates += 1,
            Answer::Nak => self.counts.naks += 1,
            _ => {
                refused = self.fold(cache, batch, arrived, env, &mut notes);
                self.note(notes, room);
                cache.marks.set(batch.stream, mark_after(batch, hour));
                self.counts.batches += 1;
                self.counts.events += batch.events();
            }
        }
        let (stream, vbucket) = (batch.stream, batch.vbucket);
        self.acks.push(Ack::new(stream, vbucket, applied, answer).with_refused(refused));
    }

    fn add_probe(&mut self, cache: &mut Cache, probe: &Probe, (hour, room): (u32, usize)) {
        if let ProbeOutcome::Gap { events_lost } = admit_probe(cache.marks.get(probe.stream), probe) {
            let mut notes = Vec::new();
            self.gap(probe.stream, events_lost, &mut notes);
            self.note(notes, room);
            cache.marks.set(probe.stream, mark_below(probe, hour));
        }
        self.counts.probes += 1;
        // `answer` adds the position of the Lane after this commit.
        self.acks.push(IncomingMessage::Probe(*probe).ack(SeqNo::NONE, Answer::Applied));
    }

    fn gap(&mut self, stream: StreamId, events_lost: u64, notes: &mut Vec<(TabName, ClientId, u64)>) {
        self.counts.gaps += 1;
        self.counts.gap_events += events_lost;
        // Batches without events may be lost too: then nothing is counted.
        if events_lost > 0 {
            let tab = ledger::dropped_tab(Where::Agent, Why::Gap);
            notes.push((tab, ledger::stream_client(stream), events_lost));
        }
    }

    /// Whether there is something to commit. Duplicates and Naks need no commit; a Probe does, because only a commit
    /// proves what the store holds.
    pub(super) const fn is_for_commit(&self) -> bool {
        self.counts.batches + self.counts.probes > 0
    }

    /// The answers after the commit, or when none is needed, in the order of the messages.
    pub(super) fn answers<T>(
        self,
        cache: &Cache,
        attempt: Vec<PendingMessage<T>>,
    ) -> impl Iterator<Item = (T, Ack)> {
        debug_assert_eq!(attempt.len(), self.acks.len(), "each message has one answer");
        attempt.into_iter().zip(self.acks).map(|(pending, mut ack)| {
            if matches!(pending.message, IncomingMessage::Probe(_)) && ack.answer == Answer::Applied {
                ack.applied = cache.marks.get(ack.stream).unwrap_or_default().seq;
            }
            if ack.answer != Answer::Unavailable {
                ack.stable = cache.marks.stable(ack.stream);
            }
            // The store was asked before this commit, so what this commit applied is above it.
            debug_assert!(ack.stable <= ack.applied, "more is stable than is applied: {ack:?}");
            (pending.ticket, ack)
        })
    }

    /// The refused Blocks: of several in a row with one reason, the first.
    pub(super) fn refused_blocks<T>(
        &self,
        messages: &[PendingMessage<T>],
    ) -> impl Iterator<Item = RefusedBlock> {
        let is_dropped = |(_, ack): &(&PendingMessage<T>, &Ack)| ack.answer != Answer::Unavailable;
        messages.iter().zip(&self.acks).filter(is_dropped).flat_map(|(pending, ack)| {
            let firsts = ack.refused.chunk_by(|a, b| a.why == b.why).filter_map(<[_]>::first);
            firsts.filter_map(|refusal| {
                let block = pending.message.blocks().get(refusal.block as usize)?;
                let (tab, client, tab_type) =
                    (block.tab.clone(), block.client.clone(), block.tab_type.clone());
                Some(RefusedBlock { tab, client, tab_type, why: refusal.why, events: refusal.events })
            })
        })
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
        let (mut refusals, mut room) = (Vec::new(), DecodeRoom::default());
        for (place, block) in batch.blocks.iter().enumerate() {
            let outcome = fold_block(cache, env.handlers, block, arrival, &mut room);
            // The sender knows about the Blocks that it withheld itself.
            if let Some((Where::Server, why, events)) = outcome.refused {
                refusals.push(Refusal::new(place as u32, why, events));
            }
            let events_refused = outcome.refused.map_or(0, |(.., events)| events);
            // The Ledger's own notes are in no account.
            if block.tab.is_reserved() {
                self.counts.notes_refused += events_refused;
                continue;
            }
            self.counts.refused += events_refused;
            self.counts.folded += outcome.folded;
            // There is no Client with such a name: its sender lost it.
            let is_nobodys = block.client.is_reserved();
            let client =
                || if is_nobodys { ledger::stream_client(batch.stream) } else { block.client.clone() };
            if let Some((place, why, _)) = outcome.refused.filter(|_| events_refused > 0) {
                notes.push((ledger::dropped_tab(place, why), client(), events_refused));
            }
            if outcome.clamped > 0 {
                notes.push((ledger::tab(ledger::CLAMPED), client(), outcome.clamped));
            }
        }
        refusals
    }

    /// Adds notes of the Ledger; those beyond `room` pairs are counted under one common Client.
    fn note(&mut self, notes: Vec<(TabName, ClientId, u64)>, room: usize) {
        for (tab, client, events) in notes {
            let mut key = (tab, client);
            // A State, and the account of its Client.
            if !self.notes.contains_key(&key) && 2 * self.notes.len() >= room {
                key.1 = ClientId::new(CROWD).expect("name characters");
            }
            let sum = self.notes.entry(key).or_default();
            *sum = sum.saturating_add(events);
        }
    }

    /// The States to load before [`apply_notes`](Self::apply_notes).
    pub(super) fn touch_notes(&self, cache: &mut Cache) -> Wanted {
        let mut wanted = cache.wanted();
        for (tab, client) in self.notes.keys() {
            cache.touch(tab, client, &mut wanted);
        }
        wanted
    }

    /// The first note whose State was written by a newer build. Then nothing may be committed: the note's events
    /// would be counted nowhere.
    pub(super) fn newer_note(&self, cache: &mut Cache, env: &Env<'_>) -> Option<NewerState> {
        if !cache.has_newer {
            return None;
        }
        self.notes.keys().find_map(|(tab, client)| {
            let CachedSlot::Newer { found, known } = *cache.entry(tab, client, env.handlers).slot else {
                return None;
            };
            let (tab, client, tab_type) = (tab.clone(), client.clone(), ledger::tab_type());
            Some(NewerState { tab, client, tab_type, found, known, is_stored: true })
        })
    }

    /// Folds the notes. Returns the events without a note, because the Ledger's Handler is not registered or its
    /// State cannot be read.
    pub(super) fn apply_notes(&self, cache: &mut Cache, env: &Env<'_>) -> u64 {
        let lost = |((tab, client), events): (&(TabName, ClientId), &u64)| {
            let is_noted = fold_note(cache, env.handlers, (tab, client), *events, env.now);
            if is_noted { 0 } else { *events }
        };
        self.notes.iter().map(lost).fold(0, u64::saturating_add)
    }

    /// Every event of an admitted Batch is folded or refused.
    pub(super) fn audit(&self) {
        let n = &self.counts;
        debug_assert_eq!(n.events, n.folded + n.refused, "a commit lost count: {n:?}");
    }
}
