//! `wcompose run`: a one-off in a service's place, or one Wasm image or file without a compose file.
//!
//! What the command line says is written as a compose document of its own and merged over the files, so that it means
//! what it would mean there. A container is run from here; a guest by the project's supervisor, on the project's networks.

mod alone;
mod overlay;

use std::process::ExitCode;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::args::{PullWhen, Run};
use super::container::{self, Manner};
use super::host::{Host, Use};
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::screen::{Screen, carry_out, conclude};
use super::settings::Settings;
use super::streams::{attached, converse};
use super::{detach, load, output, terminal};
use crate::control::{client, stream};
use crate::model::{Project, PullPolicy, ServiceName};
use crate::session::stream::Errand;
use crate::session::{Command, LogInterest, LogMode, Request, RunRequest, UpOptions, UpRequest};
use crate::supervisor::signals::Signals;
use crate::view::console::Lines;
use crate::view::{Followed, follow};

/// Runs `run`.
pub async fn run(mut settings: Settings, args: Run) -> Outcome {
    if args.quiet {
        settings.progress = super::args::Progress::Quiet;
    }
    if args.image.is_some() {
        return alone::run(settings, args).await;
    }
    let Some((service, command)) = args.words.split_first() else {
        return Err(Failure::new(
            "no service was named",
            ["`wcompose run SERVICE [COMMAND]`, or `wcompose run --image FILE.wasm`".to_owned()],
        ));
    };
    if service.starts_with('-') {
        return Err(Failure::new(format!("unknown flag `{service}`"), ["`wcompose run --help` lists them".to_owned()]));
    }
    let service = ServiceName::from(service.as_str());
    let tty = !args.no_tty && !args.detach && terminal::is_both();
    settings.load.enable.push(service.to_string());
    // Once without what the command line says, so that what is wrong in the files is told as such.
    let project = load::load_and_warn(&settings.load).await?.project;
    if !project.services.contains_key(&service) {
        let known: Vec<_> = project.services.keys().map(|name| format!("`{name}`")).collect();
        return Err(Failure::new(
            format!("no such service: `{service}`"),
            [format!("the file declares {}", known.join(", "))],
        ));
    }
    settings.load.overlay = Some(overlay::of_service(&project.services[&service], &args, command, tty)?);
    let project = load::load(&settings.load).await?.project;
    let slug = slug(project.name.as_str(), &service);
    let separator = project.separator;
    let short = short(&slug);
    let container = args
        .name
        .clone()
        .unwrap_or_else(|| format!("{}{separator}{service}{separator}run{separator}{short}", project.name));
    let request = RunRequest {
        up: UpRequest { load: settings.load.clone(), options: options(&args, &service) },
        service,
        container: container.clone(),
        slug,
        use_aliases: args.use_aliases,
        start: args.detach,
        remove: args.rm,
    };
    let paths = settings.paths.project(&project.name);
    let mut signals = Signals::listen()?;
    if settings.dry_run {
        output::print(&format!("create {container} (one-off)\nstart {container} (one-off)\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let runner = prepare(&settings, &project, &paths, request, &mut signals).await?;
    match runner {
        Runner::Engine => {
            let engines = settings.engines(&paths);
            let docker = engines.docker().await?;
            if args.detach {
                let id = docker.container_id(&container).await;
                // It may have ended, and be gone.
                output::out(&if args.rm { id.unwrap_or(container) } else { id? });
                return Ok(ExitCode::SUCCESS);
            }
            let manner = Manner { input: args.interactive, tty, remove: args.rm };
            container::run(docker, &container, manner, &mut signals).await
        }
        Runner::Supervisor(_) if args.detach => {
            output::out(&container);
            Ok(ExitCode::SUCCESS)
        }
        Runner::Supervisor(connection) => {
            let streams = attached(args.interactive);
            let errand = Errand::Start { container, remove: true, streams };
            let ends = stream::open(&paths.socket, errand).await?.ok_or_else(lost)?;
            let outcome = converse(ends, args.interactive, &mut signals).await;
            // Not before: that the errand's connection was made does not say that the supervisor knows of it.
            drop(connection);
            outcome
        }
    }
}

/// Who runs a one-off that was made.
enum Runner {
    /// The Docker engine: it is a container.
    Engine,
    /// The project's supervisor: it is a guest. What was made waits as long as this connection is open.
    Supervisor(mpsc::Sender<Request>),
}

/// Brings the dependencies up and makes the one-off.
async fn prepare(
    settings: &Settings,
    project: &Project,
    paths: &ProjectPaths,
    request: RunRequest,
    signals: &mut Signals,
) -> Result<Runner, Failure> {
    let container = request.container.clone();
    let session = match client::connect(&paths.socket, LogInterest::default()).await? {
        Some(session) => Some(session),
        None => match without_supervisor(settings, project, paths, &request, signals).await? {
            Some(runner) => return Ok(runner),
            None => None,
        },
    };
    let session = match session {
        Some(session) => session,
        None => {
            let interest = LogInterest { mode: LogMode::Follow, tail: Some(0), ..LogInterest::default() };
            detach::spawn_supervisor(paths, &project.name, interest).await?
        }
    };
    let connection = session.commands.clone();
    carry_out(settings, session, Command::Run(Box::new(request)), signals).await?;
    // A guest is the supervisor's, a container the engine's: the engine is asked where it may have it.
    let target = super::target::Target { name: project.name.clone(), project: Some(project.clone()) };
    if target.may_use_engine(paths) {
        let engines = settings.engines(paths);
        let observed = crate::engine::Engine::observe(&**engines.docker().await?, &project.name).await?;
        let made = observed.instances.iter().find(|existing| existing.name == container);
        if made.is_some_and(|existing| existing.kind == crate::plan::observed::ExistingKind::Container) {
            return Ok(Runner::Engine);
        }
    }
    Ok(Runner::Supervisor(connection))
}

/// The same from here, where it is all Linux; nothing where a supervisor is needed.
async fn without_supervisor(
    settings: &Settings,
    project: &Project,
    paths: &ProjectPaths,
    request: &RunRequest,
    signals: &mut Signals,
) -> Result<Option<Runner>, Failure> {
    let sign = |service: &crate::model::Service| crate::image::kind::wasm_sign(service).is_some();
    if project.services.get(&request.service).is_some_and(sign) {
        return Ok(None);
    }
    paths.make()?;
    let host = Host::start(settings, &project.name, paths, None, Use::Once)?;
    let mut session = host.session(LogInterest::default()).await?;
    let mut screen = Screen::new(settings, Lines::Kept);
    let mut console = screen.console(&session)?;
    let road = host.road();
    let work = async {
        let wanted = road.resolve(request.up.clone()).await?;
        if wanted.has_guests() { Ok(None) } else { road.carry_out_run(&wanted, request).await.map(Some) }
    };
    let work = async {
        tokio::select! {
            done = work => done,
            _ = signals.next() => Err(Failure::Interrupted),
        }
    };
    let outcome = match follow(&mut session, &mut console, work).await? {
        Followed::Until(Ok(Some(reply))) => conclude(&mut console, reply).map(|_| Some(Runner::Engine)),
        Followed::Until(Ok(None)) => Ok(None),
        Followed::Until(Err(failure)) => Err(failure),
        Followed::Ended => Err(Failure::new("the supervisor ended", [])),
    };
    drop((session, road));
    host.leave().await;
    outcome
}

fn options(args: &Run, service: &ServiceName) -> UpOptions {
    UpOptions {
        services: vec![service.clone()],
        build: args.build,
        quiet_build: args.quiet_build,
        quiet_pull: args.quiet_pull,
        pull: pull(args.pull),
        no_deps: args.no_deps,
        remove_orphans: args.remove_orphans,
        allow_egress: args.allow_egress.iter().map(|target| (service.to_string(), target.clone())).collect(),
        ..UpOptions::default()
    }
}

/// `--pull`, where it overrides the services' own policies.
fn pull(pull: PullWhen) -> Option<PullPolicy> {
    match pull {
        PullWhen::Policy => None,
        PullWhen::Always => Some(PullPolicy::Always),
        PullWhen::Missing => Some(PullPolicy::Missing),
        PullWhen::Never => Some(PullPolicy::Never),
    }
}

/// What tells a one-off from all others: 64 hex digits.
fn slug(project: &str, service: &ServiceName) -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seed = format!("{project}/{service}/{}/{}.{}", std::process::id(), now.tv_sec, now.tv_nsec);
    format!("{:x}", Sha256::digest(seed))
}

/// As much of it as names carry.
fn short(slug: &str) -> &str {
    slug.get(..12).unwrap_or(slug)
}

fn lost() -> Failure {
    Failure::new("the supervisor was lost before it could run anything", ["try again".to_owned()])
}
