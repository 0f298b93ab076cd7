//! Programs: core modules of WASI preview 1 and command components of 0.2 and 0.3, run once from start to end.

use wasmtime::AsContext;
use wasmtime::component::{self, Accessor, Val};
use wasmtime_wasi::{p2, p3};

use super::host::{Grants, State};
use super::p1::Linked;
use super::trap::Ended;

/// A program that was linked.
#[derive(Clone)]
pub enum Program {
    /// A core module.
    Core(Linked),
    /// A component.
    Component(component::InstancePre<State>),
}

/// What of a program is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `_start`, or `wasi:cli/run`.
    Main,
    /// An export, without parameters (`module.wasm#export`).
    Export(String),
}

impl Program {
    /// Runs it to its end. Dropping the future ends it at the next tick.
    pub async fn run(&self, entry: &Entry, grants: &Grants) -> Ended {
        let code = match self {
            Self::Core(program) => run_core(program, entry, grants).await,
            Self::Component(program) => run_component(program, entry, grants).await,
        };
        match code {
            Ok(code) => Ended::Exited(code),
            Err(error) => Ended::from_error(&error),
        }
    }
}

async fn run_core(program: &Linked, entry: &Entry, grants: &Grants) -> wasmtime::Result<i64> {
    let mut store = grants.core_store(program.engine())?;
    let instance = program.instantiate(&mut store).await?;
    let name = match entry {
        Entry::Main => "_start",
        Entry::Export(name) => {
            // A reactor is made ready before any of its exports is called.
            if let Some(initialize) = instance.get_func(&mut store, "_initialize") {
                initialize.call_async(&mut store, &[], &mut []).await?;
            }
            name
        }
    };
    let function = instance
        .get_func(&mut store, name)
        .ok_or_else(|| wasmtime::format_err!("the module exports no function `{name}`"))?;
    let signature = function.ty(&store);
    if signature.params().len() > 0 {
        wasmtime::bail!("`{name}` has parameters: only exports without any can be called");
    }
    let mut results = vec![wasmtime::Val::I32(0); signature.results().len()];
    function.call_async(&mut store, &[], &mut results).await?;
    Ok(match results.first() {
        Some(wasmtime::Val::I32(code)) => i64::from(code & 0xff),
        _ => 0,
    })
}

async fn run_component(
    program: &component::InstancePre<State>,
    entry: &Entry,
    grants: &Grants,
) -> wasmtime::Result<i64> {
    let mut store = grants.component_store(program.engine(), grants.files()?);
    match entry {
        Entry::Main => {
            let result = match p3::bindings::CommandPre::new(program.clone()) {
                Ok(command) => {
                    let command = command.instantiate_async(&mut store).await?;
                    let run = async |accessor: &Accessor<State>| {
                        let result = command.wasi_cli_run().call_run(accessor).await;
                        // What it began and did not wait for is done as well, as at the end of a process's main thread it is not.
                        std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                        result
                    };
                    store.run_concurrent(run).await??
                }
                // No `run` of 0.3: the one of 0.2.
                Err(_) => {
                    let command = p2::bindings::CommandPre::new(program.clone())?;
                    let command = command.instantiate_async(&mut store).await?;
                    command.wasi_cli_run().call_run(&mut store).await?
                }
            };
            Ok(i64::from(result.is_err()))
        }
        Entry::Export(name) => {
            let instance = program.instantiate_async(&mut store).await?;
            let function = instance
                .get_func(&mut store, name)
                .ok_or_else(|| wasmtime::format_err!("the component exports no function `{name}`"))?;
            let signature = function.ty(store.as_context());
            if signature.params().len() > 0 {
                wasmtime::bail!("`{name}` has parameters: only exports without any can be called");
            }
            let mut results = vec![Val::Bool(false); signature.results().len()];
            function.call_async(&mut store, &[], &mut results).await?;
            Ok(i64::from(matches!(results.first(), Some(Val::Result(Err(_))))))
        }
    }
}
