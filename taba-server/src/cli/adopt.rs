//! `adopt`: accepts the current state of a store that a server refuses.

use taba_process::{Exit, Log};
use taba_server::EmbeddedStore;
use taba_server::config::{StoreKind, VerifiedServerConfig};
use taba_shard::Adoption;

use super::{Outcome, connect};

pub(super) async fn adopt(log: &Log, config: &VerifiedServerConfig, yes: bool, recreate: bool) -> Outcome {
    match config.store {
        StoreKind::Memory => log.say("a memory store ends with its server: there is nothing to adopt"),
        StoreKind::Embedded if !yes => {
            let dir = config.data_dir.display();
            if EmbeddedStore::is_file_lost(&config.data_dir) {
                log.say(format_args!(
                    "the file of the store in {dir} is gone or empty; --yes lets the next start make a new, empty store"
                ));
            } else {
                log.say(format_args!("nothing to do in {dir}: its file is there, or no store ever was"));
            }
        }
        StoreKind::Embedded => {
            let dir = config.data_dir.display();
            if EmbeddedStore::forget(&config.data_dir)? {
                log.say(format_args!(
                    "the record of the lost store in {dir} is removed; the next start makes a new store"
                ));
            } else {
                log.say(format_args!("nothing to do in {dir}: its file is there, or no store ever was"));
            }
        }
        StoreKind::Redis => {
            let adoption = Adoption::plan(config.shards().to_vec(), connect::options(config)).await?;
            for step in adoption.steps() {
                log.say(step);
            }
            if !yes {
                log.say("nothing was changed; repeat with --yes while all servers are stopped");
            } else {
                let adoption = if recreate { adoption.recreating_empty() } else { adoption };
                adoption.run().await?;
                log.say("done; servers can start");
            }
        }
    }
    Ok(Exit::Clean)
}
