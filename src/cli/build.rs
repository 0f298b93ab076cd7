//! `build`: the images of `build` sections, of containers and of Wasm services alike, and the modules that `x-wasm.build` makes.

use std::process::ExitCode;
use std::sync::Arc;

use indexmap::IndexMap;

use super::args::Build;
use super::outcome::{Failure, Outcome};
use super::prepare::{foreign_commands, known_services};
use super::pull::{Work, shown, silent};
use super::resolve::{self, DryRun, ImageOptions, Progress, Step};
use super::settings::Settings;
use super::{load, output};
use crate::model::{Service, ServiceName};
use crate::plan::select::{self, Dependencies};

/// Runs `build`.
pub async fn build(settings: Settings, args: Build) -> Outcome {
    refuse(&args)?;
    let loaded = load::load_and_warn(&settings.load).await?;
    let name = loaded.project.name.clone();
    let paths = settings.paths.project(&name);
    let folders = paths.image_folders();
    foreign_commands(&loaded, &folders.images.with_file_name("remote"))?;
    let project = loaded.project;
    let names: Vec<ServiceName> = args.services.iter().map(|name| ServiceName::from(name.as_str())).collect();
    known_services(&project, &names)?;
    let dependencies = if args.with_dependencies { Dependencies::Include } else { Dependencies::Skip };
    let services = select::services(&project, &names, dependencies).into_iter().filter(|service| is_built(service));
    let services = services.map(|service| asked(service, &args, &settings)).collect::<Result<Vec<_>, _>>()?;
    if services.is_empty() {
        output::warn("No services to build");
        return Ok(ExitCode::SUCCESS);
    }
    let options = ImageOptions {
        build: true,
        dry_run: if settings.dry_run { DryRun::Yes } else { DryRun::No },
        environment: settings.load.environment.clone(),
        ..ImageOptions::default()
    };
    if settings.dry_run {
        let planned: Progress = Arc::new(|image, work, step| {
            if step == Step::Planned {
                output::print(&format!("{work} {image}\n"));
            }
        });
        let engines = settings.engines(&paths);
        let services: Vec<&Service> = services.iter().collect();
        let resolved = resolve::resolve(&project, &services, &engines, &folders, options, &planned).await;
        return resolved.map_err(Failure::many).map(|_| ExitCode::SUCCESS);
    }
    let (quiet, push) = (args.quiet, args.push);
    let done = shown(&settings, &name, |road| async move {
        let progress = if quiet { silent() } else { road.progress() };
        let named: Vec<&Service> = services.iter().collect();
        resolve::resolve(&project, &named, road.engines(), &folders, options, &progress)
            .await
            .map_err(Failure::many)?;
        if push {
            let work = Work { road: &road, folders: &folders, progress: &progress };
            work.push_all(&services).await.map_err(Failure::Many)?;
        }
        Ok::<_, Failure>(())
    });
    done.await?.map(|()| ExitCode::SUCCESS)
}

/// What a build here cannot do is said, not left out.
fn refuse(args: &Build) -> Result<(), Failure> {
    let attests = |how: &Option<String>| how.as_deref().is_some_and(|how| how != "false");
    let cannot = [
        (args.builder.as_deref().is_some_and(|name| name != "default"), "--builder", "images are built by the engine"),
        (args.check, "--check", "`docker build --check` looks at a Dockerfile without building it"),
        (args.print, "--print", "builds do not go through bake; `docker compose build --print` writes its file"),
        (args.ssh.is_some(), "--ssh", "builds get no SSH agent; a secret (`build.secrets`) can hold a key"),
        (attests(&args.provenance), "--provenance", "`docker buildx build` attests images"),
        (attests(&args.sbom), "--sbom", "`docker buildx build` attests images"),
    ];
    match cannot.into_iter().find(|(asked, ..)| *asked) {
        Some((_, flag, instead)) => {
            Err(Failure::new(format!("`build` cannot do what `{flag}` asks for"), [instead.to_owned()]))
        }
        None => Ok(()),
    }
}

/// Whether there is anything to build.
fn is_built(service: &Service) -> bool {
    service.build.is_some() || service.wasm.as_ref().is_some_and(|wasm| wasm.build.is_some())
}

/// A service as the command line wants it built.
fn asked(service: &Service, args: &Build, settings: &Settings) -> Result<Service, Failure> {
    let mut service = service.clone();
    if let Some(build) = &mut service.build {
        build.no_cache |= args.no_cache;
        build.pull |= args.pull;
        build.args.extend(arguments(&args.arguments, settings)?);
    }
    Ok(service)
}

fn arguments(given: &[String], settings: &Settings) -> Result<IndexMap<String, Option<String>>, Failure> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some(("", _)) => {
                let hint = "`--build-arg NAME=VALUE`, or `NAME` for the environment's value".to_owned();
                Err(Failure::new(format!("the build argument `{text}` has no name"), [hint]))
            }
            Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
            None => Ok((text.clone(), settings.load.environment.get(text).cloned())),
        })
        .collect()
}
