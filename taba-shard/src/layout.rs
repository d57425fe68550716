//! The storage format: the fields of a VBucket's hash and their bytes. Stored data depends on it.
//!
//! ```text
//! field                    value
//! ver                      the version: 16 hexadecimal digits, "-", a decimal number
//! tabs                     the version of the last commit that set or removed the type of a Tab; no field if none did
//! own                      the epoch of ownership: a decimal number, 1 at first
//! moved                    only while or after moving away: epoch ":" name of the shard (16 hexadecimal digits)
//! bar                      "1" in a tombstone that only turns away moves to this shard: nothing was ever here
//! of                       VBuckets " " deployment (16 hexadecimal digits), then " new" until bootstrap has ended
//! a:STREAM                 a mark: | seq u64 | events u64 | hour u32 |, little-endian; STREAM: 16 hexadecimal digits
//! t:TAB                    the Tab's type
//! s:TAB CLIENT             the whole of a State: an Envelope
//! s:TAB CLIENT PART        another part of it; PART is 5 decimal digits
//! n.INDEX                  how many entries the index has, a decimal number: no field for 0
//! ```
//! No name holds a byte below `!`, so the space between names sorts a shorter name before a longer one. An empty
//! value of a mark, a Tab or a State is a tombstone: it reads as a missing field, and a sweep removes it.
//!
//! The indexes beside the hash are sorted sets with score 0, so they sort by bytes: `.streams` holds STREAM, `.tabs`
//! holds TAB (of every Tab that has a type or a State), `.clients.TAB` holds CLIENT, `.parts.TAB` holds "CLIENT
//! PART". Each field above has its index entries; an entry without a field is harmless. An index with fewer entries
//! than its `n.INDEX` says has lost some, and is rebuilt from the fields.

use taba_core::{ClientId, Mark, Part, SeqNo, StateKey, StreamId, TabName, TabType, Version};

use crate::map::ShardName;

/// The field of the version.
pub const VERSION: &str = "ver";
/// The field of the version since which the Tabs are the same.
pub const TABS: &str = "tabs";
/// The field of the ownership epoch.
pub const OWN: &str = "own";
/// The field that says where the VBucket is moving, or was moved.
pub const MOVED: &str = "moved";
/// The field that says that this is no copy.
pub const BAR: &str = "bar";
/// The field that names the VBucket's deployment.
pub const OF: &str = "of";
/// The epoch of a VBucket that was never moved.
pub const FIRST_EPOCH: u64 = 1;

const MARK_BYTES: usize = 20;
const _: () = assert!(MARK_BYTES == 8 + 8 + 4, "the table above is out of date");

/// A deployment: made once by bootstrap, the same in every VBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deployment {
    /// How many VBuckets it has.
    pub vbuckets: u16,
    /// A random number.
    pub id: u64,
    /// Whether bootstrap was still making VBuckets when this was written.
    pub is_new: bool,
}

/// The text of a version.
pub fn put_version(version: Version) -> String {
    version.to_string()
}

/// Parses a version; `None` when no store writes this text.
pub fn read_version(text: &[u8]) -> Option<Version> {
    let (writer, count) = std::str::from_utf8(text).ok()?.split_once('-')?;
    let version = Version { writer: hex(writer)?, count: decimal(count)? };
    Some(version)
}

/// The text of a deployment.
pub fn put_deployment(deployment: Deployment) -> String {
    let Deployment { vbuckets, id, is_new } = deployment;
    format!("{vbuckets} {id:016x}{}", if is_new { " new" } else { "" })
}

/// Parses a deployment; `None` when no store writes this text.
pub fn read_deployment(text: &[u8]) -> Option<Deployment> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let vbuckets = decimal(words.next()?)?.try_into().ok()?;
    let id = hex(words.next()?)?;
    let is_new = match words.next() {
        None => false,
        Some("new") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(Deployment { vbuckets, id, is_new })
}

/// Parses an epoch; `None` when no store writes this text.
pub fn read_epoch(text: &[u8]) -> Option<u64> {
    decimal(std::str::from_utf8(text).ok()?)
}

/// The text of where a VBucket goes.
pub fn put_moved(epoch: u64, to: ShardName) -> String {
    format!("{epoch}:{to}")
}

/// Where a text says that a VBucket goes, and under which epoch; `None` when it is not a text that a store writes.
pub fn read_moved(text: &[u8]) -> Option<(u64, ShardName)> {
    let (epoch, shard) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((decimal(epoch)?, shard.parse().ok()?))
}

/// The field of a mark.
pub fn mark_field(stream: StreamId) -> String {
    format!("a:{stream}")
}

/// The Stream of an entry of the index of Streams; `None` when no store writes this entry.
pub fn read_stream(entry: &[u8]) -> Option<StreamId> {
    hex(std::str::from_utf8(entry).ok()?).map(StreamId)
}

/// A field that has index entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexedField {
    /// A mark.
    Stream(StreamId),
    /// The type of a Tab.
    Tab(TabName),
    /// A part of a State.
    State(StateKey, Part),
}

/// Parses a field that has index entries; `None` for all others.
pub fn read_field(field: &[u8]) -> Option<IndexedField> {
    let (kind, rest) = field.split_at_checked(2)?;
    match kind {
        b"a:" => Some(IndexedField::Stream(read_stream(rest)?)),
        b"t:" => Some(IndexedField::Tab(read_tab(rest)?)),
        b"s:" => {
            let space = rest.iter().position(|byte| *byte == b' ')?;
            let (tab, of) = (read_tab(&rest[..space])?, &rest[space + 1..]);
            let (client, part) = match read_part(of) {
                Some(read) => read,
                None => (read_client(of)?, Part::WHOLE),
            };
            Some(IndexedField::State(StateKey { tab, client }, part))
        }
        _ => None,
    }
}

/// The index whose entries a field counts, without the key's common prefix: `.streams` for `n.streams`.
pub fn read_count_field(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()?.strip_prefix('n').filter(|index| index.starts_with('.'))
}

/// The bytes of a mark.
pub fn put_mark(mark: &Mark) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&mark.seq.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&mark.events.to_le_bytes());
    bytes[16..].copy_from_slice(&mark.hour.to_le_bytes());
    bytes
}

/// Parses a mark; `None` when no store writes these bytes.
pub fn read_mark(bytes: &[u8]) -> Option<Mark> {
    let bytes: &[u8; MARK_BYTES] = bytes.try_into().ok()?;
    let (seq, rest) = bytes.split_first_chunk::<8>()?;
    let (events, hour) = rest.split_first_chunk::<8>()?;
    Some(Mark::new(
        SeqNo(u64::from_le_bytes(*seq)),
        u64::from_le_bytes(*events),
        u32::from_le_bytes(hour.try_into().ok()?),
    ))
}

/// The field of a Tab's type.
pub fn tab_field(tab: &TabName) -> Vec<u8> {
    [b"t:", tab.as_str().as_bytes()].concat()
}

/// The Tab of an entry of the index of Tabs; `None` when no store writes this entry.
pub fn read_tab(entry: &[u8]) -> Option<TabName> {
    let text = std::str::from_utf8(entry).ok()?;
    // A name whose labels are out of order would be a second spelling of another Tab.
    TabName::new(text).ok().filter(|tab| tab.as_str() == text)
}

/// Parses a type; `None` when no store writes this value.
pub fn read_type(value: &[u8]) -> Option<TabType> {
    TabType::new(std::str::from_utf8(value).ok()?).ok()
}

/// Replaces a type that cannot be read. No Handler has it, so each State of this Tab is a fault and other Tabs are
/// not affected.
pub fn damaged_type() -> TabType {
    TabType::new("taba.damaged").expect("the constant is a type name")
}

/// The field of a part of a State.
pub fn state_field(key: &StateKey, part: Part) -> Vec<u8> {
    let (tab, client) = (key.tab.as_str().as_bytes(), key.client.as_str().as_bytes());
    let mut field = Vec::with_capacity(tab.len() + client.len() + 9);
    for piece in [b"s:", tab, b" ", client] {
        field.extend_from_slice(piece);
    }
    if part != Part::WHOLE {
        field.extend_from_slice(format!(" {:05}", part.0).as_bytes());
    }
    field
}

/// The entry of a part in the index of parts.
pub fn part_entry(client: &ClientId, part: Part) -> String {
    format!("{client} {:05}", part.0)
}

/// The Client of an entry of the index of Clients; `None` when no store writes this entry.
pub fn read_client(entry: &[u8]) -> Option<ClientId> {
    ClientId::new(std::str::from_utf8(entry).ok()?).ok()
}

/// The Client and part of an entry of the index of parts; `None` when no store writes this entry.
pub fn read_part(entry: &[u8]) -> Option<(ClientId, Part)> {
    let (client, part) = std::str::from_utf8(entry).ok()?.split_once(' ')?;
    let number = if part.len() == 5 { decimal(part)?.try_into().ok()? } else { return None };
    let part = Some(Part(number)).filter(|part| *part != Part::WHOLE)?;
    Some((ClientId::new(client).ok()?, part))
}

/// Exactly 16 lower-case digits, so that each number has one spelling.
fn hex(text: &str) -> Option<u64> {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    (text.len() == 16 && text.bytes().all(is_digit)).then(|| u64::from_str_radix(text, 16).ok())?
}

/// Digits only: Rust's own parser also accepts a `+`.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tab: &str, client: &str) -> StateKey {
        StateKey { tab: TabName::new(tab).unwrap(), client: ClientId::new(client).unwrap() }
    }

    /// Bytes that are stored in production. They never change; a new form gets a new field.
    #[test]
    fn the_bytes_are_the_drawn_ones() {
        assert_eq!(put_version(Version { writer: 0xab, count: 7 }), "00000000000000ab-7");
        assert_eq!(put_version(Version::NEVER), "0000000000000000-0");
        assert_eq!(put_moved(2, ShardName(3)), "2:0000000000000003");
        let deployment = Deployment { vbuckets: 1024, id: 0xfe, is_new: true };
        assert_eq!(put_deployment(deployment), "1024 00000000000000fe new");
        assert_eq!(put_deployment(Deployment { is_new: false, ..deployment }), "1024 00000000000000fe");
        assert_eq!(mark_field(StreamId(0x1f)), "a:000000000000001f");
        let mark = Mark::new(SeqNo(1), 2, 3);
        assert_eq!(put_mark(&mark), *b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0");
        let key = key("delay;from=ATL", "web-1");
        assert_eq!(tab_field(&key.tab), b"t:delay;from=ATL");
        assert_eq!(state_field(&key, Part::WHOLE), b"s:delay;from=ATL web-1");
        assert_eq!(state_field(&key, Part(7)), b"s:delay;from=ATL web-1 00007");
        assert_eq!(part_entry(&key.client, Part(65535)), "web-1 65535");
    }

    #[test]
    fn what_no_store_writes_is_not_read() {
        for text in [
            "",
            "-",
            "ab-7",
            "00000000000000ab-",
            "00000000000000ab-+7",
            "00000000000000AB-7",
            "00000000000000ab-99999999999999999999",
            "00000000000000ab",
            "\u{e9}",
        ] {
            assert_eq!(read_version(text.as_bytes()), None, "{text:?}");
        }
        for text in
            ["", "2", "2:", ":0000000000000003", "2:3", "a:0000000000000003", "2:000000000000000A", "2:3:4"]
        {
            assert_eq!(read_moved(text.as_bytes()), None, "{text:?}");
        }
        for text in [
            "",
            "1024",
            "1024 ab",
            "1024 00000000000000fe old",
            "1024 00000000000000fe new ",
            "70000 00000000000000fe",
        ] {
            assert_eq!(read_deployment(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(read_mark(&[0; 19]), None);
        assert_eq!(read_mark(&[0; 21]), None);
        assert_eq!(read_tab(b"a;z=1;b=2"), None, "labels out of order");
        assert_eq!(read_tab(b"a b"), None);
        assert_eq!(read_client(b"a b"), None);
        assert_eq!(read_type(b"a/b"), None);
        for text in ["web", "web 1", "web 00000", "web 65536", "web 0000a", " 00001", "web  00001"] {
            assert_eq!(read_part(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(read_stream(b"1f"), None);
        assert_eq!(read_epoch(b"-1"), None);
        assert_eq!(read_epoch(b""), None);
    }

    #[test]
    fn a_field_tells_what_it_is_listed_as() {
        let key = key("delay;from=ATL", "web-1");
        for part in [Part::WHOLE, Part(7)] {
            let listed = IndexedField::State(key.clone(), part);
            assert_eq!(read_field(&state_field(&key, part)), Some(listed));
        }
        assert_eq!(read_field(&tab_field(&key.tab)), Some(IndexedField::Tab(key.tab)));
        assert_eq!(read_field(mark_field(StreamId(9)).as_bytes()), Some(IndexedField::Stream(StreamId(9))));
        for other in ["ver", "own", "n.streams", "a:9", "t:", "s:tab", "x"] {
            assert_eq!(read_field(other.as_bytes()), None, "{other}");
        }
        assert_eq!(read_count_field(b"n.clients.delay;from=ATL"), Some(".clients.delay;from=ATL"));
        assert_eq!(read_count_field(b"nothing"), None);
        assert_eq!(read_type(b"CounterGroup"), TabType::new("CounterGroup").ok());
        assert_eq!(read_type(b"\xff"), None);
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_went(
            writer: u64, count: u64, stream: u64, seq: u64, events: u64, hour: u32, part in 1_u16..,
            epoch: u64, shard: u64, vbuckets: u16, is_new: bool, client in "[A-Za-z0-9._~:/?@!$()*+-]{1,20}",
        ) {
            let version = Version { writer, count };
            prop_assert_eq!(read_version(put_version(version).as_bytes()), Some(version));
            let mark = Mark::new(SeqNo(seq), events, hour);
            prop_assert_eq!(read_mark(&put_mark(&mark)), Some(mark));
            let field = mark_field(StreamId(stream));
            prop_assert_eq!(read_stream(&field.as_bytes()[2..]), Some(StreamId(stream)));
            let moved = (epoch, ShardName(shard));
            prop_assert_eq!(read_moved(put_moved(moved.0, moved.1).as_bytes()), Some(moved));
            prop_assert_eq!(read_epoch(epoch.to_string().as_bytes()), Some(epoch));
            let deployment = Deployment { vbuckets, id: stream, is_new };
            prop_assert_eq!(read_deployment(put_deployment(deployment).as_bytes()), Some(deployment));
            let client = ClientId::new(&client).unwrap();
            prop_assert_eq!(read_part(part_entry(&client, Part(part)).as_bytes()), Some((client, Part(part))));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (read_version(&bytes), read_moved(&bytes), read_deployment(&bytes), read_mark(&bytes));
            let _ = (read_tab(&bytes), read_client(&bytes), read_part(&bytes), read_stream(&bytes));
            let _ = (read_type(&bytes), read_epoch(&bytes));
        }

        #[test]
        fn the_order_of_index_entries_is_that_of_names(
            names in prop::collection::vec("[!-~]{1,4}", 2..20),
            parts in prop::collection::vec(1_u16.., 2),
        ) {
            let mut clients: Vec<_> = names.iter().filter_map(|name| ClientId::new(name).ok()).collect();
            clients.sort();
            let entries: Vec<_> = clients.iter().map(|client| client.as_str().as_bytes()).collect();
            prop_assert!(entries.is_sorted());
            // All parts of a Client sort between its name and its name followed by "!".
            for client in &clients {
                for part in &parts {
                    let entry = part_entry(client, Part(*part));
                    let end = format!("{client}!");
                    prop_assert!(client.as_str() < entry.as_str() && entry < end);
                    for other in clients.iter().filter(|other| *other != client) {
                        let foreign = part_entry(other, Part(*part));
                        prop_assert!(foreign.as_str() < client.as_str() || foreign >= end);
                    }
                }
            }
        }
    }
}
