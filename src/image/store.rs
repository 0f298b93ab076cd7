//! wcompose's own store of modules, by content: `<data>/modules/<digest>.wasm`.
//!
//! What is stored is never changed.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::facts::{Fact, Facts, State};
use super::module::{self, Unsuitable};
use super::plug::{self, Part};
use super::prune::use_now;
use super::whole;
use crate::model::{ImageConfig, Module};

/// Modules by digest.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    /// What is joined with each module that comes out of it.
    plugs: Vec<PathBuf>,
}

/// A module that could not be had.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// The file cannot be read or stored.
    #[error("{action} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is no module that wcompose runs.
    #[error("`{}` cannot run: {source}", path.display())]
    Unsuitable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Unsuitable,
    },
}

impl Store {
    /// The store in a data folder; nothing is made before something is stored.
    pub fn new(data: &Path) -> Self {
        Self { folder: data.join("modules"), plugs: Vec::new() }
    }

    /// The same store, for a service whose module is joined with these components.
    pub fn plugging(&self, plugs: &[PathBuf]) -> Self {
        Self { folder: self.folder.clone(), plugs: plugs.to_vec() }
    }

    /// Whether modules are joined with others.
    pub fn is_plugging(&self) -> bool {
        !self.plugs.is_empty()
    }

    /// The module of a local file, binary or text. A binary stays where it is; a text, and what plugs were joined with, is kept
    /// in the store.
    pub fn local(&self, reference: &str, path: &Path, function: Option<&str>) -> Result<Module, ModuleError> {
        let as_it_is = !self.is_plugging() && !is_text(path);
        let state = if as_it_is { State::of(path) } else { None };
        if let Some(known) = state.as_ref().and_then(|state| self.facts().recall(path, function, state)) {
            return Ok(made(reference, path.to_owned(), function, known));
        }
        let binary = self.joined(&path.display().to_string(), read(path)?)?;
        let module = self.module(reference, path, &binary, as_it_is.then(|| path.to_owned()), function)?;
        if let Some(state) = state {
            let fact = Fact { digest: module.digest.clone(), size: module.size, kind: module.kind };
            self.facts().keep(path, function, state, fact);
        }
        Ok(module)
    }

    /// The module of a binary that is no file of this machine, under the name that people know it by; it is kept in the store.
    pub fn keep(
        &self,
        reference: &str,
        name: &str,
        binary: Vec<u8>,
        function: Option<&str>,
    ) -> Result<Module, ModuleError> {
        let binary = self.joined(name, binary)?;
        self.module(reference, Path::new(name), &binary, None, function)
    }

    /// A binary, joined with the plugs.
    fn joined(&self, name: &str, mut binary: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
        for plug in &self.plugs {
            let (shown, part) = (plug.display().to_string(), read(plug)?);
            let joined = plug::plug(Part { name, bytes: &binary }, Part { name: &shown, bytes: &part });
            let unsuitable =
                |error: plug::PlugError| ModuleError::Unsuitable { path: name.into(), source: error.into() };
            binary = joined.map_err(unsuitable)?;
        }
        Ok(binary)
    }

    fn module(
        &self,
        reference: &str,
        shown: &Path,
        binary: &[u8],
        place: Option<PathBuf>,
        function: Option<&str>,
    ) -> Result<Module, ModuleError> {
        let unsuitable = |source| ModuleError::Unsuitable { path: shown.to_owned(), source };
        let kind = module::inspect(binary, function).map_err(unsuitable)?;
        let digest = digest(binary);
        let path = place.map_or_else(|| self.put(binary, &digest), Ok)?;
        Ok(made(reference, path, function, Fact { digest, size: binary.len() as u64, kind }))
    }

    /// What is known of module files that are not in it.
    pub(super) fn facts(&self) -> Facts {
        Facts::new(self.folder.with_file_name("facts"))
    }

    /// Where modules are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of a stored module.
    pub fn size(&self, digest: &str) -> Option<u64> {
        fs::metadata(self.folder.join(format!("{digest}.wasm"))).ok().map(|metadata| metadata.len())
    }

    /// Stores a binary and answers where it is. `digest` is its SHA-256, computed by the caller.
    pub fn put(&self, bytes: &[u8], digest: &str) -> Result<PathBuf, ModuleError> {
        let path = self.folder.join(format!("{digest}.wasm"));
        if path.exists() {
            use_now(&path);
            return Ok(path);
        }
        let folder = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        folder.map_err(io_error("make", &self.folder))?;
        whole::write(&path, bytes).map_err(io_error("write", &path))?;
        Ok(path)
    }
}

fn made(reference: &str, path: PathBuf, function: Option<&str>, fact: Fact) -> Module {
    let Fact { digest, size, kind } = fact;
    Module {
        reference: reference.to_owned(),
        path,
        digest,
        size,
        kind,
        function: function.map(str::to_owned),
        root: None,
        files: None,
        config: ImageConfig::default(),
    }
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wat"))
}

/// The binary form of a file.
fn read(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let bytes = fs::read(path).map_err(io_error("read", path))?;
    if !is_text(path) {
        return Ok(bytes);
    }
    let binary = module::to_binary(&bytes).map(std::borrow::Cow::into_owned);
    binary.map_err(|source| ModuleError::Unsuitable { path: path.to_owned(), source })
}

/// SHA-256 as 64 hex digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> ModuleError + 'a {
    move |source| ModuleError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModuleKind;

    #[test]
    fn text_is_translated_and_kept_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("app.wat");
        fs::write(&source, r#"(module (func (export "_start")))"#).unwrap();
        let store = Store::new(folder.path());
        let module = store.local("./app.wat", &source, None).unwrap();
        assert_eq!(module.kind, ModuleKind::Core);
        assert_eq!(module.path, folder.path().join("modules").join(format!("{}.wasm", module.digest)));
        let stored = fs::read(&module.path).unwrap();
        assert_eq!((digest(&stored), stored.len() as u64), (module.digest.clone(), module.size));
        assert_eq!(store.local("./app.wat", &source, None).unwrap(), module);
        assert_eq!(fs::read_dir(folder.path().join("modules")).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let missing = folder.path().join("gone.wasm");
        let error = store.local("./gone.wasm", &missing, None).unwrap_err();
        assert!(error.to_string().starts_with(&format!("read `{}`: ", missing.display())), "{error}");
        let script = folder.path().join("run.wasm");
        fs::write(&script, "echo").unwrap();
        let error = store.local("./run.wasm", &script, None).unwrap_err();
        assert!(error.to_string().contains("cannot run: it is not WebAssembly"), "{error}");
    }
}
