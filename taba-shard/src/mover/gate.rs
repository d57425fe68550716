//! When the next move may begin: as the rates allow, and only while the replicas of both shards keep up.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::cmd;

use super::{MoveEvent, Mover, MoverError, Waiting};
use crate::command::Reply;
use crate::keys;
use crate::limits::MOVER_SETTINGS_INTERVAL;
use crate::map::ShardId;
use crate::migration::pace::{Pace, Rates};
use crate::redis::{LinkError, monotonic, scripts};

/// How long to wait until a replica that lags is looked at again.
const LAG_PAUSE: Duration = Duration::from_millis(100);

/// The rates, and what has been spent.
pub(super) struct Gate(Mutex<Paced>);

struct Paced {
    pace: Pace,
    /// What the mover was started with: in force as long as nothing is set on the shards.
    rates: Rates,
    read: Option<Instant>,
}

impl Gate {
    pub(super) fn new(rates: Rates) -> Self {
        Self(Mutex::new(Paced { pace: Pace::new(rates, monotonic()), rates, read: None }))
    }

    fn with<T>(&self, run: impl FnOnce(&mut Paced) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn copied(&self, bytes: u64) {
        self.with(|paced| paced.pace.copied(bytes, monotonic()));
    }
}

impl Mover {
    /// Waits until a move between these two shards may begin; answers how many replicas the source has.
    pub(super) async fn may_begin(
        &self,
        from: ShardId,
        to: ShardId,
        tell: &(dyn Fn(MoveEvent) + Sync),
    ) -> Result<u64, MoverError> {
        let mut told = None;
        let mut tell = |why: Waiting| {
            if told.as_ref() != Some(&why) {
                told = Some(why.clone());
                tell(MoveEvent::Waiting { why });
            }
        };
        loop {
            self.read_rates().await;
            let wait = self.gate.with(|paced| {
                let now = monotonic();
                let wait = paced.pace.wait(now);
                if wait.is_zero() {
                    paced.pace.begin(now);
                }
                wait
            });
            if wait.is_zero() {
                break;
            }
            tell(Waiting::Rate);
            // Not longer than until the rates are read again: they may have been raised.
            tokio::time::sleep(wait.min(MOVER_SETTINGS_INTERVAL)).await;
        }
        loop {
            let (source, destination) = (self.replicas(from).await?, self.replicas(to).await?);
            match source.1.or(destination.1) {
                None => return Ok(source.0),
                Some(why) => tell(why),
            }
            tokio::time::sleep(LAG_PAUSE).await;
        }
    }

    /// How many replicas a shard has, and why nothing may move there now, if it may not.
    pub(super) async fn replicas(&self, shard: ShardId) -> Result<(u64, Option<Waiting>), LinkError> {
        let link = self.shards.link(shard);
        // A look that was made lately will do.
        let since = monotonic().checked_sub(LAG_PAUSE * 5).unwrap_or_else(monotonic);
        let poll = link.poll(since).await?;
        let needed = self.shards.options().stability.replicas.max(poll.replicas_expected);
        let behind = poll.replicas.iter().map(|offset| poll.offset.saturating_sub(*offset)).max();
        let lag = |bytes| Waiting::Lag { shard: link.label(), bytes };
        let why = if poll.replicas.len() < needed {
            Some(lag(None))
        } else {
            behind.filter(|bytes| *bytes > self.options.lag_max).map(|bytes| lag(Some(bytes)))
        };
        Ok((needed as u64, why))
    }

    /// Reads the rates that an operator has set while this runs, now and then.
    async fn read_rates(&self) {
        let is_due = self.gate.with(|paced| {
            let now = monotonic();
            let is_due =
                paced.read.is_none_or(|read| now.saturating_duration_since(read) >= MOVER_SETTINGS_INTERVAL);
            if is_due {
                paced.read = Some(now);
            }
            is_due
        });
        if !is_due {
            return;
        }
        // Without an answer the old ones stay.
        let Ok(set) = self.shards.mover_rates().await else { return };
        self.gate.with(|paced| {
            let rates = set.unwrap_or(paced.rates);
            paced.pace.set(rates, monotonic());
        });
    }
}

impl crate::redis::Shards {
    /// How fast VBuckets may move, if an operator has set it. Read from the shard that keeps the shard map.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn mover_rates(&self) -> Result<Option<Rates>, LinkError> {
        let link = self.keeper()?;
        let mut get = cmd("HMGET");
        get.arg(keys::MOVER).arg(&["bytes", "moves"]);
        let Reply::List(items) = link.one(get).await? else {
            return Err(LinkError::Answer { shard: link.shard() });
        };
        let is_set = items.iter().any(|item| matches!(item, Reply::Bytes(_)));
        let rate = |n: usize| items.get(n).and_then(Reply::number).filter(|rate| *rate > 0);
        Ok(is_set.then(|| Rates { bytes: rate(0), moves: rate(1) }))
    }

    /// Sets how fast VBuckets may move, for every mover that runs now and later; a mover sees it within a second.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn set_mover_rates(&self, rates: Rates) -> Result<(), LinkError> {
        let link = self.keeper()?;
        let mut set = scripts::SET_RATES.call(&[keys::MOVER]);
        set.arg("bytes").arg(rates.bytes.unwrap_or(0));
        set.arg("moves").arg(rates.moves.unwrap_or(0));
        link.one(set).await.map(drop)
    }
}
