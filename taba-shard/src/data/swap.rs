//! Optimistic concurrency: compare-and-set of a string ([`Swap`]), and a value under a fencing token ([`Fenced`]).
//!
//! # Why a script and not `WATCH`
//! `WATCH` belongs to the connection. Many tasks share one here, so the `EXEC` of one would end the watches of all
//! others; and it takes three round trips. A script takes one.

use bytes::Bytes;
use redis::cmd;

use super::lock::FencingToken;
use super::{Data, DataError};
use crate::command::Reply;
use crate::redis::{LinkError, scripts};

/// The outcome of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "whether it was set is the point"]
pub enum Swap {
    /// The value was as expected, and is changed.
    Done,
    /// It was not; nothing is changed.
    Found(Option<Bytes>),
}

/// The outcome of a fenced set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whether it was set is the point"]
pub enum Fenced {
    /// The value is set.
    Done,
    /// A higher token was used: the holder of this one has lost the lock.
    Stale {
        /// The highest token seen.
        highest: FencingToken,
    },
}

impl Data {
    /// Sets a string, or removes it (`None`), if its value is as expected (`None`: no value). Its expiry stays.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Swap, DataError> {
        let place = self.place_of(key.as_ref())?;
        let mut call = scripts::SWAP.call(&[self.namespace.key(place.vbucket, key.as_ref())]);
        for value in [expected, new] {
            call.arg(u8::from(value.is_some())).arg(value.unwrap_or_default());
        }
        match self.shards.one(place.vbucket, place.shard, call).await? {
            Reply::Integer(1) => Ok(Swap::Done),
            Reply::List(mut found) => match found.pop() {
                Some(Reply::Bytes(bytes)) => Ok(Swap::Found(Some(bytes))),
                _ => Ok(Swap::Found(None)),
            },
            _ => Err(LinkError::Answer { shard: place.shard }.into()),
        }
    }

    /// Sets a value, unless it was set under a higher token: protects it from a holder that was paused past its
    /// lease. Read it with [`fenced_get`](Self::fenced_get).
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn fenced_set(
        &self,
        key: impl AsRef<[u8]>,
        token: FencingToken,
        value: impl AsRef<[u8]>,
    ) -> Result<Fenced, DataError> {
        let place = self.place_of(key.as_ref())?;
        let mut call = scripts::FENCED_SET.call(&[self.namespace.key(place.vbucket, key.as_ref())]);
        call.arg(token.0).arg(value.as_ref());
        let wrong = || DataError::from(LinkError::Answer { shard: place.shard });
        match self.shards.one(place.vbucket, place.shard, call).await? {
            Reply::Integer(1) => Ok(Fenced::Done),
            Reply::List(mut found) => {
                let highest = found.pop().and_then(FencingToken::read).ok_or_else(wrong)?;
                Ok(Fenced::Stale { highest })
            }
            _ => Err(wrong()),
        }
    }

    /// Reads a value that was set under a token.
    ///
    /// # Errors
    /// [`DataError`].
    pub async fn fenced_get(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<(FencingToken, Bytes)>, DataError> {
        let place = self.place_of(key.as_ref())?;
        let mut call = cmd("HMGET");
        call.arg(self.namespace.key(place.vbucket, key.as_ref())).arg("token").arg("value");
        let Reply::List(items) = self.shards.one(place.vbucket, place.shard, call).await? else {
            return Err(LinkError::Answer { shard: place.shard }.into());
        };
        match <[Reply; 2]>::try_from(items) {
            Ok([Reply::Nothing, Reply::Nothing]) => Ok(None),
            Ok([token, Reply::Bytes(value)]) => {
                let token = FencingToken::read(token);
                Ok(Some((token.ok_or(DataError::WrongAnswer { shard: place.shard })?, value)))
            }
            _ => Err(DataError::WrongAnswer { shard: place.shard }),
        }
    }
}
