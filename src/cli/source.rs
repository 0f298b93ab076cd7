//! From a reference or a path to a module on this machine, whoever asks: a service, `run --image`, `pull`.
//!
//! The order is: a path; the engine's image of that name, if an engine answers; wcompose's own store; the registry, which
//! is asked directly. `always` and an age that is over turn it round. No engine is needed for any of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::OnceCell;

use super::outcome::Failure;
use super::registry;
use super::resolve::{ImageFolders, Progress, Step};
use crate::engine::docker::{Docker, Image};
use crate::engine::engines::Engines;
use crate::image::content::{Content, ContentError};
use crate::image::export;
use crate::image::fetch::{Fetch, FetchError, Only};
use crate::image::give;
use crate::image::kind::is_path;
use crate::image::layers::{ArchiveError, Limits, io_error};
use crate::image::pick::{Entry, PickError, Picker};
use crate::image::registry::{Reference, RegistryError};
use crate::image::store::{ModuleError, Store};
use crate::model::{Module, PullPolicy};

/// A module that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// For whom, in errors: "service `api`".
    pub subject: &'w str,
    /// What progress is told of; empty means the image.
    pub label: &'w str,
    /// A path (`./app.wasm`, `./saved.tar`, a layout folder) or the name of an image.
    pub reference: &'w str,
    /// In place of the image's own entrypoint and command.
    pub entry: Entry<'w>,
    /// The platform of Wasm, where one is named.
    pub platform: Option<&'w str>,
    /// When a registry is asked.
    pub policy: PullPolicy,
    /// Components that are joined with it.
    pub plugs: &'w [PathBuf],
}

/// Where modules come from.
pub struct Sources<'s> {
    engines: &'s Engines,
    picker: Picker,
    progress: &'s Progress,
    /// What is being fetched: the digest of its manifest, once for all who want it.
    fetched: Mutex<BTreeMap<String, Arc<OnceCell<String>>>>,
}

impl<'s> Sources<'s> {
    /// Over an engine that may not be there, and the user's folders.
    pub fn new(engines: &'s Engines, folders: &ImageFolders, progress: &'s Progress) -> Self {
        let picker = Picker {
            content: Content::new(&folders.data),
            store: Store::new(&folders.data),
            images: folders.images.clone(),
        };
        Self { engines, picker, progress, fetched: Mutex::default() }
    }

    /// The module of a reference or a path.
    pub async fn module(&self, wanted: &Wanted<'_>) -> Result<Module, Failure> {
        if is_path(wanted.reference) {
            return self.local(wanted, Path::new(wanted.reference)).await;
        }
        let reference = parsed(wanted)?;
        let kept = self.picker.content.named(&reference.to_string());
        let stale = match wanted.policy {
            PullPolicy::Always => true,
            PullPolicy::Every(age) => kept.as_ref().is_none_or(|kept| kept.is_older(age, SystemTime::now())),
            PullPolicy::Missing | PullPolicy::Never | PullPolicy::Build => false,
        };
        if !stale {
            if let Some(docker) = self.engines.any_docker().await
                && let Some(image) = docker.image(wanted.reference).await?
            {
                return self.of_engine(docker, wanted, image).await;
            }
            if let Some(kept) = kept {
                return self.of_store(wanted, kept.digest).await;
            }
            if wanted.policy == PullPolicy::Never {
                return Err(Failure::new(
                    format!("{}: there is no image `{}` on this machine", wanted.subject, wanted.reference),
                    ["its `pull_policy` is `never`: pull or build the image yourself".to_owned()],
                ));
            }
        }
        let digest = self.pull(wanted, Only::Any).await?;
        self.of_store(wanted, digest).await
    }

    /// The module of a path.
    pub async fn local(&self, wanted: &Wanted<'_>, path: &Path) -> Result<Module, Failure> {
        let path = path.to_owned();
        self.pick(wanted, move |picker, reference, entry| picker.local(reference, &path, entry)).await
    }

    /// Whether the module of a reference is here already, with no registry asked.
    pub async fn is_here(&self, wanted: &Wanted<'_>) -> Result<bool, Failure> {
        if self.kept(wanted).is_some() {
            return Ok(true);
        }
        match self.engines.any_docker().await {
            Some(docker) => Ok(docker.image(wanted.reference).await?.is_some()),
            None => Ok(false),
        }
    }

    /// What wcompose's own store has under the reference: the digest of its manifest.
    pub fn kept(&self, wanted: &Wanted<'_>) -> Option<String> {
        let reference = Reference::parse(wanted.reference)?;
        self.picker.content.named(&reference.to_string()).map(|kept| kept.digest)
    }

    /// The module of an image in the store.
    pub async fn of_store(&self, wanted: &Wanted<'_>, digest: String) -> Result<Module, Failure> {
        self.pick(wanted, move |picker, reference, entry| picker.image(reference, &digest, entry)).await
    }

    /// The module of an engine's image: its files are read out of the engine once for each image id.
    pub async fn of_engine(&self, docker: &Docker, wanted: &Wanted<'_>, image: Image) -> Result<Module, Failure> {
        let name = image.id.trim_start_matches("sha256:").to_owned();
        let folder = self.picker.images.join(&name);
        if !folder.is_dir() {
            let id = format!("Image {}", wanted.reference);
            (self.progress)(&id, "Reading", Step::Working);
            let archive = self.picker.content.draft().map_err(|error| failure(wanted, &error.into()))?;
            docker.export(wanted.reference, archive.path()).await?;
            self.pick(wanted, move |picker, _, _| {
                picker.unpacked(&name, |root| Ok(export::unpack(archive.path(), root, Limits::default()).map(drop)?))
            })
            .await?;
            (self.progress)(&id, "Read", Step::Done);
        }
        self.pick(wanted, move |picker, reference, entry| picker.in_folder(reference, folder, image.config, entry))
            .await
    }

    /// Fetches an image of Wasm into the store, once for all who want it: the digest of its manifest.
    pub async fn pull(&self, wanted: &Wanted<'_>, only: Only<'_>) -> Result<String, Failure> {
        let reference = parsed(wanted)?;
        let cell = {
            let mut fetched = self.fetched.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            fetched.entry(reference.to_string()).or_default().clone()
        };
        cell.get_or_try_init(|| self.fetch(wanted, &reference, only)).await.cloned()
    }

    async fn fetch(&self, wanted: &Wanted<'_>, reference: &Reference, only: Only<'_>) -> Result<String, Failure> {
        let id = if wanted.label.is_empty() { format!("Image {}", wanted.reference) } else { wanted.label.to_owned() };
        (self.progress)(&id, "Pulling", Step::Working);
        let (output, label) = (self.progress.clone(), id.clone());
        let told = move |line: String| output(&label, &line, Step::Output);
        let only = match (only, wanted.platform) {
            (Only::Any, Some(platform)) => Only::Platform(platform),
            (only, _) => only,
        };
        let registry = registry::open(reference).await;
        let fetch = Fetch { registry: &registry, reference, content: &self.picker.content, progress: &told };
        let fetched = fetch.fetch(only, Limits::default()).await;
        let digest = fetched.map_err(|error| unfetched(wanted, reference, &error))?;
        (self.progress)(&id, "Pulled", Step::Done);
        Ok(digest)
    }

    /// A module as an artifact in the store: the digest of its manifest.
    pub async fn artifact(&self, wanted: &Wanted<'_>, path: &Path) -> Result<String, Failure> {
        let path = path.to_owned();
        self.pick(wanted, move |picker, reference, entry| {
            let module = picker.local(reference, &path, entry)?;
            let bytes = std::fs::read(&module.path).map_err(io_error("reading", &module.path))?;
            Ok(give::artifact(&picker.content, &bytes, module.kind)?)
        })
        .await
    }

    /// The engine's image as one of Wasm in the store: the digest of its manifest.
    pub async fn built(&self, docker: &Docker, wanted: &Wanted<'_>, platform: String) -> Result<String, Failure> {
        let archive = self.picker.content.draft().map_err(|error| failure(wanted, &error.into()))?;
        docker.export(wanted.reference, archive.path()).await?;
        self.pick(wanted, move |picker, _, _| {
            let digest = export::take_in(archive.path(), &picker.content, Limits::default())?;
            Ok(give::image(&picker.content, &digest, Some(&platform))?)
        })
        .await
    }

    /// Gives what the store has to the registry of a reference, and names it in the store.
    pub async fn give(&self, wanted: &Wanted<'_>, digest: &str) -> Result<(), Failure> {
        let reference = parsed(wanted)?;
        let registry = registry::open(&reference).await;
        let told = |line: String| (self.progress)(wanted.label, &line, Step::Output);
        let given = give::give(&registry, &reference, &self.picker.content, digest, &told).await;
        given.map_err(|error| {
            let hint = match &error {
                FetchError::Registry(error) => registry::access(error, reference.registry()),
                _ => None,
            };
            Failure::new(format!("{}: cannot push `{}`: {error}", wanted.subject, wanted.reference), hint)
        })?;
        let named = self.picker.content.name(&reference.to_string(), digest);
        named.map_err(|error| failure(wanted, &error.into()))
    }

    /// Work on files, beside everything else.
    async fn pick<T: Send + 'static>(
        &self,
        wanted: &Wanted<'_>,
        work: impl FnOnce(&Picker, &str, Entry<'_>) -> Result<T, PickError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (mut picker, reference) = (self.picker.clone(), wanted.reference.to_owned());
        picker.store = picker.store.plugging(wanted.plugs);
        let entrypoint = wanted.entry.entrypoint.map(<[String]>::to_vec);
        let command = wanted.entry.command.map(<[String]>::to_vec);
        let environment = wanted.entry.environment.cloned();
        let outcome = tokio::task::spawn_blocking(move || {
            let entry = Entry {
                entrypoint: entrypoint.as_deref(),
                command: command.as_deref(),
                environment: environment.as_ref(),
            };
            work(&picker, &reference, entry)
        });
        outcome.await.map_err(anyhow::Error::from)?.map_err(|error| failure(wanted, &error))
    }
}

fn parsed(wanted: &Wanted<'_>) -> Result<Reference, Failure> {
    Reference::parse(wanted.reference).ok_or_else(|| {
        Failure::new(
            format!("{}: `{}` is not the name of an image", wanted.subject, wanted.reference),
            ["write `[REGISTRY/]NAME[:TAG]` in lower case; the path of a module begins with `./`".to_owned()],
        )
    })
}

/// Why an image gives no module, told with who wants it and what to do.
fn failure(wanted: &Wanted<'_>, error: &PickError) -> Failure {
    let Wanted { subject, reference, .. } = wanted;
    match error {
        PickError::None(why) => Failure::new(
            format!("{subject}: image `{reference}` holds no WebAssembly module: {why}"),
            ["a Wasm image is `FROM scratch` with `COPY app.wasm /` and `ENTRYPOINT [\"/app.wasm\"]`".to_owned()],
        ),
        PickError::Module(error @ ModuleError::Io { .. }) => Failure::new(
            format!("{subject}: {error}"),
            ["build it first, or correct the path in `image` or `x-wasm.module`".to_owned()],
        ),
        PickError::Module(error @ ModuleError::Unsuitable { .. }) => Failure::new(format!("{subject}: {error}"), []),
        PickError::Plug(error) => Failure::new(
            format!("{subject}: {error}"),
            ["take it out of `x-wasm.plug`, or build it against the interfaces that are imported there".to_owned()],
        ),
        PickError::Content(ContentError::Damaged { .. } | ContentError::Missing(_)) => Failure::new(
            format!("{subject}: image `{reference}`: {error}"),
            [if is_path(reference) {
                "the file is damaged: save the image again".to_owned()
            } else {
                format!("fetch it again: `wcompose pull`, or `docker pull {reference}`")
            }],
        ),
        PickError::Content(ContentError::Archive(ArchiveError::TooLarge(_))) => Failure::new(
            format!("{subject}: image `{reference}`: {error}"),
            ["a Wasm image needs no base image: build it `FROM scratch`".to_owned()],
        ),
        PickError::Content(_) | PickError::Application(_) => {
            Failure::new(format!("{subject}: image `{reference}`: {error}"), [])
        }
    }
}

/// Why an image was not fetched, told with who wants it and what to do.
fn unfetched(wanted: &Wanted<'_>, reference: &Reference, error: &FetchError) -> Failure {
    let name = reference.registry();
    let hint = match error {
        FetchError::Registry(error) => registry::access(error, name).or_else(|| match error {
            RegistryError::NotFound => Some(format!("look for its name and tag at `{name}`, or push it first")),
            RegistryError::Damaged(_) => Some("do not use it; ask who runs the registry".to_owned()),
            RegistryError::TooLarge(_) => Some("a Wasm image needs no base image: build it `FROM scratch`".to_owned()),
            RegistryError::Broken(_) | RegistryError::Other(_) => Some("try again".to_owned()),
            RegistryError::Unreachable(_) | RegistryError::Denied(_) => None,
        }),
        FetchError::OtherPlatforms(_) => Some(
            "it is an image of Linux: leave out what makes the service Wasm (`platform`, `runtime`, `x-wasm`)"
                .to_owned(),
        ),
        FetchError::Content(ContentError::Damaged { .. }) => {
            Some("do not use it; ask who runs the registry".to_owned())
        }
        FetchError::Content(_) | FetchError::Malformed(_) | FetchError::OtherKind(_) => None,
    };
    Failure::new(format!("{}: cannot pull `{}`: {error}", wanted.subject, wanted.reference), hint)
}
