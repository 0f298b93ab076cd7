//! The command line.

pub mod ps;
