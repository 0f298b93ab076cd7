//! WASI preview 1 for core modules: Wasmtime's, with WasmEdge's socket extension in it, over the guest's own network.
//!
//! The extension adds functions to `wasi_snapshot_preview1` itself, in two versions that share names: which one a module
//! means shows in the number of parameters, and one module may import both `sock_accept`s. So imports are resolved one by
//! one, by position, and not through a linker's table of names: the socket functions stand in the linker as
//! `name/parameters` of a module of their own, [`SHADOW`].
//!
//! `functions.rs` lists the socket functions and `calls.rs` carries them out; `files.rs` and `poll.rs` are what sockets
//! share with files; `socket.rs` is a socket, `table.rs` a guest's descriptors; `memory.rs`, `errno.rs`, `options.rs` and
//! `lookup.rs` are the forms of things.

mod calls;
mod errno;
mod files;
mod functions;
mod lookup;
mod memory;
mod options;
mod poll;
mod socket;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use wasmtime::{Caller, Engine, Extern, ExternType, FuncType, ImportType, Instance, Linker, Module, Store, ValType};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p1::WasiP1Ctx;

#[cfg(test)]
pub(super) use self::functions::FUNCTIONS;
use self::memory::Memory;
pub use self::table::Sockets;
use super::host::CoreState;
use super::linkers::Core;
use super::opening;

/// The module of preview 1.
const MODULE: &str = "wasi_snapshot_preview1";
/// Where the linker keeps the socket functions.
const SHADOW: &str = "wcompose:sockets";

/// A core module whose imports were resolved.
#[derive(Clone)]
pub struct Linked {
    module: Module,
    linker: Arc<Linker<CoreState>>,
}

impl Linked {
    /// Resolves the imports of a module; one that is not there, or is of another type, is an error.
    pub fn new(module: &Module, linkers: Core) -> wasmtime::Result<Self> {
        check(module, &linkers.stock)?;
        Ok(Self { module: module.clone(), linker: linkers.linker })
    }

    /// The engine it runs in.
    pub fn engine(&self) -> &Engine {
        self.module.engine()
    }

    /// A fresh instance.
    pub async fn instantiate(&self, store: &mut Store<CoreState>) -> wasmtime::Result<Instance> {
        let mut imports = Vec::with_capacity(self.module.imports().len());
        for import in self.module.imports() {
            let found = match socket_function(&import) {
                Some(key) => self.linker.get(&mut *store, SHADOW, &key).ok(),
                None => self.linker.get_by_import(&mut *store, &import),
            };
            imports.push(found.ok_or_else(|| unknown(&import))?);
        }
        Instance::new_async(store, &self.module, &imports).await
    }
}

/// What core modules of an engine are linked with.
pub(super) fn linkers(engine: &Engine) -> wasmtime::Result<Core> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut CoreState| &mut state.wasi)?;
    opening::add_to_core_linker(&mut linker)?;
    linker.allow_shadowing(true);
    files::add_to_linker(&mut linker)?;
    poll::add_to_linker(&mut linker)?;
    functions::add_to_linker(&mut linker)?;
    let mut stock = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut stock, |state| state)?;
    Ok(Core { linker: Arc::new(linker), stock: Arc::new(stock) })
}

/// Whether everything is there that a module imports, before there is a store to look it up in: Wasmtime's functions are
/// told from a linker over its own state.
fn check(module: &Module, stock: &Linker<WasiP1Ctx>) -> wasmtime::Result<()> {
    let mut store = Store::new(module.engine(), WasiCtx::builder().build_p1());
    for import in module.imports() {
        if socket_function(&import).is_some() {
            continue;
        }
        let found = stock.get_by_import(&mut store, &import).ok_or_else(|| unknown(&import))?;
        let fits = match (&found, import.ty()) {
            (Extern::Func(found), ExternType::Func(wanted)) => found.ty(&store).matches(&wanted),
            _ => false,
        };
        if !fits {
            wasmtime::bail!("`{}.{}` is imported with another type than it has", import.module(), import.name());
        }
    }
    Ok(())
}

/// The key of the socket function that an import means, told by its name and the number of its parameters.
fn socket_function(import: &ImportType<'_>) -> Option<String> {
    let ExternType::Func(function) = import.ty() else { return None };
    if import.module() != MODULE || !numbers_only(&function) {
        return None;
    }
    let name = import.name().strip_suffix("_v2").unwrap_or(import.name());
    let parameters = function.params().len();
    let known = functions::FUNCTIONS.contains(&(name, parameters));
    known.then(|| format!("{name}/{parameters}"))
}

/// As all socket functions are: any number of `i32`, and one as the result.
fn numbers_only(function: &FuncType) -> bool {
    let number = |kind: ValType| matches!(kind, ValType::I32);
    function.params().all(number) && function.results().len() == 1 && function.results().all(number)
}

fn unknown(import: &ImportType<'_>) -> wasmtime::Error {
    wasmtime::format_err!("`{}.{}` is not provided as it is imported", import.module(), import.name())
}

/// The memory and the state of the guest that calls.
fn guest<'a>(caller: &'a mut Caller<'_, CoreState>) -> wasmtime::Result<(Memory<'a>, &'a mut CoreState)> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::format_err!("the module exports no memory of its own as `memory`"))?;
    let (bytes, state) = memory.data_and_store_mut(caller);
    Ok((Memory(bytes), state))
}
