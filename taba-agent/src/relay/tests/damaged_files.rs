//! Everything that can be done to the files of a Spool while its Agent is not running. Whatever it is: the Agent starts,
//! all that is intact is delivered once, and folded + dropped comes to what was recorded, or the Agent says that more is
//! lost than it knows.

use super::*;
use crate::spool::SegmentId;
use crate::spool::record::{ParsedRecord, SEGMENT_HEAD_BYTES, next};
use crate::spool::recovery::Damage;

type Files = BTreeMap<SegmentId, Vec<u8>>;

/// What is done to one file.
type Change = Box<dyn Fn(&mut Vec<u8>)>;

/// What is done to the files.
struct FileChanges {
    name: String,
    /// Whether nothing that was taken is lost by it.
    is_harmless: bool,
    /// Whether bytes that no reader understands are there afterwards.
    keeps_bytes: bool,
    run: Box<dyn Fn(&mut Files)>,
}

fn file_change(name: String, is_harmless: bool, run: impl Fn(&mut Files) + 'static) -> FileChanges {
    let keeps_bytes = ["byte", "zeros", "garbage", "foreign"].iter().any(|word| name.contains(word));
    FileChanges { name, is_harmless, keeps_bytes, run: Box::new(run) }
}

/// Where the records of a segment begin, and where the last one ends.
fn borders(file: &[u8]) -> Vec<usize> {
    let mut borders = vec![SEGMENT_HEAD_BYTES];
    while let ParsedRecord::Record(_, bytes) = next(&file[*borders.last().unwrap()..]) {
        borders.push(borders.last().unwrap() + bytes);
    }
    borders
}

fn all(files: &Files) -> Vec<FileChanges> {
    let ids: Vec<SegmentId> = files.keys().copied().collect();
    let last = *ids.last().unwrap();
    let beyond = SegmentId(last.0 + 5);
    let mut all = vec![
        file_change("delete all".into(), false, Files::clear),
        file_change("a foreign file".into(), true, move |files| {
            files.insert(beyond, b"somebody else's bytes, and many of them".repeat(9));
        }),
        file_change("rotate all names".into(), true, |files| {
            let (names, mut contents): (Vec<_>, Vec<_>) = std::mem::take(files).into_iter().unzip();
            contents.rotate_left(1);
            files.extend(names.into_iter().zip(contents));
        }),
    ];
    for (place, &id) in ids.iter().enumerate() {
        let file = &files[&id];
        let borders = borders(file);
        let mut edit = |name: String, is_harmless, change: Change| {
            let run = move |files: &mut Files| change(files.get_mut(&id).unwrap());
            all.push(file_change(format!("segment {place}: {name}"), is_harmless, run));
        };
        edit("emptied".into(), false, Box::new(Vec::clear));
        edit("head only".into(), false, Box::new(|file| file.truncate(SEGMENT_HEAD_BYTES)));
        edit("garbage behind".into(), true, Box::new(|file| file.extend([7; 100])));
        for at in [0, 8, 12, 20, 33] {
            edit(format!("byte {at} of the head"), true, Box::new(move |file| file[at] ^= 0x10));
        }
        for &border in &borders {
            edit(
                format!("cut at the record border {border}"),
                border == file.len(),
                Box::new(move |file| file.truncate(border)),
            );
        }
        for pair in borders.windows(2).step_by(2) {
            let (start, bytes) = (pair[0], pair[1] - pair[0]);
            edit(
                format!("cut in the record at {start}"),
                false,
                Box::new(move |file| file.truncate(start + bytes / 2)),
            );
            // Its lengths, its checksum, its kind, what its head says, its data.
            for at in [0, 2, 4, 9, 12, 20, bytes - 1] {
                edit(
                    format!("byte {at} of the record at {start}"),
                    false,
                    Box::new(move |file| file[start + at] ^= 0x20),
                );
            }
            edit(
                format!("zeros at {start}"),
                false,
                Box::new(move |file| file.iter_mut().skip(start + 5).take(512).for_each(|byte| *byte = 0)),
            );
        }
        // What is there twice counts once, wherever the second one stands.
        edit("its content again behind it".into(), true, Box::new(|file| file.extend(file.clone())));
        for (number, pair) in borders.windows(2).enumerate() {
            let record = file[pair[0]..pair[1]].to_vec();
            let at = borders[(number * 7 + 3) % borders.len()].max(pair[1]);
            let end = file.len();
            edit(
                format!("the record at {} again at {at} and {end}", pair[0]),
                true,
                Box::new(move |file| {
                    file.extend_from_slice(&record);
                    file.splice(at..at, record.iter().copied());
                }),
            );
        }
        for (&other, content) in files.iter().filter(|(other, _)| **other != id) {
            let content = content.clone();
            edit(
                format!("behind it that of {other}"),
                true,
                Box::new(move |file| file.extend_from_slice(&content)),
            );
        }
        all.push(file_change(format!("segment {place}: deleted"), false, move |files| {
            drop(files.remove(&id));
        }));
        all.push(file_change(format!("segment {place}: doubled"), true, move |files| {
            let copy = files[&id].clone();
            files.insert(beyond, copy);
        }));
        all.push(file_change(format!("segment {place}: renamed, byte 20 of the head"), true, move |files| {
            let mut file = files.remove(&id).unwrap();
            file[20] ^= 1;
            files.insert(beyond, file);
        }));
        all.push(file_change(format!("segment {place}: renamed"), true, move |files| {
            let file = files.remove(&id).unwrap();
            files.insert(beyond, file);
        }));
        if let Some(&other) = ids.get(place + 1) {
            all.push(file_change(format!("segment {place}: swapped with the next"), true, move |files| {
                let (one, two) = (files[&id].clone(), files[&other].clone());
                files.extend([(id, two), (other, one)]);
            }));
        }
    }
    all
}

/// An Agent whose Servers took what came up to `delivered` of `rounds`, and were away from then on; then it was killed.
fn killed(merge_after: Duration, rounds: usize, delivered: usize) -> World {
    let mut world = World::new(5);
    world.config = config(|config| {
        (config.requests_per_server_max, config.spool_sync) = (2, SyncPolicy::Always);
        config.merge_after = merge_after;
    });
    world.disk = CrashDisk::default();
    world.relay = World::open(&world.config, &world.disk, 5, moment(Duration::ZERO)).0;
    for round in 0..rounds {
        for client in 0..CLIENTS {
            world.accept(client, 12);
            world.sync();
        }
        world.now += Duration::from_millis(50);
        world.handle(Input::Tick);
        while round < delivered && !world.flying.is_empty() {
            world.replica = world.store.clone();
            world.deliver(0, Fate::Answered);
        }
        world.sync();
    }
    assert!(world.clients.iter().all(|(_, waiting)| waiting.is_none()), "every Client was answered");
    world
}

/// Starts the Agent again, and lets it deliver all that it has.
fn delivered(before: &World, change: &FileChanges) -> (World, Damage) {
    let mut world = World::new(9);
    world.config = before.config.clone();
    world.disk = before.disk.copy();
    world.disk.edit(|files| (change.run)(files));
    (world.store, world.replica) = (before.store.clone(), before.store.clone());
    (world.clients, world.recorded) = (before.clients.clone(), before.recorded.clone());
    (world.now, world.runs) = (before.now, before.runs);
    let damage = world.restart_damaged();
    world.drain();
    (world, damage)
}

/// What is wrong afterwards.
fn wrong(world: &World, damage: &Damage, change: &FileChanges) -> Vec<String> {
    let store = &world.store;
    let of = |counts: &BTreeMap<String, u64>, client: &String| counts.get(client).copied().unwrap_or(0);
    let total: u64 = world.recorded.values().sum();
    let folded: u64 = store.clients.values().sum();
    let dropped = store.damaged.values().sum::<u64>() + store.lost;
    let mut wrong = Vec::new();
    for (client, recorded) in &world.recorded {
        if of(&store.clients, client) + of(&store.damaged, client) > *recorded {
            wrong.push(format!("more of {client} than the {recorded} that were recorded"));
        }
    }
    if folded + dropped > total || (folded + dropped < total && !damage.has_unknown) {
        wrong.push("the account does not balance".to_owned());
    }
    if change.is_harmless && (folded, dropped) != (total, 0) {
        wrong.push("something that is intact was lost".to_owned());
    }
    if folded < total && damage.stretches == 0 && !damage.has_unknown {
        wrong.push("events left in silence".to_owned());
    }
    if damage.bytes > 0 && damage.segments_missing == 0 && world.disk.damaged() == 0 && change.keeps_bytes {
        wrong.push("what was cut out is not kept".to_owned());
    }
    if !wrong.is_empty() {
        let (clients, damaged, lost) = (&store.clients, &store.damaged, store.lost);
        wrong.push(format!(
            "recorded {:?}, folded {clients:?}, damaged {damaged:?}, gap {lost}, {damage:?}",
            world.recorded
        ));
    }
    wrong
}

/// Tries every `step`-th change.
fn try_all(before: &World, step: usize) {
    let mut files = Files::new();
    before.disk.edit(|all| files = all.clone());
    assert!(files.len() >= 4, "{} segments", files.len());
    let all = all(&files);
    assert!(all.len() > 100);
    let tried = all.len();
    let wrong: Vec<_> = all
        .into_iter()
        .step_by(step)
        .filter_map(|change| {
            let (world, damage) = delivered(before, &change);
            let wrong = wrong(&world, &damage, &change);
            (!wrong.is_empty()).then(|| format!("{}: {}", change.name, wrong.join("; ")))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn damage_to_what_no_server_has_seen_loses_what_was_cut_out_and_says_how_much() {
    try_all(&killed(Duration::from_secs(600), 5, 0), 1);
}

#[test]
fn damage_to_what_was_merged_while_servers_were_away() {
    try_all(&killed(Duration::from_millis(100), 12, 0), 4);
}

#[test]
fn damage_to_what_servers_have_in_part() {
    try_all(&killed(Duration::from_secs(600), 6, 3), 4);
}
