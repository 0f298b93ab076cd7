//! `run --image`: one Wasm image or file without a compose file, as `docker run --runtime … --platform wasi/wasm` did.
//! It lives in this process, on a network of its own; without Docker where it is a file. Nothing of it stays.

use std::sync::Arc;

use super::overlay::{self, Source};
use super::{pull, slug};
use crate::cli::args::Run;
use crate::cli::errand;
use crate::cli::outcome::{Failure, Outcome};
use crate::cli::resolve::{self, DryRun, ImageOptions, Step as Work};
use crate::cli::settings::Settings;
use crate::cli::streams::{attached, converse};
use crate::cli::{load, output};
use crate::engine::Engine as _;
use crate::image::kind::is_path;
use crate::model::{Resolved, ServiceName};
use crate::plan;
use crate::plan::unit::Work as Unit;
use crate::session::stream::{Errand, pair};
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
    if args.detach {
        return Err(Failure::new(
            "`--image` runs in the foreground: the guest lives in this process",
            ["for one in the background, write it into a compose file and `up -d`".to_owned()],
        ));
    }
    // Nothing of the folder's own compose files counts.
    settings.load.files = vec!["-".to_owned()];
    settings.load.stdin = Some(overlay::alone(&source, &args)?);
    settings.load.project_name = Some(format!("run-{}", std::process::id()));
    let mut project = load::load_and_warn(&settings.load).await?.project;
    let name = ServiceName::from("run");
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
    let options =
        ImageOptions { build: false, no_build: true, pull: pull(args.pull), dry_run: DryRun::No, environment };
    let outcome = async {
        let services: Vec<_> = project.services.values().collect();
        let resolution = resolve::resolve(&project, &services, &engines, &paths.image_folders(), options, &progress)
            .await
            .map_err(Failure::many)?;
        if !resolution.get(&name).is_some_and(Resolved::is_wasm) {
            return Err(Failure::new(format!("`{image}` is no WebAssembly"), ["`docker run` runs it".to_owned()]));
        }
        let slug = slug(&project, &name);
        let one_off = plan::OneOff {
            service: name.clone(),
            container: args.name.clone().unwrap_or_else(|| project.name.to_string()),
            slug,
            use_aliases: false,
            start: false,
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
