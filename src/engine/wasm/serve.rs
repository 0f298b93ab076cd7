//! `wasi:http` components, served on the ports of their service.
//!
//! Connections are the host's: hyper speaks HTTP/1.1 on the supervisor's own threads. Each request is answered by a fresh
//! instance on the guests' threads, so that no state passes from one to the next; a trap is a 500 and a line in the log,
//! and the service lives. With `x-wasm.http.reuse` instances are kept ([`super::reuse`]).

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use super::host::{Grants, State};
use super::outgoing::from_box;
use super::reuse::Reused;
use super::stop::{Wish, overdue, wanted};
use super::trap::Ended;
use crate::engine::Stream;
use crate::net::stack::{self, BoxError, Conn, HttpService, Listener, NetError};

/// Requests of one instance in flight; more wait.
const CONCURRENT: usize = 512;
/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// How long the last words to clients may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// How instances come and go.
pub enum Instances {
    /// A fresh one for each request.
    Fresh,
    /// Kept between requests.
    Kept(Reused),
}

/// An HTTP component being served.
pub struct Server {
    component: ProxyPre<State>,
    grants: Arc<Grants>,
    files: WasiFilesystemCtx,
    instances: Instances,
    /// Where guests run.
    guests: Handle,
    running: TaskTracker,
    /// Ends the guests.
    killed: CancellationToken,
    /// Ends the connections.
    cut: CancellationToken,
    permits: Arc<Semaphore>,
}

impl Server {
    /// A server of a linked component; nothing listens yet.
    pub fn new(
        component: ProxyPre<State>,
        grants: Arc<Grants>,
        reuse: bool,
        guests: Handle,
    ) -> wasmtime::Result<Arc<Self>> {
        let files = grants.files()?;
        let instances = if reuse {
            Instances::Kept(Reused::new(component.clone(), grants.clone(), files.clone()))
        } else {
            Instances::Fresh
        };
        Ok(Arc::new(Self {
            component,
            grants,
            files,
            instances,
            guests,
            running: TaskTracker::new(),
            killed: CancellationToken::new(),
            cut: CancellationToken::new(),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
        }))
    }

    /// Listens on a port of the instance.
    pub async fn listen(self: &Arc<Self>, port: u16) -> Result<Listener, NetError> {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        self.grants.stack.listen_http(at, Arc::new(Inside(self.clone()))).await
    }

    /// Serves until the end is wished, then drains what is in flight. Answers with the signal it ended by, and why.
    pub async fn serve(
        self: Arc<Self>,
        listeners: Vec<Listener>,
        mut wishes: watch::Receiver<Wish>,
    ) -> (u8, Option<String>) {
        let draining = CancellationToken::new();
        let connections = TaskTracker::new();
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(self.clone(), listener, connections.clone(), draining.clone()));
        }
        let wish = wanted(&mut wishes).await;
        // The listeners go first: a connection that comes now is refused, not left hanging.
        accepting.shutdown().await;
        draining.cancel();
        connections.close();
        self.running.close();
        let ended = match wish {
            Wish::Stop { signal, .. } => tokio::select! {
                () = async { tokio::join!(connections.wait(), self.running.wait()); } => (signal, None),
                forced = overdue(&mut wishes) => forced,
            },
            Wish::Kill { signal, reason } => (signal, reason),
            Wish::Run => unreachable!("`wanted` waits for another wish"),
        };
        self.killed.cancel();
        self.running.wait().await;
        // Whoever was cut off is told so, if it reads.
        if tokio::time::timeout(FAREWELL, connections.wait()).await.is_err() {
            self.cut.cancel();
            connections.wait().await;
        }
        ended
    }

    /// Answers one request; what goes wrong in the guest is a response, too.
    async fn answer<B>(self: &Arc<Self>, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let _permit = self.permits.clone().acquire_owned().await.expect("it is never closed");
        match &self.instances {
            Instances::Fresh => self.answer_fresh(request).await,
            Instances::Kept(reused) => {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                let answer = reused.handler().clone();
                // Workers start on the runtime of whoever asks first.
                let task = self.running.spawn_on(async move { answer.handle((), request).await }, &self.guests);
                let answered = tokio::select! {
                    answered = task => answered,
                    () = self.killed.cancelled() => return failure(StatusCode::SERVICE_UNAVAILABLE, "it is being stopped"),
                };
                match answered {
                    Ok(Ok(response)) => response,
                    Ok(Err(error)) => {
                        self.log(&error);
                        failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why")
                    }
                    Err(lost) => {
                        self.say(&format!("a request was lost: {lost}"));
                        failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why")
                    }
                }
            }
        }
    }

    async fn answer_fresh<B>(self: &Arc<Self>, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let mut store = self.grants.component_store(self.component.engine(), self.files.clone());
        let Ok(request) = store.data_mut().http().new_incoming_request(Scheme::Http, request) else {
            return failure(StatusCode::BAD_REQUEST, "the request names no host");
        };
        let (respond, response) = oneshot::channel();
        let out = store.data_mut().http().new_response_outparam(respond).expect("the table of a new store has room");
        let server = self.clone();
        let run = async move {
            let handle = async {
                let proxy = server.component.instantiate_async(&mut store).await?;
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
            };
            tokio::select! {
                result = handle => match result {
                    Ok(()) => Fate::Returned,
                    Err(error) => {
                        server.log(&error);
                        Fate::Failed
                    }
                },
                () = server.killed.cancelled() => Fate::Stopped,
            }
        };
        let task = self.running.spawn_on(run, &self.guests);
        match response.await {
            Ok(Ok(response)) => response.map(|body| body.map_err(Error::from).boxed_unsync()),
            Ok(Err(code)) => {
                self.say(&format!("the guest answered with an error: {code:?}"));
                failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error")
            }
            Err(_) => match task.await {
                Ok(Fate::Stopped) => failure(StatusCode::SERVICE_UNAVAILABLE, "it is being stopped"),
                Ok(Fate::Failed) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why"),
                Ok(Fate::Returned) | Err(_) => {
                    self.say("the guest returned without a response");
                    failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest gave no response")
                }
            },
        }
    }

    fn log(&self, error: &wasmtime::Error) {
        match Ended::from_error(error) {
            Ended::Exited(code) => self.say(&format!("the guest exited with code {code} instead of answering")),
            Ended::Trapped(trapped) => {
                for line in trapped.lines() {
                    self.say(&line);
                }
            }
        }
    }

    fn say(&self, line: &str) {
        self.grants.output.line(Stream::Stderr, line);
    }
}

/// How the run of a request ended.
enum Fate {
    Returned,
    Failed,
    Stopped,
}

/// Where requests of other components in this process come in.
struct Inside(Arc<Server>);

#[async_trait::async_trait]
impl HttpService for Inside {
    async fn call(&self, request: Request<stack::Body>) -> Result<Response<stack::Body>, BoxError> {
        let response = self.0.answer(request.map(|body| body.map_err(from_box))).await;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

async fn accept(server: Arc<Server>, mut listener: Listener, connections: TaskTracker, draining: CancellationToken) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(conn) => drop(connections.spawn(connection(server.clone(), conn, draining.clone()))),
            // Out of descriptors, most likely: the next moment may have one.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(server: Arc<Server>, conn: Conn, draining: CancellationToken) {
    let cut = server.cut.clone();
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(conn.io), service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is between it and its client.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = cut.cancelled() => {}
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = cut.cancelled() => {}
            }
        }
    }
}

fn failure(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from(format!("wcompose: {text}\n"))).map_err(Error::from).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}
