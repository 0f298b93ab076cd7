//! Compose files → [`Project`]: one function, [`load`], that lists the phases.
//!
//! Per file *parse → interpolate → canon → include → extends → merge*, then once *decode → resolve*. The loader is told
//! everything it depends on in [`Options`] and reads through [`Files`]; it never asks the process for its environment.
//! It reports all that is wrong at once, each with its place, and knows nothing of plans and engines.

mod canon;
mod consistency;
mod decode;
mod document;
mod dotenv;
mod extends;
pub mod files;
mod include;
mod interpolate;
mod limits;
mod loader;
mod locate;
mod merge;
mod node;
pub mod print;
pub mod remote;
mod repair;
mod resolve;
mod rules;
mod spec;
mod values;
mod words;
mod yaml;

#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use serde_json::Value;

pub use files::{Disk, Fetched, Files, Memory, RemoteState};
pub use interpolate::{Environment, Reference};
pub use locate::{NAMES, go_bool};
pub use remote::Remote;

use crate::diag::{Diagnostic, Diagnostics, FileId, Sources};
use crate::model::Project;
use document::{Printer, Scope};
use loader::Loader;
use merge::{Directives, Form};
use node::{Directive, Node, Path};

/// Everything the loader depends on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Working directory of the command, absolute.
    pub directory: PathBuf,
    /// `-f`, in order, as given; empty means discovery.
    pub files: Vec<String>,
    /// Text of standard input, when a file is `-`.
    pub stdin: Option<String>,
    /// `--project-directory`.
    pub project_directory: Option<PathBuf>,
    /// `-p`.
    pub project_name: Option<String>,
    /// `--profile`.
    pub profiles: Vec<String>,
    /// `--env-file`.
    pub env_files: Vec<String>,
    /// The command's environment.
    pub environment: BTreeMap<String, String>,
    /// Stages that are switched off.
    pub without: Without,
    /// Services that are wanted although no profile enables them.
    pub enable: Vec<String>,
    /// `--compatibility`.
    pub compatibility: bool,
    /// `--all-resources`.
    pub all_resources: bool,
    /// A last document, merged over all files: what a command line says of services. It is none of the project's files.
    pub overlay: Option<String>,
}

/// Stages of loading that `config` can switch off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Without {
    /// `--no-interpolate`.
    pub interpolation: bool,
    /// `--no-normalize`.
    pub normalization: bool,
    /// `--no-path-resolution`.
    pub paths: bool,
    /// `--no-consistency`.
    pub consistency: bool,
    /// Reading `env_file`s, which most of `config`'s lists do without.
    pub environment_files: bool,
}

/// What a load gives.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// The texts it came from, for messages.
    pub sources: Sources,
    /// What is doubtful in them.
    pub warnings: Vec<Diagnostic>,
    /// The variables the files saw.
    pub environment: Environment,
}

/// Why a load failed.
#[derive(Debug, Clone)]
pub struct LoadError {
    /// All that is wrong, and what is doubtful, in the order of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts the diagnostics point into.
    pub sources: Sources,
    /// Remote files that have to be fetched before more can be said; what else is wrong may come of their absence.
    pub remotes: Vec<Remote>,
}

impl LoadError {
    /// No file was read at all: there is none.
    pub fn is_no_file(&self) -> bool {
        self.sources.is_empty() && self.remotes.is_empty()
    }
}

/// The canonical document before it is decoded, with what `config` prints beside it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The document. With interpolation switched off, values are as written.
    pub document: Value,
    /// The variables the files refer to.
    pub references: BTreeMap<String, Reference>,
    /// The variables the files saw.
    pub environment: Environment,
    /// The texts it came from.
    pub sources: Sources,
    /// What is doubtful in them.
    pub warnings: Vec<Diagnostic>,
}

/// Loads a project.
pub fn load(options: &Options, files: &dyn Files) -> Result<Loaded, LoadError> {
    let mut loader = Loader::new(options, files);
    let loaded = run(&mut loader, options);
    loader.finish(loaded, |(project, environment), sources, warnings| Loaded {
        project,
        sources,
        warnings,
        environment,
    })
}

/// Loads the document alone, as `config --no-interpolate` and `config --variables` need it: nothing is decoded, no
/// service is left out.
pub fn model(options: &Options, files: &dyn Files) -> Result<Model, LoadError> {
    let mut loader = Loader::new(options, files);
    let model = run_model(&mut loader, options);
    loader.finish(model, |(document, references, environment), sources, warnings| Model {
        document,
        references,
        environment,
        sources,
        warnings,
    })
}

/// The phases, in order.
fn run(loader: &mut Loader<'_>, options: &Options) -> Option<(Project, Environment)> {
    let mut located = locate::locate(loader, options)?;
    let files = loader.open_all(&located)?;
    let name = loader.project_name(&files, &mut located, options)?;
    let directory = located.directory.clone();
    let mut layers = files.clone();
    if let Some(overlay) = &options.overlay {
        layers.push((directory.join("-"), loader.sources.add("<command line>", overlay.clone())));
    }
    let mut root = loader.model(&layers, &directory, &located.environment, &[])?;
    if !options.without.normalization {
        resolve::normalize(&mut root, &name, &located.environment);
    }
    resolve::complete(&mut root, &name);
    let profiles = profiles(options, &located.environment);
    let mut document = Printer { diagnostics: &mut loader.diagnostics, scope: Scope::Whole }.record(
        &root,
        &spec::FILE,
        &Path::ROOT,
    )?;
    let enabled = consistency::enabled(&root, &profiles, &options.enable);
    if !options.without.consistency && loader.complete {
        // As in compose, what profiles enable has to hold without the services that are only named.
        if !options.enable.is_empty() {
            let enabled = consistency::enabled(&root, &profiles, &[]);
            consistency::check(&root, &enabled, &loader.unextended, &mut loader.diagnostics);
        }
        consistency::check(&root, &enabled, &loader.unextended, &mut loader.diagnostics);
    }
    decode::environment_files(loader, &mut document, &root, &enabled, &located.environment);
    let project = decode::project(
        decode::Parts {
            name,
            located: &located,
            files: &files,
            document,
            root,
            enabled: &enabled,
            home: loader.home(),
            compatibility: options.compatibility
                || located.environment.get("COMPOSE_COMPATIBILITY").is_some_and(|text| locate::is_yes(text)),
            all_resources: options.all_resources,
        },
        &mut loader.diagnostics,
    );
    Some((project, located.environment))
}

/// The profiles that are given, else those of the environment.
fn profiles(options: &Options, environment: &Environment) -> Vec<String> {
    match environment.get("COMPOSE_PROFILES") {
        Some(listed) if options.profiles.is_empty() => {
            listed.split(',').map(|profile| profile.trim().to_owned()).collect()
        }
        _ => options.profiles.clone(),
    }
}

type RawModel = (Value, BTreeMap<String, Reference>, Environment);

fn run_model(loader: &mut Loader<'_>, options: &Options) -> Option<RawModel> {
    loader.without.interpolation = true;
    let mut located = locate::locate(loader, options)?;
    let files = loader.open_all(&located)?;
    let name = loader.project_name(&files, &mut located, options)?;
    let directory = located.directory.clone();
    let mut root = loader.model(&files, &directory, &located.environment, &[])?;
    let mut references = BTreeMap::new();
    interpolate::references(&root, &mut references);
    merge::drop_empty_lists(&mut root);
    if !options.without.normalization {
        resolve::normalize(&mut root, &name, &Environment::new());
    }
    Some((root.raw(), references, located.environment))
}

/// When a document is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// On its own, as all of it counts.
    Now,
    /// With what it is merged into, as only parts of it count.
    Later,
}

impl Loader<'_> {
    /// The documents of a file, in long form: parse → interpolate → canon, and a check of each alone.
    fn documents(&mut self, id: FileId, check: Check) -> Option<Vec<Node>> {
        let mut documents = self.parse(id)?;
        for document in &documents {
            self.spend(limits::cost(document), document.span)?;
        }
        for document in &mut documents {
            if document.as_map().is_none() {
                self.diagnostics.push(
                    document
                        .error("a compose file must be a mapping")
                        .label(format!("this is {}", document.describe()))
                        .hint("begin it with `services:`"),
                );
                return None;
            }
            if !self.without.interpolation {
                interpolate::interpolate(document, &self.environment, &mut self.diagnostics);
            }
            let uninterpolated = self.without.interpolation;
            canon::canonical(document, &mut canon::Canon::new(&mut self.diagnostics, uninterpolated));
            if !uninterpolated && check == Check::Now {
                check_part(document, &mut self.diagnostics);
            }
            if let Some(map) = document.as_map_mut()
                && let Some((key, _)) = map.shift_remove_entry("version")
            {
                self.diagnostics.push(Diagnostic::warning(key.span, "`version` is obsolete and ignored; remove it"));
            }
        }
        Some(documents)
    }

    /// Files that belong together, merged, with their defaults, paths and environment.
    fn model(
        &mut self,
        files: &[(PathBuf, FileId)],
        folder: &FilePath,
        environment: &Environment,
        trail: &[PathBuf],
    ) -> Option<Node> {
        let outer = std::mem::replace(&mut self.environment, environment.clone());
        let outer_bases = std::mem::take(&mut self.bases);
        let mut whole = None;
        let mut complete = true;
        for (path, id) in files {
            let Some(documents) = self.documents(*id, Check::Now) else {
                complete = false;
                continue;
            };
            let mut trail = trail.to_vec();
            if !trail.contains(path) {
                trail.push(path.clone());
            }
            for mut document in documents {
                include::apply(self, &mut document, folder, environment, &trail);
                extends::apply(self, &mut document, path, folder);
                merge_into(&mut whole, document, self.form(), &mut self.diagnostics);
            }
        }
        (self.environment, self.bases) = (outer, outer_bases);
        let mut whole: Node = match whole {
            Some(whole) if complete && (!trail.is_empty() || whole.as_map().is_some_and(|map| !map.is_empty())) => {
                whole
            }
            Some(_) | None if complete && self.complete => {
                self.diagnostics
                    .push(Diagnostic::error(None, "the compose file is empty").hint("begin it with `services:`"));
                return None;
            }
            _ => return None,
        };
        resolve::defaults(&mut whole);
        consistency::check_model(&whole, &mut self.diagnostics);
        if !self.without.paths {
            let home = self.home();
            resolve::paths(&mut whole, folder, home.as_deref(), self.files);
        }
        if !self.without.interpolation {
            resolve::environment(&mut whole, environment);
        }
        Some(whole)
    }
}

fn check_part(document: &Node, diagnostics: &mut Diagnostics) {
    for key in ["name", "version"] {
        if let Some(node) = document.get(key).filter(|node| node.is_null() && node.directive != Directive::Reset) {
            diagnostics.push(node.error(format!("`{key}` must be a string")).label("this is nothing"));
        }
    }
    let mut printer = Printer { diagnostics, scope: Scope::Part };
    printer.record(document, &spec::FILE, &Path::ROOT);
    let services = Path::ROOT.key("services");
    for (key, service) in document.get("services").and_then(Node::as_map).into_iter().flatten() {
        if let Some(wasm) = service.get("x-wasm").filter(|wasm| !wasm.is_null()) {
            printer.record(wasm, &spec::WASM, &services.key(&key.text).key("x-wasm"));
        }
    }
}

fn merge_into(whole: &mut Option<Node>, document: Node, form: Form, diagnostics: &mut Diagnostics) {
    match whole {
        None => {
            let mut document = document;
            merge::settle(&mut document);
            *whole = Some(document);
        }
        Some(whole) => {
            merge::documents(whole, document, Directives::Settle, form, diagnostics);
            merge::settle(whole);
        }
    }
}
