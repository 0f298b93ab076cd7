//! New modules for guests that run, and restarts of programs.
//!
//! The new module is compiled and linked beside the running one; where that fails nothing changes, and the service's log says
//! why. An HTTP component then takes over between two requests. A program is ended and the new one started in its place: its
//! ports stay bound, and who connects meanwhile waits.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::files::{Files, FilesError};
use super::guest::{Compiled, Template};
use super::host::Identity;
use super::instance::Instance;
use super::output::Output;
use super::{Instances, blocking, failed, spec, wasm_module};
use crate::engine::{Result, Stream};
use crate::model::Module;
use crate::plan::unit::InstanceSpec;

/// A module that is to take a run over.
pub struct Swap {
    /// Compiled and linked.
    pub template: Template,
    /// What the guest is told of itself from now on.
    pub identity: Identity,
    /// Done between the end of the old one and the start of the new, for a restart.
    pub between: Option<Between>,
    /// Told when it took over, or why it did not.
    pub done: oneshot::Sender<std::result::Result<(), String>>,
}

/// What is done between two runs of a program.
pub type Between = Box<dyn FnOnce() -> std::result::Result<(), FilesError> + Send>;

/// The way a run gets new modules. Cheap to clone.
#[derive(Clone)]
pub struct Reloader {
    /// Makes templates.
    pub compiled: Compiled,
    /// Where the instance is known.
    pub instances: Instances,
    /// Where the run takes them.
    pub swaps: mpsc::Sender<Swap>,
    /// Where the guest's files are.
    pub files: Files,
    /// Where failures are told.
    pub output: Output,
    /// One at a time.
    pub turn: Arc<Mutex<()>>,
}

impl Reloader {
    /// Has the run go on with the module of this specification; where that does not work it goes on with the one it has.
    pub async fn reload(&self, spec: &Arc<InstanceSpec>) -> Result<()> {
        let _turn = self.turn.lock().await;
        let reloaded = self.swap(spec).await;
        if let Err(error) = &reloaded {
            let text = format!("the new module was not taken, the old one goes on: {error}");
            text.lines().for_each(|line| self.output.line(Stream::Stderr, format!("wcompose: {line}")));
        }
        reloaded
    }

    async fn swap(&self, spec: &Arc<InstanceSpec>) -> Result<()> {
        let module = wasm_module(spec)?;
        let template = self.compiled.template(spec, module).await?;
        let (done, answer) = oneshot::channel();
        let is_same = |instance: &Instance| instance.spec.wasm_hash == spec.wasm_hash;
        let restarts = self.instances.lock().expect("no panic while it is held").get(&spec.name).is_some_and(is_same);
        let (files, of) = (self.files.clone(), spec.clone());
        let between = restarts.then(|| Box::new(move || files.refresh(&of)) as Between);
        let swap = Swap { template: template.clone(), identity: spec::identity(spec, module), between, done };
        let over = || failed("reload", spec, "it ended meanwhile");
        self.swaps.send(swap).await.map_err(|_| over())?;
        let taken = answer.await.map_err(|_| over())?;
        taken.map_err(|why| failed("reload", spec, why))?;
        self.renew_file(spec, module).await?;
        if let Some(instance) = self.instances.lock().expect("no panic while it is held").get_mut(&spec.name) {
            instance.renew(spec.clone(), template);
            if restarts {
                instance.restarted();
            }
        }
        Ok(())
    }

    /// The module of an image lies among the guest's files, too: `exec` runs it from there.
    async fn renew_file(&self, spec: &Arc<InstanceSpec>, module: &Module) -> Result<()> {
        let Some(root) = module.root.clone() else { return Ok(()) };
        let (files, path) = (self.files.clone(), module.path.clone());
        let renew = move || {
            let root = root.canonicalize().unwrap_or(root);
            path.strip_prefix(root).map_or(Ok(()), |inside| files.renew(&path, inside))
        };
        blocking("renew the module's file of", spec, renew).await
    }
}
