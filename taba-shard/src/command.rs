//! [`Command`]: one operation on one key, and how its reply is read. Independent of connections: commands are sent
//! singly, over all shards ([`Data::run_all`](crate::Data::run_all)), or in a [`Transaction`](crate::Transaction).

use std::time::Duration;

use bytes::Bytes;

/// A reply of Redis, independent of the protocol version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nothing,
    /// `OK`.
    Done,
    /// A number.
    Integer(i64),
    /// Bytes.
    Bytes(Bytes),
    /// Several replies.
    List(Vec<Reply>),
    /// An error: the code (`WRONGTYPE`, `OOM`, …) and the text.
    Refused {
        /// The code.
        code: String,
        /// The text.
        detail: String,
    },
}

#[cfg(feature = "redis")]
impl Reply {
    /// The number that a text of digits says.
    pub(crate) fn number(&self) -> Option<u64> {
        let Self::Bytes(text) = self else { return None };
        std::str::from_utf8(text).ok()?.parse().ok()
    }
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub struct Command<T> {
    pub(crate) name: &'static str,
    pub(crate) key: Bytes,
    pub(crate) arguments: Vec<Bytes>,
    pub(crate) read: fn(Reply) -> Option<T>,
}

impl<T> Command<T> {
    fn new(name: &'static str, key: impl AsRef<[u8]>, read: fn(Reply) -> Option<T>) -> Self {
        Self { name, key: Bytes::copy_from_slice(key.as_ref()), arguments: Vec::new(), read }
    }

    fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.arguments.push(Bytes::copy_from_slice(argument.as_ref()));
        self
    }

    fn args<A: AsRef<[u8]>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|one| Bytes::copy_from_slice(one.as_ref())));
        self
    }

    /// Its name in Redis.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The arguments after its key.
    pub fn arguments(&self) -> &[Bytes] {
        &self.arguments
    }

    /// Decodes the reply; `None` when it is no reply to this command.
    pub fn read(&self, reply: Reply) -> Option<T> {
        (self.read)(reply)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Bytes of its key and arguments.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.arguments_bytes()
    }

    /// Bytes of its arguments, without the key.
    pub fn arguments_bytes(&self) -> usize {
        self.arguments.iter().map(Bytes::len).sum()
    }
}

/// Under which condition a value is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCondition {
    /// Unconditionally.
    #[default]
    Always,
    /// Only if the key has no value: `NX`.
    IfAbsent,
    /// Only if the key has a value: `XX`.
    IfPresent,
}

#[expect(clippy::needless_pass_by_value, reason = "all readers have one signature")]
fn done(reply: Reply) -> Option<()> {
    (reply == Reply::Done).then_some(())
}

#[expect(clippy::needless_pass_by_value, reason = "all readers have one signature")]
fn integer(reply: Reply) -> Option<i64> {
    if let Reply::Integer(number) = reply { Some(number) } else { None }
}

fn count(reply: Reply) -> Option<u64> {
    integer(reply)?.try_into().ok()
}

fn flag(reply: Reply) -> Option<bool> {
    Some(integer(reply)? == 1)
}

fn maybe(reply: Reply) -> Option<Option<Bytes>> {
    match reply {
        Reply::Nothing => Some(None),
        Reply::Bytes(bytes) => Some(Some(bytes)),
        _ => None,
    }
}

fn bytes(reply: Reply) -> Option<Bytes> {
    maybe(reply)?
}

fn list(reply: Reply) -> Option<Vec<Reply>> {
    if let Reply::List(items) = reply { Some(items) } else { None }
}

fn maybes(reply: Reply) -> Option<Vec<Option<Bytes>>> {
    list(reply)?.into_iter().map(maybe).collect()
}

fn many(reply: Reply) -> Option<Vec<Bytes>> {
    list(reply)?.into_iter().map(bytes).collect()
}

fn pairs(reply: Reply) -> Option<Vec<(Bytes, Bytes)>> {
    let items = many(reply)?;
    items
        .len()
        .is_multiple_of(2)
        .then(|| items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

fn number(reply: Reply) -> Option<Option<i64>> {
    let Some(bytes) = maybe(reply)? else { return Some(None) };
    std::str::from_utf8(&bytes).ok()?.parse().ok().map(Some)
}

#[expect(clippy::needless_pass_by_value, reason = "all readers have one signature")]
fn was_set(reply: Reply) -> Option<bool> {
    match reply {
        Reply::Done => Some(true),
        Reply::Nothing => Some(false),
        _ => None,
    }
}

fn milliseconds(time: Duration) -> String {
    // Redis refuses 0; a time in the past is taken as 1 ms.
    u64::try_from(time.as_millis()).unwrap_or(i64::MAX as u64).clamp(1, i64::MAX as u64).to_string()
}

/// Reads a string; `None` if the key has no value.
pub fn get(key: impl AsRef<[u8]>) -> Command<Option<Bytes>> {
    Command::new("GET", key, maybe)
}

/// Sets a string, without an expiry.
pub fn set(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Command<()> {
    Command::new("SET", key, done).arg(value)
}

/// Sets a string under a condition, with an expiry if given; returns whether it was set.
pub fn set_with(
    key: impl AsRef<[u8]>,
    value: impl AsRef<[u8]>,
    condition: SetCondition,
    expiry: Option<Duration>,
) -> Command<bool> {
    let command = Command::new("SET", key, was_set).arg(value);
    let command = match condition {
        SetCondition::Always => command,
        SetCondition::IfAbsent => command.arg("NX"),
        SetCondition::IfPresent => command.arg("XX"),
    };
    match expiry {
        Some(time) => command.arg("PX").arg(milliseconds(time)),
        None => command,
    }
}

/// Reads a string and removes it.
pub fn get_delete(key: impl AsRef<[u8]>) -> Command<Option<Bytes>> {
    Command::new("GETDEL", key, maybe)
}

/// Removes a key of any type; returns whether it existed.
pub fn delete(key: impl AsRef<[u8]>) -> Command<bool> {
    Command::new("DEL", key, flag)
}

/// Whether a key of any type exists.
pub fn exists(key: impl AsRef<[u8]>) -> Command<bool> {
    Command::new("EXISTS", key, flag)
}

/// Sets a key's expiry; returns whether the key exists.
pub fn expire(key: impl AsRef<[u8]>, after: Duration) -> Command<bool> {
    Command::new("PEXPIRE", key, flag).arg(milliseconds(after))
}

/// Adds to a counter (0 at first) and returns its new value. A result outside `i64` is refused.
pub fn increment(key: impl AsRef<[u8]>, by: i64) -> Command<i64> {
    Command::new("INCRBY", key, integer).arg(by.to_string())
}

/// The value of a counter; `None` if it has none.
pub fn counter(key: impl AsRef<[u8]>) -> Command<Option<i64>> {
    Command::new("GET", key, number)
}

/// Sets fields of a hash; returns how many are new.
pub fn hash_set<F: AsRef<[u8]>, V: AsRef<[u8]>>(
    key: impl AsRef<[u8]>,
    pairs: impl IntoIterator<Item = (F, V)>,
) -> Command<u64> {
    let command = Command::new("HSET", key, count);
    pairs.into_iter().fold(command, |command, (field, value)| command.arg(field).arg(value))
}

/// One field of a hash.
pub fn hash_get(key: impl AsRef<[u8]>, field: impl AsRef<[u8]>) -> Command<Option<Bytes>> {
    Command::new("HGET", key, maybe).arg(field)
}

/// Several fields of a hash, in the order requested.
pub fn hash_get_many<F: AsRef<[u8]>>(
    key: impl AsRef<[u8]>,
    fields: impl IntoIterator<Item = F>,
) -> Command<Vec<Option<Bytes>>> {
    Command::new("HMGET", key, maybes).args(fields)
}

/// All fields of a hash with their values, in no order.
pub fn hash_all(key: impl AsRef<[u8]>) -> Command<Vec<(Bytes, Bytes)>> {
    Command::new("HGETALL", key, pairs)
}

/// Removes fields of a hash; returns how many existed.
pub fn hash_remove<F: AsRef<[u8]>>(
    key: impl AsRef<[u8]>,
    fields: impl IntoIterator<Item = F>,
) -> Command<u64> {
    Command::new("HDEL", key, count).args(fields)
}

/// Adds to a counter in a field of a hash and returns its new value.
pub fn hash_increment(key: impl AsRef<[u8]>, field: impl AsRef<[u8]>, by: i64) -> Command<i64> {
    Command::new("HINCRBY", key, integer).arg(field).arg(by.to_string())
}

/// The number of fields of a hash.
pub fn hash_len(key: impl AsRef<[u8]>) -> Command<u64> {
    Command::new("HLEN", key, count)
}

/// Adds members to a set; returns how many are new.
pub fn set_add<M: AsRef<[u8]>>(key: impl AsRef<[u8]>, members: impl IntoIterator<Item = M>) -> Command<u64> {
    Command::new("SADD", key, count).args(members)
}

/// Removes members of a set; returns how many existed.
pub fn set_remove<M: AsRef<[u8]>>(
    key: impl AsRef<[u8]>,
    members: impl IntoIterator<Item = M>,
) -> Command<u64> {
    Command::new("SREM", key, count).args(members)
}

/// Whether a set contains the member.
pub fn set_contains(key: impl AsRef<[u8]>, member: impl AsRef<[u8]>) -> Command<bool> {
    Command::new("SISMEMBER", key, flag).arg(member)
}

/// All members of a set, in no order.
pub fn set_members(key: impl AsRef<[u8]>) -> Command<Vec<Bytes>> {
    Command::new("SMEMBERS", key, many)
}

/// The number of members of a set.
pub fn set_len(key: impl AsRef<[u8]>) -> Command<u64> {
    Command::new("SCARD", key, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_redis() {
        let words = |name: &str, arguments: &[Bytes]| {
            let arguments = arguments.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            std::iter::once(name.to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
        };
        let set = set_with("k", "v", SetCondition::IfAbsent, Some(Duration::from_millis(1500)));
        assert_eq!(words(set.name, &set.arguments), "SET v NX PX 1500");
        assert_eq!(set.arguments(), ["v", "NX", "PX", "1500"]);
        let hash = hash_set("k", [("a", "1"), ("b", "2")]);
        assert_eq!(words(hash.name, &hash.arguments), "HSET a 1 b 2");
        assert_eq!((hash.key(), hash.bytes(), hash.arguments_bytes()), (b"k".as_slice(), 5, 4));
        assert_eq!(words("", &expire("k", Duration::ZERO).arguments), " 1", "0 would be refused");
        assert_eq!(words("", &expire("k", Duration::MAX).arguments), format!(" {}", i64::MAX));
    }

    #[test]
    fn an_answer_is_read_as_what_it_is() {
        let (one, two) = (Bytes::from("a"), Bytes::from("b"));
        let list = || Reply::List(vec![Reply::Bytes("a".into()), Reply::Bytes("b".into())]);
        assert_eq!(set("k", "v").read(Reply::Done), Some(()));
        assert_eq!(set_with("k", "v", SetCondition::IfAbsent, None).read(Reply::Done), Some(true));
        assert_eq!(set_with("k", "v", SetCondition::IfAbsent, None).read(Reply::Nothing), Some(false));
        assert_eq!(set_with("k", "v", SetCondition::IfAbsent, None).read(Reply::Integer(1)), None);
        assert_eq!(get("k").read(Reply::Bytes(one.clone())), Some(Some(one.clone())));
        assert_eq!(increment("k", 5).read(Reply::Integer(7)), Some(7));
        assert_eq!(increment("k", 5).read(Reply::Nothing), None);
        assert_eq!(set_len("k").read(Reply::Integer(7)), Some(7));
        assert_eq!(delete("k").read(Reply::Integer(1)), Some(true));
        assert_eq!(delete("k").read(Reply::Integer(0)), Some(false));
        assert_eq!(delete("k").read(Reply::Done), None);
        assert_eq!(set_members("k").read(list()), Some(vec![one.clone(), two.clone()]));
        assert_eq!(set_members("k").read(Reply::List(vec![Reply::Nothing])), None);
        assert_eq!(hash_all("k").read(list()), Some(vec![(one.clone(), two)]));
        let some = Reply::List(vec![Reply::Bytes("a".into()), Reply::Nothing]);
        assert_eq!(hash_get_many("k", ["a", "b"]).read(some), Some(vec![Some(one), None]));
    }

    #[test]
    fn an_answer_of_another_kind_is_not_read() {
        let text = || Reply::Bytes("12x".into());
        assert_eq!((get("k").read)(Reply::Nothing), Some(None));
        assert_eq!((get("k").read)(Reply::Integer(1)), None);
        assert_eq!((counter("k").read)(Reply::Bytes("-12".into())), Some(Some(-12)));
        assert_eq!((counter("k").read)(text()), None);
        assert_eq!((set("k", "v").read)(Reply::Nothing), None);
        assert_eq!((hash_all("k").read)(Reply::List(vec![text()])), None, "half a pair");
        assert_eq!((set_len("k").read)(Reply::Integer(-1)), None);
        assert_eq!((hash_get_many("k", ["a"]).read)(Reply::List(vec![Reply::Nothing])), Some(vec![None]));
    }
}
