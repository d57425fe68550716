//! [`Record`]: the format of the log. A segment is a head and records. Corrupt records are skipped and reported.
//!
//! ```text
//! segment     | "TABASPOL" | version u8 | id u64 | before u64 | before_bytes u64 | crc32 u32 | records …
//! record      | head_bytes u32 | data_bytes u32 | crc32 u32 | kind u8 | head … | data … |    crc32 of lengths, kind, head
//! kind 1      Take        | stream u64 | Incarnation | taken_at zigzag | n Fragments |
//! kind 2      Copy        | stream u64 | taken_at zigzag | Fragment |
//! kind 3      Merge       | stream u64 | taken_at zigzag | n Fragments |
//! kind 4      Checkpoint  | id u64 | role u8 | n Floors | n Incarnations | n Clocks | n Sendings | ends before what is empty
//! kind 5      Move        | stream u64 | vbucket u16 | seq | stream u64 | taken_at zigzag | n Fragments |
//! Fragment       | vbucket u16 | seq | events_before | batch_events_before | blocks_before | blocks | events | bytes | crc32 u32 |
//! Refusal     | block | why u8 | events |
//! LaneCheckpoint       | stream u64 | vbucket u16 | base | applied | events_before | last | events_end |
//! Incarnation | client | number u64 | seq | events_total | n Refusals |
//! Clock       | stream u64 | measured zigzag | told zigzag |
//! Sending     | stream u64 | n Times: none, or one: zigzag |
//! ```
//! `before` is the segment before this one, 0 if there is none, and `before_bytes` its length, 0 if unknown; the
//! crc32 of a segment's head covers everything before it. Little-endian; numbers without a width are varints,
//! `client` has a length prefix. The data is the bytes of all fragments in order, each with its own checksum, so no
//! byte is checked twice.
//!
//! A *Take* is an accepted Client's Batch: its Blocks, distributed over the Batches of Lanes. The content of a Batch
//! is all its fragments in the order of the log, so no record closes it: nothing is added to a Batch after it was
//! sent. A *Copy* is the whole of one Batch, written again so that an old segment can be removed. A *Move* removes a
//! Lane's Batches from a number on, none of which any Server will ever accept, and adds their content to other Lanes.
//! A *Merge* replaces a Lane's Batches from its first fragment's number on, none of which was ever sent. A
//! *Checkpoint*, at the head of each segment, lists the live content of earlier segments, and the accepted Batches of
//! Clients.

mod decode;
mod encode;

use taba_core::limits::CLIENT_ID_BYTES_MAX;
use taba_core::wire::Refusal;
use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

pub use self::decode::next;
use super::SegmentId;
use crate::clock::StreamClock;
use crate::units::LaneKey;

/// The first bytes of every segment.
pub const MAGIC: [u8; 8] = *b"TABASPOL";
/// The version of the log.
pub const VERSION: u8 = 3;
/// Bytes before the first record of a segment.
pub const SEGMENT_HEAD_BYTES: usize = 37;
/// Bytes before the head of a record.
pub const RECORD_HEAD_BYTES: usize = 13;
/// Maximum bytes of a record's head, and of its data: no record was ever larger.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(SEGMENT_HEAD_BYTES == 8 + 1 + 3 * 8 + 4, "the table above is out of date");
const _: () = assert!(RECORD_HEAD_BYTES == 4 + 4 + 4 + 1, "the table above is out of date");

const TAKE: u8 = 1;
const COPY: u8 = 2;
const MERGE: u8 = 3;
const CHECKPOINT: u8 = 4;
const MOVE: u8 = 5;

/// Maximum fragments of one record: every Block of a Client's Batch and every note can be one.
const FRAGMENTS_MAX: usize = 1 << 20;
/// Maximum Lanes or incarnations of one checkpoint.
const CHECKPOINT_MAX: usize = 1 << 26;

/// A part of a Lane's Batch: some of its Blocks, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The VBucket of the Lane.
    pub vbucket: u16,
    /// The Batch.
    pub seq: SeqNo,
    /// Events in all Batches of the Lane before this one.
    pub events_before: u64,
    /// Events of the Batch before this fragment.
    pub batch_events_before: u64,
    /// Blocks of the Batch before this fragment.
    pub blocks_before: u64,
    /// Blocks of this fragment, at least 1.
    pub blocks: u64,
    /// Events of this fragment, without the Ledger's own.
    pub events: u64,
    /// Events of this fragment that a Server has to fold one by one. Not written: only a Batch that is still open needs it.
    pub unfolded: u64,
    /// The Blocks.
    pub bytes: Vec<u8>,
}

/// A record of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// A Client's Batch was accepted.
    Take {
        /// The Client's side of it.
        taken: &'a AcceptedBatch,
        /// The stream to which its Blocks were added.
        stream: StreamId,
        /// Its Blocks, with notes of refused ones.
        fragments: &'a [Fragment],
    },
    /// A copy of one Batch of a Lane.
    Copy {
        /// The stream of the Lane.
        stream: StreamId,
        /// The first arrival.
        taken_at: Timestamp,
        /// Its content.
        fragment: &'a Fragment,
    },
    /// The Lane's Batches from this number on were moved to other Lanes.
    Move {
        /// The Lane.
        from: LaneKey,
        /// The first number.
        seq: SeqNo,
        /// The stream of the other Lanes.
        stream: StreamId,
        /// The time of the move.
        taken_at: Timestamp,
        /// The moved content.
        fragments: &'a [Fragment],
    },
    /// These Batches replace the Lane's Batches from the first of them on.
    Merge {
        /// The stream of the Lane.
        stream: StreamId,
        /// The first arrival.
        taken_at: Timestamp,
        /// Whole Batches, one fragment each, in order.
        fragments: &'a [Fragment],
    },
}

/// What is kept of a Client's Batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedBatch {
    /// The Client.
    pub client: ClientId,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its number.
    pub seq: SeqNo,
    /// Its arrival, by the wall clock.
    pub taken_at: Timestamp,
    /// Events accepted from this incarnation, with this Batch. So if the record of a Batch is lost, the next one of
    /// its Client tells its number of events.
    pub events_total: u64,
    /// Blocks that were refused.
    pub refused: Vec<Refusal>,
}

/// The state of earlier segments at the beginning of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// The number of its segment, in case the head is damaged; set by the Spool.
    pub segment: SegmentId,
    /// The relation of its segment to earlier ones.
    pub role: SegmentRole,
    /// All known Lanes. Batches of others are probed again.
    pub lanes: Vec<LaneCheckpoint>,
    /// Each incarnation's last Batch.
    pub incarnations: Vec<AcceptedBatch>,
    /// The clock errors of streams with Lanes here, if not 0.
    pub clocks: Vec<(StreamId, StreamClock)>,
    /// Since when a stream may have been sent, by the clock of the stream; `None`: never. For a stream not listed it
    /// is unknown.
    pub sendings: Vec<(StreamId, Option<Timestamp>)>,
}

/// The relation of a segment to earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentRole {
    /// It continues the one before.
    #[default]
    Follows = 0,
    /// It is part of a log that is being rewritten because earlier files are not trusted: it counts only with all the
    /// others, once a segment seals them, or when nothing older is left.
    Renews = 1,
    /// All live content was rewritten before it.
    Seals = 2,
}

/// The state of a Lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneCheckpoint {
    /// The Lane.
    pub lane: LaneKey,
    /// The oldest live Batch, or the next if there is none.
    pub base: SeqNo,
    /// The last that was acknowledged.
    pub applied: SeqNo,
    /// Events in all Batches of the Lane before `base`.
    pub events_before: u64,
    /// The last Batch of the Lane, complete or not.
    pub last: SeqNo,
    /// Events in all Batches of the Lane up to and including `last`.
    pub events_end: u64,
}

/// A decoded record. Fragments have the offset of their bytes within the segment instead of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodedRecord {
    /// See [`Record::Take`].
    Take(AcceptedBatch, StreamId, Vec<DecodedFragment>),
    /// See [`Record::Copy`].
    Copy(StreamId, Timestamp, DecodedFragment),
    /// See [`Record::Merge`].
    Merge(StreamId, Timestamp, Vec<DecodedFragment>),
    /// See [`Record::Move`].
    Move(LaneKey, SeqNo, (StreamId, Timestamp), Vec<DecodedFragment>),
    /// See [`Checkpoint`].
    Checkpoint(Checkpoint),
}

/// A [`Fragment`] without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Fragment`")]
#[non_exhaustive]
pub struct DecodedFragment {
    pub vbucket: u16,
    pub seq: SeqNo,
    pub events_before: u64,
    pub batch_events_before: u64,
    pub blocks_before: u64,
    pub blocks: u64,
    pub events: u64,
    /// The offset of its bytes in the record.
    pub offset: usize,
    /// Their number.
    pub bytes: usize,
    /// Their CRC-32.
    pub crc: u32,
    /// Whether the checksum does not match.
    pub is_damaged: bool,
}

/// A fragment in a record: byte offset, length, and CRC-32.
pub type FragmentSpan = (usize, usize, u32);

impl Record<'_> {
    /// Its fragments, in order.
    pub fn fragments(&self) -> std::slice::Iter<'_, Fragment> {
        match self {
            Self::Take { fragments, .. } | Self::Merge { fragments, .. } | Self::Move { fragments, .. } => {
                fragments.iter()
            }
            Self::Copy { fragment, .. } => std::slice::from_ref(*fragment).iter(),
        }
    }

    /// Whether it is intake, and not a rewrite of existing content.
    pub const fn is_intake(&self) -> bool {
        matches!(self, Self::Take { .. })
    }

    /// An upper estimate of its bytes.
    pub fn bytes_max(&self) -> usize {
        let fragments: usize = self.fragments().map(|fragment| fragment.bytes.len() + 80).sum();
        let head = match self {
            Self::Take { taken, .. } => CLIENT_ID_BYTES_MAX + 64 + taken.refused.len() * 21,
            Self::Copy { .. } | Self::Merge { .. } | Self::Move { .. } => 64,
        };
        RECORD_HEAD_BYTES + head + fragments
    }
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentHead {
    /// Its number.
    pub id: SegmentId,
    /// The number of the segment before it; 0 if there is none.
    pub before: SegmentId,
    /// Its length in bytes; 0 if unknown.
    pub before_bytes: u64,
}

impl SegmentHead {
    /// Its bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEAD_BYTES] {
        let mut head = [0; SEGMENT_HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        head[8] = VERSION;
        head[9..17].copy_from_slice(&self.id.0.to_le_bytes());
        head[17..25].copy_from_slice(&self.before.0.to_le_bytes());
        head[25..33].copy_from_slice(&self.before_bytes.to_le_bytes());
        let crc = crc32fast::hash(&head[..33]);
        head[33..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    /// Decodes a head; `None` when it is damaged or no head.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEAD_BYTES)?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let head = Self { id: SegmentId(number(9)), before: SegmentId(number(17)), before_bytes: number(25) };
        (head.encode() == bytes).then_some(head)
    }
}

/// The record at the start of some bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedRecord {
    /// A record, and its size in bytes.
    Record(Box<DecodedRecord>, usize),
    /// This many bytes with the head of a record that is damaged.
    Broken(usize),
    /// Bytes from which the next record cannot be located.
    Lost,
    /// Nothing.
    End,
}

impl DecodedRecord {
    /// Its fragments, in order.
    pub fn fragments(&self) -> &[DecodedFragment] {
        match self {
            Self::Take(_, _, fragments) | Self::Merge(_, _, fragments) | Self::Move(_, _, _, fragments) => {
                fragments
            }
            Self::Copy(_, _, fragment) => std::slice::from_ref(fragment),
            Self::Checkpoint(_) => &[],
        }
    }

    fn fragments_mut(&mut self) -> &mut [DecodedFragment] {
        match self {
            Self::Take(_, _, fragments) | Self::Merge(_, _, fragments) | Self::Move(_, _, _, fragments) => {
                fragments
            }
            Self::Copy(_, _, fragment) => std::slice::from_mut(fragment),
            Self::Checkpoint(_) => &mut [],
        }
    }
}

/// The checksum of a record's lengths, kind and head.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..8]);
    hasher.update(&record[12..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taba_core::ledger::Why;

    use super::decode::read;
    use super::*;

    fn fragment(seq: u64, bytes: &[u8]) -> Fragment {
        let (vbucket, events_before) = (seq as u16 * 3, 100 * seq);
        Fragment {
            vbucket,
            seq: SeqNo(seq),
            events_before,
            batch_events_before: 5,
            blocks_before: 2,
            blocks: 3,
            events: 7,
            unfolded: 0,
            bytes: bytes.to_vec(),
        }
    }

    fn taken() -> AcceptedBatch {
        AcceptedBatch {
            client: ClientId::new("web-01").unwrap(),
            incarnation: 0x0123_4567_89ab_cdef,
            seq: SeqNo(42),
            taken_at: Timestamp::from_micros(1_795_371_115_250_000),
            events_total: 4_711,
            refused: vec![Refusal::new(3, Why::BadName, 17)],
        }
    }

    fn checkpoint() -> Checkpoint {
        let lane = LaneKey { stream: StreamId(7), vbucket: 513 };
        let incarnation = AcceptedBatch { taken_at: Timestamp::default(), ..taken() };
        Checkpoint {
            segment: SegmentId(3),
            role: SegmentRole::Follows,
            lanes: vec![LaneCheckpoint {
                lane,
                base: SeqNo(9),
                applied: SeqNo(11),
                events_before: 80,
                last: SeqNo(12),
                events_end: 123,
            }],
            incarnations: vec![incarnation],
            clocks: Vec::new(),
            sendings: Vec::new(),
        }
    }

    fn encoded(record: Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    fn records() -> Vec<Vec<u8>> {
        let (first, fragments) = (fragment(1, b"one"), [fragment(2, b"two"), fragment(3, b"three")]);
        let (stream, taken_at) = (StreamId(7), Timestamp::from_secs(5));
        let mut bytes = Vec::new();
        checkpoint().encode(&mut bytes);
        vec![
            encoded(Record::Take { taken: &taken(), stream, fragments: &fragments }),
            encoded(Record::Copy { stream, taken_at, fragment: &first }),
            encoded(Record::Merge { stream, taken_at, fragments: &fragments }),
            bytes,
        ]
    }

    #[test]
    fn records_come_back_and_say_where_their_pieces_are() {
        let fragments = [fragment(2, b"two"), fragment(3, b"three")];
        let taken = taken();
        let record = Record::Take { taken: &taken, stream: StreamId(7), fragments: &fragments };
        // Appends to existing bytes.
        let mut bytes = b"before".to_vec();
        let spans = record.encode(&mut bytes);
        let bytes = &bytes[6..];
        assert!(bytes.len() <= record.bytes_max());
        let ParsedRecord::Record(found, end) = next(bytes) else { panic!() };
        assert_eq!(end, bytes.len());
        let DecodedRecord::Take(taken_too, stream, found) = *found else { panic!() };
        assert_eq!((taken_too, stream), (taken, StreamId(7)));
        for ((found, fragment), span) in found.iter().zip(&fragments).zip(&spans) {
            assert_eq!((found.offset, found.bytes, found.crc), *span);
            assert_eq!(bytes[found.offset..found.offset + found.bytes], fragment.bytes);
            assert_eq!(
                (found.vbucket, found.seq, found.events),
                (fragment.vbucket, fragment.seq, fragment.events)
            );
            assert_eq!(
                (found.events_before, found.blocks_before),
                (fragment.events_before, fragment.blocks_before)
            );
        }
        let bytes = records().remove(3);
        assert_eq!(
            next(&bytes),
            ParsedRecord::Record(Box::new(DecodedRecord::Checkpoint(checkpoint())), bytes.len())
        );
        let clock = StreamClock { measured: -3, told: 1 << 40 };
        let clocks = vec![(StreamId(9), clock)];
        let sendings = vec![(StreamId(9), None), (StreamId(10), Some(Timestamp::from_secs(-4)))];
        for checkpoint in [
            Checkpoint { clocks: clocks.clone(), ..checkpoint() },
            Checkpoint { sendings: sendings.clone(), ..checkpoint() },
            Checkpoint { clocks, sendings, ..checkpoint() },
        ] {
            let mut bytes = Vec::new();
            checkpoint.encode(&mut bytes);
            assert_eq!(
                next(&bytes),
                ParsedRecord::Record(Box::new(DecodedRecord::Checkpoint(checkpoint)), bytes.len())
            );
        }
        for record in records() {
            assert!(matches!(next(&record), ParsedRecord::Record(..)));
        }
    }

    #[test]
    fn a_move_comes_back() {
        let fragments = [fragment(2, b"two"), fragment(3, b"three")];
        let from = LaneKey { stream: StreamId(9), vbucket: 2_000 };
        let (stream, taken_at) = (StreamId(7), Timestamp::from_secs(5));
        let record = Record::Move { from, seq: SeqNo(4), stream, taken_at, fragments: &fragments };
        assert!(encoded(record).len() <= record.bytes_max());
        let ParsedRecord::Record(found, _) = next(&encoded(record)) else { panic!() };
        let DecodedRecord::Move(found_from, seq, whither, found) = *found else { panic!() };
        assert_eq!((found_from, seq, whither, found.len()), (from, SeqNo(4), (stream, taken_at), 2));
    }

    /// Bytes written by version 3 of the log. `TABA_BLESS=1` writes the file if it does not exist yet.
    #[test]
    fn golden_bytes_are_read_and_written_as_ever() {
        let head = SegmentHead { id: SegmentId(3), before: SegmentId(2), before_bytes: 4_711 };
        assert_eq!(SegmentHead::decode(&head.encode()), Some(head));
        let bytes = [&head.encode()[..], &records().concat()].concat();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spool.bin");
        if std::env::var_os("TABA_BLESS").is_some() && !path.exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    proptest! {
        #[test]
        fn a_flipped_or_missing_byte_is_noticed(which in 0_usize..4, at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let record = records().remove(which);
            let at = at.index(record.len());
            let mut wrong = record.clone();
            wrong[at] ^= flip;
            let is_noticed = |bytes: &[u8]| match next(bytes) {
                ParsedRecord::Record(found, _) => found.fragments().iter().any(|fragment| fragment.is_damaged),
                ParsedRecord::Broken(_) | ParsedRecord::Lost | ParsedRecord::End => true,
            };
            prop_assert!(is_noticed(&wrong));
            prop_assert!(!matches!(next(&record[..at]), ParsedRecord::Record(..)));
        }

        #[test]
        fn noise_is_no_record(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            prop_assert!(!matches!(next(&bytes), ParsedRecord::Record(..)));
            let _ = read(&bytes, 0);
        }
    }
}
