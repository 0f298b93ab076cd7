//! What is loaded: the environment, the files and the folder, before any of them is read as compose.
//!
//! Order as in compose: the process's environment always wins, then `.env` or the `--env-file`s; the files come from
//! `-f`, else `COMPOSE_FILE`, else they are looked for here and in the parents; the folder is `--project-directory`,
//! else the first file's.

use std::path::{Path, PathBuf};

use super::files::{self, Kind};
use super::interpolate::Environment;
use super::node::Node;
use super::{Loader, Options, dotenv};
use crate::diag::Diagnostic;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
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
    pub directory: PathBuf,
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
    let disabled = environment.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|value| go_bool(value) == Some(true));

    let given = chosen(&options.files.iter().map(String::as_str).collect::<Vec<_>>(), &options.directory);
    let mut directory = options.project_directory.as_ref().map(|path| files::join(&options.directory, path));
    if !explicit && !disabled {
        let first = directory.clone().unwrap_or_else(|| folder_of(&given, &options.directory));
        env_files = default_env_file(loader, &first);
    }
    read_all(loader, &env_files, &mut environment)?;

    let files = if given.is_empty() { discover(loader, options, directory.as_deref(), &environment)? } else { given };
    let folder = directory.take().unwrap_or_else(|| folder_of(&files, &options.directory));
    if !explicit && !disabled && env_files.first().is_none_or(|file| file.parent() != Some(&folder)) {
        let later = default_env_file(loader, &folder);
        read_all(loader, &later, &mut environment)?;
    }
    let environment_files = if explicit { env_files } else { Vec::new() };
    Some(Located { files, directory: folder, environment, environment_files })
}

fn chosen(files: &[&str], working: &Path) -> Vec<Chosen> {
    let one = |file: &&str| if *file == "-" { Chosen::Stdin } else { Chosen::File(files::join(working, file)) };
    files.iter().map(one).collect()
}

fn folder_of(files: &[Chosen], working: &Path) -> PathBuf {
    files
        .iter()
        .find_map(|file| match file {
            Chosen::File(path) => path.parent().map(Path::to_owned),
            Chosen::Stdin => None,
        })
        .unwrap_or_else(|| working.to_owned())
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

fn discover(
    loader: &mut Loader<'_>,
    options: &Options,
    directory: Option<&Path>,
    environment: &Environment,
) -> Option<Vec<Chosen>> {
    if let Some(list) = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        let separator =
            environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).map_or(":", |text| text);
        return Some(chosen(&list.split(separator).collect::<Vec<_>>(), &options.directory));
    }
    let start = directory.unwrap_or(&options.directory);
    for folder in start.ancestors() {
        let Some(file) = first_of(loader, folder, &NAMES) else { continue };
        let mut files = vec![Chosen::File(file)];
        files.extend(first_of(loader, folder, &OVERRIDES).map(Chosen::File));
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

/// Go's `strconv.ParseBool`.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
