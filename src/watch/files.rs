//! The system's notices → batches.
//!
//! Folders are watched one by one, so that what is ignored costs nothing. A file is watched through the folder it lies in, since
//! editors and compilers put a new file in the place of the old one. What is not there yet, or goes away with its folder, is
//! looked for now and then. Events are only hints: what matters is that something happened to a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::Batch;
use super::rules::Rule;
use crate::image::stamp::Stamp;

/// A batch is over when nothing happened for so long: whoever writes is done.
const QUIET: Duration = Duration::from_millis(150);
/// A batch does not wait longer than this for quiet.
const LONGEST: Duration = Duration::from_secs(3);
/// How often what is missing is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Notices that may wait to be read.
const NOTICES: usize = 4096;
/// Most folders that are watched; the system's own limit is of this size.
const MOST_FOLDERS: usize = 65_536;

/// Why nothing can be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The system gives no notices at all.
    #[error("watch files: {0}")]
    System(notify::Error),
    /// A folder cannot be watched.
    #[error("watch `{}`: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// There is too much.
    #[error("watch `{}`: more than {MOST_FOLDERS} folders", .0.display())]
    TooMany(PathBuf),
}

/// Watches what rules name.
pub struct Watch {
    rules: Arc<[Rule]>,
    watcher: RecommendedWatcher,
    notices: mpsc::Receiver<PathBuf>,
    /// The system, or our own queue, lost notices.
    lost: Arc<AtomicBool>,
    watched: BTreeSet<PathBuf>,
    /// Files that have a rule of their own, as they were last seen: their folders may come and go unnoticed.
    seen: BTreeMap<PathBuf, Option<Stamp>>,
}

impl Watch {
    /// Begins to watch; what happens from now on is in the next batch.
    pub fn begin(rules: Arc<[Rule]>) -> Result<Self, WatchError> {
        let (sender, notices) = mpsc::channel(NOTICES);
        let lost = Arc::new(AtomicBool::new(false));
        let overflow = lost.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return overflow.store(true, Ordering::Relaxed) };
            if event.need_rescan() {
                overflow.store(true, Ordering::Relaxed);
            }
            if !changes(&event.kind) {
                return;
            }
            for path in event.paths {
                if matches!(sender.try_send(path), Err(mpsc::error::TrySendError::Full(_))) {
                    overflow.store(true, Ordering::Relaxed);
                }
            }
        })
        .map_err(WatchError::System)?;
        let mut watch = Self { rules, watcher, notices, lost, watched: BTreeSet::new(), seen: BTreeMap::new() };
        watch.look(&mut Batch::default())?;
        Ok(watch)
    }

    /// The next batch: everything that changed until it was quiet for a moment.
    pub async fn next(&mut self) -> Result<Batch, WatchError> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut batch = Batch::default();
            tokio::select! {
                notice = self.notices.recv() => match notice {
                    Some(path) => self.take(&path, &mut batch)?,
                    // The watcher lives as long as this does.
                    None => std::future::pending().await,
                },
                _ = looks.tick() => self.look(&mut batch)?,
            }
            if batch.changes.is_empty() && !self.lost.load(Ordering::Relaxed) {
                continue;
            }
            let latest = Instant::now() + LONGEST;
            loop {
                let quiet = (Instant::now() + QUIET).min(latest);
                match timeout_at(quiet, self.notices.recv()).await {
                    Ok(Some(path)) => self.take(&path, &mut batch)?,
                    Ok(None) | Err(_) => break,
                }
            }
            batch.incomplete = self.lost.swap(false, Ordering::Relaxed);
            self.look(&mut batch)?;
            return Ok(batch);
        }
    }

    /// Something happened to a path: a file of some rule, or a folder that is to be watched from now on, or no more.
    fn take(&mut self, path: &Path, batch: &mut Batch) -> Result<(), WatchError> {
        if self.watched.contains(path) && !path.is_dir() {
            self.watched.retain(|folder| !folder.starts_with(path));
        }
        for number in 0..self.rules.len() {
            if self.rules[number].covers(path) {
                batch.add(number, path);
            }
        }
        if path.is_dir() && !self.watched.contains(path) && !is_link(path) {
            self.enter(path, Some(batch))?;
        }
        Ok(())
    }

    /// Watches a folder and those below it that some rule covers; a batch gets what is in them already.
    fn enter(&mut self, folder: &Path, mut batch: Option<&mut Batch>) -> Result<(), WatchError> {
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let within = |rule: &Rule| folder.starts_with(&rule.path) && !rule.leaves_out(&folder);
            if !self.rules.iter().any(within) || self.watched.contains(&folder) {
                continue;
            }
            self.watch(&folder)?;
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(path);
                } else if let Some(batch) = &mut batch {
                    let covering = self.rules.iter().enumerate().filter(|(_, rule)| rule.covers(&path));
                    covering.for_each(|(number, _)| batch.add(number, &path));
                }
            }
        }
        Ok(())
    }

    /// Watches what is there now and was not before, and compares files with how they were last seen.
    fn look(&mut self, batch: &mut Batch) -> Result<(), WatchError> {
        let paths: BTreeSet<PathBuf> = self.rules.iter().map(|rule| rule.path.clone()).collect();
        for path in paths {
            if let Some(above) = path.parent()
                && above.is_dir()
                && !self.watched.contains(above)
            {
                self.watch(above)?;
            }
            if path.is_dir() {
                self.enter(&path, None)?;
                continue;
            }
            let now = Stamp::of(&path);
            let before = self.seen.insert(path.clone(), now);
            if before.is_some_and(|before| before != now) {
                let own = self.rules.iter().enumerate().filter(|(_, rule)| rule.path == path);
                own.for_each(|(number, _)| batch.add(number, &path));
            }
        }
        Ok(())
    }

    fn watch(&mut self, folder: &Path) -> Result<(), WatchError> {
        if self.watched.len() >= MOST_FOLDERS {
            return Err(WatchError::TooMany(folder.to_owned()));
        }
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_owned());
                Ok(())
            }
            // It went away again: the next look sees whether it comes back.
            Err(_) if !folder.is_dir() => Ok(()),
            Err(source) => Err(WatchError::Folder { path: folder.to_owned(), source }),
        }
    }
}

/// Reading changes nothing.
fn changes(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Project, Service};
    use crate::watch::rules;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Bench {
        folder: tempfile::TempDir,
        watch: Watch,
    }

    impl Bench {
        /// `src`, watched but for `src/target`.
        fn of_sources() -> Self {
            Self::new(|folder| {
                let rule = json!({ "path": folder.join("src"), "action": "restart", "ignore": ["target"] });
                Service { document: json!({ "develop": { "watch": [rule] } }), ..Service::named("web") }
            })
        }

        /// The file `out/app.wasm`.
        fn of_module() -> Self {
            let image = |folder: &Path| Some(folder.join("out/app.wasm").display().to_string());
            Self::new(|folder| Service { image: image(folder), ..Service::named("web") })
        }

        fn new(service: impl FnOnce(&Path) -> Service) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["src/deep", "src/target", "out"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            let mut project = Project::named("p");
            project.services.insert("web".into(), service(folder.path()));
            let watch = Watch::begin(rules::rules(&project, &[], |_| None).into()).unwrap();
            Self { folder, watch }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        async fn next(&mut self) -> Vec<PathBuf> {
            let batch = tokio::time::timeout(PATIENCE, self.watch.next()).await.expect("a batch in time").unwrap();
            assert!(!batch.incomplete);
            batch.changes.into_values().flatten().collect()
        }
    }

    #[tokio::test]
    async fn what_is_written_at_once_is_one_batch_and_what_is_ignored_is_none() {
        let mut bench = Bench::of_sources();
        fs::write(bench.path("src/target/x"), "ignored").unwrap();
        fs::write(bench.path("src/.a.swp"), "ignored").unwrap();
        fs::write(bench.path("src/a"), "one").unwrap();
        fs::write(bench.path("src/deep/b"), "two").unwrap();
        assert_eq!(bench.next().await, [bench.path("src/a"), bench.path("src/deep/b")]);
        fs::remove_file(bench.path("src/a")).unwrap();
        assert_eq!(bench.next().await, [bench.path("src/a")]);
        assert!(!bench.watch.watched.contains(&bench.path("src/target")), "it costs nothing");
    }

    #[tokio::test]
    async fn a_new_folder_is_watched_with_what_is_in_it() {
        let mut bench = Bench::of_sources();
        fs::create_dir_all(bench.path("new/below")).unwrap();
        fs::write(bench.path("new/below/a"), "one").unwrap();
        fs::rename(bench.path("new"), bench.path("src/new")).unwrap();
        assert!(bench.next().await.contains(&bench.path("src/new/below/a")));
        fs::write(bench.path("src/new/below/b"), "two").unwrap();
        assert_eq!(bench.next().await, [bench.path("src/new/below/b")]);
    }

    #[tokio::test]
    async fn a_file_is_seen_however_it_comes() {
        let mut bench = Bench::of_module();
        let module = bench.path("out/app.wasm");
        fs::write(&module, "written").unwrap();
        assert_eq!(bench.next().await, std::slice::from_ref(&module));
        fs::write(bench.path("out/.app.tmp"), "in its place").unwrap();
        fs::rename(bench.path("out/.app.tmp"), &module).unwrap();
        assert_eq!(bench.next().await, std::slice::from_ref(&module));
        // Its folder goes and comes back, as after `cargo clean`.
        fs::remove_dir_all(bench.path("out")).unwrap();
        assert_eq!(bench.next().await, std::slice::from_ref(&module));
        fs::create_dir(bench.path("out")).unwrap();
        fs::write(&module, "a new one").unwrap();
        assert_eq!(bench.next().await, std::slice::from_ref(&module));
        fs::write(&module, "and another one").unwrap();
        assert_eq!(bench.next().await, [module]);
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let mut bench = Bench::of_sources();
        fs::write(bench.path("src/a"), "one").unwrap();
        bench.next().await;
        fs::read(bench.path("src/a")).unwrap();
        fs::read_dir(bench.path("src")).unwrap().count();
        let nothing = tokio::time::timeout(Duration::from_millis(600), bench.watch.next()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
}
