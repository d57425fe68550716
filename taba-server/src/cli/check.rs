//! `check`: reads a whole store and reports damage.

use std::collections::BTreeMap;

use taba_core::{Envelope, Scan, Store, StoreError, TabName, VBucket, Wanted, causes, ledger};
use taba_process::{Exit, Log};
use taba_server::config::{StoreKind, VerifiedServerConfig};
use taba_server::{EmbeddedOptions, EmbeddedStore};
use taba_shard::ShardedRedis;

use super::{Outcome, connect};

/// States per read.
const PAGE_STATES: usize = 500;
/// Faults reported in full.
const FAULTS_MAX: usize = 100;
/// The type that replaces an unreadable one.
const DAMAGED_TYPE: &str = "taba.damaged";

#[derive(Default)]
struct CheckReport {
    tabs: u64,
    states: u64,
    marks: u64,
    events: u64,
    /// Each distinct fault, with its count.
    faults: BTreeMap<String, u64>,
}

pub(super) async fn check(log: &Log, config: &VerifiedServerConfig) -> Outcome {
    let mut report = CheckReport::default();
    let vbuckets = match config.store {
        StoreKind::Memory => {
            log.say("a memory store ends with its server: there is nothing to check");
            return Ok(Exit::Clean);
        }
        StoreKind::Embedded => {
            let options = EmbeddedOptions::new(config.vbuckets());
            let store = EmbeddedStore::open_existing(&config.data_dir, options)?;
            report.all(log, &store).await;
            store.vbuckets()
        }
        StoreKind::Redis => {
            let store = ShardedRedis::connect(config.shards().to_vec(), connect::options(config)).await?;
            let mut relisted = 0;
            for vbucket in store.vbuckets().iter() {
                match store.relist(vbucket).await {
                    Ok(entries) => relisted += entries,
                    Err(error) => report.fault(&store, vbucket, &error),
                }
            }
            if relisted > 0 {
                log.say(format_args!("{relisted} missing index entries were written again"));
            }
            report.all(log, &store).await;
            store.vbuckets()
        }
    };
    let CheckReport { tabs, states, marks, events, faults } = report;
    log.say(format_args!(
        "{} vbuckets: {tabs} tabs, {states} states with {events} events, {marks} marks can be read",
        vbuckets.count()
    ));
    for (fault, times) in faults.iter().take(FAULTS_MAX) {
        log.say(format_args!("damaged: {fault} ({times})"));
    }
    if faults.is_empty() {
        log.say("nothing is damaged");
        return Ok(Exit::Clean);
    }
    log.say(format_args!(
        "{} faults; states that are damaged can be deleted by name (DELETE /v2/tabs), marks can be removed (taba-server \
         mend), vbuckets of Redis whose head is damaged can be repaired (taba-server adopt), a backup can be restored \
         (taba-server restore)",
        faults.len()
    ));
    Ok(Exit::Failed)
}

impl CheckReport {
    async fn all(&mut self, log: &Log, store: &impl Store) {
        let count = usize::from(store.vbuckets().count());
        for (place, vbucket) in store.vbuckets().iter().enumerate() {
            if let Err(error) = self.vbucket(store, vbucket).await {
                self.fault(store, vbucket, &error);
            }
            if (place + 1).is_multiple_of((count / 8).max(1)) {
                log.say(format_args!("{} of {count} vbuckets, {} states", place + 1, self.states));
            }
        }
    }

    fn fault(&mut self, store: &impl Store, vbucket: VBucket, error: &StoreError) {
        let at = store.place(vbucket).map(|place| format!(" on {place}")).unwrap_or_default();
        *self.faults.entry(format!("{vbucket}{at}: {}", causes(error))).or_default() += 1;
    }

    async fn vbucket(&mut self, store: &impl Store, vbucket: VBucket) -> Result<(), StoreError> {
        match store.load(vbucket, &Wanted::default()).await {
            Ok(loaded) => self.marks += loaded.marks.len() as u64,
            // The rest may be readable.
            Err(error) => self.fault(store, vbucket, &error),
        }
        // What is damaged of the accounts, Servers write anew from the States.
        let is_counted = |tab: &TabName| tab.as_str() != ledger::ACCOUNTS;
        for (tab, tab_type) in store.tabs(vbucket).await?.into_iter().filter(|(tab, _)| is_counted(tab)) {
            self.tabs += 1;
            if tab_type.as_str() == DAMAGED_TYPE {
                *self.faults.entry(format!("{vbucket}: the type of {tab}")).or_default() += 1;
            }
            if let Err(error) = self.tab(store, vbucket, &tab).await {
                *self.faults.entry(format!("{vbucket}: {tab}: {}", causes(&error))).or_default() += 1;
            }
        }
        Ok(())
    }

    async fn tab(&mut self, store: &impl Store, vbucket: VBucket, tab: &TabName) -> Result<(), StoreError> {
        let mut scan = Scan::default().with_tab(tab.clone()).with_limit(PAGE_STATES);
        loop {
            let page = store.scan(vbucket, &scan).await?;
            for state in &page {
                match Envelope::join(&state.parts) {
                    Ok(envelope) => {
                        self.states += 1;
                        self.events += envelope.events;
                    }
                    Err(_) => *self.faults.entry(format!("{vbucket}: a state of {tab}")).or_default() += 1,
                }
            }
            if page.len() < PAGE_STATES {
                return Ok(());
            }
            scan.after = page.last().map(|last| last.key.clone());
        }
    }
}
