//! `pull` and `push`, for both kinds: images of Linux through the engine, those of Wasm straight between registries and
//! wcompose's own store, without an engine.

use std::collections::BTreeMap;
use std::process::ExitCode;

use futures_util::future::join_all;

use super::args::{Pull, Push};
use super::host::{Host, Road, Use};
use super::outcome::{Failure, Outcome};
use super::prepare::known_services;
use super::resolve::{ImageFolders, Progress, Step, declared_module, is_about_platform};
use super::settings::Settings;
use super::source::{Sources, Wanted};
use super::{load, output, screen};
use crate::engine::docker::Docker;
use crate::image::fetch::Only;
use crate::image::give;
use crate::image::kind::{is_path, is_wasm_platform, wasm_sign};
use crate::image::pick::Entry;
use crate::model::{Project, ProjectName, PullPolicy, Service, ServiceName};
use crate::plan::select::{self, Dependencies};
use crate::session::LogInterest;
use crate::supervisor::signals::Signals;
use crate::view::console::Lines;
use crate::view::{Followed, follow};

/// Runs `pull`.
pub async fn pull(settings: Settings, args: Pull) -> Outcome {
    let policy = match args.policy.as_deref() {
        None | Some("") => None,
        Some("always") => Some(PullPolicy::Always),
        Some("missing") => Some(PullPolicy::Missing),
        Some(other) => {
            let hint = "use `always` or `missing`".to_owned();
            return Err(Failure::new(format!("unknown policy `{other}`"), [hint]));
        }
    };
    let loaded = load::load_and_warn(&settings.load).await?;
    let name = loaded.project.name.clone();
    let (project, folders) = (loaded.project, settings.paths.project(&name).image_folders());
    let services = chosen(&project, &args.services, args.include_deps)?;
    let quiet = args.quiet;
    let outcome = shown(&settings, &name, |road| async move {
        let progress = if quiet { silent() } else { road.progress() };
        let work = Work { road: &road, folders: &folders, progress: &progress };
        work.pull(&services, policy, args.ignore_buildable).await
    });
    let Pulled { failures, to_build } = outcome.await?;
    if !to_build.is_empty() {
        output::warn(&format!(
            "some images must be built: `wcompose build {}`",
            to_build.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" ")
        ));
    }
    if failures.is_empty() || args.ignore_pull_failures { Ok(ExitCode::SUCCESS) } else { Err(Failure::Many(failures)) }
}

/// Runs `push`.
pub async fn push(settings: Settings, args: Push) -> Outcome {
    let loaded = load::load_and_warn(&settings.load).await?;
    let name = loaded.project.name.clone();
    let (project, folders) = (loaded.project, settings.paths.project(&name).image_folders());
    let services = chosen(&project, &args.services, args.include_deps)?;
    let quiet = args.quiet;
    let failures = shown(&settings, &name, |road| async move {
        let progress = if quiet { silent() } else { road.progress() };
        let work = Work { road: &road, folders: &folders, progress: &progress };
        work.push_all(&services).await
    });
    let Err(failures) = failures.await? else { return Ok(ExitCode::SUCCESS) };
    if args.ignore_push_failures {
        failures.iter().for_each(output::failure);
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Many(failures))
}

/// The services of a command line; as compose has it, without what they depend on.
fn chosen(project: &Project, names: &[String], dependencies: bool) -> Result<Vec<Service>, Failure> {
    let names: Vec<ServiceName> = names.iter().map(|name| ServiceName::from(name.as_str())).collect();
    known_services(project, &names)?;
    let dependencies = if dependencies { Dependencies::Include } else { Dependencies::Skip };
    Ok(select::services(project, &names, dependencies).into_iter().cloned().collect())
}

/// Work whose progress is shown, until it is done or interrupted.
pub async fn shown<T, F: Future<Output = T>>(
    settings: &Settings,
    project: &ProjectName,
    work: impl FnOnce(Road) -> F,
) -> Result<T, Failure> {
    let mut signals = Signals::listen()?;
    let paths = settings.paths.project(project);
    let host = Host::start(settings, project, &paths, None, Use::Once)?;
    let mut session = host.session(LogInterest::default()).await?;
    let mut screen = screen::Screen::new(settings, Lines::Kept);
    let mut console = screen.console(&session)?;
    let working = async {
        tokio::select! {
            done = async {
                let done = work(host.road()).await;
                // Asked for last, a session is given when all that was told before has been passed on.
                drop(host.session(LogInterest::default()).await);
                done
            } => Ok(done),
            _ = signals.next() => Err(Failure::Interrupted),
        }
    };
    let followed = follow(&mut session, &mut console, working).await?;
    console.settle(&[], jiff::Timestamp::now())?;
    drop((console, session));
    host.leave().await;
    match followed {
        Followed::Until(done) => done,
        Followed::Ended => Err(Failure::new("the work was given up", [])),
    }
}

/// Tells nobody.
pub fn silent() -> Progress {
    std::sync::Arc::new(|_, _, _| {})
}

/// What became of `pull`.
struct Pulled {
    failures: Vec<Failure>,
    to_build: Vec<ServiceName>,
}

/// Pulling and pushing for a project.
pub struct Work<'w> {
    /// Where its engines are.
    pub road: &'w Road,
    /// Where modules are kept.
    pub folders: &'w ImageFolders,
    /// What is told.
    pub progress: &'w Progress,
}

impl Work<'_> {
    async fn pull(&self, services: &[Service], policy: Option<PullPolicy>, ignore_buildable: bool) -> Pulled {
        let sources = Sources::new(self.road.engines(), self.folders, self.progress);
        let mut first: BTreeMap<&str, &ServiceName> = BTreeMap::new();
        let mut pulled = Vec::new();
        for service in services {
            let skip = |why: &str| (self.progress)(service.name.as_str(), why, Step::Done);
            let image = service.image.as_deref().filter(|image| !image.is_empty() && !is_path(image));
            // Where `x-wasm` says the module, `image` is only what it is pushed as.
            let Some(image) = image.filter(|_| declared_module(service).is_none()) else {
                skip("Skipped - No image to be pulled");
                continue;
            };
            // Where the file says nothing, `pull` pulls.
            let written = service.document.get("pull_policy").is_some();
            let policy = policy.unwrap_or(if written { service.pull_policy } else { PullPolicy::Always });
            match policy {
                PullPolicy::Never | PullPolicy::Build => {
                    skip("Skipped");
                    continue;
                }
                PullPolicy::Missing if self.is_present(&sources, service, image).await => {
                    skip("Skipped - Image is already present locally");
                    continue;
                }
                PullPolicy::Missing | PullPolicy::Always | PullPolicy::Every(_) => {}
            }
            if service.build.is_some() && ignore_buildable {
                skip("Skipped - Image can be built");
                continue;
            }
            if let Some(other) = first.get(image) {
                skip(&format!("Skipped - Image is already being pulled by {other}"));
                continue;
            }
            first.insert(image, &service.name);
            pulled.push((service, image));
        }
        let outcomes = pulled.iter().map(|(service, image)| self.pull_one(&sources, service, image));
        let outcomes = join_all(outcomes).await;
        let mut done = Pulled { failures: Vec::new(), to_build: Vec::new() };
        for ((service, _), outcome) in pulled.iter().zip(outcomes) {
            let Err(failure) = outcome else { continue };
            let can_be_built = service.build.is_some();
            (self.progress)(service.name.as_str(), if can_be_built { "Warning" } else { "Error" }, Step::Done);
            if can_be_built {
                done.to_build.push(service.name.clone());
            }
            done.failures.push(failure);
        }
        done
    }

    async fn is_present(&self, sources: &Sources<'_>, service: &Service, image: &str) -> bool {
        let subject = String::new();
        sources.is_here(&wanted(service, &subject, image)).await.unwrap_or(false)
    }

    async fn pull_one(&self, sources: &Sources<'_>, service: &Service, image: &str) -> Result<(), Failure> {
        let subject = format!("service `{}`", service.name);
        let wanted = wanted(service, &subject, image);
        if wasm_sign(service).is_some() {
            return sources.pull(&wanted, Only::Any).await.map(drop);
        }
        let docker = self.road.engines().docker().await?;
        let label = service.name.as_str();
        (self.progress)(label, "Pulling", Step::Working);
        let told = |line: String| (self.progress)(label, &line, Step::Output);
        match docker.pull(image, service.platform.as_deref(), &told).await {
            Ok(()) => {
                (self.progress)(label, "Pulled", Step::Done);
                Ok(())
            }
            // An image of Wasm of which the file does not say so.
            Err(error) if is_about_platform(&error) => {
                let fetched = sources.pull(&wanted, Only::Wasm).await;
                fetched.map(drop).map_err(|_| Failure::new(format!("{subject}: {error}"), error.hint))
            }
            Err(error) => Err(Failure::new(format!("{subject}: {error}"), error.hint)),
        }
    }

    /// Pushes all at once; tells which could not be.
    pub async fn push_all(&self, services: &[Service]) -> Result<(), Vec<Failure>> {
        let outcomes = join_all(services.iter().map(|service| self.push(service))).await;
        let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// What is made here and has a name is pushed under it, and under a build's further tags.
    async fn push(&self, service: &Service) -> Result<(), Failure> {
        let label = service.name.as_str();
        let image = service.image.as_deref().filter(|image| !image.is_empty() && !is_path(image));
        let module = declared_module(service);
        let Some(image) = image.filter(|_| service.build.is_some() || module.is_some()) else {
            (self.progress)(label, "Skipped", Step::Done);
            return Ok(());
        };
        let further = service.build.iter().flat_map(|build| &build.tags).map(String::as_str);
        let tags: Vec<&str> = std::iter::once(image).chain(further).collect();
        (self.progress)(label, "Pushing", Step::Working);
        let outcome = self.push_tags(service, image, &tags).await;
        (self.progress)(label, if outcome.is_ok() { "Pushed" } else { "Error" }, Step::Done);
        outcome
    }

    async fn push_tags(&self, service: &Service, image: &str, tags: &[&str]) -> Result<(), Failure> {
        let subject = format!("service `{}`", service.name);
        let sources = Sources::new(self.road.engines(), self.folders, self.progress);
        let wanted = wanted(service, &subject, image);
        if let Some(path) = declared_module(service) {
            let digest = sources.artifact(&wanted, &path).await?;
            return self.give(&sources, &wanted, &digest, tags).await;
        }
        let docker = self.road.engines().docker().await?;
        let found = docker.image(image).await?.ok_or_else(|| {
            let hint = format!("build it: `wcompose build {}`", service.name);
            Failure::new(format!("{subject}: there is no image `{image}` on this machine to push"), [hint])
        })?;
        if wasm_sign(service).is_some() || is_wasm_platform(&found.config.platform) {
            let platforms = service.build.as_ref().map(|build| build.platforms.as_slice()).unwrap_or_default();
            let digest = sources.built(docker, &wanted, give::platform(platforms).to_owned()).await?;
            return self.give(&sources, &wanted, &digest, tags).await;
        }
        for tag in tags {
            self.push_linux(docker, service, tag, &subject).await?;
        }
        Ok(())
    }

    async fn push_linux(&self, docker: &Docker, service: &Service, tag: &str, subject: &str) -> Result<(), Failure> {
        let told = |line: String| (self.progress)(service.name.as_str(), &line, Step::Output);
        let pushed = docker.push(tag, &told).await;
        pushed.map_err(|error| Failure::new(format!("{subject}: {error}"), error.hint))
    }

    async fn give(
        &self,
        sources: &Sources<'_>,
        wanted: &Wanted<'_>,
        digest: &str,
        tags: &[&str],
    ) -> Result<(), Failure> {
        for tag in tags {
            sources.give(&Wanted { reference: tag, ..*wanted }, digest).await?;
        }
        Ok(())
    }
}

fn wanted<'w>(service: &'w Service, subject: &'w str, image: &'w str) -> Wanted<'w> {
    Wanted {
        subject,
        label: service.name.as_str(),
        reference: image,
        entry: Entry::default(),
        platform: service.platform.as_deref().filter(|platform| is_wasm_platform(platform)),
        policy: PullPolicy::Always,
        plugs: &[],
    }
}
