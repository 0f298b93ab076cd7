//! Instances of HTTP components of `wasi:http@0.2`: a fresh one for each request, or, with `x-wasm.http.reuse`, kept between
//! requests for guests that are slow to start.
//!
//! An instance answers one request at a time. A kept one is dropped after a while without any, after so many, when it
//! trapped, or when its component was replaced.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi_http::p2::bindings::http::types::{IncomingRequest, ResponseOutparam};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};

use super::host::{Grants, State, refuel};

/// How long an instance waits for its next request.
pub const IDLE: Duration = Duration::from_secs(10);
/// Requests after which an instance is replaced, so that what a guest leaks does not pile up.
pub const REQUESTS: usize = 1000;

/// The instances of one component.
pub struct Pool {
    component: ProxyPre<State>,
    files: WasiFilesystemCtx,
    reuse: bool,
    kept: Mutex<Kept>,
}

/// What waits for requests.
#[derive(Default)]
struct Kept {
    /// The last is the warmest: it is taken first, and the first waits longest.
    idle: Vec<(Instance, Instant)>,
    /// None is kept any more.
    retired: bool,
    /// A task looks after those that wait too long.
    watched: bool,
}

/// One instance, made when it is first called.
pub struct Instance {
    /// Its store.
    pub store: Store<State>,
    proxy: Option<Proxy>,
    requests: usize,
}

impl Pool {
    /// None is made before the first request. Their folders are open.
    pub fn new(component: ProxyPre<State>, files: WasiFilesystemCtx, reuse: bool) -> Arc<Self> {
        Arc::new(Self { component, files, reuse, kept: Mutex::default() })
    }

    /// An instance that answers the next request.
    pub fn take(&self, grants: &Grants) -> Instance {
        let kept = if self.reuse { self.kept().idle.pop() } else { None };
        if let Some((mut instance, _)) = kept {
            refuel(&mut instance.store);
            return instance;
        }
        let store = grants.component_store(self.component.engine(), self.files.clone());
        Instance { store, proxy: None, requests: 0 }
    }

    /// Takes an instance back that answered its request to the end.
    pub fn give(self: &Arc<Self>, mut instance: Instance) {
        instance.requests += 1;
        if !self.reuse || instance.requests >= REQUESTS {
            return;
        }
        let mut kept = self.kept();
        if kept.retired {
            return;
        }
        kept.idle.push((instance, Instant::now()));
        if !std::mem::replace(&mut kept.watched, true) {
            #[expect(clippy::disallowed_methods, reason = "ends with the last instance that waits, or with the pool")]
            tokio::spawn(drop_idle(Arc::downgrade(self)));
        }
    }

    /// Instances end with the request they are at.
    pub fn retire(&self) {
        let mut kept = self.kept();
        kept.retired = true;
        // Dropped after the lock.
        let _idle = std::mem::take(&mut kept.idle);
        drop(kept);
    }

    /// Takes out those that waited too long; tells when to look again, if there is reason to.
    fn expired(&self, now: Instant) -> (Vec<(Instance, Instant)>, Option<Instant>) {
        let mut kept = self.kept();
        let expired = kept.idle.iter().take_while(|(_, since)| *since + IDLE <= now).count();
        let expired = kept.idle.drain(..expired).collect();
        let next = kept.idle.first().map(|(_, since)| *since + IDLE);
        kept.watched = next.is_some();
        (expired, next)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn drop_idle(pool: Weak<Pool>) {
    let mut next = Instant::now() + IDLE;
    loop {
        sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        match pool.expired(Instant::now()).1 {
            Some(at) => next = at,
            None => return,
        }
    }
}

impl Instance {
    /// Calls the handler with a request that is in the store's table.
    pub async fn call(
        &mut self,
        pool: &Pool,
        request: Resource<IncomingRequest>,
        out: Resource<ResponseOutparam>,
    ) -> wasmtime::Result<()> {
        let proxy = match &self.proxy {
            Some(proxy) => proxy,
            None => self.proxy.insert(pool.component.instantiate_async(&mut self.store).await?),
        };
        proxy.wasi_http_incoming_handler().call_handle(&mut self.store, request, out).await
    }
}
