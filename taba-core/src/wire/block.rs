//! [`Block`]: the events, or a partial State, of one (Client, Tab), inside a Batch.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::value::Value;
use super::{Reader, WireError, column, put_bytes, put_i64, put_u64};
use crate::event::Events;
use crate::ledger::{self, Where, Why};
use crate::limits::{
    BATCH_EVENTS_MAX, BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, BLOCK_FOLDED_EVENTS_MAX, CLIENT_ID_BYTES_MAX,
    TAB_NAME_BYTES_MAX, TAB_TYPE_BYTES_MAX,
};
use crate::name::{ClientId, TabName, TabType};
use crate::time::Timestamp;

/// The events, or a partial State, of one (Client, Tab).
///
/// ```text
/// | block_bytes | tab | client | type | kind u8 | events | earliest zigzag | latest - earliest | payload … |
/// kind 0: payload = times column, values column          kind 1: payload = version, state bytes
/// kind 2: payload = where u8, why u8
/// ```
/// A relay checks only the header; the Server decodes the payload.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Block {
    /// The Tab.
    pub tab: TabName,
    /// The Client.
    pub client: ClientId,
    /// The Handler of the payload.
    pub tab_type: TabType,
    /// The number of events in the payload, at least one.
    pub events: u64,
    /// The time of the earliest of them.
    pub earliest: Timestamp,
    /// The time of the latest of them.
    pub latest: Timestamp,
    /// The payload.
    pub content: Content,
}

/// The payload of a Block.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Raw events: a column of times, then a column of values, still encoded.
    Events(Bytes),
    /// A State into which the sender has folded the events.
    State {
        /// [`Handler::VERSION`](crate::Handler::VERSION) at the sender.
        version: u16,
        /// The encoded State.
        bytes: Bytes,
    },
    /// Nothing to fold: the payload was removed by a relay, or cannot be decoded. Its events are counted as dropped
    /// when its Batch is folded.
    Withheld {
        /// Where it was removed.
        place: Where,
        /// The reason.
        why: Why,
    },
}

impl Block {
    /// A Block whose payload is encoded already; its `events`, at least one, have their times within `times`.
    pub fn new(
        tab: TabName,
        client: ClientId,
        tab_type: TabType,
        events: u64,
        times: RangeInclusive<Timestamp>,
        content: Content,
    ) -> Self {
        let (earliest, latest) = times.into_inner();
        Self { tab, client, tab_type, events, earliest, latest, content }
    }

    /// With another payload for the same events.
    #[must_use]
    pub fn with_content(self, content: Content) -> Self {
        Self { content, ..self }
    }

    /// A Block of raw events. `None` when there are no events: an empty Block does not exist.
    pub fn of_events<V: Value>(
        tab: TabName,
        client: ClientId,
        tab_type: TabType,
        events: Events<'_, V>,
    ) -> Option<Self> {
        let earliest = events.times().iter().copied().min()?;
        let latest = events.times().iter().copied().max()?;
        let mut bytes = Vec::new();
        column::put_times(events.times(), &mut bytes);
        V::encode_column(events.values(), &mut bytes);
        let content = Content::Events(bytes.into());
        Some(Self { tab, client, tab_type, events: events.len() as u64, earliest, latest, content })
    }

    /// A note of the [Ledger](crate::ledger): one event, whose value is a number of events.
    pub fn note(tab: TabName, client: ClientId, at: Timestamp, events: u64) -> Self {
        let (times, values) = ([at], [events as f64]);
        let note = Self::of_events(tab, client, ledger::tab_type(), Events::new(&times, &values));
        note.expect("there is one event")
    }

    /// Appends the encoded Block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = Vec::with_capacity(64 + self.tab.as_str().len() + self.client.as_str().len());
        put_bytes(self.tab.as_str().as_bytes(), &mut head);
        put_bytes(self.client.as_str().as_bytes(), &mut head);
        put_bytes(self.tab_type.as_str().as_bytes(), &mut head);
        head.push(match self.content {
            Content::Events(_) => 0,
            Content::State { .. } => 1,
            Content::Withheld { .. } => 2,
        });
        put_u64(self.events, &mut head);
        put_i64(self.earliest.as_micros(), &mut head);
        put_u64(self.latest.as_micros().wrapping_sub(self.earliest.as_micros()) as u64, &mut head);
        let payload: &[u8] = match &self.content {
            Content::Events(bytes) => bytes,
            Content::State { version, bytes } => {
                put_u64(u64::from(*version), &mut head);
                bytes
            }
            Content::Withheld { place, why } => &[*place as u8, *why as u8],
        };
        put_u64((head.len() + payload.len()) as u64, out);
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
    }

    /// An upper estimate of the bytes that [`encode`](Self::encode) appends.
    pub fn encoded_bytes(&self) -> usize {
        let payload = match &self.content {
            Content::Events(bytes) | Content::State { bytes, .. } => bytes.len(),
            Content::Withheld { .. } => 2,
        };
        48 + self.tab.as_str().len() + self.client.as_str().len() + self.tab_type.as_str().len() + payload
    }

    /// Events that a receiver has to fold one by one: what [`BATCH_EVENTS_MAX`](crate::limits::BATCH_EVENTS_MAX) bounds. None in a State,
    /// nor in a note, which is one event in a Tab of the Ledger.
    pub fn unfolded_events(&self) -> u64 {
        match &self.content {
            Content::Events(_) if self.events > 1 || !self.tab.is_reserved() => self.events,
            Content::Events(_) | Content::State { .. } | Content::Withheld { .. } => 0,
        }
    }

    /// Decodes one Block. The payload is a slice of `source`, not a copy; `reader` must read from `source`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no Block; the payload is not checked.
    pub fn decode(reader: &mut Reader<'_>, source: &Bytes) -> Result<Self, WireError> {
        Self::decode_leniently(reader, source)?.map_err(|spoilt| spoilt.error)
    }

    /// Decodes one Block that may be malformed: the error has what could be read, and the reader is after the Block.
    ///
    /// # Errors
    /// [`WireError`] when the end of the Block is unknown.
    pub(super) fn decode_leniently(
        reader: &mut Reader<'_>,
        source: &Bytes,
    ) -> Result<Result<Self, MalformedBlock>, WireError> {
        let bytes = reader.bytes(BLOCK_BYTES_MAX, "a block")?;
        let start = reader.position() - bytes.len();
        let mut seen = Seen::default();
        let block = Self::read(bytes, &mut seen, |at| source.slice(start + at..start + bytes.len()));
        Ok(block.map_err(|error| MalformedBlock { seen, error }))
    }

    /// The Block, unless there is more to fold in its Batch with it than may be; `unfolded` is what there is so far, and then with it.
    pub(super) fn within_batch(self, unfolded: &mut u64) -> Result<Self, MalformedBlock> {
        let (found, max) = (*unfolded + self.unfolded_events(), BATCH_EVENTS_MAX);
        if found <= max {
            *unfolded = found;
            return Ok(self);
        }
        let seen = Seen { tab: Some(self.tab), client: Some(self.client), events: self.events };
        Err(MalformedBlock {
            seen,
            error: WireError::TooLarge { what: "unfolded events of one batch", found, max },
        })
    }

    /// The Block, unless it claims more events than a sender may send: a Server's sums must not overflow.
    pub(super) fn within_bounds(self) -> Result<Self, MalformedBlock> {
        let (found, max) = (self.events, BLOCK_FOLDED_EVENTS_MAX);
        if found <= max {
            return Ok(self);
        }
        let seen = Seen { tab: Some(self.tab), client: Some(self.client), events: max };
        Err(MalformedBlock { seen, error: WireError::TooLarge { what: "events of one block", found, max } })
    }

    /// Decodes the bytes of one Block. `rest` returns them from an offset on; fields read before an error are in
    /// `seen`.
    fn read(bytes: &[u8], seen: &mut Seen, rest: impl Fn(usize) -> Bytes) -> Result<Self, WireError> {
        let malformed = |what| WireError::Malformed { what };
        let mut reader = Reader::new(bytes);
        // Reads all names before checking any: an invalid one must not hide where the next field begins.
        let mut name = |what| reader.bytes(BLOCK_BYTES_MAX, what);
        let (tab, client, tab_type) = (name("a tab name")?, name("a client id")?, name("a tab type")?);
        let tab = text(tab, TAB_NAME_BYTES_MAX, "a tab name").and_then(|name| Ok(TabName::new(name)?));
        let client =
            text(client, CLIENT_ID_BYTES_MAX, "a client id").and_then(|name| Ok(ClientId::new(name)?));
        let tab_type =
            text(tab_type, TAB_TYPE_BYTES_MAX, "a tab type").and_then(|name| Ok(TabType::new(name)?));
        (seen.tab, seen.client) = (tab.as_ref().ok().cloned(), client.as_ref().ok().cloned());
        let kind = reader.u8("the kind of a block")?;
        let events = reader.u64("the number of events")?;
        seen.events = events;
        let earliest = reader.i64("the time of a block")?;
        let span = reader.u64("the time of a block")?;
        let latest = earliest.checked_add_unsigned(span).ok_or(malformed("the time of a block"))?;
        if events == 0 {
            return Err(malformed("a block without events"));
        }
        let content = match kind {
            0 if events > BLOCK_EVENTS_MAX as u64 => {
                let max = BLOCK_EVENTS_MAX as u64;
                return Err(WireError::TooLarge { what: "events of one block", found: events, max });
            }
            0 => Content::Events(rest(reader.position())),
            1 => {
                let version = reader.u64("the version of a state")?;
                let version = u16::try_from(version).map_err(|_| malformed("the version of a state"))?;
                Content::State { version, bytes: rest(reader.position()) }
            }
            2 => {
                let place = Where::from_code(reader.u8("a place")?).ok_or(malformed("a place"))?;
                let why = Why::from_code(reader.u8("a reason")?).ok_or(malformed("a reason"))?;
                reader.finish("bytes behind a block that is withheld")?;
                Content::Withheld { place, why }
            }
            _ => return Err(malformed("the kind of a block")),
        };
        Ok(Self {
            tab: tab?,
            client: client?,
            tab_type: tab_type?,
            events,
            earliest: Timestamp::from_micros(earliest),
            latest: Timestamp::from_micros(latest),
            content,
        })
    }
}

fn text<'a>(bytes: &'a [u8], max: usize, what: &'static str) -> Result<&'a str, WireError> {
    if bytes.len() > max {
        return Err(WireError::TooLarge { what, found: bytes.len() as u64, max: max as u64 });
    }
    std::str::from_utf8(bytes).map_err(|_| WireError::Malformed { what })
}

/// A malformed Block.
#[derive(Clone, Debug)]
pub(super) struct MalformedBlock {
    pub(super) seen: Seen,
    pub(super) error: WireError,
}

/// The fields that could be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) tab: Option<TabName>,
    pub(super) client: Option<ClientId>,
    /// 0 when unknown.
    pub(super) events: u64,
}
