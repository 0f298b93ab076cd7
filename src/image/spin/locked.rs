//! The locked form of an application, its configuration in a registry.

use serde_json::Value;

use super::hosts::hosts;
use super::variables::Variables;
use super::{App, Mounted, Part, SpinError, assemble, check_alone, check_name, malformed, table, texts};
use crate::model::application::AppSettings;

/// Reads the locked form; `given` answers with values of variables from outside.
pub fn locked(bytes: &[u8], given: &dyn Fn(&str) -> Option<String>) -> Result<App, SpinError> {
    let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let variables = Variables::read(value.get("variables"), given);
    let list = |key: &str| value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let triggers: Vec<_> = list("triggers")
        .iter()
        .map(|trigger| {
            let kind = trigger.get("trigger_type").and_then(Value::as_str).unwrap_or_default();
            (kind.to_owned(), trigger.get("trigger_config").unwrap_or(&Value::Null))
        })
        .collect();
    let base = value.pointer("/metadata/triggers/http/base").or_else(|| value.pointer("/metadata/trigger/base"));
    assemble(base, &triggers, |at| {
        let name = triggers[at].1.get("component").and_then(Value::as_str).unwrap_or_default();
        let is_it = |component: &&Value| component.get("id").and_then(Value::as_str) == Some(name);
        let component = list("components").iter().find(is_it);
        part(name, component.ok_or_else(|| malformed(format!("there is no component `{name}`")))?, &variables)
    })
}

fn part(name: &str, component: &Value, variables: &Variables) -> Result<Part, SpinError> {
    check_name(name)?;
    check_alone(name, component)?;
    let source = component.pointer("/source/digest").and_then(Value::as_str);
    let files = component.get("files").and_then(Value::as_array).into_iter().flatten().map(mounted);
    Ok(Part {
        name: name.to_owned(),
        source: source.ok_or_else(|| malformed(format!("component `{name}` has no digest")))?.to_owned(),
        environment: table(component.get("env")).map(|(name, value)| (name.clone(), value.to_owned())).collect(),
        settings: AppSettings {
            variables: variables.fill_table(component.get("config"))?,
            hosts: hosts(component.pointer("/metadata/allowed_outbound_hosts"), variables)?,
            stores: texts(component.pointer("/metadata/key_value_stores")).map(str::to_owned).collect(),
        },
        files: files.collect::<Result<_, _>>()?,
        // The files that are excluded are not in it.
        excluded: Vec::new(),
    })
}

fn mounted(file: &Value) -> Result<Mounted, SpinError> {
    let text = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
    let target = text("path").ok_or_else(|| malformed("a file has no path"))?;
    // Spin writes the content beside the digest where it is short; then no layer has it.
    match (text("inline"), text("digest")) {
        (Some(content), _) => Ok(Mounted::Inline { content, target }),
        (None, Some(digest)) => Ok(Mounted::Stored { digest, target }),
        (None, None) => Err(malformed(format!("the file `{target}` has no content"))),
    }
}
