//! Saved images on disk: what `docker save` writes (the engine's export too), OCI archives and OCI layout folders.
//!
//! Both forms are read: the one with `manifest.json`, which every engine writes, and the OCI one with `index.json` and
//! `blobs/`. [`unpack`] takes an engine's own export straight to a folder; [`take_in`] takes a file of unknown origin into
//! wcompose's content store, where every part has the digest it is named by. Layers are [`super::layers`]' matter.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Value, json};
use tar::EntryType;

use super::content::{Content, ContentError};
use super::layers::{ArchiveError, Limits, Packing, Target, Unpacked, io_error, malformed, packing};
use super::oci::{self, Choice, Descriptor, Document};

/// Longest document (index, manifest, configuration) that is read.
const LONGEST: u64 = 16 << 20;

/// Unpacks the files of the (first) image in `archive` into `folder`, which must exist and be empty.
pub fn unpack(archive: &Path, folder: &Path, limits: Limits) -> Result<Unpacked, ArchiveError> {
    let mut saved = Saved::open(archive)?;
    let layers = saved.layers()?;
    let mut target = Target::new(folder, limits);
    for layer in layers {
        let reader = saved.part(&layer)?;
        target.apply(reader, archive)?;
    }
    Ok(target.done())
}

/// Whether a path looks like a saved image: a folder, or a tar, packed or not.
pub fn is_saved(path: &Path) -> bool {
    if path.is_dir() {
        return true;
    }
    let Ok(file) = File::open(path) else { return false };
    let mut reader = BufReader::new(file);
    match packing(&mut reader) {
        Ok(Packing::None) => {
            let mut header = [0; 262];
            reader.read_exact(&mut header).is_ok() && &header[257..262] == b"ustar"
        }
        Ok(Packing::Gzip | Packing::Zstd) => true,
        Err(_) => false,
    }
}

/// Takes the image of a file or layout folder into the content store, Wasm rather than another where it holds several:
/// the digest of its manifest. Every part is held against its digest.
pub fn take_in(path: &Path, content: &Content, limits: Limits) -> Result<String, ContentError> {
    // A packed archive cannot be read in any order.
    let unpacked = if path.is_dir() { None } else { plain_tar(path, content, limits)? };
    let mut saved = Saved::open(unpacked.as_ref().map_or(path, |draft| draft.path()))?;
    saved.name = path.to_owned();
    if saved.has("index.json") { saved.take_oci(content, limits) } else { saved.take_docker(content, limits) }
}

/// A packed archive, unpacked beside the store; nothing for one that is not packed.
fn plain_tar(path: &Path, content: &Content, limits: Limits) -> Result<Option<super::content::Draft>, ContentError> {
    let mut reader = BufReader::new(File::open(path).map_err(io_error("opening", path))?);
    let mut unpacked: Box<dyn Read> = match packing(&mut reader).map_err(io_error("reading", path))? {
        Packing::None => return Ok(None),
        Packing::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Packing::Zstd => Box::new(
            ruzstd::decoding::StreamingDecoder::new(reader)
                .map_err(|error| malformed(path, io::Error::other(error)))?,
        ),
    };
    let mut draft = content.draft()?;
    let most = limits.bytes.saturating_add(1);
    let copied = io::copy(&mut (&mut unpacked).take(most), &mut draft).map_err(|error| malformed(path, error))?;
    if copied == most {
        return Err(ArchiveError::TooLarge(format!("{} bytes", limits.bytes)).into());
    }
    Ok(Some(draft))
}

/// A saved image: where each part lies, so that parts are read in place, whatever their order.
struct Saved {
    /// What errors name.
    name: PathBuf,
    outer: Outer,
}

enum Outer {
    Folder(PathBuf),
    Tar { file: File, entries: BTreeMap<String, Place> },
}

enum Place {
    /// Offset and size.
    At(u64, u64),
    /// Another entry's content: older engines link equal layers.
    Same(String),
}

/// Sees a descriptor with the bytes of its document.
type Visit<'v> = dyn FnMut(&Descriptor, &[u8]) -> Result<(), ArchiveError> + 'v;

impl Saved {
    fn open(path: &Path) -> Result<Self, ArchiveError> {
        if path.is_dir() {
            return Ok(Self { name: path.to_owned(), outer: Outer::Folder(path.to_owned()) });
        }
        let file = File::open(path).map_err(io_error("opening", path))?;
        let entries = list(path, &file)?;
        Ok(Self { name: path.to_owned(), outer: Outer::Tar { file, entries } })
    }

    fn has(&self, name: &str) -> bool {
        match &self.outer {
            Outer::Folder(folder) => folder.join(name).is_file(),
            Outer::Tar { entries, .. } => entries.contains_key(name),
        }
    }

    /// A part by its name.
    fn part(&mut self, name: &str) -> Result<Box<dyn Read + '_>, ArchiveError> {
        let lacks = ArchiveError::Malformed { path: self.name.clone(), why: format!("it lacks {name}") };
        match &mut self.outer {
            Outer::Folder(folder) => {
                let Some(inside) = plain(Path::new(name)) else { return Err(lacks) };
                let path = folder.join(inside);
                match File::open(&path) {
                    Ok(file) => Ok(Box::new(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lacks),
                    Err(error) => Err(io_error("opening", &path)(error)),
                }
            }
            Outer::Tar { file, entries } => {
                let mut current = name.trim_start_matches("./");
                // A link leads to a file in one step; a chain of them is not something engines write.
                for _ in 0..8 {
                    match entries.get(current) {
                        Some(Place::At(offset, size)) => {
                            file.seek(SeekFrom::Start(*offset)).map_err(io_error("reading", &self.name))?;
                            return Ok(Box::new(Read::by_ref(file).take(*size)));
                        }
                        Some(Place::Same(target)) => current = target,
                        None => break,
                    }
                }
                Err(lacks)
            }
        }
    }

    fn document(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let mut text = Vec::new();
        let path = self.name.clone();
        let read = self.part(name)?.take(LONGEST + 1).read_to_end(&mut text).map_err(io_error("reading", &path))?;
        if read as u64 > LONGEST {
            return Err(self.malformed(format!("{name} is larger than {LONGEST} bytes")));
        }
        Ok(text)
    }

    fn json(&mut self, name: &str) -> Result<Value, ArchiveError> {
        let text = self.document(name)?;
        serde_json::from_slice(&text).map_err(|error| self.malformed(format!("{name}: {error}")))
    }

    /// Names of the layers, lowest first.
    fn layers(&mut self) -> Result<Vec<String>, ArchiveError> {
        if self.has("manifest.json") {
            let manifest = self.json("manifest.json")?;
            let layers = manifest.pointer("/0/Layers").and_then(Value::as_array);
            let layers = layers.ok_or_else(|| self.malformed("its manifest names no layers"))?;
            return Ok(layers.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        let (_, manifest) = self.manifest(&mut |_, _| Ok(()))?;
        manifest.layers.iter().map(|layer| self.blob(layer)).collect()
    }

    /// The manifest at the end of the indexes. `visit` sees the descriptor and the bytes of each document on the way.
    fn manifest(&mut self, visit: &mut Visit<'_>) -> Result<(Descriptor, Document), ArchiveError> {
        if !self.has("index.json") {
            return Err(self.malformed("there is no manifest.json and no index.json in it"));
        }
        let bytes = self.document("index.json")?;
        let mut document = self.read("index.json", &bytes)?;
        // An index may lead to further indexes; an image has a manifest at the end.
        for _ in 0..4 {
            let next = match oci::choose(&document.manifests, None) {
                Choice::One(next) => next.clone(),
                Choice::None(_) => return Err(self.malformed("its index names no manifest")),
            };
            let name = self.blob(&next)?;
            let bytes = self.document(&name)?;
            visit(&next, &bytes)?;
            document = self.read(&name, &bytes)?;
            if document.manifests.is_empty() {
                return Ok((next, document));
            }
        }
        Err(self.malformed("its indexes are nested too deeply"))
    }

    fn read(&self, name: &str, bytes: &[u8]) -> Result<Document, ArchiveError> {
        Document::read(bytes).map_err(|error| self.malformed(format!("{name}: {error}")))
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<String, ArchiveError> {
        let hex = descriptor.hex().ok_or_else(|| self.malformed("a descriptor has no sha256 digest"))?;
        Ok(format!("blobs/sha256/{hex}"))
    }

    fn take_oci(&mut self, content: &Content, limits: Limits) -> Result<String, ContentError> {
        let mut held = Vec::new();
        let (descriptor, manifest) = self.manifest(&mut |descriptor, bytes| {
            held.push((descriptor.digest.clone(), bytes.to_vec()));
            Ok(())
        })?;
        for (digest, bytes) in &held {
            content.put(digest, bytes)?;
        }
        let mut left = limits.bytes;
        for part in manifest.config.iter().chain(&manifest.layers) {
            let name = self.blob(part)?;
            left = self.copy(&name, &part.digest, content, left, limits)?;
        }
        Ok(descriptor.digest)
    }

    /// `docker save` names parts as it likes; the configuration holds the digests of the layers.
    fn take_docker(&mut self, content: &Content, limits: Limits) -> Result<String, ContentError> {
        if !self.has("manifest.json") {
            return Err(self.malformed("there is no manifest.json and no index.json in it").into());
        }
        let manifest = self.json("manifest.json")?;
        let config_name = manifest.pointer("/0/Config").and_then(Value::as_str).map(str::to_owned);
        let config_name = config_name.ok_or_else(|| self.malformed("its manifest names no configuration"))?;
        let config = self.document(&config_name)?;
        let stem = config_name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let config_digest = oci::sha256(&config);
        if config_digest != format!("sha256:{stem}") {
            return Err(ContentError::Damaged { digest: format!("sha256:{stem}") });
        }
        let parsed: Value = serde_json::from_slice(&config).unwrap_or_default();
        let digests: Vec<&str> = parsed
            .pointer("/rootfs/diff_ids")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let names = self.layers()?;
        if names.len() != digests.len() {
            return Err(self.malformed("its manifest and its configuration disagree about its layers").into());
        }
        let mut layers = Vec::new();
        let mut left = limits.bytes;
        for (name, digest) in names.iter().zip(digests) {
            let before = left;
            left = self.copy(name, digest, content, left, limits)?;
            layers.push(json!({ "mediaType": oci::LAYER, "digest": digest, "size": before - left }));
        }
        content.put(&config_digest, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": { "mediaType": oci::CONFIG, "digest": config_digest, "size": config.len() },
            "layers": layers,
        })
        .to_string();
        let digest = oci::sha256(manifest.as_bytes());
        content.put(&digest, manifest.as_bytes())?;
        Ok(digest)
    }

    /// Copies a part into the store: how many bytes are still allowed.
    fn copy(
        &mut self,
        name: &str,
        digest: &str,
        content: &Content,
        left: u64,
        limits: Limits,
    ) -> Result<u64, ContentError> {
        let path = self.name.clone();
        let reader = self.part(name)?;
        let mut draft = content.draft()?;
        let copied =
            io::copy(&mut reader.take(left.saturating_add(1)), &mut draft).map_err(io_error("reading", &path))?;
        if copied > left {
            return Err(ArchiveError::TooLarge(format!("{} bytes", limits.bytes)).into());
        }
        draft.keep(digest)?;
        Ok(left - copied)
    }

    fn malformed(&self, why: impl Into<String>) -> ArchiveError {
        ArchiveError::Malformed { path: self.name.clone(), why: why.into() }
    }
}

fn list(path: &Path, file: &File) -> Result<BTreeMap<String, Place>, ArchiveError> {
    /// No image has more parts.
    const MOST: usize = 100_000;

    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(BufReader::new(file));
    for entry in archive.entries_with_seek().map_err(|error| malformed(path, error))? {
        let entry = entry.map_err(|error| malformed(path, error))?;
        let Some(name) = entry.path().ok().and_then(|path| plain(&path)) else { continue };
        let place = match entry.header().entry_type() {
            kind if kind.is_file() => Place::At(entry.raw_file_position(), entry.size()),
            EntryType::Symlink | EntryType::Link => {
                let Ok(Some(link)) = entry.link_name() else { continue };
                let relative = entry.header().entry_type() == EntryType::Symlink;
                let base = Path::new(&name).parent().filter(|_| relative).unwrap_or(Path::new(""));
                let Some(target) = plain(&base.join(link)) else { continue };
                Place::Same(target)
            }
            _ => continue,
        };
        if found.len() == MOST {
            return Err(ArchiveError::TooLarge(format!("{MOST} parts")));
        }
        found.insert(name, place);
    }
    Ok(found)
}

/// A path without tricks: relative, no `..`; nothing otherwise.
fn plain(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests;
