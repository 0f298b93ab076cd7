//! Containers: created, replaced, removed. A step that fails leaves no half-made container behind.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker as Client;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use serde_json::json;
use tokio::time::{Duration, sleep};

use super::Docker;
use super::error::{failed, gone_is_done, is_conflict, is_not_found, wrap};
use super::network::amended;
use super::request::{self, Context, Peer};
use crate::engine::{EngineError, ErrorKind, Result};
use crate::model::{FileContent, NetworkMode, ServiceName};
use crate::plan::observed::Existing;
use crate::plan::unit::InstanceSpec;

pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const CONFIG_HASH: &str = "com.docker.compose.config-hash";
pub(super) const IMAGE: &str = "com.docker.compose.image";
pub(super) const WASM_HASH: &str = "dev.wcompose.hash";

/// Creates the container of a Linux instance.
pub(super) async fn create(docker: &Docker, spec: &InstanceSpec, replace: Option<&Existing>) -> Result<()> {
    check_files(spec)?;
    let context = context(docker, spec, replace).await?;
    let mut body = request::container(spec, &context)?;
    read_profiles(&mut body)?;
    let platform = spec.service.platform.as_deref();
    make(docker, spec, replace, body, &context, platform).await
}

/// What the body depends on besides the spec: the engine's version, other services' containers, volumes to carry over.
pub(super) async fn context(docker: &Docker, spec: &InstanceSpec, replace: Option<&Existing>) -> Result<Context> {
    let referred = request::referred_services(&spec.service);
    let peers = if referred.is_empty() { BTreeMap::new() } else { peers(&docker.client, spec, &referred).await? };
    if let Some(NetworkMode::Service(name)) = &spec.service.network_mode
        && !peers.contains_key(name)
    {
        return Err(EngineError::new(
            ErrorKind::NotFound,
            "create container",
            &spec.container,
            format!("it shares the network of `{name}`, which has no container"),
        ));
    }
    Ok(Context {
        api: docker.api,
        peers,
        inherited: replace.map(|existing| existing.anonymous_volumes.clone()).unwrap_or_default(),
        replaces: replace.is_some(),
    })
}

/// Creates a container, joins it to its networks, writes its files, and puts it in the place of the one it replaces.
pub(super) async fn make(
    docker: &Docker,
    spec: &InstanceSpec,
    replace: Option<&Existing>,
    body: ContainerCreateBody,
    context: &Context,
    platform: Option<&str>,
) -> Result<()> {
    let client = &docker.client;
    let Some(old) = replace else {
        let Some(id) = create_named(docker, spec, &spec.container, &body, platform).await? else { return Ok(()) };
        return finish(client, spec, &id, context).await;
    };
    // The new one is made first: if that fails, the old one still runs.
    let temporary = format!("{}_{}", old.id.get(..12).unwrap_or(&old.id), spec.container);
    let Some(id) = create_named(docker, spec, &temporary, &body, platform).await? else { return Ok(()) };
    finish(client, spec, &id, context).await?;
    remove(&docker.patient(), old, None, false).await?;
    let options = RenameContainerOptionsBuilder::default().name(&spec.container).build();
    client.rename_container(&id, options).await.map_err(failed("rename container", temporary))
}

/// Stops (gently) and removes a container; `grace` absent means its own grace period.
pub(super) async fn remove(client: &Client, existing: &Existing, grace: Option<Duration>, volumes: bool) -> Result<()> {
    stop(client, &existing.id, grace).await.map_err(failed("stop container", &existing.name))?;
    erase(client, &existing.id, volumes).await.map_err(failed("remove container", &existing.name))?;
    if volumes {
        // Carried over once, an anonymous volume counts as named for the engine and would stay.
        for volume in existing.anonymous_volumes.values() {
            match gone_is_done(client.remove_volume(volume, None::<RemoveVolumeOptions>).await) {
                Err(error) if is_conflict(&error) => {}
                result => result.map_err(failed("remove volume", volume))?,
            }
        }
    }
    Ok(())
}

/// Asks a container to end and waits for it; one that is gone or does not run is done.
pub(super) async fn stop(client: &Client, id: &str, grace: Option<Duration>) -> Result<(), Error> {
    let mut options = StopContainerOptionsBuilder::default();
    if let Some(grace) = grace {
        // The engine counts whole seconds: rounded up, so that nobody is killed early.
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        options = options.t(i32::try_from(seconds).unwrap_or(i32::MAX));
    }
    gone_is_done(client.stop_container(id, Some(options.build())).await)
}

/// Removes a container by force and waits until it is gone, also when somebody else is at it already.
pub(super) async fn erase(client: &Client, id: &str, volumes: bool) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(volumes).build();
    match gone_is_done(client.remove_container(id, Some(options)).await) {
        Err(error) if is_conflict(&error) => {
            for _ in 0..100 {
                if find(client, id).await?.is_none() {
                    return Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
            Err(error)
        }
        result => result,
    }
}

/// A container by name or id.
pub(super) async fn find(client: &Client, name: &str) -> Result<Option<ContainerInspectResponse>, Error> {
    match client.inspect_container(name, None::<InspectContainerOptions>).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A container's label.
pub(super) fn label<'a>(container: &'a ContainerInspectResponse, name: &str) -> Option<&'a str> {
    container.config.as_ref()?.labels.as_ref()?.get(name).map(String::as_str)
}

/// The id of the new container; nothing when the one that is wanted is there already.
async fn create_named(
    docker: &Docker,
    spec: &InstanceSpec,
    name: &str,
    body: &ContainerCreateBody,
    platform: Option<&str>,
) -> Result<Option<String>> {
    match send_create(docker, spec, name, body, platform).await {
        Ok(id) => return Ok(Some(id)),
        Err(error) if !is_conflict(&error) => return Err(wrap("create container", name, error)),
        Err(_) => {}
    }
    let client = &docker.client;
    if let Some(found) = find(client, name).await.map_err(failed("inspect container", name))? {
        let ours = label(&found, PROJECT) == Some(spec.project.as_str());
        if ours && name == spec.container && is_the_same(&found, spec) {
            return Ok(None);
        }
        let agent = label(&found, WASM_HASH).is_some() && label(&found, SERVICE) == Some(spec.name.service.as_str());
        let left_over = name != spec.container;
        if !(ours && (agent || left_over)) {
            return Err(name_taken(name, &found));
        }
        // What an earlier, interrupted run left, or an agent nobody can speak to any more.
        erase(client, found.id.as_deref().unwrap_or(name), false).await.map_err(failed("remove container", name))?;
    }
    send_create(docker, spec, name, body, platform).await.map(Some).map_err(failed("create container", name))
}

async fn send_create(
    docker: &Docker,
    spec: &InstanceSpec,
    name: &str,
    body: &ContainerCreateBody,
    platform: Option<&str>,
) -> Result<String, Error> {
    let mut options = CreateContainerOptionsBuilder::default().name(name);
    if let Some(platform) = platform {
        options = options.platform(platform);
    }
    let client = match request::old_mac_address(spec, docker.api) {
        Some(mac) => amended(&docker.client, serde_json::to_value(body)?, json!({ "MacAddress": mac })),
        None => docker.client.clone(),
    };
    Ok(client.create_container(Some(options.build()), body.clone()).await?.id)
}

/// An agent is never the same: its mailbox is another one.
fn is_the_same(found: &ContainerInspectResponse, spec: &InstanceSpec) -> bool {
    label(found, CONFIG_HASH) == Some(&spec.config_hash)
        && label(found, IMAGE) == spec.labels.get(IMAGE).map(String::as_str)
        && label(found, WASM_HASH).is_none()
}

fn name_taken(name: &str, found: &ContainerInspectResponse) -> EngineError {
    let holder = match (label(found, PROJECT), label(found, SERVICE)) {
        (Some(project), Some(service)) => format!("service `{service}` of project `{project}` has that name"),
        _ => "a container outside of any project has that name".to_owned(),
    };
    EngineError::new(ErrorKind::Conflict, "create container", name, holder)
        .hint(format!("`docker rm -f {name}` removes it"))
}

/// What is left to do after creation; when that fails, the container goes again.
async fn finish(client: &Client, spec: &InstanceSpec, id: &str, context: &Context) -> Result<()> {
    let done = async {
        for join in request::joined_later(spec, context) {
            let request = NetworkConnectRequest {
                container: id.to_owned(),
                endpoint_config: Some(request::endpoint(spec, join, context)),
            };
            client.connect_network(&join.name, request).await.map_err(failed("join network", &join.name))?;
        }
        upload(client, spec, id).await
    };
    let result = done.await;
    if result.is_err() {
        // The first error is the one to tell.
        let _ = erase(client, id, true).await;
    }
    result
}

async fn upload(client: &Client, spec: &InstanceSpec, id: &str) -> Result<()> {
    if spec.resolved.is_wasm() {
        return Ok(());
    }
    let mut archive = tar::Builder::new(Vec::new());
    let mut count = 0;
    for (grant, text) in request::written(spec) {
        let number = |value: &Option<String>| value.as_deref().and_then(|id| id.parse().ok()).unwrap_or(0);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(grant.mode.unwrap_or(0o444));
        header.set_uid(number(&grant.uid));
        header.set_gid(number(&grant.gid));
        archive
            .append_data(&mut header, grant.target.trim_start_matches('/'), text.as_bytes())
            .map_err(|error| EngineError::new(ErrorKind::Invalid, "write file", &grant.target, error))?;
        count += 1;
    }
    if count == 0 {
        return Ok(());
    }
    let bytes = archive
        .into_inner()
        .map_err(|error| EngineError::new(ErrorKind::Internal, "write files", &spec.container, error))?;
    let options = UploadToContainerOptionsBuilder::default().path("/").build();
    client
        .upload_to_container(id, Some(options), bollard::body_full(bytes.into()))
        .await
        .map_err(failed("write configs and secrets of", &spec.container))
}

/// The engine wants a seccomp profile itself, not where it is.
fn read_profiles(body: &mut ContainerCreateBody) -> Result<()> {
    let options = body.host_config.as_mut().and_then(|host| host.security_opt.as_mut());
    for option in options.into_iter().flatten() {
        let Some(path) = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:")) else { continue };
        if path != "unconfined" && path != "builtin" {
            let profile = std::fs::read_to_string(path)
                .map_err(|error| EngineError::new(ErrorKind::Invalid, "read seccomp profile", path, error))?;
            *option = format!("seccomp={profile}");
        }
    }
    Ok(())
}

/// Faults of configs and secrets that the engine would tell too late or not at all.
fn check_files(spec: &InstanceSpec) -> Result<()> {
    let service = &*spec.service;
    for grant in service.configs.iter().chain(&service.secrets) {
        let fault = match &grant.content {
            FileContent::External { name } => {
                format!("`{name}` is external, and a single engine keeps no configs or secrets")
            }
            FileContent::Environment { name, value: None } => format!("the variable `{name}` is not set"),
            FileContent::Inline(_) | FileContent::Environment { .. }
                if service.document.get("read_only").is_some_and(|flag| flag == true) =>
            {
                "its service is read-only, and only `file` can be given to such a one".to_owned()
            }
            FileContent::File(_) | FileContent::Inline(_) | FileContent::Environment { .. } => continue,
        };
        return Err(EngineError::new(ErrorKind::Invalid, "provide file", &grant.source, fault));
    }
    Ok(())
}

async fn peers(
    client: &Client,
    spec: &InstanceSpec,
    referred: &[ServiceName],
) -> Result<BTreeMap<ServiceName, Vec<Peer>>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={}", spec.project)])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let list =
        client.list_containers(Some(options)).await.map_err(failed("list containers of", spec.project.as_str()))?;
    let mut peers: BTreeMap<ServiceName, Vec<Peer>> = BTreeMap::new();
    for container in list {
        let labels = container.labels.unwrap_or_default();
        let Some(service) = labels.get(SERVICE).map(|name| ServiceName::from(name.as_str())) else { continue };
        let one_off = labels.get("com.docker.compose.oneoff").is_some_and(|flag| flag == "True");
        if one_off || !referred.contains(&service) {
            continue;
        }
        if let (Some(id), Some(name)) = (container.id, container.names.and_then(|names| names.into_iter().next())) {
            peers.entry(service).or_default().push(Peer { id, name: name.trim_start_matches('/').to_owned() });
        }
    }
    for found in peers.values_mut() {
        found.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(peers)
}
