//! A [`LoadRequest`] → a project; warnings and diagnostics to standard error.

use super::outcome::Failure;
use super::output;
use super::remote::Remotes;
use crate::compose::{self, LoadError, Loaded, Options};
use crate::diag::{self, Colour, Diagnostic, Sources};
use crate::session::LoadRequest;

/// How often remote files may lead to others.
const ROUNDS: usize = 10;

/// Loads a project. Warnings come with it; nothing is printed.
pub async fn load(request: &LoadRequest) -> Result<Loaded, Failure> {
    let options = options(request);
    fetching(request, Remotes::default(), |files| compose::load(&options, files)).await
}

/// Loads a project and prints its warnings.
pub async fn load_and_warn(request: &LoadRequest) -> Result<Loaded, Failure> {
    let loaded = load(request).await?;
    warn(&loaded.warnings, &loaded.sources);
    Ok(loaded)
}

/// Loads with the remote files that are asked for, outside of a runtime: one is made only where there are any.
pub fn with_remotes<T>(
    request: &LoadRequest,
    attempt: impl Fn(&Remotes) -> Result<T, LoadError>,
) -> Result<T, Failure> {
    let remotes = Remotes::default();
    match attempt(&remotes) {
        Err(error) if !error.remotes.is_empty() => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(fetching(request, remotes, attempt))
        }
        done => done.map_err(|error| Failure::Load(Box::new(error))),
    }
}

/// Loads, fetches what the loader asks for, and loads again: what was fetched can name other remote files.
async fn fetching<T>(
    request: &LoadRequest,
    mut remotes: Remotes,
    attempt: impl Fn(&Remotes) -> Result<T, LoadError>,
) -> Result<T, Failure> {
    for _ in 0..=ROUNDS {
        match attempt(&remotes) {
            Err(error) if !error.remotes.is_empty() => remotes.fetch(error.remotes, &request.environment).await?,
            done => return done.map_err(|error| Failure::Load(Box::new(error))),
        }
    }
    let names: Vec<_> = remotes.asked().map(|remote| format!("`{remote}`")).collect();
    Err(Failure::new(
        format!("remote compose files lead to others more than {ROUNDS} times: {}", names.join(", ")),
        ["take the one out that leads to ever new ones".to_owned()],
    ))
}

/// Prints warnings.
pub fn warn(warnings: &[Diagnostic], sources: &Sources) {
    output::complain(&diag::render(warnings, sources, Colour::Always));
}

/// What is wrong with a project's files, as text for a terminal; colours are taken out where none are wanted.
pub fn text(error: &LoadError) -> String {
    diag::render(&error.diagnostics, &error.sources, Colour::Always)
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
        compatibility: request.compatibility,
        all_resources: request.all_resources,
        enable: request.enable.clone(),
        overlay: request.overlay.clone(),
        environment: request.environment.clone(),
        ..Options::default()
    }
}
