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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value;

pub use files::{Disk, Fetched, Files, Memory, RemoteState};
pub use interpolate::{Environment, Reference};
pub use locate::{NAMES, go_bool};
pub use remote::Remote;

use crate::diag::{Diagnostic, Diagnostics, FileId, Sources, Span};
use crate::model::Project;
use document::{Printer, Scope};
use locate::{Chosen, Located};
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
    let mut root = loader.model(&files, &directory, &located.environment, &[])?;
    if !options.without.normalization {
        resolve::normalize(&mut root, &name, &located.environment);
    }
    resolve::complete(&mut root, &name);
    let mut profiles = options.profiles.clone();
    if profiles.is_empty() {
        let listed = located.environment.get("COMPOSE_PROFILES").cloned().unwrap_or_default();
        profiles = listed.split(',').map(|profile| profile.trim().to_owned()).collect();
    }
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
            root: &root,
            enabled: &enabled,
            home: loader.home(),
        },
        &mut loader.diagnostics,
    );
    Some((project, located.environment))
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

/// What the phases share.
pub(crate) struct Loader<'f> {
    files: &'f dyn Files,
    sources: Sources,
    diagnostics: Diagnostics,
    without: Without,
    directory: PathBuf,
    home: Option<PathBuf>,
    stdin: Option<String>,
    opened: IndexMap<PathBuf, FileId>,
    /// Files that were looked into before their turn.
    parsed: HashMap<FileId, Vec<Node>>,
    /// Remote files of which nothing is known.
    remotes: Vec<Remote>,
    /// The variables at work while a document is read.
    environment: Environment,
    /// Every file that is named could be read: a name that is not defined is wrong, not missing with a file.
    complete: bool,
    /// Services whose base could not be found.
    unextended: BTreeSet<String>,
    /// What was loaded so far costs; see [`limits`].
    spent: usize,
    exhausted: bool,
    /// Files that services of this model extend, in long form, their paths resolved.
    bases: HashMap<FileId, Rc<Node>>,
}

impl<'f> Loader<'f> {
    fn new(options: &Options, files: &'f dyn Files) -> Self {
        Self {
            files,
            sources: Sources::default(),
            diagnostics: Diagnostics::default(),
            without: options.without,
            directory: options.directory.clone(),
            home: options.environment.get("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            stdin: options.stdin.clone(),
            opened: IndexMap::new(),
            parsed: HashMap::new(),
            remotes: Vec::new(),
            environment: Environment::new(),
            complete: true,
            unextended: BTreeSet::new(),
            spent: 0,
            exhausted: false,
            bases: HashMap::new(),
        }
    }

    fn finish<T, L>(
        self,
        result: Option<T>,
        loaded: impl FnOnce(T, Sources, Vec<Diagnostic>) -> L,
    ) -> Result<L, LoadError> {
        let sound = !self.diagnostics.has_errors();
        let diagnostics = self.diagnostics.sorted();
        match result {
            Some(result) if sound && self.remotes.is_empty() => Ok(loaded(result, self.sources, diagnostics)),
            _ => Err(LoadError { diagnostics, sources: self.sources, remotes: self.remotes }),
        }
    }

    /// What merges are about.
    fn form(&self) -> Form {
        if self.without.interpolation { Form::Written } else { Form::Long }
    }

    fn home(&self) -> Option<PathBuf> {
        self.home.clone()
    }

    fn expand_home(&self, path: &str) -> String {
        resolve::expand_home(path, self.home.as_deref())
    }

    /// A path as messages show it: relative to the working directory when it lies beneath.
    fn shown(&self, path: &FilePath) -> PathBuf {
        path.strip_prefix(&self.directory).unwrap_or(path).to_owned()
    }

    /// A compose file by the name it has in the files or on the command line: a path from `directory`, or a remote file.
    /// A remote file that is not there is reported where it is named, or noted when nobody tried to fetch it.
    fn named(&mut self, text: &str, directory: &FilePath, place: Option<&Node>) -> Option<Fetched> {
        let (message, hint) = match remote::parse(text) {
            Ok(None) => {
                let file = files::join(directory, self.expand_home(text));
                let root = file.parent().unwrap_or(FilePath::new("/")).to_owned();
                return Some(Fetched { file, root });
            }
            Ok(Some(remote)) => match self.files.remote(&remote) {
                RemoteState::Present(fetched) => return Some(fetched),
                RemoteState::Unknown => {
                    if !self.remotes.contains(&remote) {
                        self.remotes.push(remote);
                    }
                    return None;
                }
                RemoteState::Failed(reason, hint) => {
                    (format!("cannot fetch the compose file `{remote}`: {reason}"), Some(hint))
                }
            },
            Err(reason) => (format!("`{text}` is no compose file: {reason}"), None),
        };
        let mut diagnostic = match place {
            Some(node) => node.error(message),
            None => Diagnostic::error(None, message),
        };
        diagnostic.hints.extend(hint);
        self.diagnostics.push(diagnostic);
        None
    }

    fn open(&mut self, path: &FilePath, place: Option<&Node>) -> Option<FileId> {
        self.open_as(path, place, "file")
    }

    /// Reads a file once; what cannot be read is reported where it is named.
    fn open_as(&mut self, path: &FilePath, place: Option<&Node>, what: &str) -> Option<FileId> {
        if let Some(id) = self.opened.get(path) {
            return Some(*id);
        }
        let shown = self.shown(path);
        match self.files.read(path) {
            Ok(text) => {
                let id = self.sources.add(shown, text);
                self.opened.insert(path.to_owned(), id);
                Some(id)
            }
            Err(error) => {
                let reason = match error.kind() {
                    std::io::ErrorKind::NotFound => format!("the {what} `{}` does not exist", shown.display()),
                    std::io::ErrorKind::FileTooLarge => {
                        let most = limits::mebibytes(limits::FILE_BYTES);
                        format!("the {what} `{}` is larger than {most}", shown.display())
                    }
                    std::io::ErrorKind::InvalidData => format!("the {what} `{}` is not UTF-8 text", shown.display()),
                    _ if self.files.kind(path) == Some(files::Kind::Directory) => {
                        format!("the {what} `{}` is a directory", shown.display())
                    }
                    _ => format!("cannot read the {what} `{}`: {error}", shown.display()),
                };
                self.diagnostics.push(match place {
                    Some(node) => node.error(reason),
                    None => Diagnostic::error(None, reason),
                });
                None
            }
        }
    }

    fn open_all(&mut self, located: &Located) -> Option<Vec<(PathBuf, FileId)>> {
        let mut files = Vec::new();
        for file in &located.files {
            match file {
                Chosen::File(path) => files.extend(self.open(path, None).map(|id| (path.clone(), id))),
                Chosen::Stdin => {
                    let Some(text) = self.stdin.take() else {
                        self.diagnostics.push(Diagnostic::error(None, "`-f -` needs a compose file on standard input"));
                        return None;
                    };
                    files.push((located.directory.join("-"), self.sources.add("<stdin>", text)));
                }
            }
        }
        self.complete = files.len() == located.files.len();
        Some(files)
    }

    /// The project's name: given, from the environment, from the files, from the folder. Sets `COMPOSE_PROJECT_NAME`.
    fn project_name(
        &mut self,
        files: &[(PathBuf, FileId)],
        located: &mut Located,
        options: &Options,
    ) -> Option<String> {
        let given = options
            .project_name
            .clone()
            .filter(|name| !name.is_empty())
            .or_else(|| located.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned());
        let name =
            match given {
                Some(name) => {
                    if name != values::project_name(&name) {
                        self.diagnostics.push(Diagnostic::error(None, format!("`{name}` is not a project name")).hint(
                            "it takes lower-case letters, digits, `-` and `_`, and begins with a letter or digit",
                        ));
                        return None;
                    }
                    name
                }
                None => {
                    let named = self.name_in(files, &located.environment).map(|name| values::project_name(&name));
                    let folder = located.start.file_name().map(|name| name.to_string_lossy().into_owned());
                    named.unwrap_or_else(|| values::project_name(&folder.unwrap_or_default()))
                }
            };
        if name.is_empty() {
            self.diagnostics
                .push(Diagnostic::error(None, "the project has no name").hint("give it one with `-p`, or `name:`"));
            return None;
        }
        located.environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
        Some(name)
    }

    fn name_in(&mut self, files: &[(PathBuf, FileId)], environment: &Environment) -> Option<String> {
        let mut found: Option<Node> = None;
        for (_, id) in files {
            // What is wrong with the file is said when it is its turn.
            let Ok(documents) = yaml::parse(*id, self.sources.text(*id)) else { continue };
            for name in documents.iter().filter_map(|document| document.get("name")) {
                if name.as_text().is_some_and(|name| !name.is_empty()) {
                    found = Some(name.clone());
                }
            }
            self.parsed.insert(*id, documents);
        }
        let mut name = found?;
        if !self.without.interpolation {
            interpolate::interpolate(&mut name, environment, &mut Diagnostics::default());
        }
        name.as_text().map(str::to_owned)
    }

    fn parse(&mut self, id: FileId) -> Option<Vec<Node>> {
        if let Some(documents) = self.parsed.remove(&id) {
            return Some(documents);
        }
        yaml::parse(id, self.sources.text(id)).map_err(|diagnostic| self.diagnostics.push(diagnostic)).ok()
    }

    /// Takes a cost from what a load may cost; nothing when no more is left, which is reported.
    fn spend(&mut self, cost: usize, place: Span) -> Option<()> {
        self.spent += cost;
        if self.spent <= limits::PROJECT_VALUES {
            return Some(());
        }
        if !self.exhausted {
            self.exhausted = true;
            self.diagnostics.push(
                Diagnostic::error(place, format!("the project has more than {} values", limits::PROJECT_VALUES))
                    .hint("each file counts as often as it is included, each service as often as it is extended"),
            );
        }
        None
    }

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
