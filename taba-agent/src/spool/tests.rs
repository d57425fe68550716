use proptest::prelude::*;
use taba_core::ledger::Why;
use taba_core::wire::Refusal;
use taba_core::{ClientId, SeqNo, StreamId, Timestamp};

use super::crash::CrashDisk;
use super::record::{Floor, Piece, Taken};
use super::recovery::{Damage, Recovered};
use super::*;
use crate::lane::LaneKey;

const OPTIONS: LogOptions =
    LogOptions { bytes_max: 1 << 20, segment_bytes: 2_000, sync: SyncPolicy::Interval };

fn key() -> LaneKey {
    LaneKey { stream: StreamId(7), vbucket: 3 }
}

fn taken(seq: u64) -> Taken {
    let refused = vec![Refusal { block: 1, why: Why::BadName, events: seq }];
    let client = ClientId::new("web").unwrap();
    Taken { client, incarnation: 1, seq: SeqNo(seq), taken_at: Timestamp::from_secs(9), refused }
}

/// The `part`-th piece of a Batch, one Block of 10 events each; parts from 0.
fn piece(seq: u64, events_before: u64, part: u64, bytes: &[u8]) -> Piece {
    let (seq, blocks_before) = (SeqNo(seq), part);
    Piece { vbucket: 3, seq, events_before, blocks_before, blocks: 1, events: 10, bytes: bytes.to_vec() }
}

fn open(disk: &CrashDisk) -> (LogSpool<CrashDisk>, Recovered) {
    LogSpool::open(disk.clone(), OPTIONS).unwrap()
}

fn opened(disk: &CrashDisk) -> LogSpool<CrashDisk> {
    let (mut spool, _) = open(disk);
    spool.roll(&Checkpoint::default()).unwrap();
    spool
}

fn take(spool: &mut LogSpool<CrashDisk>, seq: u64, pieces: &[Piece]) -> Result<Written, SpoolError> {
    let written = spool.append(&Record::Take { taken: &taken(seq), stream: StreamId(7), pieces })?;
    spool.flush().map(|_| written)
}

fn sync(spool: &mut LogSpool<CrashDisk>) {
    spool.flush().unwrap();
    if let Some(job) = spool.sync_job() {
        let outcome = (job.run)();
        spool.synced(job.position, outcome);
    }
}

/// Batches of one Lane, each of one piece of 100 bytes, one in a record of its own.
fn with_batches(disk: &CrashDisk, batches: u64) -> (LogSpool<CrashDisk>, Vec<Place>) {
    let mut spool = opened(disk);
    let mut places = Vec::new();
    for seq in 1..=batches {
        if spool.must_roll(200) {
            spool.roll(&Checkpoint::default()).unwrap();
        }
        let piece = piece(seq, 10 * (seq - 1), 0, &[seq as u8; 100]);
        places.extend(take(&mut spool, seq, &[piece]).unwrap().places);
    }
    (spool, places)
}

fn content(spool: &LogSpool<CrashDisk>, places: &[Place]) -> Vec<u8> {
    spool.read(places).unwrap().to_vec()
}

#[test]
fn what_was_appended_is_there_after_a_kill() {
    let disk = CrashDisk::default();
    let mut spool = opened(&disk);
    take(&mut spool, 1, &[piece(1, 0, 0, b"one "), piece(2, 10, 0, b"two ")]).unwrap();
    take(&mut spool, 2, &[piece(2, 10, 1, b"and more")]).unwrap();
    drop(spool);
    let (spool, found) = open(&disk);
    let batches = &found.lanes[&key()].batches;
    assert_eq!(
        batches.iter().map(|batch| (batch.seq.0, batch.blocks, batch.events)).collect::<Vec<_>>(),
        [(1, 1, 10), (2, 2, 20)]
    );
    assert_eq!(content(&spool, &batches[0].places), b"one ");
    assert_eq!(content(&spool, &batches[1].places), b"two and more");
    assert_eq!(batches[1].taken_at, Timestamp::from_secs(9));
    assert_eq!((found.damage, found.incarnations.len()), (Damage::default(), 1));
    assert_eq!((found.incarnations[0].seq, &found.incarnations[0].refused), (SeqNo(2), &taken(2).refused));
}

#[test]
fn segments_go_from_the_oldest_on_when_nothing_in_them_is_held() {
    let disk = CrashDisk::default();
    let (mut spool, places) = with_batches(&disk, 40);
    let segments = spool.room().segments;
    assert!(segments > 3);
    sync(&mut spool);
    // What is in the middle can go first, and frees nothing.
    spool.release(&places[10..40]);
    assert_eq!(spool.room().segments, segments);
    spool.release(&places[1..10]);
    assert_eq!(spool.oldest(), Some(SegmentId(1)));
    spool.release(&places[..1]);
    assert_eq!(spool.room().segments, 1, "the one that is appended to stays");
    assert_eq!((spool.room().live_bytes, spool.oldest()), (0, None));
}

#[test]
fn a_segment_stays_until_what_follows_it_is_durable() {
    let disk = CrashDisk::default();
    let (mut spool, places) = with_batches(&disk, 40);
    spool.release(&places);
    let last = spool.room().segments;
    assert_eq!(last, 2, "the head of the last segment is not durable, and says what the one before says");
    sync(&mut spool);
    assert_eq!((spool.room().segments, spool.oldest()), (1, None));
}

#[test]
fn a_checkpoint_is_never_there_without_what_it_speaks_of() {
    let disk = CrashDisk::default();
    let (spool, _) = with_batches(&disk, 3);
    drop(spool);
    // Another run begins its segment, which speaks of what the killed one had not synced; then the power fails.
    let (mut spool, found) = open(&disk);
    let checkpoint = Checkpoint { incarnations: found.incarnations, ..Checkpoint::default() };
    spool.roll(&checkpoint).unwrap();
    take(&mut spool, 4, &[piece(4, 30, 0, b"four")]).unwrap();
    spool.roll(&checkpoint).unwrap();
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
    let known = Taken { taken_at: Timestamp::default(), incarnation: 99, ..taken(77) };
    let checkpoint = Checkpoint {
        floors: vec![Floor { lane: key(), base: SeqNo(4), applied: SeqNo(4) }],
        incarnations: vec![known.clone()],
        clocks: Vec::new(),
    };
    spool.roll(&checkpoint).unwrap();
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
    let copy = piece(2, 10, 0, b"again");
    spool.append(&Record::Copy { stream, taken_at, piece: &copy }).unwrap();
    let merged = [piece(4, 30, 0, b"four and five")];
    spool.append(&Record::Merge { stream, taken_at, pieces: &merged }).unwrap();
    spool.flush().unwrap();
    take(&mut spool, 6, &[piece(4, 30, 1, b", more"), piece(5, 50, 0, b"new")]).unwrap();
    drop(spool);
    let (spool, found) = open(&disk);
    let texts: Vec<_> =
        found.lanes[&key()].batches.iter().map(|batch| content(&spool, &batch.places)).collect();
    let expected: [&[u8]; 5] = [&[1; 100], b"again", &[3; 100], b"four and five, more", b"new"];
    assert_eq!(texts, expected);
    assert_eq!(found.damage, Damage::default());
}

#[test]
fn the_bound_is_kept_and_leaves_room_to_make_room() {
    let options = LogOptions { bytes_max: 10_000, ..OPTIONS };
    let (mut spool, _) = LogSpool::open(CrashDisk::default(), options).unwrap();
    spool.roll(&Checkpoint::default()).unwrap();
    let big = piece(1, 0, 0, &[1; 7_400]);
    take(&mut spool, 1, std::slice::from_ref(&big)).unwrap();
    let small = piece(2, 10, 0, &[1; 300]);
    let refused = take(&mut spool, 2, std::slice::from_ref(&small));
    assert!(matches!(refused, Err(SpoolError::Full { bytes_short }) if bytes_short > 0));
    let (stream, taken_at) = (StreamId(7), Timestamp::default());
    spool.append(&Record::Copy { stream, taken_at, piece: &small }).unwrap();
    assert!(spool.room().bytes <= 10_000);
}

#[test]
fn what_a_full_disk_does_not_take_is_kept_and_written_when_there_is_room() {
    let disk = CrashDisk::default();
    let (mut spool, places) = with_batches(&disk, 3);
    let bytes = disk.bytes();
    disk.set_room(Some(20));
    let next = [piece(4, 30, 0, &[4; 100])];
    assert!(matches!(take(&mut spool, 4, &next), Err(SpoolError::Disk(_))));
    assert!(matches!(spool.flush(), Err(SpoolError::Disk(_))));
    assert!(matches!(spool.roll(&Checkpoint::default()), Err(SpoolError::Disk(_))));
    assert_eq!(disk.bytes(), bytes);
    assert!(spool.room().error.unwrap().contains("no storage space"));
    assert_eq!(content(&spool, &places[2..]), [3; 100]);
    disk.set_room(None);
    spool.flush().unwrap();
    assert_eq!(spool.room().error, None);
    drop(spool);
    let (_, found) = open(&disk);
    assert_eq!((found.lanes[&key()].batches.len(), found.damage), (4, Damage::default()));
}

#[test]
fn what_is_not_written_yet_can_be_read_back() {
    let mut spool = opened(&CrashDisk::default());
    let pieces = [piece(1, 0, 0, b"written"), piece(2, 10, 0, b"not written")];
    let record = |pieces| Record::Merge { stream: StreamId(7), taken_at: Timestamp::default(), pieces };
    let first = spool.append(&record(&pieces[..1])).unwrap();
    spool.flush().unwrap();
    let second = spool.append(&record(&pieces[1..])).unwrap();
    assert!(spool.durable() < second.position);
    let places = [first.places, second.places].concat();
    assert_eq!(content(&spool, &places), b"writtennot written");
}

#[test]
fn what_waits_to_be_written_is_bounded() {
    let disk = CrashDisk::default();
    let options = LogOptions { bytes_max: 1 << 30, segment_bytes: 1 << 29, ..OPTIONS };
    let (mut spool, _) = LogSpool::open(disk.clone(), options).unwrap();
    spool.roll(&Checkpoint::default()).unwrap();
    disk.set_room(Some(0));
    let large = [piece(1, 0, 0, &vec![1; 7 << 20])];
    let record = Record::Merge { stream: StreamId(7), taken_at: Timestamp::default(), pieces: &large };
    let refused = (0..9).find_map(|n| spool.append(&record).err().map(|error| (n, error)));
    assert!(matches!(refused, Some((2, SpoolError::Disk(_)))), "{refused:?}");
}

#[test]
fn after_a_sync_that_failed_nothing_is_taken_and_what_is_durable_is_still_known() {
    let (mut spool, _) = with_batches(&CrashDisk::default(), 3);
    sync(&mut spool);
    let durable = spool.durable();
    let next = [piece(4, 30, 0, &[4; 100])];
    take(&mut spool, 4, &next).unwrap();
    let job = spool.sync_job().unwrap();
    spool.synced(job.position, Err(io::Error::other("the disk is gone")));
    assert_eq!(spool.durable(), durable);
    assert!(matches!(take(&mut spool, 5, &next), Err(SpoolError::Broken)));
    assert!(spool.sync_job().is_none() && spool.room().error.is_some());
}

#[test]
fn what_was_damaged_in_place_is_told_when_it_is_read_back() {
    let disk = CrashDisk::default();
    let (spool, places) = with_batches(&disk, 3);
    disk.flip(places[1].segment, places[1].offset as usize + 7, 4);
    assert!(matches!(spool.read(&places[1..2]), Err(ReadError::Damaged { bytes: 100, .. })));
    assert_eq!(content(&spool, &places[2..]), [3; 100]);
}

#[test]
fn a_flipped_bit_costs_one_record_and_its_events_are_known_to_be_missing() {
    let disk = CrashDisk::default();
    let (spool, places) = with_batches(&disk, 5);
    disk.flip(places[2].segment, places[2].offset as usize, 1);
    drop(spool);
    let (_, found) = open(&disk);
    let batches: Vec<_> = found.lanes[&key()]
        .batches
        .iter()
        .map(|batch| (batch.seq.0, batch.events, batch.events_lost))
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
    take(&mut spool, 1, &[piece(1, 0, 0, b"a")]).unwrap();
    let lost = take(&mut spool, 2, &[piece(1, 0, 1, b"b")]).unwrap().places[0];
    take(&mut spool, 3, &[piece(1, 0, 2, b"c"), piece(2, 30, 0, b"d")]).unwrap();
    disk.flip(lost.segment, lost.offset as usize, 1);
    drop(spool);
    let (spool, found) = open(&disk);
    let first = &found.lanes[&key()].batches[0];
    assert_eq!((content(&spool, &first.places).as_slice(), first.blocks), (&b"ac"[..], 2));
    assert_eq!((first.events, first.events_lost), (20, 10));
}

#[test]
fn a_segment_in_the_middle_that_is_not_readable_at_all_leaves_the_others() {
    let disk = CrashDisk::default();
    let (spool, places) = with_batches(&disk, 30);
    let middle = SegmentId(2);
    disk.flip(middle, 3, 1);
    let inside = places.iter().filter(|place| place.segment == middle).count() as u64;
    drop(spool);
    let (_, found) = open(&disk);
    let batches = &found.lanes[&key()].batches;
    assert_eq!(batches.len(), 30, "the lane stays without gaps");
    assert_eq!(batches.iter().map(|batch| batch.events_lost).sum::<u64>(), 10 * inside);
    assert_eq!(found.damage.events, 10 * inside);
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
                spool.roll(&Checkpoint::default()).unwrap();
            }
            take(&mut spool, seq, &[piece(seq, 10 * (seq - 1), 0, &[seq as u8; 100])]).unwrap();
            if seq == synced {
                sync(&mut spool);
                durable = seq;
            }
        }
        let last = spool.room().segments;
        drop(spool);
        disk.lose_power(keep);
        if durable < batches && keep == 255 {
            disk.tear(SegmentId(last), cut.min(100));
        }
        let (spool, found) = open(&disk);
        let found = found.lanes.get(&key()).cloned().unwrap_or_default().batches;
        // Files that were cut independently of each other may leave holes behind what is durable: they are known.
        let whole = found.iter().take_while(|batch| batch.blocks == 1).count() as u64;
        prop_assert!(whole >= durable, "{whole} of {batches} are there, {durable} were synced");
        for (batch, seq) in found.iter().zip(1_u64..) {
            prop_assert_eq!(batch.seq.0, seq);
            if batch.blocks == 1 {
                prop_assert_eq!(content(&spool, &batch.places), vec![seq as u8; 100]);
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
        let (spool, found) = open(&disk);
        for batch in found.lanes.values().flat_map(|lane| &lane.batches).filter(|batch| batch.blocks > 0) {
            prop_assert_eq!(content(&spool, &batch.places), vec![batch.seq.0 as u8; 100]);
        }
    }
}
