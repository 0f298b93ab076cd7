//! A run of an instance, begun: from its template and, where it lives at one, its agent to a guest that runs.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Wasm;
use super::application;
use super::attached::{Ends, Stdin};
use super::extras::Extras;
use super::extras::keyvalue;
use super::extras::redis::Redis;
use super::guest::{Run, Template, Work};
use super::host::Grants;
use super::instance::Running;
use super::limits::{Budget, Limits};
use super::meter::Meter;
use super::output::Output;
use super::reload::Reloader;
use super::turns::Turns;
use super::{blocking, existing_agent, failed, spec, wasm_module};
use crate::engine::{EngineError, ErrorKind, Exit, Handle, Outlet, Report, Result, Started, Stream};
use crate::net::agent::Agent;
use crate::net::stack::{Families, Stack, StackNetwork, StackSpec};
use crate::net::wiring::Place;
use crate::plan::unit::{Addresses, AtEnd, InstanceSpec};

/// Refusals that wait to be told.
const REFUSALS: usize = 64;

impl Wasm {
    /// What a guest is given beside WASI.
    fn extras(&self, spec: &InstanceSpec, stack: &Stack, output: &Output) -> Extras {
        let options = spec.service.wasm.as_ref();
        let store = match options.and_then(|options| options.keyvalue.clone()) {
            Some(address) => keyvalue::Store::Redis(Arc::new(Redis::new(address, stack.clone()))),
            None => {
                let mut values = self.values.lock().expect("no panic while it is held");
                keyvalue::Store::Memory(values.entry(spec.name.service.clone()).or_default().clone())
            }
        };
        let config = options.map(|options| options.config.clone()).unwrap_or_default();
        Extras { config: Arc::new(config), store, stores: None, output: output.clone() }
    }

    pub(super) async fn run(
        &self,
        spec: &Arc<InstanceSpec>,
        outlet: Outlet,
        ends: Option<Ends>,
    ) -> Result<Box<dyn Handle>> {
        if !self.lock().contains_key(&spec.name) {
            // Made by a supervisor that is gone: its container may be there, its compiled guest is not.
            self.adopt_created(spec).await?;
        }
        let (template, meeting, made_of) = {
            let instances = self.lock();
            let instance = instances.get(&spec.name).ok_or_else(|| not_created(spec))?;
            if instance.running().is_some() {
                return Err(failed("start", spec, "it runs already"));
            }
            (instance.template.clone(), instance.meeting.clone(), instance.spec.wasm_hash.clone())
        };
        let template = if made_of == spec.wasm_hash { template } else { self.renew(spec).await? };
        let (agent, at_engine) = match meeting {
            Some(meeting) => {
                let (agent, started) = self.start_agent(spec, &meeting).await?;
                (Some(agent), Some(started))
            }
            None => (None, None),
        };
        let launched = self.launch(spec, template, agent.clone(), at_engine, outlet, ends).await;
        if let (Err(_), Some(agent)) = (&launched, agent) {
            self.fabric.leave(&spec.name);
            agent.exit(1).await;
        }
        launched
    }

    /// It was to take a new module while it ran, and ended before: its next run begins with that one.
    async fn renew(&self, spec: &Arc<InstanceSpec>) -> Result<Template> {
        let template = self.compiled.template(spec, wasm_module(spec)?).await?;
        if let Some(instance) = self.lock().get_mut(&spec.name) {
            instance.renew(spec.clone(), template.clone());
        }
        Ok(template)
    }

    /// From a started agent, or none, to a running guest.
    async fn launch(
        &self,
        spec: &Arc<InstanceSpec>,
        template: Template,
        agent: Option<Agent>,
        at_engine: Option<Started>,
        outlet: Outlet,
        ends: Option<Ends>,
    ) -> Result<Box<dyn Handle>> {
        let module = wasm_module(spec)?;
        let addresses = at_engine.as_ref().map(|started| started.addresses.clone()).unwrap_or_default();
        let (refusals, refused) = mpsc::channel(REFUSALS);
        let limits = Limits::of(&spec.service);
        let stack = self.fabric.join(StackSpec {
            instance: spec.name.clone(),
            networks: networks(spec, &addresses),
            agent: agent.clone(),
            egress: spec.egress.clone(),
            extra_hosts: spec.service.extra_hosts.clone(),
            sockets: limits.sockets,
            refusals,
        });
        let (files, image, passed) =
            (self.files(spec), module.root.clone(), agent.as_ref().map(Agent::directories).unwrap_or_default());
        let names = application::rooms(module);
        let (opened, rooms) = {
            let given = spec.clone();
            let open = move || files.open_all(&given, image.as_deref(), passed, &names);
            blocking("prepare the files of", spec, open).await?
        };
        let (stdin, output) = match ends {
            Some(ends) => (
                ends.stdin.map(|incoming| Stdin::new(incoming, ends.terminals.stdin)),
                Output::attached(ends.output, ends.terminals),
            ),
            None => (None, Output::new()),
        };
        for note in &opened.notes {
            output.line(Stream::Stderr, format!("wcompose: {note}"));
        }
        let identity = spec::identity(spec, module);
        let memory = Budget::new(limits, output.clone());
        let grants = Arc::new(Grants {
            arguments: identity.arguments,
            environment: identity.environment,
            working_dir: identity.working_dir,
            preopens: opened.preopens.into(),
            rooms: Arc::new(rooms),
            turns: Turns::new(memory.clone(), self.threads.busy()),
            memory,
            stdin,
            extras: self.extras(spec, &stack, &output),
            output,
            stack: stack.clone(),
            meter: Arc::new(Meter::default()),
        });
        let guests = self.threads.handle().map_err(|error| failed("start the threads of", spec, error))?;
        let ports = spec::http_ports(spec, module);
        let work = Work::begin(template, &grants, &guests, &ports).await;
        let work = work.map_err(|error| failed("start", spec, error))?;
        let (swaps, swapped) = mpsc::channel(1);
        let reloader = Reloader {
            compiled: self.compiled.clone(),
            instances: self.instances.clone(),
            swaps,
            files: self.files(spec),
            output: grants.output.clone(),
            turn: Arc::default(),
        };
        let (running, ended) = Running::new(spec, agent.clone(), grants.clone(), reloader);
        let run = Run {
            outlet: outlet.clone(),
            grants,
            work,
            container: agent.as_ref().and_then(|_| Some((spec.clone(), self.docker.get()?.clone()))),
            agent,
            refusals: refused,
            switch: running.switch.clone(),
            swaps: swapped,
            ports,
            grace: running.grace,
            guests,
            fabric: self.fabric.clone(),
        };
        let (started, handed) = {
            let mut instances = self.lock();
            let instance = instances.get_mut(&spec.name).ok_or_else(|| not_created(spec))?;
            let handed = running.handed();
            instance.begin(running, at_engine.as_ref());
            (instance.started(), handed)
        };
        outlet.report(Report::Started(started)).await;
        let (wasm, spec) = (self.own.clone(), spec.clone());
        drop(self.runs.spawn(async move {
            let exit = run.complete().await;
            if let Some(wasm) = wasm.upgrade() {
                wasm.finish(&spec, &exit).await;
            }
            outlet.report(Report::Exited(exit)).await;
            ended.send_replace(true);
        }));
        Ok(Box::new(handed))
    }

    /// A run ended: what is not kept goes before anybody learns of it.
    async fn finish(&self, spec: &InstanceSpec, exit: &Exit) {
        if let Some(instance) = self.lock().get_mut(&spec.name) {
            instance.finish(exit);
        }
        if spec.at_end == AtEnd::Removed {
            // Nobody is left to tell: what stays is cleared with the project.
            let _ = self.discard(spec).await;
        }
    }

    async fn adopt_created(&self, spec: &Arc<InstanceSpec>) -> Result<()> {
        let stale = match spec.place {
            Place::Agent => existing_agent(self.docker(spec)?, spec).await?,
            Place::InProcess => None,
        };
        self.create(spec, stale.as_ref()).await
    }
}

fn networks(spec: &InstanceSpec, addresses: &Addresses) -> Vec<StackNetwork> {
    spec.networks
        .iter()
        .map(|join| {
            let at_engine = addresses.get(&join.name);
            StackNetwork {
                name: join.name.clone(),
                in_process: join.in_process,
                internal: join.internal,
                families: if join.ipv6 { Families::Both } else { Families::V4 },
                names: join.aliases.clone(),
                addresses: at_engine.cloned().unwrap_or_default(),
            }
        })
        .collect()
}

pub(super) fn not_created(spec: &InstanceSpec) -> EngineError {
    EngineError::new(ErrorKind::NotFound, "start", &spec.container, "it was removed meanwhile")
}
