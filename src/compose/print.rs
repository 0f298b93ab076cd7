//! `config`: a loaded project as text.
//!
//! Prints what compose prints: JSON without `models` and the `x-` keys of services (its YAML has both), every
//! `$` doubled so that the output can be loaded again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Environment, Reference, decode, yaml};
use crate::model::graph::ServiceGraph;
use crate::model::{Project, ServiceName};

/// `--format` of `config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The default.
    #[default]
    Yaml,
    /// `json`.
    Json,
}

/// Whether a `$` of a value is printed as `$$`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dollars {
    /// Values are resolved: a `$` stands for itself and is escaped.
    Escape,
    /// Variables are still in place.
    Keep,
}

/// A list `config` prints instead of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `--services`, dependencies first.
    Services,
    /// `--volumes`.
    Volumes,
    /// `--networks`.
    Networks,
    /// `--models`.
    Models,
    /// `--images`.
    Images,
    /// `--profiles`.
    Profiles,
}

/// Takes the document of a project, cut down to some services and what they depend on; all of it when none is named.
///
/// The error is the name no service has.
pub fn select(project: &mut Project, services: &[String]) -> Result<Value, String> {
    let mut document = std::mem::take(&mut project.document);
    if services.is_empty() {
        return Ok(document);
    }
    let names: Vec<ServiceName> = services.iter().map(ServiceName::new).collect();
    if let Some(unknown) = names.iter().find(|name| !project.services.contains_key(*name)) {
        return Err(unknown.to_string());
    }
    let wanted = ServiceGraph::of(project).with_dependencies(&names);
    if let Some(all) = document.get_mut("services").and_then(Value::as_object_mut) {
        all.retain(|name, _| wanted.contains(name.as_str()));
        for service in all.values_mut().filter_map(Value::as_object_mut) {
            if let Some(dependencies) = service.get_mut("depends_on").and_then(Value::as_object_mut) {
                dependencies.retain(|name, _| wanted.contains(name.as_str()));
            }
            if service.get("depends_on").and_then(Value::as_object).is_some_and(Map::is_empty) {
                service.shift_remove("depends_on");
            }
        }
    }
    if !project.all_resources {
        decode::retain_used(&mut document);
    }
    Ok(document)
}

/// A document as text, with its last line ended.
pub fn document(document: Value, format: Format, dollars: Dollars) -> String {
    let mut document = ordered(document);
    if dollars == Dollars::Escape {
        escape(&mut document);
    }
    match format {
        Format::Json => {
            if dollars == Dollars::Escape {
                without_extensions(&mut document);
                if let Some(object) = document.as_object_mut() {
                    object.shift_remove("models");
                }
            }
            serde_json::to_string_pretty(&document).expect("a JSON value can be written") + "\n"
        }
        Format::Yaml => {
            if dollars == Dollars::Escape {
                without_unset_commands(&mut document);
                without_zero_structs(&mut document);
                lower_device_limits(&mut document);
            }
            to_yaml(document)
        }
    }
}

/// A document as YAML. The writer leaves text plain that others read as a date, a number or a boolean; such text is
/// marked for it, so that it is quoted, and the marks are taken out again.
fn to_yaml(mut document: Value) -> String {
    const MARK: &str = "\u{1}";
    const WRITTEN: &str = "\"\\x01";
    let plain = serde_yaml::to_string(&document).expect("a JSON value can be written as YAML");
    if plain.contains(WRITTEN) {
        return plain;
    }
    rewrite(&mut document, &|text| (!text.is_empty() && !yaml::is_text_to_all(text)).then(|| format!("{MARK}{text}")));
    serde_yaml::to_string(&document).expect("a JSON value can be written as YAML").replace(WRITTEN, "\"")
}

/// Replaces texts and keys.
fn rewrite(value: &mut Value, rule: &dyn Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => *text = rule(text).unwrap_or_else(|| std::mem::take(text)),
        Value::Array(list) => list.iter_mut().for_each(|value| rewrite(value, rule)),
        Value::Object(object) => {
            if object.keys().any(|key| rule(key).is_some()) {
                let entries = std::mem::take(object).into_iter();
                *object = entries.map(|(key, value)| (rule(&key).unwrap_or(key), value)).collect();
            }
            object.values_mut().for_each(|value| rewrite(value, rule));
        }
        _ => {}
    }
}

/// Name first, then the sections as compose orders them, then the extensions.
fn ordered(document: Value) -> Value {
    let Value::Object(mut object) = document else { return document };
    let sections = ["name", "services", "networks", "volumes", "secrets", "configs", "models"];
    let mut ordered: Map<_, _> = sections.iter().filter_map(|key| object.shift_remove_entry(*key)).collect();
    ordered.extend(object);
    Value::Object(ordered)
}

fn escape(value: &mut Value) {
    rewrite(value, &|text| text.contains('$').then(|| text.replace('$', "$$")));
}

/// Keys of the user's own, below which a name may begin with `x-` and mean itself.
const NAMED: [&str; 7] = ["services", "networks", "volumes", "secrets", "configs", "models", "depends_on"];
const FREE: [&str; 8] =
    ["environment", "labels", "args", "annotations", "driver_opts", "options", "sysctls", "storage_opt"];

fn without_extensions(document: &mut Value) {
    for (key, section) in document.as_object_mut().into_iter().flatten() {
        if !NAMED.contains(&key.as_str()) {
            continue;
        }
        for element in section.as_object_mut().into_iter().flat_map(Map::values_mut) {
            strip(element);
        }
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !key.starts_with("x-"));
            for (key, value) in object {
                if NAMED.contains(&key.as_str()) {
                    value.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(strip);
                    value.as_array_mut().into_iter().flatten().for_each(strip);
                } else if !FREE.contains(&key.as_str()) {
                    strip(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Compose's YAML, unlike its JSON, leaves an unset command out, of hooks too.
fn without_unset_commands(document: &mut Value) {
    let unset = |key: &str, value: &Value| matches!(key, "command" | "entrypoint") && value.is_null();
    for service in document.get_mut("services").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        let Some(service) = service.as_object_mut() else { continue };
        service.retain(|key, value| !unset(key, value));
        for hooks in ["pre_start", "post_start", "pre_stop"] {
            for hook in service.get_mut(hooks).and_then(Value::as_array_mut).into_iter().flatten() {
                hook.as_object_mut().into_iter().for_each(|hook| hook.retain(|key, value| !unset(key, value)));
            }
        }
        let watch = service.get_mut("develop").and_then(|develop| develop.get_mut("watch"));
        for rule in watch.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(exec) = rule.get_mut("exec").and_then(Value::as_object_mut) {
                exec.retain(|key, value| !unset(key, value));
            }
            rule.retain(|key, value| key != "exec" || value.as_object().is_some_and(|exec| !exec.is_empty()));
        }
    }
}

/// Nor has its YAML address management, limits and placement that say nothing.
fn without_zero_structs(document: &mut Value) {
    let entries = |document: &mut Value, section: &str, act: &dyn Fn(&mut Map<String, Value>)| {
        let entries = document.get_mut(section).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
        entries.filter_map(Value::as_object_mut).for_each(act);
    };
    let says = |value: &Value| value.as_object().is_none_or(|object| !object.is_empty());
    entries(document, "networks", &|network| network.retain(|key, value| key != "ipam" || says(value)));
    entries(document, "services", &|service| {
        if let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut) {
            deploy.retain(|key, value| !matches!(key.as_str(), "resources" | "placement") || says(value));
        }
    });
}

/// Compose's JSON has `Path`, `Rate` and `Weight` where its files, and its YAML, have them in lower case.
fn lower_device_limits(document: &mut Value) {
    let services = document.get_mut("services").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    let limits = services.filter_map(|service| service.get_mut("blkio_config")?.as_object_mut());
    for entry in limits.flat_map(Map::values_mut).filter_map(Value::as_array_mut).flatten() {
        if let Some(entry) = entry.as_object_mut() {
            *entry = std::mem::take(entry).into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
        }
    }
}

/// One of `config`'s lists, an entry a line.
pub fn list(project: &Project, document: &Value, list: List) -> Vec<String> {
    let keys = |section: &str| -> Vec<String> {
        let mut keys: Vec<_> =
            document.get(section).and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect();
        keys.sort();
        keys
    };
    match list {
        List::Services => {
            let present: BTreeSet<_> = keys("services").into_iter().collect();
            let order = ServiceGraph::of(project).order();
            order.iter().map(ToString::to_string).filter(|name| present.contains(name)).collect()
        }
        List::Volumes => keys("volumes"),
        List::Networks => keys("networks"),
        List::Models => {
            let models = document.get("models").and_then(Value::as_object);
            models
                .into_iter()
                .flatten()
                .filter_map(|(_, model)| Some(model.get("model")?.as_str()?.to_owned()))
                .collect()
        }
        List::Images => keys("services")
            .into_iter()
            .map(|name| match document["services"][name.as_str()]["image"].as_str() {
                Some(image) => image.to_owned(),
                None => project.image_of(&ServiceName::new(name)),
            })
            .collect(),
        List::Profiles => {
            let all = project.services.values().chain(project.disabled.values());
            let profiles: BTreeSet<_> = all.flat_map(|service| service.profiles.iter().cloned()).collect();
            profiles.into_iter().collect()
        }
    }
}

/// `--environment`: the variables the files saw.
pub fn environment(environment: &Environment) -> Vec<String> {
    environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// `--variables` with a format.
pub fn references(references: &BTreeMap<String, Reference>, format: Format) -> String {
    let entry = |reference: &Reference| match format {
        Format::Json => json!({
            "Name": reference.name,
            "DefaultValue": reference.default,
            "PresenceValue": reference.alternate,
            "Required": reference.required,
        }),
        Format::Yaml => json!({
            "name": reference.name,
            "defaultvalue": reference.default,
            "presencevalue": reference.alternate,
            "required": reference.required,
        }),
    };
    let all = Value::Object(references.iter().map(|(name, reference)| (name.clone(), entry(reference))).collect());
    match format {
        Format::Json => all.to_string() + "\n",
        Format::Yaml => serde_yaml::to_string(&all).expect("a JSON value can be written as YAML"),
    }
}

/// `--variables`: a table.
pub fn variables(references: &BTreeMap<String, Reference>) -> String {
    let mut rows = vec![["NAME".to_owned(), "REQUIRED".into(), "DEFAULT VALUE".into(), "ALTERNATE VALUE".into()]];
    for reference in references.values() {
        let required = reference.required.to_string();
        rows.push([reference.name.clone(), required, reference.default.clone(), reference.alternate.clone()]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 3;
    let widths = [width(0), width(1), width(2)];
    rows.iter()
        .map(|[name, required, default, alternate]| {
            let [a, b, c] = widths;
            format!("{name:a$}{required:b$}{default:c$}{alternate}").trim_end().to_owned() + "\n"
        })
        .collect()
}
