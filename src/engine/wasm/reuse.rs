//! Instances of HTTP components that live under the component model's concurrency: kept between requests for guests that are
//! slow to start (`x-wasm.http.reuse`), or, of `wasi:http@0.3`, used for one request.
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
    HandlerState, Instance, Proxy, ProxyHandler, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};

use super::cpu::{count_since_last, measured};
use super::host::{Grants, State, refuel};
use super::meter::Meter;
use super::serve::Component;

/// How long an instance waits for its next request.
const IDLE: Duration = Duration::from_secs(10);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(600);
/// Requests after which an instance is replaced, so that what a guest leaks does not pile up.
const REQUESTS: usize = 10_000;

/// How many requests an instance answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// One: no state passes from one to the next.
    One,
    /// Many, one after the other.
    Many,
}

/// The instances of one service.
pub struct Reused {
    handler: ProxyHandler<Maker>,
    retired: CancellationToken,
}

impl Reused {
    /// No instance is made before the first request.
    pub fn new(made: Made, killed: CancellationToken) -> Self {
        let retired = CancellationToken::new();
        Self { handler: ProxyHandler::new(Maker { made, retired: retired.clone(), killed }), retired }
    }

    /// Hands requests to instances.
    pub fn handler(&self) -> &ProxyHandler<Maker> {
        &self.handler
    }

    /// Instances end with the request they are at.
    pub fn retire(&self) {
        self.retired.cancel();
    }
}

/// What instances are made of.
pub struct Made {
    /// The component.
    pub component: Component,
    /// What they are given.
    pub grants: Arc<Grants>,
    /// Their folders, opened.
    pub files: WasiFilesystemCtx,
    /// How many requests each answers.
    pub requests: Requests,
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
        let Made { component, grants, files, requests } = &self.made;
        let engine = match component {
            Component::P2(component) => component.engine(),
            Component::P3(component) => component.engine(),
        };
        let mut store = grants.component_store(engine, files.clone());
        grants.turns.pace(&mut store);
        let instantiate = async {
            wasmtime::error::Ok(match component {
                Component::P2(component) => Proxy::P2(component.instantiate_async(&mut store).await?),
                Component::P3(component) => Proxy::P3(component.instantiate_async(&mut store).await?),
            })
        };
        let proxy = measured(grants.meter.clone(), instantiate).await?;
        let waiting = |token: &CancellationToken| Box::pin(token.clone().cancelled_owned());
        let (retired, killed) = (waiting(&self.retired), waiting(&self.killed));
        Ok(Instance {
            store,
            proxy,
            view: |state| state.http(),
            expiration: Expiry { timer: None, retired, killed, meter: grants.meter.clone() },
            state: Worker(*requests),
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
pub struct Worker(Requests);

impl WorkerState for Worker {
    type StoreData = State;
    type RequestData = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        let most = match self.0 {
            Requests::One => 1,
            Requests::Many => REQUESTS,
        };
        if total >= most {
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
