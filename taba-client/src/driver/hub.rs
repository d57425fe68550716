//! The two threads that all Clients of a process share: "taba-client", which runs one task for each, and "taba-clock",
//! which sets the coarse clock. They start with the first Client and end with the last.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use super::clock::{Clock, TICK};
use crate::recorder::Recorder;

/// What one Client has to be done for it.
pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

static HUB: Mutex<Option<Hub>> = Mutex::new(None);

/// The threads, and who they work for.
struct Hub {
    /// A forked child inherits this value but not the threads.
    process: u32,
    jobs: UnboundedSender<Job>,
    crew: Arc<Crew>,
}

#[derive(Default)]
struct Crew {
    recorders: Mutex<Vec<Arc<Recorder>>>,
    off_duty: AtomicBool,
}

/// A Client's place among those that the threads work for; given up when dropped.
pub(super) struct Enlisted {
    recorder: Arc<Recorder>,
    crew: Arc<Crew>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks, so what they guard is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the threads work for one more Client; starts them for the first.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn enlist(recorder: &Arc<Recorder>, job: impl FnOnce(Enlisted) -> Job) -> io::Result<()> {
    let mut hub = lock(&HUB);
    let ours = hub.take().filter(|hub| hub.process == std::process::id() && !hub.jobs.is_closed());
    let ours = hub.insert(match ours {
        Some(hub) => hub,
        None => Hub::start()?,
    });
    lock(&ours.crew.recorders).push(Arc::clone(recorder));
    let enlisted = Enlisted { recorder: Arc::clone(recorder), crew: Arc::clone(&ours.crew) };
    let sent = ours.jobs.send(job(enlisted));
    // Should the thread have ended after all, the task is dropped here, and whoever waits for it hears so. It gives up
    // its place then, for which it needs the lock.
    drop(hub);
    drop(sent);
    Ok(())
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.recorder.close();
        let mut hub = lock(&HUB);
        let mut recorders = lock(&self.crew.recorders);
        recorders.retain(|recorder| !Arc::ptr_eq(recorder, &self.recorder));
        if recorders.is_empty() {
            self.crew.off_duty.store(true, Ordering::Relaxed);
            hub.take_if(|hub| Arc::ptr_eq(&hub.crew, &self.crew));
        }
    }
}

impl Hub {
    fn start() -> io::Result<Self> {
        let crew = Arc::new(Crew::default());
        let (jobs, jobs_due) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Clock::tick();
        let clock_crew = Arc::clone(&crew);
        thread::Builder::new().name("taba-clock".to_owned()).spawn(move || keep_time(&clock_crew))?;
        let worker = thread::Builder::new().name("taba-client".to_owned());
        if let Err(error) = worker.spawn(move || work(&runtime, jobs_due)) {
            crew.off_duty.store(true, Ordering::Relaxed);
            return Err(error);
        }
        Ok(Self { process: std::process::id(), jobs, crew })
    }
}

/// Sets the clock, and wakes the task of a Client whose rings fill fast.
fn keep_time(crew: &Crew) {
    while !crew.off_duty.load(Ordering::Relaxed) {
        Clock::tick();
        lock(&crew.recorders).iter().for_each(|recorder| recorder.wake_if_asked());
        thread::park_timeout(TICK);
    }
}

/// Runs the tasks until no Client is left.
fn work(runtime: &Runtime, mut jobs: UnboundedReceiver<Job>) {
    runtime.block_on(async move {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => drop(tasks.spawn(job)),
                    None => break,
                },
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => mourn(ended),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            mourn(ended);
        }
    });
}

/// A Handler or a value of the application panicked in its fold: that Client is lost, the others go on.
fn mourn(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a client's task ended early; its unsent events are lost");
    }
}
