//! Log messages of an Agent about its Spool.

use std::path::Path;

use crate::relay::Notice;
use crate::spool::DiskFault;
use crate::spool::recovery::Damage;

/// Maximum number of Clients whose losses are logged; `/status` has all.
const CLIENTS_SAID_MAX: usize = 20;

pub(super) fn tell(notices: Notice) {
    match notices {
        Notice::DiskFault { fault: DiskFault::Write, error } => tracing::error!(
            error,
            "the disk of the spool does not take what is to be written; clients keep their batches until it does"
        ),
        Notice::DiskFault { fault: DiskFault::Sync, error } => tracing::error!(
            error,
            "the spool could not be synced; what it holds is being written again to new segments"
        ),
        Notice::DiskFault { fault: DiskFault::Gone, error } => tracing::error!(
            error,
            "the files of the spool are gone, or the last one cannot be written to any more; what is held is being written again to new ones"
        ),
        Notice::DiskFault { fault: DiskFault::Broken, error } => tracing::error!(
            error,
            "the disk of the spool fails to sync again and again; nothing more is taken: see to the disk, then start the agent anew"
        ),
        Notice::Well => {
            tracing::info!("the disk of the spool takes what is written again, and all of it is there");
        }
        Notice::Full { bytes_max } => tracing::warn!(
            bytes_max,
            "the spool is full; clients keep their batches until servers have stored some of it, or spool-bytes-max is raised"
        ),
        Notice::HasRoom { events } => tracing::info!(
            events_turned_away = events,
            "the spool has room again; every repetition of what was turned away is counted"
        ),
        Notice::Expired { events } => tracing::error!(
            events,
            "events waited for servers for more than a day and were given up: what servers had not stored is lost; \
             bring servers back within a day, and see the docs if a clock was wrong"
        ),
        Notice::Damaged { events } => {
            tracing::error!(events, "the spool is damaged; the ledger is told how many events are lost");
        }
        Notice::Panicked { times } => tracing::error!(
            times,
            "a handler panicked while waiting events were merged; they are kept as they are, and take more room"
        ),
    }
}

pub(super) fn tell_damage(damage: &Damage, path: &Path) {
    if damage.segments_misnamed > 0 {
        tracing::warn!(
            spool_dir = %path.display(),
            segments = damage.segments_misnamed,
            "segments of the spool stood under wrong names, or twice; they were put in order"
        );
    }
    if damage.stretches == 0 && !damage.has_unknown {
        return;
    }
    let clients =
        damage.clients.iter().take(CLIENTS_SAID_MAX).map(|(client, events)| format!("{client}={events}"));
    let more = if damage.has_unknown { "; more were lost, and nobody knows how many" } else { "" };
    tracing::error!(
        spool_dir = %path.display(),
        segments_missing = damage.segments_missing,
        stretches = damage.stretches,
        bytes = damage.bytes,
        events_lost = format!("{}{more}", damage.events),
        clients = clients.collect::<Vec<_>>().join(" "),
        "the spool is damaged; all that can be read is delivered, what cannot is kept in *.damaged files beside it, \
         and the ledger is told of the events that no server had stored"
    );
}
