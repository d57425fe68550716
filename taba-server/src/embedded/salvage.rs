//! Reads the intact part of a damaged store into a backup.
//!
//! After a killed process redb verifies every page before it opens a file, and refuses a file with a damaged one. So
//! this reads a copy: the flag that requires the check is cleared in the copy, which is then opened read-only. A
//! VBucket is saved only if all of it can be read. In a backup made on request, the others are left out, as if their
//! store had gone back to the beginning: their Lanes find a gap, and nothing is counted twice.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use redb::{Builder, ConcurrencyMode, ReadOnlyDatabase, ReadableDatabase};
use taba_core::{VBucket, VBuckets};

use super::backup::{BackedUp, BackupError, BackupOut, Record};
use super::file::{META, STORE_KEY, TABLE, VBUCKETS_KEY, damaged, guarded, random};
use super::{FILE_NAME, layout};

/// The offset of redb's flags, and the flag of an unclean shutdown; see its `docs/design.md`, "Database header".
const FLAGS_AT: u64 = 9;
const RECOVERY_REQUIRED: u8 = 2;

/// The result of a salvage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// The content of the backup.
    pub backup: BackedUp,
    /// VBuckets that could not be read completely, and are not in it.
    pub lost: Vec<VBucket>,
}

/// Writes a backup of every VBucket that can be read completely. No server may have the store open; its file is not
/// changed.
///
/// # Errors
/// [`BackupError`] when nothing can be read, or the backup cannot be written.
///
/// # Cost
/// A copy of the file beside it, removed at the end; memory for one VBucket.
pub fn salvage(dir: &Path, to: &mut dyn Write) -> Result<Salvaged, BackupError> {
    save(dir, to, LostVBuckets::LeftOut)
}

/// How a backup treats VBuckets that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LostVBuckets {
    /// They are left out.
    LeftOut,
    /// They are marked as lost: reading them is an error until an operator recreates them (`mend --yes`).
    Marked,
}

fn save(dir: &Path, to: &mut dyn Write, lost: LostVBuckets) -> Result<Salvaged, BackupError> {
    let copy = dir.join(format!("{FILE_NAME}.salvaging"));
    std::fs::copy(dir.join(FILE_NAME), &copy).map_err(BackupError::Stream)?;
    let salvaged = clear_flag(&copy).map_err(BackupError::Stream).and_then(|()| read(&copy, to, lost));
    let _ = std::fs::remove_file(&copy);
    salvaged
}

/// The name under which a damaged file is kept, and the VBuckets lost with it.
pub(super) struct Replaced {
    pub(super) kept: PathBuf,
    pub(super) lost: Vec<VBucket>,
}

/// Replaces a file that redb refuses by a new one: all readable data, and the rest marked as lost. The old file is
/// kept under another name. On failure the directory is unchanged.
pub(super) fn replace(dir: &Path) -> Result<Replaced, BackupError> {
    let saved = dir.join(format!("{FILE_NAME}.saved"));
    let replaced = replace_by(dir, &saved);
    let _ = std::fs::remove_file(&saved);
    replaced
}

fn replace_by(dir: &Path, saved: &Path) -> Result<Replaced, BackupError> {
    let mut to = BufWriter::new(File::create(saved).map_err(BackupError::Stream)?);
    let salvaged = save(dir, &mut to, LostVBuckets::Marked)?;
    to.flush().map_err(BackupError::Stream)?;
    let file = dir.join(FILE_NAME);
    let name = |n: u32| dir.join(format!("{FILE_NAME}.damaged-{n}"));
    let kept = (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
    std::fs::hard_link(&file, &kept)
        .or_else(|_| std::fs::copy(&file, &kept).map(drop))
        .map_err(BackupError::Stream)?;
    match super::backup::restore_over(saved, dir) {
        Ok(_) => Ok(Replaced { kept, lost: salvaged.lost }),
        Err(error) => {
            let _ = std::fs::remove_file(&kept);
            Err(error)
        }
    }
}

fn clear_flag(path: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut flags = [0];
    file.seek(SeekFrom::Start(FLAGS_AT))?;
    file.read_exact(&mut flags)?;
    file.seek(SeekFrom::Start(FLAGS_AT))?;
    file.write_all(&[flags[0] & !RECOVERY_REQUIRED])
}

fn read(path: &Path, to: &mut dyn Write, mark: LostVBuckets) -> Result<Salvaged, BackupError> {
    let store_error = |error: redb::Error| BackupError::Store(Box::new(error));
    // Read-only mode reads only the pages it needs.
    let open =
        || Ok(Builder::new().set_concurrency_mode(ConcurrencyMode::SingleWriter).open_read_only(path)?);
    let database = guarded(open).map_err(store_error)?;
    let vbuckets = guarded(|| {
        let meta = database.begin_read()?.open_table(META)?;
        let count = meta.get(VBUCKETS_KEY)?.ok_or_else(|| damaged("number of vbuckets"))?;
        Ok(count.value())
    });
    let vbuckets = VBuckets::new(vbuckets.map_err(store_error)?.try_into().unwrap_or(u32::MAX))?;
    let store =
        guarded(|| Ok(database.begin_read()?.open_table(META)?.get(STORE_KEY)?.map(|found| found.value())));
    // A file of an earlier build has no number; the next open would have given it one.
    let store = store.map_err(store_error)?.map_or_else(random, Ok).map_err(store_error)?;
    let mut out = BackupOut::begin(to, vbuckets, store)?;
    let mut lost = Vec::new();
    for vbucket in vbuckets.iter() {
        match guarded(|| pairs(&database, vbucket)) {
            Ok(pairs) => pairs
                .iter()
                .try_for_each(|(key, value)| out.record(key, value))
                .map_err(BackupError::Stream)?,
            Err(_) => {
                if mark == LostVBuckets::Marked {
                    out.record(&layout::version_key(vbucket), layout::LOST).map_err(BackupError::Stream)?;
                }
                lost.push(vbucket);
            }
        }
    }
    if lost.len() == usize::from(vbuckets.count()) {
        return Err(store_error(damaged("root")));
    }
    Ok(Salvaged { backup: out.end(vbuckets)?, lost })
}

/// All pairs of a VBucket.
fn pairs(database: &ReadOnlyDatabase, vbucket: VBucket) -> Result<Vec<Record>, redb::Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    let (from, to) = layout::whole_range(vbucket);
    let mut pairs = Vec::new();
    for pair in table.range(from.as_slice()..to.as_slice())? {
        let (key, value) = pair?;
        pairs.push((key.value().to_vec(), value.value().to_vec()));
    }
    // A VBucket with pairs and without a version does not count as readable.
    match pairs.first() {
        Some((key, value))
            if *key != layout::version_key(vbucket) || layout::read_version(value).is_none() =>
        {
            Err(damaged("version"))
        }
        _ => Ok(pairs),
    }
}
