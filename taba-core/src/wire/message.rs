//! The messages: what a Client sends its Agent, what an Agent sends a Server, and the answers.

use bytes::Bytes;

use super::block::{Block, Content, MalformedBlock};
use super::{Reader, WireError, put_bytes, put_i64, put_u64};
use crate::batch::{SeqNo, StreamId};
use crate::ledger::{self, Where, Why};
use crate::limits::{BATCH_BLOCKS_MAX, CLIENT_ID_BYTES_MAX, REQUEST_BATCHES_MAX};
use crate::name::{ClientId, TabName};
use crate::time::Timestamp;

/// Client to Agent: what one flush found.
///
/// ```text
/// | client | incarnation u64 | seq | sent_at zigzag | n | n Blocks |
/// ```
/// The content under one (incarnation, seq) never changes, so a repeated Batch is recognised by those two.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientBatch {
    /// Who sends it.
    pub client: ClientId,
    /// Which run of that program: a random number.
    pub incarnation: u64,
    /// 1, 2, 3, … within the incarnation.
    pub seq: SeqNo,
    /// The sender's clock.
    pub sent_at: Timestamp,
    /// What it found, at most [`BATCH_BLOCKS_MAX`] Blocks; the Ledger's Blocks are among them.
    pub blocks: Vec<Block>,
}

/// One Block that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Its place in the Batch, from 0.
    pub block: u32,
    /// Why it was refused.
    pub why: Why,
    /// How many events were lost with it; fewer than it holds when only some of its values were refused.
    pub events: u64,
}

/// Agent to Client: the Batch is safe here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The Batch that this answers.
    pub seq: SeqNo,
    /// The Agent's clock.
    pub now: Timestamp,
    /// Blocks that were refused, and counted as dropped.
    pub refused: Vec<Refusal>,
}

/// Agent to Server: the next Batch of one Lane.
///
/// ```text
/// | stream u64 | vbucket u16 | seq | base | events_before | n | n Blocks |
/// ```
/// The content under one (stream, vbucket, seq) never changes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LaneBatch {
    /// Which sender incarnation.
    pub stream: StreamId,
    /// Which VBucket: with the stream, it names the Lane.
    pub vbucket: u16,
    /// The place in the Lane.
    pub seq: SeqNo,
    /// The oldest Batch of the Lane that the sender still has.
    pub base: SeqNo,
    /// Events in all Batches of the Lane before this one.
    pub events_before: u64,
    /// What there is to fold.
    pub blocks: Vec<Block>,
}

/// Agent to Server: a question after a Lane that has nothing to send. It is answered by a commit that changes nothing
/// but the version of the VBucket, so that the answer is what the store holds now, not what somebody remembers.
///
/// ```text
/// | stream u64 | vbucket u16 | base | events_before |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// Which sender incarnation.
    pub stream: StreamId,
    /// Which VBucket: with the stream, it names the Lane.
    pub vbucket: u16,
    /// The oldest Batch of the Lane that the sender still has; one above the last when it has none. What lies between
    /// the mark and this is lost, and counted by the commit that answers.
    pub base: SeqNo,
    /// Events in all Batches of the Lane before `base`.
    pub events_before: u64,
}

/// Agent to Server: one request about many Lanes, about each of them at most once.
///
/// ```text
/// | sent_at zigzag | n | n LaneBatches | m | m Probes |
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Lanes {
    /// The sender's clock. A second opinion for the Server on what time it is: see [`Mark::hour`](crate::Mark::hour).
    pub sent_at: Timestamp,
    /// The next Batches of these Lanes, at most [`REQUEST_BATCHES_MAX`].
    pub batches: Vec<LaneBatch>,
    /// Questions after these Lanes, at most [`REQUEST_BATCHES_MAX`].
    pub probes: Vec<Probe>,
}

/// Server to Agent: where a Lane stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ack {
    /// Which sender incarnation.
    pub stream: StreamId,
    /// Which VBucket.
    pub vbucket: u16,
    /// The mark: everything up to here is contained in the stored States.
    pub applied: SeqNo,
    /// Everything up to here has also reached whatever would take over from the store's machine, as far as this Server
    /// knows; at most `applied`.
    pub stable: SeqNo,
    /// What became of the message that this answers.
    pub answer: Answer,
    /// Blocks of the Batch that were refused, and counted as dropped. With [`Answer::Unavailable`] nothing is dropped: then
    /// it is the Block for which the Server's build is too old (`Why::UnknownVersion`), if that is why.
    pub refused: Vec<Refusal>,
}

/// What became of a Batch or a Probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// It is contained in the stored States, by a commit made after it arrived. The only answer that says what the
    /// store holds now, and the only good answer to a Probe.
    Applied = 0,
    /// It had been contained before, as the store said after it arrived.
    Duplicate = 1,
    /// It does not follow on the mark that the store had after it arrived: send from `applied + 1` on.
    Nak = 2,
    /// It could not be stored now. Nothing is known to have changed: send the same again. When it is because the Server's
    /// build is too old (see [`Ack::refused`]), another Server may store it.
    Unavailable = 3,
    /// The Server has too much in hand. Nothing has changed: send the same later.
    Busy = 4,
    /// It is not meant for this deployment: there is no such VBucket, or its Tabs live in other ones. Nothing has
    /// changed, and sending it again cannot help.
    Misplaced = 5,
    /// Its Lane has no mark, and its sender's clock is too far from the Server's to begin one: nothing of it was folded.
    /// Send the same again, later: it is taken once the clocks agree.
    Misdated = 6,
}

impl Ack {
    /// The answer to a message of a Lane whose mark is `applied`; nothing is known to be stable, and nothing was refused.
    pub const fn new(stream: StreamId, vbucket: u16, applied: SeqNo, answer: Answer) -> Self {
        Self { stream, vbucket, applied, stable: SeqNo::NONE, answer, refused: Vec::new() }
    }

    /// With everything up to here stable.
    #[must_use]
    pub fn with_stable(self, stable: SeqNo) -> Self {
        Self { stable, ..self }
    }

    /// With these Blocks refused.
    #[must_use]
    pub fn with_refused(self, refused: Vec<Refusal>) -> Self {
        Self { refused, ..self }
    }
}

impl ClientBatch {
    /// What a Client, in one of its runs, sends under a number.
    pub fn new(
        client: ClientId,
        incarnation: u64,
        seq: SeqNo,
        sent_at: Timestamp,
        blocks: Vec<Block>,
    ) -> Self {
        Self { client, incarnation, seq, sent_at, blocks }
    }

    /// The message, to be put in a frame.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = self.blocks.iter().map(Block::encoded_bytes).sum::<usize>();
        let mut out = Vec::with_capacity(bytes + 64);
        put_bytes(self.client.as_str().as_bytes(), &mut out);
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        put_u64(self.seq.0, &mut out);
        put_i64(self.sent_at.as_micros(), &mut out);
        put_blocks(&self.blocks, &mut out);
        out
    }

    /// Reads the message. A Block that breaks the rules does not spoil the others: it comes back beside them.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no such message.
    pub fn decode(message: &Bytes) -> Result<(Self, Vec<BadBlock>), WireError> {
        let mut reader = Reader::new(message);
        let client = ClientId::new(reader.text(CLIENT_ID_BYTES_MAX, "a client id")?)?;
        let incarnation = u64::from_le_bytes(reader.array("an incarnation")?);
        let seq = SeqNo(reader.u64("a sequence number")?);
        let sent_at = Timestamp::from_micros(reader.i64("a time")?);
        let (blocks, bad) = blocks(&mut reader, message)?;
        reader.finish("bytes behind a batch")?;
        Ok((Self { client, incarnation, seq, sent_at, blocks }, bad))
    }
}

/// A Block that breaks the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadBlock {
    /// Its place in the Batch, from 0.
    pub block: u32,
    /// How many events it holds; 0 when even that cannot be read.
    pub events: u64,
    /// What is wrong.
    pub error: WireError,
}

impl Refusal {
    /// A Block, by its place in the Batch, of which so many events were lost.
    pub const fn new(block: u32, why: Why, events: u64) -> Self {
        Self { block, why, events }
    }
}

impl BadBlock {
    /// A Block, by its place in the Batch, that holds so many events.
    pub const fn new(block: u32, events: u64, error: WireError) -> Self {
        Self { block, events, error }
    }

    /// The word of the Ledger for what is wrong.
    pub fn why(&self) -> Why {
        why(&self.error)
    }
}

impl Receipt {
    /// The answer to a Batch, at the Agent's time.
    pub const fn new(seq: SeqNo, now: Timestamp, refused: Vec<Refusal>) -> Self {
        Self { seq, now, refused }
    }

    /// The message, to be put in a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(self.seq.0, &mut out);
        put_i64(self.now.as_micros(), &mut out);
        put_refusals(&self.refused, &mut out);
        out
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no such message.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(message);
        let seq = SeqNo(reader.u64("a sequence number")?);
        let now = Timestamp::from_micros(reader.i64("a time")?);
        let refused = refusals(&mut reader)?;
        reader.finish("bytes behind a receipt")?;
        Ok(Self { seq, now, refused })
    }
}

impl LaneBatch {
    /// A Batch of a sender that has no older one of this Lane; `events_before` are the events of all that there were.
    pub const fn new(
        stream: StreamId,
        vbucket: u16,
        seq: SeqNo,
        events_before: u64,
        blocks: Vec<Block>,
    ) -> Self {
        Self { stream, vbucket, seq, base: seq, events_before, blocks }
    }

    /// With this Batch as the oldest that the sender still has.
    #[must_use]
    pub fn with_base(self, base: SeqNo) -> Self {
        Self { base, ..self }
    }

    /// How many events the Batch holds; the Ledger's own are not counted.
    pub fn events(&self) -> u64 {
        let counted = self.blocks.iter().filter(|block| !block.tab.is_reserved());
        counted.map(|block| block.events).fold(0, u64::saturating_add)
    }

    /// Appends the Batch.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.vbucket.to_le_bytes());
        put_u64(self.seq.0, out);
        put_u64(self.base.0, out);
        put_u64(self.events_before, out);
        put_blocks(&self.blocks, out);
    }

    /// Reads one Batch. A Block that breaks the rules becomes one that is [withheld](Content::Withheld), so that it is
    /// counted, and spoils neither its Batch nor the others.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no Batch.
    pub fn decode(reader: &mut Reader<'_>, source: &Bytes) -> Result<Self, WireError> {
        let stream = StreamId(u64::from_le_bytes(reader.array("a stream")?));
        let vbucket = u16::from_le_bytes(reader.array("a vbucket")?);
        let seq = SeqNo(reader.u64("a sequence number")?);
        let base = SeqNo(reader.u64("a sequence number")?);
        let events_before = reader.u64("a number of events")?;
        if base > seq || base == SeqNo::NONE || seq.0 == u64::MAX {
            return Err(WireError::Malformed { what: "a base that is not from 1 to the sequence number" });
        }
        let count = reader.count(BATCH_BLOCKS_MAX, "blocks of one batch")?;
        let (mut blocks, mut unfolded) = (Vec::new(), 0);
        for _ in 0..count {
            let block = Block::decode_leniently(reader, source)?.and_then(Block::within_bounds);
            let block = block.and_then(|block| block.within_batch(&mut unfolded));
            blocks.push(block.unwrap_or_else(|spoilt| withheld(stream, spoilt)));
        }
        Ok(Self { stream, vbucket, seq, base, events_before, blocks })
    }
}

/// What stands for a Block that breaks the rules. Where its Client cannot be read, it is counted under the sender.
fn withheld(stream: StreamId, spoilt: MalformedBlock) -> Block {
    let MalformedBlock { seen, error } = spoilt;
    let nameless = || TabName::new("unreadable").expect("the constant is a name");
    Block {
        tab: seen.tab.unwrap_or_else(nameless),
        client: seen.client.unwrap_or_else(|| ledger::stream_client(stream)),
        tab_type: ledger::tab_type(),
        events: seen.events,
        earliest: Timestamp::default(),
        latest: Timestamp::default(),
        content: Content::Withheld { place: Where::Server, why: why(&error) },
    }
}

/// The word of the Ledger for a Block that breaks the rules.
fn why(error: &WireError) -> Why {
    match error {
        WireError::Name(_) => Why::BadName,
        _ => Why::Undecodable,
    }
}

impl Probe {
    /// A question after a Lane of which the sender has the Batches from `base` on, with so many events before it.
    pub const fn new(stream: StreamId, vbucket: u16, base: SeqNo, events_before: u64) -> Self {
        Self { stream, vbucket, base, events_before }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.stream.0.to_le_bytes());
        out.extend_from_slice(&self.vbucket.to_le_bytes());
        put_u64(self.base.0, out);
        put_u64(self.events_before, out);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let stream = StreamId(u64::from_le_bytes(reader.array("a stream")?));
        let vbucket = u16::from_le_bytes(reader.array("a vbucket")?);
        let base = SeqNo(reader.u64("a sequence number")?);
        let events_before = reader.u64("a number of events")?;
        if base == SeqNo::NONE || base.0 == u64::MAX {
            return Err(WireError::Malformed { what: "a base that no lane has" });
        }
        Ok(Self { stream, vbucket, base, events_before })
    }
}

impl Lanes {
    /// A request without Probes, at the sender's time.
    pub const fn new(sent_at: Timestamp, batches: Vec<LaneBatch>) -> Self {
        Self { sent_at, batches, probes: Vec::new() }
    }

    /// With these Probes.
    #[must_use]
    pub fn with_probes(self, probes: Vec<Probe>) -> Self {
        Self { probes, ..self }
    }

    /// Bytes of a request around its Batches and Probes, at most.
    pub const HEAD_BYTES_MAX: usize = 3 * 10;
    /// Bytes of one Probe, at most.
    pub const PROBE_BYTES_MAX: usize = 8 + 2 + 2 * 10;

    /// The message, to be put in a frame.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |batch: &LaneBatch| batch.blocks.iter().map(Block::encoded_bytes).sum::<usize>() + 50;
        let bytes: usize = self.batches.iter().map(bytes).sum();
        let mut out =
            Vec::with_capacity(bytes + self.probes.len() * Self::PROBE_BYTES_MAX + Self::HEAD_BYTES_MAX);
        Self::encode_parts(
            self.sent_at,
            self.batches.len(),
            |out| self.batches.iter().for_each(|batch| batch.encode(out)),
            &self.probes,
            &mut out,
        );
        out
    }

    /// Appends a message whose Batches are encoded by the caller: `put_batches` appends so many.
    pub fn encode_parts(
        sent_at: Timestamp,
        batches: usize,
        put_batches: impl FnOnce(&mut Vec<u8>),
        probes: &[Probe],
        out: &mut Vec<u8>,
    ) {
        put_i64(sent_at.as_micros(), out);
        put_u64(batches as u64, out);
        put_batches(out);
        put_u64(probes.len() as u64, out);
        probes.iter().for_each(|probe| probe.encode(out));
    }

    /// Reads the message.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no such message.
    pub fn decode(message: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(message);
        let sent_at = Timestamp::from_micros(reader.i64("a time")?);
        let count = reader.count(REQUEST_BATCHES_MAX, "batches of one request")?;
        let batches =
            (0..count).map(|_| LaneBatch::decode(&mut reader, message)).collect::<Result<_, _>>()?;
        let count = reader.count(REQUEST_BATCHES_MAX, "probes of one request")?;
        let probes = (0..count).map(|_| Probe::decode(&mut reader)).collect::<Result<_, _>>()?;
        reader.finish("bytes behind the lanes")?;
        Ok(Self { sent_at, batches, probes })
    }
}

/// The message of acknowledgements: their number, then each.
///
/// ```text
/// | stream u64 | vbucket u16 | applied | stable | answer u8 | n | n * (block, why u8, events) |
/// ```
pub fn encode_acks(acks: &[Ack]) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(acks.len() as u64, &mut out);
    for ack in acks {
        out.extend_from_slice(&ack.stream.0.to_le_bytes());
        out.extend_from_slice(&ack.vbucket.to_le_bytes());
        put_u64(ack.applied.0, &mut out);
        put_u64(ack.stable.0, &mut out);
        out.push(ack.answer as u8);
        put_refusals(&ack.refused, &mut out);
    }
    out
}

/// Reads the message of acknowledgements.
///
/// # Errors
/// [`WireError`] when the bytes are no such message.
pub fn decode_acks(message: &[u8]) -> Result<Vec<Ack>, WireError> {
    let mut reader = Reader::new(message);
    let count = reader.count(2 * REQUEST_BATCHES_MAX, "acknowledgements")?;
    let mut acks = Vec::new();
    for _ in 0..count {
        let stream = StreamId(u64::from_le_bytes(reader.array("a stream")?));
        let vbucket = u16::from_le_bytes(reader.array("a vbucket")?);
        let applied = SeqNo(reader.u64("a sequence number")?);
        let stable = SeqNo(reader.u64("a sequence number")?);
        let answer = match reader.u8("an answer")? {
            0 => Answer::Applied,
            1 => Answer::Duplicate,
            2 => Answer::Nak,
            3 => Answer::Unavailable,
            4 => Answer::Busy,
            5 => Answer::Misplaced,
            6 => Answer::Misdated,
            _ => return Err(WireError::Malformed { what: "an answer" }),
        };
        acks.push(Ack { stream, vbucket, applied, stable, answer, refused: refusals(&mut reader)? });
    }
    reader.finish("bytes behind the acknowledgements")?;
    Ok(acks)
}

fn put_blocks(blocks: &[Block], out: &mut Vec<u8>) {
    put_u64(blocks.len() as u64, out);
    blocks.iter().for_each(|block| block.encode(out));
}

fn blocks(reader: &mut Reader<'_>, source: &Bytes) -> Result<(Vec<Block>, Vec<BadBlock>), WireError> {
    let count = reader.count(BATCH_BLOCKS_MAX, "blocks of one batch")?;
    let (mut blocks, mut bad, mut unfolded) = (Vec::new(), Vec::new(), 0);
    for place in 0..count {
        let block = Block::decode_leniently(reader, source)?;
        match block.and_then(|block| block.within_batch(&mut unfolded)) {
            Ok(block) => blocks.push(block),
            Err(MalformedBlock { seen, error }) => {
                bad.push(BadBlock { block: place as u32, events: seen.events, error });
            }
        }
    }
    Ok((blocks, bad))
}

fn put_refusals(refused: &[Refusal], out: &mut Vec<u8>) {
    put_u64(refused.len() as u64, out);
    for refusal in refused {
        put_u64(u64::from(refusal.block), out);
        out.push(refusal.why as u8);
        put_u64(refusal.events, out);
    }
}

fn refusals(reader: &mut Reader<'_>) -> Result<Vec<Refusal>, WireError> {
    let count = reader.count(BATCH_BLOCKS_MAX, "refusals")?;
    let mut out = Vec::new();
    for _ in 0..count {
        let block = reader.count(BATCH_BLOCKS_MAX, "the place of a block")? as u32;
        let why = Why::from_code(reader.u8("a reason")?).ok_or(WireError::Malformed { what: "a reason" })?;
        out.push(Refusal { block, why, events: reader.u64("a number of events")? });
    }
    Ok(out)
}
