//! What a command without `up` is about: a loaded project, or only a name (`-p`) whose objects the engine knows.

use std::collections::BTreeSet;

use super::host::Road;
use super::load;
use super::outcome::Failure;
use super::paths::ProjectPaths;
use super::settings::Settings;
use crate::image::kind::wasm_sign;
use crate::model::{Project, ProjectName, ServiceName};

/// A project, as far as it is known.
pub struct Target {
    /// Its name.
    pub name: ProjectName,
    /// Its files, where there are any.
    pub project: Option<Project>,
}

impl Target {
    /// Loads the project; with `-p` and no file, the name is enough.
    pub async fn find(settings: &Settings) -> Result<Self, Failure> {
        match load::load_and_warn(&settings.load).await {
            Ok(loaded) => Ok(Self { name: loaded.project.name.clone(), project: Some(loaded.project) }),
            Err(Failure::Load(error)) if error.is_no_file() && settings.load.files.is_empty() => {
                match &settings.load.project_name {
                    Some(name) => Ok(Self { name: ProjectName::new(name.as_str()), project: None }),
                    None => Err(Failure::Load(error)),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// The services named on the command line; a name that the project does not have is an error.
    pub fn services(&self, names: &[String]) -> Result<Vec<ServiceName>, Failure> {
        let names: Vec<ServiceName> = names.iter().map(|name| ServiceName::from(name.as_str())).collect();
        if let Some(project) = &self.project {
            let unknown = names
                .iter()
                .find(|name| !project.services.contains_key(*name) && !project.disabled.contains_key(*name));
            if let Some(unknown) = unknown {
                let known: Vec<_> = project.services.keys().map(|name| format!("`{name}`")).collect();
                return Err(Failure::new(
                    format!("no such service: `{unknown}`"),
                    [format!("the file declares {}", known.join(", "))],
                ));
            }
        }
        Ok(names)
    }

    /// Without files, what exists tells which services there are; another name is an error as well.
    pub fn known_services<'a>(
        &self,
        names: &[ServiceName],
        existing: impl IntoIterator<Item = &'a ServiceName>,
    ) -> Result<(), Failure> {
        if self.project.is_some() || names.is_empty() {
            return Ok(());
        }
        let existing: BTreeSet<&ServiceName> = existing.into_iter().collect();
        let Some(unknown) = names.iter().find(|name| !existing.contains(name)) else { return Ok(()) };
        let known: Vec<_> = existing.iter().map(|name| format!("`{name}`")).collect();
        let hint = match known.as_slice() {
            [] => format!("project `{}` has no containers", self.name),
            known => format!("project `{}` has containers of {}", self.name, known.join(", ")),
        };
        Err(Failure::new(format!("no such service: `{unknown}`"), [hint]))
    }

    /// Whether the Docker engine may hold anything of it: always, unless every service says by itself that it is Wasm
    /// and no supervisor ever noted an engine in the state folder. Of a name alone, a supervisor that is there tells it.
    pub fn may_use_engine(&self, paths: &ProjectPaths) -> bool {
        let Some(project) = &self.project else { return paths.used_engine() || !paths.socket.exists() };
        let declared = project.services.values().chain(project.disabled.values());
        declared.into_iter().any(|service| wasm_sign(service).is_none())
            || project.networks.values().any(|network| network.external)
            || paths.used_engine()
    }

    /// Connects the engine where it may hold anything of the project.
    pub async fn connect(&self, road: &Road, paths: &ProjectPaths) -> Result<(), Failure> {
        if self.may_use_engine(paths) { road.connect().await } else { Ok(()) }
    }
}
