//! Service inheritance: `extends`, within a file and from another one; a cycle is shown as a path.
//!
//! Works on one document before it is merged with others, so `!reset` and `!override` of the extending service act on
//! the base here and on earlier files later.

use std::path::{Path as FilePath, PathBuf};
use std::rc::Rc;

use super::files::Fetched;
use super::limits;
use super::merge::{self, Directives};
use super::node::{Data, Directive, Map, Node};
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
    let Some(services) = document.get("services").and_then(Node::as_map) else { return };
    let extending = services.iter().filter(|(_, service)| base_of(service).is_some());
    let merged: Vec<_> = extending
        .map(|(key, _)| {
            let merged = service_of(loader, services, &key.text, file, directory, &mut Vec::new());
            (key.clone(), merged)
        })
        .collect();
    let Some(services) = document.get_mut("services").and_then(Node::as_map_mut) else { return };
    for (key, merged) in merged {
        match merged {
            Some(merged) => {
                services.insert(key, merged);
            }
            None => {
                loader.unextended.insert(key.text.to_string());
                if let Some(service) = services.get_mut(&*key.text).and_then(Node::as_map_mut) {
                    service.shift_remove("extends");
                }
            }
        }
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
        let circle = &trail[at..];
        // It is told once, not from each service in it.
        if !circle.iter().any(|step| loader.unextended.contains(&step.service)) {
            let path = circle.iter().chain([&step]).map(|step| step.service.as_str()).collect::<Vec<_>>().join(" → ");
            loader.diagnostics.push(
                Diagnostic::error(extends.span, format!("services extend each other in a circle: {path}"))
                    .related(key.span, format!("`{name}` is part of it"))
                    .hint("one of these `extends` has to go"),
            );
        }
        loader.unextended.extend(circle.iter().map(|step| step.service.clone()));
        return None;
    }
    if trail.len() >= limits::EXTENDS {
        let message = format!("more than {} services extend one another in a row", limits::EXTENDS);
        loader.diagnostics.push(Diagnostic::error(extends.span, message));
        return None;
    }
    trail.push(step);
    let mut base = match extends.get("file").filter(|file| !file.is_null()) {
        Some(reference) => {
            let (other, other_path) = other_file(loader, reference, name, base_name, directory)?;
            let folder = other_path.parent().unwrap_or(FilePath::new("/")).to_owned();
            let other = other.get("services").and_then(Node::as_map)?;
            missing_base(loader, other, extends, base_name)?;
            service_of(loader, other, base_name, &other_path, &folder, trail)?
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
    let span = over.span;
    merge::service(&mut base, over, name, loader.form(), &mut loader.diagnostics);
    loader.spend(limits::cost(&base), span)?;
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

/// Another file, with its relative paths resolved where it stands. It is read once, however many services extend it.
fn other_file(
    loader: &mut Loader<'_>,
    reference: &Node,
    name: &str,
    base_name: &str,
    directory: &FilePath,
) -> Option<(Rc<Node>, PathBuf)> {
    let Some(text) = reference.as_text() else {
        loader.diagnostics.push(reference.error(format!("`services.{name}.extends.file` must be a string")));
        return None;
    };
    // As in compose, the paths of a file in a git repository are relative to the repository, not to the file.
    let Fetched { file: path, root: folder } = loader.named(text, directory, Some(reference))?;
    let id = loader.open(&path, Some(reference))?;
    if let Some(known) = loader.bases.get(&id) {
        return Some((known.clone(), path));
    }
    let form = loader.form();
    let mut whole: Option<Node> = None;
    for document in loader.documents(id, Check::Later)? {
        match &mut whole {
            None => whole = Some(document),
            Some(whole) => merge::documents(whole, document, Directives::Keep, form, &mut loader.diagnostics),
        }
    }
    let mut whole = whole?;
    if whole.get("services").and_then(Node::as_map).is_none() {
        let shown = loader.sources.path(id).display().to_string();
        loader
            .diagnostics
            .push(reference.error(format!("service `{base_name}` cannot be extended: `{shown}` has no services")));
        return None;
    }
    // As in compose, only a file that is loaded itself has to say what is waited for.
    let services = whole.get_mut("services").and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut);
    for dependencies in services.filter_map(|service| service.get_mut("depends_on")?.as_map_mut()) {
        for dependency in dependencies.values_mut() {
            dependency.default_key("condition", Data::Text("service_started".to_owned()));
        }
    }
    let home = loader.home();
    resolve::paths(&mut whole, &folder, home.as_deref(), loader.files);
    let whole = Rc::new(whole);
    loader.bases.insert(id, whole.clone());
    Some((whole, path))
}
