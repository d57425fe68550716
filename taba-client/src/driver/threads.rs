//! The two threads that all Clients of a process share: "taba-client", which runs one task for each, and "taba-clock",
//! which sets the coarse clock. They start with the first Client and end with the last.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::clock::{self, Clock, TICK};
use crate::lock::lock;
use crate::process::generation;
use crate::recorder::Recorder;

thread_local! {
    static IS_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread that serves all Clients: it must not wait for itself.
pub(crate) fn is_background() -> bool {
    IS_BACKGROUND.get()
}

/// The background task of one Client, as a future.
pub(super) type ClientFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

static SHARED_THREADS: Mutex<Option<SharedThreads>> = Mutex::new(None);

/// The two threads, and the Clients that they serve.
struct SharedThreads {
    /// A forked child inherits this value but not the threads.
    generation: u64,
    jobs: UnboundedSender<ClientFuture>,
    served: Arc<ServedClients>,
    clock: Thread,
}

#[derive(Default)]
struct ServedClients {
    clients: Mutex<Vec<ServedClient>>,
    is_stopping: AtomicBool,
}

/// A Client whose rings are drained early when they fill fast.
struct ServedClient {
    recorder: Arc<Recorder>,
    wake: Arc<Notify>,
}

/// A Client's registration with the threads; it ends when this is dropped.
pub(super) struct Registration {
    recorder: Arc<Recorder>,
    served: Arc<ServedClients>,
}

/// Registers one more Client with the threads; starts them for the first.
///
/// # Errors
/// When the system gives no thread, or the process forked while another thread was here.
pub(super) fn register(
    recorder: &Arc<Recorder>,
    wake: &Arc<Notify>,
    job: impl FnOnce(Registration) -> ClientFuture,
) -> io::Result<()> {
    let mut threads = lock(&SHARED_THREADS)
        .ok_or_else(|| io::Error::other("another thread held the lock during the fork"))?;
    let ours =
        threads.take().filter(|threads| threads.generation == generation() && !threads.jobs.is_closed());
    let ours = threads.insert(match ours {
        Some(threads) => threads,
        None => SharedThreads::start()?,
    });
    if let Some(mut clients) = lock(&ours.served.clients) {
        clients.push(ServedClient { recorder: Arc::clone(recorder), wake: Arc::clone(wake) });
    }
    ours.clock.unpark();
    let registration = Registration { recorder: Arc::clone(recorder), served: Arc::clone(&ours.served) };
    let sent = ours.jobs.send(job(registration));
    // If the thread has ended, the task is dropped here, and callers that wait for it get an error. It gives up
    // its place then, for which it needs the lock.
    drop(threads);
    drop(sent);
    Ok(())
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.recorder.close();
        let (Some(mut threads), Some(mut clients)) = (lock(&SHARED_THREADS), lock(&self.served.clients))
        else {
            return;
        };
        clients.retain(|client| !Arc::ptr_eq(&client.recorder, &self.recorder));
        if clients.is_empty() {
            self.served.is_stopping.store(true, Ordering::Relaxed);
            if let Some(threads) = threads.take_if(|threads| Arc::ptr_eq(&threads.served, &self.served)) {
                threads.clock.unpark();
            }
        }
    }
}

impl SharedThreads {
    fn start() -> io::Result<Self> {
        let served = Arc::new(ServedClients::default());
        let (jobs, jobs_due) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        Clock::tick();
        let clock_served = Arc::clone(&served);
        let clock = thread::Builder::new().name("taba-clock".to_owned());
        let clock = clock.spawn(move || keep_time(&clock_served))?.thread().clone();
        clock::is_set_by(&clock);
        let worker = thread::Builder::new().name("taba-client".to_owned());
        if let Err(error) = worker.spawn(move || work(&runtime, jobs_due)) {
            served.is_stopping.store(true, Ordering::Relaxed);
            clock.unpark();
            return Err(error);
        }
        Ok(Self { generation: generation(), jobs, served, clock })
    }
}

impl ServedClients {
    /// Whether no Client has recorded for a while.
    fn is_idle(&self) -> bool {
        lock(&self.clients).is_some_and(|clients| clients.iter().all(|client| client.recorder.is_idle()))
    }
}

/// Sets the clock, and wakes the task of a Client whose rings fill fast; does nothing while no Client records.
fn keep_time(served: &ServedClients) {
    while !served.is_stopping.load(Ordering::Relaxed) {
        Clock::tick();
        for client in lock(&served.clients).iter().flat_map(|clients| clients.iter()) {
            if client.recorder.is_hurried() {
                client.wake.notify_one();
            }
        }
        match served.is_idle() {
            false => thread::park_timeout(TICK),
            true => {
                Clock::stop();
                // A thread that records from here on finds the recorder idle and calls `clock::wind_up`: then this does not block.
                thread::park();
            }
        }
    }
    Clock::stop();
}

/// Runs the tasks until no Client is left.
fn work(runtime: &Runtime, mut jobs: UnboundedReceiver<ClientFuture>) {
    IS_BACKGROUND.set(true);
    let mut tasks = JoinSet::new();
    // The tasks belong to the runtime: they go on when this loop begins again.
    while catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(&mut jobs, &mut tasks)))).is_err() {}
}

async fn run(jobs: &mut UnboundedReceiver<ClientFuture>, tasks: &mut JoinSet<()>) {
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => drop(tasks.spawn(job)),
                None => break,
            },
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note_ended(ended),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        note_ended(ended);
    }
}

fn note_ended(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a client's task ended early; its unsent events are lost");
    }
}
