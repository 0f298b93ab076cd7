//! `up`, up to its plan: load, resolve images, observe, plan. Used by a supervisor and by a dry run alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::outcome::Failure;
use super::resolve::{self, DryRun, ImageFolders, ImageOptions, Progress, Resolution};

use crate::compose::Loaded;
use crate::engine::engines::Engines;
use crate::model::{NetworkKey, Project, Resolved, ServiceName};
use crate::net::wiring::{self, Place};
use crate::plan::observed::Observed;
use crate::plan::unit::Plan;
use crate::plan::{self, Count, Dependencies, NewModule, Orphans, Recreate, select};
use crate::session::UpRequest;
use crate::supervisor::Goal;

/// A project whose images are known: what is left needs a moment in which nothing changes.
pub struct Wanted {
    up: UpRequest,
    /// The project, with `--scale` applied.
    pub project: Project,
    /// What each service's image is; of those that are not brought up, as far as it is known.
    pub resolution: Resolution,
    selected: BTreeSet<ServiceName>,
}

/// A plan and what was there before it.
pub struct Prepared {
    /// What existed before.
    pub observed: Observed,
    /// What is to be done.
    pub plan: Plan,
}

/// Resolves the images of a project that was loaded for this request.
pub async fn resolve(
    up: UpRequest,
    loaded: Loaded,
    engines: &Engines,
    folders: &ImageFolders,
    progress: &Progress,
    dry_run: DryRun,
) -> Result<Wanted, Failure> {
    foreign_commands(&loaded, &folders.images.with_file_name("remote"))?;
    let project = scaled(loaded.project, &up)?;
    known_services(&project, &up.options.services)?;
    let services = select::services(&project, &up.options.services, dependencies(&up));
    let options = ImageOptions {
        build: up.options.build,
        no_build: up.options.no_build,
        quiet_build: up.options.quiet_build,
        quiet_pull: up.options.quiet_pull,
        pull: up.options.pull,
        dry_run,
        environment: up.load.environment.clone(),
    };
    let mut resolution =
        resolve::resolve(&project, &services, engines, folders, options, progress).await.map_err(Failure::many)?;
    let selected: BTreeSet<ServiceName> = services.iter().map(|service| service.name.clone()).collect();
    if resolution.values().any(Resolved::is_wasm) {
        let others: Vec<_> = project.services.values().filter(|one| !selected.contains(&one.name)).collect();
        resolution.extend(resolve::glance(&project, &others, engines, folders).await);
    }
    Ok(Wanted { up, project, resolution, selected })
}

impl Wanted {
    /// Whether a guest runs any of it.
    pub fn has_guests(&self) -> bool {
        self.resolution.iter().any(|(name, resolved)| self.selected.contains(name) && resolved.is_wasm())
    }

    /// How far it is to be brought before it counts as up.
    pub fn goal(&self) -> Goal {
        let options = &self.up.options;
        match options.wait {
            true => Goal::Ready { within: options.wait_timeout.filter(|limit| *limit > 0).map(Duration::from_secs) },
            false => Goal::Up,
        }
    }

    /// Observes, and plans from what is seen. Nothing may be under way meanwhile.
    pub async fn plan(&self, engines: &Engines) -> Result<Prepared, Failure> {
        let observed = self.observe(engines).await?;
        let plan = plan::plan(&self.project, &self.resolution, &observed, &plan_options(&self.up));
        Ok(Prepared { observed, plan })
    }

    /// The same towards a one-off.
    pub async fn plan_run(&self, engines: &Engines, one_off: &plan::OneOff) -> Result<Prepared, Failure> {
        let observed = self.observe(engines).await?;
        let plan = plan::run(&self.project, &self.resolution, &observed, &plan_options(&self.up), one_off);
        Ok(Prepared { observed, plan })
    }

    /// What exists now. The Docker engine is connected when anything of what is brought up lives there.
    async fn observe(&self, engines: &Engines) -> Result<Observed, Failure> {
        let wiring = wiring::place(&self.project, &self.resolution);
        let at_engine =
            |(name, resolved): (&ServiceName, &Resolved)| !resolved.is_wasm() || wiring.place(name) == Place::Agent;
        if self.resolution.iter().filter(|(name, _)| self.selected.contains(*name)).any(at_engine) {
            engines.docker().await?;
        }
        let observed = engines.observe_project(&self.project).await?;
        external(&self.project, &observed)?;
        Ok(observed)
    }
}

/// The project as the request wants it.
pub fn scaled(mut project: Project, up: &UpRequest) -> Result<Project, Failure> {
    for (name, replicas) in &up.options.scale {
        let known = project.services.get_mut(name.as_str());
        let service = known.ok_or_else(|| {
            Failure::new(format!("no such service: `{name}`"), ["`--scale` takes SERVICE=N".to_owned()])
        })?;
        if *replicas > 1 && service.container_name.is_some() {
            return Err(Failure::new(
                format!("service `{name}` cannot run {replicas} times: its `container_name` can be given once only"),
                ["leave `container_name` out".to_owned()],
            ));
        }
        service.scale = *replicas;
    }
    Ok(project)
}

/// What is made elsewhere must be there.
fn external(project: &Project, observed: &Observed) -> Result<(), Failure> {
    let missing = |kind: &str, name: &str| {
        Failure::new(
            format!("{kind} `{name}` is declared external and does not exist"),
            [format!("make it with `docker {kind} create {name}`, or leave `external` out")],
        )
    };
    let used = |key: &NetworkKey| project.services.values().any(|service| service.networks.contains_key(key));
    for network in project.networks.values().filter(|network| network.external && used(&network.key)) {
        if !observed.networks.iter().any(|existing| existing.name == network.name) {
            return Err(missing("network", &network.name));
        }
    }
    for volume in project.volumes.values().filter(|volume| volume.external) {
        if !observed.volumes.iter().any(|existing| existing.name == volume.name) {
            return Err(missing("volume", &volume.name));
        }
    }
    Ok(())
}

/// What was fetched from elsewhere is read, never run: a file below `remotes` names no command of this machine.
pub fn foreign_commands(loaded: &Loaded, remotes: &Path) -> Result<(), Failure> {
    for service in loaded.project.services.values() {
        let origin = service.wasm.as_ref().and_then(|wasm| wasm.build.as_ref()?.origin);
        if let Some(origin) = origin
            && loaded.sources.path(origin.file).starts_with(remotes)
        {
            return Err(Failure::new(
                format!(
                    "service `{}`: its `x-wasm.build` comes from a remote compose file, which may run nothing here",
                    service.name
                ),
                ["look at the command, and write it to a compose file of your own that overrides this one".to_owned()],
            ));
        }
    }
    Ok(())
}

/// Names on the command line that the project does not have are an error.
pub fn known_services(project: &Project, names: &[ServiceName]) -> Result<(), Failure> {
    let Some(unknown) = select::unknown(project, names).first().copied() else { return Ok(()) };
    if project.disabled.contains_key(unknown) {
        return Err(Failure::new(
            format!("service `{unknown}` belongs to a profile that is not active"),
            [format!("add `--profile {}`", project.disabled[unknown].profiles.join("` or `--profile "))],
        ));
    }
    let known: Vec<_> = project.services.keys().map(|name| format!("`{name}`")).collect();
    Err(Failure::new(format!("no such service: `{unknown}`"), [format!("the file declares {}", known.join(", "))]))
}

fn dependencies(up: &UpRequest) -> Dependencies {
    if up.options.no_deps { Dependencies::Skip } else { Dependencies::Include }
}

fn plan_options(up: &UpRequest) -> plan::Options {
    let options = &up.options;
    plan::Options {
        services: options.services.clone(),
        dependencies: dependencies(up),
        recreate: match (options.force_recreate, options.no_recreate) {
            (true, _) => Recreate::Always,
            (false, true) => Recreate::Never,
            (false, false) => Recreate::Changed,
        },
        new_module: if options.no_start { NewModule::Replaces } else { NewModule::Swaps },
        count: if options.reload { Count::AsBefore } else { Count::Declared },
        no_start: options.no_start,
        orphans: if options.remove_orphans { Orphans::Remove } else { Orphans::Warn },
        timeout: options.timeout.map(Duration::from_secs),
        scale: BTreeMap::new(),
        allow_egress: options
            .allow_egress
            .iter()
            .map(|(service, target)| (service.as_str().into(), target.clone()))
            .collect(),
    }
}
