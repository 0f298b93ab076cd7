//! Service inheritance: `extends`, within a file and from another one; a cycle is shown as a path.
//!
//! Works on one document before it is merged with others, so `!reset` and `!override` of the extending service act on
//! the base here and on earlier files later.

use std::path::{Path as FilePath, PathBuf};

use super::files;
use super::merge::{self, Directives};
use super::node::{Directive, Map, Node, Path};
use super::{Check, Loader, resolve, values};
use crate::diag::Diagnostic;

/// One service of one file, on the way through its bases.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    file: PathBuf,
    service: String,
}

/// Replaces every `extends` in the services of a document by what it stands for.
pub(super) fn apply(loader: &mut Loader<'_>, document: &mut Node, file: &FilePath, directory: &FilePath) {
    let Some(services) = document.get("services").and_then(Node::as_map).cloned() else { return };
    let mut resolved = services.clone();
    for (name, service) in &services {
        if base_of(service).is_none() {
            continue;
        }
        let mut trail = Vec::new();
        if let Some(merged) = service_of(loader, &services, &name.text, file, directory, &mut trail) {
            resolved.insert(name.clone(), merged);
        } else if let Some(map) = resolved.get_mut(&*name.text).and_then(Node::as_map_mut) {
            map.shift_remove("extends");
        }
    }
    if let Some(map) = document.as_map_mut()
        && let Some(node) = map.get_mut("services")
        && let Some(entries) = node.as_map_mut()
    {
        *entries = resolved;
    }
}

/// A service with all its bases merged in; nothing when that is not possible, which is reported.
fn service_of(
    loader: &mut Loader<'_>,
    services: &Map,
    name: &str,
    file: &FilePath,
    directory: &FilePath,
    trail: &mut Vec<Step>,
) -> Option<Node> {
    let (key, service) = services.get_key_value(name)?;
    let Some(extends) = base_of(service) else { return Some(service.clone()) };
    let Some(base_name) = extends.text_at("service") else {
        loader.diagnostics.push(
            Diagnostic::error(extends.span, format!("`extends` of service `{name}` names no service"))
                .hint("write `extends: {service: NAME}`, with `file:` when it stands in another file"),
        );
        return None;
    };
    let step = Step { file: file.to_owned(), service: name.to_owned() };
    if let Some(at) = trail.iter().position(|earlier| *earlier == step) {
        let path: Vec<_> = trail[at..].iter().chain([&step]).map(|step| step.service.as_str()).collect();
        loader.diagnostics.push(
            Diagnostic::error(extends.span, format!("services extend each other in a circle: {}", path.join(" → ")))
                .related(key.span, format!("`{name}` is part of it")),
        );
        return None;
    }
    trail.push(step);
    let mut base = match extends.get("file").filter(|file| !file.is_null()) {
        Some(reference) => {
            let (other, other_file) = other_services(loader, reference, name, base_name, directory)?;
            let folder = other_file.parent().unwrap_or(FilePath::new("/")).to_owned();
            missing_base(loader, &other, extends, base_name)?;
            service_of(loader, &other, base_name, &other_file, &folder, trail)?
        }
        None => {
            missing_base(loader, services, extends, base_name)?;
            service_of(loader, services, base_name, file, directory, trail)?
        }
    };
    trail.pop();
    merge::settle(&mut base);
    let mut over = service.clone();
    if base.is_null() {
        // Compose leaves an `extends` of an empty service where it is.
        return Some(over);
    }
    if let Some(map) = over.as_map_mut() {
        map.shift_remove("extends");
    }
    let path = Path::root().key("services").key(name);
    let span = over.span;
    merge::merge(&mut base, over, &path, Directives::Keep, &mut loader.diagnostics);
    base.span = span;
    Some(base)
}

/// What a service extends.
fn base_of(service: &Node) -> Option<&Node> {
    service.get("extends").filter(|extends| extends.directive != Directive::Reset)
}

fn missing_base(loader: &mut Loader<'_>, services: &Map, extends: &Node, name: &str) -> Option<()> {
    if services.contains_key(name) {
        return Some(());
    }
    let place = extends.get("service").unwrap_or(extends);
    let mut diagnostic = place.error(format!("there is no service `{name}` to extend"));
    if let Some(similar) = values::similar(name, merge::keys(services)) {
        diagnostic = diagnostic.hint(format!("did you mean `{similar}`?"));
    }
    loader.diagnostics.push(diagnostic);
    None
}

/// The services of another file, with its relative paths resolved where it stands.
fn other_services(
    loader: &mut Loader<'_>,
    reference: &Node,
    name: &str,
    base_name: &str,
    directory: &FilePath,
) -> Option<(Map, PathBuf)> {
    let Some(text) = reference.as_text() else {
        loader.diagnostics.push(reference.error(format!("`services.{name}.extends.file` must be a string")));
        return None;
    };
    let path = files::join(directory, loader.expand_home(text));
    let id = loader.open(&path, Some(reference))?;
    let mut whole: Option<Node> = None;
    for document in loader.documents(id, Check::Later)? {
        match &mut whole {
            None => whole = Some(document),
            Some(whole) => merge::merge(whole, document, &Path::root(), Directives::Keep, &mut loader.diagnostics),
        }
    }
    let mut whole = whole?;
    let folder = path.parent().unwrap_or(FilePath::new("/")).to_owned();
    if whole.get("services").and_then(Node::as_map).is_none() {
        let shown = loader.sources.path(id).display().to_string();
        loader
            .diagnostics
            .push(reference.error(format!("service `{base_name}` cannot be extended: `{shown}` has no services")));
        return None;
    }
    let home = loader.home();
    resolve::paths(&mut whole, &folder, home.as_deref(), loader.files);
    let services = whole.get("services").and_then(Node::as_map).cloned()?;
    Some((services, path))
}
