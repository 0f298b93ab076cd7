//! Between loading and planning: what each service's image is, and whether a container or a guest runs it.
//!
//! Images are pulled and built here; a Wasm service's module is brought to this machine, from a path or out of
//! the engine's image (DESIGN, "Which service is Wasm"). All services at once, all failures told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;

use tokio::sync::Mutex;

use super::make;
use super::outcome::Failure;
use super::source::{Sources, Wanted};
use crate::engine::EngineError;
use crate::engine::docker::{Docker, Image};
use crate::engine::engines::Engines;
use crate::image::fetch::Only;
use crate::image::kind::{is_path, is_wasm_platform, wasm_sign};
use crate::image::pick::Entry;
use crate::model::{Build, ImageConfig, Module, ModuleKind, Project, PullPolicy, Resolved, Service, ServiceName};

pub use crate::plan::Resolution;

/// Options of `up` that bear on images.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// Build wherever there is `build`.
    pub build: bool,
    /// Never build.
    pub no_build: bool,
    /// What builds write is not told.
    pub quiet_build: bool,
    /// How far pulls are is not told.
    pub quiet_pull: bool,
    /// `--pull`, where it overrides the services' own policies.
    pub pull: Option<PullPolicy>,
    /// Whether images are built and pulled at all.
    pub dry_run: DryRun,
    /// What `wcompose` was started in, for commands of this machine.
    pub environment: BTreeMap<String, String>,
}

/// Whether work is only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DryRun {
    /// It is told, not done.
    Yes,
    /// It is done.
    #[default]
    No,
}

/// Where what was read out of images is kept, for all projects.
#[derive(Debug, Clone)]
pub struct ImageFolders {
    /// Files of images, by image id.
    pub images: PathBuf,
    /// The user's data, with the store of modules.
    pub data: PathBuf,
}

/// Where progress goes: the id (`Image x`), the state (`Pulling`, `Pulled`, …), and whether it is over.
pub type Progress = Arc<dyn Fn(&str, &str, Step) + Send + Sync>;

/// What a line of progress says of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It goes on.
    Working,
    /// It ended well.
    Done,
    /// A line of output (a build's), for people who watch.
    Output,
    /// It would be done, were this no dry run.
    Planned,
}

/// Resolves the images of `services`.
pub async fn resolve(
    project: &Project,
    services: &[&Service],
    engines: &Engines,
    folders: &ImageFolders,
    options: ImageOptions,
    progress: &Progress,
) -> Result<Resolution, Vec<(ServiceName, Failure)>> {
    let quiet: Progress = {
        let progress = progress.clone();
        Arc::new(move |id, status, step| {
            if step != Step::Output {
                progress(id, status, step);
            }
        })
    };
    let told = |is_quiet: bool| if is_quiet { &quiet } else { progress };
    let (pulling, building) = (told(options.quiet_pull), told(options.quiet_build));
    let sources = Sources::new(engines, folders, pulling);
    let resolver =
        Resolver { project, engines, sources, options, progress, pulling, building, making: Mutex::default() };
    let outcomes = join_all(services.iter().map(|service| resolver.service(service))).await;
    let mut resolution = Resolution::new();
    let mut failures = Vec::new();
    for (service, outcome) in services.iter().zip(outcomes) {
        match outcome {
            Ok(resolved) => {
                resolution.insert(service.name.clone(), resolved);
            }
            Err(failure) => failures.push((service.name.clone(), failure)),
        }
    }
    if failures.is_empty() { Ok(resolution) } else { Err(failures) }
}

/// What the images of services are that are not brought up, as far as that is known without pulling, building or failing:
/// where a guest lives and how it finds others depends on them, too.
pub async fn glance(project: &Project, services: &[&Service], engines: &Engines, folders: &ImageFolders) -> Resolution {
    let silent: Progress = Arc::new(|_, _, _| {});
    let options = ImageOptions { no_build: true, pull: Some(PullPolicy::Never), ..ImageOptions::default() };
    let (sources, making) = (Sources::new(engines, folders, &silent), Mutex::default());
    let (progress, pulling, building) = (&silent, &silent, &silent);
    let resolver = Resolver { project, engines, sources, options, progress, pulling, building, making };
    let glances = services.iter().map(async |service| {
        let unknown = || {
            let reference = service.image.clone().unwrap_or_else(|| project.image_of(&service.name));
            match wasm_sign(service) {
                Some(_) => Resolved::Wasm(not_yet_a_module(reference, ImageConfig::default())),
                None => Resolved::Linux { image: reference, id: NOT_YET.to_owned(), config: ImageConfig::default() },
            }
        };
        (service.name.clone(), resolver.service(service).await.unwrap_or_else(|_| unknown()))
    });
    join_all(glances).await.into_iter().collect()
}

/// Stands for the id of an image that a dry run does not build or pull.
const NOT_YET: &str = "";

struct Resolver<'a> {
    project: &'a Project,
    engines: &'a Engines,
    sources: Sources<'a>,
    options: ImageOptions,
    progress: &'a Progress,
    /// Where that of pulls goes.
    pulling: &'a Progress,
    /// And that of builds.
    building: &'a Progress,
    /// Held by the one command of this machine that runs.
    making: Mutex<()>,
}

impl Resolver<'_> {
    async fn service(&self, service: &Service) -> Result<Resolved, Failure> {
        let subject = format!("service `{}`", service.name);
        if let Some(path) = local_module(service) {
            self.make(service, &path).await?;
            let reference = as_written(service).unwrap_or_else(|| path.display().to_string());
            if self.options.dry_run == DryRun::Yes && !path.exists() {
                return Ok(Resolved::Wasm(not_yet_a_module(reference, ImageConfig::default())));
            }
            let wanted = self.wanted(service, &subject, &reference);
            return self.sources.local(&wanted, &path).await.map(Resolved::Wasm);
        }
        let reference = service.image.clone().unwrap_or_else(|| self.project.image_of(&service.name));
        let wanted = self.wanted(service, &subject, &reference);
        let is_built = service.build.is_some() && !self.options.no_build;
        if wasm_sign(service).is_some() && !is_built {
            return self.fetched(service, &wanted).await.map(Resolved::Wasm);
        }
        let docker = match self.engines.docker().await {
            Ok(docker) => docker,
            // What was pulled or built elsewhere needs no engine to run.
            Err(error) => return self.without_engine(&wanted).await?.map(Resolved::Wasm).ok_or(error.into()),
        };
        let image = match self.image(docker, service, &wanted).await? {
            Found::Image(image) => *image,
            Found::Module(module) => return Ok(Resolved::Wasm(*module)),
        };
        let wasm = wasm_sign(service).is_some() || is_wasm_platform(&image.config.platform);
        if wasm && image.id == NOT_YET {
            Ok(Resolved::Wasm(not_yet_a_module(reference, image.config)))
        } else if wasm {
            self.sources.of_engine(docker, &wanted, image).await.map(Resolved::Wasm)
        } else {
            Ok(Resolved::Linux { image: reference, id: image.id, config: image.config })
        }
    }

    fn wanted<'w>(&self, service: &'w Service, subject: &'w str, reference: &'w str) -> Wanted<'w> {
        Wanted {
            subject,
            label: "",
            reference,
            entry: Entry {
                entrypoint: service.entrypoint.as_deref(),
                command: service.command.as_deref(),
                environment: Some(&service.environment),
            },
            platform: service.platform.as_deref().filter(|platform| is_wasm_platform(platform)),
            policy: self.options.pull.unwrap_or(service.pull_policy),
            plugs: service.wasm.as_ref().map_or(&[], |wasm| &wasm.plug),
        }
    }

    /// The module of an image that nobody builds; a dry run fetches nothing.
    async fn fetched(&self, service: &Service, wanted: &Wanted<'_>) -> Result<Module, Failure> {
        if self.options.dry_run == DryRun::Yes
            && wanted.policy != PullPolicy::Never
            && !self.sources.is_here(wanted).await?
        {
            self.planned("pull", service, wanted.reference, None);
            return Ok(not_yet_a_module(wanted.reference.to_owned(), ImageConfig::default()));
        }
        self.sources.module(wanted).await
    }

    async fn without_engine(&self, wanted: &Wanted<'_>) -> Result<Option<Module>, Failure> {
        match self.sources.kept(wanted).filter(|_| !self.options.build && wanted.policy != PullPolicy::Build) {
            Some(digest) => self.sources.of_store(wanted, digest).await.map(Some),
            None => Ok(None),
        }
    }

    /// Runs `x-wasm.build`, as an image is built: when its module is not there, or when a build is asked for.
    async fn make(&self, service: &Service, module: &Path) -> Result<(), Failure> {
        let Some(build) = service.wasm.as_ref().and_then(|wasm| wasm.build.as_ref()) else { return Ok(()) };
        let policy = self.options.pull.unwrap_or(service.pull_policy);
        let wanted = self.options.build || policy == PullPolicy::Build || !module.exists();
        if self.options.no_build || !wanted {
            return Ok(());
        }
        let id = format!("Module {}", service.name);
        if self.options.dry_run == DryRun::Yes {
            let cause = if module.exists() { "as asked for" } else { "not found" };
            (self.progress)(&format!("module {} ({cause})", module.display()), "build", Step::Planned);
            return Ok(());
        }
        // Compilers use the whole machine; two that share a target folder would wait for each other anyway.
        let _turn = self.making.lock().await;
        (self.progress)(&id, "Building", Step::Working);
        let output = |line: &str| (self.building)(&id, line, Step::Output);
        make::make(&service.name, build, &self.options.environment, &output).await?;
        (self.progress)(&id, "Built", Step::Done);
        Ok(())
    }

    /// The engine's image, built or pulled where the policy says so. An image that is not there, and of which the file does
    /// not say that it is Wasm, may be one all the same: then the engine cannot pull it, and it is in wcompose's own store.
    async fn image(&self, docker: &Docker, service: &Service, wanted: &Wanted<'_>) -> Result<Found, Failure> {
        let (policy, reference) = (wanted.policy, wanted.reference);
        let present = docker.image(reference).await?;
        if let Some(build) = service.build.as_ref().filter(|_| !self.options.no_build)
            && (self.options.build || policy == PullPolicy::Build || present.is_none())
        {
            if self.options.dry_run == DryRun::Yes {
                return Ok(Found::image(self.planned("build", service, reference, present)));
            }
            return self.build(docker, service, build, reference).await.map(Found::image);
        }
        let pull = match policy {
            PullPolicy::Always => service.build.is_none(),
            PullPolicy::Never => false,
            PullPolicy::Missing | PullPolicy::Build | PullPolicy::Every(_) => present.is_none(),
        };
        if present.is_none()
            && policy != PullPolicy::Always
            && let Some(digest) = self.sources.kept(wanted)
        {
            return Ok(Found::Module(Box::new(self.sources.of_store(wanted, digest).await?)));
        }
        if pull && self.options.dry_run == DryRun::Yes {
            return Ok(Found::image(self.planned("pull", service, reference, present)));
        }
        if pull {
            match self.pull(docker, service, reference).await {
                Ok(()) => {}
                Err((error, failure)) if is_about_platform(&error) => {
                    let digest = self.sources.pull(wanted, Only::Wasm).await.map_err(|_| failure)?;
                    return Ok(Found::Module(Box::new(self.sources.of_store(wanted, digest).await?)));
                }
                Err((_, failure)) => return Err(failure),
            }
            if let Some(image) = docker.image(reference).await? {
                return Ok(Found::image(image));
            }
        }
        present.map(Found::image).ok_or_else(|| {
            Failure::new(
                format!("service `{}`: the engine has no image `{reference}`", service.name),
                [match policy {
                    PullPolicy::Never => "its `pull_policy` is `never`: pull or build the image yourself".to_owned(),
                    _ => format!("check the name, or build it: `docker build -t {reference} …`"),
                }],
            )
        })
    }

    /// Tells what would be done, and goes on with the image that is there, or one of which nothing is known.
    fn planned(&self, work: &str, service: &Service, reference: &str, present: Option<Image>) -> Image {
        let cause = if present.is_some() { "as asked for" } else { "not found" };
        (self.progress)(&format!("image {reference} ({cause})"), work, Step::Planned);
        let platform = service.platform.clone().unwrap_or_default();
        let unknown = || Image { id: NOT_YET.to_owned(), config: ImageConfig { platform, ..ImageConfig::default() } };
        present.unwrap_or_else(unknown)
    }

    async fn build(
        &self,
        docker: &Docker,
        service: &Service,
        build: &Build,
        reference: &str,
    ) -> Result<Image, Failure> {
        let id = format!("Image {reference}");
        (self.progress)(&id, "Building", Step::Working);
        let (output, label) = (self.building.clone(), id.clone());
        let image = docker
            .build(build, reference, &move |line| output(&label, &line, Step::Output))
            .await
            .map_err(|error| Failure::new(format!("service `{}`: {error}", service.name), error.hint))?;
        (self.progress)(&id, "Built", Step::Done);
        Ok(image)
    }

    async fn pull(&self, docker: &Docker, service: &Service, reference: &str) -> Result<(), (EngineError, Failure)> {
        let id = format!("Image {reference}");
        (self.progress)(&id, "Pulling", Step::Working);
        let (output, label) = (self.pulling.clone(), id.clone());
        let platform = service.platform.as_deref();
        docker.pull(reference, platform, &move |line| output(&label, &line, Step::Output)).await.map_err(|error| {
            let hint = match &service.build {
                Some(_) => "build it: add `--build`".to_owned(),
                None => "check the name and the network, or log in with `docker login`".to_owned(),
            };
            let hint = error.hint.clone().unwrap_or(hint);
            let failure = Failure::new(format!("service `{}`: {error}", service.name), [hint]);
            (error, failure)
        })?;
        (self.progress)(&id, "Pulled", Step::Done);
        Ok(())
    }
}

/// What an image's name turned out to be.
enum Found {
    /// An image the engine has.
    Image(Box<Image>),
    /// A module in wcompose's own store.
    Module(Box<Module>),
}

impl Found {
    fn image(image: Image) -> Self {
        Self::Image(Box::new(image))
    }
}

/// The path of a local module as the file has it.
fn as_written(service: &Service) -> Option<String> {
    let document = &service.document;
    let module = document.pointer("/x-wasm/module").or_else(|| document.get("image"))?;
    module.as_str().map(str::to_owned)
}

/// `x-wasm.module`, or `image` where it is a path.
fn local_module(service: &Service) -> Option<PathBuf> {
    declared_module(service).or_else(|| service.image.as_ref().filter(|image| is_path(image)).map(PathBuf::from))
}

/// What `x-wasm` says of the module: where it is made, or where it is.
pub fn declared_module(service: &Service) -> Option<PathBuf> {
    let wasm = service.wasm.as_ref()?;
    wasm.build.as_ref().map(|build| build.output.clone()).or_else(|| wasm.module.clone())
}

/// Whether an engine could not pull an image because of what it is, not because of where it is.
pub fn is_about_platform(error: &EngineError) -> bool {
    const WORDS: [&str; 6] =
        ["operating system", "no match", "matching manifest", "mediatype", "media type", "invalid rootfs"];
    let text = error.source.to_string().to_lowercase();
    WORDS.iter().any(|words| text.contains(words))
}

/// What a dry run knows of a module in an image that is not there.
fn not_yet_a_module(reference: String, config: ImageConfig) -> Module {
    Module {
        reference,
        path: PathBuf::new(),
        digest: String::new(),
        size: 0,
        kind: ModuleKind::Command,
        function: None,
        root: None,
        files: None,
        config,
    }
}
