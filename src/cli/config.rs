//! `wcompose config`: the project as it is understood, or a list of what is in it.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use super::args::Config;
use super::outcome::{Failure, Outcome};
use super::output;
use super::settings::Settings;
use super::{digests, load};
use crate::compose::print::{self, Dollars, Format, List};
use crate::compose::{self, Options, Without};
use crate::diag::{self, Diagnostic, Sources};
use crate::model::{Project, ServiceName};
use crate::plan::digest;

/// Runs `config`.
pub fn config(settings: &Settings, args: &Config) -> Outcome {
    let format = match args.format.as_deref() {
        None | Some("yaml") => Format::Yaml,
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Failure::new(format!("unknown format `{other}`"), ["use `yaml` or `json`".to_owned()]));
        }
    };
    let options = Options {
        without: Without {
            interpolation: args.no_interpolate,
            // As in compose, `--compatibility` is for the names of docker-compose 1, which knew no normalised model.
            normalization: args.no_normalize || settings.load.compatibility,
            paths: args.no_path_resolution,
            consistency: args.no_consistency,
            environment_files: args.list().is_some() || args.hash().is_some(),
        },
        // As in compose, the other lists are those of the whole project.
        enable: match (args.list(), args.hash()) {
            (None, None) | (Some(List::Profiles | List::Images), _) => args.services.clone(),
            _ => Vec::new(),
        },
        ..load::options(&settings.load)
    };
    let text = text(settings, args, format, &options)?;
    if args.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    match &args.output {
        Some(path) => std::fs::write(path, text).with_context(|| format!("write `{}`", path.display()))?,
        None => output::print(&text),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(settings: &Settings, args: &Config, format: Format, options: &Options) -> Result<String, Failure> {
    let list = args.list();
    let named = args.service_names && args.no_interpolate;
    if named || list.is_none() && (args.variables || args.no_interpolate && !args.environment) {
        let model = load::with_remotes(&settings.load, |files| compose::model(options, files));
        let model = model.map_err(|failure| failed(failure, format))?;
        warn(&model.warnings, &model.sources, format);
        let services = model.document.get("services").and_then(|services| services.as_object());
        return Ok(match args {
            _ if named => lines(&services.into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>()),
            Config { variables: true, format: None, .. } => print::variables(&model.references),
            Config { variables: true, .. } => print::references(&model.references, format),
            _ => print::document(pinned(model.document, args)?, format, Dollars::Keep),
        });
    }
    let loaded = load::with_remotes(&settings.load, |files| compose::load(options, files));
    let mut loaded = loaded.map_err(|failure| failed(failure, format))?;
    warn(&loaded.warnings, &loaded.sources, format);
    if let (Some(wanted), None | Some(List::Profiles | List::Images)) = (args.hash(), list) {
        return hashes(&loaded.project, wanted);
    }
    let document = print::select(&mut loaded.project, &options.enable)
        .map_err(|name| Failure::new(format!("no such service: `{name}`"), []))?;
    let text = match list {
        Some(list) => lines(&print::list(&loaded.project, &document, list)),
        None if args.environment => lines(&print::environment(&loaded.environment)),
        None => print::document(pinned(document, args)?, format, Dollars::Escape),
    };
    // The process is about to end; taking a large project apart would be a tenth of its time.
    std::mem::forget(loaded);
    Ok(text)
}

/// The document with its images by digest, where that is asked for.
fn pinned(mut document: Value, args: &Config) -> Result<Value, Failure> {
    if args.resolve_image_digests || args.lock_image_digests {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(digests::pin(&mut document))?;
    }
    Ok(if args.lock_image_digests { digests::lock(document) } else { document })
}

/// What is wrong in the files, as text or, where JSON is asked for, as data; on standard error either way.
fn failed(failure: Failure, format: Format) -> Failure {
    match (failure, format) {
        (Failure::Load(error), Format::Json) => {
            output::complain(&diag::json(&error.diagnostics, &error.sources));
            Failure::Told(1)
        }
        (failure, _) => failure,
    }
}

fn warn(warnings: &[Diagnostic], sources: &Sources, format: Format) {
    match format {
        Format::Yaml => load::warn(warnings, sources),
        Format::Json if warnings.is_empty() => {}
        Format::Json => output::complain(&diag::json(warnings, sources)),
    }
}

/// `SERVICE HASH` a line, sorted by name.
fn hashes(project: &Project, wanted: &str) -> Result<String, Failure> {
    let mut names: Vec<&str> = match wanted {
        "*" => project.services.keys().map(ServiceName::as_str).collect(),
        list => list.split(',').map(str::trim).collect(),
    };
    names.sort_unstable();
    let line = |name: &&str| match project.services.get(*name) {
        Some(service) => Ok(format!("{name} {}", digest::service_hash(&service.document))),
        None => Err(Failure::new(format!("no such service: `{name}`"), [])),
    };
    Ok(lines(&names.iter().map(line).collect::<Result<Vec<_>, _>>()?))
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
