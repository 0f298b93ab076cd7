//! `start`, `stop`, `restart`: wishes about what exists, to the supervisor if one runs, else carried out from here.

use std::time::Duration;

use super::args::Stop;
use super::host::{Host, Use};
use super::known::Stopped;
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::screen::carry_out;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
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
    let project = target.project.as_ref().ok_or_else(|| {
        Failure::new(format!("project `{}`: no compose file", target.name), ["name it with `-f`".to_owned()])
    })?;
    let stopped = match command {
        Command::Start { services } | Command::Restart { services, .. } => Stopped::Started(services.clone()),
        Command::Up(_)
        | Command::Run(_)
        | Command::Down(_)
        | Command::Usage
        | Command::Stop { .. }
        | Command::Kill { .. } => Stopped::Left,
    };
    let known = road.know(project, &stopped).await?;
    let starts = stopped != Stopped::Left;
    if starts && known.lost_guests {
        return Err(Failure::new(
            format!("project `{}` has Wasm services, and its supervisor is gone", target.name),
            ["`up -d` starts them again; what did not change stays as it is".to_owned()],
        ));
    }
    if starts && known.instances == 0 {
        return Err(Failure::new(
            format!("project `{}` has no containers to start", target.name),
            ["`up -d` makes them".to_owned()],
        ));
    }
    Ok(())
}
