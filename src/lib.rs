//! wcompose runs a compose file in which some services are Linux containers and some are WebAssembly.
//!
//! ```text
//! argv,env ─► cli::Settings
//! files ─► compose::load ─► Project ─┐
//! engines ─► observe ─► Observed ────┴─► plan::plan ─► Plan (graph of units, each with a cause)
//!                                                       │
//!            commands (signals, keys, control socket) ─►│
//!            reports  (engines, probes) ───────────────►supervisor::core ─► effects ─► engines
//!                                                       │
//!                                                       └─► events ─► Session ─► view::{plain,json,tui}
//!                                                               └─ the same Session over the control socket
//! ```
//!
//! Data moves left to right; only reports (facts from engines) and commands (wishes from people) flow back.
//! Modules stand here in reading order; `tests/it/layers.rs` holds the table of who may import whom.

pub mod diag;
pub mod model;

pub mod compose;

pub mod net;

pub mod image;

pub mod watch;

pub mod plan;

pub mod engine;

pub mod event;
pub mod session;

pub mod supervisor;

pub mod control;

pub mod view;

pub mod cli;
