//! Where images and modules come from, and what they hold.
//!
//! Knows nothing of engines, plans or supervisors: what it finds is a [`crate::model::Module`].

pub mod credentials;
pub mod export;
pub mod kind;
pub mod module;
pub mod registry;
pub mod store;
pub mod tls;
