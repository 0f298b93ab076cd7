//! Files of this machine into a running container, for `develop.watch`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bollard::Docker as Client;
use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use futures_util::StreamExt as _;

use super::error::failed;
use crate::engine::{EngineError, ErrorKind, Result};

/// Bytes of files sent at a time; a bigger file goes alone.
const PORTION: u64 = 8 << 20;
/// Output of a command that is kept.
const OUTPUT: usize = 64 * 1024;

/// Writes files, with their modes, each to its absolute target; folders above them are made. What went away meanwhile is left out.
pub(super) async fn write(client: &Client, container: &str, files: Vec<(PathBuf, String)>) -> Result<()> {
    let mut portion = Vec::new();
    let mut size = 0;
    for (path, target) in files {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        size += metadata.len();
        portion.push((path, target));
        if size >= PORTION {
            send(client, container, std::mem::take(&mut portion)).await?;
            size = 0;
        }
    }
    send(client, container, portion).await
}

async fn send(client: &Client, container: &str, files: Vec<(PathBuf, String)>) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let packed = tokio::task::spawn_blocking(move || archive(&files)).await.map_err(io::Error::other).flatten();
    let bytes = packed.map_err(|error| EngineError::new(ErrorKind::Invalid, "copy files to", container, error))?;
    let options = UploadToContainerOptionsBuilder::default().path("/").build();
    client
        .upload_to_container(container, Some(options), bollard::body_full(bytes.into()))
        .await
        .map_err(failed("copy files to", container))
}

fn archive(files: &[(PathBuf, String)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, target) in files {
        match append(&mut archive, path, target.trim_start_matches('/')) {
            // It went away while it was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            appended => appended?,
        }
    }
    archive.into_inner()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &Path, target: &str) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_uid(0);
    header.set_gid(0);
    if metadata.is_symlink() {
        header.set_size(0);
        archive.append_link(&mut header, target, fs::read_link(path)?)
    } else if metadata.is_file() {
        // Whole: a file that grows while it is read would tear the archive.
        let bytes = fs::read(path)?;
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, target, bytes.as_slice())
    } else {
        Ok(())
    }
}

/// Runs a command in a container to its end: its exit code, and what it said.
pub(super) async fn execute(client: &Client, container: &str, command: Vec<String>) -> Result<(i64, String)> {
    let config = ExecConfig {
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = client.create_exec(container, config).await.map_err(failed("run a command in", container))?;
    let started = client.start_exec(&exec.id, None).await.map_err(failed("run a command in", container))?;
    let mut said = Vec::new();
    if let StartExecResults::Attached { mut output, .. } = started {
        while let Some(Ok(LogOutput::StdOut { message } | LogOutput::StdErr { message })) = output.next().await {
            let room = OUTPUT.saturating_sub(said.len());
            said.extend_from_slice(&message[..message.len().min(room)]);
        }
    }
    let ended = client.inspect_exec(&exec.id).await.map_err(failed("run a command in", container))?;
    Ok((ended.exit_code.unwrap_or(-1), String::from_utf8_lossy(&said).trim().to_owned()))
}
