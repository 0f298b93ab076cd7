//! `start`, `stop`, `restart`: wishes about what exists, to the supervisor if one runs, else carried out from here.

use std::time::Duration;

use super::args::Stop;
use super::host::{Host, Use};
use super::known::{self, Stopped};
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::screen::carry_out;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::model::ServiceName;
use crate::plan::{Dependencies, select};
use crate::session::{Command, LogInterest};
use crate::supervisor::signals::Signals;

/// Runs `start`.
pub async fn start(settings: Settings, services: Vec<String>) -> Outcome {
    let target = Target::find(&settings).await?;
    let services = target.services(&services)?;
    order(settings, target, Command::Start { services }).await
}

/// Runs `stop`.
pub async fn stop(settings: Settings, args: Stop) -> Outcome {
    let target = Target::find(&settings).await?;
    let services = target.services(&args.services)?;
    order(settings, target, Command::Stop { services, timeout: args.timeout.map(Duration::from_secs) }).await
}

/// Runs `restart`.
pub async fn restart(settings: Settings, args: Stop) -> Outcome {
    let target = Target::find(&settings).await?;
    let services = target.services(&args.services)?;
    order(settings, target, Command::Restart { services, timeout: args.timeout.map(Duration::from_secs) }).await
}

async fn order(settings: Settings, target: Target, command: Command) -> Outcome {
    let paths = settings.paths.project(&target.name);
    if let Some(session) = client::connect(&paths.socket, LogInterest::default()).await? {
        let known = session.snapshot.instances.keys().map(|name| &name.service);
        target.known_services(services(&command), known)?;
        return carry_out(&settings, session, command, &mut Signals::listen()?).await;
    }
    let host = Host::start(&settings, &target.name, &paths, None, Use::Once)?;
    let known = know(&host, &target, &paths, &command).await;
    let outcome = match known {
        Ok(()) => {
            let session = host.session(LogInterest::default()).await?;
            carry_out(&settings, session, command, &mut Signals::listen()?).await
        }
        Err(failure) => Err(failure),
    };
    host.leave().await;
    outcome
}

/// Makes the containers that exist known to the loop. Guests lived in a supervisor that is gone.
async fn know(host: &Host, target: &Target, paths: &ProjectPaths, command: &Command) -> Result<(), Failure> {
    let road = host.road();
    target.connect(&road, paths).await?;
    let observed = road.observe().await?;
    let labelled;
    let project = match &target.project {
        Some(project) => project,
        None => {
            labelled = known::labelled(&target.name, &observed);
            &labelled
        }
    };
    target.known_services(services(command), project.services.keys())?;
    let (stopped, starts) = match command {
        // What a service depends on is started with it.
        Command::Start { services } if !services.is_empty() => {
            let with = select::services(project, services, Dependencies::Include);
            let names = with.into_iter().map(|service| service.name.clone());
            (Stopped::Known(names.chain(services.iter().cloned()).collect()), true)
        }
        Command::Start { services } | Command::Restart { services, .. } => (Stopped::Known(services.clone()), true),
        Command::Up(_)
        | Command::Run(_)
        | Command::Down(_)
        | Command::Usage
        | Command::Stop { .. }
        | Command::Kill { .. } => (Stopped::Left, false),
    };
    let known = road.know(project, &observed, &stopped).await?;
    if starts && known.lost_guests {
        return Err(Failure::new(
            format!("project `{}` has Wasm services, and its supervisor is gone", target.name),
            ["`up -d` starts them again; what did not change stays as it is".to_owned()],
        ));
    }
    if starts && known.services.is_empty() {
        return Err(Failure::new(
            format!("project `{}` has no containers to start", target.name),
            ["`up -d` makes them".to_owned()],
        ));
    }
    Ok(())
}

/// The services that a command names.
fn services(command: &Command) -> &[ServiceName] {
    match command {
        Command::Start { services }
        | Command::Stop { services, .. }
        | Command::Restart { services, .. }
        | Command::Kill { services, .. } => services,
        Command::Up(_) | Command::Run(_) | Command::Down(_) | Command::Usage => &[],
    }
}
