//! Spin applications: what `spin.toml` (versions 1 and 2) and the locked form in registries say, as far as one service can
//! be it: one component behind HTTP. Pure: text in, data out.
//!
//! Variables are filled in with their defaults, outbound hosts become targets of `x-wasm.egress`. What a component imports
//! is not looked at here: a module that needs Spin's own interfaces is refused like any other.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::Value;
use thiserror::Error;

/// An application of one component.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct App {
    /// The component's name.
    pub component: String,
    /// Its module: a path below the manifest (`spin.toml`), or a digest (in a registry).
    pub source: String,
    /// Its environment.
    pub environment: IndexMap<String, String>,
    /// Its variables, for `wasi:config`.
    pub settings: BTreeMap<String, String>,
    /// What it may reach, as `x-wasm.egress` has it.
    pub egress: Vec<String>,
    /// Files it sees, by their place.
    pub files: Vec<Mounted>,
}

/// Files that a component sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// A path below the manifest, or a digest.
    pub source: String,
    /// Where the component sees it.
    pub target: String,
    /// The content itself, in base64, where the application holds it.
    pub inline: Option<String>,
}

/// Why an application cannot be a service.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpinError {
    /// The manifest cannot be read.
    #[error("its Spin manifest is damaged: {0}")]
    Malformed(String),
    /// It is made in a way that a service is not.
    #[error("it is a Spin application that {0}")]
    Unsupported(String),
}

/// Reads `spin.toml`.
pub fn manifest(text: &str) -> Result<App, SpinError> {
    let document: toml::Table = text.parse().map_err(|error: toml::de::Error| malformed(error.message()))?;
    let value = serde_json::to_value(document).map_err(malformed)?;
    let variables = defaults(value.get("variables"));
    if let Some(list) = value.get("component").and_then(Value::as_array) {
        return first_version(&value, list, &variables);
    }
    let triggers = value.get("trigger").and_then(Value::as_object);
    let mut served = Vec::new();
    for (kind, entries) in triggers.into_iter().flatten() {
        let entries = entries.as_array().map_or(std::slice::from_ref(entries), Vec::as_slice);
        served.extend(entries.iter().map(|entry| (kind.clone(), entry)));
    }
    let trigger = only(&served)?;
    route(trigger.get("route"))?;
    let name = trigger.get("component").and_then(Value::as_str);
    let name = name.ok_or_else(|| unsupported("declares its component within its trigger"))?;
    let component = value.pointer(&format!("/component/{name}"));
    let component = component.ok_or_else(|| malformed(format!("there is no component `{name}`")))?;
    app(name, component, "variables", &variables)
}

fn first_version(value: &Value, components: &[Value], variables: &Variables) -> Result<App, SpinError> {
    let kind = value.pointer("/trigger/type").and_then(Value::as_str).unwrap_or("http").to_owned();
    let served: Vec<_> = components.iter().map(|component| (kind.clone(), component)).collect();
    let component = only(&served)?;
    route(component.pointer("/trigger/route"))?;
    let name = component.get("id").and_then(Value::as_str).unwrap_or("main");
    app(name, component, "config", variables)
}

/// Reads the locked form, the configuration of an application in a registry.
pub fn locked(bytes: &[u8]) -> Result<App, SpinError> {
    let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    let variables = defaults(value.get("variables"));
    let list = |key: &str| value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let kind = |trigger: &Value| trigger.get("trigger_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let served: Vec<_> = list("triggers").iter().map(|trigger| (kind(trigger), trigger)).collect();
    let trigger = only(&served)?.get("trigger_config").unwrap_or(&Value::Null);
    route(trigger.get("route"))?;
    let name = trigger.get("component").and_then(Value::as_str).unwrap_or_default();
    let is_it = |component: &&Value| component.get("id").and_then(Value::as_str) == Some(name);
    let component = list("components").iter().find(is_it);
    let component = component.ok_or_else(|| malformed(format!("there is no component `{name}`")))?;
    if component.get("dependencies").and_then(Value::as_object).is_some_and(|needed| !needed.is_empty()) {
        return Err(unsupported("is composed of several components"));
    }
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let digest = component.get("source").and_then(|source| text(source, "digest"));
    let mut mounted = Vec::new();
    for file in component.get("files").and_then(Value::as_array).into_iter().flatten() {
        let (digest, inline) = (text(file, "digest"), text(file, "content"));
        let (Some(target), true) = (text(file, "path"), digest.is_some() || inline.is_some()) else {
            return Err(malformed("a file has no path, or no content"));
        };
        mounted.push(Mounted { source: digest.unwrap_or_default(), target, inline });
    }
    Ok(App {
        component: name.to_owned(),
        source: digest.ok_or_else(|| malformed(format!("component `{name}` has no digest")))?,
        environment: filled(component.get("env"), &variables)?.into_iter().collect(),
        settings: filled(component.get("config"), &variables)?,
        egress: egress(component.pointer("/metadata/allowed_outbound_hosts"), &variables)?,
        files: mounted,
    })
}

fn app(name: &str, component: &Value, settings: &str, variables: &Variables) -> Result<App, SpinError> {
    let source = component.get("source").and_then(Value::as_str).map(str::to_owned);
    let source = source.ok_or_else(|| unsupported("takes its component from elsewhere (`source` is no path)"))?;
    if component.get("dependencies").and_then(Value::as_object).is_some_and(|needed| !needed.is_empty()) {
        return Err(unsupported("is composed of several components"));
    }
    let mut files = Vec::new();
    for file in component.get("files").and_then(Value::as_array).into_iter().flatten() {
        files.push(match file {
            Value::String(pattern) if pattern.contains(['*', '?', '[']) => {
                return Err(unsupported(format!("names its files by a pattern (`{pattern}`)")));
            }
            Value::String(path) => Mounted { source: path.clone(), target: format!("/{path}"), inline: None },
            file => {
                let text = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
                match (text("source"), text("destination")) {
                    (Some(source), Some(target)) => Mounted { source, target, inline: None },
                    _ => return Err(malformed("an entry of `files` has no source and destination")),
                }
            }
        });
    }
    let hosts = component.get("allowed_outbound_hosts").or_else(|| component.get("allowed_http_hosts"));
    Ok(App {
        component: name.to_owned(),
        source,
        environment: filled(component.get("environment"), variables)?.into_iter().collect(),
        settings: filled(component.get(settings), variables)?,
        egress: egress(hosts, variables)?,
        files,
    })
}

/// The one trigger of an application.
fn only<'v>(served: &[(String, &'v Value)]) -> Result<&'v Value, SpinError> {
    match served {
        [(kind, trigger)] if kind == "http" => Ok(trigger),
        [(kind, _)] => Err(unsupported(format!("is started by `{kind}`, not by HTTP"))),
        [] => Err(unsupported("has no trigger")),
        several => Err(unsupported(format!(
            "has {} triggers: make each component a service of its own, with its own `spin.toml`",
            several.len()
        ))),
    }
}

/// A service has all of its port.
fn route(route: Option<&Value>) -> Result<(), SpinError> {
    match route.and_then(Value::as_str) {
        Some("/...") => Ok(()),
        Some(other) => Err(unsupported(format!("serves the route `{other}` only; a service serves `/...`"))),
        None => Err(unsupported("has a private route")),
    }
}

type Variables = BTreeMap<String, Option<String>>;

fn defaults(variables: Option<&Value>) -> Variables {
    let variables = variables.and_then(Value::as_object).into_iter().flatten();
    variables
        .map(|(name, variable)| (name.clone(), variable.get("default").and_then(Value::as_str).map(str::to_owned)))
        .collect()
}

/// A table of templates, filled in.
fn filled(table: Option<&Value>, variables: &Variables) -> Result<BTreeMap<String, String>, SpinError> {
    let entries = table.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(name, value)| Ok((name.clone(), fill(value.as_str().unwrap_or_default(), variables)?))).collect()
}

fn fill(template: &str, variables: &Variables) -> Result<String, SpinError> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or_else(|| malformed(format!("`{template}` is not closed")))?;
        let name = name.trim();
        let value = variables.get(name).ok_or_else(|| malformed(format!("there is no variable `{name}`")))?;
        let value = value.as_deref().ok_or_else(|| {
            unsupported(format!("needs a value for its variable `{name}`, which has no default: give it one there"))
        })?;
        text += before;
        text += value;
        rest = after;
    }
    Ok(text + rest)
}

/// `https://api.example.com` → `api.example.com:443`. What cannot be said as narrowly is refused, never widened.
fn egress(hosts: Option<&Value>, variables: &Variables) -> Result<Vec<String>, SpinError> {
    let mut targets = Vec::new();
    for host in hosts.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let host = fill(host, variables)?;
        if host == "insecure:allow-all" || host == "*://*:*" {
            targets.push("*".to_owned());
            continue;
        }
        let (scheme, rest) = host.split_once("://").unwrap_or(("https", &host));
        let authority = rest.split('/').next().unwrap_or(rest);
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !name.is_empty() && !port.contains(']') => (name, Some(port)),
            _ => (authority, None),
        };
        if name == "self" || name.ends_with(".spin.internal") {
            continue;
        }
        let port = port.or(match scheme {
            "http" => Some("80"),
            "https" => Some("443"),
            "redis" => Some("6379"),
            "postgres" => Some("5432"),
            "mysql" => Some("3306"),
            "mqtt" => Some("1883"),
            _ => None,
        });
        match port {
            Some(port) if name != "*" && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                targets.push(format!("{name}:{port}"));
            }
            _ => {
                return Err(unsupported(format!(
                    "allows `{host}` in `allowed_outbound_hosts`: write hosts and ports, or `*://*:*`"
                )));
            }
        }
    }
    Ok(targets)
}

fn malformed(why: impl ToString) -> SpinError {
    SpinError::Malformed(why.to_string())
}

fn unsupported(what: impl Into<String>) -> SpinError {
    SpinError::Unsupported(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = r#"
spin_manifest_version = 2
[application]
name = "greeter"
[variables]
who = { default = "world" }
[[trigger.http]]
route = "/..."
component = "hello"
[component.hello]
source = "app.wasm"
environment = { MODE = "fast" }
files = [{ source = "assets", destination = "/static" }, "one.txt"]
allowed_outbound_hosts = ["https://api.example.com", "redis://db", "http://*.example.com:8080", "http://self"]
[component.hello.variables]
greeting = "hello {{ who }}!"
"#;

    #[test]
    fn a_manifest_of_one_component_is_a_service() {
        let app = manifest(APP).unwrap();
        assert_eq!((app.component.as_str(), app.source.as_str()), ("hello", "app.wasm"));
        assert_eq!(app.environment["MODE"], "fast");
        assert_eq!(app.settings["greeting"], "hello world!");
        assert_eq!(app.egress, ["api.example.com:443", "db:6379", "*.example.com:8080"]);
        let mounted =
            |source: &str, target: &str| Mounted { source: source.into(), target: target.into(), inline: None };
        assert_eq!(app.files, [mounted("assets", "/static"), mounted("one.txt", "/one.txt")]);
    }

    #[test]
    fn the_first_version_is_read_as_well() {
        let app = manifest(
            "spin_version = \"1\"\nname = \"x\"\ntrigger = { type = \"http\", base = \"/\" }\n[[component]]\nid = \"a\"\n\
             source = \"a.wasm\"\n[component.trigger]\nroute = \"/...\"\n[component.config]\nk = \"v\"\n",
        )
        .unwrap();
        assert_eq!((app.source.as_str(), app.settings["k"].as_str()), ("a.wasm", "v"));
    }

    #[test]
    fn the_locked_form_is_read() {
        let app = locked(
            br#"{"spin_lock_version": 1, "variables": {"who": {"default": "you"}},
                "triggers": [{"id": "t", "trigger_type": "http", "trigger_config": {"component": "a", "route": "/..."}}],
                "components": [{"id": "a", "metadata": {"allowed_outbound_hosts": ["*://*:*"]},
                    "source": {"content_type": "application/wasm", "digest": "sha256:00"},
                    "env": {"E": "{{who}}"}, "files": [{"digest": "sha256:11", "path": "/x"}], "config": {"k": "v"}}]}"#,
        )
        .unwrap();
        assert_eq!((app.source.as_str(), app.environment["E"].as_str()), ("sha256:00", "you"));
        assert_eq!(app.egress, ["*"]);
        assert_eq!(app.files, [Mounted { source: "sha256:11".into(), target: "/x".into(), inline: None }]);
    }

    #[test]
    fn what_a_service_cannot_be_is_told() {
        for (from, to, words) in [
            ("who = { default = \"world\" }", "who = { required = true }", "variable `who`"),
            ("route = \"/...\"", "route = \"/api\"", "route `/api`"),
            ("[[trigger.http]]", "[[trigger.redis]]", "started by `redis`"),
            ("\"one.txt\"", "\"*.txt\"", "`*.txt`"),
            ("http://self", "https://*", "`https://*`"),
            ("component = \"hello\"", "component = \"other\"", "no component `other`"),
            ("[application]", "[application", "damaged"),
        ] {
            let changed = APP.replace(from, to);
            assert_ne!(changed, APP);
            let error = manifest(&changed).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let two = format!("{APP}\n[[trigger.http]]\nroute = \"/b\"\ncomponent = \"b\"\n");
        assert!(manifest(&two).unwrap_err().to_string().contains("2 triggers"));
    }
}
