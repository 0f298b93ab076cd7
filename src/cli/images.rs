//! `images`: what the instances of a project were made from, of both kinds.

use std::io;
use std::process::ExitCode;

use jiff::Timestamp;

use super::args::Images;
use super::outcome::{Failure, Outcome};
use super::paths::ProjectPaths;
use super::settings::Settings;
use super::target::Target;
use crate::control::client;
use crate::engine::Engine as _;
use crate::engine::docker::Docker;
use crate::event::{Kind, Snapshot};
use crate::image::store::Store;
use crate::model::ServiceName;
use crate::plan::label::WASM_MODULE;
use crate::plan::observed::Existing;
use crate::session::LogInterest;
use crate::view::image::{self, Format, Row};
use crate::view::row::Clock;

/// Runs `images`.
pub async fn images(settings: Settings, args: Images) -> Outcome {
    let format = match (args.quiet, args.format.as_str()) {
        (true, _) => Format::Ids,
        (false, "table") => Format::Table,
        (false, "json") => Format::Json,
        (false, other) => {
            return Err(Failure::new(format!("unknown format `{other}`"), ["use `table` or `json`".to_owned()]));
        }
    };
    let target = Target::find(&settings).await?;
    let services = target.services(&args.services)?;
    let paths = settings.paths.project(&target.name);
    let session = client::connect(&paths.socket, LogInterest::default()).await?;
    let snapshot = session.map(|session| session.snapshot);
    let wanted = |service: Option<&ServiceName>| {
        services.is_empty() || service.is_some_and(|service| services.contains(service))
    };
    let mut rows = Vec::new();
    if target.may_use_engine(&paths) {
        let engines = settings.engines(&paths);
        let docker = engines.docker().await?;
        let observed = docker.observe(&target.name).await?;
        for existing in observed.instances.iter().filter(|existing| wanted(existing.service.as_ref())) {
            rows.push(of_existing(docker, existing, snapshot.as_ref(), &paths).await?);
        }
    }
    for view in snapshot.iter().flat_map(|snapshot| snapshot.instances.values()) {
        if view.kind == Kind::Wasm
            && wanted(Some(&view.name.service))
            && !rows.iter().any(|row: &Row| row.container == view.container)
        {
            rows.push(guest(
                &view.container,
                &view.image,
                view.module.as_ref().map(|module| module.digest.as_str()),
                snapshot.as_ref(),
                &paths,
            ));
        }
    }
    rows.sort_by(|a, b| a.container.cmp(&b.container));
    let clock = Clock { now: Timestamp::now(), zone: jiff::tz::TimeZone::system() };
    image::print(&rows, format, &clock, &mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

async fn of_existing(
    docker: &Docker,
    existing: &Existing,
    snapshot: Option<&Snapshot>,
    paths: &ProjectPaths,
) -> Result<Row, Failure> {
    if let Some(reference) = existing.labels.get(WASM_MODULE) {
        let digest = existing.image_id.as_deref().map(|id| id.trim_start_matches("sha256:"));
        return Ok(guest(&existing.name, reference, digest, snapshot, paths));
    }
    let id = existing.image_id.clone().unwrap_or_default();
    let found = docker.image_facts(if id.is_empty() { &existing.image } else { &id }).await?;
    let (repository, tag) = image::split(&existing.image);
    Ok(match found {
        Some(found) => Row {
            container: existing.name.clone(),
            repository,
            tag,
            platform: found.platform,
            id: found.id,
            size: found.size,
            tagged: found.tagged.as_deref().and_then(|time| time.parse().ok()),
        },
        None => Row {
            container: existing.name.clone(),
            repository,
            tag,
            platform: String::new(),
            id,
            size: 0,
            tagged: None,
        },
    })
}

/// What a guest was made from: as its supervisor says, else as far as the store knows.
fn guest(
    container: &str,
    reference: &str,
    digest: Option<&str>,
    snapshot: Option<&Snapshot>,
    paths: &ProjectPaths,
) -> Row {
    let mut views = snapshot.into_iter().flat_map(|snapshot| snapshot.instances.values());
    let module = views.find(|view| view.container == container).and_then(|view| view.module.clone());
    let digest = module.as_ref().map(|module| module.digest.clone()).or_else(|| digest.map(str::to_owned));
    let kept = || Store::new(&paths.image_folders().data).size(digest.as_deref()?);
    let (repository, tag) = image::split(reference);
    Row {
        container: container.to_owned(),
        repository,
        tag,
        size: module.as_ref().map(|module| module.size).or_else(kept).unwrap_or_default(),
        platform: module.map_or_else(|| "wasi/wasm".to_owned(), |module| module.platform),
        id: digest.map(|digest| format!("sha256:{digest}")).unwrap_or_default(),
        tagged: None,
    }
}
