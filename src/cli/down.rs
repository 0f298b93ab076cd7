//! `wcompose down`: through the supervisor if one runs, else by ourselves.

use std::process::ExitCode;

use super::args::Down;
use super::host::{Host, Use};
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::screen::{Screen, ask, conclude};
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::control::lock::Lock;
use crate::session::{Command, DownRequest, LogInterest, Reply, Session};
use crate::supervisor::signals::Signals;
use crate::view::console::Lines;
use crate::view::{Followed, follow};

/// Runs `down`.
pub async fn down(settings: Settings, args: Down) -> Outcome {
    let target = Target::find(&settings).await?;
    let paths = settings.paths.project(&target.name);
    let request = DownRequest {
        load: target.project.is_some().then(|| Box::new(settings.load.clone())),
        volumes: args.volumes,
        remove_orphans: args.remove_orphans,
        timeout: args.timeout,
        services: target.services(&args.services)?,
    };
    if settings.dry_run {
        let host = Host::start(&settings, &target.name, &paths, None, Use::Once)?;
        target.connect(&host.road(), &paths).await?;
        super::output::print(&host.road().plan_down(&request, target.project.as_ref()).await?.to_string());
        host.leave().await;
        return Ok(ExitCode::SUCCESS);
    }
    let everything = request.services.is_empty();
    let outcome = match client::connect(&paths.socket, LogInterest::default()).await? {
        Some(session) => remote(&settings, session, &paths, request).await,
        None => local(&settings, &target, &paths, request).await,
    };
    if outcome.is_ok() && everything {
        paths.clear();
    }
    outcome
}

async fn remote(settings: &Settings, mut session: Session, paths: &ProjectPaths, request: DownRequest) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut screen = Screen::new(settings, Lines::Kept);
    let mut console = screen.console(&session)?;
    let everything = request.services.is_empty();
    let answer = ask(&session.commands, Command::Down(request)).await;
    let work = async {
        tokio::select! {
            reply = answer => reply.map_err(|_| Failure::new("the supervisor gave up: another command took over", [])),
            _ = signals.next() => Err(Failure::Interrupted),
        }
    };
    let outcome = match follow(&mut session, &mut console, work).await? {
        Followed::Until(reply) => conclude(&mut console, reply?),
        // It ended, and with it the last word.
        Followed::Ended => conclude(&mut console, Reply::Settled { failures: Vec::new() }),
    };
    if everything {
        wait_for_end(paths).await?;
    }
    outcome
}

/// Waits until the supervisor let go of its lock: what comes next may start another.
async fn wait_for_end(paths: &ProjectPaths) -> Result<(), Failure> {
    let patience = std::time::Duration::from_secs(10);
    let path = paths.lock.clone();
    let released = tokio::task::spawn_blocking(move || Lock::wait(&path));
    match tokio::time::timeout(patience, released).await {
        Ok(joined) => Ok(joined.map_err(anyhow::Error::from)??),
        Err(_) => Err(Failure::new(
            "the supervisor took everything down and did not end",
            ["end its process by hand".to_owned()],
        )),
    }
}

/// Without a supervisor: what the engine has is taken down from here.
async fn local(settings: &Settings, target: &Target, paths: &ProjectPaths, request: DownRequest) -> Outcome {
    paths.make()?;
    let lock = Lock::acquire(&paths.lock)?.map_err(|holder| {
        Failure::new(
            format!("project `{}` has a supervisor ({holder}) that does not answer", target.name),
            ["end that process, then try again".to_owned()],
        )
    })?;
    let mut signals = Signals::listen()?;
    let host = Host::start(settings, &target.name, paths, Some(lock), Use::Once)?;
    let road = host.road();
    target.connect(&road, paths).await?;
    let mut session = host.session(LogInterest::default()).await?;
    let mut screen = Screen::new(settings, Lines::Kept);
    let mut console = screen.console(&session)?;
    let work = async {
        tokio::select! {
            reply = road.take_down(&request, target.project.as_ref()) => reply,
            _ = signals.next() => Err(Failure::Interrupted),
        }
    };
    let outcome = match follow(&mut session, &mut console, work).await? {
        Followed::Until(reply) => conclude(&mut console, reply?),
        Followed::Ended => Ok(ExitCode::SUCCESS),
    };
    drop((session, road));
    host.leave().await;
    outcome
}
