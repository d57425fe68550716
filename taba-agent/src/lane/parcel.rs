//! [`Parcel`]: one Batch of a Lane, from its first Block until it is let go.

use std::time::Duration;

use bytes::Bytes;
use taba_core::wire::Block;
use taba_core::{SeqNo, Timestamp};

use crate::clock::StreamClock;
use crate::relay::Moment;
use crate::spool::record::Piece;
use crate::spool::{Place, ReadError, Spool, Weight};

/// One Batch of a Lane.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) seq: SeqNo,
    pub(super) events_before: u64,
    pub(super) blocks: u64,
    pub(super) weight: Weight,
    /// When its first Block came, on the clock of its stream.
    pub(super) taken_at: Timestamp,
    /// The same in microseconds since the start of this run; below zero for what an earlier one has taken, and later
    /// than now for what the clock says is still to come.
    pub(super) born: i64,
    /// Nothing is added to it any more.
    pub(super) is_closed: bool,
    /// The end of its last piece in the Spool.
    pub(super) written: u64,
    /// Where its pieces stand in the Spool.
    pub(super) places: Vec<Place>,
    /// When it was first acknowledged, since the store was last seen to go back behind it.
    pub(super) acked_at: Option<Duration>,
    content: Content,
    /// A Block behind all pieces, which is not in the Spool: what of the Batch was found damaged.
    note: Bytes,
}

/// The Blocks of a Parcel, encoded.
#[derive(Debug)]
enum Content {
    Filling(Vec<u8>),
    Here(Bytes),
    /// In the Spool.
    Away,
}

impl Parcel {
    /// The Batch that begins with this piece.
    pub(super) fn begin(now: Moment, piece: Piece, place: Place, written: u64) -> Self {
        Self {
            seq: piece.seq,
            events_before: piece.events_before,
            blocks: piece.blocks,
            weight: Weight { events: piece.events, bytes: piece.bytes.len() as u64 },
            taken_at: now.time,
            born: now.uptime.as_micros() as i64,
            is_closed: false,
            written,
            places: vec![place],
            acked_at: None,
            content: Content::Filling(piece.bytes),
            note: Bytes::new(),
        }
    }

    /// A Batch that an earlier run has taken, with a note of what of it is damaged.
    pub(super) fn recovered(
        found: crate::spool::recovery::FoundBatch,
        clock: StreamClock,
        now: Moment,
        note: Option<&Block>,
    ) -> Self {
        let mut bytes = Vec::new();
        if let Some(note) = note {
            note.encode(&mut bytes);
        }
        let piece_bytes: u64 = found.places.iter().map(|place| u64::from(place.bytes)).sum();
        Self {
            seq: found.seq,
            events_before: found.events_before,
            blocks: found.blocks + u64::from(note.is_some()),
            weight: Weight { events: found.events, bytes: piece_bytes },
            taken_at: found.taken_at,
            born: born(found.taken_at, clock, now),
            is_closed: true,
            written: 0,
            places: found.places,
            acked_at: None,
            content: Content::Away,
            note: bytes.into(),
        }
    }

    /// The time of day was set.
    pub(super) fn reckon(&mut self, clock: StreamClock, now: Moment) {
        self.born = born(self.taken_at, clock, now);
    }

    /// Adds a piece that follows on what is here.
    pub(super) fn append(&mut self, piece: &Piece, place: Place, written: u64) {
        debug_assert!(!self.is_closed && piece.seq == self.seq && piece.blocks_before == self.blocks);
        let Content::Filling(bytes) = &mut self.content else {
            unreachable!("only a closed parcel is put away")
        };
        bytes.extend_from_slice(&piece.bytes);
        self.blocks += piece.blocks;
        self.weight = self.weight.plus(Weight { events: piece.events, bytes: piece.bytes.len() as u64 });
        self.written = written;
        self.places.push(place);
    }

    /// From here on its content never changes.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        if let Content::Filling(bytes) = &mut self.content {
            self.content = Content::Here(std::mem::take(bytes).into_boxed_slice().into());
        }
    }

    /// Forgets the content that the Spool can give back.
    pub(super) fn put_away(&mut self) {
        self.close();
        self.content = Content::Away;
    }

    /// It stands elsewhere now, as one piece; gives where it stood.
    pub(super) fn move_to(&mut self, place: Place, written: u64) -> Vec<Place> {
        self.written = written;
        std::mem::replace(&mut self.places, vec![place])
    }

    /// These Blocks take the place of its own; gives where those stood.
    pub(super) fn replace(&mut self, piece: Piece, place: Place, written: u64) -> Vec<Place> {
        debug_assert!(self.is_closed && piece.blocks == self.blocks_written(), "as many as before");
        self.weight.bytes = piece.bytes.len() as u64;
        self.content = Content::Here(piece.bytes.into());
        self.move_to(place, written)
    }

    /// All its Blocks, encoded, without the note.
    ///
    /// # Errors
    /// [`ReadError`] when the Spool cannot give them back.
    pub(super) fn pieces(&self, spool: &dyn Spool) -> Result<Bytes, ReadError> {
        match &self.content {
            Content::Filling(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            Content::Here(bytes) => Ok(bytes.clone()),
            Content::Away if self.places.is_empty() => Ok(Bytes::new()),
            Content::Away => spool.read(&self.places),
        }
    }

    /// All its Blocks, encoded; the same each time once it is closed.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub(super) fn content(&mut self, spool: &dyn Spool) -> Result<Bytes, ReadError> {
        self.close();
        let pieces = self.pieces(spool)?;
        if matches!(self.content, Content::Away) {
            // It may have to be sent more than once.
            self.content = Content::Here(pieces.clone());
        }
        if self.note.is_empty() { Ok(pieces) } else { Ok([pieces, self.note.clone()].concat().into()) }
    }

    /// Blocks in its pieces: without the note, which stands in no log.
    pub(super) fn blocks_written(&self) -> u64 {
        self.blocks - u64::from(!self.note.is_empty())
    }

    /// Bytes that sending it takes.
    pub(super) fn bytes(&self) -> usize {
        self.weight.bytes as usize + self.note.len()
    }

    /// Its content was found damaged only now: it becomes a note of what is lost.
    pub(super) fn damaged(&mut self, note: &Block) -> u64 {
        let lost = std::mem::take(&mut self.weight.events);
        let mut bytes = Vec::new();
        note.encode(&mut bytes);
        (self.content, self.note, self.blocks) = (Content::Here(Bytes::new()), bytes.into(), 1);
        lost
    }
}

/// When an earlier run has taken it, in time since the start of this one.
fn born(taken_at: Timestamp, clock: StreamClock, now: Moment) -> i64 {
    (now.uptime.as_micros() as i64).saturating_sub(clock.age(taken_at, now.time))
}
