//! What stands behind a guest: the data of its store, its linkers, its limits.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wasmtime::component::{self, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::outgoing::Outgoing;
use super::output::Output;
use super::sockets;
use crate::engine::Stream;
use crate::net::stack::Stack;

/// Everything an instance's guests are given. Shared by all requests of an HTTP component.
pub struct Grants {
    /// argv.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where relative paths start; preview 1 has no word for it, so core modules start at `/`.
    pub working_dir: Option<String>,
    /// Folders.
    pub preopens: Vec<Preopen>,
    /// Where its lines go.
    pub output: Output,
    /// Its network.
    pub stack: Stack,
    /// Memory it may use.
    pub memory: Arc<Budget>,
}

/// A folder of the host that a guest sees.
#[derive(Debug)]
pub struct Preopen {
    /// On the host.
    pub host: Folder,
    /// As the guest names it, absolute.
    pub guest: String,
    /// Writes are refused.
    pub read_only: bool,
}

/// Where a folder of the host is.
#[derive(Debug)]
pub enum Folder {
    /// At a path.
    At(PathBuf),
    /// Behind a descriptor that an agent passed; its path is not ours to walk.
    Passed(OwnedFd),
}

impl Folder {
    /// A path that leads there as long as this lives.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::At(path) => path.clone(),
            Self::Passed(descriptor) => PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd())),
        }
    }
}

impl Grants {
    /// A store for one run of a component.
    pub fn component_store(&self, engine: &Engine, files: WasiFilesystemCtx) -> Store<State> {
        let mut wasi = self.builder().build();
        *wasi.filesystem() = files;
        let state = State {
            wasi,
            table: ResourceTable::new(),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(self.stack.clone(), self.output.clone()),
            stack: self.stack.clone(),
            limits: Limits::new(self.memory.clone()),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limits);
        interruptible(&mut store);
        store
    }

    /// A store for a core module.
    pub fn core_store(&self, engine: &Engine) -> wasmtime::Result<Store<CoreState>> {
        let mut builder = self.builder();
        self.open(&mut builder)?;
        let state = CoreState { wasi: builder.build_p1(), limits: Limits::new(self.memory.clone()) };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limits);
        interruptible(&mut store);
        Ok(store)
    }

    /// The folders, opened once: stores of a component share them.
    pub fn files(&self) -> wasmtime::Result<WasiFilesystemCtx> {
        let mut builder = WasiCtx::builder();
        self.open(&mut builder)?;
        Ok(builder.build().filesystem().clone())
    }

    fn open(&self, builder: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for preopen in &self.preopens {
            let access = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            let host = preopen.host.path();
            builder.preopened_dir(&host, &preopen.guest, access).map_err(|error| {
                wasmtime::format_err!("open `{}` for the guest's `{}`: {error:#}", host.display(), preopen.guest)
            })?;
        }
        Ok(())
    }

    /// Standard input stays closed; Wasmtime's own network stays shut, ours is linked instead of it.
    fn builder(&self) -> WasiCtxBuilder {
        let mut builder = WasiCtx::builder();
        builder
            .args(&self.arguments)
            .envs(&self.environment)
            .stdout(self.output.writer(Stream::Stdout))
            .stderr(self.output.writer(Stream::Stderr));
        if let Some(folder) = &self.working_dir {
            builder.initial_cwd(folder);
        }
        builder
    }
}

/// Yields at each tick of the epoch, so that dropping the call ends any loop and others get their turn.
fn interruptible<T>(store: &mut Store<T>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
}

/// The data of a component's store.
pub struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    stack: Stack,
    limits: Limits,
}

impl State {
    /// The view our own sockets work on.
    pub fn network(&mut self) -> sockets::View<'_> {
        let stack = &self.stack;
        let stock = WasiSocketsCtxView { ctx: self.wasi.sockets(), table: &mut self.table };
        sockets::View { stock, stack }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

/// The data of a core module's store.
pub struct CoreState {
    wasi: WasiP1Ctx,
    limits: Limits,
}

/// Everything a component may import; `image::module` lists the same by name.
pub fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<State>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Everything a core module may import.
pub fn core_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<CoreState>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut CoreState| &mut state.wasi)?;
    Ok(linker)
}

/// The memory of one service instance, shared by everything that runs for it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    denied: AtomicBool,
}

impl Budget {
    /// So many bytes; absent means as many as Wasm can address.
    pub fn new(limit: Option<u64>) -> Arc<Self> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Arc::new(Self { limit, used: AtomicUsize::new(0), denied: AtomicBool::new(false) })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed) as u64
    }

    /// The phrase for a guest that ended after it asked for more than its limit.
    pub fn denial(&self) -> Option<String> {
        self.denied
            .load(Ordering::Relaxed)
            .then(|| format!("it asked for more memory than its limit of {} bytes", self.limit))
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.limit)
        });
        if taken.is_err() {
            self.denied.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

/// One store's part of a budget; given back when the store is dropped.
struct Limits {
    budget: Arc<Budget>,
    held: usize,
}

impl Limits {
    fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0 }
    }

    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>, size: usize) -> bool {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return false;
        }
        let bytes = desired.saturating_sub(current).saturating_mul(size);
        let granted = self.budget.take(bytes);
        if granted {
            self.held += bytes;
        }
        granted
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 1))
    }

    /// Tables take host memory as well: one pointer and a tag for each element.
    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired, maximum, 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_share_a_budget_and_give_it_back() {
        let budget = Budget::new(Some(100));
        let (mut one, mut two) = (Limits::new(budget.clone()), Limits::new(budget.clone()));
        assert!(one.memory_growing(0, 60, None).unwrap());
        assert!(!one.memory_growing(60, 1000, Some(500)).unwrap());
        assert_eq!(budget.denial(), None, "the module's own maximum is not the service's");
        assert!(!two.memory_growing(0, 50, None).unwrap());
        assert_eq!(budget.denial().unwrap(), "it asked for more memory than its limit of 100 bytes");
        drop(one);
        assert!(two.table_growing(0, 5, None).unwrap());
        assert_eq!(budget.used(), 80);
    }
}
