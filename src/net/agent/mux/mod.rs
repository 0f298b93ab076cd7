//! An agent over two byte streams, where no Unix socket can be mounted: its sockets are channels, multiplexed.
//!
//! [`frame`] and [`window`] and [`state`] are pure; one task reads and writes. Laws it keeps: every channel has a window,
//! so what waits is bounded and a slow reader holds up nobody else; the reading never waits for the writing; the end of
//! the streams, a frame beyond what was allowed, or a long silence is the agent's end, and ends every channel.

mod channel;
mod frame;
mod sockets;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use self::channel::Channel;
use self::frame::{Cutter, Frames, Opening};
pub use self::sockets::{Acceptor, Datagrams};
use self::state::{Flow, LOGS, State};
use super::wire::{self, Said};
use super::{AgentEvent, Told};
use crate::net::carrier::Conn;

/// What an agent writes, piece by piece.
pub type Incoming = Pin<Box<dyn futures_util::Stream<Item = io::Result<Bytes>> + Send>>;
/// What an agent reads.
pub type Outgoing = Pin<Box<dyn AsyncWrite + Send>>;

/// After so long without anything to say, the agent is asked whether it is there; it does not wait longer than
/// `carry.rs` says.
const QUIET: Duration = Duration::from_secs(15);
/// How long the agent may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A multiplexed agent. Its channels end with it.
#[derive(Debug)]
pub(super) struct Mux {
    shared: Arc<Shared>,
    _talk: JoinSet<()>,
}

/// What the task and the holders of channels share. Its lock is held for moments, never across an await.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told when there is something to tell the agent.
    news: Notify,
}

impl Shared {
    fn act<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let outcome = action(&mut state);
        let news = state.has_news();
        drop(state);
        if news {
            self.news.notify_one();
        }
        outcome
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an agent said before it was ready.
pub(super) struct Greeting {
    pub(super) resolver: String,
    /// The container was asked to end meanwhile.
    pub(super) stopping: bool,
    streams: (Incoming, Outgoing),
    /// Cuts what comes further on.
    cutter: Cutter,
}

/// Waits for an agent's hello, and welcomes it.
pub(super) async fn greet(mut incoming: Incoming, mut outgoing: Outgoing, token: &str) -> io::Result<Greeting> {
    let (mut cutter, mut resolver, mut stopping, mut ready) = (Cutter::default(), None, false, false);
    let mut welcomed = false;
    while !ready {
        let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "the agent ended before it was ready");
        let piece = incoming.next().await.ok_or_else(ended)??;
        cutter.feed(&piece, |frame| match wire::read(frame) {
            Some(Said::Hello { version: wire::VERSION, token: shown, resolver: told }) if shown == token.as_bytes() => {
                resolver = Some(told);
                Ok(())
            }
            Some(Said::Ready) if resolver.is_some() => {
                ready = true;
                Ok(())
            }
            Some(Said::Signal) => {
                stopping = true;
                Ok(())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "what came first was no hello of this agent")),
        })?;
        if resolver.is_some() && !welcomed {
            welcomed = true;
            let mut welcome = Frames::default();
            // There are no volumes to give away.
            welcome.plain(&wire::welcome(0, 0));
            outgoing.write_all(&welcome.0).await?;
            outgoing.flush().await?;
        }
    }
    let resolver = resolver.unwrap_or_default();
    Ok(Greeting { resolver, stopping, streams: (incoming, outgoing), cutter })
}

impl Mux {
    /// Carries on with an agent that is ready; with it come the streams of its container's log.
    pub(super) fn start(greeting: Greeting, told: Told) -> (Self, [Channel; 2]) {
        let shared = Arc::new(Shared { state: Mutex::new(State::new()), news: Notify::new() });
        let logs = LOGS.map(|number| Channel { shared: shared.clone(), number });
        let mut talk = JoinSet::new();
        let (incoming, outgoing) = greeting.streams;
        let line = Line(shared.clone());
        talk.spawn(async move {
            let Told { events, ending } = told;
            tokio::select! {
                () = hear(&line.0, incoming, greeting.cutter, &events) => {}
                () = tell(&line.0, outgoing) => {}
            }
            drop(line);
            ending.send_replace(true);
            // Bounded: a reader that is behind by eight events still learns the last one.
            let _ = events.send(AgentEvent::Gone).await;
        });
        (Self { shared, _talk: talk }, logs)
    }

    /// Listens in the container.
    pub(super) async fn listen(&self, at: SocketAddr) -> io::Result<Acceptor> {
        let listener = Channel::new(&self.shared, Opening::Listener(at), Flow::Listener)?;
        let (local, _) = listener.opened().await?;
        Ok(Acceptor::new(listener, local))
    }

    /// Connects out of the container.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<Conn> {
        let channel = Channel::new(&self.shared, Opening::Connection(to), Flow::stream())?;
        let ends = channel.opened().await?;
        Ok(sockets::conn(channel, ends))
    }

    /// A datagram socket in the container.
    pub(super) async fn datagrams(&self, at: SocketAddr) -> io::Result<Datagrams> {
        let channel = Channel::new(&self.shared, Opening::Datagrams(at), Flow::datagrams())?;
        let (local, _) = channel.opened().await?;
        Ok(Datagrams::new(channel, local))
    }

    /// What the container's health check is told from now on.
    pub(super) fn set_health(&self, healthy: bool) {
        self.shared.act(|state| state.set_health(healthy));
    }

    /// Lets the agent exit, once everything that was written is told.
    pub(super) fn exit(&self, code: u8) {
        self.shared.act(|state| state.exit(code));
    }
}

/// The line to an agent: whoever waits for something of it learns that it is cut, however that comes about.
struct Line(Arc<Shared>);

impl Drop for Line {
    fn drop(&mut self) {
        let waiting = self.0.state().fail();
        waiting.into_iter().for_each(std::task::Waker::wake);
    }
}

/// Until the agent says no more.
async fn hear(shared: &Shared, mut incoming: Incoming, mut cutter: Cutter, events: &mpsc::Sender<AgentEvent>) {
    while let Ok(Some(Ok(piece))) = timeout(SILENCE, incoming.next()).await {
        let mut waiting = Vec::new();
        let heard = shared.act(|state| {
            cutter.feed(&piece, |frame| {
                if let Some(Said::Signal) = state.hear(frame, &mut waiting)? {
                    // Said again by whoever wants the container to end, should nobody have read the last eight.
                    let _ = events.try_send(AgentEvent::Terminate);
                }
                Ok::<(), window::Overrun>(())
            })
        });
        waiting.into_iter().for_each(std::task::Waker::wake);
        if heard.is_err() {
            return;
        }
    }
}

/// Until the agent reads no more.
async fn tell(shared: &Shared, mut outgoing: Outgoing) {
    let mut out = Frames::default();
    loop {
        shared.state().tell(&mut out);
        if out.0.is_empty() {
            tokio::select! {
                () = shared.news.notified() => {}
                () = sleep(QUIET) => shared.state().ping(),
            }
            continue;
        }
        if outgoing.write_all(&out.0).await.is_err() || outgoing.flush().await.is_err() {
            return;
        }
        out.0.clear();
    }
}
