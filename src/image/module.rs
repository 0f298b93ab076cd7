//! What kind a `.wasm` is: told by its header, imports and exports, without running or compiling it.
//!
//! A module that wcompose cannot run is refused here, with every import that is missing by name and, for families people
//! know (WASIX, SpiderLightning, lunatic, …), what they are. Validation is the compiler's: nothing is read twice for it.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;
use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::model::ModuleKind;

/// Why a file is no module that wcompose runs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsuitable {
    /// Neither binary nor text form.
    #[error("it is not WebAssembly (its first bytes are {0})")]
    NotWasm(String),
    /// Code for a machine: never loaded, whoever made it.
    #[error("it is native code compiled ahead of time, which wcompose never loads: build the `.wasm` itself")]
    Native,
    /// The binary cannot be read.
    #[error("it is damaged: {0}")]
    Malformed(String),
    /// Nothing in it can be started.
    #[error("{0}")]
    NoEntry(String),
    /// Something it needs is not there.
    #[error("{0}")]
    Missing(Missing),
    /// What was to be joined with it does not fit.
    #[error(transparent)]
    Plug(#[from] super::plug::PlugError),
}

/// Imports that wcompose does not provide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Each import, `module.name` or `package:name/interface@version`, sorted.
    pub imports: Vec<String>,
    /// What those names belong to, where it is known.
    pub families: Vec<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it imports what wcompose does not provide: ")?;
        for (index, import) in self.imports.iter().enumerate() {
            write!(f, "{}`{import}`", if index == 0 { "" } else { ", " })?;
        }
        for family in &self.families {
            write!(f, "; {family}")?;
        }
        Ok(())
    }
}

/// What kind of module these bytes are, and that wcompose can run it. `function` is the export to call instead of
/// `_start`, when the image names one (`module.wasm#func`).
pub fn inspect(bytes: &[u8], function: Option<&str>) -> Result<ModuleKind, Unsuitable> {
    if bytes.starts_with(b"\x7fELF") {
        return Err(Unsuitable::Native);
    }
    if !Parser::is_core_wasm(bytes) && !Parser::is_component(bytes) {
        return Err(Unsuitable::NotWasm(first_bytes(bytes)));
    }
    let face = Face::read(bytes).map_err(|error| Unsuitable::Malformed(error.to_string()))?;
    let missing = face.missing();
    if !missing.imports.is_empty() {
        return Err(Unsuitable::Missing(missing));
    }
    face.kind(function)
}

/// The binary form of a module: text is translated, binaries pass as they are.
pub fn to_binary(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, Unsuitable> {
    wat::parse_bytes(bytes).map_err(|error| Unsuitable::Malformed(error.to_string()))
}

/// The outer imports and exports of a binary.
#[derive(Debug, Default)]
struct Face {
    component: bool,
    /// (module, name) of a core module's imports; the module is empty for a component's.
    imports: Vec<(String, String)>,
    exports: Vec<String>,
}

impl Face {
    fn read(bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut face = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding: Encoding::Component, .. } if depth == 0 => face.component = true,
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        face.imports.push((import.module.to_owned(), import.name.to_owned()));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        face.exports.push(export?.name.to_owned());
                    }
                }
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        face.imports.push((String::new(), import?.name.name.to_owned()));
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if matches!(export.kind, ComponentExternalKind::Instance | ComponentExternalKind::Func) {
                            face.exports.push(export.name.name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(face)
    }

    fn missing(&self) -> Missing {
        let mut imports = BTreeSet::new();
        let mut families = BTreeSet::new();
        for (module, name) in &self.imports {
            let provided = if self.component { provides_interface(name) } else { provides_function(module, name) };
            if !provided {
                imports.insert(if self.component { name.clone() } else { format!("{module}.{name}") });
                families.extend(family(if self.component { name } else { module }, name));
            }
        }
        Missing { imports: imports.into_iter().collect(), families: families.into_iter().collect() }
    }

    fn kind(&self, function: Option<&str>) -> Result<ModuleKind, Unsuitable> {
        if let Some(function) = function {
            if !self.exports.iter().any(|export| export == function) {
                return Err(Unsuitable::NoEntry(format!(
                    "it has no export `{function}` to call; it exports {}",
                    list(&self.exports)
                )));
            }
            return Ok(match (self.component, self.is_async()) {
                (false, _) => ModuleKind::Core,
                (true, false) => ModuleKind::Command,
                (true, true) => ModuleKind::AsyncCommand,
            });
        }
        if !self.component {
            return if self.exports.iter().any(|export| export == "_start") {
                Ok(ModuleKind::Core)
            } else {
                Err(Unsuitable::NoEntry(format!(
                    "it is a library: it exports {} but no `_start`; name the export to call as `module.wasm#export`",
                    list(&self.exports)
                )))
            };
        }
        let serves = self.exports_interface("wasi:http/handler", "0.3")
            || self.exports_interface("wasi:http/incoming-handler", "0.2");
        let runs = self.exports_interface("wasi:cli/run", "0.3") || self.exports_interface("wasi:cli/run", "0.2");
        match (serves, runs, self.is_async()) {
            (true, _, false) => Ok(ModuleKind::Http),
            (true, _, true) => Ok(ModuleKind::AsyncHttp),
            (false, true, false) => Ok(ModuleKind::Command),
            (false, true, true) => Ok(ModuleKind::AsyncCommand),
            (false, false, _) => Err(Unsuitable::NoEntry(format!(
                "it is a component that exports no `wasi:cli/run`, no `wasi:http/incoming-handler` (WASI 0.2) and no \
                 `wasi:http/handler` (WASI 0.3), but {}",
                list(&self.exports)
            ))),
        }
    }

    /// Whether anything of WASI 0.3 crosses its edge.
    fn is_async(&self) -> bool {
        let crossing = self.imports.iter().map(|(_, name)| name).chain(&self.exports);
        crossing
            .into_iter()
            .any(|name| name.starts_with("wasi:") && version(name).is_some_and(|version| version.starts_with("0.3.")))
    }

    fn exports_interface(&self, interface: &str, minor: &str) -> bool {
        self.exports.iter().any(|export| is_interface(export, interface, minor))
    }
}

/// The version of `interface@version`.
fn version(name: &str) -> Option<&str> {
    name.split_once('@').map(|(_, version)| version)
}

/// Whether `name` is `interface@<minor>.x`. Drafts are compatible with nothing but themselves.
fn is_interface(name: &str, interface: &str, minor: &str) -> bool {
    name.split_once('@').is_some_and(|(package, version)| {
        package == interface
            && !version.contains('-')
            && version.strip_prefix(minor).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Interfaces of WASI 0.2 that guests get, without their versions.
const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:clocks/wall-clock",
    "wasi:clocks/monotonic-clock",
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "wasi:http/types",
    "wasi:http/outgoing-handler",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:sockets/network",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Interfaces of WASI 0.3 that guests get, without their versions.
const ASYNC_INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:cli/types",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/system-clock",
    "wasi:clocks/types",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/client",
    "wasi:http/types",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/types",
];

/// Interfaces outside WASI's releases that guests get, in the one version there is of each.
const DRAFTS: &[&str] = &[
    "wasi:config/store@0.2.0-rc.1",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:logging/logging@0.1.0-draft",
];

/// Functions of WASI preview 1.
const PREVIEW1: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

fn provides_interface(name: &str) -> bool {
    INTERFACES.iter().any(|interface| is_interface(name, interface, "0.2"))
        || ASYNC_INTERFACES.iter().any(|interface| is_interface(name, interface, "0.3"))
        || DRAFTS.contains(&name)
}

/// What WasmEdge adds to them. Their types tell the version, and are looked at when a module is linked.
const SOCKETS: &[&str] = &[
    "epoll_oneoff",
    "sock_accept_v2",
    "sock_bind",
    "sock_bind_v2",
    "sock_connect",
    "sock_connect_v2",
    "sock_getaddrinfo",
    "sock_getlocaladdr",
    "sock_getlocaladdr_v2",
    "sock_getpeeraddr",
    "sock_getpeeraddr_v2",
    "sock_getsockopt",
    "sock_listen",
    "sock_listen_v2",
    "sock_open",
    "sock_open_v2",
    "sock_recv_from",
    "sock_recv_from_v2",
    "sock_recv_v2",
    "sock_send_to",
    "sock_send_to_v2",
    "sock_send_v2",
    "sock_setsockopt",
];

fn provides_function(module: &str, name: &str) -> bool {
    module == "wasi_snapshot_preview1" && (PREVIEW1.contains(&name) || SOCKETS.contains(&name))
}

/// What an import that is not provided belongs to.
fn family(module: &str, name: &str) -> Option<&'static str> {
    const SPIDERLIGHTNING: &[&str] =
        &["configs", "distributed-locking", "http", "http-client", "http-server", "keyvalue", "messaging", "sql"];
    let root = module.split("::").next().unwrap_or(module);
    Some(match root {
        _ if root.starts_with("wasix_") => {
            "`wasix_…` is WASIX, Wasmer's own system interface: build for `wasm32-wasip1` or `wasm32-wasip2`"
        }
        "lunatic" => "`lunatic::…` is the interface of the lunatic runtime",
        _ if SPIDERLIGHTNING.contains(&root) => {
            "these are SpiderLightning (`slight`) interfaces, which ended before WASI 0.2"
        }
        "wasi" if name == "thread-spawn" => {
            "`wasi.thread-spawn` is wasi-threads, and a guest has one thread: build for `wasm32-wasip1` without threads \
             (`-pthread`)"
        }
        "wasi_unstable" => "`wasi_unstable` is older than WASI preview 1: build with a current compiler",
        "wasi_ephemeral_nn" => "`wasi_ephemeral_nn` is WASI-NN",
        _ if root.starts_with("wasmedge_") => "`wasmedge_…` are plug-ins of WasmEdge",
        "go" | "gojs" => "this is Go for browsers: build with `GOOS=wasip1`",
        "wbg" | "__wbindgen_placeholder__" => "this is wasm-bindgen for browsers: build for `wasm32-wasip2`",
        "env" if name.starts_with("emscripten_") || name == "__syscall_openat" => {
            "this is Emscripten for browsers: build with wasi-sdk"
        }
        _ if root.starts_with("fermyon:spin/") || root.starts_with("spin-") => "these are interfaces of Spin",
        _ if root.starts_with("wasi:") && root.contains("@0.3.0-rc") => {
            "these are release candidates of WASI 0.3, which differ from its release: build with current tools"
        }
        _ if root.starts_with("wasi:keyvalue/") => {
            "of `wasi:keyvalue`, `store`, `atomics` and `batch` are provided, as `@0.2.0-draft`"
        }
        _ if root.starts_with("wasi:config/") || root.starts_with("wasi:runtime-config/") => {
            "of `wasi:config`, `store@0.2.0-rc.1` is provided"
        }
        _ => return None,
    })
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    let shown: Vec<_> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn first_bytes(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "missing: the file is empty".into();
    }
    format!("`{}`", bytes[..bytes.len().min(8)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Result<ModuleKind, Unsuitable> {
        inspect(&wat::parse_str(text).expect("the test's text is right"), None)
    }

    fn component(imports: &str, export: &str) -> String {
        let export = if export.is_empty() {
            String::new()
        } else {
            format!(r#"(instance $i) (export "{export}" (instance $i))"#)
        };
        format!("(component {imports} {export})")
    }

    #[test]
    fn kinds_are_told_by_exports() {
        assert_eq!(kind(r#"(module (func (export "_start")))"#), Ok(ModuleKind::Core));
        assert_eq!(kind(&component("", "wasi:cli/run@0.2.6")), Ok(ModuleKind::Command));
        assert_eq!(kind(&component("", "wasi:http/incoming-handler@0.2.0")), Ok(ModuleKind::Http));
        assert_eq!(kind(&component("", "wasi:cli/run@0.3.0")), Ok(ModuleKind::AsyncCommand));
        assert_eq!(kind(&component("", "wasi:http/handler@0.3.1")), Ok(ModuleKind::AsyncHttp));
        let mixed = component(r#"(import "wasi:clocks/types@0.3.0" (instance))"#, "wasi:cli/run@0.2.6");
        assert_eq!(kind(&mixed), Ok(ModuleKind::AsyncCommand));
        assert!(matches!(kind(&component("", "wasi:cli/run@0.3.0-rc-2026-01-06")), Err(Unsuitable::NoEntry(_))));
        assert!(matches!(kind(&component("", "")), Err(Unsuitable::NoEntry(_))));
    }

    #[test]
    fn a_library_says_what_it_exports() {
        let error = kind(r#"(module (func (export "add")) (func (export "sub")))"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is a library: it exports `add`, `sub` but no `_start`; name the export to call as `module.wasm#export`"
        );
    }

    #[test]
    fn a_named_export_is_enough() {
        let bytes = wat::parse_str(r#"(module (func (export "add")))"#).unwrap();
        assert_eq!(inspect(&bytes, Some("add")), Ok(ModuleKind::Core));
        assert!(matches!(inspect(&bytes, Some("gone")), Err(Unsuitable::NoEntry(_))));
    }

    #[test]
    fn every_missing_import_is_named() {
        let error = kind(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_write" (func))
                (import "wasix_32v1" "thread_spawn_v2" (func))
                (import "env" "now" (func))
                (func (export "_start")))"#,
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "it imports what wcompose does not provide: `env.now`, `wasix_32v1.thread_spawn_v2`; \
             `wasix_…` is WASIX, Wasmer's own system interface: build for `wasm32-wasip1` or `wasm32-wasip2`"
        );
        let error = kind(&component(
            r#"(import "wasi:keyvalue/store@0.2.0" (instance)) (import "wasi:io/poll@0.2.3" (instance))"#,
            "wasi:cli/run@0.2.0",
        ))
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "it imports what wcompose does not provide: `wasi:keyvalue/store@0.2.0`; \
             of `wasi:keyvalue`, `store`, `atomics` and `batch` are provided, as `@0.2.0-draft`"
        );
    }

    #[test]
    fn threads_are_told_as_what_they_are() {
        let text = r#"(module
            (import "env" "memory" (memory 1 2 shared))
            (import "wasi" "thread-spawn" (func (param i32) (result i32)))
            (func (export "wasi_thread_start") (param i32 i32))
            (func (export "_start")))"#;
        assert_eq!(
            kind(text).unwrap_err().to_string(),
            "it imports what wcompose does not provide: `env.memory`, `wasi.thread-spawn`; `wasi.thread-spawn` is \
             wasi-threads, and a guest has one thread: build for `wasm32-wasip1` without threads (`-pthread`)"
        );
    }

    #[test]
    fn inner_modules_do_not_count() {
        let text = r#"(component
            (core module (import "env" "x" (func)) (func (export "_start")))
            (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#;
        assert_eq!(kind(text), Ok(ModuleKind::Command));
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(inspect(b"\x7fELF....", None), Err(Unsuitable::Native));
        let error = inspect(b"#!/bin/sh\n", None).unwrap_err();
        assert_eq!(error.to_string(), "it is not WebAssembly (its first bytes are `#!/bin/s`)");
        assert!(matches!(inspect(b"\0asm\x01\0\0\0\xff\xff", None), Err(Unsuitable::Malformed(_))));
    }
}
