//! A [`LoadRequest`] → a project; warnings and diagnostics to standard error.

use super::outcome::Failure;
use super::output;
use crate::compose::{self, Disk, LoadError, Loaded, Options};
use crate::diag::{self, Colour, Diagnostic, Sources};
use crate::session::LoadRequest;

/// Loads a project. Warnings come with it; nothing is printed.
pub fn load(request: &LoadRequest) -> Result<Loaded, Failure> {
    compose::load(&options(request), &Disk).map_err(|error| Failure::Load(Box::new(error)))
}

/// Loads a project and prints its warnings.
pub fn load_and_warn(request: &LoadRequest) -> Result<Loaded, Failure> {
    let loaded = load(request)?;
    warn(&loaded.warnings, &loaded.sources);
    Ok(loaded)
}

/// Prints warnings.
pub fn warn(warnings: &[Diagnostic], sources: &Sources) {
    output::complain(&diag::render(warnings, sources, Colour::Always));
}

/// What is wrong with a project's files, as text for a terminal; colours are taken out where none are wanted.
pub fn text(error: &LoadError) -> String {
    let unknown = error.remotes.iter().map(|remote| {
        Diagnostic::error(None, format!("the remote compose file `{remote}` was not fetched")).hint("fetch it yourself")
    });
    let diagnostics: Vec<_> = unknown.chain(error.diagnostics.iter().cloned()).collect();
    diag::render(&diagnostics, &error.sources, Colour::Always)
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
        ..Options::default()
    }
}
