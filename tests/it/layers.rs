//! Who may import whom: the table of the layers, held against the sources.
//!
//! Every path that starts at `crate`, `self`, `super` or a foreign crate is collected from every file under `src`
//! (imports and inline paths alike, macros' bodies excepted), and must be allowed by [`LAYERS`] and [`FOREIGN`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Longest prefix wins: a module, and the modules of this crate it may name besides its own folder.
const LAYERS: &[(&str, &[&str])] = &[
    ("diag", &[]),
    ("model", &["diag"]),
    ("compose", &["model", "diag"]),
    ("net::wiring", &["model"]),
    ("net::policy", &["model", "net::wiring"]),
    ("net", &["model"]),
    ("image", &["model", "diag"]),
    ("watch", &["model", "image"]),
    ("plan", &["model", "net::wiring"]),
    ("engine::report", &["model", "plan::unit", "plan::observed"]),
    ("engine", &["model", "plan::unit", "plan::observed", "net", "image"]),
    ("event", &["model", "plan::observed"]),
    ("session", &["model", "event"]),
    ("supervisor::core", PURE),
    ("supervisor::instance", PURE),
    ("supervisor::restart", PURE),
    ("supervisor::health", PURE),
    ("supervisor", &["model", "plan", "event", "session", "engine", "net"]),
    ("control", &["model", "event", "session"]),
    ("view", &["model", "event", "session"]),
    (
        "cli",
        &[
            "diag",
            "model",
            "compose",
            "net",
            "image",
            "watch",
            "plan",
            "engine",
            "event",
            "session",
            "supervisor",
            "control",
            "view",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli"]),
];

/// What decides may know plans and reports, but no engine, no clock, no socket.
const PURE: &[&str] =
    &["model", "plan", "event", "session", "engine::report", "engine::Attempt", "engine::Tagged", "supervisor"];

/// A foreign crate that stays in the folder that wraps it.
const FOREIGN: &[(&str, &[&str])] = &[
    ("bollard", &["engine::docker"]),
    ("wasmtime", &["engine::wasm"]),
    ("wasmtime_wasi", &["engine::wasm"]),
    ("wasmtime_wasi_http", &["engine::wasm"]),
    ("wiggle", &["engine::wasm"]),
    ("wasmparser", &["image"]),
    ("wat", &["image"]),
    ("wac_graph", &["image::plug"]),
    ("clap", &["cli::args"]),
    ("ratatui", &["view::tui"]),
    ("crossterm", &["view::tui"]),
    ("petgraph", &["model::graph", "plan"]),
    ("saphyr_parser", &["compose::yaml"]),
    ("annotate_snippets", &["diag"]),
    ("gix", &["cli::remote::git"]),
    ("oci_client", &["image::registry"]),
    ("reqwest", &["image::registry"]),
    ("rustls", &["image::tls"]),
    ("tokio_rustls", &["engine::wasm"]),
    ("rustls_native_certs", &["engine::wasm"]),
    ("anyhow", &["cli"]),
    ("notify", &["watch"]),
    ("tokio", &["net", "watch", "engine", "session", "supervisor", "control", "view", "cli"]),
];

/// Modules that must not know tokio although their folder does.
const NO_TOKIO: &[&str] = &[
    "watch::rules",
    "net::wiring",
    "net::policy",
    "supervisor::core",
    "supervisor::instance",
    "supervisor::restart",
    "supervisor::health",
];

#[test]
fn every_import_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > 20, "the sources were not found under {}", src.display());
    let mut faults = Vec::new();
    for file in files {
        let module = module_of(file.strip_prefix(&src).expect("it was found beneath it"));
        let text = fs::read_to_string(&file).expect("a source can be read");
        let parsed = syn::parse_file(&text).expect("a source parses");
        let mut paths = Paths { module: module.clone(), found: BTreeSet::new() };
        paths.visit_file(&parsed);
        faults.extend(paths.found.iter().filter_map(|path| fault(&module, path)));
    }
    assert!(faults.is_empty(), "imports outside the table:\n{}", faults.join("\n"));
}

#[test]
fn a_call_against_the_arrow_is_found() {
    assert!(fault("model::service", "crate::compose::load").is_some());
    assert!(fault("supervisor::core", "crate::engine::docker").is_some());
    assert!(fault("supervisor::core", "tokio::sync::mpsc").is_some());
    assert!(fault("cli::up", "bollard::Docker").is_some());
    assert!(fault("cli::up", "crate::engine::Engine").is_none());
    assert!(fault("engine::docker::run", "bollard::Docker").is_none());
}

/// A sentence about a path that the table does not allow.
fn fault(module: &str, path: &str) -> Option<String> {
    if let Some(target) = path.strip_prefix("crate::") {
        if module == "lib" {
            return None;
        }
        let (layer, allowed) = LAYERS
            .iter()
            .filter(|(layer, _)| within(module, layer))
            .max_by_key(|(layer, _)| layer.len())
            .unwrap_or_else(|| panic!("module {module} is in no layer"));
        let own = layer.split("::").next().expect("split gives one item");
        let pure = *allowed == PURE || matches!(*layer, "net::wiring" | "net::policy" | "engine::report");
        if (!pure && within(target, own))
            || within(target, layer)
            || allowed.iter().any(|folder| within(target, folder))
        {
            return None;
        }
        return Some(format!("{module} may not name crate::{target}"));
    }
    let foreign = path.split("::").next().expect("split gives one item");
    if foreign == "tokio" && NO_TOKIO.iter().any(|pure| within(module, pure)) {
        return Some(format!("{module} may not name {path}"));
    }
    let (_, homes) = FOREIGN.iter().find(|(name, _)| *name == foreign)?;
    (!homes.iter().any(|home| within(module, home))).then(|| format!("{module} may not name {path}"))
}

fn within(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with("::"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            // The agent is a program of its own.
            if !path.ends_with("net/agent/agent") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(file: &Path) -> String {
    let mut parts: Vec<_> = file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|part| part == "mod") {
        parts.pop();
    }
    parts.join("::")
}

/// Collects the paths of one file, made absolute. Test modules are left out: a test may reach for what it needs.
struct Paths {
    module: String,
    found: BTreeSet<String>,
}

impl Paths {
    fn add(&mut self, segments: &[String]) {
        let mut absolute: Vec<String>;
        match segments.first().map(String::as_str) {
            Some("crate") => absolute = segments.to_vec(),
            Some("super" | "self") => {
                absolute = self.module.split("::").map(str::to_owned).collect();
                let mut rest = segments;
                while let Some(first) = rest.first() {
                    match first.as_str() {
                        "self" => {}
                        "super" => {
                            absolute.pop();
                        }
                        _ => break,
                    }
                    rest = &rest[1..];
                }
                absolute.extend_from_slice(rest);
                absolute.insert(0, "crate".into());
            }
            Some(_) => absolute = segments.to_vec(),
            None => return,
        }
        self.found.insert(absolute.join("::"));
    }

    fn tree(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.tree(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let test = item.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
        });
        if !test {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(&segments);
        }
        syn::visit::visit_path(self, path);
    }
}
