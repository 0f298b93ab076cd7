//! A [`LoadRequest`] → a project; warnings and diagnostics to standard error.

use crate::compose::{self, Disk, LoadError, Loaded, Options};
use crate::diag::render;
use crate::session::LoadRequest;

use super::output;
use super::outcome::Failure;

/// Loads a project. Warnings come with it; nothing is printed.
pub fn load(request: &LoadRequest) -> Result<Loaded, Failure> {
    compose::load(&options(request), &Disk).map_err(|error| Failure::Load(Box::new(error)))
}

/// Loads a project and prints its warnings.
pub fn load_and_warn(request: &LoadRequest) -> Result<Loaded, Failure> {
    let loaded = load(request)?;
    for warning in &loaded.warnings {
        output::complain(&render(warning, &loaded.sources, &request.directory));
    }
    Ok(loaded)
}

/// Prints what is wrong with a project's files.
pub fn complain(error: &LoadError) {
    output::complain(&text(error));
}

/// What is wrong with a project's files, as text for a terminal.
pub fn text(error: &LoadError) -> String {
    error.diagnostics.iter().map(|diagnostic| render(diagnostic, &error.sources, &error.directory)).collect()
}

/// The request in the loader's words.
pub fn options(request: &LoadRequest) -> Options {
    Options {
        directory: request.directory.clone(),
        files: request.files.clone(),
        stdin: request.stdin.clone(),
        project_directory: request.project_directory.clone(),
        project_name: request.project_name.clone(),
        profiles: request.profiles.clone(),
        env_files: request.env_files.clone(),
        environment: request.environment.clone(),
    }
}
