//! `x-wasm.http.reuse`: instances of an HTTP component that are kept between requests, for guests that are slow to start.
//!
//! Each instance answers one request at a time and is dropped after a while without any, or when it trapped.

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
    HandlerState, Instance, Proxy, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::host::{Grants, State, refuel};

/// How long an instance waits for its next request.
const IDLE: Duration = Duration::from_secs(10);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(600);
/// Requests after which an instance is replaced, so that what a guest leaks does not pile up.
const REQUESTS: usize = 10_000;

/// The instances of one service.
pub struct Reused {
    handler: ProxyHandler<Made>,
    retired: CancellationToken,
}

impl Reused {
    /// No instance is made before the first request.
    pub fn new(component: ProxyPre<State>, grants: Arc<Grants>, files: WasiFilesystemCtx) -> Self {
        let retired = CancellationToken::new();
        Self { handler: ProxyHandler::new(Made { component, grants, files, retired: retired.clone() }), retired }
    }

    /// Hands requests to instances.
    pub fn handler(&self) -> &ProxyHandler<Made> {
        &self.handler
    }

    /// Instances end with the request they are at.
    pub fn retire(&self) {
        self.retired.cancel();
    }
}

/// Makes instances.
pub struct Made {
    component: ProxyPre<State>,
    grants: Arc<Grants>,
    files: WasiFilesystemCtx,
    retired: CancellationToken,
}

impl HandlerState for Made {
    type StoreData = State;
    type WorkerExpiration = Expiry;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<State, Expiry, Worker>> {
        let mut store = self.grants.component_store(self.component.engine(), self.files.clone());
        let proxy = self.component.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy: Proxy::P2(proxy),
            view: |state| state.http(),
            expiration: Expiry { timer: None, retired: Box::pin(self.retired.clone().cancelled_owned()) },
            state: Worker,
        })
    }
}

/// Ends an instance that waited or worked for too long, and one that waits when its component was replaced.
pub struct Expiry {
    timer: Option<Pin<Box<Sleep>>>,
    retired: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl WorkerExpiration for Expiry {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: std::time::Instant,
    ) -> Poll<()> {
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
pub struct Worker;

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= REQUESTS {
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
