//! The same [`crate::session::Session`] over a Unix socket: one supervisor a project ([`lock`]), JSON lines of bounded
//! length ([`protocol`]), a [`server`] beside the supervisor's loop, a [`client`] in every other shell; errands
//! with somebody at their streams have connections of their own ([`stream`]). [`visitors`] counts who is connected.
//! Knows sessions and events, not the supervisor behind them.

pub mod client;
pub mod lock;
pub mod protocol;
pub mod server;
pub mod stream;
pub mod visitors;
