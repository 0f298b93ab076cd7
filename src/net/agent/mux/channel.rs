//! A channel as its holder sees it: a stream of bytes, and what every kind of channel has in common.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;
use super::frame::{Number, Opening};
use super::state::Flow;
use crate::net::agent::gone;

/// A channel that is held. Dropping it closes the socket behind it, once what was written is sent.
#[derive(Debug)]
pub struct Channel {
    pub(super) shared: Arc<Shared>,
    pub(super) number: Number,
}

impl Channel {
    /// One that is to be opened. An error where the agent has no room for another, which is that of a process that has too
    /// many sockets.
    pub(super) fn new(shared: &Arc<Shared>, opening: Opening, flow: Flow) -> io::Result<Self> {
        let number = shared.act(|state| if state.gone { Err(gone()) } else { Ok(state.open(opening, flow)) })?;
        let number = number.ok_or(rustix::io::Errno::MFILE)?;
        Ok(Self { shared: shared.clone(), number })
    }

    /// Until it is open: its own and the other end's address.
    pub(super) fn poll_opened(&self, cx: &mut Context<'_>) -> Poll<io::Result<(SocketAddr, SocketAddr)>> {
        self.shared.act(|state| {
            let is_gone = state.gone;
            let channel = state.channel(self.number);
            match channel.opened {
                Some(Ok(ends)) => Poll::Ready(Ok(ends)),
                Some(Err(errno)) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
                None if is_gone => Poll::Ready(Err(gone())),
                None => wait(&mut channel.reader, cx),
            }
        })
    }

    /// The same.
    pub(super) async fn opened(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        poll_fn(|cx| self.poll_opened(cx)).await
    }

    /// Takes what can be sent now; `WouldBlock` where nothing can.
    pub(in crate::net::agent) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.poll_take(&mut Context::from_waker(Waker::noop()), bytes) {
            Poll::Ready(taken) => taken,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_take(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.act(|state| {
            if state.gone {
                return Poll::Ready(Err(gone()));
            }
            let channel = state.channel(self.number);
            let Flow::Stream(sending, _) = &mut channel.flow else { return Poll::Ready(Ok(0)) };
            match sending.take(bytes) {
                Ok(0) if !bytes.is_empty() => wait(&mut channel.writer, cx),
                Ok(taken) => {
                    state.queue(self.number);
                    Poll::Ready(Ok(taken))
                }
                Err(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            }
        })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.shared.act(|state| state.close(self.number));
    }
}

/// Waits to be woken by what is heard.
pub(super) fn wait<T>(waiting: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
    Poll::Pending
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.shared.act(|state| {
            let is_gone = state.gone;
            let channel = state.channel(self.number);
            let Flow::Stream(_, receiving) = &mut channel.flow else { return Poll::Ready(Ok(0)) };
            match receiving.read(buf.initialize_unfilled()) {
                Some(Ok(length)) => {
                    if receiving.is_due() {
                        state.queue(self.number);
                    }
                    Poll::Ready(Ok(length))
                }
                Some(Err(errno)) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
                None if is_gone => Poll::Ready(Err(gone())),
                None => wait(&mut channel.reader, cx),
            }
        });
        buf.advance(ready!(read)?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_take(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.act(|state| {
            if let Flow::Stream(sending, _) = &mut state.channel(self.number).flow {
                sending.finish();
                state.queue(self.number);
            }
        });
        Poll::Ready(Ok(()))
    }
}
