//! What a service's image turned out to be, once images are resolved.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::application::Application;
use super::health::Healthcheck;
use super::port::ExposedPort;

/// What runs a service, decided after its image was looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// A Linux container.
    Linux {
        /// The reference its container is created from.
        image: String,
        /// The engine's image id, `sha256:…` (label `com.docker.compose.image`).
        id: String,
        /// The image's own settings.
        config: ImageConfig,
    },
    /// A Wasm guest.
    Wasm(Module),
}

impl Resolved {
    /// The image's own settings, of either kind.
    pub fn config(&self) -> &ImageConfig {
        match self {
            Self::Linux { config, .. } => config,
            Self::Wasm(module) => &module.config,
        }
    }

    /// Whether a guest runs it.
    pub fn is_wasm(&self) -> bool {
        matches!(self, Self::Wasm(_))
    }
}

/// A Wasm module on this machine, ready to be compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// What `ps` shows as its image: the reference or the path as written.
    pub reference: String,
    /// The `.wasm` file, binary form, on this machine.
    pub path: PathBuf,
    /// SHA-256 of its bytes, 64 hex digits.
    pub digest: String,
    /// Size of the `.wasm` in bytes.
    pub size: u64,
    /// How it runs.
    pub kind: ModuleKind,
    /// Export to call instead of `_start` (`module.wasm#func`).
    pub function: Option<String>,
    /// Folder with the image's other files; the guest's private root starts as this.
    pub root: Option<PathBuf>,
    /// SHA-256 over the image's other files, 64 hex digits; absent where there are none.
    pub files: Option<String>,
    /// The image's own settings; empty for a local file.
    pub config: ImageConfig,
}

impl Module {
    /// The application it stands for; an export that is called is its own.
    pub fn application(&self) -> Option<&Arc<Application>> {
        self.config.application.as_ref().filter(|_| self.function.is_none())
    }
}

/// How a module runs, told by its header, imports and exports (see DESIGN, "How a module runs").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// Core module, WASI preview 1.
    Core,
    /// Component that exports `wasi:cli/run@0.2`.
    Command,
    /// Component that exports `wasi:http/incoming-handler@0.2`: wcompose serves it.
    Http,
    /// Component with a `wasi:cli/run` that imports or exports WASI 0.3: its calls run concurrently.
    AsyncCommand,
    /// Component with a `wasi:http` handler that imports or exports WASI 0.3: wcompose serves it.
    AsyncHttp,
}

impl ModuleKind {
    /// What people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "WASI p1 module",
            Self::Command => "WASI p2 command",
            Self::Http => "wasi:http component",
            Self::AsyncCommand => "WASI p3 command",
            Self::AsyncHttp => "wasi:http component (WASI p3)",
        }
    }

    /// Whether wcompose serves it.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::AsyncHttp)
    }

    /// Whether it needs the component model's concurrency.
    pub fn is_async(self) -> bool {
        matches!(self, Self::AsyncCommand | Self::AsyncHttp)
    }
}

/// The part of an OCI image configuration that matters here (OCI image spec, `config`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageConfig {
    /// `os/architecture`, e.g. `linux/amd64`, `wasi/wasm`.
    pub platform: String,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub command: Vec<String>,
    /// `Env`.
    pub environment: IndexMap<String, String>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// `ExposedPorts`.
    pub exposed: Vec<ExposedPort>,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
    /// `Healthcheck`.
    pub healthcheck: Option<Healthcheck>,
    /// The components of an application and the routes to them; then the module is the first of them.
    pub application: Option<Arc<Application>>,
}
