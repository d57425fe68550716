//! The protocol of exactly-once as a program that can be read and run: no I/O, no clock, no chance of its own.
//!
//! Read in this order: [`rules`] names what holds, [`store`] can go back in time, [`server`] folds and commits,
//! [`lane`] sends and lets go; [`shard`] is a store that the VBucket may leave, [`operator`] moves it, and `census` is how Servers
//! follow; [`world`] puts them together and lets everything go wrong, and `audit` looks whether anything is lost or doubled. [`checker`] walks through it
//! at random and looks after every step; [`explore`] walks through small worlds from end to end; `tests/spec.rs` switches
//! each rule off and shows what goes wrong then. The same in prose: `docs/EXACTLY_ONCE.md`.
//!
//! There is one VBucket, because no rule spans two; so a Stream is one Lane. Times are small: T is three steps.

mod audit;
mod census;
pub mod checker;
pub mod explore;
pub mod lane;
pub mod operator;
pub mod rules;
pub mod server;
mod shape;
pub mod shard;
pub mod store;
pub mod tell;
pub mod world;

pub use self::audit::Violation;
pub use self::checker::{Checker, Dice, Found, Verdict, heal};
pub use self::explore::{Explored, Explorer};
pub use self::operator::Goal;
pub use self::rules::{Rule, Rules};
pub use self::tell::{assert_holds, tell};
pub use self::world::{Size, Step, Times, World};
