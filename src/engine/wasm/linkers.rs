//! What modules are linked with. It is the same for every module of an engine, and takes longer to make than any link with it.

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::{self, Component, InstancePre};
use wasmtime::{Engine, Linker, Module};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::compile::Profile;
use super::host::{CoreState, State, async_component_linker, component_linker};
use super::p1::{self, Linked};

/// For core modules.
#[derive(Clone)]
pub struct Core {
    /// What instances are linked with.
    pub linker: Arc<Linker<CoreState>>,
    /// Wasmtime's part of it alone, by which imports are checked before there is an instance.
    pub stock: Arc<Linker<WasiP1Ctx>>,
}

/// The linkers of all engines, each made when it is first needed.
#[derive(Default)]
pub struct Linkers {
    core: Mutex<Vec<Core>>,
    components: Mutex<Vec<Arc<component::Linker<State>>>>,
}

impl Linkers {
    /// Links a core module.
    pub fn core(&self, module: &Module) -> wasmtime::Result<Linked> {
        Linked::new(module, self.of_modules(module.engine())?)
    }

    /// Links a component that was compiled for a profile: WASI 0.3 is there where the engine has the concurrency it needs.
    pub fn component(&self, component: &Component, profile: Profile) -> wasmtime::Result<InstancePre<State>> {
        self.of_components(component.engine(), profile)?.instantiate_pre(component)
    }

    /// Makes those that the modules of a profile mostly need. What fails is told by whoever needs one.
    pub fn warm(&self, engine: &Engine, profile: Profile) {
        match profile {
            Profile::Program => drop(self.of_modules(engine)),
            Profile::Serve | Profile::Concurrent => drop(self.of_components(engine, profile)),
        }
    }

    fn of_modules(&self, engine: &Engine) -> wasmtime::Result<Core> {
        found(&self.core, |one| Engine::same(one.linker.engine(), engine), || p1::linkers(engine))
    }

    fn of_components(&self, engine: &Engine, profile: Profile) -> wasmtime::Result<Arc<component::Linker<State>>> {
        let make = if profile == Profile::Concurrent { async_component_linker } else { component_linker };
        found(&self.components, |one| Engine::same(one.engine(), engine), || make(engine).map(Arc::new))
    }
}

/// The one that fits, or one that is made now.
fn found<T: Clone>(
    all: &Mutex<Vec<T>>,
    fits: impl Fn(&T) -> bool,
    make: impl FnOnce() -> wasmtime::Result<T>,
) -> wasmtime::Result<T> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(one) = all.iter().find(|one| fits(one)) {
        return Ok(one.clone());
    }
    let made = make()?;
    all.push(made.clone());
    Ok(made)
}
