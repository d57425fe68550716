use proptest::prelude::*;
use taba_core::ledger::Why;
use taba_core::wire::Refusal;
use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

use super::crash::CrashDisk;
use super::record::{AcceptedBatch, Fragment, LaneCheckpoint};
use super::recovery::{Damage, Recovered};
use super::*;
use crate::units::LaneKey;

const OPTIONS: LogOptions = LogOptions {
    bytes_max: 1 << 20,
    segment_bytes: 2_000,
    sync: SyncPolicy::Interval,
    sync_interval: Duration::from_millis(5),
};
/// Some moment; what waits for time has waited for long when it is asked at `LATER`.
const NOW: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(100);

fn key() -> LaneKey {
    LaneKey { stream: StreamId(7), vbucket: 3 }
}

fn taken(seq: u64) -> AcceptedBatch {
    let refused = vec![Refusal::new(1, Why::BadName, seq)];
    let client = ClientId::new("web").unwrap();
    let taken_at = Timestamp::from_secs(9);
    AcceptedBatch { client, incarnation: 1, seq: SeqNo(seq), taken_at, events_total: 10 * seq, refused }
}

/// The `part`-th fragment of a Batch, one Block of 10 events each; parts from 0.
fn fragment(seq: u64, events_before: u64, part: u64, bytes: &[u8]) -> Fragment {
    let (seq, blocks_before) = (SeqNo(seq), part);
    let (batch_events_before, bytes) = (10 * part, bytes.to_vec());
    Fragment {
        vbucket: 3,
        seq,
        events_before,
        batch_events_before,
        blocks_before,
        blocks: 1,
        events: 10,
        unfolded: 0,
        bytes,
    }
}

fn open(disk: &CrashDisk) -> (LogSpool, Recovered) {
    LogSpool::open(&mut disk.clone(), OPTIONS).unwrap()
}

/// Does what there is to do, syncs excepted; then what was asked for is read.
fn write(spool: &mut LogSpool, disk: &CrashDisk) -> Vec<(Fetch, FetchedContent)> {
    let mut read = Vec::new();
    while let Some(job) = spool.next_job(NOW) {
        read.extend(run(spool, disk, NOW, job));
    }
    read
}

fn run(
    spool: &mut LogSpool,
    disk: &CrashDisk,
    now: Duration,
    job: DiskJob,
) -> Option<(Fetch, FetchedContent)> {
    let done = match job.run(&mut disk.clone()) {
        JobRun::Done(done) => done,
        JobRun::Sync(sync) => {
            assert!(spool.done(now, JobResult::Prepared { position: sync.position }).is_none());
            sync.run()
        }
    };
    spool.done(now, done).map(|(fetch, content)| (fetch, content.unwrap()))
}

fn opened(disk: &CrashDisk) -> LogSpool {
    let (mut spool, _) = open(disk);
    spool.roll(&Checkpoint::default()).unwrap();
    write(&mut spool, disk);
    spool
}

fn append(spool: &mut LogSpool, seq: u64, fragments: &[Fragment]) -> Result<Appended, SpoolError> {
    spool.append(&Record::Take { taken: &taken(seq), stream: StreamId(7), fragments })
}

fn take(spool: &mut LogSpool, disk: &CrashDisk, seq: u64, fragments: &[Fragment]) -> Appended {
    let written = append(spool, seq, fragments).unwrap();
    write(spool, disk);
    written
}

fn roll(spool: &mut LogSpool, disk: &CrashDisk, checkpoint: &Checkpoint) {
    spool.roll(checkpoint).unwrap();
    write(spool, disk);
}

/// Does all there is to do, and all that waits for time.
fn sync(spool: &mut LogSpool, disk: &CrashDisk) {
    let mut now = LATER;
    loop {
        if let Some(job) = spool.next_job(now) {
            run(spool, disk, now, job);
            continue;
        }
        match spool.wake_at() {
            Some(at) if at > now && at <= LATER + Duration::from_millis(50) => now = at,
            _ => return,
        }
    }
}

/// Batches of one Lane, each of one fragment of 100 bytes, one in a record of its own.
fn with_batches(disk: &CrashDisk, batches: u64) -> (LogSpool, Vec<FragmentLocation>) {
    let mut spool = opened(disk);
    let mut locations = Vec::new();
    for seq in 1..=batches {
        if spool.must_roll(200) {
            roll(&mut spool, disk, &Checkpoint::default());
        }
        let fragment = fragment(seq, 10 * (seq - 1), 0, &[seq as u8; 100]);
        locations.extend(take(&mut spool, disk, seq, &[fragment]).locations);
    }
    (spool, locations)
}

fn read(spool: &mut LogSpool, disk: &CrashDisk, locations: &[FragmentLocation]) -> FetchedContent {
    let (seq, locations) = (SeqNo(1), locations.to_vec());
    spool.fetch(Fetch { lane: key(), seq, locations, purpose: Purpose::Send });
    let (_, content) = write(spool, disk).pop().unwrap();
    content
}

fn content(spool: &mut LogSpool, disk: &CrashDisk, locations: &[FragmentLocation]) -> Vec<u8> {
    let content = read(spool, disk, locations);
    assert_eq!(content.damaged, []);
    content.bytes.to_vec()
}

#[test]
fn what_was_appended_is_there_after_a_kill() {
    let disk = CrashDisk::default();
    let mut spool = opened(&disk);
    take(&mut spool, &disk, 1, &[fragment(1, 0, 0, b"one "), fragment(2, 10, 0, b"two ")]);
    take(&mut spool, &disk, 2, &[fragment(2, 10, 1, b"and more")]);
    drop(spool);
    let (mut spool, found) = open(&disk);
    let batches = &found.lanes[&key()].batches;
    assert_eq!(
        batches.iter().map(|batch| (batch.seq.0, batch.blocks, batch.events)).collect::<Vec<_>>(),
        [(1, 1, 10), (2, 2, 20)]
    );
    assert_eq!(content(&mut spool, &disk, &batches[0].locations), b"one ");
    assert_eq!(content(&mut spool, &disk, &batches[1].locations), b"two and more");
    assert_eq!(batches[1].taken_at, Timestamp::from_secs(9));
    assert_eq!((found.damage, found.incarnations.len()), (Damage::default(), 1));
    assert_eq!((found.incarnations[0].seq, &found.incarnations[0].refused), (SeqNo(2), &taken(2).refused));
}

#[test]
fn segments_go_from_the_oldest_on_when_nothing_in_them_is_held() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 40);
    let segments = spool.usage().segments;
    assert!(segments > 3);
    sync(&mut spool, &disk);
    // What is in the middle can go first, and frees nothing.
    spool.release(&locations[10..40]);
    write(&mut spool, &disk);
    assert_eq!(spool.usage().segments, segments);
    spool.release(&locations[1..10]);
    write(&mut spool, &disk);
    assert_eq!(spool.oldest(), Some(SegmentId(1)));
    spool.release(&locations[..1]);
    write(&mut spool, &disk);
    assert_eq!(spool.usage().segments, 1, "the one that is appended to stays");
    assert_eq!((spool.usage().live_bytes, spool.oldest()), (0, None));
}

#[test]
fn a_segment_stays_until_what_follows_it_is_durable() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 40);
    spool.release(&locations);
    write(&mut spool, &disk);
    let last = spool.usage().segments;
    // One removal at a time is not durable, and the head of the last segment, which says what the one before says, is not.
    assert!((2..=3).contains(&last), "{last}");
    sync(&mut spool, &disk);
    assert_eq!((spool.usage().segments, spool.oldest()), (1, None));
}

/// What was copied stands in the log at both places until the copy is safe.
#[test]
fn a_segment_stays_until_the_copy_of_what_it_held_is_durable() {
    let disk = CrashDisk::default();
    let mut spool = opened(&disk);
    let first = fragment(1, 0, 0, &[1; 100]);
    let location = take(&mut spool, &disk, 1, std::slice::from_ref(&first)).locations[0];
    (0..3).for_each(|_| roll(&mut spool, &disk, &Checkpoint::default()));
    sync(&mut spool, &disk);
    let copy = Record::Copy { stream: StreamId(7), taken_at: Timestamp::from_secs(9), fragment: &first };
    spool.append(&copy).unwrap();
    spool.moved(&[location]);
    // The power fails after each thing that is done.
    while let Some(job) = {
        let image = disk.copy();
        image.lose_power(1);
        let (_, found) = open(&image);
        assert_eq!(found.lanes[&key()].batches.len(), 1, "nothing may be removed yet: {spool:?}");
        spool.next_job(LATER)
    } {
        run(&mut spool, &disk, LATER, job);
    }
    sync(&mut spool, &disk);
    let (_, found) = open(&disk);
    assert_eq!(found.lanes[&key()].batches[0].locations.len(), 1);
    assert!(found.lanes[&key()].batches[0].locations[0].segment > location.segment);
    assert!(disk.segments().unwrap().iter().all(|(segment, _)| *segment > location.segment));
}

#[test]
fn a_checkpoint_is_never_there_without_what_it_speaks_of() {
    let disk = CrashDisk::default();
    let (spool, _) = with_batches(&disk, 3);
    drop(spool);
    // Another run begins its segment, which speaks of what the killed one had not synced; then the power fails.
    let (mut spool, found) = open(&disk);
    let checkpoint = Checkpoint { incarnations: found.incarnations, ..Checkpoint::default() };
    roll(&mut spool, &disk, &checkpoint);
    take(&mut spool, &disk, 4, &[fragment(4, 30, 0, b"four")]);
    roll(&mut spool, &disk, &checkpoint);
    drop(spool);
    disk.lose_power(1);
    let (_, found) = open(&disk);
    assert_eq!(found.incarnations.last().unwrap().seq, SeqNo(4));
    assert_eq!(found.lanes[&key()].batches.len(), 4);
}

#[test]
fn a_checkpoint_says_what_is_held_no_more_and_whom_we_know() {
    let disk = CrashDisk::default();
    let (mut spool, _) = with_batches(&disk, 5);
    let known = AcceptedBatch { taken_at: Timestamp::default(), incarnation: 99, ..taken(77) };
    let checkpoint = Checkpoint {
        lanes: vec![LaneCheckpoint {
            lane: key(),
            base: SeqNo(4),
            applied: SeqNo(4),
            events_before: 30,
            last: SeqNo(5),
            events_end: 50,
        }],
        incarnations: vec![known.clone()],
        ..Checkpoint::default()
    };
    roll(&mut spool, &disk, &checkpoint);
    drop(spool);
    let (_, found) = open(&disk);
    assert_eq!(found.lanes[&key()].batches.iter().map(|batch| batch.seq.0).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(found.lanes[&key()].applied, SeqNo(4));
    assert_eq!(found.incarnations.last(), Some(&known));
}

#[test]
fn a_copy_and_a_merge_stand_for_what_was_before() {
    let disk = CrashDisk::default();
    let (mut spool, _) = with_batches(&disk, 5);
    let (stream, taken_at) = (StreamId(7), Timestamp::from_secs(1));
    let copy = fragment(2, 10, 0, b"again");
    spool.append(&Record::Copy { stream, taken_at, fragment: &copy }).unwrap();
    let merged = [fragment(4, 30, 0, b"four and five")];
    spool.append(&Record::Merge { stream, taken_at, fragments: &merged }).unwrap();
    take(&mut spool, &disk, 6, &[fragment(4, 30, 1, b", more"), fragment(5, 50, 0, b"new")]);
    drop(spool);
    let (mut spool, found) = open(&disk);
    let texts: Vec<_> = found.lanes[&key()]
        .batches
        .iter()
        .map(|batch| content(&mut spool, &disk, &batch.locations))
        .collect();
    let expected: [&[u8]; 5] = [&[1; 100], b"again", &[3; 100], b"four and five, more", b"new"];
    assert_eq!(texts, expected);
    assert_eq!(found.damage, Damage::default());
}

#[test]
fn the_bound_is_kept_and_leaves_room_to_make_room() {
    let options = LogOptions { bytes_max: 10_000, ..OPTIONS };
    let disk = CrashDisk::default();
    let (mut spool, _) = LogSpool::open(&mut disk.clone(), options).unwrap();
    roll(&mut spool, &disk, &Checkpoint::default());
    let big = fragment(1, 0, 0, &[1; 7_400]);
    take(&mut spool, &disk, 1, std::slice::from_ref(&big));
    let small = fragment(2, 10, 0, &[1; 300]);
    let refused = append(&mut spool, 2, std::slice::from_ref(&small));
    assert!(matches!(refused, Err(SpoolError::Full { bytes_short }) if bytes_short > 0));
    let (stream, taken_at) = (StreamId(7), Timestamp::default());
    spool.append(&Record::Copy { stream, taken_at, fragment: &small }).unwrap();
    assert!(spool.usage().bytes <= 10_000);
}

#[test]
fn a_disk_that_is_smaller_than_the_bound_is_the_bound() {
    let disk = CrashDisk::default();
    disk.set_room(Some(400_000));
    disk.tells_its_room();
    let options = LogOptions { bytes_max: 1 << 30, segment_bytes: 1 << 26, ..OPTIONS };
    let (mut spool, _) = LogSpool::open(&mut disk.clone(), options).unwrap();
    roll(&mut spool, &disk, &Checkpoint::default());
    let mut locations = Vec::new();
    let refused = (1..).find_map(|seq| {
        if spool.must_roll(1_000) {
            roll(&mut spool, &disk, &Checkpoint::default());
        }
        match append(&mut spool, seq, &[fragment(seq, 10 * (seq - 1), 0, &[1; 1_000])]) {
            Ok(written) => locations.extend(written.locations),
            Err(error) => return Some(error),
        }
        write(&mut spool, &disk);
        None
    });
    // It is refused before the disk says no, so that there is room to make room.
    assert!(matches!(refused, Some(SpoolError::Full { .. })), "{refused:?}");
    assert_eq!((spool.usage().bytes_max, spool.usage().error.clone()), (400_000, None));
    assert!(spool.usage().segments > 3, "in fragments that can go");
    spool.release(&locations);
    sync(&mut spool, &disk);
    assert_eq!(spool.usage().segments, 1);
    take(&mut spool, &disk, 1_000, &[fragment(1, 0, 0, &[1; 1_000])]);
    // Somebody else gives room back.
    disk.set_room(Some(1 << 31));
    sync(&mut spool, &disk);
    assert_eq!(spool.usage().bytes_max, 1 << 30);
}

#[test]
fn what_a_full_disk_does_not_take_is_kept_and_written_when_there_is_room() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 3);
    let (bytes, written) = (disk.bytes(), spool.written());
    disk.set_room(Some(20));
    take(&mut spool, &disk, 4, &[fragment(4, 30, 0, &[4; 100])]);
    sync(&mut spool, &disk);
    assert_eq!((disk.bytes(), spool.written()), (bytes, written));
    assert!(spool.usage().error.unwrap().contains("no storage space"));
    assert_eq!((spool.usage().fault, spool.usage().failures), (Some(DiskFault::Write), 2));
    assert_eq!(content(&mut spool, &disk, &locations[2..]), [3; 100]);
    disk.set_room(None);
    while spool.written() < spool.position() {
        let at = spool.wake_at().unwrap();
        let job = spool.next_job(at).unwrap();
        run(&mut spool, &disk, at, job);
    }
    assert_eq!((spool.usage().error, spool.usage().fault), (None, None));
    drop(spool);
    let (_, found) = open(&disk);
    assert_eq!((found.lanes[&key()].batches.len(), found.damage), (4, Damage::default()));
}

#[test]
fn what_comes_while_the_disk_is_busy_is_written_together() {
    let disk = CrashDisk::default();
    let mut spool = opened(&disk);
    append(&mut spool, 1, &[fragment(1, 0, 0, b"one")]).unwrap();
    let job = spool.next_job(NOW).unwrap();
    assert!(matches!(job, DiskJob::Write { .. }));
    for seq in 2..10 {
        append(&mut spool, seq, &[fragment(seq, 10 * (seq - 1), 0, b"more")]).unwrap();
    }
    assert!(spool.next_job(NOW).is_none(), "one job at a time");
    assert!(spool.written() < spool.position());
    run(&mut spool, &disk, NOW, job);
    let job = spool.next_job(NOW).unwrap();
    run(&mut spool, &disk, NOW, job);
    assert_eq!(spool.written(), spool.position());
    assert!(spool.durable() < spool.position() && spool.next_job(NOW).is_none());
    sync(&mut spool, &disk);
    assert_eq!(spool.durable(), spool.position());
}

#[test]
fn what_waits_to_be_written_is_bounded() {
    let options = LogOptions { bytes_max: 1 << 30, segment_bytes: 1 << 29, ..OPTIONS };
    let (mut spool, _) = LogSpool::open(&mut CrashDisk::default(), options).unwrap();
    spool.roll(&Checkpoint::default()).unwrap();
    // The disk hangs.
    assert!(spool.next_job(NOW).is_some());
    let large = [fragment(1, 0, 0, &vec![1; 7 << 20])];
    let record = Record::Merge { stream: StreamId(7), taken_at: Timestamp::default(), fragments: &large };
    let refused = (0..9).find_map(|n| spool.append(&record).err().map(|error| (n, error)));
    assert!(matches!(refused, Some((2, SpoolError::Behind { bytes })) if bytes > 14 << 20), "{refused:?}");
}

/// Writes again what is held, as the Relay does.
fn renew(spool: &mut LogSpool, disk: &CrashDisk, held: &[(Fragment, FragmentLocation)]) {
    assert_eq!(spool.renewal(LATER), Renewal::Begin);
    spool.renew(&Checkpoint::default()).unwrap();
    write(spool, disk);
    let Renewal::Copy(through) = spool.renewal(LATER) else { panic!("{:?}", spool.renewal(LATER)) };
    let refused = append(spool, 99, &[fragment(99, 0, 0, b"not now")]);
    assert!(matches!(refused, Err(SpoolError::Behind { .. })), "nothing new comes between the copies");
    for (fragment, location) in held {
        assert!(location.segment <= through);
        let record = Record::Copy { stream: StreamId(7), taken_at: Timestamp::default(), fragment };
        spool.append(&record).unwrap();
        spool.release(std::slice::from_ref(location));
    }
    spool.renew(&Checkpoint { incarnations: vec![taken(9)], ..Checkpoint::default() }).unwrap();
}

#[test]
fn after_a_sync_that_failed_all_that_is_held_is_written_again_before_anything_is_told_to_be_safe() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 3);
    sync(&mut spool, &disk);
    let durable = spool.durable();
    let location = take(&mut spool, &disk, 4, &[fragment(4, 30, 0, &[4; 100])]).locations[0];
    disk.fail_syncs(1);
    sync(&mut spool, &disk);
    assert_eq!(spool.usage().fault, Some(DiskFault::Sync));
    let (written, position) = (spool.written(), spool.position());
    // What a second sync would say proves nothing.
    assert_eq!((spool.durable(), spool.next_job(LATER).is_none()), (durable, true));
    let held: Vec<_> = locations.iter().chain([&location]).zip(1_u8..).collect();
    let held: Vec<_> = held
        .into_iter()
        .map(|(location, seq)| (fragment(seq.into(), 10 * (u64::from(seq) - 1), 0, &[seq; 100]), *location))
        .collect();
    renew(&mut spool, &disk, &held);
    append(&mut spool, 5, &[fragment(5, 40, 0, &[5; 100])]).unwrap();
    assert_eq!((spool.durable(), spool.written()), (durable, written));
    sync(&mut spool, &disk);
    assert!(spool.durable() > position);
    assert_eq!((spool.durable(), spool.usage().fault), (spool.position(), None));
    assert_eq!(spool.usage().segments, 2, "what is not believed is gone");
    drop(spool);
    let (mut spool, found) = open(&disk);
    let batches = found.lanes[&key()].batches.clone();
    assert_eq!((batches.len(), found.damage), (5, Damage::default()));
    assert_eq!(content(&mut spool, &disk, &batches[3].locations), [4; 100]);
}

#[test]
fn files_that_are_gone_are_made_anew_and_what_is_read_of_them_is_what_was_in_them() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 3);
    sync(&mut spool, &disk);
    disk.lose_files();
    append(&mut spool, 4, &[fragment(4, 30, 0, &[4; 100])]).unwrap();
    sync(&mut spool, &disk);
    assert_eq!(spool.usage().fault, Some(DiskFault::Gone));
    assert_eq!(content(&mut spool, &disk, &locations[..1]), [1; 100], "as long as they are open");
    let held: Vec<_> = locations.iter().zip(1_u64..).collect();
    let held: Vec<_> = held
        .into_iter()
        .map(|(location, seq)| (fragment(seq, 10 * (seq - 1), 0, &[7; 100]), *location))
        .collect();
    renew(&mut spool, &disk, &held);
    sync(&mut spool, &disk);
    assert_eq!((spool.durable(), spool.usage().fault), (spool.position(), None));
    drop(spool);
    let (_, found) = open(&disk);
    assert_eq!((found.lanes[&key()].batches.len(), found.damage), (3, Damage::default()));
    assert_eq!(
        found.incarnations.last(),
        Some(&AcceptedBatch { taken_at: Timestamp::default(), ..taken(9) })
    );
}

#[test]
fn a_disk_that_never_syncs_is_given_up_and_what_is_durable_is_still_known() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 3);
    sync(&mut spool, &disk);
    let durable = spool.durable();
    take(&mut spool, &disk, 4, &[fragment(4, 30, 0, &[4; 100])]);
    disk.fail_syncs(u32::MAX);
    sync(&mut spool, &disk);
    for _ in 0..2 {
        assert_eq!(spool.renewal(LATER + LATER), Renewal::Begin);
        spool.renew(&Checkpoint::default()).unwrap();
        sync(&mut spool, &disk);
    }
    assert_eq!((spool.durable(), spool.usage().fault), (durable, Some(DiskFault::Broken)));
    assert!(matches!(append(&mut spool, 5, &[fragment(5, 40, 0, b"no")]), Err(SpoolError::Broken)));
    assert!(spool.next_job(LATER).is_none() && spool.usage().error.is_some());
    assert_eq!(content(&mut spool, &disk, &locations[2..]), [3; 100]);
}

#[test]
fn what_was_damaged_in_place_is_told_when_it_is_read_back_and_the_rest_is_given() {
    let disk = CrashDisk::default();
    let (mut spool, locations) = with_batches(&disk, 3);
    disk.flip(locations[1].segment, locations[1].offset as usize + 7, 4);
    let found = read(&mut spool, &disk, &locations);
    assert_eq!((found.bytes.to_vec(), found.damaged), ([[1; 100], [3; 100]].concat(), vec![locations[1]]));
}

#[test]
fn a_segment_that_is_missing_or_cut_short_leaves_all_the_others_and_is_told() {
    for cut in [false, true] {
        let disk = CrashDisk::default();
        let (_, locations) = with_batches(&disk, 40);
        let inside = locations.iter().filter(|location| location.segment == SegmentId(2)).count() as u64;
        assert!(inside > 2 && locations.last().unwrap().segment > SegmentId(3));
        if cut {
            disk.tear(SegmentId(2), 100_000);
        } else {
            disk.clone().remove(SegmentId(2)).unwrap();
        }
        let (_, found) = open(&disk);
        let batches = &found.lanes[&key()].batches;
        assert_eq!(batches.len(), 40, "the lane stays without gaps");
        let (events, lost) = batches
            .iter()
            .fold((0, 0), |(events, lost), batch| (events + batch.events, lost + batch.events_lost()));
        assert_eq!((events, lost), (400 - 10 * inside, 10 * inside));
        assert_eq!(found.damage.events, lost);
        assert!(found.damage.stretches == 1 && found.damage.bytes > 100 * inside, "{:?}", found.damage);
    }
}

#[test]
fn a_length_that_flips_or_bytes_that_are_zero_cost_no_more_than_the_records_they_are_in() {
    for zeros in [0, 1, 300] {
        let disk = CrashDisk::default();
        let (_, locations) = with_batches(&disk, 30);
        // Somewhere in the head of the third record: its length is lost.
        let start = (locations[1].offset + locations[1].bytes) as usize;
        if zeros == 0 {
            disk.flip(locations[2].segment, start + 2, 0x40);
        }
        (0..zeros).for_each(|at| disk.zero(locations[2].segment, start + at));
        let (_, found) = open(&disk);
        let batches = &found.lanes[&key()].batches;
        let lost: Vec<_> =
            batches.iter().filter(|batch| batch.events == 0).map(|batch| batch.seq.0).collect();
        let expected: &[u64] = if zeros < 2 { &[3] } else { &[3, 4] };
        assert_eq!((batches.len(), lost.as_slice()), (30, expected));
        assert_eq!(found.damage.events, 10 * lost.len() as u64);
        assert_eq!((found.damage.stretches, found.torn.len()), (1, 0));
    }
}

#[test]
fn a_log_of_an_older_version_is_refused_and_left_as_it_is() {
    let disk = CrashDisk::default();
    let mut head = [&b"TABASPOL\x01"[..], &7_u64.to_le_bytes()].concat();
    head.extend(crc32fast::hash(&head).to_le_bytes());
    disk.clone().create(SegmentId(7), &head).unwrap();
    let bytes = disk.bytes();
    let error = LogSpool::open(&mut disk.clone(), OPTIONS).unwrap_err().to_string();
    assert!(error.contains("is of version 1"), "{error}");
    assert_eq!(disk.bytes(), bytes);
}

#[test]
fn a_flipped_bit_costs_one_record_and_its_events_are_known_to_be_missing() {
    let disk = CrashDisk::default();
    let (spool, locations) = with_batches(&disk, 5);
    disk.flip(locations[2].segment, locations[2].offset as usize, 1);
    drop(spool);
    let (_, found) = open(&disk);
    let batches: Vec<_> = found.lanes[&key()]
        .batches
        .iter()
        .map(|batch| (batch.seq.0, batch.events, batch.events_lost()))
        .collect();
    assert_eq!(batches, [(1, 10, 0), (2, 10, 0), (3, 0, 10), (4, 10, 0), (5, 10, 0)]);
    assert_eq!((found.damage.stretches, found.damage.events), (1, 10));
    assert!(found.damage.bytes > 100);
}

#[test]
fn a_torn_end_is_told_once() {
    let disk = CrashDisk::default();
    drop(with_batches(&disk, 3));
    disk.tear(SegmentId(1), 7);
    let (_, found) = open(&disk);
    assert_eq!((found.damage.stretches, found.lanes[&key()].batches.len()), (1, 2));
    let (_, again) = open(&disk);
    assert_eq!((again.damage, again.lanes), (Damage::default(), found.lanes));
}

#[test]
fn a_batch_whose_middle_is_damaged_keeps_the_rest() {
    let disk = CrashDisk::default();
    let mut spool = opened(&disk);
    take(&mut spool, &disk, 1, &[fragment(1, 0, 0, b"a")]);
    let lost = take(&mut spool, &disk, 2, &[fragment(1, 0, 1, b"b")]).locations[0];
    take(&mut spool, &disk, 3, &[fragment(1, 0, 2, b"c"), fragment(2, 30, 0, b"d")]);
    disk.flip(lost.segment, lost.offset as usize, 1);
    drop(spool);
    let (mut spool, found) = open(&disk);
    let first = &found.lanes[&key()].batches[0];
    assert_eq!((content(&mut spool, &disk, &first.locations).as_slice(), first.blocks), (&b"ac"[..], 2));
    assert_eq!((first.events, first.events_lost()), (20, 10));
}

proptest! {
    /// A log that was cut off anywhere, or lost power, is a prefix of what was appended, at least as far as it was
    /// synced, and never a Batch that is not whole.
    #[test]
    fn what_is_read_back_is_a_prefix(batches in 1_u64..40, synced in 0_u64..40, keep in any::<u8>(), cut in 0_usize..200) {
        let disk = CrashDisk::default();
        let mut spool = opened(&disk);
        let mut durable = 0;
        for seq in 1..=batches {
            if spool.must_roll(200) {
                roll(&mut spool, &disk, &Checkpoint::default());
            }
            take(&mut spool, &disk, seq, &[fragment(seq, 10 * (seq - 1), 0, &[seq as u8; 100])]);
            if seq == synced {
                sync(&mut spool, &disk);
                durable = seq;
            }
        }
        let last = spool.usage().segments;
        drop(spool);
        disk.lose_power(keep);
        if durable < batches && keep == 255 {
            disk.tear(SegmentId(last), cut.min(100));
        }
        let (mut spool, found) = open(&disk);
        let found = found.lanes.get(&key()).cloned().unwrap_or_default().batches;
        // Files that were cut independently of each other may leave holes behind what is durable: they are known.
        let whole = found.iter().take_while(|batch| batch.blocks == 1).count() as u64;
        prop_assert!(whole >= durable, "{whole} of {batches} are there, {durable} were synced");
        for (batch, seq) in found.iter().zip(1_u64..) {
            prop_assert_eq!(batch.seq.0, seq);
            if batch.blocks == 1 {
                prop_assert_eq!(content(&mut spool, &disk, &batch.locations), vec![seq as u8; 100]);
            }
        }
    }

    /// Whatever a log is overwritten with, opening it is no panic, and what is believed has a checksum that fits.
    #[test]
    fn damage_is_never_believed(flips in prop::collection::vec((1_u64..6, 0_usize..2_000, 1_u8..), 1..8)) {
        let disk = CrashDisk::default();
        drop(with_batches(&disk, 30));
        for (segment, at, bits) in flips {
            disk.flip(SegmentId(segment), at, bits);
        }
        let (mut spool, found) = open(&disk);
        for batch in found.lanes.values().flat_map(|lane| &lane.batches).filter(|batch| batch.blocks > 0) {
            prop_assert_eq!(content(&mut spool, &disk, &batch.locations), vec![batch.seq.0 as u8; 100]);
        }
    }
}
