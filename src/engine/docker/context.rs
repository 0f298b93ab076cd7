//! A build context: the folder's files as a tar, written while it is sent, without what `.dockerignore` leaves out.
//!
//! Owners are left out, so that the builder's cache does not depend on who builds. A Dockerfile from elsewhere, or from the compose
//! file itself, travels under a name that cannot clash.

use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures_util::Stream;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::connect::hex;
use crate::image::ignore::Rules;
use crate::model::Build;

const IGNORE_FILE: &str = ".dockerignore";
/// Bytes sent at a time.
const CHUNK: usize = 64 * 1024;

/// A folder ready to be sent.
#[derive(Debug)]
pub(super) struct Context {
    root: PathBuf,
    rules: Rules,
    dockerfile: String,
    /// Text of a Dockerfile that is not in the folder.
    inline: Option<Vec<u8>>,
}

impl Context {
    /// Checks that folder and Dockerfile are there, and reads the ignore file.
    pub(super) fn open(build: &Build) -> io::Result<Self> {
        let root = PathBuf::from(&build.context);
        let metadata = fs::metadata(&root).map_err(|error| told(error, "reading", &root))?;
        if !metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a folder", root.display())));
        }
        let (dockerfile, inline, own_rules) = match &build.dockerfile_inline {
            Some(text) => (hidden_name(text.as_bytes()), Some(text.clone().into_bytes()), None),
            None => {
                let path = root.join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
                let own_rules = PathBuf::from(format!("{}{IGNORE_FILE}", path.display()));
                match inside(&root, &path) {
                    Some(name) if path.is_file() => (name, None, Some(own_rules)),
                    _ => {
                        let text = fs::read(&path).map_err(|error| told(error, "reading Dockerfile", &path))?;
                        (hidden_name(&text), Some(text), Some(own_rules))
                    }
                }
            }
        };
        let rules = [own_rules, Some(root.join(IGNORE_FILE))]
            .into_iter()
            .flatten()
            .find_map(|path| fs::read_to_string(path).ok())
            .map(|text| Rules::parse(&text))
            .unwrap_or_default();
        Ok(Self { root, rules, dockerfile, inline })
    }

    /// The Dockerfile's name in the tar.
    pub(super) fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// The Dockerfile's text, where it can be read.
    pub(super) fn text(&self) -> Option<String> {
        match &self.inline {
            Some(text) => String::from_utf8(text.clone()).ok(),
            None => fs::read_to_string(self.root.join(&self.dockerfile)).ok(),
        }
    }

    /// Writes the tar.
    fn write(&self, to: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(to);
        if let Some(text) = &self.inline {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, &self.dockerfile, text.as_slice())?;
        }
        self.write_folder(&mut archive, "")?;
        archive.into_inner()?.flush()
    }

    fn write_folder(&self, archive: &mut tar::Builder<impl Write>, folder: &str) -> io::Result<()> {
        let path = self.root.join(folder);
        let mut names = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(|error| told(error, "reading", &path))?;
        names.sort();
        for name in names {
            let name = name.to_str().ok_or_else(|| {
                let text = format!("{}: the name is not UTF-8", path.join(&name).display());
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })?;
            let inside = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let full = self.root.join(&inside);
            let metadata = fs::symlink_metadata(&full).map_err(|error| told(error, "reading", &full))?;
            let left_out = self.leaves_out(&inside);
            if metadata.is_dir() {
                if !left_out {
                    append(archive, &inside, &full, &metadata).map_err(|error| told(error, "reading", &full))?;
                }
                if !left_out || self.rules.may_bring_back_below(&inside) || self.is_above_dockerfile(&inside) {
                    self.write_folder(archive, &inside)?;
                }
            } else if !left_out {
                append(archive, &inside, &full, &metadata).map_err(|error| told(error, "reading", &full))?;
            }
        }
        Ok(())
    }

    /// The builder needs both files, whatever the rules say.
    fn leaves_out(&self, path: &str) -> bool {
        path != self.dockerfile && path != IGNORE_FILE && self.rules.leave_out(path)
    }

    fn is_above_dockerfile(&self, folder: &str) -> bool {
        self.dockerfile.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// The tar as it is being written, and the end of the writing. Dropping the stream ends it early, which is no error.
pub(super) fn stream(
    context: Context,
) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, JoinHandle<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel(8);
    let writer = spawn_blocking(move || {
        let chunks = BufWriter::with_capacity(CHUNK, Chunks { sender: sender.clone() });
        match context.write(chunks) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => {
                // The engine must not take a torn tar for the whole.
                let _ = sender.blocking_send(Err(io::Error::new(error.kind(), error.to_string())));
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    });
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    (chunks, writer)
}

struct Chunks {
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends a file, folder or link. Sockets, pipes and devices have no place in a context.
fn append(archive: &mut tar::Builder<impl Write>, name: &str, path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    header.set_uid(0);
    header.set_gid(0);
    let kind = metadata.file_type();
    if kind.is_symlink() {
        header.set_size(0);
        archive.append_link(&mut header, name, fs::read_link(path)?)
    } else if kind.is_dir() {
        header.set_size(0);
        archive.append_data(&mut header, format!("{name}/"), io::empty())
    } else if kind.is_file() {
        let exact = Exact { left: metadata.len(), file: fs::File::open(path)? };
        archive.append_data(&mut header, name, exact)
    } else {
        Ok(())
    }
}

/// As many bytes as the header says, or an error: a file may change under our hands.
struct Exact {
    left: u64,
    file: fs::File,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let count = Read::by_ref(&mut self.file).take(self.left).read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// The path below `root`, with `/`; nothing when it leads out of it.
fn inside(root: &Path, path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.strip_prefix(root).ok()?.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn hidden_name(text: &[u8]) -> String {
    format!(".dockerfile.{}", &hex(&Sha256::digest(text))[..20])
}

fn told(error: io::Error, what: &str, path: &Path) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn names(build: &Build) -> Vec<String> {
        let context = Context::open(build).unwrap();
        let mut bytes = Vec::new();
        context.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    fn build(folder: &tempfile::TempDir) -> Build {
        Build { context: folder.path().display().to_string(), ..Build::default() }
    }

    #[test]
    fn ignored_files_stay_behind_but_not_what_the_builder_needs() {
        let folder = folder(&[
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "*\n!src\nsrc/gen\n!deep/keep"),
            ("src/main.rs", ""),
            ("src/gen/a", ""),
            ("deep/keep", ""),
            ("deep/drop", ""),
            ("target/x", ""),
        ]);
        assert_eq!(names(&build(&folder)), [".dockerignore", "Dockerfile", "deep/keep", "src/", "src/main.rs"]);
    }

    #[test]
    fn links_and_long_names_survive() {
        let long = format!("{}/file", "d".repeat(120));
        let folder = folder(&[("Dockerfile", "FROM scratch"), (&long, "x")]);
        std::os::unix::fs::symlink("Dockerfile", folder.path().join("link")).unwrap();
        let mut bytes = Vec::new();
        Context::open(&build(&folder)).unwrap().write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut kinds = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.header().uid().unwrap(), 0);
            kinds.push((entry.path().unwrap().display().to_string(), entry.header().entry_type()));
        }
        assert!(kinds.contains(&(long, tar::EntryType::Regular)));
        assert!(kinds.contains(&("link".to_owned(), tar::EntryType::Symlink)));
    }

    #[test]
    fn a_dockerfile_from_elsewhere_travels_under_another_name() {
        let folder = folder(&[("ctx/a", ""), ("Dockerfile", "FROM scratch")]);
        let mut outside = build(&folder);
        outside.context = folder.path().join("ctx").display().to_string();
        outside.dockerfile = Some("../Dockerfile".into());
        let context = Context::open(&outside).unwrap();
        assert!(context.dockerfile().starts_with(".dockerfile."));
        assert_eq!(names(&outside).len(), 2);
        let inline = Build { dockerfile: None, dockerfile_inline: Some("FROM scratch".into()), ..outside };
        assert_eq!(Context::open(&inline).unwrap().dockerfile(), context.dockerfile());
    }

    #[test]
    fn a_missing_dockerfile_is_named() {
        let folder = folder(&[("a", "")]);
        let error = Context::open(&build(&folder)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("Dockerfile"), "{error}");
    }
}
