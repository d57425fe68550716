//! [`Block`]: the events, or a partial State, of one (Client, Tab), inside a Batch.

use bytes::Bytes;

use super::{Reader, WireError, column, put_bytes, put_i64, put_u64};
use crate::event::Events;
use crate::limits::{
    BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, CLIENT_ID_BYTES_MAX, TAB_NAME_BYTES_MAX, TAB_TYPE_BYTES_MAX,
};
use crate::name::{ClientId, NameError, TabName, TabType};
use crate::time::Timestamp;
use crate::value::Value;

/// The events, or a partial State, of one (Client, Tab).
///
/// ```text
/// | block_bytes | tab | client | type | kind u8 | events | earliest zigzag | latest - earliest | payload … |
/// kind 0: payload = times column, values column          kind 1: payload = version, state bytes
/// ```
/// The header tells a relay all it has to check; only the Server looks at the payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// What was measured.
    pub tab: TabName,
    /// Who measured it.
    pub client: ClientId,
    /// The name of the Handler that understands the payload.
    pub tab_type: TabType,
    /// How many events the payload holds or has folded, at least one.
    pub events: u64,
    /// The time of the earliest of them.
    pub earliest: Timestamp,
    /// The time of the latest of them.
    pub latest: Timestamp,
    /// The payload.
    pub content: Content,
}

/// What a Block carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Events as they were recorded: a column of times, then a column of values, still encoded.
    Events(Bytes),
    /// A State into which the sender has already folded them.
    State {
        /// [`Handler::VERSION`](crate::Handler::VERSION) at the sender.
        version: u16,
        /// The State, encoded.
        bytes: Bytes,
    },
}

impl Block {
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

    /// Appends the Block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = Vec::with_capacity(64 + self.tab.as_str().len() + self.client.as_str().len());
        put_bytes(self.tab.as_str().as_bytes(), &mut head);
        put_bytes(self.client.as_str().as_bytes(), &mut head);
        put_bytes(self.tab_type.as_str().as_bytes(), &mut head);
        head.push(match self.content {
            Content::Events(_) => 0,
            Content::State { .. } => 1,
        });
        put_u64(self.events, &mut head);
        put_i64(self.earliest.as_micros(), &mut head);
        put_u64(self.latest.as_micros().wrapping_sub(self.earliest.as_micros()) as u64, &mut head);
        let payload = match &self.content {
            Content::Events(bytes) => bytes,
            Content::State { version, bytes } => {
                put_u64(u64::from(*version), &mut head);
                bytes
            }
        };
        put_u64((head.len() + payload.len()) as u64, out);
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
    }

    /// About how many bytes [`encode`](Self::encode) will append; never fewer than it does.
    pub fn encoded_bytes(&self) -> usize {
        let payload = match &self.content {
            Content::Events(bytes) | Content::State { bytes, .. } => bytes.len(),
        };
        48 + self.tab.as_str().len() + self.client.as_str().len() + self.tab_type.as_str().len() + payload
    }

    /// Reads one Block. The payload is a slice of `source`, not a copy; `reader` must be reading `source`.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no Block; the payload is not looked into.
    pub fn decode(reader: &mut Reader<'_>, source: &Bytes) -> Result<Self, WireError> {
        Self::decode_leniently(reader, source)?.map_err(|bad| WireError::Name(bad.error))
    }

    /// Reads one Block whose names may break the rules: then the rest of it was understood, and the reader stands
    /// behind it.
    pub(super) fn decode_leniently(
        reader: &mut Reader<'_>,
        source: &Bytes,
    ) -> Result<Result<Self, BadName>, WireError> {
        let bytes = reader.bytes(BLOCK_BYTES_MAX, "a block")?;
        let start = reader.position() - bytes.len();
        let mut inner = Reader::new(bytes);
        let tab = inner.text(TAB_NAME_BYTES_MAX, "a tab name")?;
        let client = inner.text(CLIENT_ID_BYTES_MAX, "a client id")?;
        let tab_type = inner.text(TAB_TYPE_BYTES_MAX, "a tab type")?;
        let kind = inner.u8("the kind of a block")?;
        let events = inner.u64("the number of events")?;
        let earliest = inner.i64("the time of a block")?;
        let span = inner.u64("the time of a block")?;
        let malformed = |what| WireError::Malformed { what };
        let latest = earliest.checked_add_unsigned(span).ok_or(malformed("the time of a block"))?;
        if events == 0 {
            return Err(malformed("a block without events"));
        }
        let content = match kind {
            0 if events > BLOCK_EVENTS_MAX as u64 => {
                let max = BLOCK_EVENTS_MAX as u64;
                return Err(WireError::TooLarge { what: "events of one block", found: events, max });
            }
            0 => Content::Events(source.slice(start + inner.position()..start + bytes.len())),
            1 => {
                let version = inner.u64("the version of a state")?;
                let version = u16::try_from(version).map_err(|_| malformed("the version of a state"))?;
                Content::State { version, bytes: source.slice(start + inner.position()..start + bytes.len()) }
            }
            _ => return Err(malformed("the kind of a block")),
        };
        let names = || Ok((TabName::new(tab)?, ClientId::new(client)?, TabType::new(tab_type)?));
        Ok(match names() {
            Err(error) => Err(BadName { events, error }),
            Ok((tab, client, tab_type)) => Ok(Self {
                tab,
                client,
                tab_type,
                events,
                earliest: Timestamp::from_micros(earliest),
                latest: Timestamp::from_micros(latest),
                content,
            }),
        })
    }
}

/// A Block that is well formed but for a name.
pub(super) struct BadName {
    pub(super) events: u64,
    pub(super) error: NameError,
}
