//! `wcompose up`: in the foreground as the supervisor itself, or detached.

use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::args::{PullWhen, Up};
use super::exits::{Exits, Rule};
use super::host::{Host, Use};
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::prepare::known_services;
use super::resolve::{DryRun, Step};
use super::screen::{Screen, ask, carry_out, conclude};
use super::settings::Settings;
use super::watch::{self, Replaced, Said, Watching};
use super::{detach, load, output, prepare};
use crate::compose::Loaded;
use crate::control::client;
use crate::control::lock::Lock;
use crate::image::kind::wasm_sign;
use crate::model::{Project, PullPolicy, ServiceName};
use crate::plan::select::{self, Dependencies};
use crate::session::{Command, LogInterest, LogMode, Reply, Request, UpOptions, UpRequest};
use crate::supervisor::signals::Signals;
use crate::view::console::Lines;
use crate::view::log::{LogFormat, Names, Times};
use crate::view::{Followed, follow};

/// Runs `up`.
pub async fn up(settings: Settings, args: Up) -> Outcome {
    let loaded = load::load_and_warn(&settings.load).await?;
    let request = UpRequest { load: settings.load.clone(), options: options(&args)? };
    prepare::scaled(loaded.project.clone(), &request)?;
    let paths = settings.paths.project(&loaded.project.name);
    if settings.dry_run {
        dry_run(&settings, &paths, loaded, request).await
    } else if args.detach || args.wait || args.no_start {
        detached(&settings, &loaded.project, Some(&loaded), &paths, request).await
    } else {
        attached(&settings, &args, &loaded, &paths, request).await
    }
}

/// Prints the plan and does nothing.
async fn dry_run(settings: &Settings, paths: &ProjectPaths, loaded: Loaded, request: UpRequest) -> Outcome {
    let engines = settings.engines(paths);
    let planned: super::resolve::Progress = std::sync::Arc::new(|image, work, step| {
        if step == Step::Planned {
            output::print(&format!("{work} {image}\n"));
        }
    });
    let wanted = prepare::resolve(request, loaded, &engines, &paths.image_folders(), &planned, DryRun::Yes).await?;
    output::print(&wanted.plan(&engines).await?.plan.to_string());
    Ok(ExitCode::SUCCESS)
}

/// Starts, and returns once everything reached its state. Guests are left with a supervisor; containers need none.
///
/// `loaded` is what the request loads, from whoever has it.
pub async fn detached(
    settings: &Settings,
    project: &Project,
    loaded: Option<&Loaded>,
    paths: &ProjectPaths,
    request: UpRequest,
) -> Outcome {
    let mut signals = Signals::listen()?;
    let known_guests = has_guests(project);
    if let Some(session) = client::connect(&paths.socket, LogInterest::default()).await? {
        return carry_out(settings, session, Command::Up(Box::new(request)), &mut signals).await;
    }
    if !known_guests {
        let host = Host::start(settings, &project.name, paths, None, Use::Once)?;
        let mut session = host.session(LogInterest::default()).await?;
        let mut screen = Screen::new(settings, Lines::Kept);
        let mut console = screen.console(&session)?;
        let road = host.road();
        if let Some(loaded) = loaded {
            road.preload(&request.load, loaded.clone());
        }
        let work = async {
            let wanted = road.resolve(request.clone()).await?;
            if wanted.has_guests() { Ok(None) } else { road.carry_out(&wanted).await.map(Some) }
        };
        let work = async {
            tokio::select! {
                done = work => done,
                _ = signals.next() => Err(Failure::Interrupted),
            }
        };
        let reply = match follow(&mut session, &mut console, work).await? {
            Followed::Until(reply) => reply?,
            Followed::Ended => return Err(Failure::new("the supervisor ended", [])),
        };
        if let Some(reply) = reply {
            let outcome = conclude(&mut console, reply);
            drop((session, road));
            host.leave().await;
            return outcome;
        }
        drop((session, road));
        host.leave().await;
    }
    // Lines of what fails help to explain it.
    let interest = LogInterest { mode: LogMode::Follow, tail: Some(0), ..LogInterest::default() };
    let session = detach::spawn_supervisor(paths, &project.name, interest).await?;
    carry_out(settings, session, Command::Up(Box::new(request)), &mut signals).await
}

/// Whether the files themselves say that a guest runs any of it.
fn has_guests(project: &Project) -> bool {
    project.services.values().any(|service| wasm_sign(service).is_some())
}

/// Runs in the foreground until everything ended or the user ends it.
async fn attached(
    settings: &Settings,
    args: &Up,
    loaded: &Loaded,
    paths: &ProjectPaths,
    request: UpRequest,
) -> Outcome {
    let mut signals = Signals::listen()?;
    // What changes while everything starts is not missed.
    let mut begun = args.watch.then(|| watch::begin(&loaded.project, &names(&args.services))).transpose()?;
    let mut watching = None;
    // What earlier runs said is for `logs`.
    let shown = shown(args, &loaded.project)?;
    let rule = Rule::of(args, &loaded.project)?;
    let interest = match &shown {
        Some(services) => {
            LogInterest { mode: LogMode::Follow, services: services.clone(), tail: Some(0), ..LogInterest::default() }
        }
        None => LogInterest::default(),
    };
    let guests = has_guests(&loaded.project);
    paths.make()?;
    let (host, mut session) = match Lock::acquire(&paths.lock)? {
        Ok(lock) => {
            let usage = if begun.is_some() { Use::Watching } else { Use::Foreground };
            let host = Host::start(settings, &loaded.project.name, paths, Some(lock), usage)?;
            host.road().preload(&request.load, loaded.clone());
            if guests {
                host.road().engines().wasm().warm();
            }
            let session = host.session(interest).await?;
            (Some(host), session)
        }
        Err(holder) => {
            let session = client::connect(&paths.socket, interest).await?;
            let message = format!("project `{}` has a supervisor ({holder}) that does not answer", loaded.project.name);
            (None, session.ok_or_else(|| Failure::new(message, ["end that process, then try again".to_owned()]))?)
        }
    };
    let format = LogFormat {
        names: if args.no_log_prefix { Names::Hidden } else { Names::Shown },
        times: if args.timestamps { Times::Shown } else { Times::Hidden },
    };
    let lines = shown.map_or(Lines::Kept, |services| Lines::Shown { format, services });
    let mut screen = Screen::new(settings, lines);
    if args.no_color {
        screen.plain_lines();
    }
    let mut console = screen.console(&session)?;
    let mut exits = match (rule, &host) {
        (None, _) => None,
        (Some(rule), Some(host)) => Some(Exits::new(rule, host.session(LogInterest::default()).await?)),
        (Some(rule), None) => {
            client::connect(&paths.socket, LogInterest::default()).await?.map(|session| Exits::new(rule, session))
        }
    };
    let mut ender = Ender { host, commands: session.commands.clone(), asked: 0 };
    let mut answer = Some(ask(&session.commands, Command::Up(Box::new(request.clone()))).await);
    let (mut failed, mut aborting) = (false, false);
    loop {
        let happened = async {
            tokio::select! {
                reply = wait(&mut answer) => Happened::Settled(reply),
                () = exited(&mut exits) => Happened::Exited,
                said = said(&mut watching) => Happened::Watched(said),
                _ = signals.next() => Happened::Signal,
            }
        };
        match follow(&mut session, &mut console, happened).await? {
            // Somebody else's supervisor goes on.
            Followed::Until(Happened::Settled(_)) if aborting && ender.host.is_none() => break,
            Followed::Until(Happened::Settled(reply)) => {
                answer = None;
                // What runs in this process ends with it: after a failure everything is told, then stopped. What was
                // given up because of Ctrl-C is no failure.
                if let Some(reply) = reply.filter(|_| ender.asked == 0)
                    && let Err(failure) = conclude(&mut console, reply)
                {
                    output::failure(&failure);
                    failed = true;
                    ender.end().await;
                } else if let Some(begun) = begun.take() {
                    let commands = session.commands.clone();
                    watching =
                        Some(begun.commanding(settings, &loaded.project, commands, request.clone(), Replaced::Kept));
                }
            }
            Followed::Until(Happened::Watched(Said::Message(text))) => console.tell(&text, jiff::Timestamp::now())?,
            Followed::Until(Happened::Watched(Said::Failed(error))) => {
                output::failure(&watch::failure(&error));
                watching = None;
            }
            Followed::Until(Happened::Exited) => {
                watching = None;
                aborting = true;
                console.say("Aborting on container exit...", jiff::Timestamp::now())?;
                if ender.host.is_some() {
                    ender.end().await;
                } else {
                    let stop = Command::Stop { services: Vec::new(), timeout: args.timeout.map(Duration::from_secs) };
                    answer = Some(ask(&session.commands, stop).await);
                }
            }
            Followed::Until(Happened::Signal) => {
                watching = None;
                if ender.asked == 0 && !failed {
                    console.say("Gracefully Stopping... press Ctrl+C again to force", jiff::Timestamp::now())?;
                }
                if !ender.end().await {
                    return Err(Failure::Interrupted);
                }
            }
            Followed::Ended => break,
        }
    }
    let interrupted = ender.asked > u32::from(aborting) && !failed;
    if let Some(host) = ender.host {
        host.ended().await;
    }
    if failed {
        Err(Failure::Told(1))
    } else if interrupted {
        Err(Failure::Interrupted)
    } else if let Some(code) = exits.and_then(Exits::code) {
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

enum Happened {
    Settled(Option<Reply>),
    Exited,
    Watched(Said),
    Signal,
}

/// Whose output is shown, empty for all; absent when nobody's is.
fn shown(args: &Up, project: &Project) -> Result<Option<Vec<ServiceName>>, Failure> {
    let (only, without) = (names(&args.attach), names(&args.no_attach));
    known_services(project, &only)?;
    known_services(project, &without)?;
    let named = match (only.is_empty(), args.attach_dependencies) {
        (false, _) => only.clone(),
        (true, false) => names(&args.services),
        (true, true) => {
            let named = names(&args.services);
            select::services(project, &named, Dependencies::Include).iter().map(|one| one.name.clone()).collect()
        }
    };
    let is_quiet = |name: &ServiceName| {
        let asks_to_be = project.services.get(name).is_some_and(|service| !service.attach);
        without.contains(name) || (asks_to_be && !only.contains(name))
    };
    if named.is_empty() && !project.services.keys().any(is_quiet) {
        return Ok(Some(Vec::new()));
    }
    let candidates = if named.is_empty() { project.services.keys().cloned().collect() } else { named };
    let shown: Vec<_> = candidates.into_iter().filter(|name| !is_quiet(name)).collect();
    Ok((!shown.is_empty()).then_some(shown))
}

/// Waits for the end that ends all; nothing, as long as none does.
async fn exited(exits: &mut Option<Exits>) {
    match exits {
        Some(exits) => exits.first().await,
        None => std::future::pending().await,
    }
}

/// What watching says; nothing, as long as nobody watches.
async fn said(watching: &mut Option<Watching>) -> Said {
    match watching {
        Some(watching) => watching.said().await,
        None => std::future::pending().await,
    }
}

/// The answer, once; never again afterwards.
async fn wait(answer: &mut Option<oneshot::Receiver<Reply>>) -> Option<Reply> {
    match answer {
        Some(receiver) => receiver.await.ok(),
        None => std::future::pending().await,
    }
}

/// Ends what is attached: first gracefully, then by killing.
struct Ender {
    host: Option<Host>,
    commands: mpsc::Sender<Request>,
    asked: u32,
}

impl Ender {
    /// `false` when there is nothing left to ask for.
    async fn end(&mut self) -> bool {
        self.asked += 1;
        if let Some(host) = &self.host {
            host.signal().await;
            return self.asked < 3;
        }
        let command = match self.asked {
            1 => Command::Stop { services: Vec::new(), timeout: None },
            2 => Command::Kill { services: Vec::new(), signal: "SIGKILL".into() },
            _ => return false,
        };
        // The answer is of no interest: the session shows what becomes of it.
        drop(ask(&self.commands, command).await);
        true
    }
}

/// The options of a command line.
fn options(args: &Up) -> Result<UpOptions, Failure> {
    let scale = args.scale.iter().map(|entry| replicas(entry, "--scale ")).collect::<Result<_, _>>()?;
    let mut allow_egress = Vec::new();
    for entry in &args.allow_egress {
        let (service, target) = entry.split_once('=').ok_or_else(|| {
            Failure::new(
                format!("`--allow-egress {entry}`"),
                ["write SERVICE=TARGET, such as `gateway=api.example.com:443`".to_owned()],
            )
        })?;
        allow_egress.push((service.to_owned(), target.to_owned()));
    }
    Ok(UpOptions {
        services: names(&args.services),
        build: args.build,
        no_build: args.no_build,
        quiet_build: args.quiet_build,
        quiet_pull: args.quiet_pull,
        pull: match args.pull {
            PullWhen::Policy => None,
            PullWhen::Always => Some(PullPolicy::Always),
            PullWhen::Missing => Some(PullPolicy::Missing),
            PullWhen::Never => Some(PullPolicy::Never),
        },
        force_recreate: args.force_recreate,
        no_recreate: args.no_recreate,
        no_deps: args.no_deps,
        no_start: args.no_start,
        remove_orphans: args.remove_orphans,
        timeout: args.timeout,
        scale,
        wait: args.wait,
        wait_timeout: args.wait_timeout,
        reload: false,
        allow_egress,
    })
}

/// `SERVICE=N`; `option` stands before it in an error.
pub fn replicas(entry: &str, option: &str) -> Result<(String, u32), Failure> {
    let parsed = entry.split_once('=').and_then(|(service, count)| Some((service.to_owned(), count.parse().ok()?)));
    let hint = || ["write SERVICE=N, such as `web=3`".to_owned()];
    parsed.ok_or_else(|| Failure::new(format!("`{option}{entry}`"), hint()))
}

fn names(services: &[String]) -> Vec<ServiceName> {
    services.iter().map(|name| ServiceName::from(name.as_str())).collect()
}

/// `up -d` of the whole project, for a view that wants it running.
pub async fn start(settings: &Settings) -> Result<(), Failure> {
    let loaded = load::load_and_warn(&settings.load).await?;
    let request = UpRequest { load: settings.load.clone(), options: UpOptions::default() };
    let paths = settings.paths.project(&loaded.project.name);
    detached(settings, &loaded.project, Some(&loaded), &paths, request).await.map(|_| ())
}
