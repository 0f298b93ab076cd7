//! Compose files that are not on this machine: fetched when the loader asks for them, kept, never executed.
//!
//! The loader does no I/O of its own, so it says what it lacks; [`Remotes::fetch`] gets all of that at once, and the loader is asked
//! again with the answers ([`Remotes`]). `git` and `artifact` know where things come from, `cache` how they are kept.

mod artifact;
mod cache;
mod git;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::outcome::Failure;
use super::paths::Paths;
use crate::compose::files::Kind;
use crate::compose::remote::Git;
use crate::compose::{self, Disk, Fetched, Files, Remote, RemoteState};
use cache::Cache;

/// How long a remote file may take.
const LIMIT: Duration = Duration::from_mins(5);

/// The disk, and what is known of remote files.
#[derive(Debug, Clone, Default)]
pub struct Remotes {
    states: BTreeMap<Remote, RemoteState>,
}

impl Files for Remotes {
    fn read(&self, path: &Path) -> io::Result<String> {
        Disk.read(path)
    }

    fn kind(&self, path: &Path) -> Option<Kind> {
        Disk.kind(path)
    }

    fn real(&self, path: &Path) -> PathBuf {
        Disk.real(path)
    }

    fn remote(&self, remote: &Remote) -> RemoteState {
        self.states.get(remote).cloned().unwrap_or(RemoteState::Unknown)
    }
}

impl Remotes {
    /// The remote files that were asked for so far.
    pub fn asked(&self) -> impl Iterator<Item = &Remote> {
        self.states.keys()
    }

    /// Fetches remote files, all at once, and remembers what came of it.
    pub async fn fetch(&mut self, remotes: Vec<Remote>, environment: &BTreeMap<String, String>) -> Result<(), Failure> {
        let cache = Cache::open(Paths::new(environment)?.remotes()?)?;
        let mut tasks = JoinSet::new();
        for (source, remotes) in by_source(remotes) {
            let cache = cache.clone();
            let allowed = source.allowed(environment);
            tasks.spawn(async move {
                let root = match allowed {
                    Ok(()) => root(&source, &cache).await,
                    Err(refusal) => Err(refusal),
                };
                remotes.into_iter().map(|remote| (state(&remote, root.as_deref()), remote)).collect::<Vec<_>>()
            });
        }
        for answers in tasks.join_all().await {
            self.states.extend(answers.into_iter().map(|(state, remote)| (remote, state)));
        }
        Ok(())
    }
}

/// Why a remote file cannot be had, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    reason: String,
    hint: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }
}

/// What is fetched: several files can come from the same place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A repository, at a commit.
    Git(Git),
    /// An artifact.
    Oci(String),
}

fn by_source(remotes: Vec<Remote>) -> BTreeMap<Source, Vec<Remote>> {
    let mut sources: BTreeMap<Source, Vec<Remote>> = BTreeMap::new();
    for remote in remotes {
        let source = match &remote {
            Remote::Git(git) => Source::Git(Git { folder: None, ..git.clone() }),
            Remote::Oci(reference) => Source::Oci(reference.clone()),
        };
        sources.entry(source).or_default().push(remote);
    }
    sources
}

impl Source {
    /// Compose's switches.
    fn allowed(&self, environment: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let name = match self {
            Self::Git(_) => "COMPOSE_EXPERIMENTAL_GIT_REMOTE",
            Self::Oci(_) => "COMPOSE_EXPERIMENTAL_OCI_REMOTE",
        };
        let Some(value) = environment.get(name).filter(|value| !value.is_empty()) else { return Ok(()) };
        match compose::go_bool(value) {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::new(
                format!("{name} is `{value}`"),
                format!("unset {name}, or keep the file on this machine"),
            )),
            None => Err(Refusal::new(
                format!("{name} is `{value}`, which is neither true nor false"),
                format!("set {name} to `true` or `false`"),
            )),
        }
    }
}

/// The folder with what was fetched.
async fn root(source: &Source, cache: &Cache) -> Result<PathBuf, Refusal> {
    let slow = || {
        Refusal::new(
            format!("it took more than {} minutes", LIMIT.as_secs() / 60),
            "try again, or keep the file on this machine",
        )
    };
    match source.clone() {
        Source::Git(git) => {
            let (stop, cache) = (Arc::new(AtomicBool::new(false)), cache.clone());
            let stopped = Arc::clone(&stop);
            let fetch = tokio::task::spawn_blocking(move || git::fetch(&git, &cache, &stopped));
            let Ok(joined) = tokio::time::timeout(LIMIT, fetch).await else {
                stop.store(true, Ordering::Relaxed);
                return Err(slow());
            };
            joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        }
        Source::Oci(name) => {
            tokio::time::timeout(LIMIT, artifact::fetch(&name, cache)).await.unwrap_or_else(|_| Err(slow()))
        }
    }
}

fn state(remote: &Remote, root: Result<&Path, &Refusal>) -> RemoteState {
    let found = root.map_err(Clone::clone).and_then(|root| match remote {
        Remote::Git(git) => compose_file(root, git.folder.as_deref().unwrap_or_default()),
        Remote::Oci(_) => compose_file(root, "compose.yaml"),
    });
    match found {
        Ok(fetched) => RemoteState::Present(fetched),
        Err(Refusal { reason, hint }) => RemoteState::Failed(reason, hint),
    }
}

/// The compose file at a path of what was fetched: itself, or by one of its usual names.
fn compose_file(root: &Path, path: &str) -> Result<Fetched, Refusal> {
    let place = compose::files::join(root, path);
    let file = match Disk.kind(&place) {
        Some(Kind::File) => place,
        Some(Kind::Directory) => {
            let names = compose::NAMES.iter().map(|name| place.join(name));
            names.into_iter().find(|file| Disk.kind(file) == Some(Kind::File)).ok_or_else(|| {
                let folder = if path.is_empty() { "its root".to_owned() } else { format!("its folder `{path}`") };
                Refusal::new(
                    format!("there is no compose file in {folder}"),
                    format!(
                        "looked for {}; name another after the reference, as in `#main:deploy/stack.yaml`",
                        compose::NAMES.join(", ")
                    ),
                )
            })?
        }
        None => {
            return Err(Refusal::new(
                format!("it has no `{path}`"),
                "look at the path after the reference, which starts at the root of the repository",
            ));
        }
    };
    let inside = Disk.real(&file).starts_with(Disk.real(root));
    if !inside {
        return Err(Refusal::new(format!("its `{path}` is a link that leads out of it"), "take the link out"));
    }
    Ok(Fetched { file, root: root.to_owned() })
}
