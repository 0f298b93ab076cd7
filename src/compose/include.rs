//! `include`: other projects loaded on their own, with their own folder and environment, and then joined to this one.
//!
//! Nothing that is defined here may be defined there, unless both say the same.

use std::path::{Path as FilePath, PathBuf};

use super::document::{Printer, Scope};
use super::interpolate::Environment;
use super::node::{Data, Key, Node, Path};
use super::{Loader, files, limits, locate, spec};
use crate::diag::{Diagnostic, Diagnostics, Severity};

/// What an included project adds.
const SECTIONS: [&str; 6] = ["services", "volumes", "networks", "secrets", "configs", "models"];

/// Loads what a document includes and joins it to the document. `trail` are the files that led here.
pub(super) fn apply(
    loader: &mut Loader<'_>,
    document: &mut Node,
    directory: &FilePath,
    environment: &Environment,
    trail: &[PathBuf],
) {
    let Some(map) = document.as_map_mut() else { return };
    let Some(include) = map.shift_remove("include") else { return };
    let entries = match include.data {
        Data::List(entries) => entries,
        Data::Null => return,
        _ => {
            loader
                .diagnostics
                .push(include.error("`include` must be a list").label(format!("this is {}", include.describe())));
            return;
        }
    };
    for entry in entries {
        let include = Path::ROOT.key("include");
        let mut wrong = Diagnostics::default();
        Printer { diagnostics: &mut wrong, scope: Scope::Whole }.record(&entry, &spec::INCLUDE, &include.element());
        let mut wrong = wrong.sorted();
        for diagnostic in wrong.iter_mut().filter(|diagnostic| diagnostic.message.starts_with("unknown key")) {
            diagnostic.severity = Severity::Warning;
        }
        let usable = wrong.iter().all(|diagnostic| diagnostic.severity == Severity::Warning);
        loader.diagnostics.extend(wrong);
        let model = if usable { one(loader, &entry, directory, environment, trail) } else { None };
        match model {
            Some(model) => join(loader, document, model),
            None => loader.complete = false,
        }
    }
}

fn one(
    loader: &mut Loader<'_>,
    entry: &Node,
    directory: &FilePath,
    environment: &Environment,
    trail: &[PathBuf],
) -> Option<Node> {
    let texts = |key: &str| entry.get(key).and_then(Node::as_list).unwrap_or_default().to_vec();
    let mut paths = Vec::new();
    let listed = texts("path");
    for node in &listed {
        if let Some(fetched) = loader.named(node.as_text()?, directory, Some(node)) {
            paths.push((fetched.file, node));
        }
    }
    if paths.len() < listed.len() {
        return None;
    }
    let (main, main_node) = paths.first()?;
    if trail.contains(main) {
        let mut names: Vec<_> =
            trail.iter().chain([main]).map(|path| loader.shown(path).display().to_string()).collect();
        let start = trail.iter().position(|path| path == main).unwrap_or(0);
        let circle = names.split_off(start).join(" → ");
        loader.diagnostics.push(main_node.error(format!("files include each other in a circle: {circle}")));
        return None;
    }
    loader.spend(limits::INCLUDE, entry.span)?;
    let folder = match entry.text_at("project_directory") {
        Some(text) => files::join(directory, loader.expand_home(text)),
        None => main.parent().unwrap_or(FilePath::new("/")).to_owned(),
    };
    let mut inner = environment.clone();
    for (name, value) in env_files(loader, &texts("env_file"), &folder, directory, environment)? {
        inner.entry(name).or_insert(value);
    }
    let mut ids = Vec::new();
    for (path, node) in &paths {
        ids.push((path.clone(), loader.open(path, Some(node))?));
    }
    let mut trail = trail.to_vec();
    trail.push(main.clone());
    loader.model(&ids, &folder, &inner, &trail)
}

fn env_files(
    loader: &mut Loader<'_>,
    listed: &[Node],
    folder: &FilePath,
    directory: &FilePath,
    environment: &Environment,
) -> Option<Environment> {
    let mut variables = Environment::new();
    if listed.is_empty() {
        let path = folder.join(".env");
        if loader.files.kind(&path) == Some(files::Kind::File) {
            locate::read_env_file(loader, &path, None, environment, &mut variables)?;
        }
    }
    for node in listed {
        let path = files::join(directory, loader.expand_home(node.as_text()?));
        locate::read_env_file(loader, &path, Some(node), environment, &mut variables)?;
    }
    Some(variables)
}

fn join(loader: &mut Loader<'_>, document: &mut Node, model: Node) {
    let Data::Map(mut model) = model.data else { return };
    for section in SECTIONS {
        let Some(Node { data: Data::Map(entries), span, .. }) = model.shift_remove(section) else { continue };
        let Some(map) = document.as_map_mut() else { return };
        let target = map.entry(Key::new(section, span)).or_insert_with(|| Node::map(span, []));
        let Some(target) = target.as_map_mut() else { continue };
        for (key, node) in entries {
            match target.get_key_value(&*key.text) {
                Some((_, existing)) if *existing == node => {}
                Some((here, _)) => loader.diagnostics.push(
                    Diagnostic::error(
                        here.span,
                        format!("`{section}.{}` is also defined in an included file", key.text),
                    )
                    .related(key.span, "defined here too")
                    .hint("rename one, or put the change in an override file listed under `include.path`"),
                ),
                None => {
                    target.insert(key, node);
                }
            }
        }
    }
}
