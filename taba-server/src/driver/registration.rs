//! [`ServerRegistration`]: says in the store, again and again, that this Server is there, and reads who else is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use taba_core::{ServerEntry, ServerUrl, StoreError};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Shared;
use crate::clock::monotonic;
use crate::server_list::{INTERVAL_MAX, LiveServer, SERVERS_MAX, ServerList};

/// How long a Server that stops waits for the store to say so.
const PARTING_TIME_MAX: Duration = Duration::from_secs(1);

/// A Server on the list of its store.
pub(crate) struct ServerRegistration {
    shared: Arc<Shared>,
    began: Instant,
    entry: Mutex<ServerEntry>,
    list: Mutex<ServerList>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ServerRegistration {
    /// Says that the Server is there, every `every`, as long as the registration is kept.
    pub(crate) fn begin(shared: Arc<Shared>, process: u64, url: ServerUrl, every: Duration) -> Arc<Self> {
        let every = every.clamp(Duration::from_millis(1), INTERVAL_MAX);
        let interval_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        let entry = ServerEntry::new(process, url, env!("CARGO_PKG_VERSION"), interval_ms);
        let registration = Arc::new(Self {
            shared,
            began: monotonic(),
            entry: Mutex::new(entry),
            list: Mutex::default(),
            task: Mutex::default(),
        });
        let weak = Arc::downgrade(&registration);
        let task = tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(registration) = weak.upgrade() else { return };
                if let Err(error) = registration.beat().await {
                    registration.tell(&error);
                }
            }
        });
        *lock(&registration.task) = Some(task);
        registration
    }

    /// Says that it is there, and looks who else is.
    async fn beat(&self) -> Result<(), StoreError> {
        let entry = self.next_entry(false);
        self.shared.store.register(entry.process, Some(&entry)).await?;
        let found = self.shared.store.servers().await?;
        let forgotten = lock(&self.list).saw(self.uptime(), found);
        for process in forgotten {
            self.shared.store.register(process, None).await?;
        }
        Ok(())
    }

    fn next_entry(&self, is_draining: bool) -> ServerEntry {
        let mut entry = lock(&self.entry);
        entry.beat += 1;
        entry.is_draining |= is_draining;
        entry.clone()
    }

    /// Everybody on the list that is alive, this Server included.
    pub(crate) fn live(&self) -> Vec<LiveServer> {
        let own = lock(&self.entry).clone();
        let (mut live, left_out) = lock(&self.list).live(self.uptime());
        if left_out > 0
            && let Some(suppressed) = self.shared.log.admit("list", "too many")
        {
            tracing::warn!(
                left_out,
                at_most = SERVERS_MAX,
                suppressed,
                "the store's list of servers is longer than may be; some are left out"
            );
        }
        // Where the store cannot be read it still knows of itself.
        if live.iter().all(|server| server.entry.url.url() != own.url.url()) {
            live.push(LiveServer { entry: own, age: Duration::ZERO });
            live.sort_by(|a, b| a.entry.url.url().cmp(b.entry.url.url()));
        }
        live
    }

    /// Says that it is about to stop: Agents that read the list send it nothing new.
    pub(crate) async fn drain(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        let entry = self.next_entry(true);
        let said = self.shared.store.register(entry.process, Some(&entry));
        // What cannot be said is found out by those who send it something.
        if let Ok(Err(error)) = timeout(PARTING_TIME_MAX, said).await {
            self.tell(&error);
        }
    }

    /// Takes itself off the list. What cannot be done is found out by those who read the list: it says nothing new any more.
    pub(crate) async fn leave(&self) {
        let process = lock(&self.entry).process;
        if let Ok(Err(error)) = timeout(PARTING_TIME_MAX, self.shared.store.register(process, None)).await {
            self.tell(&error);
        }
    }

    fn tell(&self, error: &StoreError) {
        let cause = taba_core::causes(error);
        if let Some(suppressed) = self.shared.log.admit("list", &cause) {
            tracing::warn!(
                error = cause,
                suppressed,
                "this server could not say in the store that it is there; agents that look for servers may not find it"
            );
        }
    }

    fn uptime(&self) -> Duration {
        monotonic().saturating_duration_since(self.began)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is replaced as one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
