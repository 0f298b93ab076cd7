//! What is done about changed files: a command to the supervisor, or files into a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::Said;
use crate::cli::outcome::Failure;
use crate::cli::output;
use crate::cli::paths::ProjectPaths;
use crate::cli::pick::{self, Chosen, OneOffs};
use crate::cli::screen::ask;
use crate::cli::settings::Settings;
use crate::cli::target::Target;
use crate::cli::{cp, exec};
use crate::engine::archive::{self, Outgoing};
use crate::engine::docker::Program;
use crate::engine::engines::Engines;
use crate::image::stamp::Stamp;
use crate::model::{InstanceName, MountSource, Project, ServiceName};
use crate::plan::observed::{Existing, RunState};
use crate::session::stream::{Attached, Errand};
use crate::session::{Command, Reply, Request, UpOptions, UpRequest};
use crate::watch::{Action, Batch, Hook, Rule, Then};

/// Files of an initial copy, and of a change whose files the system lost count of.
const MOST_FILES: usize = 100_000;

/// Acts on changes, one after the other.
pub struct Acts {
    project: Project,
    commands: mpsc::Sender<Request>,
    request: UpRequest,
    say: mpsc::Sender<Said>,
    engines: Engines,
    settings: Settings,
    target: Target,
    replaced: Replaced,
    /// Modules as they were when they were last acted on: a build's own module is no news after it.
    modules: BTreeMap<PathBuf, Option<Stamp>>,
    /// Rules whose target is mounted from the same files, told once.
    mounted: BTreeSet<usize>,
}

/// What becomes of an image that a build replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It is removed.
    Pruned,
    /// It stays.
    Kept,
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
        replaced: Replaced,
    ) -> Self {
        let paths: ProjectPaths = settings.paths.project(&project.name);
        Self {
            project: project.clone(),
            commands,
            request,
            say,
            engines: settings.engines(&paths),
            settings: settings.clone(),
            target: Target { name: project.name.clone(), project: Some(project.clone()) },
            replaced,
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
                self.modules.insert(rule.path.clone(), Stamp::of(&rule.path));
            }
        }
    }

    /// Whether a module is there, and another than when it was last acted on.
    fn is_news(&self, module: &Path) -> bool {
        let now = Stamp::of(module);
        now.is_some() && self.modules.get(module) != Some(&now)
    }

    async fn rebuild(&self, service: &ServiceName) {
        self.say(format!("Rebuilding service(s) [\"{service}\"] after changes were detected...")).await;
        let options = UpOptions { build: true, no_build: false, ..self.options(service) };
        let before = self.image(service).await;
        if self.up(service, options).await {
            self.say(format!("service(s) [\"{service}\"] successfully built")).await;
            if let Some(before) = before {
                self.prune(service, &before).await;
            }
        }
    }

    /// The id of the image that a service is built to, where there is one.
    async fn image(&self, service: &ServiceName) -> Option<String> {
        let declared = self.project.services.get(service).filter(|declared| declared.build.is_some())?;
        let reference = declared.image.clone().unwrap_or_else(|| self.project.image_of(service));
        Some(self.engines.docker().await.ok()?.image(&reference).await.ok()??.id)
    }

    /// Removes the image that was replaced, unless it has another name or something else uses it.
    async fn prune(&self, service: &ServiceName, before: &str) {
        if self.replaced == Replaced::Kept || self.image(service).await.is_none_or(|now| now == before) {
            return;
        }
        let pruned = async { self.engines.docker().await?.prune_image(before).await };
        if let Err(error) = pruned.await {
            self.tell(&error.into()).await;
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
            Then::Exec(hook) => {
                self.execute(rule, hook).await;
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
        for chosen in self.running(&rule.service).await? {
            match chosen {
                Chosen::Container { docker, name } => {
                    docker.write_files(&name, files.clone()).await?;
                    if !gone.is_empty() {
                        let remove = ["rm", "-rf", "--"].into_iter().map(str::to_owned).chain(gone.iter().cloned());
                        docker.execute(&name, &Program { command: remove.collect(), ..Program::default() }).await?;
                    }
                }
                Chosen::Guest { socket, instance } => {
                    let (to, outgoing) = archive::way();
                    let files = files.clone();
                    let packing =
                        tokio::task::spawn_blocking(move || archive::of_files(&files, Outgoing::new(to))?.flush());
                    let copy = Errand::CopyIn { instance: instance.clone(), path: "/".to_owned() };
                    let (sent, packed) = tokio::join!(cp::send(&socket, copy, outgoing), packing);
                    sent?;
                    packed.map_err(io::Error::other).flatten()?;
                    if !gone.is_empty() {
                        let nothing = archive::way().1;
                        cp::send(&socket, Errand::Remove { instance, paths: gone.clone() }, nothing).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn execute(&self, rule: &Rule, hook: &Hook) {
        let run = async {
            for chosen in self.running(&rule.service).await? {
                let (code, said) = match chosen {
                    Chosen::Container { docker, name } => docker.execute(&name, &program(hook)).await?,
                    Chosen::Guest { socket, instance } => exec::to_end(&socket, errand(instance, hook)).await?,
                };
                if code != 0 {
                    let command = hook.command.join(" ");
                    let message = format!("service `{}`: `{command}` ended with exit code {code}", rule.service);
                    return Err(Failure::new(if said.is_empty() { message } else { format!("{message}: {said}") }, []));
                }
            }
            Ok(())
        };
        if let Err(failure) = run.await {
            self.tell(&failure).await;
        }
    }

    /// What runs of a service.
    async fn running(&self, service: &ServiceName) -> Result<Vec<Chosen>, Failure> {
        let runs = |existing: &Existing| existing.state == RunState::Running;
        pick::instances(&self.settings, &self.target, service, None, OneOffs::Left, runs).await
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
        // The console has its own colours.
        self.say(anstream::adapter::strip_str(output::text(failure).trim_end()).to_string()).await;
    }
}

fn program(hook: &Hook) -> Program {
    let entry = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    Program {
        command: hook.command.clone(),
        environment: hook.environment.iter().map(entry).collect(),
        user: hook.user.clone(),
        working_dir: hook.working_dir.clone(),
        privileged: hook.privileged,
        ..Program::default()
    }
}

/// The same beside a guest, which has no users and no privileges.
fn errand(instance: InstanceName, hook: &Hook) -> Errand {
    let set = |(name, value): &(String, Option<String>)| Some((name.clone(), value.clone()?));
    Errand::Exec {
        instance,
        command: hook.command.clone(),
        environment: hook.environment.iter().filter_map(set).collect(),
        working_dir: hook.working_dir.clone(),
        detach: false,
        streams: Attached::default(),
    }
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
