//! The storage format of an [`EmbeddedStore`](super::EmbeddedStore). Stored data depends on it.
//!
//! One table of bytes to bytes, `taba`, sorted by key:
//! ```text
//! | vbucket u16 | 0 |                                         the version: writer u64, count u64
//! | vbucket u16 | 1 | stream u64 |                            a mark: seq u64, events u64, hour u32
//! | vbucket u16 | 2 | Tab name … |                            the Tab's type
//! | vbucket u16 | 3 | Tab name … | 0 | Client … | 0 | part u16 |   a part of a State: an Envelope
//! ```
//! Integers in keys are big-endian, so that they sort; in values they are little-endian. Names hold no byte below
//! `!`, so the 0 after a name sorts it before every longer one, as text does. A second table, `taba.meta`, holds the
//! format number, the number of VBuckets, and the random number of the store.

use taba_core::{ClientId, Mark, Part, SeqNo, StateKey, StreamId, TabName, TabType, VBucket, Version};

/// The number of this layout.
pub(super) const FORMAT: u64 = 1;

const VERSION: u8 = 0;
const MARK: u8 = 1;
const TAB: u8 = 2;
const STATE: u8 = 3;
const PREFIX_BYTES: usize = 3;
const VERSION_BYTES: usize = 16;
const MARK_BYTES: usize = 20;

const _: () = assert!(PREFIX_BYTES == 2 + 1, "the table above is out of date");
const _: () = assert!(VERSION_BYTES == 8 + 8 && MARK_BYTES == 8 + 8 + 4, "the table above is out of date");

fn prefix(vbucket: VBucket, kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.extend_from_slice(&vbucket.index().to_be_bytes());
    key.push(kind);
    key
}

/// Instead of a version: the VBucket was lost with a damaged page, and no operator has recreated it yet.
pub(super) const LOST: &[u8] = b"lost";
const _: () = assert!(LOST.len() != VERSION_BYTES, "it would be read as a version");

pub(super) fn version_key(vbucket: VBucket) -> Vec<u8> {
    prefix(vbucket, VERSION)
}

pub(super) fn mark_key(vbucket: VBucket, stream: StreamId) -> Vec<u8> {
    let mut key = prefix(vbucket, MARK);
    key.extend_from_slice(&stream.0.to_be_bytes());
    key
}

/// All keys of a VBucket: first, and end (excluded).
pub(super) fn whole_range(vbucket: VBucket) -> (Vec<u8>, Vec<u8>) {
    (prefix(vbucket, VERSION), prefix(vbucket, u8::MAX))
}

/// All keys of marks: first, and end (excluded).
pub(super) fn marks_range(vbucket: VBucket) -> (Vec<u8>, Vec<u8>) {
    (prefix(vbucket, MARK), prefix(vbucket, TAB))
}

pub(super) fn tab_key(vbucket: VBucket, tab: &TabName) -> Vec<u8> {
    let mut key = prefix(vbucket, TAB);
    key.extend_from_slice(tab.as_str().as_bytes());
    key
}

/// All keys of Tabs: first, and end (excluded).
pub(super) fn tabs_range(vbucket: VBucket) -> (Vec<u8>, Vec<u8>) {
    (prefix(vbucket, TAB), prefix(vbucket, STATE))
}

fn state_head(vbucket: VBucket, key: &StateKey) -> Vec<u8> {
    let mut bytes = prefix(vbucket, STATE);
    bytes.extend_from_slice(key.tab.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.client.as_str().as_bytes());
    bytes
}

pub(super) fn state_key(vbucket: VBucket, key: &StateKey, part: Part) -> Vec<u8> {
    let mut bytes = state_head(vbucket, key);
    bytes.push(0);
    bytes.extend_from_slice(&part.0.to_be_bytes());
    bytes
}

/// All parts of one State: first, and end (excluded).
pub(super) fn state_range(vbucket: VBucket, key: &StateKey) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut to) = (state_head(vbucket, key), state_head(vbucket, key));
    from.push(0);
    to.push(1);
    (from, to)
}

/// All States of a Tab, or of all Tabs, after `after`: first, and end (excluded).
pub(super) fn states_range(
    vbucket: VBucket,
    tab: Option<&TabName>,
    after: Option<&StateKey>,
) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut to) = match tab {
        None => (prefix(vbucket, STATE), prefix(vbucket, STATE + 1)),
        Some(tab) => {
            let mut head = prefix(vbucket, STATE);
            head.extend_from_slice(tab.as_str().as_bytes());
            (head.clone(), head)
        }
    };
    if tab.is_some() {
        from.push(0);
        to.push(1);
    }
    if let Some(after) = after {
        from = from.max(state_range(vbucket, after).1);
    }
    (from, to)
}

/// The State and part of a key; `None` when no store writes such a key.
pub(super) fn read_state_key(key: &[u8]) -> Option<(StateKey, Part)> {
    let (head, part) = key.get(PREFIX_BYTES..)?.split_last_chunk::<2>()?;
    let head = head.strip_suffix(&[0])?;
    let zero = head.iter().position(|byte| *byte == 0)?;
    let tab = TabName::new(std::str::from_utf8(&head[..zero]).ok()?).ok()?;
    let client = ClientId::new(std::str::from_utf8(&head[zero + 1..]).ok()?).ok()?;
    Some((StateKey { tab, client }, Part(u16::from_be_bytes(*part))))
}

pub(super) fn read_tab(key: &[u8], value: &[u8]) -> Option<(TabName, TabType)> {
    let tab = TabName::new(std::str::from_utf8(key.get(PREFIX_BYTES..)?).ok()?).ok()?;
    Some((tab, read_type(value).unwrap_or_else(damaged_type)))
}

/// Replaces a type that cannot be read. No Handler has it, so each State of this Tab is a fault and other Tabs are
/// not affected.
pub(super) fn damaged_type() -> TabType {
    TabType::new("taba.damaged").expect("the constant is a type name")
}

pub(super) fn read_type(value: &[u8]) -> Option<TabType> {
    TabType::new(std::str::from_utf8(value).ok()?).ok()
}

pub(super) fn put_mark(mark: &Mark) -> Vec<u8> {
    let mut value = Vec::with_capacity(MARK_BYTES);
    value.extend_from_slice(&mark.seq.0.to_le_bytes());
    value.extend_from_slice(&mark.events.to_le_bytes());
    value.extend_from_slice(&mark.hour.to_le_bytes());
    value
}

/// The stream of a mark's key.
pub(super) fn read_stream(key: &[u8]) -> Option<StreamId> {
    Some(StreamId(u64::from_be_bytes(key.get(PREFIX_BYTES..)?.try_into().ok()?)))
}

pub(super) fn read_mark(key: &[u8], value: &[u8]) -> Option<(StreamId, Mark)> {
    let stream = read_stream(key)?;
    let value: &[u8; MARK_BYTES] = value.try_into().ok()?;
    let (seq, rest) = value.split_first_chunk::<8>()?;
    let (events, hour) = rest.split_first_chunk::<8>()?;
    let mark = Mark::new(
        SeqNo(u64::from_le_bytes(*seq)),
        u64::from_le_bytes(*events),
        u32::from_le_bytes(hour.try_into().ok()?),
    );
    Some((stream, mark))
}

pub(super) fn put_version(version: Version) -> Vec<u8> {
    let mut value = Vec::with_capacity(VERSION_BYTES);
    value.extend_from_slice(&version.writer.to_le_bytes());
    value.extend_from_slice(&version.count.to_le_bytes());
    value
}

pub(super) fn read_version(value: &[u8]) -> Option<Version> {
    let (writer, count) = value.split_first_chunk::<8>()?;
    Some(Version { writer: u64::from_le_bytes(*writer), count: u64::from_le_bytes(count.try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use taba_core::VBuckets;

    use super::*;

    fn key(tab: &str, client: &str) -> StateKey {
        StateKey { tab: TabName::new(tab).unwrap(), client: ClientId::new(client).unwrap() }
    }

    #[test]
    fn keys_are_the_drawn_bytes_and_sort_like_states() {
        let vbucket = VBuckets::default().get(258).unwrap();
        assert_eq!(state_key(vbucket, &key("a", "c"), Part(3)), b"\x01\x02\x03a\0c\0\0\x03");
        assert_eq!(mark_key(vbucket, StreamId(1)), b"\x01\x02\x01\0\0\0\0\0\0\0\x01");
        assert_eq!(put_version(Version { writer: 1, count: 2 }), b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        let mut keys = vec![key("a", "z"), key("a!", "a"), key("a;k=v", "a"), key("a", "z!"), key("b", "a")];
        keys.sort();
        let bytes: Vec<_> = keys.iter().map(|key| state_key(vbucket, key, Part::WHOLE)).collect();
        assert!(bytes.is_sorted());
        for (key, bytes) in keys.iter().zip(&bytes) {
            assert_eq!(read_state_key(bytes), Some((key.clone(), Part::WHOLE)));
            let (from, to) = state_range(vbucket, key);
            let inside = bytes_in(&keys, vbucket, &from, &to);
            assert_eq!(inside, vec![key.clone()]);
        }
        let (from, to) = states_range(vbucket, Some(&keys[0].tab), None);
        assert_eq!(bytes_in(&keys, vbucket, &from, &to), vec![key("a", "z"), key("a", "z!")]);
        let (from, to) = states_range(vbucket, Some(&keys[0].tab), Some(&key("a", "z")));
        assert_eq!(bytes_in(&keys, vbucket, &from, &to), vec![key("a", "z!")]);
    }

    fn bytes_in(keys: &[StateKey], vbucket: VBucket, from: &[u8], to: &[u8]) -> Vec<StateKey> {
        let of = |key: &&StateKey| {
            let bytes = state_key(vbucket, key, Part::WHOLE);
            from <= bytes.as_slice() && bytes.as_slice() < to
        };
        keys.iter().filter(of).cloned().collect()
    }

    #[test]
    fn values_come_back_as_they_went() {
        let mark = Mark::new(SeqNo(7), 9, 11);
        let vbucket = VBuckets::default().get(1).unwrap();
        assert_eq!(read_mark(&mark_key(vbucket, StreamId(5)), &put_mark(&mark)), Some((StreamId(5), mark)));
        let version = Version { writer: 3, count: 4 };
        assert_eq!(read_version(&put_version(version)), Some(version));
        assert_eq!(read_version(&[0; 15]), None);
        assert_eq!(read_state_key(b"\0\0\x03a\0c"), None);
    }
}
