//! `run --image`: one Wasm image or file without a compose file, as `docker run --runtime … --platform wasi/wasm` did.
//! It has a project and a network of its own; no Docker where it is a file. It lives in this process, and nothing of it
//! stays; or, detached, in a supervisor that goes with it.

use std::process::ExitCode;
use std::sync::Arc;

use super::overlay::{self, Source};
use super::{options, pull, short, slug};
use crate::cli::args::Run;
use crate::cli::errand;
use crate::cli::outcome::{Failure, Outcome};
use crate::cli::resolve::{self, ImageOptions, Step as Work};
use crate::cli::screen::carry_out;
use crate::cli::settings::Settings;
use crate::cli::streams::{attached, converse};
use crate::cli::{detach, load, output};
use crate::engine::Engine as _;
use crate::image::kind::is_path;
use crate::model::{ProjectName, Resolved, ServiceName};
use crate::plan;
use crate::plan::unit::{AtEnd, Work as Unit};
use crate::session::stream::{Errand, pair};
use crate::session::{Command, LogInterest, LogMode, RunRequest, UpRequest};
use crate::supervisor::signals::Signals;

/// Runs it to its end.
pub async fn run(mut settings: Settings, args: Run) -> Outcome {
    let image = args.image.clone().unwrap_or_default();
    let mut signals = Signals::listen()?;
    let path = std::path::Path::new(&image);
    let source = if path.is_file() || is_path(&image) && path.is_dir() {
        Source::File(std::path::absolute(&image)?.display().to_string())
    } else if is_path(&image) || image.ends_with(".wasm") || image.ends_with(".wat") {
        return Err(Failure::new(format!("there is no file `{image}`"), []));
    } else {
        Source::Image(image.clone())
    };
    let name = ServiceName::from("run");
    let slug = slug(&image, &name);
    // Nothing of the folder's own compose files counts.
    settings.load.files = vec!["-".to_owned()];
    settings.load.stdin = Some(overlay::alone(&source, &args)?);
    settings.load.project_name = Some(format!("run-{}", short(&slug)));
    let mut project = load::load_and_warn(&settings.load).await?.project;
    let container = args.name.clone().unwrap_or_else(|| project.name.to_string());
    if args.detach {
        return detached(
            &settings,
            &args,
            &project.name,
            RunRequest {
                up: UpRequest { load: settings.load.clone(), options: options(&args, &name) },
                service: name,
                container,
                slug,
                use_aliases: false,
                start: true,
                remove: args.rm,
            },
            &mut signals,
        )
        .await;
    }
    if let Some(service) = project.services.get_mut(&name) {
        // What is named here is Wasm, whatever its name says.
        service.wasm.get_or_insert_default().egress.extend(args.allow_egress.iter().cloned());
    }
    let paths = settings.paths.project(&project.name);
    paths.make()?;
    let engines = Arc::new(settings.engines(&paths));
    let quiet = args.quiet;
    let progress: resolve::Progress = Arc::new(move |image, status, step| match step {
        Work::Working | Work::Done if !quiet => output::complain(&format!(" {image}  {status}\n")),
        Work::Working | Work::Done | Work::Output | Work::Planned => {}
    });
    let environment = settings.load.environment.clone();
    let options = ImageOptions { no_build: true, pull: pull(args.pull), environment, ..ImageOptions::default() };
    let outcome = async {
        let services: Vec<_> = project.services.values().collect();
        let resolution = resolve::resolve(&project, &services, &engines, &paths.image_folders(), options, &progress)
            .await
            .map_err(Failure::many)?;
        if !resolution.get(&name).is_some_and(Resolved::is_wasm) {
            return Err(Failure::new(format!("`{image}` is no WebAssembly"), ["`docker run` runs it".to_owned()]));
        }
        let one_off = plan::OneOff {
            service: name.clone(),
            container,
            slug,
            use_aliases: false,
            start: false,
            at_end: AtEnd::Kept,
        };
        let observed = engines.observe_project(&project).await?;
        let plan = plan::run(&project, &resolution, &observed, &plan::Options::default(), &one_off);
        for unit in &plan.units {
            if let Unit::Step(step) = &unit.work {
                engines.apply(step).await?;
            }
        }
        let errand = Errand::Start { container: one_off.container, remove: true, streams: attached(args.interactive) };
        let (ends, open) = pair(errand);
        let (outcome, ()) =
            tokio::join!(converse(ends, args.interactive, &mut signals), errand::carry_out(&engines, open));
        outcome
    }
    .await;
    paths.clear();
    outcome
}

/// Leaves it behind with a supervisor of its own; prints its name, and how it is ended.
async fn detached(
    settings: &Settings,
    args: &Run,
    project: &ProjectName,
    request: RunRequest,
    signals: &mut Signals,
) -> Outcome {
    let container = request.container.clone();
    let interest = LogInterest { mode: LogMode::Follow, tail: Some(0), ..LogInterest::default() };
    let session = detach::spawn_supervisor(&settings.paths.project(project), project, interest).await?;
    carry_out(settings, session, Command::Run(Box::new(request)), signals).await?;
    output::out(&container);
    if !args.quiet {
        output::complain(&format!("`wcompose -p {project} logs` shows what it writes, `-p {project} down` ends it\n"));
    }
    Ok(ExitCode::SUCCESS)
}
