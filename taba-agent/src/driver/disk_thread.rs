//! The two threads that block on the disk: one owns the [`Disk`] and runs [`DiskJob`](crate::spool::DiskJob)s one
//! after the other; the other one syncs, so that writes need not wait.
//!
//! Records that arrive during a write are gathered for the next one: under load, writes get larger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::Builder;
use std::{io, thread};

use super::failure::AgentFailure;
use super::shared::{DiskStep, Shared};
use crate::sabotage::{self, DISK_THREAD};
use crate::spool::{Disk, JobRun, SyncJob};

/// Starts both. They end, with the disk, when the Agent is closed; `woken` signals possible jobs.
///
/// # Errors
/// When no threads can be started.
pub(super) fn start(shared: &Arc<Shared>, disk: Box<dyn Disk>, woken: Receiver<()>) -> io::Result<()> {
    // One sync is in progress at a time, so this never blocks.
    let (to_sync, syncs) = sync_channel(1);
    spawn("taba-sync", "the sync thread", shared, move |shared| sync(shared, &syncs))?;
    spawn("taba-disk", "the disk thread", shared, move |shared| {
        let mut disk = disk;
        own(shared, &mut *disk, &woken, &to_sync);
        drop(disk);
        shared.disk_is_closed();
        shared.fail_unless_stopping(AgentFailure::ended("the disk thread"));
    })
}

fn spawn(
    name: &str,
    part: &'static str,
    shared: &Arc<Shared>,
    run: impl FnOnce(&Shared) + Send + 'static,
) -> io::Result<()> {
    let shared = Arc::clone(shared);
    let guarded = move || {
        // Inconsistent state is not used again: the process ends. A thread that returns reports it itself: the sync
        // thread returns when the disk thread is gone, and must not report that failure as its own.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&shared))) {
            shared.fail(AgentFailure::panicked(part, &*panic));
        }
    };
    let _: thread::JoinHandle<()> = Builder::new().name(name.to_owned()).spawn(guarded)?;
    Ok(())
}

fn own(shared: &Shared, disk: &mut dyn Disk, woken: &Receiver<()>, to_sync: &SyncSender<SyncJob>) {
    loop {
        let job = match shared.next_job() {
            DiskStep::Do(job) => job,
            DiskStep::Wait(None) => match woken.recv() {
                Ok(()) => continue,
                Err(_) => return,
            },
            DiskStep::Wait(Some(pause)) => match woken.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            },
            DiskStep::Close => return,
        };
        sabotage::panic_in(DISK_THREAD);
        match job.run(disk) {
            JobRun::Done(done) => shared.disk_done(done),
            JobRun::Sync(job) => {
                shared.disk_done(crate::spool::JobResult::Prepared { position: job.position });
                if to_sync.send(job).is_err() {
                    return shared.fail_unless_stopping(AgentFailure::ended("the sync thread"));
                }
            }
        }
    }
}

fn sync(shared: &Shared, syncs: &Receiver<SyncJob>) {
    while let Ok(job) = syncs.recv() {
        shared.disk_done(job.run());
    }
}
