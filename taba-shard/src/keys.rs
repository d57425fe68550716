//! The names of keys in Redis. Every key of a VBucket begins with the VBucket's hash tag, so Redis Cluster keeps them
//! all in one slot.
//!
//! ```text
//! {vb0017}                  the VBucket: a hash, see `layout`
//! {vb0017}.streams          index: its Streams
//! {vb0017}.tabs             index: its Tabs
//! {vb0017}.clients.TAB      index: Clients of a Tab
//! {vb0017}.parts.TAB        index: further parts of States of a Tab
//! {vb0017}.servers          Servers that are there: a hash, see `sharded/servers.rs`; of a few VBuckets only
//! {vb0017}:NAMESPACE:KEY    a key of a user
//! {vb0017}!NAMESPACE:NAME   a lock of a user
//! {vb0017}!set-aside:HEX    what stood under the name of an index and was none
//! taba:shard                16 hexadecimal digits: the name of this Redis, for its life
//! taba:map                  a hash: `map` is the shard map, see `shard_map`, `epoch` its epoch, `token` who wrote it last
//! taba:map-lock             the lock under which the shard map is changed
//! taba:moves                a stream: the log of moves to this shard
//! taba:mover                a hash: how fast VBuckets may move, see `migration::pace`
//! {vb0017}~NONCE            a VBucket on its way to this shard; and its indexes, as above
//! taba:plan                 while a deployment is made: the names of its shards, in their order
//! ```
//! In a Redis Cluster there are only keys with a hash tag: the slots say what `taba:shard` and `taba:map` say elsewhere.
//!
//! Redis Cluster specification, "Hash tags": the first `{` and the first `}` after it delimit the tag. Both are in
//! our prefix, whatever a user's key holds.

use taba_core::{TabName, VBucket, VBuckets};
use xxhash_rust::xxh64::xxh64;

use crate::limits::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};

/// The key that holds the name of a Redis.
pub const SHARD_NAME: &str = "taba:shard";

/// The key of the shard map.
pub const SHARD_MAP: &str = "taba:map";

/// The key of the lock under which the shard map is changed.
pub const MAP_LOCK: &str = "taba:map-lock";

/// The key of the log of moves.
pub const MOVES: &str = "taba:moves";

/// The key of how fast VBuckets may move.
pub const MOVER: &str = "taba:mover";

/// The key that holds the order of the shards while a deployment is made.
pub const PLAN: &str = "taba:plan";

/// Why a name cannot be part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A namespace is 1 to 32 of `a-z`, `0-9`, `_` and `-`.
    #[error("namespace {namespace:?} is not 1 to {NAMESPACE_BYTES_MAX} of a-z, 0-9, _ and -")]
    Namespace {
        /// What was asked for.
        namespace: String,
    },
    /// A key is empty or too long.
    #[error("a key of {bytes} bytes: it may have 1 to {KEY_BYTES_MAX}")]
    Length {
        /// How long it is.
        bytes: usize,
    },
}

/// A namespace of users' keys: 1 to 32 of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// Checks the name.
    ///
    /// # Errors
    /// [`KeyError::Namespace`].
    pub fn new(name: &str) -> Result<Self, KeyError> {
        let is_fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-');
        if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.bytes().all(is_fine) {
            return Err(KeyError::Namespace { namespace: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key in Redis of a user's key.
    pub fn key(&self, vbucket: VBucket, key: &[u8]) -> Vec<u8> {
        [format!("{{{vbucket}}}:{}:", self.0).as_bytes(), key].concat()
    }

    /// The key in Redis of a user's lock.
    pub fn lock(&self, vbucket: VBucket, name: &[u8]) -> Vec<u8> {
        [format!("{{{vbucket}}}!{}:", self.0).as_bytes(), name].concat()
    }

    /// The `SCAN … MATCH` pattern of every key of this namespace.
    pub fn pattern(&self) -> String {
        format!("{{vb*}}:{}:*", self.0)
    }

    /// The user's key in a Redis key; `None` if it is not of this namespace.
    pub fn read<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        let close = key.iter().position(|byte| *byte == b'}')?;
        key.strip_prefix(b"{vb")?;
        key[close + 1..].strip_prefix(b":")?.strip_prefix(self.0.as_bytes())?.strip_prefix(b":")
    }
}

/// The VBucket of a user's key: `XXH64(hashed part, seed 0) mod count`, as [`VBuckets::of`] does with a Tab's name.
///
/// The hashed part is the whole key, or the text between the first `{` and the next `}` if there is any:
/// `{cart:7}:items` and `{cart:7}:total` share a VBucket, as they would share a slot of Redis Cluster.
///
/// # Errors
/// [`KeyError::Length`].
pub fn vbucket_of(vbuckets: VBuckets, key: &[u8]) -> Result<VBucket, KeyError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KeyError::Length { bytes: key.len() });
    }
    let index = xxh64(what_counts(key), 0) % u64::from(vbuckets.count());
    Ok(vbuckets.get(index as u16).expect("a remainder is below its divisor"))
}

fn what_counts(key: &[u8]) -> &[u8] {
    let between = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    };
    between().unwrap_or(key)
}

/// The slot of Redis Cluster that all keys of a VBucket are in: CRC16 (XMODEM) of the hash tag, mod 16,384.
pub fn slot_of(vbucket: VBucket) -> u16 {
    crc16(vbucket.to_string().as_bytes()) % 16_384
}

/// CRC16 of XMODEM, as the Cluster specification gives it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// The key of the VBucket itself.
pub fn hash(vbucket: VBucket) -> String {
    format!("{{{vbucket}}}")
}

/// What the keys of a VBucket begin with while they are on their way to a shard.
pub fn staged(vbucket: VBucket, nonce: u64) -> String {
    format!("{{{vbucket}}}~{nonce:016x}")
}

/// The key of the index of Streams.
pub fn streams(vbucket: VBucket) -> String {
    format!("{{{vbucket}}}.streams")
}

/// The key of the index of Tabs.
pub fn tabs(vbucket: VBucket) -> String {
    format!("{{{vbucket}}}.tabs")
}

/// The key of the index of a Tab's Clients.
pub fn clients(vbucket: VBucket, tab: &TabName) -> String {
    format!("{{{vbucket}}}.clients.{tab}")
}

/// The key of the list of Servers.
pub fn servers(vbucket: VBucket) -> String {
    format!("{{{vbucket}}}.servers")
}

/// The key of the index of parts, other than the whole, of a Tab's States.
pub fn parts(vbucket: VBucket, tab: &TabName) -> String {
    format!("{{{vbucket}}}.parts.{tab}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slot of a key, as the specification defines it.
    fn slot(key: &[u8]) -> u16 {
        let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
            let close = key[open + 1..].iter().position(|byte| *byte == b'}')?;
            (close > 0).then(|| &key[open + 1..open + 1 + close])
        });
        crc16(tag.unwrap_or(key)) % 16384
    }

    #[test]
    fn keys_are_the_drawn_bytes() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        let vbucket = VBuckets::default().get(17).unwrap();
        let tab = TabName::new("delay;from=ATL").unwrap();
        let namespace = Namespace::new("app-1").unwrap();
        assert_eq!(namespace.as_str(), "app-1");
        assert!(Namespace::new(&"n".repeat(NAMESPACE_BYTES_MAX)).is_ok());
        assert!(Namespace::new(&"n".repeat(NAMESPACE_BYTES_MAX + 1)).is_err());
        assert_eq!(what_counts(b"a{b}c"), b"b");
        assert_eq!(what_counts(b"a{}c"), b"a{}c", "empty braces do not count");
        assert_eq!(hash(vbucket), "{vb0017}");
        assert_eq!(streams(vbucket), "{vb0017}.streams");
        assert_eq!(tabs(vbucket), "{vb0017}.tabs");
        assert_eq!(servers(vbucket), "{vb0017}.servers");
        assert_eq!(clients(vbucket, &tab), "{vb0017}.clients.delay;from=ATL");
        assert_eq!(parts(vbucket, &tab), "{vb0017}.parts.delay;from=ATL");
        assert_eq!(namespace.key(vbucket, b"a b"), b"{vb0017}:app-1:a b");
        assert_eq!(namespace.lock(vbucket, b"a"), b"{vb0017}!app-1:a");
        assert_eq!(namespace.pattern(), "{vb*}:app-1:*");
        let last = VBuckets::new(16384).unwrap().get(16383).unwrap();
        assert_eq!(hash(last), "{vb16383}");
        let of = |key: &str| vbucket_of(VBuckets::default(), key.as_bytes()).unwrap().index();
        assert_eq!(of("bids_won"), 480);
        assert_eq!(of("{bids_won}:total"), 480);
        assert_eq!(of("total of {bids_won} and {more}"), 480);
        assert_ne!(of("{}bids_won"), 480);
        assert_ne!(of("{bids_won"), 480);
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "A", "a*", "a:b", "a.b", &"x".repeat(33)] {
            assert!(Namespace::new(name).is_err(), "{name:?}");
        }
        assert!(vbucket_of(VBuckets::default(), b"").is_err());
        assert!(vbucket_of(VBuckets::default(), &[7; KEY_BYTES_MAX]).is_ok());
        assert!(vbucket_of(VBuckets::default(), &[7; KEY_BYTES_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn all_keys_of_a_vbucket_lie_in_one_slot_and_name_what_they_were_made_from(
            index in 0_u16..16384, key in prop::collection::vec(any::<u8>(), 1..40)
        ) {
            let vbucket = VBuckets::new(16384).unwrap().get(index).unwrap();
            let namespace = Namespace::new("n").unwrap();
            let tab = TabName::new("a;k=v").unwrap();
            let user = namespace.key(vbucket, &key);
            let here = slot(hash(vbucket).as_bytes());
            for other in [
                streams(vbucket).into_bytes(), servers(vbucket).into_bytes(), tabs(vbucket).into_bytes(), clients(vbucket, &tab).into_bytes(),
                parts(vbucket, &tab).into_bytes(), namespace.lock(vbucket, &key), user.clone(),
            ] {
                prop_assert_eq!(slot(&other), here);
            }
            prop_assert_eq!(namespace.read(&user), Some(key.as_slice()));
            prop_assert_eq!(Namespace::new("other").unwrap().read(&user), None);
            prop_assert!(namespace.read(&namespace.lock(vbucket, &key)).is_none());
        }
    }
}
