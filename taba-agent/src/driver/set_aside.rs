//! Stores Blocks that no Server accepted: in a directory `set-aside` in that of the Spool, two files for each Batch
//! and Client. `….taba` is a frame for `POST /v2/events`; `….json` describes it for people. Sent again, its events
//! count as recorded once more, since the Ledger has the original ones as dropped.
//!
//! ```text
//!   NAME.json, NAME.pending ──► the Blocks leave their Batch ──► that is in the Spool for good ──► NAME.taba
//!   both synced                 `Relay::kept`                    `Spool::durable`                  may be sent again
//! ```
//! So the Blocks are always in at least one place, and only a `….taba` may be sent again: a `….pending` may still be
//! delivered with its Batch. An Agent that was killed in between resolves it at its next start, by the content of its
//! Spool. The name identifies the Blocks: a repetition writes the same file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use taba_core::limits::BATCH_BLOCKS_MAX;
use taba_core::wire::{Block, ClientBatch, Compression, Frame, Kind, Reader};
use taba_core::{ClientId, SeqNo, StreamId, ledger};
use xxhash_rust::xxh64::xxh64;

use super::file::{put_file, sync_directory};
use crate::lane::LaneKey;
use crate::relay::SetAsideBlocks;
use crate::spool::Disk;
use crate::spool::recovery::Recovered;

/// The directory in that of the Spool.
const DIRECTORY: &str = "set-aside";
/// The suffix of a file that can be sent again.
const FRAME: &str = "taba";
/// The suffix before that is certain.
const PENDING: &str = "pending";
/// The suffix of the description.
const ABOUT: &str = "json";
/// Maximum bytes of all files; more is counted, and not kept.
const BYTES_MAX: u64 = 64 << 20;

/// The set-aside files of one Spool. Cheap to make: reads nothing until asked.
#[derive(Clone, Debug)]
pub struct SetAsideFiles {
    directory: PathBuf,
}

/// A listed file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SetAsideFile {
    /// Its name, without the suffix.
    pub name: String,
    /// Whether it may be sent again. If not, the Agent is working on it, or was killed and resolves it at its next
    /// start.
    pub is_ready: bool,
    /// The description: `at_micros`, `stream`, `vbucket`, `seq`, `client`, `events`, `blocks`, `why`. Null if
    /// unreadable.
    pub about: Value,
}

impl SetAsideFiles {
    /// The files of the Spool in this directory.
    pub fn of(spool_dir: &Path) -> Self {
        Self { directory: spool_dir.join(DIRECTORY) }
    }

    /// Their directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The files, by name; none if the directory does not exist.
    ///
    /// # Errors
    /// The disk's error.
    pub fn list(&self) -> io::Result<Vec<SetAsideFile>> {
        let mut found = Vec::new();
        for (name, end) in self.names()? {
            let is_ready = end == FRAME;
            if is_ready || end == PENDING {
                let about = fs::read(self.path(&name, ABOUT)).unwrap_or_default();
                let about = serde_json::from_slice(&about).unwrap_or_default();
                found.push(SetAsideFile { name, is_ready, about });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The frame of a file that may be sent again.
    ///
    /// # Errors
    /// The disk's error.
    pub fn frame(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name, FRAME))
    }

    /// Removes a file that may be sent again.
    ///
    /// # Errors
    /// The disk's error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name, FRAME))?;
        // The description of nothing.
        let _ = fs::remove_file(self.path(name, ABOUT));
        self.sync()
    }

    /// Writes the pending files of one Batch durably, one pair per Client; returns their names. `None`, and nothing
    /// written, when the limit is reached.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn keep(&self, aside: &SetAsideBlocks) -> io::Result<Option<Vec<String>>> {
        fs::create_dir_all(&self.directory)?;
        let mut by_client: BTreeMap<&ClientId, Vec<&Block>> = BTreeMap::new();
        // The Ledger's own notes are not sent again.
        for block in aside.blocks.iter().filter(|block| !block.tab.is_reserved()) {
            by_client.entry(&block.client).or_default().push(block);
        }
        let mut files = Vec::new();
        for (client, blocks) in by_client {
            for blocks in blocks.chunks(BATCH_BLOCKS_MAX - 1) {
                let id = id(aside, client, blocks);
                let LaneKey { stream, vbucket } = aside.lane;
                let name = format!("{stream}-{vbucket}-{}-{id:016x}", aside.seq);
                files.push((name, frame(aside, client, id, blocks), about(aside, client, blocks)));
            }
        }
        let bytes: usize = files.iter().map(|(_, frame, about)| frame.len() + about.len()).sum();
        if self.bytes()? + bytes as u64 > BYTES_MAX {
            return Ok(None);
        }
        for (name, frame, about) in &files {
            put_file(&self.path(name, ABOUT), about.as_bytes())?;
            put_file(&self.path(name, PENDING), frame)?;
        }
        Ok(Some(files.into_iter().map(|(name, ..)| name).collect()))
    }

    /// The Blocks have left their Batch durably: the files may be sent again.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn finish(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            fs::rename(self.path(name, PENDING), self.path(name, FRAME))?;
        }
        self.sync()
    }

    /// Resolves what an earlier run left pending. Blocks that left their Batch may be sent again; others are
    /// delivered with it, or set aside again. Unreadable files stay pending.
    ///
    /// # Errors
    /// The disk's error.
    pub(super) fn resolve(&self, disk: &dyn Disk, recovered: &Recovered) -> io::Result<()> {
        let pending = self.list()?.into_iter().filter(|file| !file.is_ready);
        for SetAsideFile { name, .. } in pending {
            match self.is_in_its_batch(&name, disk, recovered) {
                Ok(true) => {
                    fs::remove_file(self.path(&name, PENDING))?;
                    let _ = fs::remove_file(self.path(&name, ABOUT));
                }
                Ok(false) => self.finish(&[name])?,
                Err(error) => {
                    tracing::error!(path = %self.path(&name, PENDING).display(), %error,
                        "what was being set aside when an earlier run ended cannot be read; it stays as it is");
                }
            }
        }
        Ok(())
    }

    /// Whether the Spool still has these Blocks in their Batch.
    fn is_in_its_batch(&self, name: &str, disk: &dyn Disk, recovered: &Recovered) -> io::Result<bool> {
        let no_name = || io::Error::new(io::ErrorKind::InvalidData, "the name is none that an agent gives");
        let mut parts = name.split('-');
        let stream = parts.next().and_then(|part| u64::from_str_radix(part, 16).ok()).map(StreamId);
        let vbucket = parts.next().and_then(|part| part.parse().ok());
        let seq = parts.next().and_then(|part| part.parse().ok()).map(SeqNo);
        let (stream, vbucket, seq) = stream
            .zip(vbucket)
            .zip(seq)
            .map(|((stream, vbucket), seq)| (stream, vbucket, seq))
            .ok_or_else(no_name)?;
        let Some(lane) = recovered.lanes.get(&LaneKey { stream, vbucket }) else { return Ok(false) };
        let Some(batch) = lane.batches.iter().find(|batch| batch.seq == seq) else { return Ok(false) };
        let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let frame: Bytes = fs::read(self.path(name, PENDING))?.into();
        let frame = Frame::decode(&frame, Kind::ClientBatch).map_err(damaged)?;
        let (kept, _) = ClientBatch::decode(&frame.message).map_err(damaged)?;
        let mut held = Vec::new();
        for place in &batch.locations {
            let bytes: Bytes =
                disk.read(place.segment, u64::from(place.offset), place.bytes as usize)?.into();
            let mut reader = Reader::new(&bytes);
            while reader.remaining() > 0 {
                held.push(Block::decode(&mut reader, &bytes).map_err(damaged)?);
            }
        }
        let mut own = kept.blocks.iter().filter(|block| !block.tab.is_reserved());
        Ok(own.any(|block| held.contains(block)))
    }

    /// All files: names and suffixes.
    fn names(&self) -> io::Result<Vec<(String, String)>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.extend(name.rsplit_once('.').map(|(name, end)| (name.to_owned(), end.to_owned())));
        }
        Ok(names)
    }

    fn path(&self, name: &str, end: &str) -> PathBuf {
        self.directory.join(format!("{name}.{end}"))
    }

    fn bytes(&self) -> io::Result<u64> {
        fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }
}

/// Identifies these Blocks of this Batch. Another set of Blocks of the same Batch has another id.
fn id(aside: &SetAsideBlocks, client: &ClientId, blocks: &[&Block]) -> u64 {
    let mut bytes = format!("{} {} {client} ", aside.lane, aside.seq).into_bytes();
    blocks.iter().for_each(|block| block.encode(&mut bytes));
    xxh64(&bytes, 0)
}

/// The Blocks of one Client as that Client would send them, under a new incarnation: an Agent accepts it once.
fn frame(aside: &SetAsideBlocks, client: &ClientId, incarnation: u64, blocks: &[&Block]) -> Vec<u8> {
    let mut blocks: Vec<Block> = blocks.iter().map(|block| (*block).clone()).collect();
    let events: u64 = blocks.iter().map(|block| block.events).sum();
    blocks.push(Block::note(ledger::tab(ledger::RECORDED), client.clone(), aside.at, events));
    let (client, sent_at) = (client.clone(), aside.at);
    let batch = ClientBatch::new(client, incarnation, SeqNo::FIRST, sent_at, blocks);
    Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::Lz4)
}

/// The description of a frame, for people.
fn about(aside: &SetAsideBlocks, client: &ClientId, blocks: &[&Block]) -> String {
    let each = |block: &&Block| json!({ "tab": block.tab.as_str(), "type": block.tab_type.as_str(), "events": block.events });
    let about = json!({
        "at_micros": aside.at.as_micros(),
        "stream": aside.lane.stream.to_string(),
        "vbucket": aside.lane.vbucket,
        "seq": aside.seq,
        "client": client.as_str(),
        "events": blocks.iter().map(|block| block.events).sum::<u64>(),
        "blocks": blocks.iter().map(each).collect::<Vec<_>>(),
        "why": aside.why,
    });
    format!("{about}\n")
}

/// Logs what was set aside.
pub(super) fn tell(aside: &SetAsideBlocks, is_kept: bool) {
    let last = aside.blocks.last();
    tracing::error!(
        lane = %aside.lane,
        seq = aside.seq,
        blocks = aside.blocks.len(),
        events = aside.events(),
        tab = last.map(|block| block.tab.as_str()),
        client = last.map(|block| block.client.as_str()),
        why = aside.why,
        is_kept,
        "servers fail on a block again and again: it is set aside and counted as dropped; see taba-agent set-aside --help"
    );
}
