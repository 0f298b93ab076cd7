//! `exec`: another program beside a running guest. It has the guest's root, environment and network, and its limits and
//! counters, too; it ends with the guest at the latest.
//!
//! What is run is an export of the guest's own module, or another module that lies in its files.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::attached::{Ends, Stdin};
use super::guest::{Finished, Template, run_program};
use super::host::Grants;
use super::inside;
use super::instance::Instance;
use super::output::Output;
use super::stop::{SIGKILL, Switch};
use super::{Wasm, blocking, failed, spec};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::image::module;
use crate::image::store::{Store, digest};
use crate::model::{ImageConfig, InstanceName, Module, Resolved};
use crate::plan::unit::InstanceSpec;

/// Largest module that is read out of a guest's files.
const LARGEST: u64 = 256 << 20;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// What, and its arguments.
    pub command: Vec<String>,
    /// On top of the guest's environment.
    pub environment: Vec<(String, String)>,
    /// Instead of the guest's working directory.
    pub working_dir: Option<String>,
}

/// A program beside a guest.
#[derive(Debug)]
pub struct Executed {
    /// Ends it.
    pub switch: Switch,
    /// Its exit code, once it ended.
    pub exit: oneshot::Receiver<i64>,
}

impl Wasm {
    /// Runs a program beside a running guest. Its output ends before its exit is told.
    pub async fn exec(&self, name: &InstanceName, exec: Exec, ends: Ends) -> Result<Executed> {
        let (spec, handed, grants) = {
            let instances = self.lock();
            let found = instances.get(name).and_then(|instance| {
                let running = instance.running()?;
                Some((instance.spec.clone(), running.handed(), running.grants.clone()))
            });
            found.ok_or_else(|| not_running(name, instances.get(name)))?
        };
        let module = self.program(&spec, &grants, &exec).await?;
        let template = self.compiled.template(&spec, &module).await?;
        let Template::Program(program, entry) = template else {
            return Err(invalid(&spec, "it answers HTTP requests: it is a service, no program to be run"));
        };
        let output = Output::attached(ends.output, ends.terminals);
        let grants = Arc::new(given(&grants, exec, ends.stdin.map(|stdin| (stdin, ends.terminals.stdin)), &output));
        let guests = self.threads.handle().map_err(|error| failed("start the threads of", &spec, error))?;
        let switch = Switch::new();
        let (ended, exit) = oneshot::channel();
        let own = switch.clone();
        drop(self.runs.spawn(async move {
            // A new module is the service's; whoever runs beside it goes on.
            let (_swaps, mut never) = mpsc::channel(1);
            let run = run_program(program, entry, grants, &own, &guests, &mut never);
            let code = tokio::select! {
                finished = run => match finished {
                    Finished::Ended(code, _) => code,
                    Finished::Replaced(..) => unreachable!("nobody sends a new module"),
                },
                // Its memory and sockets went with the future.
                () = handed.ended() => {
                    output.line(crate::engine::Stream::Stderr, "wcompose: the service ended");
                    128 + i64::from(SIGKILL)
                }
            };
            output.close();
            let _ = ended.send(code);
        }));
        Ok(Executed { switch, exit })
    }

    /// The module that a command names.
    async fn program(&self, spec: &Arc<InstanceSpec>, grants: &Arc<Grants>, exec: &Exec) -> Result<Module> {
        let Some(word) = exec.command.first().cloned() else { return Err(invalid(spec, "no command was given")) };
        if !spec::is_module(&word) {
            let Resolved::Wasm(own) = &spec.resolved else { return Err(invalid(spec, "it is a Linux service")) };
            let function = word.trim_start_matches('#').to_owned();
            return self.own_export(spec, own.clone(), function).await;
        }
        let (file, function) = match word.rsplit_once('#') {
            Some((file, function)) => (file.to_owned(), Some(function.to_owned())),
            None => (word.clone(), None),
        };
        let folder = exec.working_dir.clone().or_else(|| grants.working_dir.clone());
        let (grants, spec_of, store) = (grants.clone(), spec.clone(), Store::new(&self.folders.data));
        let read = move || -> Result<Module> {
            let path = inside::absolute(folder.as_deref(), &file);
            let bytes = inside::read(&grants.preopens, &path, LARGEST).map_err(|error| {
                EngineError::new(ErrorKind::NotFound, "run", &word, error)
                    .hint("name a `.wasm` file among the service's files, or an export of its own module")
            })?;
            let unsuitable = |error: module::Unsuitable| invalid(&spec_of, format!("`{word}`: {error}"));
            let is_text = file.to_ascii_lowercase().ends_with(".wat");
            let binary = if is_text { module::to_binary(&bytes).map_err(unsuitable)? } else { bytes.as_slice().into() };
            let kind = module::inspect(&binary, function.as_deref()).map_err(unsuitable)?;
            let digest = digest(&binary);
            let path = store.put(&binary, &digest).map_err(|error| failed("keep the module of", &spec_of, error))?;
            Ok(Module {
                reference: word,
                path,
                digest,
                size: binary.len() as u64,
                kind,
                function,
                root: None,
                files: None,
                config: ImageConfig::default(),
            })
        };
        tokio::task::spawn_blocking(read).await.map_err(|lost| failed("read the program for", spec, lost))?
    }

    /// The guest's own module, run at another export.
    async fn own_export(&self, spec: &Arc<InstanceSpec>, mut own: Module, function: String) -> Result<Module> {
        let path = own.path.clone();
        let asked = function.clone();
        let kind = blocking("read the module of", spec, move || {
            let bytes = std::fs::read(&path)?;
            Ok::<_, std::io::Error>(module::inspect(&bytes, Some(&asked)))
        })
        .await?;
        own.kind = kind.map_err(|error| {
            invalid(spec, format!("`{function}`: {error}"))
                .hint("name an export without parameters of its own module, or a `.wasm` file among its files")
        })?;
        own.function = Some(function);
        Ok(own)
    }
}

/// What the program is given: the guest's own, with what the command says of it.
fn given(grants: &Grants, exec: Exec, stdin: Option<(mpsc::Receiver<bytes::Bytes>, bool)>, output: &Output) -> Grants {
    let mut environment = grants.environment.clone();
    for (name, value) in exec.environment {
        environment.retain(|(known, _)| *known != name);
        environment.push((name, value));
    }
    let mut arguments = exec.command;
    if let Some(first) = arguments.first_mut()
        && let Some((file, _)) = first.rsplit_once('#').filter(|(file, _)| spec::is_module(file))
    {
        *first = file.to_owned();
    }
    Grants {
        arguments,
        environment,
        working_dir: exec.working_dir.or_else(|| grants.working_dir.clone()),
        stdin: stdin.map(|(incoming, terminal)| Stdin::new(incoming, terminal)),
        output: output.clone(),
        ..grants.clone()
    }
}

fn not_running(name: &InstanceName, instance: Option<&Instance>) -> EngineError {
    let why = match instance {
        Some(_) => "it does not run",
        None => "there is no such instance",
    };
    EngineError::new(ErrorKind::Conflict, "exec in", name.to_string(), why)
}

fn invalid(spec: &InstanceSpec, why: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::Invalid, "exec in", &spec.container, why.into())
}
