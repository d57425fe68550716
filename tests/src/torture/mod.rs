//! Torture: a whole deployment of real processes, its Clients in this one, and faults of every kind; at the end every
//! total must equal what the Clients recorded.
//!
//! A [`World`] is set up by a [`Plan`]. A scenario hurts it and calls [`World::finish`]. All chance comes from the
//! seed, and moments are counted in recorded events, so a seed repeats the kinds, the order and the targets of the
//! faults; which packet is where at that moment is up to the machine.

mod agent;
mod bad_disk;
pub mod clock;
mod counts;
mod disk;
mod expected;
mod fault;
mod http;
mod load;
mod log;
mod plan;
mod report;
pub mod scenarios;
mod server;
mod shard;
mod storm;
mod supervised;
mod takeover;
mod verdict;
mod world;

pub use self::agent::AgentSlot;
pub use self::bad_disk::{BadDisk, Wrong};
pub use self::clock::WrongClock;
pub use self::counts::Counts;
pub use self::disk::SmallDisk;
pub use self::expected::{Expected, Sum};
pub use self::fault::{Fault, Target};
pub use self::load::Load;
pub use self::plan::Plan;
pub use self::report::Report;
pub use self::server::ServerSlot;
pub use self::shard::{Replica, ShardSlot};
pub use self::storm::{Kind, Storm};
pub use self::supervised::Supervised;
pub use self::takeover::Lost;
pub use self::verdict::{differences, ledger_differences};
pub use self::world::{Outcome, World};
