//! Instances of HTTP components of `wasi:http@0.3`, which live under the component model's concurrency: used for one request, or
//! kept between requests for guests that are slow to start (`x-wasm.http.reuse`).
//!
//! Each instance answers one request at a time and is dropped after a while without any, or when it trapped, or when its
//! component was replaced, or when the service ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, Proxy, ProxyHandler, Request, Response, ShouldAccept, WorkerExpiration, WorkerState,
    WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::cpu::{count_since_last, measured};
use super::host::{Grants, State, refuel};
use super::meter::Meter;
use super::pool::{IDLE, REQUESTS};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(600);

/// The instances of one service.
pub struct Workers {
    handler: ProxyHandler<Maker>,
    retired: CancellationToken,
}

impl Workers {
    /// No instance is made before the first request.
    pub fn new(made: Made, killed: CancellationToken) -> Self {
        let retired = CancellationToken::new();
        Self { handler: ProxyHandler::new(Maker { made, retired: retired.clone(), killed }), retired }
    }

    /// Has a request answered by an instance, on a task of its own.
    pub async fn answer(&self, request: Request) -> wasmtime::Result<Response> {
        self.handler.handle((), request).await
    }

    /// Instances end with the request they are at.
    pub fn retire(&self) {
        self.retired.cancel();
    }
}

/// What instances are made of.
pub struct Made {
    /// The component.
    pub component: ServicePre<State>,
    /// What they are given.
    pub grants: Arc<Grants>,
    /// Their folders, opened.
    pub files: WasiFilesystemCtx,
    /// Whether they answer more than one request.
    pub reuse: bool,
}

/// Makes instances.
pub struct Maker {
    made: Made,
    retired: CancellationToken,
    killed: CancellationToken,
}

impl HandlerState for Maker {
    type StoreData = State;
    type WorkerExpiration = Expiry;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiry, Worker>> {
        let Made { component, grants, files, reuse } = &self.made;
        let mut store = grants.component_store(component.engine(), files.clone());
        grants.turns.pace(&mut store);
        let service = measured(grants.meter.clone(), component.instantiate_async(&mut store)).await?;
        let waiting = |token: &CancellationToken| Box::pin(token.clone().cancelled_owned());
        let (retired, killed) = (waiting(&self.retired), waiting(&self.killed));
        Ok(Instance {
            store,
            proxy: Proxy::P3(service),
            view: |state| state.http(),
            expiration: Expiry { timer: None, retired, killed, meter: grants.meter.clone() },
            state: Worker { most: if *reuse { REQUESTS } else { 1 } },
        })
    }
}

/// Ends an instance that waited or worked for too long, one that waits when its component was replaced, and any when its
/// service ends.
pub struct Expiry {
    timer: Option<Pin<Box<Sleep>>>,
    retired: Pin<Box<WaitForCancellationFutureOwned>>,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Wasmtime polls this after each poll of the guest, on the same thread: here the guest's time can be counted.
    meter: Arc<Meter>,
}

impl WorkerExpiration for Expiry {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: std::time::Instant,
    ) -> Poll<()> {
        count_since_last(&self.meter);
        if self.killed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if status == WorkerStatus::Idle && self.retired.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let patience = match status {
            WorkerStatus::Idle => IDLE,
            WorkerStatus::Requests | WorkerStatus::PostReturn => REQUEST,
        };
        let deadline = Instant::from_std(start) + patience;
        let sleep = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}

/// One request at a time.
pub struct Worker {
    /// Requests it answers, one after the other.
    most: usize,
}

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= self.most {
            ShouldAccept::Never
        } else if concurrent > 0 {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        store: StoreContextMut<'_, State>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        refuel(store);
        // Patience is the expiry's.
        Box::pin(std::future::pending())
    }

    fn drop(&self, _: Store<State>, _: wasmtime::Result<()>) {}
}
