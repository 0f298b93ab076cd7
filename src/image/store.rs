//! wcompose's own store of modules, by content: `<data>/modules/<digest>.wasm`.
//!
//! What is stored is never changed. A file is written under a temporary name and renamed, so a reader sees all of it or nothing.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::module::{self, Unsuitable};
use crate::model::{ImageConfig, Module};

/// Modules by digest.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
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
        Self { folder: data.join("modules") }
    }

    /// The module of a local file, binary or text. A binary stays where it is; a text is translated into the store.
    pub fn local(&self, reference: &str, path: &Path, function: Option<&str>) -> Result<Module, ModuleError> {
        let bytes = fs::read(path).map_err(io_error("read", path))?;
        let unsuitable = |source| ModuleError::Unsuitable { path: path.to_owned(), source };
        let is_text = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wat"));
        let binary = if is_text { module::to_binary(&bytes).map_err(unsuitable)? } else { bytes.as_slice().into() };
        let kind = module::inspect(&binary, function).map_err(unsuitable)?;
        let digest = digest(&binary);
        let path = if is_text { self.put(&binary, &digest)? } else { path.to_owned() };
        Ok(Module {
            reference: reference.to_owned(),
            path,
            digest,
            size: binary.len() as u64,
            kind,
            function: function.map(str::to_owned),
            root: None,
            config: ImageConfig::default(),
        })
    }

    /// Bytes of a stored module.
    pub fn size(&self, digest: &str) -> Option<u64> {
        fs::metadata(self.folder.join(format!("{digest}.wasm"))).ok().map(|metadata| metadata.len())
    }

    /// Stores a binary and answers where it is. `digest` is its SHA-256, computed by the caller.
    pub fn put(&self, bytes: &[u8], digest: &str) -> Result<PathBuf, ModuleError> {
        let path = self.folder.join(format!("{digest}.wasm"));
        if path.exists() {
            return Ok(path);
        }
        let folder = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        folder.map_err(io_error("make", &self.folder))?;
        let temporary = self.folder.join(format!(".{digest}.{}", std::process::id()));
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            io_error("write", &path)(source)
        })?;
        Ok(path)
    }
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
