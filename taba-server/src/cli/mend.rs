//! `mend`: removes unreadable marks, and recreates VBuckets that were lost with a damaged file, so that they accept
//! Batches again.

use taba_core::{Store, StoreError, StreamId, VBucket};
use taba_process::{Exit, Log};
use taba_server::config::{StoreKind, VerifiedServerConfig};
use taba_server::{EmbeddedOptions, EmbeddedStore};
use taba_shard::ShardedRedis;

use super::{Outcome, connect};

/// A store whose marks can be removed.
enum MendableStore {
    Embedded(EmbeddedStore),
    Redis(ShardedRedis),
}

impl MendableStore {
    fn vbuckets(&self) -> taba_core::VBuckets {
        match self {
            Self::Embedded(store) => store.vbuckets(),
            Self::Redis(store) => store.vbuckets(),
        }
    }

    async fn damaged(&self, vbucket: VBucket) -> Result<Vec<StreamId>, StoreError> {
        match self {
            Self::Embedded(store) => store.damaged_marks(vbucket).await,
            Self::Redis(store) => store.damaged_marks(vbucket).await,
        }
    }

    async fn lost(&self) -> Result<Vec<VBucket>, StoreError> {
        match self {
            Self::Embedded(store) => store.lost().await,
            Self::Redis(_) => Ok(Vec::new()),
        }
    }

    async fn begin_anew(&self, vbuckets: &[VBucket]) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.begin_anew(vbuckets).await,
            Self::Redis(_) => Ok(()),
        }
    }

    async fn remove(&self, vbucket: VBucket, streams: &[StreamId]) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.remove_marks(vbucket, streams).await,
            Self::Redis(store) => store.remove_marks(vbucket, streams).await,
        }
    }
}

pub(super) async fn mend(log: &Log, config: &VerifiedServerConfig, yes: bool) -> Outcome {
    let store = match config.store {
        StoreKind::Memory => {
            log.say("a memory store ends with its server: there is nothing to mend");
            return Ok(Exit::Clean);
        }
        StoreKind::Embedded => {
            let options = EmbeddedOptions::new(config.vbuckets());
            MendableStore::Embedded(EmbeddedStore::open_existing(&config.data_dir, options)?)
        }
        StoreKind::Redis => {
            let shards = config.shards().to_vec();
            MendableStore::Redis(ShardedRedis::connect(shards, connect::options(config)).await?)
        }
    };
    let lost = store.lost().await?;
    tell_lost(log, &lost, yes);
    if yes {
        store.begin_anew(&lost).await?;
    }
    let (mut marks, mut unread) = (0, 0);
    for vbucket in store.vbuckets().iter() {
        let damaged = match store.damaged(vbucket).await {
            Ok(damaged) => damaged,
            Err(error) => {
                unread += 1;
                log.say(format_args!("{vbucket} cannot be read: {}", taba_core::causes(&error)));
                continue;
            }
        };
        for stream in &damaged {
            log.say(format_args!("{vbucket}: the mark of taba.stream/{stream} cannot be read"));
        }
        if yes {
            store.remove(vbucket, &damaged).await?;
        }
        marks += damaged.len();
    }
    match (marks, yes) {
        (0, _) => log.say("no mark is damaged"),
        (marks, false) => log.say(format_args!(
            "{marks} marks would be removed; repeat with --yes to do it. What the agents of those streams still keep of these \
             vbuckets (at least their last confirm-after) may then be counted twice, and what came before it is noted as a \
             gap of the stream, though it is stored"
        )),
        (marks, true) => log.say(format_args!("{marks} marks were removed; their vbuckets accept batches again")),
    }
    Ok(if unread == 0 { Exit::Clean } else { Exit::Failed })
}

fn tell_lost(log: &Log, lost: &[VBucket], yes: bool) {
    match (lost.len(), yes) {
        (0, _) => {}
        (vbuckets, false) => log.say(format_args!(
            "{vbuckets} vbuckets were lost with a damaged file, and would be recreated, empty; repeat with --yes to do it. Their agents send \
             again what they still keep, and the rest is noted as a gap. A backup is the better way: taba-server restore"
        )),
        (vbuckets, true) => log.say(format_args!("{vbuckets} vbuckets are recreated")),
    }
}
