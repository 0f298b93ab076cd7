//! Which instance a command means: a service, and a replica's number; a container, or a guest.

use std::path::PathBuf;
use std::sync::Arc;

use super::outcome::Failure;
use super::screen::ask;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::engine::docker::Docker;
use crate::event::{InstanceState, Kind};
use crate::model::{InstanceName, ServiceName};
use crate::plan;
use crate::plan::observed::{Existing, ExistingKind, RunState};
use crate::session::{Command, LogInterest, Reply};

/// An instance.
pub enum Chosen {
    /// A container.
    Container {
        /// Its engine.
        docker: Arc<Docker>,
        /// Its name.
        name: String,
    },
    /// A guest.
    Guest {
        /// Where its supervisor listens.
        socket: PathBuf,
        /// Which.
        instance: InstanceName,
    },
}

/// Whether one-offs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneOffs {
    /// They do not.
    Left,
    /// They do.
    Taken,
}

/// The running replica of that number, or of the lowest.
pub async fn running(
    settings: &Settings,
    target: &Target,
    service: &ServiceName,
    index: Option<u32>,
) -> Result<Chosen, Failure> {
    let runs = |existing: &Existing| matches!(existing.state, RunState::Running | RunState::Paused);
    let mut all = instances(settings, target, service, index, OneOffs::Left, runs).await?;
    if all.is_empty() {
        return Err(match index {
            Some(index) => Failure::new(format!("service `{service}` has no running instance {index}"), []),
            None => not_running(service),
        });
    }
    Ok(all.remove(0))
}

/// All that are meant, the lowest number first.
pub async fn instances(
    settings: &Settings,
    target: &Target,
    service: &ServiceName,
    index: Option<u32>,
    one_offs: OneOffs,
    wanted: impl Fn(&Existing) -> bool,
) -> Result<Vec<Chosen>, Failure> {
    let paths = settings.paths.project(&target.name);
    let session = client::connect(&paths.socket, LogInterest::default()).await?;
    let mut found: Vec<(u32, Chosen)> = Vec::new();
    for view in session.iter().flat_map(|session| session.snapshot.instances.values()) {
        let runs = matches!(view.state, InstanceState::Running | InstanceState::Paused | InstanceState::Stopping);
        if view.kind == Kind::Wasm && view.name.service == *service && runs {
            let chosen = Chosen::Guest { socket: paths.socket.clone(), instance: view.name.clone() };
            found.push((view.name.number, chosen));
        }
    }
    if let (Some(session), OneOffs::Taken) = (&session, one_offs) {
        // Those that somebody is attached to are their supervisor's alone, not its loop's.
        let running = match ask(&session.commands, Command::Usage).await.await {
            Ok(Reply::Usage(running)) => running,
            Ok(Reply::Settled { .. } | Reply::Refused(_)) | Err(_) => Vec::new(),
        };
        let guests = running.into_iter().filter(|one| one.guest.is_some());
        let meant = guests.filter(|one| plan::is_one_off_of(&one.instance, service));
        found.extend(
            meant.map(|one| (u32::MAX, Chosen::Guest { socket: paths.socket.clone(), instance: one.instance })),
        );
    }
    if target.may_use_engine(&paths) {
        let engines = settings.engines(&paths);
        let docker = engines.docker().await?.clone();
        let observed = crate::engine::Engine::observe(&*docker, &target.name).await?;
        let meant = observed.instances.into_iter().filter(|existing| {
            existing.kind == ExistingKind::Container
                && existing.service.as_ref() == Some(service)
                && (one_offs == OneOffs::Taken || !existing.one_off)
                && wanted(existing)
        });
        found.extend(meant.map(|existing| {
            let number = existing.number.unwrap_or(u32::MAX);
            (number, Chosen::Container { docker: docker.clone(), name: existing.name })
        }));
    }
    found.retain(|(number, _)| index.is_none_or(|index| index == *number));
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, chosen)| chosen).collect())
}

/// A service that a command needs running, and that is not.
pub fn not_running(service: &ServiceName) -> Failure {
    Failure::new(format!("service \"{service}\" is not running"), [format!("`up -d {service}` starts it")])
}
