//! Accepting and connecting as the sockets of every preview need them: never blocking, ready when polled.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use crate::net::stack::{Conn, Listener, NetError, Stack};

/// A listener whose next connection can be waited for without taking it.
pub struct Acceptor {
    listener: Listener,
    /// Accepted while waiting for one, not asked for yet.
    ahead: Option<io::Result<Conn>>,
}

impl Acceptor {
    /// Over a listener.
    pub fn new(listener: Listener) -> Self {
        Self { listener, ahead: None }
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.listener.local()
    }

    /// Ready when a connection, or an error, is there.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_none() {
            self.ahead = Some(ready!(self.listener.poll_accept(cx)));
        }
        Poll::Ready(())
    }

    /// The next connection.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Conn>> {
        match self.ahead.take() {
            Some(accepted) => Poll::Ready(accepted),
            None => self.listener.poll_accept(cx),
        }
    }
}

/// A connection that is being made. A guest that gives up waiting stops it: dropping it aborts the attempt.
pub struct Connecting {
    /// Where to.
    pub to: SocketAddr,
    task: Option<AbortOnDropJoinHandle<Result<Conn, NetError>>>,
    done: Option<Result<Conn, NetError>>,
}

impl Connecting {
    /// Begins to connect.
    pub fn begin(stack: &Stack, to: SocketAddr) -> Self {
        let stack = stack.clone();
        Self { to, task: Some(spawn(async move { stack.connect(to).await })), done: None }
    }

    /// Ready when it is connected, or failed.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(task) = &mut self.task {
            self.done = Some(ready!(Pin::new(task).poll(cx)));
            self.task = None;
        }
        Poll::Ready(())
    }

    /// The connection, once.
    pub fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Conn, NetError>>> {
        ready!(self.poll_ready(cx));
        Poll::Ready(self.done.take())
    }
}
