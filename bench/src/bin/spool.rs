//! Appending to the Spool: records of 4 KiB, synced every 5 ms by another thread, beside what the disk takes when
//! somebody only writes, synced as often. As many records are flushed together as Clients bring at a time.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use taba_agent::Config;
use taba_agent::LogSpool;
use taba_agent::driver::FileDisk;
use taba_agent::spool::record::{AcceptedBatch, Checkpoint, Fragment, Record};
use taba_agent::spool::{FragmentLocation, JobResult, JobRun, LogOptions, Spool, SyncJob, SyncPolicy};
use taba_bench::{Figure, now, print_machine};
use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

const RECORD_BYTES: usize = 4096;
/// Clients that wait for their answers together: what they bring is flushed with one write.
const CLIENTS: [u64; 3] = [16, 64, 256];
const ROUND_BYTES: usize = 512 << 20;
const RAW_WRITE_BYTES: usize = 1 << 20;
const SYNC_INTERVAL: Duration = Duration::from_millis(5);
const ROUNDS: usize = 5;

fn options() -> LogOptions {
    let mut options = Config::default().verify().expect("the defaults fit").log_options();
    options.bytes_max = 4 << 30;
    options.segment_bytes = 64 << 20;
    options.sync = SyncPolicy::Interval;
    options.sync_interval = SYNC_INTERVAL;
    options
}

/// Calls `sync` every 5 ms on a thread of its own, for as long as `write` runs.
fn synced_meanwhile<T>(sync: impl Fn() + Sync, write: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                #[expect(clippy::disallowed_methods, reason = "this is the interval that is measured with")]
                thread::sleep(SYNC_INTERVAL);
                sync();
            }
        });
        let written = write();
        over.store(true, Ordering::Relaxed);
        written
    })
}

/// MB/s of writes of 1 MiB to one file after the other, of the size that segments have.
fn raw(directory: &Path) -> Result<f64, Box<dyn Error>> {
    let block: Vec<u8> = (0..RAW_WRITE_BYTES).map(|n| (n * 7919) as u8).collect();
    let open = |n: usize| File::create(directory.join(format!("raw-{n}")));
    let current = Mutex::new(open(0)?);
    let start = now();
    let sync = || {
        let file = current.lock().expect("nobody panics").try_clone();
        file.and_then(|file| file.sync_data()).expect("the disk syncs");
    };
    synced_meanwhile(sync, || -> Result<(), Box<dyn Error>> {
        for n in 0..ROUND_BYTES / RAW_WRITE_BYTES {
            if n % 64 == 63 {
                let next = open(n)?;
                let before = std::mem::replace(&mut *current.lock().expect("nobody panics"), next);
                before.sync_data()?;
            }
            let mut file = current.lock().expect("nobody panics").try_clone()?;
            file.write_all(&block)?;
        }
        current.lock().expect("nobody panics").sync_data()?;
        Ok(())
    })?;
    Ok(ROUND_BYTES as f64 / start.elapsed().as_secs_f64() / 1e6)
}

/// MB/s of records of 4 KiB, each with one fragment, in a Spool, flushed when so many Clients wait.
fn spool(directory: &Path, clients: u64) -> Result<f64, Box<dyn Error>> {
    let mut disk = FileDisk::open(directory)?;
    let (spool, _) = LogSpool::open(&mut disk, options())?;
    let (spool, prepared) = (Mutex::new(spool), Mutex::new(None::<SyncJob>));
    let checkpoint = Checkpoint::default();
    let bytes: Vec<u8> = (0..RECORD_BYTES - 64).map(|n| (n * 7919) as u8).collect();
    let mut fragment = Fragment {
        vbucket: 1,
        seq: SeqNo(1),
        events_before: 0,
        batch_events_before: 0,
        blocks_before: 0,
        blocks: 1,
        events: 1,
        unfolded: 1,
        bytes,
    };
    let client = ClientId::new("web-01")?;
    let mut taken = AcceptedBatch {
        client,
        incarnation: 7,
        seq: SeqNo(1),
        taken_at: Timestamp::from_secs(1),
        events_total: 0,
        refused: Vec::new(),
    };
    let start = now();
    let sync = || {
        let job = prepared.lock().expect("nobody panics").take();
        if let Some(job) = job {
            let done = job.run();
            spool.lock().expect("nobody panics").done(start.elapsed(), done);
        }
    };
    // What the thread that owns the disk does; syncs are left to the other one.
    let mut write = |spool: &mut LogSpool| {
        while let Some(job) = spool.next_job(start.elapsed()) {
            let done = match job.run(&mut disk) {
                JobRun::Done(done) => done,
                JobRun::Sync(sync) => {
                    let position = sync.position;
                    *prepared.lock().expect("nobody panics") = Some(sync);
                    JobResult::Prepared { position }
                }
            };
            spool.done(start.elapsed(), done);
        }
    };
    let locations: Vec<FragmentLocation> = synced_meanwhile(sync, || -> Result<_, Box<dyn Error>> {
        let mut locations = Vec::new();
        for n in 1..=(ROUND_BYTES / RECORD_BYTES) as u64 {
            (fragment.seq, taken.seq, fragment.events_before) = (SeqNo(n), SeqNo(n), n - 1);
            let mut spool = spool.lock().expect("nobody panics");
            if spool.must_roll(RECORD_BYTES) {
                spool.roll(&checkpoint)?;
                write(&mut spool);
            }
            let record = Record::Take {
                taken: &taken,
                stream: StreamId(1),
                fragments: std::slice::from_ref(&fragment),
            };
            locations.extend(spool.append(&record)?.locations);
            if n.is_multiple_of(clients) {
                write(&mut spool);
            }
        }
        Ok(locations)
    })?;
    while spool.lock().expect("nobody panics").durable() < spool.lock().expect("nobody panics").position() {
        write(&mut spool.lock().expect("nobody panics"));
        sync();
    }
    let mut spool = spool.into_inner()?;
    assert_eq!(spool.durable(), spool.position(), "all of it is durable");
    let mega_bytes = spool.position() as f64 / 1e6;
    let speed = mega_bytes / start.elapsed().as_secs_f64();
    spool.release(&locations);
    Ok(speed)
}

fn main() -> Result<(), Box<dyn Error>> {
    print_machine();
    // Beside the build, where there is a disk: a temporary directory may be memory.
    let target = std::env::current_exe()?;
    let target = target.parent().ok_or("a binary is in a directory")?;
    println!("{} MiB a round, synced every 5 ms, {ROUNDS} rounds, each of both in turn", ROUND_BYTES >> 20);
    for clients in CLIENTS {
        let (mut raws, mut spools, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let directory = tempfile::tempdir_in(target)?;
            let (raw, spool) = (raw(directory.path())?, spool(&directory.path().join("spool"), clients)?);
            // The first round warms up.
            if round > 0 {
                raws.push(raw);
                spools.push(spool);
                ratios.push(100.0 * spool / raw);
            }
        }
        println!("raw sequential writes of 1 MiB: {} MB/s", Figure::of(raws));
        println!("spool, records of 4 KiB, {clients} clients at a time: {} MB/s", Figure::of(spools));
        println!("spool / raw, pair by pair: {} % (wanted: 70 % or more)", Figure::of(ratios));
    }
    Ok(())
}
