//! [`Data`]: strings, counters, hashes and sets of a user, spread over the shards by their keys.

mod error;
mod lock;
mod scan;
mod swap;
mod transaction;

use bytes::Bytes;
use futures::future::join_all;
use redis::Cmd;
use taba_core::VBucket;

pub use self::error::DataError;
pub use self::lock::{FencingToken, LockError, LockLease};
pub use self::scan::{ScanCursor, ScanPage};
pub use self::swap::{Fenced, Swap};
pub use self::transaction::{Replies, ReplySlot, Transaction};

use crate::census::{Location, Owner};
use crate::command::{self, Command, Reply, SetCondition};
use crate::keys::{KeyError, Namespace, vbucket_of};
use crate::limits::{COMMAND_ARGUMENTS_MAX, COMMAND_BYTES_MAX};
use crate::map::ShardId;
use crate::redis::{LinkError, RedisRefusal, SendRules, Shards, VBucketAnswer, VBucketRequest};
use crate::router::{RequestBounds, ShardRequest, route};

/// The keys of one namespace, spread over the shards.
///
/// A key lives in the VBucket that it hashes to. Of a key with braces, `{cart:7}:total`, only the text between them
/// is hashed, so several keys can share a VBucket and be changed together. See [`vbucket_of`].
///
/// # Cost
/// One command and one round trip each. The `_many` forms send to all shards at once, one request per shard, or
/// several of at most [`REQUEST_COMMANDS_MAX`](crate::limits::REQUEST_COMMANDS_MAX) commands.
///
/// # Cancel safety
/// When dropped, the outcome of the operation is unknown.
#[derive(Clone, Debug)]
pub struct Data {
    shards: Shards,
    namespace: Namespace,
}

#[derive(Clone, Copy, Debug)]
struct KeyLocation {
    vbucket: VBucket,
    shard: ShardId,
}

impl Shards {
    /// The keys of one namespace: 1 to 32 of `a-z`, `0-9`, `_` and `-`.
    ///
    /// # Errors
    /// [`KeyError::Namespace`].
    pub fn data(&self, namespace: &str) -> Result<Data, KeyError> {
        Ok(Data { shards: self.clone(), namespace: Namespace::new(namespace)? })
    }
}

impl Data {
    /// Runs one command.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn run<T>(&self, command: Command<T>) -> Result<T, DataError> {
        let place = self.place(&command)?;
        let call = self.words(place.vbucket, &command);
        let reply = self.shards.ask(place.vbucket, place.shard, call).await?;
        read(Some(reply), place.shard, command.read)
    }

    /// Runs many commands on any keys: one answer for each, in order. Those on one shard run in order; they are no
    /// transaction, so some may fail while others succeed.
    ///
    /// For all or the first error: `answers.into_iter().collect::<Result<Vec<_>, _>>()`.
    pub async fn run_all<T>(
        &self,
        commands: impl IntoIterator<Item = Command<T>>,
    ) -> Vec<Result<T, DataError>> {
        // A command that cannot be sent is answered here, at its index.
        let mut refused = Vec::new();
        let mut fine = Vec::new();
        for (at, command) in commands.into_iter().enumerate() {
            match self.place(&command) {
                Ok(place) => fine.push((place.shard, command.bytes(), (place, command))),
                Err(error) => refused.push((at, error)),
            }
        }
        let (requests, mut routed) = route(fine, RequestBounds::default());
        let by_shard = requests.chunk_by(|a, b| a.shard == b.shard);
        let answered = join_all(by_shard.map(|requests| self.send_in_turn(requests))).await;
        for (places, answers) in answered.into_iter().flatten() {
            routed.put(&places, answers);
        }
        let mut answers = routed.finish();
        for (at, error) in refused {
            answers.insert(at, Err(error));
        }
        answers
    }

    /// Sends the requests of one shard one after another.
    async fn send_in_turn<T>(
        &self,
        requests: &[ShardRequest<(KeyLocation, Command<T>)>],
    ) -> Vec<(Vec<usize>, Vec<Result<T, DataError>>)> {
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let calls = request.items.iter().map(|(place, command)| {
                VBucketRequest::one(place.vbucket, self.words(place.vbucket, command))
            });
            let outcomes = self.shards.send(request.shard, calls.collect(), SendRules::PATIENT).await;
            let answer = |((_, command), outcome): (&(KeyLocation, Command<T>), Result<VBucketAnswer, _>)| {
                let mut answer = outcome.map_err(DataError::from)?;
                read(answer.replies.pop(), answer.shard, command.read)
            };
            let answers = request.items.iter().zip(outcomes).map(answer).collect();
            all.push((request.places().to_vec(), answers));
        }
        all
    }

    fn place<T>(&self, command: &Command<T>) -> Result<KeyLocation, DataError> {
        let (arguments, bytes) = (command.arguments.len(), command.arguments_bytes());
        if arguments > COMMAND_ARGUMENTS_MAX || bytes > COMMAND_BYTES_MAX {
            return Err(DataError::TooLarge { arguments, bytes });
        }
        self.place_of(command.key())
    }

    fn place_of(&self, key: &[u8]) -> Result<KeyLocation, DataError> {
        let vbucket = vbucket_of(self.shards.vbuckets(), key)?;
        let shard = match self.shards.place(vbucket) {
            Location::Owned(Owner { shard, .. }) | Location::Damaged(shard) => shard,
            Location::Unknown => return Err(self.shards.unanswered().into()),
        };
        Ok(KeyLocation { vbucket, shard })
    }

    fn words<T>(&self, vbucket: VBucket, command: &Command<T>) -> Cmd {
        let mut words = Cmd::with_capacity(2 + command.arguments.len(), 64 + command.bytes());
        words.arg(command.name).arg(self.namespace.key(vbucket, command.key()));
        for argument in &command.arguments {
            words.arg(argument.as_ref());
        }
        words
    }
}

fn read<T>(reply: Option<Reply>, shard: ShardId, read: fn(Reply) -> Option<T>) -> Result<T, DataError> {
    match reply {
        Some(Reply::Refused { code, detail }) => {
            Err(DataError::Refused { shard, source: RedisRefusal { code, detail } })
        }
        Some(reply) => read(reply).ok_or(DataError::WrongAnswer { shard }),
        None => Err(LinkError::Answer { shard }.into()),
    }
}

/// The short forms: each is one [`Command`] of [`command`], for one or many keys.
impl Data {
    /// Reads a string.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, DataError> {
        self.run(command::get(key)).await
    }

    /// Sets a string.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), DataError> {
        self.run(command::set(key, value)).await
    }

    /// Sets a string if its key has no value; returns whether it was set.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn set_new(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool, DataError> {
        self.run(command::set_with(key, value, SetCondition::IfAbsent, None)).await
    }

    /// Reads a string and removes it.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn get_delete(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, DataError> {
        self.run(command::get_delete(key)).await
    }

    /// Removes a key of any type; returns whether it existed.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, DataError> {
        self.run(command::delete(key)).await
    }

    /// Adds to a counter and returns its new value.
    ///
    /// # Errors
    /// [`DataError`]; a result outside `i64` is refused, and the counter stays.
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, DataError> {
        self.run(command::increment(key, by)).await
    }

    /// Reads many strings, in order.
    ///
    /// # Errors
    /// The first [`DataError`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Bytes>>, DataError> {
        self.run_all(keys.into_iter().map(command::get)).await.into_iter().collect()
    }

    /// Sets many strings: one result for each, in order.
    pub async fn set_many<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<(), DataError>> {
        self.run_all(pairs.into_iter().map(|(key, value)| command::set(key, value))).await
    }

    /// Adds to many counters: their new values, in order.
    pub async fn increment_many<K: AsRef<[u8]>>(
        &self,
        counters: impl IntoIterator<Item = (K, i64)>,
    ) -> Vec<Result<i64, DataError>> {
        self.run_all(counters.into_iter().map(|(key, by)| command::increment(key, by))).await
    }
}
