//! What stands behind a guest: the data of its store, and its linkers.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::{self, ResourceTable};
use wasmtime::{AsContextMut, Engine, Store};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::attached::Stdin;
use super::extras::{self, Extras};
use super::files::Rooms;
use super::limits::{self, Budget, Share};
use super::meter::{Living, Meter};
use super::opening;
use super::outgoing::Outgoing;
use super::output::Output;
use super::p1::Sockets;
use super::sockets;
use super::turns::Turns;
use crate::engine::Stream;
use crate::net::stack::Stack;

/// Everything an instance's guests are given. Shared by all requests of an HTTP component.
#[derive(Clone)]
pub struct Grants {
    /// argv.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where relative paths start; preview 1 has no word for it, so core modules start at `/`.
    pub working_dir: Option<String>,
    /// Folders.
    pub preopens: Arc<[Preopen]>,
    /// Folders of the components of an application that has several, by name.
    pub rooms: Arc<Rooms>,
    /// Its standard input; absent means closed.
    pub stdin: Option<Stdin>,
    /// Where what it writes goes.
    pub output: Output,
    /// Its network.
    pub stack: Stack,
    /// Memory it may use.
    pub memory: Arc<Budget>,
    /// When they may compute.
    pub turns: Arc<Turns>,
    /// What is counted of it.
    pub meter: Arc<Meter>,
    /// What it is given beside WASI.
    pub extras: Extras,
}

/// What a guest is told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// argv.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Where relative paths start.
    pub working_dir: Option<String>,
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
    /// The same for another module in the place of this one: told other things of itself, with the same folders, output, network and memory.
    pub fn renewed(&self, identity: Identity) -> Self {
        let Identity { arguments, environment, working_dir } = identity;
        Self { arguments, environment, working_dir, ..self.clone() }
    }

    /// A store for one run of a component.
    pub fn component_store(&self, engine: &Engine, files: WasiFilesystemCtx) -> Store<State> {
        let mut wasi = self.builder().build();
        *wasi.filesystem() = files;
        let state = State {
            wasi,
            table: limits::table(),
            http: WasiHttpCtx::new(),
            outgoing: Outgoing::new(self.stack.clone(), self.output.clone()),
            stack: self.stack.clone(),
            share: Share::new(self.memory.clone()),
            _living: self.meter.instance(),
            extras: self.extras.clone(),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.share);
        interruptible(&mut store);
        refuel(&mut store);
        store
    }

    /// A store for a core module.
    pub fn core_store(&self, engine: &Engine) -> wasmtime::Result<Store<CoreState>> {
        let mut builder = self.builder();
        self.open(&mut builder)?;
        let mut state = CoreState {
            wasi: builder.build_p1(),
            sockets: Sockets::new(self.stack.clone()),
            share: Share::new(self.memory.clone()),
            _living: self.meter.instance(),
        };
        limits::bound(opening::table(&mut state.wasi));
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.share);
        interruptible(&mut store);
        fill(&mut store, self.memory.limits().fuel);
        Ok(store)
    }

    /// The folders, opened once: stores of a component share them.
    pub fn files(&self) -> wasmtime::Result<WasiFilesystemCtx> {
        let mut builder = WasiCtx::builder();
        self.open(&mut builder)?;
        Ok(builder.build().filesystem().clone())
    }

    fn open(&self, builder: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for preopen in self.preopens.iter() {
            let access = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
            let host = preopen.host.path();
            builder.preopened_dir(&host, &preopen.guest, access).map_err(|error| {
                wasmtime::format_err!("open `{}` for the guest's `{}`: {error:#}", host.display(), preopen.guest)
            })?;
        }
        Ok(())
    }

    /// Wasmtime's own network stays shut, ours is linked instead of it.
    fn builder(&self) -> WasiCtxBuilder {
        let mut builder = WasiCtx::builder();
        builder
            .args(&self.arguments)
            .envs(&self.environment)
            .stdout(self.output.writer(Stream::Stdout))
            .stderr(self.output.writer(Stream::Stderr));
        if let Some(stdin) = &self.stdin {
            builder.stdin(stdin.clone());
        }
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

/// Gives a component the fuel of one run or request, where the file limits it.
pub fn refuel(mut store: impl AsContextMut<Data = State>) {
    let fuel = store.as_context().data().share.limits().fuel;
    fill(&mut store, fuel);
}

fn fill(mut store: impl AsContextMut, fuel: Option<u64>) {
    if let Some(fuel) = fuel {
        store.as_context_mut().set_fuel(fuel).expect("the engine counts fuel where there is a limit");
    }
}

/// The data of a component's store.
pub struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    stack: Stack,
    share: Share,
    _living: Living,
    extras: Extras,
}

impl State {
    /// The view of the interfaces beside WASI.
    pub fn extras(&mut self) -> extras::View<'_> {
        extras::View { extras: &self.extras, table: &mut self.table }
    }

    /// The view our own sockets work on.
    pub fn network(&mut self) -> sockets::View<'_> {
        let stack = &self.stack;
        let stock = WasiSocketsCtxView { ctx: self.wasi.sockets(), table: &mut self.table };
        sockets::View { stock, stack }
    }

    /// Whether one more file may be opened; it is counted if so.
    pub fn may_open(&mut self) -> bool {
        self.share.open_file(&mut self.table)
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
    pub(super) wasi: WasiP1Ctx,
    pub(super) sockets: Sockets,
    share: Share,
    _living: Living,
}

impl CoreState {
    /// Wasmtime's part of it.
    pub fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    /// Whether one more file may be opened; it is counted if so.
    pub fn may_open(&mut self) -> bool {
        self.share.open_file(opening::table(&mut self.wasi))
    }
}

/// Everything a component may import; `image::module` lists the same by name.
pub fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<State>> {
    let mut linker = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    extras::add_to_linker(&mut linker)?;
    opening::add_to_component_linker(&mut linker)?;
    Ok(linker)
}

/// The same, and WASI 0.3 beside it: for an engine with the component model's concurrency.
pub fn async_component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<State>> {
    let mut linker = component_linker(engine)?;
    // Its sockets are ours alone; Wasmtime's own know the host's network only.
    wasmtime_wasi::p3::cli::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::clocks::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::filesystem::add_to_linker(&mut linker)?;
    wasmtime_wasi::p3::random::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sockets::p3::add_to_linker(&mut linker)?;
    opening::add_to_async_component_linker(&mut linker)?;
    Ok(linker)
}
