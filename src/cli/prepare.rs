//! `up`, up to its plan: load, resolve images, observe, plan. Used by a supervisor and by a dry run alike.

use std::collections::BTreeMap;
use std::time::Duration;

use super::load;
use super::outcome::Failure;
use super::resolve::{self, DryRun, ImageFolders, ImageOptions, Progress, Resolution};

use crate::engine::engines::Engines;
use crate::model::{NetworkKey, Project, Resolved, ServiceName};
use crate::net::wiring::{self, Place};
use crate::plan::observed::Observed;
use crate::plan::unit::Plan;
use crate::plan::{self, Dependencies, Orphans, Recreate, select};
use crate::session::UpRequest;

/// A project whose images are known: what is left needs a moment in which nothing changes.
pub struct Wanted {
    up: UpRequest,
    /// The project, with `--scale` applied.
    pub project: Project,
    /// What each wanted service's image is.
    pub resolution: Resolution,
}

/// A plan and what was there before it.
pub struct Prepared {
    /// What existed before.
    pub observed: Observed,
    /// What is to be done.
    pub plan: Plan,
}

/// Loads a project and resolves its images.
pub async fn resolve(
    up: UpRequest,
    engines: &Engines,
    folders: &ImageFolders,
    progress: &Progress,
    dry_run: DryRun,
) -> Result<Wanted, Failure> {
    let project = scaled(load::load(&up.load).await?.project, &up)?;
    known_services(&project, &up.options.services)?;
    let services = select::services(&project, &up.options.services, dependencies(&up));
    let options = ImageOptions {
        build: up.options.build,
        no_build: up.options.no_build,
        pull: up.options.pull,
        dry_run,
        environment: up.load.environment.clone(),
    };
    let resolution =
        resolve::resolve(&project, &services, engines, folders, options, progress).await.map_err(Failure::many)?;
    Ok(Wanted { up, project, resolution })
}

impl Wanted {
    /// Whether a guest runs any of it.
    pub fn has_guests(&self) -> bool {
        self.resolution.values().any(Resolved::is_wasm)
    }

    /// Observes, and plans from what is seen. Nothing may be under way meanwhile.
    pub async fn plan(&self, engines: &Engines) -> Result<Prepared, Failure> {
        let observed = observe(&self.project, &self.resolution, engines).await?;
        let plan = plan::plan(&self.project, &self.resolution, &observed, &plan_options(&self.up));
        Ok(Prepared { observed, plan })
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

/// What exists now. The Docker engine is connected when anything of the project lives there.
async fn observe(project: &Project, resolution: &Resolution, engines: &Engines) -> Result<Observed, Failure> {
    let wiring = wiring::place(project, resolution);
    let at_engine =
        |(name, resolved): (&ServiceName, &Resolved)| !resolved.is_wasm() || wiring.place(name) == Place::Agent;
    if resolution.iter().any(at_engine) {
        engines.docker().await?;
    }
    let observed = engines.observe_project(project).await?;
    external(project, &observed)?;
    Ok(observed)
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

/// Names on the command line that the project does not have are an error.
fn known_services(project: &Project, names: &[ServiceName]) -> Result<(), Failure> {
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
