//! wcompose's loader without the rest of wcompose, for the fuzzers.

#[path = "../../src/compose/mod.rs"]
pub mod compose;
#[path = "../../src/diag/mod.rs"]
pub mod diag;
#[path = "../../src/model/mod.rs"]
pub mod model;
pub mod targets;
