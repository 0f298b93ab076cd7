//! `wasi:http` components, served on the ports of their service.
//!
//! Connections are the host's: hyper speaks HTTP/1.1, on the guests' threads. Each request is answered by a fresh instance, so
//! that no state passes from one to the next; a trap is a 500 and a line in the log, and the service lives
//! ([`super::answer`]).
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
use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi_http::{Error, WasiBody};

use super::answer::{Component, Generation, failure, said};
use super::application::{Direction, direct};
use super::guest::Template;
use super::host::Identity;
use super::inline::Guests;
use super::outgoing::from_box;
use super::reload::Swap;
use super::stop::{Wish, overdue, wanted};
use crate::model::application::Application;
use crate::net::stack::{self, BoxError, Conn, HttpService, Listener, NetError};

/// Requests of one instance in flight; more wait.
const CONCURRENT: usize = 512;
/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// How long the last words to clients may take.
const FAREWELL: Duration = Duration::from_millis(200);

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
    guests: Guests,
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
            guests: Guests::new(guests),
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
        old.retire();
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
        self.guests.running.close();
        let drained = async { tokio::join!(connections.wait(), self.guests.running.wait()) };
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
        self.guests.running.wait().await;
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
        let response = generation.answer(request, &self.guests).await;
        meter.answered(asked.elapsed());
        response
    }
}

/// Where requests of other components in this process come in.
struct Inside(Arc<Server>);

#[async_trait::async_trait]
impl HttpService for Inside {
    async fn call(&self, request: Request<stack::Body>, from: IpAddr) -> Result<Response<stack::Body>, BoxError> {
        // There is no socket, and no port.
        let from = SocketAddr::new(from, 0);
        let server = self.0.clone();
        let answer = async move { server.answer(request.map(|body| body.map_err(from_box)), from).await };
        // Apart: on the asking guest's own task its time would be counted as the other's.
        let response = self.0.guests.running.spawn_on(answer, &self.0.guests.threads).await?;
        Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

async fn accept(server: Arc<Server>, mut listener: Listener, connections: TaskTracker, draining: CancellationToken) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok(conn) => {
                drop(connections.spawn_on(connection(server.clone(), conn, draining.clone()), &server.guests.threads))
            }
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
