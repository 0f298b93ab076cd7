//! One connection to the engine for one request, which may become something else (`upgrade`).

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// What is sent.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A connection; dropped, it is closed.
pub(super) struct Pipe {
    sender: http1::SendRequest<Body>,
    /// Moves the bytes.
    task: JoinSet<()>,
}

impl Pipe {
    /// Connects to an engine's address.
    pub(super) async fn connect(address: &str) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix("unix://") {
            return Self::over(UnixStream::connect(path).await?).await;
        }
        let rest = address.strip_prefix("tcp://").or_else(|| address.strip_prefix("http://")).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, format!("`{address}` cannot be used for a build with BuildKit"))
        })?;
        Self::over(TcpStream::connect(rest.trim_end_matches('/')).await?).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever waits for the answer is told of the error.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self { sender, task })
    }

    /// Sends the request.
    pub(super) async fn send(&mut self, request: Request<Body>) -> io::Result<Response<Incoming>> {
        self.sender.send_request(request).await.map_err(io::Error::other)
    }

    /// Keeps the connection's task for who goes on with it.
    pub(super) fn into_task(self) -> JoinSet<()> {
        self.task
    }
}
