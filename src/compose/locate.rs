//! What is loaded: the environment, the files and the folder, before any of them is read as compose.
//!
//! Order as in compose: the process's environment always wins, then `.env` or the `--env-file`s; the files come from
//! `-f`, else `COMPOSE_FILE`, else they are looked for here and in the parents; the folder is `--project-directory`,
//! else the first file's. A remote file gives the project its folder, but neither its name nor its `.env`: those are
//! looked for where the command runs.

use std::path::{Path, PathBuf};

use super::files::{self, Kind};
use super::interpolate::Environment;
use super::node::Node;
use super::{Loader, Options, dotenv, remote};
use crate::diag::Diagnostic;

/// What a compose file is called, the first found first.
pub const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// A compose file that was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    /// A file, by its absolute path.
    File(PathBuf),
    /// `-`.
    Stdin,
}

/// What is loaded.
#[derive(Debug)]
pub(super) struct Located {
    pub files: Vec<Chosen>,
    /// What relative paths are relative to.
    pub directory: PathBuf,
    /// The folder that gives the project its name where nothing else does.
    pub start: PathBuf,
    pub environment: Environment,
    pub environment_files: Vec<PathBuf>,
}

/// Finds out what is loaded.
pub(super) fn locate(loader: &mut Loader<'_>, options: &Options) -> Option<Located> {
    let mut environment = options.environment.clone();
    let working = options.directory.display().to_string();
    environment.entry("PWD".into()).or_insert(working);

    let mut env_files: Vec<PathBuf> =
        options.env_files.iter().map(|file| files::join(&options.directory, file)).collect();
    if env_files.is_empty()
        && let Some(list) = environment.get("COMPOSE_ENV_FILES").filter(|list| !list.is_empty())
    {
        env_files =
            list.split(',').filter(|file| !file.is_empty()).map(|file| files::join(&options.directory, file)).collect();
    }
    let explicit = !env_files.is_empty();
    let disabled = match environment.get("COMPOSE_DISABLE_ENV_FILE").map(|value| (value, go_bool(value))) {
        None => false,
        Some((_, Some(disabled))) => disabled,
        Some((value, None)) => {
            let message = format!("`COMPOSE_DISABLE_ENV_FILE` is `{value}`, which is neither true nor false");
            loader.diagnostics.push(Diagnostic::error(None, message).hint("set it to `1` or `0`, or unset it"));
            return None;
        }
    };

    let mut directory = options.project_directory.as_ref().map(|path| files::join(&options.directory, path));
    if !explicit && !disabled {
        let first = directory.clone().unwrap_or_else(|| folder_of(&options.files, &options.directory));
        env_files = default_env_file(loader, &first);
    }
    read_all(loader, &env_files, &mut environment)?;

    if options.files.is_empty() && environment.get("COMPOSE_FILE").is_some_and(String::is_empty) {
        let diagnostic = Diagnostic::error(None, "`COMPOSE_FILE` is set, but names no file");
        loader.diagnostics.push(diagnostic.hint("unset it, or name the compose files"));
        return None;
    }
    let names = if options.files.is_empty() { listed(&environment) } else { options.files.clone() };
    let (files, first, remote) = if names.is_empty() {
        let files = discover(loader, options, directory.as_deref())?;
        let first = files.first().and_then(|file| file.parent()).unwrap_or(&options.directory).to_owned();
        (files.into_iter().map(Chosen::File).collect(), first, None)
    } else {
        let (files, remote) = chosen(loader, &names, &options.directory)?;
        (files, folder_of(&names, &options.directory), remote)
    };
    let start = directory.take().unwrap_or(first);
    if !explicit && !disabled && env_files.first().is_none_or(|file| file.parent() != Some(&start)) {
        let later = default_env_file(loader, &start);
        read_all(loader, &later, &mut environment)?;
    }
    let environment_files = if explicit { env_files } else { Vec::new() };
    let directory = remote.unwrap_or_else(|| start.clone());
    Some(Located { files, directory, start, environment, environment_files })
}

/// The files by their names, and the folder of the first remote one, which as in compose comes even before
/// `--project-directory`.
fn chosen(loader: &mut Loader<'_>, names: &[String], working: &Path) -> Option<(Vec<Chosen>, Option<PathBuf>)> {
    let (mut files, mut folder) = (Vec::new(), None);
    for name in names {
        if name == "-" {
            files.push(Chosen::Stdin);
            continue;
        }
        if is_path(name) {
            files.push(Chosen::File(files::join(working, name)));
        } else if let Some(fetched) = loader.named(name, working, None) {
            folder = folder.or_else(|| fetched.file.parent().map(Path::to_owned));
            files.push(Chosen::File(fetched.file));
        }
    }
    (files.len() == names.len()).then_some((files, folder))
}

/// The folder of the first file that is one; a remote one stands for the working directory.
fn folder_of(names: &[String], working: &Path) -> PathBuf {
    let first = names.iter().find(|name| *name != "-").filter(|name| is_path(name));
    first.and_then(|name| files::join(working, name).parent().map(Path::to_owned)).unwrap_or_else(|| working.to_owned())
}

fn is_path(name: &str) -> bool {
    matches!(remote::parse(name), Ok(None))
}

fn default_env_file(loader: &Loader<'_>, folder: &Path) -> Vec<PathBuf> {
    let path = folder.join(".env");
    if loader.files.kind(&path) == Some(Kind::File) { vec![path] } else { Vec::new() }
}

fn read_all(loader: &mut Loader<'_>, files: &[PathBuf], environment: &mut Environment) -> Option<()> {
    let mut variables = Environment::new();
    for file in files {
        read_env_file(loader, file, None, environment, &mut variables)?;
    }
    for (name, value) in variables {
        environment.entry(name).or_insert(value);
    }
    Some(())
}

/// Reads a `.env` file; names in it see the environment first, then what was read before.
pub(super) fn read_env_file(
    loader: &mut Loader<'_>,
    path: &Path,
    place: Option<&Node>,
    environment: &Environment,
    variables: &mut Environment,
) -> Option<()> {
    let id = loader.open_as(path, place, "environment file")?;
    let known = variables.clone();
    let lookup = |name: &str| environment.get(name).or_else(|| known.get(name)).cloned();
    match dotenv::parse(id, loader.sources.text(id), &lookup) {
        Ok(read) => {
            variables.extend(read);
            Some(())
        }
        Err(diagnostic) => {
            loader.diagnostics.push(diagnostic);
            None
        }
    }
}

/// The names in `COMPOSE_FILE`. A remote file holds the usual separator, so with that one it stands alone; compose takes
/// none there.
fn listed(environment: &Environment) -> Vec<String> {
    let text = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let Some(list) = text("COMPOSE_FILE") else { return Vec::new() };
    let separator = text("COMPOSE_PATH_SEPARATOR").map_or(":", |text| text);
    if separator == ":" && !is_path(list) {
        return vec![list.clone()];
    }
    list.split(separator).map(str::to_owned).collect()
}

fn discover(loader: &mut Loader<'_>, options: &Options, directory: Option<&Path>) -> Option<Vec<PathBuf>> {
    let start = directory.unwrap_or(&options.directory);
    for folder in start.ancestors() {
        let Some(file) = first_of(loader, folder, &NAMES) else { continue };
        let mut files = vec![file];
        files.extend(first_of(loader, folder, &OVERRIDES));
        return Some(files);
    }
    loader.diagnostics.push(
        Diagnostic::error(None, format!("no compose file in `{}` or above", start.display()))
            .hint(format!("looked for {}; name another with `-f`", NAMES.join(", "))),
    );
    None
}

fn first_of(loader: &mut Loader<'_>, folder: &Path, names: &[&str]) -> Option<PathBuf> {
    let found: Vec<_> =
        names.iter().map(|name| folder.join(name)).filter(|path| loader.files.kind(path).is_some()).collect();
    let first = found.first()?.clone();
    if found.len() > 1 {
        let shown: Vec<_> = found.iter().map(|path| format!("`{}`", loader.shown(path).display())).collect();
        loader.diagnostics.push(Diagnostic::warning(
            None,
            format!("there are several compose files, {}; the first is used", shown.join(", ")),
        ));
    }
    Some(first)
}

/// Whether a variable of compose's switches something on.
pub(super) fn is_yes(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    text == "y" || go_bool(&text) == Some(true)
}

/// Go's `strconv.ParseBool`.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
