//! `wcompose scale`: other numbers of replicas, as `up -d` of those services makes them.

use std::collections::BTreeMap;

use super::args::Scale;
use super::outcome::Outcome;
use super::settings::Settings;
use super::{load, prepare, up};
use crate::model::ServiceName;
use crate::session::{UpOptions, UpRequest};

/// Runs `scale`.
pub async fn scale(settings: Settings, args: Scale) -> Outcome {
    let scale = args.replicas.iter().map(|entry| up::replicas(entry, "")).collect::<Result<BTreeMap<_, _>, _>>()?;
    let loaded = load::load_and_warn(&settings.load).await?;
    let services = scale.keys().map(|name| ServiceName::from(name.as_str())).collect();
    let options = UpOptions { services, scale, no_deps: args.no_deps, ..UpOptions::default() };
    let request = UpRequest { load: settings.load.clone(), options };
    prepare::scaled(loaded.project.clone(), &request)?;
    let paths = settings.paths.project(&loaded.project.name);
    up::detached(&settings, &loaded.project, Some(&loaded), &paths, request).await
}
