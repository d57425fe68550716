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

/// What one Client has to be done for it.
pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

static HUB: Mutex<Option<Hub>> = Mutex::new(None);

/// The threads, and who they work for.
struct Hub {
    /// A forked child inherits this value but not the threads.
    generation: u64,
    jobs: UnboundedSender<Job>,
    crew: Arc<Crew>,
    clock: Thread,
}

#[derive(Default)]
struct Crew {
    members: Mutex<Vec<Member>>,
    off_duty: AtomicBool,
}

/// Whose rings are drained early when they fill fast.
struct Member {
    recorder: Arc<Recorder>,
    wake: Arc<Notify>,
}

/// A Client's place among those that the threads work for; given up when dropped.
pub(super) struct Enlisted {
    recorder: Arc<Recorder>,
    crew: Arc<Crew>,
}

/// Has the threads work for one more Client; starts them for the first.
///
/// # Errors
/// When the system gives no thread, or the process forked while another thread was here.
pub(super) fn enlist(
    recorder: &Arc<Recorder>,
    wake: &Arc<Notify>,
    job: impl FnOnce(Enlisted) -> Job,
) -> io::Result<()> {
    let mut hub =
        lock(&HUB).ok_or_else(|| io::Error::other("another thread held the lock during the fork"))?;
    let ours = hub.take().filter(|hub| hub.generation == generation() && !hub.jobs.is_closed());
    let ours = hub.insert(match ours {
        Some(hub) => hub,
        None => Hub::start()?,
    });
    if let Some(mut members) = lock(&ours.crew.members) {
        members.push(Member { recorder: Arc::clone(recorder), wake: Arc::clone(wake) });
    }
    ours.clock.unpark();
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
        let (Some(mut hub), Some(mut members)) = (lock(&HUB), lock(&self.crew.members)) else { return };
        members.retain(|member| !Arc::ptr_eq(&member.recorder, &self.recorder));
        if members.is_empty() {
            self.crew.off_duty.store(true, Ordering::Relaxed);
            if let Some(hub) = hub.take_if(|hub| Arc::ptr_eq(&hub.crew, &self.crew)) {
                hub.clock.unpark();
            }
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
        let clock = thread::Builder::new().name("taba-clock".to_owned());
        let clock = clock.spawn(move || keep_time(&clock_crew))?.thread().clone();
        clock::is_set_by(&clock);
        let worker = thread::Builder::new().name("taba-client".to_owned());
        if let Err(error) = worker.spawn(move || work(&runtime, jobs_due)) {
            crew.off_duty.store(true, Ordering::Relaxed);
            clock.unpark();
            return Err(error);
        }
        Ok(Self { generation: generation(), jobs, crew, clock })
    }
}

impl Crew {
    /// Whether no Client has recorded for a while.
    fn is_idle(&self) -> bool {
        lock(&self.members).is_some_and(|members| members.iter().all(|member| member.recorder.is_idle()))
    }
}

/// Sets the clock, and wakes the task of a Client whose rings fill fast; does nothing while no Client records.
fn keep_time(crew: &Crew) {
    while !crew.off_duty.load(Ordering::Relaxed) {
        Clock::tick();
        for member in lock(&crew.members).iter().flat_map(|members| members.iter()) {
            if member.recorder.is_hurried() {
                member.wake.notify_one();
            }
        }
        match crew.is_idle() {
            false => thread::park_timeout(TICK),
            true => {
                Clock::stop();
                // Whoever records from here on finds the recorder idle, and calls `clock::wind_up`: this then does not block.
                thread::park();
            }
        }
    }
    Clock::stop();
}

/// Runs the tasks until no Client is left.
fn work(runtime: &Runtime, mut jobs: UnboundedReceiver<Job>) {
    IS_BACKGROUND.set(true);
    let mut tasks = JoinSet::new();
    // The tasks belong to the runtime: they go on when this loop begins again.
    while catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(&mut jobs, &mut tasks)))).is_err() {}
}

async fn run(jobs: &mut UnboundedReceiver<Job>, tasks: &mut JoinSet<()>) {
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
