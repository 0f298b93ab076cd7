//! Project + Observed → Plan. Pure and total: the same inputs give the same text, nothing is asked of an engine.

pub mod digest;
pub mod observed;
pub mod unit;
