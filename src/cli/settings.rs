//! Arguments and environment, resolved once and passed on whole.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use anyhow::Context as _;

use super::args::{Ansi, Progress, Root, word};
use super::outcome::Failure;
use super::output;
use super::paths::{Paths, ProjectPaths};
use crate::compose;
use crate::engine::engines::Engines;
use crate::engine::wasm::AgentWay;
use crate::session::LoadRequest;

/// Everything about a run that is not particular to its command.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What to load.
    pub load: LoadRequest,
    /// Folders.
    pub paths: Paths,
    /// Control characters on standard error, colours on standard output.
    pub ansi: Ansi,
    /// How progress is shown; `Auto` is resolved already.
    pub progress: Progress,
    /// Print what would be done.
    pub dry_run: bool,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `WCOMPOSE_AGENT`.
    pub agents: AgentWay,
}

impl Settings {
    /// Reads the environment, and standard input where a file is `-`.
    pub fn new(root: Root) -> Result<Self, Failure> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let directory = std::env::current_dir().context("find the working directory")?;
        let stdin = if root.files.iter().any(|file| file == "-") {
            let text = compose::files::text(std::io::stdin()).context("read the compose file from standard input")?;
            Some(text)
        } else {
            None
        };
        let ansi = match root.ansi {
            Some(Ansi::Never | Ansi::Always) if root.no_ansi => {
                return Err(Failure::new("`--no-ansi` and `--ansi` exclude each other", ["use `--ansi` alone".into()]));
            }
            _ if root.no_ansi => {
                output::warn("`--no-ansi` is obsolete; use `--ansi never`");
                Some(Ansi::Never)
            }
            given => given,
        };
        match (root.parallel, environment.get("COMPOSE_PARALLEL_LIMIT").map(|limit| (limit, limit.parse::<i64>()))) {
            (Some(1..), _) => output::warn("`--parallel` has no effect: what can be done at once is"),
            (None, Some((limit, Err(_)))) => {
                let message = format!("`COMPOSE_PARALLEL_LIMIT` is `{limit}`, which is not a number");
                return Err(Failure::new(message, ["unset it".into()]));
            }
            _ => {}
        }
        let ansi = ansi.or_else(|| environment.get("COMPOSE_ANSI").and_then(|text| word(text))).unwrap_or(Ansi::Auto);
        let progress = root
            .progress
            .or_else(|| environment.get("COMPOSE_PROGRESS").and_then(|text| word(text)))
            .unwrap_or(Progress::Auto);
        let progress = match (progress, ansi) {
            (Progress::Auto, Ansi::Never) => Progress::Plain,
            (Progress::Auto, Ansi::Always) => Progress::Tty,
            (Progress::Auto, Ansi::Auto) if std::io::stderr().is_terminal() => Progress::Tty,
            (Progress::Auto, Ansi::Auto) => Progress::Plain,
            (chosen, _) => chosen,
        };
        Ok(Self {
            paths: Paths::new(&environment)?,
            docker_host: environment.get("DOCKER_HOST").filter(|host| !host.is_empty()).cloned(),
            agents: agents(environment.get("WCOMPOSE_AGENT").map_or("", String::as_str))?,
            load: LoadRequest {
                directory,
                files: root.files,
                stdin,
                project_directory: root.project_directory,
                project_name: root.project_name,
                profiles: root.profiles,
                env_files: root.env_files,
                compatibility: root.compatibility,
                all_resources: root.all_resources,
                enable: Vec::new(),
                overlay: None,
                environment,
            },
            ansi,
            progress,
            dry_run: root.dry_run,
        })
    }
    /// Engines for a project.
    pub fn engines(&self, paths: &ProjectPaths) -> Engines {
        Engines::new(self.docker_host.clone(), paths.engine_folders(), self.agents)
    }
}

/// How agents are connected, from the word of the environment.
fn agents(word: &str) -> Result<AgentWay, Failure> {
    match word {
        "" | "auto" => Ok(AgentWay::Probe),
        "attach" => Ok(AgentWay::Attach),
        other => {
            let message = format!("`WCOMPOSE_AGENT` is `{other}`, which is none of `auto` and `attach`");
            Err(Failure::new(message, ["unset it: the way that works is found".into()]))
        }
    }
}
