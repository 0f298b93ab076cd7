//! What the phases of a load share: the files that were opened, the variables at work, what is wrong so far, and what
//! the load has cost. It decides nothing about compose but where a file is and what the project is called.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;

use super::files::{self, Fetched, Files, RemoteState};
use super::interpolate::{self, Environment};
use super::locate::{Chosen, Located};
use super::merge::Form;
use super::node::Node;
use super::remote::{self, Remote};
use super::{LoadError, Options, Without, limits, resolve, values, yaml};
use crate::diag::{Diagnostic, Diagnostics, FileId, Sources, Span};

/// What the phases share.
pub(super) struct Loader<'f> {
    pub(super) files: &'f dyn Files,
    pub(super) sources: Sources,
    pub(super) diagnostics: Diagnostics,
    pub(super) without: Without,
    pub(super) directory: PathBuf,
    pub(super) home: Option<PathBuf>,
    pub(super) stdin: Option<String>,
    pub(super) opened: IndexMap<PathBuf, FileId>,
    /// Files that were looked into before their turn.
    pub(super) parsed: HashMap<FileId, Vec<Node>>,
    /// Remote files of which nothing is known.
    pub(super) remotes: Vec<Remote>,
    /// The variables at work while a document is read.
    pub(super) environment: Environment,
    /// Every file that is named could be read: a name that is not defined is wrong, not missing with a file.
    pub(super) complete: bool,
    /// Services whose base could not be found.
    pub(super) unextended: BTreeSet<String>,
    /// What was loaded so far costs; see [`limits`].
    pub(super) spent: usize,
    pub(super) exhausted: bool,
    /// Files that services of this model extend, in long form, their paths resolved.
    pub(super) bases: HashMap<FileId, Rc<Node>>,
}

impl<'f> Loader<'f> {
    pub(super) fn new(options: &Options, files: &'f dyn Files) -> Self {
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

    pub(super) fn finish<T, L>(
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
    pub(super) fn form(&self) -> Form {
        if self.without.interpolation { Form::Written } else { Form::Long }
    }

    pub(super) fn home(&self) -> Option<PathBuf> {
        self.home.clone()
    }

    pub(super) fn expand_home(&self, path: &str) -> String {
        resolve::expand_home(path, self.home.as_deref())
    }

    /// A path as messages show it: relative to the working directory when it lies beneath.
    pub(super) fn shown(&self, path: &FilePath) -> PathBuf {
        path.strip_prefix(&self.directory).unwrap_or(path).to_owned()
    }

    /// A compose file by the name it has in the files or on the command line: a path from `directory`, or a remote file.
    /// A remote file that is not there is reported where it is named, or noted when nobody tried to fetch it.
    pub(super) fn named(&mut self, text: &str, directory: &FilePath, place: Option<&Node>) -> Option<Fetched> {
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

    pub(super) fn open(&mut self, path: &FilePath, place: Option<&Node>) -> Option<FileId> {
        self.open_as(path, place, "file")
    }

    /// Reads a file once; what cannot be read is reported where it is named.
    pub(super) fn open_as(&mut self, path: &FilePath, place: Option<&Node>, what: &str) -> Option<FileId> {
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

    pub(super) fn open_all(&mut self, located: &Located) -> Option<Vec<(PathBuf, FileId)>> {
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
    pub(super) fn project_name(
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

    pub(super) fn name_in(&mut self, files: &[(PathBuf, FileId)], environment: &Environment) -> Option<String> {
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

    pub(super) fn parse(&mut self, id: FileId) -> Option<Vec<Node>> {
        if let Some(documents) = self.parsed.remove(&id) {
            return Some(documents);
        }
        yaml::parse(id, self.sources.text(id)).map_err(|diagnostic| self.diagnostics.push(diagnostic)).ok()
    }

    /// Takes a cost from what a load may cost; nothing when no more is left, which is reported.
    pub(super) fn spend(&mut self, cost: usize, place: Span) -> Option<()> {
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
}
