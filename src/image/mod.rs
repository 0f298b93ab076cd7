//! Where images and modules come from, and what they hold.

pub mod export;
