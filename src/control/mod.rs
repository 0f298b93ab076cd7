//! A supervisor's control socket: the same [`Session`](crate::session::Session) a view in its own process gets, over a Unix socket.
//!
//! Frames are JSON lines of bounded length; both sides say their version first. Knows sessions, events and log lines, and
//! nothing of how a supervisor works. Who owns the project is told by a [`lock`], not by the socket: a socket file can be
//! left behind, a lock cannot.

pub mod client;
pub mod lock;
pub mod protocol;
pub mod server;

pub use client::{ConnectError, connect};
pub use lock::{Lock, LockError};
pub use server::Server;
