//! The thread that all Clients of a process share, "taba-client": it runs one task for each. It starts with the first Client
//! and ends with the last.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

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

static SHARED_THREAD: Mutex<Option<SharedThread>> = Mutex::new(None);

/// The thread, and how many Clients it serves.
struct SharedThread {
    /// A forked child inherits this value but not the thread.
    generation: u64,
    jobs: UnboundedSender<ClientFuture>,
    /// One clone for each Client.
    clients: Arc<()>,
}

/// A Client's registration with the thread; it ends when this is dropped.
pub(super) struct Registration {
    recorder: Arc<Recorder>,
    client: Arc<()>,
}

/// Registers one more Client with the thread; starts it for the first.
///
/// # Errors
/// When the system gives no thread, or the process forked while another thread was here.
pub(super) fn register(
    recorder: &Arc<Recorder>,
    job: impl FnOnce(Registration) -> ClientFuture,
) -> io::Result<()> {
    let mut thread = lock(&SHARED_THREAD)
        .ok_or_else(|| io::Error::other("another thread held the lock during the fork"))?;
    let ours = thread.take().filter(|thread| thread.generation == generation() && !thread.jobs.is_closed());
    let ours = thread.insert(match ours {
        Some(thread) => thread,
        None => SharedThread::start()?,
    });
    let registration = Registration { recorder: Arc::clone(recorder), client: Arc::clone(&ours.clients) };
    let sent = ours.jobs.send(job(registration));
    // If the thread has ended, the task is dropped here, and callers that wait for it get an error. It gives up
    // its place then, for which it needs the lock.
    drop(thread);
    drop(sent);
    Ok(())
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.recorder.close();
        let Some(mut thread) = lock(&SHARED_THREAD) else { return };
        // Under the lock: the two that are left are this one's and the thread's own.
        let is_last = Arc::strong_count(&self.client) == 2;
        // Without a sender of jobs the thread ends.
        thread.take_if(|thread| is_last && Arc::ptr_eq(&thread.clients, &self.client));
        self.client = Arc::default();
    }
}

impl SharedThread {
    fn start() -> io::Result<Self> {
        let (jobs, jobs_due) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        thread::Builder::new().name("taba-client".to_owned()).spawn(move || work(&runtime, jobs_due))?;
        Ok(Self { generation: generation(), jobs, clients: Arc::default() })
    }
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
