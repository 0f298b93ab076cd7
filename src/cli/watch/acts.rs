//! What is done about changed files: a command to the supervisor, or files into a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::mpsc;

use super::Said;
use crate::cli::outcome::Failure;
use crate::cli::output;
use crate::cli::paths::ProjectPaths;
use crate::cli::screen::ask;
use crate::cli::settings::Settings;
use crate::engine::Engine as _;
use crate::engine::engines::Engines;
use crate::image::kind::wasm_sign;
use crate::model::{MountSource, Project, ServiceName};
use crate::plan::observed::{ExistingKind, RunState};
use crate::session::{Command, Reply, Request, UpOptions, UpRequest};
use crate::watch::{Action, Batch, Rule, Then};

/// Files of an initial copy, and of a change whose files the system lost count of.
const MOST_FILES: usize = 100_000;

/// Acts on changes, one after the other.
pub struct Acts {
    project: Project,
    commands: mpsc::Sender<Request>,
    request: UpRequest,
    say: mpsc::Sender<Said>,
    engines: Engines,
    /// Modules as they were when they were last acted on: a build's own module is no news after it.
    modules: BTreeMap<PathBuf, Option<(SystemTime, u64)>>,
    /// Rules whose target is mounted from the same files, told once.
    mounted: BTreeSet<usize>,
}

/// What is to be done for one service, the strongest wish first.
#[derive(Debug, Default)]
struct Wanted {
    rebuild: bool,
    reload: bool,
    restart: bool,
    copies: Vec<usize>,
}

impl Acts {
    /// Acts through `commands`; files go to containers directly.
    pub fn new(
        settings: &Settings,
        project: &Project,
        commands: mpsc::Sender<Request>,
        request: UpRequest,
        say: mpsc::Sender<Said>,
    ) -> Self {
        let paths: ProjectPaths = settings.paths.project(&project.name);
        Self {
            project: project.clone(),
            commands,
            request,
            say,
            engines: settings.engines(&paths),
            modules: BTreeMap::new(),
            mounted: BTreeSet::new(),
        }
    }

    /// Tells people something.
    pub async fn say(&self, text: String) {
        let _ = self.say.send(Said::Message(text)).await;
    }

    /// Copies what is to be there before anything changes.
    pub async fn begin(&mut self, rules: &[Rule]) {
        for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.initial_sync) {
            let paths = files_below(rule, &rule.path);
            self.copy(number, rule, &paths).await;
        }
    }

    /// Does what a batch asks for, a service at a time.
    pub async fn act(&mut self, rules: &[Rule], batch: &Batch) {
        for (service, numbers) in batch.services(rules) {
            let mut wanted = Wanted::default();
            for number in numbers {
                match &rules[number].action {
                    Action::Rebuild => wanted.rebuild = true,
                    Action::Reload => wanted.reload |= self.is_news(&rules[number].path),
                    Action::Restart => wanted.restart = true,
                    Action::Sync { .. } => wanted.copies.push(number),
                }
            }
            if wanted.rebuild {
                self.rebuild(&service).await;
            } else if wanted.reload {
                self.reload(&service).await;
            } else {
                let mut restart = wanted.restart;
                for number in wanted.copies {
                    restart |= self.sync(number, &rules[number], batch).await;
                }
                if restart {
                    self.restart(&service).await;
                }
            }
            for rule in rules.iter().filter(|rule| rule.service == service && rule.action == Action::Reload) {
                self.modules.insert(rule.path.clone(), stamp(&rule.path));
            }
        }
    }

    /// Whether a module is there, and another than when it was last acted on.
    fn is_news(&self, module: &Path) -> bool {
        let now = stamp(module);
        now.is_some() && self.modules.get(module) != Some(&now)
    }

    async fn rebuild(&self, service: &ServiceName) {
        self.say(format!("Rebuilding service(s) [\"{service}\"] after changes were detected...")).await;
        let options = UpOptions { build: true, no_build: false, ..self.options(service) };
        if self.up(service, options).await {
            self.say(format!("service(s) [\"{service}\"] successfully built")).await;
        }
    }

    async fn reload(&self, service: &ServiceName) {
        self.say(format!("Reloading service \"{service}\" after its module changed")).await;
        let options = UpOptions { no_build: true, build: false, ..self.options(service) };
        self.up(service, options).await;
    }

    /// An `up` of this service alone, that replaces no more than it must.
    fn options(&self, service: &ServiceName) -> UpOptions {
        UpOptions {
            services: vec![service.clone()],
            no_deps: true,
            reload: true,
            allow_egress: self.request.options.allow_egress.clone(),
            timeout: self.request.options.timeout,
            ..UpOptions::default()
        }
    }

    async fn up(&self, service: &ServiceName, options: UpOptions) -> bool {
        let request = UpRequest { load: self.request.load.clone(), options };
        self.command(service, Command::Up(Box::new(request))).await
    }

    async fn restart(&self, service: &ServiceName) {
        if self.command(service, Command::Restart { services: vec![service.clone()], timeout: None }).await {
            self.say(format!("service(s) [\"{service}\"] restarted")).await;
        }
    }

    /// Has a command carried out; what does not work is told. `true` when all did.
    async fn command(&self, service: &ServiceName, command: Command) -> bool {
        // Another command that takes over has a look at the same files.
        let Ok(reply) = ask(&self.commands, command).await.await else { return false };
        let lines: Vec<String> = match reply {
            Reply::Settled { failures } => failures.into_iter().map(|failure| failure.message).collect(),
            Reply::Refused(text) => vec![text.trim_end().to_owned()],
            // Nobody who asks for it is answered here.
            Reply::Usage(_) => Vec::new(),
        };
        if lines.is_empty() {
            return true;
        }
        self.say(format!("service \"{service}\" goes on as it was: {}", lines.join("\n"))).await;
        false
    }

    /// Copies changed files. Whether a restart follows.
    async fn sync(&mut self, number: usize, rule: &Rule, batch: &Batch) -> bool {
        let Action::Sync { then, .. } = &rule.action else { return false };
        let paths = match batch.changes.get(&number) {
            Some(paths) if !batch.incomplete => {
                paths.iter().flat_map(|path| if path.is_dir() { Vec::new() } else { vec![path.clone()] }).collect()
            }
            _ => files_below(rule, &rule.path),
        };
        if !self.copy(number, rule, &paths).await {
            return false;
        }
        match then {
            Then::Nothing => false,
            Then::Restart => true,
            Then::Exec(command) => {
                self.execute(rule, command).await;
                false
            }
        }
    }

    async fn copy(&mut self, number: usize, rule: &Rule, paths: &[PathBuf]) -> bool {
        if paths.is_empty() || self.is_mounted(number, rule).await {
            return false;
        }
        let count = paths.len();
        self.say(format!("Syncing service \"{}\" after {count} changes were detected", rule.service)).await;
        match self.try_copy(rule, paths).await {
            Ok(()) => true,
            Err(failure) => {
                self.tell(&failure).await;
                false
            }
        }
    }

    async fn try_copy(&self, rule: &Rule, paths: &[PathBuf]) -> Result<(), Failure> {
        let there = |path: &Path| fs::symlink_metadata(path).is_ok();
        let target = |path: &PathBuf| Some((path.clone(), rule.target_of(path)?));
        let files: Vec<(PathBuf, String)> = paths.iter().filter(|path| there(path)).filter_map(target).collect();
        let gone: Vec<String> =
            paths.iter().filter(|path| !there(path)).filter_map(|path| rule.target_of(path)).collect();
        let docker = self.engines.docker().await?;
        for container in self.containers(&rule.service).await? {
            docker.write_files(&container, files.clone()).await?;
            if !gone.is_empty() {
                let command = ["rm", "-rf", "--"].into_iter().map(str::to_owned).chain(gone.iter().cloned()).collect();
                docker.execute(&container, command).await?;
            }
        }
        Ok(())
    }

    async fn execute(&self, rule: &Rule, command: &[String]) {
        let run = async {
            let docker = self.engines.docker().await?;
            for container in self.containers(&rule.service).await? {
                let (code, said) = docker.execute(&container, command.to_vec()).await?;
                if code != 0 {
                    let message =
                        format!("service `{}`: `{}` ended with exit code {code}", rule.service, command.join(" "));
                    return Err(Failure::new(if said.is_empty() { message } else { format!("{message}: {said}") }, []));
                }
            }
            Ok(())
        };
        if let Err(failure) = run.await {
            self.tell(&failure).await;
        }
    }

    /// The running containers of a service.
    async fn containers(&self, service: &ServiceName) -> Result<Vec<String>, Failure> {
        if self.project.services.get(service).is_some_and(|service| wasm_sign(service).is_some()) {
            return Err(Failure::new(
                format!("service `{service}` is WebAssembly: files are not copied into it"),
                ["mount the folder (`volumes`), or let its module be built again (`action: rebuild`)".to_owned()],
            ));
        }
        self.engines.docker().await?;
        let observed = self.engines.observe(&self.project.name).await?;
        let runs = observed.instances.into_iter().filter(|existing| {
            existing.service.as_ref() == Some(service)
                && !existing.one_off
                && existing.kind == ExistingKind::Container
                && existing.state == RunState::Running
        });
        Ok(runs.map(|existing| existing.id).collect())
    }

    /// Whether the files are in the container anyhow.
    async fn is_mounted(&mut self, number: usize, rule: &Rule) -> bool {
        let binds = self.project.services.get(&rule.service).into_iter().flat_map(|service| &service.mounts);
        let mounted = binds.into_iter().any(|mount| match &mount.source {
            MountSource::Bind { path, .. } => rule.path.starts_with(path),
            MountSource::Volume { .. }
            | MountSource::Anonymous { .. }
            | MountSource::Tmpfs { .. }
            | MountSource::Other { .. } => false,
        });
        if mounted && self.mounted.insert(number) {
            let path = rule.path.display();
            self.say(format!("path \"{path}\" is mounted into service \"{}\" and needs no sync", rule.service)).await;
        }
        mounted
    }

    async fn tell(&self, failure: &Failure) {
        self.say(output::text(failure).trim_end().to_owned()).await;
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

/// Files that a rule covers at and below a path.
fn files_below(rule: &Rule, path: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![path.to_owned()]);
    while let Some(path) = open.pop() {
        if files.len() >= MOST_FILES || (path != rule.path && rule.leaves_out(&path)) {
            continue;
        }
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {
                let entries = fs::read_dir(&path).into_iter().flatten().flatten();
                open.extend(entries.map(|entry| entry.path()));
            }
            Ok(_) if rule.covers(&path) => files.push(path),
            Ok(_) | Err(_) => {}
        }
    }
    files.sort();
    files
}
