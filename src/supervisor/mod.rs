//! Owns the instances of one project while they run.
//!
//! [`core`] decides and does nothing; [`drive`] does and decides nothing. Facts and wishes go into the core one at a time,
//! effects come out; the loop carries them out as tasks whose results are facts again. Knows nothing of Docker, Wasmtime or terminals.

pub mod check;
pub mod core;
pub mod drive;
mod gate;
pub mod health;
mod hub;
pub mod instance;
pub mod logs;
pub mod probe;
mod request;
pub mod restart;
pub mod signals;
mod tail;
#[cfg(test)]
mod testing;

pub use self::core::{Command, Goal, Verb};
pub use self::drive::{Ending, Lifetime, Order, Outcome, Setup, run};
