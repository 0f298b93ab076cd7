//! Where images and modules come from, and what they hold.
//!
//! Knows nothing of engines, plans or supervisors: what it finds is a [`crate::model::Module`].

mod application;
pub mod content;
pub mod credentials;
pub mod export;
mod facts;
pub mod fetch;
pub mod form;
pub mod give;
pub mod ignore;
pub mod kind;
pub mod layers;
pub mod module;
pub mod oci;
pub mod pick;
pub mod plug;
pub mod prune;
pub mod registry;
pub mod spin;
pub mod stamp;
pub mod store;
pub mod tls;
mod whole;
