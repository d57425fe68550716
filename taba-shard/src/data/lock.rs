//! Locks: [`LockLease`], held for a time and under a [`FencingToken`].
//!
//! # What a lock guarantees
//! A lease alone does not exclude others: its holder may be paused (with its machine, say) and continue after the
//! lease has expired and another process holds it. So each lease has a token, higher than those of all earlier leases
//! of this lock, and the guarded resource must refuse tokens lower than the highest it has seen, as
//! [`Data::fenced_set`] does.
//!
//! # How tokens grow
//! The counter stays when a lease expires or is released. A failover to a lagging replica may lose the last leases,
//! so a token is also never below the clock of Redis in microseconds when it was granted: a token granted after a
//! failover is higher than the lost ones, as far as the clocks of the two machines agree within the time between. Two
//! holders at once are possible in that time; the one with the lower token is fenced.
//!
//! A lock is one small hash that is never removed; the number of names should be bounded.

use std::sync::Arc;
use std::time::Duration;

use taba_core::Remedy;

use super::{Data, DataError, KeyLocation};
use crate::command::Reply;
use crate::limits::LEASE_MAX;
use crate::redis::{LinkError, random, scripts};

/// A number that is higher for every later lease of one lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

/// A lock that is held until its lease expires.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a lock that is not released is held until its time is over"]
pub struct LockLease {
    name: Vec<u8>,
    holder: String,
    token: FencingToken,
}

/// Why a lock was not taken, renewed or released.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds it.
    #[error("another process holds the lock for up to {left:?} more")]
    Held {
        /// Time until the lease expires, unless it is renewed.
        left: Duration,
    },
    /// The lease has expired; another process may hold the lock.
    #[error("the lease has expired")]
    Lost,
    /// A lease lasts from a millisecond to [`LEASE_MAX`].
    #[error("a lease of {time:?}: it may last from a millisecond to {LEASE_MAX:?}")]
    Time {
        /// What was asked for.
        time: Duration,
    },
    /// The request failed. After an unknown outcome the lock may stay taken, without a holder, until its lease
    /// expires.
    #[error("the request for the lock failed")]
    Data(#[from] DataError),
}

impl LockError {
    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Held { left } => Remedy::Wait(*left),
            Self::Lost | Self::Time { .. } => Remedy::GiveUp,
            Self::Data(source) => source.remedy(),
        }
    }
}

impl FencingToken {
    pub(super) fn read(reply: Reply) -> Option<Self> {
        let Reply::Bytes(text) = reply else { return None };
        std::str::from_utf8(&text).ok()?.parse().ok().map(Self)
    }
}

impl LockLease {
    /// The token to pass to the guarded resource.
    pub const fn token(&self) -> FencingToken {
        self.token
    }
}

impl From<Arc<LinkError>> for LockError {
    fn from(error: Arc<LinkError>) -> Self {
        Self::Data(error.into())
    }
}

impl From<LinkError> for LockError {
    fn from(error: LinkError) -> Self {
        Self::Data(error.into())
    }
}

fn micros(time: Duration) -> Result<u64, LockError> {
    if time < Duration::from_millis(1) || time > LEASE_MAX {
        return Err(LockError::Time { time });
    }
    Ok(time.as_micros() as u64)
}

impl Data {
    /// Takes a lock if it is free; does not wait. [`LockError::Held`] says how long it may be held.
    ///
    /// # Errors
    /// [`LockError`].
    ///
    /// # Cancel safety
    /// When dropped, the lock may stay taken, without a holder, until its lease expires.
    pub async fn lock(&self, name: impl AsRef<[u8]>, time: Duration) -> Result<LockLease, LockError> {
        let micros = micros(time)?;
        let holder = format!("{:016x}{:016x}", random(), random());
        let place = self.place_of(name.as_ref()).map_err(LockError::Data)?;
        let mut call = scripts::ACQUIRE.call(&[self.namespace.lock(place.vbucket, name.as_ref())]);
        call.arg(&holder).arg(micros);
        let wrong = || LockError::from(LinkError::Answer { shard: place.shard });
        match self.shards.one(place.vbucket, place.shard, call).await? {
            Reply::List(mut left) => {
                let left = left.pop().and_then(FencingToken::read).ok_or_else(wrong)?;
                Err(LockError::Held { left: Duration::from_micros(left.0) })
            }
            token => {
                let token = FencingToken::read(token).ok_or_else(wrong)?;
                Ok(LockLease { name: name.as_ref().to_vec(), holder, token })
            }
        }
    }

    /// Extends a lease to this long from now.
    ///
    /// # Errors
    /// [`LockError::Lost`] when the lease has expired, even if nobody has taken the lock since.
    pub async fn renew(&self, lease: &LockLease, time: Duration) -> Result<(), LockError> {
        let micros = micros(time)?;
        let place = self.place_of(&lease.name).map_err(LockError::Data)?;
        let mut call = scripts::RENEW.call(&[self.namespace.lock(place.vbucket, &lease.name)]);
        call.arg(&lease.holder).arg(micros);
        self.held(place, call).await
    }

    /// Releases a lock.
    ///
    /// # Errors
    /// [`LockError::Lost`] when the lease has expired: another process may have held the lock at the same time.
    pub async fn unlock(&self, lease: LockLease) -> Result<(), LockError> {
        let place = self.place_of(&lease.name).map_err(LockError::Data)?;
        let mut call = scripts::RELEASE.call(&[self.namespace.lock(place.vbucket, &lease.name)]);
        call.arg(&lease.holder);
        self.held(place, call).await
    }

    async fn held(&self, place: KeyLocation, call: redis::Cmd) -> Result<(), LockError> {
        match self.shards.one(place.vbucket, place.shard, call).await? {
            Reply::Integer(1) => Ok(()),
            Reply::Integer(_) => Err(LockError::Lost),
            _ => Err(LinkError::Answer { shard: place.shard }.into()),
        }
    }
}
