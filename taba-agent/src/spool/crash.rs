//! A disk for tests: it can run full, lose what was not synced, and be damaged.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, Extent, SegmentId};

/// A disk whose content outlives those who opened it: clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashDisk(Arc<Mutex<Image>>);

#[derive(Clone, Debug, Default)]
struct Image {
    files: BTreeMap<SegmentId, Vec<u8>>,
    /// What would be there after a power failure, at least.
    synced: BTreeMap<SegmentId, usize>,
    removed: BTreeMap<SegmentId, Vec<u8>>,
    extent: Extent,
    /// Whether a segment was begun since it was opened: only then a sync moves the end of the extent.
    is_begun: bool,
    /// Copies of bytes that no reader understands.
    damaged: BTreeMap<(SegmentId, u64), Vec<u8>>,
    room: Option<usize>,
    tells_its_room: bool,
    /// What is written without room for all of it stays as far as it fits, and cannot be cut off again.
    tears: bool,
    /// That has happened to the last segment: nothing may follow in it.
    is_torn: bool,
    /// Syncs that are to fail.
    failing_syncs: u32,
    /// Somebody removed all files: they can be read as long as they are open, and there is nothing to write to.
    is_gone: bool,
    /// What can be read of files that are gone.
    open: BTreeMap<SegmentId, Vec<u8>>,
}

impl CrashDisk {
    fn image(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap()
    }

    /// A disk of its own with the same content.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.image().clone())))
    }

    /// So many bytes more can be written; `None` for as many as one likes.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.image().room = room;
    }

    /// From now on it tells how much room there is.
    pub(crate) fn tells_its_room(&self) {
        self.image().tells_its_room = true;
    }

    /// From now on, or no more, a write without room leaves the beginning of it behind.
    pub(crate) fn set_tearing(&self, tears: bool) {
        self.image().tears = tears;
    }

    /// So many of the next syncs fail.
    pub(crate) fn fail_syncs(&self, count: u32) {
        self.image().failing_syncs = count;
    }

    /// Somebody removes all files.
    pub(crate) fn lose_files(&self) {
        let mut image = self.image();
        image.open = std::mem::take(&mut image.files);
        (image.synced, image.is_gone) = (BTreeMap::new(), true);
    }

    /// Whether files were removed, and nothing was made in their place yet.
    pub(crate) fn is_gone(&self) -> bool {
        self.image().is_gone
    }

    /// The power fails: of what was not synced, only as much stays as `keep` says, from 0 to 255 of 255 parts; removals
    /// that were not synced come back.
    pub(crate) fn lose_power(&self, keep: u8) {
        let mut image = self.image();
        let synced = image.synced.clone();
        for (segment, file) in &mut image.files {
            let safe = synced.get(segment).copied().unwrap_or(0);
            let unsafe_bytes = file.len() - safe;
            file.truncate(safe + unsafe_bytes * usize::from(keep) / 255);
        }
        if keep.is_multiple_of(2) {
            let removed = std::mem::take(&mut image.removed);
            image.files.extend(removed);
        }
        image.removed.clear();
    }

    /// Flips bits of one byte.
    pub(crate) fn flip(&self, segment: SegmentId, at: usize, bits: u8) {
        if let Some(byte) = self.image().files.get_mut(&segment).and_then(|file| file.get_mut(at)) {
            *byte ^= bits;
        }
    }

    /// Makes one byte zero.
    pub(crate) fn zero(&self, segment: SegmentId, at: usize) {
        if let Some(byte) = self.image().files.get_mut(&segment).and_then(|file| file.get_mut(at)) {
            *byte = 0;
        }
    }

    /// Tears the end off a segment.
    pub(crate) fn tear(&self, segment: SegmentId, bytes: usize) {
        if let Some(file) = self.image().files.get_mut(&segment) {
            file.truncate(file.len().saturating_sub(bytes));
        }
    }

    /// Somebody changes files by hand.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut BTreeMap<SegmentId, Vec<u8>>)) {
        change(&mut self.image().files);
    }

    /// How many copies of bytes are kept that no reader understands.
    pub(crate) fn damaged(&self) -> usize {
        self.image().damaged.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.image().files.values().map(Vec::len).sum()
    }
}

impl Image {
    fn take_room(&mut self, bytes: usize) -> io::Result<()> {
        match &mut self.room {
            Some(room) if *room < bytes => Err(io::ErrorKind::StorageFull.into()),
            Some(room) => {
                *room -= bytes;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for CrashDisk {
    fn segments(&self) -> io::Result<Vec<(SegmentId, u64)>> {
        Ok(self.image().files.iter().map(|(segment, file)| (*segment, file.len() as u64)).collect())
    }

    fn create(&mut self, segment: SegmentId, head: &[u8]) -> io::Result<()> {
        let mut image = self.image();
        if image.is_gone {
            return Err(io::ErrorKind::NotFound.into());
        }
        image.take_room(head.len())?;
        (image.is_torn, image.is_begun) = (false, true);
        // A number may come again: what was synced was of another file.
        image.synced.remove(&segment);
        image.files.insert(segment, head.to_vec());
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut image = self.image();
        if image.is_gone {
            return Err(io::ErrorKind::NotFound.into());
        }
        if image.is_torn {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Err(full) = image.take_room(bytes.len()) {
            if let (true, Some(room)) = (image.tears, image.room.replace(0)) {
                image.is_torn = true;
                let mut last = image.files.last_entry().expect("a segment was created");
                last.get_mut().extend_from_slice(&bytes[..room.min(bytes.len())]);
            }
            return Err(full);
        }
        image.files.last_entry().expect("a segment was created").get_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn read(&self, segment: SegmentId, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let image = self.image();
        let file = image.files.get(&segment).or_else(|| image.open.get(&segment));
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let start = file.len().min(offset as usize);
        Ok(file[start..file.len().min(start + bytes)].to_vec())
    }

    fn cut(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        let mut image = self.image();
        image.files.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?.truncate(bytes as usize);
        if let Some(synced) = image.synced.get_mut(&segment) {
            *synced = (*synced).min(bytes as usize);
        }
        Ok(())
    }

    fn rename(&mut self, from: SegmentId, to: SegmentId) -> io::Result<()> {
        let mut image = self.image();
        let file = image.files.remove(&from).ok_or(io::ErrorKind::NotFound)?;
        assert!(image.files.insert(to, file).is_none(), "the number was taken");
        image.synced.remove(&from);
        Ok(())
    }

    fn extent(&self) -> io::Result<Option<Extent>> {
        let mut image = self.image();
        image.is_begun = false;
        Ok(Some(image.extent))
    }

    fn begins_at(&mut self, oldest: SegmentId) -> io::Result<()> {
        self.image().extent.oldest = oldest;
        Ok(())
    }

    fn keep_damaged(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        self.image().damaged.entry((segment, offset)).or_insert_with(|| bytes.to_vec());
        Ok(true)
    }

    fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
        let mut image = self.image();
        if image.open.remove(&segment).is_some() {
            return Ok(());
        }
        // One that is not there is removed.
        let Some(file) = image.files.remove(&segment) else { return Ok(()) };
        if let Some(room) = &mut image.room {
            *room += file.len();
        }
        image.removed.insert(segment, file);
        Ok(())
    }

    fn renew(&mut self) -> io::Result<()> {
        self.image().is_gone = false;
        Ok(())
    }

    fn free(&self) -> Option<u64> {
        let image = self.image();
        image.room.filter(|_| image.tells_its_room).map(|room| room as u64)
    }

    fn sync(&mut self) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
        let disk = self.clone();
        let synced: BTreeMap<_, _> =
            self.image().files.iter().map(|(segment, file)| (*segment, file.len())).collect();
        Box::new(move || {
            let mut image = disk.image();
            if let Some(left) = image.failing_syncs.checked_sub(1) {
                image.failing_syncs = left;
                return Err(io::Error::other("the medium does not answer"));
            }
            if image.is_gone {
                return Err(io::ErrorKind::NotFound.into());
            }
            if let Some((last, bytes)) = synced.last_key_value().filter(|_| image.is_begun) {
                (image.extent.last, image.extent.last_bytes) = (*last, *bytes as u64);
            }
            image.synced.extend(synced);
            image.removed.clear();
            Ok(())
        })
    }
}
