//! Serves the name servers that guests believe in, over datagrams and streams, from [`Stack::lookup`].
//!
//! What [`dns::Server::Public`] is asked beyond the project's names goes to the real one where the guest may reach it by
//! itself; else it is looked up here, as far as the policy lets it.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::ways::{Acquaintance, Allowed};
use super::{Conn, Inner, NetError, Reach, Stack, Stream};
use crate::net::dns::{self, Answer, Kind, Question, Read, Server};

/// Connections to name servers that one instance has at the same time.
const CONNECTIONS: usize = 64;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the real server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Datagram,
    Stream,
}

impl Stack {
    /// What a name server says to a message; nothing where it is no question.
    pub(super) async fn ask(&self, server: Server, message: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        let question = match dns::read(message) {
            Read::Nothing => return None,
            Read::Faulty(answer) => return Some(answer),
            Read::Question(question) => question,
        };
        let most = match carrier {
            Carrier::Datagram => question.datagram(),
            Carrier::Stream => dns::STREAM,
        };
        let known = self.is_known(&question.name);
        if server == Server::Public
            && !known
            && let Ok(allowed) = self.judge(dns::PUBLIC, Acquaintance::None)
        {
            let answer = timeout(PATIENCE, self.forward(allowed, message)).await;
            return Some(match answer {
                Ok(Ok(answer)) => {
                    // As for a name that is looked up here: the policy knows its addresses by it.
                    self.inner.memory.resolved(&question.name.to_ascii_lowercase(), &Question::addresses(&answer));
                    question.relayed(answer, most)
                }
                Ok(Err(_)) | Err(_) => question.answered(&Answer::Failed, most),
            });
        }
        Some(question.answered(&self.resolve(&question, known).await, most))
    }

    async fn resolve(&self, question: &Question, known: bool) -> Answer {
        if question.kind == Kind::Other {
            return if known { Answer::Addresses(Vec::new()) } else { Answer::Unsupported };
        }
        match self.lookup(&question.name).await {
            Ok(mut addresses) => {
                addresses.retain(|address| address.is_ipv4() == (question.kind == Kind::V4));
                Answer::Addresses(addresses)
            }
            Err(NetError::UnknownName) => Answer::Unknown,
            Err(NetError::Refused(_)) => Answer::Refused,
            Err(NetError::Io(_)) => Answer::Failed,
        }
    }

    /// Asks the real public server. By stream in any case: whatever the answer's length, it comes whole.
    async fn forward(&self, allowed: Allowed, message: &[u8]) -> Result<Vec<u8>, NetError> {
        let way = self.carrier(allowed, dns::PUBLIC)?;
        let mut conn = self.go(way, dns::PUBLIC).await?;
        conn.io.write_all(&framed(message)).await?;
        let mut answer = vec![0; usize::from(conn.io.read_u16().await?)];
        conn.io.read_exact(&mut answer).await?;
        Ok(answer)
    }

    /// A connection to a name server.
    pub(super) fn connect_to_resolver(&self, server: Server, at: SocketAddr) -> Result<Conn, NetError> {
        let own = self.addresses().find(|address| server == Server::Public && address.is_ipv4());
        let port = self.inner.fabric.ephemeral_port();
        let (near, far) = Conn::pair(SocketAddr::new(own.unwrap_or(Ipv4Addr::LOCALHOST.into()), port), at);
        let mut resolvers = self.inner.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        while resolvers.try_join_next().is_some() {}
        if resolvers.len() >= CONNECTIONS {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        // Not the stack itself: it ends these tasks when it ends.
        let inner = Arc::downgrade(&self.inner);
        resolvers.spawn(serve(inner, self.reach.clone(), server, far.io));
        Ok(near)
    }
}

/// Answers what comes over a connection, until it ends, is silent for too long, or brings what is no question.
async fn serve(inner: Weak<Inner>, reach: Arc<Reach>, server: Server, mut io: Stream) {
    while let Ok(Ok(length)) = timeout(SILENCE, io.read_u16()).await {
        let mut message = vec![0; usize::from(length)];
        let Ok(Ok(_)) = timeout(SILENCE, io.read_exact(&mut message)).await else { return };
        let Some(inner) = inner.upgrade() else { return };
        let stack = |inner| Stack { inner, reach: reach.clone() };
        let Some(answer) = stack(inner).ask(server, &message, Carrier::Stream).await else { return };
        // Length and message in one piece: there are guests that read each of them once.
        let Ok(Ok(())) = timeout(SILENCE, io.write_all(&framed(&answer))).await else { return };
    }
}

/// A message as it travels by stream (RFC 1035, section 4.2.2).
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), &message[..usize::from(length)]].concat()
}
