//! What the stores hold and nobody uses: blobs of images that no name leads to, modules that can be made again from them, files
//! of images that can be unpacked again, facts of module files that hold no more.
//!
//! What was used a moment ago stays, whatever it is: it may be on its way into a project, and no lock tells.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::content::{Content, Named};
use super::facts;
use super::oci::{self, Document};
use super::store::Store;

/// What was used this lately stays.
const YOUNG: Duration = Duration::from_secs(600);
/// Longest document that is read to learn what it leads to.
const LONGEST: u64 = 16 << 20;

/// Whether things are removed or only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    /// They are removed.
    Done,
    /// They would be.
    Told,
}

/// What stays.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Names that stay; absent means all.
    pub names: Option<BTreeSet<String>>,
    /// Modules that stay, by digest.
    pub modules: BTreeSet<String>,
    /// What was used less than this long ago.
    pub unused: Option<Duration>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Names of images.
    pub names: usize,
    /// Blobs of images.
    pub blobs: usize,
    /// Modules.
    pub modules: usize,
    /// Unpacked images.
    pub folders: usize,
    /// Facts of module files.
    pub facts: usize,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Removes what does not stay from the stores, and from `images`, the folder of unpacked images.
pub fn prune(content: &Content, store: &Store, images: &Path, keep: &Keep, pruning: Pruning) -> io::Result<Freed> {
    let old = |used: SystemTime| used.elapsed().is_ok_and(|age| age >= keep.unused.unwrap_or_default().max(YOUNG));
    let mut freed = Freed::default();
    let unwanted =
        |named: &Named| old(named.fetched) && keep.names.as_ref().is_some_and(|names| !names.contains(&named.name));
    let (gone, named): (Vec<_>, Vec<_>) = content.names().into_iter().partition(unwanted);
    for name in gone {
        if pruning == Pruning::Done {
            content.forget(&name.name)?;
        }
        freed.names += 1;
    }
    let reached = reached(content, named);
    for file in listed(&content.blobs())? {
        if old(file.used) && !file.path.file_name().is_some_and(|name| reached.contains(&*name.to_string_lossy())) {
            freed.bytes += file.bytes;
            freed.blobs += 1;
            file.remove(pruning)?;
        }
    }
    for file in listed(store.folder())? {
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if old(file.used) && !keep.modules.contains(&stem) {
            freed.bytes += file.bytes;
            freed.modules += 1;
            file.remove(pruning)?;
        }
    }
    for folder in listed(images)? {
        if old(folder.used) {
            freed.bytes += folder.bytes;
            // Beside a folder lies a list of its files.
            freed.folders += usize::from(folder.path.is_dir());
            folder.remove(pruning)?;
        }
    }
    // The last, as modules of unpacked images may have gone just now.
    for file in listed(store.facts().folder())? {
        if old(file.used) && !facts::holds(&file.path) {
            freed.bytes += file.bytes;
            freed.facts += 1;
            file.remove(pruning)?;
        }
    }
    Ok(freed)
}

/// The blobs that names lead to, by their digits.
fn reached(content: &Content, names: Vec<Named>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<String> = names.into_iter().map(|named| named.digest).collect();
    while let Some(digest) = waiting.pop() {
        let Some(hex) = oci::hex(&digest) else { continue };
        if !reached.insert(hex.to_owned()) {
            continue;
        }
        // Of what leads on, documents alone are read; a layer is none.
        let Ok(bytes) = content.read(&digest, LONGEST) else { continue };
        let Ok(document) = Document::read(&bytes) else { continue };
        let parts = document.config.into_iter().chain(document.layers).chain(document.manifests);
        waiting.extend(parts.map(|part| part.digest));
    }
    reached
}

/// A file, or a folder with all that is in it.
struct Found {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Found {
    fn remove(self, pruning: Pruning) -> io::Result<()> {
        let removed = match (pruning, self.path.is_dir()) {
            (Pruning::Told, _) => return Ok(()),
            (Pruning::Done, true) => fs::remove_dir_all(&self.path),
            (Pruning::Done, false) => fs::remove_file(&self.path),
        };
        match removed {
            // Another process was as fast.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn listed(folder: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // What is gone meanwhile is nobody's.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        found.push(Found { bytes: size(&path), used: metadata.modified()?, path });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Bytes of a file, or of all files in a folder.
fn size(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}

/// Marks a file or a folder of the stores as used now.
pub(super) fn use_now(path: &Path) {
    // Without it, it only looks older than it is.
    let _ = fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::facts::{Fact, State};
    use super::*;
    use crate::model::ModuleKind;

    /// Stores of their own, all that is in them used an hour ago.
    struct Bench {
        folder: tempfile::TempDir,
        content: Content,
        store: Store,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (content, store) = (Content::new(folder.path()), Store::new(folder.path()));
            for (name, layer) in [("kept:1", "one"), ("gone:1", "two")] {
                let [config, layer] = [format!("{{\"for\": \"{name}\"}}"), layer.to_owned()].map(|part| {
                    let digest = oci::sha256(part.as_bytes());
                    content.put(&digest, part.as_bytes()).unwrap();
                    json!({ "digest": digest })
                });
                let manifest = json!({ "config": config, "layers": [layer] }).to_string();
                let digest = oci::sha256(manifest.as_bytes());
                content.put(&digest, manifest.as_bytes()).unwrap();
                content.name(name, &digest).unwrap();
            }
            content.put(&oci::sha256(b"dangling"), b"dangling").unwrap();
            store.put(b"module", "used").unwrap();
            store.put(b"module", "unused").unwrap();
            fs::create_dir_all(folder.path().join("images/abc/below")).unwrap();
            fs::write(folder.path().join("images/abc/below/file"), "12345").unwrap();
            let bench = Self { folder, content, store };
            bench.age(bench.folder.path());
            bench
        }

        fn age(&self, path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.age(&entry.path());
            }
            let hour = SystemTime::now() - Duration::from_secs(3600);
            fs::File::open(path).unwrap().set_modified(hour).unwrap();
        }

        fn prune(&self, keep: &Keep, pruning: Pruning) -> Freed {
            prune(&self.content, &self.store, &self.folder.path().join("images"), keep, pruning).unwrap()
        }
    }

    fn used() -> Keep {
        Keep { modules: BTreeSet::from(["used".to_owned()]), ..Keep::default() }
    }

    #[test]
    fn what_no_name_leads_to_goes_and_what_is_used_stays() {
        let bench = Bench::new();
        let expected = Freed { blobs: 1, modules: 1, folders: 1, bytes: 8 + 6 + 5, ..Freed::default() };
        assert_eq!(bench.prune(&used(), Pruning::Told), expected);
        assert_eq!(bench.prune(&used(), Pruning::Done), expected, "nothing was removed before");
        assert_eq!(bench.prune(&used(), Pruning::Done), Freed::default());
        assert!(bench.content.named("gone:1").is_some() && bench.store.size("used").is_some());
    }

    #[test]
    fn names_that_nobody_uses_go_with_all_they_lead_to() {
        let bench = Bench::new();
        let keep = Keep { names: Some(BTreeSet::from(["kept:1".to_owned()])), ..used() };
        let freed = bench.prune(&keep, Pruning::Done);
        assert_eq!((freed.names, freed.blobs), (1, 4));
        assert!(bench.content.named("kept:1").is_some() && bench.content.named("gone:1").is_none());
        let kept = bench.content.named("kept:1").unwrap();
        let manifest = Document::read(&bench.content.read(&kept.digest, LONGEST).unwrap()).unwrap();
        assert!(manifest.layers.iter().all(|layer| bench.content.has(&layer.digest)));
    }

    #[test]
    fn facts_of_modules_that_are_gone_or_changed_go() {
        let bench = Bench::new();
        let facts = bench.store.facts();
        // A file of the system that nobody changes.
        let file = fs::canonicalize("/bin/sh").unwrap();
        let fact = Fact { digest: "a".into(), size: 3, kind: ModuleKind::Core };
        facts.keep(&file, None, State::of(&file).unwrap(), fact.clone());
        let [kept] = listed(facts.folder()).unwrap().try_into().ok().expect("one fact");
        let text = fs::read_to_string(&kept.path).unwrap();
        for (name, text) in [
            ("gone.json", text.replace(file.to_str().unwrap(), "/no/such/module")),
            ("changed.json", text.replace("\"inode\":", "\"inode\":1")),
            ("torn.json", "{".to_owned()),
        ] {
            fs::write(facts.folder().join(name), text).unwrap();
        }
        assert_eq!(bench.prune(&used(), Pruning::Done).facts, 0, "they were made just now");
        bench.age(facts.folder());
        assert_eq!(bench.prune(&used(), Pruning::Told).facts, 3);
        assert_eq!(bench.prune(&used(), Pruning::Done).facts, 3);
        assert_eq!(facts.recall(&file, None, &State::of(&file).unwrap()), Some(fact));
    }

    #[test]
    fn what_was_used_lately_stays() {
        let bench = Bench::new();
        bench.store.put(b"module", "unused").unwrap();
        let freed = bench.prune(&used(), Pruning::Done);
        assert_eq!((freed.modules, freed.blobs), (0, 1), "it was stored again");
        let bench = Bench::new();
        let keep = Keep { unused: Some(Duration::from_secs(7200)), ..Keep::default() };
        assert_eq!(bench.prune(&keep, Pruning::Done), Freed::default());
    }
}
