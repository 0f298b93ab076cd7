//! Files of this machine into a running container, for `develop.watch`.

use std::fs;
use std::io;
use std::path::PathBuf;

use bollard::Docker as Client;
use bollard::query_parameters::UploadToContainerOptionsBuilder;

use super::error::failed;
use crate::engine::{EngineError, ErrorKind, Result, archive};

/// Bytes of files sent at a time; a bigger file goes alone.
const PORTION: u64 = 8 << 20;

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
    let packed = tokio::task::spawn_blocking(move || archive::of_files(&files, Vec::new()))
        .await
        .map_err(io::Error::other)
        .flatten();
    let bytes = packed.map_err(|error| EngineError::new(ErrorKind::Invalid, "copy files to", container, error))?;
    let options = UploadToContainerOptionsBuilder::default().path("/").build();
    client
        .upload_to_container(container, Some(options), bollard::body_full(bytes.into()))
        .await
        .map_err(failed("copy files to", container))
}
