//! What the example programs share: real flights, the family in one process or in several, and the comparison of its
//! answers with the truth.

pub mod flights;
pub mod replay;
pub mod report;
pub mod stack;
pub mod verify;
