//! Opens the configured Spool.

use std::path::Path;

use super::StartError;
use super::disk::FileDisk;
use super::log_notices::tell_damage;
use super::set_aside::SetAsideFiles;
use crate::config::{Config, Verified};
use crate::spool::recovery::Recovered;
use crate::spool::{Disk, LogSpool};

/// Opens the configured directory.
pub(super) fn open_disk(config: &Verified<Config>) -> Result<Option<Box<dyn Disk>>, StartError> {
    Ok(Some(Box::new(FileDisk::open(&config.spool_dir)?)))
}

/// Opens the Spool, and logs what was recovered.
pub(super) fn open(
    config: &Verified<Config>,
    disk: &mut dyn Disk,
) -> Result<(LogSpool, Recovered), StartError> {
    let path = &config.spool_dir;
    let opened = LogSpool::open(disk, config.log_options());
    let (spool, recovered) = opened.map_err(|source| StartError::Spool { path: path.clone(), source })?;
    let batches: usize = recovered.lanes.values().map(|lane| lane.batches.len()).sum();
    tracing::info!(spool_dir = %path.display(), lanes = recovered.lanes.len(), batches, "spool opened");
    tell_damage(&recovered.damage, path);
    Ok((spool, recovered))
}

/// Resolves Blocks that an earlier run was setting aside. Unresolved ones stay, and may not be sent again.
pub(super) fn resolve_set_aside(spool_dir: &Path, disk: &dyn Disk, recovered: &Recovered) {
    if let Err(error) = SetAsideFiles::of(spool_dir).resolve(disk, recovered) {
        tracing::error!(
            spool_dir = %spool_dir.display(), %error,
            "the directory set-aside of the spool cannot be used; what an earlier run left pending in it stays so"
        );
    }
}
