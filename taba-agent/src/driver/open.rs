//! Opens the configured Spool.

use std::path::Path;

use super::StartError;
use super::log_notices::tell_damage;
use super::options::AgentOptions;
use super::set_aside::SetAsideFiles;
use crate::spool::recovery::Recovered;
use crate::spool::{Disk, LogSpool};

/// Opens the Spool, and logs what was recovered.
pub(super) fn open(options: &AgentOptions, disk: &mut dyn Disk) -> Result<(LogSpool, Recovered), StartError> {
    let path = &options.path();
    let opened = LogSpool::open(disk, options.log);
    let (spool, recovered) = opened.map_err(|source| StartError::Spool { path: path.clone(), source })?;
    let batches: usize = recovered.lanes.values().map(|lane| lane.batches.len()).sum();
    tracing::info!(spool_dir = %path.display(), lanes = recovered.lanes.len(), batches, "spool opened");
    tell_damage(&recovered.damage, path);
    if let Some(directory) = &options.spool_dir {
        resolve_set_aside(directory, disk, &recovered);
    }
    Ok((spool, recovered))
}

/// Resolves Blocks that an earlier run was setting aside. Unresolved ones stay, and may not be sent again.
fn resolve_set_aside(spool_dir: &Path, disk: &dyn Disk, recovered: &Recovered) {
    if let Err(error) = SetAsideFiles::of(spool_dir).resolve(disk, recovered) {
        tracing::error!(
            spool_dir = %spool_dir.display(), %error,
            "the directory set-aside of the spool cannot be used; what an earlier run left pending in it stays so"
        );
    }
}
