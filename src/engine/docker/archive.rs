//! Files of a container as tar archives, as the engine packs and unpacks them inside the container's own root.

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::Docker;
use super::error::{failed, is_not_found, wrap};
use crate::engine::Result;

/// Go's bit for a folder in a file's mode.
const FOLDER: u32 = 1 << 31;
/// Go's bit for a symbolic link.
const LINK: u32 = 1 << 27;

/// What is at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A folder.
    Folder,
    /// A symbolic link, to there.
    Link(String),
    /// Anything else.
    File,
}

impl Docker {
    /// What is at a path of a container; nothing, where nothing is.
    pub async fn find_path(&self, container: &str, path: &str) -> Result<Option<Found>> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.client.get_container_archive_info(container, Some(options)).await {
            Ok(found) if found.file_mode & FOLDER != 0 => Ok(Some(Found::Folder)),
            Ok(found) if found.file_mode & LINK != 0 => Ok(Some(Found::Link(found.link_target))),
            Ok(_) => Ok(Some(Found::File)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(wrap("look at", format!("{container}:{path}"), error)),
        }
    }

    /// Sends a file or folder of a container as an archive.
    pub async fn copy_out(&self, container: &str, path: &str, to: mpsc::Sender<Bytes>) -> Result<()> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let client = self.patient();
        let mut pieces = std::pin::pin!(client.download_from_container(container, Some(options)));
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(failed("copy", format!("{container}:{path}")))?;
            if to.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Unpacks an archive into a folder of a container; with `owners`, its owners are kept.
    pub async fn copy_in(
        &self,
        container: &str,
        folder: &str,
        owners: bool,
        from: mpsc::Receiver<Bytes>,
    ) -> Result<()> {
        let mut options = UploadToContainerOptionsBuilder::default().path(folder).no_overwrite_dir_non_dir("true");
        if owners {
            options = options.copy_uidgid("true");
        }
        let pieces = stream::unfold(from, |mut from| async move { from.recv().await.map(|piece| (piece, from)) });
        let client = self.patient();
        let sent = client.upload_to_container(container, Some(options.build()), bollard::body_stream(pieces));
        sent.await.map_err(failed("copy to", format!("{container}:{folder}")))
    }
}
