//! From a Spin application to its components and their files: out of the files of an image, or in Spin's own form out of a
//! registry.
//!
//! A component sees the files that the manifest gives it and no others. They are unpacked once, into a folder named by the
//! image: that of an application's only component is the guest's root, those of several lie beside each other, by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::json;

use super::content::ContentError;
use super::credentials::base64;
use super::ignore::{Star, fits};
use super::layers::{Limits, Target, io_error};
use super::oci::{self, Document};
use super::pick::{Entry, LARGEST, LONGEST, PickError, Picker, contained};
use super::spin::{self, App, Mounted, Part};
use super::store;
use crate::model::application::{AppComponent, Application};
use crate::model::{ImageConfig, Module};

/// No image has folders that deep; a link that leads back up would make some.
const DEEPEST: usize = 64;

impl Picker {
    /// An application on scratch: `spin.toml` in a folder with an image's files.
    pub(super) fn spin(
        &self,
        reference: &str,
        folder: &Path,
        config: ImageConfig,
        entry: Entry<'_>,
    ) -> Result<Module, PickError> {
        let path = folder.join("spin.toml");
        let text = contained(folder, &path).and_then(fs::read_to_string).map_err(io_error("reading", &path))?;
        let app = spin::manifest(&text, &|name| entry.variable(name))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let root = self.unpacked(&format!("{name}-app"), |root| {
            for part in &app.components {
                let room = room(root, &app, part)?;
                let files = Files { image: folder, excluded: &part.excluded };
                part.files.iter().try_for_each(|file| files.place(file, &room))?;
            }
            Ok(())
        })?;
        let module = |part: &Part| {
            let source = folder.join(part.source.trim_start_matches('/'));
            let Ok(source) = contained(folder, &source) else {
                return Err(none(format!("`{}` of its `spin.toml` is not a file in it", part.source)));
            };
            fs::read(&source).map_err(|error| io_error("reading", &source)(error).into())
        };
        self.application(reference, app, module, config, root)
    }

    /// An application that a registry holds in Spin's own form.
    pub(super) fn locked_spin(
        &self,
        reference: &str,
        digest: &str,
        manifest: &Document,
        entry: Entry<'_>,
    ) -> Result<Module, PickError> {
        let config = manifest.config.as_ref().map(|config| self.content.read(&config.digest, LONGEST)).transpose()?;
        let app = spin::locked(&config.unwrap_or_default(), &|name| entry.variable(name))?;
        let hex = oci::hex(digest).ok_or_else(|| ContentError::NoDigest(digest.to_owned()))?;
        let root = self.unpacked(&format!("{hex}-app"), |root| {
            let bundled = self.bundled(reference, manifest, &root.join(BUNDLES))?;
            for part in &app.components {
                let room = room(root, &app, part)?;
                part.files.iter().try_for_each(|file| self.place(reference, manifest, &bundled, file, &room))?;
            }
            match fs::remove_dir_all(root.join(BUNDLES)) {
                Err(error) if !bundled.is_empty() => Err(io_error("removing", root)(error).into()),
                _ => Ok(()),
            }
        })?;
        let module = |part: &Part| self.content.read(&part.source, LARGEST).map_err(PickError::from);
        let config = ImageConfig { platform: "wasi/wasm".into(), ..ImageConfig::default() };
        self.application(reference, app, module, config, root)
    }

    /// The files in layers that are archives of many, by their own digests.
    fn bundled(
        &self,
        reference: &str,
        manifest: &Document,
        folder: &Path,
    ) -> Result<BTreeMap<String, PathBuf>, PickError> {
        let mut found = BTreeMap::new();
        for (at, layer) in manifest.layers.iter().filter(|layer| layer.media_type.contains(".tar")).enumerate() {
            let folder = folder.join(at.to_string());
            fs::create_dir_all(&folder).map_err(io_error("creating", &folder))?;
            Target::new(&folder, Limits::default()).apply(self.content.open(&layer.digest)?, Path::new(reference))?;
            for file in walk(&folder)? {
                let file = folder.join(file);
                // A link could lead to a file of this machine.
                if file.is_symlink() {
                    continue;
                }
                let bytes = fs::read(&file).map_err(io_error("reading", &file))?;
                found.insert(oci::sha256(&bytes), file);
            }
        }
        Ok(found)
    }

    /// Writes one of the files that a registry holds.
    fn place(
        &self,
        reference: &str,
        manifest: &Document,
        bundled: &BTreeMap<String, PathBuf>,
        file: &Mounted,
        room: &Path,
    ) -> Result<(), PickError> {
        let (content, target) = match file {
            Mounted::Inline { content, target } => {
                let content = base64(content).ok_or_else(|| none(format!("its file `{target}` is damaged")))?;
                (content, below(room, target)?)
            }
            Mounted::Stored { digest, target } => {
                let target = below(room, target)?;
                let layer = manifest.layers.iter().find(|layer| layer.digest == *digest);
                match (layer, bundled.get(digest)) {
                    (Some(layer), _) if layer.media_type.contains(".tar") => {
                        fs::create_dir_all(&target).map_err(io_error("creating", &target))?;
                        let mut files = Target::new(&target, Limits::default());
                        return Ok(files.apply(self.content.open(digest)?, Path::new(reference))?);
                    }
                    (None, Some(bundled)) => (fs::read(bundled).map_err(io_error("reading", bundled))?, target),
                    _ => (self.content.read(digest, LARGEST)?, target),
                }
            }
            Mounted::Matching(path) | Mounted::Placed { source: path, .. } => {
                return Err(none(format!("its file `{path}` is not in the registry")));
            }
        };
        make_above(&target)?;
        fs::write(&target, content).map_err(io_error("writing", &target))?;
        Ok(())
    }

    /// The components as one module: the first, with the others beside it.
    fn application(
        &self,
        reference: &str,
        app: App,
        module: impl Fn(&Part) -> Result<Vec<u8>, PickError>,
        mut config: ImageConfig,
        root: PathBuf,
    ) -> Result<Module, PickError> {
        if app.components.len() > 1 && self.store.is_plugging() {
            let count = app.components.len();
            return Err(none(format!("`x-wasm.plug` joins one component, and its Spin application has {count}")));
        }
        let mut components = Vec::new();
        let below = std::mem::take(&mut config.environment);
        for part in app.components {
            let environment: IndexMap<_, _> = below.clone().into_iter().chain(part.environment.clone()).collect();
            let named = |why: String| none(format!("`{}` of the Spin application: {why}", part.name));
            let own = ImageConfig { environment, platform: config.platform.clone(), ..ImageConfig::default() };
            let made = self.artifact(reference, &part.source, module(&part)?, None, own);
            let module = made.map_err(|error| match error {
                PickError::None(why) => named(why),
                other => other,
            })?;
            if !module.kind.is_http() {
                return Err(named(format!("it is a {}, not a wasi:http component", module.kind.as_str())));
            }
            components.push(AppComponent { name: part.name, module, settings: part.settings });
        }
        let parts: Vec<_> = components
            .iter()
            .map(|part| json!([part.name, part.module.digest, part.module.config.environment, part.settings]))
            .collect();
        let digest = store::digest(json!([app.base, app.routes, parts]).to_string().as_bytes());
        let first = components.first().expect("each route has a component").module.clone();
        // `/spin.toml` names no module, and is no argument.
        (config.entrypoint, config.command) = (Vec::new(), Vec::new());
        config.application = Some(Arc::new(Application { components, base: app.base, routes: app.routes, digest }));
        Ok(Module { root: Some(root), config, ..first })
    }
}

/// Where archives are unpacked before their files get their places.
const BUNDLES: &str = ".bundles";

/// Where the files of a component go.
fn room(root: &Path, app: &App, part: &Part) -> Result<PathBuf, PickError> {
    let room = if app.components.len() == 1 { root.to_owned() } else { root.join(&part.name) };
    fs::create_dir_all(&room).map_err(io_error("creating", &room))?;
    Ok(room)
}

/// The files of an image, for one component.
struct Files<'f> {
    image: &'f Path,
    excluded: &'f [String],
}

impl Files<'_> {
    fn place(&self, file: &Mounted, room: &Path) -> Result<(), PickError> {
        match file {
            Mounted::Placed { source, target } => self.copy(Path::new(source), &below(room, target)?, 0),
            Mounted::Matching(path) if self.image.join(relative(path)).exists() => {
                self.copy(relative(path), &below(room, path)?, 0)
            }
            Mounted::Matching(pattern) if pattern.contains(['*', '?', '[']) => {
                let fitting = walk(self.image)?.into_iter().filter(|path| fits(pattern, path, Star::StopsAtSlash));
                fitting.filter(|path| !self.excludes(path)).try_for_each(|path| {
                    let place = below(room, &path)?;
                    self.copy_file(&self.image.join(path), &place)
                })
            }
            Mounted::Matching(path) => Err(none(format!("`{path}` of its `spin.toml` is not in it"))),
            Mounted::Stored { target, .. } | Mounted::Inline { target, .. } => {
                Err(none(format!("its file `{target}` is in a registry")))
            }
        }
    }

    /// As Spin has it: here `*` matches a slash as well.
    fn excludes(&self, path: &str) -> bool {
        self.excluded.iter().any(|pattern| fits(pattern, path, Star::Crosses))
    }

    /// Copies a file of the image, or a folder with all that is in it; links that stay in the image are followed. `from` is
    /// below the image.
    fn copy(&self, from: &Path, to: &Path, depth: usize) -> Result<(), PickError> {
        let from = from.strip_prefix("/").unwrap_or(from);
        let path = self.image.join(from);
        let real = path.canonicalize().map_err(io_error("reading", &path))?;
        self.check_inside(&real, from)?;
        if depth > DEEPEST {
            return Err(none(format!("`{}` is too deep", from.display())));
        }
        if !real.is_dir() {
            // Named by itself, a file is there whatever is excluded.
            return if depth > 0 && self.excludes(&from.to_string_lossy()) {
                Ok(())
            } else {
                self.copy_file(&real, to)
            };
        }
        fs::create_dir_all(to).map_err(io_error("creating", to))?;
        for entry in fs::read_dir(&real).map_err(io_error("reading", &real))? {
            let name = entry.map_err(io_error("reading", &real))?.file_name();
            self.copy(&from.join(&name), &to.join(&name), depth + 1)?;
        }
        Ok(())
    }

    fn copy_file(&self, from: &Path, to: &Path) -> Result<(), PickError> {
        let real = from.canonicalize().map_err(io_error("reading", from))?;
        self.check_inside(&real, from)?;
        make_above(to)?;
        fs::copy(&real, to).map(drop).map_err(io_error("copying", &real))?;
        Ok(())
    }

    fn check_inside(&self, real: &Path, shown: &Path) -> Result<(), PickError> {
        let image = self.image.canonicalize().map_err(io_error("reading", self.image))?;
        if real.starts_with(image) { Ok(()) } else { Err(none(format!("`{}` leads out of it", shown.display()))) }
    }
}

/// The files below a folder, by their paths from there; links are not followed into folders.
fn walk(folder: &Path) -> Result<Vec<String>, PickError> {
    let (mut found, mut waiting) = (Vec::new(), vec![(folder.to_owned(), String::new(), 0)]);
    while let Some((path, name, depth)) = waiting.pop() {
        for entry in fs::read_dir(&path).map_err(io_error("reading", &path))? {
            let entry = entry.map_err(io_error("reading", &path))?;
            let name = format!("{name}{}", entry.file_name().to_string_lossy());
            match entry.file_type().map_err(io_error("reading", &path))? {
                kind if kind.is_dir() && depth < DEEPEST => {
                    waiting.push((entry.path(), format!("{name}/"), depth + 1));
                }
                kind if kind.is_dir() => {}
                _ => found.push(name),
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

/// A place below a folder that is named from outside.
fn below(root: &Path, target: &str) -> Result<PathBuf, PickError> {
    let mut path = root.to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(none(format!("it puts a file outside of its root: `{target}`")));
            }
        }
    }
    Ok(path)
}

fn make_above(target: &Path) -> Result<(), PickError> {
    let folder = target.parent().unwrap_or(target);
    fs::create_dir_all(folder).map_err(io_error("creating", folder))?;
    Ok(())
}

fn none(why: impl ToString) -> PickError {
    PickError::None(why.to_string())
}
