//! `spin.toml`.

use serde_json::Value;

use super::hosts::{hosts, http_hosts};
use super::variables::Variables;
use super::{App, Mounted, Part, SpinError, assemble, check_alone, check_name, malformed, table, texts, unsupported};
use crate::model::application::AppSettings;

/// Reads `spin.toml`; `given` answers with values of variables from outside.
pub fn manifest(text: &str, given: &dyn Fn(&str) -> Option<String>) -> Result<App, SpinError> {
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| malformed(error.message()))?;
    let value = serde_json::to_value(document).map_err(malformed)?;
    let variables = Variables::read(value.get("variables"), given);
    if let Some(components) = value.get("component").and_then(Value::as_array) {
        return first_version(&value, components, &variables);
    }
    let mut triggers = Vec::new();
    for (kind, entries) in value.get("trigger").and_then(Value::as_object).into_iter().flatten() {
        let entries = entries.as_array().map_or(std::slice::from_ref(entries), Vec::as_slice);
        triggers.extend(entries.iter().map(|entry| (kind.clone(), entry)));
    }
    assemble(value.pointer("/application/trigger/http/base"), &triggers, |at| match triggers[at].1.get("component") {
        Some(Value::String(name)) => {
            let component = value.get("component").and_then(|components| components.get(name));
            let component = component.ok_or_else(|| malformed(format!("there is no component `{name}`")))?;
            part(name, component, "variables", &variables)
        }
        // Without a name of its own; the number keeps it apart from others.
        Some(component @ Value::Object(_)) => part(&format!("inline-{at}"), component, "variables", &variables),
        _ => Err(malformed("a trigger names no `component`")),
    })
}

fn first_version(value: &Value, components: &[Value], variables: &Variables) -> Result<App, SpinError> {
    let kind = value.pointer("/trigger/type").and_then(Value::as_str).unwrap_or("http");
    let trigger = |component: &'_ Value| component.get("trigger").cloned().unwrap_or_default();
    let triggers: Vec<Value> = components.iter().map(trigger).collect();
    let triggers: Vec<_> = triggers.iter().map(|trigger| (kind.to_owned(), trigger)).collect();
    assemble(value.pointer("/trigger/base"), &triggers, |at| {
        let name = components[at].get("id").and_then(Value::as_str).unwrap_or_default();
        part(name, &components[at], "config", variables)
    })
}

fn part(name: &str, component: &Value, settings: &str, variables: &Variables) -> Result<Part, SpinError> {
    check_name(name)?;
    check_alone(name, component)?;
    let source = component.get("source").and_then(Value::as_str).map(str::to_owned);
    let source =
        source.ok_or_else(|| unsupported(format!("takes `{name}` from elsewhere (its `source` is no path)")))?;
    let files = component.get("files").and_then(Value::as_array).into_iter().flatten().map(mounted);
    let hosts = match component.get("allowed_outbound_hosts") {
        None => http_hosts(component.get("allowed_http_hosts"), variables)?,
        listed => hosts(listed, variables)?,
    };
    Ok(Part {
        name: name.to_owned(),
        source,
        environment: table(component.get("environment"))
            .map(|(name, value)| (name.clone(), value.to_owned()))
            .collect(),
        settings: AppSettings {
            variables: variables.fill_table(component.get(settings))?,
            hosts,
            stores: texts(component.get("key_value_stores")).map(str::to_owned).collect(),
        },
        files: files.collect::<Result<_, _>>()?,
        excluded: texts(component.get("exclude_files")).map(str::to_owned).collect(),
    })
}

fn mounted(file: &Value) -> Result<Mounted, SpinError> {
    if let Value::String(pattern) = file {
        return Ok(Mounted::Matching(pattern.clone()));
    }
    let text = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
    match (text("source"), text("destination")) {
        (Some(source), Some(target)) => Ok(Mounted::Placed { source, target }),
        _ => Err(malformed("an entry of `files` has no source and destination")),
    }
}
