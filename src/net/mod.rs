//! The network Wasm instances live on: names, reach, sockets, and the agents that make sockets inside container networks.
//!
//! [`wiring`] and [`policy`] are pure. [`directory`] is the one shared read: the supervisor's engines write it, guests look names up in it.
//! [`stack`] is what one guest sees. Nothing here knows Docker or Wasmtime.

pub mod agent;
pub mod directory;
pub mod holder;
pub mod policy;
pub mod stack;
pub mod traffic;
pub mod wiring;

mod addresses;
mod carrier;
mod dns;
mod fabric;
mod forward;
mod gap;
mod listener;
mod mailbox;
mod places;
