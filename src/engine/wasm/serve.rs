//! `wasi:http` components, served on the ports of their service.
//!
//! Connections are the host's: hyper speaks HTTP/1.1 on the supervisor's own threads. Each request is answered by a fresh
//! instance on the guests' threads, so that no state passes from one to the next; a trap is a 500 and a line in the log,
//! and the service lives. With `x-wasm.http.reuse`, and for `wasi:http@0.3`, instances come from [`super::reuse`].
//!
//! The component behind the ports can be replaced while they are open ([`super::reload`]): connections go on, and each
//! request is answered to its end by the component that was there when it came.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime::component::InstancePre;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use super::application::{Direction, direct};
use super::cpu::measured;
use super::guest::Template;
use super::host::{Grants, Identity, State};
use super::outgoing::from_box;
use super::reload::Swap;
use super::reuse::{Made, Requests, Reused};
use super::stop::{Wish, overdue, wanted};
use super::trap::Ended;
use crate::engine::Stream;
use crate::model::application::Application;
use crate::net::stack::{self, BoxError, Conn, HttpService, Listener, NetError};

/// Requests of one instance in flight; more wait.
const CONCURRENT: usize = 512;
/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// How long the last words to clients may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// A linked HTTP component, by the handler it exports.
#[derive(Clone)]
pub enum Component {
    /// `wasi:http/incoming-handler@0.2`.
    P2(ProxyPre<State>),
    /// `wasi:http/handler@0.3`.
    P3(ServicePre<State>),
}

impl Component {
    /// Finds the handler; a component with both answers by the newer.
    pub fn new(linked: InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(match ServicePre::new(linked.clone()) {
            Ok(service) => Self::P3(service),
            Err(_) => Self::P2(ProxyPre::new(linked)?),
        })
    }
}

/// How instances come and go.
enum Instances {
    /// A fresh one for each request.
    Fresh(ProxyPre<State>),
    /// Made and dropped by their own rules, with the component model's concurrency.
    Kept(Reused),
}

/// A component that answers requests, and what its instances are given.
pub struct Generation {
    grants: Arc<Grants>,
    files: WasiFilesystemCtx,
    instances: Instances,
    /// Ends the guests of this and all later ones.
    killed: CancellationToken,
}

impl Generation {
    /// A linked component; its folders are opened now.
    pub fn new(component: Component, grants: Arc<Grants>, reuse: bool) -> wasmtime::Result<Self> {
        let files = grants.files()?;
        Ok(Self::over(component, grants, reuse, files, CancellationToken::new()))
    }

    /// The same, with its folders open, ended with others.
    pub fn over(
        component: Component,
        grants: Arc<Grants>,
        reuse: bool,
        files: WasiFilesystemCtx,
        killed: CancellationToken,
    ) -> Self {
        let instances = match component {
            Component::P2(component) if !reuse => Instances::Fresh(component),
            component => {
                let requests = if reuse { Requests::Many } else { Requests::One };
                let made = Made { component, grants: grants.clone(), files: files.clone(), requests };
                Instances::Kept(Reused::new(made, killed.clone()))
            }
        };
        Self { grants, files, instances, killed }
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

/// What answers: a component, or those of an application, each by its routes.
pub struct Site {
    /// Never empty.
    pub generations: Vec<Arc<Generation>>,
    /// The routes, where there are several.
    pub application: Option<Arc<Application>>,
}

impl From<Generation> for Site {
    fn from(only: Generation) -> Self {
        Self { generations: vec![Arc::new(only)], application: None }
    }
}

impl Site {
    fn first(&self) -> &Arc<Generation> {
        self.generations.first().expect("there is one")
    }

    /// Who answers a request, or the answer itself.
    fn answering<B>(
        &self,
        request: &mut Request<B>,
        from: SocketAddr,
    ) -> ControlFlow<Response<WasiBody>, Arc<Generation>> {
        let Some(application) = &self.application else { return ControlFlow::Continue(self.first().clone()) };
        match direct(application, request, from) {
            Direction::To(component) => ControlFlow::Continue(self.generations[component].clone()),
            Direction::Nowhere => {
                ControlFlow::Break(failure(StatusCode::NOT_FOUND, "no route of the application leads there"))
            }
            Direction::Health => ControlFlow::Break(said(StatusCode::OK, "OK")),
        }
    }
}

/// A service of HTTP requests. Its ports are open as long as it lives, whichever component answers behind them.
pub struct Server {
    /// Answers what comes now; a request in flight keeps the one it began with.
    current: RwLock<Arc<Site>>,
    /// Where guests run.
    guests: Handle,
    running: TaskTracker,
    /// Ends the guests.
    killed: CancellationToken,
    /// Ends the connections.
    cut: CancellationToken,
    permits: Arc<Semaphore>,
}

/// How serving came to an end.
pub enum Served {
    /// By this signal, and why.
    Ended(u8, Option<String>),
    /// What is next does not answer requests: everything is drained for it.
    Replaced(Swap),
}

/// What ends serving.
enum End {
    Wished(Wish),
    Replaced(Swap),
}

impl Server {
    /// A server; nothing listens yet.
    pub fn new(first: Site, guests: Handle) -> Arc<Self> {
        let killed = first.first().killed.clone();
        Arc::new(Self {
            current: RwLock::new(Arc::new(first)),
            guests,
            running: TaskTracker::new(),
            killed,
            cut: CancellationToken::new(),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
        })
    }

    fn current(&self) -> Arc<Site> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets another component answer from the next request on, on the same connections.
    fn replace(&self, component: Component, reuse: bool, identity: Identity) {
        let current = self.current();
        let old = current.first();
        let grants = Arc::new(old.grants.renewed(identity));
        let next = Generation::over(component, grants, reuse, old.files.clone(), self.killed.clone());
        let next = Arc::new(Site::from(next));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        if let Instances::Kept(reused) = &old.instances {
            reused.retire();
        }
    }

    /// Listens on a port of the instance.
    pub async fn listen(self: &Arc<Self>, port: u16) -> Result<Listener, NetError> {
        // IPv4 as well.
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        self.current().first().grants.stack.listen_http(at, Arc::new(Inside(self.clone()))).await
    }

    /// Serves until the end is wished, then drains what is in flight.
    pub async fn serve(
        self: Arc<Self>,
        listeners: Vec<Listener>,
        mut wishes: watch::Receiver<Wish>,
        swaps: &mut mpsc::Receiver<Swap>,
        grace: Duration,
    ) -> Served {
        let draining = CancellationToken::new();
        let connections = TaskTracker::new();
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(self.clone(), listener, connections.clone(), draining.clone()));
        }
        let end = loop {
            tokio::select! {
                wish = wanted(&mut wishes) => break End::Wished(wish),
                Some(swap) = swaps.recv() => match swap.template {
                    Template::Service { component, reuse } => {
                        self.replace(component, reuse, swap.identity);
                        // Whoever asked may have given up.
                        let _ = swap.done.send(Ok(()));
                    }
                    Template::Program(..) | Template::Application(..) => break End::Replaced(swap),
                },
            }
        };
        // The listeners go first: a connection that comes now is refused, not left hanging.
        accepting.shutdown().await;
        draining.cancel();
        connections.close();
        self.running.close();
        let drained = async { tokio::join!(connections.wait(), self.running.wait()) };
        let served = match end {
            End::Wished(Wish::Stop { signal, .. }) => tokio::select! {
                _ = drained => Served::Ended(signal, None),
                (signal, reason) = overdue(&mut wishes) => Served::Ended(signal, reason),
            },
            End::Wished(Wish::Kill { signal, reason }) => Served::Ended(signal, reason),
            End::Wished(Wish::Run) => unreachable!("`wanted` waits for another wish"),
            End::Replaced(swap) => tokio::select! {
                _ = drained => Served::Replaced(swap),
                () = tokio::time::sleep(grace) => Served::Replaced(swap),
                (signal, reason) = overdue(&mut wishes) => Served::Ended(signal, reason),
            },
        };
        self.killed.cancel();
        self.running.wait().await;
        // Whoever was cut off is told so, if it reads.
        if tokio::time::timeout(FAREWELL, connections.wait()).await.is_err() {
            self.cut.cancel();
            connections.wait().await;
        }
        served
    }

    /// Answers one request; what goes wrong in the guest is a response, too.
    async fn answer<B>(self: &Arc<Self>, mut request: Request<B>, from: SocketAddr) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let asked = Instant::now();
        let _permit = self.permits.clone().acquire_owned().await.expect("it is never closed");
        let generation = match self.current().answering(&mut request, from) {
            ControlFlow::Continue(generation) => generation,
            ControlFlow::Break(response) => return response,
        };
        let meter = generation.grants.meter.clone();
        let response = self.answer_by(generation, request).await;
        meter.answered(asked.elapsed());
        response
    }

    async fn answer_by<B>(self: &Arc<Self>, generation: Arc<Generation>, request: Request<B>) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        match &generation.instances {
            Instances::Fresh(component) => self.answer_fresh(&generation, component, request).await,
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
                        generation.log(&error);
                        failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why")
                    }
                    Err(lost) => {
                        generation.say(&format!("a request was lost: {lost}"));
                        failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why")
                    }
                }
            }
        }
    }

    async fn answer_fresh<B>(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        component: &ProxyPre<State>,
        request: Request<B>,
    ) -> Response<WasiBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Error>,
    {
        let mut store = generation.grants.component_store(component.engine(), generation.files.clone());
        let Ok(request) = store.data_mut().http().new_incoming_request(Scheme::Http, request) else {
            return failure(StatusCode::BAD_REQUEST, "the request names no host");
        };
        let (respond, response) = oneshot::channel();
        let out = store.data_mut().http().new_response_outparam(respond).expect("the table of a new store has room");
        let (runs, component, killed) = (generation.clone(), component.clone(), self.killed.clone());
        let run = async move {
            let handle = runs.grants.turns.clone().run(async {
                let proxy = component.instantiate_async(&mut store).await?;
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
            });
            tokio::select! {
                result = handle => match result {
                    Ok(()) => Fate::Returned,
                    Err(error) => {
                        runs.log(&error);
                        Fate::Failed
                    }
                },
                () = killed.cancelled() => Fate::Stopped,
            }
        };
        let run = measured(generation.grants.meter.clone(), run);
        let task = self.running.spawn_on(run, &self.guests);
        match response.await {
            Ok(Ok(response)) => response.map(|body| body.map_err(Error::from).boxed_unsync()),
            Ok(Err(code)) => {
                generation.say(&format!("the guest answered with an error: {code:?}"));
                failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error")
            }
            Err(_) => match task.await {
                Ok(Fate::Stopped) => failure(StatusCode::SERVICE_UNAVAILABLE, "it is being stopped"),
                Ok(Fate::Failed) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed; its log says why"),
                Ok(Fate::Returned) | Err(_) => {
                    generation.say("the guest returned without a response");
                    failure(StatusCode::INTERNAL_SERVER_ERROR, "the guest gave no response")
                }
            },
        }
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
    async fn call(&self, request: Request<stack::Body>, from: IpAddr) -> Result<Response<stack::Body>, BoxError> {
        // There is no socket, and no port.
        let from = SocketAddr::new(from, 0);
        let response = self.0.answer(request.map(|body| body.map_err(from_box)), from).await;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

async fn accept(server: Arc<Server>, mut listener: Listener, connections: TaskTracker, draining: CancellationToken) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(conn) => drop(connections.spawn_on(connection(server.clone(), conn, draining.clone()), &server.guests)),
            // Out of descriptors, most likely: the next moment may have one.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(server: Arc<Server>, conn: Conn, draining: CancellationToken) {
    // Only a socket the kernel gave up already cannot be taken over.
    let Ok(conn) = conn.here() else { return };
    let (cut, from) = (server.cut.clone(), conn.peer);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, from).await) }
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
    said(status, format!("wcompose: {text}\n"))
}

/// An answer of the host's own.
fn said(status: StatusCode, text: impl Into<Bytes>) -> Response<WasiBody> {
    let body = Full::new(text.into()).map_err(Error::from).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}
