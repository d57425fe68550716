//! Where Blocks are kept that no Server took: a directory `set-aside` in that of the Spool, with two files for each Batch
//! and Client. One, `….taba`, is a frame as Clients send it to `POST /v2/events`, so that it can be sent again as it is;
//! the other, `….json`, says what it is, for people. Sent again, its events count as recorded once more, since those that
//! were set aside stand in the Ledger as dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use taba_core::ledger;
use taba_core::limits::BATCH_BLOCKS_MAX;
use taba_core::wire::{Block, ClientBatch, Compression, Frame, Kind};
use taba_core::{ClientId, Events, SeqNo};

use crate::relay::SetAside;

/// The directory in that of the Spool.
pub(super) const DIRECTORY: &str = "set-aside";
/// What a file ends with that can be sent again.
pub(super) const FRAME: &str = "taba";
/// Bytes that all files together take at most; what is beyond is counted, and not kept.
const BYTES_MAX: u64 = 64 << 20;

/// Logs what was set aside, and keeps it on a thread that may wait for a disk; `spool_dir` is `None` where nothing is
/// kept.
pub(super) fn keep(spool_dir: Option<&Path>, aside: Vec<SetAside>) {
    for aside in &aside {
        let last = aside.blocks.last();
        tracing::error!(
            lane = %aside.lane,
            seq = aside.seq,
            blocks = aside.blocks.len(),
            events = aside.events(),
            tab = last.map(|block| block.tab.as_str()),
            client = last.map(|block| block.client.as_str()),
            why = aside.why,
            "servers fail on a block again and again: it is set aside and counted as dropped; see the directory set-aside of its spool"
        );
    }
    let Some(directory) = spool_dir.map(|path| path.join(DIRECTORY)).filter(|_| !aside.is_empty()) else {
        return;
    };
    // Nobody waits for it: what cannot be kept is logged there.
    drop(tokio::task::spawn_blocking(move || {
        for aside in aside {
            if let Err(error) = write(&directory, &aside) {
                tracing::error!(
                    path = %directory.display(), %error, lane = %aside.lane, seq = aside.seq,
                    "a block that was set aside could not be kept; it is counted as dropped"
                );
            }
        }
    }));
}

/// Writes the files of one Batch, those of each Client by themselves.
fn write(directory: &Path, aside: &SetAside) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut by_client: BTreeMap<&ClientId, Vec<&Block>> = BTreeMap::new();
    // What the Ledger says about itself is written by nobody again.
    for block in aside.blocks.iter().filter(|block| !block.tab.is_reserved()) {
        by_client.entry(&block.client).or_default().push(block);
    }
    for (n, (client, blocks)) in by_client.into_iter().enumerate() {
        let name = format!(
            "{:016}-{}-{}-{}-{n}",
            aside.at.as_micros(),
            aside.lane.stream,
            aside.lane.vbucket,
            aside.seq
        );
        let frame = frame(aside, client, &blocks);
        if bytes_in(directory)? + frame.len() as u64 > BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the bound of 64 MiB is reached"));
        }
        let tabs: Vec<_> = blocks
            .iter()
            .map(|block| {
                json!({ "tab": block.tab.as_str(), "type": block.tab_type.as_str(), "events": block.events })
            })
            .collect();
        let about = json!({
            "at_micros": aside.at.as_micros(),
            "stream": aside.lane.stream.to_string(),
            "vbucket": aside.lane.vbucket,
            "seq": aside.seq,
            "client": client.as_str(),
            "events": blocks.iter().map(|block| block.events).sum::<u64>(),
            "blocks": tabs,
            "why": aside.why,
        });
        put(&directory.join(format!("{name}.{FRAME}")), &frame)?;
        put(&directory.join(format!("{name}.json")), format!("{about}\n").as_bytes())?;
    }
    File::open(directory)?.sync_all()
}

/// The Blocks of one Client as that Client would send them. The same each time, so that a copy is recognised.
fn frame(aside: &SetAside, client: &ClientId, blocks: &[&Block]) -> Vec<u8> {
    let mut blocks: Vec<Block> =
        blocks.iter().take(BATCH_BLOCKS_MAX - 1).map(|block| (*block).clone()).collect();
    let events: u64 = blocks.iter().map(|block| block.events).sum();
    let (times, values) = ([aside.at], [events as f64]);
    let recorded = Events::new(&times, &values);
    blocks.extend(Block::of_events(
        ledger::tab(ledger::RECORDED),
        client.clone(),
        ledger::tab_type(),
        recorded,
    ));
    let incarnation = aside.lane.stream.0 ^ (u64::from(aside.lane.vbucket) << 48) ^ aside.seq.rotate_left(20);
    let batch =
        ClientBatch { client: client.clone(), incarnation, seq: SeqNo::FIRST, sent_at: aside.at, blocks };
    Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::Lz4)
}

fn bytes_in(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Writes a whole file or none.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished: PathBuf = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)
}
