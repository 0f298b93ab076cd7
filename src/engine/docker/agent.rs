//! Agents: the containers that give Wasm instances their place on the compose networks.
//!
//! Their image is made here from the one static program, without a registry, and named after its digest: another version of
//! wcompose brings another image, and the same one is imported once.

use std::path::{Path, PathBuf};

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::query_parameters::{CreateImageOptionsBuilder, KillContainerOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::attached::Program;
use super::container::{self, find, make};
use super::error::{failed, gone_is_done, is_conflict, wrap};
use super::request::{self, Door, Mailbox, PROGRAM};
use super::{Docker, connect, image, run};
use crate::engine::{EngineError, ErrorKind, Result, Started};
use crate::net::agent::{BINARY, Incoming, LEND, MOUNT, Outgoing, TOKEN};
use crate::plan::observed::Existing;
use crate::plan::unit::InstanceSpec;

/// Repository of agent images.
pub(super) const REPOSITORY: &str = "wcompose-agent";

/// What an agent was made with over this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// What is mounted, where something is.
    folder: Option<PathBuf>,
    token: String,
}

/// Bytes of an agent's stream that are taken at once: as many as the engine sends at once.
const CAPACITY: usize = 64 * 1024;

/// Creates an agent's container.
pub(super) async fn create(
    docker: &Docker,
    spec: &InstanceSpec,
    replace: Option<&Existing>,
    mailbox: &Mailbox<'_>,
) -> Result<()> {
    let image = docker.agent_image.get_or_try_init(|| import(docker, BINARY)).await?;
    create_from(docker, spec, replace, image, mailbox).await
}

/// The same with the image given.
pub(super) async fn create_from(
    docker: &Docker,
    spec: &InstanceSpec,
    replace: Option<&Existing>,
    image: &str,
    mailbox: &Mailbox<'_>,
) -> Result<()> {
    let context = container::context(docker, spec, replace).await?;
    let body = request::agent(spec, image, mailbox, &context);
    make(docker, spec, replace, body, &context, None).await?;
    let folder = match mailbox.door {
        Door::Folder(folder) => Some(folder.to_owned()),
        Door::Streams => None,
    };
    let made = Made { folder, token: mailbox.token.to_owned() };
    docker.mailboxes.lock().expect("no panic while it is held").insert(spec.container.clone(), made);
    Ok(())
}

/// Starts an agent that this connection made.
pub(super) async fn start(docker: &Docker, spec: &InstanceSpec) -> Result<Started> {
    let missing = |why: &str| EngineError::new(ErrorKind::NotFound, "start agent", &spec.container, why.to_owned());
    let made = docker.mailboxes.lock().expect("no panic while it is held").get(&spec.container).cloned();
    let made = made.ok_or_else(|| missing("it was not made by this process"))?;
    let found = find(&docker.client, &spec.container)
        .await
        .map_err(failed("inspect container", &spec.container))?
        .ok_or_else(|| missing("no such container"))?;
    let token = format!("{TOKEN}={}", made.token);
    let environment = found.config.as_ref().and_then(|config| config.env.as_ref());
    let is_mounted = |folder: &Path| {
        found.mounts.iter().flatten().any(|mount| {
            mount.typ.as_deref() == Some("bind")
                && mount.destination.as_deref() == Some(MOUNT)
                && mount.source.as_deref() == folder.to_str()
        })
    };
    let speaks_to_us =
        environment.is_some_and(|env| env.contains(&token)) && made.folder.as_deref().is_none_or(is_mounted);
    let Some(id) = found.id.filter(|_| speaks_to_us) else {
        return Err(missing("the container of that name speaks to another supervisor"));
    };
    Ok(run::launch(docker, spec, &id).await?.facts)
}

/// Runs the program beside an agent that waits for streams, and has it lend its own.
pub(super) async fn lend(docker: &Docker, container: &str) -> Result<(Incoming, Outgoing)> {
    let program = Program { command: vec![PROGRAM.into(), LEND.into()], input: true, ..Program::default() };
    let id = docker.exec(container, &program).await?;
    let options = StartExecOptions { detach: false, tty: false, output_capacity: Some(CAPACITY) };
    let attached = docker.patient().start_exec(&id, Some(options)).await.map_err(failed("exec in", container))?;
    let StartExecResults::Attached { output, input } = attached else {
        return Err(EngineError::new(ErrorKind::Internal, "exec in", container, "the engine did not attach"));
    };
    let pieces = output.map(|piece| match piece.map_err(std::io::Error::other)? {
        // The program itself says nothing there: it is the engine that could not run it.
        LogOutput::StdErr { message } => Err(std::io::Error::other(String::from_utf8_lossy(&message).into_owned())),
        LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => Ok(message),
    });
    Ok((Box::pin(pieces), input))
}

/// Kills an agent; one that does not run is done.
pub(super) async fn kill(docker: &Docker, spec: &InstanceSpec) -> Result<()> {
    let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
    match gone_is_done(docker.client.kill_container(&spec.container, Some(options)).await) {
        Err(error) if is_conflict(&error) => Ok(()),
        result => result.map_err(failed("kill agent", &spec.container)),
    }
}

/// The agent's image, imported if the engine does not have it. Two that do so at the same time get the same image.
pub(super) async fn import(docker: &Docker, program: &[u8]) -> Result<String> {
    if program.is_empty() {
        return Err(EngineError::new(
            ErrorKind::Internal,
            "import agent",
            REPOSITORY,
            "this build of wcompose carries no agent for this platform",
        ));
    }
    let tag = &connect::hex(&Sha256::digest(program))[..12];
    let name = format!("{REPOSITORY}:{tag}");
    if image::inspect(&docker.client, &name).await?.is_some() {
        return Ok(name);
    }
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(REPOSITORY).tag(tag).build();
    let body = bollard::body_full(archive(program)?.into());
    let client = docker.patient();
    let progress = client.create_image(Some(options), Some(body), None);
    progress.try_for_each(|_| async { Ok(()) }).await.map_err(|error| wrap("import agent", &name, error))?;
    // Some engines ignore the tag at import (Podman): then the name does not resolve, and creating the container says so.
    Ok(name)
}

fn archive(program: &[u8]) -> Result<Vec<u8>> {
    let failed = |error| EngineError::new(ErrorKind::Internal, "import agent", REPOSITORY, error);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "agent", program).map_err(failed)?;
    archive.into_inner().map_err(failed)
}
