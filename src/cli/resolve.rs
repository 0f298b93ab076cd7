//! Between loading and planning: what each service's image is, and whether a container or a guest runs it.
//!
//! Images are pulled and built here; a Wasm service's module is brought to this machine, from a path or out of
//! the engine's image (DESIGN, "Which service is Wasm"). All services at once, all failures told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::join_all;

use tokio::sync::Mutex;

use super::make;
use super::outcome::Failure;
use crate::engine::docker::{Docker, Image};
use crate::engine::engines::Engines;
use crate::image::export;
use crate::image::kind::{is_module_path, is_wasm_platform, wasm_sign};
use crate::image::layers::Limits;
use crate::image::store::{ModuleError, Store};
use crate::model::{Build, ImageConfig, Module, ModuleKind, Project, PullPolicy, Resolved, Service, ServiceName};

pub use crate::plan::Resolution;

/// Options of `up` that bear on images.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// Build wherever there is `build`.
    pub build: bool,
    /// Never build.
    pub no_build: bool,
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
    let store = Store::new(&folders.data);
    let resolver =
        Resolver { project, engines, images: &folders.images, store, options, progress, making: Mutex::default() };
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
    let store = Store::new(&folders.data);
    let (images, making) = (&folders.images, Mutex::default());
    let resolver = Resolver { project, engines, images, store, options, progress: &silent, making };
    let glances = services.iter().map(async |service| {
        let unknown = || {
            let reference = service.image.clone().unwrap_or_else(|| project.image_of(&service.name));
            let image = Image { id: NOT_YET.to_owned(), config: ImageConfig::default() };
            match wasm_sign(service) {
                Some(_) => Resolved::Wasm(not_yet_a_module(reference, image)),
                None => Resolved::Linux { image: reference, id: image.id, config: image.config },
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
    images: &'a Path,
    store: Store,
    options: ImageOptions,
    progress: &'a Progress,
    /// Held by the one command of this machine that runs.
    making: Mutex<()>,
}

impl Resolver<'_> {
    async fn service(&self, service: &Service) -> Result<Resolved, Failure> {
        if let Some(path) = local_module(service) {
            self.make(service, &path).await?;
            let reference = as_written(service).unwrap_or_else(|| path.display().to_string());
            if self.options.dry_run == DryRun::Yes && !path.exists() {
                let image = Image { id: NOT_YET.to_owned(), config: ImageConfig::default() };
                return Ok(Resolved::Wasm(not_yet_a_module(reference, image)));
            }
            return self
                .store
                .local(&reference, &path, None)
                .map(Resolved::Wasm)
                .map_err(|error| unusable(service, &error));
        }
        let reference = service.image.clone().unwrap_or_else(|| self.project.image_of(&service.name));
        let docker = self.engines.docker().await?;
        let image = self.image(docker, service, &reference).await?;
        let wasm = wasm_sign(service).is_some() || is_wasm_platform(&image.config.platform);
        if wasm && image.id == NOT_YET {
            Ok(Resolved::Wasm(not_yet_a_module(reference, image)))
        } else if wasm {
            self.module(docker, service, &reference, image).await.map(Resolved::Wasm)
        } else {
            Ok(Resolved::Linux { image: reference, id: image.id, config: image.config })
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
        let output = |line: &str| (self.progress)(&id, line, Step::Output);
        make::make(&service.name, build, &self.options.environment, &output).await?;
        (self.progress)(&id, "Built", Step::Done);
        Ok(())
    }

    /// The engine's image, built or pulled where the policy says so.
    async fn image(&self, docker: &Docker, service: &Service, reference: &str) -> Result<Image, Failure> {
        let policy = self.options.pull.unwrap_or(service.pull_policy);
        let present = docker.image(reference).await?;
        if let Some(build) = service.build.as_ref().filter(|_| !self.options.no_build)
            && (self.options.build || policy == PullPolicy::Build || present.is_none())
        {
            if self.options.dry_run == DryRun::Yes {
                return Ok(self.planned("build", service, reference, present));
            }
            return self.build(docker, service, build, reference).await;
        }
        let pull = match policy {
            PullPolicy::Always => service.build.is_none(),
            PullPolicy::Never => false,
            PullPolicy::Missing | PullPolicy::Build | PullPolicy::Every(_) => present.is_none(),
        };
        if pull && self.options.dry_run == DryRun::Yes {
            return Ok(self.planned("pull", service, reference, present));
        }
        if pull {
            self.pull(docker, service, reference).await?;
            if let Some(image) = docker.image(reference).await? {
                return Ok(image);
            }
        }
        present.ok_or_else(|| {
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
        let (output, label) = (self.progress.clone(), id.clone());
        let image = docker
            .build(build, reference, &move |line| output(&label, &line, Step::Output))
            .await
            .map_err(|error| Failure::new(format!("service `{}`: {error}", service.name), error.hint))?;
        (self.progress)(&id, "Built", Step::Done);
        Ok(image)
    }

    async fn pull(&self, docker: &Docker, service: &Service, reference: &str) -> Result<(), Failure> {
        let id = format!("Image {reference}");
        (self.progress)(&id, "Pulling", Step::Working);
        let (output, label) = (self.progress.clone(), id.clone());
        let platform = service.platform.as_deref();
        docker.pull(reference, platform, &move |line| output(&label, &line, Step::Output)).await.map_err(|error| {
            let hint = match &service.build {
                Some(_) => "build it: add `--build`".to_owned(),
                None => "check the name and the network, or log in with `docker login`".to_owned(),
            };
            Failure::new(format!("service `{}`: {error}", service.name), [error.hint.clone().unwrap_or(hint)])
        })?;
        (self.progress)(&id, "Pulled", Step::Done);
        Ok(())
    }

    /// The module of an image: its files are read out of the engine once for each image id.
    async fn module(
        &self,
        docker: &Docker,
        service: &Service,
        reference: &str,
        image: Image,
    ) -> Result<Module, Failure> {
        let folder = self.images.join(image.id.trim_start_matches("sha256:"));
        if !folder.is_dir() {
            let id = format!("Image {reference}");
            (self.progress)(&id, "Reading", Step::Working);
            self.unpack(docker, reference, &folder).await?;
            (self.progress)(&id, "Read", Step::Done);
        }
        let entry = entry(service, &image.config)
            .ok_or_else(|| no_module(service, reference, "it has no entrypoint and no command"))?;
        let (file, function) = match entry.split_once('#') {
            Some((file, function)) => (file, Some(function.to_owned())),
            None => (entry.as_str(), None),
        };
        let working_dir = image.config.working_dir.as_deref().unwrap_or("/");
        let inside = Path::new(working_dir).join(file);
        let path = folder.join(inside.strip_prefix("/").unwrap_or(&inside));
        let real =
            path.canonicalize().ok().filter(|real| folder.canonicalize().is_ok_and(|root| real.starts_with(root)));
        let Some(path) = real.filter(|path| path.is_file()) else {
            return Err(no_module(service, reference, &format!("its entrypoint `{file}` is not a file in it")));
        };
        let mut module = self.store.local(reference, &path, function.as_deref()).map_err(|error| match error {
            ModuleError::Unsuitable { source, .. } => no_module(service, reference, &format!("`{file}`: {source}")),
            error @ ModuleError::Io { .. } => unusable(service, &error),
        })?;
        module.root = Some(folder);
        module.config = image.config;
        Ok(module)
    }

    /// Unpacks beside the final place and renames, so that a half-read image is never taken for a whole one.
    async fn unpack(&self, docker: &Docker, reference: &str, folder: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(self.images).with_context(|| format!("create `{}`", self.images.display()))?;
        let work = tempfile_in(self.images)?;
        let archive = work.join("image.tar");
        let root = work.join("root");
        std::fs::create_dir(&root)?;
        let outcome = async {
            docker.export(reference, &archive).await?;
            let (from, to) = (archive.clone(), root.clone());
            tokio::task::spawn_blocking(move || export::unpack(&from, &to, Limits::default()))
                .await
                .map_err(anyhow::Error::from)?
                .with_context(|| format!("read image `{reference}`"))?;
            match std::fs::rename(&root, folder) {
                Err(error) if !folder.is_dir() => Err(Failure::from(error)),
                _ => Ok(()),
            }
        }
        .await;
        let _ = std::fs::remove_dir_all(&work);
        outcome
    }
}

fn tempfile_in(folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join(format!(
        ".work-{}-{}",
        std::process::id(),
        rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec
    ));
    std::fs::create_dir(&path).with_context(|| format!("create `{}`", path.display()))?;
    Ok(path)
}

/// The path of a local module as the file has it.
fn as_written(service: &Service) -> Option<String> {
    let document = &service.document;
    let module = document.pointer("/x-wasm/module").or_else(|| document.get("image"))?;
    module.as_str().map(str::to_owned)
}

/// `x-wasm.module`, or `image` where it is a path.
fn local_module(service: &Service) -> Option<PathBuf> {
    let wasm = service.wasm.as_ref();
    let option = wasm.and_then(|wasm| wasm.build.as_ref().map(|build| build.output.clone()).or(wasm.module.clone()));
    option.or_else(|| service.image.as_ref().filter(|image| is_module_path(image)).map(PathBuf::from))
}

/// What a dry run knows of a module in an image that is not there.
fn not_yet_a_module(reference: String, image: Image) -> Module {
    Module {
        reference,
        path: PathBuf::new(),
        digest: String::new(),
        size: 0,
        kind: ModuleKind::Command,
        function: None,
        root: None,
        config: image.config,
    }
}

/// A module error, told with its service and what to do.
fn unusable(service: &Service, error: &ModuleError) -> Failure {
    let hint = match error {
        ModuleError::Io { .. } => Some("build it first, or correct the path in `image` or `x-wasm.module`".to_owned()),
        ModuleError::Unsuitable { .. } => None,
    };
    Failure::new(format!("service `{}`: {error}", service.name), hint)
}

/// The first word of entrypoint and command, the service's over the image's.
fn entry(service: &Service, config: &ImageConfig) -> Option<String> {
    let entrypoint = service.entrypoint.as_ref().unwrap_or(&config.entrypoint);
    let image_command: &[String] = if service.entrypoint.is_some() { &[] } else { &config.command };
    entrypoint.first().or_else(|| service.command.as_deref().unwrap_or(image_command).first()).cloned()
}

fn no_module(service: &Service, reference: &str, why: &str) -> Failure {
    Failure::new(
        format!("service `{}`: image `{reference}` holds no WebAssembly module: {why}", service.name),
        ["a Wasm image is `FROM scratch` with `COPY app.wasm /` and `ENTRYPOINT [\"/app.wasm\"]`".to_owned()],
    )
}
