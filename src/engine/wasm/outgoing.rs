//! Outgoing `wasi:http`: to a component of this process without a socket, else HTTP/1.1 over a connection of the guest's network,
//! inside TLS where the scheme is `https`.
//!
//! Nothing here decides what may be reached: the [`Stack`] does. Redirects are the guest's to follow, as requests of their own.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{FusedFuture, FutureExt, TryFutureExt};
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::output::Output;
use super::tls;
use crate::engine::Stream;
use crate::net::stack::{BoxError, NetError, Route, Stack};

/// How long each phase may take where the guest does not say.
const PATIENCE: Duration = Duration::from_secs(600);

/// The outgoing side of one guest.
pub struct Outgoing {
    stack: Stack,
    output: Output,
}

impl Outgoing {
    /// Sends over `stack`; what a person should know goes to `output`.
    pub fn new(stack: Stack, output: Output) -> Self {
        Self { stack, output }
    }
}

/// What Wasmtime polls after the response came: the connection's own work.
type Work = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = (Response<WasiBody>, Work);

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Work,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let (stack, output) = (self.stack.clone(), self.output.clone());
        Box::new(send(stack, output, request, options.unwrap_or_default()))
    }

    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(Scheme::HTTP)
    }
}

async fn send(
    stack: Stack,
    output: Output,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Answer, Error> {
    let Some(authority) = request.uri().authority().cloned() else { return Err(Error::HttpRequestUriInvalid) };
    let secure = request.uri().scheme() == Some(&Scheme::HTTPS);
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let connect = Instant::now() + options.connect_timeout.unwrap_or(PATIENCE);
    let route = tokio::time::timeout_at(connect, stack.route(&host, port))
        .await
        .map_err(|_| Error::ConnectionTimeout)?
        .map_err(refusal)?;
    let first_byte = options.first_byte_timeout.unwrap_or(PATIENCE);
    let between_bytes = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let unasked = |fault: tls::Fault| {
        output.line(Stream::Stderr, format!("wcompose: https://{authority} was not asked: {fault}"));
        fault.code()
    };
    match route {
        Route::Inside(..) if secure => {
            Err(unasked(tls::Fault::Protocol("the service there speaks plain HTTP: ask it by `http://`".into())))
        }
        Route::Inside(service, from) => {
            let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            let response = tokio::time::timeout(first_byte, service.call(request, from))
                .await
                .map_err(|_| Error::HttpResponseTimeout)?
                .map_err(from_box)?;
            let response = response.map(|body| timed(body.map_err(from_box), between_bytes));
            Ok((response, Box::new(async { Ok(()) })))
        }
        Route::Conn(conn) if secure => {
            let stream = tokio::time::timeout_at(connect, tls::connect(conn.io, &host))
                .await
                .map_err(|_| Error::ConnectionTimeout)?
                .map_err(unasked)?;
            over(stream, request, first_byte, between_bytes).await
        }
        Route::Conn(conn) => over(conn.io, request, first_byte, between_bytes).await,
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<WasiBody>,
    first_byte: Duration,
    between_bytes: Duration,
) -> Result<Answer, Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The request line carries the path alone; the authority is in the `host` header already.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
    // The connection moves only while it is polled: here until the response starts, then by whoever gets the rest of it.
    let mut connection = Box::pin(connection.map_err(Error::from).fuse());
    let mut response = pin!(tokio::time::timeout(first_byte, sender.send_request(request)));
    let response = std::future::poll_fn(|cx| {
        // How the connection fails is told by the response as well.
        let _ = connection.as_mut().poll(cx);
        response.as_mut().poll(cx)
    })
    .await
    .map_err(|_| Error::ConnectionReadTimeout)??;
    let response = response.map(|body| timed(body.map_err(Error::from), between_bytes));
    let work = async move { if connection.is_terminated() { Ok(()) } else { connection.await } };
    Ok((response, Box::new(work)))
}

fn refusal(error: NetError) -> Error {
    match error {
        NetError::Refused(_) => Error::HttpRequestDenied,
        NetError::UnknownName => Error::DnsError { rcode: Some("NXDOMAIN".into()), info_code: None },
        NetError::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
            std::io::ErrorKind::TimedOut => Error::ConnectionTimeout,
            std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
                Error::DestinationIpUnroutable
            }
            _ => Error::Connect(error),
        },
    }
}

/// The error a body or service of ours carries, as guests see it.
pub fn from_box(error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        Ok(error) => return *error,
        Err(error) => error,
    };
    match error.downcast::<hyper::Error>() {
        Ok(error) => Error::Hyper(*error),
        Err(error) => Error::InternalError(Some(error.to_string())),
    }
}

/// The same body, failing when nothing of it comes for so long.
fn timed<B>(body: B, patience: Duration) -> WasiBody
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    Timed { body: Box::pin(body), patience, deadline: Box::pin(tokio::time::sleep(patience)) }.boxed_unsync()
}

struct Timed<B> {
    body: Pin<Box<B>>,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl<B: Body<Data = Bytes, Error = Error>> Body for Timed<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) {
            this.deadline.as_mut().reset(Instant::now() + this.patience);
            return Poll::Ready(frame);
        }
        this.deadline.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
