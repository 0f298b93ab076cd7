//! Where images and modules come from, and what a module turns out to be.
//!
//! Knows nothing of engines, plans or supervisors: what it finds is a [`crate::model::Module`].

pub mod module;
pub mod store;
